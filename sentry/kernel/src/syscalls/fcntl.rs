//! `fcntl(2)` and the generic part of `ioctl(2)`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    F_ADD_SEALS, F_DUPFD, F_DUPFD_CLOEXEC, F_DUPFD_QUERY, F_GET_SEALS, F_GETFD, F_GETFL,
    F_GETLEASE, F_GETLK, F_GETOWN, F_GETOWN_EX, F_GETPIPE_SZ, F_GETSIG, F_NOTIFY, F_OFD_GETLK,
    F_OFD_SETLK, F_OFD_SETLKW, F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, F_SETFD, F_SETFL,
    F_SETLEASE, F_SETLK, F_SETLKW, F_SETOWN, F_SETOWN_EX, F_SETPIPE_SZ, F_SETSIG, F_UNLCK,
    FD_CLOEXEC, FIGETBSZ, FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD, FIOQSIZE, FOwnerEx,
    RLIMIT_NOFILE, Signal,
};

use super::lock::{LockOwnerKind, get_lock, set_lock};
use super::open::fd_flags;
use crate::ctx::{Ctx, SysResult};
use crate::fs::pipe::PipeEnd;
use crate::fs::tmpfs::TmpInode;
use crate::task::CapSet;
use crate::user::{Args, UserPtr};
use crate::vfs::{Fd, FdFlags, File, FileKind, OpenMode, StatusFlags, async_io, dnotify, perm};

pub async fn fcntl(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let fd = Fd(args.i32(0));
    let (command, arg) = (args.u32(1), args.raw(2));
    let files = ctx.task.files();
    let (file, flags) = files.get_with_flags(fd)?;
    // What works on a descriptor rather than on an open file.
    match command {
        F_DUPFD => return duplicate(ctx, file, arg, FdFlags::empty()),
        F_DUPFD_CLOEXEC => return duplicate(ctx, file, arg, FdFlags::CLOEXEC),
        F_DUPFD_QUERY => {
            let other = files.get_raw(Fd(args.i32(2)))?;
            return Ok(u64::from(Arc::ptr_eq(&file, &other)));
        }
        F_GETFD => return Ok(u64::from(flags.bits())),
        F_SETFD => {
            files.set_flags(fd, fd_flags(args.u32(2) & FD_CLOEXEC != 0))?;
            return Ok(0);
        }
        F_GETFL => return Ok(u64::from(get_status(&file))),
        _ if file.status().contains(StatusFlags::PATH) => return Err(Errno::EBADF),
        _ => {}
    }
    match command {
        F_SETFL => set_status(ctx, &file, fd, args.u32(2)),
        F_GETLK => get_lock(ctx, &file, arg, LockOwnerKind::Process).await,
        F_OFD_GETLK => get_lock(ctx, &file, arg, LockOwnerKind::File).await,
        F_SETLK => set_lock(ctx, &file, arg, LockOwnerKind::Process, false).await,
        F_SETLKW => set_lock(ctx, &file, arg, LockOwnerKind::Process, true).await,
        F_OFD_SETLK => set_lock(ctx, &file, arg, LockOwnerKind::File, false).await,
        F_OFD_SETLKW => set_lock(ctx, &file, arg, LockOwnerKind::File, true).await,
        F_SETOWN => set_owner(ctx, &file, args.i32(2)),
        F_GETOWN => Ok(get_owner(&file)),
        F_SETOWN_EX => set_owner_ex(ctx, &file, args.ptr(2)).await,
        F_GETOWN_EX => {
            let owner = file.async_io.lock().owner();
            let value = FOwnerEx {
                owner_type: owner.kind.unsigned_abs(),
                pid: owner.id,
            };
            ctx.write(args.ptr(2), &value).await?;
            Ok(0)
        }
        F_SETSIG => {
            let number = args.i32(2);
            if number != 0 && Signal::from_raw(number).is_none() {
                return Err(Errno::EINVAL);
            }
            file.async_io.lock().set_signal(number);
            Ok(0)
        }
        F_GETSIG => Ok(u64::from(
            file.async_io.lock().owner().signal.unsigned_abs(),
        )),
        F_GETPIPE_SZ => Ok(pipe(&file)?.pipe.capacity() as u64),
        F_SETPIPE_SZ => {
            let wanted = usize::try_from(args.i32(2)).map_err(|_| Errno::EINVAL)?;
            let privileged = ctx.task.creds().has(CapSet::SYS_RESOURCE);
            Ok(pipe(&file)?.pipe.set_capacity(wanted, privileged)? as u64)
        }
        F_GET_SEALS => Ok(u64::from(sealable(&file)?.seals()?)),
        F_ADD_SEALS => {
            if !file.mode.contains(OpenMode::WRITE) {
                return Err(Errno::EPERM);
            }
            let inode = sealable(&file)?;
            inode.add_seals(args.u32(2))?;
            Ok(0)
        }
        F_NOTIFY => {
            dnotify::set(ctx.kernel, ctx.task, &file, fd.0, args.u32(2))?;
            Ok(0)
        }
        F_GETLEASE => Ok(F_UNLCK as u64),
        // Leases are not granted, as if the file were open elsewhere.
        F_SETLEASE if args.i32(2) == i32::from(F_UNLCK) => Err(Errno::EAGAIN),
        F_SETLEASE => Err(lease_error(ctx, &file)?),
        _ => Err(Errno::EINVAL),
    }
}

fn duplicate(ctx: &Ctx<'_>, file: Arc<File>, least: u64, flags: FdFlags) -> SysResult {
    let limit = ctx.task.group.limit(RLIMIT_NOFILE);
    // The argument is an int: what does not fit is out of range.
    let least = u64::from(least as u32);
    if least >= limit {
        return Err(Errno::EINVAL);
    }
    let least = usize::try_from(least).map_err(|_| Errno::EINVAL)?;
    let fd = ctx.task.files().insert(file, flags, least, limit)?;
    Ok(u64::from(fd.0.unsigned_abs()))
}

/// `F_GETFL`: status flags and access mode.
fn get_status(file: &File) -> u32 {
    let status = file.status();
    let access = match (
        file.mode.contains(OpenMode::READ),
        file.mode.contains(OpenMode::WRITE),
    ) {
        (true, false) => 0,
        (false, true) => 1,
        (true, true) => 2,
        (false, false) if status.contains(StatusFlags::PATH) => 0,
        (false, false) => 3,
    };
    status.bits() | access
}

fn set_status(ctx: &Ctx<'_>, file: &Arc<File>, fd: Fd, flags: u32) -> SysResult {
    let settable = StatusFlags::APPEND
        | StatusFlags::NONBLOCK
        | StatusFlags::ASYNC
        | StatusFlags::DIRECT
        | StatusFlags::NOATIME;
    let wanted = StatusFlags::from_bits_truncate(flags) & settable;
    let now = file.status();
    if wanted.contains(StatusFlags::NOATIME) && !now.contains(StatusFlags::NOATIME) {
        perm::check_owner(&file.attr()?, &ctx.task.creds())?;
    }
    file.set_status((now - settable) | wanted);
    note_async(ctx, file, fd, now);
    Ok(0)
}

/// Acts on a change of `O_ASYNC` since `before`.
fn note_async(ctx: &Ctx<'_>, file: &Arc<File>, fd: Fd, before: StatusFlags) {
    let on = file.status().contains(StatusFlags::ASYNC);
    if on != before.contains(StatusFlags::ASYNC) {
        async_io::update(ctx.kernel, file, fd.0, on);
    }
}

fn set_owner(ctx: &Ctx<'_>, file: &File, who: i32) -> SysResult {
    let kind = if who < 0 { F_OWNER_PGRP } else { F_OWNER_PID };
    let id = who.checked_abs().ok_or(Errno::EINVAL)?;
    let mut state = file.async_io.lock();
    state.set_owner(ctx.task, kind.cast_signed(), id)?;
    Ok(0)
}

fn get_owner(file: &File) -> u64 {
    let owner = file.async_io.lock().owner();
    let id = i64::from(owner.id);
    if owner.kind == F_OWNER_PGRP.cast_signed() {
        return (-id).cast_unsigned();
    }
    id.cast_unsigned()
}

async fn set_owner_ex(ctx: &mut Ctx<'_>, file: &File, ptr: UserPtr<FOwnerEx>) -> SysResult {
    let value = ctx.read(ptr).await?;
    if ![F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP].contains(&value.owner_type) {
        return Err(Errno::EINVAL);
    }
    let mut state = file.async_io.lock();
    state.set_owner(ctx.task, value.owner_type.cast_signed(), value.pid)?;
    Ok(0)
}

fn pipe(file: &File) -> Result<&PipeEnd, Errno> {
    file.downcast().ok_or(Errno::EBADF)
}

fn sealable(file: &File) -> Result<&TmpInode, Errno> {
    file.downcast().ok_or(Errno::EINVAL)
}

fn lease_error(ctx: &Ctx<'_>, file: &File) -> Result<Errno, Errno> {
    let attr = file.attr()?;
    let creds = ctx.task.creds();
    if attr.kind != FileKind::Regular {
        return Ok(Errno::EINVAL);
    }
    if creds.fsuid != attr.uid && !creds.has(CapSet::LEASE) {
        return Ok(Errno::EACCES);
    }
    Ok(Errno::EAGAIN)
}

pub async fn ioctl(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let fd = Fd(args.i32(0));
    let (command, arg) = (args.u32(1), args.raw(2));
    let files = ctx.task.files();
    let file = files.get(fd)?;
    match command {
        FIOCLEX => files.set_flags(fd, FdFlags::CLOEXEC)?,
        FIONCLEX => files.set_flags(fd, FdFlags::empty())?,
        FIONBIO => toggle(ctx, &file, fd, arg, StatusFlags::NONBLOCK).await?,
        FIOASYNC => toggle(ctx, &file, fd, arg, StatusFlags::ASYNC).await?,
        FIOQSIZE => {
            let attr = file.attr()?;
            match attr.kind {
                FileKind::Regular | FileKind::Directory | FileKind::Symlink => {}
                _ => return Err(Errno::ENOTTY),
            }
            ctx.write(UserPtr::new(arg), &attr.size_bytes).await?;
        }
        FIGETBSZ if file.ops.is_seekable() => {
            let size = file.attr()?.block_size;
            ctx.write(UserPtr::new(arg), &size).await?;
        }
        FIONREAD if file.path.inode_ref()?.kind() == FileKind::Regular => {
            match file.ops.ioctl(ctx, &file, command, arg).await {
                Err(Errno::ENOTTY) => {}
                done => return done,
            }
            let position = *file.position.lock();
            let left = file.attr()?.size_bytes.saturating_sub(position);
            let left = i32::try_from(left).unwrap_or(i32::MAX);
            ctx.write(UserPtr::new(arg), &left).await?;
        }
        _ => return file.ops.ioctl(ctx, &file, command, arg).await,
    }
    Ok(0)
}

async fn toggle(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    fd: Fd,
    arg: u64,
    flag: StatusFlags,
) -> Result<(), Errno> {
    let on = ctx.read(UserPtr::<i32>::new(arg)).await? != 0;
    let before = file.status();
    let mut status = before;
    status.set(flag, on);
    file.set_status(status);
    note_async(ctx, file, fd, before);
    Ok(())
}
