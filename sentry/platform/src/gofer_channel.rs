//! The sentry's end of a connection to a gofer, as far as it takes unsafe
//! code: the mapped ring, sleeping on its words, and fds from the socket.
//!
//! What the words mean is the business of `gofer-proto`, whose client the
//! kernel puts on top (`sentry-kernel::fs::gofer`). After [`GoferPort::new`]
//! this needs no other host calls than `futex` and `recvmsg`.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use syscall_tables::Errno;

use crate::executor::blocking;
use crate::futex::{self, Scope};

/// How long a caller spins for its reply before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// What the gofer's socket held.
#[derive(Debug)]
pub enum Received {
    /// A message's tag and fd; no fd if this process has no room for it.
    Fd { tag: u64, fd: Option<OwnedFd> },
    /// No message at the moment.
    Nothing,
    /// The gofer is gone, or sent what it never should.
    Gone,
}

/// A mapped ring with its socket.
#[derive(Debug)]
pub struct GoferPort {
    ring: MmapRaw,
    socket: OwnedFd,
    spin: Duration,
}

impl GoferPort {
    /// Maps `ring`, a memfd of `len_bytes` bytes, and takes over `socket`
    /// (`SOCK_SEQPACKET`).
    ///
    /// # Errors
    /// `EPERM` if the memfd is not sealed against shrinking: only then can no
    /// one make this process fault on it. `EINVAL` for a wrong size.
    pub fn new(ring: OwnedFd, socket: OwnedFd, len_bytes: usize) -> Result<Self, Errno> {
        let seals = fcntl(&ring, FcntlArg::F_GET_SEALS).map_err(crate::host::errno)?;
        if !SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(Errno::EPERM);
        }
        let size = nix::sys::stat::fstat(&ring)
            .map_err(crate::host::errno)?
            .st_size;
        if usize::try_from(size) != Ok(len_bytes) || len_bytes == 0 {
            return Err(Errno::EINVAL);
        }
        let ring = MmapOptions::new()
            .len(len_bytes)
            .map_raw(&ring)
            .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(0)))?;
        // With one CPU to run on, spinning only keeps the gofer from it.
        let cpus = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
        let alone = cpus.is_ok_and(|set| {
            let count = nix::sched::CpuSet::count();
            (0..count)
                .filter(|&cpu| set.is_set(cpu) == Ok(true))
                .count()
                < 2
        });
        Ok(Self {
            ring,
            socket,
            spin: if alone { Duration::ZERO } else { SPIN },
        })
    }

    /// The ring as atomic words: each access happens exactly as written,
    /// whatever the other process does to the memory.
    pub fn words(&self) -> &[AtomicU32] {
        let (start, len) = (self.ring.as_ptr().cast::<AtomicU32>(), self.ring.len() / 4);
        // SAFETY: the mapping is page aligned, readable, writable, at least
        // `len * 4` bytes long and lives as long as `self`; its memfd is
        // sealed against shrinking, so every page stays accessible. Atomics
        // may be changed through shared references, by other processes too.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// Sleeps while `word` is `expected`, `timeout` at most; the worker's
    /// other tasks go on elsewhere. May return early without cause.
    pub fn wait(&self, word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        blocking(|| {
            // Interrupted, changed or timed out: the caller looks again.
            let _ = futex::wait(word, expected, timeout, Scope::Shared);
        });
    }

    /// Wakes up to `count` sleepers of `word` in either process.
    pub fn wake(&self, word: &AtomicU32, count: u32) {
        futex::wake(word, count, Scope::Shared);
    }

    /// How long a wait may spin before it sleeps.
    pub fn spin(&self) -> Duration {
        self.spin
    }

    /// Takes a message from the socket without waiting for one.
    pub fn receive(&self) -> Received {
        loop {
            match self.try_receive() {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Received::Nothing,
                Err(_) => return Received::Gone,
                Ok(received) => return received,
            }
        }
    }

    fn try_receive(&self) -> Result<Received, Errno> {
        /// Room for one fd, aligned as a control message must be.
        #[repr(C, align(8))]
        struct Control([MaybeUninit<u8>; 64]);

        let mut tag = [0u8; 8];
        let mut control = Control([MaybeUninit::uninit(); 64]);
        let mut iov = libc::iovec {
            iov_base: tag.as_mut_ptr().cast(),
            iov_len: tag.len(),
        };
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        // Without the padding, so that a second fd can't slip in.
        // SAFETY: CMSG_LEN only computes.
        message.msg_controllen = unsafe { libc::CMSG_LEN(4) } as usize;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: every pointer in `message` leads to a buffer above of the
        // length given with it, and all outlive the call.
        let count = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, flags) };
        if count < 0 {
            let err = std::io::Error::last_os_error();
            return Err(Errno::from_raw(err.raw_os_error().unwrap_or(0)));
        }
        // SAFETY: the kernel has filled in `message`, its control buffer is
        // still there, and the macros stay within the length it left there.
        let fd = unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            if header.is_null()
                || (*header).cmsg_level != libc::SOL_SOCKET
                || (*header).cmsg_type != libc::SCM_RIGHTS
                || (*header).cmsg_len != libc::CMSG_LEN(4) as usize
            {
                None
            } else {
                let fd = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
                // Fresh from the kernel: nobody else owns it.
                (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
            }
        };
        if usize::try_from(count) != Ok(tag.len()) || message.msg_flags & libc::MSG_TRUNC != 0 {
            return Ok(Received::Gone);
        }
        Ok(Received::Fd {
            tag: u64::from_ne_bytes(tag),
            fd,
        })
    }

    /// The socket, for whoever waits for its end by the host poll thread.
    pub fn socket(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::atomic::Ordering::SeqCst;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
    };

    use super::*;

    fn memfd(len: i64, seals: SealFlag) -> OwnedFd {
        let fd = memfd_create("ring", MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC)
            .expect("memfd");
        nix::unistd::ftruncate(&fd, len).expect("size");
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).expect("seal");
        fd
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .expect("socket pair")
    }

    #[test]
    fn only_sealed_rings_of_the_right_size_are_mapped() {
        let sealed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        let open = |fd, len| GoferPort::new(fd, pair().0, len).map(|_| ());
        assert_eq!(
            open(memfd(8192, SealFlag::empty()), 8192),
            Err(Errno::EPERM)
        );
        assert_eq!(open(memfd(4096, sealed), 8192), Err(Errno::EINVAL));
        assert_eq!(open(memfd(8192, sealed), 8192), Ok(()));
    }

    #[test]
    fn fds_and_the_end_arrive() {
        let sealed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        let (ours, theirs) = pair();
        let port = GoferPort::new(memfd(4096, sealed), ours, 4096).expect("port");
        assert!(matches!(port.receive(), Received::Nothing));
        let fds = [theirs.as_raw_fd()];
        let tag = 77u64.to_ne_bytes();
        sendmsg::<()>(
            theirs.as_raw_fd(),
            &[IoSlice::new(&tag)],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        )
        .expect("send");
        match port.receive() {
            Received::Fd {
                tag: 77,
                fd: Some(fd),
            } => drop(fd),
            other => panic!("unexpected {other:?}"),
        }
        drop(theirs);
        assert!(matches!(port.receive(), Received::Gone));
    }

    #[test]
    fn a_wait_ends_by_wake_and_by_time_out() {
        let sealed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        let port = GoferPort::new(memfd(4096, sealed), pair().0, 4096).expect("port");
        let word = port.words().first().expect("a word");
        port.wait(word, 0, Some(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(5));
                word.store(1, SeqCst);
                port.wake(word, 1);
            });
            while word.load(SeqCst) == 0 {
                port.wait(word, 0, None);
            }
        });
    }
}
