//! Inodes of tmpfs.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use sentry_platform::{ViewId, Window};
use syscall_tables::Errno;

use super::dir::Directory;
use super::regular::{Bytes, Regular};
use super::{PAGE, Shared, TmpFsOptions};
use crate::sync::WriteTurns;
use crate::task::{Creds, Gid, Uid};
use crate::vfs::perm::S_ISGID;
use crate::vfs::{
    Attr, DirEntry, File, FileKind, FileOps, Inode, InodeRef, MapSource, OpenRequest, Owner,
    RenameFlags, SetAttr, SetTime, Timestamp, ViewSource, XattrFlags,
};

/// Most bytes of xattr names and values of one inode.
const XATTR_BYTES_MAX: usize = 128 << 10;

/// What changes about any inode.
pub(super) struct Meta {
    pub nlink: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

pub(super) enum Body {
    Regular(Regular),
    Directory(Directory),
    Symlink(Box<[u8]>),
    Node { kind: FileKind, rdev: u64 },
}

/// Extended attributes, by name.
type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// An inode of a [`super::TmpFs`].
pub struct TmpInode {
    pub(super) shared: Arc<Shared>,
    pub(super) ino: u64,
    pub(super) meta: RwLock<Meta>,
    /// Mode and owners change under `meta`'s lock and are read without.
    perm: AtomicU32,
    uid: AtomicU32,
    gid: AtomicU32,
    btime: Timestamp,
    xattrs: RwLock<Xattrs>,
    pub(super) body: Body,
    pub(super) this: Weak<Self>,
}

impl TmpInode {
    fn build(shared: &Arc<Shared>, body: Body, perm: u32, uid: Uid, gid: Gid) -> Arc<Self> {
        let now = Timestamp::now();
        let nlink = if matches!(body, Body::Directory(_)) {
            2
        } else {
            1
        };
        Arc::new_cyclic(|this| Self {
            shared: shared.clone(),
            ino: shared.new_ino(),
            perm: AtomicU32::new(perm),
            uid: AtomicU32::new(uid.0),
            gid: AtomicU32::new(gid.0),
            meta: RwLock::new(Meta {
                nlink,
                atime: now,
                mtime: now,
                ctime: now,
            }),
            btime: now,
            xattrs: RwLock::default(),
            body,
            this: this.clone(),
        })
    }

    pub(super) fn new_root(shared: &Arc<Shared>, options: &TmpFsOptions) -> Arc<Self> {
        let body = Body::Directory(Directory::new(Weak::new()));
        Self::build(shared, body, options.perm, options.uid, options.gid)
    }

    pub(super) fn new_unnamed(
        shared: &Arc<Shared>,
        perm: u32,
        creds: &Creds,
    ) -> Result<Arc<Self>, Errno> {
        shared.take_inode()?;
        let body = Body::Regular(Regular::default());
        let inode = Self::build(shared, body, perm, creds.fsuid, creds.fsgid);
        inode.meta.write().nlink = 0;
        Ok(inode)
    }

    /// A new inode for a name in `self`, a directory.
    pub(super) fn new_child(
        &self,
        body: Body,
        mut perm: u32,
        creds: &Creds,
    ) -> Result<Arc<Self>, Errno> {
        self.shared.take_inode()?;
        let mut gid = creds.fsgid;
        let parent = self.owners();
        if parent.perm & S_ISGID != 0 {
            gid = parent.gid;
            if matches!(body, Body::Directory(_)) {
                perm |= S_ISGID;
            }
        }
        Ok(Self::build(&self.shared, body, perm, creds.fsuid, gid))
    }

    /// Options of `/proc/mounts` that tell the root's mode and owner.
    pub(super) fn owner_options(&self) -> Vec<String> {
        let meta = self.owners();
        let mut options = Vec::new();
        if meta.perm != 0o1777 {
            options.push(format!("mode={:o}", meta.perm));
        }
        if meta.uid != Uid::ROOT {
            options.push(format!("uid={}", meta.uid));
        }
        if meta.gid != Gid::ROOT {
            options.push(format!("gid={}", meta.gid));
        }
        options
    }

    fn owners(&self) -> Owner {
        Owner {
            kind: self.kind(),
            perm: self.perm.load(Ordering::Relaxed),
            uid: Uid(self.uid.load(Ordering::Relaxed)),
            gid: Gid(self.gid.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn directory(&self) -> Result<&Directory, Errno> {
        match &self.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The content of a regular file.
    pub(super) fn regular(&self) -> Result<&Regular, Errno> {
        match &self.body {
            Body::Regular(regular) => Ok(regular),
            Body::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Notes that content (or a directory's names) changed now.
    pub(super) fn touch(&self) {
        let now = Timestamp::now();
        let mut meta = self.meta.write();
        meta.mtime = now;
        meta.ctime = now;
    }

    /// Notes that attributes changed now.
    pub(super) fn touch_ctime(&self) {
        self.meta.write().ctime = Timestamp::now();
    }

    /// Changes the link count.
    pub(super) fn add_nlink(&self, delta: i64) {
        let mut meta = self.meta.write();
        meta.nlink = meta.nlink.saturating_add_signed(delta);
        meta.ctime = Timestamp::now();
    }

    /// Notes a read through `file`, as its mount and flags want it.
    fn note_access(&self, file: &File) {
        let meta = self.meta.read();
        let wanted = file.updates_atime(meta.atime, meta.mtime, meta.ctime);
        drop(meta);
        if wanted {
            self.meta.write().atime = Timestamp::now();
        }
    }

    /// This file's seals (`F_GET_SEALS`); `EINVAL` for other kinds.
    pub fn seals(&self) -> Result<u32, Errno> {
        match &self.body {
            Body::Regular(regular) => Ok(regular.seals()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// `F_ADD_SEALS`; `EBUSY` while a writable mapping stands against it.
    pub fn add_seals(&self, seals: u32) -> Result<(), Errno> {
        match &self.body {
            Body::Regular(regular) => regular.add_seals(seals),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Sets the first seals of a new memfd (0: it may be sealed).
    pub fn set_initial_seals(&self, seals: u32) {
        if let Body::Regular(regular) = &self.body {
            regular.set_initial_seals(seals);
        }
    }
}

/// The inode as one of tmpfs; `EXDEV` for a foreign one.
pub(super) fn downcast(inode: &InodeRef) -> Result<&TmpInode, Errno> {
    let inode: &dyn Any = inode.as_ref();
    inode.downcast_ref().ok_or(Errno::EXDEV)
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        self.shared.give_inode();
        match &mut self.body {
            Body::Regular(regular) => self.shared.recount(regular.charged(), 0),
            Body::Directory(directory) => directory.drop_entries(),
            _ => {}
        }
    }
}

impl Inode for TmpInode {
    fn kind(&self) -> FileKind {
        match &self.body {
            Body::Regular(_) => FileKind::Regular,
            Body::Directory(_) => FileKind::Directory,
            Body::Symlink(_) => FileKind::Symlink,
            Body::Node { kind, .. } => *kind,
        }
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let mut rdev = 0;
        let (size_bytes, blocks) = match &self.body {
            Body::Regular(regular) => regular.size(),
            Body::Directory(directory) => (directory.size(), 0),
            Body::Symlink(target) => (target.len() as u64, 0),
            Body::Node { rdev: number, .. } => {
                rdev = *number;
                (0, 0)
            }
        };
        let meta = self.meta.read();
        let owner = self.owners();
        Ok(Attr {
            kind: owner.kind,
            perm: owner.perm,
            dev: self.shared.dev,
            ino: self.ino,
            nlink: meta.nlink,
            uid: owner.uid,
            gid: owner.gid,
            size_bytes,
            blocks,
            block_size: PAGE as u32,
            rdev,
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
            btime: Some(self.btime),
        })
    }

    fn owner(&self) -> Result<Owner, Errno> {
        Ok(self.owners())
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        if let Some(size) = changes.size_bytes {
            self.regular()?.truncate(&self.shared, size)?;
        }
        let now = Timestamp::now();
        let time = |set| match set {
            SetTime::Now => now,
            SetTime::To(time) => time,
        };
        let mut meta = self.meta.write();
        if let Some(perm) = changes.perm {
            self.perm.store(perm, Ordering::Relaxed);
        }
        if let Some(uid) = changes.uid {
            self.uid.store(uid.0, Ordering::Relaxed);
        }
        if let Some(gid) = changes.gid {
            self.gid.store(gid.0, Ordering::Relaxed);
        }
        if changes.size_bytes.is_some() {
            meta.mtime = now;
        }
        meta.atime = changes.atime.map_or(meta.atime, time);
        meta.mtime = changes.mtime.map_or(meta.mtime, time);
        meta.ctime = now;
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let child = self.directory()?.get(name).ok_or(Errno::ENOENT)?;
        Ok(child)
    }

    fn create(
        &self,
        name: &[u8],
        kind: FileKind,
        perm: u32,
        rdev: u64,
        creds: &Creds,
    ) -> Result<InodeRef, Errno> {
        let body = match kind {
            FileKind::Regular => Body::Regular(Regular::default()),
            FileKind::Directory | FileKind::Symlink => return Err(Errno::EINVAL),
            kind => Body::Node { kind, rdev },
        };
        Ok(self.add_child(name, body, perm, creds)?)
    }

    fn mkdir(&self, name: &[u8], perm: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        let body = Body::Directory(Directory::new(self.this.clone()));
        Ok(self.add_child(name, body, perm, creds)?)
    }

    fn symlink(&self, name: &[u8], target: &[u8], creds: &Creds) -> Result<InodeRef, Errno> {
        let body = Body::Symlink(target.into());
        Ok(self.add_child(name, body, 0o777, creds)?)
    }

    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        self.add_link(name, downcast(target)?)
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
        self.move_entry(name, downcast(new_dir)?, new_name, flags)
    }

    fn tmpfile(&self, perm: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        let inode = self.new_child(Body::Regular(Regular::default()), perm, creds)?;
        inode.meta.write().nlink = 0;
        Ok(inode)
    }

    fn readlink(&self) -> Result<Vec<u8>, Errno> {
        match &self.body {
            Body::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        match &self.body {
            Body::Regular(_) | Body::Directory(_) => Ok(self),
            Body::Symlink(_) => Err(Errno::ELOOP),
            Body::Node { .. } => Err(Errno::ENXIO),
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let xattrs = self.xattrs.read();
        let value = xattrs.get(name).ok_or(Errno::ENODATA)?;
        Ok(value.to_vec())
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
        let mut xattrs = self.xattrs.write();
        let exists = xattrs.contains_key(name);
        if exists && flags.contains(XattrFlags::CREATE) {
            return Err(Errno::EEXIST);
        }
        if !exists && flags.contains(XattrFlags::REPLACE) {
            return Err(Errno::ENODATA);
        }
        let others = xattrs.iter().filter(|(known, _)| known.as_ref() != name);
        let used: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if used + name.len() + value.len() > XATTR_BYTES_MAX {
            return Err(Errno::ENOSPC);
        }
        xattrs.insert(name.into(), value.into());
        drop(xattrs);
        self.touch_ctime();
        Ok(())
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let xattrs = self.xattrs.read();
        Ok(xattrs.keys().map(|name| name.to_vec()).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        let removed = self.xattrs.write().remove(name);
        removed.ok_or(Errno::ENODATA)?;
        self.touch_ctime();
        Ok(())
    }
}

/// An open file of tmpfs needs no state beside its inode.
impl FileOps for TmpInode {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let count = self.regular()?.read_at(buf, offset)?;
        if count != 0 {
            self.note_access(file);
        }
        Ok(count)
    }

    fn write_at(
        &self,
        _file: &File,
        buf: &[u8],
        offset: u64,
        append: bool,
    ) -> Result<(usize, u64), Errno> {
        let regular = self.regular()?;
        let written = regular.write_at(&self.shared, Bytes::Slice(buf), offset, append)?;
        if written.0 != 0 {
            self.touch();
        }
        Ok(written)
    }

    fn view_source(&self, file: &File) -> Option<ViewSource> {
        let source = self.regular().ok()?.view_source()?;
        self.note_access(file);
        Some(source)
    }

    fn view_id(&self) -> Option<ViewId> {
        self.regular().ok()?.view_id()
    }

    fn write_turns(&self) -> Option<&WriteTurns> {
        self.regular().ok().map(|regular| &regular.turns)
    }

    fn has_windows(&self) -> bool {
        matches!(self.body, Body::Regular(_))
    }

    fn read_window(&self, file: &File, window: &Window<'_>, offset: u64) -> Result<usize, Errno> {
        let count = self.regular()?.read_window(window, offset)?;
        if count != 0 {
            self.note_access(file);
        }
        Ok(count)
    }

    fn write_window(&self, _file: &File, window: &Window<'_>, offset: u64) -> Result<usize, Errno> {
        let regular = self.regular()?;
        let written = regular.write_at(&self.shared, Bytes::Window(window), offset, false)?;
        if written.0 != 0 {
            self.touch();
        }
        Ok(written.0)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        match &self.body {
            Body::Regular(regular) => Ok(regular.size().0),
            Body::Directory(directory) => Ok(directory.end_offset()),
            _ => Err(Errno::ESPIPE),
        }
    }

    fn seek_sparse(&self, _file: &File, offset: u64, data: bool) -> Result<u64, Errno> {
        match &self.body {
            Body::Regular(regular) => regular.seek_sparse(offset, data),
            _ => Err(Errno::EINVAL),
        }
    }

    fn read_dir(
        &self,
        file: &File,
        offset: u64,
        emit: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        self.directory()?.list(self.ino, offset, emit);
        self.note_access(file);
        Ok(())
    }

    fn map(&self, file: &File) -> Result<MapSource, Errno> {
        let (fd, read_only) = match &self.body {
            Body::Regular(regular) => (regular.memfd()?, regular.read_only.clone()),
            _ => return Err(Errno::ENODEV),
        };
        self.note_access(file);
        // The memfd lives as long as the mapping holds it, so its address
        // names it.
        let object = Arc::as_ptr(&fd) as usize as u64;
        Ok(MapSource::Host {
            fd,
            object,
            read_only,
        })
    }

    fn truncate(&self, _file: &File, size_bytes: u64) -> Result<(), Errno> {
        self.regular()?.truncate(&self.shared, size_bytes)?;
        self.touch();
        Ok(())
    }

    fn allocate(&self, _file: &File, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        match &self.body {
            Body::Regular(regular) => regular.allocate(&self.shared, mode, offset, len)?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.touch();
        Ok(())
    }

    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
}
