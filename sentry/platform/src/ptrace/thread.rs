//! A guest thread on ptrace.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use super::memory;
use super::promise::Promise;
use super::space::Space;
use super::stub::PAGE;
use super::tracer::{Guest, Vectors};
use super::{Process, THREAD_FLAGS};
use crate::traits::{
    AddressSpace, AtomicOp, BoxFuture, CopyFault, GuestThread, MemError, MemOp, ThreadHandle, Trap,
};
use crate::xstate;

pub(super) struct Thread {
    regs: Regs,
    guest: Arc<Guest>,
    space: Arc<Space>,
    /// The operation that a `poll_*` method waits for.
    pending: Option<Pending>,
}

enum Pending {
    Atomic(Promise<Option<u32>>),
    GetVectors(Promise<Result<Vec<u8>, Errno>>),
    SetVectors(Promise<Result<(), Errno>>),
}

impl Thread {
    pub(super) fn new(guest: Arc<Guest>, space: Arc<Space>) -> Self {
        Self {
            regs: Regs::default(),
            guest,
            space,
            pending: None,
        }
    }

    fn pid(&self) -> i32 {
        self.guest.process.pid
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.guest.exit();
    }
}

impl GuestThread for Thread {
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
        Poll::Ready(memory::read(self.pid(), addr, dst))
    }

    fn poll_copy_out(
        &mut self,
        _cx: &mut Context<'_>,
        addr: u64,
        src: &[u8],
    ) -> Poll<Result<(), CopyFault>> {
        Poll::Ready(memory::write(self.pid(), addr, src))
    }

    fn poll_copy_in_str(
        &mut self,
        _cx: &mut Context<'_>,
        addr: u64,
        dst: &mut [u8],
    ) -> Poll<Result<usize, CopyFault>> {
        // Page by page: what follows the NUL need not be readable.
        let mut copied = 0;
        while copied < dst.len() {
            let fault = CopyFault { copied };
            let Some(at) = addr.checked_add(copied as u64) else {
                return Poll::Ready(Err(fault));
            };
            let to_border = usize::try_from(PAGE - at % PAGE).unwrap_or(1);
            let end = dst.len().min(copied + to_border);
            let Some(part) = dst.get_mut(copied..end) else {
                return Poll::Ready(Err(fault));
            };
            if memory::read(self.pid(), at, part).is_err() {
                return Poll::Ready(Err(fault));
            }
            if let Some(len) = part.iter().position(|&byte| byte == 0) {
                return Poll::Ready(Ok(copied + len));
            }
            copied = end;
        }
        Poll::Ready(Ok(copied))
    }

    fn poll_atomic(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        op: AtomicOp,
    ) -> Poll<Result<u32, CopyFault>> {
        const FAULT: CopyFault = CopyFault { copied: 0 };
        let mut promise = match self.pending.take() {
            Some(Pending::Atomic(promise)) => promise,
            _ => {
                let guest_range = super::stub::GUEST_RANGE;
                if !addr.is_multiple_of(4) || !guest_range.contains(&addr) {
                    return Poll::Ready(Err(FAULT));
                }
                self.guest
                    .call(move |tracee| tracee.atomic(addr, op).unwrap_or(None))
            }
        };
        match Pin::new(&mut promise).poll(cx) {
            Poll::Ready(value) => Poll::Ready(value.ok().flatten().ok_or(FAULT)),
            Poll::Pending => {
                self.pending = Some(Pending::Atomic(promise));
                Poll::Pending
            }
        }
    }

    fn poll_get_vector_state(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<Result<(), Errno>> {
        let shared = self.guest.process.shared.clone();
        if dst.len() != shared.vector_len_bytes {
            return Poll::Ready(Err(Errno::EINVAL));
        }
        let features = shared.vector_features;
        let mut promise = match self.pending.take() {
            Some(Pending::GetVectors(promise)) => promise,
            _ => self.guest.call(move |tracee| {
                let mut area = vec![0; shared.host_vectors.len_bytes];
                tracee.vector_state(&mut area)?;
                Ok(area)
            }),
        };
        let result = match Pin::new(&mut promise).poll(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                self.pending = Some(Pending::GetVectors(promise));
                return Poll::Pending;
            }
        };
        Poll::Ready(result.flatten().and_then(|area| {
            let area = area.get(..dst.len()).ok_or(Errno::EIO)?;
            dst.copy_from_slice(area);
            xstate::clear_software_bytes(dst);
            xstate::sanitize(dst, features, u32::MAX);
            Ok(())
        }))
    }

    fn poll_set_vector_state(
        &mut self,
        cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<Result<(), Errno>> {
        let shared = &self.guest.process.shared;
        if src.len() != shared.vector_len_bytes {
            return Poll::Ready(Err(Errno::EINVAL));
        }
        let mut promise = match self.pending.take() {
            Some(Pending::SetVectors(promise)) => promise,
            _ => {
                let mut area = src.to_vec();
                let host = shared.host_vectors;
                xstate::sanitize(&mut area, shared.vector_features, host.mxcsr_bits);
                area.resize(host.len_bytes, 0);
                self.guest
                    .call(move |tracee| tracee.set_vector_state(&area))
            }
        };
        match Pin::new(&mut promise).poll(cx) {
            Poll::Ready(result) => Poll::Ready(result.flatten()),
            Poll::Pending => {
                self.pending = Some(Pending::SetVectors(promise));
                Poll::Pending
            }
        }
    }

    fn apply<'a>(&'a mut self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>> {
        let owned = memory::own(ops);
        Box::pin(async move {
            let process = self.guest.process.clone();
            self.guest
                .call(move |tracee| memory::apply(tracee, &process, owned))
                .await
                .unwrap_or_else(|errno| Err(MemError { index: 0, errno }))
        })
    }

    fn clone_thread(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            let process = self.guest.process.clone();
            let launch = self.guest.call(move |tracee| {
                let tid = process.clone_child(tracee, THREAD_FLAGS)?;
                Guest::launch(&process, tid, Vectors::Inherited)
            });
            let guest = launch.await??.finish().await?;
            let mut thread = Self::new(guest, self.space.clone());
            thread.regs = self.regs;
            let thread: Box<dyn GuestThread> = Box::new(thread);
            Ok(thread)
        })
    }

    fn fork(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            let parent = self.guest.process.clone();
            // Adopted even if this future is dropped meanwhile.
            let adopted = self.guest.call(move |tracee| {
                let pid = parent.clone_child(tracee, libc::CLONE_PARENT)?;
                let shared = parent.shared.clone();
                let control = parent.shared.control.clone();
                Ok::<_, Errno>(control.call(move || {
                    let process = Process::adopt(shared, pid)?;
                    let launch = process.launch_thread(Vectors::Inherited)?;
                    Ok::<_, Errno>((process, launch))
                }))
            });
            let (process, launch) = adopted.await??.await??;
            let guest = launch.finish().await?;
            let mut thread = Self::new(guest, Space::new(process));
            thread.regs = self.regs;
            let thread: Box<dyn GuestThread> = Box::new(thread);
            Ok(thread)
        })
    }

    fn space(&self) -> Arc<dyn AddressSpace> {
        self.space.clone()
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        Arc::new(Handle(self.guest.clone()))
    }
}

struct Handle(Arc<Guest>);

impl ThreadHandle for Handle {
    fn interrupt(&self) {
        self.0.interrupt();
    }

    fn cpu_time(&self) -> Duration {
        self.0.cpu_time()
    }
}
