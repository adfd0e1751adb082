//! Host calls the sentry makes, as safe functions that return Linux errors.
//!
//! The sentry's seccomp list allows exactly what this module needs.

pub mod file;
pub mod random;

use syscall_tables::Errno;

/// Converts an error of `nix`.
pub fn errno(err: nix::Error) -> Errno {
    Errno::from_raw(err as i32)
}

/// Clocks of the host that the sentry reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostClock {
    Monotonic,
    Realtime,
    Boottime,
}

/// What `clock` shows.
pub fn clock_gettime(clock: HostClock) -> std::time::Duration {
    let id = match clock {
        HostClock::Monotonic => nix::time::ClockId::CLOCK_MONOTONIC,
        HostClock::Realtime => nix::time::ClockId::CLOCK_REALTIME,
        HostClock::Boottime => nix::time::ClockId::CLOCK_BOOTTIME,
    };
    // These clocks exist on every kernel the sentry runs on.
    nix::time::clock_gettime(id).map_or(std::time::Duration::ZERO, std::time::Duration::from)
}
