//! The inode that event files, epoll instances and their like share.

use std::sync::Arc;

use syscall_tables::Errno;

use crate::fs::ANON_DEV;
use crate::vfs::{
    Attr, File, FileKind, FileOps, Inode, OpenMode, OpenRequest, SetAttr, StatusFlags, Timestamp,
    VfsPath,
};

/// `anon_inode:[kind]`.
struct AnonInode;

impl Inode for AnonInode {
    fn kind(&self) -> FileKind {
        FileKind::Anonymous
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let (kind, created) = (FileKind::Anonymous, Timestamp::default());
        Ok(Attr::of_root(kind, 0o600, ANON_DEV, 1, created))
    }

    fn set_attr(&self, _changes: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }
}

/// Opens `ops` as `anon_inode:KIND`, readable and writable.
pub fn open(ops: Arc<dyn FileOps>, kind: &str, status: StatusFlags) -> Arc<File> {
    open_with(ops, kind, OpenMode::READ | OpenMode::WRITE, status)
}

/// Opens `ops` as `anon_inode:KIND`.
pub fn open_with(
    ops: Arc<dyn FileOps>,
    kind: &str,
    mode: OpenMode,
    status: StatusFlags,
) -> Arc<File> {
    let path = VfsPath::anonymous(Arc::new(AnonInode), format!("anon_inode:{kind}"));
    File::new(ops, path, mode, status)
}
