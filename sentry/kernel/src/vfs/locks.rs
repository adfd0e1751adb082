//! File locks: `flock(2)`, and record locks of `fcntl(2)`, POSIX ones owned
//! by a descriptor table and open-file-description ones owned by a file.
//!
//! Locks: one mutex, a leaf. Waiters sit on one of a few wait queues chosen
//! by inode, so an unlock may wake some for nothing.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::{FdTable, File};
use crate::sync::{Events, WaitQueue};

/// Device and inode number.
pub type InodeKey = (u64, u64);

/// Longest chain of waiters looked at for a deadlock, as in Linux.
const DEADLOCK_STEPS: usize = 10;

const QUEUES: usize = 32;

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockOwner {
    /// The processes that share a descriptor table.
    Table(usize),
    /// An open file description.
    File(usize),
}

impl LockOwner {
    pub fn of_table(table: &FdTable) -> Self {
        Self::Table(std::ptr::from_ref(table) as usize)
    }

    pub fn of_file(file: &File) -> Self {
        Self::File(std::ptr::from_ref(file) as usize)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    Shared,
    Exclusive,
}

impl LockKind {
    const fn conflicts(self, other: Self) -> bool {
        !matches!((self, other), (Self::Shared, Self::Shared))
    }
}

/// A locked range of bytes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLock {
    pub owner: LockOwner,
    /// Process id in the root pid namespace; of no meaning for files.
    pub pid: i32,
    pub kind: LockKind,
    pub first: u64,
    pub last: u64,
}

impl RecordLock {
    const fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

#[derive(Default)]
struct InodeLocks {
    records: Vec<RecordLock>,
    whole: Vec<(usize, LockKind)>,
}

#[derive(Default)]
struct Table {
    inodes: HashMap<InodeKey, InodeLocks>,
    /// What owners wait for.
    waiting: HashMap<LockOwner, (InodeKey, RecordLock)>,
}

/// All file locks of a sandbox.
pub struct LockManager {
    table: Mutex<Table>,
    queues: [WaitQueue; QUEUES],
}

impl LockManager {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            queues: std::array::from_fn(|_| WaitQueue::new()),
        })
    }

    /// Where to wait for locks of an inode.
    pub fn queue(&self, key: InodeKey) -> &WaitQueue {
        let at = (key.1 % QUEUES as u64) as usize;
        self.queues.get(at).unwrap_or(&self.queues[0])
    }

    fn wake(&self, key: InodeKey) {
        self.queue(key).notify(Events::READABLE);
    }

    /// The first lock that stands against `wanted` (`F_GETLK`).
    pub fn conflict(&self, key: InodeKey, wanted: &RecordLock) -> Option<RecordLock> {
        let table = self.table.lock();
        table.inodes.get(&key)?.conflict(wanted)
    }

    /// The first lock of `wanted`'s owner in its range.
    pub fn own(&self, key: InodeKey, wanted: &RecordLock) -> Option<RecordLock> {
        let table = self.table.lock();
        let own = |held: &&RecordLock| {
            held.owner == wanted.owner && held.first <= wanted.last && wanted.first <= held.last
        };
        table.inodes.get(&key)?.records.iter().find(own).cloned()
    }

    /// Sets a record lock, replacing what the owner had there; `EAGAIN` if
    /// another owner stands against it.
    pub fn set(&self, key: InodeKey, wanted: RecordLock) -> Result<(), Errno> {
        let mut table = self.table.lock();
        let inode = table.inodes.entry(key).or_default();
        if inode.conflict(&wanted).is_some() {
            return Err(Errno::EAGAIN);
        }
        let had = inode.records.len();
        inode.cut(&wanted);
        // What was cut may have been exclusive: others may go on.
        let downgraded = had != 0 && wanted.kind == LockKind::Shared;
        inode.add(wanted);
        drop(table);
        if downgraded {
            self.wake(key);
        }
        Ok(())
    }

    /// Removes an owner's locks in a range.
    pub fn unset(&self, key: InodeKey, owner: LockOwner, first: u64, last: u64) {
        let mut table = self.table.lock();
        let Some(inode) = table.inodes.get_mut(&key) else {
            return;
        };
        inode.cut(&RecordLock {
            owner,
            pid: 0,
            kind: LockKind::Shared,
            first,
            last,
        });
        if inode.is_empty() {
            table.inodes.remove(&key);
        }
        drop(table);
        self.wake(key);
    }

    /// As [`Self::set`] for a caller that is going to wait on `EAGAIN`;
    /// `EDEADLK` if the one it would wait for waits for it.
    pub fn set_or_wait(&self, key: InodeKey, wanted: RecordLock) -> Result<(), Errno> {
        match self.set(key, wanted) {
            Err(Errno::EAGAIN) => {}
            done => return done,
        }
        let mut table = self.table.lock();
        if matches!(wanted.owner, LockOwner::Table(_)) {
            let mut at = (key, wanted);
            for _ in 0..DEADLOCK_STEPS {
                let blocker = table
                    .inodes
                    .get(&at.0)
                    .and_then(|inode| inode.conflict(&at.1));
                let Some(blocker) = blocker else {
                    break;
                };
                if blocker.owner == wanted.owner {
                    table.waiting.remove(&wanted.owner);
                    return Err(Errno::EDEADLK);
                }
                match table.waiting.get(&blocker.owner) {
                    Some(next) => at = *next,
                    None => break,
                }
            }
            table.waiting.insert(wanted.owner, (key, wanted));
        }
        Err(Errno::EAGAIN)
    }

    /// Ends a wait begun by [`Self::set_or_wait`], however it ended.
    pub fn stop_waiting(&self, owner: LockOwner) {
        self.table.lock().waiting.remove(&owner);
    }

    /// `flock(2)` by `file`; drops what it held, also when `EAGAIN` is the
    /// answer.
    pub fn set_whole(&self, key: InodeKey, file: &File, kind: LockKind) -> Result<(), Errno> {
        let id = std::ptr::from_ref(file) as usize;
        let mut table = self.table.lock();
        let inode = table.inodes.entry(key).or_default();
        if inode.whole.contains(&(id, kind)) {
            return Ok(());
        }
        let before = inode.whole.len();
        inode.whole.retain(|(holder, _)| *holder != id);
        let released = inode.whole.len() != before;
        let conflict = inode.whole.iter().any(|(_, held)| held.conflicts(kind));
        if !conflict {
            inode.whole.push((id, kind));
        }
        drop(table);
        if released {
            self.wake(key);
        }
        if conflict { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// `LOCK_UN`.
    pub fn unset_whole(&self, key: InodeKey, file: &File) {
        let id = std::ptr::from_ref(file) as usize;
        let mut table = self.table.lock();
        if let Some(inode) = table.inodes.get_mut(&key) {
            inode.whole.retain(|(holder, _)| *holder != id);
            if inode.is_empty() {
                table.inodes.remove(&key);
            }
        }
        drop(table);
        self.wake(key);
    }

    /// Removes everything an owner holds.
    pub fn release_owner(&self, owner: LockOwner) {
        let mut freed = Vec::new();
        let mut table = self.table.lock();
        table.waiting.remove(&owner);
        table.inodes.retain(|key, inode| {
            let before = inode.records.len() + inode.whole.len();
            inode.records.retain(|lock| lock.owner != owner);
            if let LockOwner::File(id) = owner {
                inode.whole.retain(|(holder, _)| *holder != id);
            }
            if inode.records.len() + inode.whole.len() != before {
                freed.push(*key);
            }
            !inode.is_empty()
        });
        drop(table);
        for key in freed {
            self.wake(key);
        }
    }

    /// All record locks and whole-file locks, for `/proc/locks`.
    pub fn list(&self) -> Vec<(InodeKey, RecordLock)> {
        let table = self.table.lock();
        let mut all = Vec::new();
        for (key, inode) in &table.inodes {
            all.extend(inode.records.iter().map(|lock| (*key, *lock)));
        }
        all
    }
}

impl InodeLocks {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.whole.is_empty()
    }

    /// The first in the file of those that stand against `wanted`.
    fn conflict(&self, wanted: &RecordLock) -> Option<RecordLock> {
        let held = self.records.iter().filter(|lock| {
            lock.owner != wanted.owner && lock.overlaps(wanted) && lock.kind.conflicts(wanted.kind)
        });
        held.min_by_key(|lock| lock.first).copied()
    }

    /// Removes the owner's locks in the range, splitting those that reach
    /// beyond.
    fn cut(&mut self, range: &RecordLock) {
        let mut kept = Vec::with_capacity(self.records.len() + 1);
        for lock in self.records.drain(..) {
            if lock.owner != range.owner || !lock.overlaps(range) {
                kept.push(lock);
                continue;
            }
            if lock.first < range.first {
                kept.push(RecordLock {
                    last: range.first - 1,
                    ..lock
                });
            }
            if lock.last > range.last {
                kept.push(RecordLock {
                    first: range.last + 1,
                    ..lock
                });
            }
        }
        self.records = kept;
    }

    /// Adds a lock, joined with neighbours of the same owner and kind.
    fn add(&mut self, mut lock: RecordLock) {
        self.records.retain(|held| {
            let joins = held.owner == lock.owner
                && held.kind == lock.kind
                && held.first <= lock.last.saturating_add(1)
                && lock.first <= held.last.saturating_add(1);
            if joins {
                lock.first = lock.first.min(held.first);
                lock.last = lock.last.max(held.last);
            }
            !joins
        });
        self.records.push(lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: InodeKey = (1, 2);
    const A: LockOwner = LockOwner::Table(1);
    const B: LockOwner = LockOwner::Table(2);

    fn lock(owner: LockOwner, kind: LockKind, first: u64, last: u64) -> RecordLock {
        RecordLock {
            owner,
            pid: 0,
            kind,
            first,
            last,
        }
    }

    #[test]
    fn ranges_split_and_join() {
        let locks = LockManager::new();
        locks.set(KEY, lock(A, LockKind::Exclusive, 0, 99)).unwrap();
        locks.unset(KEY, A, 40, 59);
        let middle = lock(B, LockKind::Exclusive, 40, 59);
        assert_eq!(locks.set(KEY, middle), Ok(()));
        let over = lock(B, LockKind::Shared, 30, 40);
        assert_eq!(locks.set(KEY, over), Err(Errno::EAGAIN));
        assert_eq!(locks.conflict(KEY, &over).unwrap().last, 39);
        locks.unset(KEY, B, 0, u64::MAX);
        locks
            .set(KEY, lock(A, LockKind::Exclusive, 40, 59))
            .unwrap();
        assert_eq!(locks.list(), [(KEY, lock(A, LockKind::Exclusive, 0, 99))]);
        locks.set(KEY, lock(A, LockKind::Shared, 50, 50)).unwrap();
        assert_eq!(locks.list().len(), 3);
        locks.release_owner(A);
        assert!(locks.list().is_empty());
    }

    #[test]
    fn circles_are_deadlocks() {
        let locks = LockManager::new();
        locks.set(KEY, lock(A, LockKind::Exclusive, 0, 0)).unwrap();
        locks.set(KEY, lock(B, LockKind::Exclusive, 1, 1)).unwrap();
        let wait = |owner, at| locks.set_or_wait(KEY, lock(owner, LockKind::Exclusive, at, at));
        assert_eq!(wait(A, 1), Err(Errno::EAGAIN));
        assert_eq!(wait(B, 0), Err(Errno::EDEADLK));
        locks.stop_waiting(A);
        assert_eq!(wait(B, 0), Err(Errno::EAGAIN));
    }
}
