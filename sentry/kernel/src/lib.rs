//! The userspace kernel.
//!
//! Lock order over all modules, outermost first: task tables, thread group,
//! signal state, memory manager, mount table, dentries, inodes, files, wait
//! queues. No lock is held across an await (the compiler enforces it: guards
//! are not `Send`), except [`sync::AsyncMutex`].
//!
//! | module | holds |
//! |---|---|
//! | [`kernel`] | [`kernel::Kernel`]: what all tasks share |
//! | [`ctx`] | [`ctx::Ctx`]: what a system call handler gets |
//! | [`syscalls`] | handlers and dispatch |
//! | [`task`] | tasks, thread groups, credentials |
//! | [`sandbox`] | what `runsc` does with the kernel |
//! | [`signal`] | signals |
//! | [`time`] | clocks and timers |
//! | [`mm`] | guest memory |
//! | [`ipc`] | System V IPC, POSIX message queues |
//! | [`futex`] | waiting for words of guest memory |
//! | [`loader`] | executables into fresh address spaces |
//! | [`vfs`], [`fs`] | virtual file system and the file systems |
//! | [`net`] | sockets |
//! | [`sync`] | wait queues, async locks |
#![forbid(unsafe_code)]

pub mod ctx;
pub mod fs;
pub mod futex;
pub mod ipc;
pub mod kernel;
pub mod limits;
pub mod loader;
pub mod mm;
pub mod net;
pub mod sandbox;
pub mod signal;
pub mod sync;
pub mod syscalls;
pub mod task;
#[cfg(test)]
mod testing;
pub mod time;
pub mod tty;
pub mod user;
pub mod vfs;
