//! Host calls the sentry makes, as safe functions that return Linux errors.
//!
//! | module | holds |
//! |---|---|
//! | [`cgroup`] | files of the cgroups that limit guests |
//! | [`file`] | positioned transfers, sizes, seals of memfds and donated files |
//! | [`inet`] | sockets of the host's network, for guests in host network mode |
//! | [`io`] | vectored transfers without waiting, attributes of descriptors |
//! | [`memfd`] | sized memory objects |
//! | [`random`] | random bytes |
//! | [`seccomp`] | the list of calls the sentry may make |
//! | [`socket`] | unix sockets with descriptors |
//! | [`system`] | memory, load and CPUs of the host |
//! | [`tty`] | terminals given as stdio |

pub mod cgroup;
pub mod file;
pub mod inet;
pub mod io;
pub mod memfd;
pub mod memory;
pub mod random;
pub mod seccomp;
pub mod socket;
pub mod system;
pub mod tty;

use syscall_tables::Errno;

/// Converts an error of `nix`.
pub fn errno(err: nix::Error) -> Errno {
    Errno::from_raw(err as i32)
}

/// Clocks of the host that the sentry reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostClock {
    Monotonic,
    /// The same at the time of the last tick; a quarter of the cost.
    MonotonicCoarse,
    Realtime,
    Boottime,
}

/// What `clock` shows.
pub fn clock_gettime(clock: HostClock) -> std::time::Duration {
    let id = match clock {
        HostClock::Monotonic => nix::time::ClockId::CLOCK_MONOTONIC,
        HostClock::MonotonicCoarse => nix::time::ClockId::CLOCK_MONOTONIC_COARSE,
        HostClock::Realtime => nix::time::ClockId::CLOCK_REALTIME,
        HostClock::Boottime => nix::time::ClockId::CLOCK_BOOTTIME,
    };
    // These clocks exist on every kernel the sentry runs on.
    nix::time::clock_gettime(id).map_or(std::time::Duration::ZERO, std::time::Duration::from)
}
