//! `mprotect`, `mseal`.

use std::ops::Range;

use sentry_platform::{MemOp, Protection};
use syscall_tables::Errno;

use super::vma::VmaFlags;
use super::{Limits, MemoryManager, Via, page_range};

/// Which way `mprotect` extends its range (`PROT_GROWSDOWN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extend {
    No,
    /// To the start of the growing mapping.
    Down,
}

impl MemoryManager {
    /// `mprotect(2)`.
    pub async fn protect(
        &self,
        via: &mut Via<'_>,
        addr: u64,
        len_bytes: u64,
        protection: Protection,
        extend: Extend,
        limits: &Limits,
    ) -> Result<(), Errno> {
        let mut range = page_range(addr, len_bytes, Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        let _changes = self.lock_changes().await;
        let (range, outcome) = {
            let state = self.state();
            let first = state.tree.find(range.start).ok_or(Errno::ENOMEM)?;
            if extend == Extend::Down {
                if !first.flags.contains(VmaFlags::GROWSDOWN) {
                    return Err(Errno::EINVAL);
                }
                range.start = first.start;
            }
            Self::check_count(&state, 2)?;
            // Mappings are changed in order up to the first that can't be.
            let mut until = range.start;
            let mut outcome = Ok(());
            let mut new_data = 0u64;
            for vma in state.tree.overlapping(range.clone()) {
                if vma.start > until {
                    break;
                }
                let part = vma.start.max(range.start)..vma.end.min(range.end);
                if !vma.max_protection.contains(protection) {
                    outcome = Err(Errno::EACCES);
                    break;
                }
                if vma.flags.contains(VmaFlags::SEALED) {
                    outcome = Err(Errno::EPERM);
                    break;
                }
                if protection.contains(Protection::WRITE) && !vma.is_data() && !vma.is_shared() {
                    new_data += part.end - part.start;
                    if let Err(error) = Self::check_growth(&state, limits, 0, new_data, 0) {
                        outcome = Err(error);
                        break;
                    }
                }
                until = part.end;
            }
            if outcome.is_ok() && until < range.end {
                outcome = Err(Errno::ENOMEM);
            }
            (range.start..until, outcome)
        };
        if !range.is_empty() {
            via.apply_one(MemOp::Protect {
                range: range.clone(),
                protection,
            })
            .await?;
            self.state_mut()
                .tree
                .update(range, |vma| vma.protection = protection);
        }
        outcome
    }

    /// `mseal(2)`.
    pub async fn seal(&self, addr: u64, len_bytes: u64) -> Result<(), Errno> {
        let range = page_range(addr, len_bytes, Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        let _changes = self.lock_changes().await;
        let mut state = self.state_mut();
        Self::check_mapped(&state.tree, &range)?;
        state
            .tree
            .update(range, |vma| vma.flags.insert(VmaFlags::SEALED));
        Ok(())
    }

    /// `ENOMEM` unless all of `range` is mapped.
    pub(super) fn check_mapped(tree: &super::VmaTree, range: &Range<u64>) -> Result<(), Errno> {
        if tree.mapped_until(range.clone()) < range.end {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }
}
