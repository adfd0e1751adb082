//! Guest memory: policy over what the platform carries out.
//!
//! The host kernel manages the pages (see `sentry_platform`); this module
//! keeps the tree of mappings that Linux's rules, limits, `/proc/PID/maps`
//! and futex keys are worked out from.
//!
//! Locks: [`MemoryManager`] has an async lock that serialises changes of the
//! address space, held across the platform's work, and inside it a short
//! read-write lock around the tree. Readers (fault classification, futex
//! keys, `/proc`) take only the inner one, which is a leaf: files of removed
//! mappings are dropped outside it.
//!
//! | file | holds |
//! |---|---|
//! | `vma.rs` | [`Vma`]: one mapping |
//! | `tree.rs` | [`VmaTree`]: all mappings, splitting, merging, gaps |
//! | `manager.rs` | [`MemoryManager`]: locks, lookups, fork, access to memory |
//! | `map.rs` | `mmap`, `munmap`, `brk` |
//! | `protect.rs` | `mprotect`, `mseal` |
//! | `remap.rs` | `mremap` |
//! | `advise.rs` | `madvise`, `mlock`, `msync`, `mincore` |
//! | `layout.rs` | where things go: bases, randomisation, [`Layout`] |
//! | `snapshot.rs` | what `/proc/PID` shows |

mod advise;
mod layout;
mod manager;
mod map;
mod protect;
mod remap;
mod snapshot;
#[cfg(test)]
mod tests;
mod tree;
mod vma;

pub use advise::Advice;
pub use layout::{Aslr, Layout};
pub use manager::{FaultOutcome, FutexObject, Limits, MemoryManager, Via};
pub use map::{MapRequest, Place};
pub use protect::Extend;
pub use remap::RemapRequest;
pub use snapshot::{MapLine, Usage};
pub use tree::VmaTree;
pub use vma::{Attachment, Backing, Holder, Mapped, Vma, VmaFlags};

use std::ops::Range;

use syscall_tables::Errno;

/// Size of a page in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// `vm.max_map_count` of the sandbox: the host's default less what a stub
/// process needs for itself.
pub const MAX_MAP_COUNT: usize = 65_000;

/// Lowest address a guest may map (`vm.mmap_min_addr`).
pub const MIN_ADDR: u64 = 65_536;

/// Gap that is kept free below a mapping that grows down.
pub(crate) const STACK_GUARD_GAP: u64 = 256 * PAGE_SIZE;

/// `addr` rounded down to a page.
pub const fn page_floor(addr: u64) -> u64 {
    addr & !(PAGE_SIZE - 1)
}

/// `addr` rounded up to a page; `None` on overflow.
pub const fn page_ceil(addr: u64) -> Option<u64> {
    match addr.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(page_floor(sum)),
        None => None,
    }
}

/// Whether `addr` is a page boundary.
pub const fn is_page_aligned(addr: u64) -> bool {
    addr & (PAGE_SIZE - 1) == 0
}

/// The page range of an aligned `addr` and any `len_bytes`; `error` if the
/// address is not aligned or the end overflows.
pub fn page_range(addr: u64, len_bytes: u64, error: Errno) -> Result<Range<u64>, Errno> {
    if !is_page_aligned(addr) {
        return Err(Errno::EINVAL);
    }
    let len = page_ceil(len_bytes).ok_or(error)?;
    let end = addr.checked_add(len).ok_or(error)?;
    Ok(addr..end)
}
