//! Objects of one kind by id and by key.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{IPC_CREAT, IPC_EXCL};

use super::Perm;
use crate::task::{Creds, UserNamespace};

/// Bits of an id that are the index; above them is the sequence number.
pub(super) const INDEX_BITS: u32 = 15;
const MAX_SEQUENCE: i32 = 1 << (31 - INDEX_BITS as i32 - 1);

/// An object in a registry.
pub trait Object: Send + Sync {
    /// Runs `look` on owner and mode.
    fn with_perm<T>(&self, look: impl FnOnce(&mut Perm) -> T) -> T;
}

struct Slots<T> {
    /// Objects by index.
    objects: Vec<Option<(i32, Arc<T>)>>,
    keys: HashMap<i32, usize>,
    sequence: i32,
    count: usize,
}

/// Objects of one kind in a namespace.
pub struct Registry<T> {
    slots: Mutex<Slots<T>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self {
            slots: Mutex::new(Slots {
                objects: Vec::new(),
                keys: HashMap::new(),
                sequence: 0,
                count: 0,
            }),
        }
    }
}

impl<T: Object> Registry<T> {
    /// The `get` calls: finds or makes the object of `key`. `fits` checks an
    /// existing one against the request, `make` makes one as long as there are
    /// fewer than `most`.
    pub fn get_or_make(
        &self,
        key: i32,
        flags: u32,
        creds: &Creds,
        ns: &Arc<UserNamespace>,
        most: u64,
        fits: impl FnOnce(&T) -> Result<(), Errno>,
        make: impl FnOnce(Perm) -> Result<Arc<T>, Errno>,
    ) -> Result<i32, Errno> {
        let mut slots = self.slots.lock();
        if key != syscall_tables::abi::IPC_PRIVATE {
            let found = slots.keys.get(&key).copied();
            let found = found.and_then(|index| slots.objects.get(index)?.clone());
            match found {
                Some((id, object)) => {
                    if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
                        return Err(Errno::EEXIST);
                    }
                    fits(&object)?;
                    object.with_perm(|perm| perm.check(creds, ns, flags & 0o777))?;
                    return Ok(id);
                }
                None if flags & IPC_CREAT == 0 => return Err(Errno::ENOENT),
                None => {}
            }
        }
        if slots.count as u64 >= most {
            return Err(Errno::ENOSPC);
        }
        let object = make(Perm::new(key, creds, flags))?;
        let free = slots.objects.iter().position(Option::is_none);
        let index = free.unwrap_or(slots.objects.len());
        let id = i32::try_from(index).map_err(|_| Errno::ENOSPC)? | slots.sequence << INDEX_BITS;
        slots.sequence = (slots.sequence + 1) % MAX_SEQUENCE;
        object.with_perm(|perm| perm.id = id);
        if index == slots.objects.len() {
            slots.objects.push(None);
        }
        if let Some(slot) = slots.objects.get_mut(index) {
            *slot = Some((id, object));
        }
        slots.count += 1;
        if key != syscall_tables::abi::IPC_PRIVATE {
            slots.keys.insert(key, index);
        }
        Ok(id)
    }

    /// The object with this id.
    pub fn get(&self, id: i32) -> Result<Arc<T>, Errno> {
        let index = usize::try_from(id).map_err(|_| Errno::EINVAL)? & ((1 << INDEX_BITS) - 1);
        let slots = self.slots.lock();
        match slots.objects.get(index) {
            Some(Some((own, object))) if *own == id => Ok(object.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The object at an index (`*_STAT`), with its id.
    pub fn at_index(&self, index: i32) -> Result<(i32, Arc<T>), Errno> {
        let index = usize::try_from(index).map_err(|_| Errno::EINVAL)? & ((1 << INDEX_BITS) - 1);
        let slots = self.slots.lock();
        let slot = slots.objects.get(index).and_then(Option::as_ref);
        slot.cloned().ok_or(Errno::EINVAL)
    }

    /// Takes the object out; whether it was there.
    pub fn remove(&self, id: i32) -> bool {
        let mut slots = self.slots.lock();
        let index = usize::try_from(id).unwrap_or(usize::MAX) & ((1 << INDEX_BITS) - 1);
        let Some(slot) = slots.objects.get_mut(index) else {
            return false;
        };
        if slot.as_ref().is_none_or(|(own, _)| *own != id) {
            return false;
        }
        let removed = slot.take();
        slots.keys.retain(|_, at| *at != index);
        slots.count -= 1;
        drop(slots);
        drop(removed);
        true
    }

    /// Makes the object of `id` unreachable by its key.
    pub fn forget_key(&self, id: i32) {
        let mut slots = self.slots.lock();
        let index = usize::try_from(id).unwrap_or(usize::MAX) & ((1 << INDEX_BITS) - 1);
        slots.keys.retain(|_, at| *at != index);
    }

    /// All objects by index, with their ids.
    pub fn list(&self) -> Vec<(i32, Arc<T>)> {
        self.slots
            .lock()
            .objects
            .iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Highest index in use; 0 if there is none.
    pub fn max_index(&self) -> u64 {
        let slots = self.slots.lock();
        let last = slots.objects.iter().rposition(Option::is_some);
        last.unwrap_or(0) as u64
    }

    pub fn count(&self) -> usize {
        self.slots.lock().count
    }
}
