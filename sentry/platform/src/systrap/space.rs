//! Guest address spaces: a stub process and what the control thread does in it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use syscall_tables::Errno;

use super::calls::Counts;
use super::control::{ControlGuard, HostCall, MAX_CALLS};
use super::layout as l;
use super::memop::{self, FD_ARG, Plan};
use super::patch::{self, Mapping, Patch, Patching, TextMap};
use super::put_off::PutOff;
use super::stub::{Stub, no_process};
use super::thread::SystrapThread;
use super::views::{Filling, Views};
use crate::residency::FinalPeak;
use crate::{AddressSpace, BoxFuture, CopyFault, GuestThread, MemError, MemImage, MemOp};

/// One guest address space.
pub(super) struct SystrapSpace {
    me: Weak<Self>,
    pub(super) stub: Arc<Stub>,
    pub(super) texts: TextMap,
    pub(super) put_off: PutOff,
    pub(super) views: Arc<Views>,
    /// Of the program that runs here.
    calls: Mutex<Arc<Counts>>,
}

/// Operations that the control thread carries out in one go.
#[derive(Default)]
pub(super) struct Batch<'a> {
    calls: Vec<HostCall>,
    /// For each call the index of its operation.
    owners: Vec<usize>,
    /// Descriptors that the first call receives, each once.
    fds: Vec<BorrowedFd<'a>>,
    /// What the calls find in the transfer window.
    window: Vec<u8>,
    /// Operations that map what may be patched.
    texts: Vec<&'a MemOp<'a>>,
    known_texts: KnownTexts,
}

/// What becomes of texts that other processes have patched before.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum KnownTexts {
    /// They are mapped as the file has them.
    #[default]
    Plain,
    /// They are patched in the batch that maps them. No guest code runs.
    Patched,
}

impl<'a> Batch<'a> {
    /// Descriptors in one message: their list has its place in the stub.
    const MAX_FDS: usize = 32;

    pub(super) fn new(known_texts: KnownTexts) -> Self {
        Self {
            known_texts,
            ..Self::default()
        }
    }

    fn is_full(&self) -> bool {
        // A plan may add a descriptor and two calls; receiving and closing
        // take two more.
        self.fds.len() >= Self::MAX_FDS || self.calls.len() + 4 > MAX_CALLS
    }

    fn push(&mut self, owner: usize, call: HostCall) {
        self.calls.push(call);
        self.owners.push(owner);
    }

    /// Adds a planned operation to a batch that is not full.
    pub(super) fn add(&mut self, owner: usize, op: &'a MemOp<'a>, plan: &Plan<'a>) {
        if patch::is_text(op) {
            self.texts.push(op);
        }
        let number = match plan {
            Plan::Control { fd: Some(fd), .. } => Some(self.descriptor(owner, *fd)),
            _ => None,
        };
        for call in plan.calls() {
            let mut call = *call;
            if let (Some(number), Some(arg)) = (number, call.args.get_mut(FD_ARG)) {
                *arg = number;
            }
            self.push(owner, call);
        }
    }

    /// Adds the mapping of a view.
    pub(super) fn add_view(&mut self, fd: BorrowedFd<'a>, filling: &Filling) {
        let number = self.descriptor(0, fd);
        for call in filling.calls(number) {
            self.push(0, call);
        }
    }

    /// The number that a descriptor will have in the stub.
    fn descriptor(&mut self, owner: usize, fd: BorrowedFd<'a>) -> u64 {
        if self.fds.is_empty() {
            self.push(owner, HostCall::receive_fds());
        }
        let known = self
            .fds
            .iter()
            .position(|other| other.as_raw_fd() == fd.as_raw_fd());
        let index = known.unwrap_or_else(|| {
            self.fds.push(fd);
            self.fds.len() - 1
        });
        l::FD_RECEIVED + u64::try_from(index).unwrap_or(0)
    }

    /// Adds a store of `bytes`, of which as many are taken as there is room
    /// for; how many.
    fn add_write(&mut self, owner: usize, addr: u64, bytes: &[u8]) -> usize {
        if self.is_full() {
            return 0;
        }
        let all = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if all <= l::ZEROS_LEN && bytes.iter().all(|&byte| byte == 0) {
            let args = [l::FD_CONTEXTS, addr, all, l::ZEROS];
            self.push(owner, HostCall::new(libc::SYS_pread64, &args));
            return bytes.len();
        }
        let used = u64::try_from(self.window.len()).unwrap_or(l::TRANSFER_LEN);
        let room = usize::try_from(l::TRANSFER_LEN.saturating_sub(used)).unwrap_or(0);
        let part = bytes.get(..room).unwrap_or(bytes);
        if part.is_empty() {
            return 0;
        }
        self.window.extend_from_slice(part);
        let len = u64::try_from(part.len()).unwrap_or(0);
        let args = [l::FD_CONTEXTS, addr, len, l::R_TRANSFER + used];
        self.push(owner, HostCall::new(libc::SYS_pread64, &args));
        part.len()
    }
}

/// What an image is loaded onto.
#[derive(Clone, Copy)]
pub(super) enum Onto {
    /// A stub without guest memory.
    Nothing,
    /// The memory of a program, which is unmapped.
    OldImage,
}

/// Which way bytes go through the transfer window.
#[derive(Clone, Copy)]
enum Transfer {
    FromGuest,
    ToGuest,
}

impl SystrapSpace {
    pub(super) fn new(stub: Arc<Stub>) -> Arc<Self> {
        Self::with(stub, TextMap::default(), Arc::default())
    }

    /// The space of a child, in which `texts` are mapped.
    pub(super) fn child(&self, stub: Arc<Stub>, texts: TextMap) -> Arc<Self> {
        Self::with(stub, texts, self.calls())
    }

    fn with(stub: Arc<Stub>, texts: TextMap, calls: Arc<Counts>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            stub,
            texts,
            put_off: PutOff::default(),
            views: Arc::default(),
            calls: Mutex::new(calls),
        })
    }

    /// Where calls are counted.
    pub(super) fn calls(&self) -> Arc<Counts> {
        self.calls.lock().clone()
    }

    /// Whether `op` is for [`Self::apply_to_texts`].
    pub(super) fn concerns_texts(&self, op: &MemOp<'_>) -> bool {
        self.stub.machine.patching == Patching::On && self.texts.concerns(op)
    }

    /// Operations by the control thread, as few batches as possible.
    pub(super) async fn apply_all(&self, ops: &[MemOp<'_>]) -> Result<(), MemError> {
        let settled = self.settle(KnownTexts::Plain).await;
        settled.map_err(|dead| MemError {
            index: 0,
            errno: no_process(dead),
        })?;
        let mut batch = Batch::default();
        self.add_ops(&mut batch, ops).await?;
        self.run_batch(&mut batch).await
    }

    /// An image, usually in a single batch.
    pub(super) async fn load_all(&self, image: MemImage<'_>, onto: Onto) -> Result<(), MemError> {
        let mut batch = Batch::new(KnownTexts::Patched);
        if let Onto::OldImage = onto {
            let all = [memop::GUEST_START, l::STUB_BASE - memop::GUEST_START];
            batch.push(0, HostCall::new(libc::SYS_munmap, &all));
            self.texts.clear();
            self.put_off.clear();
            if let Some(call) = self.views.forget_all() {
                batch.push(0, call);
            }
        }
        self.add_ops(&mut batch, image.ops).await?;
        for (owner, (addr, bytes)) in (image.ops.len()..).zip(image.writes) {
            let failed = MemError {
                index: owner,
                errno: Errno::EFAULT,
            };
            let (mut addr, mut bytes) = (*addr, *bytes);
            while !bytes.is_empty() {
                let taken = batch.add_write(owner, addr, bytes);
                if taken == 0 {
                    self.run_batch(&mut batch).await?;
                    continue;
                }
                let len = u64::try_from(taken).map_err(|_| failed)?;
                addr = addr.checked_add(len).ok_or(failed)?;
                bytes = bytes.get(taken..).unwrap_or_default();
            }
        }
        self.run_batch(&mut batch).await
    }

    async fn add_ops<'a>(
        &self,
        batch: &mut Batch<'a>,
        ops: &'a [MemOp<'a>],
    ) -> Result<(), MemError> {
        for (index, op) in ops.iter().enumerate() {
            if self.concerns_texts(op) {
                self.run_batch(batch).await?;
                self.apply_to_texts(index, op).await?;
                continue;
            }
            let plan = memop::plan(op, self.stub.machine.memory_calls);
            if plan.is_err() || batch.is_full() {
                self.run_batch(batch).await?;
            }
            let plan = plan.map_err(|errno| MemError { index, errno })?;
            batch.add(index, op, &plan);
        }
        Ok(())
    }

    pub(super) async fn run_batch(&self, batch: &mut Batch<'_>) -> Result<(), MemError> {
        let batch = std::mem::replace(batch, Batch::new(batch.known_texts));
        let Some(&first) = batch.owners.first() else {
            return Ok(());
        };
        let control = self.stub.control.lock().await.map_err(|dead| MemError {
            index: first,
            errno: no_process(dead),
        })?;
        self.run_batch_now(&control, batch).await
    }

    /// As [`Self::run_batch`] for who has the control thread already.
    pub(super) async fn run_batch_now(
        &self,
        control: &ControlGuard<'_>,
        batch: Batch<'_>,
    ) -> Result<(), MemError> {
        let Batch {
            mut calls,
            owners,
            fds,
            window,
            texts,
            known_texts,
        } = batch;
        let machine = &self.stub.machine;
        let mappings: Vec<Mapping> = match machine.patching {
            Patching::On => texts
                .iter()
                .filter_map(|op| Mapping::of(op, &machine.texts))
                .collect(),
            Patching::Off => Vec::new(),
        };
        let mut patches: Vec<Patch> = Vec::new();
        for mapping in &mappings {
            let index = fds.len() + patches.len();
            if known_texts == KnownTexts::Patched && index < Batch::MAX_FDS {
                let fd = l::FD_RECEIVED + u64::try_from(index).unwrap_or(0);
                patches.extend(Patch::add(&mut calls, MAX_CALLS - 1, mapping, fd));
            }
        }
        let fds: Vec<_> = fds
            .into_iter()
            .chain(patches.iter().map(Patch::fd))
            .collect();
        let failed = |index: usize, errno| MemError { index, errno };
        let first = owners.first().copied().unwrap_or(0);
        let gone = |dead| failed(first, no_process(dead));
        if !fds.is_empty() {
            self.stub
                .control
                .send_fds(&fds)
                .map_err(|errno| failed(first, errno))?;
            calls.push(HostCall::close_received());
        }
        if !window.is_empty() {
            self.stub.contexts().write(l::R_TRANSFER, &window);
        }
        let results = control.run(&calls).await.map_err(gone)?;
        let failure = calls.iter().zip(&owners).zip(&results).find_map(
            |((call, owner), result)| match result {
                Err(errno) if !call.ignores_errors() => Some(failed(*owner, *errno)),
                // Memory that could be written in part only.
                Ok(moved) if call.nr == libc::SYS_pread64 && call.args.get(2) != Some(moved) => {
                    Some(failed(*owner, Errno::EFAULT))
                }
                _ => None,
            },
        );
        let Some(failure) = failure else {
            for mapping in mappings {
                self.texts.add(mapping);
            }
            return self
                .patched(control, &patches, &results)
                .await
                .map_err(gone);
        };
        if !fds.is_empty() {
            // It has stopped before it came to that.
            control
                .run(&[HostCall::close_received()])
                .await
                .map_err(gone)?;
        }
        Err(failure)
    }

    /// Moves up to a window of bytes; how many went.
    async fn transfer(&self, addr: u64, bytes: &mut [u8], way: Transfer) -> Result<usize, Errno> {
        let len = u64::try_from(bytes.len()).map_err(|_| Errno::EFAULT)?;
        let window = self.stub.contexts();
        let control = self.stub.control.lock().await.map_err(no_process)?;
        let nr = match way {
            Transfer::FromGuest => libc::SYS_pwrite64,
            Transfer::ToGuest => {
                window.write(l::R_TRANSFER, bytes);
                libc::SYS_pread64
            }
        };
        let call = HostCall::new(nr, &[l::FD_CONTEXTS, addr, len, l::R_TRANSFER]);
        let results = control.run(&[call]).await.map_err(no_process)?;
        let moved = (*results.first().ok_or(Errno::EFAULT)?)?.min(len);
        let moved = usize::try_from(moved).map_err(|_| Errno::EFAULT)?;
        if let Transfer::FromGuest = way
            && let Some(bytes) = bytes.get_mut(..moved)
        {
            window.read(l::R_TRANSFER, bytes);
        }
        Ok(moved)
    }

    /// Moves all bytes, by windows that end at page boundaries.
    async fn transfer_all(
        &self,
        addr: u64,
        bytes: &mut [u8],
        way: Transfer,
    ) -> Result<(), CopyFault> {
        let mut copied = 0;
        if self.settle(KnownTexts::Plain).await.is_err() {
            return Err(CopyFault { copied });
        }
        while copied < bytes.len() {
            let fault = CopyFault { copied };
            let at = u64::try_from(copied)
                .ok()
                .and_then(|done| addr.checked_add(done))
                .filter(|&at| at < l::STUB_BASE)
                .ok_or(fault)?;
            let room = (l::STUB_BASE - at).min(l::TRANSFER_LEN);
            let end =
                usize::try_from(room).map_or(bytes.len(), |room| bytes.len().min(copied + room));
            let part = bytes.get_mut(copied..end).ok_or(fault)?;
            let moved = self.transfer(at, part, way).await.map_err(|_| fault)?;
            if moved == 0 {
                return Err(fault);
            }
            copied += moved;
        }
        Ok(())
    }
}

impl Drop for SystrapSpace {
    fn drop(&mut self) {
        self.stub.leave();
    }
}

impl AddressSpace for SystrapSpace {
    fn apply<'a>(&'a self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>> {
        Box::pin(self.apply_all(ops))
    }

    fn load<'a>(&'a self, image: MemImage<'a>) -> BoxFuture<'a, Result<(), MemError>> {
        Box::pin(self.load_all(image, Onto::Nothing))
    }

    fn read<'a>(&'a self, addr: u64, dst: &'a mut [u8]) -> BoxFuture<'a, Result<(), CopyFault>> {
        Box::pin(async move {
            self.transfer_all(addr, dst, Transfer::FromGuest).await?;
            if self.texts.is_patched() {
                self.texts.unpatch(addr, dst);
            }
            Ok(())
        })
    }

    fn write<'a>(&'a self, addr: u64, src: &'a [u8]) -> BoxFuture<'a, Result<(), CopyFault>> {
        Box::pin(async move {
            let mut bytes = src.to_vec();
            self.transfer_all(addr, &mut bytes, Transfer::ToGuest).await
        })
    }

    fn new_thread(&self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            let space = self.me.upgrade().ok_or(Errno::ESRCH)?;
            let settled = self.settle(KnownTexts::Plain).await;
            settled.map_err(no_process)?;
            let thread = self.stub.take_thread().await?;
            let thread: Box<dyn GuestThread> = Box::new(SystrapThread::new(space, thread)?);
            Ok(thread)
        })
    }

    fn measure(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.stub.open_status())
    }

    fn resident_bytes(&self) -> u64 {
        self.stub.status_bytes("VmRSS")
    }

    fn peak_bytes(&self) -> u64 {
        self.stub.status_bytes("VmHWM")
    }

    fn final_peak(&self) -> Option<Arc<FinalPeak>> {
        Some(self.stub.peak.clone())
    }

    fn set_program(&self, name: &[u8]) {
        *self.calls.lock() = self.stub.machine.programs.get(name);
    }

    fn kill(&self) {
        self.stub.kill();
    }
}
