//! Mounts: file systems attached to a tree of names.
//!
//! A mount holds its child mounts; a child knows its parent weakly, so that a
//! detached tree lives as long as somebody works in it. Mount points are
//! found by (parent mount, dentry), as in Linux, so a walk needs no
//! namespace.
//!
//! Locks: changes of the tree hold `Vfs::mount_lock`; within it `links` and
//! `children` of a mount are leaves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use bitflags::bitflags;
use parking_lot::RwLock;
use syscall_tables::Errno;

use super::dentry::{Dentry, DentryCache};
use super::mount_ns::MountNamespace;
use super::propagation::Propagation;
use super::{FileSystem, InodeRef};

bitflags! {
    /// Per-mount flags, bits of `mount(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u32 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const SYNCHRONOUS = 16;
        const NOSYMFOLLOW = 256;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const RELATIME = 1 << 21;
        const STRICTATIME = 1 << 24;
    }
}

/// A file system instance with its dentry tree, shared by the mounts of it.
pub struct Superblock {
    pub fs: Arc<dyn FileSystem>,
    pub root: Arc<Dentry>,
    readonly: AtomicBool,
    /// Whether names must be asked for again on each use.
    pub(super) revalidate: bool,
}

impl Superblock {
    pub fn new(cache: &Arc<DentryCache>, fs: Arc<dyn FileSystem>) -> Arc<Self> {
        let root = Dentry::new_root(cache, fs.root());
        Arc::new(Self {
            revalidate: !fs.names_are_stable(),
            fs,
            root,
            readonly: AtomicBool::new(false),
        })
    }

    pub fn is_readonly(&self) -> bool {
        self.readonly.load(Ordering::Relaxed)
    }

    pub fn set_readonly(&self, readonly: bool) {
        self.readonly.store(readonly, Ordering::Relaxed);
        // What else a remount changes may be about rights.
        self.root.paths_changed();
    }
}

pub(super) struct MountLinks {
    pub parent: Weak<Mount>,
    /// Where in the parent; `None` for the root of a namespace.
    pub mountpoint: Option<Arc<Dentry>>,
    pub namespace: Weak<MountNamespace>,
    pub propagation: Propagation,
}

/// A file system, or a subtree of one, attached to the tree of a mount
/// namespace.
pub struct Mount {
    pub id: u64,
    pub fs: Arc<dyn FileSystem>,
    pub sb: Arc<Superblock>,
    /// The dentry that shows at the mount point.
    pub root: Arc<Dentry>,
    flags: AtomicU32,
    /// `MNT_EXPIRE` has been asked for once.
    expired: AtomicBool,
    pub(super) links: RwLock<MountLinks>,
    /// By the address of the mount point's dentry, which the child holds.
    pub(super) children: RwLock<HashMap<usize, Arc<Mount>>>,
}

impl Mount {
    /// A mount that is not attached anywhere.
    pub(super) fn new(
        id: u64,
        sb: &Arc<Superblock>,
        root: &Arc<Dentry>,
        flags: MountFlags,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            fs: sb.fs.clone(),
            sb: sb.clone(),
            root: root.clone(),
            flags: AtomicU32::new(flags.bits()),
            expired: AtomicBool::new(false),
            links: RwLock::new(MountLinks {
                parent: Weak::new(),
                mountpoint: None,
                namespace: Weak::new(),
                propagation: Propagation::default(),
            }),
            children: RwLock::default(),
        })
    }

    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    pub(super) fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
        self.root.paths_changed();
    }

    /// Whether writes are refused here, by the mount or its file system.
    pub fn is_readonly(&self) -> bool {
        self.flags().contains(MountFlags::RDONLY) || self.sb.is_readonly()
    }

    /// Marks it as expired; answers whether it was.
    pub fn mark_expired(&self) -> bool {
        self.expired.swap(true, Ordering::Relaxed)
    }

    /// The namespace this mount is attached in.
    pub fn namespace(&self) -> Option<Arc<MountNamespace>> {
        self.links.read().namespace.upgrade()
    }

    /// The place this mount hides; `None` at the root of a tree.
    pub fn mountpoint(&self) -> Option<VfsPath> {
        let links = self.links.read();
        Some(VfsPath {
            mount: links.parent.upgrade()?,
            dentry: links.mountpoint.clone()?,
        })
    }

    /// The mount on `dentry` of this mount.
    pub fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Self>> {
        if !dentry.is_mountpoint() {
            return None;
        }
        let children = self.children.read();
        children.get(&(Arc::as_ptr(dentry) as usize)).cloned()
    }

    /// Child mounts, oldest first.
    pub fn child_mounts(&self) -> Vec<Arc<Self>> {
        let mut children: Vec<_> = self.children.read().values().cloned().collect();
        children.sort_by_key(|mount| mount.id);
        children
    }

    /// This mount and all below it, parents first.
    pub fn subtree(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut tree = vec![self.clone()];
        let mut at = 0;
        while let Some(mount) = tree.get(at) {
            let children = mount.child_mounts();
            tree.extend(children);
            at += 1;
        }
        tree
    }

    /// Hangs `self` at `place`, which carries no mount. Caller holds the
    /// mount lock.
    pub(super) fn attach(self: &Arc<Self>, place: &VfsPath) {
        place.dentry.add_mount();
        {
            let mut links = self.links.write();
            links.parent = Arc::downgrade(&place.mount);
            links.mountpoint = Some(place.dentry.clone());
        }
        let key = Arc::as_ptr(&place.dentry) as usize;
        place.mount.children.write().insert(key, self.clone());
    }

    /// Takes `self` off its parent. Caller holds the mount lock.
    pub(super) fn detach(&self) {
        let (parent, mountpoint) = {
            let mut links = self.links.write();
            let parent = std::mem::replace(&mut links.parent, Weak::new());
            (parent.upgrade(), links.mountpoint.take())
        };
        let Some(mountpoint) = mountpoint else {
            return;
        };
        if let Some(parent) = parent {
            let key = Arc::as_ptr(&mountpoint) as usize;
            let child = parent.children.write().remove(&key);
            drop(child);
        }
        mountpoint.remove_mount();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Child mounts are let go in a loop: chains of mounts may be long.
        if let Some(mountpoint) = self.links.get_mut().mountpoint.take() {
            mountpoint.remove_mount();
        }
        let mut rest: Vec<Arc<Self>> = self.children.get_mut().drain().map(|(_, m)| m).collect();
        while let Some(mount) = rest.pop() {
            if let Some(mut last) = Arc::into_inner(mount) {
                rest.extend(last.children.get_mut().drain().map(|(_, mount)| mount));
            }
        }
    }
}

/// A place in the tree: a dentry seen through a mount.
#[derive(Clone)]
pub struct VfsPath {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

impl VfsPath {
    /// The object here; `ENOENT` if the name has been removed and was
    /// negative.
    pub fn inode(&self) -> Result<InodeRef, Errno> {
        self.dentry.inode().cloned().ok_or(Errno::ENOENT)
    }

    /// As [`Self::inode`], borrowed.
    pub fn inode_ref(&self) -> Result<&InodeRef, Errno> {
        self.dentry.inode().ok_or(Errno::ENOENT)
    }

    /// A path for an object without a name: `display` is what
    /// `/proc/PID/fd/N` shows (`pipe:[17]`, `/memfd:x (deleted)`).
    pub fn anonymous(inode: InodeRef, display: String) -> Self {
        Self {
            mount: ANONYMOUS.clone(),
            dentry: Dentry::new_anonymous(inode, &display),
        }
    }

    /// Whether this is a path of [`Self::anonymous`].
    pub fn is_anonymous(&self) -> bool {
        Arc::ptr_eq(&self.mount, &ANONYMOUS)
    }

    /// Whether both name the same place.
    pub fn same_place(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }

    /// The root of whatever is mounted on top here.
    pub fn enter_mounts(mut self) -> Self {
        while let Some(mount) = self.mount.child_at(&self.dentry) {
            let dentry = mount.root.clone();
            self = Self { mount, dentry };
        }
        self
    }

    /// The place under this one if it is the root of a mount.
    pub fn leave_mount(&self) -> Option<Self> {
        if !Arc::ptr_eq(&self.dentry, &self.mount.root) {
            return None;
        }
        self.mount.mountpoint()
    }
}

/// The one mount of the pseudo file system of unnamed objects. It is
/// immutable and says nothing about any sandbox.
static ANONYMOUS: LazyLock<Arc<Mount>> = LazyLock::new(|| {
    let fs: Arc<dyn FileSystem> = Arc::new(crate::fs::anon::AnonFs);
    let sb = Superblock::new(&DentryCache::new(1), fs);
    let root = sb.root.clone();
    Mount::new(0, &sb, &root, MountFlags::empty())
});
