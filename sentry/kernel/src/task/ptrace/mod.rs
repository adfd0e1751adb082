//! Tracing of guest by guest (`ptrace(2)`).
//!
//! | file | holds |
//! |---|---|
//! | `state.rs` | [`Trace`]: what a tracee and its tracer share |
//! | `stop.rs` | the tracee's side: stopping, and what it does when resumed |
//! | `events.rs` | stops at fork, exec, exit and system calls |
//! | `relation.rs` | attaching, detaching, the end of tracer or tracee |
//! | `registers.rs` | registers as debuggers see them |
//!
//! A stopped tracee lays its registers open in [`Trace`] and takes back what
//! the tracer made of them; its vector state, which only its own thread can
//! reach, is read and written by asking it.
//!
//! Locks: who traces whom changes with the process tree lock held; a task's
//! `trace` lock is taken inside all signal locks and is a leaf.

mod events;
mod registers;
mod relation;
mod state;
mod stop;

pub(crate) use events::{
    CallStop, after_call, before_call, report_clone, report_exec, report_exit, report_seccomp,
    report_vfork_done,
};
pub use registers::{from_user_area, user_area, write_user_area};
pub use relation::{attach, detach, seize, trace_me};
pub(crate) use relation::{attach_child, forget, leave_tracees, lose_tracee};
pub use state::{Resume, Trace, TraceFlags, TraceStop, VectorRequest};
pub(crate) use stop::{group_stop, requested_stop, signal_stop};
