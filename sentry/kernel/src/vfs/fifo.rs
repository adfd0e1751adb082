//! FIFOs named in a file system: which pipe is behind an inode.
//!
//! The pipe code registers how to make one; all opens of the same inode share
//! the pipe until the last end is closed.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::{FileOps, InodeRef, OpenRequest};
use crate::sync::WaitQueue;

/// The pipe behind a FIFO.
pub trait FifoPipe: Send + Sync {
    /// Adds an end as `fifo(7)` says: reading, writing or both. A blocking
    /// open that has to wait for the other side answers with what it waits
    /// for; `ENXIO` for a non-blocking writer without reader.
    fn open_end(self: Arc<Self>, request: &OpenRequest) -> Result<FifoEnd, Errno>;
}

/// An end that [`FifoPipe::open_end`] has added. Dropping `ops` removes it.
pub struct FifoEnd {
    pub ops: Arc<dyn FileOps>,
    pub wait: Option<Box<dyn PeerWait>>,
}

/// A wait for the other side of a FIFO.
pub trait PeerWait: Send + Sync {
    /// `EAGAIN` until the other side has been opened once since.
    fn attempt(&self) -> Result<(), Errno>;
    fn queue(&self) -> &WaitQueue;
}

/// Makes a pipe without ends.
pub type PipeFactory = Box<dyn Fn() -> Arc<dyn FifoPipe> + Send + Sync>;

/// Pipes by device and inode number.
#[derive(Default)]
pub struct FifoRegistry {
    factory: OnceLock<PipeFactory>,
    pipes: Mutex<HashMap<(u64, u64), Weak<dyn FifoPipe>>>,
}

impl FifoRegistry {
    /// Tells how to make pipes; the first caller wins.
    pub fn set_factory(&self, factory: PipeFactory) {
        let _ = self.factory.set(factory);
    }

    /// Opens an end of the FIFO `inode`.
    pub fn open(&self, inode: &InodeRef, request: &OpenRequest) -> Result<FifoEnd, Errno> {
        let factory = self.factory.get().ok_or(Errno::ENXIO)?;
        let attr = inode.attr()?;
        let key = (attr.dev, attr.ino);
        let pipe = {
            let mut pipes = self.pipes.lock();
            match pipes.get(&key).and_then(Weak::upgrade) {
                Some(pipe) => pipe,
                None => {
                    pipes.retain(|_, pipe| pipe.strong_count() != 0);
                    let pipe = factory();
                    pipes.insert(key, Arc::downgrade(&pipe));
                    pipe
                }
            }
        };
        pipe.open_end(request)
    }
}
