//! epoll instances (`epoll(7)`).
//!
//! Locks: `items`, then a target's wait queue, then `ready`, then the
//! instance's own wait queue. A target's notification takes `ready` only.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sentry_platform::BoxFuture;
use syscall_tables::Errno;
use syscall_tables::abi::EpollEvent;
use syscall_tables::abi::PollEvents;

use crate::ctx::{Ctx, SysResult};
use crate::sync::{Events, Observer, Subscription, WaitQueue};
use crate::vfs::{Fd, File, FileOps};

/// Deepest nesting of epoll instances (`epoll(7)`: `ELOOP`).
const MAX_NESTING: usize = 5;

/// A watched file: descriptor and description together are its key.
struct Item {
    file: Weak<File>,
    fd: Fd,
    events: PollEvents,
    data: u64,
    notifier: Arc<Notifier>,
    _subscription: Subscription,
}

/// Few closed files are not worth a sweep.
const SWEEP_LEAST: usize = 64;

/// Items that may be ready, in order, each at most once.
#[derive(Default)]
struct Ready {
    order: VecDeque<u64>,
}

impl Ready {
    fn push(&mut self, item: &Notifier) {
        if !item.is_queued.swap(true, Ordering::AcqRel) {
            self.order.push_back(item.id);
        }
    }
}

struct Shared {
    ready: Mutex<Ready>,
    queue: WaitQueue,
}

/// Marks its item as possibly ready.
struct Notifier {
    shared: Weak<Shared>,
    id: u64,
    /// Whether the item is in the list of ready ones. Whoever takes it off
    /// clears this before looking at the file.
    is_queued: AtomicBool,
}

impl Observer for Notifier {
    fn notify(&self, _events: Events) {
        if let Some(shared) = self.shared.upgrade() {
            shared.ready.lock().push(self);
            shared.queue.notify(Events::READABLE);
        }
    }
}

/// Descriptor and address of the description. An item's weak reference keeps
/// the address from being used again.
type Key = (Fd, usize);

fn key(fd: Fd, file: &Weak<File>) -> Key {
    (fd, file.as_ptr().addr())
}

#[derive(Default)]
struct Items {
    next_id: u64,
    by_id: HashMap<u64, Item>,
    ids: HashMap<Key, u64>,
    /// How many items there may be before closed files are looked for.
    sweep_at: usize,
}

impl Items {
    fn find(&self, fd: Fd, file: &Arc<File>) -> Option<u64> {
        self.ids.get(&(fd, Arc::as_ptr(file).addr())).copied()
    }

    fn insert(&mut self, id: u64, item: Item) {
        self.ids.insert(key(item.fd, &item.file), id);
        self.by_id.insert(id, item);
    }

    #[must_use = "is dropped without the lock"]
    fn remove(&mut self, id: u64) -> Option<Item> {
        let item = self.by_id.remove(&id)?;
        self.ids.remove(&key(item.fd, &item.file));
        Some(item)
    }

    /// Takes out files that were closed and never ready since: epoll(7)
    /// removes them. Happens whenever the number has doubled.
    #[must_use = "is dropped without the lock"]
    fn sweep(&mut self) -> Vec<Item> {
        if self.by_id.len() < self.sweep_at.max(SWEEP_LEAST) {
            return Vec::new();
        }
        let closed = self.by_id.iter();
        let closed = closed.filter(|(_, item)| item.file.strong_count() == 0);
        let closed: Vec<u64> = closed.map(|(id, _)| *id).collect();
        let closed = closed.into_iter().filter_map(|id| self.remove(id));
        let closed: Vec<Item> = closed.collect();
        self.sweep_at = self.by_id.len() * 2;
        closed
    }
}

/// An epoll instance.
pub struct Epoll {
    items: Mutex<Items>,
    shared: Arc<Shared>,
}

impl Epoll {
    pub fn new() -> Self {
        Self {
            items: Mutex::default(),
            shared: Arc::new(Shared {
                ready: Mutex::default(),
                queue: WaitQueue::new(),
            }),
        }
    }

    /// `EPOLL_CTL_ADD`.
    pub fn add(&self, fd: Fd, file: &Arc<File>, event: EpollEvent) -> Result<(), Errno> {
        if let Some(target) = file.downcast::<Self>() {
            target.check_nesting(self, 1)?;
        }
        let queue = file.ops.wait_queue().ok_or(Errno::EPERM)?;
        let mut items = self.items.lock();
        if items.find(fd, file).is_some() {
            return Err(Errno::EEXIST);
        }
        items.next_id += 1;
        let id = items.next_id;
        let events = wanted(event.events);
        let notifier = Arc::new(Notifier {
            shared: Arc::downgrade(&self.shared),
            id,
            is_queued: AtomicBool::new(false),
        });
        let item = Item {
            file: Arc::downgrade(file),
            fd,
            events,
            data: event.data,
            notifier: notifier.clone(),
            _subscription: queue.subscribe(interest(events), notifier.clone()),
        };
        let closed = items.sweep();
        items.insert(id, item);
        drop(items);
        drop(closed);
        self.recheck(&notifier, file, events);
        Ok(())
    }

    /// `EPOLL_CTL_MOD`.
    pub fn modify(&self, fd: Fd, file: &Arc<File>, event: EpollEvent) -> Result<(), Errno> {
        let queue = file.ops.wait_queue().ok_or(Errno::EPERM)?;
        let mut items = self.items.lock();
        let id = items.find(fd, file).ok_or(Errno::ENOENT)?;
        let item = items.by_id.get_mut(&id).ok_or(Errno::ENOENT)?;
        if item.events.contains(PollEvents::EPOLLEXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        item.events = wanted(event.events);
        item.data = event.data;
        let events = item.events;
        let notifier = item.notifier.clone();
        let subscription = queue.subscribe(interest(events), notifier.clone());
        let old = std::mem::replace(&mut item._subscription, subscription);
        drop(items);
        drop(old);
        self.recheck(&notifier, file, events);
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    pub fn delete(&self, fd: Fd, file: &Arc<File>) -> Result<(), Errno> {
        let mut items = self.items.lock();
        let id = items.find(fd, file).ok_or(Errno::ENOENT)?;
        let item = items.remove(id);
        drop(items);
        drop(item);
        Ok(())
    }

    /// Takes up to `max` ready events, oldest first.
    pub fn take(&self, max: usize) -> Vec<EpollEvent> {
        let mut taken = Vec::new();
        // Level-triggered items go to the end of the list again, so each is
        // looked at once per call.
        let mut left = self.shared.ready.lock().order.len();
        while left > 0 && taken.len() < max {
            left -= 1;
            let Some(id) = self.shared.ready.lock().order.pop_front() else {
                break;
            };
            let mut items = self.items.lock();
            let Some(item) = items.by_id.get_mut(&id) else {
                continue;
            };
            item.notifier.is_queued.store(false, Ordering::Release);
            let Some(file) = item.file.upgrade() else {
                // Closed: epoll(7) removes it.
                let item = items.remove(id);
                drop(items);
                drop(item);
                continue;
            };
            let ready = ready_events(&file, item.events);
            if !ready.is_empty() {
                taken.push(EpollEvent {
                    events: ready.bits(),
                    data: item.data,
                });
                if item.events.contains(PollEvents::EPOLLONESHOT) {
                    item.events &= PollEvents::EPOLL_MODE;
                } else if !item.events.contains(PollEvents::EPOLLET) {
                    self.shared.ready.lock().push(&item.notifier);
                }
            }
            drop(items);
            // May be the last reference, whose release must run unlocked.
            drop(file);
        }
        taken
    }

    /// Where `epoll_wait` waits.
    pub fn queue(&self) -> &WaitQueue {
        &self.shared.queue
    }

    /// Queues an item that is ready already when it is added or changed.
    fn recheck(&self, item: &Notifier, file: &File, events: PollEvents) {
        if !ready_events(file, events).is_empty() {
            self.shared.ready.lock().push(item);
            self.shared.queue.notify(Events::READABLE);
        }
    }

    /// Refuses cycles and deep nests: `outer` is about to watch `self`.
    fn check_nesting(&self, outer: &Self, depth: usize) -> Result<(), Errno> {
        if std::ptr::eq(self, outer) {
            return Err(if depth == 1 {
                Errno::EINVAL
            } else {
                Errno::ELOOP
            });
        }
        if depth >= MAX_NESTING {
            return Err(Errno::ELOOP);
        }
        let inner: Vec<Arc<File>> = {
            let items = self.items.lock();
            let files = items.by_id.values().filter_map(|item| item.file.upgrade());
            files.collect()
        };
        for file in inner {
            if let Some(epoll) = file.downcast::<Self>() {
                epoll.check_nesting(outer, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Whether any item is ready; drops nothing from the list that is.
    fn any_ready(&self) -> bool {
        let candidates: Vec<u64> = self.shared.ready.lock().order.iter().copied().collect();
        candidates.into_iter().any(|id| {
            let found = {
                let items = self.items.lock();
                let item = items.by_id.get(&id);
                item.and_then(|item| Some((item.file.upgrade()?, item.events)))
            };
            found.is_some_and(|(file, events)| !ready_events(&file, events).is_empty())
        })
    }
}

impl Default for Epoll {
    fn default() -> Self {
        Self::new()
    }
}

fn wanted(events: u32) -> PollEvents {
    PollEvents::from_bits_truncate(events) | PollEvents::POLLERR | PollEvents::POLLHUP
}

/// The wait queue mask of a set of epoll events.
fn interest(events: PollEvents) -> Events {
    Events::from_bits_truncate(events.bits())
}

/// The events of `file` that `events` asks for; none once a one-shot has
/// fired.
fn ready_events(file: &File, events: PollEvents) -> PollEvents {
    if events.difference(PollEvents::EPOLL_MODE).is_empty() {
        return PollEvents::empty();
    }
    let now = PollEvents::from_bits_truncate(file.ops.poll(file).bits());
    now & events.difference(PollEvents::EPOLL_MODE)
}

impl FileOps for Epoll {
    /// Its own requests (`EPIOCSPARAMS`) are not known here; others never
    /// were.
    fn ioctl<'a>(
        &'a self,
        _ctx: &'a mut Ctx<'_>,
        _file: &'a File,
        _command: u32,
        _arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async { Err(Errno::EINVAL) })
    }

    fn stays_at_start(&self) -> bool {
        true
    }

    fn read(&self, _file: &File, _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn write(&self, _file: &File, _buf: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, _file: &File) -> Events {
        if self.any_ready() {
            Events::READABLE
        } else {
            Events::empty()
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.shared.queue)
    }

    fn fdinfo(&self, _file: &File) -> String {
        let items = self.items.lock();
        let mut items: Vec<&Item> = items.by_id.values().collect();
        items.sort_by_key(|item| item.fd);
        let lines = items.into_iter().map(|item| {
            let (fd, events, data) = (item.fd.0, item.events.bits(), item.data);
            format!("tfd: {fd:8} events: {events:8x} data: {data:16x}\n")
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::anon_inode;
    use crate::fs::eventfd::{EventFile, EventMode};
    use crate::vfs::StatusFlags;

    fn event_file() -> Arc<File> {
        let ops = Arc::new(EventFile::new(0, EventMode::Counter));
        anon_inode::open(ops, "[eventfd]", StatusFlags::empty())
    }

    fn signal(file: &File) {
        assert_eq!(file.ops.write(file, &1_u64.to_ne_bytes()), Ok(8));
    }

    fn event(events: PollEvents) -> EpollEvent {
        EpollEvent {
            events: events.bits(),
            data: 7,
        }
    }

    #[test]
    fn level_and_edge() {
        let (level, edge) = (event_file(), event_file());
        let epoll = Epoll::new();
        assert_eq!(epoll.add(Fd(3), &level, event(PollEvents::POLLIN)), Ok(()));
        let edge_events = PollEvents::POLLIN | PollEvents::EPOLLET;
        assert_eq!(epoll.add(Fd(4), &edge, event(edge_events)), Ok(()));
        assert!(epoll.take(8).is_empty());
        signal(&level);
        signal(&edge);
        assert_eq!(epoll.take(8).len(), 2);
        assert_eq!(epoll.take(8).len(), 1);
        signal(&edge);
        assert_eq!(epoll.take(8).len(), 2);
    }

    #[test]
    fn one_shot_needs_rearming() {
        let file = event_file();
        let epoll = Epoll::new();
        let events = PollEvents::POLLIN | PollEvents::EPOLLONESHOT;
        assert_eq!(epoll.add(Fd(3), &file, event(events)), Ok(()));
        signal(&file);
        assert_eq!(epoll.take(8).len(), 1);
        signal(&file);
        assert!(epoll.take(8).is_empty());
        assert_eq!(epoll.modify(Fd(3), &file, event(events)), Ok(()));
        assert_eq!(epoll.take(8).len(), 1);
    }

    #[test]
    fn closed_files_leave() {
        let file = event_file();
        let epoll = Epoll::new();
        assert_eq!(epoll.add(Fd(3), &file, event(PollEvents::POLLIN)), Ok(()));
        signal(&file);
        drop(file);
        assert!(epoll.take(8).is_empty());
        assert!(epoll.items.lock().by_id.is_empty());
        assert!(epoll.items.lock().ids.is_empty());
    }

    #[test]
    fn closed_files_that_are_never_ready_leave() {
        let epoll = Epoll::new();
        for fd in 0..1000 {
            let file = event_file();
            assert_eq!(epoll.add(Fd(fd), &file, event(PollEvents::POLLIN)), Ok(()));
        }
        assert!(epoll.items.lock().by_id.len() <= 2 * SWEEP_LEAST);
    }

    #[test]
    fn a_change_does_not_queue_twice() {
        let file = event_file();
        let epoll = Epoll::new();
        assert_eq!(epoll.add(Fd(3), &file, event(PollEvents::POLLIN)), Ok(()));
        signal(&file);
        for _ in 0..3 {
            let same = event(PollEvents::POLLIN);
            assert_eq!(epoll.modify(Fd(3), &file, same), Ok(()));
        }
        assert_eq!(epoll.shared.ready.lock().order.len(), 1);
        assert_eq!(epoll.take(8).len(), 1);
        assert_eq!(epoll.delete(Fd(3), &file), Ok(()));
        assert!(epoll.take(8).is_empty());
        assert_eq!(epoll.add(Fd(3), &file, event(PollEvents::POLLIN)), Ok(()));
        assert_eq!(epoll.take(8).len(), 1);
    }
}
