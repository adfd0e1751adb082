//! Guest threads: traps, registers, copies.
//!
//! | file | holds |
//! |---|---|
//! | `registers.rs` | registers and vector state of a trapped thread |
//! | `trap.rs` | why a thread has stopped |
//! | `copy.rs` | copies from and to guest memory |
//! | `offer.rs` | what comes with a call and goes with its result |
//! | `memory.rs` | changes of the address space |
//! | this file | what the kernel sees |

mod copy;
mod memory;
mod offer;
mod registers;
mod trap;

use std::future::poll_fn;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use super::calls::Recent;
use super::context::{Entry, ParkedThread, Turn};
use super::hub::Dead;
use super::layout as l;
use super::space::{KnownTexts, SystrapSpace};
use super::transfer::Transfer;
use super::views;
use copy::Copy;
use offer::{Offer, Queued};
use registers::{LiveCall, Registers, initial_regs};

use crate::{
    AddressSpace, AtomicOp, BoxFuture, Call, CopyFault, Fault, Found, GuestThread, MemError,
    MemImage, MemOp, ThreadHandle, Transferred, Trap, View, ViewId, Way, Window,
};

const SI_KERNEL: i32 = 128;

/// What an operation in progress waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Guest code runs.
    Running,
    /// A copy, of which `done` bytes are through and `chunk` are on their way.
    Copying {
        done: usize,
        chunk: usize,
    },
    /// A transfer between a file and guest memory.
    Transferring(Transfer),
    /// A copy that was put aside.
    Flushing,
    /// [`l::OP_SAVE`].
    Saving,
    /// Any other command.
    Command,
}

/// A guest thread of the systrap platform.
pub(super) struct SystrapThread {
    space: Arc<SystrapSpace>,
    turn: Turn,
    /// Read from the context when they are first needed after a trap. Only
    /// differences are written back, since each cache line written here is one
    /// more to travel.
    regs: OnceLock<Registers>,
    /// The context does not hold what [`Registers::original`] says.
    unpublished: bool,
    live: Option<LiveCall>,
    offer: Offer,
    queued: Option<Queued>,
    recent: Recent,
    local_calls: bool,
    /// As last heard.
    fs_base: u64,
    gs_base: u64,
    phase: Phase,
    /// Where it was told to try again an instruction that was none, the last
    /// time it has trapped.
    undefined: u64,
    /// A trap that is reported once its site is patched.
    patching: Mutex<Option<(Trap, BoxFuture<'static, ()>)>>,
    /// [`SystrapSpace::settle`] under way.
    settling: Mutex<Option<BoxFuture<'static, ()>>>,
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl SystrapThread {
    pub(super) fn new(space: Arc<SystrapSpace>, thread: ParkedThread) -> Result<Self, Errno> {
        let turn = Turn::new(space.stub.clone(), thread)?;
        let thread = Self {
            space,
            turn,
            regs: Registers::new(initial_regs()),
            unpublished: true,
            live: None,
            offer: Offer::default(),
            queued: None,
            recent: Recent::default(),
            local_calls: false,
            fs_base: 0,
            gs_base: 0,
            phase: Phase::Idle,
            undefined: 0,
            patching: Mutex::default(),
            settling: Mutex::default(),
        };
        // The host thread may have been another's.
        thread.put_local_calls(false);
        let initial = &thread.space.stub.machine.initial_vector;
        thread.put_vector_state(initial);
        Ok(thread)
    }

    fn put_local_calls(&self, allowed: bool) {
        let word = self.turn.map().u32(self.turn.field(l::C_LOCAL_CALLS));
        word.store(allowed.into(), Ordering::Relaxed);
    }

    /// Orders the thread to run; nothing if its registers can't be loaded.
    fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Fault>, Dead>> {
        ready!(self.turn.poll_answer(cx))?;
        if let Some(live) = &mut self.live {
            let changed = match self.regs.get() {
                Some(registers) => {
                    live.result = registers.current.rax;
                    registers.is_changed()
                }
                None => false,
            };
            let returns = live.epoch == self.space.texts.epoch();
            if !changed && returns && self.phase == Phase::Idle {
                self.turn
                    .map()
                    .store(self.turn.field(l::C_RESULT), live.result);
                let order = self.put_queued(l::OP_RETURN, l::OP_RETURN_COPY);
                self.turn.order_to_run(order)?;
                return Poll::Ready(Ok(None));
            }
            if self.phase != Phase::Saving {
                ready!(self.poll_flushed(cx))?;
            }
            ready!(self.poll_save(cx))?;
        }
        if let Some(fault) = self.unloadable() {
            return Poll::Ready(Ok(Some(fault)));
        }
        self.put_regs();
        self.live = None;
        let order = self.put_queued(l::OP_RUN, l::OP_RUN_COPY);
        self.turn.order_to_run(order)?;
        Poll::Ready(Ok(None))
    }
}

impl Drop for SystrapThread {
    fn drop(&mut self) {
        self.recent.flush(&self.space.calls(), 0);
    }
}

impl GuestThread for SystrapThread {
    fn regs(&self) -> &Regs {
        &self.registers().current
    }

    fn regs_mut(&mut self) -> &mut Regs {
        &mut self.current_mut().current
    }

    fn call(&self) -> Call {
        match &self.live {
            Some(live) => live.call,
            None => {
                let regs = self.regs();
                Call {
                    number: regs.orig_rax,
                    args: regs.syscall_args(),
                }
            }
        }
    }

    fn allow_local_calls(&mut self, allowed: bool) {
        if self.local_calls != allowed {
            self.local_calls = allowed;
            self.put_local_calls(allowed);
        }
    }

    fn set_result(&mut self, value: u64) {
        match (&mut self.live, self.regs.get_mut()) {
            (Some(live), None) => live.result = value,
            _ => self.regs_mut().rax = value,
        }
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Trap> {
        if let Some((_, work)) = self.patching.get_mut() {
            ready!(work.as_mut().poll(cx));
            if let Some((trap, _)) = self.patching.get_mut().take() {
                return Poll::Ready(trap);
            }
        }
        loop {
            ready!(self.poll_settling(cx));
            if self.phase != Phase::Running {
                if self.phase == Phase::Idle && self.turn.core.take_interrupt() {
                    return Poll::Ready(Trap::Interrupted);
                }
                match ready!(self.poll_start(cx)) {
                    Ok(None) => self.phase = Phase::Running,
                    Ok(Some(fault)) => return Poll::Ready(Trap::Fault(fault)),
                    Err(Dead) => return Poll::Ready(Trap::Killed),
                }
            }
            let entry = ready!(self.turn.poll_trap(cx));
            self.turn.core.set_stopped();
            self.phase = Phase::Idle;
            let Ok(entry) = entry else {
                return Poll::Ready(Trap::Killed);
            };
            if entry == Entry::Fault {
                if self.queue_faulted().is_err() {
                    return Poll::Ready(Trap::Killed);
                }
                continue;
            }
            self.live = None;
            self.queued = None;
            self.offer = Offer::default();
            if let Some(trap) = self.trap(entry) {
                let Some((_, work)) = self.patching.get_mut() else {
                    return Poll::Ready(trap);
                };
                ready!(work.as_mut().poll(cx));
                *self.patching.get_mut() = None;
                return Poll::Ready(trap);
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.queued.is_none() {
            return Poll::Ready(());
        }
        // Nobody misses what a dead stub does not hold.
        self.poll_flushed(cx).map(drop)
    }

    fn has_windows(&self) -> bool {
        true
    }

    fn poll_transfer(
        &mut self,
        cx: &mut Context<'_>,
        way: Way,
        addr: u64,
        len: usize,
        side: &mut (dyn FnMut(&Window<'_>) -> Result<usize, Errno> + Send),
    ) -> Poll<Transferred> {
        let mut transfer = match self.phase {
            Phase::Transferring(transfer) => transfer,
            _ => {
                if let Some(done) = self.transfer_offered(way, addr, len, side) {
                    return Poll::Ready(done);
                }
                ready!(self.poll_settle(cx, addr, len));
                // Of a dead stub the transfer itself hears.
                let _ = ready!(self.poll_flushed(cx));
                Transfer::default()
            }
        };
        let polled = transfer.poll(&mut self.turn, cx, way, addr, len, side);
        self.phase = match polled {
            Poll::Ready(_) => Phase::Idle,
            Poll::Pending => Phase::Transferring(transfer),
        };
        polled
    }

    fn find_view(&self, file: ViewId, offset: u64, len: u64) -> Found {
        self.space.views.find(file, offset, len)
    }

    fn map_view<'a>(
        &'a mut self,
        file: ViewId,
        fd: BorrowedFd<'a>,
        offset: u64,
    ) -> BoxFuture<'a, Result<(), Errno>> {
        Box::pin(self.space.map_view(file, fd, offset))
    }

    fn has_views(&self) -> bool {
        self.space.views.is_used()
    }

    fn forget_views(&mut self, file: ViewId) -> BoxFuture<'_, ()> {
        Box::pin(self.space.forget_views(file))
    }

    fn poll_copy_view(
        &mut self,
        cx: &mut Context<'_>,
        view: &View,
        addr: u64,
        len: u64,
    ) -> Poll<u64> {
        let mut ordered = self.phase == Phase::Command;
        let from = view.address();
        let len = len.min(view.len());
        if !ordered {
            ready!(self.poll_settle(cx, addr, to_usize(len)));
            // Of a dead stub the copy itself hears.
            let _ = ready!(self.poll_flushed(cx));
        }
        let polled = views::poll_copy(&mut self.turn, &mut ordered, cx, from, addr, len);
        self.phase = if ordered { Phase::Command } else { Phase::Idle };
        polled
    }

    fn poll_copy_in(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        dst: &mut [u8],
    ) -> Poll<Result<(), CopyFault>> {
        self.poll_copy(cx, addr, Copy::In(dst))
            .map(|result| result.map(drop))
    }

    fn poll_copy_out(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        src: &[u8],
    ) -> Poll<Result<(), CopyFault>> {
        self.poll_copy(cx, addr, Copy::Out(src))
            .map(|result| result.map(drop))
    }

    fn poll_copy_in_str(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        dst: &mut [u8],
    ) -> Poll<Result<usize, CopyFault>> {
        self.poll_copy(cx, addr, Copy::Str(dst))
    }

    fn poll_atomic(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        op: AtomicOp,
    ) -> Poll<Result<u32, CopyFault>> {
        const FAULT: CopyFault = CopyFault { copied: 0 };
        if self.phase != Phase::Command {
            if !addr.is_multiple_of(4) || addr >= l::STUB_BASE {
                return Poll::Ready(Err(FAULT));
            }
            ready!(self.poll_settle(cx, addr, size_of::<u32>()));
            if ready!(self.poll_flushed(cx)).is_err() {
                return Poll::Ready(Err(FAULT));
            }
            let (kind, operand, new) = match op {
                AtomicOp::Load => (l::ATOMIC_LOAD, 0, 0),
                AtomicOp::Exchange(value) => (l::ATOMIC_EXCHANGE, value, 0),
                AtomicOp::CompareExchange { expected, new } => {
                    (l::ATOMIC_COMPARE_EXCHANGE, expected, new)
                }
                AtomicOp::Add(value) => (l::ATOMIC_ADD, value, 0),
                AtomicOp::Or(value) => (l::ATOMIC_OR, value, 0),
                AtomicOp::And(value) => (l::ATOMIC_AND, value, 0),
                AtomicOp::Xor(value) => (l::ATOMIC_XOR, value, 0),
            };
            self.turn
                .set_args(&[addr, kind, operand.into(), new.into()]);
            if self.turn.order(l::OP_ATOMIC).is_err() {
                return Poll::Ready(Err(FAULT));
            }
            self.phase = Phase::Command;
        }
        let answer = ready!(self.turn.poll_answer(cx));
        self.phase = Phase::Idle;
        let map = self.turn.map();
        let status = map
            .u32(self.turn.field(l::C_STATUS))
            .load(Ordering::Relaxed);
        if answer.is_err() || status != l::STATUS_DONE {
            return Poll::Ready(Err(FAULT));
        }
        let old = map.load(self.turn.field(l::C_RESULT)) & u64::from(u32::MAX);
        Poll::Ready(u32::try_from(old).map_err(|_| FAULT))
    }

    fn poll_get_vector_state(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<Result<(), Errno>> {
        if ready!(self.poll_save(cx)).is_err() {
            return Poll::Ready(Err(Errno::ESRCH));
        }
        Poll::Ready(self.vector_state(dst))
    }

    fn poll_set_vector_state(
        &mut self,
        cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<Result<(), Errno>> {
        if ready!(self.poll_save(cx)).is_err() {
            return Poll::Ready(Err(Errno::ESRCH));
        }
        self.registers();
        self.live = None;
        let vector = &self.space.stub.machine.vector;
        if src.len() != vector.len {
            return Poll::Ready(Err(Errno::EINVAL));
        }
        let mut area = src.to_vec();
        vector.sanitise(&mut area);
        self.put_vector_state(&area);
        Poll::Ready(Ok(()))
    }

    fn apply<'a>(&'a mut self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>> {
        Box::pin(self.apply_all(ops))
    }

    fn can_replace_memory(&self) -> bool {
        self.space.stub.has_single_thread()
    }

    fn replace_memory<'a>(
        &'a mut self,
        image: MemImage<'a>,
    ) -> BoxFuture<'a, Result<(), MemError>> {
        Box::pin(self.replace(image))
    }

    fn clone_thread(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            poll_fn(|cx| self.poll_flushed(cx))
                .await
                .map_err(super::stub::no_process)?;
            poll_fn(|cx| self.poll_save(cx))
                .await
                .map_err(super::stub::no_process)?;
            self.space
                .settle(KnownTexts::Patched)
                .await
                .map_err(super::stub::no_process)?;
            let thread = self.space.stub.take_thread().await?;
            self.twin(self.space.clone(), thread)
        })
    }

    fn fork(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            poll_fn(|cx| self.poll_flushed(cx))
                .await
                .map_err(super::stub::no_process)?;
            poll_fn(|cx| self.poll_save(cx))
                .await
                .map_err(super::stub::no_process)?;
            self.space
                .settle(KnownTexts::Patched)
                .await
                .map_err(super::stub::no_process)?;
            let ((stub, thread), texts) = {
                let space = self.space.clone();
                self.space.stub.fork(|| space.texts.clone()).await?
            };
            self.twin(self.space.child(stub, texts), thread)
        })
    }

    fn space(&self) -> Arc<dyn AddressSpace> {
        self.space.clone()
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        self.turn.core.clone()
    }
}
