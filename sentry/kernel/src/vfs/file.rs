//! Open files.
//!
//! Locks: `File::position` is taken before any lock of a [`FileOps`].

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bitflags::bitflags;
use parking_lot::Mutex;
use sentry_platform::{BoxFuture, ViewId, Window};
use syscall_tables::Errno;

use super::async_io::AsyncIo;
use super::claims::Claim;
use super::locks::{InodeKey, LockManager, LockOwner};
use super::notify::{Mask, Watches};
use super::{Attr, DirEntry, MountFlags, Timestamp, VfsPath};
use crate::ctx::{Ctx, SysResult};
use crate::sync::{Events, WaitQueue, WriteTurns};
use crate::task::Task;

bitflags! {
    /// Status flags of an open file description, bits of `open(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct StatusFlags: u32 {
        const APPEND = 0o2000;
        const NONBLOCK = 0o4000;
        const DSYNC = 0o10000;
        const ASYNC = 0o20000;
        const DIRECT = 0o40000;
        const LARGEFILE = 0o100000;
        const NOATIME = 0o1000000;
        const SYNC = 0o4010000;
        const PATH = 0o10000000;
        const DIRECTORY = 0o200000;
        const NOFOLLOW = 0o400000;
        const TMPFILE = 0o20000000;
    }

    /// Access a description was opened for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct OpenMode: u8 {
        const READ = 1;
        const WRITE = 2;
    }
}

/// A descriptor of an object without the right to write, made when it is
/// first needed; see `mm::read_only`.
pub type ReadOnlyFd = Arc<OnceLock<Arc<OwnedFd>>>;

/// What backs a mapping of a file.
#[derive(Clone)]
pub enum MapSource {
    /// A host file or memfd mapped at the given offsets. `object` identifies
    /// the mapped object for shared futex keys: unique while mapped.
    Host {
        fd: Arc<OwnedFd>,
        object: u64,
        read_only: ReadOnlyFd,
    },
    /// Private zero pages (`/dev/zero` mapped privately).
    Zero,
}

/// A file that guests may have views of.
pub struct ViewSource {
    pub fd: Arc<OwnedFd>,
    pub id: ViewId,
    /// Where it ends.
    pub len_bytes: u64,
}

/// What an open file does. All calls are made with access mode checked.
///
/// `read*`/`write*` never wait: where they would, they answer `EAGAIN`, and
/// [`FileOps::wait_queue`] tells when to try again. A short count is fine.
pub trait FileOps: Any + Send + Sync {
    /// Reads at `offset`; 0 at the end of the file. Streams answer `ESPIPE`.
    fn read_at(&self, _file: &File, _buf: &mut [u8], _offset: u64) -> Result<usize, Errno> {
        Err(Errno::ESPIPE)
    }

    /// Writes at `offset` (with `append` set: at the end, whatever `offset`
    /// says), answering the bytes written and the position behind them.
    fn write_at(
        &self,
        _file: &File,
        _buf: &[u8],
        _offset: u64,
        _append: bool,
    ) -> Result<(usize, u64), Errno> {
        Err(Errno::ESPIPE)
    }

    /// What views of this file are made of, if there can be any. Called for a
    /// read, which it takes note of.
    fn view_source(&self, _file: &File) -> Option<ViewSource> {
        None
    }

    /// Which views a guest may have of this file.
    fn view_id(&self) -> Option<ViewId> {
        None
    }

    /// Turns of those who write; `None` where each piece of a write may be
    /// among those of others.
    fn write_turns(&self) -> Option<&WriteTurns> {
        None
    }

    /// Whether [`FileOps::read_window`] and [`FileOps::write_window`] work.
    fn has_windows(&self) -> bool {
        false
    }

    /// As [`FileOps::read_at`], into memory shared with the guest.
    fn read_window(
        &self,
        _file: &File,
        _window: &Window<'_>,
        _offset: u64,
    ) -> Result<usize, Errno> {
        Err(Errno::EAGAIN)
    }

    /// As [`FileOps::write_at`] without appending, from memory shared with the
    /// guest.
    fn write_window(
        &self,
        _file: &File,
        _window: &Window<'_>,
        _offset: u64,
    ) -> Result<usize, Errno> {
        Err(Errno::EAGAIN)
    }

    /// `read(2)`: the default reads at the file position and advances it.
    fn read(&self, file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut position = file.position.lock();
        let count = self.read_at(file, buf, *position)?;
        *position = position.saturating_add(count as u64);
        Ok(count)
    }

    /// `write(2)`: the default writes at the file position and advances it.
    fn write(&self, file: &File, buf: &[u8]) -> Result<usize, Errno> {
        let mut position = file.position.lock();
        let append = file.status().contains(StatusFlags::APPEND);
        let (count, end) = self.write_at(file, buf, *position, append)?;
        *position = end;
        Ok(count)
    }

    /// [`FileOps::read`] for files to which it matters who reads (terminals,
    /// signalfd).
    fn read_as(&self, _reader: &Arc<Task>, file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        self.read(file, buf)
    }

    /// [`FileOps::write`] for files to which it matters who writes.
    fn write_as(&self, _writer: &Arc<Task>, file: &File, buf: &[u8]) -> Result<usize, Errno> {
        self.write(file, buf)
    }

    /// Whether the file's content is or comes from guest memory, so that
    /// [`FileOps::read_memory`] and [`FileOps::write_memory`] stand for the
    /// other reads and writes.
    fn is_guest_memory(&self) -> bool {
        false
    }

    /// Reads at `offset`, or at the file position and advances it.
    fn read_memory<'a>(
        &'a self,
        _reader: &'a Arc<Task>,
        _file: &'a File,
        _buf: &'a mut [u8],
        _offset: Option<u64>,
    ) -> BoxFuture<'a, Result<usize, Errno>> {
        Box::pin(async { Err(Errno::EIO) })
    }

    /// Writes at `offset`, or at the file position and advances it.
    fn write_memory<'a>(
        &'a self,
        _writer: &'a Arc<Task>,
        _file: &'a File,
        _buf: &'a [u8],
        _offset: Option<u64>,
    ) -> BoxFuture<'a, Result<usize, Errno>> {
        Box::pin(async { Err(Errno::EIO) })
    }

    /// Gives back bytes that `read` took but that could not be stored to the
    /// guest; only streams need it.
    fn unread(&self, _file: &File, _bytes: &[u8]) {}

    /// How long `read` (or `write`) waits, where the file has a limit of its
    /// own (`SO_RCVTIMEO`, `SO_SNDTIMEO`); the wait then ends in `EAGAIN`.
    fn io_timeout(&self, _mode: OpenMode) -> Option<Duration> {
        None
    }

    /// Whether a read (or write) may be told not to wait by `RWF_NOWAIT`,
    /// which Linux refuses for most kinds of files.
    fn takes_nowait(&self, _mode: OpenMode) -> bool {
        false
    }

    /// Whether the file has a position (`lseek`, `pread`).
    fn is_seekable(&self) -> bool {
        false
    }

    /// Whether `lseek` answers 0 whatever is asked (`/dev/null`,
    /// event files).
    fn stays_at_start(&self) -> bool {
        false
    }

    /// For files whose position is shared with processes outside the sandbox:
    /// moves it to `target`, if given, and answers where it is then.
    /// `None`: the position is [`File::position`].
    fn seek_outside(&self, _target: Option<u64>) -> Option<Result<u64, Errno>> {
        None
    }

    /// End of the file for `SEEK_END`.
    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Err(Errno::ESPIPE)
    }

    /// `SEEK_DATA` (`data` true) and `SEEK_HOLE` from `offset`.
    fn seek_sparse(&self, file: &File, offset: u64, data: bool) -> Result<u64, Errno> {
        let end = self.end_position(file)?;
        if offset >= end {
            return Err(Errno::ENXIO);
        }
        Ok(if data { offset } else { end })
    }

    /// Lists a directory from position `offset` (0 = start; others as
    /// [`DirEntry::next_offset`] gave them) until `emit` answers `false`,
    /// `.` and `..` included.
    fn read_dir(
        &self,
        _file: &File,
        _offset: u64,
        _emit: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Current readiness.
    fn poll(&self, _file: &File) -> Events {
        Events::READABLE | Events::WRITABLE
    }

    /// Where to wait for readiness; `None` for files that are always ready.
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// `ioctl(2)` of this kind of file; generic ones (`FIONBIO`, `FIOCLEX`)
    /// are done before.
    fn ioctl<'a>(
        &'a self,
        _ctx: &'a mut Ctx<'_>,
        _file: &'a File,
        _command: u32,
        _arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async { Err(Errno::ENOTTY) })
    }

    /// What a mapping of this file maps; shared and writable checks are done.
    fn map(&self, _file: &File) -> Result<MapSource, Errno> {
        Err(Errno::ENODEV)
    }

    /// Attributes where they differ from the inode's (anonymous files).
    fn attr(&self, _file: &File) -> Option<Result<Attr, Errno>> {
        None
    }

    fn truncate(&self, _file: &File, _size_bytes: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// `fallocate(2)` with raw mode bits.
    fn allocate(&self, _file: &File, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// `fsync(2)` and `fdatasync(2)`.
    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// Called by `close(2)` of each descriptor.
    fn flush(&self, _file: &File) -> Result<(), Errno> {
        Ok(())
    }

    /// Called once when the last reference to the description is gone.
    fn release(&self, _file: &File) {}

    /// Status flags were changed by `fcntl(F_SETFL)` or `FIONBIO`.
    fn status_changed(&self, _file: &File) {}

    /// The socket behind this file, for the socket calls.
    fn as_socket(&self) -> Option<&dyn crate::net::Socket> {
        None
    }

    /// Extra lines of `/proc/PID/fdinfo/N`.
    fn fdinfo(&self, _file: &File) -> String {
        String::new()
    }
}

/// An open file description, shared by all descriptors that `dup` or `fork`
/// made of it.
pub struct File {
    pub ops: Arc<dyn FileOps>,
    /// Where it was found; anonymous files have a path on their pseudo file
    /// system.
    pub path: VfsPath,
    pub mode: OpenMode,
    status: AtomicU32,
    pub position: Mutex<u64>,
    /// `O_ASYNC` state.
    pub async_io: Mutex<AsyncIo>,
    /// Where this description has held locks.
    locks: OnceLock<Arc<LockManager>>,
    /// Kept as long as the description.
    claim: OnceLock<Claim>,
    /// Who is told when the description is closed.
    watches: OnceLock<Arc<Watches>>,
}

/// Who gets `SIGIO` of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOwner {
    /// `F_OWNER_TID`, `_PID`, `_PGRP`.
    pub kind: i32,
    pub id: i32,
    /// 0: `SIGIO`.
    pub signal: i32,
}

impl File {
    pub fn new(
        ops: Arc<dyn FileOps>,
        path: VfsPath,
        mode: OpenMode,
        status: StatusFlags,
    ) -> Arc<Self> {
        Arc::new(Self {
            ops,
            path,
            mode,
            status: AtomicU32::new(status.bits()),
            position: Mutex::new(0),
            async_io: Mutex::default(),
            locks: OnceLock::new(),
            claim: OnceLock::new(),
            watches: OnceLock::new(),
        })
    }

    pub fn status(&self) -> StatusFlags {
        StatusFlags::from_bits_truncate(self.status.load(Ordering::Relaxed))
    }

    pub fn set_status(&self, status: StatusFlags) {
        self.status.store(status.bits(), Ordering::Relaxed);
        self.ops.status_changed(self);
    }

    pub fn is_nonblocking(&self) -> bool {
        self.status().contains(StatusFlags::NONBLOCK)
    }

    /// The operations as type `T`, for calls that work on one kind of file.
    pub fn downcast<T: FileOps>(&self) -> Option<&T> {
        let ops: &dyn Any = self.ops.as_ref();
        ops.downcast_ref()
    }

    /// What file locks know its inode by.
    pub fn lock_key(&self) -> Result<InodeKey, Errno> {
        let attr = self.attr()?;
        Ok((attr.dev, attr.ino))
    }

    /// Tells those who watch that it was opened, and later that it was closed.
    pub fn report_to(&self, watches: &Arc<Watches>) {
        let _ = self.watches.set(watches.clone());
        watches.happened(&self.path, Mask::OPEN);
    }

    /// Keeps what opening it claimed about the inode.
    pub fn hold(&self, claim: Claim) {
        let _ = self.claim.set(claim);
    }

    /// Lets locks owned by this description end with it.
    pub fn note_locks(&self, manager: &Arc<LockManager>) {
        let _ = self.locks.set(manager.clone());
    }

    /// Whether a read through this file is to set the access time, given the
    /// present times (`relatime` unless the mount says otherwise).
    pub fn updates_atime(&self, atime: Timestamp, mtime: Timestamp, ctime: Timestamp) -> bool {
        let flags = self.path.mount.flags();
        if self.status().contains(StatusFlags::NOATIME)
            || flags.contains(MountFlags::NOATIME)
            || self.path.mount.is_readonly()
        {
            return false;
        }
        const DAY_SECS: i64 = 24 * 3600;
        flags.contains(MountFlags::STRICTATIME)
            || atime <= mtime
            || atime <= ctime
            || atime.secs.saturating_add(DAY_SECS) <= Timestamp::now().secs
    }

    /// Attributes as `fstat(2)` shows them.
    pub fn attr(&self) -> Result<Attr, Errno> {
        match self.ops.attr(self) {
            Some(attr) => attr,
            None => self.path.inode()?.attr(),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(locks) = self.locks.get() {
            locks.release_owner(LockOwner::of_file(self));
        }
        if let Some(watches) = self.watches.get() {
            watches.happened(
                &self.path,
                if self.mode.contains(OpenMode::WRITE) {
                    Mask::CLOSE_WRITE
                } else {
                    Mask::CLOSE_NOWRITE
                },
            );
        }
        // `release` takes the description by reference: it is still whole.
        let ops = self.ops.clone();
        ops.release(self);
    }
}
