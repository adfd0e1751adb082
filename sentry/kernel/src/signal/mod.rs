//! Signals.
//!
//! | file | holds |
//! |---|---|
//! | `pending.rs` | queues of pending signals |
//! | `state.rs` | [`SigHand`] (actions), [`GroupSignals`], [`TaskSignals`] |
//! | `send.rs` | making signals pending, waking those who take them |
//! | `stop.rs` | stopping and continuing processes |
//! | `deliver.rs` | what a task does before it runs guest code again |
//! | `frame.rs` | signal frames on the guest's stack |
//!
//! Locks, outermost first: `ThreadGroup::signals`, `Task::signals`, the
//! action table, the counts of queued signals.

pub mod deliver;
pub mod frame;
mod pending;
pub mod send;
mod state;
pub mod stop;

pub use pending::{Pending, SignalCharge};
pub use send::Origin;
pub use state::{AltStack, GroupSignals, SigHand, StopState, TaskSignals};
