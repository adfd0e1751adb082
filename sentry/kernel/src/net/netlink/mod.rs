//! Netlink (`netlink(7)`): route queries about the loopback interface, and
//! queries about sockets.
//!
//! | file | holds |
//! |---|---|
//! | `message.rs` | building messages |
//! | `diag.rs` | answers of `NETLINK_SOCK_DIAG` (`sock_diag(7)`) |
//! | `route.rs` | answers of `NETLINK_ROUTE` (`rtnetlink(7)`) |
//!
//! Answers are put into the socket's queue while the request is sent, so
//! nothing is ever waited for but what nobody has asked for.
//!
//! Locks: `state`, then `queue`; then the namespace's port ids.

mod diag;
mod message;
mod route;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{
    AF_NETLINK, MsgFlags, NETLINK_ADD_MEMBERSHIP, NETLINK_BROADCAST_ERROR, NETLINK_CAP_ACK,
    NETLINK_DROP_MEMBERSHIP, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK, NETLINK_KOBJECT_UEVENT,
    NETLINK_LIST_MEMBERSHIPS, NETLINK_LISTEN_ALL_NSID, NETLINK_NO_ENOBUFS, NETLINK_PKTINFO,
    NETLINK_ROUTE, NETLINK_SOCK_DIAG, SOCK_DGRAM, SOCK_RAW, SOL_NETLINK, SOL_SOCKET, SockAddrNl,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    Net, NetNamespace, Received, SendRequest, Sender, Shutdown, Socket, SocketAddr, SocketBase,
};
use crate::ctx::Ctx;
use crate::net::int_option;
use crate::sync::Events;
use crate::task::CapSet;

/// Multicast groups are told apart up to this number.
const GROUPS: u32 = 64;

struct State {
    /// Port id, 0 while unbound.
    port: u32,
    peer: u32,
    /// Bit N: member of group N+1.
    groups: u64,
    /// Bit N: option N is on.
    options: u32,
}

/// What waits to be read: whole datagrams.
#[derive(Default)]
struct Queue {
    datagrams: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// A netlink socket.
pub struct NetlinkSocket {
    base: SocketBase,
    net: Arc<Net>,
    namespace: Arc<NetNamespace>,
    state: Mutex<State>,
    queue: Mutex<Queue>,
    /// Who is sent as the origin of the kernel's messages: nobody.
    kernel: Sender,
}

/// A fresh netlink socket of the caller.
pub fn create(ctx: &Ctx<'_>, kind: u32, protocol: i32) -> Result<Arc<dyn Socket>, Errno> {
    if !matches!(kind, SOCK_RAW | SOCK_DGRAM) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    // Others are modules that a container's kernel does not load.
    let protocol = u32::try_from(protocol).map_err(|_| Errno::EPROTONOSUPPORT)?;
    let net = &ctx.kernel.net;
    match protocol {
        NETLINK_ROUTE | NETLINK_KOBJECT_UEVENT => {}
        // The host's sockets are in `/proc/net`.
        NETLINK_SOCK_DIAG if net.host_of(ctx.task).is_none() => {}
        _ => return Err(Errno::EPROTONOSUPPORT),
    }
    let creds = ctx.task.creds();
    Ok(Arc::new(NetlinkSocket {
        base: SocketBase::new(AF_NETLINK, kind, protocol, net.next_ino(), creds.fsuid),
        net: net.clone(),
        namespace: net.namespace_of(ctx.task),
        state: Mutex::new(State {
            port: 0,
            peer: 0,
            groups: 0,
            options: 0,
        }),
        queue: Mutex::default(),
        kernel: Sender {
            pid: None,
            uid: crate::task::Uid::ROOT,
            gid: crate::task::Gid::ROOT,
            groups: Arc::from([]),
        },
    }))
}

fn parse(addr: &[u8]) -> Result<SockAddrNl, Errno> {
    let (addr, _) = SockAddrNl::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
    if addr.nl_family != AF_NETLINK {
        return Err(Errno::EINVAL);
    }
    Ok(addr)
}

impl NetlinkSocket {
    /// Takes a port id: `wanted`, or the process id, or any other.
    fn bind_port(&self, wanted: u32, process: u32) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.port != 0 {
            return if wanted == 0 || wanted == state.port {
                Ok(())
            } else {
                Err(Errno::EINVAL)
            };
        }
        state.port = self
            .namespace
            .take_netlink_port(self.base.protocol, wanted, process)?;
        Ok(())
    }

    fn group_bit(group: i32) -> Result<u64, Errno> {
        let group = u32::try_from(group).map_err(|_| Errno::EINVAL)?;
        if !(1..=GROUPS).contains(&group) {
            return Err(Errno::EINVAL);
        }
        Ok(1 << (group - 1))
    }

    fn add_datagram(&self, datagram: Vec<u8>) {
        let mut queue = self.queue.lock();
        queue.bytes += datagram.len();
        queue.datagrams.push_back(datagram);
        drop(queue);
        self.base.queue.notify(Events::READABLE);
    }
}

/// Process id of the caller in its own namespace.
fn process_id(task: &crate::task::Task) -> u32 {
    let number = task.group.pid().number_in(&task.pid_ns());
    number.unsigned_abs()
}

impl Socket for NetlinkSocket {
    fn base(&self) -> &SocketBase {
        &self.base
    }

    fn bind(&self, ctx: &Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        let addr = parse(addr)?;
        let uevents = self.base.protocol == NETLINK_KOBJECT_UEVENT;
        // Route and uevent groups are open to all.
        let open = matches!(self.base.protocol, NETLINK_ROUTE) || uevents;
        if addr.nl_groups != 0 && !open && !ctx.task.creds().has_own(CapSet::NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        self.bind_port(addr.nl_pid, process_id(ctx.task))?;
        self.state.lock().groups = u64::from(addr.nl_groups);
        Ok(())
    }

    fn connect(&self, ctx: &Ctx<'_>, addr: &[u8], _nonblocking: bool) -> Result<(), Errno> {
        let family = addr.first_chunk::<2>().ok_or(Errno::EINVAL)?;
        if u16::from_ne_bytes(*family) == 0 {
            self.state.lock().peer = 0;
            return Ok(());
        }
        let addr = parse(addr)?;
        if addr.nl_pid != 0 {
            return Err(Errno::ECONNREFUSED);
        }
        self.bind_port(0, process_id(ctx.task))?;
        self.state.lock().peer = addr.nl_pid;
        Ok(())
    }

    fn listen(&self, _ctx: &Ctx<'_>, _backlog: i32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn accept(&self) -> Result<(Arc<dyn Socket>, SocketAddr), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn shutdown(&self, _how: Shutdown) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn local_addr(&self) -> Result<SocketAddr, Errno> {
        let state = self.state.lock();
        let addr = SockAddrNl {
            nl_family: AF_NETLINK,
            nl_pad: 0,
            nl_pid: state.port,
            nl_groups: state.groups as u32,
        };
        Ok(addr.as_bytes().to_vec())
    }

    fn peer_addr(&self) -> Result<SocketAddr, Errno> {
        let addr = SockAddrNl {
            nl_family: AF_NETLINK,
            nl_pid: self.state.lock().peer,
            ..SockAddrNl::default()
        };
        Ok(addr.as_bytes().to_vec())
    }

    fn send(&self, request: SendRequest<'_>) -> Result<usize, Errno> {
        if request.flags.contains(MsgFlags::MSG_OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let to = match request.to {
            Some(addr) => parse(addr)?.nl_pid,
            None => self.state.lock().peer,
        };
        let task = request.sender.ok_or(Errno::EINVAL)?;
        if to != 0 {
            return Err(Errno::ECONNREFUSED);
        }
        if !matches!(self.base.protocol, NETLINK_ROUTE | NETLINK_SOCK_DIAG) {
            return Err(if task.creds().has_own(CapSet::NET_ADMIN) {
                Errno::ECONNREFUSED
            } else {
                Errno::EPERM
            });
        }
        self.bind_port(0, process_id(task))?;
        let port = self.state.lock().port;
        // Nobody reads: a guest can't pile up answers without end.
        if self.queue.lock().bytes > self.base.recv_buffer() {
            return Err(Errno::ENOBUFS);
        }
        let admin = task.creds().has_own(CapSet::NET_ADMIN);
        let cap_ack = self.state.lock().options & (1 << NETLINK_CAP_ACK) != 0;
        if self.base.protocol == NETLINK_SOCK_DIAG {
            let caller = diag::Caller {
                port,
                cap_ack,
                namespace: &self.namespace,
                user_ns: &task.creds().user_ns,
            };
            for datagram in diag::answer(request.data, &caller) {
                self.add_datagram(datagram);
            }
            return Ok(request.data.len());
        }
        // Held while the host is asked: its answers are made at once.
        let net = self.net.clone();
        let host = net.host_of(task).map(|host| &host.routes);
        let caller = route::Caller {
            port,
            admin,
            cap_ack,
            host,
        };
        for datagram in route::answer(request.data, &caller) {
            self.add_datagram(datagram);
        }
        Ok(request.data.len())
    }

    fn recv(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        if flags.contains(MsgFlags::MSG_OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.base.take_error()?;
        let mut queue = self.queue.lock();
        let first = queue.datagrams.front().ok_or(Errno::EAGAIN)?;
        let len = first.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), first.get(..len)) {
            to.copy_from_slice(from);
        }
        let from = SockAddrNl {
            nl_family: AF_NETLINK,
            ..SockAddrNl::default()
        };
        let mut received = Received {
            len,
            full_len: first.len(),
            from: Some(from.as_bytes().to_vec()),
            credentials: Some(self.kernel.clone()),
            ..Received::default()
        };
        if received.full_len > len {
            received.flags |= MsgFlags::MSG_TRUNC;
        }
        if self.state.lock().options & (1 << NETLINK_PKTINFO) != 0 {
            // struct nl_pktinfo: no group.
            let info = 0_u32.to_ne_bytes().to_vec();
            received.control.push((
                SOL_NETLINK.cast_signed(),
                NETLINK_PKTINFO.cast_signed(),
                info,
            ));
        }
        if !flags.contains(MsgFlags::MSG_PEEK)
            && let Some(taken) = queue.datagrams.pop_front()
        {
            queue.bytes = queue.bytes.saturating_sub(taken.len());
        }
        Ok(received)
    }

    fn get_option(
        &self,
        _ctx: &Ctx<'_>,
        level: u32,
        name: u32,
        max_len: usize,
    ) -> Result<Vec<u8>, Errno> {
        match (level, name) {
            (SOL_SOCKET, _) => self.base.get_option(name, false, max_len),
            (SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS) => {
                Ok(self.state.lock().groups.to_ne_bytes().to_vec())
            }
            (SOL_NETLINK, _) if is_switch(name) => {
                let on = self.state.lock().options & (1 << name) != 0;
                Ok(i32::from(on).to_ne_bytes().to_vec())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_option(&self, ctx: &Ctx<'_>, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        match (level, name) {
            (SOL_SOCKET, _) => self.base.set_option(ctx, name, value),
            (SOL_NETLINK, NETLINK_ADD_MEMBERSHIP) => {
                let bit = Self::group_bit(int_option(value)?)?;
                self.bind_port(0, process_id(ctx.task))?;
                self.state.lock().groups |= bit;
                Ok(())
            }
            (SOL_NETLINK, NETLINK_DROP_MEMBERSHIP) => {
                let bit = Self::group_bit(int_option(value)?)?;
                self.state.lock().groups &= !bit;
                Ok(())
            }
            (SOL_NETLINK, NETLINK_LISTEN_ALL_NSID)
                if !ctx.task.creds().has_own(CapSet::NET_ADMIN) =>
            {
                Err(Errno::EPERM)
            }
            (SOL_NETLINK, _) if is_switch(name) => {
                let on = int_option(value)? != 0;
                let mut state = self.state.lock();
                state.options = if on {
                    state.options | (1 << name)
                } else {
                    state.options & !(1 << name)
                };
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn poll(&self) -> Events {
        let mut events = Events::WRITABLE;
        if self.base.has_error() {
            events |= Events::ERR;
        }
        if !self.queue.lock().datagrams.is_empty() {
            events |= Events::READABLE;
        }
        events
    }

    fn release(&self) {
        let port = self.state.lock().port;
        if port != 0 {
            self.namespace
                .release_netlink_port(self.base.protocol, port);
        }
        *self.queue.lock() = Queue::default();
        self.base.notify_all();
    }

    fn is_stream(&self) -> bool {
        false
    }

    fn max_message(&self) -> usize {
        self.base.send_buffer().saturating_sub(32)
    }

    fn readable_bytes(&self) -> Result<usize, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    fn unsent_bytes(&self) -> Result<usize, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}

/// Options that are on or off.
const fn is_switch(name: u32) -> bool {
    matches!(
        name,
        NETLINK_PKTINFO
            | NETLINK_BROADCAST_ERROR
            | NETLINK_NO_ENOBUFS
            | NETLINK_LISTEN_ALL_NSID
            | NETLINK_CAP_ACK
            | NETLINK_EXT_ACK
            | NETLINK_GET_STRICT_CHK
    )
}
