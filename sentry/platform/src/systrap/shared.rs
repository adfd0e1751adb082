//! Memory that the sentry shares with stubs.
//!
//! The other side is hostile and may write at any moment. So nothing in here
//! is ever a reference to plain data: words are read and written once, by
//! atomics, and bytes are moved by a string instruction that the compiler
//! knows nothing about.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use syscall_tables::Errno;

use crate::Window;

/// The last error of a host call.
pub(super) fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// Whether a memfd may be executed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Executable {
    No,
    Yes,
}

const MFD_NOEXEC_SEAL: libc::c_uint = 8;
const MFD_EXEC: libc::c_uint = 0x10;

/// A new sealable memfd of `len` bytes.
pub(super) fn memfd(name: &CStr, len: u64, executable: Executable) -> Result<OwnedFd, Errno> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let kind = match executable {
        Executable::No => MFD_NOEXEC_SEAL,
        Executable::Yes => MFD_EXEC,
    };
    // SAFETY: `name` is a C string that outlives the call.
    let mut fd = unsafe { libc::memfd_create(name.as_ptr(), flags | kind) };
    if fd < 0 && last_errno() == Errno::EINVAL {
        // Before Linux 6.3, where all memfds may be executed.
        // SAFETY: as above.
        fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    }
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call has just returned this descriptor; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let len = libc::off_t::try_from(len).map_err(|_| Errno::EINVAL)?;
    // SAFETY: plain call on an open descriptor.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), len) } < 0 {
        return Err(last_errno());
    }
    Ok(fd)
}

/// Writes bytes of a new memfd.
pub(super) fn fill(fd: BorrowedFd<'_>, mut offset: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let at = libc::off_t::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let written = nix::sys::uio::pwrite(fd, bytes, at).map_err(crate::host::errno)?;
        bytes = bytes.get(written..).unwrap_or_default();
        offset += u64::try_from(written).unwrap_or(0);
    }
    Ok(())
}

/// Adds `seals` (`F_SEAL_*`) to a memfd.
pub(super) fn seal(fd: BorrowedFd<'_>, seals: libc::c_int) -> Result<(), Errno> {
    // SAFETY: plain call on an open descriptor.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// The seals after which nobody but existing mappings can change a memfd.
pub(super) const SEAL_CONTENT: libc::c_int =
    libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
/// The seals after which nobody can change a memfd.
pub(super) const SEAL_ALL: libc::c_int =
    libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
/// The seals that fix a memfd's size, so that no access can end in `SIGBUS`.
pub(super) const SEAL_SIZE: libc::c_int =
    libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// A writable shared mapping of a whole memfd whose size is sealed.
pub(super) struct SharedMap {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is only accessed through atomics and `rep movsb`, from
// any thread.
unsafe impl Send for SharedMap {}
// SAFETY: as above.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps `len` bytes of `fd` and then adds `seals`, which must fix the size.
    pub(super) fn new(fd: BorrowedFd<'_>, len: u64, seals: libc::c_int) -> Result<Self, Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::ENOMEM)?;
        // SAFETY: a new mapping at an address of the host's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let base = NonNull::new(base.cast()).ok_or(Errno::ENOMEM)?;
        let map = Self { base, len };
        // Not in a core dump, not in children of the sentry.
        // SAFETY: the range was mapped just now and is owned by `map`.
        unsafe {
            libc::madvise(map.base.as_ptr().cast(), len, libc::MADV_DONTFORK);
            libc::madvise(map.base.as_ptr().cast(), len, libc::MADV_DONTDUMP);
        }
        seal(fd, seals)?;
        Ok(map)
    }

    fn at(&self, offset: u64, len: usize) -> *mut u8 {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "offsets come from the layout, never from the guest"
        );
        self.base.as_ptr().wrapping_add(offset)
    }

    /// The 32-bit word at `offset`.
    pub(super) fn u32(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        // SAFETY: `at` checks the bounds, the base is page aligned, and the
        // mapping lives as long as `self`. Other processes race, by atomics.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    /// The 64-bit word at `offset`.
    pub(super) fn u64(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: as in `u32`.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    pub(super) fn load(&self, offset: u64) -> u64 {
        self.u64(offset).load(Ordering::Relaxed)
    }

    pub(super) fn store(&self, offset: u64, value: u64) {
        self.u64(offset).store(value, Ordering::Relaxed);
    }

    /// Copies bytes out of the mapping.
    pub(super) fn read(&self, offset: u64, dst: &mut [u8]) {
        let src = self.at(offset, dst.len());
        // SAFETY: `at` has checked the bounds; the other side is a slice.
        unsafe { move_bytes(src, dst.as_mut_ptr(), dst.len()) };
    }

    /// Copies bytes into the mapping.
    pub(super) fn write(&self, offset: u64, src: &[u8]) {
        let dst = self.at(offset, src.len());
        // SAFETY: as in `read`.
        unsafe { move_bytes(src.as_ptr(), dst, src.len()) };
    }

    /// A part of the mapping for transfers.
    pub(super) fn window(&self, offset: u64, len: usize) -> Window<'_> {
        let base = self.at(offset, len);
        // SAFETY: `at` has checked the bounds, the mapping lives as long as
        // `self`, and of its bytes nobody makes references.
        unsafe { Window::new(base, len) }
    }
}

/// Moves `len` bytes from `src` to `dst`.
///
/// # Safety
///
/// Both ranges are mapped, one of them is a borrowed slice, and the other one
/// is shared memory of which no slice is ever made.
pub(crate) unsafe fn move_bytes(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: both ranges are valid for `len` bytes by the caller's promise
    // and can't overlap: one is a slice, the other is none. The compiler sees
    // an opaque access, so racing writers can't invalidate its assumptions.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rsi") src => _,
            inout("rdi") dst => _,
            inout("rcx") len => _,
            options(nostack, preserves_flags),
        );
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's own and nothing borrows it.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.len);
        }
    }
}

/// Frees the memory behind a range of a memfd; it reads as zeros again.
pub(super) fn punch_hole(fd: BorrowedFd<'_>, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len)) else {
        return;
    };
    // SAFETY: plain call on an open descriptor. A failure only wastes memory.
    unsafe {
        libc::fallocate(
            fd.as_fd().as_raw_fd(),
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            offset,
            len,
        );
    }
}
