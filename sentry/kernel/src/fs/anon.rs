//! The pseudo file system of unnamed objects: pipes, sockets, event files.
//!
//! Its one mount is shared by all; it holds nothing. Inodes are made with
//! [`AnonInode::inode`] and get their path by
//! [`VfsPath::anonymous`](crate::vfs::VfsPath::anonymous).

use std::sync::Arc;

use parking_lot::RwLock;
use syscall_tables::Errno;

use crate::task::{Creds, Gid, Uid};
use crate::vfs::{
    Attr, FileKind, FileOps, FileSystem, FsStat, Inode, InodeRef, OpenRequest, SetAttr, SetTime,
    Timestamp, Vfs, makedev,
};

/// `ANON_INODE_FS_MAGIC`.
const MAGIC: u64 = 0x0904_1934;

/// The file system of [`AnonInode`]s.
pub struct AnonFs;

impl FileSystem for AnonFs {
    fn type_name(&self) -> &'static str {
        "anon_inodefs"
    }

    fn root(&self) -> InodeRef {
        Arc::new(AnonInode {
            kind: FileKind::Directory,
            ino: 1,
            attributes: RwLock::new(Attributes::new(0o500, Uid::ROOT, Gid::ROOT)),
        })
    }

    fn dev(&self) -> u64 {
        DEV
    }

    fn stat(&self) -> Result<FsStat, Errno> {
        Ok(FsStat {
            magic: MAGIC,
            block_size: 4096,
            name_max: 255,
            ..FsStat::default()
        })
    }
}

/// Below the first number that [`Vfs::next_dev`] gives.
const DEV: u64 = makedev(0, 15);

/// What `fchmod`, `fchown` and `utimensat` change of an inode without a name.
#[derive(Clone, Debug)]
pub struct Attributes {
    pub perm: u32,
    pub uid: Uid,
    pub gid: Gid,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

impl Attributes {
    pub fn new(perm: u32, uid: Uid, gid: Gid) -> Self {
        let now = Timestamp::now();
        Self {
            perm,
            uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
        }
    }

    /// Carries changes out; such an inode has no size.
    pub fn change(&mut self, changes: &SetAttr) -> Result<(), Errno> {
        if changes.size_bytes.is_some() {
            return Err(Errno::EINVAL);
        }
        let now = Timestamp::now();
        let time = |set| match set {
            SetTime::Now => now,
            SetTime::To(time) => time,
        };
        self.perm = changes.perm.unwrap_or(self.perm);
        self.uid = changes.uid.unwrap_or(self.uid);
        self.gid = changes.gid.unwrap_or(self.gid);
        self.atime = changes.atime.map_or(self.atime, time);
        self.mtime = changes.mtime.map_or(self.mtime, time);
        self.ctime = now;
        Ok(())
    }

    /// All attributes of an empty object of this kind.
    pub fn attr(&self, kind: FileKind, dev: u64, ino: u64) -> Attr {
        Attr {
            kind,
            perm: self.perm,
            dev,
            ino,
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            size_bytes: 0,
            blocks: 0,
            block_size: 4096,
            rdev: 0,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: None,
        }
    }
}

/// An inode without a name; it has attributes and nothing else.
pub struct AnonInode {
    kind: FileKind,
    ino: u64,
    attributes: RwLock<Attributes>,
}

impl AnonInode {
    /// An inode owned by the caller's fs ids.
    pub fn inode(vfs: &Vfs, kind: FileKind, perm: u32, creds: &Creds) -> InodeRef {
        Arc::new(Self {
            kind,
            ino: vfs.next_id(),
            attributes: RwLock::new(Attributes::new(perm, creds.fsuid, creds.fsgid)),
        })
    }
}

impl Inode for AnonInode {
    fn kind(&self) -> FileKind {
        self.kind
    }

    fn attr(&self) -> Result<Attr, Errno> {
        Ok(self.attributes.read().attr(self.kind, DEV, self.ino))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        self.attributes.write().change(changes)
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        // Reached by /proc/PID/fd/N of such a file: there is nothing to open
        // but the description itself.
        Err(Errno::ENXIO)
    }
}
