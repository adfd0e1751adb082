//! The inode that event files, epoll instances and their like share.

use std::sync::Arc;

use syscall_tables::Errno;

use crate::fs::ANON_DEV;
use crate::task::{Gid, Uid};
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
        let time = Timestamp::default();
        Ok(Attr {
            kind: FileKind::Anonymous,
            perm: 0o600,
            dev: ANON_DEV,
            ino: 1,
            nlink: 1,
            uid: Uid::ROOT,
            gid: Gid::ROOT,
            size_bytes: 0,
            blocks: 0,
            block_size: 4096,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: None,
        })
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
