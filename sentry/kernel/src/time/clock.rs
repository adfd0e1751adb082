//! The sandbox's clocks. They are the host's, since the guest's vDSO reads
//! those without asking the sentry.

use std::time::{Duration, Instant};

use crate::vfs::Timestamp;
use sentry_platform::host::{HostClock, clock_gettime};

/// Reads clocks.
#[derive(Debug, Default)]
pub struct Clock {}

impl Clock {
    /// `CLOCK_MONOTONIC`.
    pub fn monotonic(&self) -> Duration {
        clock_gettime(HostClock::Monotonic)
    }

    /// `CLOCK_REALTIME` since the epoch.
    pub fn realtime(&self) -> Duration {
        clock_gettime(HostClock::Realtime)
    }

    /// `CLOCK_REALTIME` as files keep it.
    pub fn now(&self) -> Timestamp {
        let now = self.realtime();
        Timestamp {
            secs: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            nanos: now.subsec_nanos(),
        }
    }

    /// `CLOCK_BOOTTIME`.
    pub fn boottime(&self) -> Duration {
        clock_gettime(HostClock::Boottime)
    }

    /// When `CLOCK_MONOTONIC` will show `at`, as the executor's timers want
    /// it; `None` if that is too far off to be told apart from never.
    pub fn monotonic_instant(&self, at: Duration) -> Option<Instant> {
        let now = self.monotonic();
        Instant::now().checked_add(at.saturating_sub(now))
    }

    /// When `CLOCK_REALTIME` will show `at`, if nobody sets the clock.
    pub fn realtime_instant(&self, at: Duration) -> Option<Instant> {
        let now = self.realtime();
        Instant::now().checked_add(at.saturating_sub(now))
    }
}
