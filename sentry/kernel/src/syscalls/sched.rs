//! Scheduling calls. The host schedules guest threads; what is set here is
//! kept and answered.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::*;
use zerocopy::{FromBytes, IntoBytes};

use crate::ctx::{Ctx, SysResult};
use crate::task::sched::cpu_mask;
use crate::task::{CapSet, Creds, Task, Uid};
use crate::user::Args;

/// Largest CPU mask that is read, in bytes.
const MASK_MAX: usize = 1024;

fn target(ctx: &Ctx<'_>, pid: i32) -> Result<Arc<Task>, Errno> {
    match pid {
        0 => Ok(ctx.task.clone()),
        pid if pid < 0 => Err(Errno::EINVAL),
        pid => ctx.task.pid_ns().task(pid).ok_or(Errno::ESRCH),
    }
}

/// The same for the affinity calls, to which a negative number is a process
/// that does not exist.
fn affinity_target(ctx: &Ctx<'_>, pid: i32) -> Result<Arc<Task>, Errno> {
    if pid < 0 {
        return Err(Errno::ESRCH);
    }
    target(ctx, pid)
}

fn owns(own: &Creds, other: &Creds) -> bool {
    own.euid == other.euid || own.euid == other.uid
}

fn check_owner(ctx: &Ctx<'_>, other: &Task) -> Result<(), Errno> {
    let own = ctx.task.creds();
    let theirs = other.creds();
    if owns(&own, &theirs) || own.has_in(&theirs.user_ns, CapSet::SYS_NICE) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

pub async fn sched_yield(_ctx: &mut Ctx<'_>, _args: Args) -> SysResult {
    sentry_platform::executor::yield_now().await;
    Ok(0)
}

pub async fn sched_setaffinity(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let len = args.usize(1).min(MASK_MAX);
    let mut bytes = vec![0; len.next_multiple_of(8)];
    let given = bytes.get_mut(..len).unwrap_or_default();
    ctx.read_bytes(args.raw(2), given).await?;
    let task = affinity_target(ctx, args.i32(0))?;
    check_owner(ctx, &task)?;
    let mut mask = cpu_mask(ctx.kernel.cpus);
    for (word, bytes) in mask.iter_mut().zip(bytes.chunks_exact(8)) {
        *word &= u64::read_from_bytes(bytes).unwrap_or(0);
    }
    let given_words = bytes.len() / 8;
    for word in mask.iter_mut().skip(given_words) {
        *word = 0;
    }
    if mask.iter().all(|word| *word == 0) {
        return Err(Errno::EINVAL);
    }
    task.sched.lock().affinity = mask;
    Ok(0)
}

pub async fn sched_getaffinity(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let len = args.usize(1);
    let needed = cpu_mask(ctx.kernel.cpus).len() * 8;
    if !len.is_multiple_of(8) || len < needed {
        return Err(Errno::EINVAL);
    }
    let task = affinity_target(ctx, args.i32(0))?;
    let mask = task.sched.lock().affinity.clone();
    ctx.write_bytes(args.raw(2), mask.as_slice().as_bytes())
        .await?;
    Ok(needed as u64)
}

const fn is_realtime(policy: u32) -> bool {
    matches!(policy, SCHED_FIFO | SCHED_RR)
}

const fn is_known(policy: u32) -> bool {
    matches!(policy, SCHED_OTHER | SCHED_BATCH | SCHED_IDLE) || is_realtime(policy)
}

/// Sets policy and priority, with `SCHED_RESET_ON_FORK` in the policy.
fn set_policy(ctx: &Ctx<'_>, task: &Task, policy: u32, priority: i32) -> Result<(), Errno> {
    let reset = policy & SCHED_RESET_ON_FORK != 0;
    let policy = policy & !SCHED_RESET_ON_FORK;
    let fits = if is_realtime(policy) {
        (1..=99).contains(&priority)
    } else {
        priority == 0
    };
    if !is_known(policy) || !fits {
        return Err(Errno::EINVAL);
    }
    check_owner(ctx, task)?;
    let priority = u32::try_from(priority).map_err(|_| Errno::EINVAL)?;
    let capable = ctx.task.creds().has(CapSet::SYS_NICE);
    let limit = task.group.limit(RLIMIT_RTPRIO);
    let mut sched = task.sched.lock();
    if !capable {
        let raises = u64::from(priority) > limit && priority > sched.rt_priority;
        let starts = is_realtime(policy) && policy != sched.policy && limit == 0;
        if raises || starts || (sched.reset_on_fork && !reset) {
            return Err(Errno::EPERM);
        }
    }
    sched.policy = policy;
    sched.rt_priority = priority;
    sched.reset_on_fork = reset;
    Ok(())
}

pub async fn sched_setscheduler(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let pid = args.i32(0);
    if args.i32(1) < 0 || pid < 0 || args.raw(2) == 0 {
        return Err(Errno::EINVAL);
    }
    let param = ctx.read(args.ptr::<SchedParam>(2)).await?;
    let task = target(ctx, pid)?;
    set_policy(ctx, &task, args.u32(1), param.sched_priority)?;
    Ok(0)
}

pub async fn sched_getscheduler(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let task = target(ctx, args.i32(0))?;
    let sched = task.sched.lock();
    let reset = if sched.reset_on_fork {
        SCHED_RESET_ON_FORK
    } else {
        0
    };
    Ok(u64::from(sched.policy | reset))
}

pub async fn sched_setparam(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.i32(0) < 0 || args.raw(1) == 0 {
        return Err(Errno::EINVAL);
    }
    let param = ctx.read(args.ptr::<SchedParam>(1)).await?;
    let task = target(ctx, args.i32(0))?;
    let policy = {
        let sched = task.sched.lock();
        let reset = if sched.reset_on_fork {
            SCHED_RESET_ON_FORK
        } else {
            0
        };
        sched.policy | reset
    };
    set_policy(ctx, &task, policy, param.sched_priority)?;
    Ok(0)
}

pub async fn sched_getparam(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.raw(1) == 0 {
        return Err(Errno::EINVAL);
    }
    let task = target(ctx, args.i32(0))?;
    let priority = task.sched.lock().rt_priority;
    let param = SchedParam {
        sched_priority: i32::try_from(priority).unwrap_or(0),
    };
    ctx.write(args.ptr(1), &param).await?;
    Ok(0)
}

pub async fn sched_setattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    const MAX_SIZE: usize = 4096;
    if args.raw(1) == 0 || args.i32(0) < 0 || args.raw(2) != 0 {
        return Err(Errno::EINVAL);
    }
    let known = size_of::<SchedAttr>();
    let stated = ctx.read(args.ptr::<u32>(1)).await?;
    let size = match usize::try_from(stated).map_err(|_| Errno::E2BIG)? {
        0 => SchedAttr::SIZE_VER0,
        size => size,
    };
    if !(SchedAttr::SIZE_VER0..=MAX_SIZE).contains(&size) {
        let ours = u32::try_from(known).unwrap_or(0);
        ctx.write(args.ptr(1), &ours).await?;
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; size.max(known)];
    ctx.read_bytes(args.raw(1), bytes.get_mut(..size).unwrap_or_default())
        .await?;
    let (head, newer) = bytes.split_at_checked(known).ok_or(Errno::EINVAL)?;
    if newer.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let attr = SchedAttr::read_from_bytes(head).map_err(|_| Errno::EINVAL)?;
    let flags = SchedFlags::from_bits(attr.sched_flags).ok_or(Errno::EINVAL)?;
    let task = target(ctx, args.i32(0))?;
    let reset = if flags.contains(SchedFlags::SCHED_FLAG_RESET_ON_FORK) {
        SCHED_RESET_ON_FORK
    } else {
        0
    };
    let priority = i32::try_from(attr.sched_priority).map_err(|_| Errno::EINVAL)?;
    if attr.sched_policy & SCHED_RESET_ON_FORK != 0 {
        return Err(Errno::EINVAL);
    }
    set_policy(ctx, &task, attr.sched_policy | reset, priority)?;
    if !is_realtime(attr.sched_policy) {
        set_nice(ctx, &task, attr.sched_nice)?;
    }
    Ok(0)
}

pub async fn sched_getattr(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let size = args.usize(2);
    if args.raw(1) == 0
        || args.i32(0) < 0
        || !(SchedAttr::SIZE_VER0..=4096).contains(&size)
        || args.raw(3) != 0
    {
        return Err(Errno::EINVAL);
    }
    let task = target(ctx, args.i32(0))?;
    let filled = size.min(size_of::<SchedAttr>());
    let attr = {
        let sched = task.sched.lock();
        SchedAttr {
            size: u32::try_from(filled).unwrap_or(0),
            sched_policy: sched.policy,
            sched_flags: if sched.reset_on_fork {
                SchedFlags::SCHED_FLAG_RESET_ON_FORK.bits()
            } else {
                0
            },
            sched_nice: sched.nice,
            sched_priority: sched.rt_priority,
            sched_util_max: 1024,
            ..SchedAttr::default()
        }
    };
    ctx.write_bytes(
        args.raw(1),
        attr.as_bytes().get(..filled).unwrap_or_default(),
    )
    .await?;
    Ok(0)
}

pub async fn sched_get_priority_max(_ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    match args.u32(0) {
        policy if is_realtime(policy) => Ok(99),
        policy if is_known(policy) || policy == SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn sched_get_priority_min(_ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    match args.u32(0) {
        policy if is_realtime(policy) => Ok(1),
        policy if is_known(policy) || policy == SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn sched_rr_get_interval(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    const RR_SLICE_NS: i64 = 100_000_000;
    const NORMAL_SLICE_NS: i64 = 4_000_000;
    let task = target(ctx, args.i32(0))?;
    let slice = match task.sched.lock().policy {
        SCHED_RR => RR_SLICE_NS,
        SCHED_FIFO => 0,
        _ => NORMAL_SLICE_NS,
    };
    ctx.write(args.ptr(1), &Timespec::from_ns(slice)).await?;
    Ok(0)
}

/// The tasks that `getpriority` and its relatives speak of.
fn chosen(ctx: &Ctx<'_>, which: u32, who: i32) -> Result<Vec<Arc<Task>>, Errno> {
    let ns = ctx.task.pid_ns();
    let tasks = match which {
        PRIO_PROCESS => vec![target(ctx, who).map_err(|_| Errno::ESRCH)?],
        PRIO_PGRP => {
            let group = match who {
                0 => ctx.task.group.process_group(),
                pgid => ns.process_group(pgid),
            };
            let members = group.ok_or(Errno::ESRCH)?.members();
            members.iter().flat_map(|group| group.tasks()).collect()
        }
        PRIO_USER => {
            let creds = ctx.task.creds();
            let uid: Uid = match who {
                0 => creds.uid,
                uid => creds
                    .user_ns
                    .uid_to_kernel(uid.cast_unsigned())
                    .ok_or(Errno::EINVAL)?,
            };
            let all = ns.tasks().into_iter().map(|(_, task)| task);
            all.filter(|task| task.creds().uid == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if tasks.is_empty() {
        return Err(Errno::ESRCH);
    }
    Ok(tasks)
}

pub async fn getpriority(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let tasks = chosen(ctx, args.u32(0), args.i32(1))?;
    let best = tasks.iter().map(|task| 20 - task.nice()).max();
    Ok(u64::from(best.unwrap_or(20).unsigned_abs()))
}

fn set_nice(ctx: &Ctx<'_>, task: &Task, nice: i32) -> Result<(), Errno> {
    let nice = nice.clamp(-20, 19);
    let capable = ctx.task.creds().has(CapSet::SYS_NICE);
    let limit = task.group.limit(RLIMIT_NICE);
    let mut sched = task.sched.lock();
    let floor = 20 - i64::try_from(limit).unwrap_or(40).min(40);
    if nice < sched.nice && !capable && i64::from(nice) < floor {
        return Err(Errno::EACCES);
    }
    sched.nice = nice;
    Ok(())
}

pub async fn setpriority(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mut outcome = Err(Errno::ESRCH);
    for task in chosen(ctx, args.u32(0), args.i32(1))? {
        let done = check_owner(ctx, &task).and_then(|()| set_nice(ctx, &task, args.i32(2)));
        if outcome == Err(Errno::ESRCH) || done.is_err() {
            outcome = done;
        }
    }
    outcome?;
    Ok(0)
}

/// Classes of `ioprio_set(2)`, in the top bits of the value.
const IOPRIO_CLASS_SHIFT: u32 = 13;
const IOPRIO_CLASS_RT: u32 = 1;
const IOPRIO_CLASS_BE: u32 = 2;
const IOPRIO_CLASS_IDLE: u32 = 3;
const IOPRIO_WHO_PROCESS: u32 = 1;
const IOPRIO_WHO_PGRP: u32 = 2;
const IOPRIO_WHO_USER: u32 = 3;

fn io_which(which: u32) -> Result<u32, Errno> {
    match which {
        IOPRIO_WHO_PROCESS => Ok(PRIO_PROCESS),
        IOPRIO_WHO_PGRP => Ok(PRIO_PGRP),
        IOPRIO_WHO_USER => Ok(PRIO_USER),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn ioprio_set(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let value = args.u32(2);
    let level = value & ((1 << IOPRIO_CLASS_SHIFT) - 1);
    match value >> IOPRIO_CLASS_SHIFT {
        IOPRIO_CLASS_RT => {
            let creds = ctx.task.creds();
            if !creds.has(CapSet::SYS_ADMIN) && !creds.has(CapSet::SYS_NICE) {
                return Err(Errno::EPERM);
            }
        }
        IOPRIO_CLASS_BE | IOPRIO_CLASS_IDLE => {}
        0 if level == 0 => {}
        _ => return Err(Errno::EINVAL),
    }
    for task in chosen(ctx, io_which(args.u32(0))?, args.i32(1))? {
        check_owner(ctx, &task)?;
        task.sched.lock().io_priority = value;
    }
    Ok(0)
}

pub async fn ioprio_get(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let tasks = chosen(ctx, io_which(args.u32(0))?, args.i32(1))?;
    let best = tasks
        .iter()
        .map(|task| task.sched.lock().io_priority)
        .min_by_key(|value| if *value == 0 { u32::MAX } else { *value });
    Ok(best.unwrap_or(0).into())
}
