//! Answers requests.
//!
//! | file | requests |
//! |---|---|
//! | `walk.rs` | attach, walk, readdir |
//! | `node.rs` | getattr, setattr, open, readlink, statfs, fsync, xattrs |
//! | `names.rs` | create, tmpfile, mkdir, symlink, mknod, link, unlink, rmdir, rename |

mod names;
mod node;
mod walk;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gofer_proto::request::Removed;
use gofer_proto::wire::Write;
use gofer_proto::{FileKind, Malformed, NodeId, OpenFlags, Request};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::host::{self, ProcFd};
use crate::tree::{Info, Tree};
use crate::{Access, Config, Root};

/// Why a request has no reply.
#[derive(Debug)]
pub enum Failure {
    /// The sentry broke the protocol: the connection ends.
    Malformed(Malformed),
    /// An answer like any other.
    Errno(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Everything a connection refers to.
#[derive(Debug)]
pub struct Session {
    config: Config,
    roots: Vec<Access>,
    tree: Tree,
    proc_fd: ProcFd,
}

impl Session {
    pub fn new(config: Config, proc_fd: ProcFd, roots: Vec<Root>) -> Result<Self, Errno> {
        let tree = Tree::new(config.limits);
        let mut access = Vec::new();
        for (index, root) in roots.into_iter().enumerate() {
            access.push(root.access);
            tree.add_root(index, root.fd)?;
        }
        Ok(Self {
            config,
            roots: access,
            tree,
            proc_fd,
        })
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Answers one request: `reply` is replaced by the body, and a host fd
    /// may go with it.
    pub fn handle(&self, request: &[u8], reply: &mut Vec<u8>) -> Result<Option<OwnedFd>, Failure> {
        reply.clear();
        let fd = match Request::decode(request)? {
            Request::Attach { root } => {
                let index = usize::try_from(root).unwrap_or(usize::MAX);
                if index >= self.roots.len() {
                    return Err(Malformed("no such root").into());
                }
                self.attach(index, reply)?;
                None
            }
            Request::Walk { node, names } => {
                self.walk(node, names).encode(reply);
                None
            }
            Request::Readdir {
                node,
                offset,
                detail,
                limit,
            } => {
                self.readdir(node, offset, detail, limit, reply)?;
                None
            }
            Request::GetAttr { node } => {
                reply.value(&self.getattr(node)?);
                None
            }
            Request::SetAttr { node, set } => {
                reply.value(&self.setattr(node, &set)?);
                None
            }
            Request::Open { node, flags } => {
                let (attr, fd) = self.open(node, flags)?;
                reply.value(&attr);
                Some(fd)
            }
            Request::Create {
                parent,
                name,
                flags,
                owner,
            } => {
                let (node, fd) = self.create(parent, name, flags, owner)?;
                reply.value(&node);
                Some(fd)
            }
            Request::Tmpfile {
                parent,
                flags,
                owner,
            } => {
                let (node, fd) = self.tmpfile(parent, flags, owner)?;
                reply.value(&node);
                Some(fd)
            }
            Request::Mkdir {
                parent,
                name,
                owner,
            } => {
                reply.value(&self.mkdir(parent, name, owner)?);
                None
            }
            Request::Symlink {
                parent,
                name,
                target,
                uid,
                gid,
            } => {
                reply.value(&self.symlink(parent, name, target, uid, gid)?);
                None
            }
            Request::Mknod {
                parent,
                name,
                owner,
            } => {
                reply.value(&self.mknod(parent, name, owner)?);
                None
            }
            Request::Link { node, parent, name } => {
                reply.value(&self.link(node, parent, name)?);
                None
            }
            Request::Unlink {
                parent,
                name,
                removed,
            } => {
                self.remove(parent, name, removed, names::Removal::File)?;
                None
            }
            Request::Rmdir {
                parent,
                name,
                removed,
            } => {
                self.remove(parent, name, removed, names::Removal::Directory)?;
                None
            }
            Request::Rename {
                parent,
                name,
                new_parent,
                new_name,
                flags,
                removed,
            } => {
                self.rename((parent, name), (new_parent, new_name), flags, removed)?;
                None
            }
            Request::Readlink { node } => {
                reply.extend(self.readlink(node)?);
                None
            }
            Request::Statfs { node } => {
                let (fd, ..) = self.tree.open(node)?;
                reply.value(&host::fs_stat(fd.as_fd())?);
                None
            }
            Request::GetXattr { node, name } => {
                self.get_xattr(node, name, reply)?;
                None
            }
            Request::SetXattr {
                node,
                name,
                value,
                flags,
            } => {
                self.set_xattr(node, name, value, flags)?;
                None
            }
            Request::ListXattr { node } => {
                self.list_xattr(node, reply)?;
                None
            }
            Request::RemoveXattr { node, name } => {
                self.remove_xattr(node, name)?;
                None
            }
            Request::Fsync { node, data_only } => {
                self.fsync(node, data_only)?;
                None
            }
            Request::Forget { list } => {
                for (node, lookups) in list.iter() {
                    self.tree.forget(node, lookups);
                }
                None
            }
        };
        Ok(fd)
    }

    /// `EROFS` for nodes of read-only roots.
    fn writable(&self, root: usize) -> Result<(), Errno> {
        match self.roots.get(root) {
            Some(Access::ReadWrite) => Ok(()),
            _ => Err(Errno::ROFS),
        }
    }

    /// The directory `node`, to change its names.
    fn writable_directory(&self, node: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        self.writable(self.tree.info(node)?.root)?;
        self.tree.directory(node)
    }

    /// Opens the file behind an `O_PATH` fd. Only regular files and
    /// directories are ever opened: a device, FIFO or socket of the host
    /// would lead out of the file system.
    fn reopen(&self, fd: BorrowedFd<'_>, info: &Info, flags: OFlags) -> Result<OwnedFd, Errno> {
        match info.kind() {
            FileKind::Regular => self.proc_fd.reopen(fd, flags),
            FileKind::Directory => {
                let flags = flags | OFlags::DIRECTORY;
                host::open_beneath(fd, b".", flags, Mode::empty())
            }
            FileKind::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NXIO),
        }
    }

    /// The file `name` in `parent` held open, if it is to outlive its name.
    /// A file that can't be held is removed all the same.
    fn keep(&self, parent: NodeId, name: &[u8], removed: Removed) -> Option<Arc<OwnedFd>> {
        if removed == Removed::Drop {
            return None;
        }
        let node = self.tree.child(parent, name)?;
        self.tree.open(node).ok().map(|(fd, ..)| fd)
    }
}

/// Host flags for a donated file.
fn host_flags(flags: OpenFlags) -> OFlags {
    let mut host = if flags.contains(OpenFlags::READ | OpenFlags::WRITE) {
        OFlags::RDWR
    } else if flags.contains(OpenFlags::WRITE) {
        OFlags::WRONLY
    } else {
        OFlags::RDONLY
    };
    for (flag, bit) in [
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::SYNC, OFlags::SYNC),
        (OpenFlags::DSYNC, OFlags::DSYNC),
        (OpenFlags::NOATIME, OFlags::NOATIME),
    ] {
        if flags.contains(flag) {
            host |= bit;
        }
    }
    host
}
