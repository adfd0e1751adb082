//! Hand-over of requests and replies in shared memory.
//!
//! The ring is a memfd, sealed against resizing, of [`RING_LEN`] bytes that
//! both sides see as 32-bit words and touch by atomic operations only, so
//! that no value can be read twice by accident:
//!
//! ```text
//! word    0  magic, version, number of slots
//! word   32  pending: bit n is set once slot n holds a request
//! word   64  bell: futex that sleeping gofer threads wait on
//! word   96  polling: number of gofer threads that look at `pending`
//! word  128  control words of slot 0, 32 words each (one pair of cache lines)
//! page    2  request window, then reply window, of each slot
//! ```
//!
//! A slot's state word is a generation (24 bits) over a state and the sleep
//! bit. Each call counts the generation up by one:
//!
//! ```text
//! client: request; xchg(state, gen|REQUEST); or(pending, bit)
//!         if polling == 0 { inc bell; FUTEX_WAKE(bell, 1) }
//!         spin a bounded time on state == gen|REPLY
//!         cmpxchg(state, gen|REQUEST → gen|REQUEST|SLEEP); FUTEX_WAIT; loop
//! server: and(pending, !bit) claims the slot; copy the request; handle it
//!         [send the fd]; reply; old = xchg(state, gen|REPLY)
//!         if old & SLEEP { FUTEX_WAKE(state, 1) }
//! server before it sleeps: b = bell; dec polling; recheck pending;
//!         FUTEX_WAIT(bell == b); inc polling
//! ```
//!
//! All these are sequentially consistent, so either the server's recheck sees
//! the bit or the client sees that nobody polls. Each side accepts only the
//! one transition it expects; the server ends the connection at any other.
//!
//! Host fds travel over the unix socket (`SOCK_SEQPACKET`), one per message,
//! in front of the reply they belong to; the message is the 8-byte
//! [`call_tag`]. The socket's end of file means that the peer is gone.

mod client;
mod server;
#[cfg(test)]
mod tests;

pub use client::{CallError, Client};
pub use server::{Claim, Server, SpinBudget, Violation};

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Calls in flight at once.
pub const SLOTS: usize = 32;
/// Largest request or reply in bytes.
pub const WINDOW_LEN: usize = 68 << 10;
/// Size of the shared memory in bytes.
pub const RING_LEN: usize = WINDOWS_AT + SLOTS * 2 * WINDOW_LEN;
/// The same in words.
pub const RING_WORDS: usize = RING_LEN / 4;

const MAGIC: u32 = u32::from_le_bytes(*b"gfr1");
/// Changes with every change of the ring or of a message.
const VERSION: u32 = 2;

const WORD_MAGIC: usize = 0;
const WORD_VERSION: usize = 1;
const WORD_SLOTS: usize = 2;
const WORD_PENDING: usize = 32;
const WORD_BELL: usize = 64;
const WORD_POLLING: usize = 96;
const WORD_CONTROL: usize = 128;
const CONTROL_WORDS: usize = 32;
const WINDOWS_AT: usize = 8 << 10;

const STATE_MASK: u32 = 0x3f;
const STATE_REQUEST: u32 = 1;
const STATE_REPLY: u32 = 2;
const STATE_SLEEP: u32 = 0x40;
const GENERATION_SHIFT: u32 = 8;
const GENERATION_MASK: u32 = 0x00ff_ffff;

/// Reply flag: an fd was sent before.
const FLAG_FD: u32 = 1;

/// What ring code needs of its process; one side's end of a connection.
pub trait Port: Send + Sync {
    /// The shared memory, [`RING_WORDS`] words.
    fn words(&self) -> &[AtomicU32];

    /// Sleeps while `word` is `expected`, `timeout` at most. May return early
    /// without cause.
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Option<Duration>);

    /// Wakes up to `count` sleepers of `word`, in either process.
    fn wake(&self, word: &AtomicU32, count: u32);

    /// How long waiting may spin before it sleeps; zero where there is only
    /// one CPU to run on.
    fn spin(&self) -> Duration;
}

/// A [`Port`] that receives fds: the client's.
pub trait ClientPort: Port {
    /// Takes a message from the socket without waiting.
    fn receive(&self) -> Received;
}

/// What the socket held.
#[derive(Debug)]
pub enum Received {
    /// A message and the fd it carried; no fd if this process has no room for
    /// another one.
    Fd { tag: u64, fd: Option<OwnedFd> },
    /// No message yet.
    Nothing,
    /// End of file, an error, or a message that breaks the protocol.
    Gone,
}

/// Identifies the call that an fd belongs to.
pub fn call_tag(slot: usize, generation: u32) -> u64 {
    let slot = u64::try_from(slot).unwrap_or(u64::MAX >> 32);
    slot << 32 | u64::from(generation)
}

fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1) & GENERATION_MASK
}

/// The words of a ring, with names.
struct Layout<'a> {
    words: &'a [AtomicU32],
}

static NO_WORD: AtomicU32 = AtomicU32::new(0);

impl<'a> Layout<'a> {
    fn new(words: &'a [AtomicU32]) -> Self {
        Self { words }
    }

    /// A word; the constructors of client and server have checked that the
    /// ring has all of them.
    fn word(&self, index: usize) -> &'a AtomicU32 {
        self.words.get(index).unwrap_or(&NO_WORD)
    }

    fn pending(&self) -> &'a AtomicU32 {
        self.word(WORD_PENDING)
    }

    fn bell(&self) -> &'a AtomicU32 {
        self.word(WORD_BELL)
    }

    fn polling(&self) -> &'a AtomicU32 {
        self.word(WORD_POLLING)
    }

    fn slot(&self, slot: usize) -> SlotWords<'a> {
        let base = WORD_CONTROL + slot * CONTROL_WORDS;
        let windows = (WINDOWS_AT + slot * 2 * WINDOW_LEN) / 4;
        let window = |at: usize| self.words.get(at..at + WINDOW_LEN / 4).unwrap_or_default();
        SlotWords {
            state: self.word(base),
            request_len: self.word(base + 1),
            reply_len: self.word(base + 2),
            errno: self.word(base + 3),
            flags: self.word(base + 4),
            request: window(windows),
            reply: window(windows + WINDOW_LEN / 4),
        }
    }
}

struct SlotWords<'a> {
    state: &'a AtomicU32,
    request_len: &'a AtomicU32,
    reply_len: &'a AtomicU32,
    errno: &'a AtomicU32,
    flags: &'a AtomicU32,
    request: &'a [AtomicU32],
    reply: &'a [AtomicU32],
}

/// Copies `bytes` into a window.
fn store_bytes(window: &[AtomicU32], bytes: &[u8]) {
    use std::sync::atomic::Ordering::Relaxed;
    let (whole, rest) = bytes.as_chunks::<4>();
    for (word, chunk) in window.iter().zip(whole) {
        word.store(u32::from_ne_bytes(*chunk), Relaxed);
    }
    if let Some(word) = window.get(whole.len())
        && !rest.is_empty()
    {
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        word.store(u32::from_ne_bytes(last), Relaxed);
    }
}

/// Replaces `out` by the first `len` bytes of a window, each read once.
fn load_bytes(window: &[AtomicU32], len: usize, out: &mut Vec<u8>) {
    use std::sync::atomic::Ordering::Relaxed;
    out.clear();
    out.reserve(len.next_multiple_of(4));
    for word in window.iter().take(len.div_ceil(4)) {
        out.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
    }
    out.truncate(len);
}

/// Number of pause instructions between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;

/// Spins until `ready` or until `limit` has passed; whether it got ready.
fn spin_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    if ready() {
        return true;
    }
    if limit.is_zero() {
        return false;
    }
    let start = std::time::Instant::now();
    loop {
        for _ in 0..SPINS_PER_LOOK {
            std::hint::spin_loop();
            if ready() {
                return true;
            }
        }
        if start.elapsed() >= limit {
            return false;
        }
    }
}
