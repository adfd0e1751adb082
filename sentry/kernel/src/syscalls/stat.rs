//! `stat` and its kin, `access`, `readlink`, `statfs`.

use syscall_tables::Errno;
use syscall_tables::abi::{
    AccessMode, AtFlags, StFlags, Stat, Statfs, Statx, StatxAttr, StatxMask, StatxTimestamp,
    Timespec,
};

use crate::ctx::{Ctx, PathText, SysResult};
use crate::task::{CapSet, Creds, UserNamespace};
use crate::user::{Args, UserPtr};
use crate::vfs::path::resolve_as;
use crate::vfs::perm::{self, Access};
use crate::vfs::{
    Attr, Fd, FileKind, FsStat, MountFlags, Start, Timestamp, VfsPath, WalkFlags, dev_major,
    dev_minor,
};

/// `SECURE_NO_SETUID_FIXUP` (capabilities(7)).
const NO_SETUID_FIXUP: u32 = 1 << 2;

impl From<Timestamp> for Timespec {
    fn from(time: Timestamp) -> Self {
        Self {
            tv_sec: time.secs,
            tv_nsec: i64::from(time.nanos),
        }
    }
}

/// `struct stat` as a process of `user_ns` sees it.
fn encode_stat(attr: &Attr, user_ns: &UserNamespace) -> Stat {
    Stat {
        st_dev: attr.dev,
        st_ino: attr.ino,
        st_nlink: attr.nlink,
        st_mode: attr.mode(),
        st_uid: user_ns.uid_or_overflow(attr.uid),
        st_gid: user_ns.gid_or_overflow(attr.gid),
        st_rdev: attr.rdev,
        st_size: i64::try_from(attr.size_bytes).unwrap_or(i64::MAX),
        st_blksize: i64::from(attr.block_size),
        st_blocks: i64::try_from(attr.blocks).unwrap_or(i64::MAX),
        st_atime: attr.atime.into(),
        st_mtime: attr.mtime.into(),
        st_ctime: attr.ctime.into(),
        ..Stat::default()
    }
}

async fn put_stat(ctx: &mut Ctx<'_>, ptr: UserPtr<Stat>, attr: Attr) -> SysResult {
    let stat = encode_stat(&attr, &ctx.task.creds_ref().user_ns);
    ctx.write(ptr, &stat).await?;
    Ok(0)
}

pub async fn stat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let attr = find_attr(ctx, Start::Cwd, args.raw(0), WalkFlags::FOLLOW).await?;
    put_stat(ctx, args.ptr(1), attr).await
}

pub async fn lstat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let attr = find_attr(ctx, Start::Cwd, args.raw(0), WalkFlags::empty()).await?;
    put_stat(ctx, args.ptr(1), attr).await
}

pub async fn fstat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files_ref().get_raw(Fd(args.i32(0)))?;
    let attr = file.attr()?;
    drop(file);
    put_stat(ctx, args.ptr(1), attr).await
}

pub async fn newfstatat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = at_flags(
        args.u32(3),
        AtFlags::AT_SYMLINK_NOFOLLOW
            | AtFlags::AT_EMPTY_PATH
            | AtFlags::AT_NO_AUTOMOUNT
            | AtFlags::AT_STATX_FORCE_SYNC
            | AtFlags::AT_STATX_DONT_SYNC,
    )?;
    let start = Start::from_dirfd(args.i32(0));
    let attr = find_attr(ctx, start, args.raw(1), walk_flags(flags)).await?;
    put_stat(ctx, args.ptr(2), attr).await
}

/// Known flags of an `*at` call, or `EINVAL`.
pub(super) fn at_flags(flags: u32, known: AtFlags) -> Result<AtFlags, Errno> {
    let flags = AtFlags::from_bits_retain(flags);
    if !known.contains(flags) {
        return Err(Errno::EINVAL);
    }
    Ok(flags)
}

/// Walk flags of a call that follows links unless told otherwise.
pub(super) fn walk_flags(flags: AtFlags) -> WalkFlags {
    let mut walk = WalkFlags::empty();
    walk.set(
        WalkFlags::FOLLOW,
        !flags.contains(AtFlags::AT_SYMLINK_NOFOLLOW),
    );
    walk.set(
        WalkFlags::EMPTY_PATH,
        flags.contains(AtFlags::AT_EMPTY_PATH),
    );
    walk
}

/// Attributes of what a path or, with an empty one, a descriptor names.
async fn find_attr(
    ctx: &mut Ctx<'_>,
    start: Start,
    path: u64,
    flags: WalkFlags,
) -> Result<Attr, Errno> {
    find(ctx, start, path, flags).await.map(|(attr, _)| attr)
}

/// As [`find_attr`], with the place.
async fn find(
    ctx: &mut Ctx<'_>,
    start: Start,
    path: u64,
    flags: WalkFlags,
) -> Result<(Attr, VfsPath), Errno> {
    let path = match path {
        // A null path counts as an empty one (Linux 6.11).
        0 if flags.contains(WalkFlags::EMPTY_PATH) => PathText::new(),
        path => ctx.read_path(path).await?,
    };
    if let (Start::Fd(fd), true) = (start, path.is_empty())
        && flags.contains(WalkFlags::EMPTY_PATH)
    {
        let file = ctx.task.files_ref().get_raw(fd)?;
        return Ok((file.attr()?, file.path.clone()));
    }
    let found = crate::vfs::path::resolve(ctx.kernel, ctx.task, start, &path, flags)?;
    let attr = found.inode_ref()?.attr()?;
    Ok((attr, found))
}

pub async fn statx(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mask = StatxMask::from_bits_retain(args.u32(3));
    let flags = at_flags(
        args.u32(2),
        AtFlags::AT_SYMLINK_NOFOLLOW
            | AtFlags::AT_EMPTY_PATH
            | AtFlags::AT_NO_AUTOMOUNT
            | AtFlags::AT_STATX_FORCE_SYNC
            | AtFlags::AT_STATX_DONT_SYNC,
    )?;
    if mask.bits() & 0x8000_0000 != 0
        || flags.contains(AtFlags::AT_STATX_FORCE_SYNC | AtFlags::AT_STATX_DONT_SYNC)
    {
        return Err(Errno::EINVAL);
    }
    let start = Start::from_dirfd(args.i32(0));
    let (attr, path) = find(ctx, start, args.raw(1), walk_flags(flags)).await?;
    let user_ns = ctx.task.creds().user_ns.clone();
    let time = |time: Timestamp| StatxTimestamp::from(Timespec::from(time));
    let mut known = StatxMask::STATX_BASIC_STATS | StatxMask::STATX_MNT_ID;
    if mask.contains(StatxMask::STATX_MNT_ID_UNIQUE) {
        known = (known - StatxMask::STATX_MNT_ID) | StatxMask::STATX_MNT_ID_UNIQUE;
    }
    known.set(StatxMask::STATX_BTIME, attr.btime.is_some());
    let mut attributes = StatxAttr::empty();
    attributes.set(
        StatxAttr::STATX_ATTR_MOUNT_ROOT,
        std::sync::Arc::ptr_eq(&path.dentry, &path.mount.root),
    );
    let statx = Statx {
        stx_mask: known.bits(),
        stx_blksize: attr.block_size,
        stx_attributes: attributes.bits(),
        stx_nlink: u32::try_from(attr.nlink).unwrap_or(u32::MAX),
        stx_uid: user_ns.uid_or_overflow(attr.uid),
        stx_gid: user_ns.gid_or_overflow(attr.gid),
        stx_mode: attr.mode() as u16,
        stx_ino: attr.ino,
        stx_size: attr.size_bytes,
        stx_blocks: attr.blocks,
        stx_attributes_mask: StatxAttr::STATX_ATTR_MOUNT_ROOT.bits(),
        stx_atime: time(attr.atime),
        stx_btime: attr.btime.map(time).unwrap_or_default(),
        stx_ctime: time(attr.ctime),
        stx_mtime: time(attr.mtime),
        stx_rdev_major: dev_major(attr.rdev),
        stx_rdev_minor: dev_minor(attr.rdev),
        stx_dev_major: dev_major(attr.dev),
        stx_dev_minor: dev_minor(attr.dev),
        stx_mnt_id: path.mount.id,
        ..Statx::default()
    };
    ctx.write(args.ptr(4), &statx).await?;
    Ok(0)
}

pub async fn access(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    check_access(ctx, Start::Cwd, args.raw(0), args.u32(1), AtFlags::empty()).await
}

pub async fn faccessat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let start = Start::from_dirfd(args.i32(0));
    check_access(ctx, start, args.raw(1), args.u32(2), AtFlags::empty()).await
}

pub async fn faccessat2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = at_flags(
        args.u32(3),
        AtFlags::AT_EACCESS | AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH,
    )?;
    let start = Start::from_dirfd(args.i32(0));
    check_access(ctx, start, args.raw(1), args.u32(2), flags).await
}

/// Whether [`real_creds`] would change nothing.
fn is_real(creds: &Creds) -> bool {
    let root = creds.user_ns.uid_to_kernel(0);
    creds.fsuid == creds.uid
        && creds.fsgid == creds.gid
        && (creds.securebits & NO_SETUID_FIXUP != 0
            || (Some(creds.uid) == root && creds.effective == creds.permitted)
            || (Some(creds.uid) != root && creds.effective.is_empty()))
}

/// Credentials with the real ids in place of the effective ones.
fn real_creds(creds: &Creds) -> Creds {
    let mut real = Creds {
        fsuid: creds.uid,
        fsgid: creds.gid,
        ..creds.clone()
    };
    if creds.securebits & NO_SETUID_FIXUP == 0 {
        let root = creds.user_ns.uid_to_kernel(0);
        real.effective = if Some(creds.uid) == root {
            creds.permitted
        } else {
            CapSet::empty()
        };
    }
    real
}

async fn check_access(
    ctx: &mut Ctx<'_>,
    start: Start,
    path: u64,
    mode: u32,
    flags: AtFlags,
) -> SysResult {
    let mode = AccessMode::from_bits(mode).ok_or(Errno::EINVAL)?;
    let path = ctx.read_path(path).await?;
    let creds = ctx.task.creds();
    let real;
    let creds: &Creds = if flags.contains(AtFlags::AT_EACCESS) || is_real(&creds) {
        &creds
    } else {
        real = real_creds(&creds);
        &real
    };
    let walk = walk_flags(flags);
    let found = resolve_as(ctx.kernel, ctx.task, creds, start, &path, walk)?;
    let wanted = Access::from_bits_truncate(mode.bits());
    let inode = found.inode_ref()?;
    if wanted.contains(Access::EXEC)
        && inode.kind() == FileKind::Regular
        && found.mount.flags().contains(MountFlags::NOEXEC)
    {
        return Err(Errno::EACCES);
    }
    if wanted.is_empty() {
        return Ok(0);
    }
    perm::check_path(&found, creds, wanted)?;
    Ok(0)
}

pub async fn readlink(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    do_readlink(ctx, Start::Cwd, args.raw(0), args.raw(1), args.i32(2)).await
}

pub async fn readlinkat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let start = Start::from_dirfd(args.i32(0));
    do_readlink(ctx, start, args.raw(1), args.raw(2), args.i32(3)).await
}

async fn do_readlink(ctx: &mut Ctx<'_>, start: Start, path: u64, buf: u64, size: i32) -> SysResult {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size == 0 {
        return Err(Errno::EINVAL);
    }
    let path = ctx.read_path(path).await?;
    // Of a descriptor opened with O_PATH|O_NOFOLLOW itself.
    let empty = path.is_empty();
    let mut flags = WalkFlags::empty();
    flags.set(WalkFlags::EMPTY_PATH, start != Start::Cwd);
    let found = crate::vfs::path::resolve(ctx.kernel, ctx.task, start, &path, flags)?;
    let inode = found.inode_ref()?;
    if inode.kind() != FileKind::Symlink {
        return Err(if empty { Errno::ENOENT } else { Errno::EINVAL });
    }
    let target = inode.readlink_by(Some(ctx.task))?;
    let shown = target.get(..size).unwrap_or(&target);
    ctx.write_bytes(buf, shown).await?;
    Ok(shown.len() as u64)
}

pub async fn statfs(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let path = ctx.read_path(args.raw(0)).await?;
    let follow = WalkFlags::FOLLOW;
    let found = crate::vfs::path::resolve(ctx.kernel, ctx.task, Start::Cwd, &path, follow)?;
    put_statfs(ctx, args.ptr(1), &found).await
}

pub async fn fstatfs(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get_raw(Fd(args.i32(0)))?;
    put_statfs(ctx, args.ptr(1), &file.path).await
}

async fn put_statfs(ctx: &mut Ctx<'_>, ptr: UserPtr<Statfs>, path: &VfsPath) -> SysResult {
    let stat = if path.is_anonymous() {
        crate::fs::stat_of_anonymous(&ctx.kernel.vfs, path.inode()?.attr()?.dev)?
    } else {
        path.mount.fs.stat()?
    };
    let statfs = encode_statfs(&stat, mount_st_flags(path));
    ctx.write(ptr, &statfs).await?;
    Ok(0)
}

fn mount_st_flags(path: &VfsPath) -> StFlags {
    let flags = path.mount.flags();
    let mut st = StFlags::ST_VALID;
    let pairs = [
        (MountFlags::NOSUID, StFlags::ST_NOSUID),
        (MountFlags::NODEV, StFlags::ST_NODEV),
        (MountFlags::NOEXEC, StFlags::ST_NOEXEC),
        (MountFlags::NOATIME, StFlags::ST_NOATIME),
        (MountFlags::NODIRATIME, StFlags::ST_NODIRATIME),
        (MountFlags::NOSYMFOLLOW, StFlags::ST_NOSYMFOLLOW),
    ];
    for (from, to) in pairs {
        st.set(to, flags.contains(from));
    }
    st.set(StFlags::ST_RDONLY, path.mount.is_readonly());
    st.set(
        StFlags::ST_RELATIME,
        !flags.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME),
    );
    st
}

fn encode_statfs(stat: &FsStat, flags: StFlags) -> Statfs {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    Statfs {
        f_type: signed(stat.magic),
        f_bsize: signed(stat.block_size),
        f_blocks: stat.blocks,
        f_bfree: stat.blocks_free,
        f_bavail: stat.blocks_available,
        f_files: stat.files,
        f_ffree: stat.files_free,
        f_fsid: [stat.fsid as i32, (stat.fsid >> 32) as i32],
        f_namelen: signed(stat.name_max),
        f_frsize: signed(stat.block_size),
        f_flags: signed(stat.flags | flags.bits()),
        ..Statfs::default()
    }
}

/// Finds the mounted file system by device number.
pub async fn ustat(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let dev = u64::from(args.u32(0));
    let namespace = ctx.task.fs().state.read().namespace.clone();
    let mounts = namespace.mounts();
    let mount = mounts
        .iter()
        .find(|mount| mount.fs.dev() == dev)
        .ok_or(Errno::EINVAL)?;
    let stat = mount.fs.stat()?;
    // struct ustat: daddr_t f_tfree, ino_t f_tinode, two names of 6 bytes.
    let mut bytes = [0; 32];
    let fields = [(0, stat.blocks_free as u32 as u64), (8, stat.files_free)];
    for (at, value) in fields {
        if let Some(place) = bytes.get_mut(at..at + 8) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
    ctx.write_bytes(args.raw(1), &bytes).await?;
    Ok(0)
}
