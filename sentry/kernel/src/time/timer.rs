//! Timers on any clock, with intervals.
//!
//! Lock: a timer's `state`, a leaf. Expiry calls [`Expire::expired`] without
//! it, on the executor's timer thread.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use sentry_platform::executor::TimerGuard;

use super::AnyClock;
use crate::kernel::Kernel;

/// Who is told of expirations.
pub trait Expire: Send + Sync {
    /// `count` periods have ended since the last call. Must be short.
    fn expired(&self, count: u64);
}

/// When a timer expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Time on the clock of the next expiration; `None`: disarmed.
    pub at: Option<Duration>,
    /// Zero: once only.
    pub interval: Duration,
}

#[derive(Default)]
struct State {
    setting: Setting,
    /// Counts settings, so that an expiry that comes late is recognised.
    generation: u64,
    guard: Option<TimerGuard>,
}

/// A timer.
pub struct Timer {
    kernel: Weak<Kernel>,
    clock: AnyClock,
    target: Weak<dyn Expire>,
    this: Weak<Self>,
    state: Mutex<State>,
}

impl Timer {
    /// A disarmed timer.
    pub fn new(kernel: &Arc<Kernel>, clock: AnyClock, target: Weak<dyn Expire>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            kernel: Arc::downgrade(kernel),
            clock,
            target,
            this: this.clone(),
            state: Mutex::default(),
        })
    }

    pub fn clock(&self) -> &AnyClock {
        &self.clock
    }

    /// Arms or disarms; answers what was set before, see [`Self::left`].
    pub fn set(&self, setting: Setting) -> (Duration, Duration) {
        let old = self.left();
        let guard = {
            let mut state = self.state.lock();
            state.generation = state.generation.wrapping_add(1);
            state.setting = setting;
            let old = state.guard.take();
            self.arm(&mut state);
            old
        };
        drop(guard);
        old
    }

    /// Time to the next expiration (zero: disarmed) and the interval.
    pub fn left(&self) -> (Duration, Duration) {
        let setting = self.state.lock().setting;
        let Some(kernel) = self.kernel.upgrade() else {
            return (Duration::ZERO, setting.interval);
        };
        let left = match setting.at {
            None => Duration::ZERO,
            // An expiration that is due must not look like a disarmed timer.
            Some(at) => at
                .saturating_sub(self.clock.now(&kernel))
                .max(Duration::from_nanos(1)),
        };
        (left, setting.interval)
    }

    fn arm(&self, state: &mut State) {
        let (Some(at), Some(kernel)) = (state.setting.at, self.kernel.upgrade()) else {
            return;
        };
        let Some(deadline) = self.clock.instant_of(&kernel, at) else {
            return;
        };
        let (this, generation) = (self.this.clone(), state.generation);
        let guard = kernel.executor.call_at(deadline, move || {
            if let Some(timer) = this.upgrade() {
                timer.look(generation);
            }
        });
        state.guard = Some(guard);
    }

    /// Expires if the clock has come that far, and arms the next time.
    fn look(&self, generation: u64) {
        let Some(kernel) = self.kernel.upgrade() else {
            return;
        };
        // The CPU clocks ask the host: not with the lock held.
        let now = self.clock.now(&kernel);
        let (count, guard) = {
            let mut state = self.state.lock();
            let Some(at) = state.setting.at else {
                return;
            };
            if state.generation != generation {
                return;
            }
            let guard = state.guard.take();
            let count = if now < at {
                0
            } else {
                let interval = state.setting.interval;
                let (count, next) = next_expiry(at, interval, now);
                state.setting.at = next;
                count
            };
            self.arm(&mut state);
            (count, guard)
        };
        drop(guard);
        if count > 0
            && let Some(target) = self.target.upgrade()
        {
            target.expired(count);
        }
    }
}

/// How many periods have ended at `now`, and when the next one does.
fn next_expiry(at: Duration, interval: Duration, now: Duration) -> (u64, Option<Duration>) {
    if interval.is_zero() {
        return (1, None);
    }
    let late = now.saturating_sub(at).as_nanos();
    let missed = u64::try_from(late / interval.as_nanos()).unwrap_or(u64::MAX - 1);
    let count = missed.saturating_add(1);
    let step = interval.as_nanos().saturating_mul(u128::from(count));
    let step = Duration::from_nanos(u64::try_from(step).unwrap_or(u64::MAX));
    (count, at.checked_add(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_expiries_are_counted() {
        let ms = Duration::from_millis;
        assert_eq!(next_expiry(ms(10), ms(0), ms(50)), (1, None));
        assert_eq!(next_expiry(ms(10), ms(10), ms(10)), (1, Some(ms(20))));
        assert_eq!(next_expiry(ms(10), ms(10), ms(35)), (3, Some(ms(40))));
    }
}
