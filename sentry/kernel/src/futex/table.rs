//! Queues of waiters.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::{Mutex, MutexGuard};

use super::pi::PiTable;
use crate::mm::FutexObject;

/// What a futex word is, independent of who looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FutexKey {
    /// A word of one address space.
    Private { mm: usize, addr: u64 },
    /// A word of a shared object.
    Shared { object: FutexObject, offset: u64 },
}

/// Wakes the task behind one or several [`Waiter`]s.
#[derive(Default)]
pub struct Parker {
    waker: Mutex<Option<Waker>>,
}

impl Parker {
    /// Remembers whom to wake.
    pub fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.lock();
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    /// Wakes the registered task.
    pub fn wake(&self) {
        if let Some(waker) = self.take() {
            waker.wake();
        }
    }

    fn take(&self) -> Option<Waker> {
        self.waker.lock().take()
    }
}

/// A place in a queue.
pub struct Waiter {
    parker: Arc<Parker>,
    bitset: u32,
    /// The queue it is in; `None` once woken. Changes only with the bucket
    /// of the key locked (of both keys when requeued).
    place: Mutex<Option<FutexKey>>,
}

impl Waiter {
    pub fn new(parker: Arc<Parker>, bitset: u32) -> Arc<Self> {
        Arc::new(Self {
            parker,
            bitset,
            place: Mutex::new(None),
        })
    }

    /// Whether a wake has hit it (or it has not been queued yet).
    pub fn is_woken(&self) -> bool {
        self.place.lock().is_none()
    }
}

type Bucket = Vec<Arc<Waiter>>;

/// Number of buckets, a power of two.
const BUCKETS: usize = 256;

/// All waiters of a sandbox, by key.
pub struct FutexTable {
    buckets: Box<[Mutex<Bucket>]>,
    hasher: RandomState,
    pub(super) pi: PiTable,
}

impl Default for FutexTable {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            pi: PiTable::default(),
        }
    }
}

impl FutexTable {
    pub fn new() -> Self {
        Self::default()
    }

    fn index(&self, key: &FutexKey) -> usize {
        let hash = self.hasher.hash_one(key);
        usize::try_from(hash % BUCKETS as u64).unwrap_or(0)
    }

    fn bucket(&self, index: usize) -> MutexGuard<'_, Bucket> {
        self.buckets
            .get(index)
            .expect("an index is below the number of buckets")
            .lock()
    }

    /// Puts `waiter` at the end of the queue of `key`.
    pub fn enqueue(&self, key: &FutexKey, waiter: &Arc<Waiter>) {
        let mut bucket = self.bucket(self.index(key));
        *waiter.place.lock() = Some(*key);
        bucket.push(waiter.clone());
    }

    /// Takes `waiter` out of its queue; whether it was still there, that is,
    /// had not been woken.
    pub fn dequeue(&self, waiter: &Arc<Waiter>) -> bool {
        loop {
            let Some(key) = *waiter.place.lock() else {
                return false;
            };
            let mut bucket = self.bucket(self.index(&key));
            let mut place = waiter.place.lock();
            match *place {
                // Requeued in between: look again.
                Some(now) if now != key => continue,
                None => return false,
                Some(_) => {}
            }
            *place = None;
            drop(place);
            bucket.retain(|other| !Arc::ptr_eq(other, waiter));
            return true;
        }
    }

    /// Wakes up to `count` waiters of `key` that wait for a bit of `bitset`,
    /// answering how many.
    pub fn wake(&self, key: &FutexKey, count: usize, bitset: u32) -> usize {
        let mut woken = Vec::new();
        let mut bucket = self.bucket(self.index(key));
        let found = take_from(&mut bucket, key, count, bitset, &mut woken);
        drop(bucket);
        for waker in woken {
            waker.wake();
        }
        found
    }

    /// Wakes up to `wake` waiters of `from` and moves up to `requeue` further
    /// ones to the queue of `to`, answering both numbers.
    pub fn requeue(
        &self,
        from: &FutexKey,
        to: &FutexKey,
        wake: usize,
        requeue: usize,
    ) -> (usize, usize) {
        let mut woken = Vec::new();
        let (from_index, to_index) = (self.index(from), self.index(to));
        let counts = if from_index == to_index {
            let mut bucket = self.bucket(from_index);
            let count = take_from(&mut bucket, from, wake, u32::MAX, &mut woken);
            let moved = if from == to {
                // They stay where they are, but count.
                waiters_of(&bucket, from).min(requeue)
            } else {
                let moved = extract(&mut bucket, from, requeue);
                let count = moved.len();
                bucket.extend(place_at(moved, to));
                count
            };
            (count, moved)
        } else {
            let (mut source, mut target);
            if from_index < to_index {
                source = self.bucket(from_index);
                target = self.bucket(to_index);
            } else {
                target = self.bucket(to_index);
                source = self.bucket(from_index);
            }
            let count = take_from(&mut source, from, wake, u32::MAX, &mut woken);
            let moved = extract(&mut source, from, requeue);
            let moved_count = moved.len();
            target.extend(place_at(moved, to));
            (count, moved_count)
        };
        for waker in woken {
            waker.wake();
        }
        counts
    }

    /// How many wait for `key`.
    pub fn waiters(&self, key: &FutexKey) -> usize {
        waiters_of(&self.bucket(self.index(key)), key)
    }
}

fn is_at(waiter: &Waiter, key: &FutexKey) -> bool {
    waiter.place.lock().as_ref() == Some(key)
}

fn waiters_of(bucket: &Bucket, key: &FutexKey) -> usize {
    bucket.iter().filter(|waiter| is_at(waiter, key)).count()
}

/// Wakes waiters of a locked bucket; their tasks' wakers go to `woken`.
fn take_from(
    bucket: &mut Bucket,
    key: &FutexKey,
    count: usize,
    bitset: u32,
    woken: &mut Vec<Waker>,
) -> usize {
    if count == 0 {
        return 0;
    }
    let mut found = 0;
    bucket.retain(|waiter| {
        if found >= count || waiter.bitset & bitset == 0 || !is_at(waiter, key) {
            return true;
        }
        found += 1;
        *waiter.place.lock() = None;
        woken.extend(waiter.parker.take());
        false
    });
    found
}

/// Takes up to `count` waiters of `key` out of a locked bucket.
fn extract(bucket: &mut Bucket, key: &FutexKey, count: usize) -> Vec<Arc<Waiter>> {
    let mut moved = Vec::new();
    bucket.retain(|waiter| {
        if moved.len() >= count || !is_at(waiter, key) {
            return true;
        }
        moved.push(waiter.clone());
        false
    });
    moved
}

/// Tells waiters that they are in the queue of `key` now.
fn place_at(moved: Vec<Arc<Waiter>>, key: &FutexKey) -> impl Iterator<Item = Arc<Waiter>> {
    moved.into_iter().inspect(move |waiter| {
        *waiter.place.lock() = Some(*key);
    })
}
