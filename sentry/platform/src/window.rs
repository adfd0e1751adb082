//! Memory that a transfer between a file and guest memory passes through.
//!
//! A window is shared with the guest, which may change it at any moment. So it
//! is never seen as a slice: bytes go in and out by host calls and by opaque
//! copies, each once.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use syscall_tables::Errno;

use crate::host::io::Wait;

/// A transfer hands over at least this much at once, unless it ends before.
pub const PIECE_LEN: usize = 32 << 10;

/// A part of a window.
#[derive(Debug)]
pub struct Window<'a> {
    base: *mut u8,
    len: usize,
    mapping: PhantomData<&'a ()>,
}

impl<'a> Window<'a> {
    /// # Safety
    ///
    /// `len` bytes from `base` on are mapped readable and writable for `'a`,
    /// and nobody makes a reference to them.
    pub(crate) unsafe fn new(base: *mut u8, len: usize) -> Self {
        Self {
            base,
            len,
            mapping: PhantomData,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All but the first `count` bytes.
    #[must_use]
    pub fn behind(&self, count: usize) -> Window<'a> {
        let count = count.min(self.len);
        Self {
            base: self.base.wrapping_add(count),
            len: self.len - count,
            mapping: PhantomData,
        }
    }

    /// The first `len` bytes.
    #[must_use]
    pub fn until(&self, len: usize) -> Window<'a> {
        Self {
            base: self.base,
            len: len.min(self.len),
            mapping: PhantomData,
        }
    }

    /// Fills it from a file, at `at`; see [`crate::host::io::preadv`].
    pub fn pread(&self, fd: impl AsFd, at: u64, wait: Wait) -> Result<usize, Errno> {
        let at = crate::host::io::offset(at)?;
        let fd = fd.as_fd().as_raw_fd();
        let part = self.iovec();
        crate::host::io::retry(|| match wait {
            // SAFETY: the host writes into memory that `new` was promised; it
            // is the same as any other writer there.
            Wait::Allowed => unsafe { libc::pread(fd, self.base.cast(), self.len, at) },
            // SAFETY: as above.
            Wait::Never => unsafe { libc::preadv2(fd, &raw const part, 1, at, wait.flags()) },
        })
    }

    /// Writes it to a file, at `at`.
    pub fn pwrite(&self, fd: impl AsFd, at: u64) -> Result<usize, Errno> {
        let at = crate::host::io::offset(at)?;
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: the host reads memory that `new` was promised, once.
        crate::host::io::retry(|| unsafe { libc::pwrite(fd, self.base.cast(), self.len, at) })
    }

    fn iovec(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.base.cast(),
            iov_len: self.len,
        }
    }

    /// Puts bytes in; how many there was room for.
    pub fn put(&self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.len);
        // SAFETY: the window is mapped and no slice of it exists; the source
        // is a slice of at least `len` bytes.
        unsafe { crate::systrap::move_bytes(bytes.as_ptr(), self.base, len) };
        len
    }

    /// Takes bytes out; how many there were.
    pub fn take(&self, dst: &mut [u8]) -> usize {
        let len = dst.len().min(self.len);
        // SAFETY: as in `put`, the other way.
        unsafe { crate::systrap::move_bytes(self.base, dst.as_mut_ptr(), len) };
        len
    }
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a file to guest memory.
    ToGuest,
    /// From guest memory to a file.
    FromGuest,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Transferred {
    /// Bytes that went all the way.
    pub done: usize,
    /// What the file's side said.
    pub error: Option<Errno>,
    /// The guest's memory was not accessible behind `done` bytes, or behind
    /// what the file's side has not taken.
    pub faulted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_window_move_bytes_both_ways() {
        let mut memory = [0u8; 16];
        // SAFETY: the array outlives the window and is looked at afterwards.
        let window = unsafe { Window::new(memory.as_mut_ptr(), memory.len()) };
        assert_eq!(window.put(b"0123456789abcdefgh"), 16);
        assert_eq!(window.behind(10).put(b"xyz"), 3);
        let mut out = [0; 4];
        assert_eq!(window.behind(9).until(3).take(&mut out), 3);
        assert_eq!(&out, b"9xy\0");
        assert!(window.behind(99).is_empty());
    }

    #[test]
    fn files_fill_windows_and_take_them() {
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let fd = nix::sys::memfd::memfd_create(c"test", flags).expect("memfd");
        let mut memory = *b"hello, world";
        // SAFETY: as above.
        let window = unsafe { Window::new(memory.as_mut_ptr(), memory.len()) };
        assert_eq!(window.pwrite(&fd, 3), Ok(12));
        assert_eq!(window.pread(&fd, 10, Wait::Allowed), Ok(5));
        let mut out = [0; 5];
        window.take(&mut out);
        assert_eq!(&out, b"world");
        assert_eq!(
            window.pread(&fd, u64::MAX, Wait::Allowed),
            Err(Errno::EINVAL)
        );
    }
}
