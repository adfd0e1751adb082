//! The machine under the userspace kernel.
//!
//! A *platform* runs guest code in stub processes and tells the kernel about
//! every trap. It also owns what else the sentry needs from the host: the
//! executor that drives guest tasks, timers, and the few host calls the
//! sentry makes. `unsafe` code of the sentry lives in this crate alone.
//!
//! | module | holds |
//! |---|---|
//! | [`traits`] | [`Platform`], [`Nursery`], [`AddressSpace`], [`GuestThread`], [`ThreadHandle`] |
//! | [`executor`] | workers that poll guest tasks, timers, blocking sections |
//! | [`futex`] | futex calls of the host |
//! | [`gofer_channel`] | mapped ring and socket of a gofer |
//! | [`systrap`] | the platform with stubs, seccomp and shared memory |
//! | [`host`] | host calls the sentry makes, as safe functions |
//! | [`ptrace`] | the platform on PTRACE_SYSEMU |
//! | [`fake`] | a platform without guest code, for tests of the kernel |
//! | [`residency`] | how much memory a stub has had |
//! | [`view`] | files that guest threads copy from by themselves |
//! | [`window`] | memory that transfers between files and guests pass through |
//! | [`xstate`] | the layout of vector state |

pub mod executor;
pub mod fake;
pub mod futex;
pub mod gofer_channel;
pub mod host;
pub mod ptrace;
pub mod residency;
pub mod systrap;
pub mod traits;
pub mod view;
pub mod window;
pub mod xstate;

pub use traits::{
    AddressSpace, AtomicOp, BoxFuture, Call, CopyFault, Fault, GuestThread, MemAdvice, MemError,
    MemImage, MemOp, Nursery, Platform, ProgramCalls, Protection, Sharing, ThreadHandle, Trap,
    VdsoImage,
};
pub use view::{Found, View, ViewId};
pub use window::{Transferred, Way, Window};
