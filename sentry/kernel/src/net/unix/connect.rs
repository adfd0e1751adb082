//! Names and connections of unix sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscall_tables::Errno;
use syscall_tables::abi::SOMAXCONN;

use super::name::GivenName;
use super::{Binding, Listener, RECV, SEND, Stage, UnixKind, UnixName, UnixSocket};
use crate::ctx::Ctx;
use crate::net::{Sender, Shutdown, Socket};
use crate::sync::Events;
use crate::task::Task;
use crate::vfs::path::{resolve, resolve_parent};
use crate::vfs::perm::{self, Access};
use crate::vfs::{FileKind, Start, WalkFlags};

impl UnixSocket {
    pub(super) fn do_bind(&self, ctx: &Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        let given = GivenName::parse(addr)?;
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        if self.state.lock().name.is_some() {
            // A bound socket asked for any name has one.
            return match given {
                GivenName::Nothing => Ok(()),
                GivenName::Name(_) => Err(Errno::EINVAL),
            };
        }
        match given {
            GivenName::Nothing => self.autobind(),
            GivenName::Name(UnixName::Abstract(name)) => {
                self.namespace.bind_name(&name, &me)?;
                let binding = Binding::Abstract(name.clone());
                self.set_name(UnixName::Abstract(name), binding)
            }
            GivenName::Name(UnixName::Path(path)) => {
                let none = WalkFlags::empty();
                let at = resolve_parent(ctx.kernel, ctx.task, Start::Cwd, &path, none)?;
                let perm = 0o777 & !ctx.task.fs().state.read().umask;
                let creds = ctx.task.creds();
                let made = ctx.kernel.vfs.mknod(&creds, &at, FileKind::Socket, perm, 0);
                let made = made.map_err(|errno| match errno {
                    Errno::EEXIST => Errno::EADDRINUSE,
                    other => other,
                })?;
                ctx.kernel.vfs.watches.created(&made);
                let attr = made.inode_ref()?.attr()?;
                let key = (attr.dev, attr.ino);
                self.net.bind_inode(key, &me);
                self.set_name(UnixName::Path(path), Binding::Inode(key))
            }
        }
    }

    /// Takes some free abstract name.
    pub(super) fn autobind(&self) -> Result<(), Errno> {
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        if self.state.lock().name.is_some() {
            return Ok(());
        }
        let name = self.namespace.autobind(&me)?;
        let binding = Binding::Abstract(name.clone());
        self.set_name(UnixName::Abstract(name), binding)
    }

    fn set_name(&self, name: UnixName, binding: Binding) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.name.is_some() {
            drop(state);
            // Another thread was faster.
            self.unbind(binding);
            return Err(Errno::EINVAL);
        }
        state.name = Some(name);
        state.binding = Some(binding);
        Ok(())
    }

    fn unbind(&self, binding: Binding) {
        match binding {
            Binding::Inode(key) => self.net.unbind_inode(key, self),
            Binding::Abstract(name) => self.namespace.unbind_name(&name),
        }
    }

    /// The socket of this kind that `name` means to `task`.
    pub(super) fn find(&self, task: &Arc<Task>, name: &UnixName) -> Result<Arc<Self>, Errno> {
        let found = match name {
            UnixName::Abstract(name) => self.namespace.named(name),
            UnixName::Path(path) => {
                let kernel = task.kernel();
                let place = resolve(kernel, task, Start::Cwd, path, WalkFlags::FOLLOW)?;
                perm::check_path(&place, &task.creds(), Access::WRITE)?;
                let inode = place.inode_ref()?;
                if inode.kind() != FileKind::Socket {
                    return Err(Errno::ECONNREFUSED);
                }
                let attr = inode.attr()?;
                self.net.bound_to((attr.dev, attr.ino))
            }
        };
        let found = found.ok_or(Errno::ECONNREFUSED)?;
        if found.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        Ok(found)
    }

    pub(super) fn do_listen(&self, task: &Task, backlog: i32) -> Result<(), Errno> {
        if self.kind == UnixKind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let backlog = u32::try_from(backlog).unwrap_or(SOMAXCONN).min(SOMAXCONN) as usize;
        let mut state = self.state.lock();
        if state.name.is_none() {
            return Err(Errno::EINVAL);
        }
        let identity = Sender::peer(task);
        let waiting = match &mut state.stage {
            Stage::Fresh => {
                state.stage = Stage::Listening(Listener {
                    backlog,
                    pending: Default::default(),
                    identity,
                    waiting: Vec::new(),
                });
                Vec::new()
            }
            Stage::Listening(listener) => {
                listener.backlog = backlog;
                listener.identity = identity;
                std::mem::take(&mut listener.waiting)
            }
            Stage::Connecting | Stage::Connected => return Err(Errno::EINVAL),
        };
        drop(state);
        wake(waiting);
        Ok(())
    }

    pub(super) fn do_connect(&self, ctx: &Ctx<'_>, addr: &[u8]) -> Result<(), Errno> {
        let family = addr.first_chunk::<2>().ok_or(Errno::EINVAL)?;
        if self.kind == UnixKind::Datagram {
            if u16::from_ne_bytes(*family) == 0 {
                self.set_datagram_peer(None);
                return Ok(());
            }
            let name = GivenName::parse(addr)?.name()?;
            if self.base.passes_credentials() {
                self.autobind()?;
            }
            let target = self.find(ctx.task, &name)?;
            if !target.takes_from(self) {
                return Err(Errno::EPERM);
            }
            self.set_datagram_peer(Some(target));
            return Ok(());
        }
        let name = GivenName::parse(addr)?.name()?;
        if self.base.passes_credentials() {
            self.autobind()?;
        }
        let target = self.find(ctx.task, &name)?;
        {
            let mut state = self.state.lock();
            match state.stage {
                Stage::Fresh => state.stage = Stage::Connecting,
                Stage::Connected => return Err(Errno::EISCONN),
                Stage::Connecting => return Err(Errno::EALREADY),
                Stage::Listening(_) => return Err(Errno::EINVAL),
            }
        }
        let outcome = self.connect_to(&target, ctx.task);
        let mut state = self.state.lock();
        match outcome {
            Ok((peer, identity)) => {
                state.peer = Some(peer);
                state.peer_identity = Some(identity);
                state.stage = Stage::Connected;
                self.connected.store(true, Ordering::Release);
                drop(state);
                self.base.notify_all();
                Ok(())
            }
            Err(errno) => {
                state.stage = Stage::Fresh;
                Err(errno)
            }
        }
    }

    /// Queues a new socket at `target`, a listener, and answers it with the
    /// listener's identity.
    fn connect_to(&self, target: &Arc<Self>, task: &Task) -> Result<(Arc<Self>, Sender), Errno> {
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        // Made before the lock is taken, given up if there is no room.
        let base = target.base.accepted(self.net.next_ino());
        let child = Self::from_base(base, self.kind, self.net.clone(), target.namespace.clone());
        child.join(&me, Sender::peer(task));
        let mut state = target.state.lock();
        let name = state.name.clone();
        let outcome = match &mut state.stage {
            Stage::Listening(listener) if !target.has_ended(RECV) => {
                if listener.pending.len() > listener.backlog {
                    let weak = &self.me;
                    if !listener.waiting.iter().any(|known| known.ptr_eq(weak)) {
                        listener.waiting.push(weak.clone());
                    }
                    Err(Errno::EAGAIN)
                } else {
                    child.state.lock().name = name;
                    listener.pending.push_back(child.clone());
                    Ok(listener.identity.clone())
                }
            }
            _ => Err(Errno::ECONNREFUSED),
        };
        drop(state);
        match outcome {
            Ok(identity) => {
                target.base.queue.notify(Events::READABLE);
                Ok((child, identity))
            }
            Err(errno) => {
                child.state.lock().peer = None;
                child.release();
                Err(errno)
            }
        }
    }

    pub(super) fn do_accept(&self) -> Result<Arc<Self>, Errno> {
        if self.kind == UnixKind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        let Stage::Listening(listener) = &mut state.stage else {
            return Err(Errno::EINVAL);
        };
        let Some(child) = listener.pending.pop_front() else {
            return Err(if self.has_ended(RECV) {
                Errno::EINVAL
            } else {
                Errno::EAGAIN
            });
        };
        let waiting = std::mem::take(&mut listener.waiting);
        drop(state);
        wake(waiting);
        Ok(child)
    }

    /// Whether datagrams of `sender` are welcome.
    pub(super) fn takes_from(&self, sender: &Self) -> bool {
        let state = self.state.lock();
        state
            .peer
            .as_ref()
            .is_none_or(|peer| std::ptr::eq(Arc::as_ptr(peer), sender))
    }

    /// Connects a datagram socket, or disconnects it.
    pub(super) fn set_datagram_peer(&self, peer: Option<Arc<Self>>) {
        let old = std::mem::replace(&mut self.state.lock().peer, peer.clone());
        self.base.notify_all();
        let Some(old) = old else {
            return;
        };
        if peer.is_some_and(|peer| Arc::ptr_eq(&peer, &old)) {
            return;
        }
        // What the former peer sent is void.
        let (segments, waiting) = {
            let mut rx = self.rx.lock();
            let taken = rx.close();
            rx.closed = false;
            taken
        };
        wake(waiting);
        if !segments.is_empty() && !old.rx.lock().closed {
            let mutual = old
                .peer()
                .is_some_and(|peer| std::ptr::eq(Arc::as_ptr(&peer), self));
            if mutual {
                old.base.set_error(Errno::ECONNRESET);
                old.base.notify_all();
            }
        }
    }

    pub(super) fn do_shutdown(&self, how: Shutdown) {
        let (mut own, mut others) = (0, 0);
        if how.read {
            own |= RECV;
            others |= SEND;
        }
        if how.write {
            own |= SEND;
            others |= RECV;
        }
        self.ended.fetch_or(own, Ordering::AcqRel);
        let waiting = {
            let mut state = self.state.lock();
            match &mut state.stage {
                Stage::Listening(listener) => std::mem::take(&mut listener.waiting),
                _ => Vec::new(),
            }
        };
        wake(waiting);
        if self.kind != UnixKind::Datagram
            && let Some(peer) = self.peer()
        {
            peer.ended.fetch_or(others, Ordering::AcqRel);
            peer.base.notify_all();
        }
        let waiting = std::mem::take(&mut self.rx.lock().waiting);
        wake(waiting);
        self.base.notify_all();
    }

    /// The socket is no longer open.
    pub(super) fn close(&self) {
        let (segments, senders) = self.rx.lock().close();
        let (peer, binding, stage) = {
            let mut state = self.state.lock();
            (
                state.peer.take(),
                state.binding.take(),
                std::mem::replace(&mut state.stage, Stage::Fresh),
            )
        };
        self.ended.store(RECV | SEND, Ordering::Release);
        if let Some(binding) = binding {
            self.unbind(binding);
        }
        self.namespace.remove_unix(self.base.ino);
        if let Some(peer) = peer
            && self.kind != UnixKind::Datagram
        {
            if !segments.is_empty() {
                peer.base.set_error(Errno::ECONNRESET);
            }
            peer.ended.store(RECV | SEND, Ordering::Release);
            peer.base.notify_all();
        }
        if let Stage::Listening(listener) = stage {
            for child in listener.pending {
                if let Some(client) = child.peer() {
                    client.base.set_error(Errno::ECONNRESET);
                }
                child.close();
            }
            wake(listener.waiting);
        }
        wake(senders);
        self.base.notify_all();
        drop(segments);
        if self.net.wants_collection() {
            super::collect::collect(&self.net);
            self.net.collected();
        }
    }
}

/// Lets sockets that found no room try again.
pub(super) fn wake(waiting: Vec<std::sync::Weak<UnixSocket>>) {
    for socket in waiting {
        if let Some(socket) = socket.upgrade() {
            socket.base.queue.notify(Events::WRITABLE);
        }
    }
}
