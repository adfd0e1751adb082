//! Kernel buffers that data passes through between guest memory and files.

use std::ops::{Deref, DerefMut};

use crossbeam::queue::ArrayQueue;

/// Largest buffer: bytes moved per step of a long read or write.
pub const CHUNK_MAX: usize = 256 << 10;
/// Requests up to this size get a small buffer.
const SMALL: usize = 4096;
/// Buffers kept of each size.
const KEPT: usize = 16;

/// Keeps buffers for reuse, so that they need not be zeroed again. What
/// others left in a buffer never reaches a guest: users hand out only what
/// they have filled.
pub struct BufferPool {
    small: ArrayQueue<Vec<u8>>,
    large: ArrayQueue<Vec<u8>>,
}

impl Default for BufferPool {
    fn default() -> Self {
        Self {
            small: ArrayQueue::new(KEPT * 4),
            large: ArrayQueue::new(KEPT),
        }
    }
}

impl BufferPool {
    /// A buffer of `wanted` bytes, at most [`CHUNK_MAX`].
    pub fn take(&self, wanted: usize) -> Buffer<'_> {
        let len = wanted.min(CHUNK_MAX);
        let (queue, size) = if len <= SMALL {
            (&self.small, SMALL)
        } else {
            (&self.large, CHUNK_MAX)
        };
        Buffer {
            bytes: queue.pop().unwrap_or_else(|| vec![0; size]),
            len,
            home: queue,
        }
    }
}

/// A borrowed buffer.
pub struct Buffer<'a> {
    bytes: Vec<u8>,
    len: usize,
    home: &'a ArrayQueue<Vec<u8>>,
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // A full pool lets the buffer go.
        let _ = self.home.push(std::mem::take(&mut self.bytes));
    }
}
