//! The kernel's side of a fake thread.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use super::{FakeGuest, FakeSpace, VECTOR_STATE_FEATURES, VECTOR_STATE_LEN_BYTES};
use crate::traits::{
    AddressSpace, AtomicOp, BoxFuture, CopyFault, GuestThread, MemError, MemOp, ThreadHandle, Trap,
};
use crate::xstate;

pub(super) struct FakeThread {
    regs: Regs,
    vector_state: Vec<u8>,
    space: Arc<FakeSpace>,
    guest: FakeGuest,
}

impl FakeThread {
    pub(super) fn new(space: Arc<FakeSpace>, guest: FakeGuest, like: Option<&Self>) -> Self {
        Self {
            regs: like.map_or_else(Regs::default, |like| like.regs),
            vector_state: like.map_or_else(
                || xstate::initial(VECTOR_STATE_LEN_BYTES),
                |like| like.vector_state.clone(),
            ),
            space,
            guest,
        }
    }
}

impl Drop for FakeThread {
    fn drop(&mut self) {
        self.guest.end();
    }
}

impl GuestThread for FakeThread {
    fn regs(&self) -> &Regs {
        &self.regs
    }

    fn regs_mut(&mut self) -> &mut Regs {
        &mut self.regs
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Trap> {
        self.guest.poll_run(cx, &mut self.regs)
    }

    fn poll_copy_in(
        &mut self,
        _cx: &mut Context<'_>,
        addr: u64,
        dst: &mut [u8],
    ) -> Poll<Result<(), CopyFault>> {
        Poll::Ready(self.space.memory.lock().read(addr, dst))
    }

    fn poll_copy_out(
        &mut self,
        _cx: &mut Context<'_>,
        addr: u64,
        src: &[u8],
    ) -> Poll<Result<(), CopyFault>> {
        Poll::Ready(self.space.memory.lock().write(addr, src))
    }

    fn poll_copy_in_str(
        &mut self,
        _cx: &mut Context<'_>,
        addr: u64,
        dst: &mut [u8],
    ) -> Poll<Result<usize, CopyFault>> {
        let result = self.space.memory.lock().read(addr, dst);
        let copied = result.map_or_else(|fault| fault.copied, |()| dst.len());
        let nul = dst.iter().take(copied).position(|&byte| byte == 0);
        Poll::Ready(match (nul, result) {
            (Some(len), _) => Ok(len),
            (None, Ok(())) => Ok(copied),
            (None, Err(fault)) => Err(fault),
        })
    }

    fn poll_atomic(
        &mut self,
        _cx: &mut Context<'_>,
        addr: u64,
        op: AtomicOp,
    ) -> Poll<Result<u32, CopyFault>> {
        Poll::Ready(self.space.memory.lock().atomic(addr, op))
    }

    fn poll_get_vector_state(
        &mut self,
        _cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<Result<(), Errno>> {
        if dst.len() != self.vector_state.len() {
            return Poll::Ready(Err(Errno::EINVAL));
        }
        dst.copy_from_slice(&self.vector_state);
        Poll::Ready(Ok(()))
    }

    fn poll_set_vector_state(
        &mut self,
        _cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<Result<(), Errno>> {
        if src.len() != self.vector_state.len() {
            return Poll::Ready(Err(Errno::EINVAL));
        }
        self.vector_state.copy_from_slice(src);
        xstate::sanitize(
            &mut self.vector_state,
            VECTOR_STATE_FEATURES,
            xstate::MXCSR_BITS,
        );
        Poll::Ready(Ok(()))
    }

    fn apply<'a>(&'a mut self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>> {
        AddressSpace::apply(&*self.space, ops)
    }

    fn clone_thread(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        let thread = self.space.add_thread(Some(self));
        Box::pin(std::future::ready(Ok(thread)))
    }

    fn fork(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        let memory = self.space.memory.lock().fork();
        let space = FakeSpace::new(self.space.guests.clone(), memory);
        let thread = space.add_thread(Some(self));
        Box::pin(std::future::ready(Ok(thread)))
    }

    fn space(&self) -> Arc<dyn AddressSpace> {
        self.space.clone()
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        Arc::new(FakeHandle(self.guest.clone()))
    }
}

struct FakeHandle(FakeGuest);

impl ThreadHandle for FakeHandle {
    fn interrupt(&self) {
        self.0.interrupt();
    }

    fn cpu_time(&self) -> Duration {
        Duration::ZERO
    }
}
