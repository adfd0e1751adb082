//! Flag words of open(2), the `*at` calls, openat2(2), rename, memfd, splice and xattr calls.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flag_set! {
    /// Flags of open(2) as on x86-64; `O_LARGEFILE` is the kernel's bit, which
    /// 64-bit programs do not set themselves.
    OpenFlags: u32, OPEN_FLAGS {
        O_TMPFILE = 0x410000,
        O_SYNC = 0x101000,
        O_CREAT = 0x40,
        O_EXCL = 0x80,
        O_NOCTTY = 0x100,
        O_TRUNC = 0x200,
        O_APPEND = 0x400,
        O_NONBLOCK = 0x800,
        O_DSYNC = 0x1000,
        O_ASYNC = 0x2000,
        O_DIRECT = 0x4000,
        O_LARGEFILE = 0x8000,
        O_DIRECTORY = 0x10000,
        O_NOFOLLOW = 0x20000,
        O_NOATIME = 0x40000,
        O_CLOEXEC = 0x80000,
        O_PATH = 0x200000,
    }
    field 3 {
        O_RDONLY = 0x0,
        O_WRONLY = 0x1,
        O_RDWR = 0x2,
    }
}

impl OpenFlags {
    /// Mask of the access mode.
    pub const ACCESS_MODE: u32 = 3;
    /// Flags open(2) knows; it ignores the others, openat2(2) refuses them.
    pub const VALID: Self = Self::all().union(Self::O_RDWR);

    /// Whether the access mode lets read(2) through (`3` neither reads nor writes).
    pub const fn is_readable(self) -> bool {
        matches!(self.bits() & Self::ACCESS_MODE, 0 | 2) && !self.contains(Self::O_PATH)
    }

    /// Whether the access mode lets write(2) through.
    pub const fn is_writable(self) -> bool {
        matches!(self.bits() & Self::ACCESS_MODE, 1 | 2) && !self.contains(Self::O_PATH)
    }
}

/// Directory fd that means the working directory.
pub const AT_FDCWD: i32 = -100;

flag_set! {
    /// Flags of the `*at` calls (of which each knows a few).
    /// `AT_EACCESS` and `AT_REMOVEDIR` share a bit, as do `AT_SYMLINK_NOFOLLOW`'s
    /// neighbours in other calls.
    AtFlags: u32, AT_FLAGS {
        AT_SYMLINK_NOFOLLOW = 0x100,
        AT_REMOVEDIR = 0x200,
        AT_SYMLINK_FOLLOW = 0x400,
        AT_NO_AUTOMOUNT = 0x800,
        AT_EMPTY_PATH = 0x1000,
        AT_RECURSIVE = 0x8000,
        AT_STATX_FORCE_SYNC = 0x2000,
        AT_STATX_DONT_SYNC = 0x4000,
    }
}

impl AtFlags {
    /// faccessat2(2): check with the effective ids; the bit of `AT_REMOVEDIR`.
    pub const AT_EACCESS: Self = Self::AT_REMOVEDIR;
    /// name_to_handle_at(2): the bit of `AT_REMOVEDIR`.
    pub const AT_HANDLE_FID: Self = Self::AT_REMOVEDIR;
    /// execveat(2): only check, as if executing.
    pub const AT_EXECVE_CHECK: Self = Self::from_bits_retain(0x10000);
}

flag_set! {
    /// Flags of faccessat2(2), where the bit of `AT_REMOVEDIR` is `AT_EACCESS`.
    AtAccessFlags: u32, AT_ACCESS_FLAGS {
        AT_SYMLINK_NOFOLLOW = 0x100,
        AT_EACCESS = 0x200,
        AT_EMPTY_PATH = 0x1000,
    }
}

/// Argument of openat2(2), `struct open_how`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OpenHow {
    pub flags: u64,
    pub mode: u64,
    pub resolve: u64,
}

impl OpenHow {
    /// Size of the first version.
    pub const SIZE_VER0: usize = 24;
}

flag_set! {
    /// `open_how.resolve`.
    ResolveFlags: u64, RESOLVE_FLAGS {
        RESOLVE_NO_XDEV = 0x1,
        RESOLVE_NO_MAGICLINKS = 0x2,
        RESOLVE_NO_SYMLINKS = 0x4,
        RESOLVE_BENEATH = 0x8,
        RESOLVE_IN_ROOT = 0x10,
        RESOLVE_CACHED = 0x20,
    }
}

flag_set! {
    /// Flags of renameat2(2).
    RenameFlags: u32, RENAME_FLAGS {
        RENAME_NOREPLACE = 1,
        RENAME_EXCHANGE = 2,
        RENAME_WHITEOUT = 4,
    }
}

flag_set! {
    /// Mode of access(2).
    AccessMode: u32, ACCESS_MODE {
        R_OK = 0x4,
        W_OK = 0x2,
        X_OK = 0x1,
    }
    field 7 {
        F_OK = 0x0,
    }
}

const_set! {
    /// Whence of lseek(2).
    SEEK_WHENCE: u32 {
        SEEK_SET = 0,
        SEEK_CUR = 1,
        SEEK_END = 2,
        SEEK_DATA = 3,
        SEEK_HOLE = 4,
    }
}

flag_set! {
    /// Mode of fallocate(2).
    FallocFlags: u32, FALLOC_FLAGS {
        FALLOC_FL_KEEP_SIZE = 0x1,
        FALLOC_FL_PUNCH_HOLE = 0x2,
        FALLOC_FL_NO_HIDE_STALE = 0x4,
        FALLOC_FL_COLLAPSE_RANGE = 0x8,
        FALLOC_FL_ZERO_RANGE = 0x10,
        FALLOC_FL_INSERT_RANGE = 0x20,
        FALLOC_FL_UNSHARE_RANGE = 0x40,
        FALLOC_FL_WRITE_ZEROES = 0x80,
    }
}

flag_set! {
    /// Flags of memfd_create(2).
    MemfdFlags: u32, MEMFD_FLAGS {
        MFD_CLOEXEC = 0x1,
        MFD_ALLOW_SEALING = 0x2,
        MFD_HUGETLB = 0x4,
        MFD_NOEXEC_SEAL = 8,
        MFD_EXEC = 0x10,
    }
}

flag_set! {
    /// Flags of splice(2), tee(2) and vmsplice(2).
    SpliceFlags: u32, SPLICE_FLAGS {
        SPLICE_F_MOVE = 0x1,
        SPLICE_F_NONBLOCK = 0x2,
        SPLICE_F_MORE = 0x4,
        SPLICE_F_GIFT = 0x8,
    }
}

flag_set! {
    /// Flags of setxattr(2).
    XattrFlags: u32, XATTR_FLAGS {
        XATTR_CREATE = 0x1,
        XATTR_REPLACE = 0x2,
    }
}

/// Argument of setxattrat(2) and getxattrat(2), `struct xattr_args`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct XattrArgs {
    pub value: u64,
    pub size: u32,
    pub flags: u32,
}

/// Longest name of an extended attribute, without the NUL.
pub const XATTR_NAME_MAX: usize = 255;
/// Longest value of an extended attribute.
pub const XATTR_SIZE_MAX: usize = 65536;
/// Longest list of names of extended attributes.
pub const XATTR_LIST_MAX: usize = 65536;
/// Longest path with its NUL.
pub const PATH_MAX: usize = 4096;
/// Longest name of a directory entry.
pub const NAME_MAX: usize = 255;
/// Most vectors in one `iovec` array.
pub const IOV_MAX: usize = 1024;
/// Most bytes one read(2) or write(2) moves.
pub const MAX_RW_COUNT: usize = 0x7fff_f000;
/// Most symbolic links followed in one path.
pub const MAX_SYMLINKS: usize = 40;

flag_set! {
    /// Flags of preadv2(2) and pwritev2(2).
    RwfFlags: u32, RWF_FLAGS {
        RWF_HIPRI = 1,
        RWF_DSYNC = 2,
        RWF_SYNC = 4,
        RWF_NOWAIT = 8,
        RWF_APPEND = 0x10,
        RWF_NOAPPEND = 0x20,
        RWF_ATOMIC = 0x40,
        RWF_DONTCACHE = 0x80,
    }
}

flag_set! {
    /// Flags of close_range(2).
    CloseRangeFlags: u32, CLOSE_RANGE_FLAGS {
        CLOSE_RANGE_UNSHARE = 2,
        CLOSE_RANGE_CLOEXEC = 4,
    }
}

flag_set! {
    /// Flags of sync_file_range(2).
    SyncRangeFlags: u32, SYNC_RANGE_FLAGS {
        SYNC_FILE_RANGE_WAIT_BEFORE = 0x1,
        SYNC_FILE_RANGE_WRITE = 0x2,
        SYNC_FILE_RANGE_WAIT_AFTER = 0x4,
    }
}

const_set! {
    /// Advice of posix_fadvise(2).
    FADVICE: u32 {
        POSIX_FADV_NORMAL = 0,
        POSIX_FADV_RANDOM = 1,
        POSIX_FADV_SEQUENTIAL = 2,
        POSIX_FADV_WILLNEED = 3,
        POSIX_FADV_DONTNEED = 4,
        POSIX_FADV_NOREUSE = 5,
    }
}
