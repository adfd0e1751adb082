//! The container's mount tree, from its plan.

use std::sync::Arc;

use anyhow::{Context, Result};
use sentry_kernel::fs::gofer::{CachePolicy, Connection, GoferFs};
use sentry_kernel::fs::overlay::OverlayFs;
use sentry_kernel::fs::tmpfs::{TmpFs, TmpFsOptions};
use sentry_kernel::ipc::Settings;
use sentry_kernel::kernel::{Kernel, LogLevel};
use sentry_kernel::task::{Creds, UserNamespace};
use sentry_kernel::vfs::open::{OpenArgs, Opener};
use sentry_kernel::vfs::path::Walk;
use sentry_kernel::vfs::{
    FileKind, FileSystem, FsState, MountFlags, MountNamespace, MountRequest, SetAttr, Superblock,
    VfsPath, WalkFlags, makedev,
};
use syscall_tables::Errno;
use syscall_tables::abi::OpenFlags;

use super::users;
use crate::plan::{ContainerPlan, Contents, DeviceKind, DevicePlan, MountKind, MountPlan, Overlay};

/// Permissions of mount points that did not exist.
const MOUNT_POINT_PERM: u32 = 0o755;

/// Permissions of the file that the console is bound to.
const CONSOLE_PERM: u32 = 0o600;

/// Mounts everything the plan names.
pub fn build(
    kernel: &Arc<Kernel>,
    plan: &ContainerPlan,
    connection: Arc<Connection>,
    user_ns: &Arc<UserNamespace>,
) -> Result<Arc<MountNamespace>> {
    let root = root_superblock(kernel, plan, &connection)
        .with_context(|| format!("root {} can't be mounted", plan.root.path.display()))?;
    let vfs = &kernel.vfs;
    let namespace = vfs.new_namespace_of(user_ns.clone(), &root, MountFlags::empty());
    let state = FsState::at_root_of(&namespace).context("the root is not a directory")?;
    let builder = Builder {
        kernel,
        connection,
        user_ns,
        creds: users::maker(user_ns),
        root: state.root,
    };
    let mut next_gofer_root = 1;
    for mount in &plan.mounts {
        builder
            .mount(mount, &mut next_gofer_root)
            .with_context(|| format!("{} can't be mounted", mount.destination))?;
    }
    for device in &plan.devices {
        builder
            .device(device)
            .with_context(|| format!("{} can't be made", device.path))?;
    }
    let sysctl = plan.sysctl.iter();
    for (name, value) in sysctl.filter(|(name, _)| !is_of_ipc(name)) {
        builder
            .sysctl(name, value)
            .with_context(|| format!("sysctl {name} can't be set to {value:?} in the sandbox"))?;
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

/// Settings of the container's IPC namespace, which is made after its mounts.
pub fn ipc_settings(plan: &ContainerPlan) -> Vec<(String, Vec<u8>)> {
    let sysctl = plan.sysctl.iter().filter(|(name, _)| is_of_ipc(name));
    sysctl
        .map(|(name, value)| {
            let name = name.trim_start_matches(OF_KERNEL).to_owned();
            (name, value.clone().into_bytes())
        })
        .collect()
}

/// What settings of the kernel begin with.
const OF_KERNEL: &str = "kernel.";

fn is_of_ipc(name: &str) -> bool {
    let name = name.strip_prefix(OF_KERNEL);
    name.is_some_and(|name| Settings::NAMES.contains(&name))
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
    user_ns: &'a UserNamespace,
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
            MountKind::Bind { .. } => {
                let number = *next_gofer_root;
                *next_gofer_root += 1;
                vfs.superblock(GoferFs::attach(
                    vfs,
                    &self.connection,
                    number,
                    CachePolicy::SHARED,
                    // Where it is on the host is not the guest's to know.
                    "none",
                )?)
            }
            MountKind::Tmpfs if plan.contents == Contents::Copied => self.covered(plan)?,
            kind => self.instantiate(type_name(kind), plan)?,
        };
        let kind = superblock.fs.root().kind();
        let place = self.mount_point(plan.destination.as_bytes(), kind)?;
        vfs.mount(&superblock, &place, flags)?;
        Ok(())
    }

    /// A tmpfs that begins with what it covers: files are copied when they
    /// are changed.
    fn covered(&self, plan: &MountPlan) -> Result<Arc<Superblock>> {
        let vfs = &self.kernel.vfs;
        let place = self.mount_point(plan.destination.as_bytes(), FileKind::Directory)?;
        let mut limits = TmpFsOptions::default();
        let data = users::options(self.user_ns, &plan.data)?;
        limits
            .parse(data.as_bytes(), self.kernel.memory_bytes)
            .with_context(|| format!("options {:?}", plan.data))?;
        let layers = vec![(place.inode()?, place.mount.fs.clone())];
        Ok(vfs.superblock(OverlayFs::in_memory(vfs, layers, &limits)?))
    }

    /// A device node; those that the sandbox has no driver for are left out,
    /// since host devices are not reachable.
    fn device(&self, plan: &DevicePlan) -> Result<(), Errno> {
        let vfs = &self.kernel.vfs;
        let kind = match plan.kind {
            DeviceKind::Char => FileKind::CharDevice,
            DeviceKind::Block => FileKind::BlockDevice,
            DeviceKind::Fifo => FileKind::Fifo,
        };
        let rdev = makedev(plan.major, plan.minor);
        if kind != FileKind::Fifo && vfs.devices.find(kind, rdev).is_err() {
            let line = format_args!("device {} is not known to the sandbox", plan.path);
            self.kernel.log(LogLevel::Warning, line);
            return Ok(());
        }
        let path = plan.path.as_bytes();
        let place = match self.resolve(path) {
            Ok(place) => {
                let inode = place.inode()?;
                let same =
                    inode.kind() == kind && (kind == FileKind::Fifo || inode.attr()?.rdev == rdev);
                // What is there is not to be taken for the device.
                if !same {
                    return Err(Errno::EEXIST);
                }
                place
            }
            Err(Errno::ENOENT) => {
                if let Some(slash) = path.iter().rposition(|&byte| byte == b'/')
                    && let Some(dir @ [_, ..]) = path.get(..slash)
                {
                    self.mount_point(dir, FileKind::Directory)?;
                }
                let at = self.walk(WalkFlags::empty()).parent(path)?;
                match vfs.mknod(&self.creds, &at, kind, plan.mode, rdev) {
                    // No devices are made on the host.
                    Err(Errno::EPERM) => self.bind_node(path, kind, plan.mode, rdev)?,
                    made => made?,
                }
            }
            Err(errno) => return Err(errno),
        };
        let change = SetAttr {
            perm: Some(plan.mode),
            uid: self.user_ns.uid_to_kernel(plan.uid),
            gid: self.user_ns.gid_to_kernel(plan.gid),
            ..SetAttr::default()
        };
        place.inode()?.set_attr(&change)
    }

    /// A node on a file system of its own, bound to a file at `path`.
    fn bind_node(
        &self,
        path: &[u8],
        kind: FileKind,
        mode: u32,
        rdev: u64,
    ) -> Result<VfsPath, Errno> {
        let vfs = &self.kernel.vfs;
        let place = self.mount_point(path, FileKind::Regular)?;
        let nodes = TmpFs::new(vfs.next_dev(), &TmpFsOptions::default());
        let nodes = vfs.new_namespace(&vfs.superblock(nodes), MountFlags::empty());
        let root = FsState::at_root_of(&nodes).ok_or(Errno::ENOENT)?.root;
        let mut walk = Walk::new(vfs, &self.creds, root.clone(), root, WalkFlags::empty());
        let at = walk.parent(b"/node")?;
        let node = vfs.mknod(&self.creds, &at, kind, mode, rdev)?;
        vfs.bind(&node, &place, false)?;
        self.resolve(path)
    }

    /// A setting below `/proc/sys`.
    fn sysctl(&self, name: &str, value: &str) -> Result<(), Errno> {
        // Those of the host's network have been set there.
        let of_network = name.starts_with("net.");
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let written = self.resolve(path.as_bytes()).and_then(|place| {
            let opener = Opener {
                vfs: &self.kernel.vfs,
                creds: &self.creds,
                umask: 0,
                task: None,
            };
            let args = OpenArgs {
                flags: OpenFlags::O_WRONLY,
                perm: 0,
                resolve: WalkFlags::empty(),
            };
            let file = opener.open_found(place, &args, false)?.file;
            file.ops.write_at(&file, value.as_bytes(), 0, false)
        });
        match written {
            Err(_) if of_network => Ok(()),
            Err(errno) => Err(errno),
            Ok(_) => Ok(()),
        }
    }

    fn instantiate(&self, name: &str, plan: &MountPlan) -> Result<Arc<Superblock>> {
        let data = users::options(self.user_ns, &plan.data)?;
        let request = MountRequest {
            vfs: &self.kernel.vfs,
            creds: &self.creds,
            source: name.as_bytes(),
            data: data.as_bytes(),
            task: None,
            kernel: Some(self.kernel),
            resolve: &|path| self.resolve(path),
        };
        self.kernel
            .vfs
            .instantiate(name, &request)
            .with_context(|| format!("file system {name:?} with options {:?}", plan.data))
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
            let fs = TmpFs::new(vfs.next_dev(), &empty);
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

/// Binds a terminal to `/dev/console`.
pub fn bind_console(kernel: &Arc<Kernel>, root: &VfsPath, terminal: &VfsPath) -> Result<(), Errno> {
    const PATH: &[u8] = b"/dev/console";
    let (vfs, creds) = (&kernel.vfs, Creds::root());
    let root = root.clone().enter_mounts();
    let walk = |flags| Walk::new(vfs, &creds, root.clone(), root.clone(), flags);
    let place = match walk(WalkFlags::empty()).resolve(PATH) {
        Err(Errno::ENOENT) => {
            let at = walk(WalkFlags::empty()).parent(PATH)?;
            vfs.mknod(&creds, &at, FileKind::Regular, CONSOLE_PERM, 0)?
        }
        place => place?,
    };
    vfs.bind(terminal, &place, false)?;
    Ok(())
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
