//! Interval timers, POSIX timers, timerfd.

use std::sync::Arc;
use std::time::Duration;

use syscall_tables::Errno;
use syscall_tables::abi::{
    ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, Itimerspec, Itimerval, RLIMIT_SIGPENDING, SIGEV_NONE,
    SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID, SigEvent, Signal, TimerFlags, TimerfdFlags,
    TimerfdSetFlags, Timeval,
};

use super::time::{duration, timespec};
use crate::ctx::{Ctx, SysResult};
use crate::fs::timerfd::TimerFile;
use crate::time::{AnyClock, ItimerKind, Notify, Setting, Timer};
use crate::user::Args;
use crate::vfs::{Fd, FdFlags, StatusFlags};

fn timeval(time: Duration) -> Timeval {
    // Rounded up: an armed timer must not look disarmed.
    let micros = time.as_nanos().div_ceil(1000);
    Timeval {
        tv_sec: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
        tv_usec: i64::try_from(micros % 1_000_000).unwrap_or(0),
    }
}

fn from_timeval(time: Timeval) -> Result<Duration, Errno> {
    if !time.is_valid() {
        return Err(Errno::EINVAL);
    }
    u64::try_from(time.as_ns())
        .map(Duration::from_nanos)
        .map_err(|_| Errno::EINVAL)
}

fn itimer(ctx: &Ctx<'_>, which: u32) -> Result<Arc<Timer>, Errno> {
    let kind = match which {
        ITIMER_REAL => ItimerKind::Real,
        ITIMER_VIRTUAL => ItimerKind::Virtual,
        ITIMER_PROF => ItimerKind::Profile,
        _ => return Err(Errno::EINVAL),
    };
    let group = &ctx.task.group;
    Ok(group.timers.itimer(group, kind))
}

/// A setting that starts `first` from now; zero disarms.
fn starting_in(ctx: &Ctx<'_>, timer: &Timer, first: Duration, interval: Duration) -> Setting {
    Setting {
        at: (!first.is_zero()).then(|| timer.clock().now(ctx.kernel).saturating_add(first)),
        interval,
    }
}

fn shown_timeval((left, interval): (Duration, Duration)) -> Itimerval {
    Itimerval {
        it_interval: timeval(interval),
        it_value: timeval(left),
    }
}

fn shown((left, interval): (Duration, Duration)) -> Itimerspec {
    Itimerspec {
        it_interval: timespec(interval),
        it_value: timespec(left),
    }
}

pub async fn alarm(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let timer = itimer(ctx, ITIMER_REAL)?;
    let first = Duration::from_secs(args.u32(0).into());
    let setting = starting_in(ctx, &timer, first, Duration::ZERO);
    let (left, _) = timer.set(setting);
    let rounded = left.as_secs() + u64::from(left.subsec_millis() >= 500);
    Ok(if left.is_zero() { 0 } else { rounded.max(1) })
}

pub async fn getitimer(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let timer = itimer(ctx, args.u32(0))?;
    ctx.write(args.ptr(1), &shown_timeval(timer.left())).await?;
    Ok(0)
}

pub async fn setitimer(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let new = match args.ptr::<Itimerval>(1).non_null() {
        Some(ptr) => ctx.read(ptr).await?,
        None => Itimerval::default(),
    };
    let timer = itimer(ctx, args.u32(0))?;
    let first = from_timeval(new.it_value)?;
    let interval = from_timeval(new.it_interval)?;
    let old = timer.set(starting_in(ctx, &timer, first, interval));
    if let Some(ptr) = args.ptr(2).non_null() {
        ctx.write(ptr, &shown_timeval(old)).await?;
    }
    Ok(0)
}

pub async fn timer_create(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let clock = AnyClock::from_id(ctx.task, args.i32(0))?;
    if !clock.has_timers() {
        return Err(Errno::EINVAL);
    }
    let event = match args.ptr::<SigEvent>(1).non_null() {
        Some(ptr) => Some(ctx.read(ptr).await?),
        None => None,
    };
    let group = &ctx.task.group;
    let process = || Notify::Process(Arc::downgrade(group));
    let (notify, signal, value) = match event {
        None => (process(), Signal::SIGALRM, None),
        Some(event) => {
            let notify = match event.sigev_notify {
                SIGEV_NONE => Notify::Nothing,
                SIGEV_SIGNAL | SIGEV_THREAD => process(),
                SIGEV_THREAD_ID => {
                    let tid = event.sigev_notify_thread_id;
                    let task = ctx.task.pid_ns().task(tid).ok_or(Errno::EINVAL)?;
                    if !Arc::ptr_eq(&task.group, group) {
                        return Err(Errno::EINVAL);
                    }
                    Notify::Thread(Arc::downgrade(&task))
                }
                _ => return Err(Errno::EINVAL),
            };
            let signal = match Signal::from_raw(event.sigev_signo) {
                Some(signal) => signal,
                None if matches!(notify, Notify::Nothing) => Signal::SIGALRM,
                None => return Err(Errno::EINVAL),
            };
            (notify, signal, Some(event.sigev_value))
        }
    };
    let count = u64::try_from(group.timers.posix_count()).unwrap_or(u64::MAX);
    if count >= group.limit(RLIMIT_SIGPENDING) {
        return Err(Errno::EAGAIN);
    }
    let id = group.timers.create(group, clock, notify, signal, value)?;
    if let Err(error) = ctx.write(args.ptr(2), &id).await {
        group.timers.delete(id)?;
        return Err(error);
    }
    Ok(0)
}

pub async fn timer_settime(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if args.raw(2) == 0 {
        return Err(Errno::EINVAL);
    }
    let new = ctx.read(args.ptr::<Itimerspec>(2)).await?;
    let first = duration(new.it_value)?;
    let interval = duration(new.it_interval)?;
    let timers = &ctx.task.group.timers;
    let timer = timers.posix(args.i32(0))?;
    let flags = TimerFlags::from_bits_truncate(args.u32(1));
    let setting = if flags.contains(TimerFlags::TIMER_ABSTIME) {
        Setting {
            at: (!first.is_zero()).then_some(first),
            interval,
        }
    } else {
        starting_in(ctx, &timer, first, interval)
    };
    let old = timer.set(setting);
    timers.reset_overrun(args.i32(0));
    if let Some(ptr) = args.ptr(3).non_null() {
        ctx.write(ptr, &shown(old)).await?;
    }
    Ok(0)
}

pub async fn timer_gettime(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let timer = ctx.task.group.timers.posix(args.i32(0))?;
    ctx.write(args.ptr(1), &shown(timer.left())).await?;
    Ok(0)
}

pub async fn timer_getoverrun(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let overrun = ctx.task.group.timers.overrun(args.i32(0))?;
    Ok(u64::from(overrun.unsigned_abs()))
}

pub async fn timer_delete(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    ctx.task.group.timers.delete(args.i32(0))?;
    Ok(0)
}

pub async fn timerfd_create(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let flags = TimerfdFlags::from_bits(args.u32(1)).ok_or(Errno::EINVAL)?;
    let clock = AnyClock::from_id(ctx.task, args.i32(0))?;
    let usable = matches!(
        clock,
        AnyClock::Realtime | AnyClock::Monotonic | AnyClock::Boottime
    );
    if !usable || args.i32(0) < 0 {
        return Err(Errno::EINVAL);
    }
    let status = if flags.contains(TimerfdFlags::TFD_NONBLOCK) {
        StatusFlags::NONBLOCK
    } else {
        StatusFlags::empty()
    };
    let file = TimerFile::open(ctx.kernel, args.i32(0), clock, status);
    let fd_flags = if flags.contains(TimerfdFlags::TFD_CLOEXEC) {
        FdFlags::CLOEXEC
    } else {
        FdFlags::empty()
    };
    ctx.add_fd(file, fd_flags)
}

pub async fn timerfd_settime(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let new = ctx.read(args.ptr::<Itimerspec>(2)).await?;
    let flags = TimerfdSetFlags::from_bits(args.u32(1)).ok_or(Errno::EINVAL)?;
    let first = duration(new.it_value)?;
    let interval = duration(new.it_interval)?;
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let timer_file = file.downcast::<TimerFile>().ok_or(Errno::EINVAL)?;
    let timer = timer_file.timer();
    let setting = if flags.contains(TimerfdSetFlags::TFD_TIMER_ABSTIME) {
        Setting {
            at: (!first.is_zero()).then_some(first),
            interval,
        }
    } else {
        starting_in(ctx, timer, first, interval)
    };
    let old = timer_file.set(setting);
    if let Some(ptr) = args.ptr(3).non_null() {
        ctx.write(ptr, &shown(old)).await?;
    }
    Ok(0)
}

pub async fn timerfd_gettime(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let file = ctx.task.files().get(Fd(args.i32(0)))?;
    let timer_file = file.downcast::<TimerFile>().ok_or(Errno::EINVAL)?;
    ctx.write(args.ptr(1), &shown(timer_file.timer().left()))
        .await?;
    Ok(0)
}
