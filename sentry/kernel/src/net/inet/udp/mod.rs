//! UDP (`udp(7)`): queues of datagrams.
//!
//! | file | holds |
//! |---|---|
//! | `transfer.rs` | addresses, sending and receiving |
//! | `ops.rs` | the [`Socket`](crate::net::Socket) interface and options |
//!
//! Locks: `state` and `rx` of a socket are never held together, nor with
//! those of another socket; the port table is below `state`.

mod ops;
mod transfer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::abi::{IPPROTO_UDP, SOCK_DGRAM};

use super::Family;
use super::options::InetOptions;
use crate::kernel::Kernel;
use crate::net::{Net, NetNamespace, SocketBase};
use crate::task::Task;
use crate::vfs::Timestamp;

/// Bytes a datagram is charged for beyond its data.
const OVERHEAD: usize = 576;

struct Datagram {
    data: Box<[u8]>,
    from: SocketAddr,
    /// Destination address, for `IP_PKTINFO`.
    to: IpAddr,
    ttl: u8,
    tos: u8,
    time: Timestamp,
}

#[derive(Default)]
struct Receive {
    queue: VecDeque<Datagram>,
    charged: usize,
    /// The socket is released.
    closed: bool,
    dropped: u64,
}

struct State {
    local: SocketAddr,
    /// The address given to `bind(2)`.
    bound_ip: IpAddr,
    /// Whether the port was given by `bind(2)`.
    explicit: bool,
    peer: Option<SocketAddr>,
    /// Groups joined.
    groups: Vec<IpAddr>,
    recv_ended: bool,
    send_ended: bool,
}

/// A UDP socket.
pub struct UdpSocket {
    base: SocketBase,
    family: Family,
    me: Weak<Self>,
    _net: Arc<Net>,
    namespace: Arc<NetNamespace>,
    state: Mutex<State>,
    rx: Mutex<Receive>,
    options: Mutex<InetOptions>,
}

impl UdpSocket {
    /// A fresh socket of `task`.
    pub fn new(kernel: &Kernel, task: &Task, family: Family) -> Arc<Self> {
        let net = kernel.net.clone();
        let namespace = net.namespace_of(task);
        let owner = task.creds().fsuid;
        let ino = net.next_ino();
        let any = family.any();
        Arc::new_cyclic(|me| Self {
            base: SocketBase::new(family.raw(), SOCK_DGRAM, IPPROTO_UDP, ino, owner),
            family,
            me: me.clone(),
            _net: net,
            namespace,
            state: Mutex::new(State {
                local: SocketAddr::new(any, 0),
                bound_ip: any,
                explicit: false,
                peer: None,
                groups: Vec::new(),
                recv_ended: false,
                send_ended: false,
            }),
            rx: Mutex::default(),
            options: Mutex::default(),
        })
    }

    /// Local and remote address.
    pub fn addresses(&self) -> (SocketAddr, Option<SocketAddr>) {
        let state = self.state.lock();
        (state.local, state.peer)
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// Bytes in the receive queue and datagrams dropped, for `/proc/net/udp`.
    pub fn queue_state(&self) -> (usize, u64) {
        let rx = self.rx.lock();
        (rx.charged, rx.dropped)
    }
}
