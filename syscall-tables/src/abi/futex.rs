//! futex(2), futex_waitv(2) and the robust list.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const_set! {
    /// Operations of futex(2), without the flags.
    FUTEX_OPS: u32 {
        FUTEX_WAIT = 0,
        FUTEX_WAKE = 1,
        FUTEX_FD = 2,
        FUTEX_REQUEUE = 3,
        FUTEX_CMP_REQUEUE = 4,
        FUTEX_WAKE_OP = 5,
        FUTEX_LOCK_PI = 6,
        FUTEX_UNLOCK_PI = 7,
        FUTEX_TRYLOCK_PI = 8,
        FUTEX_WAIT_BITSET = 9,
        FUTEX_WAKE_BITSET = 10,
        FUTEX_WAIT_REQUEUE_PI = 11,
        FUTEX_CMP_REQUEUE_PI = 12,
        FUTEX_LOCK_PI2 = 13,
    }
}

// Flags or-ed to the operation.
pub const FUTEX_PRIVATE_FLAG: u32 = 128;
pub const FUTEX_CLOCK_REALTIME: u32 = 256;
pub const FUTEX_CMD_MASK: u32 = !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);

// Bits of a futex word with an owner (robust and PI).
pub const FUTEX_WAITERS: u32 = 0x80000000;
pub const FUTEX_OWNER_DIED: u32 = 0x40000000;
pub const FUTEX_TID_MASK: u32 = 0x3fffffff;

/// Any bit of FUTEX_WAIT_BITSET.
pub const FUTEX_BITSET_MATCH_ANY: u32 = 0xffffffff;

const_set! {
    /// Arithmetic of `FUTEX_WAKE_OP`.
    FUTEX_WAKE_OPS: u32 {
        FUTEX_OP_SET = 0,
        FUTEX_OP_ADD = 1,
        FUTEX_OP_OR = 2,
        FUTEX_OP_ANDN = 3,
        FUTEX_OP_XOR = 4,
    }
}

/// Flag of the arithmetic: shift 1 by the argument.
pub const FUTEX_OP_OPARG_SHIFT: u32 = 8;

const_set! {
    /// Comparisons of `FUTEX_WAKE_OP`.
    FUTEX_WAKE_CMPS: u32 {
        FUTEX_OP_CMP_EQ = 0,
        FUTEX_OP_CMP_NE = 1,
        FUTEX_OP_CMP_LT = 2,
        FUTEX_OP_CMP_LE = 3,
        FUTEX_OP_CMP_GT = 4,
        FUTEX_OP_CMP_GE = 5,
    }
}

flag_set! {
    /// Flags of futex_waitv(2), futex_wait(2), futex_wake(2) and futex_requeue(2).
    Futex2Flags: u32, FUTEX2_FLAGS {
        FUTEX2_NUMA = 4,
        FUTEX2_MPOL = 8,
        FUTEX2_PRIVATE = 0x80,
    }
    field 3 {
        FUTEX2_SIZE_U8 = 0,
        FUTEX2_SIZE_U16 = 1,
        FUTEX2_SIZE_U32 = 2,
        FUTEX2_SIZE_U64 = 3,
    }
}

/// `struct futex_waitv`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FutexWaitv {
    pub val: u64,
    pub uaddr: u64,
    pub flags: u32,
    pub __reserved: u32,
}

/// Most futexes in one futex_waitv(2).
pub const FUTEX_WAITV_MAX: usize = 128;

/// `struct robust_list_head` of set_robust_list(2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RobustListHead {
    /// First entry; bit 0 marks a PI futex.
    pub list: u64,
    /// Distance from an entry to its futex word.
    pub futex_offset: i64,
    pub list_op_pending: u64,
}

/// Most entries of a robust list the kernel walks.
pub const ROBUST_LIST_LIMIT: usize = 2048;
