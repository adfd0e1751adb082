//! Descriptors of a process.
//!
//! Locks: the table's lock is a leaf; files are dropped outside it.

use std::sync::{Arc, OnceLock};

use bitflags::bitflags;
use parking_lot::RwLock;
use syscall_tables::Errno;

use super::locks::{LockManager, LockOwner};
use super::{File, StatusFlags};

/// A file descriptor number, not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub i32);

bitflags! {
    /// Flags of a descriptor (`F_GETFD`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct FdFlags: u32 {
        const CLOEXEC = 1;
    }
}

#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    flags: FdFlags,
}

#[derive(Default)]
struct Slots {
    list: Vec<Option<Slot>>,
    /// No descriptor below this one is free.
    least_free: usize,
}

/// A descriptor table, shared by tasks cloned with `CLONE_FILES`.
#[derive(Default)]
pub struct FdTable {
    slots: RwLock<Slots>,
    /// Where processes with this table have held POSIX locks.
    locks: OnceLock<Arc<LockManager>>,
}

impl FdTable {
    pub fn new() -> Self {
        Self::default()
    }

    /// The open file at `fd`; `EBADF` if there is none, or one that only
    /// names a place (`O_PATH`), as for most calls.
    pub fn get(&self, fd: Fd) -> Result<Arc<File>, Errno> {
        let file = self.get_raw(fd)?;
        if file.status().contains(StatusFlags::PATH) {
            return Err(Errno::EBADF);
        }
        Ok(file)
    }

    /// As [`Self::get`], `O_PATH` descriptors included.
    pub fn get_raw(&self, fd: Fd) -> Result<Arc<File>, Errno> {
        self.get_with_flags(fd).map(|(file, _)| file)
    }

    pub fn get_with_flags(&self, fd: Fd) -> Result<(Arc<File>, FdFlags), Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let slots = self.slots.read();
        let slot = slots.list.get(index).and_then(Option::as_ref);
        slot.map(|slot| (slot.file.clone(), slot.flags))
            .ok_or(Errno::EBADF)
    }

    /// Puts `file` at the lowest free descriptor from `least` on; `EMFILE` if
    /// that is not below `limit` (`RLIMIT_NOFILE`).
    pub fn insert(
        &self,
        file: Arc<File>,
        flags: FdFlags,
        least: usize,
        limit: u64,
    ) -> Result<Fd, Errno> {
        let mut slots = self.slots.write();
        let from = least.max(slots.least_free);
        let free = (from..).find(|&at| slots.list.get(at).is_none_or(Option::is_none));
        let index = free.ok_or(Errno::EMFILE)?;
        if index as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        let fd = Fd(i32::try_from(index).map_err(|_| Errno::EMFILE)?);
        if slots.list.len() <= index {
            slots.list.resize(index + 1, None);
        }
        if let Some(slot) = slots.list.get_mut(index) {
            *slot = Some(Slot { file, flags });
        }
        if least <= slots.least_free {
            slots.least_free = index + 1;
        }
        Ok(fd)
    }

    /// `EMFILE` if no descriptor below `limit` is free.
    pub fn check_room(&self, limit: u64) -> Result<(), Errno> {
        let slots = self.slots.read();
        let free = |at: &usize| slots.list.get(*at).is_none_or(Option::is_none);
        let index = (slots.least_free..).find(free).ok_or(Errno::EMFILE)?;
        if index as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        Ok(())
    }

    /// Puts `file` at exactly `fd` (`dup2`), answering what was there.
    pub fn replace(
        &self,
        fd: Fd,
        file: Arc<File>,
        flags: FdFlags,
        limit: u64,
    ) -> Result<Option<Arc<File>>, Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        if index as u64 >= limit {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.write();
        if slots.list.len() <= index {
            slots.list.resize(index + 1, None);
        }
        let slot = slots.list.get_mut(index).ok_or(Errno::EBADF)?;
        Ok(slot.replace(Slot { file, flags }).map(|old| old.file))
    }

    pub fn set_flags(&self, fd: Fd, flags: FdFlags) -> Result<(), Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        let slot = slots.list.get_mut(index).and_then(Option::as_mut);
        slot.ok_or(Errno::EBADF)?.flags = flags;
        Ok(())
    }

    /// Takes the file out of `fd`; the caller flushes and drops it.
    pub fn remove(&self, fd: Fd) -> Result<Arc<File>, Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        let slot = slots.list.get_mut(index).and_then(Option::take);
        let file = slot.map(|slot| slot.file).ok_or(Errno::EBADF)?;
        slots.least_free = slots.least_free.min(index);
        Ok(file)
    }

    /// Takes out all files whose descriptor and flags satisfy `choose`
    /// (`execve`, `close_range`, exit).
    pub fn remove_where(&self, mut choose: impl FnMut(Fd, FdFlags) -> bool) -> Vec<Arc<File>> {
        let mut slots = self.slots.write();
        let slots = &mut *slots;
        let mut removed = Vec::new();
        for (index, slot) in slots.list.iter_mut().enumerate() {
            let Ok(number) = i32::try_from(index) else {
                break;
            };
            if slot
                .as_ref()
                .is_some_and(|slot| choose(Fd(number), slot.flags))
                && let Some(slot) = slot.take()
            {
                removed.push(slot.file);
                slots.least_free = slots.least_free.min(index);
            }
        }
        removed
    }

    /// A copy with the same files (`fork`, `unshare(CLONE_FILES)`).
    pub fn duplicate(&self) -> Self {
        let slots = self.slots.read();
        Self {
            slots: RwLock::new(Slots {
                list: slots.list.clone(),
                least_free: slots.least_free,
            }),
            locks: OnceLock::new(),
        }
    }

    /// All open descriptors in order.
    pub fn list(&self) -> Vec<(Fd, Arc<File>, FdFlags)> {
        let slots = self.slots.read();
        let numbered = slots.list.iter().enumerate();
        numbered
            .filter_map(|(index, slot)| {
                let slot = slot.as_ref()?;
                let number = i32::try_from(index).ok()?;
                Some((Fd(number), slot.file.clone(), slot.flags))
            })
            .collect()
    }

    /// Lets POSIX locks of this table end with it.
    pub fn note_locks(&self, manager: &Arc<LockManager>) {
        let _ = self.locks.set(manager.clone());
    }

    /// To be called for each descriptor closed: closes `file` as far as this
    /// table is concerned. POSIX locks on its inode go, whatever descriptor
    /// they were made through.
    pub fn close_file(&self, file: &File) -> Result<(), Errno> {
        if let Some(locks) = self.locks.get()
            && let Ok(key) = file.lock_key()
        {
            locks.unset(key, LockOwner::of_table(self), 0, u64::MAX);
        }
        file.ops.flush(file)
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        if let Some(locks) = self.locks.get() {
            locks.release_owner(LockOwner::of_table(self));
        }
    }
}
