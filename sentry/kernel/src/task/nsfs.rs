//! Namespaces as files: `/proc/PID/ns/*`, `setns(2)`, ioctl_ns(2).

use std::sync::Arc;

use sentry_platform::BoxFuture;
use syscall_tables::Errno;
use syscall_tables::abi::{
    CloneFlags, NS_GET_NSTYPE, NS_GET_OWNER_UID, NS_GET_PARENT, NS_GET_USERNS,
};

use super::{PidNamespace, Task, UserNamespace, UtsNamespace};
use crate::ctx::{Ctx, SysResult};
use crate::ipc::IpcNamespace;
use crate::user::UserPtr;
use crate::vfs::{
    Attr, FdFlags, File, FileKind, FileOps, Inode, MountNamespace, OpenMode, OpenRequest, SetAttr,
    StatusFlags, Timestamp, VfsPath,
};

/// A namespace of some kind. Those without an object have just their id.
#[derive(Clone)]
pub enum Namespace {
    Uts(Arc<UtsNamespace>),
    Pid(Arc<PidNamespace>),
    User(Arc<UserNamespace>),
    Mount(Arc<MountNamespace>),
    Ipc(Arc<IpcNamespace>),
    Net(u64),
    Cgroup(u64),
    /// There is one of these.
    Time,
}

/// Inode number of the only time namespace, as Linux has it.
const TIME_NS_ID: u64 = 0xEFFF_FFFA;

impl Namespace {
    /// Names in `/proc/PID/ns`.
    pub const NAMES: [&'static str; 10] = [
        "cgroup",
        "ipc",
        "mnt",
        "net",
        "pid",
        "pid_for_children",
        "time",
        "time_for_children",
        "user",
        "uts",
    ];

    /// The namespace of `task` that `/proc/PID/ns/NAME` means.
    pub fn of(task: &Task, name: &str) -> Option<Self> {
        let namespaces = task.namespaces();
        Some(match name {
            "cgroup" => Self::Cgroup(namespaces.cgroup_id),
            "ipc" => Self::Ipc(namespaces.ipc.clone()),
            "mnt" => Self::Mount(task.fs().state.read().namespace.clone()),
            "net" => Self::Net(namespaces.net_id),
            "pid" => Self::Pid(task.pid_ns()),
            "pid_for_children" => Self::Pid(namespaces.pid_for_children.clone()),
            "time" | "time_for_children" => Self::Time,
            "user" => Self::User(task.creds().user_ns.clone()),
            "uts" => Self::Uts(namespaces.uts.clone()),
            _ => return None,
        })
    }

    /// Inode number.
    pub fn id(&self) -> u64 {
        match self {
            Self::Uts(ns) => ns.id,
            Self::Pid(ns) => ns.id,
            Self::User(ns) => ns.id,
            Self::Mount(ns) => ns.id,
            Self::Ipc(ns) => ns.id,
            Self::Net(id) | Self::Cgroup(id) => *id,
            Self::Time => TIME_NS_ID,
        }
    }

    /// The flag of `clone(2)` that makes such a namespace.
    pub const fn flag(&self) -> CloneFlags {
        match self {
            Self::Uts(_) => CloneFlags::CLONE_NEWUTS,
            Self::Pid(_) => CloneFlags::CLONE_NEWPID,
            Self::User(_) => CloneFlags::CLONE_NEWUSER,
            Self::Mount(_) => CloneFlags::CLONE_NEWNS,
            Self::Ipc(_) => CloneFlags::CLONE_NEWIPC,
            Self::Net(_) => CloneFlags::CLONE_NEWNET,
            Self::Cgroup(_) => CloneFlags::CLONE_NEWCGROUP,
            Self::Time => CloneFlags::CLONE_NEWTIME,
        }
    }

    const fn type_name(&self) -> &'static str {
        match self {
            Self::Uts(_) => "uts",
            Self::Pid(_) => "pid",
            Self::User(_) => "user",
            Self::Mount(_) => "mnt",
            Self::Ipc(_) => "ipc",
            Self::Net(_) => "net",
            Self::Cgroup(_) => "cgroup",
            Self::Time => "time",
        }
    }

    /// Target of the link in `/proc/PID/ns`: `uts:[4026531838]`.
    pub fn link(&self) -> String {
        format!("{}:[{}]", self.type_name(), self.id())
    }

    /// What opening that link opens.
    pub fn path(&self) -> VfsPath {
        VfsPath::anonymous(Arc::new(NsInode(self.clone())), self.link())
    }

    fn open(&self) -> Arc<File> {
        File::new(
            Arc::new(NsFile(self.clone())),
            self.path(),
            OpenMode::READ,
            StatusFlags::empty(),
        )
    }

    /// The user namespace that owns it.
    pub fn owner(&self) -> Arc<UserNamespace> {
        match self {
            Self::Uts(ns) => ns.user_ns.clone(),
            Self::Pid(ns) => ns.user_ns.clone(),
            Self::User(ns) => ns.parent.clone().unwrap_or_else(|| ns.clone()),
            Self::Ipc(ns) => ns.user_ns.clone(),
            _ => UserNamespace::initial(),
        }
    }

    fn parent(&self) -> Result<Self, Errno> {
        match self {
            Self::Pid(ns) => ns.parent.clone().map(Self::Pid).ok_or(Errno::EPERM),
            Self::User(ns) => ns.parent.clone().map(Self::User).ok_or(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        }
    }
}

struct NsInode(Namespace);

impl Inode for NsInode {
    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let (kind, created) = (FileKind::Regular, Timestamp::default());
        let ino = self.0.id();
        Ok(Attr::of_root(
            kind,
            0o444,
            crate::fs::NSFS_DEV,
            ino,
            created,
        ))
    }

    fn set_attr(&self, _changes: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(NsFile(self.0.clone())))
    }
}

/// An open namespace.
pub struct NsFile(Namespace);

impl NsFile {
    pub fn namespace(&self) -> &Namespace {
        &self.0
    }
}

impl FileOps for NsFile {
    fn read_at(&self, _file: &File, _buf: &mut [u8], _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn ioctl<'a>(
        &'a self,
        ctx: &'a mut Ctx<'_>,
        _file: &'a File,
        command: u32,
        arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async move {
            let found = match command {
                NS_GET_USERNS => Namespace::User(self.0.owner()),
                NS_GET_PARENT => self.0.parent()?,
                NS_GET_NSTYPE => return Ok(self.0.flag().bits()),
                NS_GET_OWNER_UID => {
                    let Namespace::User(ns) = &self.0 else {
                        return Err(Errno::EINVAL);
                    };
                    let uid = ctx.task.creds().user_ns.uid_or_overflow(ns.owner);
                    ctx.write(UserPtr::new(arg), &uid).await?;
                    return Ok(0);
                }
                _ => return Err(Errno::ENOTTY),
            };
            // What is outside the caller's own user namespace is not shown.
            let own = ctx.task.creds().user_ns.clone();
            let visible = match &found {
                Namespace::User(ns) => own.contains(ns),
                other => own.contains(&other.owner()),
            };
            if !visible {
                return Err(Errno::EPERM);
            }
            ctx.add_fd(found.open(), FdFlags::CLOEXEC)
        })
    }
}
