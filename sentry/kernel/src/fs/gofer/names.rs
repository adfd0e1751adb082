//! Lookups and changes of names in a directory.

use std::any::Any;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gofer_proto::request::{Ownership, Removed};
use syscall_tables::Errno;

use super::connection::check_name;
use super::inode::{GoferInode, Place};
use super::{CachePolicy, convert};
use crate::task::Creds;
use crate::vfs::perm::S_ISGID;
use crate::vfs::{FileKind, InodeRef, RenameFlags};

/// Entries of a directory's memory of names before it is swept.
const SWEEP_AT: usize = 512;

/// Entries up to which missing names are kept by a sweep.
const MISSES_UP_TO: usize = 8192;

/// What the gofer said about a name.
pub(super) struct NameEntry {
    /// `None`: that there is no such file.
    child: Option<Weak<GoferInode>>,
    at: Duration,
}

impl NameEntry {
    fn new(child: Option<&Arc<GoferInode>>) -> Self {
        Self {
            child: child.map(Arc::downgrade),
            at: convert::now(),
        }
    }
}

/// The gofer says `ESTALE` for a directory that is gone on the host.
fn gone(errno: Errno) -> Errno {
    if errno == Errno::ESTALE {
        Errno::ENOENT
    } else {
        errno
    }
}

impl GoferInode {
    fn remember(&self, name: &[u8], child: Option<&Arc<Self>>) {
        let entry = NameEntry::new(child);
        if let Some(child) = child {
            child
                .validated_ns
                .store(convert::nanos(entry.at), Ordering::Relaxed);
        }
        let mut names = self.names.lock();
        if names.len() >= SWEEP_AT && names.len() == names.capacity() {
            // A guest that looks for ever new names must not fill memory.
            let keeps_misses = names.len() < MISSES_UP_TO;
            names.retain(|_, entry| match &entry.child {
                Some(child) => child.strong_count() > 0,
                None => keeps_misses && self.shared.is_fresh(entry.at),
            });
        }
        if child.is_none() && self.shared.policy == CachePolicy::Exclusive {
            // The VFS asks once and remembers by itself.
            names.remove(name);
        } else {
            names.insert(name.into(), entry);
        }
    }

    /// The child under `name` as far as it is known: fresh entries only.
    fn known(&self, name: &[u8]) -> Option<Option<Arc<Self>>> {
        let names = self.names.lock();
        let entry = names.get(name)?;
        if !self.shared.is_fresh(entry.at) {
            return None;
        }
        match &entry.child {
            None => Some(None),
            Some(child) => child.upgrade().map(Some),
        }
    }

    /// The child that `name` led to when last asked.
    fn last_known(&self, name: &[u8]) -> Option<Arc<Self>> {
        let names = self.names.lock();
        names.get(name)?.child.as_ref()?.upgrade()
    }

    /// Asks the gofer for `name`.
    pub(super) fn ask(&self, name: &[u8]) -> Result<Option<Arc<Self>>, Errno> {
        check_name(name)?;
        let walked = self.shared.connection.walk_one(self.node()?, name);
        let Some(walked) = walked.map_err(gone)? else {
            self.remember(name, None);
            return Ok(None);
        };
        let place = Place {
            dir: self.me()?,
            name: name.into(),
        };
        let child = self.shared.intern(&walked.found, Some(place))?;
        if let Some(target) = walked.target {
            // Links never change; the first answer stays.
            let _ = child.link.set(target);
        }
        self.remember(name, Some(&child));
        Ok(Some(child))
    }

    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Arc<Self>>, Errno> {
        if self.host_kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        match self.known(name) {
            Some(known) => Ok(known),
            None => self.ask(name),
        }
    }

    /// Whether `name` still leads to `child`.
    pub(super) fn is_still(&self, name: &[u8], child: Option<&InodeRef>) -> bool {
        if let Some(child) = child.and_then(|child| self.sibling(child).ok())
            && !child.has_many_names.load(Ordering::Relaxed)
        {
            let at = child.validated_ns.load(Ordering::Relaxed);
            if at != 0 && self.shared.is_fresh(Duration::from_nanos(at)) {
                return true;
            }
        }
        let found = match self.known(name) {
            Some(known) => known,
            None => match self.ask(name) {
                Ok(found) => found,
                Err(_) => return false,
            },
        };
        match (child, found) {
            (None, None) => true,
            (Some(child), Some(found)) => {
                std::ptr::addr_eq(Arc::as_ptr(child), Arc::as_ptr(&found))
            }
            _ => false,
        }
    }

    /// Until when what was last said about `name`, that it leads to `child`,
    /// counts.
    pub(super) fn name_until_ns(&self, name: &[u8], child: Option<&InodeRef>) -> u64 {
        if let Some(child) = child.and_then(|child| self.sibling(child).ok())
            && !child.has_many_names.load(Ordering::Relaxed)
        {
            let at = child.validated_ns.load(Ordering::Relaxed);
            return self.shared.fresh_until_ns(at);
        }
        let names = self.names.lock();
        let at = names.get(name).map_or(0, |entry| convert::nanos(entry.at));
        self.shared.fresh_until_ns(at)
    }

    /// Owner and mode of a file made here.
    fn ownership(&self, kind: FileKind, perm: u32, creds: &Creds) -> Result<Ownership, Errno> {
        let dir = self.host_attr()?;
        let (mut mode, mut gid) = (perm & 0o7777, creds.fsgid.0);
        if dir.mode & S_ISGID != 0 {
            gid = dir.gid;
            if kind == FileKind::Directory {
                mode |= S_ISGID;
            }
        }
        Ok(Ownership {
            mode,
            uid: creds.fsuid.0,
            gid,
        })
    }

    /// Takes in a file just made under `name`.
    fn made(&self, name: &[u8], reply: &gofer_proto::reply::NodeReply) -> Result<Arc<Self>, Errno> {
        let place = Place {
            dir: self.me()?,
            name: name.into(),
        };
        let child = self.shared.intern(reply, Some(place))?;
        self.remember(name, Some(&child));
        self.invalidate();
        Ok(child)
    }

    pub(super) fn make_file(
        &self,
        name: &[u8],
        kind: FileKind,
        perm: u32,
        creds: &Creds,
    ) -> Result<Arc<Self>, Errno> {
        check_name(name)?;
        let mut owner = self.ownership(kind, perm, creds)?;
        let connection = &self.shared.connection;
        let node = self.node()?;
        match kind {
            FileKind::Regular => {
                let (reply, fd) = connection.create(node, name, owner).map_err(gone)?;
                let child = self.made(name, &reply)?;
                child.set_fresh_fd(fd);
                Ok(child)
            }
            FileKind::Fifo | FileKind::Socket => {
                owner.mode |= kind.mode_bits();
                let reply = connection.mknod(node, name, owner).map_err(gone)?;
                self.made(name, &reply)
            }
            // The host's devices are not for guests.
            FileKind::CharDevice | FileKind::BlockDevice => Err(Errno::EPERM),
            FileKind::Directory | FileKind::Symlink | FileKind::Anonymous => Err(Errno::EINVAL),
        }
    }

    pub(super) fn make_dir(
        &self,
        name: &[u8],
        perm: u32,
        creds: &Creds,
    ) -> Result<Arc<Self>, Errno> {
        check_name(name)?;
        let owner = self.ownership(FileKind::Directory, perm, creds)?;
        let connection = &self.shared.connection;
        let reply = connection.mkdir(self.node()?, name, owner).map_err(gone)?;
        self.made(name, &reply)
    }

    pub(super) fn make_link(
        &self,
        name: &[u8],
        target: &[u8],
        creds: &Creds,
    ) -> Result<Arc<Self>, Errno> {
        check_name(name)?;
        let owner = self.ownership(FileKind::Symlink, 0o777, creds)?;
        let connection = &self.shared.connection;
        let reply = connection
            .symlink(self.node()?, name, target, owner)
            .map_err(gone)?;
        let child = self.made(name, &reply)?;
        // As above.
        let _ = child.link.set(target.to_vec());
        Ok(child)
    }

    pub(super) fn make_unnamed(&self, perm: u32, creds: &Creds) -> Result<Arc<Self>, Errno> {
        let owner = self.ownership(FileKind::Regular, perm, creds)?;
        let connection = &self.shared.connection;
        let (reply, fd) = connection.tmpfile(self.node()?, owner).map_err(gone)?;
        let child = self.shared.intern(&reply, None)?;
        child.set_fresh_fd(fd);
        Ok(child)
    }

    /// `inode` as one of this mount.
    fn sibling<'a>(&self, inode: &'a InodeRef) -> Result<&'a Self, Errno> {
        let any: &dyn Any = inode.as_ref();
        let other: &Self = any.downcast_ref().ok_or(Errno::EXDEV)?;
        if Arc::ptr_eq(&other.shared, &self.shared) {
            Ok(other)
        } else {
            Err(Errno::EXDEV)
        }
    }

    pub(super) fn add_name(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        check_name(name)?;
        let target = self.sibling(target)?;
        let connection = &self.shared.connection;
        let reply = connection
            .link(target.node()?, self.node()?, name)
            .map_err(gone)?;
        self.made(name, &reply).map(drop)
    }

    /// The child whose last name may be about to go, and whether the gofer is
    /// to keep it.
    fn victim(&self, name: &[u8]) -> (Option<Arc<Self>>, Removed) {
        let child = self.last_known(name);
        let open = child
            .as_ref()
            .is_some_and(|child| child.opens.load(Ordering::Acquire) > 0);
        (child, if open { Removed::Keep } else { Removed::Drop })
    }

    /// Notes that `name`, which led to `child`, is gone.
    fn lost(&self, name: &[u8], child: Option<Arc<Self>>, removed: Removed) {
        self.remember(name, None);
        self.invalidate();
        if let Some(child) = child {
            child.remove_alias(self, name, removed == Removed::Keep);
        }
    }

    pub(super) fn remove_file(&self, name: &[u8]) -> Result<(), Errno> {
        check_name(name)?;
        let (child, removed) = self.victim(name);
        let connection = &self.shared.connection;
        connection
            .unlink(self.node()?, name, removed)
            .map_err(gone)?;
        self.lost(name, child, removed);
        Ok(())
    }

    pub(super) fn remove_dir(&self, name: &[u8]) -> Result<(), Errno> {
        check_name(name)?;
        let (child, removed) = self.victim(name);
        let connection = &self.shared.connection;
        connection
            .rmdir(self.node()?, name, removed)
            .map_err(gone)?;
        self.lost(name, child, removed);
        Ok(())
    }

    pub(super) fn move_name(
        &self,
        name: &[u8],
        new_dir: &InodeRef,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        check_name(name)?;
        check_name(new_name)?;
        let new_dir = self.sibling(new_dir)?;
        let moved = self.last_known(name);
        let (target, removed) = new_dir.victim(new_name);
        self.shared
            .connection
            .rename(
                (self.node()?, name),
                (new_dir.node()?, new_name),
                gofer_proto::RenameFlags::from_bits_retain(flags.bits()),
                removed,
            )
            .map_err(gone)?;
        let place = |dir: &Self, name: &[u8]| {
            dir.me().map(|dir| Place {
                dir,
                name: name.into(),
            })
        };
        if flags.contains(RenameFlags::EXCHANGE) {
            // Both at once: a file is found by the place it had.
            if let Some(target) = &target {
                target.move_alias(new_dir, new_name, place(self, name)?);
            }
            if let Some(moved) = &moved {
                moved.move_alias(self, name, place(new_dir, new_name)?);
            }
            self.remember(name, target.as_ref());
        } else {
            new_dir.lost(new_name, target, removed);
            if let Some(moved) = &moved {
                moved.move_alias(self, name, place(new_dir, new_name)?);
            }
            self.remember(name, None);
        }
        match &moved {
            Some(moved) => new_dir.remember(new_name, Some(moved)),
            None => {
                let forgotten = new_dir.names.lock().remove(new_name);
                drop(forgotten);
            }
        }
        if flags.contains(RenameFlags::WHITEOUT) {
            // A device node stands there now.
            let forgotten = self.names.lock().remove(name);
            drop(forgotten);
        }
        self.invalidate();
        new_dir.invalidate();
        Ok(())
    }
}
