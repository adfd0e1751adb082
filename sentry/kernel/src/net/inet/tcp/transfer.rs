//! Sending and receiving on TCP sockets.

use std::collections::VecDeque;

use syscall_tables::Errno;
use syscall_tables::abi::{MsgFlags, SO_OOBINLINE};

use super::{RING_DEFAULT, Receive, Stage, TcpSocket, Urgent};
use crate::net::{Received, SendRequest, ring};
use crate::sync::Events;

/// Rings that have grown beyond this are given back when empty.
const KEEP_BYTES: usize = 64 << 10;

/// A ring of this capacity is writable with no more than this in it: as Linux
/// has it, a third must be free.
const fn low_mark(capacity: usize) -> usize {
    capacity - capacity / 3
}

impl TcpSocket {
    /// Bytes that may be under way to `peer`.
    fn capacity_towards(&self, peer: &Self) -> usize {
        let send = self.base.options.lock().set_send_buffer();
        let recv = peer.base.options.lock().set_recv_buffer();
        match (send, recv) {
            (None, None) => RING_DEFAULT,
            (send, recv) => {
                let default = RING_DEFAULT / 2;
                send.unwrap_or(default) + recv.unwrap_or(default)
            }
        }
    }

    pub(super) fn do_send(&self, request: &SendRequest<'_>) -> Result<usize, Errno> {
        if self.has_ended_sending() {
            return Err(Errno::EPIPE);
        }
        self.base.take_error()?;
        let peer = match &self.state.lock().stage {
            Stage::Connected { peer, .. } => peer.clone(),
            Stage::Connecting { .. } => return Err(Errno::EAGAIN),
            Stage::Closed | Stage::Listening(_) => return Err(Errno::EPIPE),
        };
        let (was_reset, fin) = {
            let rx = self.rx.lock();
            (rx.reset, rx.fin)
        };
        if was_reset {
            return Err(Errno::EPIPE);
        }
        if request.data.is_empty() {
            return Ok(0);
        }
        let capacity = self.capacity_towards(&peer);
        let inline = peer.base.is_on(SO_OOBINLINE);
        let mut rx = peer.rx.lock();
        if rx.closed {
            drop(rx);
            // What fits the buffer goes out, and a reset comes back.
            self.reset(if fin { Errno::EPIPE } else { Errno::ECONNRESET });
            return Ok(request.data.len().min(capacity));
        }
        let room = capacity.saturating_sub(rx.bytes.len());
        if room == 0 {
            rx.writer_waits = Some(low_mark(capacity));
            return Err(Errno::EAGAIN);
        }
        let len = request.data.len().min(room);
        let data = request.data.get(..len).unwrap_or_default();
        let urgent = request.flags.contains(MsgFlags::MSG_OOB) && len == request.data.len();
        let mut events = Events::READABLE;
        match data.split_last() {
            Some((last, rest)) if urgent => {
                rx.bytes.extend(rest);
                let before = rx.bytes.len();
                if inline {
                    rx.bytes.push_back(*last);
                }
                rx.urgent = Some(Urgent {
                    byte: Some(*last).filter(|_| !inline),
                    before,
                });
                events |= Events::PRI;
            }
            _ => rx.bytes.extend(data),
        }
        drop(rx);
        peer.base.queue.notify(events);
        Ok(len)
    }

    pub(super) fn do_recv(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        if flags.contains(MsgFlags::MSG_OOB) {
            return self.recv_urgent(buf, flags);
        }
        let peek = flags.contains(MsgFlags::MSG_PEEK);
        let discard = flags.contains(MsgFlags::MSG_TRUNC);
        let mut rx = self.rx.lock();
        if rx.bytes.is_empty() {
            let (over, ended) = (rx.fin || rx.reset, rx.ended);
            drop(rx);
            self.base.take_error()?;
            if over || ended {
                return Ok(Received::default());
            }
            return match self.state.lock().stage {
                Stage::Connected { .. } | Stage::Connecting { .. } => Err(Errno::EAGAIN),
                Stage::Closed | Stage::Listening(_) => Err(Errno::ENOTCONN),
            };
        }
        if buf.is_empty() {
            return Ok(Received::default());
        }
        let mut len = buf.len().min(rx.bytes.len());
        // A read stops at the mark; the next one goes over it.
        if let Some(urgent) = &rx.urgent
            && urgent.before > 0
        {
            len = len.min(urgent.before);
        }
        let mut received = Received {
            full_len: len,
            ..Received::default()
        };
        if !discard {
            received.len = ring::copy_from(&rx.bytes, 0, buf.get_mut(..len).unwrap_or_default());
        }
        if peek {
            return Ok(received);
        }
        let wake_writer = self.consume(&mut rx, len);
        drop(rx);
        if wake_writer && let Some(peer) = self.connection() {
            peer.base.queue.notify(Events::WRITABLE);
        }
        Ok(received)
    }

    /// Takes bytes off the ring; answers whether to wake the writer.
    fn consume(&self, rx: &mut Receive, len: usize) -> bool {
        rx.bytes.drain(..len.min(rx.bytes.len()));
        if let Some(urgent) = &mut rx.urgent {
            if urgent.before < len || (urgent.before == 0 && len > 0) {
                rx.urgent = None;
            } else {
                urgent.before -= len;
            }
        }
        if rx.bytes.is_empty() && rx.bytes.capacity() > KEEP_BYTES {
            rx.bytes = VecDeque::new();
        }
        let left = rx.bytes.len();
        rx.writer_waits.take_if(|mark| left <= *mark).is_some()
    }

    fn recv_urgent(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        let mut rx = self.rx.lock();
        let byte = rx.urgent.as_ref().and_then(|urgent| urgent.byte);
        let byte = byte.ok_or(Errno::EINVAL)?;
        if !flags.contains(MsgFlags::MSG_PEEK)
            && let Some(urgent) = &mut rx.urgent
        {
            urgent.byte = None;
        }
        let mut received = Received {
            flags: MsgFlags::MSG_OOB,
            ..Received::default()
        };
        if let Some(first) = buf.first_mut() {
            *first = byte;
            received.len = 1;
            received.full_len = 1;
        }
        Ok(received)
    }

    pub(super) fn do_unread(&self, bytes: &[u8]) {
        let mut rx = self.rx.lock();
        ring::unread(&mut rx.bytes, bytes);
        if let Some(urgent) = &mut rx.urgent {
            urgent.before += bytes.len();
        }
    }

    /// Whether a write would find room; if not, it will be told of it.
    fn is_writable(&self, peer: &Self) -> bool {
        let capacity = self.capacity_towards(peer);
        let mut rx = peer.rx.lock();
        let writable = rx.closed || rx.bytes.len() <= low_mark(capacity);
        if !writable {
            rx.writer_waits = Some(low_mark(capacity));
        }
        writable
    }

    pub(super) fn do_poll(&self) -> Events {
        let mut events = Events::empty();
        if self.base.has_error() {
            events |= Events::ERR;
        }
        let peer = match &self.state.lock().stage {
            Stage::Closed => {
                return events | Events::HUP | Events::WRITABLE | self.ended_events();
            }
            Stage::Listening(listener) => {
                if !listener.pending.is_empty() {
                    events |= Events::READABLE;
                }
                return events;
            }
            Stage::Connecting { .. } => return events,
            Stage::Connected { peer, .. } => peer.clone(),
        };
        let send_ended = self.has_ended_sending();
        let (reset, recv_ended) = {
            let rx = self.rx.lock();
            if !rx.bytes.is_empty() {
                events |= Events::READABLE;
            }
            if rx
                .urgent
                .as_ref()
                .is_some_and(|urgent| urgent.byte.is_some())
            {
                events |= Events::PRI;
            }
            (rx.reset, rx.fin || rx.ended || rx.reset)
        };
        if recv_ended {
            events |= Events::READABLE | Events::RDHUP;
        }
        if reset || (recv_ended && send_ended) {
            events |= Events::HUP;
        }
        if reset || send_ended || self.is_writable(&peer) {
            events |= Events::WRITABLE;
        }
        events
    }

    fn ended_events(&self) -> Events {
        let rx = self.rx.lock();
        if rx.fin || rx.reset || rx.ended {
            Events::READABLE | Events::RDHUP
        } else {
            Events::empty()
        }
    }

    pub(super) fn mark_reached(&self) -> bool {
        let rx = self.rx.lock();
        rx.urgent.as_ref().is_some_and(|urgent| urgent.before == 0)
    }
}
