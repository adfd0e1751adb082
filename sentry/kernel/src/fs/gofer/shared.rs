//! What all inodes of a mount share.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use gofer_proto::reply::NodeReply;
use parking_lot::Mutex;
use syscall_tables::Errno;

use super::inode::{GoferInode, Place};
use super::{CachePolicy, Connection, convert};
use crate::vfs::path_cache::now_ns;

/// Donated fds kept without an open file.
const RECENT_FDS: usize = 256;

/// Bytes of listings kept.
const LISTINGS_MAX: usize = 8 << 20;
/// What keeping one takes beside its bytes.
const LISTING_COST: usize = 128;

/// File systems told apart below one root.
const MAX_DEVS: usize = 4095;

/// Host device and inode number: which names are one file.
pub(super) type HostId = (u64, u64);

pub(super) struct Shared {
    pub connection: Arc<Connection>,
    pub policy: CachePolicy,
    /// Device number that guests see for the root's file system.
    pub dev: u64,
    /// The root's device on the host.
    host_dev: u64,
    /// Other host devices in order of appearance.
    host_devs: Mutex<Vec<u64>>,
    /// One inode per file, so that hard links share it.
    inodes: Mutex<HashMap<HostId, Weak<GoferInode>>>,
    /// Read-only fds of files closed lately, oldest first.
    recent: Mutex<VecDeque<Arc<OwnedFd>>>,
    listings: Mutex<Listings>,
    next_serial: AtomicU64,
}

/// Listings kept by directories.
#[derive(Default)]
struct Listings {
    /// Directory, length and key of each, oldest first.
    queue: VecDeque<(Weak<GoferInode>, usize, usize)>,
    bytes: usize,
}

impl Shared {
    /// Number of the first inode, which is the root.
    pub const FIRST_SERIAL: u64 = 1;

    pub fn new(
        connection: Arc<Connection>,
        policy: CachePolicy,
        dev: u64,
        host_dev: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            connection,
            policy,
            dev,
            host_dev,
            host_devs: Mutex::default(),
            inodes: Mutex::default(),
            recent: Mutex::default(),
            listings: Mutex::default(),
            next_serial: AtomicU64::new(Self::FIRST_SERIAL),
        })
    }

    /// Whether something learnt at `at` may still be used.
    pub fn is_fresh(&self, at: Duration) -> bool {
        match self.policy {
            CachePolicy::Exclusive => true,
            CachePolicy::Expiring(ttl) if ttl.is_zero() => false,
            CachePolicy::Expiring(ttl) => convert::now().saturating_sub(at) < ttl,
        }
    }

    /// As [`Self::is_fresh`]; `at_ns` by [`now_ns`].
    pub fn is_fresh_ns(&self, at_ns: u64) -> bool {
        match self.policy {
            CachePolicy::Exclusive => true,
            CachePolicy::Expiring(_) => {
                let until = self.fresh_until_ns(at_ns);
                until != 0 && now_ns() < until
            }
        }
    }

    /// Until when something learnt at `at_ns` (0: not at all) counts; 0 if it
    /// is to be asked for each time.
    pub fn fresh_until_ns(&self, at_ns: u64) -> u64 {
        match self.policy {
            _ if at_ns == 0 => 0,
            CachePolicy::Exclusive => u64::MAX,
            CachePolicy::Expiring(ttl) if ttl.is_zero() => 0,
            CachePolicy::Expiring(ttl) => at_ns.saturating_add(convert::nanos(ttl)),
        }
    }

    /// The inode of a file the gofer told about, known or new; takes over the
    /// lookup that came with the reply.
    pub fn intern(
        self: &Arc<Self>,
        reply: &NodeReply,
        place: Option<Place>,
    ) -> Result<Arc<GoferInode>, Errno> {
        let kind = convert::kind(&reply.attr)?;
        let id = (reply.attr.dev, reply.attr.ino);
        let mut inodes = self.inodes.lock();
        let known = inodes.get(&id).and_then(Weak::upgrade);
        let same = known
            .as_ref()
            .filter(|known| known.host_kind() == kind)
            .cloned();
        let inode = match same {
            Some(inode) => inode,
            None => {
                let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
                let inode = GoferInode::new(self.clone(), id, kind, serial, &reply.attr);
                inodes.insert(id, Arc::downgrade(&inode));
                inode
            }
        };
        drop(inodes);
        drop(known);
        inode.add_alias(reply.id(), place);
        inode.learn(&reply.attr);
        Ok(inode)
    }

    /// Takes `inode` out of the identities: its number may be used again.
    pub fn disown(&self, id: HostId, inode: *const GoferInode) {
        let mut inodes = self.inodes.lock();
        if inodes
            .get(&id)
            .is_some_and(|known| std::ptr::eq(known.as_ptr(), inode))
        {
            inodes.remove(&id);
        }
    }

    /// The device number guests see for a host device: other file systems
    /// mounted below the root get numbers of their own.
    pub fn guest_dev(&self, host_dev: u64) -> u64 {
        if host_dev == self.host_dev {
            return self.dev;
        }
        let mut devs = self.host_devs.lock();
        let index = match devs.iter().position(|&dev| dev == host_dev) {
            Some(index) => index + 1,
            // More than any host has mounted.
            None if devs.len() >= MAX_DEVS => MAX_DEVS,
            None => {
                devs.push(host_dev);
                devs.len()
            }
        };
        // Above the minor numbers that the VFS hands out, which are small.
        let (major, minor) = (
            crate::vfs::dev_major(self.dev),
            crate::vfs::dev_minor(self.dev),
        );
        let index = u32::try_from(index).unwrap_or(0);
        crate::vfs::makedev(major, minor | index << 20)
    }

    /// Keeps an fd for a while after its last use.
    pub fn keep_fd(&self, fd: &Arc<OwnedFd>) {
        let mut recent = self.recent.lock();
        recent.push_back(fd.clone());
        let evicted = (recent.len() > RECENT_FDS).then(|| recent.pop_front());
        drop(recent);
        drop(evicted);
    }

    /// Counts a listing that `dir` keeps; answers which are to be dropped.
    pub fn count_listing(
        &self,
        dir: &Weak<GoferInode>,
        len: usize,
        key: usize,
    ) -> Vec<(Arc<GoferInode>, usize)> {
        let mut evicted = Vec::new();
        let mut listings = self.listings.lock();
        listings.queue.push_back((dir.clone(), len, key));
        listings.bytes += len + LISTING_COST;
        while listings.bytes > LISTINGS_MAX {
            let Some((oldest, len, key)) = listings.queue.pop_front() else {
                break;
            };
            listings.bytes -= len + LISTING_COST;
            evicted.extend(oldest.upgrade().map(|inode| (inode, key)));
        }
        evicted
    }

    /// Lets go of a kept fd.
    pub fn drop_fd(&self, fd: &Arc<OwnedFd>) {
        let mut recent = self.recent.lock();
        let found = recent.iter().rposition(|kept| Arc::ptr_eq(kept, fd));
        let dropped = found.and_then(|at| recent.remove(at));
        drop(recent);
        drop(dropped);
    }
}
