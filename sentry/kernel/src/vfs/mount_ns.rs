//! Mount namespaces and the operations of `mount(2)`, `umount2(2)` and
//! `pivot_root(2)` on them. Permission to mount is the caller's to check.
//!
//! Locks: all of these hold `Vfs::mount_lock`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use syscall_tables::Errno;

use super::dentry::Dentry;
use super::mount::{Mount, MountFlags, Superblock, VfsPath};
use super::propagation::{self, PropagationType};
use super::{FileKind, FsState, Vfs};
use crate::sync::{Events, WaitQueue};
use crate::task::UserNamespace;

/// Most mounts a namespace may hold (`/proc/sys/fs/mount-max` is 100,000 in
/// Linux; far fewer serve here).
const MOUNT_MAX: usize = 20_000;

/// A mount tree.
pub struct MountNamespace {
    /// Number shown by `/proc/PID/ns/mnt`.
    pub id: u64,
    /// Whose capabilities count for changes of it.
    pub user_ns: Arc<UserNamespace>,
    root: RwLock<Option<Arc<Mount>>>,
    count: AtomicUsize,
    /// Counts changes of the tree, for readers of `/proc/PID/mounts`.
    event: AtomicU64,
    changed: WaitQueue,
}

impl MountNamespace {
    fn new(id: u64, user_ns: Arc<UserNamespace>) -> Arc<Self> {
        Arc::new(Self {
            id,
            user_ns,
            root: RwLock::new(None),
            count: AtomicUsize::new(0),
            event: AtomicU64::new(0),
            changed: WaitQueue::new(),
        })
    }

    /// The root mount and what is mounted over it.
    pub fn root(&self) -> Option<VfsPath> {
        let mount = self.root.read().clone()?;
        let dentry = mount.root.clone();
        Some(VfsPath { mount, dentry })
    }

    /// Number of changes so far.
    pub fn event(&self) -> u64 {
        self.event.load(Ordering::Acquire)
    }

    /// Notified (`PRI|ERR`) when the tree changes.
    pub fn changed(&self) -> &WaitQueue {
        &self.changed
    }

    fn note_change(&self) {
        self.event.fetch_add(1, Ordering::AcqRel);
        self.changed.notify(Events::PRI | Events::ERR);
    }

    /// All mounts, parents first, siblings oldest first.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        let root = self.root.read().clone();
        root.map(|root| root.subtree()).unwrap_or_default()
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        // Mounts in use elsewhere (an open file) must not keep the tree.
        if let Some(root) = self.root.get_mut().take() {
            for mount in root.subtree() {
                propagation::leave(&mount);
            }
        }
    }
}

/// What `copy_tree` copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopyDepth {
    One,
    Subtree,
}

/// Whether a copy leaves out what may not be bound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopyFor {
    Bind,
    Namespace,
}

/// Flags of [`Vfs::umount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UmountMode {
    /// `EBUSY` while anything uses it.
    Normal,
    /// `MNT_DETACH`: out of the tree now, gone when unused.
    Detach,
}

impl Vfs {
    /// A namespace with `sb` as its root.
    pub fn new_namespace(&self, sb: &Arc<Superblock>, flags: MountFlags) -> Arc<MountNamespace> {
        self.new_namespace_of(UserNamespace::initial(), sb, flags)
    }

    /// As [`Self::new_namespace`]; capabilities in `user_ns` count there.
    pub fn new_namespace_of(
        &self,
        user_ns: Arc<UserNamespace>,
        sb: &Arc<Superblock>,
        flags: MountFlags,
    ) -> Arc<MountNamespace> {
        let namespace = MountNamespace::new(self.next_id(), user_ns);
        let mount = Mount::new(self.next_mount_id(), sb, &sb.root, flags);
        mount.links.write().namespace = Arc::downgrade(&namespace);
        *namespace.root.write() = Some(mount);
        namespace.count.store(1, Ordering::Relaxed);
        namespace
    }

    /// Mounts `sb` at `place`.
    pub fn mount(
        &self,
        sb: &Arc<Superblock>,
        place: &VfsPath,
        flags: MountFlags,
    ) -> Result<Arc<Mount>, Errno> {
        let _lock = self.mount_lock.lock();
        let mount = Mount::new(self.next_mount_id(), sb, &sb.root, flags);
        self.attach_tree(&mount, place)?;
        Ok(mount)
    }

    /// `MS_BIND` (`recursive`: with `MS_REC`).
    pub fn bind(
        &self,
        source: &VfsPath,
        place: &VfsPath,
        recursive: bool,
    ) -> Result<Arc<Mount>, Errno> {
        let _lock = self.mount_lock.lock();
        let links = source.mount.links.read();
        if links.propagation.unbindable || links.namespace.upgrade().is_none() {
            return Err(Errno::EINVAL);
        }
        drop(links);
        let depth = if recursive {
            CopyDepth::Subtree
        } else {
            CopyDepth::One
        };
        let copies = self.copy_tree(&source.mount, &source.dentry, depth, CopyFor::Bind);
        let (_, tree) = copies.into_iter().next().ok_or(Errno::EINVAL)?;
        if let Err(errno) = self.attach_tree(&tree, place) {
            discard(&tree);
            return Err(errno);
        }
        Ok(tree)
    }

    /// Takes the mount whose root is `target` off its place.
    pub fn umount(&self, target: VfsPath, mode: UmountMode) -> Result<(), Errno> {
        let lock = self.mount_lock.lock();
        if !Arc::ptr_eq(&target.dentry, &target.mount.root) {
            return Err(Errno::EINVAL);
        }
        let mount = target.mount.clone();
        drop(target);
        let namespace = mount.namespace().ok_or(Errno::EINVAL)?;
        let place = mount.mountpoint();
        if mode == UmountMode::Normal {
            // One reference is the parent's, one is ours.
            let others = usize::from(place.is_some()) + 1;
            if !mount.children.read().is_empty() || Arc::strong_count(&mount) > others {
                return Err(Errno::EBUSY);
            }
        }
        let Some(place) = place else {
            // The root of the namespace stays; Linux remounts it read-only.
            return Err(Errno::EINVAL);
        };
        let mut gone = vec![mount.clone()];
        for receiver in propagation::receivers(&place.mount) {
            if let Some(copy) = receiver.child_at(&place.dentry)
                && Arc::ptr_eq(&copy.root, &mount.root)
                && (mode == UmountMode::Detach || copy.children.read().is_empty())
            {
                gone.push(copy);
            }
        }
        for mount in &gone {
            detach_tree(mount);
        }
        namespace.note_change();
        drop(lock);
        drop(gone);
        Ok(())
    }

    /// `MS_MOVE`: the mount whose root is `from` to `to`.
    pub fn move_mount(&self, from: &VfsPath, to: &VfsPath) -> Result<(), Errno> {
        let _lock = self.mount_lock.lock();
        if !Arc::ptr_eq(&from.dentry, &from.mount.root) {
            return Err(Errno::EINVAL);
        }
        let mount = &from.mount;
        let old_place = mount.mountpoint().ok_or(Errno::EINVAL)?;
        let old_parent = old_place.mount.links.read().propagation.shared.is_some();
        if old_parent || mount.namespace().is_none() {
            return Err(Errno::EINVAL);
        }
        check_kinds(mount, to)?;
        // Not into itself.
        let mut above = Some(to.mount.clone());
        while let Some(at) = above {
            if Arc::ptr_eq(&at, mount) {
                return Err(Errno::ELOOP);
            }
            above = at.mountpoint().map(|place| place.mount);
        }
        detach_tree(mount);
        self.attach_tree(mount, to)
    }

    /// `MS_REMOUNT|MS_BIND`: replaces the per-mount flags.
    pub fn set_mount_flags(&self, target: &VfsPath, flags: MountFlags) -> Result<(), Errno> {
        let _lock = self.mount_lock.lock();
        if !Arc::ptr_eq(&target.dentry, &target.mount.root) {
            return Err(Errno::EINVAL);
        }
        target.mount.set_flags(flags);
        if let Some(namespace) = target.mount.namespace() {
            namespace.note_change();
        }
        Ok(())
    }

    /// `MS_SHARED`, `MS_PRIVATE`, `MS_SLAVE`, `MS_UNBINDABLE`.
    pub fn set_propagation(
        &self,
        target: &VfsPath,
        kind: PropagationType,
        recursive: bool,
    ) -> Result<(), Errno> {
        let _lock = self.mount_lock.lock();
        if !Arc::ptr_eq(&target.dentry, &target.mount.root) {
            return Err(Errno::EINVAL);
        }
        let mounts = if recursive {
            target.mount.subtree()
        } else {
            vec![target.mount.clone()]
        };
        for mount in mounts {
            propagation::change(&mount, kind, || self.next_group_id());
        }
        Ok(())
    }

    /// A copy of the namespace of `fs` (`CLONE_NEWNS`) that belongs to
    /// `user_ns`, with root and working directory moved into it.
    pub fn clone_namespace(
        &self,
        fs: &FsState,
        user_ns: Arc<UserNamespace>,
    ) -> Result<FsState, Errno> {
        let _lock = self.mount_lock.lock();
        let old_root = fs.namespace.root().ok_or(Errno::EINVAL)?;
        let namespace = MountNamespace::new(self.next_id(), user_ns);
        let copies = self.copy_tree(
            &old_root.mount,
            &old_root.dentry,
            CopyDepth::Subtree,
            CopyFor::Namespace,
        );
        for (_, copy) in &copies {
            copy.links.write().namespace = Arc::downgrade(&namespace);
        }
        namespace.count.store(copies.len(), Ordering::Relaxed);
        *namespace.root.write() = copies.first().map(|(_, copy)| copy.clone());
        let translate = |path: &VfsPath| {
            let mut pairs = copies.iter();
            let pair = pairs.find(|(original, _)| Arc::ptr_eq(original, &path.mount));
            let mount = pair.map_or(&path.mount, |(_, copy)| copy);
            VfsPath {
                mount: mount.clone(),
                dentry: path.dentry.clone(),
            }
        };
        Ok(FsState {
            root: translate(&fs.root),
            cwd: translate(&fs.cwd),
            umask: fs.umask,
            namespace,
        })
    }

    /// `pivot_root(2)`: makes the mount at `new_root` the root of its
    /// namespace and hangs the old root at `put_old`. Tasks whose root or
    /// working directory is the old root are the caller's to move.
    pub fn pivot_root(
        &self,
        old_root: &VfsPath,
        new_root: &VfsPath,
        put_old: &VfsPath,
    ) -> Result<(), Errno> {
        let _lock = self.mount_lock.lock();
        let namespace = new_root.mount.namespace().ok_or(Errno::EINVAL)?;
        let shared = |mount: &Arc<Mount>| mount.links.read().propagation.shared.is_some();
        let new_place = new_root.mount.mountpoint();
        let old_place = old_root.mount.mountpoint();
        let parent_shared =
            |place: &Option<VfsPath>| place.as_ref().is_some_and(|place| shared(&place.mount));
        if shared(&put_old.mount) || parent_shared(&new_place) || parent_shared(&old_place) {
            return Err(Errno::EINVAL);
        }
        if Arc::ptr_eq(&new_root.mount, &old_root.mount)
            || Arc::ptr_eq(&put_old.mount, &old_root.mount)
        {
            return Err(Errno::EBUSY);
        }
        let is_mount_root = |path: &VfsPath| Arc::ptr_eq(&path.dentry, &path.mount.root);
        if !is_mount_root(old_root) || !is_mount_root(new_root) {
            return Err(Errno::EINVAL);
        }
        let Some(new_place) = new_place else {
            return Err(Errno::EINVAL);
        };
        if !is_below(put_old, new_root) || !is_below(&new_place, old_root) {
            return Err(Errno::EINVAL);
        }
        new_root.mount.detach();
        match old_place {
            Some(old_place) => {
                old_root.mount.detach();
                new_root.mount.attach(&old_place);
            }
            None => *namespace.root.write() = Some(new_root.mount.clone()),
        }
        old_root.mount.attach(&put_old.clone().enter_mounts());
        namespace.note_change();
        Ok(())
    }

    /// Hangs an unattached tree on top of `place`, and copies of it wherever
    /// mounts below `place` propagate to.
    fn attach_tree(&self, tree: &Arc<Mount>, place: &VfsPath) -> Result<(), Errno> {
        let place = place.clone().enter_mounts();
        check_kinds(tree, &place)?;
        if place.dentry.is_removed() {
            return Err(Errno::ENOENT);
        }
        let namespace = place.mount.namespace().ok_or(Errno::EINVAL)?;
        let added = tree.subtree();
        if namespace.count.load(Ordering::Relaxed) + added.len() > MOUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        let shared = place.mount.links.read().propagation.shared.is_some();
        if shared {
            for mount in &added {
                propagation::change(mount, PropagationType::Shared, || self.next_group_id());
            }
        }
        for receiver in propagation::receivers(&place.mount) {
            self.propagate(tree, &place.dentry, &receiver);
        }
        adopt(&added, &namespace);
        tree.attach(&place);
        namespace.note_change();
        Ok(())
    }

    fn propagate(&self, tree: &Arc<Mount>, dentry: &Arc<Dentry>, receiver: &Arc<Mount>) {
        if !receiver.root.is_ancestor_of(dentry) {
            return;
        }
        let Some(namespace) = receiver.namespace() else {
            return;
        };
        let pairs = self.copy_tree(tree, &tree.root, CopyDepth::Subtree, CopyFor::Namespace);
        let copies: Vec<_> = pairs.into_iter().map(|(_, copy)| copy).collect();
        let Some(copy) = copies.first().cloned() else {
            return;
        };
        if namespace.count.load(Ordering::Relaxed) + copies.len() > MOUNT_MAX {
            discard(&copy);
            return;
        }
        if receiver.links.read().propagation.shared.is_none() {
            for mount in &copies {
                propagation::change(mount, PropagationType::Slave, || 0);
            }
        }
        adopt(&copies, &namespace);
        let place = VfsPath {
            mount: receiver.clone(),
            dentry: dentry.clone(),
        };
        copy.attach(&place.enter_mounts());
        namespace.note_change();
    }

    /// Copies `mount` as seen from `root`; pairs of original and copy, the
    /// top first.
    fn copy_tree(
        &self,
        mount: &Arc<Mount>,
        root: &Arc<Dentry>,
        depth: CopyDepth,
        purpose: CopyFor,
    ) -> Vec<(Arc<Mount>, Arc<Mount>)> {
        let mut pending = vec![(mount.clone(), self.copy_mount(mount, root))];
        if depth == CopyDepth::One {
            return pending;
        }
        let mut at = 0;
        while let Some((original, copy)) = pending.get(at).cloned() {
            at += 1;
            for child in original.child_mounts() {
                let links = child.links.read();
                let (mountpoint, unbindable) =
                    (links.mountpoint.clone(), links.propagation.unbindable);
                drop(links);
                let Some(dentry) = mountpoint else {
                    continue;
                };
                if !copy.root.is_ancestor_of(&dentry) || (unbindable && purpose == CopyFor::Bind) {
                    continue;
                }
                let child_copy = self.copy_mount(&child, &child.root);
                child_copy.attach(&VfsPath {
                    mount: copy.clone(),
                    dentry,
                });
                pending.push((child, child_copy));
            }
        }
        pending
    }

    fn copy_mount(&self, mount: &Arc<Mount>, root: &Arc<Dentry>) -> Arc<Mount> {
        let copy = Mount::new(self.next_mount_id(), &mount.sb, root, mount.flags());
        propagation::inherit(&copy, mount);
        copy
    }
}

/// A directory is mounted on a directory, anything else on anything else.
fn check_kinds(mount: &Arc<Mount>, place: &VfsPath) -> Result<(), Errno> {
    let is_dir = |dentry: &Dentry| {
        let inode = dentry.inode().ok_or(Errno::ENOENT)?;
        Ok::<_, Errno>(inode.kind() == FileKind::Directory)
    };
    if is_dir(&mount.root)? != is_dir(&place.dentry)? {
        return Err(Errno::ENOTDIR);
    }
    Ok(())
}

fn adopt(mounts: &[Arc<Mount>], namespace: &Arc<MountNamespace>) {
    for mount in mounts {
        mount.links.write().namespace = Arc::downgrade(namespace);
    }
    namespace.count.fetch_add(mounts.len(), Ordering::Relaxed);
}

/// Takes a tree out of its parent and namespace, whole.
fn detach_tree(mount: &Arc<Mount>) {
    let tree = mount.subtree();
    if let Some(namespace) = mount.namespace() {
        namespace.count.fetch_sub(tree.len(), Ordering::Relaxed);
    }
    mount.detach();
    for mount in &tree {
        mount.links.write().namespace = std::sync::Weak::new();
    }
}

/// Undoes a copy that was never attached.
fn discard(tree: &Arc<Mount>) {
    for mount in tree.subtree() {
        propagation::leave(&mount);
    }
}

/// Whether `path` is `top` or somewhere below it.
fn is_below(path: &VfsPath, top: &VfsPath) -> bool {
    let mut at = path.clone();
    loop {
        if Arc::ptr_eq(&at.mount, &top.mount) {
            return top.dentry.is_ancestor_of(&at.dentry);
        }
        match at.mount.mountpoint() {
            Some(place) => at = place,
            None => return false,
        }
    }
}
