//! Copying lower objects into the upper layer.
//!
//! The copy is made complete under a name in the work directory and then
//! renamed into place, so that nobody sees half of it.

use std::sync::Arc;

use sentry_platform::executor::blocking;
use syscall_tables::Errno;

use super::inode::{OverlayInode, Place};
use super::{Layer, PRIVATE_PREFIX};
use crate::task::Creds;
use crate::vfs::{
    Attr, File, FileKind, InodeRef, OpenMode, OpenRequest, RenameFlags, SetAttr, SetTime,
    StatusFlags, VfsPath, XattrFlags,
};

/// Bytes copied at a time.
const CHUNK: usize = 256 << 10;

/// What becomes of a file's data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    Copy,
    /// It is about to be truncated anyway.
    Leave,
}

impl OverlayInode {
    /// The upper object, made now if need be.
    pub(super) fn copy_up(&self) -> Result<InodeRef, Errno> {
        self.copy_up_with(Data::Copy)
    }

    /// As [`Self::copy_up`], without the data.
    pub(super) fn copy_up_empty(&self) -> Result<InodeRef, Errno> {
        self.copy_up_with(Data::Leave)
    }

    fn copy_up_with(&self, data: Data) -> Result<InodeRef, Errno> {
        if let Some(upper) = self.upper() {
            return Ok(upper.clone());
        }
        self.shared.work()?;
        // Parents first, from the top, in a loop: paths may be deep.
        let mut chain: Vec<Arc<Self>> = Vec::new();
        let mut parent = self.live_parent();
        while let Some(dir) = parent {
            if dir.has_upper() {
                break;
            }
            parent = dir.live_parent();
            chain.push(dir);
        }
        for dir in chain.iter().rev() {
            dir.copy_up_one(Data::Copy)?;
        }
        self.copy_up_one(data)
    }

    fn live_parent(&self) -> Option<Arc<Self>> {
        let place = self.place.lock().clone();
        place.map(|place| place.parent)
    }

    /// Copies this object; its parent has an upper part.
    fn copy_up_one(&self, data: Data) -> Result<InodeRef, Errno> {
        let _copying = self.copy_lock.lock();
        if let Some(upper) = self.upper() {
            return Ok(upper.clone());
        }
        let lower = self.real()?;
        let attr = lower.attr()?;
        let work = self.shared.work()?;
        let work_name = self.shared.work_name();
        let upper = make_copy(work, &work_name, lower, &attr, data)
            .inspect_err(|_| discard(work, &work_name))?;
        let names = self.shared.names.lock();
        let moved = match self.place.lock().clone() {
            Some(Place { parent, name }) => {
                let dir = parent.upper().ok_or(Errno::ESTALE);
                dir.and_then(|dir| work.rename(&work_name, dir, &name, RenameFlags::empty()))
            }
            // Removed meanwhile: the copy serves those who have it open.
            None => work.unlink(&work_name),
        };
        moved.inspect_err(|_| discard(work, &work_name))?;
        let made = upper.attr()?;
        let linked = attr.kind != FileKind::Directory && attr.nlink > 1;
        let ino = if linked {
            // No longer the file the other names lead to.
            Some(self.shared.number(Layer::Upper, &made))
        } else {
            if attr.kind != FileKind::Directory {
                self.shared.note_origin(&made, self.ino());
            }
            None
        };
        self.set_upper(upper.clone(), ino);
        drop(names);
        Ok(upper)
    }
}

/// Removes a failed copy; nothing else can be done about it.
fn discard(work: &InodeRef, name: &[u8]) {
    let _ = work.unlink(name).or_else(|_| work.rmdir(name));
}

fn make_copy(
    work: &InodeRef,
    name: &[u8],
    lower: &InodeRef,
    attr: &Attr,
    data: Data,
) -> Result<InodeRef, Errno> {
    let creds = Creds::root();
    let upper = match attr.kind {
        FileKind::Directory => work.mkdir(name, attr.perm, &creds)?,
        FileKind::Symlink => work.symlink(name, &lower.readlink()?, &creds)?,
        kind => work.create(name, kind, attr.perm, attr.rdev, &creds)?,
    };
    if attr.kind == FileKind::Regular && data == Data::Copy && attr.size_bytes != 0 {
        blocking(|| copy_data(lower, &upper, attr))?;
    }
    copy_xattrs(lower, &upper)?;
    copy_attributes(attr, &upper)?;
    Ok(upper)
}

/// Gives `to` the owner, mode and times of `attr`.
pub(super) fn copy_attributes(attr: &Attr, to: &InodeRef) -> Result<(), Errno> {
    let perm = (attr.kind != FileKind::Symlink).then_some(attr.perm);
    to.set_attr(&SetAttr {
        perm,
        uid: Some(attr.uid),
        gid: Some(attr.gid),
        size_bytes: None,
        atime: Some(SetTime::To(attr.atime)),
        mtime: Some(SetTime::To(attr.mtime)),
    })
}

fn copy_xattrs(from: &InodeRef, to: &InodeRef) -> Result<(), Errno> {
    let names = match from.list_xattr() {
        Ok(names) => names,
        Err(Errno::EOPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    for name in names {
        if name.starts_with(PRIVATE_PREFIX) {
            continue;
        }
        let value = match from.get_xattr(&name) {
            Ok(value) => value,
            // Gone meanwhile, or not for us to see.
            Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES) => continue,
            Err(errno) => return Err(errno),
        };
        match to.set_xattr(&name, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// An open file that no guest sees.
fn open_privately(inode: &InodeRef, mode: OpenMode) -> Result<Arc<File>, Errno> {
    let ops = inode.clone().open(&OpenRequest {
        read: mode.contains(OpenMode::READ),
        write: mode.contains(OpenMode::WRITE),
        truncate: false,
        append: false,
        direct: false,
        nonblock: false,
    })?;
    let path = VfsPath::anonymous(inode.clone(), String::new());
    Ok(File::new(ops, path, mode, StatusFlags::NOATIME))
}

/// Copies data and keeps holes.
fn copy_data(from: &InodeRef, to: &InodeRef, attr: &Attr) -> Result<(), Errno> {
    let from = open_privately(from, OpenMode::READ)?;
    let to = open_privately(to, OpenMode::WRITE)?;
    let sparse = attr.blocks.saturating_mul(512) < attr.size_bytes;
    let mut buffer = vec![0; CHUNK.min(usize::try_from(attr.size_bytes).unwrap_or(CHUNK))];
    let mut at: u64 = 0;
    while at < attr.size_bytes {
        let mut end = attr.size_bytes;
        if sparse {
            match from.ops.seek_sparse(&from, at, true) {
                Ok(data) => at = data,
                // Nothing but a hole up to the end.
                Err(Errno::ENXIO) => break,
                Err(_) => {}
            }
            end = from.ops.seek_sparse(&from, at, false).unwrap_or(end);
        }
        if !copy_range(&from, &to, &mut at, end, &mut buffer)? {
            break;
        }
    }
    if to.attr()?.size_bytes < attr.size_bytes {
        to.ops.truncate(&to, attr.size_bytes)?;
    }
    Ok(())
}

/// Copies up to `end`; `false` if the file has become shorter.
fn copy_range(
    from: &File,
    to: &File,
    at: &mut u64,
    end: u64,
    buffer: &mut [u8],
) -> Result<bool, Errno> {
    while *at < end {
        let left = usize::try_from(end - *at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let window = buffer.get_mut(..wanted).unwrap_or_default();
        let got = from.ops.read_at(from, window, *at)?;
        if got == 0 {
            return Ok(false);
        }
        let mut rest = window.get(..got).unwrap_or_default();
        while !rest.is_empty() {
            let (count, behind) = to.ops.write_at(to, rest, *at, false)?;
            if count == 0 {
                return Err(Errno::EIO);
            }
            *at = behind;
            rest = rest.get(count..).unwrap_or_default();
        }
    }
    Ok(true)
}
