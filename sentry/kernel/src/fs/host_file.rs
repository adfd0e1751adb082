//! Files that the sentry was started with: the container's stdin, stdout and
//! stderr where they are not a terminal of the sandbox.
//!
//! Pipes and sockets are never switched to non-blocking mode, since others on
//! the host share their description; readiness is asked for before each call.

use std::fs::File as HostHandle;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sentry_platform::executor::{blocking, host_poll};
use sentry_platform::host::io::fstat;
use syscall_tables::Errno;
use syscall_tables::abi::Timespec;

use crate::sync::{Events, WaitQueue};
use crate::task::{Gid, Uid};
use crate::vfs::{
    Attr, File, FileKind, FileOps, Inode, OpenMode, OpenRequest, SetAttr, StatusFlags, Timestamp,
    VfsPath,
};

/// A host descriptor given to the container.
pub struct HostFile {
    handle: HostHandle,
    kind: FileKind,
    queue: WaitQueue,
    /// `None` for files that are always ready.
    watch: Option<host_poll::Watch>,
}

impl HostFile {
    /// Takes over `fd`; readable and writable as the guest is told.
    pub fn open(fd: OwnedFd, mode: OpenMode) -> Result<Arc<File>, Errno> {
        let handle = HostHandle::from(fd);
        let ino = fstat(&handle)?.st_ino;
        let host_file = Self::new(handle)?;
        let name = match host_file.kind {
            FileKind::Fifo => "pipe",
            FileKind::Socket => "socket",
            _ => "host",
        };
        let inode = Arc::new(HostInode(Arc::new(host_file)));
        let ops = inode.0.clone();
        let path = VfsPath::anonymous(inode, format!("{name}:[{ino}]"));
        Ok(File::new(ops, path, mode, StatusFlags::empty()))
    }

    fn new(handle: HostHandle) -> Result<Self, Errno> {
        let kind = match FileKind::from_mode(fstat(&handle)?.st_mode) {
            // Directories and block devices give a guest more than bytes.
            None | Some(FileKind::Directory | FileKind::BlockDevice | FileKind::Symlink) => {
                return Err(Errno::EINVAL);
            }
            Some(kind) => kind,
        };
        let queue = WaitQueue::new();
        let notified = queue.clone();
        let interest = host_poll::Readiness::READ | host_poll::Readiness::WRITE;
        let watch = host_poll::Watch::new(handle.as_fd(), interest, move |ready| {
            notified.notify(events(ready));
        });
        let watch = match watch {
            Ok(watch) => Some(watch),
            Err(Errno::EPERM) => None,
            Err(err) => return Err(err),
        };
        Ok(Self {
            handle,
            kind,
            queue,
            watch,
        })
    }

    fn readiness(&self, interest: host_poll::Readiness) -> Events {
        if self.watch.is_none() {
            return Events::READABLE | Events::WRITABLE;
        }
        host_poll::poll_now(self.handle.as_fd(), interest).map_or(Events::ERR, events)
    }

    fn wait_for(&self, interest: host_poll::Readiness) -> Result<(), Errno> {
        if self.readiness(interest).is_empty() {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }
}

fn events(ready: host_poll::Readiness) -> Events {
    let mut events = Events::from_bits_truncate(ready.bits());
    if events.contains(Events::IN) {
        events |= Events::RDNORM;
    }
    if events.contains(Events::OUT) {
        events |= Events::WRNORM;
    }
    events
}

/// The most that is written to a pipe or socket at once: what `POLLOUT`
/// promises to take without blocking.
const ATOMIC_WRITE: usize = 4096;

impl FileOps for HostFile {
    fn takes_nowait(&self, _mode: OpenMode) -> bool {
        true
    }

    fn read(&self, _file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        self.wait_for(host_poll::Readiness::READ)?;
        Ok(blocking(|| (&self.handle).read(buf))?)
    }

    fn write(&self, _file: &File, buf: &[u8]) -> Result<usize, Errno> {
        self.wait_for(host_poll::Readiness::WRITE)?;
        let len = match self.kind {
            FileKind::Regular => buf.len(),
            _ => buf.len().min(ATOMIC_WRITE),
        };
        let bytes = buf.get(..len).unwrap_or(buf);
        Ok(blocking(|| (&self.handle).write(bytes))?)
    }

    fn read_at(&self, _file: &File, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        if !self.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        Ok(blocking(|| self.handle.read_at(buf, offset))?)
    }

    fn write_at(
        &self,
        _file: &File,
        buf: &[u8],
        offset: u64,
        append: bool,
    ) -> Result<(usize, u64), Errno> {
        if !self.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        if append {
            let written = blocking(|| (&self.handle).write(buf))?;
            let end = (&self.handle).stream_position()?;
            return Ok((written, end));
        }
        let written = blocking(|| self.handle.write_at(buf, offset))?;
        Ok((written, offset.saturating_add(written as u64)))
    }

    fn is_seekable(&self) -> bool {
        self.kind == FileKind::Regular
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        if !self.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        u64::try_from(fstat(&self.handle)?.st_size).map_err(|_| Errno::EIO)
    }

    /// The description is shared: `(first; runsc …; last) > file`.
    fn seek_outside(&self, target: Option<u64>) -> Option<Result<u64, Errno>> {
        if !self.is_seekable() {
            return None;
        }
        let to = target.map_or(SeekFrom::Current(0), SeekFrom::Start);
        Some((&self.handle).seek(to).map_err(Errno::from))
    }

    fn poll(&self, _file: &File) -> Events {
        self.readiness(host_poll::Readiness::READ | host_poll::Readiness::WRITE)
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn truncate(&self, _file: &File, size_bytes: u64) -> Result<(), Errno> {
        Ok(self.handle.set_len(size_bytes)?)
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        blocking(|| {
            if data_only {
                self.handle.sync_data()
            } else {
                self.handle.sync_all()
            }
        })?;
        Ok(())
    }
}

struct HostInode(Arc<HostFile>);

impl Inode for HostInode {
    fn kind(&self) -> FileKind {
        self.0.kind
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let host = fstat(&self.0.handle)?;
        let time = |time: Timespec| Timestamp {
            secs: time.tv_sec,
            nanos: u32::try_from(time.tv_nsec).unwrap_or(0),
        };
        Ok(Attr {
            kind: self.0.kind,
            perm: host.st_mode & 0o7777,
            dev: host.st_dev,
            ino: host.st_ino,
            nlink: host.st_nlink,
            uid: Uid::ROOT,
            gid: Gid::ROOT,
            size_bytes: u64::try_from(host.st_size).unwrap_or(0),
            blocks: u64::try_from(host.st_blocks).unwrap_or(0),
            block_size: 4096,
            rdev: host.st_rdev,
            atime: time(host.st_atime),
            mtime: time(host.st_mtime),
            ctime: time(host.st_ctime),
            btime: None,
        })
    }

    /// Attributes of host files given to the container are not its to change.
    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        match changes.size_bytes {
            Some(size) if self.0.is_seekable() => Ok(self.0.handle.set_len(size)?),
            Some(_) => Err(Errno::EINVAL),
            None => Err(Errno::EPERM),
        }
    }

    /// `/proc/self/fd/1` and with it `/dev/stdout`.
    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(self.0.clone())
    }
}
