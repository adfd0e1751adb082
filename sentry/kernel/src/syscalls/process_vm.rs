//! Memory of other processes: `process_vm_readv`, `process_vm_writev`,
//! `process_madvise`, `process_mrelease`.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{IOV_MAX, Iovec};

use super::memory_advice::is_for_others;
use super::read_write::GuestVectors;
use crate::ctx::{Ctx, SysResult};
use crate::mm::{MemoryManager, page_range};
use crate::task::access::AccessCreds;
use crate::task::pidfd::Pidfd;
use crate::task::{CapSet, Task};
use crate::user::{Args, UserPtr};
use crate::vfs::Fd;

/// Bytes moved at once.
const BLOCK: usize = 64 << 10;

/// The task whose memory is meant, if the caller may touch it.
fn target(ctx: &Ctx<'_>, pid: i32) -> Result<Arc<Task>, Errno> {
    let task = ctx.task.pid_ns().task(pid).ok_or(Errno::ESRCH)?;
    if task.has_exited() {
        return Err(Errno::ESRCH);
    }
    if !task.may_be_accessed_by(ctx.task, AccessCreds::Real) {
        return Err(Errno::EPERM);
    }
    Ok(task)
}

/// Reads the ranges of the other process as they are: their length limits
/// what is moved, not what is checked.
async fn remote_ranges(ctx: &mut Ctx<'_>, addr: u64, count: u64) -> Result<Vec<Iovec>, Errno> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let list = ctx.read_array(UserPtr::<Iovec>::new(addr), count).await?;
    let is_valid = |range: &Iovec| i64::try_from(range.iov_len).is_ok();
    if !list.iter().all(is_valid) {
        return Err(Errno::EINVAL);
    }
    Ok(list)
}

/// A piece of the other process's memory to move next.
fn next_piece(list: &[Iovec], index: usize, done: u64, left: usize) -> Option<(u64, usize)> {
    let range = list.get(index)?;
    let len = usize::try_from(range.iov_len - done).unwrap_or(BLOCK);
    Some((range.iov_base.wrapping_add(done), len.min(BLOCK).min(left)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

async fn transfer(ctx: &mut Ctx<'_>, args: Args, direction: Direction) -> SysResult {
    let [_, local, local_count, remote, remote_count, flags] = args.0;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mut local = GuestVectors::import(ctx, local, local_count).await?;
    let remote = remote_ranges(ctx, remote, remote_count).await?;
    if local.left() == 0 || remote.iter().all(|range| range.iov_len == 0) {
        return Ok(0);
    }
    let mm = target(ctx, args.i32(0))?.mm();
    let mut total = 0u64;
    let mut buffer = Vec::new();
    'ranges: for index in 0..remote.len() {
        let mut done = 0;
        while let Some((addr, len)) = next_piece(&remote, index, done, local.left())
            && len > 0
        {
            buffer.resize(len, 0);
            let moved = match direction {
                Direction::Read => read_piece(ctx, &mm, addr, &mut buffer, &mut local).await,
                Direction::Write => write_piece(ctx, &mm, addr, &mut buffer, &mut local).await,
            };
            done += moved as u64;
            total += moved as u64;
            if moved < len {
                break 'ranges;
            }
        }
    }
    if total == 0 {
        return Err(Errno::EFAULT);
    }
    Ok(total)
}

async fn read_piece(
    ctx: &mut Ctx<'_>,
    mm: &MemoryManager,
    addr: u64,
    buffer: &mut [u8],
    local: &mut GuestVectors,
) -> usize {
    let got = mm.read_memory(addr, buffer).await.unwrap_or(0);
    let bytes = buffer.get(..got).unwrap_or_default();
    local.copy_out(ctx, bytes).await
}

async fn write_piece(
    ctx: &mut Ctx<'_>,
    mm: &MemoryManager,
    addr: u64,
    buffer: &mut [u8],
    local: &mut GuestVectors,
) -> usize {
    let got = local.copy_in(ctx, buffer).await;
    let bytes = buffer.get(..got).unwrap_or_default();
    mm.write_memory(addr, bytes).await.unwrap_or(0)
}

pub async fn process_vm_readv(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    transfer(ctx, args, Direction::Read).await
}

pub async fn process_vm_writev(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    transfer(ctx, args, Direction::Write).await
}

/// The advice there is for other processes changes nothing that can be seen:
/// ranges are checked, the host reclaims as it sees fit.
pub async fn process_madvise(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [_, ranges, count, _, flags, _] = args.0;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let list = remote_ranges(ctx, ranges, count).await?;
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let task = Pidfd::of(&file)?.task()?;
    let is_own = Arc::ptr_eq(&task.group, &ctx.task.group);
    if !is_for_others(args.u32(3)) {
        return Err(Errno::EINVAL);
    }
    if !is_own {
        if !task.may_be_accessed_by(ctx.task, AccessCreds::FileSystem) {
            return Err(Errno::EPERM);
        }
        if !ctx.task.creds().has(CapSet::SYS_NICE) {
            return Err(Errno::EPERM);
        }
    }
    let mm = task.mm();
    let mut total = 0u64;
    for range in &list {
        let pages = page_range(range.iov_base, range.iov_len, Errno::EINVAL)?;
        if let Err(error) = mm.check_range(pages) {
            return if total > 0 { Ok(total) } else { Err(error) };
        }
        total = total.saturating_add(range.iov_len);
    }
    Ok(total)
}

/// `process_mrelease(2)`: memory of a dying process goes with its stub; there
/// is nothing to hurry.
pub async fn process_mrelease(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.u32(1) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let task = Pidfd::of(&file)?.task()?;
    if task.has_exited() {
        return Err(Errno::ESRCH);
    }
    if !task.is_killed() {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}
