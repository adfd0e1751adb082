//! What a thread that exits or execs leaves behind: locks it held (the robust
//! list) and whoever waits for its end (`CLONE_CHILD_CLEARTID`).

use std::sync::atomic::Ordering;

use sentry_platform::AtomicOp;
use syscall_tables::Errno;
use syscall_tables::abi::{
    FUTEX_BITSET_MATCH_ANY, FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, ROBUST_LIST_LIMIT,
    RobustListHead,
};

use super::{Scope, wake};
use crate::ctx::Ctx;
use crate::user::UserPtr;

/// Bit of a list pointer that marks a priority inheritance futex.
const PI_BIT: u64 = 1;

/// Whether an entry is the one whose locking was under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pending {
    No,
    Yes,
}

/// Gives up the caller's futexes. Its memory is still there; errors end the
/// walk silently, as they do in Linux.
pub async fn leave(ctx: &mut Ctx<'_>) {
    let head = ctx.task.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 {
        let _ = walk(ctx, head).await;
    }
    ctx.kernel.futexes.pi.owner_exits(ctx.task);
    let addr = ctx.task.clear_child_tid.swap(0, Ordering::Relaxed);
    if addr != 0 && ctx.write_bytes(addr, &[0; 4]).await.is_ok() {
        let _ = wake(ctx, addr, Scope::Shared, 1, FUTEX_BITSET_MATCH_ANY);
    }
}

async fn walk(ctx: &mut Ctx<'_>, head_addr: u64) -> Result<(), Errno> {
    let head = ctx.read(UserPtr::<RobustListHead>::new(head_addr)).await?;
    let pending = head.list_op_pending;
    let mut entry = head.list;
    let mut left = ROBUST_LIST_LIMIT;
    let mut outcome = Ok(());
    while entry & !PI_BIT != head_addr {
        // The next pointer is read first: the entry is free once its lock is.
        let next = ctx.read(UserPtr::<u64>::new(entry & !PI_BIT)).await;
        if entry & !PI_BIT != pending & !PI_BIT {
            outcome = release(ctx, entry, head.futex_offset, Pending::No).await;
            if outcome.is_err() {
                break;
            }
        }
        left -= 1;
        entry = match next {
            Ok(next) if left > 0 => next,
            _ => break,
        };
    }
    if pending & !PI_BIT != 0 && outcome.is_ok() {
        release(ctx, pending, head.futex_offset, Pending::Yes).await?;
    }
    outcome
}

/// Marks the futex of one entry as left by a dead owner and wakes a waiter.
async fn release(
    ctx: &mut Ctx<'_>,
    entry: u64,
    offset: i64,
    pending: Pending,
) -> Result<(), Errno> {
    let is_pi = entry & PI_BIT != 0;
    let addr = (entry & !PI_BIT).wrapping_add_signed(offset);
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let tid = ctx.task.tid_in(&ctx.task.pid_ns()).cast_unsigned();
    loop {
        let word = ctx.atomic(addr, AtomicOp::Load).await?;
        if word & FUTEX_TID_MASK != tid & FUTEX_TID_MASK {
            if pending == Pending::Yes && !is_pi && word == 0 {
                // Killed between unlocking and waking.
                wake(ctx, addr, Scope::Shared, 1, FUTEX_BITSET_MATCH_ANY)?;
            }
            return Ok(());
        }
        let new = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        let op = AtomicOp::CompareExchange {
            expected: word,
            new,
        };
        if ctx.atomic(addr, op).await? != word {
            continue;
        }
        if !is_pi && word & FUTEX_WAITERS != 0 {
            wake(ctx, addr, Scope::Shared, 1, FUTEX_BITSET_MATCH_ANY)?;
        }
        return Ok(());
    }
}
