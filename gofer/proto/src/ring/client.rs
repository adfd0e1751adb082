//! The sentry's side of the ring.
//!
//! Locks: `parked` (fds that arrived for other calls, and free slots); no
//! other lock is taken under it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use syscall_tables::Errno;

use super::{
    ClientPort, FLAG_FD, GENERATION_SHIFT, Layout, MAGIC, RING_WORDS, Received, SLOTS, STATE_MASK,
    STATE_REPLY, STATE_REQUEST, STATE_SLEEP, VERSION, WINDOW_LEN, WORD_MAGIC, WORD_SLOTS,
    WORD_VERSION, call_tag, load_bytes, next_generation, spin_until, store_bytes,
};
use crate::wire::Malformed;

/// How often a sleeping call looks whether the gofer still lives.
const LIVENESS_PERIOD: Duration = Duration::from_millis(20);

/// Why a call has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The gofer's answer: a host error number.
    Errno(Errno),
    /// The fd that belongs to the reply could not be received because this
    /// process has too many open.
    NoRoomForFd,
    /// The gofer is gone or broke the protocol; all calls fail from now on.
    Gone,
}

/// Makes calls, any number of threads at once.
#[derive(Debug)]
pub struct Client<P> {
    port: P,
    gone: AtomicBool,
    /// Bit n is set while slot n is unused.
    free: AtomicU32,
    /// Last generation of each slot; its user owns it.
    generations: [AtomicU32; SLOTS],
    parked: Mutex<Parked>,
    slot_freed: Condvar,
}

#[derive(Debug, Default)]
struct Parked {
    fds: HashMap<u64, Option<OwnedFd>>,
    waiting_for_slot: usize,
}

impl<P: ClientPort> Client<P> {
    /// Takes the client's end of a fresh ring and marks it ready.
    pub fn new(port: P) -> Result<Self, Malformed> {
        if port.words().len() != RING_WORDS {
            return Err(Malformed("ring of wrong size"));
        }
        let layout = Layout::new(port.words());
        layout.word(WORD_VERSION).store(VERSION, SeqCst);
        layout
            .word(WORD_SLOTS)
            .store(u32::try_from(SLOTS).unwrap_or(0), SeqCst);
        layout.word(WORD_MAGIC).store(MAGIC, SeqCst);
        Ok(Self {
            port,
            gone: AtomicBool::new(false),
            free: AtomicU32::new(u32::MAX),
            generations: [const { AtomicU32::new(0) }; SLOTS],
            parked: Mutex::default(),
            slot_freed: Condvar::new(),
        })
    }

    /// Whether the connection has ended.
    pub fn is_gone(&self) -> bool {
        self.gone.load(SeqCst)
    }

    /// Sends `request` and waits for the reply, which replaces `reply`.
    pub fn call(&self, request: &[u8], reply: &mut Vec<u8>) -> Result<Option<OwnedFd>, CallError> {
        reply.clear();
        if request.len() > WINDOW_LEN {
            return Err(CallError::Errno(Errno::E2BIG));
        }
        let slot = self.take_slot()?;
        let result = self.call_in(slot, request, reply);
        if matches!(result, Err(CallError::Gone)) {
            // The slot may still be written to: it stays taken.
            self.end();
        } else {
            self.give_slot(slot);
        }
        let (fd_follows, tag) = result?;
        if fd_follows {
            self.receive_fd(tag).map(Some)
        } else {
            Ok(None)
        }
    }

    fn call_in(
        &self,
        slot: usize,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(bool, u64), CallError> {
        let layout = Layout::new(self.port.words());
        let words = layout.slot(slot);
        let counter = self.generations.get(slot).ok_or(CallError::Gone)?;
        let generation = next_generation(counter.load(SeqCst));
        counter.store(generation, SeqCst);

        store_bytes(words.request, request);
        words
            .request_len
            .store(u32::try_from(request.len()).unwrap_or(0), SeqCst);
        let asked = generation << GENERATION_SHIFT | STATE_REQUEST;
        let answered = generation << GENERATION_SHIFT | STATE_REPLY;
        words.state.swap(asked, SeqCst);
        layout.pending().fetch_or(1 << slot, SeqCst);
        if layout.polling().load(SeqCst) == 0 {
            layout.bell().fetch_add(1, SeqCst);
            self.port.wake(layout.bell(), 1);
        }

        let mut seen = words.state.load(SeqCst);
        spin_until(self.port.spin(), || {
            seen = words.state.load(SeqCst);
            seen != asked
        });
        while seen & !STATE_SLEEP == asked {
            if self.is_gone() || !self.drain_socket() {
                // A reply may have come just before the end.
                if words.state.load(SeqCst) != answered {
                    return Err(CallError::Gone);
                }
            } else {
                let sleeping = asked | STATE_SLEEP;
                match words
                    .state
                    .compare_exchange(asked, sleeping, SeqCst, SeqCst)
                {
                    Ok(_) => self.port.wait(words.state, sleeping, Some(LIVENESS_PERIOD)),
                    Err(now) if now == sleeping => {
                        self.port.wait(words.state, sleeping, Some(LIVENESS_PERIOD));
                    }
                    Err(_) => {}
                }
            }
            seen = words.state.load(SeqCst);
        }
        if seen != answered {
            return Err(CallError::Gone);
        }
        debug_assert_eq!(seen & STATE_MASK, STATE_REPLY);

        let len = usize::try_from(words.reply_len.load(SeqCst)).unwrap_or(usize::MAX);
        let errno = i32::try_from(words.errno.load(SeqCst)).unwrap_or(-1);
        let flags = words.flags.load(SeqCst);
        if len > WINDOW_LEN || !(0..4096).contains(&errno) || flags & !FLAG_FD != 0 {
            return Err(CallError::Gone);
        }
        if errno != 0 {
            return Err(CallError::Errno(Errno::from_raw(errno)));
        }
        load_bytes(words.reply, len, reply);
        Ok((flags & FLAG_FD != 0, call_tag(slot, generation)))
    }

    fn take_slot(&self) -> Result<usize, CallError> {
        loop {
            if self.is_gone() {
                return Err(CallError::Gone);
            }
            if let Some(slot) = self.try_take_slot() {
                return Ok(slot);
            }
            let mut parked = self.lock();
            parked.waiting_for_slot += 1;
            // A slot given back before the count went up would be missed.
            if self.free.load(SeqCst) == 0 {
                parked = self
                    .slot_freed
                    .wait_timeout(parked, LIVENESS_PERIOD)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            parked.waiting_for_slot -= 1;
        }
    }

    fn try_take_slot(&self) -> Option<usize> {
        let mut free = self.free.load(SeqCst);
        while free != 0 {
            // The lowest one, so that few windows are ever touched.
            let bit = free & free.wrapping_neg();
            match self
                .free
                .compare_exchange(free, free & !bit, SeqCst, SeqCst)
            {
                Ok(_) => return usize::try_from(bit.trailing_zeros()).ok(),
                Err(now) => free = now,
            }
        }
        None
    }

    fn give_slot(&self, slot: usize) {
        if self.free.fetch_or(1 << slot, SeqCst) == 0 && self.lock().waiting_for_slot > 0 {
            self.slot_freed.notify_all();
        }
    }

    /// Parks what the socket holds; false at its end. Peeking instead would
    /// never see the end behind a message nobody takes.
    fn drain_socket(&self) -> bool {
        let mut parked = self.lock();
        loop {
            match self.port.receive() {
                Received::Fd { tag, fd } if parked.fds.len() < SLOTS => {
                    parked.fds.insert(tag, fd);
                }
                Received::Nothing => return true,
                Received::Fd { .. } | Received::Gone => return false,
            }
        }
    }

    /// The fd of the call with this tag. The gofer sends it before the reply,
    /// so it is in the socket or parked by another thread.
    fn receive_fd(&self, tag: u64) -> Result<OwnedFd, CallError> {
        let mut parked = self.lock();
        let fd = loop {
            if let Some(fd) = parked.fds.remove(&tag) {
                break fd;
            }
            match self.port.receive() {
                Received::Fd { tag, fd } if parked.fds.len() < SLOTS => {
                    parked.fds.insert(tag, fd);
                }
                _ => {
                    drop(parked);
                    self.end();
                    return Err(CallError::Gone);
                }
            }
        };
        fd.ok_or(CallError::NoRoomForFd)
    }

    fn end(&self) {
        if !self.gone.swap(true, SeqCst) {
            // Calls asleep learn of it at once.
            let layout = Layout::new(self.port.words());
            for slot in 0..SLOTS {
                self.port.wake(layout.slot(slot).state, u32::MAX >> 1);
            }
            self.slot_freed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
