//! Addresses, sending and receiving.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    IP_FREEBIND, IP_MULTICAST_LOOP, IP_MULTICAST_TTL, IP_ORIGDSTADDR, IP_PKTINFO, IP_RECVERR,
    IP_RECVTOS, IP_RECVTTL, IP_TOS, IP_TTL, IPV6_HOPLIMIT, IPV6_MULTICAST_HOPS, IPV6_PKTINFO,
    IPV6_RECVHOPLIMIT, IPV6_RECVPKTINFO, IPV6_RECVTCLASS, IPV6_TCLASS, IPV6_UNICAST_HOPS,
    IPV6_V6ONLY, In6Pktinfo, InPktinfo, MsgFlags, SCM_TIMESTAMP, SCM_TIMESTAMPNS, SO_BROADCAST,
    SO_REUSEADDR, SO_REUSEPORT, SO_TIMESTAMP, SO_TIMESTAMPNS, SOL_IP, SOL_IPV6, SOL_SOCKET,
    SOL_UDPLITE, Timespec, Timeval, UDPLITE_RECV_CSCOV, UDPLITE_SEND_CSCOV,
};
use zerocopy::IntoBytes;

use super::packet::PacketOptions;
use super::{Datagram, HEADER, OVERHEAD, UdpSocket};
use crate::net::inet::addr::{GivenAddr, destination, is_bindable, is_broadcast, source_for};
use crate::net::inet::ports::BindRequest;
use crate::net::interface::LOOPBACK_INDEX;
use crate::net::namespace::may_bind;
use crate::net::{Received, SendRequest};
use crate::sync::Events;
use crate::task::Task;
use crate::vfs::Timestamp;

/// Longest payload over IPv4: a packet less IP and UDP headers.
pub(super) const MAX_V4: usize = 65_507;
/// Over IPv6.
pub(super) const MAX_V6: usize = 65_527;

impl UdpSocket {
    fn wish(&self, ip: IpAddr, port: u16) -> BindRequest {
        BindRequest {
            id: self.base.ino,
            ip,
            port,
            v6_only: self.options.lock().is_on(SOL_IPV6, IPV6_V6ONLY),
            reuse_addr: self.base.is_on(SO_REUSEADDR),
            reuse_port: self.base.is_on(SO_REUSEPORT),
            owner: self.base.owner,
        }
    }

    pub(super) fn do_bind(&self, task: &Task, addr: &[u8]) -> Result<(), Errno> {
        let GivenAddr::Addr(addr) = self.family.parse(addr)? else {
            return Err(Errno::EAFNOSUPPORT);
        };
        if !is_bindable(addr.ip()) && !self.options.lock().is_on(SOL_IP, IP_FREEBIND) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        may_bind(task, addr.port())?;
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let mut state = self.state.lock();
        if state.local.port() != 0 {
            return Err(Errno::EINVAL);
        }
        let wish = self.wish(addr.ip(), addr.port());
        let port = self.ports().bind(&me, wish)?;
        state.local = SocketAddr::new(addr.ip(), port);
        state.bound_ip = addr.ip();
        state.explicit = true;
        Ok(())
    }

    /// Takes some port if there is none yet; answers the local address.
    fn bound(&self) -> Result<SocketAddr, Errno> {
        let mut state = self.state.lock();
        if state.local.port() == 0 {
            let me = self.me.upgrade().ok_or(Errno::EBADF)?;
            let wish = self.wish(state.bound_ip, 0);
            let port = self.ports().bind(&me, wish);
            let port = port.map_err(|_| Errno::EAGAIN)?;
            state.local.set_port(port);
        }
        Ok(state.local)
    }

    pub(super) fn do_connect(&self, addr: &[u8]) -> Result<(), Errno> {
        let GivenAddr::Addr(to) = self.family.parse_destination(addr)? else {
            self.disconnect();
            return Ok(());
        };
        if to.is_ipv4() && self.options.lock().is_on(SOL_IPV6, IPV6_V6ONLY) {
            let own = self.family.parse(addr).is_ok();
            return Err(if own {
                Errno::ENETUNREACH
            } else {
                Errno::EAFNOSUPPORT
            });
        }
        if is_broadcast(to.ip()) && !self.base.is_on(SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        let ip = if to.ip().is_multicast() {
            to.ip()
        } else {
            destination(to.ip())?
        };
        let to = SocketAddr::new(ip, to.port());
        self.bound()?;
        let mut state = self.state.lock();
        let source = if state.bound_ip.is_unspecified() {
            source_for(ip)
        } else {
            state.bound_ip
        };
        if source.is_ipv4() != ip.is_ipv4() {
            return Err(Errno::EINVAL);
        }
        state.peer = Some(to);
        state.local.set_ip(source);
        let port = state.local.port();
        self.ports().set_peer(port, self.base.ino, source, Some(to));
        drop(state);
        self.base.notify_all();
        Ok(())
    }

    fn disconnect(&self) {
        let mut state = self.state.lock();
        if state.peer.take().is_none() {
            return;
        }
        let ip = state.bound_ip;
        let port = state.local.port();
        if state.explicit {
            self.ports().set_peer(port, self.base.ino, ip, None);
            state.local.set_ip(ip);
        } else {
            self.ports().unbind(port, self.base.ino);
            state.local = SocketAddr::new(ip, 0);
        }
    }

    pub(super) fn do_send(&self, request: &SendRequest<'_>) -> Result<usize, Errno> {
        let urgent = request.flags.contains(MsgFlags::MSG_OOB);
        if self.family == super::Family::V4 {
            if request.data.len() > usize::from(u16::MAX) {
                return Err(Errno::EMSGSIZE);
            }
            if urgent {
                return Err(Errno::EOPNOTSUPP);
            }
        }
        let (peer, send_ended) = {
            let state = self.state.lock();
            (state.peer, state.send_ended)
        };
        if send_ended {
            return Err(Errno::EPIPE);
        }
        let given = request.to.map(|addr| self.family.parse_destination(addr));
        let given = given.transpose()?;
        let to = match (given, peer) {
            (Some(GivenAddr::Addr(to)), _) => to,
            (Some(GivenAddr::Unspecified), None) => return Err(Errno::EAFNOSUPPORT),
            (Some(GivenAddr::Unspecified), Some(peer)) | (None, Some(peer)) => peer,
            (None, None) => return Err(Errno::EDESTADDRREQ),
        };
        // IPv6 has no rule about urgent datagrams.
        if urgent && to.is_ipv4() {
            return Err(Errno::EOPNOTSUPP);
        }
        let longest = if to.is_ipv4() { MAX_V4 } else { MAX_V6 };
        if request.data.len() > longest {
            return Err(Errno::EMSGSIZE);
        }
        if to.port() == 0 {
            return Err(Errno::EINVAL);
        }
        self.base.take_error()?;
        let packet = PacketOptions::parse(self.family, request.control)?;
        let broadcast = is_broadcast(to.ip());
        if broadcast && !self.base.is_on(SO_BROADCAST) {
            return Err(Errno::EACCES);
        }
        if to.is_ipv4() && self.options.lock().is_on(SOL_IPV6, IPV6_V6ONLY) {
            return Err(Errno::ENETUNREACH);
        }
        let group = broadcast || to.ip().is_multicast();
        let to = if group {
            to
        } else {
            SocketAddr::new(destination(to.ip())?, to.port())
        };
        let local = self.bound()?;
        let source = if let Some(source) = packet.source {
            source
        } else if local.ip().is_unspecified() || local.ip().is_multicast() {
            source_for(to.ip())
        } else {
            local.ip()
        };
        if source.is_ipv4() != to.is_ipv4() {
            return Err(Errno::ENETUNREACH);
        }
        let from = SocketAddr::new(source, local.port());
        if group {
            self.send_to_group(request.data, from, to, &packet);
            return Ok(request.data.len());
        }
        match self.ports().receiver(to, from) {
            Some(receiver) => receiver.deliver(self.datagram(request.data, from, to, &packet)),
            // As if ICMP had told; only the connected hear of it.
            None => {
                let wants = peer == Some(to) || self.options.lock().is_on(SOL_IP, IP_RECVERR);
                if wants {
                    self.base.set_error(Errno::ECONNREFUSED);
                    self.base.notify_all();
                }
            }
        }
        Ok(request.data.len())
    }

    fn datagram(
        &self,
        data: &[u8],
        from: SocketAddr,
        to: SocketAddr,
        packet: &PacketOptions,
    ) -> Datagram {
        let options = self.options.lock();
        let byte = |level, name| {
            let value = options.value(level, name).unwrap_or(0);
            u8::try_from(value).unwrap_or(0)
        };
        let (ttl, tos) = match to {
            SocketAddr::V4(to) if to.ip().is_multicast() => (IP_MULTICAST_TTL, IP_TOS),
            SocketAddr::V4(_) => (IP_TTL, IP_TOS),
            SocketAddr::V6(to) if to.ip().is_multicast() => (IPV6_MULTICAST_HOPS, IPV6_TCLASS),
            SocketAddr::V6(_) => (IPV6_UNICAST_HOPS, IPV6_TCLASS),
        };
        let level = if to.is_ipv4() { SOL_IP } else { SOL_IPV6 };
        let coverage = options.given(SOL_UDPLITE, UDPLITE_SEND_CSCOV);
        let len = i32::try_from(data.len()).unwrap_or(i32::MAX);
        let partial = |bytes: &i32| *bytes != 0 && *bytes < len.saturating_add(HEADER);
        Datagram {
            data: data.into(),
            from,
            to: to.ip(),
            ttl: packet.ttl.unwrap_or_else(|| byte(level, ttl)),
            tos: packet.tos.unwrap_or_else(|| byte(level, tos)),
            coverage: coverage.filter(partial),
            time: Timestamp::now(),
        }
    }

    fn send_to_group(&self, data: &[u8], from: SocketAddr, to: SocketAddr, packet: &PacketOptions) {
        let loops = self.options.lock().value(SOL_IP, IP_MULTICAST_LOOP) != Some(0);
        let multicast = to.ip().is_multicast();
        if multicast && !loops {
            return;
        }
        for receiver in self.ports().group(to, from) {
            let member = !multicast || receiver.state.lock().groups.contains(&to.ip());
            if member {
                receiver.deliver(self.datagram(data, from, to, packet));
            }
        }
    }

    /// Puts a datagram into the queue, or drops it when that is full.
    fn deliver(self: &Arc<Self>, datagram: Datagram) {
        let limit = self.base.recv_buffer();
        if let Some(covered) = datagram.coverage {
            let options = self.options.lock();
            let least = options.given(SOL_UDPLITE, UDPLITE_RECV_CSCOV);
            // udplite(7): what covers less than asked for is dropped; 0 asks
            // for all.
            if least.is_some_and(|least| least == 0 || covered < least) {
                return;
            }
        }
        let mut rx = self.rx.lock();
        if rx.closed {
            return;
        }
        let charge = datagram.data.len() + OVERHEAD;
        // One datagram always fits.
        if !rx.queue.is_empty() && rx.charged + charge > limit {
            rx.dropped += 1;
            return;
        }
        rx.charged += charge;
        rx.queue.push_back(datagram);
        drop(rx);
        self.base.queue.notify(Events::READABLE);
    }

    pub(super) fn do_recv(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        if flags.contains(MsgFlags::MSG_OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.base.take_error()?;
        let mut rx = self.rx.lock();
        let Some(first) = rx.queue.front() else {
            drop(rx);
            return if self.state.lock().recv_ended {
                Ok(Received::default())
            } else {
                Err(Errno::EAGAIN)
            };
        };
        let len = first.data.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), first.data.get(..len)) {
            to.copy_from_slice(from);
        }
        let mut received = Received {
            len,
            full_len: first.data.len(),
            from: Some(self.family.to_wire(first.from)),
            control: self.control(first),
            ..Received::default()
        };
        if received.full_len > len {
            received.flags |= MsgFlags::MSG_TRUNC;
        }
        if !flags.contains(MsgFlags::MSG_PEEK)
            && let Some(taken) = rx.queue.pop_front()
        {
            rx.charged = rx.charged.saturating_sub(taken.data.len() + OVERHEAD);
        }
        Ok(received)
    }

    /// The control messages that this socket asks for.
    fn control(&self, datagram: &Datagram) -> Vec<(i32, i32, Vec<u8>)> {
        let mut control = Vec::new();
        let mut put = |level: u32, kind: u32, data: &[u8]| {
            control.push((level.cast_signed(), kind.cast_signed(), data.to_vec()));
        };
        let common = self.base.options.lock();
        let (secs, nanos) = (datagram.time.secs, i64::from(datagram.time.nanos));
        if common.is_on(SO_TIMESTAMPNS) {
            let time = Timespec {
                tv_sec: secs,
                tv_nsec: nanos,
            };
            put(SOL_SOCKET, SCM_TIMESTAMPNS.cast_unsigned(), time.as_bytes());
        } else if common.is_on(SO_TIMESTAMP) {
            let time = Timeval {
                tv_sec: secs,
                tv_usec: nanos / 1000,
            };
            put(SOL_SOCKET, SCM_TIMESTAMP.cast_unsigned(), time.as_bytes());
        }
        drop(common);
        let options = self.options.lock();
        let int = |value: u8| i32::from(value).to_ne_bytes();
        if let IpAddr::V4(to) = datagram.to {
            if options.is_on(SOL_IP, IP_PKTINFO) {
                let info = InPktinfo {
                    ipi_ifindex: LOOPBACK_INDEX,
                    ipi_spec_dst: to.octets(),
                    ipi_addr: to.octets(),
                };
                put(SOL_IP, IP_PKTINFO, info.as_bytes());
            }
            if options.is_on(SOL_IP, IP_RECVTTL) {
                put(SOL_IP, IP_TTL, &int(datagram.ttl));
            }
            if options.is_on(SOL_IP, IP_RECVTOS) {
                put(SOL_IP, IP_TOS, &[datagram.tos]);
            }
            if options.is_on(SOL_IP, IP_ORIGDSTADDR) {
                let port = self.state.lock().local.port();
                let addr = super::Family::V4.to_wire(SocketAddr::new(datagram.to, port));
                put(SOL_IP, IP_ORIGDSTADDR, &addr);
            }
        }
        if options.is_on(SOL_IPV6, IPV6_RECVPKTINFO) {
            let to = match datagram.to {
                IpAddr::V4(to) => to.to_ipv6_mapped(),
                IpAddr::V6(to) => to,
            };
            let info = In6Pktinfo {
                ipi6_addr: to.octets(),
                ipi6_ifindex: LOOPBACK_INDEX.unsigned_abs(),
            };
            put(SOL_IPV6, IPV6_PKTINFO, info.as_bytes());
        }
        if options.is_on(SOL_IPV6, IPV6_RECVHOPLIMIT) {
            put(SOL_IPV6, IPV6_HOPLIMIT, &int(datagram.ttl));
        }
        if options.is_on(SOL_IPV6, IPV6_RECVTCLASS) {
            put(SOL_IPV6, IPV6_TCLASS, &int(datagram.tos));
        }
        control
    }
}
