//! Resource limits and usage.

use std::sync::Arc;
use std::time::Duration;

use syscall_tables::Errno;
use syscall_tables::abi::{
    RLIMIT_CPU, RLIMIT_NOFILE, RLIMIT_STACK, RUSAGE_CHILDREN, RUSAGE_SELF, RUSAGE_THREAD, Rlimit,
    Tms, USER_HZ,
};

use super::wait::rusage;
use crate::ctx::{Ctx, SysResult};
use crate::mm::Via;
use crate::task::{CapSet, Creds, ThreadGroup};
use crate::user::Args;

/// Highest limit of open files (`/proc/sys/fs/nr_open`).
const NR_OPEN: u64 = 1 << 20;

/// Changes a limit of `group` by the rules of `setrlimit(2)`.
fn change(
    group: &Arc<ThreadGroup>,
    creds: &Creds,
    resource: u32,
    new: Rlimit,
) -> Result<(), Errno> {
    if new.rlim_cur > new.rlim_max {
        return Err(Errno::EINVAL);
    }
    if resource == RLIMIT_NOFILE && new.rlim_max > NR_OPEN {
        return Err(Errno::EPERM);
    }
    group.with_limits(|limits| {
        let old = limits.get(resource).ok_or(Errno::EINVAL)?;
        if new.rlim_max > old.rlim_max && !creds.has(CapSet::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        limits.set(resource, new);
        Ok(())
    })?;
    if resource == RLIMIT_CPU {
        group.timers.set_cpu_limit(group);
    }
    Ok(())
}

/// The stack's whole reserve is mapped: what a lower limit forbids goes.
async fn shrink_stack(ctx: &mut Ctx<'_>, resource: u32, new: Rlimit) {
    if resource == RLIMIT_STACK {
        let pointer = ctx.regs().rsp;
        let mm = ctx.task.mm();
        let mut via = Via::Thread(ctx.thread.as_mut());
        mm.shrink_stack(&mut via, new.rlim_cur, pointer).await;
    }
}

pub async fn getrlimit(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let limits = ctx.task.group.limits();
    let limit = limits.get(args.u32(0)).ok_or(Errno::EINVAL)?;
    ctx.write(args.ptr(1), &limit).await?;
    Ok(0)
}

pub async fn setrlimit(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let new = ctx.read(args.ptr::<Rlimit>(1)).await?;
    let creds = ctx.task.creds();
    change(&ctx.task.group, &creds, args.u32(0), new)?;
    shrink_stack(ctx, args.u32(0), new).await;
    Ok(0)
}

pub async fn prlimit64(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let new = match args.ptr::<Rlimit>(2).non_null() {
        Some(ptr) => Some(ctx.read(ptr).await?),
        None => None,
    };
    let creds = ctx.task.creds();
    let group = match args.i32(0) {
        0 => ctx.task.group.clone(),
        pid => {
            let task = ctx.task.pid_ns().task(pid).ok_or(Errno::ESRCH)?;
            if !Arc::ptr_eq(&task.group, &ctx.task.group) {
                check_foreign(&creds, &task.creds())?;
            }
            task.group.clone()
        }
    };
    let old = group.limits().get(args.u32(1)).ok_or(Errno::EINVAL)?;
    if let Some(new) = new {
        change(&group, &creds, args.u32(1), new)?;
        if Arc::ptr_eq(&group, &ctx.task.group) {
            shrink_stack(ctx, args.u32(1), new).await;
        }
    }
    if let Some(ptr) = args.ptr(3).non_null() {
        ctx.write(ptr, &old).await?;
    }
    Ok(0)
}

/// Limits of another process: same ids throughout, or `CAP_SYS_RESOURCE`.
fn check_foreign(own: &Creds, other: &Creds) -> Result<(), Errno> {
    let same_uid = [other.uid, other.euid, other.suid]
        .iter()
        .all(|uid| *uid == own.uid);
    let same_gid = [other.gid, other.egid, other.sgid]
        .iter()
        .all(|gid| *gid == own.gid);
    if (same_uid && same_gid) || own.has_in(&other.user_ns, CapSet::SYS_RESOURCE) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

pub async fn getrusage(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let group = &ctx.task.group;
    let who = args.i32(0);
    if matches!(who, RUSAGE_SELF | RUSAGE_THREAD) {
        ctx.kernel.measure(&ctx.task.mm()).await;
    }
    let (mut usage, peaks) = match who {
        RUSAGE_SELF => (group.usage(), group.peaks.lock().clone()),
        RUSAGE_CHILDREN => (group.children_usage(), group.reaped_peaks.lock().clone()),
        RUSAGE_THREAD => (ctx.task.usage(), group.peaks.lock().clone()),
        _ => return Err(Errno::EINVAL),
    };
    let past = peaks.largest(ctx.kernel).await;
    usage.max_rss_bytes = usage.max_rss_bytes.max(past);
    ctx.write(args.ptr(1), &rusage(&usage)).await?;
    Ok(0)
}

fn ticks(time: Duration) -> i64 {
    let per_tick = 1_000_000_000 / u128::from(USER_HZ);
    i64::try_from(time.as_nanos() / per_tick).unwrap_or(i64::MAX)
}

pub async fn times(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let own = ctx.task.group.usage();
    let children = ctx.task.group.children_usage();
    if let Some(ptr) = args.ptr(0).non_null() {
        let times = Tms {
            tms_utime: ticks(own.user),
            tms_stime: ticks(own.system),
            tms_cutime: ticks(children.user),
            tms_cstime: ticks(children.system),
        };
        ctx.write(ptr, &times).await?;
    }
    Ok(ticks(ctx.kernel.clock.monotonic()).unsigned_abs())
}
