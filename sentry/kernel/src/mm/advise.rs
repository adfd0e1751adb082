//! `madvise`, `mlock`, `msync`, `mincore`.

use std::ops::Range;
use std::sync::Arc;

use sentry_platform::{MemAdvice, MemOp, Protection};
use syscall_tables::Errno;

use super::map::populate_advice;
use super::vma::{Vma, VmaFlags};
use super::{Limits, MemoryManager, PAGE_SIZE, Via, page_ceil, page_floor, page_range};
use crate::vfs::File;

/// Advice of `madvise(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    Normal,
    Random,
    Sequential,
    WillNeed,
    DontNeed,
    Free,
    Remove,
    DontFork,
    DoFork,
    Mergeable,
    Unmergeable,
    HugePage,
    NoHugePage,
    DontDump,
    DoDump,
    WipeOnFork,
    KeepOnFork,
    Cold,
    PageOut,
    PopulateRead,
    PopulateWrite,
    DontNeedLocked,
}

impl Advice {
    /// From the `MADV_*` number.
    pub const fn from_raw(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::Normal,
            1 => Self::Random,
            2 => Self::Sequential,
            3 => Self::WillNeed,
            4 => Self::DontNeed,
            8 => Self::Free,
            9 => Self::Remove,
            10 => Self::DontFork,
            11 => Self::DoFork,
            12 => Self::Mergeable,
            13 => Self::Unmergeable,
            14 => Self::HugePage,
            15 => Self::NoHugePage,
            16 => Self::DontDump,
            17 => Self::DoDump,
            18 => Self::WipeOnFork,
            19 => Self::KeepOnFork,
            20 => Self::Cold,
            21 => Self::PageOut,
            22 => Self::PopulateRead,
            23 => Self::PopulateWrite,
            24 => Self::DontNeedLocked,
            _ => return None,
        })
    }
}

/// Which effect an advice has on one mapping.
struct Effect {
    host: Option<MemAdvice>,
    set: VmaFlags,
    clear: VmaFlags,
}

impl Effect {
    const fn host(advice: MemAdvice) -> Self {
        Self {
            host: Some(advice),
            set: VmaFlags::empty(),
            clear: VmaFlags::empty(),
        }
    }

    const fn flags(set: VmaFlags, clear: VmaFlags) -> Self {
        Self {
            host: None,
            set,
            clear,
        }
    }

    const fn both(advice: MemAdvice, set: VmaFlags, clear: VmaFlags) -> Self {
        Self {
            host: Some(advice),
            set,
            clear,
        }
    }
}

/// Works out what `advice` does to `vma`, or why it can't be given.
fn effect(advice: Advice, vma: &Vma) -> Result<Effect, Errno> {
    let none = VmaFlags::empty();
    let private_anonymous = vma.is_anonymous() && !vma.is_shared();
    let access = VmaFlags::RANDOM | VmaFlags::SEQUENTIAL;
    Ok(match advice {
        Advice::Normal => Effect::flags(none, access),
        Advice::Random => Effect::flags(VmaFlags::RANDOM, access),
        Advice::Sequential => Effect::flags(VmaFlags::SEQUENTIAL, access),
        Advice::WillNeed | Advice::Cold | Advice::PageOut => {
            if advice != Advice::WillNeed && vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Errno::EINVAL);
            }
            if advice == Advice::WillNeed && !vma.is_anonymous() {
                Effect::host(MemAdvice::WillNeed)
            } else {
                Effect::flags(none, none)
            }
        }
        Advice::DontNeed | Advice::DontNeedLocked => {
            if advice == Advice::DontNeed && vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Errno::EINVAL);
            }
            if vma.flags.contains(VmaFlags::SEALED) && !vma.protection.contains(Protection::WRITE) {
                return Err(Errno::EPERM);
            }
            Effect::host(MemAdvice::DontNeed)
        }
        Advice::Free => {
            if !private_anonymous || vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Errno::EINVAL);
            }
            Effect::host(MemAdvice::Free)
        }
        Advice::Remove => {
            if vma.flags.contains(VmaFlags::LOCKED) || vma.is_anonymous() {
                return Err(Errno::EINVAL);
            }
            if !vma.is_shared() || !vma.max_protection.contains(Protection::WRITE) {
                return Err(Errno::EACCES);
            }
            Effect::host(MemAdvice::Remove)
        }
        Advice::DontFork => Effect::both(MemAdvice::DontFork, VmaFlags::DONTFORK, none),
        Advice::DoFork => {
            if vma.flags.contains(VmaFlags::SPECIAL) {
                return Err(Errno::EINVAL);
            }
            Effect::both(MemAdvice::DoFork, none, VmaFlags::DONTFORK)
        }
        Advice::Mergeable => Effect::flags(VmaFlags::MERGEABLE, none),
        Advice::Unmergeable => Effect::flags(none, VmaFlags::MERGEABLE),
        Advice::HugePage => Effect::both(
            MemAdvice::HugePage,
            VmaFlags::HUGEPAGE,
            VmaFlags::NOHUGEPAGE,
        ),
        Advice::NoHugePage => Effect::both(
            MemAdvice::NoHugePage,
            VmaFlags::NOHUGEPAGE,
            VmaFlags::HUGEPAGE,
        ),
        Advice::DontDump => Effect::flags(VmaFlags::DONTDUMP, none),
        Advice::DoDump => Effect::flags(none, VmaFlags::DONTDUMP),
        Advice::WipeOnFork => {
            if !private_anonymous {
                return Err(Errno::EINVAL);
            }
            Effect::both(MemAdvice::WipeOnFork, VmaFlags::WIPEONFORK, none)
        }
        Advice::KeepOnFork => Effect::both(MemAdvice::KeepOnFork, none, VmaFlags::WIPEONFORK),
        Advice::PopulateRead => Effect::host(MemAdvice::PopulateRead),
        Advice::PopulateWrite => Effect::host(MemAdvice::PopulateWrite),
    })
}

impl MemoryManager {
    /// `madvise(2)`.
    pub async fn advise(
        &self,
        via: &mut Via<'_>,
        addr: u64,
        len_bytes: u64,
        advice: Advice,
    ) -> Result<(), Errno> {
        let range = page_range(addr, len_bytes, Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        let _changes = self.lock_changes().await;
        // Holes are passed over and reported at the end.
        let parts: Vec<Vma> = {
            let state = self.state();
            Self::check_count(&state, 2)?;
            let parts = state.tree.overlapping(range.clone());
            parts.map(|vma| vma.part(&range)).collect()
        };
        let mut covered = 0;
        for part in &parts {
            covered += part.len_bytes();
            let effect = effect(advice, part)?;
            if let Some(advice) = effect.host {
                let range = part.range();
                match via.apply_one(MemOp::Advise { range, advice }).await {
                    // Hints the host can't take are none the guest relies on.
                    Err(Errno::EINVAL)
                        if matches!(
                            advice,
                            MemAdvice::HugePage | MemAdvice::NoHugePage | MemAdvice::WillNeed
                        ) => {}
                    other => other?,
                }
            }
            if !(effect.set | effect.clear).is_empty() {
                self.state_mut().tree.update(part.range(), |vma| {
                    vma.flags.remove(effect.clear);
                    vma.flags.insert(effect.set);
                });
            }
        }
        if covered < range.end - range.start {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// `PR_SET_VMA_ANON_NAME`.
    pub async fn set_name(
        &self,
        addr: u64,
        len_bytes: u64,
        name: Option<Arc<[u8]>>,
    ) -> Result<(), Errno> {
        let range = page_range(addr, len_bytes, Errno::EINVAL)?;
        let _changes = self.lock_changes().await;
        let mut state = self.state_mut();
        if state
            .tree
            .overlapping(range.clone())
            .any(|vma| vma.file().is_some())
        {
            return Err(Errno::EBADF);
        }
        let missing = Self::check_mapped(&state.tree, &range);
        state.tree.update(range, |vma| vma.name.clone_from(&name));
        missing
    }

    /// `mlock2(2)` of a range (which need not be aligned).
    pub async fn lock(
        &self,
        via: &mut Via<'_>,
        addr: u64,
        len_bytes: u64,
        on_fault: bool,
        limits: &Limits,
    ) -> Result<(), Errno> {
        let range = loose_range(addr, len_bytes)?;
        if limits.locked == 0 {
            return Err(Errno::EPERM);
        }
        let _changes = self.lock_changes().await;
        {
            let mut state = self.state_mut();
            let already: u64 = state
                .tree
                .overlapping(range.clone())
                .map(|vma| vma.part(&range))
                .filter(|part| part.flags.contains(VmaFlags::LOCKED))
                .map(|part| part.len_bytes())
                .sum();
            let wanted = (range.end - range.start).saturating_sub(already);
            if state.tree.locked_bytes().saturating_add(wanted) > limits.locked {
                return Err(Errno::ENOMEM);
            }
            Self::check_count(&state, 2)?;
            Self::check_mapped(&state.tree, &range)?;
            state.tree.update(range.clone(), |vma| {
                vma.flags.insert(VmaFlags::LOCKED);
                vma.flags.set(VmaFlags::LOCK_ON_FAULT, on_fault);
            });
        }
        if !on_fault {
            self.populate(via, range).await;
        }
        Ok(())
    }

    /// `munlock(2)`.
    pub async fn unlock(&self, addr: u64, len_bytes: u64) -> Result<(), Errno> {
        let range = loose_range(addr, len_bytes)?;
        let _changes = self.lock_changes().await;
        let mut state = self.state_mut();
        Self::check_count(&state, 2)?;
        let missing = Self::check_mapped(&state.tree, &range);
        state.tree.update(range, |vma| {
            vma.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
        });
        missing
    }

    /// `mlockall(2)`: flags for mappings there are (`None`: leave them) and
    /// for future ones.
    pub async fn lock_all(
        &self,
        via: &mut Via<'_>,
        current: Option<VmaFlags>,
        future: VmaFlags,
        limits: &Limits,
    ) -> Result<(), Errno> {
        let _changes = self.lock_changes().await;
        {
            let mut state = self.state_mut();
            if current.is_some_and(|flags| flags.contains(VmaFlags::LOCKED))
                && state.tree.total_bytes() > limits.locked
            {
                return Err(Errno::ENOMEM);
            }
            state.future = future;
            let Some(flags) = current else { return Ok(()) };
            let all = self.guest_range();
            state.tree.update(all, |vma| {
                vma.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
                vma.flags.insert(flags);
            });
        }
        if current == Some(VmaFlags::LOCKED) {
            self.populate(via, self.guest_range()).await;
        }
        Ok(())
    }

    /// Makes pages present; what can't be had is passed over. The stack's
    /// reserve is left alone: most of it is never used.
    async fn populate(&self, via: &mut Via<'_>, range: Range<u64>) {
        let parts: Vec<(Range<u64>, MemAdvice)> = {
            let state = self.state();
            let parts = state.tree.overlapping(range.clone());
            parts
                .filter(|vma| !vma.flags.contains(VmaFlags::GROWSDOWN))
                .map(|vma| vma.part(&range))
                .filter_map(|part| Some((part.range(), populate_advice(&part)?)))
                .collect()
        };
        for (range, advice) in parts {
            let _ = via.apply_one(MemOp::Advise { range, advice }).await;
        }
    }

    /// What `msync(2)` has to write back of `range`. `EBUSY` for locked
    /// mappings with `invalidate`.
    pub fn sync_targets(&self, range: Range<u64>, invalidate: bool) -> Result<SyncTargets, Errno> {
        let state = self.state();
        let mut files: Vec<Arc<File>> = Vec::new();
        for vma in state.tree.overlapping(range.clone()) {
            if invalidate && vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            if !vma.is_shared() {
                continue;
            }
            if let Some(file) = vma.file()
                && !files.iter().any(|known| Arc::ptr_eq(known, file))
            {
                files.push(file.clone());
            }
        }
        let mapped = Self::check_mapped(&state.tree, &range);
        Ok(SyncTargets { files, mapped })
    }

    /// `mincore(2)`: one byte per page. Which pages are resident only the
    /// host knows; all mapped ones are reported as being so.
    pub fn residency(&self, range: Range<u64>) -> Result<Vec<u8>, Errno> {
        let pages = (range.end - range.start) / PAGE_SIZE;
        Self::check_mapped(&self.state().tree, &range)?;
        Ok(vec![1; usize::try_from(pages).map_err(|_| Errno::ENOMEM)?])
    }

    /// `ENOMEM` unless all of `range` is mapped.
    pub fn check_range(&self, range: Range<u64>) -> Result<(), Errno> {
        Self::check_mapped(&self.state().tree, &range)
    }
}

/// What a range has to write back.
pub struct SyncTargets {
    /// Files of its shared mappings.
    pub files: Vec<Arc<File>>,
    /// `ENOMEM` if it has holes.
    pub mapped: Result<(), Errno>,
}

/// The pages that `addr..addr+len_bytes` touches; empty for an empty range.
fn loose_range(addr: u64, len_bytes: u64) -> Result<Range<u64>, Errno> {
    let end = addr.checked_add(len_bytes).ok_or(Errno::EINVAL)?;
    let start = page_floor(addr);
    Ok(start..page_ceil(end).ok_or(Errno::EINVAL)?)
}
