//! UDP (`udp(7)`) and UDP-Lite (`udplite(7)`): queues of datagrams.
//!
//! | file | holds |
//! |---|---|
//! | `packet.rs` | what control messages say of single datagrams |
//! | `transfer.rs` | addresses, sending and receiving |
//! | `ops.rs` | the [`Socket`](crate::net::Socket) interface and options |
//!
//! Locks: `state` and `rx` of a socket are never held together, nor with
//! those of another socket; the port table is below `state`.

mod ops;
mod packet;
mod transfer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::abi::{IPPROTO_UDPLITE, SOCK_DGRAM};

use super::Family;
use super::options::InetOptions;
use super::ports::PortTable;
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
    /// Bytes of UDP-Lite that a check sum covers, if not all.
    coverage: Option<i32>,
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

/// Header of UDP and UDP-Lite, in bytes.
const HEADER: i32 = 8;

/// A coverage of check sums as given: 0 for all, else at least the header.
pub(super) fn coverage(bytes: i32) -> i32 {
    match bytes {
        0 => 0,
        bytes => bytes.clamp(HEADER, i32::from(u16::MAX)),
    }
}

/// A socket of UDP or UDP-Lite.
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
    /// A fresh socket of `task`, with `IPPROTO_UDP` or `IPPROTO_UDPLITE`.
    pub fn new(kernel: &Kernel, task: &Task, family: Family, protocol: u32) -> Arc<Self> {
        let net = kernel.net.clone();
        let namespace = net.namespace_of(task);
        let owner = task.creds().fsuid;
        let ino = net.next_ino();
        let any = family.any();
        Arc::new_cyclic(|me| Self {
            base: SocketBase::new(family.raw(), SOCK_DGRAM, protocol, ino, owner),
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

    fn is_lite(&self) -> bool {
        self.base.protocol == IPPROTO_UDPLITE
    }

    /// The ports of its protocol.
    fn ports(&self) -> &PortTable<Self> {
        if self.is_lite() {
            &self.namespace.udp_lite
        } else {
            &self.namespace.udp
        }
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
