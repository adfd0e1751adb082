//! Directories of tmpfs.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use syscall_tables::Errno;

use super::inode::{Body, TmpInode};
use crate::task::Creds;
use crate::vfs::{DirEntry, EntryName, FileKind, Inode, RenameFlags};

/// What `size` counts per entry, as Linux shows it.
const ENTRY_SIZE: u64 = 20;

/// First position of an entry that is not `.` or `..`.
const FIRST_OFFSET: u64 = 2;

struct Entry {
    name: Arc<[u8]>,
    inode: Arc<TmpInode>,
}

#[derive(Default)]
struct Entries {
    by_name: HashMap<Arc<[u8]>, u64>,
    /// By position: an entry keeps its own until it is removed.
    by_offset: BTreeMap<u64, Entry>,
    /// Entries made so far.
    made: u64,
    /// The directory itself has been removed.
    dead: bool,
}

/// Names of a directory.
pub(super) struct Directory {
    entries: RwLock<Entries>,
    parent: RwLock<Weak<TmpInode>>,
}

impl Directory {
    pub fn new(parent: Weak<TmpInode>) -> Self {
        Self {
            entries: RwLock::default(),
            parent: RwLock::new(parent),
        }
    }

    pub fn get(&self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let entries = self.entries.read();
        let offset = entries.by_name.get(name)?;
        let entry = entries.by_offset.get(offset)?;
        Some(entry.inode.clone())
    }

    pub fn size(&self) -> u64 {
        let count = self.entries.read().by_name.len() as u64;
        (count + 2) * ENTRY_SIZE
    }

    /// Behind the last entry.
    pub fn end_offset(&self) -> u64 {
        self.entries.read().made + FIRST_OFFSET
    }

    fn insert(&self, name: &[u8], inode: Arc<TmpInode>) -> Result<(), Errno> {
        let mut entries = self.entries.write();
        if entries.dead {
            return Err(Errno::ENOENT);
        }
        let offset = entries.made + FIRST_OFFSET;
        entries.made += 1;
        let name: Arc<[u8]> = Arc::from(name);
        entries.by_name.insert(name.clone(), offset);
        entries.by_offset.insert(offset, Entry { name, inode });
        Ok(())
    }

    /// Lets an existing name lead to `inode`, in its old position; answers
    /// what it led to.
    fn replace(&self, name: &[u8], inode: Arc<TmpInode>) -> Option<Arc<TmpInode>> {
        let mut entries = self.entries.write();
        let offset = entries.by_name.get(name).copied()?;
        let entry = entries.by_offset.get_mut(&offset)?;
        Some(std::mem::replace(&mut entry.inode, inode))
    }

    fn remove(&self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let mut entries = self.entries.write();
        let offset = entries.by_name.remove(name)?;
        entries.by_offset.remove(&offset).map(|entry| entry.inode)
    }

    /// Takes no more names from now on; `ENOTEMPTY` if there are any.
    fn kill(&self) -> Result<(), Errno> {
        let mut entries = self.entries.write();
        if !entries.by_name.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        entries.dead = true;
        Ok(())
    }

    fn is_dead(&self) -> bool {
        self.entries.read().dead
    }

    pub fn list(&self, ino: u64, offset: u64, emit: &mut dyn FnMut(DirEntry) -> bool) {
        let dot = |name: &[u8], ino, next_offset| DirEntry {
            name: EntryName::from_slice(name),
            ino,
            kind: FileKind::Directory,
            next_offset,
        };
        if offset == 0 && !emit(dot(b".", ino, 1)) {
            return;
        }
        if offset <= 1 {
            let parent = self.parent.read().upgrade();
            let parent = parent.map_or(ino, |parent| parent.ino);
            if !emit(dot(b"..", parent, FIRST_OFFSET)) {
                return;
            }
        }
        let entries = self.entries.read();
        let from = Bound::Included(offset.max(FIRST_OFFSET));
        for (&at, entry) in entries.by_offset.range((from, Bound::Unbounded)) {
            let more = emit(DirEntry {
                name: EntryName::from_slice(&entry.name),
                ino: entry.inode.ino,
                kind: entry.inode.kind(),
                next_offset: at + 1,
            });
            if !more {
                break;
            }
        }
    }

    /// Empties a directory that is being dropped, its subdirectories in a
    /// loop: a tree may be deeper than the stack.
    pub fn drop_entries(&mut self) {
        fn take(directory: &mut Directory) -> impl Iterator<Item = Arc<TmpInode>> + use<> {
            let entries = std::mem::take(directory.entries.get_mut());
            entries.by_offset.into_values().map(|entry| entry.inode)
        }
        let mut rest: Vec<Arc<TmpInode>> = take(self).collect();
        while let Some(inode) = rest.pop() {
            if let Some(mut last) = Arc::into_inner(inode)
                && let Body::Directory(directory) = &mut last.body
            {
                rest.extend(take(directory));
            }
        }
    }
}

/// Changes of names.
impl TmpInode {
    /// A new inode called `name` in this directory.
    pub(super) fn add_child(
        &self,
        name: &[u8],
        body: Body,
        perm: u32,
        creds: &Creds,
    ) -> Result<Arc<Self>, Errno> {
        let directory = self.directory()?;
        let _names = self.shared.names.lock();
        if directory.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        if directory.is_dead() {
            return Err(Errno::ENOENT);
        }
        let child = self.new_child(body, perm, creds)?;
        directory.insert(name, child.clone())?;
        if child.kind() == FileKind::Directory {
            self.add_nlink(1);
        }
        self.touch();
        Ok(child)
    }

    pub(super) fn add_link(&self, name: &[u8], target: &Self) -> Result<(), Errno> {
        if !Arc::ptr_eq(&self.shared, &target.shared) {
            return Err(Errno::EXDEV);
        }
        if target.kind() == FileKind::Directory {
            return Err(Errno::EPERM);
        }
        let directory = self.directory()?;
        let target = target.this.upgrade().ok_or(Errno::ENOENT)?;
        let _names = self.shared.names.lock();
        if directory.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        directory.insert(name, target.clone())?;
        target.add_nlink(1);
        self.touch();
        Ok(())
    }

    pub(super) fn remove_file(&self, name: &[u8]) -> Result<(), Errno> {
        let directory = self.directory()?;
        let names = self.shared.names.lock();
        let child = directory.get(name).ok_or(Errno::ENOENT)?;
        if child.kind() == FileKind::Directory {
            return Err(Errno::EISDIR);
        }
        let entry = directory.remove(name);
        child.add_nlink(-1);
        self.touch();
        drop(names);
        // Freed without the lock: its content may be large.
        drop((entry, child));
        Ok(())
    }

    pub(super) fn remove_dir(&self, name: &[u8]) -> Result<(), Errno> {
        let directory = self.directory()?;
        let names = self.shared.names.lock();
        let child = directory.get(name).ok_or(Errno::ENOENT)?;
        child.directory()?.kill()?;
        let entry = directory.remove(name);
        child.meta.write().nlink = 0;
        self.add_nlink(-1);
        self.touch();
        drop(names);
        drop((entry, child));
        Ok(())
    }

    /// Whether this inode is `below` or above it.
    fn is_above(&self, below: &Self) -> bool {
        let mut at = below.this.upgrade();
        while let Some(inode) = at {
            if std::ptr::eq(self, Arc::as_ptr(&inode)) {
                return true;
            }
            at = inode
                .directory()
                .ok()
                .and_then(|directory| directory.parent.read().upgrade());
        }
        false
    }

    pub(super) fn move_entry(
        &self,
        name: &[u8],
        new_dir: &Self,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        if !Arc::ptr_eq(&self.shared, &new_dir.shared) {
            return Err(Errno::EXDEV);
        }
        let (from, to) = (self.directory()?, new_dir.directory()?);
        let names = self.shared.names.lock();
        let moved = from.get(name).ok_or(Errno::ENOENT)?;
        let target = to.get(new_name);
        let moved_is_dir = moved.kind() == FileKind::Directory;
        if moved_is_dir && moved.is_above(new_dir) {
            return Err(Errno::EINVAL);
        }
        let displaced = match &target {
            None if flags.contains(RenameFlags::EXCHANGE) => return Err(Errno::ENOENT),
            None if to.is_dead() => return Err(Errno::ENOENT),
            None => {
                to.insert(new_name, moved.clone())?;
                None
            }
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EEXIST),
            Some(target) if Arc::ptr_eq(target, &moved) => return Ok(()),
            Some(target) if flags.contains(RenameFlags::EXCHANGE) => {
                let target_is_dir = target.kind() == FileKind::Directory;
                if target_is_dir && target.is_above(self) {
                    return Err(Errno::EINVAL);
                }
                to.replace(new_name, moved.clone());
                from.replace(name, target.clone());
                moved.adopt_by(new_dir);
                target.adopt_by(self);
                new_dir.add_nlink(i64::from(moved_is_dir) - i64::from(target_is_dir));
                self.add_nlink(i64::from(target_is_dir) - i64::from(moved_is_dir));
                self.touch();
                new_dir.touch();
                return Ok(());
            }
            Some(target) => {
                match (moved_is_dir, target.directory()) {
                    (true, Ok(directory)) => directory.kill()?,
                    (true, Err(_)) => return Err(Errno::ENOTDIR),
                    (false, Ok(_)) => return Err(Errno::EISDIR),
                    (false, Err(_)) => {}
                }
                let displaced = to.replace(new_name, moved.clone());
                if moved_is_dir {
                    target.meta.write().nlink = 0;
                    new_dir.add_nlink(-1);
                } else {
                    target.add_nlink(-1);
                }
                displaced
            }
        };
        let entry = if flags.contains(RenameFlags::WHITEOUT) {
            from.replace(name, self.new_whiteout()?)
        } else {
            from.remove(name)
        };
        if moved_is_dir {
            self.add_nlink(-1);
            new_dir.add_nlink(1);
        }
        moved.adopt_by(new_dir);
        moved.touch_ctime();
        self.touch();
        new_dir.touch();
        drop(names);
        drop((entry, displaced, target));
        Ok(())
    }

    /// Sets `..` after a move.
    fn adopt_by(&self, parent: &Self) {
        if let Body::Directory(directory) = &self.body {
            *directory.parent.write() = parent.this.clone();
        }
    }

    /// What overlay file systems take for "removed here".
    fn new_whiteout(&self) -> Result<Arc<Self>, Errno> {
        let kind = FileKind::CharDevice;
        self.new_child(Body::Node { kind, rdev: 0 }, 0, &Creds::root())
    }
}
