//! `madvise`, `msync`, `mlock`, `mincore`, and memory policies of NUMA.

use sentry_platform::executor::blocking;
use syscall_tables::Errno;
use syscall_tables::abi::{
    GetMempolicyFlags, MADV_COLD, MADV_COLLAPSE, MADV_HWPOISON, MADV_PAGEOUT, MADV_SOFT_OFFLINE,
    MADV_WILLNEED, MPOL_DEFAULT, MPOL_F_RELATIVE_NODES, MPOL_F_STATIC_NODES, MPOL_LOCAL,
    MPOL_WEIGHTED_INTERLEAVE, Mlock2Flags, MlockallFlags, MsyncFlags,
};

use super::memory::limits;
use crate::ctx::{Ctx, SysResult};
use crate::mm::{Advice, PAGE_SIZE, Via, VmaFlags, is_page_aligned, page_range};
use crate::task::CapSet;
use crate::user::{Args, UserPtr};

pub async fn madvise(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let number = args.i32(2);
    let Some(advice) = Advice::from_raw(number) else {
        let raw = number.cast_unsigned();
        if (raw == MADV_HWPOISON || raw == MADV_SOFT_OFFLINE)
            && !ctx.task.creds().has(CapSet::SYS_ADMIN)
        {
            return Err(Errno::EPERM);
        }
        return Err(Errno::EINVAL);
    };
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    mm.advise(&mut via, args.raw(0), args.raw(1), advice)
        .await?;
    Ok(0)
}

/// Whether `process_madvise(2)` takes this advice for another process.
pub(super) fn is_for_others(advice: u32) -> bool {
    matches!(
        advice,
        MADV_COLD | MADV_PAGEOUT | MADV_WILLNEED | MADV_COLLAPSE
    )
}

pub async fn msync(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = MsyncFlags::from_bits(args.u32(2)).ok_or(Errno::EINVAL)?;
    if flags.contains(MsyncFlags::MS_ASYNC | MsyncFlags::MS_SYNC) {
        return Err(Errno::EINVAL);
    }
    let range = page_range(args.raw(0), args.raw(1), Errno::ENOMEM)?;
    if range.is_empty() {
        return Ok(0);
    }
    let invalidate = flags.contains(MsyncFlags::MS_INVALIDATE);
    let targets = ctx.task.mm().sync_targets(range, invalidate)?;
    if flags.contains(MsyncFlags::MS_SYNC) {
        for file in targets.files {
            match blocking(|| file.ops.sync(&file, true)) {
                // Memory files have nothing to write back.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
    }
    targets.mapped?;
    Ok(0)
}

pub async fn mincore(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [addr, len, vector, ..] = args.0;
    if !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    let mm = ctx.task.mm();
    let range = page_range(addr, len, Errno::ENOMEM)?;
    if range.end > mm.guest_range().end {
        return Err(Errno::ENOMEM);
    }
    // In blocks: the range may be as large as the address space.
    const BLOCK: u64 = 16 * 1024 * PAGE_SIZE;
    let mut at = range.start;
    let mut to = vector;
    while at < range.end {
        let end = range.end.min(at.saturating_add(BLOCK));
        let pages = mm.residency(at..end)?;
        ctx.write_bytes(to, &pages).await?;
        to = to.checked_add(pages.len() as u64).ok_or(Errno::EFAULT)?;
        at = end;
    }
    Ok(0)
}

async fn lock_range(ctx: &mut Ctx<'_>, addr: u64, len: u64, on_fault: bool) -> SysResult {
    let limits = limits(ctx);
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    mm.lock(&mut via, addr, len, on_fault, &limits).await?;
    Ok(0)
}

pub async fn mlock(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    lock_range(ctx, args.raw(0), args.raw(1), false).await
}

pub async fn mlock2(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = Mlock2Flags::from_bits(args.u32(2)).ok_or(Errno::EINVAL)?;
    let on_fault = flags.contains(Mlock2Flags::MLOCK_ONFAULT);
    lock_range(ctx, args.raw(0), args.raw(1), on_fault).await
}

pub async fn munlock(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mm = ctx.task.mm();
    mm.unlock(args.raw(0), args.raw(1)).await?;
    Ok(0)
}

pub async fn mlockall(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = MlockallFlags::from_bits(args.u32(0)).ok_or(Errno::EINVAL)?;
    if flags.is_empty() || flags == MlockallFlags::MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    let limits = limits(ctx);
    if limits.locked == 0 {
        return Err(Errno::EPERM);
    }
    let mut locked = VmaFlags::LOCKED;
    locked.set(
        VmaFlags::LOCK_ON_FAULT,
        flags.contains(MlockallFlags::MCL_ONFAULT),
    );
    let current = flags.contains(MlockallFlags::MCL_CURRENT).then_some(locked);
    let future = if flags.contains(MlockallFlags::MCL_FUTURE) {
        locked
    } else {
        VmaFlags::empty()
    };
    let mm = ctx.task.mm();
    let mut via = Via::Thread(ctx.thread.as_mut());
    mm.lock_all(&mut via, current, future, &limits).await?;
    Ok(0)
}

pub async fn munlockall(ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    let limits = limits(ctx);
    let mm = ctx.task.mm();
    let none = VmaFlags::empty();
    let mut via = Via::Thread(ctx.thread.as_mut());
    mm.lock_all(&mut via, Some(none), none, &limits).await?;
    Ok(0)
}

/// Reads a node mask; only node 0 exists.
async fn read_nodes(ctx: &mut Ctx<'_>, mask: u64, max_node: u64) -> Result<u64, Errno> {
    let bits = max_node.saturating_sub(1);
    if mask == 0 || bits == 0 {
        return Ok(0);
    }
    if bits > 8 * PAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    let words = usize::try_from(bits.div_ceil(64)).map_err(|_| Errno::EINVAL)?;
    let mask = ctx.read_array(UserPtr::<u64>::new(mask), words).await?;
    let mut nodes = 0;
    for (index, word) in mask.into_iter().enumerate() {
        let used = bits - index as u64 * 64;
        let word = if used < 64 {
            word & ((1 << used) - 1)
        } else {
            word
        };
        if index == 0 {
            nodes = word;
        } else if word != 0 {
            return Err(Errno::EINVAL);
        }
    }
    Ok(nodes)
}

/// Checks a memory policy; a machine with one node carries out all of them.
async fn check_policy(ctx: &mut Ctx<'_>, mode: u32, mask: u64, max_node: u64) -> Result<(), Errno> {
    let flags = mode & (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES);
    let policy = mode & !(MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES);
    if policy > MPOL_WEIGHTED_INTERLEAVE || flags == (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES) {
        return Err(Errno::EINVAL);
    }
    let nodes = read_nodes(ctx, mask, max_node).await?;
    let takes_none = policy == MPOL_DEFAULT || policy == MPOL_LOCAL;
    if takes_none && nodes != 0 {
        return Err(Errno::EINVAL);
    }
    let may_be_empty = takes_none || policy == syscall_tables::abi::MPOL_PREFERRED;
    if (!may_be_empty && nodes & 1 == 0) || nodes & !1 != 0 && flags == 0 {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

pub async fn set_mempolicy(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    check_policy(ctx, args.u32(0), args.raw(1), args.raw(2)).await?;
    Ok(0)
}

pub async fn mbind(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    /// `MPOL_MF_STRICT`, `_MOVE`, `_MOVE_ALL`.
    const KNOWN_FLAGS: u32 = 7;
    let [addr, len, _, mask, max_node, _] = args.0;
    if args.u32(5) & !KNOWN_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let range = page_range(addr, len, Errno::EINVAL)?;
    check_policy(ctx, args.u32(2), mask, max_node).await?;
    ctx.task
        .mm()
        .check_range(range)
        .map_err(|_| Errno::EFAULT)?;
    Ok(0)
}

pub async fn get_mempolicy(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [mode, mask, max_node, addr, _, _] = args.0;
    let flags = GetMempolicyFlags::from_bits(args.u32(4)).ok_or(Errno::EINVAL)?;
    let allowed = flags.contains(GetMempolicyFlags::MPOL_F_MEMS_ALLOWED);
    let by_addr = flags.contains(GetMempolicyFlags::MPOL_F_ADDR);
    let node = flags.contains(GetMempolicyFlags::MPOL_F_NODE);
    let fits = if by_addr {
        !allowed
    } else {
        addr == 0 && !node
    };
    if !fits {
        return Err(Errno::EINVAL);
    }
    if mask != 0 && max_node == 0 {
        return Err(Errno::EINVAL);
    }
    if by_addr && ctx.task.mm().vma_at(addr).is_none() {
        return Err(Errno::EFAULT);
    }
    if mode != 0 {
        // The default policy, or node 0: both are 0.
        ctx.write(UserPtr::<i32>::new(mode), &0).await?;
    }
    if mask != 0 {
        let words = usize::try_from(max_node.div_ceil(64)).map_err(|_| Errno::EINVAL)?;
        if words > 512 {
            return Err(Errno::EINVAL);
        }
        let mut nodes = vec![0u64; words];
        if allowed && let Some(first) = nodes.first_mut() {
            *first = 1;
        }
        ctx.write_array(UserPtr::<u64>::new(mask), &nodes).await?;
    }
    Ok(0)
}
