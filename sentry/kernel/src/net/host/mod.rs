//! Host network mode: inet sockets of the sandbox's initial network namespace
//! are sockets of the host, in the network namespace the sentry is in.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`HostSocket`] and its making |
//! | `ops.rs` | the [`Socket`](super::Socket) interface |
//! | `options.rs` | which options go to the host |
//! | `interface.rs` | ioctls about interfaces |
//! | `route.rs` | netlink route queries |
//!
//! Host sockets are non-blocking. The first time one has to be waited for it
//! is put into the platform's epoll set, edge triggered, which notifies the
//! socket's wait queue; from then on each look at its state is a host call.
//!
//! Locks: `unread` is a leaf.

pub mod interface;
mod ops;
mod options;
pub mod route;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use sentry_platform::executor::host_poll::{Readiness, Watch};
use sentry_platform::host::{inet, io};
use syscall_tables::Errno;
use syscall_tables::abi::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, SO_LINGER, SOCK_DGRAM, SOCK_RAW,
    SOCK_STREAM, SOL_SOCKET,
};
use zerocopy::IntoBytes;

use super::SocketBase;
use super::inet::Family;
use crate::ctx::Ctx;
use crate::sync::{Events, WaitQueue};

/// An inet socket of the host.
pub struct HostSocket {
    base: SocketBase,
    family: Family,
    fd: Arc<OwnedFd>,
    watch: OnceLock<Watch>,
    /// Bytes of a stream that could not be stored to their reader.
    unread: Mutex<Vec<u8>>,
    has_unread: AtomicBool,
    /// Ports below this need `CAP_NET_BIND_SERVICE`.
    unprivileged_ports: u16,
    /// An option asks for control messages also on streams.
    wants_control: AtomicBool,
}

/// A fresh inet socket of the caller.
pub fn create(
    ctx: &Ctx<'_>,
    network: &inet::HostNetwork,
    family: Family,
    kind: u32,
    protocol: i32,
) -> Result<Arc<HostSocket>, Errno> {
    let protocol = u32::try_from(protocol).map_err(|_| Errno::EINVAL)?;
    let protocol = match (kind, protocol) {
        (SOCK_STREAM, 0 | IPPROTO_TCP) => IPPROTO_TCP,
        (SOCK_DGRAM, 0 | IPPROTO_UDP) => IPPROTO_UDP,
        // Echo requests, if ping_group_range lets the sentry.
        (SOCK_DGRAM, IPPROTO_ICMP) if family == Family::V4 => protocol,
        (SOCK_DGRAM, IPPROTO_ICMPV6) if family == Family::V6 => protocol,
        (SOCK_RAW, 0) => return Err(Errno::EPROTONOSUPPORT),
        // The sentry has no capability to make them, whatever the guest has;
        // ping programs make a datagram socket instead when they hear this.
        (SOCK_RAW, _) => return Err(Errno::EPERM),
        (SOCK_STREAM | SOCK_DGRAM, _) => return Err(Errno::EPROTONOSUPPORT),
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    let fd = inet::socket(family.raw(), kind, protocol)?;
    let ino = io::fstat(&fd)?.st_ino;
    let owner = ctx.task.creds().fsuid;
    let base = SocketBase::new(family.raw(), kind, protocol, ino, owner);
    Ok(HostSocket::new(
        base,
        family,
        fd,
        network.unprivileged_ports,
    ))
}

/// Readiness of the host as the guest's.
fn events(ready: Readiness) -> Events {
    let mut events = Events::from_bits_truncate(ready.bits());
    if events.contains(Events::IN) {
        events |= Events::RDNORM;
    }
    if events.contains(Events::OUT) {
        events |= Events::WRNORM;
    }
    events
}

impl HostSocket {
    fn new(base: SocketBase, family: Family, fd: OwnedFd, unprivileged_ports: u16) -> Arc<Self> {
        Arc::new(Self {
            base,
            family,
            fd: Arc::new(fd),
            watch: OnceLock::new(),
            unread: Mutex::default(),
            has_unread: AtomicBool::new(false),
            unprivileged_ports,
            wants_control: AtomicBool::new(false),
        })
    }

    /// From here on the wait queue hears of changes.
    fn watch(&self) -> Result<(), Errno> {
        if self.watch.get().is_some() {
            return Ok(());
        }
        let interest =
            Readiness::READ | Readiness::WRITE | Readiness::PRIORITY | Readiness::READ_HANG_UP;
        let queue: WaitQueue = self.base.queue.clone();
        let watch = Watch::shared(self.fd.clone(), interest, move |ready| {
            queue.notify(events(ready));
        });
        match watch {
            // Two at once: the other's is as good.
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
            Ok(watch) => {
                let _ = self.watch.set(watch);
                Ok(())
            }
        }
    }

    /// Passes a result on; what has to be waited for is watched from then on.
    fn waiting<T>(&self, result: Result<T, Errno>) -> Result<T, Errno> {
        if matches!(result, Err(Errno::EAGAIN | Errno::EINPROGRESS)) {
            self.watch()?;
        }
        result
    }

    fn is_stream_kind(&self) -> bool {
        self.base.kind == SOCK_STREAM
    }

    fn has_unread(&self) -> bool {
        self.has_unread.load(Ordering::Acquire)
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        let linger = self.base.options.lock().linger;
        if linger.l_onoff != 0 && linger.l_linger > 0 {
            // Closing would hold the calling worker for the linger time: what
            // is left is sent in the background instead.
            let off = syscall_tables::abi::Linger::default();
            let _ = inet::set_option(&*self.fd, SOL_SOCKET, SO_LINGER, off.as_bytes());
        }
    }
}
