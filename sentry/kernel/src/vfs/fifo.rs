//! FIFOs named in a file system: which pipe is behind an inode.
//!
//! All opens of the same inode share a pipe until the last end is closed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::{FileOps, InodeRef, OpenMode, OpenRequest};
use crate::fs::pipe::Pipe;
use crate::sync::WaitQueue;
use crate::task::Creds;

/// An end of a FIFO. Dropping its file removes it.
pub struct FifoEnd {
    pub ops: Arc<dyn FileOps>,
    /// What a blocking open waits for.
    pub wait: Option<PeerWait>,
}

/// A wait for the other side of a FIFO.
pub struct PeerWait {
    pipe: Arc<Pipe>,
    /// The side waited for and how often it had been opened before.
    side: OpenMode,
    seen: u64,
}

impl PeerWait {
    /// `EAGAIN` until the other side has been opened once since.
    pub fn attempt(&self) -> Result<(), Errno> {
        if opens(&self.pipe, self.side) == self.seen {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    pub fn queue(&self) -> &WaitQueue {
        self.pipe.queue()
    }
}

fn opens(pipe: &Pipe, side: OpenMode) -> u64 {
    let (readers, writers) = pipe.opens();
    if side == OpenMode::READ {
        readers
    } else {
        writers
    }
}

/// Pipes by device and inode number.
#[derive(Default)]
pub struct FifoRegistry {
    pipes: Mutex<HashMap<(u64, u64), Weak<Pipe>>>,
}

impl FifoRegistry {
    /// Opens an end of the FIFO `inode` as `fifo(7)` says; `ENXIO` for a
    /// non-blocking writer without reader.
    pub fn open(
        &self,
        inode: &InodeRef,
        request: &OpenRequest,
        creds: &Creds,
    ) -> Result<FifoEnd, Errno> {
        let attr = inode.attr()?;
        let key = (attr.dev, attr.ino);
        let pipe = {
            let mut pipes = self.pipes.lock();
            match pipes.get(&key).and_then(Weak::upgrade) {
                Some(pipe) => pipe,
                None => {
                    pipes.retain(|_, pipe| pipe.strong_count() != 0);
                    let pipe = Pipe::new(creds);
                    pipes.insert(key, Arc::downgrade(&pipe));
                    pipe
                }
            }
        };
        let (readers, writers) = pipe.ends();
        let (mode, side, peers) = match (request.read, request.write) {
            (true, true) => (OpenMode::READ | OpenMode::WRITE, None, 0),
            (false, true) => (OpenMode::WRITE, Some(OpenMode::READ), readers),
            _ => (OpenMode::READ, Some(OpenMode::WRITE), writers),
        };
        if mode == OpenMode::WRITE && request.nonblock && peers == 0 {
            return Err(Errno::ENXIO);
        }
        let side = side.filter(|_| !request.nonblock && peers == 0);
        let wait = side.map(|side| PeerWait {
            seen: opens(&pipe, side),
            pipe: pipe.clone(),
            side,
        });
        Ok(FifoEnd {
            ops: pipe.open(mode),
            wait,
        })
    }
}
