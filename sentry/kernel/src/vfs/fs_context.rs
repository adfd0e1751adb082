//! What path walks of a process start from.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{MountNamespace, VfsPath};

/// Root, working directory and umask of a process (`CLONE_FS`).
pub struct FsContext {
    pub state: RwLock<FsState>,
}

#[derive(Clone)]
pub struct FsState {
    pub root: VfsPath,
    pub cwd: VfsPath,
    pub umask: u32,
    /// The mount namespace; `CLONE_NEWNS` and `CLONE_FS` exclude each other,
    /// so it can live here.
    pub namespace: Arc<MountNamespace>,
}

impl FsState {
    /// At the root of `namespace`; `None` for one that is being torn down.
    pub fn at_root_of(namespace: &Arc<MountNamespace>) -> Option<Self> {
        let root = namespace.root()?.enter_mounts();
        Some(Self {
            cwd: root.clone(),
            root,
            umask: 0o022,
            namespace: namespace.clone(),
        })
    }
}

impl FsContext {
    pub fn new(state: FsState) -> FsContextRef {
        Arc::new(Self {
            state: RwLock::new(state),
        })
    }

    /// An independent copy (`fork` without `CLONE_FS`).
    pub fn duplicate(&self) -> FsContextRef {
        Self::new(self.state.read().clone())
    }
}

/// Shared handle.
pub type FsContextRef = Arc<FsContext>;
