//! Open regular files: reads and writes go to the donated fd.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sentry_platform::executor::blocking;
use sentry_platform::host::{self, io::Wait};
use sentry_platform::{ViewId, Window};
use syscall_tables::Errno;

use super::convert;
use super::inode::GoferInode;
use crate::sync::WriteTurns;
use crate::vfs::{Attr, File, FileOps, MapSource, OpenMode, ReadOnlyFd, StatusFlags, ViewSource};

/// An open file of a gofer.
pub(super) struct GoferFile {
    inode: Arc<GoferInode>,
    fd: Arc<OwnedFd>,
    view: ViewId,
    /// Written since the last read.
    just_written: AtomicBool,
    /// The last change that a read of the host has followed.
    read_after: Mutex<Option<(i64, u32)>>,
    /// The host file system can tell cached data from other.
    knows_cached: AtomicBool,
    /// Appends of the sentry, so that each one knows where it ended.
    appending: Mutex<()>,
}

impl GoferFile {
    pub fn new(inode: Arc<GoferInode>, fd: Arc<OwnedFd>) -> Arc<Self> {
        inode.opens.fetch_add(1, Ordering::AcqRel);
        Arc::new(Self {
            inode,
            fd,
            view: ViewId::new(),
            just_written: AtomicBool::new(false),
            read_after: Mutex::default(),
            knows_cached: AtomicBool::new(true),
            appending: Mutex::new(()),
        })
    }

    /// Reads from the host's page cache without giving up the worker; `None`
    /// if that is not possible.
    fn read_cached(&self, buf: &mut [u8], offset: u64) -> Result<Option<usize>, Errno> {
        if !self.knows_cached.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut buffers = [IoSliceMut::new(buf)];
        match host::io::preadv(&self.fd, &mut buffers, offset, Wait::Never) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(Errno::EOPNOTSUPP) => {
                self.knows_cached.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(errno) => Err(errno),
        }
    }

    fn written(&self, file: &File, count: usize, end: u64) -> Result<(), Errno> {
        if count == 0 {
            return Ok(());
        }
        self.inode.note_write(end);
        self.just_written.store(true, Ordering::Relaxed);
        let status = file.status();
        if status.contains(StatusFlags::DSYNC) {
            let data_only = !status.contains(StatusFlags::SYNC);
            blocking(|| host::file::fsync(&self.fd, data_only))?;
        }
        Ok(())
    }
}

impl Drop for GoferFile {
    fn drop(&mut self) {
        self.inode.opens.fetch_sub(1, Ordering::AcqRel);
    }
}

impl FileOps for GoferFile {
    // Writes are refused as ext4 does.
    fn takes_nowait(&self, mode: OpenMode) -> bool {
        mode == OpenMode::READ
    }

    fn read_at(&self, _file: &File, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.inode.note_read();
        let done = self.read_cached(buf, offset)?.unwrap_or(0);
        let end = offset.saturating_add(done as u64);
        // Short at the end of the file is all there is.
        if done == buf.len() || (done > 0 && end >= self.inode.known_size()) {
            return Ok(done);
        }
        let rest = buf.get_mut(done..).unwrap_or_default();
        match blocking(|| host::file::pread(&self.fd, rest, end)) {
            Ok(more) => Ok(done + more),
            Err(_) if done > 0 => Ok(done),
            Err(errno) => Err(errno),
        }
    }

    fn write_at(
        &self,
        file: &File,
        buf: &[u8],
        offset: u64,
        append: bool,
    ) -> Result<(usize, u64), Errno> {
        if append {
            let _appending = self.appending.lock();
            let count = blocking(|| host::io::append(&self.fd, buf))?;
            let end = convert::size(&self.fd)?;
            self.written(file, count, end)?;
            return Ok((count, end));
        }
        let whole = offset.saturating_add(buf.len() as u64);
        // Room that a file has is overwritten in the page cache.
        let count = if whole <= self.inode.known_size() {
            host::file::pwrite(&self.fd, buf, offset)?
        } else {
            blocking(|| host::file::pwrite(&self.fd, buf, offset))?
        };
        let end = offset.saturating_add(count as u64);
        self.written(file, count, end)?;
        Ok((count, end))
    }

    fn view_source(&self, _file: &File) -> Option<ViewSource> {
        // Others may not have pages that reads and mappings share; and what
        // has just been written here is likely to be written again.
        if !self.knows_cached.load(Ordering::Relaxed)
            || self.just_written.swap(false, Ordering::Relaxed)
        {
            return None;
        }
        let attr = self.inode.host_attr().ok()?;
        // Only a read of the host sets the access time, once after a change.
        let [atime, mtime, ctime] = [attr.atime, attr.mtime, attr.ctime].map(|t| (t.sec, t.nsec));
        let changed = mtime.max(ctime);
        if atime <= changed && self.read_after.lock().replace(changed) != Some(changed) {
            return None;
        }
        Some(ViewSource {
            fd: self.fd.clone(),
            id: self.view,
            len_bytes: attr.size,
        })
    }

    fn view_id(&self) -> Option<ViewId> {
        Some(self.view)
    }

    fn write_turns(&self) -> Option<&WriteTurns> {
        Some(&self.inode.write_turns)
    }

    fn has_windows(&self) -> bool {
        true
    }

    fn read_window(&self, _file: &File, window: &Window<'_>, offset: u64) -> Result<usize, Errno> {
        self.inode.note_read();
        let mut done = 0;
        if self.knows_cached.load(Ordering::Relaxed) {
            match window.pread(&self.fd, offset, Wait::Never) {
                Ok(count) => done = count,
                Err(Errno::EAGAIN) => {}
                Err(Errno::EOPNOTSUPP) => self.knows_cached.store(false, Ordering::Relaxed),
                Err(errno) => return Err(errno),
            }
        }
        let end = offset.saturating_add(done as u64);
        if done == window.len() || (done > 0 && end >= self.inode.known_size()) {
            return Ok(done);
        }
        let rest = window.behind(done);
        match blocking(|| rest.pread(&self.fd, end, Wait::Allowed)) {
            Ok(more) => Ok(done + more),
            Err(_) if done > 0 => Ok(done),
            Err(errno) => Err(errno),
        }
    }

    fn write_window(&self, file: &File, window: &Window<'_>, offset: u64) -> Result<usize, Errno> {
        let end = offset.saturating_add(window.len() as u64);
        // Room that a file has is overwritten in the page cache.
        let count = if end <= self.inode.known_size() {
            window.pwrite(&self.fd, offset)?
        } else {
            blocking(|| window.pwrite(&self.fd, offset))?
        };
        self.written(file, count, offset.saturating_add(count as u64))?;
        Ok(count)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        convert::size(&self.fd)
    }

    fn seek_sparse(&self, _file: &File, offset: u64, data: bool) -> Result<u64, Errno> {
        host::file::seek_sparse(&self.fd, offset, data)
    }

    fn map(&self, file: &File) -> Result<MapSource, Errno> {
        if file.mode.contains(OpenMode::WRITE) {
            self.inode.mapped.store(true, Ordering::Relaxed);
        }
        Ok(MapSource::Host {
            fd: self.fd.clone(),
            object: self.inode.object(),
            // It was opened with the rights of the guest's descriptor.
            read_only: ReadOnlyFd::default(),
        })
    }

    /// The opened file's, also where its name means another one by now.
    fn attr(&self, _file: &File) -> Option<Result<Attr, Errno>> {
        Some(self.inode.host_attr().and_then(|attr| {
            let dev = self.inode.shared.guest_dev(attr.dev);
            convert::to_vfs(&attr, dev)
        }))
    }

    fn truncate(&self, _file: &File, size_bytes: u64) -> Result<(), Errno> {
        blocking(|| host::file::ftruncate(&self.fd, size_bytes))?;
        self.inode.invalidate();
        Ok(())
    }

    fn allocate(&self, _file: &File, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        blocking(|| host::file::fallocate(&self.fd, mode, offset, len))?;
        self.inode.invalidate();
        Ok(())
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        blocking(|| host::file::fsync(&self.fd, data_only))
    }
}
