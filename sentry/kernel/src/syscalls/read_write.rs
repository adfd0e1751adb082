//! `read`, `write` and their vector, positioned and flagged forms, `lseek`.

use std::sync::Arc;
use std::time::Instant;

use smallvec::{SmallVec, smallvec};
use syscall_tables::Errno;
use syscall_tables::abi::{
    IOV_MAX, Iovec, MAX_RW_COUNT, RLIM_INFINITY, RLIMIT_FSIZE, RwfFlags, SEEK_CUR, SEEK_DATA,
    SEEK_END, SEEK_HOLE, SEEK_SET, SigInfo, Signal,
};

use super::transfer;
use crate::ctx::{Ctx, SysResult};
use crate::signal::Origin;
use crate::sync::Events;
use crate::task::{CapSet, Creds};
use crate::user::{Args, UserPtr};
use crate::vfs::notify::Mask;
use crate::vfs::perm;
use crate::vfs::{Attr, Fd, File, FileKind, OpenMode, SetAttr, StatusFlags};

pub async fn read(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = readable(ctx, args.i32(0))?;
    let mut memory = GuestVectors::one(args.raw(1), args.raw(2))?;
    read_file(ctx, &file, &mut memory, None, RwfFlags::empty()).await
}

pub async fn write(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = writable(ctx, args.i32(0))?;
    let mut memory = GuestVectors::one(args.raw(1), args.raw(2))?;
    write_file(ctx, &file, &mut memory, None, RwfFlags::empty()).await
}

pub async fn pread64(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let offset = offset(args.i64(3))?;
    let file = positioned(ctx, args.i32(0), OpenMode::READ)?;
    let mut memory = GuestVectors::one(args.raw(1), args.raw(2))?;
    read_file(ctx, &file, &mut memory, Some(offset), RwfFlags::empty()).await
}

pub async fn pwrite64(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let offset = offset(args.i64(3))?;
    let file = positioned(ctx, args.i32(0), OpenMode::WRITE)?;
    let mut memory = GuestVectors::one(args.raw(1), args.raw(2))?;
    write_file(ctx, &file, &mut memory, Some(offset), RwfFlags::empty()).await
}

pub async fn readv(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = readable(ctx, args.i32(0))?;
    let mut memory = GuestVectors::import(ctx, args.raw(1), args.raw(2)).await?;
    read_file(ctx, &file, &mut memory, None, RwfFlags::empty()).await
}

pub async fn writev(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = writable(ctx, args.i32(0))?;
    let mut memory = GuestVectors::import(ctx, args.raw(1), args.raw(2)).await?;
    write_file(ctx, &file, &mut memory, None, RwfFlags::empty()).await
}

pub async fn preadv(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let offset = offset(args.i64(3))?;
    let file = positioned(ctx, args.i32(0), OpenMode::READ)?;
    let mut memory = GuestVectors::import(ctx, args.raw(1), args.raw(2)).await?;
    read_file(ctx, &file, &mut memory, Some(offset), RwfFlags::empty()).await
}

pub async fn pwritev(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let offset = offset(args.i64(3))?;
    let file = positioned(ctx, args.i32(0), OpenMode::WRITE)?;
    let mut memory = GuestVectors::import(ctx, args.raw(1), args.raw(2)).await?;
    write_file(ctx, &file, &mut memory, Some(offset), RwfFlags::empty()).await
}

pub async fn preadv2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let at = maybe_offset(args.i64(3))?;
    let file = match at {
        Some(_) => positioned(ctx, args.i32(0), OpenMode::READ)?,
        None => readable(ctx, args.i32(0))?,
    };
    let mut memory = GuestVectors::import(ctx, args.raw(1), args.raw(2)).await?;
    if memory.left() == 0 {
        return Ok(0);
    }
    let flags = rwf_flags(args)?;
    read_file(ctx, &file, &mut memory, at, flags).await
}

pub async fn pwritev2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let at = maybe_offset(args.i64(3))?;
    let file = match at {
        Some(_) => positioned(ctx, args.i32(0), OpenMode::WRITE)?,
        None => writable(ctx, args.i32(0))?,
    };
    let mut memory = GuestVectors::import(ctx, args.raw(1), args.raw(2)).await?;
    if memory.left() == 0 {
        return Ok(0);
    }
    let flags = rwf_flags(args)?;
    write_file(ctx, &file, &mut memory, at, flags).await
}

fn offset(at: i64) -> Result<u64, Errno> {
    u64::try_from(at).map_err(|_| Errno::EINVAL)
}

/// Position of `preadv2`, where -1 means the file's own.
fn maybe_offset(at: i64) -> Result<Option<u64>, Errno> {
    if at == -1 {
        return Ok(None);
    }
    offset(at).map(Some)
}

fn rwf_flags(args: Args) -> Result<RwfFlags, Errno> {
    let known = RwfFlags::RWF_HIPRI
        | RwfFlags::RWF_DSYNC
        | RwfFlags::RWF_SYNC
        | RwfFlags::RWF_NOWAIT
        | RwfFlags::RWF_APPEND
        | RwfFlags::RWF_NOAPPEND;
    let flags = RwfFlags::from_bits_retain(args.u32(5));
    if !known.contains(flags) {
        return Err(Errno::EOPNOTSUPP);
    }
    if flags.contains(RwfFlags::RWF_APPEND | RwfFlags::RWF_NOAPPEND) {
        return Err(Errno::EINVAL);
    }
    Ok(flags)
}

/// The file at `fd` if it has positions and is open for `mode`.
fn positioned(ctx: &Ctx<'_>, fd: i32, mode: OpenMode) -> Result<Arc<File>, Errno> {
    let file = ctx.task.files().get(Fd(fd))?;
    if !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    if !file.mode.contains(mode) {
        return Err(Errno::EBADF);
    }
    Ok(file)
}

/// `EINVAL` for a transfer that would end behind the last position there is.
fn check_end(file: &File, at: Option<u64>, len: usize) -> Result<(), Errno> {
    // Addresses go up to 2^64.
    if !file.ops.is_seekable() || file.ops.is_guest_memory() {
        return Ok(());
    }
    let at = at.unwrap_or_else(|| *file.position.lock());
    let end = at.checked_add(len as u64).ok_or(Errno::EINVAL)?;
    i64::try_from(end).map_err(|_| Errno::EINVAL)?;
    Ok(())
}

/// The file at `fd` if it is open for reading.
pub(super) fn readable(ctx: &Ctx<'_>, fd: i32) -> Result<Arc<File>, Errno> {
    with_mode(ctx, fd, OpenMode::READ)
}

/// The file at `fd` if it is open for writing.
pub(super) fn writable(ctx: &Ctx<'_>, fd: i32) -> Result<Arc<File>, Errno> {
    with_mode(ctx, fd, OpenMode::WRITE)
}

fn with_mode(ctx: &Ctx<'_>, fd: i32, mode: OpenMode) -> Result<Arc<File>, Errno> {
    let file = ctx.task.files().get(Fd(fd))?;
    if !file.mode.contains(mode) {
        return Err(Errno::EBADF);
    }
    Ok(file)
}

/// Ranges of guest memory, consumed from the front.
pub(super) struct GuestVectors {
    /// Reversed: the next range is the last.
    ranges: SmallVec<[(u64, usize); 2]>,
    left: usize,
}

impl GuestVectors {
    /// A single range; cut at what one call may move.
    pub fn one(addr: u64, len: u64) -> Result<Self, Errno> {
        if i64::try_from(len).is_err() {
            return Err(Errno::EINVAL);
        }
        let len = usize::try_from(len).map_or(MAX_RW_COUNT, |len| len.min(MAX_RW_COUNT));
        Ok(Self {
            ranges: smallvec![(addr, len)],
            left: len,
        })
    }

    /// Reads an array of `struct iovec`.
    pub async fn import(ctx: &mut Ctx<'_>, addr: u64, count: u64) -> Result<Self, Errno> {
        let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
        if count > IOV_MAX {
            return Err(Errno::EINVAL);
        }
        let list = ctx.read_array(UserPtr::<Iovec>::new(addr), count).await?;
        let mut ranges = SmallVec::with_capacity(list.len());
        let mut left: usize = 0;
        for entry in &list {
            if i64::try_from(entry.iov_len).is_err() {
                return Err(Errno::EINVAL);
            }
            let room = MAX_RW_COUNT - left;
            let len = usize::try_from(entry.iov_len).map_or(room, |len| len.min(room));
            if len != 0 {
                ranges.push((entry.iov_base, len));
                left += len;
            }
        }
        ranges.reverse();
        Ok(Self { ranges, left })
    }

    /// Bytes not consumed yet.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The only range, if it is one.
    pub(super) fn single(&self) -> Option<(u64, usize)> {
        match self.ranges.as_slice() {
            [range] => Some(*range),
            _ => None,
        }
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.left -= count;
        if let Some((addr, len)) = self.ranges.last_mut() {
            *addr = addr.wrapping_add(count as u64);
            *len -= count;
            if *len == 0 {
                self.ranges.pop();
            }
        }
    }

    /// Stores `bytes`; answers how many could be.
    pub async fn copy_out(&mut self, ctx: &mut Ctx<'_>, mut bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(&(addr, len)) = self.ranges.last()
            && !bytes.is_empty()
        {
            let (now, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
            let count = ctx.write_partial(addr, now).await;
            self.advance(count);
            done += count;
            if count < now.len() {
                break;
            }
            bytes = rest;
        }
        done
    }

    /// Fills `buf`; answers how much could be.
    pub async fn copy_in(&mut self, ctx: &mut Ctx<'_>, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(&(addr, len)) = self.ranges.last() {
            let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            let wanted = len.min(rest.len());
            let now = rest.get_mut(..wanted).unwrap_or_default();
            let count = ctx.read_partial(addr, now).await;
            self.advance(count);
            done += count;
            if count < wanted {
                break;
            }
        }
        done
    }
}

/// Tries `attempt`, which reads or writes `file`, until it need not wait.
pub(super) async fn wait_io<T>(
    ctx: &Ctx<'_>,
    file: &File,
    mode: OpenMode,
    nonblocking: bool,
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match attempt() {
        Err(Errno::EAGAIN) if !nonblocking => {}
        done => return done,
    }
    let queue = file.ops.wait_queue().ok_or(Errno::EAGAIN)?;
    let mask = if mode == OpenMode::READ {
        Events::READABLE | Events::RDHUP
    } else {
        Events::WRITABLE
    };
    let timeout = file.ops.io_timeout(mode);
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    ctx.wait_on(&[queue], mask, deadline, Errno::EAGAIN, attempt)
        .await
}

/// Reads into guest memory, at `at` or the file's position.
pub(super) async fn read_file(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    memory: &mut GuestVectors,
    at: Option<u64>,
    flags: RwfFlags,
) -> SysResult {
    let kernel = ctx.kernel;
    let seekable = file.ops.is_seekable();
    if at.is_some() && !seekable {
        return Err(Errno::ESPIPE);
    }
    let nonblocking = file.is_nonblocking() || flags.contains(RwfFlags::RWF_NOWAIT);
    if memory.left() == 0 {
        match file.path.inode_ref()?.kind() {
            FileKind::Directory => return Err(Errno::EISDIR),
            // These say what they think of it themselves.
            FileKind::Anonymous => {}
            _ => return Ok(0),
        }
    }
    check_end(file, at, memory.left())?;
    if flags.contains(RwfFlags::RWF_NOWAIT) && !file.ops.takes_nowait(OpenMode::READ) {
        return Err(Errno::EOPNOTSUPP);
    }
    let all = memory.left();
    if flags.is_empty()
        && let Some(done) = transfer::read(ctx, file, memory, at).await?
    {
        if done != 0 {
            kernel.vfs.watches.happened(&file.path, Mask::ACCESS);
        }
        return Ok(done as u64);
    }
    let mut done = all - memory.left();
    let from_memory = file.ops.is_guest_memory();
    let mut buffer = kernel.vfs.buffers.take(memory.left());
    loop {
        let wanted = buffer.len().min(memory.left());
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        let offset = at.map(|at| at.saturating_add(done as u64));
        let read = match offset {
            offset if from_memory => {
                let reading = file.ops.read_memory(ctx.task, file, chunk, offset);
                reading.await
            }
            Some(offset) => file.ops.read_at(file, chunk, offset),
            None if done == 0 => {
                let reader = ctx.task;
                let attempt = || file.ops.read_as(reader, file, chunk);
                wait_io(ctx, file, OpenMode::READ, nonblocking, attempt).await
            }
            None => file.ops.read_as(ctx.task, file, chunk),
        };
        let got = match read {
            Ok(got) => got.min(wanted),
            Err(_) if done != 0 => break,
            Err(errno) => return Err(errno),
        };
        if got == 0 {
            break;
        }
        let bytes = buffer.get(..got).unwrap_or_default();
        let stored = memory.copy_out(ctx, bytes).await;
        done += stored;
        if stored < got {
            let rest = bytes.get(stored..).unwrap_or_default();
            if !seekable {
                file.ops.unread(file, rest);
            } else if at.is_none() {
                let mut position = file.position.lock();
                *position = position.saturating_sub(rest.len() as u64);
            }
            if done == 0 {
                return Err(Errno::EFAULT);
            }
            break;
        }
        // What is not a plain file gives what it has at once.
        if !seekable || got < wanted || memory.left() == 0 {
            break;
        }
    }
    if done != 0 {
        kernel.vfs.watches.happened(&file.path, Mask::ACCESS);
    }
    Ok(done as u64)
}

/// Writes from guest memory, at `at` or the file's position.
pub(super) async fn write_file(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    memory: &mut GuestVectors,
    at: Option<u64>,
    flags: RwfFlags,
) -> SysResult {
    let kernel = ctx.kernel;
    if at.is_some() && !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    let nonblocking = file.is_nonblocking() || flags.contains(RwfFlags::RWF_NOWAIT);
    let append = (file.status().contains(StatusFlags::APPEND)
        || flags.contains(RwfFlags::RWF_APPEND))
        && !flags.contains(RwfFlags::RWF_NOAPPEND);
    let regular = file.path.inode_ref()?.kind() == FileKind::Regular;
    // Streams have no end to append to.
    let plain_flags =
        !flags.intersects(RwfFlags::RWF_APPEND | RwfFlags::RWF_NOAPPEND) || !file.ops.is_seekable();
    let total = memory.left();
    check_end(file, at, total)?;
    if total == 0 && regular {
        return Ok(0);
    }
    if flags.contains(RwfFlags::RWF_NOWAIT) && !file.ops.takes_nowait(OpenMode::WRITE) {
        return Err(Errno::EOPNOTSUPP);
    }
    if regular {
        drop_privileges(&ctx.task.creds(), file)?;
    }
    let _turn = match file.ops.write_turns() {
        Some(turns) => Some(turns.take(transfer::write_len(memory)).await),
        None => None,
    };
    if flags.is_empty()
        && !append
        && let Some(done) = transfer::write(ctx, file, memory, at).await?
    {
        if done != 0 {
            kernel.vfs.watches.happened(&file.path, Mask::MODIFY);
        }
        return Ok(done as u64);
    }
    let mut done = total - memory.left();
    let to_memory = file.ops.is_guest_memory();
    // A message goes to a socket whole.
    let mut message = Vec::new();
    let mut pooled = None;
    if file.ops.as_socket().is_some() && total > crate::vfs::buffers::CHUNK_MAX {
        message = vec![0; total.min(MESSAGE_MAX)];
    } else {
        pooled = Some(kernel.vfs.buffers.take(total));
    }
    let buffer: &mut [u8] = match &mut pooled {
        Some(buffer) => buffer,
        None => &mut message,
    };
    loop {
        let offset = at.map(|at| at.saturating_add(done as u64));
        let mut wanted = buffer.len().min(memory.left());
        if regular {
            match limit_size(ctx, file, offset, append, wanted) {
                Ok(allowed) => wanted = allowed,
                Err(_) if done != 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        let got = memory.copy_in(ctx, chunk).await;
        if got == 0 && wanted != 0 {
            if done == 0 {
                return Err(Errno::EFAULT);
            }
            break;
        }
        let mut bytes = chunk.get(..got).unwrap_or_default();
        let faulted = got < wanted;
        let mut stop = None;
        // A stream takes it piece by piece.
        loop {
            let offset = at.map(|at| at.saturating_add(done as u64));
            let written = match offset {
                offset if to_memory => {
                    let writing = file.ops.write_memory(ctx.task, file, bytes, offset);
                    writing.await
                }
                Some(offset) => {
                    let written = file.ops.write_at(file, bytes, offset, append);
                    written.map(|(count, _)| count)
                }
                None if plain_flags => {
                    let writer = ctx.task;
                    let attempt = || file.ops.write_as(writer, file, bytes);
                    wait_io(ctx, file, OpenMode::WRITE, nonblocking, attempt).await
                }
                None => write_at_position(file, bytes, append),
            };
            match written {
                Ok(count) => {
                    done += count;
                    bytes = bytes.get(count..).unwrap_or_default();
                    if bytes.is_empty() || count == 0 {
                        break;
                    }
                }
                Err(errno) => {
                    stop = Some(errno);
                    break;
                }
            }
        }
        if let Some(errno) = stop {
            if errno == Errno::EPIPE && !regular {
                send_to_self(ctx, Signal::SIGPIPE);
            }
            if done == 0 {
                return Err(errno);
            }
            break;
        }
        if faulted || !bytes.is_empty() || memory.left() == 0 {
            break;
        }
    }
    if done != 0 {
        let synced = file.status().intersects(StatusFlags::DSYNC)
            || flags.intersects(RwfFlags::RWF_DSYNC | RwfFlags::RWF_SYNC);
        if regular && synced {
            file.ops.sync(file, !flags.contains(RwfFlags::RWF_SYNC))?;
        }
        kernel.vfs.watches.happened(&file.path, Mask::MODIFY);
    }
    Ok(done as u64)
}

/// Largest message written to a socket in one piece.
const MESSAGE_MAX: usize = 4 << 20;

fn write_at_position(file: &File, bytes: &[u8], append: bool) -> Result<usize, Errno> {
    let mut position = file.position.lock();
    let (count, end) = file.ops.write_at(file, bytes, *position, append)?;
    *position = end;
    Ok(count)
}

/// Sends the caller a signal of its own doing.
pub(super) fn send_to_self(ctx: &Ctx<'_>, signal: Signal) {
    let (pid, uid) = (ctx.task.tid().0, ctx.task.creds().uid.0);
    // A full queue of a standard signal drops details, never the signal.
    let _ = ctx
        .task
        .signal(SigInfo::kill(signal, pid, uid), Origin::Inside);
}

/// How many of `wanted` bytes `RLIMIT_FSIZE` lets be written; `EFBIG` with
/// `SIGXFSZ` if none.
pub(super) fn limit_size(
    ctx: &Ctx<'_>,
    file: &File,
    at: Option<u64>,
    append: bool,
    wanted: usize,
) -> Result<usize, Errno> {
    let limit = ctx.task.group.limit(RLIMIT_FSIZE);
    if limit == RLIM_INFINITY {
        return Ok(wanted);
    }
    let from = if append {
        file.ops.end_position(file)?
    } else {
        at.unwrap_or_else(|| *file.position.lock())
    };
    if from >= limit {
        send_to_self(ctx, Signal::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    let left = usize::try_from(limit - from).unwrap_or(usize::MAX);
    Ok(wanted.min(left))
}

/// A write by somebody without `CAP_FSETID` takes the set-id bits away.
pub(super) fn drop_privileges(creds: &Creds, file: &File) -> Result<(), Errno> {
    if file.path.is_anonymous() {
        return Ok(());
    }
    let inode = file.path.inode_ref()?;
    // Bits that somebody has set on the host since are taken away by the host:
    // the sentry has no CAP_FSETID there.
    if let Some(perm) = inode.known_perm()
        && perm & (perm::S_ISUID | perm::S_ISGID) == 0
    {
        return Ok(());
    }
    let attr = inode.attr()?;
    if let Some(perm) = stripped(&attr, creds) {
        inode.set_attr(&SetAttr {
            perm: Some(perm),
            ..SetAttr::default()
        })?;
    }
    Ok(())
}

/// The mode a file is left with when its data changes, if it is another.
pub(super) fn stripped(attr: &Attr, creds: &Creds) -> Option<u32> {
    if attr.perm & (perm::S_ISUID | perm::S_ISGID) == 0 {
        return None;
    }
    let left = perm::without_set_id(attr.perm);
    (left != attr.perm && !perm::capable(attr, creds, CapSet::FSETID)).then_some(left)
}

pub async fn lseek(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let (offset, whence) = (args.i64(1), args.u32(2));
    if whence > SEEK_HOLE {
        return Err(Errno::EINVAL);
    }
    if file.ops.stays_at_start() {
        return Ok(0);
    }
    if !file.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    let mut position = file.position.lock();
    if let Some(outside) = file.ops.seek_outside(None) {
        *position = outside?;
    }
    let base = match whence {
        SEEK_SET => 0,
        SEEK_CUR => *position,
        SEEK_END => file.ops.end_position(&file)?,
        _ if file.path.inode_ref()?.kind() == FileKind::Directory => return Err(Errno::EINVAL),
        _ => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            *position = file.ops.seek_sparse(&file, from, whence == SEEK_DATA)?;
            file.ops.seek_outside(Some(*position)).transpose()?;
            return Ok(*position);
        }
    };
    let target = base.checked_add_signed(offset).ok_or(if offset < 0 {
        Errno::EINVAL
    } else {
        Errno::EOVERFLOW
    })?;
    if i64::try_from(target).is_err() {
        return Err(Errno::EOVERFLOW);
    }
    file.ops.seek_outside(Some(target)).transpose()?;
    *position = target;
    Ok(target)
}
