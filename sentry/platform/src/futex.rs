//! The host's futex calls on words of this process and of shared memory.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use syscall_tables::Errno;

/// Whether a futex word is waited on by this process alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only threads of this process use the word.
    Private,
    /// Other processes map the word too.
    Shared,
}

/// Most words [`wait_any`] takes (`FUTEX_WAITV_MAX`).
pub const MAX_WAIT_WORDS: usize = 128;

/// `FUTEX2_SIZE_U32` of `<linux/futex.h>`.
const FUTEX2_SIZE_U32: u32 = 2;

/// One word of a [`wait_any`] call.
///
/// The host reads the word at `address` itself: an address that is not mapped
/// makes the call fail with `EFAULT`, so building one is safe.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct WaitWord {
    expected: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

impl WaitWord {
    /// Waits while the word is `expected`.
    pub fn new(word: *const AtomicU32, expected: u32, scope: Scope) -> Self {
        Self {
            expected: u64::from(expected),
            address: word.expose_provenance() as u64,
            flags: FUTEX2_SIZE_U32 | private_flag(scope),
            reserved: 0,
        }
    }
}

const fn private_flag(scope: Scope) -> u32 {
    match scope {
        Scope::Private => libc::FUTEX_PRIVATE_FLAG as u32,
        Scope::Shared => 0,
    }
}

fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Sleeps while `*word == expected`, at most `timeout`.
///
/// # Errors
/// `EAGAIN` if the word has another value, `ETIMEDOUT`, `EINTR`.
pub fn wait(
    word: &AtomicU32,
    expected: u32,
    timeout: Option<Duration>,
    scope: Scope,
) -> Result<(), Errno> {
    let limit = timeout.map(timespec);
    let limit_ptr = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word is borrowed for the whole call and `limit_ptr` is null
    // or points to a timespec that outlives it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | private_flag(scope) as i32,
            expected,
            limit_ptr,
        )
    };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// Wakes at most `count` waiters of `word` and returns how many there were.
pub fn wake(word: *const AtomicU32, count: u32, scope: Scope) -> u32 {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    // SAFETY: FUTEX_WAKE uses the address as a key only; nothing here or in
    // the host reads or writes through it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.expose_provenance(),
            libc::FUTEX_WAKE | private_flag(scope) as i32,
            count,
        )
    };
    u32::try_from(result).unwrap_or(0)
}

/// Sleeps until one of `words` is woken or differs from its expected value.
///
/// # Errors
/// `EAGAIN` if a word has another value already, `EINTR`, `ENOSYS` on kernels
/// before 5.16, `EINVAL` for none or more than [`MAX_WAIT_WORDS`] words.
pub fn wait_any(words: &[WaitWord]) -> Result<(), Errno> {
    let count = libc::c_uint::try_from(words.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `words` has the layout of `struct futex_waitv` and is borrowed
    // for the call; the host checks the addresses in it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            words.as_ptr(),
            count,
            0,
            std::ptr::null::<libc::timespec>(),
            libc::CLOCK_MONOTONIC,
        )
    };
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(())
    }
}
