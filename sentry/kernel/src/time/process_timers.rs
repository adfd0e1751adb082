//! Interval timers (setitimer(2)) and POSIX timers (timer_create(2)) of a
//! process.
//!
//! Locks: `posix` and the cells of the interval timers are leaves that are
//! not held while a signal is sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{RLIM_INFINITY, RLIMIT_CPU, SigInfo, Signal};

use super::{AnyClock, Expire, Setting, Timer};
use crate::signal::Origin;
use crate::task::{ExitStatus, Task, ThreadGroup};

/// Which interval timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItimerKind {
    Real,
    /// User time.
    Virtual,
    /// User and system time.
    Profile,
}

impl ItimerKind {
    const fn signal(self) -> Signal {
        match self {
            Self::Real => Signal::SIGALRM,
            Self::Virtual => Signal::SIGVTALRM,
            Self::Profile => Signal::SIGPROF,
        }
    }
}

struct Itimer {
    group: Weak<ThreadGroup>,
    signal: Signal,
}

impl Expire for Itimer {
    fn expired(&self, _count: u64) {
        if let Some(group) = self.group.upgrade() {
            group.signal_from_kernel(self.signal);
        }
    }
}

/// `RLIMIT_CPU`: a signal at the soft limit and each second after it, the end
/// at the hard one.
struct CpuLimit {
    group: Weak<ThreadGroup>,
}

impl Expire for CpuLimit {
    fn expired(&self, _count: u64) {
        let Some(group) = self.group.upgrade() else {
            return;
        };
        let Some(limit) = group.limits().get(RLIMIT_CPU) else {
            return;
        };
        let usage = group.usage();
        let used = (usage.user + usage.system).as_secs();
        if used >= limit.rlim_max {
            group.begin_exit(ExitStatus::Signal {
                signal: Signal::SIGKILL,
                core: false,
            });
        } else if used >= limit.rlim_cur {
            group.signal_from_kernel(Signal::SIGXCPU);
            let next = Duration::from_secs(used.saturating_add(1));
            group.timers.arm_cpu_limit(&group, next);
        }
    }
}

/// A timer with the target it keeps alive.
struct Owned<T> {
    timer: Arc<Timer>,
    target: Arc<T>,
}

/// How a POSIX timer tells of expirations.
#[derive(Clone)]
pub enum Notify {
    Nothing,
    Process(Weak<ThreadGroup>),
    Thread(Weak<Task>),
}

/// A POSIX timer.
pub struct PosixTimer {
    id: i32,
    notify: Notify,
    signal: Signal,
    value: u64,
    /// Expirations since the signal was queued, beyond the first.
    overrun: AtomicI32,
    /// The overrun of the signal delivered last.
    delivered: AtomicI32,
}

impl PosixTimer {
    fn add_overrun(&self, count: u64) {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let more = |now: i32| Some(now.saturating_add(count));
        let _ = self
            .overrun
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

impl Expire for PosixTimer {
    fn expired(&self, count: u64) {
        let info = SigInfo::timer(self.signal, self.id, 0, self.value);
        let queued = match &self.notify {
            Notify::Nothing => return,
            Notify::Process(group) => group
                .upgrade()
                .is_some_and(|group| group.signal_timer(info)),
            Notify::Thread(task) => task.upgrade().is_some_and(|task| task.signal_timer(info)),
        };
        // One signal per timer is queued at a time.
        let missed = if queued { count - 1 } else { count };
        self.add_overrun(missed);
    }
}

#[derive(Default)]
struct PosixTimers {
    timers: BTreeMap<i32, Owned<PosixTimer>>,
    next: i32,
}

/// Interval timers and POSIX timers of one process.
#[derive(Default)]
pub struct ProcessTimers {
    itimers: [OnceLock<Owned<Itimer>>; 3],
    posix: Mutex<PosixTimers>,
    cpu_limit: OnceLock<Owned<CpuLimit>>,
}

impl ProcessTimers {
    /// The interval timer of `group`, whose timers these are.
    pub fn itimer(&self, group: &Arc<ThreadGroup>, kind: ItimerKind) -> Arc<Timer> {
        let [real, user, profile] = &self.itimers;
        let cell = match kind {
            ItimerKind::Real => real,
            ItimerKind::Virtual => user,
            ItimerKind::Profile => profile,
        };
        let owned = cell.get_or_init(|| {
            let clock = match kind {
                ItimerKind::Real => AnyClock::Monotonic,
                _ => AnyClock::ProcessCpu(Arc::downgrade(group)),
            };
            let target = Arc::new(Itimer {
                group: Arc::downgrade(group),
                signal: kind.signal(),
            });
            let weak = Arc::downgrade(&target);
            Owned {
                timer: Timer::new(&group.kernel, clock, weak),
                target,
            }
        });
        owned.timer.clone()
    }

    /// Puts `RLIMIT_CPU` of `group` in force, whose timers these are.
    pub(crate) fn set_cpu_limit(&self, group: &Arc<ThreadGroup>) {
        let soft = group.limit(RLIMIT_CPU);
        if soft != RLIM_INFINITY {
            // No time at all counts as one second.
            self.arm_cpu_limit(group, Duration::from_secs(soft.max(1)));
        } else if let Some(owned) = self.cpu_limit.get() {
            owned.timer.set(Setting::default());
        }
    }

    fn arm_cpu_limit(&self, group: &Arc<ThreadGroup>, at: Duration) {
        let owned = self.cpu_limit.get_or_init(|| {
            let target = Arc::new(CpuLimit {
                group: Arc::downgrade(group),
            });
            let weak = Arc::downgrade(&target);
            let clock = AnyClock::ProcessCpu(Arc::downgrade(group));
            Owned {
                timer: Timer::new(&group.kernel, clock, weak),
                target,
            }
        });
        owned.timer.set(Setting {
            at: Some(at),
            interval: Duration::ZERO,
        });
    }

    /// Makes a POSIX timer; answers its id.
    pub fn create(
        &self,
        group: &Arc<ThreadGroup>,
        clock: AnyClock,
        notify: Notify,
        signal: Signal,
        value: Option<u64>,
    ) -> Result<i32, Errno> {
        let mut posix = self.posix.lock();
        let id = posix.next;
        posix.next = id.checked_add(1).ok_or(Errno::EAGAIN)?;
        let target = Arc::new(PosixTimer {
            id,
            notify,
            signal,
            value: value.unwrap_or(u64::from(id.unsigned_abs())),
            overrun: AtomicI32::new(0),
            delivered: AtomicI32::new(0),
        });
        let weak = Arc::downgrade(&target);
        let timer = Timer::new(&group.kernel, clock, weak);
        posix.timers.insert(id, Owned { timer, target });
        Ok(id)
    }

    /// Number of POSIX timers.
    pub fn posix_count(&self) -> usize {
        self.posix.lock().timers.len()
    }

    /// The timer with this id.
    pub fn posix(&self, id: i32) -> Result<Arc<Timer>, Errno> {
        let posix = self.posix.lock();
        let owned = posix.timers.get(&id).ok_or(Errno::EINVAL)?;
        Ok(owned.timer.clone())
    }

    pub fn delete(&self, id: i32) -> Result<(), Errno> {
        let removed = self.posix.lock().timers.remove(&id);
        removed.map(drop).ok_or(Errno::EINVAL)
    }

    /// Overrun of the signal delivered last.
    pub fn overrun(&self, id: i32) -> Result<i32, Errno> {
        let posix = self.posix.lock();
        let owned = posix.timers.get(&id).ok_or(Errno::EINVAL)?;
        Ok(owned.target.delivered.load(Ordering::Relaxed))
    }

    /// The signal of timer `id` is taken from the queue: fills in its overrun.
    pub(crate) fn deliver(&self, info: &mut SigInfo) {
        let posix = self.posix.lock();
        if let Some(owned) = posix.timers.get(&info.timer_id()) {
            let overrun = owned.target.overrun.swap(0, Ordering::Relaxed);
            owned.target.delivered.store(overrun, Ordering::Relaxed);
            info.set_overrun(overrun);
        }
    }

    /// A timer was set anew: its old overruns don't count.
    pub(crate) fn reset_overrun(&self, id: i32) {
        let posix = self.posix.lock();
        if let Some(owned) = posix.timers.get(&id) {
            owned.target.overrun.store(0, Ordering::Relaxed);
            owned.target.delivered.store(0, Ordering::Relaxed);
        }
    }

    /// `execve` ends POSIX timers; interval timers go on.
    pub(crate) fn exec(&self) {
        let timers = std::mem::take(&mut self.posix.lock().timers);
        drop(timers);
    }

    /// Ends everything.
    pub(crate) fn stop(&self) {
        self.exec();
        for cell in &self.itimers {
            if let Some(owned) = cell.get() {
                owned.timer.set(Setting::default());
            }
        }
        if let Some(owned) = self.cpu_limit.get() {
            owned.timer.set(Setting::default());
        }
    }
}

/// Sends a timer's signal unless it is queued already; whether it was queued.
fn signal_once(
    queued: impl FnOnce(&SigInfo) -> bool,
    send: impl FnOnce(SigInfo) -> Result<(), Errno>,
    info: SigInfo,
) -> bool {
    !queued(&info) && send(info).is_ok()
}

impl ThreadGroup {
    fn signal_timer(self: &Arc<Self>, info: SigInfo) -> bool {
        signal_once(
            |info| self.signals.lock().pending.has_timer(info),
            |info| self.signal(info, Origin::Kernel),
            info,
        )
    }
}

impl Task {
    fn signal_timer(self: &Arc<Self>, info: SigInfo) -> bool {
        signal_once(
            |info| self.signals.lock().pending.has_timer(info),
            |info| self.signal(info, Origin::Kernel),
            info,
        )
    }
}
