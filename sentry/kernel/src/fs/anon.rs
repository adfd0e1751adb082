//! The pseudo file system of unnamed objects: pipes, sockets, event files.
//!
//! Its one mount is shared by all; it holds nothing. Inodes are made with
//! [`AnonInode::new`] and get their path by
//! [`VfsPath::anonymous`](crate::vfs::VfsPath::anonymous).

use std::sync::Arc;

use parking_lot::RwLock;
use syscall_tables::Errno;

use crate::task::{Creds, Gid, Uid};
use crate::vfs::{
    Attr, FileKind, FileOps, FileSystem, FsStat, Inode, InodeRef, OpenRequest, SetAttr, SetTime,
    Timestamp, Vfs, make_dev,
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
            state: RwLock::new(State::new(0o500, Uid::ROOT, Gid::ROOT)),
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
const DEV: u64 = make_dev(0, 15);

struct State {
    perm: u32,
    uid: Uid,
    gid: Gid,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
}

impl State {
    fn new(perm: u32, uid: Uid, gid: Gid) -> Self {
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
}

/// An inode without a name; it has attributes and nothing else.
pub struct AnonInode {
    kind: FileKind,
    ino: u64,
    state: RwLock<State>,
}

impl AnonInode {
    /// An inode owned by the caller's fs ids.
    pub fn new(vfs: &Vfs, kind: FileKind, perm: u32, creds: &Creds) -> InodeRef {
        Arc::new(Self {
            kind,
            ino: vfs.next_id(),
            state: RwLock::new(State::new(perm, creds.fsuid, creds.fsgid)),
        })
    }
}

impl Inode for AnonInode {
    fn kind(&self) -> FileKind {
        self.kind
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let state = self.state.read();
        Ok(Attr {
            kind: self.kind,
            perm: state.perm,
            dev: DEV,
            ino: self.ino,
            nlink: 1,
            uid: state.uid,
            gid: state.gid,
            size_bytes: 0,
            blocks: 0,
            block_size: 4096,
            rdev: 0,
            atime: state.atime,
            mtime: state.mtime,
            ctime: state.ctime,
            btime: None,
        })
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        if changes.size_bytes.is_some() {
            return Err(Errno::EINVAL);
        }
        let now = Timestamp::now();
        let time = |set| match set {
            SetTime::Now => now,
            SetTime::To(time) => time,
        };
        let mut state = self.state.write();
        state.perm = changes.perm.unwrap_or(state.perm);
        state.uid = changes.uid.unwrap_or(state.uid);
        state.gid = changes.gid.unwrap_or(state.gid);
        state.atime = changes.atime.map_or(state.atime, time);
        state.mtime = changes.mtime.map_or(state.mtime, time);
        state.ctime = now;
        Ok(())
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        // Reached by /proc/PID/fd/N of such a file: there is nothing to open
        // but the description itself.
        Err(Errno::ENXIO)
    }
}
