//! A guest address space on ptrace.

use std::sync::{Arc, Weak};

use syscall_tables::Errno;

use super::Process;
use super::memory;
use super::thread::Thread;
use super::tracer::{Vectors, with_own_tracee};
use crate::executor::block_on;
use crate::traits::{AddressSpace, BoxFuture, CopyFault, GuestThread, MemError, MemOp};

pub(super) struct Space {
    pub(super) process: Arc<Process>,
    this: Weak<Self>,
}

impl Space {
    pub(super) fn new(process: Arc<Process>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            process,
            this: this.clone(),
        })
    }

    /// A thread cloned from the leader.
    pub(super) async fn thread_of_leader(
        self: &Arc<Self>,
        vectors: Vectors,
    ) -> Result<Thread, Errno> {
        let process = self.process.clone();
        let launch = self
            .process
            .shared
            .control
            .call(move || process.launch_thread(vectors));
        let launch = launch.await??;
        let guest = launch.finish().await?;
        Ok(Thread::new(guest, self.clone()))
    }
}

impl AddressSpace for Space {
    fn apply<'a>(&'a self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>> {
        let owned = memory::own(ops);
        Box::pin(async move {
            self.process
                .with_leader(move |process, leader| Ok(memory::apply(leader, process, owned)))
                .await
                .unwrap_or_else(|errno| Err(MemError { index: 0, errno }))
        })
    }

    fn read<'a>(&'a self, addr: u64, dst: &'a mut [u8]) -> BoxFuture<'a, Result<(), CopyFault>> {
        Box::pin(async move { memory::read(self.process.pid, addr, dst) })
    }

    fn write<'a>(&'a self, addr: u64, src: &'a [u8]) -> BoxFuture<'a, Result<(), CopyFault>> {
        Box::pin(async move { memory::write(self.process.pid, addr, src) })
    }

    fn new_thread(&self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            let this = self.this.upgrade().ok_or(Errno::ESRCH)?;
            let thread = this.thread_of_leader(Vectors::Initial).await?;
            let thread: Box<dyn GuestThread> = Box::new(thread);
            Ok(thread)
        })
    }

    fn resident_bytes(&self) -> u64 {
        let process = &self.process;
        let own = with_own_tracee(process, |tracee| {
            memory::peak_resident_bytes(tracee, process)
        });
        own.unwrap_or_else(|| {
            // The control thread waits for nobody, so this takes microseconds.
            let asked = process
                .with_leader(|process, leader| Ok(memory::peak_resident_bytes(leader, process)));
            block_on(asked).unwrap_or(0)
        })
    }

    fn kill(&self) {
        self.process.kill();
    }
}
