//! Answers of stat(2), statx(2) and statfs(2).

use super::names::{const_set, flag_set};
use super::time::Timespec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct stat` of x86-64.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Stat {
    pub st_dev: u64,
    pub st_ino: u64,
    pub st_nlink: u64,
    pub st_mode: u32,
    pub st_uid: u32,
    pub st_gid: u32,
    pub __pad0: u32,
    pub st_rdev: u64,
    pub st_size: i64,
    pub st_blksize: i64,
    /// In units of 512 bytes.
    pub st_blocks: i64,
    pub st_atime: Timespec,
    pub st_mtime: Timespec,
    pub st_ctime: Timespec,
    pub __unused: [i64; 3],
}

/// `struct statx_timestamp`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StatxTimestamp {
    pub tv_sec: i64,
    pub tv_nsec: u32,
    pub __reserved: i32,
}

impl From<Timespec> for StatxTimestamp {
    fn from(ts: Timespec) -> Self {
        Self {
            tv_sec: ts.tv_sec,
            tv_nsec: ts.tv_nsec as u32,
            __reserved: 0,
        }
    }
}

/// `struct statx`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Statx {
    pub stx_mask: u32,
    pub stx_blksize: u32,
    pub stx_attributes: u64,
    pub stx_nlink: u32,
    pub stx_uid: u32,
    pub stx_gid: u32,
    pub stx_mode: u16,
    pub __spare0: u16,
    pub stx_ino: u64,
    pub stx_size: u64,
    pub stx_blocks: u64,
    pub stx_attributes_mask: u64,
    pub stx_atime: StatxTimestamp,
    pub stx_btime: StatxTimestamp,
    pub stx_ctime: StatxTimestamp,
    pub stx_mtime: StatxTimestamp,
    pub stx_rdev_major: u32,
    pub stx_rdev_minor: u32,
    pub stx_dev_major: u32,
    pub stx_dev_minor: u32,
    pub stx_mnt_id: u64,
    pub stx_dio_mem_align: u32,
    pub stx_dio_offset_align: u32,
    pub stx_subvol: u64,
    pub stx_atomic_write_unit_min: u32,
    pub stx_atomic_write_unit_max: u32,
    pub stx_atomic_write_segments_max: u32,
    pub stx_dio_read_offset_align: u32,
    pub stx_atomic_write_unit_max_opt: u32,
    pub __spare2: u32,
    pub __spare3: [u64; 8],
}

flag_set! {
    /// Wanted and answered fields of statx(2).
    StatxMask: u32, STATX_MASK {
        STATX_BASIC_STATS = 0x7ff,
        STATX_TYPE = 0x1,
        STATX_MODE = 0x2,
        STATX_NLINK = 0x4,
        STATX_UID = 0x8,
        STATX_GID = 0x10,
        STATX_ATIME = 0x20,
        STATX_MTIME = 0x40,
        STATX_CTIME = 0x80,
        STATX_INO = 0x100,
        STATX_SIZE = 0x200,
        STATX_BLOCKS = 0x400,
        STATX_BTIME = 0x800,
        STATX_MNT_ID = 0x1000,
        STATX_DIOALIGN = 0x2000,
        STATX_MNT_ID_UNIQUE = 0x4000,
        STATX_SUBVOL = 0x8000,
        STATX_WRITE_ATOMIC = 0x10000,
        STATX_DIO_READ_ALIGN = 0x20000,
    }
}

flag_set! {
    /// `stx_attributes`.
    StatxAttr: u64, STATX_ATTR {
        STATX_ATTR_COMPRESSED = 0x4,
        STATX_ATTR_IMMUTABLE = 0x10,
        STATX_ATTR_APPEND = 0x20,
        STATX_ATTR_NODUMP = 0x40,
        STATX_ATTR_ENCRYPTED = 0x800,
        STATX_ATTR_AUTOMOUNT = 0x1000,
        STATX_ATTR_MOUNT_ROOT = 0x2000,
        STATX_ATTR_VERITY = 0x100000,
        STATX_ATTR_DAX = 0x200000,
    }
}

/// `struct statfs` of x86-64.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Statfs {
    pub f_type: i64,
    pub f_bsize: i64,
    pub f_blocks: u64,
    pub f_bfree: u64,
    pub f_bavail: u64,
    pub f_files: u64,
    pub f_ffree: u64,
    pub f_fsid: [i32; 2],
    pub f_namelen: i64,
    pub f_frsize: i64,
    pub f_flags: i64,
    pub f_spare: [i64; 4],
}

flag_set! {
    /// `f_flags` of statfs(2).
    StFlags: u64, ST_FLAGS {
        ST_RDONLY = 1,
        ST_NOSUID = 2,
        ST_NODEV = 4,
        ST_NOEXEC = 8,
        ST_SYNCHRONOUS = 0x10,
        ST_VALID = 0x20,
        ST_MANDLOCK = 0x40,
        ST_NOATIME = 0x400,
        ST_NODIRATIME = 0x800,
        ST_RELATIME = 0x1000,
        ST_NOSYMFOLLOW = 0x2000,
    }
}

const_set! {
    /// `f_type` of statfs(2).
    FS_MAGIC: i64 {
        EXT4_SUPER_MAGIC = 0xef53,
        TMPFS_MAGIC = 0x1021994,
        PROC_SUPER_MAGIC = 0x9fa0,
        SYSFS_MAGIC = 0x62656572,
        DEVPTS_SUPER_MAGIC = 0x1cd1,
        OVERLAYFS_SUPER_MAGIC = 0x794c7630,
        CGROUP_SUPER_MAGIC = 0x27e0eb,
        CGROUP2_SUPER_MAGIC = 0x63677270,
        RAMFS_MAGIC = 0x858458f6,
        HUGETLBFS_MAGIC = 0x958458f6,
        SOCKFS_MAGIC = 0x534f434b,
        PIPEFS_MAGIC = 0x50495045,
        ANON_INODE_FS_MAGIC = 0x9041934,
        NSFS_MAGIC = 0x6e736673,
        SECURITYFS_MAGIC = 0x73636673,
        DEBUGFS_MAGIC = 0x64626720,
        TRACEFS_MAGIC = 0x74726163,
        BPF_FS_MAGIC = 0xcafe4a11,
        SELINUX_MAGIC = 0xf97cff8c,
        XFS_SUPER_MAGIC = 0x58465342,
        BTRFS_SUPER_MAGIC = 0x9123683e,
        NFS_SUPER_MAGIC = 0x6969,
        SQUASHFS_MAGIC = 0x73717368,
        V9FS_MAGIC = 0x1021997,
        MSDOS_SUPER_MAGIC = 0x4d44,
        MQUEUE_MAGIC = 0x19800202,
        PID_FS_MAGIC = 0x50494446,
        FUSE_SUPER_MAGIC = 0x65735546,
    }
}

/// Argument of file_getattr(2) and file_setattr(2), `struct file_attr`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FileAttr {
    pub fa_xflags: u64,
    pub fa_extsize: u32,
    pub fa_nextents: u32,
    pub fa_projid: u32,
    pub fa_cowextsize: u32,
}
