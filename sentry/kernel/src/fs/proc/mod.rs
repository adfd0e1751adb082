//! proc(5).
//!
//! | file | holds |
//! |---|---|
//! | `root.rs` | the root directory: processes and system files |
//! | `process/` | `/proc/PID` and `/proc/PID/task/TID` |
//! | `system/` | files about the system as a whole |
//! | `sysctl.rs` | `/proc/sys` |
//! | `net.rs`, `sockets.rs` | `/proc/net` |
//!
//! An instance shows one pid namespace: that of who mounted it, or of the
//! container it was mounted for before that had processes.

mod net;
mod process;
mod root;
mod sockets;
mod sysctl;
mod system;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use syscall_tables::Errno;

use super::kernfs::{Instance, StaticDir};
use crate::kernel::Kernel;
use crate::task::PidNamespace;
pub(crate) use sysctl::new_boot_id;

use crate::vfs::{FileSystem, FsStat, InodeRef, MountRequest};

/// `PROC_SUPER_MAGIC`.
const MAGIC: u64 = 0x9fa0;

/// What all nodes of an instance share.
pub(crate) struct Shared {
    pub instance: Arc<Instance>,
    ns: OnceLock<Arc<PidNamespace>>,
    /// `/proc/net`, the same for all processes.
    pub net: Arc<StaticDir>,
}

impl Shared {
    /// The pid namespace shown.
    pub fn ns(&self) -> Result<Arc<PidNamespace>, Errno> {
        match self.ns.get() {
            Some(ns) => Ok(ns.clone()),
            None => Ok(self.instance.kernel()?.root_pid_ns.clone()),
        }
    }
}

/// An instance of proc.
pub struct ProcFs {
    shared: Arc<Shared>,
    root: Arc<root::Root>,
}

impl ProcFs {
    /// An instance for `ns`, or for the first container that is made with
    /// it.
    pub fn new(kernel: &Arc<Kernel>, ns: Option<Arc<PidNamespace>>) -> Arc<Self> {
        let instance = Instance::new(kernel);
        let shared = Arc::new(Shared {
            ns: ns.map_or_else(OnceLock::new, OnceLock::from),
            net: net::build(&instance),
            instance,
        });
        let root = root::Root::new(&shared, kernel);
        Arc::new(Self { shared, root })
    }
}

impl FileSystem for ProcFs {
    fn type_name(&self) -> &'static str {
        "proc"
    }

    fn root(&self) -> InodeRef {
        self.root.clone()
    }

    fn dev(&self) -> u64 {
        self.shared.instance.dev
    }

    fn stat(&self) -> Result<FsStat, Errno> {
        Ok(FsStat {
            magic: MAGIC,
            block_size: 4096,
            name_max: 255,
            fsid: self.dev(),
            ..FsStat::default()
        })
    }

    fn source(&self) -> String {
        "proc".to_owned()
    }

    fn bind_pid_namespace(&self, ns: &Arc<PidNamespace>) {
        // One that is bound already stays so.
        let _ = self.shared.ns.set(ns.clone());
    }

    fn names_are_stable(&self) -> bool {
        false
    }
}

/// Mounts proc. Options (`hidepid`, `gid`, `subset`) are taken and have no
/// effect beyond the defaults: `EINVAL` for those that ask for more.
pub fn mount(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>, Errno> {
    let data = std::str::from_utf8(request.data).map_err(|_| Errno::EINVAL)?;
    for option in data.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("hidepid", "0" | "off")) => {}
            Some(("gid", _)) => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    let kernel = request.kernel.ok_or(Errno::ENODEV)?;
    let ns = request.task.map(|task| task.pid_ns());
    Ok(ProcFs::new(kernel, ns))
}
