//! `signalfd(2)`.

use std::sync::Arc;

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{SigSet, SignalfdSiginfo};
use zerocopy::IntoBytes;

use super::anon_inode;
use crate::sync::{Events, WaitQueue};
use crate::task::{Task, ThreadGroup};
use crate::vfs::{File, FileOps, OpenMode, StatusFlags};

/// Takes pending signals of whoever reads.
pub struct SignalFile {
    mask: Mutex<SigSet>,
    /// Readiness is that of the process that made it: `poll` does not say
    /// who asks.
    maker: std::sync::Weak<ThreadGroup>,
    queue: WaitQueue,
}

impl SignalFile {
    /// Opens a signalfd of `task` for the signals in `mask`.
    pub fn open(task: &Task, mask: SigSet, status: StatusFlags) -> Arc<File> {
        let ops = Self {
            mask: Mutex::new(mask),
            maker: Arc::downgrade(&task.group),
            queue: task.group.signal_arrivals.clone(),
        };
        anon_inode::open(Arc::new(ops), "[signalfd]", status)
    }

    pub fn set_mask(&self, mask: SigSet) {
        *self.mask.lock() = mask;
        // More may be ready now.
        self.queue.notify(Events::READABLE);
    }
}

impl FileOps for SignalFile {
    fn takes_nowait(&self, mode: OpenMode) -> bool {
        mode == OpenMode::READ
    }

    fn stays_at_start(&self) -> bool {
        true
    }

    fn read(&self, _file: &File, _buf: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::EAGAIN)
    }

    fn read_as(&self, reader: &Arc<Task>, _file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        let mask = *self.mask.lock();
        if buf.len() < size_of::<SignalfdSiginfo>() {
            return Err(Errno::EINVAL);
        }
        for out in buf.chunks_exact_mut(size_of::<SignalfdSiginfo>()) {
            let Some((_, info)) = reader.take_signal(mask) else {
                break;
            };
            out.copy_from_slice(SignalfdSiginfo::from(&info).as_bytes());
            done += out.len();
        }
        if done == 0 {
            return Err(Errno::EAGAIN);
        }
        Ok(done)
    }

    fn write(&self, _file: &File, _buf: &[u8]) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, _file: &File) -> Events {
        let Some(group) = self.maker.upgrade() else {
            return Events::empty();
        };
        let mask = *self.mask.lock();
        let pending = group
            .tasks()
            .iter()
            .fold(SigSet::EMPTY, |set, task| set.union(task.pending_signals()));
        if pending.intersection(mask).is_empty() {
            Events::empty()
        } else {
            Events::IN
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self, _file: &File) -> String {
        format!("sigmask:\t{:016x}\n", self.mask.lock().0)
    }
}
