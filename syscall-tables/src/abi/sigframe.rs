//! What the kernel puts on the stack of a signal handler (x86-64).

use super::siginfo::SigInfo;
use super::signal::{SigSet, StackT};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct sigcontext` of x86-64, the `uc_mcontext` of a [`UContext`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub eflags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    /// Error code of the last fault.
    pub err: u64,
    /// Number of the last fault.
    pub trapno: u64,
    /// Signal mask of the interrupted code, the first word again.
    pub oldmask: u64,
    /// Fault address.
    pub cr2: u64,
    /// Address of the floating point state, or 0.
    pub fpstate: u64,
    pub reserved1: [u64; 8],
}

/// `struct ucontext` with the kernel's 8-byte signal mask.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct UContext {
    pub uc_flags: u64,
    pub uc_link: u64,
    pub uc_stack: StackT,
    pub uc_mcontext: SigContext,
    pub uc_sigmask: SigSet,
}

/// Extended (XSAVE) state follows the legacy floating point state.
pub const UC_FP_XSTATE: u64 = 1;
/// `ss` in the context is valid.
pub const UC_SIGCONTEXT_SS: u64 = 2;
/// Return restores `ss` strictly.
pub const UC_STRICT_RESTORE_SS: u64 = 4;

/// `struct _fpx_sw_bytes`, in the last 48 bytes of the 512-byte FXSAVE area.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FpxSwBytes {
    /// [`FP_XSTATE_MAGIC1`] if extended state follows.
    pub magic1: u32,
    /// Whole size with the extended state and [`FP_XSTATE_MAGIC2`] after it.
    pub extended_size: u32,
    /// Features present (XCR0 bits).
    pub xfeatures: u64,
    /// Size of the XSAVE area proper.
    pub xstate_size: u32,
    pub padding: [u32; 7],
}

/// Offset of [`FpxSwBytes`] in the FXSAVE area.
pub const FPX_SW_BYTES_OFFSET: usize = 464;
/// First magic of an extended state.
pub const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// Magic behind an extended state.
pub const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Size of [`FP_XSTATE_MAGIC2`].
pub const FP_XSTATE_MAGIC2_SIZE: usize = 4;

/// Header of `struct rt_sigframe` on the handler's stack: return address
/// (the restorer), context, info. The floating point state lies above it,
/// aligned to 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RtSigFrame {
    pub pretcode: u64,
    pub uc: UContext,
    pub info: SigInfo,
}

/// Bytes below the stack pointer that leaf functions use.
pub const RED_ZONE: u64 = 128;
