//! The container's mount tree, from its plan.

use std::sync::Arc;

use anyhow::{Context, Result};
use sentry_kernel::fs::gofer::{CachePolicy, Connection, GoferFs};
use sentry_kernel::fs::overlay::OverlayFs;
use sentry_kernel::fs::tmpfs::TmpFsOptions;
use sentry_kernel::kernel::{Kernel, LogLevel};
use sentry_kernel::task::Creds;
use sentry_kernel::vfs::path::Walk;
use sentry_kernel::vfs::{
    FileKind, FileSystem, FsState, MountFlags, MountNamespace, MountRequest, Superblock, VfsPath,
    WalkFlags,
};
use syscall_tables::Errno;

use crate::plan::{ContainerPlan, MountKind, MountPlan, Overlay};

/// Permissions of mount points that did not exist.
const MOUNT_POINT_PERM: u32 = 0o755;

/// Mounts everything the plan names.
pub fn build(
    kernel: &Arc<Kernel>,
    plan: &ContainerPlan,
    connection: Arc<Connection>,
) -> Result<Arc<MountNamespace>> {
    let root = root_superblock(kernel, plan, &connection)
        .with_context(|| format!("root {} can't be mounted", plan.root.path.display()))?;
    let namespace = kernel.vfs.new_namespace(&root, MountFlags::empty());
    let state = FsState::at_root_of(&namespace).context("the root is not a directory")?;
    let builder = Builder {
        kernel,
        connection,
        creds: Creds::root(),
        root: state.root,
    };
    let mut next_gofer_root = 1;
    for mount in &plan.mounts {
        builder
            .mount(mount, &mut next_gofer_root)
            .with_context(|| format!("{} can't be mounted", mount.destination))?;
    }
    for path in &plan.masked_paths {
        builder
            .mask(path)
            .with_context(|| format!("{path} can't be masked"))?;
    }
    for path in &plan.readonly_paths {
        builder
            .make_readonly(path)
            .with_context(|| format!("{path} can't be made read-only"))?;
    }
    if plan.root.readonly {
        let root = namespace.root().context("the root is gone")?;
        let flags = root.mount.flags() | MountFlags::RDONLY;
        kernel.vfs.set_mount_flags(&root, flags)?;
    }
    Ok(namespace)
}

fn root_superblock(
    kernel: &Arc<Kernel>,
    plan: &ContainerPlan,
    connection: &Arc<Connection>,
) -> Result<Arc<Superblock>, Errno> {
    let vfs = &kernel.vfs;
    let lower = GoferFs::attach(vfs, connection, 0, CachePolicy::ROOTFS, "none")?;
    // A read-only root gets a layer of its own as well: the mount points that
    // it lacks are made there and not on the host.
    match plan.root.overlay {
        Overlay::None if !plan.root.readonly => Ok(vfs.superblock(lower)),
        Overlay::None | Overlay::Memory => {
            let layers = vec![(lower.root(), lower as Arc<dyn FileSystem>)];
            // What tmpfs has by default.
            let limits = TmpFsOptions {
                size_bytes: Some(kernel.memory_bytes / 2),
                ..TmpFsOptions::default()
            };
            let overlay = OverlayFs::in_memory(vfs, layers, &limits)?;
            Ok(vfs.superblock(overlay))
        }
    }
}

struct Builder<'a> {
    kernel: &'a Arc<Kernel>,
    connection: Arc<Connection>,
    creds: Creds,
    root: VfsPath,
}

impl Builder<'_> {
    fn walk(&self, flags: WalkFlags) -> Walk<'_> {
        let root = self.root.clone().enter_mounts();
        Walk::new(&self.kernel.vfs, &self.creds, root.clone(), root, flags)
    }

    fn resolve(&self, path: &[u8]) -> Result<VfsPath, Errno> {
        self.walk(WalkFlags::FOLLOW).resolve(path)
    }

    fn mount(&self, plan: &MountPlan, next_gofer_root: &mut u32) -> Result<()> {
        let vfs = &self.kernel.vfs;
        let bits = u32::try_from(plan.flags & u64::from(u32::MAX))?;
        let flags = MountFlags::from_bits_truncate(bits);
        let superblock = match &plan.kind {
            MountKind::Bind { source } => {
                let source = source.to_string_lossy();
                let number = *next_gofer_root;
                *next_gofer_root += 1;
                vfs.superblock(GoferFs::attach(
                    vfs,
                    &self.connection,
                    number,
                    CachePolicy::SHARED,
                    &source,
                )?)
            }
            kind => match self.instantiate(type_name(kind), plan)? {
                Some(superblock) => superblock,
                None => return Ok(()),
            },
        };
        let kind = superblock.fs.root().kind();
        let place = self.mount_point(plan.destination.as_bytes(), kind)?;
        vfs.mount(&superblock, &place, flags)?;
        Ok(())
    }

    fn instantiate(&self, name: &str, plan: &MountPlan) -> Result<Option<Arc<Superblock>>> {
        let request = MountRequest {
            vfs: &self.kernel.vfs,
            creds: &self.creds,
            source: name.as_bytes(),
            data: plan.data.as_bytes(),
            task: None,
            kernel: Some(self.kernel),
            resolve: &|path| self.resolve(path),
        };
        match self.kernel.vfs.instantiate(name, &request) {
            Ok(superblock) => Ok(Some(superblock)),
            Err(Errno::ENODEV) => {
                let line = format_args!("file system {name} is not known to the sentry");
                self.kernel.log(LogLevel::Warning, line);
                Ok(None)
            }
            Err(err) => Err(err).with_context(|| format!("options {:?}", plan.data)),
        }
    }

    /// The place of a mount, made if it does not exist.
    fn mount_point(&self, path: &[u8], kind: FileKind) -> Result<VfsPath, Errno> {
        match self.resolve(path) {
            Err(Errno::ENOENT) => {}
            done => return done,
        }
        let components: Vec<&[u8]> = path
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
            .collect();
        let mut so_far = Vec::new();
        for (index, name) in components.iter().enumerate() {
            so_far.push(b'/');
            so_far.extend_from_slice(name);
            match self.resolve(&so_far) {
                Ok(_) => continue,
                Err(Errno::ENOENT) => {}
                Err(err) => return Err(err),
            }
            let at = self.walk(WalkFlags::empty()).parent(&so_far)?;
            let last = index + 1 == components.len();
            if last && kind != FileKind::Directory {
                self.kernel
                    .vfs
                    .mknod(&self.creds, &at, FileKind::Regular, MOUNT_POINT_PERM, 0)?;
            } else {
                self.kernel.vfs.mkdir(&self.creds, &at, MOUNT_POINT_PERM)?;
            }
        }
        self.resolve(path)
    }

    /// Covers a path: directories by an empty read-only tmpfs, files by
    /// `/dev/null`. What does not exist needs no cover.
    fn mask(&self, path: &str) -> Result<(), Errno> {
        let vfs = &self.kernel.vfs;
        let place = match self.resolve(path.as_bytes()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            place => place?,
        };
        if place.inode()?.kind() == FileKind::Directory {
            let empty = TmpFsOptions {
                perm: 0o555,
                ..TmpFsOptions::default()
            };
            let fs = sentry_kernel::fs::tmpfs::TmpFs::new(vfs.next_dev(), &empty);
            vfs.mount(&vfs.superblock(fs), &place, MountFlags::RDONLY)?;
        } else {
            let null = self.resolve(b"/dev/null")?;
            vfs.bind(&null, &place, false)?;
        }
        Ok(())
    }

    fn make_readonly(&self, path: &str) -> Result<(), Errno> {
        let vfs = &self.kernel.vfs;
        let place = match self.resolve(path.as_bytes()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            place => place?,
        };
        vfs.bind(&place, &place, true)?;
        let place = self.resolve(path.as_bytes())?;
        let flags = place.mount.flags() | MountFlags::RDONLY;
        vfs.set_mount_flags(&place, flags)
    }
}

fn type_name(kind: &MountKind) -> &'static str {
    match kind {
        MountKind::Bind { .. } => "bind",
        MountKind::Proc => "proc",
        MountKind::Sysfs => "sysfs",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Dev => "devtmpfs",
        MountKind::Devpts => "devpts",
        MountKind::Mqueue => "mqueue",
        MountKind::Cgroup => "cgroup2",
    }
}
