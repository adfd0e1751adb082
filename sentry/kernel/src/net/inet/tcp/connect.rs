//! Addresses and connections of TCP sockets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscall_tables::Errno;
use syscall_tables::abi::{IPV6_V6ONLY, SO_REUSEADDR, SO_REUSEPORT, SOL_IPV6, SOMAXCONN};

use super::{Hold, Listener, Stage, TcpSocket};
use crate::net::inet::addr::{GivenAddr, destination, is_bindable, source_for};
use crate::net::inet::ports::BindRequest;
use crate::net::namespace::may_bind;
use crate::net::{Shutdown, SocketBase};
use crate::sync::Events;
use crate::task::Task;

impl TcpSocket {
    fn wish(&self, ip: IpAddr, port: u16) -> BindRequest {
        BindRequest {
            id: self.base.ino,
            ip,
            port,
            v6_only: self.options.lock().is_on(SOL_IPV6, IPV6_V6ONLY),
            reuse_addr: self.base.is_on(SO_REUSEADDR),
            reuse_port: self.base.is_on(SO_REUSEPORT),
            owner: self.base.owner,
        }
    }

    pub(super) fn do_bind(&self, task: &Task, addr: &[u8]) -> Result<(), Errno> {
        let addr = match self.family.parse(addr)? {
            GivenAddr::Addr(addr) => addr,
            // bind(2) of old programs: all zeroes are the address any.
            GivenAddr::Unspecified => {
                let any = addr.iter().all(|byte| *byte == 0) && self.family.any().is_ipv4();
                if !any {
                    return Err(Errno::EAFNOSUPPORT);
                }
                SocketAddr::new(self.family.any(), 0)
            }
        };
        if !is_bindable(addr.ip()) || addr.ip().is_multicast() {
            return Err(Errno::EADDRNOTAVAIL);
        }
        may_bind(task, addr.port())?;
        let mut state = self.state.lock();
        if state.hold != Hold::None || !matches!(state.stage, Stage::Closed) {
            return Err(Errno::EINVAL);
        }
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let wish = self.wish(addr.ip(), addr.port());
        let port = self.namespace.tcp.bind(&me, wish)?;
        state.local = SocketAddr::new(addr.ip(), port);
        state.bound_ip = addr.ip();
        state.hold = Hold::Bound;
        Ok(())
    }

    pub(super) fn do_listen(&self, backlog: i32) -> Result<(), Errno> {
        let backlog = u32::try_from(backlog).unwrap_or(SOMAXCONN).min(SOMAXCONN) as usize;
        let mut state = self.state.lock();
        match &mut state.stage {
            Stage::Closed => {}
            Stage::Listening(listener) => {
                listener.backlog = backlog;
                return Ok(());
            }
            _ => return Err(Errno::EINVAL),
        }
        if state.hold == Hold::None {
            let me = self.me.upgrade().ok_or(Errno::EBADF)?;
            let ip = self.family.any();
            let port = self.namespace.tcp.bind(&me, self.wish(ip, 0))?;
            state.local = SocketAddr::new(ip, port);
            state.hold = Hold::Automatic;
        }
        let port = state.local.port();
        self.namespace
            .tcp
            .set_listening(port, self.base.ino, true)?;
        // May have been a connection before.
        *self.rx.lock() = super::Receive::default();
        self.send_ended.store(false, Ordering::Release);
        state.stage = Stage::Listening(Listener {
            backlog,
            pending: Default::default(),
            waiting: Vec::new(),
        });
        Ok(())
    }

    pub(super) fn do_connect(&self, addr: &[u8], nonblocking: bool) -> Result<(), Errno> {
        let given = self.family.parse(addr)?;
        let GivenAddr::Addr(wanted) = given else {
            self.disconnect();
            return Ok(());
        };
        let first = {
            let mut state = self.state.lock();
            match &mut state.stage {
                Stage::Closed => true,
                Stage::Listening(_) => return Err(Errno::EISCONN),
                Stage::Connecting { .. } if nonblocking => return Err(Errno::EALREADY),
                Stage::Connecting { .. } => false,
                Stage::Connected { untold, .. } => {
                    return if std::mem::take(untold) {
                        Ok(())
                    } else {
                        Err(Errno::EISCONN)
                    };
                }
            }
        };
        if !first {
            self.base.take_error()?;
            return self.retry();
        }
        // A connection that failed in the background is told of first.
        self.base.take_error()?;
        let ip = destination(wanted.ip())?;
        let v4_on_v6_only = ip.is_ipv4() && self.options.lock().is_on(SOL_IPV6, IPV6_V6ONLY);
        if v4_on_v6_only {
            return Err(Errno::ENETUNREACH);
        }
        let to = SocketAddr::new(ip, wanted.port());
        self.prepare(to)?;
        let outcome = match self.retry() {
            Err(Errno::EAGAIN) if nonblocking => return Err(Errno::EINPROGRESS),
            outcome => outcome,
        };
        if !nonblocking {
            return outcome;
        }
        // It is over already; but who does not want to wait is told later,
        // as always.
        match outcome {
            Ok(()) => {
                if let Stage::Connected { untold, .. } = &mut self.state.lock().stage {
                    *untold = true;
                }
            }
            Err(errno) => self.base.set_error(errno),
        }
        self.base.notify_all();
        Err(Errno::EINPROGRESS)
    }

    /// Takes a port and a source address for a connection to `to`.
    fn prepare(&self, to: SocketAddr) -> Result<(), Errno> {
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let mut state = self.state.lock();
        if !matches!(state.stage, Stage::Closed) {
            return Err(Errno::EALREADY);
        }
        let ip = if state.bound_ip.is_unspecified() {
            source_for(to.ip())
        } else {
            state.bound_ip
        };
        if ip.is_ipv4() != to.is_ipv4() {
            return Err(Errno::EINVAL);
        }
        let mut port = state.local.port();
        if state.hold == Hold::None {
            port = self
                .namespace
                .tcp
                .bind(&me, self.wish(ip, 0))
                .map_err(|_| Errno::EADDRNOTAVAIL)?;
            state.hold = Hold::Automatic;
        }
        state.local = SocketAddr::new(ip, port);
        state.stage = Stage::Connecting {
            to,
            entering: false,
        };
        // May have been a connection before.
        *self.rx.lock() = super::Receive::default();
        self.send_ended.store(false, Ordering::Release);
        Ok(())
    }

    /// Tries to get into the listener's queue: `EAGAIN` while it is full.
    fn retry(&self) -> Result<(), Errno> {
        let (to, from) = {
            let mut state = self.state.lock();
            let local = state.local;
            match &mut state.stage {
                // Somebody else is at it and will tell.
                Stage::Connecting { entering: true, .. } => return Err(Errno::EAGAIN),
                Stage::Connecting { to, entering } => {
                    *entering = true;
                    (*to, local)
                }
                Stage::Connected { .. } => return Ok(()),
                _ => return Err(Errno::ECONNREFUSED),
            }
        };
        let listener = self.namespace.tcp.listener(to, from);
        let outcome = match listener {
            Some(listener) => self.enter(&listener, to, from),
            None => Err(Errno::ECONNREFUSED),
        };
        if let Err(errno) = outcome {
            let mut state = self.state.lock();
            if let Stage::Connecting { entering, .. } = &mut state.stage {
                if errno == Errno::EAGAIN {
                    *entering = false;
                } else {
                    state.stage = Stage::Closed;
                    self.release_automatic(&mut state);
                }
            }
        }
        outcome
    }

    fn release_automatic(&self, state: &mut super::State) {
        if state.hold == Hold::Automatic {
            self.namespace.tcp.unbind(state.local.port(), self.base.ino);
            state.hold = Hold::None;
            state.local = SocketAddr::new(state.bound_ip, 0);
        } else {
            state.local = SocketAddr::new(state.bound_ip, state.local.port());
        }
    }

    /// Makes the other end of the connection and queues it at `listener`.
    fn enter(&self, listener: &Arc<Self>, to: SocketAddr, from: SocketAddr) -> Result<(), Errno> {
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let options = listener.options.lock().clone();
        let child = Self::from_base(
            SocketBase::accepted(&listener.base, self.net.next_ino()),
            listener.family,
            self.net.clone(),
            listener.namespace.clone(),
            options,
        );
        {
            let mut state = child.state.lock();
            state.local = to;
            state.bound_ip = to.ip();
            state.peer = Some(from);
            state.stage = Stage::Connected {
                peer: me,
                untold: false,
            };
        }
        let mut queue = listener.state.lock();
        let Stage::Listening(waiting_room) = &mut queue.stage else {
            drop(queue);
            child.discard();
            return Err(Errno::ECONNREFUSED);
        };
        if waiting_room.pending.len() > waiting_room.backlog {
            if !waiting_room
                .waiting
                .iter()
                .any(|known| known.ptr_eq(&self.me))
            {
                waiting_room.waiting.push(self.me.clone());
            }
            drop(queue);
            child.discard();
            return Err(Errno::EAGAIN);
        }
        child.state.lock().hold = Hold::Connection;
        self.namespace.tcp.add_connection(to.port());
        waiting_room.pending.push_back(child.clone());
        drop(queue);
        let mut state = self.state.lock();
        if !matches!(state.stage, Stage::Connecting { .. }) {
            // Closed meanwhile.
            drop(state);
            child.reset(Errno::ECONNRESET);
            return Err(Errno::ECONNREFUSED);
        }
        state.stage = Stage::Connected {
            peer: child,
            untold: false,
        };
        state.peer = Some(to);
        drop(state);
        self.base.notify_all();
        listener.base.queue.notify(Events::READABLE);
        Ok(())
    }

    /// Gives up a connection that was not made.
    fn discard(&self) {
        self.state.lock().stage = Stage::Closed;
        self.namespace.remove_tcp(self.base.ino);
    }

    /// Goes on with a connect that waits in the background.
    fn resume(&self) {
        let waiting = matches!(self.state.lock().stage, Stage::Connecting { .. });
        if !waiting {
            return;
        }
        match self.retry() {
            Err(Errno::EAGAIN) => {}
            Ok(()) => {
                if let Stage::Connected { untold, .. } = &mut self.state.lock().stage {
                    *untold = true;
                }
                self.base.notify_all();
            }
            Err(errno) => {
                self.base.set_error(errno);
                self.base.notify_all();
            }
        }
    }

    pub(super) fn do_accept(&self) -> Result<Arc<Self>, Errno> {
        let mut state = self.state.lock();
        let Stage::Listening(listener) = &mut state.stage else {
            return Err(Errno::EINVAL);
        };
        let child = listener.pending.pop_front().ok_or(Errno::EAGAIN)?;
        let waiting = std::mem::take(&mut listener.waiting);
        drop(state);
        for client in waiting.iter().filter_map(std::sync::Weak::upgrade) {
            client.resume();
        }
        Ok(child)
    }

    /// `connect` to `AF_UNSPEC`.
    fn disconnect(&self) {
        let peer = self.connection();
        if let Some(peer) = peer {
            peer.reset(Errno::ECONNRESET);
        }
        let stage = {
            let mut state = self.state.lock();
            let stage = std::mem::replace(&mut state.stage, Stage::Closed);
            if let Stage::Listening(_) = &stage {
                let port = state.local.port();
                // Bound it stays.
                let _ = self.namespace.tcp.set_listening(port, self.base.ino, false);
            }
            state.peer = None;
            self.release_automatic(&mut state);
            stage
        };
        *self.rx.lock() = super::Receive::default();
        self.send_ended.store(false, Ordering::Release);
        self.drop_queue(stage);
        self.base.notify_all();
    }

    /// Resets the connections that nobody will accept.
    fn drop_queue(&self, stage: Stage) {
        let Stage::Listening(listener) = stage else {
            return;
        };
        for child in listener.pending {
            if let Some(client) = child.connection() {
                client.reset(Errno::ECONNRESET);
            }
            child.close();
        }
        for client in listener.waiting.iter().filter_map(std::sync::Weak::upgrade) {
            client.resume();
        }
    }

    pub(super) fn do_shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        let peer = {
            let mut state = self.state.lock();
            match &state.stage {
                Stage::Connected { peer, .. } => peer.clone(),
                Stage::Listening(_) if how.read => {
                    let port = state.local.port();
                    let _ = self.namespace.tcp.set_listening(port, self.base.ino, false);
                    let stage = std::mem::replace(&mut state.stage, Stage::Closed);
                    drop(state);
                    self.drop_queue(stage);
                    self.base.notify_all();
                    return Ok(());
                }
                Stage::Listening(_) => return Ok(()),
                Stage::Connecting { .. } => {
                    drop(state);
                    self.disconnect();
                    return Ok(());
                }
                Stage::Closed => return Err(Errno::ENOTCONN),
            }
        };
        {
            let mut rx = self.rx.lock();
            if rx.reset {
                return Err(Errno::ENOTCONN);
            }
            rx.ended |= how.read;
        }
        if how.write && !self.send_ended.swap(true, Ordering::AcqRel) {
            peer.finish();
        }
        self.base.notify_all();
        Ok(())
    }

    /// The peer sends no more.
    fn finish(&self) {
        self.rx.lock().fin = true;
        self.base.notify_all();
    }

    /// The peer has reset the connection.
    pub(super) fn reset(&self, errno: Errno) {
        {
            let mut rx = self.rx.lock();
            if rx.reset || rx.closed {
                return;
            }
            rx.reset = true;
        }
        self.base.set_error(errno);
        self.base.notify_all();
    }

    /// The socket is no longer open.
    pub(super) fn close(&self) {
        let unread = {
            let mut rx = self.rx.lock();
            rx.closed = true;
            !std::mem::take(&mut rx.bytes).is_empty()
        };
        let (stage, hold, port) = {
            let mut state = self.state.lock();
            let stage = std::mem::replace(&mut state.stage, Stage::Closed);
            let hold = std::mem::replace(&mut state.hold, Hold::None);
            (stage, hold, state.local.port())
        };
        match hold {
            Hold::None => {}
            Hold::Bound | Hold::Automatic => self.namespace.tcp.unbind(port, self.base.ino),
            Hold::Connection => self.namespace.tcp.remove_connection(port),
        }
        if let Stage::Connected { peer, .. } = &stage {
            let linger = self.base.options.lock().linger;
            if unread || (linger.l_onoff != 0 && linger.l_linger == 0) {
                peer.reset(Errno::ECONNRESET);
            } else {
                peer.finish();
            }
        }
        self.namespace.remove_tcp(self.base.ino);
        self.drop_queue(stage);
        self.base.notify_all();
    }
}
