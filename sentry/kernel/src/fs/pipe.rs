//! Pipes and FIFOs (`pipe(7)`).
//!
//! Locks: a pipe's state is a leaf below the wait queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sentry_platform::BoxFuture;
use syscall_tables::Errno;

use crate::ctx::{Ctx, SysResult};
use crate::fs::anon::Attributes;
use crate::sync::{Events, WaitQueue};
use crate::task::Creds;
use crate::user::UserPtr;
use crate::vfs::{
    Attr, File, FileKind, FileOps, Inode, OpenMode, OpenRequest, SetAttr, StatusFlags, VfsPath,
};

/// Writes of up to this many bytes are not interleaved with others.
pub const PIPE_BUF: usize = 4096;
/// Capacity of a new pipe in bytes.
pub const DEFAULT_CAPACITY: usize = 65_536;
/// Largest capacity without `CAP_SYS_RESOURCE`
/// (`/proc/sys/fs/pipe-max-size`).
pub const MAX_CAPACITY: usize = 1 << 20;
/// `FIONREAD`.
const FIONREAD: u32 = 0x541b;

struct State {
    bytes: VecDeque<u8>,
    /// Lengths of packets not read yet, in packet mode (`O_DIRECT`); bytes
    /// written in stream mode count as none.
    packets: VecDeque<usize>,
    capacity: usize,
    readers: usize,
    writers: usize,
    /// How often an end has been opened, for FIFO opens that wait for their
    /// peer.
    reader_opens: u64,
    writer_opens: u64,
    attributes: Attributes,
}

/// A pipe: bytes in flight between its two ends.
pub struct Pipe {
    state: Mutex<State>,
    queue: WaitQueue,
    ino: u64,
}

static NEXT_INO: AtomicU64 = AtomicU64::new(1);

impl Pipe {
    /// An empty pipe without ends.
    pub fn new(creds: &Creds) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                bytes: VecDeque::new(),
                packets: VecDeque::new(),
                capacity: DEFAULT_CAPACITY,
                readers: 0,
                writers: 0,
                reader_opens: 0,
                writer_opens: 0,
                attributes: Attributes::new(0o600, creds.fsuid, creds.fsgid),
            }),
            queue: WaitQueue::new(),
            ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Read and write end of a new pipe, as `pipe2(2)` makes them.
    pub fn pair(creds: &Creds, status: StatusFlags) -> (Arc<File>, Arc<File>) {
        let pipe = Self::new(creds);
        let path = VfsPath::anonymous(
            Arc::new(PipeInode(pipe.clone())),
            format!("pipe:[{}]", pipe.ino),
        );
        let reader = File::new(
            pipe.open(OpenMode::READ),
            path.clone(),
            OpenMode::READ,
            status,
        );
        let writer = File::new(pipe.open(OpenMode::WRITE), path, OpenMode::WRITE, status);
        (reader, writer)
    }

    /// Adds an end; it is counted until its file is released.
    pub fn open(self: &Arc<Self>, mode: OpenMode) -> Arc<PipeEnd> {
        let mut state = self.state.lock();
        if mode.contains(OpenMode::READ) {
            state.readers += 1;
            state.reader_opens += 1;
        }
        if mode.contains(OpenMode::WRITE) {
            state.writers += 1;
            state.writer_opens += 1;
        }
        drop(state);
        // Openers of the other end wait for this.
        self.queue.notify(Events::READABLE | Events::WRITABLE);
        Arc::new(PipeEnd {
            pipe: self.clone(),
            mode,
        })
    }

    /// Where openers, readers and writers wait.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// How many readers and writers there are.
    pub fn ends(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.readers, state.writers)
    }

    /// How often it has been opened for reading and for writing: a FIFO open
    /// that waits is done once the other count has changed.
    pub fn opens(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.reader_opens, state.writer_opens)
    }

    /// Bytes that can be read now.
    pub fn available(&self) -> usize {
        self.state.lock().bytes.len()
    }

    /// Bytes that can be written now.
    pub fn room(&self) -> usize {
        let state = self.state.lock();
        state.capacity.saturating_sub(state.bytes.len())
    }

    /// Whether `other` is the same pipe.
    pub fn is(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other)
    }

    /// Takes bytes; `EAGAIN` if there are none but there may be, 0 at the end.
    pub fn read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut state = self.state.lock();
        if state.bytes.is_empty() {
            return if state.writers == 0 {
                Ok(0)
            } else {
                Err(Errno::EAGAIN)
            };
        }
        let packet = state.packets.pop_front();
        let limit = packet.unwrap_or(usize::MAX);
        let len = buf.len().min(state.bytes.len()).min(limit);
        copy_front(&state.bytes, buf.get_mut(..len).unwrap_or_default());
        // What a short read leaves of a packet is discarded.
        let consumed = packet.map_or(len, |packet| packet.min(state.bytes.len()));
        state.bytes.drain(..consumed);
        let was_full = state.bytes.len() + consumed + PIPE_BUF > state.capacity;
        drop(state);
        if was_full {
            self.queue.notify(Events::WRITABLE);
        }
        Ok(len)
    }

    /// Copies bytes without taking them (`tee(2)`), from `skip` on.
    pub fn peek(&self, skip: usize, buf: &mut [u8]) -> usize {
        let state = self.state.lock();
        let available = state.bytes.len().saturating_sub(skip);
        let len = buf.len().min(available);
        for (to, from) in buf.iter_mut().zip(state.bytes.iter().skip(skip)).take(len) {
            *to = *from;
        }
        len
    }

    /// Puts bytes back that could not be stored to the reader.
    pub fn unread(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        for byte in bytes.iter().rev() {
            state.bytes.push_front(*byte);
        }
    }

    /// Adds bytes: all of them if they are at most [`PIPE_BUF`], else as many
    /// as fit; `EAGAIN` if none fit, `EPIPE` without readers.
    pub fn write(&self, buf: &[u8], packets: bool) -> Result<usize, Errno> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut state = self.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let room = state.capacity.saturating_sub(state.bytes.len());
        let atomic = buf.len() <= PIPE_BUF;
        if room == 0 || (atomic && room < buf.len()) {
            return Err(Errno::EAGAIN);
        }
        let mut len = buf.len().min(room);
        if packets {
            len = len.min(PIPE_BUF);
            state.packets.push_back(len);
        }
        state.bytes.extend(buf.get(..len).unwrap_or_default());
        drop(state);
        self.queue.notify(Events::READABLE);
        Ok(len)
    }

    fn poll(&self, mode: OpenMode) -> Events {
        let state = self.state.lock();
        let mut events = Events::empty();
        if mode.contains(OpenMode::READ) {
            if !state.bytes.is_empty() {
                events |= Events::READABLE;
            }
            if state.writers == 0 && state.writer_opens > 0 {
                events |= Events::HUP;
            }
        }
        if mode.contains(OpenMode::WRITE) {
            if state.capacity.saturating_sub(state.bytes.len()) >= PIPE_BUF {
                events |= Events::WRITABLE;
            }
            if state.readers == 0 {
                events |= Events::ERR;
            }
        }
        events
    }

    /// Capacity in bytes (`F_GETPIPE_SZ`).
    pub fn capacity(&self) -> usize {
        self.state.lock().capacity
    }

    /// Changes the capacity to at least `wanted` (`F_SETPIPE_SZ`), answering
    /// what it became.
    pub fn set_capacity(&self, wanted: usize, privileged: bool) -> Result<usize, Errno> {
        if wanted > MAX_CAPACITY && !privileged {
            return Err(Errno::EPERM);
        }
        let capacity = wanted
            .max(PIPE_BUF)
            .checked_next_power_of_two()
            .filter(|&capacity| capacity <= 1 << 30)
            .ok_or(Errno::EINVAL)?;
        let mut state = self.state.lock();
        if state.bytes.len() > capacity {
            return Err(Errno::EBUSY);
        }
        state.capacity = capacity;
        drop(state);
        self.queue.notify(Events::WRITABLE);
        Ok(capacity)
    }

    fn close(&self, mode: OpenMode) {
        let mut state = self.state.lock();
        if mode.contains(OpenMode::READ) {
            state.readers = state.readers.saturating_sub(1);
        }
        if mode.contains(OpenMode::WRITE) {
            state.writers = state.writers.saturating_sub(1);
        }
        // A FIFO that nobody has open forgets its bytes.
        if state.readers == 0 && state.writers == 0 {
            state.bytes = VecDeque::new();
            state.packets = VecDeque::new();
        }
        drop(state);
        self.queue
            .notify(Events::READABLE | Events::WRITABLE | Events::HUP | Events::ERR);
    }
}

/// Copies the first bytes of a ring.
fn copy_front(from: &VecDeque<u8>, to: &mut [u8]) {
    let (first, second) = from.as_slices();
    let split = first.len().min(to.len());
    let (head, tail) = to.split_at_mut(split);
    head.copy_from_slice(first.get(..split).unwrap_or_default());
    let rest = tail.len();
    tail.copy_from_slice(second.get(..rest).unwrap_or_default());
}

/// An open end (or, of a FIFO opened for both, both ends).
pub struct PipeEnd {
    pub pipe: Arc<Pipe>,
    mode: OpenMode,
}

impl FileOps for PipeEnd {
    fn takes_nowait(&self, _mode: OpenMode) -> bool {
        true
    }

    fn read(&self, _file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        self.pipe.read(buf)
    }

    fn write(&self, file: &File, buf: &[u8]) -> Result<usize, Errno> {
        let packets = file.status().contains(StatusFlags::DIRECT);
        self.pipe.write(buf, packets)
    }

    fn unread(&self, _file: &File, bytes: &[u8]) {
        self.pipe.unread(bytes);
    }

    fn poll(&self, _file: &File) -> Events {
        self.pipe.poll(self.mode)
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn ioctl<'a>(
        &'a self,
        ctx: &'a mut Ctx<'_>,
        _file: &'a File,
        command: u32,
        arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async move {
            match command {
                FIONREAD => {
                    let available = i32::try_from(self.pipe.available()).unwrap_or(i32::MAX);
                    ctx.write(UserPtr::new(arg), &available).await?;
                    Ok(0)
                }
                _ => Err(Errno::ENOTTY),
            }
        })
    }

    fn release(&self, _file: &File) {
        self.pipe.close(self.mode);
    }
}

/// The inode of an unnamed pipe.
struct PipeInode(Arc<Pipe>);

impl Inode for PipeInode {
    fn kind(&self) -> FileKind {
        FileKind::Fifo
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let attributes = &self.0.state.lock().attributes;
        Ok(attributes.attr(FileKind::Fifo, crate::fs::PIPEFS_DEV, self.0.ino))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        self.0.state.lock().attributes.change(changes)
    }

    /// `/proc/self/fd/N` of a pipe opens a further end.
    fn open(self: Arc<Self>, request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        let mut mode = OpenMode::empty();
        mode.set(OpenMode::READ, request.read);
        mode.set(OpenMode::WRITE, request.write);
        Ok(self.0.open(mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (Arc<Pipe>, Arc<PipeEnd>, Arc<PipeEnd>) {
        let pipe = Pipe::new(&Creds::root());
        let reader = pipe.open(OpenMode::READ);
        let writer = pipe.open(OpenMode::WRITE);
        (pipe, reader, writer)
    }

    #[test]
    fn end_of_file_and_broken_pipe() {
        let (pipe, ..) = pipe();
        let mut buf = [0; 8];
        assert_eq!(pipe.read(&mut buf), Err(Errno::EAGAIN));
        assert_eq!(pipe.write(b"abc", false), Ok(3));
        pipe.close(OpenMode::WRITE);
        assert_eq!(pipe.read(&mut buf), Ok(3));
        assert_eq!(pipe.read(&mut buf), Ok(0));
        pipe.close(OpenMode::READ);
        assert_eq!(pipe.write(b"x", false), Err(Errno::EPIPE));
    }

    #[test]
    fn small_writes_are_atomic_and_large_ones_partial() {
        let (pipe, ..) = pipe();
        assert_eq!(pipe.write(&vec![1; 65_000], false), Ok(65_000));
        assert_eq!(pipe.write(&[2; 600], false), Err(Errno::EAGAIN));
        assert_eq!(pipe.write(&[3; 536], false), Ok(536));
        assert_eq!(pipe.write(&[4; 5000], false), Err(Errno::EAGAIN));
        let mut buf = vec![0; 1000];
        assert_eq!(pipe.read(&mut buf), Ok(1000));
        assert_eq!(pipe.write(&[5; 5000], false), Ok(1000));
    }

    #[test]
    fn packets_keep_their_bounds() {
        let (pipe, ..) = pipe();
        assert_eq!(pipe.write(b"first", true), Ok(5));
        assert_eq!(pipe.write(b"second", true), Ok(6));
        let mut buf = [0; 3];
        assert_eq!(pipe.read(&mut buf), Ok(3));
        let mut buf = [0; 16];
        assert_eq!(pipe.read(&mut buf), Ok(6));
        assert_eq!(&buf[..6], b"second");
    }
}
