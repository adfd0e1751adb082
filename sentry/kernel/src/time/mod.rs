//! Time: clocks and what belongs to timers of a process.
//!
//! | file | holds |
//! |---|---|
//! | `clock.rs` | [`Clock`]: reading the sandbox's clocks |

mod clock;

pub use clock::Clock;

/// Interval timers and POSIX timers of one process.
#[derive(Default)]
pub struct ProcessTimers {}
