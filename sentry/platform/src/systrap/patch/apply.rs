//! Replacing pages of texts in a stub.
//!
//! All of it under the turn of the control thread, so that what [`TextMap`]
//! says and what the stub has don't differ when somebody else looks.

use std::os::fd::BorrowedFd;

use syscall_tables::Errno;

use super::{Image, Mapping, Patching, TRAMPOLINES_LEN};
use crate::executor::blocking;
use crate::systrap::control::{ControlGuard, HostCall};
use crate::systrap::filter::{MAP_PRIVATE_FLAGS, MAP_PRIVATE_NEW_FLAGS};
use crate::systrap::hub::Dead;
use crate::systrap::layout as l;
use crate::systrap::memop;
use crate::systrap::space::{Batch, SystrapSpace};
use crate::systrap::stub::no_process;
use crate::{MemError, MemOp, Protection};

impl SystrapSpace {
    /// An operation that concerns texts.
    pub(in super::super) async fn apply_to_texts(
        &self,
        index: usize,
        op: &MemOp<'_>,
    ) -> Result<(), MemError> {
        let failed = |errno| MemError { index, errno };
        let gone = |dead| failed(no_process(dead));
        let plan = memop::plan(op, self.stub.machine.memory_calls).map_err(failed)?;
        let control = self.stub.control.lock().await.map_err(gone)?;
        let before = self.texts.before(op);
        for mapping in &before.restore {
            self.restore(&control, mapping).await.map_err(gone)?;
        }
        for area in &before.unmap {
            let args = [area.start, area.end - area.start];
            let call = HostCall::new(libc::SYS_munmap, &args);
            control.run(&[call]).await.map_err(gone)?;
        }
        let mut batch = Batch::default();
        batch.add(index, op, &plan);
        self.run_batch_now(&control, batch).await
    }

    /// After a trap that asked for it: has the text at `start` patched as far
    /// as possible.
    pub(in super::super) async fn patch_text(&self, start: u64) {
        if self.settle().await.is_err() {
            return;
        }
        let Some(mapping) = self.texts.get(start) else {
            return;
        };
        if blocking(|| mapping.text.prepare()).is_err() {
            self.texts.set(start, None);
            return;
        }
        // A stub that is gone needs nothing.
        if let Ok(control) = self.stub.control.lock().await {
            let _ = self.patch(&control, start).await;
        }
    }

    /// After `ops`, which may have mapped texts that others have patched
    /// before: patches them from the start. For who knows that no guest code
    /// runs.
    pub(in super::super) async fn patch_known(
        &self,
        control: &ControlGuard<'_>,
        ops: &[MemOp<'_>],
    ) -> Result<(), Dead> {
        if self.stub.machine.patching == Patching::Off {
            return Ok(());
        }
        for start in ops.iter().filter_map(super::map::text_start) {
            let mapping = self.texts.get(start);
            if mapping.is_some_and(|mapping| mapping.text.has_image()) {
                self.patch(control, start).await?;
            }
        }
        Ok(())
    }

    /// Puts the newest image of the text at `start` in place, if there is one.
    async fn patch(&self, control: &ControlGuard<'_>, start: u64) -> Result<(), Dead> {
        let Some(mapping) = self.texts.get(start) else {
            return Ok(());
        };
        for delta in mapping.deltas() {
            let Some(image) = blocking(|| mapping.text.image(delta)) else {
                continue;
            };
            let trampolines = match &mapping.image {
                Some(old) if std::sync::Arc::ptr_eq(old, &image) => return Ok(()),
                // Old trampolines are among the new ones.
                Some(_) => MAP_PRIVATE_FLAGS,
                None => MAP_PRIVATE_NEW_FLAGS,
            };
            // In this order: who is told to go on in a trampoline finds it, and
            // who finds its text changed is told to.
            let area = image.trampolines(start);
            let code = Protection::READ | Protection::EXEC;
            let calls = [
                HostCall::receive_fds(),
                map(area.start, TRAMPOLINES_LEN, code, trampolines, 0),
            ];
            match self.run_calls(control, &calls, Some(image.fd())).await? {
                Ok(()) => {}
                Err(Errno::EEXIST) => continue,
                Err(_) => break,
            }
            self.texts.set(start, Some(image.clone()));
            let calls = page_calls(&mapping, &image);
            if self.run_calls(control, &calls, None).await?.is_err() {
                // Some have changed.
                control.run(&[HostCall::close_received()]).await?;
                if let Some(mapping) = self.texts.retire(start) {
                    self.restore(control, &mapping).await?;
                }
            }
            return Ok(());
        }
        if mapping.text.is_ready() {
            self.texts.set(start, None);
        }
        Ok(())
    }

    /// Gives a text its own pages back.
    async fn restore(&self, control: &ControlGuard<'_>, mapping: &Mapping) -> Result<(), Dead> {
        let Some(image) = &mapping.image else {
            return Ok(());
        };
        let offset = mapping.text.offset();
        let mut calls = vec![HostCall::receive_fds()];
        for &(from, _, len) in image.runs() {
            calls.push(map(
                mapping.range.start + from,
                len,
                mapping.protection,
                MAP_PRIVATE_FLAGS,
                offset + from,
            ));
        }
        calls.push(HostCall::close_received());
        // What can't be restored stays as it is, with its trampolines.
        let _ = self
            .run_calls(control, &calls, Some(mapping.text.fd()))
            .await?;
        Ok(())
    }

    /// Calls of which the first receives `fd`, if there is one.
    async fn run_calls(
        &self,
        control: &ControlGuard<'_>,
        calls: &[HostCall],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Result<(), Errno>, Dead> {
        if let Some(fd) = fd
            && let Err(errno) = self.stub.control.send_fds(&[fd])
        {
            return Ok(Err(errno));
        }
        let results = control.run(calls).await?;
        let failure = calls
            .iter()
            .zip(&results)
            .find_map(|(call, result)| result.err().filter(|_| !call.ignores_errors()));
        let Some(errno) = failure else {
            return Ok(Ok(()));
        };
        if fd.is_some() {
            control.run(&[HostCall::close_received()]).await?;
        }
        Ok(Err(errno))
    }
}

fn map(addr: u64, len: u64, protection: Protection, flags: u32, offset: u64) -> HostCall {
    let protection = memop::host_protection(protection);
    let args = [addr, len, protection, flags.into(), l::FD_RECEIVED, offset];
    HostCall::new(libc::SYS_mmap, &args)
}

fn page_calls(mapping: &Mapping, image: &Image) -> Vec<HostCall> {
    let start = mapping.range.start;
    let runs = image.runs().iter();
    runs.map(|&(to, from, len)| {
        let protection = mapping.protection;
        map(start + to, len, protection, MAP_PRIVATE_FLAGS, from)
    })
    .chain([HostCall::close_received()])
    .collect()
}
