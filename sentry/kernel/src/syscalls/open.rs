//! `open` and its kin, `close`, `dup`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{CloseRangeFlags, OpenFlags, OpenHow, RLIMIT_NOFILE, ResolveFlags};
use zerocopy::IntoBytes;

use crate::ctx::{Ctx, SysResult};
use crate::sync::Events;
use crate::user::Args;
use crate::vfs::open::{OpenArgs, Opened};
use crate::vfs::{Fd, FdFlags, Start, WalkFlags};

/// Permission, set-id and sticky bits.
const PERM_BITS: u32 = 0o7777;

pub async fn open(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    do_open(ctx, Start::Cwd, args.raw(0), args.u32(1), args.u32(2)).await
}

pub async fn creat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = OpenFlags::O_CREAT | OpenFlags::O_WRONLY | OpenFlags::O_TRUNC;
    do_open(ctx, Start::Cwd, args.raw(0), flags.bits(), args.u32(1)).await
}

pub async fn openat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let start = Start::from_dirfd(args.i32(0));
    do_open(ctx, start, args.raw(1), args.u32(2), args.u32(3)).await
}

/// `open` ignores what it does not know.
async fn do_open(ctx: &mut Ctx<'_>, start: Start, path: u64, flags: u32, mode: u32) -> SysResult {
    // The access mode is a number, not bits with names.
    let kept = flags & (OpenFlags::VALID.bits() | OpenFlags::ACCESS_MODE);
    let mut flags = OpenFlags::from_bits_retain(kept);
    let creates = OpenFlags::O_CREAT | TMPFILE_BIT;
    let perm = if flags.intersects(creates) {
        mode & PERM_BITS
    } else {
        0
    };
    if flags.contains(OpenFlags::O_PATH) {
        flags &= OpenFlags::O_PATH
            | OpenFlags::O_DIRECTORY
            | OpenFlags::O_NOFOLLOW
            | OpenFlags::O_CLOEXEC;
    }
    finish_open(ctx, start, path, flags, perm, WalkFlags::empty()).await
}

/// `O_TMPFILE` without its `O_DIRECTORY`.
const TMPFILE_BIT: OpenFlags = OpenFlags::O_TMPFILE.difference(OpenFlags::O_DIRECTORY);

pub async fn openat2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let how = read_how(ctx, args.raw(2), args.usize(3)).await?;
    let flags = u32::try_from(how.flags).map_err(|_| Errno::EINVAL)?;
    if flags & !(OpenFlags::VALID.bits() | OpenFlags::ACCESS_MODE) != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = OpenFlags::from_bits_retain(flags);
    let resolve = ResolveFlags::from_bits(how.resolve).ok_or(Errno::EINVAL)?;
    if resolve.contains(ResolveFlags::RESOLVE_BENEATH | ResolveFlags::RESOLVE_IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    let mode = u32::try_from(how.mode).map_err(|_| Errno::EINVAL)?;
    let creates = flags.intersects(OpenFlags::O_CREAT | TMPFILE_BIT);
    if mode & !PERM_BITS != 0 || (!creates && mode != 0) {
        return Err(Errno::EINVAL);
    }
    let with_path =
        OpenFlags::O_PATH | OpenFlags::O_DIRECTORY | OpenFlags::O_NOFOLLOW | OpenFlags::O_CLOEXEC;
    if flags.contains(OpenFlags::O_PATH) && !with_path.contains(flags) {
        return Err(Errno::EINVAL);
    }
    if resolve.contains(ResolveFlags::RESOLVE_CACHED) {
        // Whether a walk will stay in the cache is not known beforehand.
        return Err(Errno::EAGAIN);
    }
    let mut walk = WalkFlags::empty();
    let pairs = [
        (ResolveFlags::RESOLVE_NO_XDEV, WalkFlags::NO_XDEV),
        (
            ResolveFlags::RESOLVE_NO_MAGICLINKS,
            WalkFlags::NO_MAGICLINKS,
        ),
        (ResolveFlags::RESOLVE_NO_SYMLINKS, WalkFlags::NO_SYMLINKS),
        (ResolveFlags::RESOLVE_BENEATH, WalkFlags::BENEATH),
        (ResolveFlags::RESOLVE_IN_ROOT, WalkFlags::IN_ROOT),
    ];
    for (from, to) in pairs {
        walk.set(to, resolve.contains(from));
    }
    let start = Start::from_dirfd(args.i32(0));
    finish_open(ctx, start, args.raw(1), flags, mode, walk).await
}

/// Reads `struct open_how` in the size the caller knows.
async fn read_how(ctx: &mut Ctx<'_>, addr: u64, size: usize) -> Result<OpenHow, Errno> {
    if size < OpenHow::SIZE_VER0 {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; size];
    ctx.read_bytes(addr, &mut bytes).await?;
    let mut how = OpenHow::default();
    let (known, beyond) = bytes
        .split_at_checked(size_of::<OpenHow>())
        .ok_or(Errno::EINVAL)?;
    if beyond.iter().any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    how.as_mut_bytes().copy_from_slice(known);
    Ok(how)
}

async fn finish_open(
    ctx: &mut Ctx<'_>,
    start: Start,
    path: u64,
    flags: OpenFlags,
    perm: u32,
    resolve: WalkFlags,
) -> SysResult {
    let args = OpenArgs {
        flags,
        perm,
        resolve,
    };
    if flags.contains(OpenFlags::O_CREAT | OpenFlags::O_DIRECTORY) {
        return Err(Errno::EINVAL);
    }
    if flags.intersects(TMPFILE_BIT)
        && (!flags.contains(OpenFlags::O_TMPFILE) || flags.bits() & OpenFlags::ACCESS_MODE == 0)
    {
        return Err(Errno::EINVAL);
    }
    let path = ctx.read_path(path).await?;
    let limit = ctx.task.group.limit(RLIMIT_NOFILE);
    ctx.task.files().check_room(limit)?;
    let opened = crate::vfs::open::open(ctx.kernel, ctx.task, start, &path, &args)?;
    let Opened {
        file,
        created,
        wait,
    } = opened;
    if let Some(wait) = wait {
        let mask = Events::READABLE | Events::WRITABLE;
        ctx.wait_on(&[wait.queue()], mask, None, Errno::EAGAIN, || {
            wait.attempt()
        })
        .await?;
    }
    let watches = &ctx.kernel.vfs.watches;
    if created && !flags.contains(OpenFlags::O_TMPFILE) {
        watches.created(&file.path);
    }
    if !flags.contains(OpenFlags::O_PATH) {
        file.report_to(watches);
    }
    ctx.add_fd(file, fd_flags(flags.contains(OpenFlags::O_CLOEXEC)))
}

/// Descriptor flags of a call that has a close-on-exec flag.
pub(super) fn fd_flags(close_on_exec: bool) -> FdFlags {
    if close_on_exec {
        FdFlags::CLOEXEC
    } else {
        FdFlags::empty()
    }
}

pub async fn close(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let files = ctx.task.files();
    let file = files.remove(Fd(args.i32(0)))?;
    ctx.forget_views(&file).await;
    files.close_file(&file)?;
    Ok(0)
}

pub async fn close_range(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (first, last) = (args.u32(0), args.u32(1));
    let flags = CloseRangeFlags::from_bits(args.u32(2)).ok_or(Errno::EINVAL)?;
    if first > last {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloseRangeFlags::CLOSE_RANGE_UNSHARE) {
        let copy = Arc::new(ctx.task.files().duplicate());
        let old = ctx.task.set_files(copy);
        drop(old);
    }
    let files = ctx.task.files();
    let inside = |fd: Fd| (first..=last).contains(&fd.0.unsigned_abs());
    if flags.contains(CloseRangeFlags::CLOSE_RANGE_CLOEXEC) {
        for (fd, ..) in files.list() {
            if inside(fd) {
                // Closed by another thread meanwhile: nothing to mark.
                let _ = files.set_flags(fd, FdFlags::CLOEXEC);
            }
        }
        return Ok(0);
    }
    for file in files.remove_where(|fd, _| inside(fd)) {
        ctx.forget_views(&file).await;
        // Errors of single files are not reported.
        let _ = files.close_file(&file);
    }
    Ok(0)
}

pub async fn dup(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get_raw(Fd(args.i32(0)))?;
    ctx.add_fd(file, FdFlags::empty())
}

pub async fn dup2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (old, new) = (args.i32(0), args.i32(1));
    if old == new {
        ctx.task.files().get_raw(Fd(old))?;
        return Ok(u64::from(new.unsigned_abs()));
    }
    dup_to(ctx, old, new, FdFlags::empty()).await
}

pub async fn dup3(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (old, new, flags) = (args.i32(0), args.i32(1), args.u32(2));
    let cloexec = OpenFlags::O_CLOEXEC.bits();
    if flags & !cloexec != 0 || old == new {
        return Err(Errno::EINVAL);
    }
    dup_to(ctx, old, new, fd_flags(flags & cloexec != 0)).await
}

async fn dup_to(ctx: &mut Ctx<'_>, old: i32, new: i32, flags: FdFlags) -> SysResult {
    let limit = ctx.task.group.limit(RLIMIT_NOFILE);
    let files = ctx.task.files();
    if u64::try_from(new).map_or(true, |new| new >= limit) {
        return Err(Errno::EBADF);
    }
    let file = files.get_raw(Fd(old))?;
    if let Some(replaced) = files.replace(Fd(new), file, flags, limit)? {
        ctx.forget_views(&replaced).await;
        // dup2(2) reports no error of the implied close.
        let _ = files.close_file(&replaced);
    }
    Ok(u64::from(new.unsigned_abs()))
}
