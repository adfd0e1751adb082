//! Resource usage and limits, system information, scheduling.

use super::names::{const_set, flag_set};
use super::time::Timeval;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct rusage`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Rusage {
    pub ru_utime: Timeval,
    pub ru_stime: Timeval,
    /// In KiB.
    pub ru_maxrss: i64,
    pub ru_ixrss: i64,
    pub ru_idrss: i64,
    pub ru_isrss: i64,
    pub ru_minflt: i64,
    pub ru_majflt: i64,
    pub ru_nswap: i64,
    pub ru_inblock: i64,
    pub ru_oublock: i64,
    pub ru_msgsnd: i64,
    pub ru_msgrcv: i64,
    pub ru_nsignals: i64,
    pub ru_nvcsw: i64,
    pub ru_nivcsw: i64,
}

/// `struct rlimit64`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Rlimit {
    pub rlim_cur: u64,
    pub rlim_max: u64,
}

/// No limit.
pub const RLIM_INFINITY: u64 = u64::MAX;
/// Number of resources with a limit.
pub const RLIM_NLIMITS: usize = 16;

const_set! {
    /// Whom getrusage(2) speaks of.
    RUSAGE_WHO: i32 {
        RUSAGE_SELF = 0,
        RUSAGE_CHILDREN = -1,
        RUSAGE_THREAD = 1,
    }
}

const_set! {
    /// Resources of setrlimit(2).
    RLIMITS: u32 {
        RLIMIT_CPU = 0,
        RLIMIT_FSIZE = 1,
        RLIMIT_DATA = 2,
        RLIMIT_STACK = 3,
        RLIMIT_CORE = 4,
        RLIMIT_RSS = 5,
        RLIMIT_NPROC = 6,
        RLIMIT_NOFILE = 7,
        RLIMIT_MEMLOCK = 8,
        RLIMIT_AS = 9,
        RLIMIT_LOCKS = 10,
        RLIMIT_SIGPENDING = 11,
        RLIMIT_MSGQUEUE = 12,
        RLIMIT_NICE = 13,
        RLIMIT_RTPRIO = 14,
        RLIMIT_RTTIME = 15,
    }
}

const_set! {
    /// Whom setpriority(2) speaks of.
    PRIO_WHICH: u32 {
        PRIO_PROCESS = 0,
        PRIO_PGRP = 1,
        PRIO_USER = 2,
    }
}

const_set! {
    /// Scheduling policies.
    SCHED_POLICIES: u32 {
        SCHED_OTHER = 0,
        SCHED_FIFO = 1,
        SCHED_RR = 2,
        SCHED_BATCH = 3,
        SCHED_IDLE = 5,
        SCHED_DEADLINE = 6,
        SCHED_EXT = 7,
    }
}

/// Flag in the policy of sched_setscheduler(2).
pub const SCHED_RESET_ON_FORK: u32 = 0x40000000;

flag_set! {
    /// `sched_flags` of `struct sched_attr`.
    SchedFlags: u64, SCHED_FLAGS {
        SCHED_FLAG_RESET_ON_FORK = 1,
        SCHED_FLAG_RECLAIM = 2,
        SCHED_FLAG_DL_OVERRUN = 4,
        SCHED_FLAG_KEEP_POLICY = 8,
        SCHED_FLAG_KEEP_PARAMS = 0x10,
        SCHED_FLAG_UTIL_CLAMP_MIN = 0x20,
        SCHED_FLAG_UTIL_CLAMP_MAX = 0x40,
    }
}

flag_set! {
    /// Flags of getrandom(2).
    GetrandomFlags: u32, GETRANDOM_FLAGS {
        GRND_NONBLOCK = 0x1,
        GRND_RANDOM = 0x2,
        GRND_INSECURE = 4,
    }
}

/// `struct sched_param`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SchedParam {
    pub sched_priority: i32,
}

/// `struct sched_attr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SchedAttr {
    pub size: u32,
    pub sched_policy: u32,
    pub sched_flags: u64,
    pub sched_nice: i32,
    pub sched_priority: u32,
    pub sched_runtime: u64,
    pub sched_deadline: u64,
    pub sched_period: u64,
    pub sched_util_min: u32,
    pub sched_util_max: u32,
}

impl SchedAttr {
    /// Size of the first version (without the clamps).
    pub const SIZE_VER0: usize = 48;
}

/// `struct new_utsname`; the fields are NUL-terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Utsname {
    pub sysname: [u8; 65],
    pub nodename: [u8; 65],
    pub release: [u8; 65],
    pub version: [u8; 65],
    pub machine: [u8; 65],
    pub domainname: [u8; 65],
}

impl Utsname {
    /// A field holding this text, cut to 64 bytes.
    pub fn field(text: &[u8]) -> [u8; 65] {
        let mut field = [0; 65];
        for (to, from) in field.iter_mut().take(64).zip(text) {
            *to = *from;
        }
        field
    }
}

/// `struct sysinfo`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Sysinfo {
    pub uptime: i64,
    /// Fixed point with 16 fraction bits.
    pub loads: [u64; 3],
    pub totalram: u64,
    pub freeram: u64,
    pub sharedram: u64,
    pub bufferram: u64,
    pub totalswap: u64,
    pub freeswap: u64,
    pub procs: u16,
    pub __pad0: u16,
    pub __pad1: u32,
    pub totalhigh: u64,
    pub freehigh: u64,
    /// Unit of the sizes, in bytes.
    pub mem_unit: u32,
    pub __pad2: u32,
}
