//! The [`Socket`] interface of host sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::host::{inet, io};
use syscall_tables::Errno;
use syscall_tables::abi::{FIONREAD, MsgFlags, SIOCATMARK, SIOCOUTQ};

use super::{Family, HostSocket, options};
use crate::ctx::Ctx;
use crate::net::namespace::check_port;
use crate::net::{Received, SendRequest, Shutdown, Socket, SocketAddr, SocketBase};
use crate::sync::Events;

/// Longest datagram: IPv6 without its header.
const MAX_DATAGRAM: usize = 65_535;

/// Flags of guests that go to the host when sending.
const SEND_FLAGS: MsgFlags = MsgFlags::MSG_OOB
    .union(MsgFlags::MSG_DONTROUTE)
    .union(MsgFlags::MSG_CONFIRM)
    .union(MsgFlags::MSG_MORE)
    .union(MsgFlags::MSG_EOR);

/// Flags of guests that go to the host when receiving.
const RECV_FLAGS: MsgFlags = MsgFlags::MSG_OOB
    .union(MsgFlags::MSG_PEEK)
    .union(MsgFlags::MSG_TRUNC)
    .union(MsgFlags::MSG_ERRQUEUE);

/// Flags of the host that guests see on a received message.
const TOLD_FLAGS: MsgFlags = MsgFlags::MSG_OOB
    .union(MsgFlags::MSG_TRUNC)
    .union(MsgFlags::MSG_CTRUNC)
    .union(MsgFlags::MSG_EOR)
    .union(MsgFlags::MSG_ERRQUEUE);

/// Everything `poll(2)` knows about a socket.
const ALL_EVENTS: i16 = 0x2000
    | libc_events(Events::IN)
    | libc_events(Events::PRI)
    | libc_events(Events::OUT)
    | libc_events(Events::RDNORM)
    | libc_events(Events::RDBAND)
    | libc_events(Events::WRNORM)
    | libc_events(Events::WRBAND);

const fn libc_events(events: Events) -> i16 {
    // The values are those of poll(2) and below 2^15.
    events.bits() as i16
}

impl HostSocket {
    /// Takes bytes that were put back.
    fn recv_unread(&self, buf: &mut [u8], flags: MsgFlags) -> Option<Received> {
        let mut unread = self.unread.lock();
        let len = unread.len().min(buf.len());
        if len == 0 {
            return None;
        }
        let mut received = Received {
            len,
            full_len: len,
            ..Received::default()
        };
        if flags.contains(MsgFlags::MSG_TRUNC) {
            received.len = 0;
        } else if let (Some(to), Some(from)) = (buf.get_mut(..len), unread.get(..len)) {
            to.copy_from_slice(from);
        }
        if !flags.contains(MsgFlags::MSG_PEEK) {
            unread.drain(..len);
            self.has_unread.store(!unread.is_empty(), Ordering::Release);
        }
        Some(received)
    }

    fn recv_stream(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        let special = MsgFlags::MSG_OOB | MsgFlags::MSG_ERRQUEUE;
        if self.has_unread()
            && !flags.intersects(special)
            && let Some(received) = self.recv_unread(buf, flags)
        {
            return Ok(received);
        }
        let bits = (flags & RECV_FLAGS).bits();
        let mut received = Received::default();
        if flags.intersects(special) || self.wants_control.load(Ordering::Relaxed) {
            let message = inet::receive_message(&*self.fd, buf, bits)?;
            received.full_len = message.len;
            received.control = message.control;
            received.flags = MsgFlags::from_bits_retain(message.flags) & TOLD_FLAGS;
        } else {
            received.full_len = inet::receive(&*self.fd, buf, bits)?;
        }
        // With MSG_TRUNC bytes are thrown away, not stored.
        if !flags.contains(MsgFlags::MSG_TRUNC) {
            received.len = received.full_len.min(buf.len());
        }
        Ok(received)
    }

    fn recv_datagram(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        // The host says how long the datagram was.
        let bits = ((flags & RECV_FLAGS) | MsgFlags::MSG_TRUNC).bits();
        let message = inet::receive_message(&*self.fd, buf, bits)?;
        Ok(Received {
            len: message.len.min(buf.len()),
            full_len: message.len,
            from: Some(message.from),
            control: message.control,
            flags: MsgFlags::from_bits_retain(message.flags) & TOLD_FLAGS,
            ..Received::default()
        })
    }
}

impl Socket for HostSocket {
    fn base(&self) -> &SocketBase {
        &self.base
    }

    fn bind(&self, ctx: &Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        let port = addr.get(2..4).and_then(|port| port.first_chunk());
        if let Some(port) = port {
            check_port(ctx.task, u16::from_be_bytes(*port), self.unprivileged_ports)?;
        }
        inet::bind(&*self.fd, addr)
    }

    fn connect(&self, _ctx: &Ctx<'_>, addr: &[u8], nonblocking: bool) -> Result<(), Errno> {
        match self.waiting(inet::connect(&*self.fd, addr)) {
            // Asked again, the host says EALREADY until it knows the outcome.
            Err(Errno::EINPROGRESS | Errno::EALREADY) if !nonblocking => Err(Errno::EAGAIN),
            result => result,
        }
    }

    fn listen(&self, _ctx: &Ctx<'_>, backlog: i32) -> Result<(), Errno> {
        inet::listen(&*self.fd, backlog)
    }

    fn accept(&self) -> Result<(Arc<dyn Socket>, SocketAddr), Errno> {
        let (fd, addr) = self.waiting(inet::accept(&*self.fd))?;
        let base = self.base.accepted(io::fstat(&fd)?.st_ino);
        let accepted = Self::new(base, self.family, fd, self.unprivileged_ports);
        let wants_control = self.wants_control.load(Ordering::Relaxed);
        accepted
            .wants_control
            .store(wants_control, Ordering::Relaxed);
        Ok((accepted, addr))
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        let how = match (how.read, how.write) {
            (true, false) => 0,
            (false, true) => 1,
            _ => 2,
        };
        inet::shutdown(&*self.fd, how)
    }

    fn local_addr(&self) -> Result<SocketAddr, Errno> {
        inet::local_addr(&*self.fd)
    }

    fn peer_addr(&self) -> Result<SocketAddr, Errno> {
        inet::peer_addr(&*self.fd)
    }

    fn send(&self, request: SendRequest<'_>) -> Result<usize, Errno> {
        if request.flags.contains(MsgFlags::MSG_FASTOPEN) {
            return Err(Errno::EOPNOTSUPP);
        }
        let bits = (request.flags & SEND_FLAGS).bits();
        let sent = if request.to.is_none() && request.control.is_empty() {
            inet::send(&*self.fd, request.data, bits)
        } else {
            let (to, control) = (request.to, request.control);
            inet::send_message(&*self.fd, request.data, to, control, bits)
        };
        self.waiting(sent)
    }

    fn recv(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        let received = if self.is_stream_kind() {
            self.recv_stream(buf, flags)
        } else {
            self.recv_datagram(buf, flags)
        };
        self.waiting(received)
    }

    fn get_option(
        &self,
        _ctx: &Ctx<'_>,
        level: u32,
        name: u32,
        max_len: usize,
    ) -> Result<Vec<u8>, Errno> {
        options::get(self, level, name, max_len)
    }

    fn set_option(&self, ctx: &Ctx<'_>, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        options::set(self, ctx, level, name, value)
    }

    fn poll(&self) -> Events {
        if self.watch().is_err() {
            return Events::ERR;
        }
        let mut events =
            inet::poll(&*self.fd, ALL_EVENTS).map_or(Events::ERR, Events::from_bits_truncate);
        if self.has_unread() {
            events |= Events::READABLE;
        }
        events
    }

    /// The host closes it when the last reference is dropped.
    fn release(&self) {}

    fn is_stream(&self) -> bool {
        self.is_stream_kind()
    }

    fn max_message(&self) -> usize {
        match self.family {
            Family::V4 if !self.is_stream_kind() => MAX_DATAGRAM,
            // IPv6 looks at the destination first.
            _ => usize::MAX,
        }
    }

    fn unread(&self, bytes: &[u8]) {
        let mut unread = self.unread.lock();
        unread.splice(..0, bytes.iter().copied());
        self.has_unread.store(!unread.is_empty(), Ordering::Release);
        drop(unread);
        self.base.queue.notify(Events::READABLE);
    }

    fn readable_bytes(&self) -> Result<usize, Errno> {
        let waiting = inet::query_int(&*self.fd, FIONREAD)?;
        Ok(waiting.saturating_add(self.unread.lock().len()))
    }

    fn unsent_bytes(&self) -> Result<usize, Errno> {
        inet::query_int(&*self.fd, SIOCOUTQ)
    }

    fn at_mark(&self) -> Result<bool, Errno> {
        Ok(inet::query_int(&*self.fd, SIOCATMARK)? != 0)
    }

    fn has_error_queue(&self) -> bool {
        true
    }
}
