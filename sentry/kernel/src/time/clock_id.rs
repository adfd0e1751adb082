//! Which clock a clock id names, and what it shows.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use syscall_tables::Errno;
use syscall_tables::abi::{
    CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, CLOCK_REALTIME_ALARM,
    CLOCK_REALTIME_COARSE, CLOCK_TAI, CLOCK_THREAD_CPUTIME_ID,
};

use crate::kernel::Kernel;
use crate::task::{Task, ThreadGroup};

/// Kinds of ids that name the CPU time of a process or thread: the pid,
/// inverted, above three bits (clock_getcpuclockid(3)).
const CPU_CLOCK_THREAD: i32 = 4;
const CPU_CLOCK_KIND: i32 = 3;
/// What the low bits of a clock behind a descriptor are.
const FD_CLOCK: i32 = 3;

/// Time of day runs ahead of TAI by this now; nobody sets the offset.
const TAI_OFFSET: Duration = Duration::ZERO;

/// A clock.
#[derive(Clone)]
pub enum AnyClock {
    Realtime,
    /// As `Realtime`, with the resolution of a tick.
    RealtimeCoarse,
    Monotonic,
    MonotonicRaw,
    MonotonicCoarse,
    Boottime,
    Tai,
    /// Weak, since a process's own timers run on it.
    ProcessCpu(Weak<ThreadGroup>),
    ThreadCpu(Weak<Task>),
}

impl AnyClock {
    /// The clock that `id` names for `task`; `EINVAL` for an unknown one.
    pub fn from_id(task: &Arc<Task>, id: i32) -> Result<Self, Errno> {
        Ok(match id {
            CLOCK_REALTIME | CLOCK_REALTIME_ALARM => Self::Realtime,
            CLOCK_REALTIME_COARSE => Self::RealtimeCoarse,
            CLOCK_MONOTONIC => Self::Monotonic,
            CLOCK_MONOTONIC_RAW => Self::MonotonicRaw,
            CLOCK_MONOTONIC_COARSE => Self::MonotonicCoarse,
            CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => Self::Boottime,
            CLOCK_TAI => Self::Tai,
            CLOCK_PROCESS_CPUTIME_ID => Self::ProcessCpu(Arc::downgrade(&task.group)),
            CLOCK_THREAD_CPUTIME_ID => Self::ThreadCpu(Arc::downgrade(task)),
            id if id < 0 => Self::cpu_clock(task, id)?,
            _ => return Err(Errno::EINVAL),
        })
    }

    fn cpu_clock(task: &Arc<Task>, id: i32) -> Result<Self, Errno> {
        if id & 7 == FD_CLOCK || id & CPU_CLOCK_KIND == CPU_CLOCK_KIND {
            return Err(Errno::EINVAL);
        }
        let pid = !(id >> 3);
        let found = if pid == 0 {
            task.clone()
        } else {
            task.pid_ns().task(pid).ok_or(Errno::EINVAL)?
        };
        if id & CPU_CLOCK_THREAD != 0 {
            if !Arc::ptr_eq(&found.group, &task.group) {
                return Err(Errno::EINVAL);
            }
            Ok(Self::ThreadCpu(Arc::downgrade(&found)))
        } else {
            Ok(Self::ProcessCpu(Arc::downgrade(&found.group)))
        }
    }

    /// What it shows.
    pub fn now(&self, kernel: &Kernel) -> Duration {
        match self {
            Self::Realtime | Self::RealtimeCoarse => kernel.clock.realtime(),
            Self::Monotonic | Self::MonotonicRaw | Self::MonotonicCoarse => {
                kernel.clock.monotonic()
            }
            Self::Boottime => kernel.clock.boottime(),
            Self::Tai => kernel.clock.realtime() + TAI_OFFSET,
            Self::ProcessCpu(group) => group.upgrade().map_or(Duration::ZERO, |group| {
                let usage = group.usage();
                usage.user + usage.system
            }),
            Self::ThreadCpu(task) => task
                .upgrade()
                .map_or(Duration::ZERO, |task| task.cpu_time()),
        }
    }

    /// What `clock_getres(2)` says.
    pub const fn resolution_ns(&self) -> i64 {
        match self {
            Self::RealtimeCoarse | Self::MonotonicCoarse => 4_000_000,
            _ => 1,
        }
    }

    /// Whether it only runs while somebody uses the CPU.
    pub const fn is_cpu(&self) -> bool {
        matches!(self, Self::ProcessCpu(_) | Self::ThreadCpu(_))
    }

    /// Whether it can be slept on and timers can run on it.
    pub const fn has_timers(&self) -> bool {
        !matches!(
            self,
            Self::RealtimeCoarse | Self::MonotonicCoarse | Self::MonotonicRaw
        )
    }

    /// When to look whether it shows `at`, unless somebody sets it. CPU
    /// clocks can't be ahead of what all threads together may use.
    pub fn instant_of(&self, kernel: &Kernel, at: Duration) -> Option<Instant> {
        const CPU_STEP: Duration = Duration::from_millis(1);
        let left = at.saturating_sub(self.now(kernel));
        let wait = match self {
            Self::ProcessCpu(group) => {
                let threads = group.upgrade().map_or(1, |group| group.thread_count());
                let threads = u32::try_from(threads).unwrap_or(u32::MAX);
                (left / threads.max(1)).max(CPU_STEP)
            }
            Self::ThreadCpu(_) => left.max(CPU_STEP),
            _ => left,
        };
        Instant::now().checked_add(wait)
    }
}
