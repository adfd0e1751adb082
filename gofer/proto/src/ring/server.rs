//! The gofer's side of the ring. What it reads may be the work of a hostile
//! sentry; anything unexpected is a [`Violation`].

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use syscall_tables::Errno;

use super::{
    FLAG_FD, GENERATION_MASK, GENERATION_SHIFT, Layout, MAGIC, Port, RING_WORDS, SLOTS,
    STATE_REPLY, STATE_REQUEST, STATE_SLEEP, VERSION, WINDOW_LEN, WORD_MAGIC, WORD_SLOTS,
    WORD_VERSION, call_tag, load_bytes, next_generation, spin_until, store_bytes,
};

/// The client broke the protocol; the connection is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

/// Serves calls, any number of threads at once.
#[derive(Debug)]
pub struct Server<P> {
    port: P,
    stopped: AtomicBool,
    /// Last generation seen in each slot.
    generations: [AtomicU32; SLOTS],
    max_pollers: u32,
}

/// A request that the calling thread is to answer.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Claim {
    slot: usize,
    generation: u32,
}

impl Claim {
    /// What an fd for this call is marked with.
    pub fn tag(&self) -> u64 {
        call_tag(self.slot, self.generation)
    }
}

/// How long a thread spins for the next request, learnt from how long the
/// last ones were in coming.
#[derive(Clone, Copy, Debug)]
pub struct SpinBudget(Duration);

impl<P: Port> Server<P> {
    /// Takes the server's end. At most `max_pollers` threads spin at once.
    pub fn new(port: P, max_pollers: u32) -> Result<Self, Violation> {
        if port.words().len() != RING_WORDS {
            return Err(Violation("ring of wrong size"));
        }
        Ok(Self {
            port,
            stopped: AtomicBool::new(false),
            generations: [const { AtomicU32::new(0) }; SLOTS],
            max_pollers,
        })
    }

    pub fn port(&self) -> &P {
        &self.port
    }

    /// A budget to start a thread with.
    pub fn spin_budget(&self) -> SpinBudget {
        SpinBudget(self.port.spin())
    }

    /// Makes all threads return from [`Self::next`] with nothing, and callers
    /// in the sentry look whether the socket, which is to be shut down first,
    /// has ended.
    pub fn stop(&self) {
        self.stopped.store(true, SeqCst);
        let layout = Layout::new(self.port.words());
        layout.bell().fetch_add(1, SeqCst);
        self.port.wake(layout.bell(), u32::MAX >> 1);
        for slot in 0..SLOTS {
            self.port.wake(layout.slot(slot).state, u32::MAX >> 1);
        }
    }

    /// Waits for a request and copies it into `request`; `None` once stopped.
    pub fn next(
        &self,
        request: &mut Vec<u8>,
        budget: &mut SpinBudget,
    ) -> Result<Option<Claim>, Violation> {
        let layout = Layout::new(self.port.words());
        loop {
            if let Some(claim) = self.try_claim(&layout, request)? {
                return Ok(Some(claim));
            }
            if self.stopped.load(SeqCst) {
                return Ok(None);
            }
            self.idle(&layout, budget);
        }
    }

    /// Spins, then sleeps, until there may be a request.
    fn idle(&self, layout: &Layout<'_>, budget: &mut SpinBudget) {
        let start = Instant::now();
        let polling = layout.polling();
        let others = polling.fetch_add(1, SeqCst);
        if others < self.max_pollers {
            spin_until(budget.0, || {
                layout.pending().load(SeqCst) != 0 || self.stopped.load(SeqCst)
            });
        }
        let bell = layout.bell().load(SeqCst);
        polling.fetch_sub(1, SeqCst);
        let found = layout.pending().load(SeqCst) != 0 || self.stopped.load(SeqCst);
        if !found {
            self.port.wait(layout.bell(), bell, None);
        }
        let limit = self.port.spin();
        if start.elapsed() < limit {
            budget.0 = limit;
        } else {
            budget.0 = (budget.0 / 2).max(Duration::from_micros(1)).min(limit);
        }
    }

    fn try_claim(
        &self,
        layout: &Layout<'_>,
        request: &mut Vec<u8>,
    ) -> Result<Option<Claim>, Violation> {
        let pending = layout.pending();
        let mut seen = pending.load(SeqCst);
        let slot = loop {
            if seen == 0 {
                return Ok(None);
            }
            let bit = seen & seen.wrapping_neg();
            match pending.compare_exchange(seen, seen & !bit, SeqCst, SeqCst) {
                Ok(_) => {
                    seen &= !bit;
                    break usize::try_from(bit.trailing_zeros()).unwrap_or(0);
                }
                Err(now) => seen = now,
            }
        };
        if seen != 0 && layout.polling().load(SeqCst) == 0 {
            // Others must not wait for this one to be handled.
            layout.bell().fetch_add(1, SeqCst);
            self.port.wake(layout.bell(), 1);
        }
        let words = layout.slot(slot);
        let state = words.state.load(SeqCst);
        if state & 0xff & !STATE_SLEEP != STATE_REQUEST {
            return Err(Violation("slot without a request"));
        }
        let generation = state >> GENERATION_SHIFT;
        let last = self
            .generations
            .get(slot)
            .ok_or(Violation("no such slot"))?;
        // Generations count up by one; the exchange also makes sure that no
        // two threads serve the same call.
        let before = generation.wrapping_sub(1) & GENERATION_MASK;
        debug_assert_eq!(next_generation(before), generation);
        if last
            .compare_exchange(before, generation, SeqCst, SeqCst)
            .is_err()
        {
            return Err(Violation("wrong generation"));
        }
        if layout.word(WORD_MAGIC).load(SeqCst) != MAGIC
            || layout.word(WORD_VERSION).load(SeqCst) != VERSION
            || usize::try_from(layout.word(WORD_SLOTS).load(SeqCst)) != Ok(SLOTS)
        {
            return Err(Violation("ring of another version"));
        }
        let len = usize::try_from(words.request_len.load(SeqCst)).unwrap_or(usize::MAX);
        if len > WINDOW_LEN {
            return Err(Violation("request longer than its window"));
        }
        load_bytes(words.request, len, request);
        Ok(Some(Claim { slot, generation }))
    }

    /// Answers a call, with an empty `reply` if there is an error; the caller
    /// has sent the fd, if there is one, before.
    pub fn answer(
        &self,
        claim: Claim,
        error: Option<Errno>,
        reply: &[u8],
        fd_sent: bool,
    ) -> Result<(), Violation> {
        let layout = Layout::new(self.port.words());
        let words = layout.slot(claim.slot);
        let reply = reply.get(..WINDOW_LEN).unwrap_or(reply);
        store_bytes(words.reply, reply);
        words
            .reply_len
            .store(u32::try_from(reply.len()).unwrap_or(0), SeqCst);
        let errno = error.map_or(0, Errno::raw);
        words.errno.store(u32::try_from(errno).unwrap_or(0), SeqCst);
        words.flags.store(if fd_sent { FLAG_FD } else { 0 }, SeqCst);
        let asked = claim.generation << GENERATION_SHIFT | STATE_REQUEST;
        let answered = claim.generation << GENERATION_SHIFT | STATE_REPLY;
        let old = words.state.swap(answered, SeqCst);
        if old & !STATE_SLEEP != asked {
            return Err(Violation("slot changed while its call was served"));
        }
        if old & STATE_SLEEP != 0 {
            self.port.wake(words.state, 1);
        }
        Ok(())
    }
}
