//! Path walks with permission checks.

use std::sync::Arc;

use bitflags::bitflags;
use parking_lot::RwLock;
use syscall_tables::Errno;

use super::{Fd, VfsPath};
use crate::kernel::Kernel;
use crate::task::Task;

/// Root, working directory and umask of a process (`CLONE_FS`).
pub struct FsContext {
    pub state: RwLock<FsState>,
}

#[derive(Clone)]
pub struct FsState {
    pub root: VfsPath,
    pub cwd: VfsPath,
    pub umask: u32,
}

/// Where a path without leading slash starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Cwd,
    Fd(Fd),
}

bitflags! {
    /// How a walk treats its path.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct WalkFlags: u32 {
        /// Follow a symlink in the last component.
        const FOLLOW = 1;
        /// An empty path means the start itself (`AT_EMPTY_PATH`).
        const EMPTY_PATH = 2;
        const DIRECTORY = 4;
        /// The bits of `openat2`'s `resolve`.
        const NO_XDEV = 0x10;
        const NO_MAGICLINKS = 0x20;
        const NO_SYMLINKS = 0x40;
        const BENEATH = 0x80;
        const IN_ROOT = 0x100;
    }
}

/// Resolves `path` for `task` to an existing object.
pub fn resolve(
    _kernel: &Kernel,
    _task: &Task,
    _start: Start,
    _path: &[u8],
    _flags: WalkFlags,
) -> Result<VfsPath, Errno> {
    unimplemented!("filled in with the dentry cache")
}

/// The absolute path of `path` as seen from the root of `fs`, as `getcwd`
/// and `/proc/PID/exe` show it.
pub fn display_path(_fs: &FsContext, _path: &VfsPath) -> Vec<u8> {
    unimplemented!("filled in with the mount table")
}

/// Shared handle.
pub type FsContextRef = Arc<FsContext>;
