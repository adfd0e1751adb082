//! Time structs, clocks, interval timers and timerfd.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct timespec`.
#[derive(
    PartialOrd,
    Ord,
    Hash,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Timespec {
    pub tv_sec: i64,
    pub tv_nsec: i64,
}

/// Nanoseconds in a second.
pub const NSEC_PER_SEC: i64 = 1_000_000_000;

impl Timespec {
    /// Zero seconds.
    pub const ZERO: Self = Self {
        tv_sec: 0,
        tv_nsec: 0,
    };

    /// From a count of nanoseconds, which may be negative.
    pub const fn from_ns(ns: i64) -> Self {
        Self {
            tv_sec: ns.div_euclid(NSEC_PER_SEC),
            tv_nsec: ns.rem_euclid(NSEC_PER_SEC),
        }
    }

    /// Whether the nanoseconds are within a second and the seconds not
    /// negative: what calls that take a time-out demand.
    pub const fn is_valid(self) -> bool {
        self.tv_sec >= 0 && self.tv_nsec >= 0 && self.tv_nsec < NSEC_PER_SEC
    }

    /// Count of nanoseconds, saturating at the ends of `i64` as the kernel's
    /// `ktime_t` does.
    pub const fn as_ns(self) -> i64 {
        self.tv_sec
            .saturating_mul(NSEC_PER_SEC)
            .saturating_add(self.tv_nsec)
    }
}

/// `struct timeval`.
#[derive(
    PartialOrd,
    Ord,
    Hash,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Timeval {
    pub tv_sec: i64,
    pub tv_usec: i64,
}

impl Timeval {
    /// From a count of nanoseconds, rounded down.
    pub const fn from_ns(ns: i64) -> Self {
        Self {
            tv_sec: ns.div_euclid(NSEC_PER_SEC),
            tv_usec: ns.rem_euclid(NSEC_PER_SEC) / 1000,
        }
    }

    /// Whether the microseconds are within a second and the seconds not negative.
    pub const fn is_valid(self) -> bool {
        self.tv_sec >= 0 && self.tv_usec >= 0 && self.tv_usec < 1_000_000
    }

    /// Count of nanoseconds, saturating.
    pub const fn as_ns(self) -> i64 {
        self.tv_sec
            .saturating_mul(NSEC_PER_SEC)
            .saturating_add(self.tv_usec.saturating_mul(1000))
    }
}

/// `struct timezone`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Timezone {
    pub tz_minuteswest: i32,
    pub tz_dsttime: i32,
}

/// `struct itimerval`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Itimerval {
    pub it_interval: Timeval,
    pub it_value: Timeval,
}

/// `struct itimerspec`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Itimerspec {
    pub it_interval: Timespec,
    pub it_value: Timespec,
}

/// `struct utimbuf` of utime(2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Utimbuf {
    pub actime: i64,
    pub modtime: i64,
}

/// `struct tms` of times(2), in clock ticks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tms {
    pub tms_utime: i64,
    pub tms_stime: i64,
    pub tms_cutime: i64,
    pub tms_cstime: i64,
}

/// Clock ticks per second of times(2) and /proc.
pub const USER_HZ: u64 = 100;
/// utimensat(2): set to now.
pub const UTIME_NOW: i64 = 0x3fff_ffff;
/// utimensat(2): leave.
pub const UTIME_OMIT: i64 = 0x3fff_fffe;

const_set! {
    /// Clock ids.
    CLOCKS: i32 {
        CLOCK_REALTIME = 0,
        CLOCK_MONOTONIC = 1,
        CLOCK_PROCESS_CPUTIME_ID = 2,
        CLOCK_THREAD_CPUTIME_ID = 3,
        CLOCK_MONOTONIC_RAW = 4,
        CLOCK_REALTIME_COARSE = 5,
        CLOCK_MONOTONIC_COARSE = 6,
        CLOCK_BOOTTIME = 7,
        CLOCK_REALTIME_ALARM = 8,
        CLOCK_BOOTTIME_ALARM = 9,
        CLOCK_TAI = 11,
    }
}

const_set! {
    /// Interval timers of setitimer(2).
    ITIMERS: u32 {
        ITIMER_REAL = 0,
        ITIMER_VIRTUAL = 1,
        ITIMER_PROF = 2,
    }
}

flag_set! {
    /// Flags of timer_settime(2) and clock_nanosleep(2).
    TimerFlags: u32, TIMER_FLAGS {
        TIMER_ABSTIME = 0x1,
    }
}

flag_set! {
    /// Flags of timerfd_create(2).
    TimerfdFlags: u32, TIMERFD_FLAGS {
        TFD_CLOEXEC = 0x80000,
        TFD_NONBLOCK = 0x800,
    }
}

flag_set! {
    /// Flags of timerfd_settime(2).
    TimerfdSetFlags: u32, TIMERFD_SET_FLAGS {
        TFD_TIMER_ABSTIME = 1,
        TFD_TIMER_CANCEL_ON_SET = 2,
    }
}

/// `struct timex` of adjtimex(2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Timex {
    pub modes: u32,
    pub __pad0: u32,
    pub offset: i64,
    pub freq: i64,
    pub maxerror: i64,
    pub esterror: i64,
    pub status: i32,
    pub __pad1: u32,
    pub constant: i64,
    pub precision: i64,
    pub tolerance: i64,
    pub time: Timeval,
    pub tick: i64,
    pub ppsfreq: i64,
    pub jitter: i64,
    pub shift: i32,
    pub __pad2: u32,
    pub stabil: i64,
    pub jitcnt: i64,
    pub calcnt: i64,
    pub errcnt: i64,
    pub stbcnt: i64,
    pub tai: i32,
    pub __pad3: [u32; 11],
}

/// `STA_UNSYNC`: the clock is not synchronised.
pub const STA_UNSYNC: i32 = 0x40;
/// Answer of adjtimex(2) for an unsynchronised clock.
pub const TIME_ERROR: u32 = 5;
