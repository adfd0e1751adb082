//! File systems that are one static tree.

use std::sync::Arc;

use syscall_tables::Errno;

use super::{Instance, StaticDir};
use crate::vfs::{FileSystem, FsStat, InodeRef};

/// An instance of a file system of generated files.
pub struct KernFs {
    pub type_name: &'static str,
    /// `statfs(2)`'s `f_type`.
    pub magic: u64,
    pub instance: Arc<Instance>,
    pub root: Arc<StaticDir>,
}

impl FileSystem for KernFs {
    fn type_name(&self) -> &'static str {
        self.type_name
    }

    fn root(&self) -> InodeRef {
        self.root.clone()
    }

    fn dev(&self) -> u64 {
        self.instance.dev
    }

    fn stat(&self) -> Result<FsStat, Errno> {
        Ok(FsStat {
            magic: self.magic,
            block_size: 4096,
            name_max: 255,
            fsid: self.dev(),
            ..FsStat::default()
        })
    }

    fn source(&self) -> String {
        self.type_name.to_owned()
    }
}
