//! The dentry cache: names and what they lead to, with negative entries.

use std::sync::Arc;

use parking_lot::RwLock;

use super::InodeRef;

/// A name in a directory. Unnamed objects (pipes, sockets, memfds) have a
/// parentless dentry of their own.
pub struct Dentry {
    pub name: RwLock<Vec<u8>>,
    pub parent: RwLock<Option<Arc<Dentry>>>,
    /// `None` for a negative entry.
    pub inode: RwLock<Option<InodeRef>>,
}
