//! Listings of overlay directories.
//!
//! A directory of one layer is listed by that layer. A merged one is read
//! whole when its listing begins; the positions of its entries are those in
//! that list, which stays with the open file until it is rewound.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::inode::OverlayInode;
use super::{Layer, is_whiteout, layer_entry};
use crate::vfs::{
    DirEntry, EntryName, File, FileKind, FileOps, InodeRef, OpenMode, OpenRequest, StatusFlags,
    VfsPath,
};

/// An open directory.
pub(super) struct OverlayDir {
    inode: Arc<OverlayInode>,
    /// The layer's own open directory, or the merged list.
    listing: Mutex<Listing>,
}

enum Listing {
    Unread,
    Single(Layer, Arc<File>),
    Merged(Arc<Vec<DirEntry>>),
}

impl OverlayDir {
    pub fn new(inode: Arc<OverlayInode>) -> Self {
        Self {
            inode,
            listing: Mutex::new(Listing::Unread),
        }
    }

    /// Decides how to list, from the layers as they are now.
    fn begin(&self) -> Result<Listing, Errno> {
        match (self.inode.upper(), self.inode.lower()) {
            (Some(upper), []) => Ok(Listing::Single(Layer::Upper, open_dir(upper)?)),
            (None, [lower]) => Ok(Listing::Single(Layer::Lower, open_dir(lower)?)),
            _ => Ok(Listing::Merged(Arc::new(self.inode.merged_entries()?))),
        }
    }
}

fn open_dir(dir: &InodeRef) -> Result<Arc<File>, Errno> {
    let ops = dir.clone().open(&OpenRequest {
        read: true,
        write: false,
        truncate: false,
        append: false,
        direct: false,
        nonblock: false,
    })?;
    let path = VfsPath::anonymous(dir.clone(), String::new());
    Ok(File::new(ops, path, OpenMode::READ, StatusFlags::NOATIME))
}

/// Lists a directory of a layer from its start.
pub(super) fn list_layer(
    dir: &InodeRef,
    emit: &mut dyn FnMut(DirEntry) -> bool,
) -> Result<(), Errno> {
    let file = open_dir(dir)?;
    let mut position = 0;
    loop {
        // A layer may answer in pieces.
        let before = position;
        let mut go_on = true;
        file.ops.read_dir(&file, position, &mut |entry| {
            position = entry.next_offset;
            go_on = emit(entry);
            go_on
        })?;
        if !go_on || position == before {
            return Ok(());
        }
    }
}

impl OverlayInode {
    /// All entries of all layers, those hidden left out; positions count from
    /// 1.
    pub(super) fn merged_entries(&self) -> Result<Vec<DirEntry>, Errno> {
        let mut entries = Vec::new();
        let mut seen: HashSet<EntryName> = HashSet::new();
        let upper = self.upper().into_iter().map(|dir| (Layer::Upper, dir));
        let lower = self.lower().iter().map(|dir| (Layer::Lower, dir));
        for (layer, dir) in upper.chain(lower) {
            let mut dir_attr = dir.attr()?;
            let mut found = Vec::new();
            list_layer(dir, &mut |entry| {
                found.push(entry);
                true
            })?;
            for mut entry in found {
                let is_dots = matches!(entry.name.as_slice(), b"." | b"..");
                if is_dots || !seen.insert(entry.name.clone()) {
                    continue;
                }
                if entry.kind == FileKind::CharDevice
                    && let Some(inode) = layer_entry(dir, &entry.name)?
                    && is_whiteout(&inode)?
                {
                    continue;
                }
                dir_attr.ino = entry.ino;
                entry.ino = self.shared.number(layer, &dir_attr);
                entries.push(entry);
            }
        }
        let dot = |name: &[u8], ino| DirEntry {
            name: EntryName::from_slice(name),
            ino,
            kind: FileKind::Directory,
            next_offset: 0,
        };
        let dots = [dot(b".", self.ino()), dot(b"..", self.parent_ino())];
        entries.splice(0..0, dots);
        for (entry, position) in entries.iter_mut().zip(1..) {
            entry.next_offset = position;
        }
        Ok(entries)
    }
}

impl FileOps for OverlayDir {
    fn read_dir(
        &self,
        _file: &File,
        offset: u64,
        emit: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        let mut listing = self.listing.lock();
        if offset == 0 || matches!(&*listing, Listing::Unread) {
            *listing = self.begin()?;
        }
        let (layer, file) = match &*listing {
            Listing::Merged(entries) => {
                let entries = entries.clone();
                drop(listing);
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                for entry in entries.iter().skip(from) {
                    if !emit(entry.clone()) {
                        break;
                    }
                }
                return Ok(());
            }
            Listing::Single(layer, file) => (*layer, file.clone()),
            Listing::Unread => return Err(Errno::EIO),
        };
        drop(listing);
        let dir = file.path.inode()?;
        let mut attr = dir.attr()?;
        let shared = &self.inode.shared;
        file.ops.read_dir(&file, offset, &mut |mut entry| {
            match entry.name.as_slice() {
                b"." => entry.ino = self.inode.ino(),
                b".." => entry.ino = self.inode.parent_ino(),
                name => {
                    if entry.kind == FileKind::CharDevice
                        && let Ok(Some(inode)) = layer_entry(&dir, name)
                        && is_whiteout(&inode).unwrap_or(false)
                    {
                        return true;
                    }
                    attr.ino = entry.ino;
                    entry.ino = shared.number(layer, &attr);
                }
            }
            emit(entry)
        })
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        match &*self.listing.lock() {
            Listing::Merged(entries) => Ok(entries.len() as u64),
            Listing::Single(_, file) => file.ops.end_position(file),
            Listing::Unread => Ok(0),
        }
    }

    fn read_at(&self, _file: &File, _buf: &mut [u8], _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        match self.inode.upper() {
            Some(upper) => {
                let dir = open_dir(upper)?;
                dir.ops.sync(&dir, data_only)
            }
            None => Ok(()),
        }
    }
}
