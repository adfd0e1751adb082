//! Waiting and waking.
//!
//! | file | holds |
//! |---|---|
//! | `wait_queue.rs` | [`WaitQueue`]: who wants to know when an object changes |
//! | `seq_cell.rs` | [`SeqCell`]: words read without a lock |
//! | `async_mutex.rs` | [`AsyncMutex`]: a lock that may be held across an await |
//! | `turns.rs` | [`WriteTurns`]: who may change a file |

mod async_mutex;
mod seq_cell;
mod turns;
mod wait_queue;

pub use async_mutex::{AsyncMutex, AsyncMutexGuard};
pub use seq_cell::SeqCell;
pub use turns::{WriteLen, WriteTurn, WriteTurns};
pub use wait_queue::{Events, Observer, Subscription, WaitQueue};
