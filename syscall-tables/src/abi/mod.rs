//! Linux ABI structs and constants of x86-64, one file per subject.
//!
//! Structs derive the zerocopy traits, have explicit padding, and are laid
//! out exactly as the kernel's UAPI headers lay them out. Names are those of
//! the C headers, unique over all of them, so everything is also reachable
//! directly as `abi::NAME`.
//!
//! Flag words are bitflags types (`OpenFlags::O_CREAT`), enumerations plain
//! constants; both come with a [`NameSet`] for printing. Constants are `u32`
//! unless the field they go in has another width.

pub mod caps;
pub mod elf;
pub mod fcntl;
pub mod futex;
pub mod ioctl;
pub mod ipc;
pub mod mm;
pub mod mode;
pub mod mount;
pub mod names;
pub mod netlink;
pub mod open;
pub mod poll;
pub mod process;
pub mod ptrace;
pub mod regs;
pub mod resource;
pub mod seccomp;
pub mod sigframe;
pub mod siginfo;
pub mod signal;
pub mod socket;
pub mod sockopt;
pub mod stat;
pub mod termios;
pub mod time;

pub use caps::*;
pub use elf::*;
pub use fcntl::*;
pub use futex::*;
pub use ioctl::*;
pub use ipc::*;
pub use mm::*;
pub use mode::*;
pub use mount::*;
pub use names::{Name, NameSet};
pub use netlink::*;
pub use open::*;
pub use poll::*;
pub use process::*;
pub use ptrace::*;
pub use regs::Regs;
pub use resource::*;
pub use seccomp::*;
pub use sigframe::*;
pub use siginfo::*;
pub use signal::*;
pub use socket::*;
pub use sockopt::*;
pub use stat::*;
pub use termios::*;
pub use time::*;

/// `struct user_regs_struct` is [`Regs`].
pub type UserRegs = Regs;
