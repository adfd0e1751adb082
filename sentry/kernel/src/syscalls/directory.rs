//! Names and directories: `mkdir`, `unlink`, `rename`, `link`, `mknod`,
//! `getdents`, `chdir`, `getcwd`.

use syscall_tables::Errno;
use syscall_tables::abi::{AtFlags, Dirent64Header, DirentHeader, PATH_MAX};
use zerocopy::IntoBytes;

use super::stat::at_flags;
use crate::ctx::{Ctx, SysResult};
use crate::task::CapSet;
use crate::user::Args;
use crate::vfs::notify::Mask;
use crate::vfs::path::{ParentAndLast, resolve, resolve_parent};
use crate::vfs::perm::{self, Access};
use crate::vfs::shown::path_from;
use crate::vfs::{DirEntry, Fd, FileKind, RenameFlags, Start, VfsPath, WalkFlags};

/// Most bytes one `getdents` fills.
const DIRENTS_MAX: usize = 64 << 10;

async fn parent(ctx: &mut Ctx<'_>, start: Start, path: u64) -> Result<ParentAndLast, Errno> {
    let path = ctx.read_path(path).await?;
    resolve_parent(ctx.kernel, ctx.task, start, &path, WalkFlags::empty())
}

/// `perm` without the bits of the caller's umask.
fn masked(ctx: &Ctx<'_>, perm: u32) -> u32 {
    perm & !ctx.task.fs().state.read().umask
}

pub async fn mkdir(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    do_mkdir(ctx, Start::Cwd, args.raw(0), args.u32(1)).await
}

pub async fn mkdirat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let start = Start::from_dirfd(args.i32(0));
    do_mkdir(ctx, start, args.raw(1), args.u32(2)).await
}

async fn do_mkdir(ctx: &mut Ctx<'_>, start: Start, path: u64, mode: u32) -> SysResult {
    let at = parent(ctx, start, path).await?;
    let perm = masked(ctx, mode & 0o1777);
    let made = ctx.kernel.vfs.mkdir(&ctx.task.creds(), &at, perm)?;
    ctx.kernel.vfs.watches.created(&made);
    Ok(0)
}

pub async fn mknod(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    do_mknod(ctx, Start::Cwd, args.raw(0), args.u32(1), args.u32(2)).await
}

pub async fn mknodat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let start = Start::from_dirfd(args.i32(0));
    do_mknod(ctx, start, args.raw(1), args.u32(2), args.u32(3)).await
}

async fn do_mknod(ctx: &mut Ctx<'_>, start: Start, path: u64, mode: u32, dev: u32) -> SysResult {
    let kind = match mode & 0o170000 {
        0 => FileKind::Regular,
        bits => FileKind::from_mode(bits).ok_or(Errno::EINVAL)?,
    };
    match kind {
        FileKind::Directory => return Err(Errno::EPERM),
        FileKind::Symlink => return Err(Errno::EINVAL),
        _ => {}
    }
    let at = parent(ctx, start, path).await?;
    let creds = ctx.task.creds();
    let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    let is_whiteout = kind == FileKind::CharDevice && dev == 0;
    // Existing names win over missing capabilities.
    if is_device && !is_whiteout && !creds.has(CapSet::MKNOD) {
        let name = at.name(Errno::EEXIST)?;
        let known = crate::vfs::lookup::lookup(&at.parent, name)?;
        return Err(if known.inode().is_some() {
            Errno::EEXIST
        } else {
            Errno::EPERM
        });
    }
    let perm = masked(ctx, mode & 0o7777);
    let rdev = if is_device { u64::from(dev) } else { 0 };
    let made = ctx.kernel.vfs.mknod(&creds, &at, kind, perm, rdev)?;
    ctx.kernel.vfs.watches.created(&made);
    Ok(0)
}

pub async fn symlink(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    do_symlink(ctx, args.raw(0), Start::Cwd, args.raw(1)).await
}

pub async fn symlinkat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let start = Start::from_dirfd(args.i32(1));
    do_symlink(ctx, args.raw(0), start, args.raw(2)).await
}

async fn do_symlink(ctx: &mut Ctx<'_>, target: u64, start: Start, path: u64) -> SysResult {
    let target = ctx.read_path(target).await?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let at = parent(ctx, start, path).await?;
    let made = ctx.kernel.vfs.symlink(&ctx.task.creds(), &at, &target)?;
    ctx.kernel.vfs.watches.created(&made);
    Ok(0)
}

pub async fn link(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let none = AtFlags::empty();
    do_link(
        ctx,
        (Start::Cwd, args.raw(0)),
        (Start::Cwd, args.raw(1)),
        none,
    )
    .await
}

pub async fn linkat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = at_flags(
        args.u32(4),
        AtFlags::AT_SYMLINK_FOLLOW | AtFlags::AT_EMPTY_PATH,
    )?;
    let old = (Start::from_dirfd(args.i32(0)), args.raw(1));
    let new = (Start::from_dirfd(args.i32(2)), args.raw(3));
    do_link(ctx, old, new, flags).await
}

async fn do_link(
    ctx: &mut Ctx<'_>,
    (old_start, old): (Start, u64),
    (new_start, new): (Start, u64),
    flags: AtFlags,
) -> SysResult {
    let mut walk = WalkFlags::empty();
    walk.set(
        WalkFlags::FOLLOW,
        flags.contains(AtFlags::AT_SYMLINK_FOLLOW),
    );
    walk.set(
        WalkFlags::EMPTY_PATH,
        flags.contains(AtFlags::AT_EMPTY_PATH),
    );
    let old = ctx.read_path(old).await?;
    if old.is_empty() && !ctx.task.creds().has_own(CapSet::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT);
    }
    let source = resolve(ctx.kernel, ctx.task, old_start, &old, walk)?;
    let at = parent(ctx, new_start, new).await?;
    let made = ctx.kernel.vfs.link(&ctx.task.creds(), &source, &at)?;
    ctx.kernel.vfs.watches.happened(&source, Mask::ATTRIB);
    ctx.kernel.vfs.watches.created(&made);
    Ok(0)
}

pub async fn unlink(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    do_unlink(ctx, Start::Cwd, args.raw(0)).await
}

pub async fn rmdir(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    do_rmdir(ctx, Start::Cwd, args.raw(0)).await
}

pub async fn unlinkat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = at_flags(args.u32(2), AtFlags::AT_REMOVEDIR)?;
    let start = Start::from_dirfd(args.i32(0));
    if flags.contains(AtFlags::AT_REMOVEDIR) {
        do_rmdir(ctx, start, args.raw(1)).await
    } else {
        do_unlink(ctx, start, args.raw(1)).await
    }
}

async fn do_unlink(ctx: &mut Ctx<'_>, start: Start, path: u64) -> SysResult {
    let at = parent(ctx, start, path).await?;
    let gone = ctx.kernel.vfs.unlink(&ctx.task.creds(), &at)?;
    ctx.kernel.vfs.watches.deleted(&gone);
    Ok(0)
}

async fn do_rmdir(ctx: &mut Ctx<'_>, start: Start, path: u64) -> SysResult {
    let at = parent(ctx, start, path).await?;
    let gone = ctx.kernel.vfs.rmdir(&ctx.task.creds(), &at)?;
    ctx.kernel.vfs.watches.deleted(&gone);
    Ok(0)
}

pub async fn rename(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let (old, new) = ((Start::Cwd, args.raw(0)), (Start::Cwd, args.raw(1)));
    do_rename(ctx, old, new, RenameFlags::empty()).await
}

pub async fn renameat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let old = (Start::from_dirfd(args.i32(0)), args.raw(1));
    let new = (Start::from_dirfd(args.i32(2)), args.raw(3));
    do_rename(ctx, old, new, RenameFlags::empty()).await
}

pub async fn renameat2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = RenameFlags::from_bits(args.u32(4)).ok_or(Errno::EINVAL)?;
    if flags.contains(RenameFlags::EXCHANGE)
        && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT)
    {
        return Err(Errno::EINVAL);
    }
    let old = (Start::from_dirfd(args.i32(0)), args.raw(1));
    let new = (Start::from_dirfd(args.i32(2)), args.raw(3));
    do_rename(ctx, old, new, flags).await
}

async fn do_rename(
    ctx: &mut Ctx<'_>,
    (old_start, old): (Start, u64),
    (new_start, new): (Start, u64),
    flags: RenameFlags,
) -> SysResult {
    let old = parent(ctx, old_start, old).await?;
    let new = parent(ctx, new_start, new).await?;
    let vfs = &ctx.kernel.vfs;
    let renamed = vfs.rename(&ctx.task.creds(), &old, &new, flags)?;
    let Some(moved) = &renamed.moved else {
        return Ok(0);
    };
    if !vfs.watches.is_idle() {
        let is_dir = moved.inode_ref()?.kind() == FileKind::Directory;
        let cookie = vfs.watches.next_cookie();
        let (from, to) = (old.name(Errno::EBUSY)?, new.name(Errno::EBUSY)?);
        let watches = &vfs.watches;
        watches.in_dir(&old.parent, from, Mask::MOVED_FROM, is_dir, cookie);
        watches.in_dir(&new.parent, to, Mask::MOVED_TO, is_dir, cookie);
        watches.moved_self(moved);
        if let Some(replaced) = &renamed.replaced {
            watches.replaced(replaced);
        }
    }
    Ok(0)
}

pub async fn chdir(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let path = ctx.read_path(args.raw(0)).await?;
    let flags = WalkFlags::FOLLOW | WalkFlags::DIRECTORY;
    let found = resolve(ctx.kernel, ctx.task, Start::Cwd, &path, flags)?;
    set_cwd(ctx, found)
}

pub async fn fchdir(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let path = ctx.task.files().get_raw(Fd(args.i32(0)))?.path.clone();
    if path.inode_ref()?.kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    set_cwd(ctx, path)
}

fn set_cwd(ctx: &Ctx<'_>, path: VfsPath) -> SysResult {
    perm::check_path(&path, &ctx.task.creds(), Access::EXEC)?;
    let fs = ctx.task.fs();
    let old = std::mem::replace(&mut fs.state.write().cwd, path);
    drop(old);
    Ok(0)
}

pub async fn chroot(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let path = ctx.read_path(args.raw(0)).await?;
    let flags = WalkFlags::FOLLOW | WalkFlags::DIRECTORY;
    let found = resolve(ctx.kernel, ctx.task, Start::Cwd, &path, flags)?;
    let creds = ctx.task.creds();
    perm::check_path(&found, &creds, Access::EXEC)?;
    if !creds.has_own(CapSet::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    let fs = ctx.task.fs();
    let old = std::mem::replace(&mut fs.state.write().root, found);
    drop(old);
    Ok(0)
}

pub async fn getcwd(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let fs = ctx.task.fs();
    let (root, cwd) = {
        let state = fs.state.read();
        (state.root.clone(), state.cwd.clone())
    };
    if cwd.dentry.is_removed() {
        return Err(Errno::ENOENT);
    }
    let (path, reachable) = path_from(&root, &cwd);
    let mut shown = Vec::new();
    if !reachable {
        shown.extend_from_slice(b"(unreachable)");
    }
    shown.extend_from_slice(&path);
    shown.push(0);
    if shown.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if shown.len() > args.usize(1) {
        return Err(Errno::ERANGE);
    }
    ctx.write_bytes(args.raw(0), &shown).await?;
    Ok(shown.len() as u64)
}

/// Appends one record to a listing.
type Encode = fn(&mut Vec<u8>, &DirEntry, usize);

pub async fn getdents(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    list(ctx, args, DirentHeader::record_len, encode_dirent).await
}

pub async fn getdents64(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    list(ctx, args, Dirent64Header::record_len, encode_dirent64).await
}

fn encode_dirent64(out: &mut Vec<u8>, entry: &DirEntry, len: usize) {
    let start = out.len();
    let header = Dirent64Header {
        d_ino: entry.ino,
        d_off: entry.next_offset.cast_signed(),
        d_reclen: len as u16,
        d_type: entry.kind.dirent_type(),
    };
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&entry.name);
    out.resize(start + len, 0);
}

fn encode_dirent(out: &mut Vec<u8>, entry: &DirEntry, len: usize) {
    let start = out.len();
    let header = DirentHeader {
        d_ino: entry.ino,
        d_off: entry.next_offset,
        d_reclen: len as u16,
    };
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&entry.name);
    out.resize(start + len, 0);
    if let Some(last) = out.last_mut() {
        *last = entry.kind.dirent_type();
    }
}

async fn list(
    ctx: &mut Ctx<'_>,
    args: Args,
    record_len: fn(usize) -> usize,
    encode: Encode,
) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    if file.path.inode_ref()?.kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    if file.path.dentry.is_removed() {
        return Err(Errno::ENOENT);
    }
    let room = (args.u32(2) as usize).min(DIRENTS_MAX);
    let mut out = Vec::with_capacity(room.min(4096));
    let mut too_small = false;
    let (before, after) = {
        let mut position = file.position.lock();
        let before = *position;
        let mut after = before;
        let mut emit = |entry: DirEntry| {
            let len = record_len(entry.name.len());
            if out.len() + len > room {
                too_small = out.is_empty();
                return false;
            }
            encode(&mut out, &entry, len);
            after = entry.next_offset;
            true
        };
        file.ops.read_dir(&file, before, &mut emit)?;
        *position = after;
        (before, after)
    };
    if too_small {
        return Err(Errno::EINVAL);
    }
    if let Err(errno) = ctx.write_bytes(args.raw(1), &out).await {
        let mut position = file.position.lock();
        if *position == after {
            *position = before;
        }
        return Err(errno);
    }
    ctx.kernel.vfs.watches.happened(&file.path, Mask::ACCESS);
    Ok(out.len() as u64)
}

/// Working directories and roots at `old` move to `new`, in all processes
/// (`pivot_root`).
pub(super) fn move_all(ctx: &Ctx<'_>, old: &VfsPath, new: &VfsPath) {
    for (_, task) in ctx.kernel.root_pid_ns.tasks() {
        let fs = task.fs();
        let mut left = Vec::new();
        let mut state = fs.state.write();
        if state.root.same_place(old) {
            left.push(std::mem::replace(&mut state.root, new.clone()));
        }
        if state.cwd.same_place(old) {
            left.push(std::mem::replace(&mut state.cwd, new.clone()));
        }
        drop(state);
    }
}
