//! Who has which port.
//!
//! Locks: a leaf.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::Errno;

use crate::task::Uid;

/// Ports given to those who don't ask for one (`ip_local_port_range`).
pub const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// A wish for a port.
#[derive(Clone, Copy, Debug)]
pub struct BindRequest {
    /// Identity of the socket: its inode number.
    pub id: u64,
    pub ip: IpAddr,
    /// 0: any free one.
    pub port: u16,
    /// An unspecified IPv6 address does not stand for IPv4 too.
    pub v6_only: bool,
    pub reuse_addr: bool,
    pub reuse_port: bool,
    pub owner: Uid,
}

struct Binding<S> {
    request: BindRequest,
    listening: bool,
    /// Takes from this address only.
    peer: Option<SocketAddr>,
    socket: Weak<S>,
}

struct Bucket<S> {
    bindings: Vec<Binding<S>>,
    /// Accepted connections, which keep a port without being bound.
    connections: usize,
}

impl<S> Default for Bucket<S> {
    fn default() -> Self {
        Self {
            bindings: Vec::new(),
            connections: 0,
        }
    }
}

struct Ports<S> {
    by_port: HashMap<u16, Bucket<S>>,
    next: u16,
}

/// The ports of one protocol in one network namespace.
pub struct PortTable<S> {
    ports: Mutex<Ports<S>>,
}

impl<S> Default for PortTable<S> {
    fn default() -> Self {
        // Not the same first port in each sandbox.
        let seed = std::process::id().wrapping_mul(7919) % 28_000;
        let first = EPHEMERAL.start() + u16::try_from(seed).unwrap_or(0);
        Self {
            ports: Mutex::new(Ports {
                by_port: HashMap::new(),
                next: first,
            }),
        }
    }
}

impl BindRequest {
    /// Whether packets to `ip` are for this address.
    fn covers(&self, ip: IpAddr) -> bool {
        match self.ip {
            IpAddr::V4(own) if own.is_unspecified() => ip.is_ipv4(),
            IpAddr::V6(own) if own.is_unspecified() => ip.is_ipv6() || !self.v6_only,
            own => own == ip,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.covers(other.ip) || other.covers(self.ip)
    }
}

impl<S> Bucket<S> {
    fn conflicts(&self, wish: &BindRequest) -> bool {
        if self.connections > 0 && !wish.reuse_addr {
            return true;
        }
        self.bindings.iter().any(|binding| {
            let held = &binding.request;
            let share_addr = held.reuse_addr && wish.reuse_addr && !binding.listening;
            let share_port = held.reuse_port && wish.reuse_port && held.owner == wish.owner;
            held.overlaps(wish) && !share_addr && !share_port
        })
    }
}

impl<S> Ports<S> {
    fn find_free(&mut self, wish: &BindRequest) -> Result<u16, Errno> {
        for _ in EPHEMERAL {
            let port = self.next;
            self.next = if port >= *EPHEMERAL.end() {
                *EPHEMERAL.start()
            } else {
                port + 1
            };
            let taken = self.by_port.get(&port);
            // Sharing is for those who name a port.
            let alone = BindRequest {
                reuse_addr: false,
                reuse_port: false,
                ..*wish
            };
            if taken.is_none_or(|bucket| !bucket.conflicts(&alone)) {
                return Ok(port);
            }
        }
        Err(Errno::EADDRINUSE)
    }

    fn clean(&mut self, port: u16) {
        if let Some(bucket) = self.by_port.get(&port)
            && bucket.bindings.is_empty()
            && bucket.connections == 0
        {
            self.by_port.remove(&port);
        }
    }

    fn binding(&mut self, port: u16, id: u64) -> Option<&mut Binding<S>> {
        let bucket = self.by_port.get_mut(&port)?;
        bucket
            .bindings
            .iter_mut()
            .find(|held| held.request.id == id)
    }
}

impl<S> PortTable<S> {
    /// Takes a port; `EADDRINUSE` if it can't be shared.
    pub fn bind(&self, socket: &Arc<S>, wish: BindRequest) -> Result<u16, Errno> {
        let mut ports = self.ports.lock();
        let port = match wish.port {
            0 => ports.find_free(&wish)?,
            port => {
                let taken = ports.by_port.get(&port);
                if taken.is_some_and(|bucket| bucket.conflicts(&wish)) {
                    return Err(Errno::EADDRINUSE);
                }
                port
            }
        };
        let bucket = ports.by_port.entry(port).or_default();
        bucket.bindings.push(Binding {
            request: BindRequest { port, ..wish },
            listening: false,
            peer: None,
            socket: Arc::downgrade(socket),
        });
        Ok(port)
    }

    /// Gives a port back.
    pub fn unbind(&self, port: u16, id: u64) {
        let mut ports = self.ports.lock();
        if let Some(bucket) = ports.by_port.get_mut(&port) {
            bucket.bindings.retain(|held| held.request.id != id);
        }
        ports.clean(port);
    }

    /// The socket takes connections from now on, or no longer; `EADDRINUSE`
    /// if another one does that can't share.
    pub fn set_listening(&self, port: u16, id: u64, listening: bool) -> Result<(), Errno> {
        let mut ports = self.ports.lock();
        let own = ports.binding(port, id).map(|held| held.request);
        let own = own.ok_or(Errno::EINVAL)?;
        if listening && let Some(bucket) = ports.by_port.get(&port) {
            let taken = bucket.bindings.iter().any(|held| {
                let other = &held.request;
                let shared = other.reuse_port && own.reuse_port && other.owner == own.owner;
                held.listening && other.id != id && other.overlaps(&own) && !shared
            });
            if taken {
                return Err(Errno::EADDRINUSE);
            }
        }
        if let Some(held) = ports.binding(port, id) {
            held.listening = listening;
        }
        Ok(())
    }

    /// Changes the local address and the only peer of a bound socket.
    pub fn set_peer(&self, port: u16, id: u64, ip: IpAddr, peer: Option<SocketAddr>) {
        if let Some(held) = self.ports.lock().binding(port, id) {
            held.request.ip = ip;
            held.peer = peer;
        }
    }

    /// Counts an accepted connection on `port`.
    pub fn add_connection(&self, port: u16) {
        let mut ports = self.ports.lock();
        ports.by_port.entry(port).or_default().connections += 1;
    }

    /// Ends [`Self::add_connection`].
    pub fn remove_connection(&self, port: u16) {
        let mut ports = self.ports.lock();
        if let Some(bucket) = ports.by_port.get_mut(&port) {
            bucket.connections = bucket.connections.saturating_sub(1);
        }
        ports.clean(port);
    }

    /// The listener for connections from `from` to `to`.
    pub fn listener(&self, to: SocketAddr, from: SocketAddr) -> Option<Arc<S>> {
        self.best(to, from, |held| held.listening)
    }

    /// The socket for a datagram from `from` to `to`.
    pub fn receiver(&self, to: SocketAddr, from: SocketAddr) -> Option<Arc<S>> {
        self.best(to, from, |held| held.peer.is_none_or(|peer| peer == from))
    }

    fn best(
        &self,
        to: SocketAddr,
        from: SocketAddr,
        accept: impl Fn(&Binding<S>) -> bool,
    ) -> Option<Arc<S>> {
        let ports = self.ports.lock();
        let bucket = ports.by_port.get(&to.port())?;
        let score = |held: &Binding<S>| {
            if !accept(held) || !held.request.covers(to.ip()) {
                return 0;
            }
            let exact = u32::from(!held.request.ip.is_unspecified());
            let family = u32::from(held.request.ip.is_ipv4() == to.is_ipv4());
            1 + family + 2 * exact + 4 * u32::from(held.peer.is_some())
        };
        let best = bucket.bindings.iter().map(score).max()?;
        if best == 0 {
            return None;
        }
        let equals: Vec<&Binding<S>> = {
            let equals = bucket.bindings.iter().filter(|held| score(held) == best);
            equals.collect()
        };
        // Those that share by SO_REUSEPORT get their turn by the sender's
        // port; of those that share by SO_REUSEADDR the last one wins.
        let index = match equals.last() {
            Some(last) if last.request.reuse_port => {
                usize::from(from.port().wrapping_mul(0x9E37) >> 4) % equals.len()
            }
            _ => equals.len().saturating_sub(1),
        };
        equals.get(index)?.socket.upgrade()
    }

    /// All sockets for a multicast or broadcast datagram to `to`: those bound
    /// to its port and to all addresses or to the group.
    pub fn group(&self, to: SocketAddr, from: SocketAddr) -> Vec<Arc<S>> {
        let ports = self.ports.lock();
        let Some(bucket) = ports.by_port.get(&to.port()) else {
            return Vec::new();
        };
        let fits = bucket.bindings.iter().filter(|held| {
            held.request.covers(to.ip()) && held.peer.is_none_or(|peer| peer == from)
        });
        fits.filter_map(|held| held.socket.upgrade()).collect()
    }

    /// All bound sockets, by port.
    pub fn bound(&self) -> Vec<Arc<S>> {
        let ports = self.ports.lock();
        let mut found: Vec<(u16, Arc<S>)> = Vec::new();
        for (port, bucket) in &ports.by_port {
            for held in &bucket.bindings {
                found.extend(held.socket.upgrade().map(|socket| (*port, socket)));
            }
        }
        drop(ports);
        found.sort_by_key(|(port, _)| *port);
        found.into_iter().map(|(_, socket)| socket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn wish(id: u64, ip: IpAddr, port: u16) -> BindRequest {
        BindRequest {
            id,
            ip,
            port,
            v6_only: false,
            reuse_addr: false,
            reuse_port: false,
            owner: Uid(0),
        }
    }

    const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const LO: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn overlapping_addresses_conflict() {
        let table = PortTable::<u8>::default();
        let socket = Arc::new(0);
        assert_eq!(table.bind(&socket, wish(1, LO, 80)), Ok(80));
        let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(table.bind(&socket, wish(2, other, 80)), Ok(80));
        for ip in [LO, ANY4, ANY6] {
            assert_eq!(table.bind(&socket, wish(3, ip, 80)), Err(Errno::EADDRINUSE));
        }
        let only = BindRequest {
            v6_only: true,
            ..wish(4, ANY6, 80)
        };
        assert_eq!(table.bind(&socket, only), Ok(80));
        table.unbind(80, 1);
        assert_eq!(table.bind(&socket, wish(5, LO, 80)), Ok(80));
    }

    #[test]
    fn a_listener_is_not_shared_by_reuse_addr() {
        let table = PortTable::<u8>::default();
        let socket = Arc::new(0);
        let shared = |id| BindRequest {
            reuse_addr: true,
            ..wish(id, LO, 80)
        };
        assert_eq!(table.bind(&socket, shared(1)), Ok(80));
        assert_eq!(table.bind(&socket, shared(2)), Ok(80));
        assert_eq!(table.set_listening(80, 1, true), Ok(()));
        assert_eq!(table.set_listening(80, 2, true), Err(Errno::EADDRINUSE));
        assert_eq!(table.bind(&socket, shared(3)), Err(Errno::EADDRINUSE));
    }

    #[test]
    fn the_best_match_gets_it() {
        let table = PortTable::<u8>::default();
        let (any, exact, connected) = (Arc::new(1), Arc::new(2), Arc::new(3));
        let reuse = |id, ip| BindRequest {
            reuse_addr: true,
            ..wish(id, ip, 53)
        };
        assert_eq!(table.bind(&any, reuse(1, ANY4)), Ok(53));
        assert_eq!(table.bind(&exact, reuse(2, LO)), Ok(53));
        assert_eq!(table.bind(&connected, reuse(3, LO)), Ok(53));
        let peer = SocketAddr::new(LO, 1000);
        table.set_peer(53, 3, LO, Some(peer));
        let find = |ip: IpAddr, from: u16| {
            let from = SocketAddr::new(LO, from);
            table
                .receiver(SocketAddr::new(ip, 53), from)
                .map(|found| *found)
        };
        assert_eq!(find(LO, 1000), Some(3));
        assert_eq!(find(LO, 1001), Some(2));
        assert_eq!(find(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)), 1001), Some(1));
    }
}
