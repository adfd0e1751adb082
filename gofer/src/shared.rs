//! The gofer's end of a connection: the mapped ring and its socket.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use gofer_proto::ring::{ClientPort, Port, RING_LEN, Received};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::thread::futex;

/// How long waiting may spin before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// Makes the memfd of a ring, sealed, for both sides to map.
pub fn create_ring() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // NOEXEC_SEAL is of Linux 6.3.
    let fd = match rustix::fs::memfd_create("gofer-ring", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("gofer-ring", flags)?,
        other => other?,
    };
    rustix::fs::ftruncate(&fd, RING_LEN as u64)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Makes the socket pair that goes with a ring.
pub fn create_socket() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
}

/// A mapped ring and the socket that fds go over.
#[derive(Debug)]
pub struct SharedPort {
    ring: MmapRaw,
    socket: OwnedFd,
    spin: Duration,
}

impl SharedPort {
    /// Maps `ring`.
    ///
    /// # Errors
    /// `EPERM` for one that could be made shorter under the mapping, `EINVAL`
    /// for one of another size.
    pub fn new(ring: &OwnedFd, socket: OwnedFd) -> Result<Self, Errno> {
        if !rustix::fs::fcntl_get_seals(ring)?.contains(SealFlags::SHRINK) {
            return Err(Errno::PERM);
        }
        if rustix::fs::fstat(ring)?.st_size != RING_LEN as i64 {
            return Err(Errno::INVAL);
        }
        let ring = MmapOptions::new()
            .len(RING_LEN)
            .map_raw(ring)
            .map_err(|err| Errno::from_raw_os_error(err.raw_os_error().unwrap_or(libc::EIO)))?;
        let alone = rustix::thread::sched_getaffinity(None).is_ok_and(|cpus| cpus.count() < 2);
        Ok(Self {
            ring,
            socket,
            spin: if alone { Duration::ZERO } else { SPIN },
        })
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends `fd` to the sentry, marked with the call it belongs to.
    pub fn send_fd(&self, tag: u64, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let tag = tag.to_ne_bytes();
        let data = [std::io::IoSlice::new(&tag)];
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.socket, &data, &mut control, SendFlags::NOSIGNAL)
        })
        .map(drop)
    }

    /// Ends the connection for both sides.
    pub fn shut_down(&self) {
        // Fails only if the peer is gone already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

impl Port for SharedPort {
    #[expect(unsafe_code, reason = "view of the mapping as atomics")]
    fn words(&self) -> &[AtomicU32] {
        let (start, len) = (self.ring.as_ptr().cast::<AtomicU32>(), self.ring.len() / 4);
        // SAFETY: the mapping is page aligned, readable, writable, at least
        // `len * 4` bytes long and lives as long as `self`; its memfd is
        // sealed against shrinking, so every page stays accessible. Atomics
        // may be changed through shared references, by other processes too.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        let timeout = timeout.and_then(|timeout| futex::Timespec::try_from(timeout).ok());
        // Interrupted, changed or timed out: the caller looks again.
        let _ = futex::wait(word, futex::Flags::empty(), expected, timeout.as_ref());
    }

    fn wake(&self, word: &AtomicU32, count: u32) {
        // Fails only for addresses that are not mapped.
        let _ = futex::wake(word, futex::Flags::empty(), count);
    }

    fn spin(&self) -> Duration {
        self.spin
    }
}

/// For tests and tools that talk to a gofer without a sentry.
impl ClientPort for SharedPort {
    fn receive(&self) -> Received {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut tag = [0; 8];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = {
            let mut data = [std::io::IoSliceMut::new(&mut tag)];
            rustix::io::retry_on_intr(|| {
                rustix::net::recvmsg(&self.socket, &mut data, &mut control, flags)
            })
        };
        let message = match received {
            Ok(message) => message,
            Err(Errno::AGAIN) => return Received::Nothing,
            Err(_) => return Received::Gone,
        };
        let mut fd = None;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                fd = fds.last().or(fd);
            }
        }
        if message.bytes != tag.len() || message.flags.contains(ReturnFlags::TRUNC) {
            return Received::Gone;
        }
        Received::Fd {
            tag: u64::from_ne_bytes(tag),
            fd,
        }
    }
}
