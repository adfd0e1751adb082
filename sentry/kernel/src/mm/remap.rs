//! `mremap`.

use std::ops::Range;

use sentry_platform::MemOp;
use syscall_tables::Errno;

use super::manager::State;
use super::map::sealed;
use super::vma::{Backing, Vma, VmaFlags};
use super::{Limits, MemoryManager, Via, is_page_aligned, page_ceil};

/// Arguments of `mremap(2)`; combinations of flags have been checked.
#[derive(Clone, Copy, Debug)]
pub struct RemapRequest {
    pub addr: u64,
    pub old_len_bytes: u64,
    pub new_len_bytes: u64,
    pub may_move: bool,
    /// `MREMAP_FIXED` with the new address.
    pub fixed: Option<u64>,
    /// Where to look first for a place (the fifth argument without
    /// `MREMAP_FIXED`, with `MREMAP_DONTUNMAP`).
    pub hint: u64,
    /// `MREMAP_DONTUNMAP`.
    pub keep_source: bool,
}

/// What has been decided under the lock.
enum Plan {
    /// Nothing but the tail goes.
    Shrink,
    /// The mapping grows where it is.
    InPlace(Range<u64>),
    /// The pages move (or, from an empty range, are mapped once more).
    Move { from: Range<u64>, to: Range<u64> },
}

impl MemoryManager {
    /// `mremap(2)`: answers the new address.
    pub async fn remap(
        &self,
        via: &mut Via<'_>,
        request: RemapRequest,
        limits: &Limits,
    ) -> Result<u64, Errno> {
        if !is_page_aligned(request.addr) {
            return Err(Errno::EINVAL);
        }
        let old_len = page_ceil(request.old_len_bytes).ok_or(Errno::EINVAL)?;
        let new_len = page_ceil(request.new_len_bytes).ok_or(Errno::EINVAL)?;
        if new_len == 0 {
            return Err(Errno::EINVAL);
        }
        let addr = request.addr;
        let old_end = addr.checked_add(old_len).ok_or(Errno::EINVAL)?;
        let new_end = addr.checked_add(new_len);
        if let Some(to) = request.fixed {
            let to_end = to.checked_add(new_len).ok_or(Errno::EINVAL)?;
            if !is_page_aligned(to) || to_end > self.guest_range().end {
                return Err(Errno::EINVAL);
            }
            if addr < to_end && to < old_end {
                return Err(Errno::EINVAL);
            }
            if to < self.guest_range().start.max(super::MIN_ADDR) {
                return Err(Errno::EPERM);
            }
        }
        let _changes = self.lock_changes().await;

        let (source, plan) = {
            let mut state = self.state_mut();
            let vma = state.tree.find(addr).ok_or(Errno::EFAULT)?.clone();
            let is_moved = request.fixed.is_some() || request.keep_source;
            if !is_moved && new_len <= old_len {
                if sealed(&state, &(addr..old_end)) {
                    return Err(Errno::EPERM);
                }
                (vma, Plan::Shrink)
            } else {
                // What is beyond the new length goes before anything moves.
                let kept = if request.fixed.is_some() {
                    old_len.min(new_len)
                } else {
                    old_len
                };
                Self::check_remap(&state, &vma, kept, new_len, &request, limits)?;
                let source = vma.part(&(addr..addr + kept.max(super::PAGE_SIZE)));
                let grows_here = new_end.filter(|end| {
                    !is_moved
                        && old_len > 0
                        && vma.end == old_end
                        && *end <= self.guest_range().end
                        && state.tree.is_free(old_end..*end)
                });
                let plan = match grows_here {
                    Some(end) => Plan::InPlace(old_end..end),
                    None if !request.may_move => return Err(Errno::ENOMEM),
                    None => {
                        let to = match request.fixed {
                            Some(to) => to..to + new_len,
                            None => self.search(&mut state, request.hint, new_len, false)?,
                        };
                        if sealed(&state, &to) {
                            return Err(Errno::EPERM);
                        }
                        Self::check_count(&state, 3)?;
                        let from = addr..old_end;
                        Plan::Move { from, to }
                    }
                };
                (source, plan)
            }
        };

        match plan {
            Plan::Shrink => {
                let tail = addr + new_len..old_end;
                if !tail.is_empty() {
                    self.unmap_locked(via, tail).await?;
                }
                Ok(addr)
            }
            Plan::InPlace(added) => {
                via.apply_one(MemOp::Remap {
                    from: addr..old_end,
                    to: addr..added.end,
                    keep_source: false,
                })
                .await?;
                self.state_mut().tree.extend(added.start, added.end);
                Ok(addr)
            }
            Plan::Move { from, to } => self.move_pages(via, &source, from, to, &request).await,
        }
    }

    /// Checks what growing or moving `vma` needs.
    fn check_remap(
        state: &State,
        vma: &Vma,
        old_len: u64,
        new_len: u64,
        request: &RemapRequest,
        limits: &Limits,
    ) -> Result<(), Errno> {
        if old_len == 0 && !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        if vma.flags.contains(VmaFlags::SPECIAL) && (request.keep_source || new_len > old_len) {
            return Err(if request.keep_source {
                Errno::EINVAL
            } else {
                Errno::EFAULT
            });
        }
        let old_end = request.addr.checked_add(old_len).ok_or(Errno::EINVAL)?;
        if old_end > vma.end {
            return Err(Errno::EFAULT);
        }
        if sealed(state, &(request.addr..old_end)) {
            return Err(Errno::EPERM);
        }
        if let Backing::Object(..) = vma.backing {
            let offset = vma.offset_of(request.addr);
            if offset.checked_add(new_len).is_none() {
                return Err(Errno::EINVAL);
            }
        }
        let added = if request.keep_source {
            new_len
        } else {
            new_len.saturating_sub(old_len)
        };
        if vma.flags.contains(VmaFlags::LOCKED)
            && state.tree.locked_bytes().saturating_add(added) > limits.locked
        {
            return Err(Errno::EAGAIN);
        }
        let data = if vma.is_data() { added } else { 0 };
        Self::check_growth(state, limits, added, data, 0)
    }

    /// Moves pages and takes over the tree. With an empty `from` the shared
    /// object is mapped a second time.
    async fn move_pages(
        &self,
        via: &mut Via<'_>,
        source: &Vma,
        from: Range<u64>,
        to: Range<u64>,
        request: &RemapRequest,
    ) -> Result<u64, Errno> {
        let mut from = from;
        if from.is_empty() {
            let moved = source.moved_to(to.clone());
            via.apply_one(moved.map_op()).await?;
            let mut state = self.state_mut();
            let removed = state.tree.remove(to.clone());
            state.tree.insert(moved);
            drop(state);
            drop(removed);
            return Ok(to.start);
        }
        let to_len = to.end - to.start;
        if from.end - from.start > to_len {
            // Moving less than all: the tail goes first, as in Linux.
            let tail = from.start + to_len..from.end;
            from.end = tail.start;
            self.unmap_locked(via, tail).await?;
        }
        via.apply_one(MemOp::Remap {
            from: from.clone(),
            to: to.clone(),
            keep_source: request.keep_source,
        })
        .await?;
        let mut state = self.state_mut();
        let mut removed = state.tree.remove(to.clone());
        let moved = source.moved_to(to.clone());
        if request.keep_source {
            state.tree.update(from, |vma| {
                vma.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
            });
        } else {
            removed.extend(state.tree.remove(from));
        }
        state.tree.insert(moved);
        drop(state);
        drop(removed);
        Ok(to.start)
    }
}
