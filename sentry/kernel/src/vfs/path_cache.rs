//! Whole paths that have been walked lately: what they led to for whom.
//!
//! A remembered path saves the walk with its permission checks. It counts
//! only while nothing on its way has changed:
//!
//! - [`DentryCache::paths_generation`] is what it was before the walk. It
//!   goes up when a directory or link loses its name, with every mount and
//!   unmount, and with every change of a directory's mode or owner.
//! - the last dentry has kept its place ([`Dentry::moves`]);
//! - file systems whose names can change by themselves say until when an
//!   answer counts ([`super::Inode::name_valid_until_ns`]); most of them say
//!   that it does not, and paths through them are not remembered;
//! - the same rights ask from the same place below the same root.
//!
//! An entry holds everything weakly, so it keeps no file and no mount alive,
//! while the addresses it compares stay taken. The table has a fixed size;
//! paths that fall into one slot push each other out.
//!
//! Locks: a slot's lock is a leaf, and nothing is dropped under it.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::RwLock;
use sentry_platform::host::{self, HostClock};
use syscall_tables::Errno;

use super::dentry::NameHash;
use super::{Dentry, DentryCache, Mount, VfsPath, WalkFlags};
use crate::task::{CapSet, Creds, Gid, Uid};

/// Groups of slots; a group takes memory from its first use on.
const GROUPS: u64 = 256;
/// Slots of a group.
const GROUP_LEN: u64 = 16;
/// Longer paths are walked each time.
const LEN_MAX: usize = 255;

/// Remembered paths of a sandbox.
pub struct PathCache {
    dentries: Arc<DentryCache>,
    hash: NameHash,
    groups: Box<[Group]>,
}

type Group = OnceLock<Box<[Slot]>>;

/// Where the slot of a question is.
struct Spot<'a> {
    group: &'a Group,
    /// Which slot of the group.
    at: usize,
    /// The rest of the question's hash.
    rest: u32,
}

impl<'a> Spot<'a> {
    fn slot(&self) -> Option<&'a Slot> {
        self.group.get()?.get(self.at)
    }

    fn make_slot(&self) -> Option<&'a Slot> {
        let make = || (0..GROUP_LEN).map(|_| Slot::default()).collect();
        self.group.get_or_init(make).get(self.at)
    }
}

#[derive(Default)]
struct Slot {
    /// Part of the hash of the path that was walked last: what is asked for
    /// once only is not worth an entry.
    walked: AtomicU32,
    entry: RwLock<Option<Entry>>,
}

/// A path as somebody asks for it.
pub struct Question<'a> {
    pub root: &'a VfsPath,
    pub start: &'a VfsPath,
    pub path: &'a [u8],
    pub flags: WalkFlags,
    pub creds: &'a Creds,
}

/// The part of credentials that walks look at.
struct Rights {
    fsuid: Uid,
    fsgid: Gid,
    effective: CapSet,
    groups: Arc<[Gid]>,
}

/// A place that is compared, not followed.
struct Place {
    mount: u64,
    dentry: Weak<Dentry>,
}

struct Entry {
    root: Place,
    start: Place,
    path: Box<[u8]>,
    flags: WalkFlags,
    rights: Rights,
    generation: u64,
    until_ns: u64,
    mount: Weak<Mount>,
    dentry: Weak<Dentry>,
    moves: u32,
    /// There was nothing by that name.
    missing: bool,
}

/// What is known before a walk, to remember its result by.
#[derive(Clone, Copy)]
pub struct Before {
    generation: u64,
}

/// Coarse time that [`super::Inode::name_valid_until_ns`] counts in.
pub fn now_ns() -> u64 {
    let now = host::clock_gettime(HostClock::MonotonicCoarse);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl Rights {
    fn of(creds: &Creds) -> Self {
        Self {
            fsuid: creds.fsuid,
            fsgid: creds.fsgid,
            effective: creds.effective,
            groups: creds.groups.clone(),
        }
    }

    fn are_those_of(&self, creds: &Creds) -> bool {
        self.fsuid == creds.fsuid
            && self.fsgid == creds.fsgid
            && self.effective == creds.effective
            && (Arc::ptr_eq(&self.groups, &creds.groups) || self.groups == creds.groups)
    }
}

impl Place {
    fn of(path: &VfsPath) -> Self {
        Self {
            mount: path.mount.id,
            dentry: Arc::downgrade(&path.dentry),
        }
    }

    fn is(&self, path: &VfsPath) -> bool {
        self.mount == path.mount.id && std::ptr::eq(self.dentry.as_ptr(), Arc::as_ptr(&path.dentry))
    }
}

impl Question<'_> {
    /// Whether answers can be remembered at all. What capabilities are worth
    /// in a user namespace depends on its mappings.
    pub fn is_plain(&self) -> bool {
        !self.path.is_empty()
            && self.path.len() <= LEN_MAX
            && self.creds.user_ns.level == 0
            && !self.root.is_anonymous()
            && (WalkFlags::FOLLOW | WalkFlags::EMPTY_PATH | WalkFlags::DIRECTORY)
                .contains(self.flags)
    }
}

impl Entry {
    fn answers(&self, question: &Question<'_>) -> bool {
        *self.path == *question.path
            && self.flags == question.flags
            && self.start.is(question.start)
            && self.root.is(question.root)
            && self.rights.are_those_of(question.creds)
    }
}

impl PathCache {
    pub fn new(dentries: &Arc<DentryCache>) -> Self {
        Self {
            dentries: dentries.clone(),
            hash: dentries.hash(),
            groups: (0..GROUPS).map(|_| Group::new()).collect(),
        }
    }

    fn spot(&self, question: &Question<'_>) -> Option<Spot<'_>> {
        let mut hasher = self.hash.build_hasher();
        hasher.write_usize(Arc::as_ptr(&question.start.dentry) as usize);
        hasher.write_usize(usize::try_from(question.flags.bits()).unwrap_or(0));
        hasher.write(question.path);
        let hash = hasher.finish();
        Some(Spot {
            group: self.groups.get(usize::try_from(hash % GROUPS).ok()?)?,
            at: usize::try_from(hash / GROUPS % GROUP_LEN).ok()?,
            rest: (hash >> 32) as u32,
        })
    }

    /// Whether the end of a walk is to be remembered: of the second one.
    pub fn wants(&self, question: &Question<'_>) -> bool {
        question.is_plain()
            && self.spot(question).is_some_and(|spot| {
                let before = |slot: &Slot| slot.walked.swap(spot.rest, Ordering::Relaxed);
                spot.make_slot().map(before) == Some(spot.rest)
            })
    }

    /// What is to be read before a walk whose end is to be remembered.
    pub fn before(&self) -> Before {
        Before {
            generation: self.dentries.paths_generation(),
        }
    }

    /// What the path leads to, or `ENOENT` for one known to lead nowhere, if
    /// that is remembered and still so.
    pub fn get(&self, question: &Question<'_>) -> Option<Result<VfsPath, Errno>> {
        let slot = self.spot(question)?.slot()?.entry.read();
        let entry = slot.as_ref()?;
        if entry.generation != self.dentries.paths_generation() || !entry.answers(question) {
            return None;
        }
        let (until_ns, moves, missing) = (entry.until_ns, entry.moves, entry.missing);
        let (mount, dentry) = (entry.mount.upgrade(), entry.dentry.upgrade());
        drop(slot);
        let (mount, dentry) = (mount?, dentry?);
        if dentry.moves() != moves || (until_ns != u64::MAX && now_ns() >= until_ns) {
            return None;
        }
        dentry.used();
        match (missing, dentry.inode()) {
            (false, _) => Some(Ok(VfsPath { mount, dentry })),
            (true, None) => Some(Err(Errno::ENOENT)),
            // Made since: perhaps a link to be followed.
            (true, Some(_)) => None,
        }
    }

    /// Remembers the end of a walk: `found`, which may be a negative entry.
    /// `moves` is how often that had lost its place when it was seen there.
    pub fn put(
        &self,
        question: &Question<'_>,
        found: &VfsPath,
        moves: u32,
        until_ns: u64,
        before: Before,
    ) {
        let dentry = &found.dentry;
        let Some(slot) = self.spot(question).and_then(|spot| spot.make_slot()) else {
            return;
        };
        let entry = Entry {
            root: Place::of(question.root),
            start: Place::of(question.start),
            path: question.path.into(),
            flags: question.flags,
            rights: Rights::of(question.creds),
            generation: before.generation,
            until_ns,
            mount: Arc::downgrade(&found.mount),
            dentry: Arc::downgrade(dentry),
            moves,
            missing: dentry.inode().is_none(),
        };
        let old = slot.entry.write().replace(entry);
        drop(old);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for slot in self.groups.iter().filter_map(OnceLock::get).flatten() {
            let old = slot.entry.write().take();
            drop(old);
        }
    }
}
