//! Device nodes: which driver opens them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use syscall_tables::Errno;

use super::{FileKind, FileOps, OpenRequest, VfsPath};
use super::{dev_major, dev_minor};
use crate::kernel::Kernel;
use crate::task::Task;

/// What a driver gets to open a device node with.
pub struct DeviceOpen<'a> {
    pub kernel: &'a Arc<Kernel>,
    pub task: &'a Arc<Task>,
    /// The node.
    pub path: &'a VfsPath,
    pub major: u32,
    pub minor: u32,
    pub request: &'a OpenRequest,
    /// `O_NOCTTY`.
    pub no_ctty: bool,
}

/// Opens a device; `ENXIO` for a minor it does not have.
pub type DeviceOpener =
    Arc<dyn Fn(&DeviceOpen<'_>) -> Result<Arc<dyn FileOps>, Errno> + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    block: bool,
    major: u32,
    /// `None`: all minors of the major.
    minor: Option<u32>,
}

/// Drivers by kind, major and minor.
#[derive(Default)]
pub struct DeviceRegistry {
    drivers: RwLock<HashMap<Key, DeviceOpener>>,
}

impl DeviceRegistry {
    /// Lets `opener` serve a device (`minor` `None`: each minor that has no
    /// driver of its own).
    pub fn register(&self, kind: FileKind, major: u32, minor: Option<u32>, opener: DeviceOpener) {
        let key = Key {
            block: kind == FileKind::BlockDevice,
            major,
            minor,
        };
        self.drivers.write().insert(key, opener);
    }

    /// The driver of a device node, or `ENXIO`.
    pub fn find(&self, kind: FileKind, rdev: u64) -> Result<DeviceOpener, Errno> {
        let mut key = Key {
            block: kind == FileKind::BlockDevice,
            major: dev_major(rdev),
            minor: Some(dev_minor(rdev)),
        };
        let drivers = self.drivers.read();
        if let Some(opener) = drivers.get(&key) {
            return Ok(opener.clone());
        }
        key.minor = None;
        drivers.get(&key).cloned().ok_or(Errno::ENXIO)
    }
}
