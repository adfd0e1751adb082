//! Changes of the address space with the help of the trapped thread.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use syscall_tables::Errno;

use super::SystrapThread;
use super::registers::{Registers, initial_regs};
use crate::systrap::context::ParkedThread;
use crate::systrap::control::{HostCall, result};
use crate::systrap::layout as l;
use crate::systrap::memop::{self, Plan};
use crate::systrap::space::{KnownTexts, Onto, SystrapSpace};
use crate::systrap::stub::no_process;
use crate::{GuestThread, MemError, MemImage, MemOp};

impl SystrapThread {
    /// A host call made by the trapped thread.
    async fn app_call(&mut self, call: &HostCall) -> Result<u64, Errno> {
        poll_fn(|cx| self.turn.poll_answer(cx))
            .await
            .map_err(no_process)?;
        let [a, b, c, d, e, f] = call.args;
        self.turn
            .set_args(&[call.nr.cast_unsigned(), a, b, c, d, e, f]);
        self.turn.order(l::OP_SYSCALL).map_err(no_process)?;
        poll_fn(|cx| self.turn.poll_answer(cx))
            .await
            .map_err(no_process)?;
        result(self.turn.map().load(self.turn.field(l::C_RESULT)))
    }

    pub(super) async fn apply_all(&mut self, ops: &[MemOp<'_>]) -> Result<(), MemError> {
        // What was put aside goes where it was to go.
        let settled = poll_fn(|cx| self.poll_flushed(cx)).await;
        settled.map_err(|dead| MemError {
            index: 0,
            errno: no_process(dead),
        })?;
        let memory = self.space.stub.machine.memory_calls;
        let mut index = 0;
        while let Some(op) = ops.get(index) {
            if self.space.put_off(op) {
                index += 1;
                continue;
            }
            if self.space.concerns_texts(op) {
                self.settle_for(index, op).await?;
                self.space.apply_to_texts(index, op).await?;
                index += 1;
                continue;
            }
            let plan = memop::plan(op, memory).map_err(|errno| MemError { index, errno })?;
            if let Plan::App(call) = plan {
                if !self.space.put_off.is_empty() {
                    self.settle_for(index, op).await?;
                }
                self.app_call(&call)
                    .await
                    .map_err(|errno| MemError { index, errno })?;
                index += 1;
                continue;
            }
            // Up to the next one that this thread can do itself.
            let rest = ops.get(index..).unwrap_or_default();
            let len = rest
                .iter()
                .take_while(|op| {
                    !matches!(memop::plan(op, memory), Ok(Plan::App(_)))
                        && !self.space.concerns_texts(op)
                })
                .count();
            self.space
                .apply_all(rest.get(..len).unwrap_or_default())
                .await
                .map_err(|failed| MemError {
                    index: index + failed.index,
                    errno: failed.errno,
                })?;
            index += len;
        }
        Ok(())
    }

    /// Before `op`: carries out what was put off and has to do with it.
    async fn settle_for(&self, index: usize, op: &MemOp<'_>) -> Result<(), MemError> {
        if self.space.put_off.is_concerned_by(op) {
            self.space
                .settle(KnownTexts::Patched)
                .await
                .map_err(|dead| MemError {
                    index,
                    errno: no_process(dead),
                })?;
        }
        Ok(())
    }

    /// Puts another program in the place of this one.
    pub(super) async fn replace(&mut self, image: MemImage<'_>) -> Result<(), MemError> {
        let failed = |errno| MemError { index: 0, errno };
        if !self.space.stub.has_single_thread() {
            return Err(failed(Errno::EBUSY));
        }
        poll_fn(|cx| self.poll_flushed(cx))
            .await
            .map_err(|dead| failed(no_process(dead)))?;
        self.recent.flush(&self.space.calls(), 0);
        self.space.load_all(image, Onto::OldImage).await?;
        // What the old program may have left here it can't change any more.
        self.space.stub.scrub();
        self.regs = Registers::new(initial_regs());
        self.unpublished = true;
        self.live = None;
        self.put_vector_state(&self.space.stub.machine.initial_vector);
        Ok(())
    }

    /// A thread with this one's registers and vector state.
    pub(super) fn twin(
        &self,
        space: Arc<SystrapSpace>,
        thread: ParkedThread,
    ) -> Result<Box<dyn GuestThread>, Errno> {
        let mut area = vec![0; self.space.stub.machine.vector.len];
        self.vector_state(&mut area)?;
        let mut twin = Self::new(space, thread)?;
        twin.regs = Registers::new(self.registers().current);
        twin.put_vector_state(&area);
        Ok(Box::new(twin))
    }

    /// Has memory at these addresses made that was put off.
    pub(super) fn poll_settle(&mut self, cx: &mut Context<'_>, addr: u64, len: usize) -> Poll<()> {
        if self.space.put_off.concerns(addr, len) && self.settling.get_mut().is_none() {
            self.start_settling();
        }
        self.poll_settling(cx)
    }

    pub(super) fn start_settling(&mut self) {
        let space = self.space.clone();
        // Of a stub that is gone all else that is asked tells.
        let work = Box::pin(async move {
            let _ = space.settle(KnownTexts::Patched).await;
        });
        *self.settling.get_mut() = Some(work);
    }

    pub(super) fn poll_settling(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(work) = self.settling.get_mut() {
            ready!(work.as_mut().poll(cx));
            *self.settling.get_mut() = None;
        }
        Poll::Ready(())
    }
}
