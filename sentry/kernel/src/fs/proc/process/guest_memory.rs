//! Files whose content is guest memory: `cmdline`, `environ`, `mem`.

use std::ops::Range;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sentry_platform::BoxFuture;
use syscall_tables::Errno;

use crate::fs::kernfs::copy_from;
use crate::mm::{Layout, MemoryManager};
use crate::task::Task;
use crate::vfs::{File, FileOps};

/// Most that is shown of arguments or environment.
const ARGUMENTS_MAX: u64 = 4 << 20;

/// The position a read starts from.
fn start(file: &File, offset: Option<u64>) -> u64 {
    offset.unwrap_or_else(|| *file.position.lock())
}

/// Moves the file position after `count` bytes.
fn advance(file: &File, offset: Option<u64>, from: u64, count: usize) {
    if offset.is_none() {
        *file.position.lock() = from.saturating_add(count as u64);
    }
}

/// An open `cmdline` or `environ`.
pub(super) struct Arguments {
    task: Weak<Task>,
    range: fn(&Layout) -> Range<u64>,
    snapshot: Mutex<Arc<[u8]>>,
}

impl Arguments {
    pub fn new(task: &Arc<Task>, range: fn(&Layout) -> Range<u64>) -> Arc<Self> {
        Arc::new(Self {
            task: Arc::downgrade(task),
            range,
            snapshot: Mutex::new(Arc::from([])),
        })
    }

    async fn text(&self) -> Result<Vec<u8>, Errno> {
        let Some(task) = self.task.upgrade() else {
            return Ok(Vec::new());
        };
        let mm = task.mm();
        let layout = mm.layout();
        let range = (self.range)(&layout);
        let len = range.end.saturating_sub(range.start).min(ARGUMENTS_MAX);
        let mut text = read(&mm, range.start, len).await;
        // A process that has overwritten the end of its arguments shows its
        // title, which may reach into the environment.
        if range == layout.args && text.last().is_some_and(|last| *last != 0) {
            let len = layout.env.end.saturating_sub(layout.env.start);
            let more = read(&mm, layout.env.start, len.min(4096)).await;
            let end = |text: &[u8]| text.iter().position(|byte| *byte == 0);
            match end(&text) {
                Some(at) => text.truncate(at + 1),
                None => {
                    let at = end(&more).map_or(more.len(), |at| at + 1);
                    text.extend_from_slice(more.get(..at).unwrap_or_default());
                }
            }
        }
        Ok(text)
    }
}

/// What can be read of `len` bytes.
async fn read(mm: &MemoryManager, addr: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let got = mm.read_memory(addr, &mut bytes).await.unwrap_or(0);
    bytes.truncate(got);
    bytes
}

impl FileOps for Arguments {
    fn read_at(&self, _file: &File, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        // Reached by calls that can't wait for the memory (splice).
        Ok(copy_from(&self.snapshot.lock(), buf, offset))
    }

    fn is_guest_memory(&self) -> bool {
        true
    }

    fn read_memory<'a>(
        &'a self,
        _reader: &'a Arc<Task>,
        file: &'a File,
        buf: &'a mut [u8],
        offset: Option<u64>,
    ) -> BoxFuture<'a, Result<usize, Errno>> {
        Box::pin(async move {
            let from = start(file, offset);
            if from == 0 {
                let text: Arc<[u8]> = self.text().await?.into();
                *self.snapshot.lock() = text;
            }
            let text = self.snapshot.lock().clone();
            let count = copy_from(&text, buf, from);
            advance(file, offset, from, count);
            Ok(count)
        })
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }
}

/// An open `mem`: the address space that the process had when it was opened.
pub(super) struct Memory(Weak<MemoryManager>);

impl Memory {
    pub fn new(task: &Arc<Task>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(&task.mm())))
    }
}

impl FileOps for Memory {
    fn is_guest_memory(&self) -> bool {
        true
    }

    fn read_memory<'a>(
        &'a self,
        _reader: &'a Arc<Task>,
        file: &'a File,
        buf: &'a mut [u8],
        offset: Option<u64>,
    ) -> BoxFuture<'a, Result<usize, Errno>> {
        Box::pin(async move {
            let from = start(file, offset);
            let Some(mm) = self.0.upgrade() else {
                return Ok(0);
            };
            let read = mm.read_memory(from, buf).await;
            let count = read.map_err(|_| Errno::EIO)?;
            advance(file, offset, from, count);
            Ok(count)
        })
    }

    fn write_memory<'a>(
        &'a self,
        _writer: &'a Arc<Task>,
        file: &'a File,
        buf: &'a [u8],
        offset: Option<u64>,
    ) -> BoxFuture<'a, Result<usize, Errno>> {
        Box::pin(async move {
            let from = start(file, offset);
            let Some(mm) = self.0.upgrade() else {
                return Ok(0);
            };
            let written = mm.poke_memory(from, buf).await;
            let count = written.map_err(|_| Errno::EIO)?;
            advance(file, offset, from, count);
            Ok(count)
        })
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }
}
