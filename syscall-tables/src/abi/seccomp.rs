//! seccomp(2) and classic BPF.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const_set! {
    /// Operations of seccomp(2).
    SECCOMP_OPS: u32 {
        SECCOMP_SET_MODE_STRICT = 0,
        SECCOMP_SET_MODE_FILTER = 1,
        SECCOMP_GET_ACTION_AVAIL = 2,
        SECCOMP_GET_NOTIF_SIZES = 3,
    }
}

// Modes of prctl(PR_SET_SECCOMP).
pub const SECCOMP_MODE_DISABLED: u32 = 0;
pub const SECCOMP_MODE_STRICT: u32 = 1;
pub const SECCOMP_MODE_FILTER: u32 = 2;

flag_set! {
    /// Flags of seccomp(2).
    SeccompFlags: u32, SECCOMP_FLAGS {
        SECCOMP_FILTER_FLAG_TSYNC = 0x1,
        SECCOMP_FILTER_FLAG_LOG = 0x2,
        SECCOMP_FILTER_FLAG_SPEC_ALLOW = 0x4,
        SECCOMP_FILTER_FLAG_NEW_LISTENER = 0x8,
        SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 0x10,
        SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20,
    }
}

const_set! {
    /// Actions of a filter, most severe first.
    SECCOMP_RET: u32 {
        SECCOMP_RET_KILL_PROCESS = 0x80000000,
        SECCOMP_RET_KILL_THREAD = 0x0,
        SECCOMP_RET_TRAP = 0x30000,
        SECCOMP_RET_ERRNO = 0x50000,
        SECCOMP_RET_USER_NOTIF = 0x7fc00000,
        SECCOMP_RET_TRACE = 0x7ff00000,
        SECCOMP_RET_LOG = 0x7ffc0000,
        SECCOMP_RET_ALLOW = 0x7fff0000,
    }
}

// Masks of a filter's answer.
pub const SECCOMP_RET_ACTION_FULL: u32 = 0xffff0000;
pub const SECCOMP_RET_DATA: u32 = 0xffff;

// Audit architectures.
pub const AUDIT_ARCH_X86_64: u32 = 0xc000003e;
pub const AUDIT_ARCH_I386: u32 = 0x40000003;
pub const AUDIT_ARCH_AARCH64: u32 = 0xc00000b7;

/// Bit of x32 system call numbers.
pub const X32_SYSCALL_BIT: u32 = 0x40000000;

/// What a filter sees, `struct seccomp_data`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SeccompData {
    pub nr: i32,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub args: [u64; 6],
}

/// One instruction of classic BPF, `struct sock_filter`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockFilter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// A program of classic BPF, `struct sock_fprog`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SockFprog {
    pub len: u16,
    pub __pad0: [u16; 3],
    pub filter: u64,
}

/// `struct seccomp_notif_sizes`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SeccompNotifSizes {
    pub seccomp_notif: u16,
    pub seccomp_notif_resp: u16,
    pub seccomp_data: u16,
}

/// Most instructions of one program.
pub const BPF_MAXINSNS: usize = 4096;
/// Words of scratch memory.
pub const BPF_MEMWORDS: usize = 16;

// Instruction classes and their parts.
pub const BPF_LD: u16 = 0x0;
pub const BPF_LDX: u16 = 0x1;
pub const BPF_ST: u16 = 0x2;
pub const BPF_STX: u16 = 0x3;
pub const BPF_ALU: u16 = 0x4;
pub const BPF_JMP: u16 = 0x5;
pub const BPF_RET: u16 = 0x6;
pub const BPF_MISC: u16 = 0x7;
pub const BPF_W: u16 = 0x0;
pub const BPF_H: u16 = 0x8;
pub const BPF_B: u16 = 0x10;
pub const BPF_IMM: u16 = 0x0;
pub const BPF_ABS: u16 = 0x20;
pub const BPF_IND: u16 = 0x40;
pub const BPF_MEM: u16 = 0x60;
pub const BPF_LEN: u16 = 0x80;
pub const BPF_MSH: u16 = 0xa0;
pub const BPF_ADD: u16 = 0x0;
pub const BPF_SUB: u16 = 0x10;
pub const BPF_MUL: u16 = 0x20;
pub const BPF_DIV: u16 = 0x30;
pub const BPF_OR: u16 = 0x40;
pub const BPF_AND: u16 = 0x50;
pub const BPF_LSH: u16 = 0x60;
pub const BPF_RSH: u16 = 0x70;
pub const BPF_NEG: u16 = 0x80;
pub const BPF_MOD: u16 = 0x90;
pub const BPF_XOR: u16 = 0xa0;
pub const BPF_JA: u16 = 0x0;
pub const BPF_JEQ: u16 = 0x10;
pub const BPF_JGT: u16 = 0x20;
pub const BPF_JGE: u16 = 0x30;
pub const BPF_JSET: u16 = 0x40;
pub const BPF_K: u16 = 0x0;
pub const BPF_X: u16 = 0x8;
pub const BPF_A: u16 = 0x10;
pub const BPF_TAX: u16 = 0x0;
pub const BPF_TXA: u16 = 0x80;
