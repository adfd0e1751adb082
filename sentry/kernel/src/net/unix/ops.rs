//! The [`Socket`] interface of unix sockets.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    MsgFlags, SO_PASSRIGHTS, SO_PEERCRED, SO_PEERGROUPS, SO_PEERPIDFD, SO_PEERSEC, SOL_SOCKET,
    Ucred,
};
use zerocopy::IntoBytes;

use super::name::unnamed;
use super::{RECV, SEND, UnixKind, UnixSocket};
use crate::ctx::Ctx;
use crate::net::{Received, SendRequest, Shutdown, Socket, SocketAddr, SocketBase};
use crate::sync::Events;
use crate::task::pidfd::{self, PidfdKind};
use crate::vfs::{FdFlags, StatusFlags};

impl UnixSocket {
    fn peer_option(&self, ctx: &Ctx<'_>, name: u32, max_len: usize) -> Result<Vec<u8>, Errno> {
        let identity = self.state.lock().peer_identity.clone();
        match name {
            SO_PEERCRED => {
                let cred = match identity {
                    Some(identity) => identity.seen_by(ctx.task),
                    None => Ucred {
                        pid: 0,
                        uid: u32::MAX,
                        gid: u32::MAX,
                    },
                };
                Ok(cred.as_bytes().to_vec())
            }
            SO_PEERGROUPS => {
                let identity = identity.ok_or(Errno::ENODATA)?;
                let user_ns = ctx.task.creds().user_ns.clone();
                let groups = identity.groups.iter();
                let bytes: Vec<u8> = groups
                    .flat_map(|gid| user_ns.gid_or_overflow(*gid).to_ne_bytes())
                    .collect();
                if bytes.len() > max_len {
                    return Err(Errno::ERANGE);
                }
                Ok(bytes)
            }
            SO_PEERPIDFD => {
                let pid = identity.and_then(|identity| identity.pid);
                let pid = pid.ok_or(Errno::ENODATA)?;
                if pid.task().is_none() {
                    return Err(Errno::ESRCH);
                }
                let file = pidfd::open(pid, PidfdKind::Process, StatusFlags::empty());
                let fd = ctx.add_fd(file, FdFlags::CLOEXEC)?;
                let fd = i32::try_from(fd).map_err(|_| Errno::EMFILE)?;
                Ok(fd.to_ne_bytes().to_vec())
            }
            SO_PASSRIGHTS => Ok(1_i32.to_ne_bytes().to_vec()),
            // No security module labels anything.
            SO_PEERSEC => Err(Errno::ENOPROTOOPT),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}

impl Socket for UnixSocket {
    fn base(&self) -> &SocketBase {
        &self.base
    }

    fn bind(&self, ctx: &Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        self.do_bind(ctx, addr)
    }

    fn connect(&self, ctx: &Ctx<'_>, addr: &[u8], _nonblocking: bool) -> Result<(), Errno> {
        self.do_connect(ctx, addr)
    }

    fn listen(&self, ctx: &Ctx<'_>, backlog: i32) -> Result<(), Errno> {
        self.do_listen(ctx.task, backlog)
    }

    fn accept(&self) -> Result<(Arc<dyn Socket>, SocketAddr), Errno> {
        let child = self.do_accept()?;
        let addr = child.peer_addr().unwrap_or_else(|_| unnamed());
        Ok((child, addr))
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        self.do_shutdown(how);
        Ok(())
    }

    fn local_addr(&self) -> Result<SocketAddr, Errno> {
        Ok(self.name().map_or_else(unnamed, |name| name.to_wire()))
    }

    fn peer_addr(&self) -> Result<SocketAddr, Errno> {
        let peer = self.peer().ok_or(Errno::ENOTCONN)?;
        Ok(peer.name().map_or_else(unnamed, |name| name.to_wire()))
    }

    fn send(&self, request: SendRequest<'_>) -> Result<usize, Errno> {
        self.do_send(request)
    }

    fn recv(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Received, Errno> {
        self.do_recv(buf, flags)
    }

    fn get_option(
        &self,
        ctx: &Ctx<'_>,
        level: u32,
        name: u32,
        max_len: usize,
    ) -> Result<Vec<u8>, Errno> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        match self.base.get_option(name, self.is_listening(), max_len) {
            Err(Errno::ENOPROTOOPT) => self.peer_option(ctx, name, max_len),
            done => done,
        }
    }

    fn set_option(&self, ctx: &Ctx<'_>, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        self.base.set_option(ctx, name, value)
    }

    fn poll(&self) -> Events {
        let mut events = Events::empty();
        if self.base.has_error() {
            events |= Events::ERR;
        }
        let recv_ended = self.has_ended(RECV);
        if recv_ended {
            events |= Events::RDHUP | Events::READABLE;
            if self.has_ended(SEND) {
                events |= Events::HUP;
            }
        }
        if let super::Stage::Listening(listener) = &self.state.lock().stage {
            if !listener.pending.is_empty() {
                events |= Events::READABLE;
            }
            return events;
        }
        if !self.rx.lock().is_empty() {
            events |= Events::READABLE;
        }
        if self.kind != UnixKind::Datagram && !self.is_connected() {
            events |= Events::HUP;
        }
        if self.is_writable() {
            events |= Events::WRITABLE | Events::WRBAND;
        }
        events
    }

    fn release(&self) {
        self.close();
    }

    fn is_stream(&self) -> bool {
        self.kind == UnixKind::Stream
    }

    fn max_message(&self) -> usize {
        match self.kind {
            UnixKind::Stream => usize::MAX,
            _ => self.longest_record(),
        }
    }

    fn unread(&self, bytes: &[u8]) {
        if self.kind == UnixKind::Stream {
            self.rx.lock().unread(bytes);
        }
    }

    fn readable_bytes(&self) -> Result<usize, Errno> {
        if self.is_listening() {
            return Err(Errno::EINVAL);
        }
        let rx = self.rx.lock();
        Ok(match self.kind {
            UnixKind::Datagram => rx.segments.front().map_or(0, |segment| segment.len),
            _ => rx.len(),
        })
    }

    fn unsent_bytes(&self) -> Result<usize, Errno> {
        Ok(self.peer().map_or(0, |peer| peer.rx.lock().charged))
    }
}
