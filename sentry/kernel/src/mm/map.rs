//! `mmap`, `munmap`, `brk`.

use std::ops::Range;

use sentry_platform::{MemAdvice, MemOp, Protection};
use syscall_tables::Errno;

use super::manager::State;
use super::vma::{Backing, Vma, VmaFlags};
use super::{
    Limits, MIN_ADDR, MemoryManager, PAGE_SIZE, Via, is_page_aligned, page_ceil, page_floor,
};

/// Size of a huge page: large anonymous mappings are aligned to it.
const HUGE_PAGE_SIZE: u64 = 2 << 20;
/// Where `MAP_32BIT` mappings go.
const LOW_WINDOW: Range<u64> = 0x4000_0000..0x8000_0000;

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere, near this address if it is not 0.
    Hint(u64),
    /// Below 2 GiB (`MAP_32BIT`), near this address if it is not 0.
    Low(u64),
    /// Exactly here, replacing what is there.
    Fixed(u64),
    /// Exactly here, `EEXIST` if anything is there.
    FixedNoReplace(u64),
}

/// A mapping to be made. Access to the file has been checked.
pub struct MapRequest {
    pub place: Place,
    /// Not yet rounded to pages.
    pub len_bytes: u64,
    pub protection: Protection,
    pub max_protection: Protection,
    pub flags: VmaFlags,
    pub backing: Backing,
    /// Touch all pages now (`MAP_POPULATE`).
    pub populate: bool,
}

impl MemoryManager {
    /// `mmap(2)`: answers the address.
    pub async fn map(
        &self,
        via: &mut Via<'_>,
        request: MapRequest,
        limits: &Limits,
    ) -> Result<u64, Errno> {
        if request.len_bytes == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_ceil(request.len_bytes).ok_or(Errno::ENOMEM)?;
        if let Backing::Object(_, offset) = &request.backing {
            let end = offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
            if end > i64::MAX as u64 {
                return Err(Errno::EOVERFLOW);
            }
        }
        let _changes = self.lock_changes().await;
        let vma = {
            let mut state = self.state_mut();
            Self::check_count(&state, 1)?;
            let range = self.place(&mut state, &request, len)?;
            let mut vma = Vma {
                start: range.start,
                end: range.end,
                protection: request.protection,
                max_protection: request.max_protection,
                flags: request.flags,
                backing: request.backing,
                name: None,
            };
            vma.flags |= state.future;
            if sealed(&state, &range) {
                return Err(Errno::EPERM);
            }
            let replaced = state.tree.mapped_bytes(range);
            let data = if vma.is_data() { len } else { 0 };
            Self::check_growth(&state, limits, len, data, replaced)?;
            if vma.flags.contains(VmaFlags::LOCKED)
                && state.tree.locked_bytes().saturating_add(len) > limits.locked
            {
                return Err(Errno::EAGAIN);
            }
            vma
        };
        via.apply_one(vma.map_op()).await?;
        let range = vma.range();
        let populate = request.populate
            || (vma.flags.contains(VmaFlags::LOCKED)
                && !vma.flags.contains(VmaFlags::LOCK_ON_FAULT));
        let advice = populate_advice(&vma);
        let removed = {
            let mut state = self.state_mut();
            let removed = state.tree.remove(range.clone());
            state.tree.insert(vma);
            removed
        };
        drop(removed);
        if populate && let Some(advice) = advice {
            // As in Linux, a page that can't be had is no error here.
            let range = range.clone();
            let _ = via.apply_one(MemOp::Advise { range, advice }).await;
        }
        Ok(range.start)
    }

    /// Chooses the range of a mapping.
    fn place(
        &self,
        state: &mut State,
        request: &MapRequest,
        len: u64,
    ) -> Result<Range<u64>, Errno> {
        if len > self.guest.end - self.guest.start {
            return Err(Errno::ENOMEM);
        }
        match request.place {
            Place::Fixed(addr) | Place::FixedNoReplace(addr) => {
                let end = addr.checked_add(len).ok_or(Errno::ENOMEM)?;
                if end > self.guest.end {
                    return Err(Errno::ENOMEM);
                }
                if !is_page_aligned(addr) {
                    return Err(Errno::EINVAL);
                }
                if addr < self.guest.start.max(MIN_ADDR) {
                    return Err(Errno::EPERM);
                }
                if matches!(request.place, Place::FixedNoReplace(_))
                    && !state.tree.is_free(addr..end)
                {
                    return Err(Errno::EEXIST);
                }
                Ok(addr..end)
            }
            Place::Hint(hint) => {
                let wants_huge = matches!(request.backing, Backing::Anonymous)
                    && len.is_multiple_of(HUGE_PAGE_SIZE)
                    && !request.flags.contains(VmaFlags::NOHUGEPAGE);
                self.search(state, hint, len, wants_huge)
            }
            Place::Low(hint) => {
                if let Some(range) = self.at_hint(state, hint, len)
                    && range.end <= LOW_WINDOW.end
                {
                    return Ok(range);
                }
                let addr = state.tree.gap_above(len, LOW_WINDOW);
                let addr = addr.ok_or(Errno::ENOMEM)?;
                Ok(addr..addr + len)
            }
        }
    }

    /// The range at a hint, if it is free.
    fn at_hint(&self, state: &State, hint: u64, len: u64) -> Option<Range<u64>> {
        if hint == 0 {
            return None;
        }
        let addr = page_floor(hint).max(self.guest.start.max(MIN_ADDR));
        let end = addr.checked_add(len)?;
        let is_free = end <= self.guest.end
            && state.tree.is_free(addr..end)
            && state.tree.next_from(end).is_none_or(|above| {
                !above.flags.contains(VmaFlags::GROWSDOWN)
                    || above.start - end >= super::STACK_GUARD_GAP
            });
        is_free.then_some(addr..end)
    }

    /// A free range: at the hint, else as high as possible below the mapping
    /// base, else anywhere.
    pub(super) fn search(
        &self,
        state: &mut State,
        hint: u64,
        len: u64,
        wants_huge: bool,
    ) -> Result<Range<u64>, Errno> {
        if let Some(range) = self.at_hint(state, hint, len) {
            return Ok(range);
        }
        let floor = self.guest.start.max(MIN_ADDR);
        let base = page_floor(state.layout.mmap_base.clamp(floor, self.guest.end));
        let mut found = None;
        if wants_huge {
            found = state.tree.gap_below(len, floor, base, HUGE_PAGE_SIZE);
        }
        let addr = found
            .or_else(|| state.tree.gap_below(len, floor, base, PAGE_SIZE))
            .or_else(|| state.tree.gap_above(len, base..self.guest.end))
            .ok_or(Errno::ENOMEM)?;
        Ok(addr..addr + len)
    }

    /// `munmap(2)` of `addr..addr+len_bytes`.
    pub async fn unmap(&self, via: &mut Via<'_>, addr: u64, len_bytes: u64) -> Result<(), Errno> {
        let range = super::page_range(addr, len_bytes, Errno::EINVAL)?;
        if range.is_empty() || range.end > self.guest.end {
            return Err(Errno::EINVAL);
        }
        let range = range.start.max(self.guest.start)..range.end;
        if range.is_empty() {
            return Ok(());
        }
        let _changes = self.lock_changes().await;
        self.unmap_locked(via, range).await
    }

    /// Unmaps a range; the caller holds the lock of changes.
    pub(super) async fn unmap_locked(
        &self,
        via: &mut Via<'_>,
        range: Range<u64>,
    ) -> Result<(), Errno> {
        {
            let state = self.state();
            if sealed(&state, &range) {
                return Err(Errno::EPERM);
            }
            // Only a hole in the middle of a mapping adds one.
            let splits = state
                .tree
                .find(range.start)
                .is_some_and(|vma| vma.start < range.start && vma.end > range.end);
            Self::check_count(&state, usize::from(splits))?;
            if state.tree.is_free(range.clone()) {
                return Ok(());
            }
        }
        via.apply_one(MemOp::Unmap {
            range: range.clone(),
        })
        .await?;
        let removed = self.state_mut().tree.remove(range);
        drop(removed);
        Ok(())
    }

    /// `shmdt(2)`: unmaps what an attach at `addr` has mapped.
    pub async fn detach(&self, via: &mut Via<'_>, addr: u64) -> Result<(), Errno> {
        let _changes = self.lock_changes().await;
        let ranges: Vec<Range<u64>> = {
            let state = self.state();
            let mut attached = None;
            let end = self.guest.end;
            // Parts may have been unmapped or changed, but none has moved.
            let parts = state.tree.overlapping(addr..end).filter(|vma| {
                let Some(attachment) = vma.attachment() else {
                    return false;
                };
                if vma.start.checked_sub(vma.offset_of(vma.start)) != Some(addr) {
                    return false;
                }
                let first = attached.get_or_insert_with(|| attachment.clone());
                std::sync::Arc::ptr_eq(first, attachment)
            });
            parts.map(Vma::range).collect()
        };
        if ranges.is_empty() {
            return Err(Errno::EINVAL);
        }
        for range in ranges {
            self.unmap_locked(via, range).await?;
        }
        Ok(())
    }

    /// `brk(2)`: answers the break, unchanged if it could not be moved.
    pub async fn brk(&self, via: &mut Via<'_>, addr: u64, limits: &Limits) -> u64 {
        let _changes = self.lock_changes().await;
        let (old, start, data_len) = {
            let state = self.state();
            let data = &state.layout.data;
            (
                state.layout.brk,
                state.layout.brk_start,
                data.end.saturating_sub(data.start),
            )
        };
        if addr < start || addr > self.guest.end {
            return old;
        }
        let wanted = (addr - start).saturating_add(data_len);
        if limits.data != u64::MAX && wanted > limits.data {
            return old;
        }
        let (Some(old_end), Some(new_end)) = (page_ceil(old), page_ceil(addr)) else {
            return old;
        };
        let done = if new_end < old_end {
            self.unmap_locked(via, new_end..old_end).await
        } else if new_end > old_end {
            self.grow_brk(via, old_end..new_end, limits).await
        } else {
            Ok(())
        };
        if done.is_err() {
            return old;
        }
        self.state_mut().layout.brk = addr;
        addr
    }

    async fn grow_brk(
        &self,
        via: &mut Via<'_>,
        range: Range<u64>,
        limits: &Limits,
    ) -> Result<(), Errno> {
        let vma = {
            let state = self.state();
            let len = range.end - range.start;
            // Room is kept between the break and what is above.
            let above = range.end.saturating_add(PAGE_SIZE);
            if above > self.guest.end || !state.tree.is_free(range.start..above) {
                return Err(Errno::ENOMEM);
            }
            Self::check_count(&state, 1)?;
            Self::check_growth(&state, limits, len, len, 0)?;
            let flags = state.future;
            if flags.contains(VmaFlags::LOCKED)
                && state.tree.locked_bytes().saturating_add(len) > limits.locked
            {
                return Err(Errno::EAGAIN);
            }
            Vma {
                start: range.start,
                end: range.end,
                protection: Protection::READ | Protection::WRITE,
                max_protection: Protection::all(),
                flags,
                backing: Backing::Anonymous,
                name: None,
            }
        };
        via.apply_one(vma.map_op()).await?;
        self.state_mut().tree.insert(vma);
        Ok(())
    }
}

/// Whether a sealed mapping overlaps `range`.
pub(super) fn sealed(state: &State, range: &Range<u64>) -> bool {
    state
        .tree
        .overlapping(range.clone())
        .any(|vma| vma.flags.contains(VmaFlags::SEALED))
}

/// The advice that makes all pages of `vma` present; `None` where they can't
/// be touched.
pub(super) fn populate_advice(vma: &Vma) -> Option<MemAdvice> {
    if vma.protection.contains(Protection::WRITE) && !vma.is_shared() {
        Some(MemAdvice::PopulateWrite)
    } else if vma.protection.contains(Protection::READ) {
        Some(MemAdvice::PopulateRead)
    } else {
        None
    }
}
