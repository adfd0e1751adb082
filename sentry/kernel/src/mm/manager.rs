//! The memory of one guest address space.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use sentry_platform::{AddressSpace, Fault, GuestThread, MemError, MemOp, Protection};
use syscall_tables::Errno;

use super::vma::{Backing, Holder, Mapped, Vma, VmaFlags};
use super::{Layout, MAX_MAP_COUNT, STACK_GUARD_GAP, VmaTree, page_floor};
use crate::sync::AsyncMutex;
use crate::vfs::File;

/// Who carries out changes: the trapped thread of the caller, which is
/// faster, or the address space's own helper.
pub enum Via<'a> {
    Thread(&'a mut dyn GuestThread),
    Space(&'a dyn AddressSpace),
}

impl Via<'_> {
    pub(super) async fn apply(&mut self, ops: &[MemOp<'_>]) -> Result<(), MemError> {
        match self {
            Self::Thread(thread) => thread.apply(ops).await,
            Self::Space(space) => space.apply(ops).await,
        }
    }

    pub(super) async fn apply_one(&mut self, op: MemOp<'_>) -> Result<(), Errno> {
        self.apply(&[op]).await.map_err(|failed| failed.errno)
    }
}

/// Limits that a change of an address space is subject to, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `RLIMIT_AS`.
    pub address_space: u64,
    /// `RLIMIT_DATA`.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`; no limit for `CAP_IPC_LOCK`.
    pub locked: u64,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self {
        address_space: u64::MAX,
        data: u64::MAX,
        stack: u64::MAX,
        locked: u64::MAX,
    };
}

/// Identity of a mapped object for futexes shared between address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FutexObject {
    /// `MapSource::Host::object`.
    File(u64),
    /// An object of this module, by the address of its descriptor.
    Anonymous(usize),
}

/// What to do about a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOutcome {
    /// The stack has grown: run on.
    Retry,
    /// Deliver the fault with this `si_code`.
    Signal { code: i32 },
}

/// Stack that counts as used, whatever has been touched of the reserve.
const STACK_IN_USE: u64 = 132 << 10;

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const SIGSEGV: i32 = 11;
const TRAP_PAGE_FAULT: u64 = 14;

pub(super) struct State {
    pub tree: VmaTree,
    pub layout: Layout,
    /// Flags of new mappings (`mlockall(MCL_FUTURE)`).
    pub future: VmaFlags,
    pub exe: Option<Arc<File>>,
}

/// Mappings, break and layout of an address space. Shared by tasks cloned
/// with `CLONE_VM`.
pub struct MemoryManager {
    pub space: Arc<dyn AddressSpace>,
    /// Addresses that guests may use.
    pub(super) guest: Range<u64>,
    /// Held across each change of the address space.
    changes: AsyncMutex<()>,
    state: RwLock<State>,
    /// `PR_SET_DUMPABLE`.
    dumpable: AtomicU8,
}

impl MemoryManager {
    /// An address space with nothing mapped.
    pub fn new(space: Arc<dyn AddressSpace>, guest: Range<u64>, layout: Layout) -> Self {
        Self {
            space,
            guest,
            changes: AsyncMutex::new(()),
            state: RwLock::new(State {
                tree: VmaTree::new(),
                layout,
                future: VmaFlags::empty(),
                exe: None,
            }),
            dumpable: AtomicU8::new(1),
        }
    }

    /// Takes over mappings that the loader has made, in their order.
    pub fn adopt(&self, vmas: Vec<Vma>) {
        let mut state = self.state_mut();
        for vma in vmas {
            // What is replaced belongs to the same files.
            drop(state.tree.remove(vma.range()));
            state.tree.insert(vma);
        }
    }

    /// Addresses that this space's guest may use.
    pub fn guest_range(&self) -> Range<u64> {
        self.guest.clone()
    }

    /// Identity of this address space for private futexes; unique while it
    /// exists.
    pub fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(super) async fn lock_changes(&self) -> crate::sync::AsyncMutexGuard<'_, ()> {
        self.changes.lock().await
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// Reads memory of this space on behalf of another task.
    pub async fn read_memory(&self, addr: u64, dst: &mut [u8]) -> Result<usize, Errno> {
        if dst.is_empty() {
            return Ok(0);
        }
        match self.space.read(addr, dst).await {
            Ok(()) => Ok(dst.len()),
            Err(fault) if fault.copied > 0 => Ok(fault.copied.min(dst.len())),
            Err(_) => Err(Errno::EFAULT),
        }
    }

    /// Writes memory of this space on behalf of another task.
    pub async fn write_memory(&self, addr: u64, src: &[u8]) -> Result<usize, Errno> {
        if src.is_empty() {
            return Ok(0);
        }
        match self.space.write(addr, src).await {
            Ok(()) => Ok(src.len()),
            Err(fault) if fault.copied > 0 => Ok(fault.copied.min(src.len())),
            Err(_) => Err(Errno::EFAULT),
        }
    }

    /// Writes memory of this space as a debugger does: read-only mappings
    /// that may be written privately are made writable for the moment.
    pub async fn poke_memory(&self, addr: u64, src: &[u8]) -> Result<usize, Errno> {
        if src.is_empty() {
            return Ok(0);
        }
        let _changes = self.lock_changes().await;
        let len = u64::try_from(src.len()).map_err(|_| Errno::EFAULT)?;
        let end = addr.checked_add(len).ok_or(Errno::EFAULT)?;
        let locked: Vec<(Range<u64>, Protection)> = {
            let state = self.state();
            state
                .tree
                .overlapping(addr..end)
                .filter(|vma| {
                    !vma.protection.contains(Protection::WRITE)
                        && !vma.is_shared()
                        && vma.max_protection.contains(Protection::WRITE)
                })
                .map(|vma| {
                    let start = vma.start.max(page_floor(addr));
                    let end = vma.end.min(super::page_ceil(end).unwrap_or(end));
                    (start..end, vma.protection)
                })
                .collect()
        };
        let mut via = Via::Space(self.space.as_ref());
        for (range, protection) in &locked {
            via.apply_one(MemOp::Protect {
                range: range.clone(),
                protection: *protection | Protection::READ | Protection::WRITE,
            })
            .await?;
        }
        let written = self.write_memory(addr, src).await;
        for (range, protection) in locked {
            via.apply_one(MemOp::Protect { range, protection }).await?;
        }
        written
    }

    /// What identifies the futex word at `addr`: the object and offset of a
    /// shared mapping, `None` for private memory, `EFAULT` where nothing is
    /// mapped.
    pub fn futex_object(&self, addr: u64) -> Result<Option<(FutexObject, u64)>, Errno> {
        let state = self.state();
        let vma = state.tree.find(addr).ok_or(Errno::EFAULT)?;
        Ok(match &vma.backing {
            Backing::Object(mapped, _) if vma.is_shared() => {
                Some((mapped.object, vma.offset_of(addr)))
            }
            _ => None,
        })
    }

    /// The mapping at `addr`.
    pub fn vma_at(&self, addr: u64) -> Option<Vma> {
        self.state().tree.find(addr).cloned()
    }

    /// Decides about a fault of the guest: grows a stack, or works out
    /// `si_code` by the guest's own mappings, which are not all that its
    /// stub process has.
    pub async fn fault(&self, via: &mut Via<'_>, fault: &Fault, limits: &Limits) -> FaultOutcome {
        if fault.signo != SIGSEGV || fault.trap_no != TRAP_PAGE_FAULT {
            return FaultOutcome::Signal { code: fault.code };
        }
        if self.grow_stack(via, fault.addr, limits).await {
            return FaultOutcome::Retry;
        }
        let code = match self.state().tree.find(fault.addr) {
            Some(_) => SEGV_ACCERR,
            None => SEGV_MAPERR,
        };
        FaultOutcome::Signal { code }
    }

    /// Grows the stack mapping above `addr` down to it, within the limits.
    async fn grow_stack(&self, via: &mut Via<'_>, addr: u64, limits: &Limits) -> bool {
        let is_candidate = |state: &State| {
            let vma = state.tree.next_from(addr)?;
            (vma.flags.contains(VmaFlags::GROWSDOWN) && state.tree.find(addr).is_none())
                .then(|| vma.clone())
        };
        // A cheap look without the lock: most faults are no stack growth.
        if is_candidate(&self.state()).is_none() {
            return false;
        }
        let _changes = self.lock_changes().await;
        let grown = {
            let state = self.state();
            let Some(vma) = is_candidate(&state) else {
                // Somebody else grew it, or it went away: look again.
                return state.tree.find(addr).is_some();
            };
            let start = page_floor(addr);
            let added = vma.start - start;
            let is_clear = state.tree.previous(vma.start).is_none_or(|below| {
                below.flags.contains(VmaFlags::GROWSDOWN)
                    || below.end.saturating_add(STACK_GUARD_GAP) <= start
                    || below.protection.is_empty()
            });
            if start < self.guest.start
                || !is_clear
                || vma.end - start > limits.stack
                || state.tree.total_bytes().saturating_add(added) > limits.address_space
                || added > STACK_GUARD_GAP.max(limits.stack)
            {
                return false;
            }
            Vma {
                start,
                end: vma.start,
                ..vma
            }
        };
        if via.apply_one(grown.map_op()).await.is_err() {
            return false;
        }
        self.state_mut().tree.insert(grown);
        true
    }

    /// Gives back the part of the main stack's reserve that a lower
    /// `RLIMIT_STACK` forbids, as far as it lies well below the stack pointer
    /// and so is not in use.
    pub async fn shrink_stack(&self, via: &mut Via<'_>, limit: u64, pointer: u64) {
        let _changes = self.lock_changes().await;
        let unused = {
            let state = self.state();
            let Some(vma) = state.tree.find(pointer) else {
                return;
            };
            if !vma.flags.contains(VmaFlags::GROWSDOWN) {
                return;
            }
            let kept = page_floor(vma.end.saturating_sub(limit))
                .min(page_floor(pointer.saturating_sub(STACK_IN_USE)));
            vma.start..kept
        };
        if !unused.is_empty() {
            // What can't be given back stays, and nothing else is wrong.
            let _ = self.unmap_locked(via, unused).await;
        }
    }

    /// Copies the address space with the thread that forks: the host copies
    /// pages, this copies the tree. Nothing changes in between.
    pub async fn fork(
        &self,
        thread: &mut dyn GuestThread,
    ) -> Result<(Arc<Self>, Box<dyn GuestThread>), Errno> {
        let _changes = self.lock_changes().await;
        let child = thread.fork().await?;
        Ok((Arc::new(self.duplicate(child.space())), child))
    }

    /// The manager of a copy of this space. The caller makes sure that
    /// nothing changes meanwhile.
    fn duplicate(&self, space: Arc<dyn AddressSpace>) -> Self {
        let state = self.state();
        let mut tree = VmaTree::new();
        let mut attached: Vec<(Arc<Mapped>, Arc<Mapped>)> = Vec::new();
        for vma in state.tree.iter() {
            if vma.flags.contains(VmaFlags::DONTFORK) {
                continue;
            }
            let mut vma = vma.clone();
            // Locks are not inherited.
            vma.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
            if let Backing::Object(mapped, _) = &mut vma.backing
                && let Holder::Attachment(attachment) = &mapped.holder
            {
                let known = attached.iter().find(|(old, _)| Arc::ptr_eq(old, mapped));
                *mapped = match known {
                    Some((_, new)) => new.clone(),
                    None => {
                        let new = Arc::new(Mapped {
                            holder: Holder::Attachment(attachment.reattach()),
                            ..Mapped::clone(mapped)
                        });
                        attached.push((mapped.clone(), new.clone()));
                        new
                    }
                };
            }
            tree.insert(vma);
        }
        Self {
            space,
            guest: self.guest.clone(),
            changes: AsyncMutex::new(()),
            state: RwLock::new(State {
                tree,
                layout: state.layout.clone(),
                future: VmaFlags::empty(),
                exe: state.exe.clone(),
            }),
            dumpable: AtomicU8::new(self.dumpable()),
        }
    }

    /// A copy of the layout.
    pub fn layout(&self) -> Layout {
        self.state().layout.clone()
    }

    /// Changes the layout (`prctl(PR_SET_MM)`, the loader).
    pub fn set_layout(&self, change: impl FnOnce(&mut Layout)) {
        change(&mut self.state_mut().layout);
    }

    /// The executed file (`/proc/PID/exe`).
    pub fn exe(&self) -> Option<Arc<File>> {
        self.state().exe.clone()
    }

    pub fn set_exe(&self, exe: Option<Arc<File>>) {
        let old = std::mem::replace(&mut self.state_mut().exe, exe);
        drop(old);
    }

    /// `PR_GET_DUMPABLE`.
    pub fn dumpable(&self) -> u8 {
        self.dumpable.load(Ordering::Relaxed)
    }

    pub fn set_dumpable(&self, value: u8) {
        self.dumpable.store(value, Ordering::Relaxed);
    }

    /// Whether `added` more bytes (of which `data` private and writable) fit
    /// the limits, with `replaced` bytes going away.
    pub(super) fn check_growth(
        state: &State,
        limits: &Limits,
        added: u64,
        data: u64,
        replaced: u64,
    ) -> Result<(), Errno> {
        if limits.address_space == u64::MAX && (data == 0 || limits.data == u64::MAX) {
            return Ok(());
        }
        // The reserve of the stack would count only once it is used.
        let stack = state
            .tree
            .find(state.layout.stack_start)
            .filter(|vma| vma.flags.contains(VmaFlags::GROWSDOWN));
        let reserve = stack.map_or(0, |vma| vma.len_bytes().saturating_sub(STACK_IN_USE));
        let total = state
            .tree
            .total_bytes()
            .saturating_sub(replaced)
            .saturating_sub(reserve);
        if total.saturating_add(added) > limits.address_space {
            return Err(Errno::ENOMEM);
        }
        if data > 0 && state.tree.data_bytes().saturating_add(data) > limits.data {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Whether `more` further mappings fit `vm.max_map_count`.
    pub(super) fn check_count(state: &State, more: usize) -> Result<(), Errno> {
        if state.tree.len().saturating_add(more) > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }
}
