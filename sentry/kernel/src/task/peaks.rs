//! Peak resident sizes of processes that have ended.
//!
//! The host tells them when it has taken a stub apart, which is after the
//! guest's process has become a zombie. Who asks waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sentry_platform::residency::FinalPeak;
use smallvec::SmallVec;

use super::ThreadGroup;
use crate::kernel::Kernel;
use crate::mm::MemoryManager;

/// How long who asks waits for the end of a stub.
const PATIENCE: Duration = Duration::from_millis(200);

/// The largest of several sizes, some of which are not known yet.
#[derive(Clone, Default)]
pub struct Peaks {
    known_bytes: u64,
    open: SmallVec<[Arc<FinalPeak>; 1]>,
}

impl Peaks {
    fn add(&mut self, peak: Arc<FinalPeak>) {
        self.settle();
        self.open.push(peak);
    }

    /// Takes over those of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.known_bytes = self.known_bytes.max(other.known_bytes);
        self.open.extend(other.open.iter().cloned());
        self.settle();
    }

    /// Keeps of those that have become known the largest.
    fn settle(&mut self) {
        let known = &mut self.known_bytes;
        self.open.retain(|peak| match peak.get() {
            Some(bytes) => {
                *known = bytes.max(*known);
                false
            }
            None => true,
        });
    }

    /// The largest of all, in bytes.
    pub async fn largest(mut self, kernel: &Kernel) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        for peak in self.open.clone() {
            kernel.within(deadline, peak.known()).await;
        }
        self.settle();
        self.known_bytes
    }
}

impl ThreadGroup {
    /// Notes what `old`, which a task of this process has just left for `new`,
    /// needed at most.
    pub(crate) fn note_peak(&self, old: &Arc<MemoryManager>, new: &Arc<MemoryManager>) {
        let Some(peak) = old.space.final_peak() else {
            return self.note_bytes(old);
        };
        let stays = new.space.final_peak();
        if stays.is_some_and(|stays| Arc::ptr_eq(&stays, &peak)) {
            // One stub for both: its peak is that of both.
        } else if Arc::strong_count(old) > 1 {
            self.note_bytes(old);
        } else {
            self.peaks.lock().add(peak);
        }
    }

    /// Notes the peak of memory that stays, or whose end nobody tells of.
    fn note_bytes(&self, mm: &MemoryManager) {
        let bytes = mm.space.peak_bytes();
        let mut peaks = self.peaks.lock();
        peaks.known_bytes = peaks.known_bytes.max(bytes);
    }
}
