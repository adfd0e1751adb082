//! Requests that make, move and remove names.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use gofer_proto::reply::NodeReply;
use gofer_proto::request::{Ownership, Removed};
use gofer_proto::{Attr, FileKind, NodeId, OpenFlags, RenameFlags};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::node::owner_ids;
use super::{Session, host_flags};
use crate::host;

/// What kind of name is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    File,
    Directory,
}

impl Session {
    pub(super) fn create(
        &self,
        parent: NodeId,
        name: &[u8],
        flags: OpenFlags,
        owner: Ownership,
    ) -> Result<(NodeReply, OwnedFd), Errno> {
        let dir = self.writable_directory(parent)?;
        let dir = (*dir).as_fd();
        // Exclusive, so that nothing but a new regular file is ever opened.
        let host = host_flags(flags) | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(owner.mode & 0o777);
        let file = host::open_beneath(dir, name, host, mode)?;
        let made = self.give_to(file.as_fd(), owner);
        let attr = undo_unless(made, dir, name, AtFlags::empty())?;
        let node = self.tree.found(parent, name, &attr)?;
        Ok((NodeReply { node: node.0, attr }, file))
    }

    pub(super) fn tmpfile(
        &self,
        parent: NodeId,
        flags: OpenFlags,
        owner: Ownership,
    ) -> Result<(NodeReply, OwnedFd), Errno> {
        let dir = self.writable_directory(parent)?;
        if !flags.contains(OpenFlags::WRITE) {
            return Err(Errno::INVAL);
        }
        let host = host_flags(flags) | OFlags::TMPFILE;
        let mode = Mode::from_raw_mode(owner.mode & 0o777);
        let file = host::open_beneath((*dir).as_fd(), b".", host, mode)?;
        let attr = self.give_to(file.as_fd(), owner)?;
        let pin = rustix::io::fcntl_dupfd_cloexec(&file, 0)?;
        let node = self.tree.found_unnamed(parent, pin, &attr)?;
        Ok((NodeReply { node: node.0, attr }, file))
    }

    pub(super) fn mkdir(
        &self,
        parent: NodeId,
        name: &[u8],
        owner: Ownership,
    ) -> Result<NodeReply, Errno> {
        let dir = self.writable_directory(parent)?;
        let dir = (*dir).as_fd();
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(owner.mode & 0o1777))?;
        let made = host::open_path(dir, name, OFlags::DIRECTORY)
            .and_then(|fd| self.give_to(fd.as_fd(), owner));
        let attr = undo_unless(made, dir, name, AtFlags::REMOVEDIR)?;
        self.reply(parent, name, attr)
    }

    pub(super) fn symlink(
        &self,
        parent: NodeId,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<NodeReply, Errno> {
        let dir = self.writable_directory(parent)?;
        let dir = (*dir).as_fd();
        rustix::fs::symlinkat(target, dir, name)?;
        let owner = Ownership {
            mode: 0o777,
            uid,
            gid,
        };
        let made = host::open_path(dir, name, OFlags::empty())
            .and_then(|fd| self.give_to(fd.as_fd(), owner));
        let attr = undo_unless(made, dir, name, AtFlags::empty())?;
        self.reply(parent, name, attr)
    }

    pub(super) fn mknod(
        &self,
        parent: NodeId,
        name: &[u8],
        owner: Ownership,
    ) -> Result<NodeReply, Errno> {
        let dir = self.writable_directory(parent)?;
        let dir = (*dir).as_fd();
        let file_type = match FileKind::from_mode(owner.mode) {
            FileKind::Regular => FileType::RegularFile,
            // A name only: what guests send through it stays in the sentry.
            FileKind::Fifo if self.config.special_nodes => FileType::Fifo,
            FileKind::Socket if self.config.special_nodes => FileType::Socket,
            _ => return Err(Errno::PERM),
        };
        let mode = Mode::from_raw_mode(owner.mode & 0o777);
        rustix::fs::mknodat(dir, name, file_type, mode, 0)?;
        let made = host::open_path(dir, name, OFlags::empty())
            .and_then(|fd| self.give_to(fd.as_fd(), owner));
        let attr = undo_unless(made, dir, name, AtFlags::empty())?;
        self.reply(parent, name, attr)
    }

    pub(super) fn link(
        &self,
        node: NodeId,
        parent: NodeId,
        name: &[u8],
    ) -> Result<NodeReply, Errno> {
        let (fd, info, _) = self.tree.open(node)?;
        if info.kind() == FileKind::Directory {
            return Err(Errno::PERM);
        }
        if info.root != self.tree.info(parent)?.root {
            return Err(Errno::XDEV);
        }
        let dir = self.writable_directory(parent)?;
        let dir = (*dir).as_fd();
        self.proc_fd.link((*fd).as_fd(), dir, name)?;
        let attr = host::attr_at(dir, name)?;
        self.reply(parent, name, attr)
    }

    pub(super) fn remove(
        &self,
        parent: NodeId,
        name: &[u8],
        removed: Removed,
        removal: Removal,
    ) -> Result<(), Errno> {
        let dir = self.writable_directory(parent)?;
        let keep = self.keep(parent, name, removed);
        let flags = match removal {
            Removal::File => AtFlags::empty(),
            Removal::Directory => AtFlags::REMOVEDIR,
        };
        rustix::fs::unlinkat(&*dir, name, flags)?;
        self.tree.removed(parent, name, keep);
        Ok(())
    }

    pub(super) fn rename(
        &self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        flags: RenameFlags,
        removed: Removed,
    ) -> Result<(), Errno> {
        if self.tree.info(from.0)?.root != self.tree.info(to.0)?.root {
            return Err(Errno::XDEV);
        }
        let old = self.writable_directory(from.0)?;
        let new = self.writable_directory(to.0)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let keep = if exchange {
            None
        } else {
            self.keep(to.0, to.1, removed)
        };
        let host_flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let _places = self.tree.move_places();
        rustix::fs::renameat_with(&*old, from.1, &*new, to.1, host_flags)?;
        self.tree.renamed(from, to, exchange, keep);
        Ok(())
    }

    fn reply(&self, parent: NodeId, name: &[u8], attr: Attr) -> Result<NodeReply, Errno> {
        let node = self.tree.found(parent, name, &attr)?;
        Ok(NodeReply { node: node.0, attr })
    }

    /// Gives a file just made its owner and then its mode: a change of owner
    /// takes set-id bits away.
    fn give_to(&self, fd: BorrowedFd<'_>, owner: Ownership) -> Result<Attr, Errno> {
        let (uid, gid) = owner_ids(owner.uid, owner.gid)?;
        let mut attr = host::attr_of(fd)?;
        let mut changed = false;
        if (attr.uid, attr.gid) != (owner.uid, owner.gid) {
            rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
            changed = true;
        }
        // Not compared with the mode asked for: a default ACL of the
        // directory may have changed that rightly.
        if owner.mode & 0o6000 != 0 {
            self.proc_fd.chmod(fd, owner.mode)?;
            changed = true;
        }
        if changed {
            attr = host::attr_of(fd)?;
        }
        Ok(attr)
    }
}

/// Removes what was made if it could not be finished.
fn undo_unless(
    made: Result<Attr, Errno>,
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: AtFlags,
) -> Result<Attr, Errno> {
    if made.is_err() {
        // The first error is the one to tell.
        let _ = rustix::fs::unlinkat(dir, name, flags);
    }
    made
}
