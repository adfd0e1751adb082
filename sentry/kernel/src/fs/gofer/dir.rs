//! Open directories and their remembered listings.
//!
//! A directory that has been read from start to end keeps the listing for the
//! next reader. It is used only while the directory's times are what they were
//! when the reading began.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gofer_proto::Time;
use gofer_proto::reply::{Entries, decode_listing};
use parking_lot::Mutex;
use syscall_tables::Errno;

use super::inode::GoferInode;
use crate::vfs::{DirEntry, EntryName, File, FileKind, FileOps, Timestamp};

/// Longest listing kept.
const KEPT_MAX: usize = 2 << 20;

/// How old a directory's last change must be for its time to tell the next
/// one apart: above the host's clock tick.
const SETTLED_NS: i128 = 20_000_000;

/// A whole directory, as the gofer listed it.
#[derive(Clone)]
pub(super) struct Listing {
    bytes: Arc<[u8]>,
    stamp: Stamp,
}

impl Listing {
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Tells it from the one that is kept after it.
    pub fn key(&self) -> usize {
        Arc::as_ptr(&self.bytes).addr()
    }
}

/// What changes with every change of a directory's names.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    mtime: Time,
    ctime: Time,
}

impl Stamp {
    fn of(attr: &gofer_proto::Attr) -> Self {
        Self {
            mtime: attr.mtime,
            ctime: attr.ctime,
        }
    }

    /// Whether a change from now on gets another time.
    fn is_settled(&self) -> bool {
        let nanos = |secs: i64, nanos: u32| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        let now = Timestamp::now();
        let changed = nanos(self.ctime.sec, self.ctime.nsec);
        nanos(now.secs, now.nanos) - changed > SETTLED_NS
    }
}

/// An open directory of a gofer.
pub(super) struct GoferDir {
    inode: Arc<GoferInode>,
    /// Where the guest is.
    place: Mutex<Option<Batch>>,
}

/// Entries read ahead of the guest.
struct Batch {
    bytes: Arc<[u8]>,
    /// Bytes of them handed on already.
    taken: usize,
    /// The position behind those.
    offset: u64,
    /// Nothing follows.
    ended: bool,
    /// Everything since the start, to be kept in the end.
    whole: Option<(Vec<u8>, Stamp)>,
}

impl GoferDir {
    pub fn new(inode: Arc<GoferInode>) -> Self {
        inode.opens.fetch_add(1, Ordering::AcqRel);
        Self {
            inode,
            place: Mutex::new(None),
        }
    }

    /// The entries from `offset` on.
    fn begin(&self, offset: u64) -> Result<Batch, Errno> {
        let place = self.place.lock().take();
        if offset == 0 {
            // From the start a guest wants to see what is there now.
            return self.rewind();
        }
        match place {
            Some(batch) if batch.offset == offset => Ok(batch),
            _ => self.fetch(offset, None),
        }
    }

    fn rewind(&self) -> Result<Batch, Errno> {
        let stamp = match self.inode.host_attr() {
            Ok(attr) => Stamp::of(&attr),
            // Removed: the gofer says so.
            Err(_) => return self.fetch(0, None),
        };
        if let Some(listing) = self.inode.listing()
            && listing.stamp == stamp
        {
            return Ok(Batch {
                bytes: listing.bytes,
                taken: 0,
                offset: 0,
                ended: true,
                whole: None,
            });
        }
        let whole = stamp.is_settled().then(|| (Vec::new(), stamp));
        self.fetch(0, whole)
    }

    fn fetch(&self, offset: u64, whole: Option<(Vec<u8>, Stamp)>) -> Result<Batch, Errno> {
        let at = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let connection = &self.inode.shared.connection;
        let gone = |errno| matches!(errno, Errno::ENOENT | Errno::ESTALE);
        let node = self.inode.node();
        let reply = match node.and_then(|node| connection.readdir(node, at)) {
            Ok(reply) => Some(reply),
            // Removed: it has no entries.
            Err(errno) if gone(errno) => None,
            Err(errno) => return Err(errno),
        };
        let (ended, entries) = match &reply {
            Some(reply) => decode_listing(reply).map_err(|_| Errno::EIO)?,
            None => (true, &[][..]),
        };
        let mut batch = Batch {
            bytes: entries.into(),
            taken: 0,
            offset,
            ended,
            whole: whole.filter(|_| reply.is_some()),
        };
        batch.collect(&self.inode);
        Ok(batch)
    }
}

impl Batch {
    /// Adds the entries to what is to be kept; keeps it when it is whole.
    fn collect(&mut self, inode: &GoferInode) {
        let Some((mut whole, stamp)) = self.whole.take() else {
            return;
        };
        if whole.len() + self.bytes.len() > KEPT_MAX {
            return;
        }
        if !self.ended {
            whole.extend_from_slice(&self.bytes);
            self.whole = Some((whole, stamp));
            return;
        }
        let bytes = if whole.is_empty() {
            self.bytes.clone()
        } else {
            whole.extend_from_slice(&self.bytes);
            whole.into()
        };
        inode.keep_listing(Listing { bytes, stamp });
    }
}

impl Drop for GoferDir {
    fn drop(&mut self) {
        self.inode.opens.fetch_sub(1, Ordering::AcqRel);
    }
}

impl FileOps for GoferDir {
    fn read_at(&self, _file: &File, _buf: &mut [u8], _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

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
        let mut batch = self.begin(offset)?;
        loop {
            let bytes = batch.bytes.clone();
            let mut entries = Entries::new(bytes.get(batch.taken..).unwrap_or_default());
            while let Some(entry) = entries.next() {
                let entry = entry.map_err(|_| Errno::EIO)?;
                let next_offset = entry.offset.cast_unsigned();
                let mode = u32::from(entry.kind) << 12;
                // Of a type unknown to Linux: nothing a guest could use.
                if let Some(kind) = FileKind::from_mode(mode) {
                    // What lies above the root on the host is no guest's
                    // business.
                    let above = entry.name == b".." && self.inode.is_root();
                    let taken = emit(DirEntry {
                        name: EntryName::from_slice(entry.name),
                        ino: if above { self.inode.ino() } else { entry.ino },
                        kind,
                        next_offset,
                    });
                    if !taken {
                        *self.place.lock() = Some(batch);
                        return Ok(());
                    }
                }
                batch.taken = bytes.len() - entries.left();
                batch.offset = next_offset;
            }
            if batch.ended {
                // The guest asks once more, to hear that this was all.
                *self.place.lock() = Some(batch);
                return Ok(());
            }
            batch = self.fetch(batch.offset, batch.whole.take())?;
        }
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        let node = self.inode.node()?;
        self.inode.shared.connection.fsync(node, data_only)
    }
}
