//! `mount(2)`, `umount2(2)`, `pivot_root(2)`.

use syscall_tables::Errno;
use syscall_tables::abi::{MountFlags as Ms, UmountFlags};

use super::directory::move_all;
use crate::ctx::{Ctx, SysResult};
use crate::task::CapSet;
use crate::user::Args;
use crate::vfs::path::{Walk, resolve};
use crate::vfs::{
    FileKind, MountFlags, MountRequest, PropagationType, Start, UmountMode, VfsPath, WalkFlags,
};

/// Longest type name or option string.
const DATA_MAX: usize = 4096;
/// Magic number that old callers put into the upper half of the flags.
const MAGIC: u64 = 0xc0ed_0000;
const MAGIC_MASK: u64 = 0xffff_0000;

const PROPAGATION: Ms = Ms::MS_SHARED
    .union(Ms::MS_PRIVATE)
    .union(Ms::MS_SLAVE)
    .union(Ms::MS_UNBINDABLE);

/// Whether the caller may change its mount namespace.
fn check_capable(ctx: &Ctx<'_>) -> Result<(), Errno> {
    let namespace = ctx.task.fs().state.read().namespace.clone();
    if ctx
        .task
        .creds()
        .has_in(&namespace.user_ns, CapSet::SYS_ADMIN)
    {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// An optional string argument; empty for a null pointer.
async fn text(ctx: &mut Ctx<'_>, addr: u64) -> Result<Vec<u8>, Errno> {
    if addr == 0 {
        return Ok(Vec::new());
    }
    ctx.read_str(addr, DATA_MAX, Errno::EINVAL).await
}

async fn find(ctx: &mut Ctx<'_>, path: &[u8], flags: WalkFlags) -> Result<VfsPath, Errno> {
    resolve(ctx.kernel, ctx.task, Start::Cwd, path, flags)
}

pub async fn mount(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mut bits = args.raw(3);
    if bits & MAGIC_MASK == MAGIC {
        bits &= !MAGIC_MASK;
    }
    let flags = Ms::from_bits_truncate(bits);
    let kind = text(ctx, args.raw(2)).await?;
    let source = text(ctx, args.raw(0)).await?;
    let data = text(ctx, args.raw(4)).await?;
    let path = ctx.read_path(args.raw(1)).await?;
    let target = find(ctx, &path, WalkFlags::FOLLOW).await?;
    check_capable(ctx)?;
    let vfs = &ctx.kernel.vfs;
    let recursive = flags.contains(Ms::MS_REC);
    if flags.contains(Ms::MS_REMOUNT | Ms::MS_BIND) {
        vfs.set_mount_flags(&target, mount_flags(flags, target.mount.flags()))?;
    } else if flags.contains(Ms::MS_REMOUNT) {
        remount(ctx, &target, flags, &data)?;
    } else if flags.contains(Ms::MS_BIND) {
        if source.is_empty() {
            return Err(Errno::EINVAL);
        }
        let from = find(ctx, &source, WalkFlags::FOLLOW).await?;
        vfs.bind(&from, &target, recursive)?;
    } else if flags.intersects(PROPAGATION) {
        let kind = match flags & PROPAGATION {
            Ms::MS_SHARED => PropagationType::Shared,
            Ms::MS_PRIVATE => PropagationType::Private,
            Ms::MS_SLAVE => PropagationType::Slave,
            Ms::MS_UNBINDABLE => PropagationType::Unbindable,
            _ => return Err(Errno::EINVAL),
        };
        vfs.set_propagation(&target, kind, recursive)?;
    } else if flags.contains(Ms::MS_MOVE) {
        if source.is_empty() {
            return Err(Errno::EINVAL);
        }
        let from = find(ctx, &source, WalkFlags::FOLLOW).await?;
        vfs.move_mount(&from, &target)?;
    } else {
        mount_new(ctx, &target, &kind, &source, flags, &data)?;
    }
    Ok(0)
}

/// Per-mount flags of a call; a remount that names no access time rule keeps
/// the one there is.
fn mount_flags(flags: Ms, old: MountFlags) -> MountFlags {
    let mut new = MountFlags::empty();
    let pairs = [
        (Ms::MS_RDONLY, MountFlags::RDONLY),
        (Ms::MS_NOSUID, MountFlags::NOSUID),
        (Ms::MS_NODEV, MountFlags::NODEV),
        (Ms::MS_NOEXEC, MountFlags::NOEXEC),
        (Ms::MS_NOATIME, MountFlags::NOATIME),
        (Ms::MS_NODIRATIME, MountFlags::NODIRATIME),
        (Ms::MS_STRICTATIME, MountFlags::STRICTATIME),
        (Ms::MS_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ];
    for (from, to) in pairs {
        new.set(to, flags.contains(from));
    }
    let rules = Ms::MS_NOATIME | Ms::MS_NODIRATIME | Ms::MS_RELATIME | Ms::MS_STRICTATIME;
    if flags.contains(Ms::MS_REMOUNT) && !flags.intersects(rules) {
        new |= old & (MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::STRICTATIME);
    }
    new
}

fn remount(ctx: &Ctx<'_>, target: &VfsPath, flags: Ms, data: &[u8]) -> Result<(), Errno> {
    let mount = &target.mount;
    let vfs = &ctx.kernel.vfs;
    if !std::sync::Arc::ptr_eq(&target.dentry, &mount.root) {
        return Err(Errno::EINVAL);
    }
    mount.fs.remount(data, vfs.memory_bytes())?;
    mount.sb.set_readonly(flags.contains(Ms::MS_RDONLY));
    vfs.set_mount_flags(target, mount_flags(flags, mount.flags()))
}

fn mount_new(
    ctx: &Ctx<'_>,
    target: &VfsPath,
    kind: &[u8],
    source: &[u8],
    flags: Ms,
    data: &[u8],
) -> Result<(), Errno> {
    if kind.is_empty() {
        return Err(Errno::EINVAL);
    }
    let kind = std::str::from_utf8(kind).map_err(|_| Errno::ENODEV)?;
    let (kernel, task) = (ctx.kernel, ctx.task);
    let vfs = &kernel.vfs;
    let creds = task.creds();
    let follow = WalkFlags::FOLLOW;
    let locate = |path: &[u8]| {
        let mut walk = Walk::for_task(vfs, task, &creds, Start::Cwd, path, follow)?;
        walk.resolve(path)
    };
    let request = MountRequest {
        vfs,
        creds: &creds,
        source,
        data,
        task: Some(task),
        kernel: Some(kernel),
        resolve: &locate,
    };
    let sb = vfs.instantiate(kind, &request)?;
    sb.set_readonly(flags.contains(Ms::MS_RDONLY));
    vfs.mount(&sb, target, mount_flags(flags, MountFlags::empty()))?;
    Ok(())
}

pub async fn umount2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = UmountFlags::from_bits(args.u32(1)).ok_or(Errno::EINVAL)?;
    check_capable(ctx)?;
    let mut walk = WalkFlags::empty();
    walk.set(
        WalkFlags::FOLLOW,
        !flags.contains(UmountFlags::UMOUNT_NOFOLLOW),
    );
    let path = ctx.read_path(args.raw(0)).await?;
    let target = find(ctx, &path, walk).await?;
    if flags.contains(UmountFlags::MNT_EXPIRE) {
        if flags.intersects(UmountFlags::MNT_FORCE | UmountFlags::MNT_DETACH) {
            return Err(Errno::EINVAL);
        }
        if !target.mount.mark_expired() {
            return Err(Errno::EAGAIN);
        }
    }
    let mode = if flags.contains(UmountFlags::MNT_DETACH) {
        UmountMode::Detach
    } else {
        UmountMode::Normal
    };
    ctx.kernel.vfs.umount(target, mode)?;
    Ok(0)
}

pub async fn pivot_root(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    check_capable(ctx)?;
    let flags = WalkFlags::FOLLOW | WalkFlags::DIRECTORY;
    let new_root = ctx.read_path(args.raw(0)).await?;
    let new_root = find(ctx, &new_root, flags).await?;
    let put_old = ctx.read_path(args.raw(1)).await?;
    let put_old = find(ctx, &put_old, flags).await?;
    if new_root.inode_ref()?.kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    let old_root = ctx.task.fs().state.read().root.clone();
    ctx.kernel.vfs.pivot_root(&old_root, &new_root, &put_old)?;
    move_all(ctx, &old_root, &new_root);
    Ok(0)
}
