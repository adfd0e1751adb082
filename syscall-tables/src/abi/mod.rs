//! Linux ABI structs and constants of x86-64, one file per subject.
//!
//! Structs derive the zerocopy traits, have explicit padding, and are laid
//! out exactly as the kernel's UAPI headers lay them out.

pub mod regs;

pub use regs::Regs;
