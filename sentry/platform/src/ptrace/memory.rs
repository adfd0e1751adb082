//! Guest memory: changes by host calls of a stub thread, copies by
//! `process_vm_readv` and `process_vm_writev`.
//!
//! Those two respect protections as the guest's own accesses would.

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use syscall_tables::Errno;

use super::stub::{GUEST_RANGE, MESSAGE, PAGE, SCRATCH, STUB_BASE, STUB_END};
use super::tracee::Tracee;
use super::zygote::SOCKET_FD;
use super::{Process, Shared};
use crate::host::errno;
use crate::traits::{CopyFault, MemAdvice, MemError, MemOp, Protection, Sharing};

/// A [`MemOp`] that another thread can carry out.
pub(super) enum OwnedOp {
    MapFile {
        range: Range<u64>,
        protection: Protection,
        sharing: Sharing,
        fd: OwnedFd,
        offset: u64,
    },
    /// A checked host call.
    Call(libc::c_long, [u64; 6]),
    /// Host calls of which only the last one's failure counts.
    Calls([(libc::c_long, [u64; 6]); 2]),
    Invalid(Errno),
}

pub(super) fn own(ops: &[MemOp<'_>]) -> Vec<OwnedOp> {
    ops.iter()
        .map(|op| own_one(op).unwrap_or_else(OwnedOp::Invalid))
        .collect()
}

fn own_one(op: &MemOp<'_>) -> Result<OwnedOp, Errno> {
    Ok(match op {
        MemOp::MapAnonymous { range, protection } => {
            let flags =
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            let len = check(range)?;
            let prot = host_protection(*protection);
            let args = [range.start, len, prot, flags as u64, u64::MAX, 0];
            OwnedOp::Call(libc::SYS_mmap, args)
        }
        MemOp::MapFile {
            range,
            protection,
            sharing,
            fd,
            offset,
        } => {
            check(range)?;
            OwnedOp::MapFile {
                range: range.clone(),
                protection: *protection,
                sharing: *sharing,
                fd: fd
                    .try_clone_to_owned()
                    .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(0)))?,
                offset: *offset,
            }
        }
        MemOp::Unmap { range } => {
            let len = check(range)?;
            OwnedOp::Call(libc::SYS_munmap, [range.start, len, 0, 0, 0, 0])
        }
        MemOp::Protect { range, protection } => {
            let len = check(range)?;
            let prot = host_protection(*protection);
            OwnedOp::Call(libc::SYS_mprotect, [range.start, len, prot, 0, 0, 0])
        }
        MemOp::Advise { range, advice } => {
            let len = check(range)?;
            let advice = host_advice(*advice);
            OwnedOp::Call(libc::SYS_madvise, [range.start, len, advice, 0, 0, 0])
        }
        MemOp::Remap {
            from,
            to,
            keep_source,
        } => own_remap(from, to, *keep_source)?,
    })
}

fn own_remap(from: &Range<u64>, to: &Range<u64>, keep_source: bool) -> Result<OwnedOp, Errno> {
    let old_len = check(from)?;
    let new_len = check(to)?;
    if from.start != to.start {
        let mut flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        if keep_source {
            flags |= libc::MREMAP_DONTUNMAP;
        }
        let flags = u64::from(flags.cast_unsigned());
        let args = [from.start, old_len, new_len, flags, to.start, 0];
        return Ok(OwnedOp::Call(libc::SYS_mremap, args));
    }
    let resize = (libc::SYS_mremap, [from.start, old_len, new_len, 0, 0, 0]);
    if new_len <= old_len {
        return Ok(OwnedOp::Call(resize.0, resize.1));
    }
    // In place it grows into free addresses only.
    let free = (libc::SYS_munmap, [from.end, new_len - old_len, 0, 0, 0, 0]);
    Ok(OwnedOp::Calls([free, resize]))
}

/// Carries out `ops` on the stopped `tracee`, whose tracer the calling thread
/// is.
pub(super) fn apply(
    tracee: &mut Tracee,
    process: &Process,
    ops: Vec<OwnedOp>,
) -> Result<(), MemError> {
    for (index, op) in ops.into_iter().enumerate() {
        let result = match op {
            OwnedOp::Call(number, args) => tracee.call(number, args).map(drop),
            OwnedOp::Calls([first, second]) => tracee
                .call(first.0, first.1)
                .and_then(|_| tracee.call(second.0, second.1))
                .map(drop),
            OwnedOp::MapFile {
                range,
                protection,
                sharing,
                fd,
                offset,
            } => map_file(tracee, process, &range, protection, sharing, fd, offset),
            OwnedOp::Invalid(errno) => Err(errno),
        };
        result.map_err(|errno| MemError { index, errno })?;
    }
    Ok(())
}

/// The most memory that the process of `tracee` has had resident, in bytes;
/// 0 if it is dead. The host tells how much it is now through /proc alone,
/// which the sentry can't open.
pub(super) fn peak_resident_bytes(tracee: &mut Tracee, process: &Process) -> u64 {
    let _scratch = process.frame.lock();
    let usage = SCRATCH + PAGE;
    let who = u64::from(libc::RUSAGE_SELF.cast_unsigned());
    let mut kibibytes = [0; 8];
    // Behind two `struct timeval` comes `ru_maxrss`.
    let answered = tracee
        .call(libc::SYS_getrusage, [who, usage, 0, 0, 0, 0])
        .is_ok_and(|_| read_raw(tracee.pid, usage + 32, &mut kibibytes).is_ok());
    if !answered {
        return 0;
    }
    // Other threads of the guest may have written there: it is their number.
    u64::from_ne_bytes(kibibytes).min(GUEST_RANGE.end >> 10) << 10
}

fn map_file(
    tracee: &mut Tracee,
    process: &Process,
    range: &Range<u64>,
    protection: Protection,
    sharing: Sharing,
    fd: OwnedFd,
    offset: u64,
) -> Result<(), Errno> {
    // While this is held no other thread of the process receives a
    // descriptor, so the number is the lowest one but the socket's.
    let _received = process.descriptors.lock();
    let expected = SOCKET_FD as u64 + 1;
    receive(tracee, &process.shared, &fd)?;
    drop(fd);
    let flags = libc::MAP_FIXED
        | match sharing {
            Sharing::Private => libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            Sharing::Shared => libc::MAP_SHARED,
        };
    let args = [
        range.start,
        range.end - range.start,
        host_protection(protection),
        flags as u64,
        expected,
        offset,
    ];
    let mapped = tracee.call(libc::SYS_mmap, args);
    let all = [expected, u64::from(u32::MAX), 0, 0, 0, 0];
    if tracee.call(libc::SYS_close_range, all).is_err() {
        process.kill();
    }
    mapped.map(drop)
}

/// Passes `fd` to the stub, where it gets the lowest free number.
fn receive(tracee: &mut Tracee, shared: &Shared, fd: &OwnedFd) -> Result<(), Errno> {
    use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
    let socket = shared.sockets.lock();
    let (ours, theirs) = &*socket;
    let fds = [fd.as_raw_fd()];
    sendmsg::<()>(
        ours.as_raw_fd(),
        &[std::io::IoSlice::new(&[0])],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .map_err(errno)?;
    let flags = (libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) as u64;
    let result = tracee.call(
        libc::SYS_recvmsg,
        [SOCKET_FD as u64, MESSAGE, flags, 0, 0, 0],
    );
    if result != Ok(1) {
        // The message must not be left for the next stub. Without room for
        // control data the host drops the descriptor.
        let _ = recv(theirs.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
    }
    match result {
        // The header is read-only: the host passes the descriptor, then fails
        // to note the message's flags. Whether it came shows in its use.
        Ok(_) | Err(Errno::EFAULT) => Ok(()),
        Err(err) => Err(err),
    }
}

fn check(range: &Range<u64>) -> Result<u64, Errno> {
    if !range.start.is_multiple_of(PAGE)
        || !range.end.is_multiple_of(PAGE)
        || range.start >= range.end
        || range.start < GUEST_RANGE.start
        || range.end > GUEST_RANGE.end
    {
        return Err(Errno::EINVAL);
    }
    Ok(range.end - range.start)
}

/// On x86 whatever is accessible at all can be read; saying so lets the
/// sentry's copies see what the guest sees.
fn host_protection(protection: Protection) -> u64 {
    let mut host = 0;
    if !protection.is_empty() {
        host |= libc::PROT_READ;
    }
    if protection.contains(Protection::WRITE) {
        host |= libc::PROT_WRITE;
    }
    if protection.contains(Protection::EXEC) {
        host |= libc::PROT_EXEC;
    }
    host as u64
}

fn host_advice(advice: MemAdvice) -> u64 {
    (match advice {
        MemAdvice::DontNeed => libc::MADV_DONTNEED,
        MemAdvice::Free => libc::MADV_FREE,
        MemAdvice::HugePage => libc::MADV_HUGEPAGE,
        MemAdvice::NoHugePage => libc::MADV_NOHUGEPAGE,
        MemAdvice::Remove => libc::MADV_REMOVE,
        MemAdvice::WillNeed => libc::MADV_WILLNEED,
        MemAdvice::PopulateRead => libc::MADV_POPULATE_READ,
        MemAdvice::PopulateWrite => libc::MADV_POPULATE_WRITE,
        MemAdvice::DontFork => libc::MADV_DONTFORK,
        MemAdvice::DoFork => libc::MADV_DOFORK,
        MemAdvice::WipeOnFork => libc::MADV_WIPEONFORK,
        MemAdvice::KeepOnFork => libc::MADV_KEEPONFORK,
    }) as u64
}

/// Direction of a copy.
enum Copy<'a> {
    In(&'a mut [u8]),
    Out(&'a [u8]),
}

/// Copies from the memory of process `pid`.
pub(super) fn read(pid: i32, addr: u64, dst: &mut [u8]) -> Result<(), CopyFault> {
    copy(pid, addr, Copy::In(dst))
}

/// Copies to the memory of process `pid`.
pub(super) fn write(pid: i32, addr: u64, src: &[u8]) -> Result<(), CopyFault> {
    copy(pid, addr, Copy::Out(src))
}

/// Copies from stub memory, of which nothing is the guest's.
pub(super) fn read_raw(pid: i32, addr: u64, dst: &mut [u8]) -> Result<(), CopyFault> {
    copy_within(pid, addr, Copy::In(dst), STUB_BASE..STUB_END)
}

fn copy(pid: i32, addr: u64, copy: Copy<'_>) -> Result<(), CopyFault> {
    // What lies outside the guest's range is not the guest's.
    copy_within(pid, addr, copy, GUEST_RANGE)
}

fn copy_within(
    pid: i32,
    addr: u64,
    mut copy: Copy<'_>,
    range: Range<u64>,
) -> Result<(), CopyFault> {
    let total = match &copy {
        Copy::In(dst) => dst.len(),
        Copy::Out(src) => src.len(),
    };
    let mut copied = 0;
    while copied < total {
        let fault = CopyFault { copied };
        let at = addr.checked_add(copied as u64).ok_or(fault)?;
        if !range.contains(&at) {
            return Err(fault);
        }
        let room = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let len = room.min(total - copied);
        let remote = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(at as usize),
            iov_len: len,
        };
        let count = match &mut copy {
            Copy::In(dst) => {
                let local = libc::iovec {
                    iov_base: dst.get_mut(copied..).ok_or(fault)?.as_mut_ptr().cast(),
                    iov_len: len,
                };
                // SAFETY: `local` describes the rest of `dst`, `len` bytes at
                // most; `remote` is in the other process.
                unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) }
            }
            Copy::Out(src) => {
                let local = libc::iovec {
                    iov_base: src.get(copied..).ok_or(fault)?.as_ptr().cast_mut().cast(),
                    iov_len: len,
                };
                // SAFETY: as above; the host only reads `local`.
                unsafe {
                    libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0)
                }
            }
        };
        match usize::try_from(count) {
            Ok(count) if count > 0 => copied += count,
            _ => return Err(fault),
        }
    }
    Ok(())
}
