//! Watches of inodes (`inotify(7)`): who wants to know of what.
//!
//! Every change and access passes by here; without any watch in the sandbox
//! that costs one load.
//!
//! Locks: the watch table, then an instance's queue. Both are leaves but for
//! wait queues.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bitflags::bitflags;
use parking_lot::Mutex;
use syscall_tables::Errno;

use super::locks::InodeKey;
use super::{Dentry, FileKind, InodeRef, VfsPath};
use crate::sync::{Events, WaitQueue};

bitflags! {
    /// `IN_*`, same bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Mask: u32 {
        const ACCESS = 0x1;
        const MODIFY = 0x2;
        const ATTRIB = 0x4;
        const CLOSE_WRITE = 0x8;
        const CLOSE_NOWRITE = 0x10;
        const OPEN = 0x20;
        const MOVED_FROM = 0x40;
        const MOVED_TO = 0x80;
        const CREATE = 0x100;
        const DELETE = 0x200;
        const DELETE_SELF = 0x400;
        const MOVE_SELF = 0x800;
        const UNMOUNT = 0x2000;
        const Q_OVERFLOW = 0x4000;
        const IGNORED = 0x8000;
        const ONLYDIR = 0x0100_0000;
        const DONT_FOLLOW = 0x0200_0000;
        const EXCL_UNLINK = 0x0400_0000;
        const MASK_CREATE = 0x1000_0000;
        const MASK_ADD = 0x2000_0000;
        const ISDIR = 0x4000_0000;
        const ONESHOT = 0x8000_0000;
        const ALL_EVENTS = 0xfff;
    }
}

/// Most events an instance queues (`fs.inotify.max_queued_events`).
const QUEUE_MAX: usize = 16_384;
/// Most watches of an instance (`fs.inotify.max_user_watches`).
const WATCHES_MAX: usize = 65_536;

/// An event as `read(2)` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub wd: i32,
    pub mask: Mask,
    pub cookie: u32,
    pub name: Vec<u8>,
}

impl Event {
    /// Bytes it takes in a read: header and padded name.
    pub fn encoded_len(&self) -> usize {
        let name = if self.name.is_empty() {
            0
        } else {
            (self.name.len() + 1).next_multiple_of(16)
        };
        16 + name
    }

    /// Appends `struct inotify_event`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let padded = self.encoded_len() - 16;
        out.extend_from_slice(&self.wd.to_le_bytes());
        out.extend_from_slice(&self.mask.bits().to_le_bytes());
        out.extend_from_slice(&self.cookie.to_le_bytes());
        out.extend_from_slice(&(padded as u32).to_le_bytes());
        out.extend_from_slice(&self.name);
        out.resize(out.len() + padded - self.name.len(), 0);
    }
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    next_wd: i32,
    /// Watched inode by watch descriptor.
    watched: HashMap<i32, InodeKey>,
}

/// One inotify instance.
#[derive(Default)]
pub struct Instance {
    queue: Mutex<Queue>,
    pub wait: WaitQueue,
}

impl Instance {
    fn push(&self, event: Event) {
        let mut queue = self.queue.lock();
        // The same thing twice in a row is said once.
        if queue.events.back() == Some(&event) {
            return;
        }
        if queue.events.len() < QUEUE_MAX {
            queue.events.push_back(event);
        } else if queue.events.len() == QUEUE_MAX {
            queue.events.push_back(Event {
                wd: -1,
                mask: Mask::Q_OVERFLOW,
                cookie: 0,
                name: Vec::new(),
            });
        } else {
            return;
        }
        drop(queue);
        self.wait.notify(Events::READABLE);
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().events.is_empty()
    }

    /// Bytes of all queued events (`FIONREAD`).
    pub fn pending_bytes(&self) -> usize {
        let queue = self.queue.lock();
        queue.events.iter().map(Event::encoded_len).sum()
    }

    /// Takes as many events as fit into `room` bytes; `EINVAL` if the first
    /// does not, `EAGAIN` without any.
    pub fn take(&self, room: usize) -> Result<Vec<u8>, Errno> {
        let mut queue = self.queue.lock();
        let mut out = Vec::new();
        while let Some(event) = queue.events.front() {
            if out.len() + event.encoded_len() > room {
                if out.is_empty() {
                    return Err(Errno::EINVAL);
                }
                break;
            }
            event.encode(&mut out);
            queue.events.pop_front();
        }
        if out.is_empty() {
            return Err(Errno::EAGAIN);
        }
        Ok(out)
    }
}

impl Instance {
    /// Takes all events.
    pub fn drain(&self) -> Vec<Event> {
        self.queue.lock().events.drain(..).collect()
    }
}

struct Watch {
    instance: Weak<Instance>,
    wd: i32,
    mask: Mask,
}

struct WatchedInode {
    /// Keeps the inode, and so its number, alive.
    _inode: InodeRef,
    watches: Vec<Watch>,
}

/// All watches of a sandbox.
#[derive(Default)]
pub struct Watches {
    count: AtomicUsize,
    next_cookie: AtomicU32,
    inodes: Mutex<HashMap<InodeKey, WatchedInode>>,
}

fn key_of(inode: &InodeRef) -> Option<InodeKey> {
    let attr = inode.attr().ok()?;
    Some((attr.dev, attr.ino))
}

impl Watches {
    /// Whether nobody watches anything.
    pub fn is_idle(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// `inotify_add_watch(2)`: the watch descriptor.
    pub fn add(
        &self,
        instance: &Arc<Instance>,
        inode: &InodeRef,
        mask: Mask,
    ) -> Result<i32, Errno> {
        let key = key_of(inode).ok_or(Errno::ENOENT)?;
        let mut inodes = self.inodes.lock();
        let watched = inodes.entry(key).or_insert_with(|| WatchedInode {
            _inode: inode.clone(),
            watches: Vec::new(),
        });
        let kept = mask & (Mask::ALL_EVENTS | Mask::ONESHOT | Mask::EXCL_UNLINK | Mask::ONLYDIR);
        let mut known = watched.watches.iter_mut();
        if let Some(watch) =
            known.find(|watch| std::ptr::eq(watch.instance.as_ptr(), Arc::as_ptr(instance)))
        {
            if mask.contains(Mask::MASK_CREATE) {
                return Err(Errno::EEXIST);
            }
            watch.mask = if mask.contains(Mask::MASK_ADD) {
                watch.mask | kept
            } else {
                kept
            };
            return Ok(watch.wd);
        }
        let mut queue = instance.queue.lock();
        let next_wd = queue.next_wd.checked_add(1);
        let next_wd = next_wd.filter(|_| queue.watched.len() < WATCHES_MAX);
        let Some(wd) = next_wd else {
            if watched.watches.is_empty() {
                inodes.remove(&key);
            }
            return Err(Errno::ENOSPC);
        };
        queue.next_wd = wd;
        queue.watched.insert(wd, key);
        watched.watches.push(Watch {
            instance: Arc::downgrade(instance),
            wd,
            mask: kept,
        });
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(wd)
    }

    /// `inotify_rm_watch(2)`.
    pub fn remove(&self, instance: &Arc<Instance>, wd: i32) -> Result<(), Errno> {
        let mut inodes = self.inodes.lock();
        let key = instance
            .queue
            .lock()
            .watched
            .remove(&wd)
            .ok_or(Errno::EINVAL)?;
        let gone = self.forget(&mut inodes, key, |watch| {
            watch.wd == wd && std::ptr::eq(watch.instance.as_ptr(), Arc::as_ptr(instance))
        });
        drop(inodes);
        drop(gone);
        instance.push(ignored(wd));
        Ok(())
    }

    /// Ends all watches of an instance that is closed.
    pub fn remove_instance(&self, instance: &Instance) {
        let mut inodes = self.inodes.lock();
        let keys: Vec<_> = instance.queue.lock().watched.values().copied().collect();
        let mut gone = Vec::new();
        for key in keys {
            gone.extend(self.forget(&mut inodes, key, |watch| {
                std::ptr::eq(watch.instance.as_ptr(), instance)
            }));
        }
        drop(inodes);
        drop(gone);
    }

    /// Drops watches of an inode; answers the entry if it was the last.
    fn forget(
        &self,
        inodes: &mut HashMap<InodeKey, WatchedInode>,
        key: InodeKey,
        choose: impl Fn(&Watch) -> bool,
    ) -> Option<WatchedInode> {
        let watched = inodes.get_mut(&key)?;
        let before = watched.watches.len();
        watched.watches.retain(|watch| !choose(watch));
        let removed = before - watched.watches.len();
        self.count.fetch_sub(removed, Ordering::Relaxed);
        if watched.watches.is_empty() {
            return inodes.remove(&key);
        }
        None
    }

    /// Something happened to the object at `path`: tells those who watch it
    /// and, with its name, those who watch its directory.
    pub fn happened(&self, path: &VfsPath, mask: Mask) {
        if self.is_idle() {
            return;
        }
        let Some(inode) = path.dentry.inode() else {
            return;
        };
        let is_dir = inode.kind() == FileKind::Directory;
        self.to_inode(inode, mask, is_dir, 0, b"", path.dentry.is_removed());
        let (parent, name) = path.dentry.parent_and_name();
        if let Some(parent) = parent
            && let Some(parent) = parent.inode()
        {
            let unlinked = path.dentry.is_removed();
            self.to_inode(parent, mask, is_dir, 0, &name, unlinked);
        }
    }

    /// Something happened to a name in the directory `dir`.
    pub fn in_dir(&self, dir: &VfsPath, name: &[u8], mask: Mask, is_dir: bool, cookie: u32) {
        if self.is_idle() {
            return;
        }
        if let Some(inode) = dir.dentry.inode() {
            self.to_inode(inode, mask, is_dir, cookie, name, false);
        }
    }

    /// A new name.
    pub fn created(&self, path: &VfsPath) {
        if self.is_idle() {
            return;
        }
        let is_dir = path
            .dentry
            .inode()
            .is_some_and(|inode| inode.kind() == FileKind::Directory);
        let (parent, name) = path.dentry.parent_and_name();
        if let Some(parent) = parent
            && let Some(inode) = parent.inode()
        {
            self.to_inode(inode, Mask::CREATE, is_dir, 0, &name, false);
        }
    }

    /// The name of `path` has been removed.
    pub fn deleted(&self, path: &VfsPath) {
        if self.is_idle() {
            return;
        }
        let Some(inode) = path.dentry.inode() else {
            return;
        };
        let is_dir = inode.kind() == FileKind::Directory;
        if !is_dir {
            self.to_inode(inode, Mask::ATTRIB, false, 0, b"", false);
        }
        let (parent, name) = path.dentry.parent_and_name();
        if let Some(parent) = parent
            && let Some(parent) = parent.inode()
        {
            self.to_inode(parent, Mask::DELETE, is_dir, 0, &name, false);
        }
        let links = inode.attr().map_or(0, |attr| attr.nlink);
        if links == 0 || is_dir {
            self.inode_gone(inode, Mask::DELETE_SELF);
        }
    }

    /// The object now at `path` has been renamed.
    pub fn moved_self(&self, path: &VfsPath) {
        if let Some(inode) = path.dentry.inode() {
            self.to_inode(inode, Mask::MOVE_SELF, false, 0, b"", false);
        }
    }

    /// A rename took the name of what `dentry` leads to.
    pub fn replaced(&self, dentry: &Dentry) {
        let Some(inode) = dentry.inode() else {
            return;
        };
        let is_dir = inode.kind() == FileKind::Directory;
        if is_dir || inode.attr().map_or(0, |attr| attr.nlink) == 0 {
            self.inode_gone(inode, Mask::DELETE_SELF);
        } else {
            self.to_inode(inode, Mask::ATTRIB, false, 0, b"", false);
        }
    }

    /// A cookie that ties the two halves of a move together.
    pub fn next_cookie(&self) -> u32 {
        self.next_cookie.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A watched inode goes away: last event, then `IN_IGNORED`.
    fn inode_gone(&self, inode: &InodeRef, mask: Mask) {
        let Some(key) = key_of(inode) else {
            return;
        };
        let mut inodes = self.inodes.lock();
        let Some(watched) = inodes.remove(&key) else {
            return;
        };
        self.count
            .fetch_sub(watched.watches.len(), Ordering::Relaxed);
        for watch in &watched.watches {
            let Some(instance) = watch.instance.upgrade() else {
                continue;
            };
            instance.queue.lock().watched.remove(&watch.wd);
            if watch.mask.intersects(mask) {
                instance.push(Event {
                    wd: watch.wd,
                    mask,
                    cookie: 0,
                    name: Vec::new(),
                });
            }
            instance.push(ignored(watch.wd));
        }
        drop(inodes);
        drop(watched);
    }

    fn to_inode(
        &self,
        inode: &InodeRef,
        mask: Mask,
        is_dir: bool,
        cookie: u32,
        name: &[u8],
        unlinked: bool,
    ) {
        let Some(key) = key_of(inode) else {
            return;
        };
        let mut inodes = self.inodes.lock();
        let Some(watched) = inodes.get_mut(&key) else {
            return;
        };
        let mut spent = Vec::new();
        for watch in &watched.watches {
            if !watch.mask.intersects(mask)
                || (unlinked && !name.is_empty() && watch.mask.contains(Mask::EXCL_UNLINK))
            {
                continue;
            }
            let Some(instance) = watch.instance.upgrade() else {
                continue;
            };
            let mut shown = mask;
            shown.set(Mask::ISDIR, is_dir);
            instance.push(Event {
                wd: watch.wd,
                mask: shown,
                cookie,
                name: name.to_vec(),
            });
            if watch.mask.contains(Mask::ONESHOT) {
                instance.queue.lock().watched.remove(&watch.wd);
                instance.push(ignored(watch.wd));
                spent.push((watch.wd, watch.instance.clone()));
            }
        }
        let mut gone = None;
        for (wd, instance) in spent {
            gone = self.forget(&mut inodes, key, |watch| {
                watch.wd == wd && watch.instance.ptr_eq(&instance)
            });
        }
        drop(inodes);
        drop(gone);
    }
}

fn ignored(wd: i32) -> Event {
    Event {
        wd,
        mask: Mask::IGNORED,
        cookie: 0,
        name: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::anon::AnonInode;
    use crate::task::Creds;
    use crate::vfs::{DentryCache, Vfs};

    #[test]
    fn events_are_queued_and_coalesced() {
        let vfs = Vfs::new();
        let creds = Creds::root();
        let dir = AnonInode::inode(&vfs, FileKind::Directory, 0o755, &creds);
        let file = AnonInode::inode(&vfs, FileKind::Regular, 0o644, &creds);
        let root = Dentry::new_root(&DentryCache::new(8), dir.clone());
        let dentry = root.insert_child(b"name", Some(file));
        let mount = VfsPath::anonymous(dir.clone(), String::new()).mount;
        let path = VfsPath { mount, dentry };
        let instance = Arc::new(Instance::default());
        vfs.watches.happened(&path, Mask::MODIFY);
        let wd = vfs.watches.add(&instance, &dir, Mask::MODIFY).unwrap();
        assert_eq!(vfs.watches.add(&instance, &dir, Mask::MODIFY), Ok(wd));
        vfs.watches.happened(&path, Mask::MODIFY);
        vfs.watches.happened(&path, Mask::MODIFY);
        vfs.watches.happened(&path, Mask::ACCESS);
        assert_eq!(instance.pending_bytes(), 32);
        assert_eq!(instance.take(31), Err(Errno::EINVAL));
        let bytes = instance.take(100).unwrap();
        assert_eq!(&bytes[16..21], b"name\0");
        vfs.watches.remove(&instance, wd).unwrap();
        assert!(vfs.watches.is_idle());
        assert_eq!(vfs.watches.remove(&instance, wd), Err(Errno::EINVAL));
        assert_eq!(instance.take(16).unwrap()[4..8], 0x8000u32.to_le_bytes());
    }
}
