//! What a socket does. Like [`FileOps`](crate::vfs::FileOps), operations
//! never wait: they answer `EAGAIN` and the system call layer waits on the
//! socket's queue.

use std::any::Any;
use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::MsgFlags;

use super::{Sender, SocketBase};
use crate::ctx::Ctx;
use crate::sync::Events;
use crate::task::Task;
use crate::vfs::File;

/// An address in its wire form (`struct sockaddr_*` bytes as the guest gave
/// them or gets them).
pub type SocketAddr = Vec<u8>;

/// Directions that `shutdown(2)` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    pub read: bool,
    pub write: bool,
}

impl Shutdown {
    /// From `SHUT_RD`, `SHUT_WR`, `SHUT_RDWR`.
    pub fn from_raw(how: i32) -> Result<Self, Errno> {
        let (read, write) = match how {
            0 => (true, false),
            1 => (false, true),
            2 => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        Ok(Self { read, write })
    }
}

/// A message to send.
pub struct SendRequest<'a> {
    /// The calling task; `None` for data moved by the kernel (`sendfile`).
    pub sender: Option<&'a Arc<Task>>,
    pub data: &'a [u8],
    /// `None`: the connected peer.
    pub to: Option<&'a [u8]>,
    pub flags: MsgFlags,
    /// Files to pass (`SCM_RIGHTS`); taken when the message has been sent.
    pub files: &'a mut Vec<Arc<File>>,
    /// Explicit credentials (`SCM_CREDENTIALS`), allowed to the sender.
    pub credentials: Option<Sender>,
    /// Options for this packet: level, type, payload.
    pub control: &'a [(i32, i32, Vec<u8>)],
}

/// A received message.
#[derive(Default)]
pub struct Received {
    /// Bytes stored to the buffer.
    pub len: usize,
    /// Length of the whole datagram, or what `MSG_TRUNC` took from a stream.
    pub full_len: usize,
    pub from: Option<SocketAddr>,
    pub files: Vec<Arc<File>>,
    pub credentials: Option<Sender>,
    /// Further control messages: level, type, payload.
    pub control: Vec<(i32, i32, Vec<u8>)>,
    pub flags: MsgFlags,
}

/// A kind of socket.
pub trait Socket: Any + Send + Sync {
    /// What all sockets have.
    fn base(&self) -> &SocketBase;

    fn bind(&self, ctx: &Ctx<'_>, addr: &[u8]) -> Result<(), Errno>;

    /// `EAGAIN` while the connection is being made and would be waited for;
    /// called again, it answers the outcome. `nonblocking` callers get
    /// `EINPROGRESS` where the kind of socket connects in the background.
    fn connect(&self, ctx: &Ctx<'_>, addr: &[u8], nonblocking: bool) -> Result<(), Errno>;

    fn listen(&self, ctx: &Ctx<'_>, backlog: i32) -> Result<(), Errno>;

    /// The new connection, and the peer's address.
    fn accept(&self) -> Result<(Arc<dyn Socket>, SocketAddr), Errno>;

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno>;

    fn local_addr(&self) -> Result<SocketAddr, Errno>;

    fn peer_addr(&self) -> Result<SocketAddr, Errno>;

    /// Sends as much as fits.
    fn send(&self, request: SendRequest<'_>) -> Result<usize, Errno>;

    fn recv(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno>;

    /// An option above `SOL_SOCKET`'s common ones; `ENOPROTOOPT` for unknown
    /// ones.
    fn get_option(
        &self,
        ctx: &Ctx<'_>,
        level: u32,
        name: u32,
        max_len: usize,
    ) -> Result<Vec<u8>, Errno>;

    fn set_option(&self, ctx: &Ctx<'_>, level: u32, name: u32, value: &[u8]) -> Result<(), Errno>;

    fn poll(&self) -> Events;

    /// The last descriptor is gone.
    fn release(&self);

    /// Whether bytes have no record bounds.
    fn is_stream(&self) -> bool;

    /// Longest message; more is `EMSGSIZE`.
    fn max_message(&self) -> usize {
        usize::MAX
    }

    /// Puts bytes of a stream back that could not be stored to the reader.
    fn unread(&self, _bytes: &[u8]) {}

    /// `FIONREAD`.
    fn readable_bytes(&self) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// `SIOCOUTQ`.
    fn unsent_bytes(&self) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Whether `MSG_ERRQUEUE` may find something.
    fn has_error_queue(&self) -> bool {
        false
    }

    /// `SIOCATMARK`.
    fn at_mark(&self) -> Result<bool, Errno> {
        Err(Errno::ENOTTY)
    }
}
