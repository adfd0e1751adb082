//! Reads and writes of regular files that go between the file and guest
//! memory directly, through the windows of the platform. What is not done here
//! is left to the buffers of [`super::read_write`].

use std::os::fd::AsFd;
use std::sync::Arc;

use sentry_platform::window::PIECE_LEN;
use sentry_platform::{Found, Transferred, Way};
use syscall_tables::Errno;

use super::read_write::{GuestVectors, limit_size};
use crate::ctx::Ctx;
use crate::sync::WriteLen;
use crate::vfs::buffers::CHUNK_MAX;
use crate::vfs::{File, StatusFlags};

/// Below this, a buffer costs less.
const LEN_MIN: usize = 2048;

/// The range of guest memory if this is something for a direct transfer.
fn range(ctx: &Ctx<'_>, file: &File, memory: &GuestVectors) -> Option<(u64, usize)> {
    let (addr, len) = memory.single()?;
    let direct = len >= LEN_MIN && ctx.thread.has_windows() && file.ops.has_windows();
    direct.then_some((addr, len))
}

/// How a write of all of `memory` reaches its file.
pub(super) fn write_len(memory: &GuestVectors) -> WriteLen {
    let pieces = memory.single().map_or(CHUNK_MAX, |_| PIECE_LEN);
    if memory.left() <= pieces {
        WriteLen::Short
    } else {
        WriteLen::Long
    }
}

/// The part of the file that a transfer at its position is about. It is taken
/// at once, so that others who share the description get what is behind it.
struct Range<'a> {
    file: &'a File,
    start: u64,
    at_position: bool,
}

impl<'a> Range<'a> {
    fn new(file: &'a File, at: Option<u64>, len: usize) -> Self {
        let start = at.unwrap_or_else(|| {
            let mut position = file.position.lock();
            let start = *position;
            *position = start.saturating_add(len as u64);
            start
        });
        Self {
            file,
            start,
            at_position: at.is_none(),
        }
    }

    /// Gives back what was not needed.
    fn end(self, done: usize) {
        if self.at_position {
            let mut position = self.file.position.lock();
            *position = (*position).min(self.start.saturating_add(done as u64));
        }
    }
}

/// What came of it, or nothing: the rest is to be done with buffers.
fn outcome(transferred: Transferred, memory: &mut GuestVectors) -> Result<Option<usize>, Errno> {
    let Transferred {
        done,
        error,
        faulted,
    } = transferred;
    memory.advance(done);
    match error {
        // A fault comes before what the file would have said behind it.
        _ if faulted && done == 0 => Err(Errno::EFAULT),
        _ if faulted => Ok(Some(done)),
        Some(Errno::EAGAIN) => Ok(None),
        Some(errno) if done == 0 => Err(errno),
        _ => Ok(Some(done)),
    }
}

/// Reads what can be read directly, and consumes that part of `memory`;
/// answers the result if that was all.
pub(super) async fn read(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    memory: &mut GuestVectors,
    at: Option<u64>,
) -> Result<Option<usize>, Errno> {
    let Some((addr, len)) = range(ctx, file, memory) else {
        return Ok(None);
    };
    let range = Range::new(file, at, len);
    let viewed = read_views(ctx, file, range.start, addr, len).await;
    if viewed.whole {
        range.end(viewed.done);
        memory.advance(viewed.done);
        return Ok(Some(viewed.done));
    }
    let (addr, len) = (addr.wrapping_add(viewed.done as u64), len - viewed.done);
    let mut offset = range.start.saturating_add(viewed.done as u64);
    let mut moved = ctx
        .transfer(Way::ToGuest, addr, len, |window| {
            let count = file.ops.read_window(file, window, offset)?;
            offset = offset.saturating_add(count as u64);
            Ok(count)
        })
        .await;
    moved.done += viewed.done;
    range.end(moved.done);
    outcome(moved, memory)
}

/// What has been read through views.
#[derive(Default)]
struct Viewed {
    done: usize,
    /// That is all that was wanted, or up to the end of the file.
    whole: bool,
}

/// Has the guest thread copy from the file's pages by itself, as far as it has
/// views of them.
async fn read_views(ctx: &mut Ctx<'_>, file: &File, start: u64, addr: u64, len: usize) -> Viewed {
    let mut viewed = Viewed::default();
    let Some(source) = file.ops.view_source(file) else {
        return viewed;
    };
    let end = start.saturating_add(len as u64).min(source.len_bytes);
    let mut at = start;
    while at < end {
        let mut found = ctx.thread.find_view(source.id, at, end - at);
        if let Found::Worth = found {
            let mapped = ctx.thread.map_view(source.id, source.fd.as_fd(), at).await;
            if mapped.is_ok() {
                found = ctx.thread.find_view(source.id, at, end - at);
            }
        }
        let Found::View(view) = found else {
            break;
        };
        let wanted = view.len().min(end - at);
        let to = addr.wrapping_add(at - start);
        let copied = ctx.copy_view(&view, to, wanted).await.min(wanted);
        at += copied;
        if copied < wanted {
            break;
        }
    }
    viewed.done = usize::try_from(at.saturating_sub(start)).unwrap_or(0);
    viewed.whole = viewed.done != 0 && at == end;
    viewed
}

/// As [`read`], for a write that does not append.
pub(super) async fn write(
    ctx: &mut Ctx<'_>,
    file: &Arc<File>,
    memory: &mut GuestVectors,
    at: Option<u64>,
) -> Result<Option<usize>, Errno> {
    let Some((addr, len)) = range(ctx, file, memory) else {
        return Ok(None);
    };
    if file.status().intersects(StatusFlags::DSYNC) {
        return Ok(None);
    }
    let len = limit_size(ctx, file, at, false, len)?;
    let range = Range::new(file, at, len);
    let mut offset = range.start;
    let moved = ctx
        .transfer(Way::FromGuest, addr, len, |window| {
            let count = file.ops.write_window(file, window, offset)?;
            offset = offset.saturating_add(count as u64);
            Ok(count)
        })
        .await;
    range.end(moved.done);
    outcome(moved, memory)
}
