//! Views: pages of files that a guest reads much of, mapped read-only in its
//! stub. Its threads copy from there by themselves, on their own core, where
//! bytes that pass a window of the sentry would travel from another one's.
//!
//! A view is [`l::VIEW_LEN`] bytes of a file at a multiple of that. They lie in
//! the stub region: the guest can't change, move or unmap them, and no child
//! inherits them. What it can do is read them, as it can read the file, which
//! is why they go when it closes it.
//!
//! Locks: the table's is a leaf.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::context::Turn;
use super::control::HostCall;
use super::filter::MAP_SHARED_FLAGS;
use super::layout as l;
use crate::view::{Found, Keeper, View, ViewId};

/// So much of a view's range must have been read before it is mapped: mapping
/// it takes some ten microseconds.
const WORTH_BYTES: u64 = 256 << 10;
/// Ranges that are counted before they are worth it.
const COUNTED_MAX: usize = 256;

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Part {
    file: ViewId,
    start: u64,
}

impl Part {
    fn of(file: ViewId, offset: u64) -> Self {
        let start = offset / l::VIEW_LEN * l::VIEW_LEN;
        Self { file, start }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nobody has it; something may be mapped there still.
    #[default]
    Free,
    /// Somebody is mapping this.
    Mapping(Part),
    Mapped(Part),
    /// Somebody is unmapping it.
    Leaving,
}

#[derive(Debug, Default)]
struct Slot {
    state: State,
    /// Copies under way: it is not given to another file.
    pins: u32,
    /// When it was used last, by [`Table::clock`].
    used: u64,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    clock: u64,
    /// Bytes read of ranges without a view; `None` if the host has refused.
    counted: HashMap<Part, Option<u64>>,
}

impl Table {
    fn find(&self, part: Part) -> Option<usize> {
        let is_it = |slot: &Slot| slot.state == State::Mapped(part);
        self.slots.iter().position(is_it)
    }

    /// A slot for something else.
    fn take(&mut self) -> Option<usize> {
        let unused = |slot: &Slot| slot.pins == 0 && slot.state == State::Free;
        if let Some(index) = self.slots.iter().position(unused) {
            return Some(index);
        }
        if self.slots.len() < l::VIEWS {
            self.slots.push(Slot::default());
            return Some(self.slots.len() - 1);
        }
        let idle =
            |(_, slot): &(usize, &Slot)| slot.pins == 0 && matches!(slot.state, State::Mapped(_));
        let oldest = self.slots.iter().enumerate().filter(idle);
        oldest.min_by_key(|(_, slot)| slot.used).map(|(at, _)| at)
    }

    /// Whether the range has been read often enough.
    fn count(&mut self, part: Part, len: u64) -> bool {
        if self.counted.len() >= COUNTED_MAX && !self.counted.contains_key(&part) {
            self.counted.retain(|_, bytes| bytes.is_none());
            if self.counted.len() >= COUNTED_MAX {
                self.counted.clear();
            }
        }
        match self.counted.entry(part).or_insert(Some(0)) {
            Some(bytes) => {
                *bytes = bytes.saturating_add(len);
                *bytes >= WORTH_BYTES
            }
            None => false,
        }
    }
}

/// The views of one stub.
#[derive(Debug, Default)]
pub(super) struct Views {
    table: Mutex<Table>,
    /// There have been some since the stub was last emptied.
    any: AtomicBool,
}

fn address(index: usize) -> u64 {
    // The table has no more slots than the region.
    l::VIEW_REGION + u64::try_from(index).unwrap_or(0) * l::VIEW_LEN
}

/// A slot that is being filled; given up if that fails.
pub(super) struct Filling {
    views: Arc<Views>,
    index: usize,
    part: Part,
    done: bool,
}

impl Drop for Filling {
    fn drop(&mut self) {
        let mut table = self.views.table.lock();
        if let Some(slot) = table.slots.get_mut(self.index) {
            slot.state = State::Free;
            if self.done {
                slot.state = State::Mapped(self.part);
            }
        }
        if self.done {
            table.counted.remove(&self.part);
        } else {
            table.counted.insert(self.part, None);
        }
    }
}

impl Filling {
    /// What the control thread is to do, once it has received the file as `fd`.
    pub(super) fn calls(&self, fd: u64) -> [HostCall; 2] {
        let (addr, len) = (address(self.index), l::VIEW_LEN);
        let flags = u64::from(MAP_SHARED_FLAGS);
        let protection = 1; // PROT_READ
        let args = [addr, len, protection, flags, fd, self.part.start];
        let advice = libc::MADV_DONTFORK.cast_unsigned().into();
        [
            HostCall::new(libc::SYS_mmap, &args),
            HostCall::new(libc::SYS_madvise, &[addr, len, advice]),
        ]
    }

    /// It is mapped.
    pub(super) fn finish(mut self) {
        self.done = true;
    }
}

impl Keeper for Views {
    fn unpin(&self, index: usize) {
        if let Some(slot) = self.table.lock().slots.get_mut(index) {
            slot.pins = slot.pins.saturating_sub(1);
        }
    }
}

impl Views {
    /// Looks for the view that holds `offset`, of which `len` bytes are wanted.
    pub(super) fn find(self: &Arc<Self>, file: ViewId, offset: u64, len: u64) -> Found {
        let part = Part::of(file, offset);
        let mut table = self.table.lock();
        table.clock += 1;
        let clock = table.clock;
        let Some(index) = table.find(part) else {
            return match table.count(part, len) {
                true => Found::Worth,
                false => Found::Nothing,
            };
        };
        if let Some(slot) = table.slots.get_mut(index) {
            slot.used = clock;
            slot.pins += 1;
        }
        drop(table);
        let within = offset - part.start;
        let (from, left) = (address(index) + within, l::VIEW_LEN - within);
        Found::View(View::new(from, left, self.clone(), index))
    }

    /// Begins to map the view that holds `offset`; not if somebody else does,
    /// or all are in use.
    pub(super) fn fill(self: &Arc<Self>, file: ViewId, offset: u64) -> Option<Filling> {
        let part = Part::of(file, offset);
        let mut table = self.table.lock();
        let taken =
            |slot: &Slot| slot.state == State::Mapping(part) || slot.state == State::Mapped(part);
        if table.slots.iter().any(taken) {
            return None;
        }
        let index = table.take()?;
        table.slots.get_mut(index)?.state = State::Mapping(part);
        drop(table);
        self.any.store(true, Ordering::Relaxed);
        Some(Filling {
            views: self.clone(),
            index,
            part,
            done: false,
        })
    }

    pub(super) fn is_used(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Takes all views of a file off the table, to be unmapped. Who is at
    /// copying from one may come to its end.
    fn forget(&self, file: ViewId) -> Vec<usize> {
        let mut table = self.table.lock();
        table.counted.retain(|part, _| part.file != file);
        let mut leaving = Vec::new();
        for (index, slot) in table.slots.iter_mut().enumerate() {
            if matches!(slot.state, State::Mapped(part) if part.file == file) {
                slot.state = State::Leaving;
                leaving.push(index);
            }
        }
        leaving
    }

    /// They are unmapped.
    fn forgotten(&self, left: &[usize]) {
        let mut table = self.table.lock();
        for &index in left {
            if let Some(slot) = table.slots.get_mut(index) {
                slot.state = State::Free;
            }
        }
    }

    /// The call that unmaps everything, of a stub that no thread copies in.
    pub(super) fn forget_all(&self) -> Option<HostCall> {
        if !self.any.swap(false, Ordering::Relaxed) {
            return None;
        }
        *self.table.lock() = Table::default();
        let all = [l::VIEW_REGION, l::VIEW_REGION_LEN];
        Some(HostCall::new(libc::SYS_munmap, &all))
    }
}

/// One copy from a view; ready with how much of it was done. `ordered` tells
/// whether the thread has the order already.
pub(super) fn poll_copy(
    turn: &mut Turn,
    ordered: &mut bool,
    cx: &mut Context<'_>,
    from: u64,
    to: u64,
    len: u64,
) -> Poll<u64> {
    let room = l::STUB_BASE.saturating_sub(to);
    let len = len.min(room);
    if !*ordered {
        // The stub has to be waiting; a new one may not be yet.
        if len == 0 || ready!(turn.poll_answer(cx)).is_err() {
            return Poll::Ready(0);
        }
        turn.set_args(&[from, to, len]);
        if turn.order(l::OP_COPY).is_err() {
            return Poll::Ready(0);
        }
        *ordered = true;
    }
    let answer = ready!(turn.poll_answer(cx));
    *ordered = false;
    if answer.is_err() {
        return Poll::Ready(0);
    }
    // Also after a fault this is how much is left.
    let left = turn.map().load(turn.field(l::C_RESULT)).min(len);
    Poll::Ready(len - left)
}

impl super::space::SystrapSpace {
    /// Maps the view that holds `offset`.
    pub(super) async fn map_view(
        &self,
        file: ViewId,
        fd: BorrowedFd<'_>,
        offset: u64,
    ) -> Result<(), Errno> {
        let filling = self.views.fill(file, offset).ok_or(Errno::EAGAIN)?;
        let mut batch = super::space::Batch::default();
        batch.add_view(fd, &filling);
        self.run_batch(&mut batch)
            .await
            .map_err(|failed| failed.errno)?;
        filling.finish();
        Ok(())
    }

    /// Unmaps all views of a file.
    pub(super) async fn forget_views(&self, file: ViewId) {
        let leaving = self.views.forget(file);
        if leaving.is_empty() {
            return;
        }
        let Ok(control) = self.stub.control.lock().await else {
            return;
        };
        let unmap = |&index: &usize| {
            let args = [address(index), l::VIEW_LEN];
            HostCall::new(libc::SYS_munmap, &args)
        };
        let calls: Vec<HostCall> = leaving.iter().map(unmap).collect();
        for part in calls.chunks(super::control::MAX_CALLS) {
            // A stub that is gone has nothing mapped.
            let _ = control.run(part).await;
        }
        self.views.forgotten(&leaving);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worth(views: &Arc<Views>, file: ViewId, offset: u64) {
        assert!(matches!(views.find(file, offset, 4096), Found::Nothing));
        assert!(matches!(
            views.find(file, offset, WORTH_BYTES),
            Found::Worth
        ));
    }

    fn map(views: &Arc<Views>, file: ViewId, offset: u64) {
        views.fill(file, offset).expect("a slot").finish();
    }

    #[test]
    fn what_is_read_often_is_mapped_and_found() {
        let views = Arc::new(Views::default());
        let file = ViewId::new();
        worth(&views, file, 5000);
        map(&views, file, 5000);
        let Found::View(view) = views.find(file, 5000, 1) else {
            panic!("it is mapped");
        };
        assert_eq!(view.address(), l::VIEW_REGION + 5000);
        assert_eq!(view.len(), l::VIEW_LEN - 5000);
        assert!(matches!(views.find(file, l::VIEW_LEN, 1), Found::Nothing));
        assert!(matches!(views.find(ViewId::new(), 0, 1), Found::Nothing));
    }

    #[test]
    fn a_view_in_use_stays_in_its_place() {
        let views = Arc::new(Views::default());
        let (first, other) = (ViewId::new(), ViewId::new());
        map(&views, first, 0);
        let Found::View(used) = views.find(first, 0, 1) else {
            panic!("it is mapped");
        };
        for index in 0..2 * l::VIEWS as u64 {
            map(&views, other, index * l::VIEW_LEN);
        }
        assert!(matches!(views.find(first, 0, 1), Found::View(_)));
        let left = views.forget(first);
        assert_eq!(left.len(), 1);
        views.forgotten(&left);
        assert!(matches!(views.find(first, 0, 1), Found::Nothing));
        // The pages are still being copied from.
        let free: Vec<u64> = (0..l::VIEWS as u64)
            .filter_map(|index| views.fill(first, index * l::VIEW_LEN))
            .map(|filling| address(filling.index))
            .collect();
        assert!(!free.contains(&used.address()));
    }

    #[test]
    fn what_the_host_refuses_is_not_tried_again() {
        let views = Arc::new(Views::default());
        let file = ViewId::new();
        worth(&views, file, 0);
        drop(views.fill(file, 0));
        assert!(matches!(views.find(file, 0, WORTH_BYTES), Found::Nothing));
    }

    #[test]
    fn only_one_maps_a_range() {
        let views = Arc::new(Views::default());
        let file = ViewId::new();
        let filling = views.fill(file, 0);
        assert!(filling.is_some());
        assert!(views.fill(file, 4096).is_none());
        assert!(views.forget_all().is_some());
        assert!(views.forget_all().is_none());
    }
}
