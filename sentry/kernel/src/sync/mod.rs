//! Waiting and waking.
//!
//! | file | holds |
//! |---|---|
//! | `wait_queue.rs` | [`WaitQueue`]: who wants to know when an object changes |
//! | `async_mutex.rs` | [`AsyncMutex`]: a lock that may be held across an await |

mod async_mutex;
mod wait_queue;

pub use async_mutex::{AsyncMutex, AsyncMutexGuard};
pub use wait_queue::{Events, Observer, Subscription, WaitQueue};
