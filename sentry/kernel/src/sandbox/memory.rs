//! The sentry's own memory, which counts for the container it lives with.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sentry_platform::executor::host_poll::{Readiness, Watch};
use sentry_platform::host::{self, HostClock, memory};
use syscall_tables::Errno;

use super::Sandbox;

/// Files are remembered in up to a sixteenth of the container's memory, each
/// taken to need this much; at least so many.
const SHARE: u64 = 16;
const FILE_BYTES: u64 = 1024;
const LEAST_FILES: u64 = 1024;
const MOST_FILES: u64 = 65_536;

/// While memory stays short, what is left is looked at this often.
const PAUSE_NS: u64 = 1_000_000_000;

/// How the host tells that memory is short: each time that the descriptor
/// becomes ready so.
pub struct PressureNotice {
    pub fd: OwnedFd,
    pub ready: Readiness,
}

impl Sandbox {
    /// Bounds what the sentry remembers by the memory of its container, and has
    /// it forgotten when that runs short.
    ///
    /// # Errors
    /// Those of the host for watching the descriptor; the bound holds anyway.
    pub fn bound_caches(
        &self,
        memory_bytes: Option<u64>,
        notice: Option<PressureNotice>,
    ) -> Result<(), Errno> {
        if let Some(bytes) = memory_bytes {
            let files = (bytes / SHARE / FILE_BYTES).clamp(LEAST_FILES, MOST_FILES);
            let files = usize::try_from(files).unwrap_or(usize::MAX);
            self.kernel.vfs.dentries.limit(files);
        }
        let Some(PressureNotice { fd, ready }) = notice else {
            return Ok(());
        };
        let kernel = Arc::downgrade(&self.kernel);
        let last = AtomicU64::new(0);
        let watch = Watch::new(fd.as_fd(), ready, move |_| {
            let now = host::clock_gettime(HostClock::MonotonicCoarse).as_nanos();
            let now = u64::try_from(now).unwrap_or(u64::MAX);
            let before = last.load(Ordering::Relaxed);
            let (true, Some(kernel)) = (now.saturating_sub(before) >= PAUSE_NS, kernel.upgrade())
            else {
                return;
            };
            last.store(now, Ordering::Relaxed);
            let forget = std::thread::Builder::new()
                .name("forget".to_owned())
                .stack_size(256 << 10)
                .spawn(move || {
                    kernel.vfs.shrink();
                    memory::trim();
                });
            // Without a thread there is the next notice.
            drop(forget);
        })?;
        *self.pressure.lock() = Some(watch);
        Ok(())
    }
}
