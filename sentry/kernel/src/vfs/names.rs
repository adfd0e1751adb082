//! Changes of names: what `mkdir(2)`, `unlink(2)`, `rename(2)` and their like
//! do once their path is walked. Errors come in the order of Linux.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use syscall_tables::Errno;

use super::lookup::lookup_locked;
use super::path::{Last, ParentAndLast};
use super::perm::{self, Access, S_ISGID, S_ISUID};
use super::{Dentry, FileKind, InodeRef, RenameFlags, Vfs, VfsPath};
use crate::task::{CapSet, Creds};

/// Whether a new name may be followed by slashes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NewKind {
    Directory,
    Other,
}

impl Vfs {
    /// A file, FIFO, socket or device node. `perm` has the umask applied; the
    /// caller has checked `CAP_MKNOD`.
    pub fn mknod(
        &self,
        creds: &Creds,
        at: &ParentAndLast,
        kind: FileKind,
        perm: u32,
        rdev: u64,
    ) -> Result<VfsPath, Errno> {
        add_name(creds, at, NewKind::Other, |dir, name| {
            dir.create(name, kind, perm, rdev, creds)
        })
    }

    /// A directory; `perm` has the umask applied.
    pub fn mkdir(&self, creds: &Creds, at: &ParentAndLast, perm: u32) -> Result<VfsPath, Errno> {
        add_name(creds, at, NewKind::Directory, |dir, name| {
            dir.mkdir(name, perm, creds)
        })
    }

    /// A symlink to `target`.
    pub fn symlink(
        &self,
        creds: &Creds,
        at: &ParentAndLast,
        target: &[u8],
    ) -> Result<VfsPath, Errno> {
        add_name(creds, at, NewKind::Other, |dir, name| {
            dir.symlink(name, target, creds)
        })
    }

    /// A hard link to `old`.
    pub fn link(&self, creds: &Creds, old: &VfsPath, at: &ParentAndLast) -> Result<VfsPath, Errno> {
        let inode = old.inode()?;
        add_name(creds, at, NewKind::Other, |dir, name| {
            if !Arc::ptr_eq(&old.mount, &at.parent.mount) {
                return Err(Errno::EXDEV);
            }
            self.check_link_source(creds, &inode)?;
            if inode.kind() == FileKind::Directory {
                return Err(Errno::EPERM);
            }
            let nameless = inode.attr()?.nlink == 0;
            if nameless && !old.dentry.is_linkable() {
                return Err(Errno::ENOENT);
            }
            dir.link(name, &inode)?;
            Ok(inode.clone())
        })
    }

    /// `protected_hardlinks`: links only to what one owns or could write.
    fn check_link_source(&self, creds: &Creds, inode: &InodeRef) -> Result<(), Errno> {
        if !self.sysctl.protected_hardlinks.load(Ordering::Relaxed) {
            return Ok(());
        }
        let attr = inode.attr()?;
        if perm::check_owner(&attr, creds).is_ok() {
            return Ok(());
        }
        let plain = attr.kind == FileKind::Regular
            && attr.perm & S_ISUID == 0
            && attr.perm & (S_ISGID | 0o010) != (S_ISGID | 0o010);
        if plain && perm::check(&attr, creds, Access::READ | Access::WRITE).is_ok() {
            return Ok(());
        }
        Err(Errno::EPERM)
    }

    /// Removes a name that is not a directory.
    pub fn unlink(&self, creds: &Creds, at: &ParentAndLast) -> Result<VfsPath, Errno> {
        let name = at.name(Errno::EISDIR)?;
        remove_name(creds, at, name, |dir, victim, inode| {
            let is_dir = inode.kind() == FileKind::Directory;
            if at.trailing_slash {
                return Err(if is_dir {
                    Errno::EISDIR
                } else {
                    Errno::ENOTDIR
                });
            }
            if is_dir {
                return Err(Errno::EISDIR);
            }
            if at.parent.mount.child_at(victim).is_some() {
                return Err(Errno::EBUSY);
            }
            dir.unlink(name)
        })
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, creds: &Creds, at: &ParentAndLast) -> Result<VfsPath, Errno> {
        let name = match &at.last {
            Last::Name(name) => name,
            Last::DotDot => return Err(Errno::ENOTEMPTY),
            Last::Dot => return Err(Errno::EINVAL),
            Last::Root => return Err(Errno::EBUSY),
        };
        remove_name(creds, at, name, |dir, victim, inode| {
            if inode.kind() != FileKind::Directory {
                return Err(Errno::ENOTDIR);
            }
            if at.parent.mount.child_at(victim).is_some() {
                return Err(Errno::EBUSY);
            }
            dir.rmdir(name)
        })
    }

    /// `renameat2(2)`.
    pub fn rename(
        &self,
        creds: &Creds,
        old: &ParentAndLast,
        new: &ParentAndLast,
        flags: RenameFlags,
    ) -> Result<Renamed, Errno> {
        if !Arc::ptr_eq(&old.parent.mount, &new.parent.mount) {
            return Err(Errno::EXDEV);
        }
        let old_name = old.name(Errno::EBUSY)?;
        let new_name = new.name(if flags.contains(RenameFlags::NOREPLACE) {
            Errno::EEXIST
        } else {
            Errno::EBUSY
        })?;
        if old.parent.mount.is_readonly() {
            return Err(Errno::EROFS);
        }
        let (old_dir, new_dir) = (&old.parent.dentry, &new.parent.dentry);
        if Arc::ptr_eq(old_dir, new_dir) {
            let _dir = old_dir.dir_lock.write();
            return rename_locked(creds, (old, old_name), (new, new_name), flags);
        }
        let _rename = self.rename_lock.lock();
        // Ancestor first; unrelated ones in any order, under the rename lock.
        let (first, second) = if new_dir.is_ancestor_of(old_dir) {
            (new_dir, old_dir)
        } else {
            (old_dir, new_dir)
        };
        let _first = first.dir_lock.write();
        let _second = second.dir_lock.write();
        rename_locked(creds, (old, old_name), (new, new_name), flags)
    }
}

/// What [`Vfs::rename`] moved, for those who watch.
pub struct Renamed {
    /// The moved object at its new place; `None` if both names were links to
    /// the same inode and nothing happened.
    pub moved: Option<VfsPath>,
    /// What the new name led to before.
    pub replaced: Option<Arc<Dentry>>,
}

fn add_name(
    creds: &Creds,
    at: &ParentAndLast,
    kind: NewKind,
    make: impl FnOnce(&InodeRef, &[u8]) -> Result<InodeRef, Errno>,
) -> Result<VfsPath, Errno> {
    let name = at.name(Errno::EEXIST)?;
    let _lock = at.parent.dentry.dir_lock.write();
    let child = lookup_locked(&at.parent, name)?;
    if child.inode().is_some() {
        return Err(Errno::EEXIST);
    }
    if at.trailing_slash && kind != NewKind::Directory {
        return Err(Errno::ENOENT);
    }
    if at.parent.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    if at.parent.dentry.is_removed() {
        return Err(Errno::ENOENT);
    }
    perm::check_dir_change(&at.parent, creds)?;
    match make(at.parent.inode_ref()?, name) {
        Ok(inode) => Ok(VfsPath {
            mount: at.parent.mount.clone(),
            dentry: child.instantiate(inode),
        }),
        Err(errno) => {
            // The file system knows better than the negative entry.
            if errno == Errno::EEXIST {
                child.forget();
            }
            Err(errno)
        }
    }
}

fn remove_name(
    creds: &Creds,
    at: &ParentAndLast,
    name: &[u8],
    remove: impl FnOnce(&InodeRef, &Arc<Dentry>, &InodeRef) -> Result<(), Errno>,
) -> Result<VfsPath, Errno> {
    if at.parent.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    let _lock = at.parent.dentry.dir_lock.write();
    let victim = lookup_locked(&at.parent, name)?;
    let inode = victim.inode().ok_or(Errno::ENOENT)?;
    check_delete(creds, &at.parent, inode)?;
    match remove(at.parent.inode_ref()?, &victim, inode) {
        Ok(()) => {
            victim.remove();
            Ok(VfsPath {
                mount: at.parent.mount.clone(),
                dentry: victim,
            })
        }
        Err(errno) => {
            if errno == Errno::ENOENT {
                victim.forget();
            }
            Err(errno)
        }
    }
}

fn check_delete(creds: &Creds, dir: &VfsPath, victim: &InodeRef) -> Result<(), Errno> {
    let dir = perm::check_dir_change(dir, creds)?;
    perm::check_sticky(&dir, victim, creds)
}

fn rename_locked(
    creds: &Creds,
    (old, old_name): (&ParentAndLast, &[u8]),
    (new, new_name): (&ParentAndLast, &[u8]),
    flags: RenameFlags,
) -> Result<Renamed, Errno> {
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let source = lookup_locked(&old.parent, old_name)?;
    let inode = source.inode().ok_or(Errno::ENOENT)?;
    let target = lookup_locked(&new.parent, new_name)?;
    if target.inode().is_some() && flags.contains(RenameFlags::NOREPLACE) {
        return Err(Errno::EEXIST);
    }
    let is_dir = inode.kind() == FileKind::Directory;
    let target_is_dir = target
        .inode()
        .is_some_and(|inode| inode.kind() == FileKind::Directory);
    if exchange {
        if target.inode().is_none() {
            return Err(Errno::ENOENT);
        }
        if new.trailing_slash && !target_is_dir {
            return Err(Errno::ENOTDIR);
        }
    }
    if !is_dir && (old.trailing_slash || (!exchange && new.trailing_slash)) {
        return Err(Errno::ENOTDIR);
    }
    if source.is_ancestor_of(&new.parent.dentry) {
        return Err(Errno::EINVAL);
    }
    if target.is_ancestor_of(&old.parent.dentry) {
        return Err(if exchange {
            Errno::EINVAL
        } else {
            Errno::ENOTEMPTY
        });
    }
    if let Some(target_inode) = target.inode()
        && Arc::ptr_eq(inode, target_inode)
    {
        return Ok(Renamed {
            moved: None,
            replaced: None,
        });
    }
    check_delete(creds, &old.parent, inode)?;
    match target.inode() {
        None => {
            if new.parent.dentry.is_removed() {
                return Err(Errno::ENOENT);
            }
            perm::check_dir_change(&new.parent, creds)?;
        }
        Some(target_inode) => {
            check_delete(creds, &new.parent, target_inode)?;
            if !exchange {
                match (is_dir, target_is_dir) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    _ => {}
                }
            }
        }
    }
    // A directory that gets another parent has its `..` rewritten.
    if !Arc::ptr_eq(&old.parent.dentry, &new.parent.dentry) {
        if is_dir {
            perm::check(&inode.attr()?, creds, Access::WRITE)?;
        }
        if let Some(target_inode) = target.inode()
            && exchange
            && target_is_dir
        {
            perm::check(&target_inode.attr()?, creds, Access::WRITE)?;
        }
    }
    let mount = &old.parent.mount;
    if mount.child_at(&source).is_some() || mount.child_at(&target).is_some() {
        return Err(Errno::EBUSY);
    }
    if flags.contains(RenameFlags::WHITEOUT) && !creds.has(CapSet::MKNOD) {
        return Err(Errno::EPERM);
    }
    let new_dir = new.parent.inode()?;
    let done = old
        .parent
        .inode_ref()?
        .rename(old_name, &new_dir, new_name, flags);
    if let Err(errno) = done {
        if errno == Errno::ENOENT {
            source.forget();
        }
        return Err(errno);
    }
    let replaced = if exchange {
        source.exchange(&target);
        None
    } else {
        target.remove();
        source.move_to(&new.parent.dentry, new_name);
        target.inode().is_some().then_some(target)
    };
    Ok(Renamed {
        moved: Some(VfsPath {
            mount: mount.clone(),
            dentry: source,
        }),
        replaced,
    })
}
