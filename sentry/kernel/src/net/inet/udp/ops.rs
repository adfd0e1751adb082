//! The [`Socket`] interface of UDP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP, IP_MTU, IP_MULTICAST_IF, IP_OPTIONS_OPT,
    IPV6_ADD_MEMBERSHIP, IPV6_DROP_MEMBERSHIP, IPV6_MTU, IPV6_V6ONLY, IpMreqn, Ipv6Mreq, MsgFlags,
    SO_PEERCRED, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_TCP, SOL_UDP, SOL_UDPLITE, UDPLITE_RECV_CSCOV,
    UDPLITE_SEND_CSCOV, Ucred,
};
use zerocopy::{FromBytes, IntoBytes};

use super::UdpSocket;
use super::transfer::MAX_V4;
use crate::ctx::Ctx;
use crate::net::inet::Family;
use crate::net::interface::{LOOPBACK_INDEX, LOOPBACK_MTU};
use crate::net::{Received, SendRequest, Shutdown, Socket, SocketAddr, SocketBase};
use crate::sync::Events;

/// Most groups of one socket (`igmp_max_memberships`).
const GROUPS_MAX: usize = 20;

impl UdpSocket {
    /// UDP-Lite has the options of UDP at its own level too.
    fn level_of(&self, level: u32, name: u32) -> Result<u32, Errno> {
        let own = matches!(name, UDPLITE_SEND_CSCOV | UDPLITE_RECV_CSCOV);
        match level {
            SOL_UDPLITE | SOL_UDP if own && self.is_lite() => Ok(SOL_UDPLITE),
            SOL_UDPLITE if own || !self.is_lite() => Err(Errno::ENOPROTOOPT),
            SOL_UDPLITE => Ok(SOL_UDP),
            level => Ok(level),
        }
    }

    /// Joins or leaves a group.
    fn membership(&self, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        let group = if level == SOL_IP {
            let group = value.first_chunk::<8>().ok_or(Errno::EINVAL)?;
            let index = match IpMreqn::read_from_prefix(value) {
                Ok((request, _)) => request.imr_ifindex,
                Err(_) => 0,
            };
            if index != 0 && index != LOOPBACK_INDEX {
                return Err(Errno::ENODEV);
            }
            let octets = group.first_chunk::<4>().ok_or(Errno::EINVAL)?;
            IpAddr::V4(Ipv4Addr::from(*octets))
        } else {
            let (request, _) = Ipv6Mreq::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
            let index = request.ipv6mr_ifindex;
            if index != 0 && index != LOOPBACK_INDEX.unsigned_abs() {
                return Err(Errno::ENODEV);
            }
            IpAddr::V6(Ipv6Addr::from(request.ipv6mr_multiaddr))
        };
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.lock();
        let known = state.groups.iter().position(|joined| *joined == group);
        let join = matches!(
            (level, name),
            (SOL_IP, IP_ADD_MEMBERSHIP) | (SOL_IPV6, IPV6_ADD_MEMBERSHIP)
        );
        match (join, known) {
            (true, Some(_)) => Err(Errno::EADDRINUSE),
            (true, None) if state.groups.len() >= GROUPS_MAX => Err(Errno::ENOBUFS),
            (true, None) => {
                state.groups.push(group);
                Ok(())
            }
            (false, Some(at)) => {
                state.groups.remove(at);
                Ok(())
            }
            (false, None) => Err(Errno::EADDRNOTAVAIL),
        }
    }
}

impl Socket for UdpSocket {
    fn base(&self) -> &SocketBase {
        &self.base
    }

    fn bind(&self, ctx: &Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        self.do_bind(ctx.task, addr)
    }

    fn connect(&self, _ctx: &Ctx<'_>, addr: &[u8], _nonblocking: bool) -> Result<(), Errno> {
        self.do_connect(addr)
    }

    fn listen(&self, _ctx: &Ctx<'_>, _backlog: i32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self) -> Result<(Arc<dyn Socket>, SocketAddr), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        state.recv_ended |= how.read;
        state.send_ended |= how.write;
        drop(state);
        self.base.notify_all();
        Ok(())
    }

    fn local_addr(&self) -> Result<SocketAddr, Errno> {
        Ok(self.family.to_wire(self.addresses().0))
    }

    fn peer_addr(&self) -> Result<SocketAddr, Errno> {
        let (_, peer) = self.addresses();
        Ok(self.family.to_wire(peer.ok_or(Errno::ENOTCONN)?))
    }

    fn send(&self, request: SendRequest<'_>) -> Result<usize, Errno> {
        self.do_send(&request)
    }

    fn recv(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        self.do_recv(buf, flags)
    }

    fn get_option(
        &self,
        _ctx: &Ctx<'_>,
        level: u32,
        name: u32,
        max_len: usize,
    ) -> Result<Vec<u8>, Errno> {
        match (level, name) {
            (SOL_SOCKET, SO_PEERCRED) => {
                let nobody = Ucred {
                    pid: 0,
                    uid: u32::MAX,
                    gid: u32::MAX,
                };
                Ok(nobody.as_bytes().to_vec())
            }
            (SOL_SOCKET, _) => self.base.get_option(name, false, max_len),
            (SOL_IP, IP_MTU) | (SOL_IPV6, IPV6_MTU) => {
                if self.addresses().1.is_none() {
                    return Err(Errno::ENOTCONN);
                }
                Ok(LOOPBACK_MTU.to_ne_bytes().to_vec())
            }
            (SOL_TCP, _) => Err(self.family.no_such_level()),
            (SOL_IP, IP_OPTIONS_OPT) => Ok(Vec::new()),
            (SOL_IP, IP_MULTICAST_IF) => Ok(vec![0; 4]),
            _ => {
                let level = self.level_of(level, name)?;
                let options = self.options.lock();
                options.get(self.family, level, name, max_len)
            }
        }
    }

    fn set_option(&self, ctx: &Ctx<'_>, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        match (level, name) {
            (SOL_SOCKET, _) => self.base.set_option(ctx, name, value),
            (SOL_TCP, _) => Err(Errno::ENOPROTOOPT),
            (SOL_IP, IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP)
            | (SOL_IPV6, IPV6_ADD_MEMBERSHIP | IPV6_DROP_MEMBERSHIP) => {
                self.membership(level, name, value)
            }
            // There is one interface to choose from.
            (SOL_IP, IP_MULTICAST_IF) => {
                let addr = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
                let ip = Ipv4Addr::from(*addr);
                if value.len() >= 8 || ip.is_unspecified() || ip.is_loopback() {
                    Ok(())
                } else {
                    Err(Errno::EADDRNOTAVAIL)
                }
            }
            (SOL_IP, IP_OPTIONS_OPT) if value.is_empty() => Ok(()),
            (SOL_IPV6, IPV6_V6ONLY) if self.addresses().0.port() != 0 => Err(Errno::EINVAL),
            _ => {
                let level = self.level_of(level, name)?;
                let creds = ctx.task.creds();
                let mut options = self.options.lock();
                options.set(&creds, self.family, level, name, value)
            }
        }
    }

    fn poll(&self) -> Events {
        let mut events = Events::WRITABLE;
        if self.base.has_error() {
            events |= Events::ERR;
        }
        if !self.rx.lock().queue.is_empty() {
            events |= Events::READABLE;
        }
        let state = self.state.lock();
        if state.recv_ended {
            events |= Events::READABLE | Events::RDHUP;
            if state.send_ended {
                events |= Events::HUP;
            }
        }
        events
    }

    fn release(&self) {
        let (port, ino) = (self.addresses().0.port(), self.base.ino);
        if port != 0 {
            self.ports().unbind(port, ino);
        }
        let mut rx = self.rx.lock();
        rx.closed = true;
        rx.queue = Default::default();
        drop(rx);
        self.base.notify_all();
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn max_message(&self) -> usize {
        match self.family {
            Family::V4 => MAX_V4,
            // It looks at the destination first.
            Family::V6 => usize::MAX,
        }
    }

    fn readable_bytes(&self) -> Result<usize, Errno> {
        let rx = self.rx.lock();
        Ok(rx.queue.front().map_or(0, |first| first.data.len()))
    }

    fn unsent_bytes(&self) -> Result<usize, Errno> {
        Ok(0)
    }
}
