//! Contents of regular files: a vector while small and unmapped, then a
//! memfd. The memfd is always exactly as long as the file, so that mappings
//! end where the file does.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;
use sentry_platform::host::{self, io::Wait};
use sentry_platform::{ViewId, Window};
use syscall_tables::Errno;
use syscall_tables::abi::{FallocFlags, Seals};

use super::{PAGE, Shared};
use crate::sync::WriteTurns;
use crate::vfs::{ReadOnlyFd, ViewSource};

/// Largest content kept in a vector.
const INLINE_MAX: u64 = 64 << 10;

/// Largest file.
const SIZE_MAX: u64 = i64::MAX as u64;

enum Data {
    Inline(Vec<u8>),
    Memfd {
        fd: Arc<OwnedFd>,
        len: u64,
        view: ViewId,
    },
}

/// Where the bytes of a write are.
#[derive(Clone, Copy)]
pub(super) enum Bytes<'a> {
    Slice(&'a [u8]),
    Window(&'a Window<'a>),
}

impl Bytes<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Slice(bytes) => bytes.len(),
            Self::Window(window) => window.len(),
        }
    }

    /// Copies the first `dst.len()` bytes.
    fn copy_to(&self, dst: &mut [u8]) {
        match self {
            Self::Slice(bytes) => {
                if let Some(bytes) = bytes.get(..dst.len()) {
                    dst.copy_from_slice(bytes);
                }
            }
            Self::Window(window) => {
                window.take(dst);
            }
        }
    }

    /// Writes the first `len` bytes to a memfd.
    fn pwrite(&self, fd: &OwnedFd, len: usize, at: u64) -> Result<usize, Errno> {
        match self {
            Self::Slice(bytes) => host::file::pwrite(fd, bytes.get(..len).unwrap_or(bytes), at),
            Self::Window(window) => window.until(len).pwrite(fd, at),
        }
    }
}

struct Content {
    data: Data,
    /// Pages counted against the instance's limit.
    pages: u64,
}

/// Content of a regular file.
pub(super) struct Regular {
    content: RwLock<Content>,
    seals: AtomicU32,
    pub(super) turns: WriteTurns,
    /// The memfd for mappings that may not become writable.
    pub(super) read_only: ReadOnlyFd,
}

impl Default for Regular {
    fn default() -> Self {
        Self {
            content: RwLock::new(Content {
                data: Data::Inline(Vec::new()),
                pages: 0,
            }),
            // Only memfds can be sealed.
            seals: AtomicU32::new(Seals::F_SEAL_SEAL.bits()),
            turns: WriteTurns::default(),
            read_only: ReadOnlyFd::default(),
        }
    }
}

impl Content {
    fn len(&self) -> u64 {
        match &self.data {
            Data::Inline(bytes) => bytes.len() as u64,
            Data::Memfd { len, .. } => *len,
        }
    }

    /// Moves the content to a memfd with `seals`, if it is not in one.
    fn memfd(&mut self, seals: u32) -> Result<Arc<OwnedFd>, Errno> {
        let bytes = match &self.data {
            Data::Memfd { fd, .. } => return Ok(fd.clone()),
            Data::Inline(bytes) => bytes,
        };
        let fd = host::file::memfd_create("tmpfs")?;
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            done += host::file::pwrite(&fd, rest, done as u64)?;
        }
        let applied = seals & !Seals::F_SEAL_SEAL.bits();
        if applied != 0 {
            host::file::add_seals(&fd, applied)?;
        }
        let fd = Arc::new(fd);
        self.data = Data::Memfd {
            fd: fd.clone(),
            len: done as u64,
            view: ViewId::new(),
        };
        Ok(fd)
    }

    /// Whether all pages up to the end are allocated.
    fn is_dense(&self) -> bool {
        self.pages >= self.len().div_ceil(PAGE)
    }

    /// Sets the count of allocated pages.
    fn recount(&mut self, shared: &Shared, pages: u64) {
        shared.recount(self.pages, pages);
        self.pages = pages;
    }

    /// Asks the host how much is allocated.
    fn recount_memfd(&mut self, shared: &Shared) {
        if let Data::Memfd { fd, .. } = &self.data
            && let Ok(size) = host::file::file_size(fd)
        {
            self.recount(shared, size.blocks / (PAGE / 512));
        }
    }

    /// How many bytes of a write at `offset` the instance has room for.
    fn room_for(&self, shared: &Shared, offset: u64, len: u64) -> u64 {
        let left = shared.pages_left();
        let end = offset.saturating_add(len);
        // Pages already there: in a dense file all up to its end, otherwise
        // none is sure.
        let dense_end = if self.is_dense() {
            self.len().next_multiple_of(PAGE)
        } else {
            0
        };
        let first_new = dense_end.max(offset / PAGE * PAGE);
        let room_end = first_new.saturating_add(left.saturating_mul(PAGE));
        end.min(room_end).saturating_sub(offset)
    }
}

impl Regular {
    pub fn charged(&mut self) -> u64 {
        self.content.get_mut().pages
    }

    /// Length in bytes and allocated 512-byte blocks.
    pub fn size(&self) -> (u64, u64) {
        let content = self.content.read();
        (content.len(), content.pages * (PAGE / 512))
    }

    pub fn seals(&self) -> u32 {
        self.seals.load(Ordering::Acquire)
    }

    fn is_sealed(&self, seals: Seals) -> bool {
        Seals::from_bits_retain(self.seals()).intersects(seals)
    }

    pub fn set_initial_seals(&self, seals: u32) {
        self.seals.store(seals, Ordering::Release);
    }

    pub fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        if Seals::from_bits(seals).is_none() {
            return Err(Errno::EINVAL);
        }
        let content = self.content.write();
        if self.is_sealed(Seals::F_SEAL_SEAL) {
            return Err(Errno::EPERM);
        }
        let applied = seals & !Seals::F_SEAL_SEAL.bits();
        if let Data::Memfd { fd, .. } = &content.data
            && applied != 0
        {
            // The host knows who has it mapped writable.
            host::file::add_seals(fd, applied)?;
        }
        self.seals.fetch_or(seals, Ordering::AcqRel);
        Ok(())
    }

    /// The memfd to map; content moves there.
    pub fn memfd(&self) -> Result<Arc<OwnedFd>, Errno> {
        if let Data::Memfd { fd, .. } = &self.content.read().data {
            return Ok(fd.clone());
        }
        self.content.write().memfd(self.seals())
    }

    /// What views are made of: not while it is small, not of one with holes,
    /// which looking at would fill, and not of a file that may be sealed, which
    /// a mapping would stand against.
    pub fn view_source(&self) -> Option<ViewSource> {
        let content = self.content.read();
        if !self.is_sealed(Seals::F_SEAL_SEAL) || !content.is_dense() {
            return None;
        }
        match &content.data {
            Data::Inline(_) => None,
            Data::Memfd { fd, len, view } => Some(ViewSource {
                fd: fd.clone(),
                id: *view,
                len_bytes: *len,
            }),
        }
    }

    pub fn view_id(&self) -> Option<ViewId> {
        match &self.content.read().data {
            Data::Inline(_) => None,
            Data::Memfd { view, .. } => Some(*view),
        }
    }

    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let content = self.content.read();
        match &content.data {
            Data::Inline(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = bytes.get(from..).unwrap_or_default();
                let count = rest.len().min(buf.len());
                if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
                    to.copy_from_slice(from);
                }
                Ok(count)
            }
            Data::Memfd { len, .. } if offset >= *len => Ok(0),
            Data::Memfd { fd, .. } => host::file::pread(fd, buf, offset),
        }
    }

    /// As [`Self::read_at`], into memory shared with the guest.
    pub fn read_window(&self, window: &Window<'_>, offset: u64) -> Result<usize, Errno> {
        let content = self.content.read();
        match &content.data {
            Data::Inline(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                Ok(window.put(bytes.get(from..).unwrap_or_default()))
            }
            Data::Memfd { len, .. } if offset >= *len => Ok(0),
            Data::Memfd { fd, .. } => window.pread(fd, offset, Wait::Allowed),
        }
    }

    pub fn write_at(
        &self,
        shared: &Shared,
        bytes: Bytes<'_>,
        offset: u64,
        append: bool,
    ) -> Result<(usize, u64), Errno> {
        if bytes.len() == 0 {
            return Ok((0, offset));
        }
        let mut content = self.content.write();
        let len = content.len();
        let offset = if append { len } else { offset };
        if self.is_sealed(Seals::F_SEAL_WRITE | Seals::F_SEAL_FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        if offset >= SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        let mut wanted = (bytes.len() as u64).min(SIZE_MAX - offset);
        if self.is_sealed(Seals::F_SEAL_GROW) {
            // A write that would grow the file ends at its end.
            wanted = wanted.min(len.saturating_sub(offset));
            if wanted == 0 {
                return Err(Errno::EPERM);
            }
        }
        wanted = content.room_for(shared, offset, wanted);
        if wanted == 0 {
            return Err(Errno::ENOSPC);
        }
        let count = usize::try_from(wanted)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let end = offset + count as u64;
        if end <= INLINE_MAX
            && let Data::Inline(inline) = &mut content.data
        {
            let (from, to) = (offset as usize, end as usize);
            if inline.len() < to {
                inline.resize(to, 0);
            }
            if let Some(place) = inline.get_mut(from..to) {
                bytes.copy_to(place);
            }
            let pages = content.len().div_ceil(PAGE);
            content.recount(shared, pages);
            return Ok((count, end));
        }
        let dense = content.is_dense() && offset <= len;
        let fd = content.memfd(self.seals())?;
        let count = bytes.pwrite(&fd, count, offset)?;
        let end = offset + count as u64;
        if let Data::Memfd { len, .. } = &mut content.data {
            *len = end.max(*len);
        }
        if dense {
            let pages = content.len().div_ceil(PAGE).max(content.pages);
            content.recount(shared, pages);
        } else {
            content.recount_memfd(shared);
        }
        Ok((count, end))
    }

    pub fn truncate(&self, shared: &Shared, size: u64) -> Result<(), Errno> {
        if size > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        let mut content = self.content.write();
        let len = content.len();
        if (size < len && self.is_sealed(Seals::F_SEAL_SHRINK))
            || (size > len && self.is_sealed(Seals::F_SEAL_GROW))
        {
            return Err(Errno::EPERM);
        }
        if size == len {
            return Ok(());
        }
        if let Data::Inline(bytes) = &mut content.data
            && size <= len.max(PAGE)
        {
            bytes.resize(size as usize, 0);
            bytes.shrink_to_fit();
            content.recount(shared, size.div_ceil(PAGE));
            return Ok(());
        }
        let fd = content.memfd(self.seals())?;
        host::file::ftruncate(&fd, size)?;
        if let Data::Memfd { len, .. } = &mut content.data {
            *len = size;
        }
        content.recount_memfd(shared);
        Ok(())
    }

    pub fn allocate(&self, shared: &Shared, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let mode = FallocFlags::from_bits_retain(mode);
        let punch = FallocFlags::FALLOC_FL_PUNCH_HOLE | FallocFlags::FALLOC_FL_KEEP_SIZE;
        if mode != punch && !FallocFlags::FALLOC_FL_KEEP_SIZE.contains(mode) {
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset.checked_add(len).filter(|&end| end <= SIZE_MAX);
        let end = end.ok_or(Errno::EFBIG)?;
        let mut content = self.content.write();
        if mode == punch {
            if self.is_sealed(Seals::F_SEAL_WRITE | Seals::F_SEAL_FUTURE_WRITE) {
                return Err(Errno::EPERM);
            }
        } else {
            let grows = mode.is_empty() && end > content.len();
            if grows && self.is_sealed(Seals::F_SEAL_GROW) {
                return Err(Errno::EPERM);
            }
            if content.room_for(shared, offset, len) < len {
                return Err(Errno::ENOSPC);
            }
        }
        let fd = content.memfd(self.seals())?;
        host::file::fallocate(&fd, mode.bits(), offset, len)?;
        if mode.is_empty()
            && let Data::Memfd { len, .. } = &mut content.data
        {
            *len = end.max(*len);
        }
        content.recount_memfd(shared);
        Ok(())
    }

    pub fn seek_sparse(&self, offset: u64, data: bool) -> Result<u64, Errno> {
        let content = self.content.read();
        if offset >= content.len() {
            return Err(Errno::ENXIO);
        }
        match &content.data {
            Data::Inline(bytes) => Ok(if data { offset } else { bytes.len() as u64 }),
            Data::Memfd { fd, .. } => host::file::seek_sparse(fd, offset, data),
        }
    }
}
