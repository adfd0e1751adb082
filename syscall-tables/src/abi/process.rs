//! Creation and control of processes: clone, wait, pidfd, prctl, rseq.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flag_set! {
    /// Flags of clone(2), clone3(2), unshare(2) and setns(2).
    /// The low byte of clone(2)'s word is the exit signal ([`CSIGNAL`]).
    CloneFlags: u64, CLONE_FLAGS {
        CLONE_VM = 0x100,
        CLONE_FS = 0x200,
        CLONE_FILES = 0x400,
        CLONE_SIGHAND = 0x800,
        CLONE_PIDFD = 0x1000,
        CLONE_PTRACE = 0x2000,
        CLONE_VFORK = 0x4000,
        CLONE_PARENT = 0x8000,
        CLONE_THREAD = 0x10000,
        CLONE_NEWNS = 0x20000,
        CLONE_SYSVSEM = 0x40000,
        CLONE_SETTLS = 0x80000,
        CLONE_PARENT_SETTID = 0x100000,
        CLONE_CHILD_CLEARTID = 0x200000,
        CLONE_DETACHED = 0x400000,
        CLONE_UNTRACED = 0x800000,
        CLONE_CHILD_SETTID = 0x1000000,
        CLONE_NEWCGROUP = 0x2000000,
        CLONE_NEWUTS = 0x4000000,
        CLONE_NEWIPC = 0x8000000,
        CLONE_NEWUSER = 0x10000000,
        CLONE_NEWPID = 0x20000000,
        CLONE_NEWNET = 0x40000000,
        CLONE_IO = 0x80000000,
        CLONE_CLEAR_SIGHAND = 0x100000000,
        CLONE_INTO_CGROUP = 0x200000000,
    }
}

impl CloneFlags {
    /// New time namespace (clone3(2) and unshare(2) only: the bit is part of
    /// clone(2)'s exit signal).
    pub const CLONE_NEWTIME: Self = Self::from_bits_retain(0x80);
}

/// Mask of the exit signal in clone(2)'s flag word.
pub const CSIGNAL: u64 = 0xff;

/// `struct clone_args` of clone3(2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

impl CloneArgs {
    /// Size of the first version.
    pub const SIZE_VER0: usize = 64;
}

flag_set! {
    /// Options of wait4(2) and waitid(2).
    WaitOptions: u32, WAIT_OPTIONS {
        WNOHANG = 0x1,
        WUNTRACED = 0x2,
        WEXITED = 0x4,
        WCONTINUED = 0x8,
        WNOWAIT = 0x1000000,
        __WNOTHREAD = 0x20000000,
        __WALL = 0x40000000,
        __WCLONE = 0x80000000,
    }
}

impl WaitOptions {
    /// waitid(2)'s name of the bit of `WUNTRACED`.
    pub const WSTOPPED: Self = Self::WUNTRACED;
}

/// Wait status of a process that exited.
pub const fn w_exitcode(code: i32) -> i32 {
    (code & 0xff) << 8
}

/// Wait status of a process killed by a signal.
pub const fn w_termsig(signal: i32, core_dumped: bool) -> i32 {
    signal | if core_dumped { 0x80 } else { 0 }
}

/// Wait status of a stopped process.
pub const fn w_stopcode(signal: i32) -> i32 {
    signal << 8 | 0x7f
}

/// Wait status of a continued process.
pub const W_CONTINUED: i32 = 0xffff;

const_set! {
    /// Whom waitid(2) waits for.
    WAITID_TYPES: u32 {
        P_ALL = 0,
        P_PID = 1,
        P_PGID = 2,
        P_PIDFD = 3,
    }
}

flag_set! {
    /// Flags of pidfd_open(2).
    PidfdFlags: u32, PIDFD_FLAGS {
        PIDFD_NONBLOCK = 0x800,
        PIDFD_THREAD = 0x80,
    }
}

flag_set! {
    /// Flags of pidfd_send_signal(2).
    PidfdSignalFlags: u32, PIDFD_SIGNAL_FLAGS {
        PIDFD_SIGNAL_THREAD = 1,
        PIDFD_SIGNAL_THREAD_GROUP = 2,
        PIDFD_SIGNAL_PROCESS_GROUP = 4,
    }
}

const_set! {
    /// Operations of prctl(2).
    PRCTL_OPS: u32 {
        PR_SET_PDEATHSIG = 1,
        PR_GET_PDEATHSIG = 2,
        PR_GET_DUMPABLE = 3,
        PR_SET_DUMPABLE = 4,
        PR_GET_UNALIGN = 5,
        PR_SET_UNALIGN = 6,
        PR_GET_KEEPCAPS = 7,
        PR_SET_KEEPCAPS = 8,
        PR_GET_FPEMU = 9,
        PR_SET_FPEMU = 10,
        PR_GET_FPEXC = 11,
        PR_SET_FPEXC = 12,
        PR_GET_TIMING = 13,
        PR_SET_TIMING = 14,
        PR_SET_NAME = 15,
        PR_GET_NAME = 16,
        PR_GET_ENDIAN = 19,
        PR_SET_ENDIAN = 20,
        PR_GET_SECCOMP = 21,
        PR_SET_SECCOMP = 22,
        PR_CAPBSET_READ = 23,
        PR_CAPBSET_DROP = 24,
        PR_GET_TSC = 25,
        PR_SET_TSC = 26,
        PR_GET_SECUREBITS = 27,
        PR_SET_SECUREBITS = 28,
        PR_SET_TIMERSLACK = 29,
        PR_GET_TIMERSLACK = 30,
        PR_TASK_PERF_EVENTS_DISABLE = 31,
        PR_TASK_PERF_EVENTS_ENABLE = 32,
        PR_MCE_KILL = 33,
        PR_MCE_KILL_GET = 34,
        PR_SET_MM = 35,
        PR_SET_PTRACER = 1499557217,
        PR_SET_CHILD_SUBREAPER = 36,
        PR_GET_CHILD_SUBREAPER = 37,
        PR_SET_NO_NEW_PRIVS = 38,
        PR_GET_NO_NEW_PRIVS = 39,
        PR_GET_TID_ADDRESS = 40,
        PR_SET_THP_DISABLE = 41,
        PR_GET_THP_DISABLE = 42,
        PR_MPX_ENABLE_MANAGEMENT = 43,
        PR_MPX_DISABLE_MANAGEMENT = 44,
        PR_SET_FP_MODE = 45,
        PR_GET_FP_MODE = 46,
        PR_CAP_AMBIENT = 47,
        PR_SVE_SET_VL = 50,
        PR_SVE_GET_VL = 51,
        PR_GET_SPECULATION_CTRL = 52,
        PR_SET_SPECULATION_CTRL = 53,
        PR_PAC_RESET_KEYS = 54,
        PR_SET_TAGGED_ADDR_CTRL = 55,
        PR_GET_TAGGED_ADDR_CTRL = 56,
        PR_SET_IO_FLUSHER = 57,
        PR_GET_IO_FLUSHER = 58,
        PR_SET_SYSCALL_USER_DISPATCH = 59,
        PR_PAC_SET_ENABLED_KEYS = 60,
        PR_PAC_GET_ENABLED_KEYS = 61,
        PR_SCHED_CORE = 62,
        PR_SME_SET_VL = 63,
        PR_SME_GET_VL = 64,
        PR_SET_MDWE = 65,
        PR_GET_MDWE = 66,
        PR_SET_MEMORY_MERGE = 67,
        PR_GET_MEMORY_MERGE = 68,
        PR_SET_VMA = 1398164801,
    }
}

const_set! {
    /// Second argument of `PR_SET_MM`.
    PR_SET_MM_OPS: u32 {
        PR_SET_MM_START_CODE = 1,
        PR_SET_MM_END_CODE = 2,
        PR_SET_MM_START_DATA = 3,
        PR_SET_MM_END_DATA = 4,
        PR_SET_MM_START_STACK = 5,
        PR_SET_MM_START_BRK = 6,
        PR_SET_MM_BRK = 7,
        PR_SET_MM_ARG_START = 8,
        PR_SET_MM_ARG_END = 9,
        PR_SET_MM_ENV_START = 10,
        PR_SET_MM_ENV_END = 11,
        PR_SET_MM_AUXV = 12,
        PR_SET_MM_EXE_FILE = 13,
        PR_SET_MM_MAP = 14,
        PR_SET_MM_MAP_SIZE = 15,
    }
}

const_set! {
    /// Second argument of `PR_CAP_AMBIENT`.
    PR_CAP_AMBIENT_OPS: u32 {
        PR_CAP_AMBIENT_IS_SET = 1,
        PR_CAP_AMBIENT_RAISE = 2,
        PR_CAP_AMBIENT_LOWER = 3,
        PR_CAP_AMBIENT_CLEAR_ALL = 4,
    }
}

// Further prctl(2) arguments.
pub const PR_SET_PTRACER_ANY: u64 = u64::MAX;
pub const PR_SET_VMA_ANON_NAME: u64 = 0;
pub const PR_TSC_ENABLE: u64 = 1;
pub const PR_TSC_SIGSEGV: u64 = 2;

const_set! {
    /// Operations of arch_prctl(2).
    ARCH_PRCTL_OPS: u32 {
        ARCH_SET_GS = 0x1001,
        ARCH_SET_FS = 0x1002,
        ARCH_GET_FS = 0x1003,
        ARCH_GET_GS = 0x1004,
        ARCH_GET_CPUID = 0x1011,
        ARCH_SET_CPUID = 0x1012,
        ARCH_GET_XCOMP_SUPP = 0x1021,
        ARCH_GET_XCOMP_PERM = 0x1022,
        ARCH_REQ_XCOMP_PERM = 0x1023,
        ARCH_MAP_VDSO_X32 = 0x2001,
        ARCH_MAP_VDSO_32 = 0x2002,
        ARCH_MAP_VDSO_64 = 0x2003,
        ARCH_SHSTK_ENABLE = 0x5001,
        ARCH_SHSTK_DISABLE = 0x5002,
        ARCH_SHSTK_LOCK = 0x5003,
        ARCH_SHSTK_UNLOCK = 0x5004,
        ARCH_SHSTK_STATUS = 0x5005,
    }
}

flag_set! {
    /// Commands of membarrier(2), which `QUERY` (0) answers as a bit mask.
    MembarrierCmd: u32, MEMBARRIER_CMDS {
        MEMBARRIER_CMD_GLOBAL = 0x1,
        MEMBARRIER_CMD_GLOBAL_EXPEDITED = 0x2,
        MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED = 0x4,
        MEMBARRIER_CMD_PRIVATE_EXPEDITED = 0x8,
        MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED = 0x10,
        MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE = 0x20,
        MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 0x40,
        MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ = 0x80,
        MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ = 0x100,
        MEMBARRIER_CMD_GET_REGISTRATIONS = 0x200,
    }
    field 0xffff_ffff {
        MEMBARRIER_CMD_QUERY = 0x0,
    }
}

const_set! {
    /// Resources of kcmp(2).
    KCMP_TYPES: u32 {
        KCMP_FILE = 0,
        KCMP_VM = 1,
        KCMP_FILES = 2,
        KCMP_FS = 3,
        KCMP_SIGHAND = 4,
        KCMP_IO = 5,
        KCMP_SYSVSEM = 6,
        KCMP_EPOLL_TFD = 7,
    }
}

/// Flag of rseq(2): unregister.
pub const RSEQ_FLAG_UNREGISTER: u32 = 1;

/// Longest thread name with its NUL.
pub const TASK_COMM_LEN: usize = 16;

/// personality(2): only ask.
pub const PERSONALITY_QUERY: u64 = 0xffff_ffff;
/// personality(2): no address randomisation.
pub const ADDR_NO_RANDOMIZE: u64 = 0x0004_0000;
