//! Guest address spaces: a stub process and what the control thread does in it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};

use syscall_tables::Errno;

use super::control::{HostCall, MAX_CALLS};
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

/// Operations that the control thread carries out in one go.
#[derive(Default)]
struct Batch<'a> {
    calls: Vec<HostCall>,
    /// For each call the index of its operation.
    owners: Vec<usize>,
    /// In the order in which the calls receive them.
    fds: Vec<BorrowedFd<'a>>,
}

impl<'a> Batch<'a> {
    /// Descriptors on their way at once: the host bounds the queue.
    const MAX_FDS: usize = 8;

    fn is_full(&self) -> bool {
        self.fds.len() >= Self::MAX_FDS || self.calls.len() + 4 > MAX_CALLS
    }

    fn add(&mut self, owner: usize, plan: Plan<'a>) {
        self.calls.extend_from_slice(plan.calls());
        self.owners.resize(self.calls.len(), owner);
        if let Plan::Control { fd, .. } = plan {
            self.fds.extend(fd);
        }
    }
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

    /// Operations by the control thread, as few batches as possible.
    pub(super) async fn apply_all(&self, ops: &[MemOp<'_>]) -> Result<(), MemError> {
        let mut batch = Batch::default();
        for (index, op) in ops.iter().enumerate() {
            let plan = memop::plan(op, self.stub.machine.memory_calls);
            let invalid = plan.as_ref().err().copied();
            if invalid.is_some() || batch.is_full() {
                self.run_batch(&mut batch).await?;
            }
            match (plan, invalid) {
                (Ok(plan), _) => batch.add(index, plan),
                (_, invalid) => {
                    let errno = invalid.unwrap_or(Errno::EINVAL);
                    return Err(MemError { index, errno });
                }
            }
        }
        self.run_batch(&mut batch).await
    }

    async fn run_batch(&self, batch: &mut Batch<'_>) -> Result<(), MemError> {
        let Batch { calls, owners, fds } = std::mem::take(batch);
        let Some(&first) = owners.first() else {
            return Ok(());
        };
        let failed = |index: usize, errno| MemError { index, errno };
        let gone = |dead| failed(first, no_process(dead));
        let control = self.stub.control.lock().await.map_err(gone)?;
        for fd in &fds {
            self.stub
                .control
                .send_fds(&[fd.as_fd()])
                .map_err(|errno| failed(first, errno))?;
        }
        let results = control.run(&calls).await.map_err(gone)?;
        let failure = calls.iter().zip(&owners).zip(&results).find_map(
            |((call, owner), result)| match result {
                Err(errno) if !call.ignore_error => Some(failed(*owner, *errno)),
                _ => None,
            },
        );
        let Some(failure) = failure else {
            return Ok(());
        };
        // It has stopped with a descriptor open and others on their way, at
        // most all of them.
        let rest: Vec<_> = std::iter::once(HostCall::close_received())
            .chain(
                fds.iter()
                    .flat_map(|_| [HostCall::receive_fds(), HostCall::close_received()]),
            )
            .collect();
        control.run(&rest).await.map_err(gone)?;
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
