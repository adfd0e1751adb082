//! Tasks, thread groups, process groups, sessions.
//!
//! | file | holds |
//! |---|---|
//! | `ids.rs` | [`Tid`], [`Uid`], [`Gid`] |
//! | `creds.rs` | [`Creds`], [`CapSet`] |
//! | `task.rs` | [`Task`]: one guest thread |
//! | `thread_group.rs` | [`ThreadGroup`]: one guest process |
//! | `run.rs` | the loop that drives a task |

mod creds;
mod ids;
#[expect(
    clippy::module_inception,
    reason = "the file is named after its subject"
)]
mod task;
mod thread_group;

pub use creds::{CapSet, Creds};
pub use ids::{Gid, Tid, Uid};
pub use task::Task;
pub use thread_group::ThreadGroup;
