//! tmpfs: a file system in memory.
//!
//! | file | holds |
//! |---|---|
//! | `inode.rs` | [`TmpInode`]: attributes, xattrs, nodes, symlinks |
//! | `dir.rs` | directories: entries with stable offsets, changes of names |
//! | `regular.rs` | contents of regular files |
//! | `options.rs` | mount options |
//!
//! Small files live in a vector; one that grows or is mapped moves to a memfd
//! of its own, which guests map.
//!
//! Locks, outermost first: `Shared::names` (all changes of names of one
//! instance), a directory's entries, a file's content, an inode's metadata.
//! No two of the same rank are held at once.

mod dir;
mod inode;
mod options;
mod regular;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use syscall_tables::Errno;

pub use inode::TmpInode;
pub use options::{TmpFsOptions, mount};

use crate::task::Creds;
use crate::vfs::{FileSystem, FsStat, InodeRef};

/// Page size: the unit of accounting.
const PAGE: u64 = 4096;

/// `TMPFS_MAGIC`.
const MAGIC: u64 = 0x0102_1994;

/// One tmpfs instance.
pub struct TmpFs {
    shared: Arc<Shared>,
    root: Arc<TmpInode>,
    type_name: &'static str,
    source: String,
}

/// What all inodes of an instance share.
struct Shared {
    dev: u64,
    next_ino: AtomicU64,
    max_pages: AtomicU64,
    used_pages: AtomicU64,
    max_inodes: AtomicU64,
    used_inodes: AtomicU64,
    names: Mutex<()>,
}

impl TmpFs {
    /// An empty instance with device number `dev`.
    pub fn new(dev: u64, options: &TmpFsOptions) -> Arc<Self> {
        let shared = Arc::new(Shared {
            dev,
            next_ino: AtomicU64::new(1),
            max_pages: AtomicU64::new(options.max_pages()),
            used_pages: AtomicU64::new(0),
            max_inodes: AtomicU64::new(options.max_inodes()),
            used_inodes: AtomicU64::new(1),
            names: Mutex::new(()),
        });
        let root = TmpInode::new_root(&shared, options);
        Arc::new(Self {
            shared,
            root,
            type_name: options.type_name,
            source: options.source.clone(),
        })
    }

    /// An unnamed regular file (`memfd_create`, System V shared memory).
    pub fn unnamed_file(&self, perm: u32, creds: &Creds) -> Result<Arc<TmpInode>, Errno> {
        TmpInode::new_unnamed(&self.shared, perm, creds)
    }

    /// Limits what may be allocated from now on.
    pub fn limit_bytes(&self, bytes: u64) {
        let pages = bytes / PAGE;
        self.shared.max_pages.store(pages, Ordering::Relaxed);
    }

    /// Changes the limits; `EINVAL` if more is in use.
    fn set_limits(&self, options: &TmpFsOptions) -> Result<(), Errno> {
        let relaxed = Ordering::Relaxed;
        if self.shared.used_pages.load(relaxed) > options.max_pages()
            || self.shared.used_inodes.load(relaxed) > options.max_inodes()
        {
            return Err(Errno::EINVAL);
        }
        self.shared.max_pages.store(options.max_pages(), relaxed);
        self.shared.max_inodes.store(options.max_inodes(), relaxed);
        Ok(())
    }

    /// Its limits and root attributes as options.
    fn current_options(&self) -> TmpFsOptions {
        let limit = |value: &AtomicU64| {
            let value = value.load(Ordering::Relaxed);
            (value != u64::MAX).then_some(value)
        };
        TmpFsOptions {
            size_bytes: limit(&self.shared.max_pages).map(|pages| pages.saturating_mul(PAGE)),
            inodes: limit(&self.shared.max_inodes),
            ..TmpFsOptions::default()
        }
    }
}

impl FileSystem for TmpFs {
    fn type_name(&self) -> &'static str {
        self.type_name
    }

    fn root(&self) -> InodeRef {
        self.root.clone()
    }

    fn dev(&self) -> u64 {
        self.shared.dev
    }

    fn stat(&self) -> Result<FsStat, Errno> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut stat = FsStat {
            magic: MAGIC,
            block_size: PAGE,
            name_max: 255,
            fsid: self.shared.dev,
            ..FsStat::default()
        };
        let max_pages = load(&self.shared.max_pages);
        if max_pages != u64::MAX {
            stat.blocks = max_pages;
            stat.blocks_free = max_pages.saturating_sub(load(&self.shared.used_pages));
            stat.blocks_available = stat.blocks_free;
        }
        let max_inodes = load(&self.shared.max_inodes);
        if max_inodes != u64::MAX {
            stat.files = max_inodes;
            stat.files_free = max_inodes.saturating_sub(load(&self.shared.used_inodes));
        }
        Ok(stat)
    }

    fn source(&self) -> String {
        self.source.clone()
    }

    fn remount(&self, data: &[u8], memory_bytes: u64) -> Result<(), Errno> {
        let mut options = self.current_options();
        options.parse(data, memory_bytes)?;
        self.set_limits(&options)
    }

    fn options(&self) -> String {
        let mut options = Vec::new();
        let max_pages = self.shared.max_pages.load(Ordering::Relaxed);
        if max_pages != u64::MAX {
            options.push(format!("size={}k", max_pages.saturating_mul(PAGE / 1024)));
        }
        let max_inodes = self.shared.max_inodes.load(Ordering::Relaxed);
        if max_inodes != u64::MAX {
            options.push(format!("nr_inodes={max_inodes}"));
        }
        options.extend(self.root.owner_options());
        options.join(",")
    }
}

impl Shared {
    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts one more inode, or `ENOSPC`.
    fn take_inode(&self) -> Result<(), Errno> {
        let max = self.max_inodes.load(Ordering::Relaxed);
        let add = |used: u64| (used < max).then(|| used + 1);
        self.used_inodes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map(drop)
            .map_err(|_| Errno::ENOSPC)
    }

    fn give_inode(&self) {
        self.used_inodes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Pages that may still be allocated.
    fn pages_left(&self) -> u64 {
        let max = self.max_pages.load(Ordering::Relaxed);
        max.saturating_sub(self.used_pages.load(Ordering::Relaxed))
    }

    /// Corrects the count of used pages from `old` to `new` of one file.
    fn recount(&self, old: u64, new: u64) {
        if new >= old {
            self.used_pages.fetch_add(new - old, Ordering::Relaxed);
        } else {
            self.used_pages.fetch_sub(old - new, Ordering::Relaxed);
        }
    }
}
