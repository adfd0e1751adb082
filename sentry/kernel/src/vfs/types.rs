//! Attributes of files, as the kernel handles them inside.

use smallvec::SmallVec;

use crate::task::{Gid, Uid};

/// Type of an inode (`S_IFMT` part of the mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
    /// None: event files, epoll instances and their like.
    Anonymous,
}

impl FileKind {
    /// The `S_IFMT` bits.
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Fifo => 0o010000,
            Self::CharDevice => 0o020000,
            Self::Directory => 0o040000,
            Self::BlockDevice => 0o060000,
            Self::Regular => 0o100000,
            Self::Symlink => 0o120000,
            Self::Socket => 0o140000,
            Self::Anonymous => 0,
        }
    }

    /// From the `S_IFMT` bits of `mode`; `None` for an invalid type.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170000 {
            0o010000 => Self::Fifo,
            0o020000 => Self::CharDevice,
            0o040000 => Self::Directory,
            0o060000 => Self::BlockDevice,
            0o100000 => Self::Regular,
            0o120000 => Self::Symlink,
            0o140000 => Self::Socket,
            _ => return None,
        })
    }

    /// The `d_type` of directory entries: the type bits shifted down.
    pub const fn dirent_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }
}

/// A point in time since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    pub secs: i64,
    pub nanos: u32,
}

impl Timestamp {
    /// The host's clock now.
    pub fn now() -> Self {
        let now = std::time::SystemTime::now();
        match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Self {
                secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanos: since.subsec_nanos(),
            },
            Err(_) => Self::default(),
        }
    }
}

/// Attributes of an inode, the superset of `stat(2)` and `statx(2)`.
#[derive(Clone, Copy, Debug)]
pub struct Attr {
    pub kind: FileKind,
    /// Permission bits with set-id and sticky bits (`07777`), no type bits.
    pub perm: u32,
    /// Device number of the file system, `makedev` encoding.
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub uid: Uid,
    pub gid: Gid,
    pub size_bytes: u64,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
    pub block_size: u32,
    /// Device number of a device node.
    pub rdev: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Option<Timestamp>,
}

/// The part of [`Attr`] that access checks look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: FileKind,
    pub perm: u32,
    pub uid: Uid,
    pub gid: Gid,
}

impl Attr {
    /// Those of an empty file of root's in a file system of the kernel.
    pub const fn of_root(
        kind: FileKind,
        perm: u32,
        dev: u64,
        ino: u64,
        created: Timestamp,
    ) -> Self {
        Self {
            kind,
            perm,
            dev,
            ino,
            nlink: 1,
            uid: Uid::ROOT,
            gid: Gid::ROOT,
            size_bytes: 0,
            blocks: 0,
            block_size: 4096,
            rdev: 0,
            atime: created,
            mtime: created,
            ctime: created,
            btime: None,
        }
    }

    pub const fn owner(&self) -> Owner {
        Owner {
            kind: self.kind,
            perm: self.perm,
            uid: self.uid,
            gid: self.gid,
        }
    }

    /// The whole `st_mode`.
    pub const fn mode(&self) -> u32 {
        self.kind.mode_bits() | self.perm
    }
}

/// How to set a time stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    To(Timestamp),
}

/// Attributes to change; `None` leaves one as it is. Permission has been
/// checked and set-id bits have been worked out by the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub perm: Option<u32>,
    pub uid: Option<Uid>,
    pub gid: Option<Gid>,
    pub size_bytes: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// A name in a directory listing; most fit without an allocation.
pub type EntryName = SmallVec<[u8; 32]>;

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: EntryName,
    pub ino: u64,
    pub kind: FileKind,
    /// Position behind this entry: what `lseek` takes to go on after it.
    /// Stable while the entry exists.
    pub next_offset: u64,
}

/// `statfs(2)` of a file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsStat {
    pub magic: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u64,
    pub fsid: u64,
    /// `ST_*` flags of the mount are added by the caller.
    pub flags: u64,
}
