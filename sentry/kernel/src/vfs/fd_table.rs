//! Descriptors of a process.
//!
//! Locks: the table's lock is a leaf; files are dropped outside it.

use std::sync::Arc;

use bitflags::bitflags;
use parking_lot::RwLock;
use syscall_tables::Errno;

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

/// A descriptor table, shared by tasks cloned with `CLONE_FILES`.
#[derive(Default)]
pub struct FdTable {
    slots: RwLock<Vec<Option<Slot>>>,
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
        let slot = slots.get(index).and_then(Option::as_ref);
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
        let free = (least..).find(|&at| slots.get(at).is_none_or(Option::is_none));
        let index = free.ok_or(Errno::EMFILE)?;
        if index as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        let fd = Fd(i32::try_from(index).map_err(|_| Errno::EMFILE)?);
        if slots.len() <= index {
            slots.resize(index + 1, None);
        }
        if let Some(slot) = slots.get_mut(index) {
            *slot = Some(Slot { file, flags });
        }
        Ok(fd)
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
        if slots.len() <= index {
            slots.resize(index + 1, None);
        }
        let slot = slots.get_mut(index).ok_or(Errno::EBADF)?;
        Ok(slot.replace(Slot { file, flags }).map(|old| old.file))
    }

    pub fn set_flags(&self, fd: Fd, flags: FdFlags) -> Result<(), Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        let slot = slots.get_mut(index).and_then(Option::as_mut);
        slot.ok_or(Errno::EBADF)?.flags = flags;
        Ok(())
    }

    /// Takes the file out of `fd`; the caller flushes and drops it.
    pub fn remove(&self, fd: Fd) -> Result<Arc<File>, Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let mut slots = self.slots.write();
        let slot = slots.get_mut(index).and_then(Option::take);
        slot.map(|slot| slot.file).ok_or(Errno::EBADF)
    }

    /// Takes out all files whose descriptor and flags satisfy `choose`
    /// (`execve`, `close_range`, exit).
    pub fn remove_where(&self, mut choose: impl FnMut(Fd, FdFlags) -> bool) -> Vec<Arc<File>> {
        let mut slots = self.slots.write();
        let mut removed = Vec::new();
        for (index, slot) in slots.iter_mut().enumerate() {
            let Ok(number) = i32::try_from(index) else {
                break;
            };
            if slot
                .as_ref()
                .is_some_and(|slot| choose(Fd(number), slot.flags))
                && let Some(slot) = slot.take()
            {
                removed.push(slot.file);
            }
        }
        removed
    }

    /// A copy with the same files (`fork`, `unshare(CLONE_FILES)`).
    pub fn duplicate(&self) -> Self {
        Self {
            slots: RwLock::new(self.slots.read().clone()),
        }
    }

    /// All open descriptors in order.
    pub fn list(&self) -> Vec<(Fd, Arc<File>, FdFlags)> {
        let slots = self.slots.read();
        let numbered = slots.iter().enumerate();
        numbered
            .filter_map(|(index, slot)| {
                let slot = slot.as_ref()?;
                let number = i32::try_from(index).ok()?;
                Some((Fd(number), slot.file.clone(), slot.flags))
            })
            .collect()
    }
}
