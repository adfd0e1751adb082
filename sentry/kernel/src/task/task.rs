//! One guest thread.

use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::{Mutex, RwLock};
use sentry_platform::ThreadHandle;

use super::{Creds, ThreadGroup, Tid};
use crate::mm::MemoryManager;
use crate::vfs::{FdTable, FsContextRef};

/// A guest thread as others see it. Its host thread belongs to the future
/// that runs it.
pub struct Task {
    pub tid: Tid,
    pub group: Arc<ThreadGroup>,
    creds: RwLock<Arc<Creds>>,
    files: RwLock<Arc<FdTable>>,
    fs: RwLock<FsContextRef>,
    mm: RwLock<Arc<MemoryManager>>,
    pub handle: RwLock<Arc<dyn ThreadHandle>>,
    /// The executor's waker while the task waits in a system call.
    waker: Mutex<Option<Waker>>,
}

impl Task {
    pub fn creds(&self) -> Arc<Creds> {
        self.creds.read().clone()
    }

    pub fn set_creds(&self, creds: Creds) {
        *self.creds.write() = Arc::new(creds);
    }

    pub fn files(&self) -> Arc<FdTable> {
        self.files.read().clone()
    }

    pub fn fs(&self) -> FsContextRef {
        self.fs.read().clone()
    }

    pub fn mm(&self) -> Arc<MemoryManager> {
        self.mm.read().clone()
    }

    /// Whether a wait has to end because a signal is to be delivered or the
    /// task is to stop or die. Registers the waiter to be woken when that
    /// becomes so.
    pub fn has_interrupt(&self, cx: &mut Context<'_>) -> bool {
        *self.waker.lock() = Some(cx.waker().clone());
        false
    }
}
