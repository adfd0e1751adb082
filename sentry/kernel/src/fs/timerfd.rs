//! `timerfd_create(2)`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::anon_inode;
use crate::kernel::Kernel;
use crate::sync::{Events, WaitQueue};
use crate::time::{AnyClock, Expire, Setting, Timer};
use crate::vfs::{File, FileOps, OpenMode, StatusFlags};

#[derive(Default)]
struct Count {
    expirations: Mutex<u64>,
    queue: WaitQueue,
}

impl Expire for Count {
    fn expired(&self, count: u64) {
        let mut expirations = self.expirations.lock();
        *expirations = expirations.saturating_add(count);
        drop(expirations);
        self.queue.notify(Events::READABLE);
    }
}

/// A timer that is read.
pub struct TimerFile {
    clock_id: i32,
    timer: Arc<Timer>,
    count: Arc<Count>,
}

impl TimerFile {
    /// Opens a disarmed timer on `clock`, whose id is `clock_id`.
    pub fn open(
        kernel: &Arc<Kernel>,
        clock_id: i32,
        clock: AnyClock,
        status: StatusFlags,
    ) -> Arc<File> {
        let count = Arc::new(Count::default());
        let weak = Arc::downgrade(&count);
        let timer = Timer::new(kernel, clock, weak);
        let ops = Self {
            clock_id,
            timer,
            count,
        };
        anon_inode::open(Arc::new(ops), "[timerfd]", status)
    }

    pub fn timer(&self) -> &Timer {
        &self.timer
    }

    /// Arms anew; expirations that were not read are forgotten.
    pub fn set(&self, setting: Setting) -> (Duration, Duration) {
        let old = self.timer.set(Setting::default());
        *self.count.expirations.lock() = 0;
        self.timer.set(setting);
        old
    }
}

impl FileOps for TimerFile {
    fn takes_nowait(&self, mode: OpenMode) -> bool {
        mode == OpenMode::READ
    }

    fn stays_at_start(&self) -> bool {
        true
    }

    fn read(&self, _file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        let out = buf.first_chunk_mut::<8>().ok_or(Errno::EINVAL)?;
        let count = std::mem::take(&mut *self.count.expirations.lock());
        if count == 0 {
            return Err(Errno::EAGAIN);
        }
        *out = count.to_ne_bytes();
        Ok(8)
    }

    fn unread(&self, _file: &File, bytes: &[u8]) {
        if let Some(bytes) = bytes.first_chunk::<8>() {
            let mut count = self.count.expirations.lock();
            *count = count.saturating_add(u64::from_ne_bytes(*bytes));
        }
    }

    fn write(&self, _file: &File, _buf: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, _file: &File) -> Events {
        if *self.count.expirations.lock() > 0 {
            Events::IN
        } else {
            Events::empty()
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.count.queue)
    }

    fn fdinfo(&self, _file: &File) -> String {
        let (left, interval) = self.timer.left();
        let show = |time: Duration| format!("({}, {})", time.as_secs(), time.subsec_nanos());
        format!(
            "clockid: {}\nticks: {}\nsettime flags: 00\nit_value: {}\nit_interval: {}\n",
            self.clock_id,
            *self.count.expirations.lock(),
            show(left),
            show(interval),
        )
    }
}
