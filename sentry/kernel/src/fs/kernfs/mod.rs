//! What file systems with generated content are built from: proc, sysfs,
//! cgroup.
//!
//! | file | holds |
//! |---|---|
//! | `dir.rs` | [`Listing`], [`OpenDir`], [`StaticDir`] and its [`Builder`] |
//! | `file.rs` | [`Source`], [`Knob`], [`TextFile`], [`OpenText`] |
//! | `fs.rs` | [`KernFs`]: file systems that are one static tree |
//! | `link.rs` | [`Link`]: symlinks, fixed or depending on who looks |
//!
//! Content is made when a file is read from its start and kept for the reads
//! that follow, so that a file read in pieces is of one moment.
//!
//! Locks: an open file's snapshot is taken with the file position held; a
//! [`Source`] runs under both and may take any kernel lock.

mod dir;
mod file;
mod fs;
mod link;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use syscall_tables::Errno;

use crate::kernel::Kernel;
use crate::vfs::{Attr, FileKind, SetAttr, Timestamp};

pub use dir::{Builder, Listing, OpenDir, StaticDir};
pub use file::{Knob, Measured, OpenText, SizeOf, Source, TextFile, Viewer, copy_from, fixed};
pub use fs::KernFs;
pub use link::Link;

/// What the nodes of one instance share. The kernel is held weakly: its
/// dentry cache holds nodes.
pub struct Instance {
    kernel: Weak<Kernel>,
    pub dev: u64,
    created: Timestamp,
    next_ino: AtomicU64,
}

impl Instance {
    /// A new instance with a device number of its own.
    pub fn new(kernel: &Arc<Kernel>) -> Arc<Self> {
        Arc::new(Self {
            kernel: Arc::downgrade(kernel),
            dev: kernel.vfs.next_dev(),
            created: Timestamp::now(),
            next_ino: AtomicU64::new(1),
        })
    }

    /// The kernel; `EIO` while it is being torn down.
    pub fn kernel(&self) -> Result<Arc<Kernel>, Errno> {
        self.kernel.upgrade().ok_or(Errno::EIO)
    }

    /// An inode number for a node that is made once.
    pub fn next_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Attributes of a node owned by root.
    pub fn attr(&self, kind: FileKind, perm: u32, ino: u64) -> Attr {
        Attr {
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            ..Attr::of_root(kind, perm, self.dev, ino, self.created)
        }
    }
}

/// What may be changed of a generated node: truncation does nothing, times
/// are not kept, mode and owner stay.
pub fn set_attr(changes: &SetAttr) -> Result<(), Errno> {
    if changes.perm.is_some() || changes.uid.is_some() || changes.gid.is_some() {
        return Err(Errno::EPERM);
    }
    Ok(())
}
