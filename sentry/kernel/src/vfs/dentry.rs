//! The dentry cache: names and what they lead to, with negative entries.
//!
//! A child holds its parent, so a path upwards is always whole. A parent
//! knows its children weakly; the [`DentryCache`] keeps a bounded number of
//! dentries alive that nobody uses, and evicts by the clock algorithm.
//!
//! A name that is removed loses its dentry: the dentry goes on serving open
//! files with its inode, and a new one is made for the next use of the name.
//! So a dentry's inode never changes once it is set.
//!
//! Locks, outermost first: `dir_lock` (shared for lookups in the file system,
//! exclusive for changes of names in this directory; two at once only under
//! the VFS's rename lock, ancestor first), `children`, `link`, the cache's.
//! A dentry reference is never dropped under `children`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};

use super::{FileKind, InodeRef};

/// How a dentry hangs in the tree.
struct Link {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

/// A name in a directory. Unnamed objects (pipes, sockets, memfds) have a
/// parentless dentry of their own.
pub struct Dentry {
    cache: Option<Arc<DentryCache>>,
    link: RwLock<Link>,
    inode: OnceLock<InodeRef>,
    children: RwLock<HashMap<Arc<[u8]>, Weak<Dentry>, NameHash>>,
    /// See the module header.
    pub(super) dir_lock: RwLock<()>,
    /// Mounts on this dentry, in any namespace.
    mounts: AtomicU32,
    /// The name has been removed.
    removed: AtomicBool,
    /// A nameless file that may still get its first name (`O_TMPFILE`).
    linkable: AtomicBool,
    recently_used: AtomicBool,
    /// Goes up when the entry loses its place in its directory.
    moves: AtomicU32,
    /// Slot in the cache plus one; 0 without one.
    slot: AtomicU32,
}

impl Dentry {
    fn build(
        cache: Option<Arc<DentryCache>>,
        parent: Option<Arc<Self>>,
        name: Arc<[u8]>,
        inode: Option<InodeRef>,
    ) -> Arc<Self> {
        let hash = cache
            .as_ref()
            .map_or_else(NameHash::new, |cache| cache.hash);
        Arc::new(Self {
            cache,
            link: RwLock::new(Link { parent, name }),
            inode: inode.map_or_else(OnceLock::new, OnceLock::from),
            children: RwLock::new(HashMap::with_hasher(hash)),
            dir_lock: RwLock::new(()),
            mounts: AtomicU32::new(0),
            removed: AtomicBool::new(false),
            linkable: AtomicBool::new(false),
            recently_used: AtomicBool::new(true),
            moves: AtomicU32::new(0),
            slot: AtomicU32::new(0),
        })
    }

    /// The root of a file system.
    pub fn new_root(cache: &Arc<DentryCache>, inode: InodeRef) -> Arc<Self> {
        Self::build(Some(cache.clone()), None, Arc::from(&b""[..]), Some(inode))
    }

    /// A dentry outside every tree, shown as `display`.
    pub fn new_anonymous(inode: InodeRef, display: &str) -> Arc<Self> {
        Self::build(None, None, Arc::from(display.as_bytes()), Some(inode))
    }

    /// A removed-looking child of `parent` (`O_TMPFILE`), called `name`.
    pub fn new_unlinked(parent: &Arc<Self>, name: &[u8], inode: InodeRef) -> Arc<Self> {
        let dentry = Self::build(
            parent.cache.clone(),
            Some(parent.clone()),
            Arc::from(name),
            Some(inode),
        );
        dentry.removed.store(true, Ordering::Relaxed);
        dentry
    }

    /// What the name leads to; `None` for a negative entry.
    pub fn inode(&self) -> Option<&InodeRef> {
        self.inode.get()
    }

    /// The last component; empty for the root of a file system.
    pub fn name(&self) -> Arc<[u8]> {
        self.link.read().name.clone()
    }

    pub fn parent(&self) -> Option<Arc<Self>> {
        self.link.read().parent.clone()
    }

    /// Parent and name, consistent with each other.
    pub fn parent_and_name(&self) -> (Option<Arc<Self>>, Arc<[u8]>) {
        let link = self.link.read();
        (link.parent.clone(), link.name.clone())
    }

    /// Whether the name has been removed from its directory.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Lets a nameless file be linked into the tree.
    pub(super) fn set_linkable(&self) {
        self.linkable.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_linkable(&self) -> bool {
        self.linkable.load(Ordering::Relaxed)
    }

    /// Whether something is mounted here in some namespace.
    pub fn is_mountpoint(&self) -> bool {
        self.mounts.load(Ordering::Acquire) != 0
    }

    pub(super) fn add_mount(&self) {
        self.mounts.fetch_add(1, Ordering::AcqRel);
        self.paths_changed();
    }

    pub(super) fn remove_mount(&self) {
        self.mounts.fetch_sub(1, Ordering::AcqRel);
        self.paths_changed();
    }

    /// How often the entry has lost its place; see [`super::path_cache`].
    pub(super) fn moves(&self) -> u32 {
        self.moves.load(Ordering::Acquire)
    }

    /// Tells remembered paths that the entry has lost its place: after that
    /// is so, before the call that did it ends.
    fn lost_place(&self) {
        self.moves.fetch_add(1, Ordering::AcqRel);
        let leads_on =
            |inode: &InodeRef| matches!(inode.kind(), FileKind::Directory | FileKind::Symlink);
        if self.inode().is_some_and(leads_on) {
            self.paths_changed();
        }
    }

    /// Forgets all remembered paths: some of them may lead elsewhere now.
    pub fn paths_changed(&self) {
        if let Some(cache) = &self.cache {
            cache.paths_changed();
        }
    }

    /// Keeps the entry in the cache a while longer.
    pub(super) fn used(&self) {
        if !self.recently_used.load(Ordering::Relaxed) {
            self.recently_used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `self` is `other` or above it.
    pub fn is_ancestor_of(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let mut at = other.clone();
        loop {
            if Arc::ptr_eq(self, &at) {
                return true;
            }
            let Some(parent) = at.parent() else {
                return false;
            };
            at = parent;
        }
    }

    /// The cached child `name`, positive or negative.
    pub fn cached_child(&self, name: &[u8]) -> Option<Arc<Self>> {
        let child = self.children.read().get(name)?.upgrade()?;
        child.used();
        Some(child)
    }

    /// All live children in the cache, positive ones.
    pub fn cached_children(&self) -> Vec<Arc<Self>> {
        let children: Vec<_> = self.children.read().values().cloned().collect();
        let live = children.iter().filter_map(Weak::upgrade);
        live.filter(|child| child.inode().is_some()).collect()
    }

    /// Caches `inode` (`None`: that there is none) under `name`, unless the
    /// cache knows the name by now; answers what it knows then.
    pub fn insert_child(self: &Arc<Self>, name: &[u8], inode: Option<InodeRef>) -> Arc<Self> {
        let name: Arc<[u8]> = Arc::from(name);
        let fresh = Self::build(self.cache.clone(), Some(self.clone()), name.clone(), inode);
        let mut children = self.children.write();
        let known = match children.entry(name) {
            Entry::Occupied(mut entry) => {
                let known = entry.get().upgrade();
                if known.is_none() {
                    entry.insert(Arc::downgrade(&fresh));
                }
                known
            }
            Entry::Vacant(entry) => {
                entry.insert(Arc::downgrade(&fresh));
                None
            }
        };
        drop(children);
        match known {
            Some(known) => known,
            None => {
                if let Some(cache) = &fresh.cache {
                    cache.insert(&fresh);
                }
                fresh
            }
        }
    }

    /// Gives a negative entry its inode after a creation. Caller holds the
    /// parent's `dir_lock` exclusively. Where the entry is positive already,
    /// a new one takes its place.
    pub fn instantiate(self: &Arc<Self>, inode: InodeRef) -> Arc<Self> {
        let Err(inode) = self.inode.set(inode) else {
            return self.clone();
        };
        let (parent, name) = self.parent_and_name();
        match parent {
            Some(parent) => {
                self.remove();
                parent.insert_child(&name, Some(inode))
            }
            None => self.clone(),
        }
    }

    /// Takes the entry out of its directory: the name is gone or means
    /// something else.
    pub fn remove(self: &Arc<Self>) {
        self.removed.store(true, Ordering::Release);
        self.forget();
    }

    /// Takes the entry out of the cache without calling it deleted.
    pub fn forget(self: &Arc<Self>) {
        let (parent, name) = self.parent_and_name();
        if let Some(parent) = parent {
            parent.detach_child(&name, Arc::as_ptr(self));
        }
        self.lost_place();
        if let Some(cache) = &self.cache {
            cache.evict(self);
        }
    }

    fn detach_child(&self, name: &[u8], child: *const Self) {
        let mut children = self.children.write();
        if children
            .get(name)
            .is_some_and(|known| std::ptr::eq(known.as_ptr(), child))
        {
            children.remove(name);
        }
    }

    /// Makes `self` the entry `new_name` of `new_parent`. Caller holds both
    /// directories' `dir_lock` exclusively and has removed the target.
    pub fn move_to(self: &Arc<Self>, new_parent: &Arc<Self>, new_name: &[u8]) {
        let new_name: Arc<[u8]> = Arc::from(new_name);
        let (old_parent, old_name) = self.parent_and_name();
        if let Some(old_parent) = &old_parent {
            old_parent.detach_child(&old_name, Arc::as_ptr(self));
        }
        let old_link = std::mem::replace(
            &mut *self.link.write(),
            Link {
                parent: Some(new_parent.clone()),
                name: new_name.clone(),
            },
        );
        let displaced = new_parent
            .children
            .write()
            .insert(new_name, Arc::downgrade(self));
        self.lost_place();
        drop((old_link, displaced));
    }

    /// Swaps the places of two entries; locks as for [`Self::move_to`].
    pub fn exchange(self: &Arc<Self>, other: &Arc<Self>) {
        let (my_parent, my_name) = self.parent_and_name();
        let (other_parent, other_name) = other.parent_and_name();
        if let (Some(my_parent), Some(other_parent)) = (my_parent, other_parent) {
            self.move_to(&other_parent, &other_name);
            other.move_to(&my_parent, &my_name);
        }
    }
}

impl Dentry {
    /// Memory that the entry takes, about.
    fn bytes(&self) -> usize {
        /// Counts of an `Arc`, as the allocator rounds.
        const COUNTS: usize = 16;
        /// A name and a child, as a map holds them.
        const CHILD: usize = size_of::<(Arc<[u8]>, Weak<Dentry>)>() + 1;
        let name = self.link.read().name.len() + COUNTS;
        let children = self.children.read().capacity() * CHILD;
        let inode = self
            .inode()
            .map_or(0, |inode| inode.memory_bytes() + COUNTS);
        size_of::<Self>() + COUNTS + name + children + inode
    }

    /// Drops the map entry of a child that is gone.
    fn purge_dead_child(&self, name: &[u8]) {
        let mut children = self.children.write();
        if children
            .get(name)
            .is_some_and(|child| child.strong_count() == 0)
        {
            children.remove(name);
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        // Parents are let go in a loop: a path may be far deeper than the
        // stack allows to recurse.
        let link = self.link.get_mut();
        let mut name = link.name.clone();
        let mut next = link.parent.take();
        while let Some(parent) = next {
            parent.purge_dead_child(&name);
            next = Arc::into_inner(parent).and_then(|mut last| {
                let link = last.link.get_mut();
                name = link.name.clone();
                link.parent.take()
            });
        }
    }
}

/// Size of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUsage {
    pub entries: usize,
    pub bytes: usize,
}

/// Keeps recently used dentries alive, up to a limit.
pub struct DentryCache {
    hash: NameHash,
    /// Goes up when a directory, link or mount changes what paths lead to.
    paths: AtomicU64,
    clock: Mutex<Clock>,
}

struct Clock {
    slots: Vec<Option<Arc<Dentry>>>,
    free: Vec<u32>,
    hand: usize,
    limit: usize,
}

impl DentryCache {
    /// A cache of at most `limit` unused dentries (at least one).
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            hash: NameHash::new(),
            paths: AtomicU64::new(0),
            clock: Mutex::new(Clock {
                slots: Vec::new(),
                free: Vec::new(),
                hand: 0,
                limit: limit.clamp(1, 1 << 24),
            }),
        })
    }

    pub(super) fn hash(&self) -> NameHash {
        self.hash
    }

    /// See [`Dentry::paths_changed`].
    pub(super) fn paths_generation(&self) -> u64 {
        self.paths.load(Ordering::Acquire)
    }

    pub fn paths_changed(&self) {
        self.paths.fetch_add(1, Ordering::AcqRel);
    }

    /// Dentries kept.
    pub fn len(&self) -> usize {
        let clock = self.clock.lock();
        clock.slots.len() - clock.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn insert(&self, dentry: &Arc<Dentry>) {
        // Bound first, so that the lock is gone when the old one drops.
        let evicted = self.clock.lock().insert(dentry);
        drop(evicted);
    }

    fn evict(&self, dentry: &Dentry) {
        let mut clock = self.clock.lock();
        let at = dentry.slot.swap(0, Ordering::Relaxed);
        let taken = match at.checked_sub(1) {
            Some(at) => {
                let taken = clock.slots.get_mut(at as usize).and_then(Option::take);
                if taken.is_some() {
                    clock.free.push(at);
                }
                taken
            }
            None => None,
        };
        drop(clock);
        drop(taken);
    }

    /// Keeps at most `limit` dentries from now on, as far as more are not there
    /// yet.
    pub fn limit(&self, limit: usize) {
        self.clock.lock().limit = limit.max(1);
    }

    /// What the kept dentries take, with the inodes behind them.
    pub fn usage(&self) -> CacheUsage {
        let kept: Vec<_> = self.clock.lock().slots.iter().flatten().cloned().collect();
        CacheUsage {
            entries: kept.len(),
            bytes: kept.iter().map(|dentry| dentry.bytes()).sum(),
        }
    }

    /// Lets go of all dentries that nobody uses.
    pub fn shrink(&self) {
        let mut clock = self.clock.lock();
        let slots = std::mem::take(&mut clock.slots);
        clock.free.clear();
        clock.hand = 0;
        for dentry in slots.iter().flatten() {
            dentry.slot.store(0, Ordering::Relaxed);
        }
        drop(clock);
        drop(slots);
    }
}

impl Clock {
    /// Answers the dentry that had to go.
    fn insert(&mut self, dentry: &Arc<Dentry>) -> Option<Arc<Dentry>> {
        let at = match self.free.pop() {
            Some(at) => at as usize,
            None if self.slots.len() < self.limit => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => self.advance(),
        };
        let slot = self.slots.get_mut(at)?;
        dentry.slot.store(at as u32 + 1, Ordering::Relaxed);
        let evicted = slot.replace(dentry.clone())?;
        evicted.slot.store(0, Ordering::Relaxed);
        Some(evicted)
    }

    /// Moves the hand to a slot whose dentry was not used since the last
    /// round.
    fn advance(&mut self) -> usize {
        let len = self.slots.len();
        for _ in 0..=len {
            self.hand = (self.hand + 1) % len.max(1);
            let used = self.slots.get(self.hand).is_some_and(|slot| {
                slot.as_ref().is_some_and(|dentry| {
                    dentry.recently_used.swap(false, Ordering::Relaxed)
                        || Arc::strong_count(dentry) > 1
                })
            });
            if !used {
                break;
            }
        }
        self.hand
    }
}

/// Hash of names, keyed per sandbox so that a guest can't prepare collisions.
#[derive(Clone, Copy)]
pub(super) struct NameHash {
    key: u64,
}

impl NameHash {
    fn new() -> Self {
        Self {
            key: RandomState::new().hash_one(0u8),
        }
    }
}

impl BuildHasher for NameHash {
    type Hasher = NameHasher;

    fn build_hasher(&self) -> NameHasher {
        NameHasher(self.key)
    }
}

/// Folded multiplication over 8-byte words.
pub(super) struct NameHasher(u64);

impl NameHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut buf = [0; 8];
            buf.copy_from_slice(word);
            self.mix(u64::from_le_bytes(buf));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut buf = [0; 8];
            for (to, from) in buf.iter_mut().zip(rest) {
                *to = *from;
            }
            self.mix(u64::from_le_bytes(buf));
        }
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
