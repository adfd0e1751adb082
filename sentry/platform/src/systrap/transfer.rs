//! Transfers between files and guest memory through the halves of a thread's
//! window: while the stub copies one, the host fills or empties the other.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use syscall_tables::Errno;

use super::context::Turn;
use super::layout as l;
use crate::window::PIECE_LEN;
use crate::{Transferred, Way, Window};

/// Bytes of one half.
const HALF: u64 = l::WINDOW_LEN / 2;
const _: () = assert!(HALF >= PIECE_LEN as u64);

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transfer {
    /// Bytes on their way between guest memory and a half, and which.
    flight: usize,
    flight_half: u64,
    /// Bytes ordered so far, those on their way included.
    ordered: usize,
    /// To the guest: bytes that lie in the other half.
    filled: usize,
    /// No more is to be ordered.
    ended: bool,
    result: Transferred,
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

impl Transfer {
    fn half(&self, which: u64) -> u64 {
        l::C_WINDOW + which * HALF
    }

    /// As [`crate::GuestThread::poll_transfer`].
    pub(super) fn poll(
        &mut self,
        turn: &mut Turn,
        cx: &mut Context<'_>,
        way: Way,
        addr: u64,
        len: usize,
        side: &mut (dyn FnMut(&Window<'_>) -> Result<usize, Errno> + Send),
    ) -> Poll<Transferred> {
        if self.ordered == 0 && ready!(turn.poll_answer(cx)).is_err() {
            self.fault();
        }
        loop {
            if way == Way::ToGuest {
                self.fill(turn, len, side);
            }
            let mut arrived = 0;
            let mut arrived_half = self.flight_half;
            if self.flight != 0 {
                arrived = ready!(self.poll_flight(turn, cx));
                arrived_half = self.flight_half;
            }
            match way {
                Way::ToGuest => {
                    self.result.done += arrived;
                    if !self.result.faulted && self.filled != 0 {
                        let count = std::mem::take(&mut self.filled);
                        self.order(turn, way, addr, count);
                    }
                }
                Way::FromGuest => {
                    if !self.ended && self.ordered < len {
                        let count = (len - self.ordered).min(to_usize(HALF));
                        self.order(turn, way, addr, count);
                    }
                    // After an error the rest of what was ordered is dropped.
                    if arrived != 0 && self.result.error.is_none() {
                        self.empty(turn, arrived_half, arrived, side);
                    }
                }
            }
            if self.flight == 0 {
                return Poll::Ready(self.result);
            }
        }
    }

    fn fault(&mut self) {
        self.result.faulted = true;
        self.ended = true;
        self.filled = 0;
    }

    /// Fills the half that is not on its way.
    fn fill(
        &mut self,
        turn: &Turn,
        len: usize,
        side: &mut (dyn FnMut(&Window<'_>) -> Result<usize, Errno> + Send),
    ) {
        if self.ended || self.filled != 0 || self.ordered == len {
            return;
        }
        let wanted = (len - self.ordered).min(to_usize(HALF));
        let offset = turn.field(self.half(1 - self.flight_half));
        match side(&turn.map().window(offset, wanted)) {
            Ok(count) => {
                self.filled = count.min(wanted);
                self.ended = count < wanted;
            }
            Err(errno) => {
                self.result.error = Some(errno);
                self.ended = true;
            }
        }
    }

    /// Hands what has come from the guest to the file.
    fn empty(
        &mut self,
        turn: &Turn,
        half: u64,
        count: usize,
        side: &mut (dyn FnMut(&Window<'_>) -> Result<usize, Errno> + Send),
    ) {
        let offset = turn.field(self.half(half));
        match side(&turn.map().window(offset, count)) {
            Ok(taken) => {
                self.result.done += taken.min(count);
                if taken < count {
                    // The other half must not follow a gap.
                    self.result.error = Some(Errno::EAGAIN);
                    self.ended = true;
                }
            }
            Err(errno) => {
                self.result.error = Some(errno);
                self.ended = true;
            }
        }
    }

    /// Orders the copy of the half that is not on its way.
    fn order(&mut self, turn: &mut Turn, way: Way, addr: u64, count: usize) {
        let at = addr
            .checked_add(to_u64(self.ordered))
            .filter(|&at| at < l::STUB_BASE);
        let Some(at) = at else {
            self.fault();
            return;
        };
        // Behind the guest's memory nothing is accessible.
        let room = l::STUB_BASE - at;
        if to_u64(count) > room {
            self.fault();
        }
        let count = to_u64(count).min(room);
        let half = 1 - self.flight_half;
        let window = turn.stub_addr(self.half(half));
        let (from, to) = match way {
            Way::ToGuest => (window, at),
            Way::FromGuest => (at, window),
        };
        turn.set_args(&[from, to, count]);
        if turn.order(l::OP_COPY).is_err() {
            self.fault();
            return;
        }
        self.flight = to_usize(count);
        self.flight_half = half;
        self.ordered += self.flight;
    }

    /// How much of what was on its way has arrived.
    fn poll_flight(&mut self, turn: &mut Turn, cx: &mut Context<'_>) -> Poll<usize> {
        let answer = ready!(turn.poll_answer(cx));
        let flight = std::mem::take(&mut self.flight);
        if answer.is_err() {
            self.fault();
            return Poll::Ready(0);
        }
        let map = turn.map();
        let left = map.load(turn.field(l::C_RESULT)).min(to_u64(flight));
        let status = map.u32(turn.field(l::C_STATUS)).load(Ordering::Relaxed);
        if status != l::STATUS_DONE || left != 0 {
            self.fault();
        }
        Poll::Ready(flight - to_usize(left))
    }
}
