//! Creating, removing and renaming in an overlay.
//!
//! Whatever replaces a whiteout, or is replaced by one, is made under a name
//! in the work directory and moved into place in one step.

use std::sync::Arc;

use syscall_tables::Errno;

use super::inode::{OverlayInode, Place};
use super::{OPAQUE, is_whiteout, layer_entry};
use crate::task::Creds;
use crate::vfs::{DirEntry, FileKind, Inode, InodeRef, RenameFlags, XattrFlags};

/// What the upper directory has under a name.
enum UpperEntry {
    Nothing,
    Whiteout,
    Object(InodeRef),
}

fn upper_entry(dir: &InodeRef, name: &[u8]) -> Result<UpperEntry, Errno> {
    match layer_entry(dir, name)? {
        None => Ok(UpperEntry::Nothing),
        Some(entry) if is_whiteout(&entry)? => Ok(UpperEntry::Whiteout),
        Some(entry) => Ok(UpperEntry::Object(entry)),
    }
}

fn make_opaque(dir: &InodeRef) -> Result<(), Errno> {
    dir.set_xattr(OPAQUE, b"y", XattrFlags::empty())
}

fn make_whiteout(dir: &InodeRef, name: &[u8]) -> Result<InodeRef, Errno> {
    dir.create(name, FileKind::CharDevice, 0, 0, &Creds::root())
}

impl OverlayInode {
    /// A new object that is not a directory.
    pub(super) fn add(
        &self,
        name: &[u8],
        make: impl FnOnce(&InodeRef, &[u8]) -> Result<InodeRef, Errno>,
    ) -> Result<Arc<Self>, Errno> {
        let dir = self.copy_up()?;
        let _names = self.shared.names.lock();
        let made = match upper_entry(&dir, name)? {
            UpperEntry::Nothing => make(&dir, name)?,
            UpperEntry::Object(_) => return Err(Errno::EEXIST),
            UpperEntry::Whiteout => {
                let work = self.shared.work()?;
                let work_name = self.shared.work_name();
                let made = make(work, &work_name)?;
                self.inherit_group(&dir, &made)?;
                work.rename(&work_name, &dir, name, RenameFlags::empty())
                    .inspect_err(|_| discard(work, &work_name))?;
                made
            }
        };
        self.build_upper(made, Some(name))
    }

    /// What is made in the work directory misses the set-group-id rule of the
    /// directory it goes to.
    fn inherit_group(&self, dir: &InodeRef, made: &InodeRef) -> Result<(), Errno> {
        let attr = dir.attr()?;
        if attr.perm & crate::vfs::perm::S_ISGID == 0 {
            return Ok(());
        }
        let perm = (made.kind() == FileKind::Directory)
            .then(|| made.attr())
            .transpose()?
            .map(|attr| attr.perm | crate::vfs::perm::S_ISGID);
        made.set_attr(&crate::vfs::SetAttr {
            gid: Some(attr.gid),
            perm,
            ..crate::vfs::SetAttr::default()
        })
    }

    pub(super) fn add_dir(
        &self,
        name: &[u8],
        perm: u32,
        creds: &Creds,
    ) -> Result<Arc<Self>, Errno> {
        let dir = self.copy_up()?;
        let _names = self.shared.names.lock();
        let made = match upper_entry(&dir, name)? {
            UpperEntry::Nothing => {
                // Made in place: if lower layers had the name, it would have
                // been found.
                dir.mkdir(name, perm, creds)?
            }
            UpperEntry::Object(_) => return Err(Errno::EEXIST),
            UpperEntry::Whiteout => {
                let work = self.shared.work()?;
                let work_name = self.shared.work_name();
                let made = work.mkdir(&work_name, perm, creds)?;
                make_opaque(&made)
                    .and_then(|()| self.inherit_group(&dir, &made))
                    .and_then(|()| work.rename(&work_name, &dir, name, RenameFlags::EXCHANGE))
                    .inspect_err(|_| discard(work, &work_name))?;
                // The whiteout came out.
                discard(work, &work_name);
                made
            }
        };
        self.build_upper(made, Some(name))
    }

    pub(super) fn add_link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        let target: &dyn std::any::Any = target.as_ref();
        let target = target.downcast_ref::<Self>().ok_or(Errno::EXDEV)?;
        let upper = target.copy_up()?;
        let dir = self.copy_up()?;
        let _names = self.shared.names.lock();
        match upper_entry(&dir, name)? {
            UpperEntry::Nothing => dir.link(name, &upper),
            UpperEntry::Object(_) => Err(Errno::EEXIST),
            UpperEntry::Whiteout => {
                let work = self.shared.work()?;
                let work_name = self.shared.work_name();
                work.link(&work_name, &upper)?;
                work.rename(&work_name, &dir, name, RenameFlags::empty())
                    .inspect_err(|_| discard(work, &work_name))
            }
        }
    }

    /// The object a name leads to, for removal.
    fn child(&self, name: &[u8]) -> Result<Arc<Self>, Errno> {
        let child: Arc<dyn std::any::Any + Send + Sync> = self.lookup(name)?;
        child.downcast().map_err(|_| Errno::EIO)
    }

    pub(super) fn remove_file(&self, name: &[u8]) -> Result<(), Errno> {
        let child = self.child(name)?;
        if child.kind() == FileKind::Directory {
            return Err(Errno::EISDIR);
        }
        let dir = self.copy_up()?;
        let _names = self.shared.names.lock();
        self.erase(&dir, name)?;
        child.lose_place(self, name);
        Ok(())
    }

    /// Takes a name that is not a directory out of the merged view.
    fn erase(&self, dir: &InodeRef, name: &[u8]) -> Result<(), Errno> {
        let covered = self.has_lower_entry(name)?;
        match (upper_entry(dir, name)?, covered) {
            (UpperEntry::Object(_), false) => dir.unlink(name),
            (UpperEntry::Object(_), true) => {
                let work = self.shared.work()?;
                let work_name = self.shared.work_name();
                make_whiteout(work, &work_name)?;
                work.rename(&work_name, dir, name, RenameFlags::empty())
                    .inspect_err(|_| discard(work, &work_name))
            }
            (UpperEntry::Nothing, true) => make_whiteout(dir, name).map(drop),
            (UpperEntry::Nothing | UpperEntry::Whiteout, _) => Err(Errno::ENOENT),
        }
    }

    /// The object has no name any more that it could be copied up to.
    fn lose_place(&self, parent: &Self, name: &[u8]) {
        let mut place = self.place.lock();
        let was_here = place.as_ref().is_some_and(|place| {
            place.name == name && std::ptr::eq(Arc::as_ptr(&place.parent), parent)
        });
        let old_place = if was_here { place.take() } else { None };
        drop(place);
        drop(old_place);
    }

    pub(super) fn remove_dir(&self, name: &[u8]) -> Result<(), Errno> {
        let child = self.child(name)?;
        if child.kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let dir = self.copy_up()?;
        let _names = self.shared.names.lock();
        if !child.is_empty()? {
            return Err(Errno::ENOTEMPTY);
        }
        let covered = self.has_lower_entry(name)?;
        match (upper_entry(&dir, name)?, covered) {
            (UpperEntry::Object(upper), false) => {
                clear_whiteouts(&upper)?;
                dir.rmdir(name)?;
            }
            (UpperEntry::Object(upper), true) => {
                let work = self.shared.work()?;
                let work_name = self.shared.work_name();
                make_whiteout(work, &work_name)?;
                work.rename(&work_name, &dir, name, RenameFlags::EXCHANGE)
                    .inspect_err(|_| discard(work, &work_name))?;
                clear_whiteouts(&upper)?;
                work.rmdir(&work_name)?;
            }
            (UpperEntry::Nothing, true) => make_whiteout(&dir, name).map(drop)?,
            (UpperEntry::Nothing | UpperEntry::Whiteout, _) => return Err(Errno::ENOENT),
        }
        child.lose_place(self, name);
        Ok(())
    }

    /// Whether the merged directory shows no names.
    fn is_empty(&self) -> Result<bool, Errno> {
        let mut empty = true;
        let entries = self.merged_entries()?;
        for entry in &entries {
            empty &= matches!(entry.name.as_slice(), b"." | b"..");
        }
        Ok(empty)
    }

    pub(super) fn move_name(
        &self,
        name: &[u8],
        new_dir: &Self,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let source = self.child(name)?;
        let target = match new_dir.child(new_name) {
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        // The lower part of a directory cannot follow.
        let is_dir = source.kind() == FileKind::Directory;
        if is_dir && source.has_lower() {
            return Err(Errno::EXDEV);
        }
        if exchange
            && let Some(target) = &target
            && target.kind() == FileKind::Directory
            && target.has_lower()
        {
            return Err(Errno::EXDEV);
        }
        source.copy_up()?;
        if exchange && let Some(target) = &target {
            target.copy_up()?;
        }
        let from = self.copy_up()?;
        let to = new_dir.copy_up()?;
        let _names = self.shared.names.lock();
        if exchange {
            let target = target.ok_or(Errno::ENOENT)?;
            self.exchange((&from, name, &source), new_dir, (&to, new_name, &target))?;
        } else {
            if let Some(target) = &target {
                match (is_dir, target.kind() == FileKind::Directory) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) if !target.is_empty()? => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
            }
            self.replace((&from, name, &source), new_dir, (&to, new_name))?;
            if let Some(target) = &target {
                target.lose_place(new_dir, new_name);
            }
        }
        let old_place = std::mem::replace(&mut *source.place.lock(), Place::new(new_dir, new_name));
        drop(old_place);
        Ok(())
    }

    fn exchange(
        &self,
        (from, name, source): (&InodeRef, &[u8], &Arc<Self>),
        new_dir: &Self,
        (to, new_name, target): (&InodeRef, &[u8], &Arc<Self>),
    ) -> Result<(), Errno> {
        // Each directory would merge with what its new place has below.
        for (moved, dir, name) in [(source, new_dir, new_name), (target, self, name)] {
            if moved.kind() == FileKind::Directory
                && dir.has_lower_entry(name)?
                && let Some(upper) = moved.upper()
            {
                make_opaque(upper)?;
            }
        }
        from.rename(name, to, new_name, RenameFlags::EXCHANGE)?;
        let old_place = std::mem::replace(&mut *target.place.lock(), Place::new(self, name));
        drop(old_place);
        Ok(())
    }

    fn replace(
        &self,
        (from, name, source): (&InodeRef, &[u8], &Arc<Self>),
        new_dir: &Self,
        (to, new_name): (&InodeRef, &[u8]),
    ) -> Result<(), Errno> {
        let is_dir = source.kind() == FileKind::Directory;
        let leaves_whiteout = self.has_lower_entry(name)?;
        if is_dir
            && new_dir.has_lower_entry(new_name)?
            && let Some(upper) = source.upper()
        {
            make_opaque(upper)?;
        }
        match upper_entry(to, new_name)? {
            UpperEntry::Whiteout if is_dir => {
                // The whiteout goes where the directory was.
                from.rename(name, to, new_name, RenameFlags::EXCHANGE)?;
                if !leaves_whiteout {
                    from.unlink(name)?;
                }
                return Ok(());
            }
            UpperEntry::Object(target) if target.kind() == FileKind::Directory => {
                clear_whiteouts(&target)?;
            }
            _ => {}
        }
        if !leaves_whiteout {
            return from.rename(name, to, new_name, RenameFlags::empty());
        }
        match from.rename(name, to, new_name, RenameFlags::WHITEOUT) {
            // A layer that can't do both at once.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPERM) => {
                from.rename(name, to, new_name, RenameFlags::empty())?;
                make_whiteout(from, name).map(drop)
            }
            done => done,
        }
    }
}

/// Removes whatever a name of the work directory leads to.
fn discard(work: &InodeRef, name: &[u8]) {
    let _ = work.unlink(name).or_else(|_| work.rmdir(name));
}

/// Empties an upper directory that shows nothing.
fn clear_whiteouts(dir: &InodeRef) -> Result<(), Errno> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut collect = |entry: DirEntry| {
        if entry.kind == FileKind::CharDevice {
            names.push(entry.name.into_vec());
        }
        true
    };
    super::dir::list_layer(dir, &mut collect)?;
    for name in names {
        if let Some(entry) = layer_entry(dir, &name)?
            && is_whiteout(&entry)?
        {
            dir.unlink(&name)?;
        }
    }
    Ok(())
}
