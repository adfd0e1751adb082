//! `flock(2)` and the record locks of `fcntl(2)`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    F_RDLCK, F_UNLCK, F_WRLCK, Flock, FlockOps, SEEK_CUR, SEEK_END, SEEK_SET,
};

use crate::ctx::{Ctx, SysResult};
use crate::sync::Events;
use crate::user::{Args, UserPtr};
use crate::vfs::locks::{LockKind, LockOwner, RecordLock};
use crate::vfs::{Fd, File, OpenMode};

/// Last byte a lock to the end of the file covers.
const TO_THE_END: u64 = i64::MAX as u64;

pub async fn flock(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let operation = FlockOps::from_bits(args.u32(1)).ok_or(Errno::EINVAL)?;
    let nonblocking = operation.contains(FlockOps::LOCK_NB);
    let kind = match operation.difference(FlockOps::LOCK_NB) {
        FlockOps::LOCK_SH => Some(LockKind::Shared),
        FlockOps::LOCK_EX => Some(LockKind::Exclusive),
        FlockOps::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    if kind.is_some() && file.mode.is_empty() {
        return Err(Errno::EBADF);
    }
    let key = file.lock_key()?;
    let locks = &ctx.kernel.vfs.locks;
    let Some(kind) = kind else {
        locks.unset_whole(key, &file);
        return Ok(0);
    };
    file.note_locks(locks);
    let attempt = || locks.set_whole(key, &file, kind);
    if nonblocking {
        attempt()?;
    } else {
        let queue = locks.queue(key);
        ctx.wait_on(&[queue], Events::READABLE, None, Errno::EAGAIN, attempt)
            .await?;
    }
    Ok(0)
}

/// Whose lock a command of `fcntl` means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LockOwnerKind {
    Process,
    File,
}

impl LockOwnerKind {
    fn owner(self, ctx: &Ctx<'_>, file: &File) -> LockOwner {
        match self {
            Self::Process => LockOwner::of_table(&ctx.task.files()),
            Self::File => LockOwner::of_file(file),
        }
    }
}

/// First and last byte of `struct flock`.
fn range(file: &File, flock: &Flock) -> Result<(u64, u64), Errno> {
    let base = match u32::try_from(flock.l_whence).map_err(|_| Errno::EINVAL)? {
        SEEK_SET => 0,
        SEEK_CUR => *file.position.lock(),
        SEEK_END => file.attr()?.size_bytes,
        _ => return Err(Errno::EINVAL),
    };
    let base = i64::try_from(base).map_err(|_| Errno::EOVERFLOW)?;
    let start = base.checked_add(flock.l_start).ok_or(Errno::EOVERFLOW)?;
    let (first, last) = if flock.l_len > 0 {
        let last = start.checked_add(flock.l_len - 1).ok_or(Errno::EOVERFLOW)?;
        (start, last)
    } else if flock.l_len < 0 {
        let first = start.checked_add(flock.l_len).ok_or(Errno::EINVAL)?;
        (first, start - 1)
    } else {
        (start, i64::MAX)
    };
    let first = u64::try_from(first).map_err(|_| Errno::EINVAL)?;
    let last = u64::try_from(last).map_err(|_| Errno::EINVAL)?;
    Ok((first, last))
}

fn kind_of(flock: &Flock) -> Result<LockKind, Errno> {
    match flock.l_type {
        F_RDLCK => Ok(LockKind::Shared),
        F_WRLCK => Ok(LockKind::Exclusive),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) async fn get_lock(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    arg: u64,
    owner: LockOwnerKind,
) -> SysResult {
    let ptr = UserPtr::<Flock>::new(arg);
    let mut flock = ctx.read(ptr).await?;
    if owner == LockOwnerKind::File && flock.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    // Asks for the file's own locks.
    let own = owner == LockOwnerKind::File && flock.l_type == F_UNLCK;
    let kind = if own {
        LockKind::Shared
    } else {
        kind_of(&flock)?
    };
    let (first, last) = range(file, &flock)?;
    let wanted = RecordLock {
        owner: owner.owner(ctx, file),
        pid: 0,
        kind,
        first,
        last,
    };
    let (locks, key) = (&ctx.kernel.vfs.locks, file.lock_key()?);
    let found = if own {
        locks.own(key, &wanted)
    } else {
        locks.conflict(key, &wanted)
    };
    match found {
        None => flock.l_type = F_UNLCK,
        Some(held) => {
            flock.l_type = match held.kind {
                LockKind::Shared => F_RDLCK,
                LockKind::Exclusive => F_WRLCK,
            };
            flock.l_whence = 0;
            flock.l_start = held.first.cast_signed();
            flock.l_len = if held.last >= TO_THE_END {
                0
            } else {
                (held.last - held.first + 1).cast_signed()
            };
            flock.l_pid = match held.owner {
                LockOwner::File(_) => -1,
                LockOwner::Table(_) => {
                    let holder = ctx.kernel.root_pid_ns.process(held.pid);
                    holder.map_or(0, |holder| holder.id_in(&ctx.task.pid_ns()))
                }
            };
        }
    }
    ctx.write(ptr, &flock).await?;
    Ok(0)
}

pub(super) async fn set_lock(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    arg: u64,
    owner: LockOwnerKind,
    wait: bool,
) -> SysResult {
    let flock = ctx.read(UserPtr::<Flock>::new(arg)).await?;
    if owner == LockOwnerKind::File && flock.l_pid != 0 {
        return Err(Errno::EINVAL);
    }
    let (first, last) = range(file, &flock)?;
    let key = file.lock_key()?;
    let locks = ctx.kernel.vfs.locks.clone();
    let files = ctx.task.files();
    let holder = owner.owner(ctx, file);
    if flock.l_type == F_UNLCK {
        locks.unset(key, holder, first, last);
        return Ok(0);
    }
    let kind = kind_of(&flock)?;
    let needed = match kind {
        LockKind::Shared => OpenMode::READ,
        LockKind::Exclusive => OpenMode::WRITE,
    };
    if !file.mode.contains(needed) {
        return Err(Errno::EBADF);
    }
    match owner {
        LockOwnerKind::Process => files.note_locks(&locks),
        LockOwnerKind::File => file.note_locks(&locks),
    }
    let wanted = RecordLock {
        owner: holder,
        pid: ctx.task.group.tgid().0,
        kind,
        first,
        last,
    };
    if !wait {
        locks.set(key, wanted)?;
        return Ok(0);
    }
    let queue = locks.queue(key);
    let done = ctx
        .wait_on(&[queue], Events::READABLE, None, Errno::EAGAIN, || {
            locks.set_or_wait(key, wanted)
        })
        .await;
    locks.stop_waiting(holder);
    done?;
    Ok(0)
}
