//! What comes with a call, and what goes with its result, so that a call which
//! reads or writes a little guest memory is one hand-over.
//!
//! A stub fetches what a call will read by its row in [`Hints`], and touches what
//! it will write. A copy from there is then served from the context; one to
//! there is put aside and made by the stub when it returns, or before any other
//! command. For the guest that is no different from a copy at its time: the
//! memory was accessible when the call was made, and if another thread takes it
//! away meanwhile, the call came first. So whatever is inaccessible when the
//! copy is made is left out.
//!
//! An offer holds for as long as the task has not waited since the call came:
//! what a call that has waited reads is what is there then, and what it
//! writes to may be gone.
//!
//! [`Hints`]: crate::systrap::hints::Hints

use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use syscall_tables::Errno;

use super::copy::Copy;
use super::{Phase, SystrapThread, to_u64, to_usize};
use crate::executor;
use crate::systrap::hub::Dead;
use crate::systrap::layout as l;
use crate::{Call, Transferred, Way, Window};

/// Bytes of a page.
const PAGE: u64 = 0x1000;

/// What the stub says has come with a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offer {
    /// `HINT_*`; 0 for nothing.
    word: u32,
    /// [`executor::current_run`] when it came.
    run: u64,
}

/// Bytes in the context that are to go to guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    addr: u64,
    len: u64,
    /// Where they are in the context.
    window: u64,
}

impl Queued {
    /// What is left when the copy has stopped `left` bytes before its end: the
    /// pages behind the inaccessible one.
    fn behind_fault(self, left: u64) -> Option<Self> {
        let done = self.len - left.min(self.len);
        let at = self.addr + done;
        let next = (at / PAGE + 1) * PAGE;
        let skipped = next - self.addr;
        (skipped < self.len).then(|| Self {
            addr: next,
            len: self.len - skipped,
            window: self.window + skipped,
        })
    }
}

/// Where the stub puts `count` fetched bytes.
fn fetched(count: u64) -> u64 {
    if count <= l::HINT_LEN {
        l::C_HINT
    } else if count <= l::SMALL_WINDOW_LEN {
        l::C_SMALL_WINDOW
    } else {
        l::C_WINDOW
    }
}

/// Where bytes wait that go with a result.
fn waiting(len: u64) -> u64 {
    if len <= l::RETURN_WINDOW_LEN {
        l::C_RETURN_WINDOW
    } else {
        fetched(len)
    }
}

impl SystrapThread {
    /// Notes what has come with a call.
    pub(super) fn take_offer(&mut self) {
        let word = self.turn.map().u32(self.turn.field(l::C_STATUS));
        let word = word.load(Ordering::Relaxed);
        self.offer = Offer {
            word,
            run: if word == 0 {
                0
            } else {
                executor::current_run()
            },
        };
    }

    /// The call as it came, if what came with it still holds.
    fn offered(&self) -> Option<Call> {
        let Offer { word, run } = self.offer;
        let holds = word != 0 && self.phase == Phase::Idle && run == executor::current_run();
        holds.then(|| match &self.live {
            Some(live) => live.call,
            None => {
                let regs = &self.registers().original;
                Call {
                    number: regs.rax,
                    args: regs.syscall_args(),
                }
            }
        })
    }

    /// Guest memory that the stub has fetched, and where it is.
    fn fetched(&self) -> Option<(u64, u64, u64)> {
        let count = u64::from(self.offer.word & l::HINT_COUNT);
        if count == 0 || count > l::HINT_MAX || self.queued.is_some() {
            return None;
        }
        let call = self.offered()?;
        let row = self.space.stub.machine.hints.row(call.number).read;
        let addr = row.address(&call.args)?;
        if addr.checked_add(count)? > l::STUB_BASE {
            return None;
        }
        if row.is_string() {
            return Some((addr, count.min(l::HINT_LEN), l::C_HINT));
        }
        (row.len(&call.args) == count).then(|| (addr, count, fetched(count)))
    }

    /// How many bytes from `addr` on were writable when the call came.
    fn writable(&self, addr: u64) -> u64 {
        if self.offer.word & l::HINT_WRITABLE == 0 || self.queued.is_some() {
            return 0;
        }
        let Some(call) = self.offered() else { return 0 };
        let row = self.space.stub.machine.hints.row(call.number).written;
        if row.address(&call.args) != Some(addr) || addr >= l::STUB_BASE {
            return 0;
        }
        let len = row.len(&call.args).min(l::HINT_MAX);
        len.min(l::STUB_BASE - addr)
    }

    /// Makes a copy without a hand-over, if it is of what came with the call.
    pub(super) fn copy_offered(&mut self, addr: u64, copy: &mut Copy<'_>) -> Option<usize> {
        if self.space.put_off.concerns(addr, copy.len()) {
            // What the stub has met there is not what will be.
            self.offer = Offer::default();
            return None;
        }
        match copy {
            Copy::In(bytes) => {
                let (offset, left) = self.in_fetched(addr)?;
                if to_u64(bytes.len()) > left {
                    return None;
                }
                self.turn.map().read(self.turn.field(offset), bytes);
                Some(bytes.len())
            }
            Copy::Str(bytes) => {
                let (offset, left) = self.in_fetched(addr)?;
                let whole = bytes.len();
                let len = whole.min(to_usize(left));
                let bytes = bytes.get_mut(..len)?;
                self.turn.map().read(self.turn.field(offset), bytes);
                let end = bytes.iter().position(|&byte| byte == 0);
                end.or_else(|| (len == whole).then_some(len))
            }
            Copy::Out(bytes) => {
                let len = to_u64(bytes.len());
                if len > self.writable(addr) {
                    return None;
                }
                let window = waiting(len);
                self.turn.map().write(self.turn.field(window), bytes);
                self.queued = Some(Queued { addr, len, window });
                Some(bytes.len())
            }
        }
    }

    /// Where in the context the fetched memory from `addr` on is, and how much
    /// of it there is.
    fn in_fetched(&self, addr: u64) -> Option<(u64, u64)> {
        let (start, len, window) = self.fetched()?;
        let offset = addr.checked_sub(start).filter(|&offset| offset < len)?;
        Some((window + offset, len - offset))
    }

    /// Makes a transfer without a hand-over, if it is about what came with the
    /// call.
    pub(super) fn transfer_offered(
        &mut self,
        way: Way,
        addr: u64,
        len: usize,
        side: &mut (dyn FnMut(&Window<'_>) -> Result<usize, Errno> + Send),
    ) -> Option<Transferred> {
        if self.space.put_off.concerns(addr, len) {
            self.offer = Offer::default();
            return None;
        }
        let offset = match way {
            Way::ToGuest if to_u64(len) <= self.writable(addr) => l::C_WINDOW,
            Way::ToGuest => return None,
            Way::FromGuest => match self.in_fetched(addr)? {
                (offset, left) if to_u64(len) <= left => offset,
                _ => return None,
            },
        };
        let window = self.turn.map().window(self.turn.field(offset), len);
        let mut result = Transferred::default();
        match side(&window) {
            Ok(count) => result.done = count.min(len),
            Err(errno) => result.error = Some(errno),
        }
        if way == Way::FromGuest {
            if result.error.is_none() && result.done < len {
                result.error = Some(Errno::EAGAIN);
            }
        } else if result.done != 0 {
            self.queued = Some(Queued {
                addr,
                len: to_u64(result.done),
                window: offset,
            });
        }
        Some(result)
    }

    /// Ready when the stub waits for orders and nothing is left that should be
    /// in guest memory by now.
    pub(super) fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Dead>> {
        ready!(self.turn.poll_answer(cx))?;
        self.offer = Offer::default();
        loop {
            if self.phase == Phase::Flushing {
                ready!(self.turn.poll_answer(cx))?;
                self.phase = Phase::Idle;
                let map = self.turn.map();
                let left = map.load(self.turn.field(l::C_RESULT));
                let status = map.u32(self.turn.field(l::C_STATUS));
                let whole = status.load(Ordering::Relaxed) == l::STATUS_DONE && left == 0;
                let queued = self.queued.take().filter(|_| !whole);
                self.queued = queued.and_then(|queued| queued.behind_fault(left));
            }
            let Some(Queued { addr, len, window }) = self.queued else {
                return Poll::Ready(Ok(()));
            };
            let from = self.turn.stub_addr(window);
            self.turn.set_args(&[from, addr, len]);
            self.turn.order(l::OP_COPY)?;
            self.phase = Phase::Flushing;
        }
    }

    /// What to do on the way to guest code: `alone`, or `with_copy` if
    /// something goes with the result.
    pub(super) fn put_queued(&self, alone: u32, with_copy: u32) -> u32 {
        let Some(Queued { addr, len, window }) = self.queued else {
            return alone;
        };
        let map = self.turn.map();
        let values = [self.turn.stub_addr(window), addr, len];
        for (value, index) in values.into_iter().zip(1..) {
            map.store(self.turn.field(l::C_ARGS + index * 8), value);
        }
        with_copy
    }

    /// Something that was to go with a result has met inaccessible memory; an
    /// error if there was none.
    pub(super) fn queue_faulted(&mut self) -> Result<(), Dead> {
        let Some(queued) = self.queued.take() else {
            return Err(self.turn.breach());
        };
        let left = self.turn.map().load(self.turn.field(l::C_ARGS + 24));
        self.queued = queued.behind_fault(left);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inaccessible_pages_are_left_out() {
        let queued = Queued {
            addr: 0x1ff0,
            len: 0x1020,
            window: 0x100,
        };
        let rest = queued.behind_fault(0x1020).expect("a page");
        assert_eq!((rest.addr, rest.len, rest.window), (0x2000, 0x1010, 0x110));
        let rest = rest.behind_fault(0x1010).expect("the last one");
        assert_eq!((rest.addr, rest.len), (0x3000, 0x10));
        assert_eq!(rest.behind_fault(1), None);
        assert_eq!(queued.behind_fault(u64::MAX), queued.behind_fault(0x1020));
    }
}
