//! Time: clocks and what belongs to timers of a process.
//!
//! | file | holds |
//! |---|---|
//! | `clock.rs` | [`Clock`]: reading the sandbox's clocks |
//! | `clock_id.rs` | [`AnyClock`]: which clock a clock id names |

mod clock;
mod clock_id;

pub use clock::Clock;
pub use clock_id::AnyClock;

/// Interval timers and POSIX timers of one process.
#[derive(Default)]
pub struct ProcessTimers {}
