//! Vectored and non-waiting transfers, and what a descriptor is.
//!
//! Positioned calls on donated files. With [`Wait::Never`] the host answers
//! `EAGAIN` where it would have to wait for a disk (`RWF_NOWAIT`); callers
//! then repeat the call in a [`crate::executor::blocking`] section. File
//! systems without support say `EOPNOTSUPP`.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

use syscall_tables::Errno;
use syscall_tables::abi::{Stat, Statfs};

/// Whether a transfer may wait for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Allowed,
    Never,
}

impl Wait {
    pub(crate) const fn flags(self) -> libc::c_int {
        match self {
            Self::Allowed => 0,
            Self::Never => libc::RWF_NOWAIT,
        }
    }
}

/// Most buffers a call takes (`UIO_MAXIOV`); more are left for the next one.
const MAX_BUFFERS: usize = 1024;

fn result(value: isize) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_| Errno::from(std::io::Error::last_os_error()))
}

/// Repeats `call` while a signal interrupts it before it has done anything.
pub(crate) fn retry(mut call: impl FnMut() -> isize) -> Result<usize, Errno> {
    loop {
        match result(call()) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

pub(crate) fn offset(at: u64) -> Result<i64, Errno> {
    i64::try_from(at).map_err(|_| Errno::EINVAL)
}

fn buffer_count(len: usize) -> libc::c_int {
    // At most 1024.
    len.min(MAX_BUFFERS) as libc::c_int
}

/// `preadv2(2)`: fills `buffers` from `at` on; the position is not moved.
pub fn preadv(
    fd: impl AsFd,
    buffers: &mut [IoSliceMut<'_>],
    at: u64,
    wait: Wait,
) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    let at = offset(at)?;
    let count = buffer_count(buffers.len());
    retry(|| {
        // SAFETY: `IoSliceMut` has the layout of iovec by its contract; the
        // buffers are borrowed for the call.
        unsafe { libc::preadv2(fd, buffers.as_mut_ptr().cast(), count, at, wait.flags()) }
    })
}

/// `pwritev2(2)`: writes `buffers` from `at` on; the position is not moved.
pub fn pwritev(
    fd: impl AsFd,
    buffers: &[IoSlice<'_>],
    at: u64,
    wait: Wait,
) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    let at = offset(at)?;
    let count = buffer_count(buffers.len());
    retry(|| {
        // SAFETY: as in `preadv`; the host only reads the buffers.
        unsafe { libc::pwritev2(fd, buffers.as_ptr().cast(), count, at, wait.flags()) }
    })
}

/// Writes behind the file's end, wherever that is by then (`RWF_APPEND`).
pub fn append(fd: impl AsFd, buf: &[u8]) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    let buffers = [IoSlice::new(buf)];
    retry(|| {
        // SAFETY: as in `pwritev`.
        unsafe { libc::pwritev2(fd, buffers.as_ptr().cast(), 1, 0, libc::RWF_APPEND) }
    })
}

/// `copy_file_range(2)` between two files at explicit offsets.
pub fn copy_file_range(
    from: impl AsFd,
    from_at: u64,
    to: impl AsFd,
    to_at: u64,
    len: usize,
) -> Result<usize, Errno> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let (from_at, to_at) = (offset(from_at)?, offset(to_at)?);
    retry(|| {
        let (mut from_at, mut to_at) = (from_at, to_at);
        // SAFETY: the offsets are live integers that the host updates.
        unsafe { libc::copy_file_range(from, &raw mut from_at, to, &raw mut to_at, len, 0) }
    })
}

/// `fstat(2)` as the guest's own structure.
pub fn fstat(fd: impl AsFd) -> Result<Stat, Errno> {
    let mut stat = Stat::default();
    // SAFETY: `Stat` has the layout of the kernel's `struct stat`.
    let value = unsafe { libc::syscall(libc::SYS_fstat, fd.as_fd().as_raw_fd(), &raw mut stat) };
    result(value as isize)?;
    Ok(stat)
}

/// `fstatfs(2)` as the guest's own structure.
pub fn fstatfs(fd: impl AsFd) -> Result<Statfs, Errno> {
    let mut stat = Statfs::default();
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: `Statfs` has the layout of the kernel's `struct statfs`.
    retry(|| unsafe { libc::syscall(libc::SYS_fstatfs, fd, &raw mut stat) as isize })?;
    Ok(stat)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memfd() -> std::os::fd::OwnedFd {
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        nix::sys::memfd::memfd_create(c"test", flags).expect("memfd")
    }

    #[test]
    fn vectored_transfers_report_how_much_there_was() {
        let fd = memfd();
        let parts = [IoSlice::new(b"hello "), IoSlice::new(b"world")];
        assert_eq!(pwritev(&fd, &parts, 3, Wait::Allowed), Ok(11));
        let (mut first, mut second) = ([0; 4], [0; 64]);
        let mut buffers = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(preadv(&fd, &mut buffers, 0, Wait::Allowed), Ok(14));
        assert_eq!(&first, b"\0\0\0h");
        assert_eq!(&second[..10], b"ello world");
        assert_eq!(fstat(&fd).map(|stat| stat.st_size), Ok(14));
        let other = memfd();
        assert_eq!(copy_file_range(&fd, 3, &other, 0, 100), Ok(11));
        assert!(fstatfs(&fd).is_ok());
        assert_eq!(append(&fd, b"!"), Ok(1));
        assert_eq!(fstat(&fd).map(|stat| stat.st_size), Ok(15));
        assert_eq!(
            preadv(&fd, &mut [], u64::MAX, Wait::Allowed),
            Err(Errno::EINVAL)
        );
    }
}
