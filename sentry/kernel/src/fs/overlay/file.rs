//! Open files of an overlay that are not simply upper ones.
//!
//! A file opened for reading before it is copied up goes on with the upper
//! copy afterwards; what was mapped before stays with the lower file, as in
//! Linux.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use sentry_platform::{BoxFuture, ViewId, Window};
use syscall_tables::Errno;

use super::inode::OverlayInode;
use crate::ctx::{Ctx, SysResult};
use crate::sync::{Events, WaitQueue, WriteTurns};
use crate::vfs::{File, FileOps, MapSource, OpenRequest, ViewSource};

/// An open regular file.
pub(super) struct OverlayFile {
    inode: Arc<OverlayInode>,
    ops: RwLock<Arc<dyn FileOps>>,
    /// `ops` is that of the upper object.
    is_upper: AtomicBool,
    request: OpenRequest,
}

impl OverlayFile {
    pub fn new(inode: Arc<OverlayInode>, ops: Arc<dyn FileOps>, request: &OpenRequest) -> Self {
        Self {
            // Writers always have the upper one.
            is_upper: AtomicBool::new(request.write),
            inode,
            ops: RwLock::new(ops),
            request: *request,
        }
    }

    /// The real open file, as of now.
    fn real(&self) -> Result<Arc<dyn FileOps>, Errno> {
        if !self.is_upper.load(Ordering::Acquire)
            && let Some(upper) = self.inode.upper()
        {
            let ops = upper.clone().open(&self.request)?;
            let old = std::mem::replace(&mut *self.ops.write(), ops);
            self.is_upper.store(true, Ordering::Release);
            drop(old);
        }
        Ok(self.ops.read().clone())
    }
}

impl FileOps for OverlayFile {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.real()?.read_at(file, buf, offset)
    }

    fn write_at(
        &self,
        file: &File,
        buf: &[u8],
        offset: u64,
        append: bool,
    ) -> Result<(usize, u64), Errno> {
        self.real()?.write_at(file, buf, offset, append)
    }

    fn view_source(&self, file: &File) -> Option<ViewSource> {
        self.real().ok()?.view_source(file)
    }

    fn view_id(&self) -> Option<ViewId> {
        self.ops.read().view_id()
    }

    fn write_turns(&self) -> Option<&WriteTurns> {
        Some(&self.inode.write_turns)
    }

    fn has_windows(&self) -> bool {
        self.ops.read().has_windows()
    }

    fn read_window(&self, file: &File, window: &Window<'_>, offset: u64) -> Result<usize, Errno> {
        self.real()?.read_window(file, window, offset)
    }

    fn write_window(&self, file: &File, window: &Window<'_>, offset: u64) -> Result<usize, Errno> {
        self.real()?.write_window(file, window, offset)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, file: &File) -> Result<u64, Errno> {
        self.real()?.end_position(file)
    }

    fn seek_sparse(&self, file: &File, offset: u64, data: bool) -> Result<u64, Errno> {
        self.real()?.seek_sparse(file, offset, data)
    }

    fn poll(&self, file: &File) -> Events {
        match self.real() {
            Ok(ops) => ops.poll(file),
            Err(_) => Events::ERR,
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        // Regular files are always ready.
        None
    }

    fn ioctl<'a>(
        &'a self,
        ctx: &'a mut Ctx<'_>,
        file: &'a File,
        command: u32,
        arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async move {
            let real = self.real()?;
            real.ioctl(ctx, file, command, arg).await
        })
    }

    fn map(&self, file: &File) -> Result<MapSource, Errno> {
        self.real()?.map(file)
    }

    fn truncate(&self, file: &File, size_bytes: u64) -> Result<(), Errno> {
        self.real()?.truncate(file, size_bytes)
    }

    fn allocate(&self, file: &File, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        self.real()?.allocate(file, mode, offset, len)
    }

    fn sync(&self, file: &File, data_only: bool) -> Result<(), Errno> {
        if !self.inode.has_upper() {
            // Nothing of it has changed.
            return Ok(());
        }
        self.real()?.sync(file, data_only)
    }

    fn flush(&self, file: &File) -> Result<(), Errno> {
        self.real()?.flush(file)
    }
}
