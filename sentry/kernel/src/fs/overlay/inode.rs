//! Inodes of an overlay.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use smallvec::SmallVec;
use syscall_tables::Errno;

use super::dir::OverlayDir;
use super::file::OverlayFile;
use super::{Layer, PRIVATE_PREFIX, Shared, is_opaque, is_whiteout, layer_entry};
use crate::fs::tmpfs::TmpInode;
use crate::sync::WriteTurns;
use crate::task::Creds;
use crate::vfs::{
    Attr, FileKind, FileOps, Inode, InodeRef, OpenRequest, Owner, RenameFlags, SetAttr, VfsPath,
    XattrFlags,
};

/// Lower parts: several for a merged directory, at most one for others.
pub(super) type Lowers = SmallVec<[InodeRef; 1]>;

/// The name an object would be copied up to.
#[derive(Clone)]
pub(super) struct Place {
    pub parent: Arc<OverlayInode>,
    pub name: Vec<u8>,
}

impl Place {
    pub fn new(parent: &OverlayInode, name: &[u8]) -> Option<Self> {
        Some(Self {
            parent: parent.this.upgrade()?,
            name: name.to_vec(),
        })
    }
}

/// An object of an overlay.
pub struct OverlayInode {
    pub(super) shared: Arc<Shared>,
    pub(super) this: Weak<Self>,
    kind: FileKind,
    /// Set at most once, by the copy-up.
    upper: OnceLock<InodeRef>,
    /// Topmost first.
    lower: Lowers,
    /// The number shown.
    ino: AtomicU64,
    /// `None` for the root and for what has been removed.
    pub(super) place: Mutex<Option<Place>>,
    pub(super) copy_lock: Mutex<()>,
    pub(super) write_turns: WriteTurns,
    /// Key in `Shared::live`.
    key: Option<u64>,
}

impl OverlayInode {
    pub(super) fn new_root(
        shared: &Arc<Shared>,
        upper: Option<InodeRef>,
        lower: Vec<InodeRef>,
    ) -> Result<Arc<Self>, Errno> {
        let lower: Lowers = lower.into_iter().collect();
        Self::build(shared, upper, lower, None)
    }

    /// The overlay's object for real ones, the known one if it is in use.
    pub(super) fn build(
        shared: &Arc<Shared>,
        upper: Option<InodeRef>,
        lower: Lowers,
        place: Option<Place>,
    ) -> Result<Arc<Self>, Errno> {
        // The lowest part of a directory and the topmost of a file have the
        // number that lasts.
        let (layer, real) = match (&upper, lower.last()) {
            (_, Some(lower)) => (Layer::Lower, lower),
            (Some(upper), None) => (Layer::Upper, upper),
            (None, None) => return Err(Errno::ENOENT),
        };
        let attr = real.attr()?;
        let ino = shared.number(layer, &attr);
        let kind = upper
            .as_ref()
            .or(lower.first())
            .map_or(attr.kind, |top| top.kind());
        // Names of a lower file part ways when it is copied up, so each has
        // an inode of its own.
        let linked = layer == Layer::Lower && kind != FileKind::Directory && attr.nlink > 1;
        let key = (!linked).then_some(ino);
        // Declared before the guard: dropping the last reference locks again.
        let known: Option<Arc<Self>>;
        let mut live = shared.live.lock();
        known = key.and_then(|key| live.get(&key).and_then(Weak::upgrade));
        if let Some(known) = &known
            && known.is_made_of(upper.as_ref(), kind)
        {
            drop(live);
            if let Some(place) = place {
                let old_place = known.place.lock().replace(place);
                drop(old_place);
            }
            return Ok(known.clone());
        }
        let inode = Arc::new_cyclic(|this| Self {
            shared: shared.clone(),
            this: this.clone(),
            kind,
            upper: upper.map_or_else(OnceLock::new, OnceLock::from),
            lower,
            ino: AtomicU64::new(ino),
            place: Mutex::new(place),
            copy_lock: Mutex::new(()),
            write_turns: WriteTurns::default(),
            key,
        });
        if let Some(key) = key {
            live.insert(key, Arc::downgrade(&inode));
        }
        Ok(inode)
    }

    /// Whether this known object is what a lookup has found.
    fn is_made_of(&self, upper: Option<&InodeRef>, kind: FileKind) -> bool {
        if kind != self.kind {
            return false;
        }
        match (self.upper(), upper) {
            (Some(mine), Some(found)) => same_object(mine, found),
            // Copied up since the lookup, or the other way round.
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => true,
        }
    }

    /// An object that exists in the upper layer alone.
    pub(super) fn build_upper(
        &self,
        upper: InodeRef,
        name: Option<&[u8]>,
    ) -> Result<Arc<Self>, Errno> {
        let place = name.and_then(|name| Place::new(self, name));
        Self::build(&self.shared, Some(upper), Lowers::new(), place)
    }

    pub(super) fn has_upper(&self) -> bool {
        self.upper.get().is_some()
    }

    /// The upper object, if it has been copied up.
    pub(super) fn upper(&self) -> Option<&InodeRef> {
        self.upper.get()
    }

    /// What there was below before any copy-up; topmost first.
    pub(super) fn lower(&self) -> &[InodeRef] {
        &self.lower
    }

    /// The object whose attributes count.
    pub(super) fn real(&self) -> Result<&InodeRef, Errno> {
        let real = self.upper.get().or(self.lower.first());
        real.ok_or(Errno::EIO)
    }

    /// Ends a copy-up, under `copy_lock`.
    pub(super) fn set_upper(&self, upper: InodeRef, ino: Option<u64>) {
        if let Some(ino) = ino {
            self.ino.store(ino, Ordering::Relaxed);
        }
        // The caller has seen that it was not set.
        let _ = self.upper.set(upper);
    }

    /// Whether some of a directory lies in lower layers.
    pub(super) fn has_lower(&self) -> bool {
        !self.lower.is_empty()
    }

    /// Number shown.
    pub(super) fn ino(&self) -> u64 {
        self.ino.load(Ordering::Relaxed)
    }

    /// `..` of a directory; its own number at the root.
    pub(super) fn parent_ino(&self) -> u64 {
        let place = self.place.lock().clone();
        place.map_or_else(|| self.ino(), |place| place.parent.ino())
    }

    /// What lower layers have under `name`.
    pub(super) fn lower_entries(&self, name: &[u8], hidden: bool) -> Result<Lowers, Errno> {
        let mut found = Lowers::new();
        if hidden {
            return Ok(found);
        }
        let count = self.lower.len();
        for (index, dir) in self.lower.iter().enumerate() {
            let Some(entry) = layer_entry(dir, name)? else {
                continue;
            };
            if is_whiteout(&entry)? {
                break;
            }
            let is_dir = entry.kind() == FileKind::Directory;
            if !is_dir {
                if found.is_empty() {
                    found.push(entry);
                }
                break;
            }
            // Nothing can be hidden below the last layer.
            let ends = index + 1 < count && is_opaque(&entry);
            found.push(entry);
            if ends {
                break;
            }
        }
        Ok(found)
    }

    /// Whether a lower layer shows something under `name`.
    pub(super) fn has_lower_entry(&self, name: &[u8]) -> Result<bool, Errno> {
        Ok(!self.lower_entries(name, false)?.is_empty())
    }

    fn find(&self, name: &[u8]) -> Result<Arc<Self>, Errno> {
        if self.kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let mut upper = None;
        let mut hidden = false;
        if let Some(dir) = self.upper()
            && let Some(entry) = layer_entry(dir, name)?
        {
            if is_whiteout(&entry)? {
                return Err(Errno::ENOENT);
            }
            hidden = entry.kind() != FileKind::Directory || is_opaque(&entry);
            upper = Some(entry);
        }
        let mut lower = self.lower_entries(name, hidden)?;
        if upper.is_some() {
            // A directory merges with directories only.
            lower.retain(|entry| entry.kind() == FileKind::Directory);
        }
        if upper.is_none() && lower.is_empty() {
            return Err(Errno::ENOENT);
        }
        Self::build(&self.shared, upper, lower, Place::new(self, name))
    }
}

/// Whether two references name the same object of a layer.
pub(super) fn same_object(a: &InodeRef, b: &InodeRef) -> bool {
    if Arc::ptr_eq(a, b) {
        return true;
    }
    match (a.attr(), b.attr()) {
        (Ok(a), Ok(b)) => (a.dev, a.ino) == (b.dev, b.ino),
        _ => false,
    }
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let mut live = self.shared.live.lock();
            if live
                .get(&key)
                .is_some_and(|known| known.strong_count() == 0)
            {
                live.remove(&key);
            }
        }
        if let Some(upper) = self.upper.get()
            && self.kind != FileKind::Directory
            && let Ok(attr) = upper.attr()
            && attr.nlink == 0
        {
            self.shared.forget_origin(&attr);
        }
        // Parents are let go in a loop: paths may be deep.
        let mut place = self.place.get_mut().take();
        while let Some(Place { parent, .. }) = place {
            place = Arc::into_inner(parent).and_then(|mut last| last.place.get_mut().take());
        }
    }
}

impl Inode for OverlayInode {
    fn kind(&self) -> FileKind {
        self.kind
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let mut attr = self.real()?.attr()?;
        attr.dev = self.shared.dev;
        attr.ino = self.ino();
        let merged = usize::from(self.has_upper()) + self.lower.len() > 1;
        if merged && self.kind == FileKind::Directory {
            // Not known without counting: find(1) understands 1.
            attr.nlink = 1;
        }
        Ok(attr)
    }

    fn owner(&self) -> Result<Owner, Errno> {
        self.real()?.owner()
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        let upper = if changes.size_bytes == Some(0) {
            self.copy_up_empty()?
        } else {
            self.copy_up()?
        };
        upper.set_attr(changes)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        Ok(self.find(name)?)
    }

    fn lookup_revalidate(&self, name: &[u8], child: Option<&InodeRef>) -> bool {
        let Some(dir) = self.lower.first() else {
            return true;
        };
        let Some(child) = child else {
            // Hidden by a whiteout, or absent below as well.
            let hidden = self.upper().is_some_and(|upper| upper.lookup(name).is_ok());
            return hidden || dir.lookup_revalidate(name, None);
        };
        let child: &dyn std::any::Any = child.as_ref();
        let Some(child) = child.downcast_ref::<Self>() else {
            return true;
        };
        if child.kind != FileKind::Directory && child.has_upper() {
            return true;
        }
        match child.lower.first() {
            Some(lower) => dir.lookup_revalidate(name, Some(lower)),
            None => true,
        }
    }

    fn name_valid_until_ns(&self, name: &[u8], child: Option<&InodeRef>) -> u64 {
        // What the upper layer decides stays until it is changed here.
        let Some(dir) = self.lower.first() else {
            return u64::MAX;
        };
        let Some(child) = child else {
            let hidden = self.upper().is_some_and(|upper| upper.lookup(name).is_ok());
            return if hidden {
                u64::MAX
            } else {
                dir.name_valid_until_ns(name, None)
            };
        };
        let child: &dyn std::any::Any = child.as_ref();
        let Some(child) = child.downcast_ref::<Self>() else {
            return 0;
        };
        if child.kind != FileKind::Directory && child.has_upper() {
            return u64::MAX;
        }
        match child.lower.first() {
            Some(lower) => dir.name_valid_until_ns(name, Some(lower)),
            None => u64::MAX,
        }
    }

    fn create(
        &self,
        name: &[u8],
        kind: FileKind,
        perm: u32,
        rdev: u64,
        creds: &Creds,
    ) -> Result<InodeRef, Errno> {
        if kind == FileKind::CharDevice && rdev == 0 {
            // It would be a whiteout.
            return Err(Errno::EPERM);
        }
        Ok(self.add(name, |dir, name| dir.create(name, kind, perm, rdev, creds))?)
    }

    fn mkdir(&self, name: &[u8], perm: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        Ok(self.add_dir(name, perm, creds)?)
    }

    fn symlink(&self, name: &[u8], target: &[u8], creds: &Creds) -> Result<InodeRef, Errno> {
        Ok(self.add(name, |dir, name| dir.symlink(name, target, creds))?)
    }

    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        self.add_link(name, target)
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
        let new_dir: &dyn std::any::Any = new_dir.as_ref();
        let new_dir = new_dir.downcast_ref::<Self>().ok_or(Errno::EXDEV)?;
        self.move_name(name, new_dir, new_name, flags)
    }

    fn tmpfile(&self, perm: u32, creds: &Creds) -> Result<InodeRef, Errno> {
        let upper = self.copy_up()?.tmpfile(perm, creds)?;
        Ok(self.build_upper(upper, None)?)
    }

    fn readlink(&self) -> Result<Vec<u8>, Errno> {
        self.real()?.readlink()
    }

    fn follow_magic(&self) -> Option<Result<VfsPath, Errno>> {
        self.real().ok()?.follow_magic()
    }

    fn open(self: Arc<Self>, request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        if self.kind == FileKind::Directory {
            return Ok(Arc::new(OverlayDir::new(self)));
        }
        let real = if request.write {
            self.copy_up()?
        } else {
            self.real()?.clone()
        };
        let ops = real.clone().open(request)?;
        let any: &dyn std::any::Any = real.as_ref();
        if self.has_upper() && any.is::<TmpInode>() {
            // Nothing about it will change, and it needs no translation.
            return Ok(ops);
        }
        Ok(Arc::new(OverlayFile::new(self, ops, request)))
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if name.starts_with(PRIVATE_PREFIX) {
            return Err(Errno::ENODATA);
        }
        self.real()?.get_xattr(name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<(), Errno> {
        if name.starts_with(PRIVATE_PREFIX) {
            return Err(Errno::EPERM);
        }
        self.copy_up()?.set_xattr(name, value, flags)
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = self.real()?.list_xattr()?;
        names.retain(|name| !name.starts_with(PRIVATE_PREFIX));
        Ok(names)
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        if name.starts_with(PRIVATE_PREFIX) {
            return Err(Errno::ENODATA);
        }
        if !self.has_upper() {
            // Copied up only if there is something to remove.
            self.real()?.get_xattr(name)?;
        }
        self.copy_up()?.remove_xattr(name)
    }
}
