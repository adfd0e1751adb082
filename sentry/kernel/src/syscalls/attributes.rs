//! Changing attributes: mode, owner, times, size, umask.

use syscall_tables::Errno;
use syscall_tables::abi::{
    AtFlags, FallocFlags, RLIM_INFINITY, RLIMIT_FSIZE, Signal, Timespec, Timeval, UTIME_NOW,
    UTIME_OMIT, Utimbuf,
};

use super::read_write::{drop_privileges, send_to_self, stripped, writable};
use super::stat::{at_flags, walk_flags};
use crate::ctx::{Ctx, SysResult};
use crate::task::{CapSet, Gid, Uid};
use crate::user::{Args, UserPtr};
use crate::vfs::notify::Mask;
use crate::vfs::path::resolve;
use crate::vfs::perm::{self, Access, S_ISGID, S_ISUID};
use crate::vfs::{Fd, FileKind, OpenMode, SetAttr, SetTime, Start, Timestamp, VfsPath, WalkFlags};

/// Permission, set-id and sticky bits.
const PERM_BITS: u32 = 0o7777;
const NSEC_PER_SEC: i64 = 1_000_000_000;
const USEC_PER_SEC: i64 = 1_000_000;

/// What a path or, with an empty one allowed, a descriptor names.
pub(super) async fn find(
    ctx: &mut Ctx<'_>,
    start: Start,
    path: u64,
    flags: WalkFlags,
) -> Result<VfsPath, Errno> {
    let path = ctx.read_path(path).await?;
    resolve(ctx.kernel, ctx.task, start, &path, flags)
}

fn check_writable_fs(path: &VfsPath) -> Result<(), Errno> {
    if path.mount.is_readonly() && !path.is_anonymous() {
        return Err(Errno::EROFS);
    }
    Ok(())
}

/// Applies `changes` and tells those who watch.
fn apply(ctx: &Ctx<'_>, path: &VfsPath, changes: &SetAttr) -> SysResult {
    path.inode_ref()?.set_attr(changes)?;
    let rights = changes.perm.is_some() || changes.uid.is_some() || changes.gid.is_some();
    let leads_on = |kind| matches!(kind, FileKind::Directory | FileKind::Symlink);
    if rights && leads_on(path.inode_ref()?.kind()) {
        path.dentry.paths_changed();
    }
    ctx.kernel.vfs.watches.happened(path, Mask::ATTRIB);
    Ok(0)
}

pub async fn chmod(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let path = find(ctx, Start::Cwd, args.raw(0), WalkFlags::FOLLOW).await?;
    do_chmod(ctx, &path, args.u32(1))
}

pub async fn fchmod(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let path = ctx.task.files().get(Fd(args.i32(0)))?.path.clone();
    do_chmod(ctx, &path, args.u32(1))
}

pub async fn fchmodat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let start = Start::from_dirfd(args.i32(0));
    let path = find(ctx, start, args.raw(1), WalkFlags::FOLLOW).await?;
    do_chmod(ctx, &path, args.u32(2))
}

pub async fn fchmodat2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let known = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    let flags = at_flags(args.u32(3), known)?;
    let start = Start::from_dirfd(args.i32(0));
    let path = find(ctx, start, args.raw(1), walk_flags(flags)).await?;
    do_chmod(ctx, &path, args.u32(2))
}

fn do_chmod(ctx: &Ctx<'_>, path: &VfsPath, mode: u32) -> SysResult {
    check_writable_fs(path)?;
    let inode = path.inode_ref()?;
    if inode.kind() == FileKind::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let attr = inode.attr()?;
    let creds = ctx.task.creds();
    perm::check_owner(&attr, &creds)?;
    let mut perm = mode & PERM_BITS;
    if !creds.in_group(attr.gid) && !perm::capable(&attr, &creds, CapSet::FSETID) {
        perm &= !S_ISGID;
    }
    let changes = SetAttr {
        perm: Some(perm),
        ..SetAttr::default()
    };
    apply(ctx, path, &changes)
}

pub async fn umask(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let fs = ctx.task.fs();
    let mut state = fs.state.write();
    let old = std::mem::replace(&mut state.umask, args.u32(0) & 0o777);
    Ok(u64::from(old))
}

pub async fn chown(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let path = find(ctx, Start::Cwd, args.raw(0), WalkFlags::FOLLOW).await?;
    do_chown(ctx, &path, args.u32(1), args.u32(2))
}

pub async fn lchown(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let path = find(ctx, Start::Cwd, args.raw(0), WalkFlags::empty()).await?;
    do_chown(ctx, &path, args.u32(1), args.u32(2))
}

pub async fn fchown(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let path = ctx.task.files().get(Fd(args.i32(0)))?.path.clone();
    do_chown(ctx, &path, args.u32(1), args.u32(2))
}

pub async fn fchownat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let known = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    let flags = at_flags(args.u32(4), known)?;
    let start = Start::from_dirfd(args.i32(0));
    let path = find(ctx, start, args.raw(1), walk_flags(flags)).await?;
    do_chown(ctx, &path, args.u32(2), args.u32(3))
}

fn do_chown(ctx: &Ctx<'_>, path: &VfsPath, uid: u32, gid: u32) -> SysResult {
    let creds = ctx.task.creds();
    let user_ns = &creds.user_ns;
    let mapped = |id: u32| (id != u32::MAX).then_some(id);
    let uid: Option<Uid> = match mapped(uid) {
        Some(uid) => Some(user_ns.uid_to_kernel(uid).ok_or(Errno::EINVAL)?),
        None => None,
    };
    let gid: Option<Gid> = match mapped(gid) {
        Some(gid) => Some(user_ns.gid_to_kernel(gid).ok_or(Errno::EINVAL)?),
        None => None,
    };
    check_writable_fs(path)?;
    let inode = path.inode_ref()?;
    let attr = inode.attr()?;
    let owns = creds.fsuid == attr.uid;
    let privileged = perm::capable(&attr, &creds, CapSet::CHOWN);
    let uid_fine = uid.is_none_or(|uid| privileged || (owns && uid == attr.uid));
    let gid_fine =
        gid.is_none_or(|gid| privileged || (owns && (gid == attr.gid || creds.in_group(gid))));
    if !uid_fine || !gid_fine {
        return Err(Errno::EPERM);
    }
    let mut changes = SetAttr {
        uid,
        gid,
        ..SetAttr::default()
    };
    // Root's chown takes the set-id bits too.
    if attr.kind != FileKind::Directory && attr.perm & (S_ISUID | S_ISGID) != 0 {
        let mut left = perm::without_set_id(attr.perm);
        let in_group = creds.in_group(gid.unwrap_or(attr.gid));
        if !in_group && !perm::capable(&attr, &creds, CapSet::FSETID) {
            left &= !S_ISGID;
        }
        changes.perm = (left != attr.perm).then_some(left);
    }
    if attr.kind == FileKind::Regular {
        // File capabilities go with the owner; most files have none.
        let _ = inode.remove_xattr(b"security.capability");
    }
    apply(ctx, path, &changes)
}

/// Access and modification time to set; `None` leaves one.
struct Times {
    atime: Option<SetTime>,
    mtime: Option<SetTime>,
}

impl Times {
    const NOW: Self = Self {
        atime: Some(SetTime::Now),
        mtime: Some(SetTime::Now),
    };

    fn is_now(&self) -> bool {
        self.atime == Some(SetTime::Now) && self.mtime == Some(SetTime::Now)
    }

    fn to(atime: Timestamp, mtime: Timestamp) -> Self {
        Self {
            atime: Some(SetTime::To(atime)),
            mtime: Some(SetTime::To(mtime)),
        }
    }
}

pub async fn utime(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let times = match args.ptr::<Utimbuf>(1).non_null() {
        None => Times::NOW,
        Some(ptr) => {
            let times = ctx.read(ptr).await?;
            let at = |secs| Timestamp { secs, nanos: 0 };
            Times::to(at(times.actime), at(times.modtime))
        }
    };
    let path = find(ctx, Start::Cwd, args.raw(0), WalkFlags::FOLLOW).await?;
    set_times(ctx, &path, &times)
}

pub async fn utimes(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let times = read_timevals(ctx, args.ptr(1)).await?;
    let path = find(ctx, Start::Cwd, args.raw(0), WalkFlags::FOLLOW).await?;
    set_times(ctx, &path, &times)
}

pub async fn futimesat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let times = read_timevals(ctx, args.ptr(2)).await?;
    let start = Start::from_dirfd(args.i32(0));
    let path = if args.raw(1) == 0 {
        descriptor_path(ctx, start)?
    } else {
        find(ctx, start, args.raw(1), WalkFlags::FOLLOW).await?
    };
    set_times(ctx, &path, &times)
}

fn descriptor_path(ctx: &Ctx<'_>, start: Start) -> Result<VfsPath, Errno> {
    match start {
        Start::Fd(fd) => Ok(ctx.task.files().get(fd)?.path.clone()),
        Start::Cwd => Err(Errno::EFAULT),
    }
}

async fn read_timevals(ctx: &mut Ctx<'_>, ptr: UserPtr<[Timeval; 2]>) -> Result<Times, Errno> {
    let Some(ptr) = ptr.non_null() else {
        return Ok(Times::NOW);
    };
    let [atime, mtime] = ctx.read(ptr).await?;
    let convert = |time: Timeval| {
        if !(0..USEC_PER_SEC).contains(&time.tv_usec) {
            return Err(Errno::EINVAL);
        }
        let nanos = u32::try_from(time.tv_usec * 1000).map_err(|_| Errno::EINVAL)?;
        Ok(Timestamp {
            secs: time.tv_sec,
            nanos,
        })
    };
    Ok(Times::to(convert(atime)?, convert(mtime)?))
}

pub async fn utimensat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let times = match args.ptr::<[Timespec; 2]>(2).non_null() {
        None => None,
        Some(ptr) => {
            let [atime, mtime] = ctx.read(ptr).await?;
            if [atime.tv_nsec, mtime.tv_nsec] == [UTIME_OMIT; 2] {
                // Not even the path is looked at.
                return Ok(0);
            }
            Some([atime, mtime])
        }
    };
    let known = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    let start = Start::from_dirfd(args.i32(0));
    let path = if args.raw(1) == 0 {
        if args.u32(3) != 0 {
            return Err(Errno::EINVAL);
        }
        descriptor_path(ctx, start)?
    } else {
        let flags = at_flags(args.u32(3), known)?;
        find(ctx, start, args.raw(1), walk_flags(flags)).await?
    };
    let times = match times {
        None => Times::NOW,
        Some([atime, mtime]) => Times {
            atime: set_time(atime)?,
            mtime: set_time(mtime)?,
        },
    };
    set_times(ctx, &path, &times)
}

fn set_time(time: Timespec) -> Result<Option<SetTime>, Errno> {
    match time.tv_nsec {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        nanos if (0..NSEC_PER_SEC).contains(&nanos) => {
            let nanos = u32::try_from(nanos).map_err(|_| Errno::EINVAL)?;
            Ok(Some(SetTime::To(Timestamp {
                secs: time.tv_sec,
                nanos,
            })))
        }
        _ => Err(Errno::EINVAL),
    }
}

fn set_times(ctx: &Ctx<'_>, path: &VfsPath, times: &Times) -> SysResult {
    check_writable_fs(path)?;
    let attr = path.inode_ref()?.attr()?;
    let creds = ctx.task.creds();
    if let Err(errno) = perm::check_owner(&attr, &creds) {
        // Who may write may set the present time, and no other.
        if !times.is_now() {
            return Err(errno);
        }
        perm::check(&attr, &creds, Access::WRITE)?;
    }
    let changes = SetAttr {
        atime: times.atime,
        mtime: times.mtime,
        ..SetAttr::default()
    };
    apply(ctx, path, &changes)
}

pub async fn truncate(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let size = u64::try_from(args.i64(1)).map_err(|_| Errno::EINVAL)?;
    let path = find(ctx, Start::Cwd, args.raw(0), WalkFlags::FOLLOW).await?;
    let inode = path.inode_ref()?;
    match inode.kind() {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::EINVAL),
    }
    let creds = ctx.task.creds();
    perm::check_path(&path, &creds, Access::WRITE)?;
    check_size(ctx, size)?;
    let _claim = ctx.kernel.vfs.claims.write(inode)?;
    let changes = SetAttr {
        size_bytes: Some(size),
        perm: stripped(&inode.attr()?, &creds),
        ..SetAttr::default()
    };
    inode.set_attr(&changes)?;
    ctx.kernel.vfs.watches.happened(&path, Mask::MODIFY);
    Ok(0)
}

pub async fn ftruncate(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let size = u64::try_from(args.i64(1)).map_err(|_| Errno::EINVAL)?;
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let kind = file.path.inode_ref()?.kind();
    if kind != FileKind::Regular || writable(ctx, args.i32(0)).is_err() {
        return Err(Errno::EINVAL);
    }
    check_size(ctx, size)?;
    drop_privileges(&ctx.task.creds(), &file)?;
    file.ops.truncate(&file, size)?;
    ctx.kernel.vfs.watches.happened(&file.path, Mask::MODIFY);
    Ok(0)
}

/// `RLIMIT_FSIZE` for a new size.
fn check_size(ctx: &Ctx<'_>, size: u64) -> Result<(), Errno> {
    let limit = ctx.task.group.limit(RLIMIT_FSIZE);
    if limit != RLIM_INFINITY && size > limit {
        send_to_self(ctx, Signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}

/// Which combinations of flags exist at all (`vfs_fallocate`).
fn check_fallocate_mode(mode: u32) -> Result<(), Errno> {
    const KEEP_SIZE: FallocFlags = FallocFlags::FALLOC_FL_KEEP_SIZE;
    let mode = FallocFlags::from_bits_retain(mode);
    let keep_size = mode.contains(KEEP_SIZE);
    match mode.difference(KEEP_SIZE | FallocFlags::FALLOC_FL_UNSHARE_RANGE) {
        kind if kind.is_empty() => Ok(()),
        FallocFlags::FALLOC_FL_ZERO_RANGE => Ok(()),
        FallocFlags::FALLOC_FL_PUNCH_HOLE if keep_size => Ok(()),
        FallocFlags::FALLOC_FL_COLLAPSE_RANGE | FallocFlags::FALLOC_FL_INSERT_RANGE
            if !keep_size =>
        {
            Ok(())
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

pub async fn fallocate(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mode = args.u32(1);
    let (offset, len) = (args.i64(2), args.i64(3));
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    check_fallocate_mode(mode)?;
    if !file.mode.contains(OpenMode::WRITE) {
        return Err(Errno::EBADF);
    }
    match file.path.inode_ref()?.kind() {
        FileKind::Regular => {}
        FileKind::Directory => return Err(Errno::EISDIR),
        FileKind::Fifo => return Err(Errno::ESPIPE),
        _ => return Err(Errno::ENODEV),
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    check_size(ctx, end.unsigned_abs())?;
    drop_privileges(&ctx.task.creds(), &file)?;
    file.ops
        .allocate(&file, mode, offset.unsigned_abs(), len.unsigned_abs())?;
    ctx.kernel.vfs.watches.happened(&file.path, Mask::MODIFY);
    Ok(0)
}
