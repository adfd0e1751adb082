//! Open directories.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gofer_proto::reply::decode_entries;
use parking_lot::Mutex;
use syscall_tables::Errno;

use super::inode::GoferInode;
use crate::vfs::{DirEntry, File, FileKind, FileOps};

/// An open directory of a gofer.
pub(super) struct GoferDir {
    inode: Arc<GoferInode>,
    /// Entries read ahead of the guest.
    ahead: Mutex<Option<Batch>>,
}

/// A reply of which some entries have been handed on.
struct Batch {
    bytes: Arc<[u8]>,
    /// Entries handed on already.
    taken: usize,
    /// The position behind those.
    offset: u64,
}

impl GoferDir {
    pub fn new(inode: Arc<GoferInode>) -> Self {
        inode.opens.fetch_add(1, Ordering::AcqRel);
        Self {
            inode,
            ahead: Mutex::new(None),
        }
    }

    /// What is left of the batch that goes on at `offset`.
    fn take_ahead(&self, offset: u64) -> Option<Batch> {
        // From the start a guest wants to see what is there now.
        let batch = self.ahead.lock().take()?;
        (offset != 0 && batch.offset == offset).then_some(batch)
    }

    fn fetch(&self, offset: u64) -> Result<Batch, Errno> {
        let at = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let connection = &self.inode.shared.connection;
        let bytes = match self.inode.node() {
            Ok(node) => match connection.readdir(node, at) {
                // Removed: it has no entries.
                Err(Errno::ENOENT | Errno::ESTALE) => Vec::new(),
                other => other?,
            },
            Err(_) => Vec::new(),
        };
        Ok(Batch {
            bytes: bytes.into(),
            taken: 0,
            offset,
        })
    }
}

impl Drop for GoferDir {
    fn drop(&mut self) {
        self.inode.opens.fetch_sub(1, Ordering::AcqRel);
    }
}

impl FileOps for GoferDir {
    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Ok(i64::MAX.unsigned_abs())
    }

    fn read_dir(
        &self,
        _file: &File,
        offset: u64,
        emit: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        let mut batch = match self.take_ahead(offset) {
            Some(batch) => batch,
            None => self.fetch(offset)?,
        };
        loop {
            if batch.bytes.is_empty() {
                return Ok(());
            }
            let bytes = batch.bytes.clone();
            for entry in decode_entries(&bytes).skip(batch.taken) {
                let entry = entry.map_err(|_| Errno::EIO)?;
                batch.taken += 1;
                let next_offset = entry.offset.cast_unsigned();
                let mode = u32::from(entry.kind) << 12;
                // Of a type unknown to Linux: nothing a guest could use.
                let Some(kind) = FileKind::from_mode(mode) else {
                    batch.offset = next_offset;
                    continue;
                };
                // What lies above the root on the host is no guest's business.
                let above = entry.name == b".." && self.inode.is_root();
                let taken = emit(DirEntry {
                    name: entry.name.to_vec(),
                    ino: if above { self.inode.ino() } else { entry.ino },
                    kind,
                    next_offset,
                });
                if !taken {
                    batch.taken -= 1;
                    *self.ahead.lock() = Some(batch);
                    return Ok(());
                }
                batch.offset = next_offset;
            }
            batch = self.fetch(batch.offset)?;
        }
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        let node = self.inode.node()?;
        self.inode.shared.connection.fsync(node, data_only)
    }
}
