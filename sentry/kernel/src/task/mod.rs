//! Tasks, thread groups, process groups, sessions.
//!
//! | file | holds |
//! |---|---|
//! | `ids.rs` | [`Tid`], [`Uid`], [`Gid`] |
//! | `pid.rs` | [`Pid`], [`PidNamespace`]: numbers and who has them |
//! | `creds.rs`, `user_ns.rs` | [`Creds`], [`CapSet`], [`UserNamespace`] |
//! | `namespaces.rs` | [`Namespaces`] |
//! | `login.rs` | [`Login`]: who logged in |
//! | `task.rs` | [`Task`]: one guest thread |
//! | `peaks.rs` | [`Peaks`]: resident sizes of what has ended |
//! | `thread_group.rs` | [`ThreadGroup`]: one guest process |
//! | `process_group.rs` | [`ProcessGroup`], [`Session`] |
//! | `rlimits.rs`, `sched.rs`, `exit_status.rs` | parts of those |
//! | `run.rs` | the loop that drives a task |
//! | `exit.rs` | the end of tasks and processes |

mod creds;
mod exit_status;
mod ids;
mod login;
mod namespaces;
mod peaks;
mod pid;
mod process_group;
mod rlimits;
pub mod sched;
#[expect(
    clippy::module_inception,
    reason = "the file is named after its subject"
)]
mod task;
#[cfg(test)]
mod tests;
mod thread_group;
mod user_ns;

pub mod access;
pub mod clone;
pub mod exec;
pub mod exec_creds;
pub mod exit;
pub mod nsfs;
pub mod pidfd;
pub mod ptrace;
pub mod run;
pub mod seccomp;
mod strace;
pub(crate) use strace::signal as trace_signal;
pub mod wait;

pub use creds::{CapSet, Creds};
pub use exit_status::ExitStatus;
pub use ids::{Gid, Tid, Uid};
pub use login::Login;
pub use namespaces::{Namespaces, UtsNames, UtsNamespace};
pub use peaks::Peaks;
pub use pid::{PID_MAX, Pid, PidNamespace};
pub use process_group::{ControllingTerminal, ProcessGroup, Session};
pub use rlimits::Rlimits;
pub(crate) use task::{NewTask, VforkDone};
pub use task::{RunState, Task, Work};
pub(crate) use thread_group::NewGroup;
pub use thread_group::{ThreadGroup, Tree, TreeGuard, Usage};
pub use user_ns::{IdExtent, IdMap, OVERFLOW_ID, UserNamespace};
