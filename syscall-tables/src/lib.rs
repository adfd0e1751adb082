//! The Linux system call ABI as data: numbers, names, argument kinds and
//! support status, ABI structs, constants and [`Errno`].
//!
//! Everything that has to agree on what a system call is (dispatch, strace,
//! seccomp lists, `runsc help syscalls`, the documentation) reads it from
//! here.
#![forbid(unsafe_code)]

pub mod abi;
pub mod errno;
pub mod render;
pub mod strace;
pub mod table;

pub use errno::Errno;
