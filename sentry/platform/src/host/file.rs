//! Calls on memfds and on files that a gofer donated.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag};
use nix::sys::memfd::MFdFlags;
use nix::unistd::Whence;
use syscall_tables::Errno;

use super::errno;

/// Size and allocation of a host file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSize {
    pub len_bytes: u64,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(nix::Error::EINTR) => {}
            done => return done.map_err(errno),
        }
    }
}

fn offset(at: u64) -> Result<i64, Errno> {
    i64::try_from(at).map_err(|_| Errno::EINVAL)
}

/// A new empty memfd; sealing is allowed.
pub fn memfd_create(name: &str) -> Result<OwnedFd, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    nix::sys::memfd::memfd_create(name, flags).map_err(errno)
}

/// `pread(2)`.
pub fn pread(fd: impl AsFd, buf: &mut [u8], at: u64) -> Result<usize, Errno> {
    let at = offset(at)?;
    retry(|| nix::sys::uio::pread(fd.as_fd(), buf, at))
}

/// `pwrite(2)`.
pub fn pwrite(fd: impl AsFd, buf: &[u8], at: u64) -> Result<usize, Errno> {
    let at = offset(at)?;
    retry(|| nix::sys::uio::pwrite(fd.as_fd(), buf, at))
}

/// `ftruncate(2)`.
pub fn ftruncate(fd: impl AsFd, len: u64) -> Result<(), Errno> {
    let len = offset(len)?;
    retry(|| nix::unistd::ftruncate(fd.as_fd(), len))
}

/// `fallocate(2)` with raw mode bits.
pub fn fallocate(fd: impl AsFd, mode: u32, at: u64, len: u64) -> Result<(), Errno> {
    let mode = FallocateFlags::from_bits_retain(mode.cast_signed());
    let (at, len) = (offset(at)?, offset(len)?);
    retry(|| nix::fcntl::fallocate(fd.as_fd(), mode, at, len))
}

/// Size and allocation by `fstat(2)`.
pub fn file_size(fd: impl AsFd) -> Result<FileSize, Errno> {
    // The C library's fstat is another call, which takes a path as well and
    // is therefore not on the sentry's list.
    let stat = super::io::fstat(fd)?;
    Ok(FileSize {
        len_bytes: stat.st_size.try_into().unwrap_or(0),
        blocks: stat.st_blocks.try_into().unwrap_or(0),
    })
}

/// `lseek(2)` with `SEEK_DATA` (`data`) or `SEEK_HOLE`. Moves the position of
/// the description, which positioned calls do not use.
pub fn seek_sparse(fd: impl AsFd, at: u64, data: bool) -> Result<u64, Errno> {
    let whence = if data {
        Whence::SeekData
    } else {
        Whence::SeekHole
    };
    let found = nix::unistd::lseek(fd.as_fd(), offset(at)?, whence).map_err(errno)?;
    u64::try_from(found).map_err(|_| Errno::EIO)
}

/// `F_ADD_SEALS` with raw seal bits.
pub fn add_seals(fd: impl AsFd, seals: u32) -> Result<(), Errno> {
    let seals = SealFlag::from_bits_retain(seals.cast_signed());
    nix::fcntl::fcntl(fd.as_fd(), FcntlArg::F_ADD_SEALS(seals)).map_err(errno)?;
    Ok(())
}

/// Whether the descriptor was opened for reading alone.
pub fn is_read_only(fd: impl AsFd) -> Result<bool, Errno> {
    let flags = nix::fcntl::fcntl(fd.as_fd(), FcntlArg::F_GETFL).map_err(errno)?;
    Ok(flags & nix::libc::O_ACCMODE == nix::libc::O_RDONLY)
}

/// `fsync(2)`, or `fdatasync(2)` with `data_only`.
pub fn fsync(fd: impl AsFd, data_only: bool) -> Result<(), Errno> {
    let fd = fd.as_fd();
    retry(|| {
        if data_only {
            nix::unistd::fdatasync(fd)
        } else {
            nix::unistd::fsync(fd)
        }
    })
}
