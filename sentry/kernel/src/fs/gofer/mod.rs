//! Files of the host, by way of a gofer.
//!
//! | file | holds |
//! |---|---|
//! | `connection.rs` | [`Connection`]: calls over the shared ring |
//! | `convert.rs` | attributes of the protocol to and from those of the VFS |
//! | `shared.rs` | what all inodes of a mount share: identities, donated fds |
//! | `inode.rs` | [`GoferInode`]: attributes and their cache |
//! | `names.rs` | lookups and changes of names |
//! | `file.rs`, `dir.rs` | open files and directories |
//!
//! Data of regular files is read and written through host fds that the gofer
//! donates; the host's page cache is the only one. Attributes and names are
//! cached as [`CachePolicy`] says.
//!
//! Locks, outermost first: a directory's `names`, an inode's `aliases`, the
//! mount's `inodes`, then the leaves (`attr`, `files`, `recent`, `forgets`).
//! None is held over a call to the gofer, and no inode is dropped under one.

mod connection;
mod convert;
mod dir;
mod file;
mod inode;
mod names;
mod shared;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use syscall_tables::Errno;

pub use connection::Connection;
pub use inode::GoferInode;

use crate::vfs::{FileSystem, FsStat, InodeRef, Vfs};
use shared::Shared;

/// How long what the gofer said is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Nobody else changes the files: for ever.
    Exclusive,
    /// Changes made on the host are seen after this time; zero asks each
    /// time.
    Expiring(Duration),
}

impl CachePolicy {
    /// A rootfs: host-side changes are seen within a second.
    pub const ROOTFS: Self = Self::Expiring(Duration::from_secs(1));
    /// A volume that others write too.
    pub const SHARED: Self = Self::Expiring(Duration::ZERO);
}

/// A mount that a gofer serves.
pub struct GoferFs {
    shared: Arc<Shared>,
    root: Arc<GoferInode>,
    source: String,
}

impl GoferFs {
    /// Attaches the gofer's root number `root`. `source` is what
    /// `/proc/mounts` shows.
    ///
    /// # Errors
    /// `EIO` if the gofer is gone, or the host's error.
    pub fn attach(
        vfs: &Vfs,
        connection: &Arc<Connection>,
        root: u32,
        policy: CachePolicy,
        source: &str,
    ) -> Result<Arc<Self>, Errno> {
        let reply = connection.attach(root)?;
        let shared = Shared::new(connection.clone(), policy, vfs.next_dev(), reply.attr.dev);
        let root = shared.intern(&reply, None)?;
        Ok(Arc::new(Self {
            shared,
            root,
            source: source.to_owned(),
        }))
    }

    /// A connection over what `runsc` hands to the sentry.
    pub fn connect(ring: OwnedFd, socket: OwnedFd) -> Result<Arc<Connection>, Errno> {
        Connection::new(ring, socket)
    }
}

impl FileSystem for GoferFs {
    fn type_name(&self) -> &'static str {
        "9p"
    }

    fn root(&self) -> InodeRef {
        self.root.clone()
    }

    fn dev(&self) -> u64 {
        self.shared.dev
    }

    fn stat(&self) -> Result<FsStat, Errno> {
        let host = self.shared.connection.statfs(self.root.node()?)?;
        Ok(FsStat {
            magic: host.fs_type,
            block_size: host.block_size,
            blocks: host.blocks,
            blocks_free: host.blocks_free,
            blocks_available: host.blocks_available,
            files: host.files,
            files_free: host.files_free,
            name_max: host.name_max,
            fsid: self.shared.dev,
            flags: 0,
        })
    }

    fn source(&self) -> String {
        self.source.clone()
    }

    fn names_are_stable(&self) -> bool {
        self.shared.policy == CachePolicy::Exclusive
    }
}
