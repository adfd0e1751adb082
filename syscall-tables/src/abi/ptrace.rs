//! Requests, options and events of ptrace(2).

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const_set! {
    /// Requests of ptrace(2).
    PTRACE_REQUESTS: u32 {
        PTRACE_TRACEME = 0x0,
        PTRACE_PEEKTEXT = 0x1,
        PTRACE_PEEKDATA = 0x2,
        PTRACE_PEEKUSR = 0x3,
        PTRACE_POKETEXT = 0x4,
        PTRACE_POKEDATA = 0x5,
        PTRACE_POKEUSR = 0x6,
        PTRACE_CONT = 0x7,
        PTRACE_KILL = 0x8,
        PTRACE_SINGLESTEP = 0x9,
        PTRACE_GETREGS = 0xc,
        PTRACE_SETREGS = 0xd,
        PTRACE_GETFPREGS = 0xe,
        PTRACE_SETFPREGS = 0xf,
        PTRACE_ATTACH = 0x10,
        PTRACE_DETACH = 0x11,
        PTRACE_GETFPXREGS = 0x12,
        PTRACE_SETFPXREGS = 0x13,
        PTRACE_OLDSETOPTIONS = 0x15,
        PTRACE_GET_THREAD_AREA = 0x19,
        PTRACE_SET_THREAD_AREA = 0x1a,
        PTRACE_ARCH_PRCTL = 0x1e,
        PTRACE_SYSCALL = 0x18,
        PTRACE_SYSEMU = 0x1f,
        PTRACE_SYSEMU_SINGLESTEP = 0x20,
        PTRACE_SINGLEBLOCK = 0x21,
        PTRACE_SETOPTIONS = 0x4200,
        PTRACE_GETEVENTMSG = 0x4201,
        PTRACE_GETSIGINFO = 0x4202,
        PTRACE_SETSIGINFO = 0x4203,
        PTRACE_GETREGSET = 0x4204,
        PTRACE_SETREGSET = 0x4205,
        PTRACE_SEIZE = 0x4206,
        PTRACE_INTERRUPT = 0x4207,
        PTRACE_LISTEN = 0x4208,
        PTRACE_PEEKSIGINFO = 0x4209,
        PTRACE_GETSIGMASK = 0x420a,
        PTRACE_SETSIGMASK = 0x420b,
        PTRACE_SECCOMP_GET_FILTER = 0x420c,
        PTRACE_SECCOMP_GET_METADATA = 0x420d,
        PTRACE_GET_SYSCALL_INFO = 0x420e,
        PTRACE_GET_RSEQ_CONFIGURATION = 0x420f,
        PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210,
        PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211,
        PTRACE_SET_SYSCALL_INFO = 0x4212,
    }
}

flag_set! {
    /// Options of ptrace(2).
    PtraceOptions: u32, PTRACE_OPTIONS {
        PTRACE_O_TRACESYSGOOD = 0x1,
        PTRACE_O_TRACEFORK = 0x2,
        PTRACE_O_TRACEVFORK = 0x4,
        PTRACE_O_TRACECLONE = 0x8,
        PTRACE_O_TRACEEXEC = 0x10,
        PTRACE_O_TRACEVFORKDONE = 0x20,
        PTRACE_O_TRACEEXIT = 0x40,
        PTRACE_O_TRACESECCOMP = 0x80,
        PTRACE_O_EXITKILL = 0x100000,
        PTRACE_O_SUSPEND_SECCOMP = 0x200000,
    }
}

const_set! {
    /// Events of a tracee stop.
    PTRACE_EVENTS: u32 {
        PTRACE_EVENT_FORK = 1,
        PTRACE_EVENT_VFORK = 2,
        PTRACE_EVENT_CLONE = 3,
        PTRACE_EVENT_EXEC = 4,
        PTRACE_EVENT_VFORK_DONE = 5,
        PTRACE_EVENT_EXIT = 6,
        PTRACE_EVENT_SECCOMP = 7,
        PTRACE_EVENT_STOP = 128,
    }
}

const_set! {
    /// Register sets of `PTRACE_GETREGSET` (and core dump notes).
    REGSETS: u32 {
        NT_PRSTATUS = 0x1,
        NT_PRFPREG = 0x2,
        NT_PRPSINFO = 0x3,
        NT_AUXV = 0x6,
        NT_X86_XSTATE = 0x202,
        NT_SIGINFO = 0x53494749,
        NT_FILE = 0x46494c45,
    }
}

const_set! {
    /// `op` of [`PtraceSyscallInfo`].
    SYSCALL_INFO_OPS: u8 {
        PTRACE_SYSCALL_INFO_NONE = 0,
        PTRACE_SYSCALL_INFO_ENTRY = 1,
        PTRACE_SYSCALL_INFO_EXIT = 2,
        PTRACE_SYSCALL_INFO_SECCOMP = 3,
    }
}

/// `struct ptrace_syscall_info`; the union (entry: number and six arguments,
/// exit: result and error flag) as words.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PtraceSyscallInfo {
    pub op: u8,
    pub reserved: u8,
    pub flags: u16,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub stack_pointer: u64,
    pub data: [u64; 8],
}

/// `struct ptrace_peeksiginfo_args`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PtracePeeksiginfoArgs {
    pub off: u64,
    pub flags: u32,
    pub nr: i32,
}

/// `struct user_fpregs_struct`: the 512-byte FXSAVE area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FpRegs {
    pub bytes: [u8; 512],
}

/// Size of `struct user`, the range of `PTRACE_PEEKUSR`.
pub const USER_AREA_SIZE: u64 = 912;
/// Offset of the debug registers in `struct user`.
pub const USER_DEBUGREG_OFFSET: u64 = 848;
