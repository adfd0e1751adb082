//! System V IPC and POSIX message queues, by IPC namespace.
//!
//! Locks: a registry (ids and keys), then the state of one object; leaves for
//! the rest of the kernel. Objects never wait: they answer `EAGAIN` and have
//! a wait queue.
//!
//! | file | holds |
//! |---|---|
//! | `namespace.rs` | [`IpcNamespace`] |
//! | `registry.rs` | [`Registry`]: objects by id and key |
//! | `settings.rs` | [`Settings`]: limits, `/proc/sys/kernel/shmmax` and others |
//! | `perm.rs` | [`Perm`]: owner and mode of an object |
//! | `shm.rs` | shared memory segments |
//! | `sem.rs` | semaphore sets with undo |
//! | `msg.rs` | message queues |
//! | `mqueue.rs` | POSIX message queues; their file system is `fs/mqueue.rs` |

pub mod mqueue;
pub mod msg;
mod namespace;
mod perm;
mod registry;
pub mod sem;
mod settings;
pub mod shm;
#[cfg(test)]
mod tests;

pub use namespace::IpcNamespace;
pub use perm::{Perm, READ, WRITE};
pub use registry::{Object, Registry};
pub use settings::Settings;

use std::sync::Arc;

use sentry_platform::host;

use crate::task::{Pid, PidNamespace};

/// Seconds since the epoch.
fn now() -> i64 {
    let now = host::clock_gettime(host::HostClock::Realtime).as_secs();
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// Number of a process as `pids` sees it; 0 for none.
fn number(pid: Option<&Arc<Pid>>, pids: &Arc<PidNamespace>) -> i32 {
    pid.map_or(0, |pid| pid.number_in(pids))
}
