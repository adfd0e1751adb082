//! Writing back and reading ahead: `fsync`, `sync`, `fadvise64`, …

use syscall_tables::Errno;
use syscall_tables::abi::{POSIX_FADV_NOREUSE, SyncRangeFlags};

use super::read_write::readable;
use crate::ctx::{Ctx, SysResult};
use crate::user::Args;
use crate::vfs::{Fd, FileKind};

pub async fn fsync(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    file.ops.sync(&file, false)?;
    Ok(0)
}

pub async fn fdatasync(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    file.ops.sync(&file, true)?;
    Ok(0)
}

pub async fn sync(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let namespace = ctx.task.fs().state.read().namespace.clone();
    for mount in namespace.mounts() {
        // sync(2) reports no errors.
        let _ = mount.fs.sync();
    }
    Ok(0)
}

pub async fn syncfs(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    file.path.mount.fs.sync()?;
    Ok(0)
}

pub async fn sync_file_range(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (offset, len) = (args.i64(1), args.i64(2));
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let flags = SyncRangeFlags::from_bits(args.u32(3)).ok_or(Errno::EINVAL)?;
    if offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL);
    }
    match file.path.inode_ref()?.kind() {
        FileKind::Regular | FileKind::BlockDevice | FileKind::Directory | FileKind::Symlink => {}
        _ => return Err(Errno::ESPIPE),
    }
    // A range can't be told to the file system: all data is written back.
    if flags.contains(SyncRangeFlags::SYNC_FILE_RANGE_WAIT_AFTER) {
        file.ops.sync(&file, true)?;
    }
    Ok(0)
}

pub async fn fadvise64(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    if file.path.inode_ref()?.kind() == FileKind::Fifo {
        return Err(Errno::ESPIPE);
    }
    if args.i64(2) < 0 || args.u32(3) > POSIX_FADV_NOREUSE {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

pub async fn readahead(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = readable(ctx, args.i32(0))?;
    match file.path.inode_ref()?.kind() {
        FileKind::Regular | FileKind::BlockDevice => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}
