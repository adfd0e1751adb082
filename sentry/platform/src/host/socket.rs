//! Unix sockets of the sentry itself: control connections and descriptors
//! from and to helpers.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg};
use syscall_tables::Errno;

use super::errno;

/// Most descriptors of one message that [`receive`] takes; the host drops
/// further ones.
pub const MAX_FDS: usize = 16;

/// What [`receive`] got.
#[derive(Debug)]
pub struct Received {
    /// 0 at the end of the stream.
    pub len_bytes: usize,
    pub fds: Vec<OwnedFd>,
    /// Bytes or descriptors did not fit and are lost.
    pub is_truncated: bool,
}

/// A connected pair of unix sockets, closed on exec.
pub fn pair(kind: SockType) -> Result<(OwnedFd, OwnedFd), Errno> {
    nix::sys::socket::socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .map_err(errno)
}

/// Sends `bytes` with `fds`; never raises `SIGPIPE`.
pub fn send(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: MsgFlags,
) -> Result<usize, Errno> {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &control };
    loop {
        let sent = sendmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            flags | MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Err(nix::Error::EINTR) => {}
            done => return done.map_err(errno),
        }
    }
}

/// Receives bytes and at most [`MAX_FDS`] descriptors, which are closed on
/// exec.
pub fn receive(socket: impl AsFd, bytes: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
    const CONTROL_WORDS: usize = 1 + CMSG_HEADER_WORDS + MAX_FDS.div_ceil(2);
    let socket = socket.as_fd().as_raw_fd();
    loop {
        // Words, for the alignment of the headers within.
        let mut control = [0_u64; CONTROL_WORDS];
        let mut buffer = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: all zeros is a valid value of this plain C struct.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut buffer;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = control_len_bytes();
        let flags = (flags | MsgFlags::MSG_CMSG_CLOEXEC).bits();
        // SAFETY: the header describes `bytes` and `control`, both borrowed
        // for the call.
        let len = unsafe { libc::recvmsg(socket, &raw mut header, flags) };
        let Ok(len_bytes) = usize::try_from(len) else {
            let err = Errno::from(std::io::Error::last_os_error());
            if err == Errno::EINTR {
                continue;
            }
            return Err(err);
        };
        return Ok(Received {
            len_bytes,
            fds: take_fds(&header),
            is_truncated: header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        });
    }
}

/// `sizeof(struct cmsghdr)` in words.
const CMSG_HEADER_WORDS: usize = 2;

/// Room for exactly [`MAX_FDS`] descriptors.
fn control_len_bytes() -> usize {
    // SAFETY: a computation without memory accesses.
    let len = unsafe { libc::CMSG_LEN((MAX_FDS * size_of::<i32>()) as u32) };
    len as usize
}

/// Takes over the descriptors of a received message.
fn take_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the host has filled the control buffer and its length, which
    // these macros walk; the buffer is aligned. Descriptors in it have just
    // been made for this process, and nobody else knows them.
    unsafe {
        let mut item = libc::CMSG_FIRSTHDR(header);
        while !item.is_null() {
            if (*item).cmsg_level == libc::SOL_SOCKET && (*item).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(item);
                let header_len = data.addr() - item.addr();
                let count = ((*item).cmsg_len - header_len) / size_of::<i32>();
                for index in 0..count {
                    let fd = data.cast::<i32>().add(index).read_unaligned();
                    fds.push(OwnedFd::from_raw_fd(fd));
                }
            }
            item = libc::CMSG_NXTHDR(header, item);
        }
    }
    fds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_pass_and_too_many_are_reported() {
        let (left, right) = pair(SockType::SeqPacket).expect("pair");
        let fd = left.as_fd();
        let sent = send(&left, b"x", &[fd, fd], MsgFlags::empty());
        assert_eq!(sent, Ok(1));
        let mut buf = [0; 8];
        let received = receive(&right, &mut buf, MsgFlags::empty()).expect("a message");
        assert_eq!((received.len_bytes, received.fds.len()), (1, 2));
        assert!(!received.is_truncated);
        send(
            &left,
            b"long message",
            &[fd; MAX_FDS + 1],
            MsgFlags::empty(),
        )
        .expect("send");
        let received = receive(&right, &mut buf, MsgFlags::empty()).expect("a message");
        assert!(received.is_truncated);
        assert_eq!(received.fds.len(), MAX_FDS);
        let nothing = receive(&right, &mut buf, MsgFlags::MSG_DONTWAIT);
        assert_eq!(nothing.err(), Some(Errno::EAGAIN));
    }
}
