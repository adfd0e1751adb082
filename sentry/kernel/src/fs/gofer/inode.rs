//! Files of a gofer: identity, attributes, contents.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use gofer_proto::{NodeId, OpenFlags, SetMask};
use parking_lot::Mutex;
use sentry_platform::host::{self, HostClock};
use smallvec::SmallVec;
use syscall_tables::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::convert;
use super::dir::{GoferDir, Listing};
use super::file::GoferFile;
use super::names::NameEntry;
use super::shared::{HostId, Shared};
use crate::sync::{SeqCell, WriteTurns};
use crate::task::{Creds, Gid, Uid};
use crate::vfs::path_cache::now_ns;
use crate::vfs::{
    Attr, FileKind, FileOps, Inode, InodeRef, OpenRequest, Owner, RenameFlags, SetAttr, XattrFlags,
};

/// Where a name of a file is.
pub(super) struct Place {
    pub dir: Arc<GoferInode>,
    pub name: Box<[u8]>,
}

/// A node of the gofer that leads to the file.
struct Alias {
    node: NodeId,
    /// To be taken back in the end.
    lookups: u64,
    /// `None` for roots, unnamed files, and removed ones that are kept.
    place: Option<Place>,
}

/// The set-user-id and set-group-id bits of a mode.
const SET_IDS: u32 = 0o6000;

/// Attributes as last told; read without a lock.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct KnownAttr {
    attr: gofer_proto::Attr,
    /// When they were told; 0 once they have changed or may have.
    at_ns: u64,
    /// When the gofer told them, owners included.
    owner_at_ns: u64,
}

const ATTR_WORDS: usize = size_of::<KnownAttr>() / 8;

struct AttrCell(SeqCell<ATTR_WORDS>);

impl AttrCell {
    fn new(attr: &gofer_proto::Attr) -> Self {
        let now_ns = now_ns();
        let known = KnownAttr {
            attr: *attr,
            at_ns: now_ns,
            owner_at_ns: now_ns,
        };
        Self(SeqCell::new(zerocopy::transmute!(known)))
    }

    fn read(&self) -> KnownAttr {
        zerocopy::transmute!(self.0.read())
    }

    fn update(&self, change: impl FnOnce(&mut KnownAttr)) {
        self.0.update(|words| {
            let mut known: KnownAttr = zerocopy::transmute!(*words);
            change(&mut known);
            *words = zerocopy::transmute!(known);
        });
    }
}

/// Donated fds; the open files hold them.
#[derive(Default)]
struct Files {
    read: Weak<OwnedFd>,
    write: Weak<OwnedFd>,
}

/// A file, directory or link of a gofer; one per file, however many names it
/// has.
pub struct GoferInode {
    pub(super) shared: Arc<Shared>,
    me: Weak<Self>,
    id: HostId,
    kind: FileKind,
    /// Unique in the mount, for futex keys.
    serial: u64,
    aliases: Mutex<SmallVec<[Alias; 1]>>,
    attr: AttrCell,
    files: Mutex<Files>,
    pub(super) write_turns: WriteTurns,
    /// Open files of this inode.
    pub(super) opens: AtomicUsize,
    /// Mapped writable at some time: attributes may change without a call.
    pub(super) mapped: AtomicBool,
    pub(super) link: OnceLock<Vec<u8>>,
    /// When the gofer last said that the file's one name leads to it.
    pub(super) validated_ns: AtomicU64,
    capability: Mutex<Option<Capability>>,
    /// Names are to be looked up one by one.
    pub(super) has_many_names: AtomicBool,
    pub(super) names: Mutex<HashMap<Box<[u8]>, NameEntry>>,
    /// Of a directory, as last read; see `dir.rs`.
    listing: Mutex<Option<Listing>>,
}

/// The attribute that each `execve` asks for.
const CAPABILITY: &[u8] = b"security.capability";

/// A change this recent may be followed by another of the same time.
const CTIME_SETTLED_S: i64 = 2;

/// [`CAPABILITY`] as it was while the file had this `ctime`.
struct Capability {
    ctime: (i64, u32),
    value: Result<Vec<u8>, Errno>,
}

impl GoferInode {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: HostId,
        kind: FileKind,
        serial: u64,
        attr: &gofer_proto::Attr,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            shared,
            me: me.clone(),
            id,
            kind,
            serial,
            aliases: Mutex::default(),
            attr: AttrCell::new(attr),
            files: Mutex::default(),
            write_turns: WriteTurns::default(),
            opens: AtomicUsize::new(0),
            mapped: AtomicBool::new(false),
            link: OnceLock::new(),
            validated_ns: AtomicU64::new(0),
            capability: Mutex::default(),
            has_many_names: AtomicBool::new(false),
            names: Mutex::default(),
            listing: Mutex::default(),
        })
    }

    pub(super) fn host_kind(&self) -> FileKind {
        self.kind
    }

    /// `self`, shared.
    pub(super) fn me(&self) -> Result<Arc<Self>, Errno> {
        // Methods run on a live inode, so this is there.
        self.me.upgrade().ok_or(Errno::EIO)
    }

    /// A node that leads to the file: one with a name if there is one.
    pub(super) fn node(&self) -> Result<NodeId, Errno> {
        let aliases = self.aliases.lock();
        let named = aliases.iter().find(|alias| alias.place.is_some());
        let alias = named.or(aliases.first());
        alias.map(|alias| alias.node).ok_or(Errno::ENOENT)
    }

    /// Whether the file can be reached by the gofer at all.
    fn is_lost(&self) -> bool {
        self.aliases.lock().is_empty()
    }

    /// Counts a lookup of `node`, which comes first from now on: names that were
    /// found earlier may be gone, if the file was renamed on the host.
    pub(super) fn add_alias(&self, node: NodeId, place: Option<Place>) {
        let mut aliases = self.aliases.lock();
        // Replaced places hold directories, which are dropped outside.
        let mut old = None;
        let mut known = aliases.iter_mut().enumerate();
        match known.find(|(_, alias)| alias.node == node) {
            Some((at, alias)) => {
                alias.lookups += 1;
                if place.is_some() {
                    old = std::mem::replace(&mut alias.place, place);
                }
                aliases.swap(0, at);
            }
            None => {
                let alias = Alias {
                    node,
                    lookups: 1,
                    place,
                };
                aliases.insert(0, alias);
                if aliases.len() > 1 {
                    self.has_many_names.store(true, Ordering::Relaxed);
                }
            }
        }
        drop(aliases);
        drop(old);
    }

    /// Notes that the name `name` in `dir` is gone. `kept`: the gofer goes on
    /// knowing the node.
    pub(super) fn remove_alias(&self, dir: &Self, name: &[u8], kept: bool) {
        let mut aliases = self.aliases.lock();
        let found = aliases.iter().position(|alias| alias.is_at(dir, name));
        let mut dropped = None;
        if let Some(at) = found {
            if kept {
                if let Some(alias) = aliases.get_mut(at) {
                    dropped = alias.place.take();
                }
            } else {
                let alias = aliases.swap_remove(at);
                self.shared
                    .connection
                    .forget_later(alias.node, alias.lookups);
                dropped = alias.place;
            }
        }
        let nameless = aliases.iter().all(|alias| alias.place.is_none());
        // Whatever the VFS may still hold under that name is asked for again.
        self.validated_ns.store(0, Ordering::Relaxed);
        drop(aliases);
        drop(dropped);
        if nameless {
            // The number may be given to another file from now on.
            self.shared.disown(self.id, self);
            if self.opens.load(Ordering::Acquire) == 0 {
                self.drop_fds();
            }
        }
        self.attr.update(|known| {
            known.attr.nlink = if self.kind == FileKind::Directory {
                0
            } else {
                known.attr.nlink.saturating_sub(1)
            };
            known.at_ns = 0;
        });
    }

    /// Notes that the name `name` in `dir` is now `to`.
    pub(super) fn move_alias(&self, dir: &Self, name: &[u8], to: Place) {
        let mut aliases = self.aliases.lock();
        let alias = aliases.iter_mut().find(|alias| alias.is_at(dir, name));
        let old = alias.and_then(|alias| alias.place.replace(to));
        drop(aliases);
        drop(old);
        self.invalidate();
    }

    /// Lets go of fds kept for later.
    fn drop_fds(&self) {
        let (read, write) = {
            let files = self.files.lock();
            (files.read.upgrade(), files.write.upgrade())
        };
        for fd in [read, write].into_iter().flatten() {
            self.shared.drop_fd(&fd);
        }
    }

    /// Stores attributes that the gofer just told.
    pub(super) fn learn(&self, attr: &gofer_proto::Attr) {
        self.attr.update(|known| {
            known.attr = *attr;
            known.at_ns = now_ns();
            known.owner_at_ns = known.at_ns;
        });
    }

    /// Attributes have changed or may have.
    pub(super) fn invalidate(&self) {
        if self.attr.read().at_ns != 0 {
            self.attr.update(|known| known.at_ns = 0);
        }
    }

    /// [`CAPABILITY`], without asking as long as the file has not changed.
    fn capability_xattr(&self) -> Result<Vec<u8>, Errno> {
        let ctime = self.host_attr()?.ctime;
        let now = host::clock_gettime(HostClock::Realtime).as_secs();
        let now = i64::try_from(now).unwrap_or(0);
        let settled = now.saturating_sub(ctime.sec) > CTIME_SETTLED_S;
        let ctime = (ctime.sec, ctime.nsec);
        if let Some(known) = &*self.capability.lock()
            && known.ctime == ctime
        {
            return known.value.clone();
        }
        let value = self.shared.connection.get_xattr(self.node()?, CAPABILITY);
        let lasts = matches!(value, Ok(_) | Err(Errno::ENODATA | Errno::EOPNOTSUPP));
        if settled && lasts {
            *self.capability.lock() = Some(Capability {
                ctime,
                value: value.clone(),
            });
        }
        value
    }

    /// A write through a donated fd ended at `end`.
    pub(super) fn note_write(&self, end: u64) {
        let known = self.attr.read();
        if known.at_ns != 0 || known.attr.size < end {
            self.attr.update(|known| {
                known.attr.size = known.attr.size.max(end);
                known.at_ns = 0;
            });
        }
        if known.attr.mode & SET_IDS != 0 {
            self.restore_mode(known.attr.mode);
        }
    }

    /// Gives back the set-id bits that a write took away: to the host every
    /// writer is the sentry, which has no privileges. Those of a guest without
    /// any have gone before the write.
    fn restore_mode(&self, mode: u32) {
        let set = gofer_proto::SetAttr {
            mask: SetMask::MODE.bits(),
            mode: mode & 0o7777,
            ..Default::default()
        };
        let restored = self
            .node()
            .and_then(|node| self.shared.connection.setattr(node, set));
        match restored {
            Ok(attr) => self.learn(&attr),
            // They are lost then, and the host says so.
            Err(_) => self.invalidate(),
        }
    }

    /// A read through a donated fd: the host may have set the access time, as
    /// `relatime` has it.
    pub(super) fn note_read(&self) {
        let attr = self.attr.read().attr;
        let [atime, mtime, ctime] = [attr.atime, attr.mtime, attr.ctime].map(|t| (t.sec, t.nsec));
        if atime <= mtime || atime <= ctime {
            self.invalidate();
        }
    }

    /// Whether this is the root of the mount, which has no parent in it.
    pub(super) fn is_root(&self) -> bool {
        self.serial == Shared::FIRST_SERIAL
    }

    /// What a reader of the directory left for the next.
    pub(super) fn listing(&self) -> Option<Listing> {
        self.listing.lock().clone()
    }

    /// Keeps a listing, at the cost of the oldest ones of the mount.
    pub(super) fn keep_listing(&self, listing: Listing) {
        let (len, key) = (listing.len(), listing.key());
        let old = self.listing.lock().replace(listing);
        drop(old);
        for (inode, key) in self.shared.count_listing(&self.me, len, key) {
            let mut listing = inode.listing.lock();
            let old = listing.take_if(|listing| listing.key() == key);
            drop(listing);
            drop(old);
        }
    }

    pub(super) fn ino(&self) -> u64 {
        self.id.1
    }

    /// Size as last known, without asking.
    pub(super) fn known_size(&self) -> u64 {
        self.attr.read().attr.size
    }

    /// The attributes if they need not be asked for.
    fn fresh_attr(&self) -> Option<gofer_proto::Attr> {
        let known = self.attr.read();
        let usable = known.at_ns != 0
            && !self.mapped.load(Ordering::Relaxed)
            && self.shared.is_fresh_ns(known.at_ns);
        usable.then_some(known.attr)
    }

    /// Attributes, as fresh as the policy wants them.
    pub(super) fn host_attr(&self) -> Result<gofer_proto::Attr, Errno> {
        if let Some(attr) = self.fresh_attr() {
            return Ok(attr);
        }
        let is_owner_known = self.is_lost() || {
            let owner_at_ns = self.attr.read().owner_at_ns;
            self.shared.is_fresh_ns(owner_at_ns)
        };
        if is_owner_known && let Some(fd) = self.any_fd() {
            let stat = host::io::fstat(&fd)?;
            self.attr.update(|known| {
                convert::update(&mut known.attr, &stat);
                known.at_ns = now_ns();
            });
            return Ok(self.attr.read().attr);
        }
        if self.is_lost() {
            // Removed while nothing had it open: it can't change any more.
            return Ok(self.attr.read().attr);
        }
        let asked = self
            .node()
            .and_then(|node| self.shared.connection.getattr(node));
        match asked {
            Ok(attr) => {
                self.learn(&attr);
                Ok(attr)
            }
            // Replaced on the host: the name means another file now.
            Err(Errno::ESTALE | Errno::ENOENT) => match self.replacement() {
                Some(other) => Ok(other.attr.read().attr),
                None => Err(Errno::ENOENT),
            },
            Err(errno) => Err(errno),
        }
    }

    /// What the host has now in place of this file, if that is another one.
    fn replacement(&self) -> Option<Arc<Self>> {
        let (dir, name) = {
            let aliases = self.aliases.lock();
            let place = aliases.iter().find_map(|alias| alias.place.as_ref())?;
            (place.dir.clone(), place.name.clone())
        };
        let found = dir.ask(&name).ok()??;
        (!std::ptr::eq(Arc::as_ptr(&found), self)).then_some(found)
    }

    /// Names the file for futexes in shared mappings of it: by mount and
    /// number, apart from the addresses that other file systems use.
    pub(super) fn object(&self) -> u64 {
        1 << 63 | self.shared.dev << 40 | self.serial
    }

    fn any_fd(&self) -> Option<Arc<OwnedFd>> {
        let files = self.files.lock();
        files.read.upgrade().or_else(|| files.write.upgrade())
    }

    /// Takes over the fd that came with the file's creation.
    pub(super) fn set_fresh_fd(&self, fd: OwnedFd) {
        let fd = Arc::new(fd);
        self.files.lock().write = Arc::downgrade(&fd);
        // Until the file is opened, which follows at once.
        self.shared.keep_fd(&fd);
    }

    /// An fd to read, or to read and write, from the gofer or a present one.
    pub(super) fn donated(&self, write: bool) -> Result<Arc<OwnedFd>, Errno> {
        let (readable, writable) = {
            let files = self.files.lock();
            (files.read.upgrade(), files.write.upgrade())
        };
        if let Some(fd) = &writable {
            // Kept open for writing, the file could not be executed on the
            // host.
            self.shared.drop_fd(fd);
        }
        if let Some(fd) = if write { writable } else { readable } {
            return Ok(fd);
        }
        let flags = if write {
            OpenFlags::READ | OpenFlags::WRITE
        } else {
            OpenFlags::READ
        };
        let (attr, fd) = self.shared.connection.open(self.node()?, flags)?;
        let fd = Arc::new(fd);
        self.learn(&attr);
        let mut files = self.files.lock();
        if write {
            files.write = Arc::downgrade(&fd);
        } else {
            files.read = Arc::downgrade(&fd);
        }
        drop(files);
        if !write {
            self.shared.keep_fd(&fd);
        }
        Ok(fd)
    }

    fn open_regular(self: &Arc<Self>, request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        let fd = match self.donated(request.write) {
            // Files that can only be appended to (`chattr +a`).
            Err(Errno::EPERM) if request.write && request.append => {
                let flags = OpenFlags::WRITE | OpenFlags::APPEND;
                let (_, fd) = self.shared.connection.open(self.node()?, flags)?;
                Arc::new(fd)
            }
            other => other?,
        };
        Ok(GoferFile::new(self.clone(), fd))
    }
}

impl Alias {
    fn is_at(&self, dir: &GoferInode, name: &[u8]) -> bool {
        self.place
            .as_ref()
            .is_some_and(|place| std::ptr::eq(Arc::as_ptr(&place.dir), dir) && *place.name == *name)
    }
}

impl Drop for GoferInode {
    fn drop(&mut self) {
        self.shared.disown(self.id, self);
        let mut removed = false;
        for alias in self.aliases.get_mut().drain(..) {
            removed |= alias.place.is_none();
            self.shared
                .connection
                .forget_later(alias.node, alias.lookups);
        }
        // The gofer holds removed files open until it knows.
        self.shared.connection.flush_forgets_if(removed);
    }
}

impl Inode for GoferInode {
    fn kind(&self) -> FileKind {
        self.kind
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let attr = self.host_attr()?;
        convert::to_vfs(&attr, self.shared.guest_dev(attr.dev))
    }

    fn owner(&self) -> Result<Owner, Errno> {
        let attr = self.host_attr()?;
        Ok(Owner {
            kind: convert::kind(&attr)?,
            perm: attr.mode & 0o7777,
            uid: Uid(attr.uid),
            gid: Gid(attr.gid),
        })
    }

    fn known_perm(&self) -> Option<u32> {
        Some(self.attr.read().attr.mode & 0o7777)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        let set = convert::from_vfs(changes);
        let attr = self.shared.connection.setattr(self.node()?, set)?;
        self.learn(&attr);
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let found = self.find(name)?.ok_or(Errno::ENOENT)?;
        Ok(found)
    }

    fn lookup_revalidate(&self, name: &[u8], child: Option<&InodeRef>) -> bool {
        self.is_still(name, child)
    }

    fn name_valid_until_ns(&self, name: &[u8], child: Option<&InodeRef>) -> u64 {
        let known = self.attr.read();
        let rights = self
            .shared
            .fresh_until_ns(known.at_ns.min(known.owner_at_ns));
        rights.min(self.name_until_ns(name, child))
    }

    fn create(
        &self,
        name: &[u8],
        kind: FileKind,
        perm: u32,
        _rdev: u64,
        creds: &Creds,
    ) -> Result<InodeRef, Errno> {
        Ok(self.make_file(name, kind, perm, creds)?)
    }

    fn mkdir(&self, name: &[u8], perm: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        Ok(self.make_dir(name, perm, creds)?)
    }

    fn symlink(&self, name: &[u8], target: &[u8], creds: &Creds) -> Result<InodeRef, Errno> {
        Ok(self.make_link(name, target, creds)?)
    }

    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        self.add_name(name, target)
    }

    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        self.remove_file(name)
    }

    fn rmdir(&self, name: &[u8]) -> Result<(), Errno> {
        self.remove_dir(name)
    }

    fn rename(
        &self,
        name: &[u8],
        new_dir: &InodeRef,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        self.move_name(name, new_dir, new_name, flags)
    }

    fn tmpfile(&self, perm: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        Ok(self.make_unnamed(perm, creds)?)
    }

    fn readlink(&self) -> Result<Vec<u8>, Errno> {
        if let Some(target) = self.link.get() {
            return Ok(target.clone());
        }
        if self.kind != FileKind::Symlink {
            return Err(Errno::EINVAL);
        }
        let target = self.shared.connection.readlink(self.node()?)?;
        Ok(self.link.get_or_init(|| target).clone())
    }

    fn open(self: Arc<Self>, request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        match self.kind {
            FileKind::Directory => Ok(Arc::new(GoferDir::new(self))),
            FileKind::Regular => match self.open_regular(request) {
                // Replaced on the host since its name was looked up.
                Err(Errno::ESTALE | Errno::ENOENT) => {
                    let other = self.replacement().ok_or(Errno::ENOENT)?;
                    if other.kind != FileKind::Regular {
                        return Err(Errno::ENOENT);
                    }
                    other.open_regular(request)
                }
                other => other,
            },
            FileKind::Symlink => Err(Errno::ELOOP),
            _ => Err(Errno::ENXIO),
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if name == CAPABILITY {
            return self.capability_xattr();
        }
        self.shared.connection.get_xattr(self.node()?, name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
        let connection = &self.shared.connection;
        connection.set_xattr(self.node()?, name, value, flags.bits())?;
        *self.capability.lock() = None;
        self.invalidate();
        Ok(())
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let list = self.shared.connection.list_xattr(self.node()?)?;
        let names = list.split(|&byte| byte == 0);
        Ok(names
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.shared.connection.remove_xattr(self.node()?, name)?;
        *self.capability.lock() = None;
        self.invalidate();
        Ok(())
    }
}
