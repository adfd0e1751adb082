//! Attributes of files and file systems.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Seconds and nanoseconds since 1970.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Time {
    pub sec: i64,
    /// Below 1,000,000,000.
    pub nsec: u32,
    /// Zero; room that keeps the struct free of padding.
    pub reserved: u32,
}

impl Time {
    pub const fn new(sec: i64, nsec: u32) -> Self {
        Self {
            sec,
            nsec,
            reserved: 0,
        }
    }
}

/// What `statx(2)` tells about a file.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Attr {
    /// File type and permission bits, as `st_mode`.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub ino: u64,
    /// Host device number, as `makedev(3)` packs it. With `ino` it tells
    /// whether two names are one file.
    pub dev: u64,
    pub rdev: u64,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub blksize: u32,
    /// 1 if `btime` is known.
    pub has_btime: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
}

impl Attr {
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode)
    }
}

/// Type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
    Unknown,
}

impl FileKind {
    /// From the type bits of `st_mode`.
    pub const fn from_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            _ => Self::Unknown,
        }
    }

    /// The `d_type` of `getdents64(2)`.
    pub const fn dirent_type(self) -> u8 {
        match self {
            Self::Regular => 8,
            Self::Directory => 4,
            Self::Symlink => 10,
            Self::Fifo => 1,
            Self::Socket => 12,
            Self::CharDevice => 2,
            Self::BlockDevice => 6,
            Self::Unknown => 0,
        }
    }
}

bitflags! {
    /// Which fields of [`SetAttr`] count.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct SetMask: u32 {
        const MODE = 1;
        const UID = 2;
        const GID = 4;
        const SIZE = 8;
        const ATIME = 0x10;
        const MTIME = 0x20;
        /// The gofer's current time instead of `atime`.
        const ATIME_NOW = 0x40;
        /// The gofer's current time instead of `mtime`.
        const MTIME_NOW = 0x80;
    }
}

/// Attribute changes; applied in the order size, owner, mode, times.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SetAttr {
    /// Bits of [`SetMask`]; others are malformed.
    pub mask: u32,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub atime: Time,
    pub mtime: Time,
}

impl SetAttr {
    /// The fields that count, without unknown bits.
    pub fn fields(&self) -> SetMask {
        SetMask::from_bits_truncate(self.mask)
    }
}

/// Figures of `statfs(2)`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FsStat {
    pub fs_type: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u64,
    pub fragment_size: u64,
    /// Mount flags, `ST_*` of `statvfs(3)`.
    pub flags: u64,
}
