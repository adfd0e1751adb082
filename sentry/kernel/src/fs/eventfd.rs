//! `eventfd(2)`.

use parking_lot::Mutex;
use syscall_tables::Errno;

use crate::sync::{Events, WaitQueue};
use crate::vfs::{File, FileOps, OpenMode};

/// Largest counter value.
const MAX: u64 = u64::MAX - 1;

/// What a read takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventMode {
    /// The whole counter.
    Counter,
    /// One (`EFD_SEMAPHORE`).
    Semaphore,
}

/// A counter that can be waited for.
pub struct EventFile {
    count: Mutex<u64>,
    mode: EventMode,
    queue: WaitQueue,
}

impl EventFile {
    pub fn new(initial: u32, mode: EventMode) -> Self {
        Self {
            count: Mutex::new(u64::from(initial)),
            mode,
            queue: WaitQueue::new(),
        }
    }

    /// Adds to the counter as far as it goes (for the kernel's own events).
    pub fn signal(&self, add: u64) {
        let mut count = self.count.lock();
        *count = count.saturating_add(add).min(MAX);
        drop(count);
        self.queue.notify(Events::READABLE);
    }
}

impl FileOps for EventFile {
    fn takes_nowait(&self, mode: OpenMode) -> bool {
        mode == OpenMode::READ
    }

    fn stays_at_start(&self) -> bool {
        true
    }

    fn read(&self, _file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        let Some(out) = buf.first_chunk_mut::<8>() else {
            return Err(Errno::EINVAL);
        };
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let taken = match self.mode {
            EventMode::Counter => *count,
            EventMode::Semaphore => 1,
        };
        *count -= taken;
        drop(count);
        *out = taken.to_ne_bytes();
        self.queue.notify(Events::WRITABLE);
        Ok(8)
    }

    fn write(&self, _file: &File, buf: &[u8]) -> Result<usize, Errno> {
        let value = buf.try_into().map_err(|_| Errno::EINVAL)?;
        let value = u64::from_ne_bytes(value);
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        *count = match count.checked_add(value) {
            Some(sum) if sum <= MAX => sum,
            _ => return Err(Errno::EAGAIN),
        };
        drop(count);
        self.queue.notify(Events::READABLE);
        Ok(8)
    }

    fn poll(&self, _file: &File) -> Events {
        let count = *self.count.lock();
        let mut events = Events::empty();
        if count > 0 {
            events |= Events::IN;
        }
        if count < MAX {
            events |= Events::OUT;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self, _file: &File) -> String {
        format!("eventfd-count: {:16x}\n", *self.count.lock())
    }
}
