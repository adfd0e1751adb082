//! TCP (`tcp(7)`) without packets: each side of a connection has the ring of
//! bytes it is to read, and writes to its peer's.
//!
//! | file | holds |
//! |---|---|
//! | `connect.rs` | bind, listen, connect, accept, shutdown, release |
//! | `transfer.rs` | sending and receiving |
//! | `ops.rs` | the [`Socket`](crate::net::Socket) interface and options |
//!
//! The cycle that two peers make ends when either is released.
//!
//! Locks: `state` and `rx` of a socket are never held together, nor with
//! those of another socket.

mod connect;
mod ops;
mod transfer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::abi::{IPPROTO_TCP, SOCK_STREAM};

use super::Family;
use super::options::InetOptions;
use crate::kernel::Kernel;
use crate::net::{Net, NetNamespace, SocketBase};
use crate::task::Task;

/// Bytes under way in one direction where the guest has set no buffer sizes.
const RING_DEFAULT: usize = 512 << 10;
/// `SO_SNDBUF` and `SO_RCVBUF` of a fresh socket (`tcp_wmem`, `tcp_rmem`).
const SEND_BUFFER: usize = 16_384;
const RECV_BUFFER: usize = 131_072;

struct Listener {
    backlog: usize,
    pending: VecDeque<Arc<TcpSocket>>,
    /// Sockets whose connect found the queue full.
    waiting: Vec<Weak<TcpSocket>>,
}

enum Stage {
    Closed,
    Listening(Listener),
    /// Waiting for room in a listener's queue, or being connected just now.
    Connecting {
        to: SocketAddr,
        /// Some thread is queueing it at the listener.
        entering: bool,
    },
    Connected {
        peer: Arc<TcpSocket>,
        /// A non-blocking connect has not been told the outcome.
        untold: bool,
    },
}

/// How a socket holds its port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    None,
    /// By `bind(2)`.
    Bound,
    /// Given to it when it connected or listened.
    Automatic,
    /// An accepted connection.
    Connection,
}

struct State {
    stage: Stage,
    local: SocketAddr,
    /// The address given to `bind(2)`.
    bound_ip: IpAddr,
    peer: Option<SocketAddr>,
    hold: Hold,
}

/// What has arrived.
#[derive(Default)]
struct Receive {
    bytes: VecDeque<u8>,
    /// The peer sends no more.
    fin: bool,
    /// The connection is reset.
    reset: bool,
    /// The socket is released.
    closed: bool,
    /// `SHUT_RD`.
    ended: bool,
    /// The peer found the ring full and is to be told when no more than this
    /// is left in it.
    writer_waits: Option<usize>,
    urgent: Option<Urgent>,
}

/// An urgent byte.
struct Urgent {
    /// `None` once it has been read, or when it is in the stream.
    byte: Option<u8>,
    /// Bytes of the stream before the mark.
    before: usize,
}

/// A TCP socket.
pub struct TcpSocket {
    base: SocketBase,
    family: Family,
    me: Weak<Self>,
    net: Arc<Net>,
    namespace: Arc<NetNamespace>,
    state: Mutex<State>,
    rx: Mutex<Receive>,
    options: Mutex<InetOptions>,
    /// `SHUT_WR`.
    send_ended: AtomicBool,
}

impl TcpSocket {
    /// A fresh socket of `task`.
    pub fn new(kernel: &Kernel, task: &Task, family: Family) -> Arc<Self> {
        let net = kernel.net.clone();
        let namespace = net.namespace_of(task);
        let owner = task.creds().fsuid;
        let base = SocketBase::new(
            family.raw(),
            SOCK_STREAM,
            IPPROTO_TCP,
            net.next_ino(),
            owner,
        );
        base.set_buffers(SEND_BUFFER, RECV_BUFFER);
        Self::from_base(base, family, net, namespace, InetOptions::default())
    }

    fn from_base(
        base: SocketBase,
        family: Family,
        net: Arc<Net>,
        namespace: Arc<NetNamespace>,
        options: InetOptions,
    ) -> Arc<Self> {
        let any = family.any();
        let ino = base.ino;
        let socket = Arc::new_cyclic(|me| Self {
            base,
            family,
            me: me.clone(),
            net,
            namespace,
            state: Mutex::new(State {
                stage: Stage::Closed,
                local: SocketAddr::new(any, 0),
                bound_ip: any,
                peer: None,
                hold: Hold::None,
            }),
            rx: Mutex::default(),
            options: Mutex::new(options),
            send_ended: AtomicBool::new(false),
        });
        socket.namespace.add_tcp(&socket, ino);
        socket
    }

    fn connection(&self) -> Option<Arc<Self>> {
        match &self.state.lock().stage {
            Stage::Connected { peer, .. } => Some(peer.clone()),
            _ => None,
        }
    }

    fn is_listening(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Listening(_))
    }

    fn has_ended_sending(&self) -> bool {
        self.send_ended.load(Ordering::Acquire)
    }

    /// State number as `/proc/net/tcp` and `TCP_INFO` show it.
    pub fn state_number(&self) -> u8 {
        use syscall_tables::abi::{
            TCP_CLOSE, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_FIN_WAIT2, TCP_LISTEN, TCP_SYN_SENT,
        };
        match &self.state.lock().stage {
            Stage::Closed => return TCP_CLOSE,
            Stage::Listening(_) => return TCP_LISTEN,
            Stage::Connecting { .. } => return TCP_SYN_SENT,
            Stage::Connected { .. } => {}
        }
        let rx = self.rx.lock();
        match (rx.fin, self.has_ended_sending()) {
            _ if rx.reset => TCP_CLOSE,
            (true, true) => TCP_CLOSE,
            (true, false) => TCP_CLOSE_WAIT,
            (false, true) => TCP_FIN_WAIT2,
            (false, false) => TCP_ESTABLISHED,
        }
    }

    /// Local and remote address, for `/proc/net/tcp`.
    pub fn addresses(&self) -> (SocketAddr, Option<SocketAddr>) {
        let state = self.state.lock();
        (state.local, state.peer)
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// How many connections may wait to be accepted, of a listener.
    pub fn backlog(&self) -> Option<usize> {
        match &self.state.lock().stage {
            Stage::Listening(listener) => Some(listener.backlog),
            _ => None,
        }
    }

    /// Bytes waiting to be read; of a listener, connections to be accepted.
    pub fn queued(&self) -> usize {
        if let Stage::Listening(listener) = &self.state.lock().stage {
            return listener.pending.len();
        }
        self.rx.lock().bytes.len()
    }
}
