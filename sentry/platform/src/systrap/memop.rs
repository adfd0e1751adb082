//! Memory operations of guests as host calls of the stub.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use smallvec::{SmallVec, smallvec};
use syscall_tables::Errno;

use super::control::HostCall;
use super::filter::{
    MAP_ANONYMOUS_FLAGS, MAP_PRIVATE_FLAGS, MAP_SHARED_FLAGS, MemoryCalls, REMAP_FLAGS,
    REMAP_KEEP_FLAGS,
};
use super::layout as l;
use crate::{MemAdvice, MemOp, Protection, Sharing};

/// Lowest address that unprivileged host processes can map by default.
pub(super) const GUEST_START: u64 = 0x1_0000;
const PAGE: u64 = 4096;

/// The argument of `mmap` that is a descriptor.
pub(super) const FD_ARG: usize = 4;

/// Who makes the calls of one operation.
pub(super) enum Plan<'a> {
    /// An app thread that has trapped, with one call.
    App(HostCall),
    Control {
        calls: SmallVec<[HostCall; 2]>,
        /// The descriptor that takes the place of argument [`FD_ARG`] of the
        /// call once the stub has received it.
        fd: Option<BorrowedFd<'a>>,
    },
}

impl Plan<'_> {
    /// The calls for the control thread, whoever could make them else.
    pub(super) fn calls(&self) -> &[HostCall] {
        match self {
            Self::App(call) => std::slice::from_ref(call),
            Self::Control { calls, .. } => calls,
        }
    }
}

/// Checks `op` and plans it.
pub(super) fn plan<'a>(op: &MemOp<'a>, memory: MemoryCalls) -> Result<Plan<'a>, Errno> {
    let app = |call| match memory {
        MemoryCalls::AppThread => Plan::App(call),
        MemoryCalls::Control => Plan::Control {
            calls: smallvec![call],
            fd: None,
        },
    };
    Ok(match op {
        MemOp::MapAnonymous { range, protection } => {
            let (addr, len) = checked(range)?;
            let flags = u64::from(MAP_ANONYMOUS_FLAGS);
            let args = [addr, len, host_protection(*protection), flags, u64::MAX, 0];
            app(HostCall::new(libc::SYS_mmap, &args))
        }
        MemOp::MapFile {
            range,
            protection,
            sharing,
            fd,
            offset,
        } => {
            let (addr, len) = checked(range)?;
            if !offset.is_multiple_of(PAGE) {
                return Err(Errno::EINVAL);
            }
            let flags = match sharing {
                Sharing::Private => MAP_PRIVATE_FLAGS,
                Sharing::Shared => MAP_SHARED_FLAGS,
            };
            let protection = host_protection(*protection);
            let args = [addr, len, protection, flags.into(), u64::MAX, *offset];
            Plan::Control {
                calls: smallvec![HostCall::new(libc::SYS_mmap, &args)],
                fd: Some(*fd),
            }
        }
        MemOp::Unmap { range } => {
            let (addr, len) = checked(range)?;
            app(HostCall::new(libc::SYS_munmap, &[addr, len]))
        }
        MemOp::Protect { range, protection } => {
            let (addr, len) = checked(range)?;
            let args = [addr, len, host_protection(*protection)];
            app(HostCall::new(libc::SYS_mprotect, &args))
        }
        MemOp::Advise { range, advice } => {
            let (addr, len) = checked(range)?;
            let host = host_advice(*advice).cast_unsigned().into();
            let call = HostCall::new(libc::SYS_madvise, &[addr, len, host]);
            match advice {
                MemAdvice::DontNeed | MemAdvice::Free => app(call),
                _ => Plan::Control {
                    calls: smallvec![call],
                    fd: None,
                },
            }
        }
        MemOp::Remap {
            from,
            to,
            keep_source,
        } => Plan::Control {
            calls: remap(from, to, *keep_source)?,
            fd: None,
        },
    })
}

fn remap(
    from: &Range<u64>,
    to: &Range<u64>,
    keep_source: bool,
) -> Result<SmallVec<[HostCall; 2]>, Errno> {
    let (to_addr, to_len) = checked(to)?;
    // An empty source duplicates a shared mapping (mremap(2), old_size 0).
    let from_len = if from.start == from.end {
        check(from.start, from.end)?;
        0
    } else {
        checked(from)?.1
    };
    if from.start == to_addr && !keep_source {
        let mut calls = SmallVec::new();
        if to.end > from.end {
            let grown = [from.end, to.end - from.end];
            calls.push(HostCall::new(libc::SYS_munmap, &grown));
        }
        let args = [from.start, from_len, to_len, 0];
        calls.push(HostCall::new(libc::SYS_mremap, &args));
        return Ok(calls);
    }
    let flags = if keep_source {
        REMAP_KEEP_FLAGS
    } else {
        REMAP_FLAGS
    };
    let args = [from.start, from_len, to_len, flags.into(), to_addr];
    Ok(smallvec![HostCall::new(libc::SYS_mremap, &args)])
}

fn check(start: u64, end: u64) -> Result<(), Errno> {
    let aligned = start.is_multiple_of(PAGE) && end.is_multiple_of(PAGE);
    if aligned && start >= GUEST_START && end <= l::STUB_BASE {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// Start and length of a range that a guest may have.
fn checked(range: &Range<u64>) -> Result<(u64, u64), Errno> {
    check(range.start, range.end)?;
    let len = range.end.checked_sub(range.start).ok_or(Errno::EINVAL)?;
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    Ok((range.start, len))
}

/// `PROT_*`, which have the same values.
pub(super) fn host_protection(protection: Protection) -> u64 {
    (protection & Protection::all()).bits().into()
}

fn host_advice(advice: MemAdvice) -> i32 {
    match advice {
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
    }
}
