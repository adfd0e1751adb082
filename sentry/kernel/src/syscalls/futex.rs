//! `futex` and its successors, robust lists.

use std::time::{Duration, Instant};

use sentry_platform::AtomicOp;
use syscall_tables::Errno;
use syscall_tables::abi::{
    CLOCK_MONOTONIC, CLOCK_REALTIME, FUTEX_BITSET_MATCH_ANY, FUTEX_CLOCK_REALTIME, FUTEX_CMD_MASK,
    FUTEX_CMP_REQUEUE, FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_OP_ADD, FUTEX_OP_ANDN, FUTEX_OP_CMP_EQ,
    FUTEX_OP_CMP_GE, FUTEX_OP_CMP_GT, FUTEX_OP_CMP_LE, FUTEX_OP_CMP_LT, FUTEX_OP_CMP_NE,
    FUTEX_OP_OPARG_SHIFT, FUTEX_OP_OR, FUTEX_OP_SET, FUTEX_OP_XOR, FUTEX_PRIVATE_FLAG,
    FUTEX_REQUEUE, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, FUTEX_WAIT, FUTEX_WAIT_BITSET,
    FUTEX_WAITV_MAX, FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP, Futex2Flags, FutexWaitv,
    RobustListHead, Timespec,
};

use super::time::duration;
use crate::ctx::{Ctx, SysResult};
use crate::futex::{self, Scope, WaitOn};
use crate::task::CapSet;
use crate::user::{Args, UserPtr};

/// Which clock an absolute time-out is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClockKind {
    Monotonic,
    Realtime,
}

/// When an absolute time-out is over; `None` for never.
fn deadline_at(ctx: &Ctx<'_>, at: Duration, clock: ClockKind) -> Option<Instant> {
    match clock {
        ClockKind::Monotonic => ctx.kernel.clock.monotonic_instant(at),
        ClockKind::Realtime => ctx.kernel.clock.realtime_instant(at),
    }
}

async fn read_timeout(ctx: &mut Ctx<'_>, addr: u64) -> Result<Option<Duration>, Errno> {
    match UserPtr::<Timespec>::new(addr).non_null() {
        None => Ok(None),
        Some(ptr) => duration(ctx.read(ptr).await?).map(Some),
    }
}

/// A count of waiters, as the kernel takes it: at least one.
fn at_least_one(count: i32) -> usize {
    usize::try_from(count).unwrap_or(1).max(1)
}

fn result(count: usize) -> SysResult {
    u64::try_from(count).map_err(|_| Errno::EINVAL)
}

pub async fn futex(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let [addr, ..] = args.0;
    let op = args.u32(1);
    let scope = if op & FUTEX_PRIVATE_FLAG != 0 {
        Scope::Private
    } else {
        Scope::Shared
    };
    let command = op & FUTEX_CMD_MASK;
    let clock = if op & FUTEX_CLOCK_REALTIME != 0 {
        if !matches!(command, FUTEX_WAIT_BITSET | FUTEX_LOCK_PI2) {
            return Err(Errno::ENOSYS);
        }
        ClockKind::Realtime
    } else {
        ClockKind::Monotonic
    };
    match command {
        FUTEX_WAIT => {
            let bitset = FUTEX_BITSET_MATCH_ANY;
            wait(ctx, args, scope, bitset, Timeout::Relative, clock).await
        }
        FUTEX_WAIT_BITSET => {
            let bitset = args.u32(5);
            wait(ctx, args, scope, bitset, Timeout::Absolute, clock).await
        }
        FUTEX_WAKE => {
            let count = at_least_one(args.i32(2));
            result(futex::wake(
                ctx,
                addr,
                scope,
                count,
                FUTEX_BITSET_MATCH_ANY,
            )?)
        }
        FUTEX_WAKE_BITSET => {
            let bitset = args.u32(5);
            if bitset == 0 {
                return Err(Errno::EINVAL);
            }
            let count = at_least_one(args.i32(2));
            result(futex::wake(ctx, addr, scope, count, bitset)?)
        }
        FUTEX_REQUEUE => requeue(ctx, args, scope, None).await,
        FUTEX_CMP_REQUEUE => requeue(ctx, args, scope, Some(args.u32(5))).await,
        FUTEX_WAKE_OP => wake_op(ctx, args, scope).await,
        FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => {
            // The older one always takes the real time clock.
            let clock = if command == FUTEX_LOCK_PI {
                ClockKind::Realtime
            } else {
                clock
            };
            let timeout = read_timeout(ctx, args.raw(3)).await?;
            let deadline = timeout.and_then(|at| deadline_at(ctx, at, clock));
            futex::lock_pi(ctx, addr, scope, deadline).await?;
            Ok(0)
        }
        FUTEX_TRYLOCK_PI => {
            futex::trylock_pi(ctx, addr, scope).await?;
            Ok(0)
        }
        FUTEX_UNLOCK_PI => {
            futex::unlock_pi(ctx, addr, scope).await?;
            Ok(0)
        }
        _ => Err(Errno::ENOSYS),
    }
}

enum Timeout {
    Relative,
    Absolute,
}

async fn wait(
    ctx: &mut Ctx<'_>,
    args: Args,
    scope: Scope,
    bitset: u32,
    kind: Timeout,
    clock: ClockKind,
) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let has_timeout = args.raw(3) != 0;
    let deadline = match ctx.task.restarted_deadline() {
        Some(deadline) => deadline,
        None => match (read_timeout(ctx, args.raw(3)).await?, kind) {
            (None, _) => None,
            (Some(after), Timeout::Relative) => Instant::now().checked_add(after),
            (Some(at), Timeout::Absolute) => deadline_at(ctx, at, clock),
        },
    };
    let on = WaitOn {
        addr: args.raw(0),
        scope,
        expected: args.u32(2),
        bitset,
    };
    match futex::wait(ctx, &on, deadline).await {
        Ok(()) => Ok(0),
        Err(Errno::ERESTARTSYS) if has_timeout => Err(ctx.task.restart_at(deadline)),
        Err(error) => Err(error),
    }
}

async fn requeue(ctx: &mut Ctx<'_>, args: Args, scope: Scope, expected: Option<u32>) -> SysResult {
    let [addr, _, _, _, addr2, _] = args.0;
    let wake = usize::try_from(args.i32(2)).map_err(|_| Errno::EINVAL)?;
    let requeue = usize::try_from(args.i32(3)).map_err(|_| Errno::EINVAL)?;
    let mm = ctx.task.mm();
    let from = futex::key(&mm, addr, scope)?;
    let to = futex::key(&mm, addr2, scope)?;
    drop(mm);
    if let Some(expected) = expected
        && ctx.atomic(addr, AtomicOp::Load).await? != expected
    {
        return Err(Errno::EAGAIN);
    }
    let (woken, moved) = ctx.kernel.futexes.requeue(&from, &to, wake, requeue);
    result(woken + moved)
}

/// The encoded operation of `FUTEX_WAKE_OP`.
struct WakeOp {
    op: AtomicOp,
    comparison: u32,
    compared: i32,
}

impl WakeOp {
    fn decode(word: u32) -> Result<Self, Errno> {
        // Twelve bits, signed.
        let signed = |bits: u32| (bits << 20).cast_signed() >> 20;
        let mut argument = signed(word >> 12).cast_unsigned();
        let mut kind = word >> 28;
        if kind & FUTEX_OP_OPARG_SHIFT != 0 {
            kind &= !FUTEX_OP_OPARG_SHIFT;
            argument = 1 << (argument & 31);
        }
        let op = match kind {
            FUTEX_OP_SET => AtomicOp::Exchange(argument),
            FUTEX_OP_ADD => AtomicOp::Add(argument),
            FUTEX_OP_OR => AtomicOp::Or(argument),
            FUTEX_OP_ANDN => AtomicOp::And(!argument),
            FUTEX_OP_XOR => AtomicOp::Xor(argument),
            _ => return Err(Errno::ENOSYS),
        };
        Ok(Self {
            op,
            comparison: (word >> 24) & 0xf,
            compared: signed(word),
        })
    }

    fn holds(&self, old: u32) -> Result<bool, Errno> {
        let old = old.cast_signed();
        Ok(match self.comparison {
            FUTEX_OP_CMP_EQ => old == self.compared,
            FUTEX_OP_CMP_NE => old != self.compared,
            FUTEX_OP_CMP_LT => old < self.compared,
            FUTEX_OP_CMP_LE => old <= self.compared,
            FUTEX_OP_CMP_GT => old > self.compared,
            FUTEX_OP_CMP_GE => old >= self.compared,
            _ => return Err(Errno::ENOSYS),
        })
    }
}

async fn wake_op(ctx: &mut Ctx<'_>, args: Args, scope: Scope) -> SysResult {
    let [addr, _, _, _, addr2, _] = args.0;
    let mm = ctx.task.mm();
    let first = futex::key(&mm, addr, scope)?;
    let second = futex::key(&mm, addr2, scope)?;
    drop(mm);
    let operation = WakeOp::decode(args.u32(5))?;
    let old = ctx.atomic(addr2, operation.op).await?;
    let table = &ctx.kernel.futexes;
    let any = FUTEX_BITSET_MATCH_ANY;
    let mut woken = table.wake(&first, at_least_one(args.i32(2)), any);
    if operation.holds(old)? {
        woken += table.wake(&second, at_least_one(args.i32(3)), any);
    }
    result(woken)
}

/// Checks flags of the newer calls: 32-bit words only.
fn scope_of(flags: u32) -> Result<Scope, Errno> {
    let known = Futex2Flags::FUTEX2_PRIVATE.bits() | Futex2Flags::FUTEX2_SIZE_U32.bits();
    if flags & !known != 0 || flags & 3 != Futex2Flags::FUTEX2_SIZE_U32.bits() {
        return Err(Errno::EINVAL);
    }
    Ok(if flags & Futex2Flags::FUTEX2_PRIVATE.bits() != 0 {
        Scope::Private
    } else {
        Scope::Shared
    })
}

/// An absolute time-out with its clock.
async fn deadline2(ctx: &mut Ctx<'_>, timeout: u64, clock: i32) -> Result<Option<Instant>, Errno> {
    if timeout == 0 {
        return Ok(None);
    }
    let clock = match clock {
        clock if clock == CLOCK_MONOTONIC => ClockKind::Monotonic,
        clock if clock == CLOCK_REALTIME => ClockKind::Realtime,
        _ => return Err(Errno::EINVAL),
    };
    let at = read_timeout(ctx, timeout).await?;
    Ok(at.and_then(|at| deadline_at(ctx, at, clock)))
}

fn word_of(waiter: &FutexWaitv) -> Result<WaitOn, Errno> {
    if waiter.__reserved != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(WaitOn {
        addr: waiter.uaddr,
        scope: scope_of(waiter.flags)?,
        expected: u32::try_from(waiter.val).map_err(|_| Errno::EINVAL)?,
        bitset: FUTEX_BITSET_MATCH_ANY,
    })
}

pub async fn futex_waitv(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let count = args.u32(1) as usize;
    if args.u32(2) != 0 || count == 0 || count > FUTEX_WAITV_MAX || args.raw(0) == 0 {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline2(ctx, args.raw(3), args.i32(4)).await?;
    let waiters = ctx.read_array(args.ptr::<FutexWaitv>(0), count).await?;
    let words = waiters.iter().map(word_of).collect::<Result<Vec<_>, _>>()?;
    result(futex::wait_any(ctx, &words, deadline).await?)
}

pub async fn futex_wait(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let scope = scope_of(args.u32(3))?;
    let on = WaitOn {
        addr: args.raw(0),
        scope,
        expected: u32::try_from(args.raw(1)).map_err(|_| Errno::EINVAL)?,
        bitset: u32::try_from(args.raw(2)).map_err(|_| Errno::EINVAL)?,
    };
    if on.bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline2(ctx, args.raw(4), args.i32(5)).await?;
    futex::wait(ctx, &on, deadline).await?;
    Ok(0)
}

pub async fn futex_wake(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let scope = scope_of(args.u32(3))?;
    let bitset = u32::try_from(args.raw(1)).map_err(|_| Errno::EINVAL)?;
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let count = args.i32(2);
    if count == 0 {
        futex::key(&ctx.task.mm(), args.raw(0), scope)?;
        return Ok(0);
    }
    let count = at_least_one(count);
    result(futex::wake(ctx, args.raw(0), scope, count, bitset)?)
}

pub async fn futex_requeue(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.u32(1) != 0 || args.raw(0) == 0 {
        return Err(Errno::EINVAL);
    }
    let pair = ctx.read_array(args.ptr::<FutexWaitv>(0), 2).await?;
    let words = pair.iter().map(word_of).collect::<Result<Vec<_>, _>>()?;
    let [from, to] = words.as_slice() else {
        return Err(Errno::EINVAL);
    };
    let wake = usize::try_from(args.i32(2)).map_err(|_| Errno::EINVAL)?;
    let requeue = usize::try_from(args.i32(3)).map_err(|_| Errno::EINVAL)?;
    let mm = ctx.task.mm();
    let from_key = futex::key(&mm, from.addr, from.scope)?;
    let to_key = futex::key(&mm, to.addr, to.scope)?;
    drop(mm);
    if ctx.atomic(from.addr, AtomicOp::Load).await? != from.expected {
        return Err(Errno::EAGAIN);
    }
    let table = &ctx.kernel.futexes;
    let (woken, moved) = table.requeue(&from_key, &to_key, wake, requeue);
    result(woken + moved)
}

pub async fn set_robust_list(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.usize(1) != size_of::<RobustListHead>() {
        return Err(Errno::EINVAL);
    }
    let head = args.raw(0);
    ctx.task
        .robust_list
        .store(head, std::sync::atomic::Ordering::Relaxed);
    Ok(0)
}

pub async fn get_robust_list(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let task = match args.i32(0) {
        0 => ctx.task.clone(),
        tid => ctx.task.pid_ns().task(tid).ok_or(Errno::ESRCH)?,
    };
    let own = ctx.task.creds();
    let other = task.creds();
    let same = own.uid == other.euid && own.uid == other.suid && own.uid == other.uid;
    if !same
        && !std::sync::Arc::ptr_eq(&task.group, &ctx.task.group)
        && !own.has(CapSet::SYS_PTRACE)
    {
        return Err(Errno::EPERM);
    }
    let head = task.robust_list.load(std::sync::atomic::Ordering::Relaxed);
    let len = size_of::<RobustListHead>() as u64;
    ctx.write(args.ptr::<u64>(2), &len).await?;
    ctx.write(args.ptr::<u64>(1), &head).await?;
    Ok(0)
}
