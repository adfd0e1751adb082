//! Clocks and sleeping.

use std::time::{Duration, Instant};

use syscall_tables::Errno;
use syscall_tables::abi::{
    CLOCK_THREAD_CPUTIME_ID, STA_UNSYNC, TIME_ERROR, TimerFlags, Timespec, Timeval, Timex, Timezone,
};

use crate::ctx::{Ctx, SysResult};
use crate::task::CapSet;
use crate::time::AnyClock;
use crate::user::{Args, UserPtr};

/// A valid time-out of a call as a duration.
pub(super) fn duration(time: Timespec) -> Result<Duration, Errno> {
    if !time.is_valid() {
        return Err(Errno::EINVAL);
    }
    u64::try_from(time.as_ns())
        .map(Duration::from_nanos)
        .map_err(|_| Errno::EINVAL)
}

/// A duration as the kernel shows it.
pub(super) fn timespec(time: Duration) -> Timespec {
    Timespec::from_ns(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

pub async fn clock_gettime(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let clock = AnyClock::from_id(ctx.task, args.i32(0))?;
    let now = timespec(clock.now(ctx.kernel));
    ctx.write(args.ptr(1), &now).await?;
    Ok(0)
}

pub async fn clock_getres(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let clock = AnyClock::from_id(ctx.task, args.i32(0))?;
    if let Some(ptr) = args.ptr(1).non_null() {
        ctx.write(ptr, &Timespec::from_ns(clock.resolution_ns()))
            .await?;
    }
    Ok(0)
}

/// The host's clocks are not a guest's to set.
pub async fn clock_settime(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let clock = AnyClock::from_id(ctx.task, args.i32(0))?;
    duration(ctx.read(args.ptr::<Timespec>(1)).await?)?;
    match clock {
        AnyClock::Realtime => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn settimeofday(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if let Some(ptr) = args.ptr::<Timeval>(0).non_null()
        && !ctx.read(ptr).await?.is_valid()
    {
        return Err(Errno::EINVAL);
    }
    Err(Errno::EPERM)
}

pub async fn gettimeofday(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    if let Some(ptr) = args.ptr(0).non_null() {
        let now = ctx.kernel.clock.realtime();
        let ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        ctx.write(ptr, &Timeval::from_ns(ns)).await?;
    }
    if let Some(ptr) = args.ptr(1).non_null() {
        ctx.write(ptr, &Timezone::default()).await?;
    }
    Ok(0)
}

pub async fn time(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let now = ctx.kernel.clock.realtime().as_secs();
    if let Some(ptr) = args.ptr(0).non_null() {
        ctx.write(ptr, &now).await?;
    }
    Ok(now)
}

/// Reads the state of the clock's discipline: nobody steers it.
async fn adjust(ctx: &mut Ctx<'_>, ptr: UserPtr<Timex>) -> SysResult {
    let mut state = ctx.read(ptr).await?;
    if state.modes != 0 {
        return if ctx.task.creds().has(CapSet::SYS_TIME) {
            Err(Errno::EINVAL)
        } else {
            Err(Errno::EPERM)
        };
    }
    let now = ctx.kernel.clock.realtime();
    state.status = STA_UNSYNC;
    state.tick = 10_000;
    state.precision = 1;
    state.tolerance = 32_768_000;
    state.time = Timeval::from_ns(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
    ctx.write(ptr, &state).await?;
    Ok(TIME_ERROR.into())
}

pub async fn adjtimex(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    adjust(ctx, args.ptr(0)).await
}

pub async fn clock_adjtime(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    match AnyClock::from_id(ctx.task, args.i32(0))? {
        AnyClock::Realtime => adjust(ctx, args.ptr(1)).await,
        _ => Err(Errno::EOPNOTSUPP),
    }
}

pub async fn nanosleep(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let deadline = match ctx.task.restarted_deadline() {
        Some(deadline) => deadline,
        None => {
            let wanted = duration(ctx.read(args.ptr::<Timespec>(0)).await?)?;
            Instant::now().checked_add(wanted)
        }
    };
    sleep_until(ctx, deadline, args.ptr(1)).await
}

/// Sleeps a relative time that is restarted with the deadline it had.
async fn sleep_until(
    ctx: &mut Ctx<'_>,
    deadline: Option<Instant>,
    left: UserPtr<Timespec>,
) -> SysResult {
    match ctx.sleep(deadline).await {
        Ok(()) => Ok(0),
        Err(Errno::ERESTARTSYS) => {
            if let Some(left) = left.non_null() {
                let now = Instant::now();
                let rest = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
                ctx.write(left, &timespec(rest)).await?;
            }
            Err(ctx.task.restart_at(deadline))
        }
        Err(other) => Err(other),
    }
}

pub async fn clock_nanosleep(ctx: &mut Ctx<'_>, args: Args) -> SysResult {
    let id = args.i32(0);
    let clock = AnyClock::from_id(ctx.task, id)?;
    if !clock.has_timers() {
        return Err(Errno::EOPNOTSUPP);
    }
    if id == CLOCK_THREAD_CPUTIME_ID {
        return Err(Errno::EOPNOTSUPP);
    }
    let wanted = ctx.read(args.ptr::<Timespec>(2)).await?;
    let wanted = duration(wanted)?;
    let flags = TimerFlags::from_bits_truncate(args.u32(1));
    if flags.contains(TimerFlags::TIMER_ABSTIME) {
        return match sleep_on(ctx, &clock, wanted).await {
            Err(Errno::ERESTARTSYS) => Err(Errno::ERESTARTNOHAND),
            other => other,
        };
    }
    if clock.is_cpu() {
        let at = clock.now(ctx.kernel).saturating_add(wanted);
        return match sleep_on(ctx, &clock, at).await {
            Err(Errno::ERESTARTSYS) => Err(Errno::EINTR),
            other => other,
        };
    }
    let deadline = match ctx.task.restarted_deadline() {
        Some(deadline) => deadline,
        None => Instant::now().checked_add(wanted),
    };
    sleep_until(ctx, deadline, args.ptr(3)).await
}

/// Sleeps until `clock` shows `at`, looking again when it should.
async fn sleep_on(ctx: &mut Ctx<'_>, clock: &AnyClock, at: Duration) -> SysResult {
    while clock.now(ctx.kernel) < at {
        let deadline = clock.instant_of(ctx.kernel, at);
        ctx.sleep(deadline).await?;
    }
    Ok(0)
}
