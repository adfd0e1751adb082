//! Requests about one file.

use std::os::fd::{AsFd, OwnedFd};

use gofer_proto::request::XATTR_SIZE_MAX;
use gofer_proto::{Attr, FileKind, NodeId, OpenFlags, SetAttr, SetMask, Time};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::{Session, host_flags};
use crate::host;
use crate::tree::{Info, Located};

/// Ids of `chown`; −1 means unchanged there and can't be one.
pub(super) fn owner_ids(uid: u32, gid: u32) -> Result<(Uid, Gid), Errno> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

impl Session {
    pub(super) fn getattr(&self, node: NodeId) -> Result<Attr, Errno> {
        let info = self.tree.info(node)?;
        if info.kind() == FileKind::Directory {
            let fd = self.tree.directory(node)?;
            return host::attr_of((*fd).as_fd());
        }
        let _places = self.tree.hold_places();
        match self.tree.locate(node)? {
            Located::Open(fd) => host::attr_of((*fd).as_fd()),
            Located::Named { dir, name } => {
                let attr = host::attr_at((*dir).as_fd(), &name)?;
                info.identity.check(&attr)?;
                Ok(attr)
            }
        }
    }

    pub(super) fn setattr(&self, node: NodeId, set: &SetAttr) -> Result<Attr, Errno> {
        let (fd, info, before) = self.tree.open(node)?;
        let fd = (*fd).as_fd();
        self.writable(info.root)?;
        let fields = set.fields();
        if fields.contains(SetMask::SIZE) {
            if info.kind() == FileKind::Directory {
                return Err(Errno::ISDIR);
            }
            if info.kind() != FileKind::Regular {
                return Err(Errno::INVAL);
            }
            let file = self.reopen(fd, &info, OFlags::WRONLY)?;
            rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&file, set.size))?;
        }
        let uid = fields.contains(SetMask::UID).then_some(set.uid);
        let gid = fields.contains(SetMask::GID).then_some(set.gid);
        if uid.is_some() || gid.is_some() {
            let ids = owner_ids(uid.unwrap_or(before.uid), gid.unwrap_or(before.gid))?;
            let (uid, gid) = (uid.map(|_| ids.0), gid.map(|_| ids.1));
            rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if fields.contains(SetMask::MODE) {
            if info.kind() == FileKind::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            self.proc_fd.chmod(fd, set.mode)?;
        }
        let times = SetMask::ATIME | SetMask::MTIME | SetMask::ATIME_NOW | SetMask::MTIME_NOW;
        if fields.intersects(times) {
            let time = |given: SetMask, now: SetMask, time: Time| Timespec {
                tv_sec: time.sec,
                tv_nsec: if fields.contains(now) {
                    UTIME_NOW
                } else if fields.contains(given) {
                    i64::from(time.nsec)
                } else {
                    UTIME_OMIT
                },
            };
            let times = Timestamps {
                last_access: time(SetMask::ATIME, SetMask::ATIME_NOW, set.atime),
                last_modification: time(SetMask::MTIME, SetMask::MTIME_NOW, set.mtime),
            };
            rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        host::attr_of(fd)
    }

    /// Opens a regular file for the sentry.
    pub(super) fn open(&self, node: NodeId, flags: OpenFlags) -> Result<(Attr, OwnedFd), Errno> {
        let (fd, info, attr) = self.tree.open(node)?;
        let changing = OpenFlags::WRITE | OpenFlags::TRUNCATE | OpenFlags::APPEND;
        if flags.intersects(changing) {
            self.writable(info.root)?;
        }
        if info.kind() == FileKind::Directory {
            return Err(Errno::ISDIR);
        }
        let file = self.reopen((*fd).as_fd(), &info, host_flags(flags))?;
        let attr = if flags.contains(OpenFlags::TRUNCATE) {
            host::attr_of(file.as_fd())?
        } else {
            attr
        };
        Ok((attr, file))
    }

    pub(super) fn readlink(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        if self.tree.info(node)?.kind() != FileKind::Symlink {
            return Err(Errno::INVAL);
        }
        let (fd, ..) = self.tree.open(node)?;
        host::read_link_at((*fd).as_fd(), b"")
    }

    pub(super) fn fsync(&self, node: NodeId, data_only: bool) -> Result<(), Errno> {
        let (fd, info, _) = self.tree.open(node)?;
        let file = self.reopen((*fd).as_fd(), &info, OFlags::RDONLY)?;
        if data_only {
            rustix::fs::fdatasync(&file)
        } else {
            rustix::fs::fsync(&file)
        }
    }

    /// An open file to read or change extended attributes of; other files
    /// than regular ones and directories can have none that a guest may use.
    fn xattr_file(&self, node: NodeId) -> Result<(OwnedFd, Info), Errno> {
        let (fd, info, _) = self.tree.open(node)?;
        match info.kind() {
            FileKind::Regular | FileKind::Directory => {
                let file = self.reopen((*fd).as_fd(), &info, OFlags::RDONLY)?;
                Ok((file, info))
            }
            _ => Err(Errno::OPNOTSUPP),
        }
    }

    pub(super) fn get_xattr(
        &self,
        node: NodeId,
        name: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let (file, _) = self.xattr_file(node)?;
        reply.reserve(XATTR_SIZE_MAX);
        rustix::fs::fgetxattr(&file, name, spare_capacity(reply)).map(drop)
    }

    pub(super) fn set_xattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        self.writable(self.tree.info(node)?.root)?;
        let (file, _) = self.xattr_file(node)?;
        rustix::fs::fsetxattr(&file, name, value, XattrFlags::from_bits_retain(flags))
    }

    pub(super) fn list_xattr(&self, node: NodeId, reply: &mut Vec<u8>) -> Result<(), Errno> {
        let file = match self.xattr_file(node) {
            Err(Errno::OPNOTSUPP) => return Ok(()),
            other => other?.0,
        };
        reply.reserve(XATTR_SIZE_MAX);
        rustix::fs::flistxattr(&file, spare_capacity(reply)).map(drop)
    }

    pub(super) fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.writable(self.tree.info(node)?.root)?;
        let (file, _) = self.xattr_file(node)?;
        rustix::fs::fremovexattr(&file, name)
    }
}
