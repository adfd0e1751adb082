//! Moving data between descriptors: `sendfile`, `splice`, `tee`, `vmsplice`,
//! `copy_file_range`.
//!
//! The data passes through a kernel buffer. What was taken from a pipe and
//! could not be delivered is put back.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{MAX_RW_COUNT, RwfFlags, Signal, SpliceFlags};

use super::read_write::{
    GuestVectors, drop_privileges, limit_size, read_file, readable, send_to_self, wait_io,
    writable, write_file,
};
use crate::ctx::{Ctx, SysResult};
use crate::fs::pipe::PipeEnd;
use crate::sync::WriteLen;
use crate::user::{Args, UserPtr};
use crate::vfs::notify::Mask;
use crate::vfs::{Fd, File, FileKind, OpenMode, StatusFlags};

fn is_regular(file: &File) -> Result<bool, Errno> {
    Ok(file.path.inode_ref()?.kind() == FileKind::Regular)
}

fn pipe_of(file: &File) -> Option<&PipeEnd> {
    file.downcast()
}

/// A position given by the caller, or the file's own.
struct Position {
    ptr: Option<UserPtr<i64>>,
    at: u64,
}

impl Position {
    async fn import(ctx: &mut Ctx<'_>, file: &File, addr: u64) -> Result<Option<Self>, Errno> {
        let ptr = UserPtr::<i64>::new(addr).non_null();
        if !file.ops.is_seekable() {
            return if ptr.is_some() {
                Err(Errno::ESPIPE)
            } else {
                Ok(None)
            };
        }
        let at = match ptr {
            Some(ptr) => u64::try_from(ctx.read(ptr).await?).map_err(|_| Errno::EINVAL)?,
            None => match file.ops.seek_outside(None) {
                Some(outside) => outside?,
                None => *file.position.lock(),
            },
        };
        Ok(Some(Self { ptr, at }))
    }

    /// Stores where the transfer has got to.
    async fn export(&self, ctx: &mut Ctx<'_>, file: &File) -> Result<(), Errno> {
        match self.ptr {
            Some(ptr) => ctx.write(ptr, &self.at.cast_signed()).await,
            None => {
                *file.position.lock() = self.at;
                file.ops.seek_outside(Some(self.at)).transpose()?;
                Ok(())
            }
        }
    }
}

/// Where a transfer takes its bytes from.
async fn take(
    ctx: &Ctx<'_>,
    file: &File,
    position: Option<&Position>,
    nonblocking: bool,
    buf: &mut [u8],
) -> Result<usize, Errno> {
    match position {
        Some(position) => file.ops.read_at(file, buf, position.at),
        None => {
            let attempt = || file.ops.read(file, buf);
            wait_io(ctx, file, OpenMode::READ, nonblocking, attempt).await
        }
    }
}

/// Delivers bytes; answers how many went through, with the error that
/// stopped it.
async fn give(
    ctx: &Ctx<'_>,
    file: &File,
    position: Option<&mut Position>,
    nonblocking: bool,
    mut bytes: &[u8],
) -> (usize, Option<Errno>) {
    let mut done = 0;
    let mut position = position;
    let turns = file.ops.write_turns().filter(|_| position.is_some());
    let _turn = match turns {
        // What is here is written in one piece.
        Some(turns) => Some(turns.take(WriteLen::Short).await),
        None => None,
    };
    while !bytes.is_empty() {
        let written = match &mut position {
            Some(position) => {
                let written = file.ops.write_at(file, bytes, position.at, false);
                written.map(|(count, end)| {
                    position.at = end;
                    count
                })
            }
            None => {
                let attempt = || file.ops.write(file, bytes);
                wait_io(ctx, file, OpenMode::WRITE, nonblocking, attempt).await
            }
        };
        match written {
            Ok(0) => break,
            Ok(count) => {
                done += count;
                bytes = bytes.get(count..).unwrap_or_default();
            }
            Err(errno) => {
                if errno == Errno::EPIPE {
                    send_to_self(ctx, Signal::SIGPIPE);
                }
                return (done, Some(errno));
            }
        }
    }
    (done, None)
}

/// How a transfer treats waiting.
#[derive(Clone, Copy)]
struct Waiting {
    read_nonblocking: bool,
    write_nonblocking: bool,
    /// Go on until all is moved, rather than stop after what was there.
    to_the_end: bool,
}

async fn transfer(
    ctx: &mut Ctx<'_>,
    from: (&Arc<File>, &mut Option<Position>),
    to: (&Arc<File>, &mut Option<Position>),
    len: usize,
    waiting: Waiting,
) -> SysResult {
    let ((from, from_at), (to, to_at)) = (from, to);
    let kernel = ctx.kernel;
    let regular = is_regular(to)?;
    if regular {
        drop_privileges(&ctx.task.creds(), to)?;
    }
    let mut done: usize = 0;
    let mut buffer = kernel.vfs.buffers.take(len);
    while done < len {
        let mut wanted = buffer.len().min(len - done);
        if regular {
            match limit_size(ctx, to, to_at.as_ref().map(|to| to.at), false, wanted) {
                Ok(allowed) => wanted = allowed,
                Err(_) if done != 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        let window = buffer.get_mut(..wanted).unwrap_or_default();
        // Once something has moved, nothing is waited for.
        let patient = waiting.read_nonblocking || (done != 0 && !waiting.to_the_end);
        let got = match take(ctx, from, from_at.as_ref(), patient, window).await {
            Ok(0) => break,
            Ok(got) => got,
            Err(_) if done != 0 => break,
            Err(errno) => return Err(errno),
        };
        let bytes = buffer.get(..got).unwrap_or_default();
        let patient = waiting.write_nonblocking;
        let (moved, stop) = give(ctx, to, to_at.as_mut(), patient, bytes).await;
        done += moved;
        if let Some(from_at) = from_at {
            from_at.at = from_at.at.saturating_add(moved as u64);
        } else if moved < got {
            from.ops
                .unread(from, bytes.get(moved..).unwrap_or_default());
        }
        match stop {
            Some(errno) if done == 0 => return Err(errno),
            Some(_) => break,
            None if moved < got => break,
            None => {}
        }
    }
    if done != 0 {
        kernel.vfs.watches.happened(&from.path, Mask::ACCESS);
        kernel.vfs.watches.happened(&to.path, Mask::MODIFY);
    }
    Ok(done as u64)
}

pub async fn sendfile(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let from = readable(ctx, args.i32(1))?;
    if args.raw(2) != 0 && !from.ops.is_seekable() {
        return Err(Errno::ESPIPE);
    }
    let to = writable(ctx, args.i32(0))?;
    let mut len = args.usize(3).min(MAX_RW_COUNT);
    let mut from_at = Position::import(ctx, &from, args.raw(2)).await?;
    let mut to_at = Position::import(ctx, &to, 0).await?;
    let is_directory = from.path.inode_ref()?.kind() == FileKind::Directory;
    if let Some(end) = pipe_of(&to) {
        // As splice(2): streams as well, and as much as fits at once.
        if len == 0 {
            return Ok(0);
        }
        len = len.min(wait_for_room(ctx, &to, end, from.is_nonblocking()).await?);
    } else if to.status().contains(StatusFlags::APPEND) {
        return Err(Errno::EINVAL);
    } else if !from.ops.is_seekable() {
        return match len {
            0 if from.ops.stays_at_start() => Ok(0),
            _ => Err(Errno::EINVAL),
        };
    }
    if is_directory {
        return Err(Errno::EINVAL);
    }
    let waiting = Waiting {
        read_nonblocking: true,
        write_nonblocking: to.is_nonblocking(),
        to_the_end: true,
    };
    let moved = transfer(ctx, (&from, &mut from_at), (&to, &mut to_at), len, waiting).await?;
    finish(ctx, &from, from_at, &to, to_at).await?;
    Ok(moved)
}

async fn finish(
    ctx: &mut Ctx<'_>,
    from: &File,
    from_at: Option<Position>,
    to: &File,
    to_at: Option<Position>,
) -> Result<(), Errno> {
    if let Some(position) = from_at {
        position.export(ctx, from).await?;
    }
    if let Some(position) = to_at {
        position.export(ctx, to).await?;
    }
    Ok(())
}

pub async fn splice(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let len = args.usize(4).min(MAX_RW_COUNT);
    if len == 0 {
        return Ok(0);
    }
    let flags = SpliceFlags::from_bits(args.u32(5)).ok_or(Errno::EINVAL)?;
    let from = readable(ctx, args.i32(0))?;
    let to = writable(ctx, args.i32(2))?;
    let (from_pipe, to_pipe) = (pipe_of(&from), pipe_of(&to));
    if from_pipe.is_none() && to_pipe.is_none() {
        return Err(Errno::EINVAL);
    }
    if let (Some(from_pipe), Some(to_pipe)) = (from_pipe, to_pipe)
        && from_pipe.pipe.is(&to_pipe.pipe)
    {
        return Err(Errno::EINVAL);
    }
    if from_pipe.is_none() && from.path.inode_ref()?.kind() == FileKind::Directory {
        return Err(Errno::EINVAL);
    }
    if to_pipe.is_none() && to.status().contains(StatusFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let mut from_at = Position::import(ctx, &from, args.raw(1)).await?;
    let mut to_at = Position::import(ctx, &to, args.raw(3)).await?;
    let nonblocking = flags.contains(SpliceFlags::SPLICE_F_NONBLOCK);
    let mut len = len;
    if let Some(end) = to_pipe {
        // Not more is taken than fits, so that nothing has to go back.
        len = len.min(wait_for_room(ctx, &to, end, nonblocking).await?);
    }
    let waiting = Waiting {
        read_nonblocking: nonblocking && from_pipe.is_some() || from.is_nonblocking(),
        write_nonblocking: (nonblocking && to_pipe.is_some()) || to.is_nonblocking(),
        to_the_end: false,
    };
    let moved = transfer(ctx, (&from, &mut from_at), (&to, &mut to_at), len, waiting).await?;
    finish(ctx, &from, from_at, &to, to_at).await?;
    Ok(moved)
}

/// Room in the pipe, once there is any.
async fn wait_for_room(
    ctx: &Ctx<'_>,
    file: &File,
    end: &PipeEnd,
    nonblocking: bool,
) -> Result<usize, Errno> {
    let room = || {
        if end.pipe.ends().0 == 0 {
            return Err(Errno::EPIPE);
        }
        match end.pipe.room() {
            0 => Err(Errno::EAGAIN),
            room => Ok(room),
        }
    };
    let nonblocking = nonblocking || file.is_nonblocking();
    let found = wait_io(ctx, file, OpenMode::WRITE, nonblocking, room).await;
    if found == Err(Errno::EPIPE) {
        send_to_self(ctx, Signal::SIGPIPE);
    }
    found
}

pub async fn tee(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = SpliceFlags::from_bits(args.u32(3)).ok_or(Errno::EINVAL)?;
    let len = args.usize(2).min(MAX_RW_COUNT);
    if len == 0 {
        return Ok(0);
    }
    let from = readable(ctx, args.i32(0))?;
    let to = writable(ctx, args.i32(1))?;
    let (Some(source), Some(sink)) = (pipe_of(&from), pipe_of(&to)) else {
        return Err(Errno::EINVAL);
    };
    if source.pipe.is(&sink.pipe) {
        return Err(Errno::EINVAL);
    }
    let nonblocking = flags.contains(SpliceFlags::SPLICE_F_NONBLOCK);
    let available = || match (source.pipe.available(), source.pipe.ends().1) {
        (0, 0) => Ok(0),
        (0, _) => Err(Errno::EAGAIN),
        (available, _) => Ok(available),
    };
    let patient = nonblocking || from.is_nonblocking();
    let available = wait_io(ctx, &from, OpenMode::READ, patient, available).await?;
    if available == 0 {
        return Ok(0);
    }
    let room = wait_for_room(ctx, &to, sink, nonblocking).await?;
    let mut buffer = ctx.kernel.vfs.buffers.take(len.min(available).min(room));
    let copied = source.pipe.peek(0, &mut buffer);
    let bytes = buffer.get(..copied).unwrap_or_default();
    let (moved, stop) = give(ctx, &to, None, true, bytes).await;
    match stop {
        Some(errno) if moved == 0 => Err(errno),
        _ => Ok(moved as u64),
    }
}

pub async fn vmsplice(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = SpliceFlags::from_bits(args.u32(3)).ok_or(Errno::EINVAL)?;
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    if pipe_of(&file).is_none() {
        return Err(Errno::EBADF);
    }
    let mut memory = GuestVectors::import(ctx, args.raw(1), args.raw(2)).await?;
    let mut how = RwfFlags::empty();
    how.set(
        RwfFlags::RWF_NOWAIT,
        flags.contains(SpliceFlags::SPLICE_F_NONBLOCK),
    );
    if file.mode.contains(OpenMode::WRITE) {
        write_file(ctx, &file, &mut memory, None, how).await
    } else {
        read_file(ctx, &file, &mut memory, None, how).await
    }
}

pub async fn copy_file_range(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let from = ctx.task.files().get(Fd(args.i32(0)))?;
    let to = ctx.task.files().get(Fd(args.i32(2)))?;
    if args.u32(5) != 0 {
        return Err(Errno::EINVAL);
    }
    let kinds = [from.path.inode_ref()?.kind(), to.path.inode_ref()?.kind()];
    if kinds.contains(&FileKind::Directory) {
        return Err(Errno::EISDIR);
    }
    if kinds != [FileKind::Regular; 2] {
        return Err(Errno::EINVAL);
    }
    if !from.mode.contains(OpenMode::READ)
        || !to.mode.contains(OpenMode::WRITE)
        || to.status().contains(StatusFlags::APPEND)
    {
        return Err(Errno::EBADF);
    }
    if from.attr()?.dev != to.attr()?.dev {
        return Err(Errno::EXDEV);
    }
    let mut from_at = Position::import(ctx, &from, args.raw(1)).await?;
    let mut to_at = Position::import(ctx, &to, args.raw(3)).await?;
    let (Some(source), Some(sink)) = (&from_at, &to_at) else {
        return Err(Errno::EINVAL);
    };
    let len = args.usize(4).min(MAX_RW_COUNT);
    let span = len as u64;
    let overflows = |at: u64| i64::try_from(at.saturating_add(span)).is_err();
    if overflows(source.at) || overflows(sink.at) {
        return Err(Errno::EOVERFLOW);
    }
    let left = from.attr()?.size_bytes.saturating_sub(source.at);
    let span = span.min(left);
    let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
    let same = Arc::ptr_eq(from.path.inode_ref()?, to.path.inode_ref()?);
    if same && source.at < sink.at.saturating_add(span) && sink.at < source.at.saturating_add(span)
    {
        return Err(Errno::EINVAL);
    }
    let waiting = Waiting {
        read_nonblocking: true,
        write_nonblocking: true,
        to_the_end: true,
    };
    let moved = transfer(ctx, (&from, &mut from_at), (&to, &mut to_at), len, waiting).await?;
    finish(ctx, &from, from_at, &to, to_at).await?;
    Ok(moved)
}
