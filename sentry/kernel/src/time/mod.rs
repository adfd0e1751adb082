//! Time: clocks and what belongs to timers of a process.
//!
//! | file | holds |
//! |---|---|
//! | `clock.rs` | [`Clock`]: reading the sandbox's clocks |
//! | `clock_id.rs` | [`AnyClock`]: which clock a clock id names |
//! | `timer.rs` | [`Timer`]: expirations on any clock |
//! | `process_timers.rs` | [`ProcessTimers`]: those of a process |

mod clock;
mod clock_id;
mod process_timers;
mod timer;

pub use clock::Clock;
pub use clock_id::AnyClock;
pub use process_timers::{ItimerKind, Notify, PosixTimer, ProcessTimers};
pub use timer::{Expire, Setting, Timer};
