//! Symlinks.

use std::sync::Arc;

use syscall_tables::Errno;

use super::Instance;
use crate::task::Task;
use crate::vfs::{Attr, FileKind, FileOps, Inode, OpenRequest, SetAttr};

type Target = Box<dyn Fn(Option<&Task>) -> Result<Vec<u8>, Errno> + Send + Sync>;

/// A symlink whose text may depend on who reads it.
pub struct Link {
    instance: Arc<Instance>,
    ino: u64,
    target: Target,
}

impl Link {
    pub fn new(
        instance: &Arc<Instance>,
        ino: u64,
        target: impl Fn(Option<&Task>) -> Result<Vec<u8>, Errno> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            instance: instance.clone(),
            ino,
            target: Box::new(target),
        })
    }
}

impl Inode for Link {
    fn kind(&self) -> FileKind {
        FileKind::Symlink
    }

    fn attr(&self) -> Result<Attr, Errno> {
        Ok(self.instance.attr(FileKind::Symlink, 0o777, self.ino))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        super::set_attr(changes)
    }

    fn readlink(&self) -> Result<Vec<u8>, Errno> {
        (self.target)(None)
    }

    fn readlink_by(&self, caller: Option<&Task>) -> Result<Vec<u8>, Errno> {
        (self.target)(caller)
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ELOOP)
    }
}
