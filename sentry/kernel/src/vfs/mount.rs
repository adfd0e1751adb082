//! Mounts and mount namespaces.

use std::sync::Arc;

use syscall_tables::Errno;

use super::dentry::Dentry;
use super::{FileSystem, InodeRef};

/// A file system attached to the tree of a mount namespace.
pub struct Mount {
    pub id: u64,
    pub fs: Arc<dyn FileSystem>,
}

/// A mount tree.
pub struct MountNamespace {
    pub id: u64,
}

/// A place in the tree: a dentry seen through a mount.
#[derive(Clone)]
pub struct VfsPath {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

impl VfsPath {
    /// The object here; `ENOENT` if the name has been removed and was
    /// negative.
    pub fn inode(&self) -> Result<InodeRef, Errno> {
        self.dentry.inode.read().clone().ok_or(Errno::ENOENT)
    }

    /// A path for an object without a name: `display` is what
    /// `/proc/PID/fd/N` shows (`pipe:[17]`, `/memfd:x (deleted)`).
    pub fn anonymous(_inode: InodeRef, _display: String) -> Self {
        unimplemented!("filled in with the mount table")
    }
}
