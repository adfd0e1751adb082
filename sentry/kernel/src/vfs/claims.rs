//! Files that run can't be written and files open for writing can't be run
//! (`ETXTBSY`).
//!
//! Locks: one mutex, a leaf.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::InodeRef;
use super::locks::InodeKey;

/// Counts by inode: positive for writers, negative for those who run it.
#[derive(Default)]
pub struct ClaimTable {
    counts: Mutex<HashMap<InodeKey, i64>>,
}

/// What an open file claims about its inode, until it is dropped.
pub struct Claim {
    table: Arc<ClaimTable>,
    key: InodeKey,
    step: i64,
}

impl ClaimTable {
    /// The file is open for writing; `ETXTBSY` while it runs.
    pub fn write(self: &Arc<Self>, inode: &InodeRef) -> Result<Claim, Errno> {
        self.claim(inode, 1)
    }

    /// The file runs; `ETXTBSY` while it is open for writing.
    pub fn execute(self: &Arc<Self>, inode: &InodeRef) -> Result<Claim, Errno> {
        self.claim(inode, -1)
    }

    fn claim(self: &Arc<Self>, inode: &InodeRef, step: i64) -> Result<Claim, Errno> {
        let attr = inode.attr()?;
        let key = (attr.dev, attr.ino);
        let mut counts = self.counts.lock();
        let count = counts.entry(key).or_default();
        if count.signum() == -step {
            return Err(Errno::ETXTBSY);
        }
        *count += step;
        Ok(Claim {
            table: self.clone(),
            key,
            step,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut counts = self.table.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= self.step;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::anon::AnonInode;
    use crate::task::Creds;
    use crate::vfs::{FileKind, Vfs};

    #[test]
    fn writers_and_runners_exclude_each_other() {
        let vfs = Vfs::new();
        let inode = AnonInode::inode(&vfs, FileKind::Regular, 0o755, &Creds::root());
        let claims = &vfs.claims;
        let first = claims.execute(&inode).unwrap();
        let second = claims.execute(&inode).unwrap();
        assert_eq!(claims.write(&inode).err(), Some(Errno::ETXTBSY));
        drop((first, second));
        let writer = claims.write(&inode).unwrap();
        assert_eq!(claims.execute(&inode).err(), Some(Errno::ETXTBSY));
        drop(writer);
        assert!(claims.counts.lock().is_empty());
    }
}
