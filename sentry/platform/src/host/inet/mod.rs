//! Inet sockets of the host, for guests in host network mode.
//!
//! All sockets are non-blocking and closed on exec. Addresses, option values
//! and control messages are bytes as the guest gave them or gets them: the
//! host checks them as it checks any process's. Which families, options and
//! ioctls are let through is said in [`allowed`].

pub mod allowed;
mod network;
mod route;

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use syscall_tables::Errno;

pub use network::HostNetwork;
pub use route::RouteSocket;

/// Room for any socket address.
const ADDR_MAX: usize = size_of::<libc::sockaddr_storage>();
/// Room for received control messages, in words.
const CONTROL_WORDS: usize = 64;

fn result(value: isize) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_| Errno::from(std::io::Error::last_os_error()))
}

/// Repeats `call` while a signal interrupts it before it has done anything.
fn retry(mut call: impl FnMut() -> isize) -> Result<usize, Errno> {
    loop {
        match result(call()) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

fn fresh(value: usize) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(value).map_err(|_| Errno::EMFILE)?;
    // SAFETY: the host has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `socket(2)` for families and types of guests.
pub fn socket(family: u16, kind: u32, protocol: u32) -> Result<OwnedFd, Errno> {
    let kind = kind.cast_signed() | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes plain numbers.
    let fd = unsafe { libc::socket(family.into(), kind, protocol.cast_signed()) };
    fresh(result(fd as isize)?)
}

fn addr_len(addr: &[u8]) -> libc::socklen_t {
    // At most a sockaddr_storage; longer ones are refused by the host.
    addr.len().min(ADDR_MAX + 1) as libc::socklen_t
}

/// `bind(2)`.
pub fn bind(fd: impl AsFd, addr: &[u8]) -> Result<(), Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the host reads `addr`, which is borrowed for the call.
    result(unsafe { libc::bind(fd, addr.as_ptr().cast(), addr_len(addr)) } as isize)?;
    Ok(())
}

/// `connect(2)`; `EINPROGRESS` while it goes on in the background.
pub fn connect(fd: impl AsFd, addr: &[u8]) -> Result<(), Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: as in `bind`.
    retry(|| unsafe { libc::connect(fd, addr.as_ptr().cast(), addr_len(addr)) } as isize)?;
    Ok(())
}

/// `listen(2)`.
pub fn listen(fd: impl AsFd, backlog: i32) -> Result<(), Errno> {
    // SAFETY: takes plain numbers.
    result(unsafe { libc::listen(fd.as_fd().as_raw_fd(), backlog) } as isize)?;
    Ok(())
}

/// Calls `call` with room for an address and answers its value and the
/// address.
fn with_addr(
    call: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> i32,
) -> Result<(usize, Vec<u8>), Errno> {
    let mut storage = [0_u8; ADDR_MAX];
    let mut len = ADDR_MAX as libc::socklen_t;
    let value = call(storage.as_mut_ptr().cast(), &raw mut len);
    let value = result(value as isize)?;
    let addr = storage.get(..len as usize).unwrap_or(&storage);
    Ok((value, addr.to_vec()))
}

/// `accept4(2)`: the connection and the peer's address.
pub fn accept(fd: impl AsFd) -> Result<(OwnedFd, Vec<u8>), Errno> {
    let fd = fd.as_fd().as_raw_fd();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    loop {
        // SAFETY: room and length describe a live buffer.
        match with_addr(|addr, len| unsafe { libc::accept4(fd, addr, len, flags) }) {
            Err(Errno::EINTR) => {}
            Ok((accepted, addr)) => return Ok((fresh(accepted)?, addr)),
            Err(errno) => return Err(errno),
        }
    }
}

/// `getsockname(2)`.
pub fn local_addr(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: as in `accept`.
    Ok(with_addr(|addr, len| unsafe { libc::getsockname(fd, addr, len) })?.1)
}

/// `getpeername(2)`.
pub fn peer_addr(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: as in `accept`.
    Ok(with_addr(|addr, len| unsafe { libc::getpeername(fd, addr, len) })?.1)
}

/// `shutdown(2)`.
pub fn shutdown(fd: impl AsFd, how: i32) -> Result<(), Errno> {
    // SAFETY: takes plain numbers.
    result(unsafe { libc::shutdown(fd.as_fd().as_raw_fd(), how) } as isize)?;
    Ok(())
}

/// `setsockopt(2)` for options of [`allowed::OPTIONS`]; others end the sentry.
pub fn set_option(fd: impl AsFd, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the host reads `value`, which is borrowed for the call. No
    // option on the list holds pointers.
    let done = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level.cast_signed(),
            name.cast_signed(),
            value.as_ptr().cast(),
            len,
        )
    };
    result(done as isize)?;
    Ok(())
}

/// `getsockopt(2)` for options of [`allowed::OPTIONS`] with at most `max_len`
/// bytes; others end the sentry.
pub fn get_option(fd: impl AsFd, level: u32, name: u32, max_len: usize) -> Result<Vec<u8>, Errno> {
    /// More than any option on the list has.
    const OPTION_MAX: usize = 4096;
    let mut value = vec![0_u8; max_len.min(OPTION_MAX)];
    let mut len = value.len() as libc::socklen_t;
    // SAFETY: room and length describe a live buffer; no option on the list
    // reads more than that.
    let done = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level.cast_signed(),
            name.cast_signed(),
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    result(done as isize)?;
    value.truncate(len as usize);
    Ok(value)
}

/// What [`receive_message`] got.
pub struct Message {
    /// Length as the host says it: with `MSG_TRUNC` possibly more than the
    /// buffer holds.
    pub len: usize,
    pub from: Vec<u8>,
    /// Control messages: level, type, payload.
    pub control: Vec<(i32, i32, Vec<u8>)>,
    pub flags: u32,
}

/// `recv(2)`.
pub fn receive(fd: impl AsFd, buf: &mut [u8], flags: u32) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    let (at, len) = (buf.as_mut_ptr().cast(), buf.len());
    // SAFETY: `buf` is borrowed for the call.
    retry(|| unsafe { libc::recv(fd, at, len, flags.cast_signed()) })
}

/// `recvmsg(2)` into one buffer.
pub fn receive_message(fd: impl AsFd, buf: &mut [u8], flags: u32) -> Result<Message, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // Words, for the alignment of the headers within.
    let mut control = [0_u64; CONTROL_WORDS];
    let mut name = [0_u8; ADDR_MAX];
    let mut buffer = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: all zeros is a valid value of this plain C struct.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut buffer;
    header.msg_iovlen = 1;
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = ADDR_MAX as libc::socklen_t;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header describes live buffers. A failed call leaves it as
    // it is.
    let len = retry(|| unsafe { libc::recvmsg(fd, &raw mut header, flags.cast_signed()) })?;
    let from = name.get(..header.msg_namelen as usize).unwrap_or(&name);
    Ok(Message {
        len,
        from: from.to_vec(),
        control: take_control(&header),
        flags: header.msg_flags.cast_unsigned(),
    })
}

fn take_control(header: &libc::msghdr) -> Vec<(i32, i32, Vec<u8>)> {
    let mut messages = Vec::new();
    // SAFETY: the host has filled the control buffer and its length, which
    // these macros walk; the buffer is aligned.
    unsafe {
        let mut item = libc::CMSG_FIRSTHDR(header);
        while !item.is_null() {
            let data = libc::CMSG_DATA(item);
            let header_len = data.addr() - item.addr();
            let len = (*item).cmsg_len.saturating_sub(header_len);
            let payload = std::slice::from_raw_parts(data, len).to_vec();
            messages.push(((*item).cmsg_level, (*item).cmsg_type, payload));
            item = libc::CMSG_NXTHDR(header, item);
        }
    }
    messages
}

/// `send(2)`; never raises `SIGPIPE`.
pub fn send(fd: impl AsFd, data: &[u8], flags: u32) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    let flags = flags.cast_signed() | libc::MSG_NOSIGNAL;
    // SAFETY: `data` is borrowed for the call.
    retry(|| unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), flags) })
}

/// `sendmsg(2)` of one buffer with control messages (level, type, payload) of
/// [`allowed::SENT_CONTROL`]; never raises `SIGPIPE`.
pub fn send_message(
    fd: impl AsFd,
    data: &[u8],
    to: Option<&[u8]>,
    control: &[(i32, i32, Vec<u8>)],
    flags: u32,
) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    let mut buffer = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    let packed = pack_control(control)?;
    // SAFETY: all zeros is a valid value of this plain C struct.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut buffer;
    header.msg_iovlen = 1;
    if let Some(to) = to {
        header.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_namelen = addr_len(to);
    }
    if !packed.is_empty() {
        header.msg_control = packed.as_ptr().cast_mut().cast();
        header.msg_controllen = size_of_val(packed.as_slice());
    }
    let flags = flags.cast_signed() | libc::MSG_NOSIGNAL;
    // SAFETY: the header describes live buffers, which the host only reads.
    retry(|| unsafe { libc::sendmsg(fd, &raw const header, flags) })
}

/// Control messages as the host wants them, in words for their alignment.
fn pack_control(control: &[(i32, i32, Vec<u8>)]) -> Result<Vec<u64>, Errno> {
    let mut bytes: Vec<u8> = Vec::new();
    for (level, kind, data) in control {
        if !allowed::SENT_CONTROL.contains(&(*level, *kind)) {
            return Err(Errno::EINVAL);
        }
        let len = 16_u64.saturating_add(data.len() as u64);
        bytes.extend_from_slice(&len.to_ne_bytes());
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let words = bytes.chunks_exact(8).map(|word| {
        let mut value = [0; 8];
        value.copy_from_slice(word);
        u64::from_ne_bytes(value)
    });
    Ok(words.collect())
}

/// `poll(2)` without waiting: the events of `interest` and the error states,
/// as bits of `poll(2)`.
pub fn poll(fd: impl AsFd, interest: i16) -> Result<u32, Errno> {
    let mut item = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: interest,
        revents: 0,
    };
    // SAFETY: one live element.
    retry(|| unsafe { libc::poll(&raw mut item, 1, 0) } as isize)?;
    Ok(u32::from(item.revents.cast_unsigned()))
}

/// One of [`allowed::SOCKET_QUERIES`].
pub fn query_int(fd: impl AsFd, command: u32) -> Result<usize, Errno> {
    if !allowed::SOCKET_QUERIES.contains(&command) {
        return Err(Errno::ENOTTY);
    }
    let mut value: libc::c_int = 0;
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the commands of the list fill one int.
    result(unsafe { libc::ioctl(fd, command.into(), &raw mut value) } as isize)?;
    usize::try_from(value).map_err(|_| Errno::EINVAL)
}

/// `struct ifreq`.
pub type InterfaceRequest = [u8; 40];

/// One of [`allowed::INTERFACE_QUERIES`].
pub fn query_interface(
    fd: impl AsFd,
    command: u32,
    request: &mut InterfaceRequest,
) -> Result<(), Errno> {
    if !allowed::INTERFACE_QUERIES.contains(&command) {
        return Err(Errno::ENOTTY);
    }
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the commands of the list read and fill one struct ifreq of 40
    // bytes, in which they take no pointers.
    let done = unsafe { libc::ioctl(fd, command.into(), request.as_mut_ptr()) };
    result(done as isize)?;
    Ok(())
}

/// `SIOCGIFCONF`: a `struct ifreq` for each interface with an IPv4 address, at
/// most `max`.
pub fn interfaces(fd: impl AsFd, max: usize) -> Result<Vec<InterfaceRequest>, Errno> {
    #[repr(C)]
    struct IfConf {
        len: libc::c_int,
        buf: *mut InterfaceRequest,
    }
    let max = max.min(1024);
    let mut list = vec![[0; size_of::<InterfaceRequest>()]; max];
    let mut conf = IfConf {
        len: size_of_val(list.as_slice()) as libc::c_int,
        buf: list.as_mut_ptr(),
    };
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: buffer and length describe `list`, which lives until the call
    // returns.
    let done = unsafe { libc::ioctl(fd, allowed::SIOCGIFCONF.into(), &raw mut conf) };
    result(done as isize)?;
    let filled = usize::try_from(conf.len).unwrap_or(0) / size_of::<InterfaceRequest>();
    list.truncate(filled);
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 127.0.0.1 with a port of the host's choice.
    fn loopback() -> [u8; 16] {
        let mut addr = [0; 16];
        addr[0] = 2;
        addr[4] = 127;
        addr[7] = 1;
        addr
    }

    #[test]
    fn a_connection_is_made_in_the_background() {
        let listener = socket(2, 1, 0).expect("socket");
        bind(&listener, &loopback()).expect("bind");
        listen(&listener, 4).expect("listen");
        assert_eq!(accept(&listener).err(), Some(Errno::EAGAIN));
        let addr = local_addr(&listener).expect("name");
        let client = socket(2, 1, 0).expect("socket");
        match connect(&client, &addr) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(errno) => panic!("{errno}"),
        }
        let (server, peer) = accept(&listener).expect("accept");
        assert_eq!(peer, local_addr(&client).expect("name"));
        assert_eq!(peer_addr(&client).expect("peer"), addr);
        assert_eq!(send(&client, b"hello", 0), Ok(5));
        assert_eq!(query_int(&server, libc::FIONREAD as u32), Ok(5));
        let mut buf = [0; 16];
        assert_eq!(receive(&server, &mut buf, 0), Ok(5));
        assert_eq!(receive(&server, &mut buf, 0), Err(Errno::EAGAIN));
        shutdown(&client, libc::SHUT_WR).expect("shutdown");
        assert_eq!(receive(&server, &mut buf, 0), Ok(0));
    }

    #[test]
    fn datagrams_bring_address_control_and_full_length() {
        let receiver = socket(2, 2, 0).expect("socket");
        bind(&receiver, &loopback()).expect("bind");
        let on = 1_i32.to_ne_bytes();
        set_option(&receiver, 0, libc::IP_RECVTTL as u32, &on).expect("option");
        let sender = socket(2, 2, 0).expect("socket");
        let to = local_addr(&receiver).expect("name");
        let ttl = (libc::SOL_IP, libc::IP_TTL, 9_i32.to_ne_bytes().to_vec());
        let sent = send_message(&sender, b"datagram", Some(&to), &[ttl], 0);
        assert_eq!(sent, Ok(8));
        let mut buf = [0; 4];
        let flags = libc::MSG_TRUNC as u32;
        let message = receive_message(&receiver, &mut buf, flags).expect("a datagram");
        assert_eq!((message.len, &buf), (8, b"data"));
        assert_ne!(message.flags & flags, 0);
        let got = message.control.first().expect("a control message");
        assert_eq!((got.0, got.1, got.2.first()), (0, libc::IP_TTL, Some(&9)));
        let mark = (libc::SOL_SOCKET, libc::SO_MARK, vec![0; 4]);
        let sent = send_message(&sender, b"x", Some(&to), &[mark], 0);
        assert_eq!(sent, Err(Errno::EINVAL));
    }

    #[test]
    fn interfaces_are_listed_and_queried() {
        let fd = socket(2, 2, 0).expect("socket");
        let list = interfaces(&fd, 16).expect("list");
        for mut request in list {
            assert_eq!(query_interface(&fd, 0x8933, &mut request), Ok(()));
        }
        let mut request = [0; 40];
        let set_flags = 0x8914;
        let refused = query_interface(&fd, set_flags, &mut request);
        assert_eq!(refused, Err(Errno::ENOTTY));
    }
}
