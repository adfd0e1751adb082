//! Unix domain sockets (`unix(7)`).
//!
//! | file | holds |
//! |---|---|
//! | `name.rs` | [`UnixName`]: addresses |
//! | `queue.rs` | what a socket has received |
//! | `connect.rs` | bind, listen, connect, accept, release |
//! | `transfer.rs` | sending and receiving |
//! | `collect.rs` | closing sockets that only lost messages refer to |
//! | `ops.rs` | the [`Socket`](super::Socket) interface and options |
//!
//! A socket's peer is an `Arc`; the cycle that two peers make ends when
//! either is released.
//!
//! Locks: `state` and `rx` of a socket are never held together, nor with
//! those of another socket.

mod collect;
mod connect;
mod name;
mod ops;
mod queue;
mod transfer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM};

use super::{Net, NetNamespace, Sender, SocketBase};
use crate::kernel::Kernel;
use crate::task::Task;
pub use name::UnixName;
use queue::ReceiveQueue;

/// Type of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixKind {
    Stream,
    Datagram,
    SeqPacket,
}

/// Where a bound socket can be found.
enum Binding {
    /// Under a name in a file system: device and inode number.
    Inode((u64, u64)),
    Abstract(Vec<u8>),
}

/// A queue of connections not accepted yet.
struct Listener {
    backlog: usize,
    pending: VecDeque<Arc<UnixSocket>>,
    identity: Sender,
    /// Sockets whose connect found the queue full.
    waiting: Vec<Weak<UnixSocket>>,
}

enum Stage {
    Fresh,
    /// Another thread is in `connect`.
    Connecting,
    Listening(Listener),
    Connected,
}

struct State {
    name: Option<UnixName>,
    binding: Option<Binding>,
    stage: Stage,
    peer: Option<Arc<UnixSocket>>,
    /// Who the peer was when the connection was made.
    peer_identity: Option<Sender>,
}

/// Bits of `UnixSocket::ended`: nothing is received, nothing is sent.
const RECV: u8 = 1;
const SEND: u8 = 2;

/// A unix domain socket.
pub struct UnixSocket {
    base: SocketBase,
    kind: UnixKind,
    me: Weak<Self>,
    net: Arc<Net>,
    namespace: Arc<NetNamespace>,
    state: Mutex<State>,
    rx: Mutex<ReceiveQueue>,
    ended: AtomicU8,
    connected: AtomicBool,
}

impl UnixKind {
    /// From the type of `socket(2)`.
    pub fn from_raw(kind: u32) -> Result<Self, Errno> {
        match kind {
            SOCK_STREAM => Ok(Self::Stream),
            // unix(7): raw is taken for datagram.
            SOCK_DGRAM | SOCK_RAW => Ok(Self::Datagram),
            SOCK_SEQPACKET => Ok(Self::SeqPacket),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        }
    }

    const fn raw(self) -> u32 {
        match self {
            Self::Stream => SOCK_STREAM,
            Self::Datagram => SOCK_DGRAM,
            Self::SeqPacket => SOCK_SEQPACKET,
        }
    }
}

impl UnixSocket {
    /// A fresh socket of `task`.
    pub fn new(kernel: &Kernel, task: &Task, kind: UnixKind) -> Arc<Self> {
        let net = kernel.net.clone();
        let namespace = net.namespace_of(task);
        let base = SocketBase::new(AF_UNIX, kind.raw(), 0, net.next_ino(), task.creds().fsuid);
        Self::from_base(base, kind, net, namespace)
    }

    fn from_base(
        base: SocketBase,
        kind: UnixKind,
        net: Arc<Net>,
        namespace: Arc<NetNamespace>,
    ) -> Arc<Self> {
        let ino = base.ino;
        let socket = Arc::new_cyclic(|me| Self {
            base,
            kind,
            me: me.clone(),
            net,
            namespace,
            state: Mutex::new(State {
                name: None,
                binding: None,
                stage: Stage::Fresh,
                peer: None,
                peer_identity: None,
            }),
            rx: Mutex::new(ReceiveQueue::default()),
            ended: AtomicU8::new(0),
            connected: AtomicBool::new(false),
        });
        socket.namespace.add_unix(&socket, ino);
        socket
    }

    /// Two sockets connected to each other.
    pub fn pair(kernel: &Kernel, task: &Task, kind: UnixKind) -> (Arc<Self>, Arc<Self>) {
        let (a, b) = (Self::new(kernel, task, kind), Self::new(kernel, task, kind));
        let identity = Sender::peer(task);
        a.join(&b, identity.clone());
        b.join(&a, identity);
        (a, b)
    }

    /// Makes `peer` the peer of this socket.
    fn join(&self, peer: &Arc<Self>, identity: Sender) {
        let mut state = self.state.lock();
        state.peer = Some(peer.clone());
        state.peer_identity = Some(identity);
        if self.kind != UnixKind::Datagram {
            state.stage = Stage::Connected;
            self.connected.store(true, Ordering::Release);
        }
    }

    fn peer(&self) -> Option<Arc<Self>> {
        self.state.lock().peer.clone()
    }

    fn has_ended(&self, direction: u8) -> bool {
        self.ended.load(Ordering::Acquire) & direction != 0
    }

    fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    fn is_listening(&self) -> bool {
        matches!(self.state.lock().stage, Stage::Listening(_))
    }

    /// The bound name.
    pub fn name(&self) -> Option<UnixName> {
        self.state.lock().name.clone()
    }

    /// State as `/proc/net/unix` shows it, and whether it listens.
    pub fn proc_state(&self) -> (u8, bool) {
        match self.state.lock().stage {
            Stage::Listening(_) => (1, true),
            Stage::Connected => (3, false),
            Stage::Connecting => (2, false),
            Stage::Fresh => (1, false),
        }
    }

    pub fn kind(&self) -> UnixKind {
        self.kind
    }
}
