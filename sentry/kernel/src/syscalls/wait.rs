//! `wait4`, `waitid`.

use std::time::Duration;

use syscall_tables::Errno;
use syscall_tables::abi::{P_ALL, P_PGID, P_PID, P_PIDFD, Rusage, SigInfo, Timeval, WaitOptions};

use crate::ctx::{Ctx, SysResult};
use crate::task::pidfd::Pidfd;
use crate::task::wait::{Found, Selector, wait_for_child};
use crate::task::{Task, Usage};
use crate::user::Args;
use crate::vfs::Fd;

/// Options of `wait4`; it always waits for exits.
const WAIT4_OPTIONS: WaitOptions = WaitOptions::WNOHANG
    .union(WaitOptions::WUNTRACED)
    .union(WaitOptions::WCONTINUED)
    .union(THREAD_OPTIONS);

const WAITID_OPTIONS: WaitOptions = WaitOptions::WNOHANG
    .union(WaitOptions::WNOWAIT)
    .union(WaitOptions::WEXITED)
    .union(WaitOptions::WUNTRACED)
    .union(WaitOptions::WCONTINUED)
    .union(THREAD_OPTIONS);

const THREAD_OPTIONS: WaitOptions = WaitOptions::__WNOTHREAD
    .union(WaitOptions::__WALL)
    .union(WaitOptions::__WCLONE);

fn process(task: &Task, pid: i32) -> Selector {
    task.pid_ns()
        .pid(pid)
        .map_or(Selector::Nobody, Selector::Process)
}

fn group(task: &Task, pgid: i32) -> Selector {
    task.pid_ns()
        .process_group(pgid)
        .map_or(Selector::Nobody, Selector::Group)
}

fn own_group(task: &Task) -> Selector {
    task.group
        .process_group()
        .map_or(Selector::Nobody, Selector::Group)
}

pub async fn wait4(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let options = WaitOptions::from_bits(args.u32(2)).ok_or(Errno::EINVAL)?;
    if !WAIT4_OPTIONS.contains(options) {
        return Err(Errno::EINVAL);
    }
    let selector = match args.i32(0) {
        -1 => Selector::Any,
        0 => own_group(ctx.task),
        pid if pid > 0 => process(ctx.task, pid),
        i32::MIN => return Err(Errno::ESRCH),
        pid => group(ctx.task, -pid),
    };
    let found = wait_for_child(ctx, &selector, options | WaitOptions::WEXITED).await?;
    let Some(found) = found else {
        return Ok(0);
    };
    if let Some(ptr) = args.ptr(1).non_null() {
        ctx.write(ptr, &found.status).await?;
    }
    let pid = found.pid;
    if let Some(ptr) = args.ptr(3).non_null() {
        ctx.write(ptr, &rusage(&complete_usage(ctx, found).await))
            .await?;
    }
    Ok(u64::from(pid.unsigned_abs()))
}

pub async fn waitid(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let mut options = WaitOptions::from_bits(args.u32(3)).ok_or(Errno::EINVAL)?;
    let events = WaitOptions::WEXITED | WaitOptions::WUNTRACED | WaitOptions::WCONTINUED;
    if !WAITID_OPTIONS.contains(options) || !options.intersects(events) {
        return Err(Errno::EINVAL);
    }
    let id = args.i32(1);
    let mut nonblocking = false;
    let selector = match args.u32(0) {
        P_ALL => Selector::Any,
        P_PID if id > 0 => process(ctx.task, id),
        P_PGID if id > 0 => group(ctx.task, id),
        P_PGID if id == 0 => own_group(ctx.task),
        P_PIDFD if id >= 0 => {
            let file = ctx.task.files().get(Fd(id))?;
            nonblocking = file.is_nonblocking();
            Selector::Process(Pidfd::of(&file)?.pid.clone())
        }
        _ => return Err(Errno::EINVAL),
    };
    let polls = nonblocking && !options.contains(WaitOptions::WNOHANG);
    if polls {
        options |= WaitOptions::WNOHANG;
    }
    let found = wait_for_child(ctx, &selector, options).await?;
    if found.is_none() && polls {
        return Err(Errno::EAGAIN);
    }
    if let Some(ptr) = args.ptr::<SigInfo>(2).non_null() {
        let info = found
            .as_ref()
            .map_or_else(SigInfo::default, |found| found.siginfo());
        ctx.write(ptr, &info).await?;
    }
    if let (Some(found), Some(ptr)) = (found, args.ptr(4).non_null()) {
        ctx.write(ptr, &rusage(&complete_usage(ctx, found).await))
            .await?;
    }
    Ok(0)
}

/// The usage with what the host tells only after a process has ended.
async fn complete_usage(ctx: &Ctx<'_>, found: Found) -> Usage {
    let past = found.peaks.largest(ctx.kernel).await;
    let mut usage = found.usage;
    usage.max_rss_bytes = usage.max_rss_bytes.max(past);
    usage
}

/// A [`Usage`] as `getrusage(2)` answers it.
pub(super) fn rusage(usage: &Usage) -> Rusage {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Rusage {
        ru_utime: timeval(usage.user),
        ru_stime: timeval(usage.system),
        ru_maxrss: signed(usage.max_rss_bytes / 1024),
        ru_minflt: signed(usage.minor_faults),
        ru_majflt: signed(usage.major_faults),
        ru_nvcsw: signed(usage.voluntary_switches),
        ru_nivcsw: signed(usage.involuntary_switches),
        ..Rusage::default()
    }
}

fn timeval(time: Duration) -> Timeval {
    Timeval::from_ns(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}
