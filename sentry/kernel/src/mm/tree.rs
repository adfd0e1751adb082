//! All mappings of an address space, in order.
//!
//! Invariants: mappings don't overlap, are page aligned and not empty, and
//! neighbours that can be one mapping are one.

use std::collections::BTreeMap;
use std::ops::Range;

use super::vma::{Vma, VmaFlags};
use super::{PAGE_SIZE, STACK_GUARD_GAP};

/// Where the last top-down search ended, so that the next one need not start
/// from the top: all gaps above `below` (and below the search's base) are
/// smaller than or as large as `largest_skipped`.
#[derive(Clone, Copy, Debug)]
struct GapHint {
    base: u64,
    below: u64,
    largest_skipped: u64,
}

/// Mappings by start address, with totals.
#[derive(Clone, Default)]
pub struct VmaTree {
    vmas: BTreeMap<u64, Vma>,
    total_bytes: u64,
    data_bytes: u64,
    locked_bytes: u64,
    hint: Option<GapHint>,
}

impl VmaTree {
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of mappings.
    pub fn len(&self) -> usize {
        self.vmas.len()
    }

    pub fn is_empty(&self) -> bool {
        self.vmas.is_empty()
    }

    /// Bytes mapped (`RLIMIT_AS`).
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes of private writable mappings (`RLIMIT_DATA`).
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes locked (`RLIMIT_MEMLOCK`).
    pub fn locked_bytes(&self) -> u64 {
        self.locked_bytes
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.vmas.values()
    }

    /// The mapping that contains `addr`.
    pub fn find(&self, addr: u64) -> Option<&Vma> {
        self.vmas
            .range(..=addr)
            .next_back()
            .map(|(_, vma)| vma)
            .filter(|vma| vma.contains(addr))
    }

    /// The first mapping that starts at or above `addr`.
    pub fn next_from(&self, addr: u64) -> Option<&Vma> {
        self.vmas.range(addr..).next().map(|(_, vma)| vma)
    }

    /// The last mapping that starts below `addr`.
    pub fn previous(&self, addr: u64) -> Option<&Vma> {
        self.vmas.range(..addr).next_back().map(|(_, vma)| vma)
    }

    /// Mappings that overlap `range`, ascending.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = &Vma> {
        let first = self.find(range.start).map_or(range.start, |vma| vma.start);
        // An empty or reversed range must not reach `BTreeMap::range`.
        let last = range.end.max(first);
        self.vmas
            .range(first..last)
            .map(|(_, vma)| vma)
            .filter(move |vma| vma.end > range.start)
    }

    /// Whether nothing is mapped in `range`.
    pub fn is_free(&self, range: Range<u64>) -> bool {
        self.overlapping(range).next().is_none()
    }

    /// Where the mapped bytes from `range.start` on end: `range.end` if all of
    /// it is mapped.
    pub fn mapped_until(&self, range: Range<u64>) -> u64 {
        let mut until = range.start;
        for vma in self.overlapping(range.clone()) {
            if vma.start > until {
                break;
            }
            until = vma.end;
        }
        until.min(range.end)
    }

    /// Bytes mapped inside `range`.
    pub fn mapped_bytes(&self, range: Range<u64>) -> u64 {
        self.overlapping(range.clone())
            .map(|vma| vma.end.min(range.end) - vma.start.max(range.start))
            .sum()
    }

    fn count(&mut self, vma: &Vma) {
        self.total_bytes += vma.len_bytes();
        if vma.is_data() {
            self.data_bytes += vma.len_bytes();
        }
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.locked_bytes += vma.len_bytes();
        }
    }

    fn uncount(&mut self, vma: &Vma) {
        self.total_bytes -= vma.len_bytes();
        if vma.is_data() {
            self.data_bytes -= vma.len_bytes();
        }
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.locked_bytes -= vma.len_bytes();
        }
    }

    fn put(&mut self, vma: Vma) {
        self.count(&vma);
        self.vmas.insert(vma.start, vma);
    }

    fn take(&mut self, start: u64) -> Option<Vma> {
        let vma = self.vmas.remove(&start)?;
        self.uncount(&vma);
        Some(vma)
    }

    /// Makes `addr` a boundary between mappings.
    fn split(&mut self, addr: u64) {
        let Some(vma) = self.find(addr) else { return };
        if vma.start == addr {
            return;
        }
        let low = vma.part(&(vma.start..addr));
        let high = vma.part(&(addr..vma.end));
        // Totals don't change.
        self.vmas.insert(low.start, low);
        self.vmas.insert(high.start, high);
    }

    /// Removes what is mapped in `range`, answering the removed parts. The
    /// caller drops them outside its lock.
    #[must_use = "files may be released when the parts are dropped"]
    pub fn remove(&mut self, range: Range<u64>) -> Vec<Vma> {
        if range.is_empty() {
            return Vec::new();
        }
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> = self
            .vmas
            .range(range.clone())
            .map(|(start, _)| *start)
            .collect();
        let removed: Vec<Vma> = starts
            .into_iter()
            .filter_map(|start| self.take(start))
            .collect();
        if let Some(hint) = self.hint
            && range.end >= hint.below
        {
            // The gap may have become a larger one: look at it again.
            let gap_end = self
                .next_from(range.start)
                .map_or(hint.base, |vma| vma.start.min(hint.base));
            self.hint = Some(GapHint {
                below: gap_end.max(hint.below),
                ..hint
            });
        }
        removed
    }

    /// Adds a mapping where nothing is mapped, merging it with neighbours.
    pub fn insert(&mut self, vma: Vma) {
        let mut vma = vma;
        if let Some(before) = self.previous(vma.start)
            && before.can_merge(&vma)
        {
            let start = before.start;
            if let Some(before) = self.take(start) {
                let range = before.start..vma.end;
                vma = before.moved_to(range);
            }
        }
        if let Some(after) = self.vmas.get(&vma.end)
            && vma.can_merge(after)
        {
            let start = after.start;
            if let Some(after) = self.take(start) {
                vma.end = after.end;
            }
        }
        self.put(vma);
    }

    /// Changes all mappings inside `range`, splitting at its ends and merging
    /// again afterwards.
    pub fn update(&mut self, range: Range<u64>, mut change: impl FnMut(&mut Vma)) {
        if range.is_empty() {
            return;
        }
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> = self
            .vmas
            .range(range.clone())
            .map(|(start, _)| *start)
            .collect();
        for start in starts {
            if let Some(mut vma) = self.take(start) {
                change(&mut vma);
                self.insert(vma);
            }
        }
        // The mapping behind the range may now continue its last one.
        if let Some(after) = self.take(range.end) {
            self.insert(after);
        }
    }

    /// Lengthens the mapping that ends at `from` to end at `to`.
    pub fn extend(&mut self, from: u64, to: u64) {
        let Some(start) = self.previous(from).map(|vma| vma.start) else {
            return;
        };
        if let Some(mut vma) = self.take(start) {
            vma.end = to;
            self.insert(vma);
        }
    }

    /// Highest place for `len_bytes` below `base` and not below `floor`,
    /// `align` a power of two of at least a page.
    pub fn gap_below(&mut self, len_bytes: u64, floor: u64, base: u64, align: u64) -> Option<u64> {
        let hint = self
            .hint
            .filter(|hint| hint.base == base && len_bytes > hint.largest_skipped);
        let (mut below, mut largest_skipped) = match hint {
            Some(hint) => (hint.below, hint.largest_skipped),
            None => (base, 0),
        };
        let mut found = None;
        for vma in self.vmas.range(..below).rev().map(|(_, vma)| vma) {
            let gap_start = vma.end.max(floor);
            if let Some(addr) = fit_below(len_bytes, gap_start, below, align) {
                found = Some(addr);
                break;
            }
            largest_skipped = largest_skipped.max(below.saturating_sub(gap_start));
            below = below.min(guarded_start(vma));
            if below <= floor {
                break;
            }
        }
        if found.is_none() {
            found = fit_below(len_bytes, floor, below, align);
        }
        match found {
            Some(addr) => {
                // An aligned fit leaves a gap above it that a later search
                // has to see.
                if align == PAGE_SIZE {
                    self.hint = Some(GapHint {
                        base,
                        below: addr.saturating_add(len_bytes),
                        largest_skipped,
                    });
                }
                Some(addr)
            }
            None if hint.is_some() => {
                self.hint = None;
                self.gap_below(len_bytes, floor, base, align)
            }
            None => None,
        }
    }

    /// Lowest place for `len_bytes` in `window`.
    pub fn gap_above(&self, len_bytes: u64, window: Range<u64>) -> Option<u64> {
        let mut at = self.find(window.start).map_or(window.start, |vma| vma.end);
        for vma in self.vmas.range(at..).map(|(_, vma)| vma) {
            let gap_end = guarded_start(vma).min(window.end);
            if gap_end.saturating_sub(at) >= len_bytes {
                return Some(at);
            }
            if vma.start >= window.end {
                return None;
            }
            at = vma.end;
        }
        (window.end.saturating_sub(at) >= len_bytes).then_some(at)
    }
}

/// Start of a mapping with the gap that is kept below growing ones.
fn guarded_start(vma: &Vma) -> u64 {
    if vma.flags.contains(VmaFlags::GROWSDOWN) {
        vma.start.saturating_sub(STACK_GUARD_GAP)
    } else {
        vma.start
    }
}

/// Highest aligned address for `len_bytes` between `floor` and `below`.
fn fit_below(len_bytes: u64, floor: u64, below: u64, align: u64) -> Option<u64> {
    let addr = below.checked_sub(len_bytes)? & !(align - 1);
    (addr >= floor).then_some(addr)
}
