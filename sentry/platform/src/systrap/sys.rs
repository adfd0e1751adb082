//! Host calls of the sentry's half of systrap, as safe functions.
//!
//! What of them is needed after start-up is listed in
//! [`super::HOST_SYSCALLS`].

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, setsockopt, socketpair, sockopt,
};
use syscall_tables::Errno;

use super::shared::last_errno;
use crate::host::errno;

/// The sentry's and the stub's end of a socket; the sentry's end learns the
/// sender's pid with each message.
pub(super) fn stub_socket() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )
    .map_err(errno)?;
    setsockopt(&ours, sockopt::PassCred, &true).map_err(errno)?;
    Ok((ours, theirs))
}

/// Sends descriptors in one message.
pub(super) fn send_fds(socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let raw: smallvec::SmallVec<[RawFd; 4]> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&[0])],
        &[ControlMessage::ScmRights(&raw)],
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map(drop)
    .map_err(errno)
}

/// Receives a message and the pid that the host attests for its sender.
pub(super) fn receive(socket: BorrowedFd<'_>, message: &mut [u8]) -> Result<(usize, i32), Errno> {
    let mut control = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
    let mut parts = [IoSliceMut::new(message)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .map_err(errno)?;
    let len = received.bytes;
    for message in received.cmsgs().map_err(errno)? {
        if let ControlMessageOwned::ScmCredentials(credentials) = message {
            return Ok((len, credentials.pid()));
        }
    }
    // The end of the stream, or a message without credentials.
    Err(Errno::EPIPE)
}

/// A descriptor of a child, which can't be recycled before it is reaped.
pub(super) fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: plain call.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call has just returned this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Kills the process; fails only if it is gone.
pub(super) fn pidfd_kill(pidfd: BorrowedFd<'_>) {
    // SAFETY: plain call; no siginfo.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        );
    }
}

/// Reaps the child if it has ended: its peak resident size in bytes, 0 if
/// somebody else has reaped it. `None` while it lives.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> Option<u64> {
    loop {
        // SAFETY: plain data of the host's layout.
        let (mut info, mut usage): (libc::siginfo_t, libc::rusage) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // The C library's waitid has no usage. SAFETY: both structures live.
        let result = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_raw_fd(),
                &raw mut info,
                libc::WEXITED | libc::WNOHANG,
                &raw mut usage,
            )
        };
        if result < 0 {
            if last_errno() == Errno::EINTR {
                continue;
            }
            return Some(0);
        }
        // SAFETY: after a successful call this is the child's pid, or 0.
        if unsafe { info.si_pid() } == 0 {
            return None;
        }
        return Some(u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10);
    }
}

/// Receives one descriptor.
pub(super) fn receive_fd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut control = nix::cmsg_space!(nix::sys::socket::UnixCredentials, RawFd);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
    )
    .map_err(errno)?;
    for message in received.cmsgs().map_err(errno)? {
        // There is room for one.
        if let ControlMessageOwned::ScmRights(fds) = message
            && let Some(&fd) = fds.first()
        {
            // SAFETY: the call has just installed this descriptor.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Err(Errno::EPROTO)
}

/// Sends `signal` (0: none) to a thread; `ESRCH` if the process has none such.
pub(super) fn tgkill(pid: i32, tid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain call.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}
