//! Parts of files that a guest thread can copy from by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a file for views; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ViewId(u64);

impl ViewId {
    #[expect(clippy::new_without_default, reason = "each one is another")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Who has views.
pub(crate) trait Keeper: Send + Sync {
    /// Slot `index` is not used by a [`View`] any more.
    fn unpin(&self, index: usize);
}

/// A part of a file that stays in its place as long as this lives.
pub struct View {
    address: u64,
    len: u64,
    keeper: Arc<dyn Keeper>,
    index: usize,
}

impl View {
    pub(crate) fn new(address: u64, len: u64, keeper: Arc<dyn Keeper>, index: usize) -> Self {
        Self {
            address,
            len,
            keeper,
            index,
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Bytes from the offset asked for to its end; the file's may come before.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.keeper.unpin(self.index);
    }
}

/// What there is of a part of a file.
pub enum Found {
    View(View),
    /// Nothing, but so much was asked for that it is to be mapped.
    Worth,
    Nothing,
}
