//! The host calls of the server, shaped for its use.
//!
//! Every name that goes to the host here is a single component, or a path of
//! components that only `openat2` with [`BENEATH`] sees.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use gofer_proto::{Attr, FileKind, FsStat, Time};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

/// How names are resolved: never out of the directory, never by a symbolic
/// link. Mounts below it may be crossed.
pub const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// `openat2` gives up with `EAGAIN` where a rename raced with it; a rename
/// storm must not keep a request here for ever.
const MAX_RETRIES: u32 = 1000;

/// Opens `path` beneath `dir`.
pub fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let mut flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // openat2 refuses flags that mean nothing together.
    if !flags.contains(OFlags::PATH) {
        flags |= OFlags::NOCTTY;
    }
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(dir, path, flags, mode, BENEATH) {
            Err(Errno::AGAIN) if tries < MAX_RETRIES => tries += 1,
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens `path` beneath `dir` without opening the object itself.
pub fn open_path(dir: BorrowedFd<'_>, path: &[u8], more: OFlags) -> Result<OwnedFd, Errno> {
    open_beneath(dir, path, OFlags::PATH | more, Mode::empty())
}

const ATTR_MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Attributes of the object `name` in `dir`, a link itself.
pub fn attr_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Attr, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, ATTR_MASK).map(|stat| attr(&stat))
}

/// Attributes of an open object.
pub fn attr_of(fd: BorrowedFd<'_>) -> Result<Attr, Errno> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, ATTR_MASK).map(|stat| attr(&stat))
}

fn attr(stat: &rustix::fs::Statx) -> Attr {
    let time = |t: &rustix::fs::StatxTimestamp| Time::new(t.tv_sec, t.tv_nsec);
    Attr {
        mode: u32::from(stat.stx_mode),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        ino: stat.stx_ino,
        dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        rdev: rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        blksize: stat.stx_blksize,
        has_btime: u32::from(stat.stx_mask & StatxFlags::BTIME.bits() != 0),
        atime: time(&stat.stx_atime),
        mtime: time(&stat.stx_mtime),
        ctime: time(&stat.stx_ctime),
        btime: time(&stat.stx_btime),
    }
}

/// Figures of the file system that holds an open object.
pub fn fs_stat(fd: BorrowedFd<'_>) -> Result<FsStat, Errno> {
    let raw = rustix::fs::fstatfs(fd)?;
    let figures = rustix::fs::fstatvfs(fd)?;
    Ok(FsStat {
        fs_type: u64::try_from(raw.f_type).unwrap_or(0),
        block_size: u64::try_from(raw.f_bsize).unwrap_or(4096),
        blocks: raw.f_blocks,
        blocks_free: raw.f_bfree,
        blocks_available: raw.f_bavail,
        files: raw.f_files,
        files_free: raw.f_ffree,
        name_max: figures.f_namemax,
        fragment_size: figures.f_frsize,
        flags: figures.f_flag.bits(),
    })
}

/// `/proc/self/fd`, which turns an `O_PATH` fd into an open file without a
/// second walk. It stays usable when `/proc` is out of sight.
#[derive(Debug)]
pub struct ProcFd(OwnedFd);

impl ProcFd {
    pub fn open() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/fd", flags, Mode::empty()).map(Self)
    }

    /// Opens the regular file or directory behind `fd`. The caller has made
    /// sure that it is one: nothing else may ever get here.
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::io::retry_on_intr(|| {
            rustix::fs::openat(&self.0, self.name(fd).as_str(), flags, Mode::empty())
        })
    }

    /// Changes the mode of the object behind `fd`.
    pub fn chmod(&self, fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::chmodat(&self.0, self.name(fd).as_str(), mode, AtFlags::empty())
    }

    /// Gives the object behind `fd` a further name.
    pub fn link(&self, fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        let from = self.name(fd);
        rustix::fs::linkat(&self.0, from.as_str(), dir, name, AtFlags::SYMLINK_FOLLOW)
    }

    fn name(&self, fd: BorrowedFd<'_>) -> String {
        fd.as_raw_fd().to_string()
    }
}

impl AsFd for ProcFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// File systems that show the host's kernel rather than files: never entered
/// from another one, so that a gofer of `/` does not hand out `/proc`.
fn is_kernel_view(fs_type: i64) -> bool {
    const MAGICS: [i64; 16] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x1cd1,      // devpts
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0xcafe_4a11, // bpf
        0x1980_0202, // mqueue
        0x6e73_6673, // nsfs
        0x6165_676c, // pstore
        0xde5e_81e4, // efivarfs
        0x6265_6570, // configfs
        0x4249_4e4d, // binfmt_misc
        0x6573_5543, // fusectl
    ];
    MAGICS.contains(&fs_type)
}

/// `EACCES` if `fd` is on a file system that shows the host's kernel.
pub fn refuse_kernel_view(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let fs_type = rustix::fs::fstatfs(fd)?.f_type;
    // The field is a signed word; magic numbers are 32-bit.
    if is_kernel_view(fs_type & 0xffff_ffff) {
        Err(Errno::ACCESS)
    } else {
        Ok(())
    }
}

/// Target of the link `name` in `dir`.
pub fn read_link_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(dir, name, Vec::new()).map(std::ffi::CString::into_bytes)
}

/// One raw directory entry.
pub struct RawEntry<'a> {
    pub name: &'a [u8],
    pub ino: u64,
    pub offset: i64,
    pub kind: FileKind,
}

/// Bytes of entries read by one host call.
const DIR_BUFFER: usize = 64 << 10;

/// Feeds `each` with entries from `offset` on until it answers `false`;
/// whether the directory has ended.
pub fn read_dir(
    dir: BorrowedFd<'_>,
    offset: i64,
    mut each: impl FnMut(RawEntry<'_>) -> bool,
) -> Result<bool, Errno> {
    let start = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(start))?;
    let mut buffer = [MaybeUninit::uninit(); DIR_BUFFER];
    let mut entries = rustix::fs::RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            // A directory that is gone has no entries.
            Err(Errno::NOENT) => return Ok(true),
            other => other?,
        };
        let raw = RawEntry {
            name: entry.file_name().to_bytes(),
            ino: entry.ino(),
            offset: entry.next_entry_cookie().cast_signed(),
            kind: kind(entry.file_type()),
        };
        if !each(raw) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn kind(file_type: rustix::fs::FileType) -> FileKind {
    use rustix::fs::FileType as T;
    match file_type {
        T::RegularFile => FileKind::Regular,
        T::Directory => FileKind::Directory,
        T::Symlink => FileKind::Symlink,
        T::Fifo => FileKind::Fifo,
        T::Socket => FileKind::Socket,
        T::CharacterDevice => FileKind::CharDevice,
        T::BlockDevice => FileKind::BlockDevice,
        T::Unknown => FileKind::Unknown,
    }
}
