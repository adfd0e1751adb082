//! Guest address spaces: a stub process and what the control thread does in it.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use syscall_tables::Errno;

use super::control::HostCall;
use super::layout as l;
use super::memop::{self, Plan};
use super::stub::{Stub, no_process};
use super::thread::SystrapThread;
use crate::{AddressSpace, BoxFuture, CopyFault, GuestThread, MemError, MemOp};

/// One guest address space.
pub(super) struct SystrapSpace {
    me: Weak<Self>,
    pub(super) stub: Arc<Stub>,
}

/// Which way bytes go through the transfer window.
#[derive(Clone, Copy)]
enum Transfer {
    FromGuest,
    ToGuest,
}

impl SystrapSpace {
    pub(super) fn new(stub: Arc<Stub>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            stub,
        })
    }

    /// One operation, by the control thread.
    pub(super) async fn apply_one(&self, plan: &Plan<'_>) -> Result<(), Errno> {
        let control = self.stub.control.lock().await.map_err(no_process)?;
        let calls = plan.calls();
        if let Plan::Control { fd: Some(fd), .. } = plan {
            self.stub.control.send_fds(&[fd.as_fd()])?;
        }
        let results = control.run(calls).await.map_err(no_process)?;
        for (call, result) in calls.iter().zip(&results) {
            if let (false, Err(err)) = (call.ignore_error, result) {
                if matches!(plan, Plan::Control { fd: Some(_), .. }) {
                    // The batch has stopped before the descriptor was closed.
                    control
                        .run(&[HostCall::close_received()])
                        .await
                        .map_err(no_process)?;
                }
                return Err(*err);
            }
        }
        Ok(())
    }

    async fn apply_all(&self, ops: &[MemOp<'_>]) -> Result<(), MemError> {
        for (index, op) in ops.iter().enumerate() {
            let failed = |errno| MemError { index, errno };
            let plan = memop::plan(op, self.stub.machine.memory_calls).map_err(failed)?;
            self.apply_one(&plan).await.map_err(failed)?;
        }
        Ok(())
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
        self.stub.kill();
    }
}

impl AddressSpace for SystrapSpace {
    fn apply<'a>(&'a self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>> {
        Box::pin(self.apply_all(ops))
    }

    fn read<'a>(&'a self, addr: u64, dst: &'a mut [u8]) -> BoxFuture<'a, Result<(), CopyFault>> {
        Box::pin(self.transfer_all(addr, dst, Transfer::FromGuest))
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
            let thread = self.stub.take_thread().await?;
            let thread: Box<dyn GuestThread> = Box::new(SystrapThread::new(space, thread)?);
            Ok(thread)
        })
    }

    /// Not known: the sentry opens no files, thus not `/proc/PID/statm` either.
    fn resident_bytes(&self) -> u64 {
        0
    }

    fn kill(&self) {
        self.stub.kill();
    }
}
