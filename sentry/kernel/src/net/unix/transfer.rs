//! Sending and receiving on unix sockets.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{MsgFlags, RLIMIT_NOFILE};

use super::name::{GivenName, unnamed};
use super::queue::{InFlight, ReceiveQueue, Segment};
use super::{RECV, SEND, UnixKind, UnixSocket};
use crate::net::{Received, SendRequest, Sender};
use crate::sync::Events;
use crate::task::CapSet;

/// Most datagrams that wait at a socket whose peer is not their sender
/// (`/proc/sys/net/unix/max_dgram_qlen`).
const DATAGRAM_QUEUE: usize = 10;

impl UnixSocket {
    pub(super) fn do_send(&self, mut request: SendRequest<'_>) -> Result<usize, Errno> {
        if request.flags.contains(MsgFlags::MSG_OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if self.kind == UnixKind::Stream {
            return self.send_stream(&mut request);
        }
        if request.data.len() > self.longest_record() {
            return Err(Errno::EMSGSIZE);
        }
        self.send_record(&mut request)
    }

    pub(super) fn longest_record(&self) -> usize {
        self.base.send_buffer().saturating_sub(32)
    }

    /// Who to say sent it: told only where somebody asks.
    fn identity(&self, request: &mut SendRequest<'_>, to: &Self) -> Option<Sender> {
        if let Some(claimed) = request.credentials.take() {
            return Some(claimed);
        }
        if !self.base.passes_credentials() && !to.base.passes_credentials() {
            return None;
        }
        request.sender.map(|task| Sender::of(task))
    }

    /// Counts the files of a message as being under way.
    fn in_flight(&self, request: &SendRequest<'_>) -> Result<(), Errno> {
        if request.files.is_empty() {
            return Ok(());
        }
        let task = request.sender.ok_or(Errno::EINVAL)?;
        let creds = task.creds();
        let privileged = creds.has(CapSet::SYS_RESOURCE) || creds.has(CapSet::SYS_ADMIN);
        // Even the privileged end somewhere.
        let limit = if privileged {
            1 << 20
        } else {
            task.group.limit(RLIMIT_NOFILE)
        };
        self.net
            .add_in_flight(creds.uid, request.files.len(), limit)
    }

    fn take_files(&self, request: &mut SendRequest<'_>) -> Option<InFlight> {
        if request.files.is_empty() {
            return None;
        }
        let uid = request.sender?.creds().uid;
        let files = std::mem::take(request.files);
        Some(InFlight::new(files, uid, self.net.clone()))
    }

    fn cancel_in_flight(&self, request: &SendRequest<'_>) {
        if let Some(task) = request.sender {
            self.net
                .sub_in_flight(task.creds().uid, request.files.len());
        }
    }

    fn send_stream(&self, request: &mut SendRequest<'_>) -> Result<usize, Errno> {
        if request.to.is_some() {
            return Err(if self.is_connected() {
                Errno::EISCONN
            } else {
                Errno::EOPNOTSUPP
            });
        }
        if !self.is_connected() {
            return Err(Errno::ENOTCONN);
        }
        if self.has_ended(SEND) {
            return Err(Errno::EPIPE);
        }
        self.base.take_error()?;
        if request.data.is_empty() {
            return Ok(0);
        }
        let peer = self.peer().ok_or(Errno::ENOTCONN)?;
        let limit = self.base.send_buffer();
        let identity = self.identity(request, &peer);
        self.in_flight(request)?;
        let mut rx = peer.rx.lock();
        let room = limit.saturating_sub(rx.charged);
        let ended = rx.closed || peer.has_ended(RECV);
        if ended || room == 0 {
            if !ended {
                rx.wait_for_room(&self.me);
            }
            drop(rx);
            self.cancel_in_flight(request);
            return Err(if ended { Errno::EPIPE } else { Errno::EAGAIN });
        }
        let len = request.data.len().min(room);
        let data = request.data.get(..len).unwrap_or_default();
        let files = self.take_files(request);
        rx.append(data, identity, files);
        drop(rx);
        peer.base.queue.notify(Events::READABLE);
        Ok(len)
    }

    fn send_record(&self, request: &mut SendRequest<'_>) -> Result<usize, Errno> {
        if self.kind == UnixKind::SeqPacket {
            self.base.take_error()?;
        }
        if self.has_ended(SEND) {
            return Err(Errno::EPIPE);
        }
        let named = match (self.kind, request.to) {
            (UnixKind::Datagram, Some(addr)) => Some(GivenName::parse(addr)?.name()?),
            _ => None,
        };
        if self.kind == UnixKind::SeqPacket && !self.is_connected() {
            return Err(Errno::ENOTCONN);
        }
        if self.kind == UnixKind::Datagram && self.base.passes_credentials() {
            self.autobind()?;
        }
        self.base.take_error()?;
        let to_peer = named.is_none();
        let target = match &named {
            Some(name) => {
                let task = request.sender.ok_or(Errno::ENOTCONN)?;
                self.find(task, name)?
            }
            None => self.peer().ok_or(Errno::ENOTCONN)?,
        };
        let mutual = match target.peer() {
            Some(peer) if std::ptr::eq(Arc::as_ptr(&peer), self) => true,
            Some(_) if self.kind == UnixKind::Datagram => return Err(Errno::EPERM),
            _ => false,
        };
        let limit = self.base.send_buffer();
        let identity = self.identity(request, &target);
        let from = match self.kind {
            UnixKind::Datagram => self.name().map(|name| name.to_wire()),
            _ => None,
        };
        self.in_flight(request)?;
        let mut rx = target.rx.lock();
        let failure = if rx.closed {
            Some(match self.kind {
                UnixKind::Datagram => Errno::ECONNREFUSED,
                _ => Errno::EPIPE,
            })
        } else if target.has_ended(RECV) {
            Some(Errno::EPIPE)
        } else if rx.charged >= limit
            || (!mutual && self.kind == UnixKind::Datagram && rx.segments.len() > DATAGRAM_QUEUE)
        {
            rx.wait_for_room(&self.me);
            Some(Errno::EAGAIN)
        } else {
            None
        };
        if let Some(errno) = failure {
            drop(rx);
            self.cancel_in_flight(request);
            if errno == Errno::ECONNREFUSED && to_peer {
                self.set_datagram_peer(None);
            }
            return Err(errno);
        }
        let segment = Segment {
            len: 0,
            from,
            sender: identity,
            files: self.take_files(request),
        };
        rx.push(request.data, segment);
        drop(rx);
        target.base.queue.notify(Events::READABLE);
        Ok(request.data.len())
    }

    pub(super) fn do_recv(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        if flags.contains(MsgFlags::MSG_OOB) {
            return Err(match self.kind {
                UnixKind::Stream => Errno::EINVAL,
                _ => Errno::EOPNOTSUPP,
            });
        }
        match self.kind {
            UnixKind::Stream if !self.is_connected() => return Err(Errno::EINVAL),
            UnixKind::SeqPacket if !self.is_connected() => return Err(Errno::ENOTCONN),
            _ => {}
        }
        let peek = flags.contains(MsgFlags::MSG_PEEK);
        let mut rx = self.rx.lock();
        if rx.is_empty() {
            drop(rx);
            self.base.take_error()?;
            // Messages without a connection have no end for who doesn't wait.
            let endless = self.kind == UnixKind::Datagram && flags.contains(MsgFlags::MSG_DONTWAIT);
            if self.has_ended(RECV) && !endless {
                return Ok(Received::default());
            }
            return Err(Errno::EAGAIN);
        }
        let mut in_flight = None;
        let mut received = if self.kind == UnixKind::Stream {
            self.take_stream(&mut rx, buf, peek, &mut in_flight)
        } else {
            take_record(&mut rx, buf, peek, &mut in_flight)
        };
        if !self.base.passes_credentials() {
            received.credentials = None;
        }
        if self.kind == UnixKind::Datagram && received.from.is_none() {
            received.from = Some(unnamed());
        }
        let ready = rx.take_ready();
        drop(rx);
        for sender in ready {
            sender.base.queue.notify(Events::WRITABLE);
        }
        if let Some(in_flight) = in_flight {
            received.files = in_flight.take();
        }
        Ok(received)
    }

    fn take_stream(
        &self,
        rx: &mut ReceiveQueue,
        buf: &mut [u8],
        peek: bool,
        in_flight: &mut Option<InFlight>,
    ) -> Received {
        let mut received = Received::default();
        let strict = self.base.passes_credentials();
        let mut index = 0;
        while received.len < buf.len() {
            let skip = if peek { received.len } else { 0 };
            let Some(segment) = rx.segments.get(index) else {
                break;
            };
            if received.len == 0 {
                received.credentials = segment.sender.clone();
            } else if strict {
                let same = match (&received.credentials, &segment.sender) {
                    (Some(a), Some(b)) => a.is(b),
                    (None, None) => true,
                    _ => false,
                };
                if !same {
                    break;
                }
            }
            let len = segment.len;
            let rest = buf.get_mut(received.len..).unwrap_or_default();
            let copied = rx.copy(skip, rest, len);
            received.len += copied;
            let Some(segment) = rx.segments.get_mut(index) else {
                break;
            };
            let has_files = segment.files.is_some();
            if peek {
                if let Some(files) = &segment.files {
                    received.files = files.files().to_vec();
                }
                index += 1;
            } else {
                *in_flight = segment.files.take();
                segment.len -= copied;
                if segment.len == 0 {
                    rx.segments.pop_front();
                }
                rx.consume(copied);
            }
            if has_files || copied == 0 {
                break;
            }
        }
        received.full_len = received.len;
        received
    }

    /// Whether a write would find room; if not, it will be told of it.
    pub(super) fn is_writable(&self) -> bool {
        let Some(peer) = self.peer() else {
            return true;
        };
        let limit = self.base.send_buffer();
        let limited = self.kind == UnixKind::Datagram
            && !peer
                .peer()
                .is_some_and(|back| std::ptr::eq(Arc::as_ptr(&back), self));
        let mut rx = peer.rx.lock();
        if rx.closed {
            return true;
        }
        let full = rx.charged * 2 > limit || (limited && rx.segments.len() > DATAGRAM_QUEUE);
        if full {
            rx.wait_for_room(&self.me);
        }
        !full
    }
}

fn take_record(
    rx: &mut ReceiveQueue,
    buf: &mut [u8],
    peek: bool,
    in_flight: &mut Option<InFlight>,
) -> Received {
    let mut received = Received::default();
    if peek {
        if let Some(segment) = rx.segments.front() {
            received.len = rx.copy(0, buf, segment.len);
            received.full_len = segment.len;
            received.from = segment.from.clone();
            received.credentials = segment.sender.clone();
            if let Some(files) = &segment.files {
                received.files = files.files().to_vec();
            }
        }
    } else if let Some(segment) = rx.pop(buf) {
        received.len = segment.len.min(buf.len());
        received.full_len = segment.len;
        received.from = segment.from;
        received.credentials = segment.sender;
        *in_flight = segment.files;
    }
    if received.full_len > received.len {
        received.flags |= MsgFlags::MSG_TRUNC;
    }
    received
}
