//! Copies between the sentry and guest memory, by commands to the trapped
//! thread.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use super::{Phase, SystrapThread, to_u64, to_usize};
use crate::CopyFault;
use crate::systrap::layout as l;

/// What [`SystrapThread::poll_copy`] does with the bytes of a command.
pub(super) enum Copy<'a> {
    In(&'a mut [u8]),
    Out(&'a [u8]),
    Str(&'a mut [u8]),
}

impl Copy<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Copy::In(bytes) | Copy::Str(bytes) => bytes.len(),
            Copy::Out(bytes) => bytes.len(),
        }
    }
}

impl SystrapThread {
    /// One copy as commands of at most a window each; ready with how many
    /// bytes went through before the first inaccessible one, and for strings
    /// before the NUL.
    pub(super) fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        mut copy: Copy<'_>,
    ) -> Poll<Result<usize, CopyFault>> {
        let len = copy.len();
        loop {
            let (done, chunk) = match self.phase {
                Phase::Copying { done, chunk } => (done, chunk),
                // Zero bytes reach nothing; the address is not looked at.
                _ if len == 0 => return Poll::Ready(Ok(0)),
                _ => (0, 0),
            };
            if chunk == 0 {
                if let Some(done) = self.copy_offered(addr, &mut copy) {
                    return Poll::Ready(Ok(done));
                }
                ready!(self.poll_settle(cx, addr, len));
                // The stub has to be waiting; a new one may not be yet.
                if ready!(self.poll_flushed(cx)).is_err() {
                    self.phase = Phase::Idle;
                    return Poll::Ready(Err(CopyFault { copied: done }));
                }
                match self.order_copy(addr, &copy, done) {
                    Some(chunk) => self.phase = Phase::Copying { done, chunk },
                    None => {
                        self.phase = Phase::Idle;
                        return Poll::Ready(Err(CopyFault { copied: done }));
                    }
                }
                continue;
            }
            let answer = ready!(self.turn.poll_answer(cx));
            self.phase = Phase::Idle;
            if answer.is_err() {
                return Poll::Ready(Err(CopyFault { copied: done }));
            }
            let map = self.turn.map();
            let left = map.load(self.turn.field(l::C_RESULT)).min(to_u64(chunk));
            let status = map
                .u32(self.turn.field(l::C_STATUS))
                .load(Ordering::Relaxed);
            let moved = chunk - to_usize(left);
            let window = self.turn.field(window(chunk));
            let total = done + moved;
            let is_str = matches!(copy, Copy::Str(_));
            if let Copy::In(bytes) | Copy::Str(bytes) = &mut copy
                && let Some(bytes) = bytes.get_mut(done..total)
            {
                map.read(window, bytes);
                if is_str && let Some(end) = bytes.iter().position(|&byte| byte == 0) {
                    return Poll::Ready(Ok(done + end));
                }
            }
            let whole = status == l::STATUS_DONE && left == 0;
            if !whole {
                return Poll::Ready(Err(CopyFault { copied: total }));
            }
            if total == len {
                return Poll::Ready(Ok(total));
            }
            self.phase = Phase::Copying {
                done: total,
                chunk: 0,
            };
        }
    }

    /// Orders the next part of a copy; its length, or nothing if the address
    /// is none of the guest's or the stub is gone.
    fn order_copy(&mut self, addr: u64, copy: &Copy<'_>, done: usize) -> Option<usize> {
        let at = addr
            .checked_add(to_u64(done))
            .filter(|&at| at < l::STUB_BASE)?;
        let room = to_usize(l::STUB_BASE - at);
        let chunk = (copy.len() - done).min(room).min(to_usize(l::WINDOW_LEN));
        let window_offset = window(chunk);
        let window = self.turn.stub_addr(window_offset);
        let size = to_u64(chunk);
        let operation = match copy {
            Copy::In(_) => {
                self.turn.set_args(&[at, window, size]);
                l::OP_COPY
            }
            Copy::Out(bytes) => {
                let part = bytes.get(done..done + chunk)?;
                self.turn.map().write(self.turn.field(window_offset), part);
                self.turn.set_args(&[window, at, size]);
                l::OP_COPY
            }
            Copy::Str(_) => {
                self.turn.set_args(&[at, window, size]);
                l::OP_COPY_STR
            }
        };
        self.turn.order(operation).ok()?;
        Some(chunk)
    }
}

/// Where a copy of `len` bytes goes.
fn window(len: usize) -> u64 {
    let len = to_u64(len);
    if len <= l::INLINE_WINDOW_LEN {
        l::C_INLINE_WINDOW
    } else if len <= l::SMALL_WINDOW_LEN {
        l::C_SMALL_WINDOW
    } else {
        l::C_WINDOW
    }
}
