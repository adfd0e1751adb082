//! The namespaces a task is in, but for the user namespace (part of its
//! credentials), its own pid namespace (part of its pid) and the mount
//! namespace (part of its file system context).

use std::sync::Arc;

use parking_lot::RwLock;

use super::{PidNamespace, UserNamespace};
use crate::ipc::IpcNamespace;

/// Host name and domain name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UtsNames {
    pub host: Vec<u8>,
    pub domain: Vec<u8>,
}

/// A UTS namespace.
pub struct UtsNamespace {
    pub id: u64,
    pub user_ns: Arc<UserNamespace>,
    pub names: RwLock<UtsNames>,
}

impl UtsNamespace {
    pub fn new(id: u64, user_ns: Arc<UserNamespace>, names: UtsNames) -> Arc<Self> {
        Arc::new(Self {
            id,
            user_ns,
            names: RwLock::new(names),
        })
    }
}

/// The set of namespaces of a task, replaced as a whole.
#[derive(Clone)]
pub struct Namespaces {
    pub uts: Arc<UtsNamespace>,
    /// Where children are born; differs from the task's own after
    /// `unshare(CLONE_NEWPID)`.
    pub pid_for_children: Arc<PidNamespace>,
    /// Inode numbers of namespaces that have no object yet.
    pub net_id: u64,
    pub cgroup_id: u64,
    pub ipc: Arc<IpcNamespace>,
}
