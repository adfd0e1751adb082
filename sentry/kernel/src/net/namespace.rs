//! What sockets share: network namespaces and names bound in file systems.
//!
//! Locks: leaves; nothing else is taken while they are held.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sentry_platform::host::inet::HostNetwork;
use syscall_tables::Errno;

use super::inet::PortTable;
use super::inet::tcp::TcpSocket;
use super::inet::udp::UdpSocket;
use super::unix::UnixSocket;
use crate::task::{CapSet, Task, Uid};
use crate::vfs::File;

/// The network side of the kernel.
pub struct Net {
    /// Namespaces in use, by inode number. One without sockets holds nothing
    /// and is made anew when needed.
    namespaces: Mutex<HashMap<u64, Weak<NetNamespace>>>,
    /// Unix sockets bound to names in file systems, by device and inode
    /// number.
    bound: Mutex<HashMap<(u64, u64), Weak<UnixSocket>>>,
    next_ino: AtomicU64,
    /// Files in messages that have not been received, by the sender's uid.
    in_flight: Mutex<HashMap<Uid, usize>>,
    unwanted: Mutex<Unwanted>,
    /// Unix sockets in messages.
    sockets_in_flight: AtomicUsize,
    /// With this many of them it is time to look for lost ones; `usize::MAX`
    /// while somebody does.
    collect_at: AtomicUsize,
    /// The host's network and the namespace that uses it, in host network
    /// mode.
    host: Option<(u64, HostNetwork)>,
}

/// Files of messages that nobody will receive.
#[derive(Default)]
struct Unwanted {
    files: Vec<Arc<File>>,
    /// Somebody is closing them.
    busy: bool,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            namespaces: Mutex::default(),
            bound: Mutex::default(),
            next_ino: AtomicU64::new(10_000),
            in_flight: Mutex::default(),
            unwanted: Mutex::default(),
            sockets_in_flight: AtomicUsize::new(0),
            collect_at: AtomicUsize::new(1),
            host: None,
        }
    }
}

impl Net {
    /// With the host's network for namespace `id`, if there is one.
    pub fn new(id: u64, host: Option<HostNetwork>) -> Self {
        Self {
            host: host.map(|host| (id, host)),
            ..Self::default()
        }
    }

    /// The host's network if `task`'s namespace is on it.
    pub fn host_of(&self, task: &Task) -> Option<&HostNetwork> {
        let (id, host) = self.host.as_ref()?;
        (task.namespaces().net_id == *id).then_some(host)
    }

    /// The network namespace of `task`.
    pub fn namespace_of(&self, task: &Task) -> Arc<NetNamespace> {
        let id = task.namespaces().net_id;
        let mut namespaces = self.namespaces.lock();
        if let Some(known) = namespaces.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        namespaces.retain(|_, namespace| namespace.strong_count() != 0);
        let namespace = Arc::new(NetNamespace::new(id));
        namespaces.insert(id, Arc::downgrade(&namespace));
        namespace
    }

    /// An inode number for a socket.
    pub fn next_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes `socket` what connecting to this inode finds.
    pub fn bind_inode(&self, key: (u64, u64), socket: &Arc<UnixSocket>) {
        self.bound.lock().insert(key, Arc::downgrade(socket));
    }

    /// The socket bound to an inode.
    pub fn bound_to(&self, key: (u64, u64)) -> Option<Arc<UnixSocket>> {
        self.bound.lock().get(&key).and_then(Weak::upgrade)
    }

    /// Ends what [`Self::bind_inode`] began, unless the inode number has been
    /// bound anew.
    pub fn unbind_inode(&self, key: (u64, u64), socket: &UnixSocket) {
        let mut bound = self.bound.lock();
        if bound
            .get(&key)
            .is_some_and(|found| std::ptr::eq(found.as_ptr(), socket))
        {
            bound.remove(&key);
        }
    }

    /// Unix sockets of all namespaces.
    pub fn all_unix_sockets(&self) -> Vec<Arc<UnixSocket>> {
        let namespaces: Vec<_> = {
            let namespaces = self.namespaces.lock();
            namespaces.values().filter_map(Weak::upgrade).collect()
        };
        let sockets = namespaces.iter().map(|namespace| namespace.unix_sockets());
        sockets.flatten().collect()
    }

    pub(super) fn add_sockets_in_flight(&self, count: usize) {
        self.sockets_in_flight.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn sub_sockets_in_flight(&self, count: usize) {
        self.sockets_in_flight.fetch_sub(count, Ordering::Relaxed);
    }

    /// Whether the caller is to look for lost sockets now, and then say
    /// [`Self::collected`].
    pub(super) fn wants_collection(&self) -> bool {
        let at = self.collect_at.load(Ordering::Relaxed);
        self.sockets_in_flight.load(Ordering::Relaxed) >= at
            && self
                .collect_at
                .compare_exchange(at, usize::MAX, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Looking again is worth it when there are twice as many.
    pub(super) fn collected(&self) {
        let left = self.sockets_in_flight.load(Ordering::Relaxed);
        self.collect_at
            .store(left.saturating_mul(2).max(1), Ordering::Release);
    }

    /// Closes files of messages. A file may be a socket with messages that
    /// hold further files: these are closed in turn, not in depth.
    pub fn close_files(&self, files: Vec<Arc<File>>) {
        if files.is_empty() {
            return;
        }
        let mut unwanted = self.unwanted.lock();
        unwanted.files.extend(files);
        if unwanted.busy {
            return;
        }
        unwanted.busy = true;
        while let Some(file) = unwanted.files.pop() {
            drop(unwanted);
            drop(file);
            unwanted = self.unwanted.lock();
        }
        unwanted.busy = false;
    }

    /// Counts files put into messages; `ETOOMANYREFS` beyond `limit`.
    pub fn add_in_flight(&self, uid: Uid, count: usize, limit: u64) -> Result<(), Errno> {
        let mut in_flight = self.in_flight.lock();
        let present = in_flight.entry(uid).or_default();
        if *present as u64 > limit {
            return Err(Errno::ETOOMANYREFS);
        }
        *present += count;
        Ok(())
    }

    /// Files have left messages.
    pub fn sub_in_flight(&self, uid: Uid, count: usize) {
        let mut in_flight = self.in_flight.lock();
        if let Some(present) = in_flight.get_mut(&uid) {
            *present = present.saturating_sub(count);
            if *present == 0 {
                in_flight.remove(&uid);
            }
        }
    }
}

/// A network namespace: its loopback interface and abstract names.
pub struct NetNamespace {
    pub id: u64,
    /// Abstract unix names, without the leading NUL.
    names: Mutex<HashMap<Vec<u8>, Weak<UnixSocket>>>,
    /// All unix sockets, for `/proc/net/unix`.
    unix: Mutex<HashMap<u64, Weak<UnixSocket>>>,
    next_autobind: AtomicU64,
    pub tcp: PortTable<TcpSocket>,
    pub udp: PortTable<UdpSocket>,
    pub udp_lite: PortTable<UdpSocket>,
    /// Port ids of netlink sockets, by protocol.
    netlink: Mutex<HashSet<(u32, u32)>>,
    /// All TCP sockets, for `/proc/net/tcp`.
    tcp_sockets: Mutex<HashMap<u64, Weak<TcpSocket>>>,
}

/// Ports below this are for `CAP_NET_BIND_SERVICE`
/// (`/proc/sys/net/ipv4/ip_unprivileged_port_start`).
const UNPRIVILEGED_PORTS: u16 = 1024;

/// Whether `task` may have `port`; `EACCES` if not.
pub fn may_bind(task: &Task, port: u16) -> Result<(), Errno> {
    check_port(task, port, UNPRIVILEGED_PORTS)
}

/// Whether `task` may have `port` where ports below `unprivileged` are for
/// `CAP_NET_BIND_SERVICE`; `EACCES` if not.
pub fn check_port(task: &Task, port: u16, unprivileged: u16) -> Result<(), Errno> {
    let reserved = (1..unprivileged).contains(&port);
    if reserved && !task.creds().has_own(CapSet::NET_BIND_SERVICE) {
        return Err(Errno::EACCES);
    }
    Ok(())
}

impl NetNamespace {
    fn new(id: u64) -> Self {
        Self {
            id,
            names: Mutex::default(),
            unix: Mutex::default(),
            next_autobind: AtomicU64::new(id.wrapping_mul(0x9E37_79B9)),
            tcp: PortTable::default(),
            udp: PortTable::default(),
            udp_lite: PortTable::default(),
            netlink: Mutex::default(),
            tcp_sockets: Mutex::default(),
        }
    }

    /// Takes an abstract name; `EADDRINUSE` if somebody has it.
    pub fn bind_name(&self, name: &[u8], socket: &Arc<UnixSocket>) -> Result<(), Errno> {
        let mut names = self.names.lock();
        if names
            .get(name)
            .is_some_and(|bound| bound.strong_count() != 0)
        {
            return Err(Errno::EADDRINUSE);
        }
        names.insert(name.to_vec(), Arc::downgrade(socket));
        Ok(())
    }

    /// Takes some free name of five hexadecimal digits.
    pub fn autobind(&self, socket: &Arc<UnixSocket>) -> Result<Vec<u8>, Errno> {
        for _ in 0..0x10_0000 {
            let number = self.next_autobind.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
            let name = format!("{number:05x}").into_bytes();
            if self.bind_name(&name, socket).is_ok() {
                return Ok(name);
            }
        }
        Err(Errno::ENOSPC)
    }

    /// The socket with an abstract name.
    pub fn named(&self, name: &[u8]) -> Option<Arc<UnixSocket>> {
        self.names.lock().get(name).and_then(Weak::upgrade)
    }

    /// Gives an abstract name back.
    pub fn unbind_name(&self, name: &[u8]) {
        self.names.lock().remove(name);
    }

    pub(super) fn add_unix(&self, socket: &Arc<UnixSocket>, ino: u64) {
        self.unix.lock().insert(ino, Arc::downgrade(socket));
    }

    pub(super) fn remove_unix(&self, ino: u64) {
        self.unix.lock().remove(&ino);
    }

    /// Takes a netlink port id: `wanted`, or else `process`, or else one that
    /// no process has; `EADDRINUSE` if `wanted` is taken.
    pub fn take_netlink_port(
        &self,
        protocol: u32,
        wanted: u32,
        process: u32,
    ) -> Result<u32, Errno> {
        let mut ports = self.netlink.lock();
        if wanted != 0 {
            return if ports.insert((protocol, wanted)) {
                Ok(wanted)
            } else {
                Err(Errno::EADDRINUSE)
            };
        }
        // As Linux does, negative numbers once the process id is taken.
        let others = (0x8000_0000..u32::MAX).rev();
        let mut free = std::iter::once(process).chain(others);
        free.find(|port| ports.insert((protocol, *port)))
            .ok_or(Errno::EADDRINUSE)
    }

    /// Gives a netlink port id back.
    pub fn release_netlink_port(&self, protocol: u32, port: u32) {
        self.netlink.lock().remove(&(protocol, port));
    }

    pub(super) fn add_tcp(&self, socket: &Arc<TcpSocket>, ino: u64) {
        self.tcp_sockets.lock().insert(ino, Arc::downgrade(socket));
    }

    pub(super) fn remove_tcp(&self, ino: u64) {
        self.tcp_sockets.lock().remove(&ino);
    }

    /// All TCP sockets, oldest first.
    pub fn tcp_sockets(&self) -> Vec<Arc<TcpSocket>> {
        let mut sockets: Vec<(u64, Arc<TcpSocket>)> = {
            let all = self.tcp_sockets.lock();
            let live = all
                .iter()
                .filter_map(|(ino, tcp)| Some((*ino, tcp.upgrade()?)));
            live.collect()
        };
        sockets.sort_by_key(|(ino, _)| *ino);
        sockets.into_iter().map(|(_, socket)| socket).collect()
    }

    /// All unix sockets, oldest first.
    pub fn unix_sockets(&self) -> Vec<Arc<UnixSocket>> {
        let mut sockets: Vec<_> = {
            let unix = self.unix.lock();
            unix.values().filter_map(Weak::upgrade).collect()
        };
        sockets.sort_by_key(|socket: &Arc<UnixSocket>| super::Socket::base(socket.as_ref()).ino);
        sockets
    }
}
