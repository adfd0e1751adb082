//! What a socket does. Like [`FileOps`](crate::vfs::FileOps), operations
//! never wait: they answer `EAGAIN` and the system call layer waits on the
//! file's queue.

use std::sync::Arc;

use bitflags::bitflags;
use syscall_tables::Errno;

use crate::ctx::Ctx;
use crate::task::Creds;
use crate::vfs::File;

/// An address in its wire form (`struct sockaddr_*` bytes as the guest gave
/// them or gets them).
pub type SocketAddr = Vec<u8>;

bitflags! {
    /// `MSG_*` flags, same bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RecvFlags: u32 {
        const OOB = 1;
        const PEEK = 2;
        const CTRUNC = 8;
        const TRUNC = 0x20;
        const DONTWAIT = 0x40;
        const EOR = 0x80;
        const WAITALL = 0x100;
        const NOSIGNAL = 0x4000;
        const CMSG_CLOEXEC = 0x4000_0000;
    }
}

/// A message to send.
pub struct SendRequest<'a> {
    pub data: &'a [u8],
    /// `None`: the connected peer.
    pub to: Option<&'a [u8]>,
    pub flags: RecvFlags,
    /// Files to pass (`SCM_RIGHTS`).
    pub files: Vec<Arc<File>>,
    /// Explicit credentials (`SCM_CREDENTIALS`): pid, uid, gid as sent.
    pub credentials: Option<(i32, u32, u32)>,
}

/// A received message.
#[derive(Default)]
pub struct Received {
    /// Bytes stored to the buffer.
    pub len: usize,
    /// Length of the whole datagram (`MSG_TRUNC`).
    pub full_len: usize,
    pub from: Option<SocketAddr>,
    pub files: Vec<Arc<File>>,
    pub credentials: Option<(i32, u32, u32)>,
    /// Further control messages: level, type, payload.
    pub control: Vec<(i32, i32, Vec<u8>)>,
    pub flags: RecvFlags,
}

/// The socket calls.
pub trait Socket: Send + Sync {
    fn bind(&self, ctx: &Ctx<'_>, addr: &[u8]) -> Result<(), Errno>;
    /// `EAGAIN` while the connection is being made and would be waited for;
    /// called again, it answers the outcome.
    fn connect(&self, ctx: &Ctx<'_>, file: &File, addr: &[u8]) -> Result<(), Errno>;
    fn listen(&self, ctx: &Ctx<'_>, backlog: i32) -> Result<(), Errno>;
    /// The new connection as an open file (without status flags), and the
    /// peer's address.
    fn accept(&self, ctx: &Ctx<'_>) -> Result<(Arc<File>, SocketAddr), Errno>;
    fn shutdown(&self, how: i32) -> Result<(), Errno>;
    fn local_addr(&self) -> Result<SocketAddr, Errno>;
    fn peer_addr(&self) -> Result<SocketAddr, Errno>;
    fn send(&self, creds: &Creds, request: SendRequest<'_>) -> Result<usize, Errno>;
    fn recv(&self, buf: &mut [u8], flags: RecvFlags) -> Result<Received, Errno>;
    fn get_option(&self, level: i32, name: i32, max_len: usize) -> Result<Vec<u8>, Errno>;
    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno>;
}
