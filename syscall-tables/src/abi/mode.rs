//! File types, permission bits, directory entries and device numbers.

use super::names::const_set;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const_set! {
    /// File types of `st_mode`.
    FILE_TYPES: u32 {
        S_IFSOCK = 0xc000,
        S_IFLNK = 0xa000,
        S_IFREG = 0x8000,
        S_IFBLK = 0x6000,
        S_IFDIR = 0x4000,
        S_IFCHR = 0x2000,
        S_IFIFO = 0x1000,
    }
}

/// Mask of the file type in `st_mode`.
pub const S_IFMT: u32 = 0xf000;

// Permission bits.
pub const S_ISUID: u32 = 0o4000;
pub const S_ISGID: u32 = 0o2000;
pub const S_ISVTX: u32 = 0o1000;
pub const S_IRWXU: u32 = 0o700;
pub const S_IRUSR: u32 = 0o400;
pub const S_IWUSR: u32 = 0o200;
pub const S_IXUSR: u32 = 0o100;
pub const S_IRWXG: u32 = 0o070;
pub const S_IRGRP: u32 = 0o040;
pub const S_IWGRP: u32 = 0o020;
pub const S_IXGRP: u32 = 0o010;
pub const S_IRWXO: u32 = 0o007;
pub const S_IROTH: u32 = 0o004;
pub const S_IWOTH: u32 = 0o002;
pub const S_IXOTH: u32 = 0o001;

/// All bits chmod(2) sets.
pub const S_IALLUGO: u32 = 0o7777;

const_set! {
    /// `d_type` of a directory entry.
    DIRENT_TYPES: u8 {
        DT_UNKNOWN = 0,
        DT_FIFO = 1,
        DT_CHR = 2,
        DT_DIR = 4,
        DT_BLK = 6,
        DT_REG = 8,
        DT_LNK = 10,
        DT_SOCK = 12,
        DT_WHT = 14,
    }
}

/// `d_type` of a file with this mode: the type bits, shifted.
pub const fn dirent_type(mode: u32) -> u8 {
    ((mode & S_IFMT) >> 12) as u8
}

/// Fixed part of `struct linux_dirent64`; the NUL-terminated name follows at
/// offset 19 and the record is padded to 8 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, packed)]
pub struct Dirent64Header {
    pub d_ino: u64,
    /// Position to give to lseek(2) to continue after this entry.
    pub d_off: i64,
    /// Length of the whole record.
    pub d_reclen: u16,
    pub d_type: u8,
}

impl Dirent64Header {
    /// Length of the record for a name of this length.
    pub const fn record_len(name_len: usize) -> usize {
        (size_of::<Self>() + name_len + 1).next_multiple_of(8)
    }
}

/// Fixed part of the old `struct linux_dirent` of getdents(2); the name
/// follows at offset 18, and the type is the record's last byte.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, packed)]
pub struct DirentHeader {
    pub d_ino: u64,
    pub d_off: u64,
    pub d_reclen: u16,
}

impl DirentHeader {
    /// Length of the record for a name of this length.
    pub const fn record_len(name_len: usize) -> usize {
        (size_of::<Self>() + name_len + 2).next_multiple_of(8)
    }
}

/// Device number in the encoding of `st_dev` and `st_rdev` (12 bits of major
/// and 20 of minor survive the kernel).
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    ((major & 0xffff_f000) << 32)
        | ((major & 0xfff) << 8)
        | ((minor & 0xffff_ff00) << 12)
        | (minor & 0xff)
}

/// Major number of a device.
pub const fn dev_major(dev: u64) -> u32 {
    (((dev >> 32) & 0xffff_f000) | ((dev >> 8) & 0xfff)) as u32
}

/// Minor number of a device.
pub const fn dev_minor(dev: u64) -> u32 {
    (((dev >> 12) & 0xffff_ff00) | (dev & 0xff)) as u32
}
