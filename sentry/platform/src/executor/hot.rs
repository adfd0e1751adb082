//! Sources of work that workers look at without a host call.
//!
//! A platform whose guest threads hand over through shared memory registers a
//! [`HotSource`]. Every worker polls all sources between two tasks; one idle
//! worker at a time goes on polling for [`SPIN_BUDGET`] before it sleeps.
//!
//! Sleep protocol. The sources must know whether anybody polls, so that a
//! guest thread rings a bell if not:
//! 1. The last active worker calls [`HotSource::prepare_sleep`] on each
//!    source: it publishes "nobody polls", *then* looks once more at all its
//!    contexts, and votes. It also names the bell words, with the values it
//!    read *before* publishing, on which the worker sleeps together with its
//!    own word.
//! 2. If one source votes [`SleepVote::StayAwake`], all are told
//!    [`HotSource::resume_polling`] and polled again.
//! 3. Whichever worker wakes first calls [`HotSource::resume_polling`] before
//!    it polls.
//!
//! The calls may come from several workers at once. What holds: after
//! `resume_polling` some worker is active, and the last one to stop calls
//! `prepare_sleep`.

use std::time::Duration;

use crate::futex::WaitWord;

/// How long one idle worker polls the sources before it sleeps.
pub const SPIN_BUDGET: Duration = Duration::from_micros(50);

/// A source's answer to [`HotSource::prepare_sleep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SleepVote {
    /// Work has arrived; the worker polls again.
    StayAwake,
    /// Nothing to do; the source's words will be woken for new work.
    Sleep,
}

/// Work that arrives through memory. See the module documentation.
pub trait HotSource: Send + Sync + 'static {
    /// Looks for work, wakes the tasks it is for (their wakers put them on the
    /// calling worker's own queue), and says whether there was any. Cheap if
    /// there is none.
    fn poll(&self) -> bool;

    /// Whether polling could find something soon, that is, whether some guest
    /// thread runs now. If not, workers sleep at once instead of spinning.
    fn is_armed(&self) -> bool;

    /// "Nobody polls from now on": see the module documentation. Pushes the
    /// words to sleep on; all sources together may name
    /// [`crate::futex::MAX_WAIT_WORDS`]` - 1`, so a source with many bells
    /// waits for them on a thread of its own.
    fn prepare_sleep(&self, words: &mut Vec<WaitWord>) -> SleepVote;

    /// "Somebody polls again."
    fn resume_polling(&self);
}
