//! Replacing pages of texts in a stub.
//!
//! All of it under the turn of the control thread, so that what [`TextMap`]
//! says and what the stub has don't differ when somebody else looks.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use syscall_tables::Errno;

use super::{Image, Mapping, TRAMPOLINES_LEN};
use crate::executor::blocking;
use crate::systrap::control::{ControlGuard, HostCall, Results};
use crate::systrap::filter::{MAP_PRIVATE_FLAGS, MAP_PRIVATE_NEW_FLAGS};
use crate::systrap::hub::Dead;
use crate::systrap::layout as l;
use crate::systrap::memop;
use crate::systrap::space::{Batch, KnownTexts, SystrapSpace};
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
        let _changing = self.texts.begin_change();
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
        if self.settle(KnownTexts::Patched).await.is_err() {
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

    /// After a batch that patched texts at its end, with its results.
    pub(in super::super) async fn patched(
        &self,
        control: &ControlGuard<'_>,
        patches: &[Patch],
        results: &Results,
    ) -> Result<(), Dead> {
        let mut cut_short = false;
        for patch in patches {
            let start = patch.start;
            let done = results.iter().skip(patch.first).take(patch.len);
            let done = done.filter(|result| result.is_ok()).count();
            cut_short |= done < patch.len;
            if done == 0 {
                continue;
            }
            self.texts.set(start, Some(patch.image.clone()));
            if done < patch.len
                && let Some(mapping) = self.texts.retire(start)
            {
                control.run(&[HostCall::close_received()]).await?;
                self.restore(control, &mapping).await?;
            }
        }
        if cut_short {
            control.run(&[HostCall::close_received()]).await?;
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
                Some(old) if Arc::ptr_eq(old, &image) => return Ok(()),
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
                map(area.start, TRAMPOLINES_LEN, code, trampolines, 0, RECEIVED),
            ];
            match self.run_calls(control, &calls, Some(image.fd())).await? {
                Ok(()) => {}
                Err(Errno::EEXIST) => continue,
                Err(_) => break,
            }
            self.texts.set(start, Some(image.clone()));
            let mut calls = page_calls(&mapping, &image, RECEIVED);
            calls.push(HostCall::close_received());
            if self.run_calls(control, &calls, None).await?.is_err() {
                // Some have changed.
                control.run(&[HostCall::close_received()]).await?;
                let _changing = self.texts.begin_change();
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
                RECEIVED,
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

/// A text that is patched in the batch that maps it, by the last calls: the
/// place of the trampolines may be taken, which ends the batch.
pub(in super::super) struct Patch {
    start: u64,
    image: Arc<Image>,
    /// Its calls.
    first: usize,
    len: usize,
}

impl Patch {
    /// Adds the calls that patch `mapping` by an image that others have had
    /// made, if there is one, to at most `max` of them. The image will be
    /// the descriptor `fd`.
    pub(in super::super) fn add(
        calls: &mut Vec<HostCall>,
        max: usize,
        mapping: &Mapping,
        fd: u64,
    ) -> Option<Self> {
        let mut deltas = mapping.deltas();
        let image = deltas.find_map(|delta| mapping.text.known_image(delta))?;
        let start = mapping.range.start;
        let (first, len) = (calls.len(), image.runs().len() + 1);
        if first + len > max {
            return None;
        }
        let area = image.trampolines(start);
        let code = Protection::READ | Protection::EXEC;
        let flags = MAP_PRIVATE_NEW_FLAGS;
        calls.push(map(area.start, TRAMPOLINES_LEN, code, flags, 0, fd));
        calls.extend(page_calls(mapping, &image, fd));
        Some(Self {
            start,
            image,
            first,
            len,
        })
    }

    pub(in super::super) fn fd(&self) -> BorrowedFd<'_> {
        self.image.fd()
    }
}

const RECEIVED: u64 = l::FD_RECEIVED;

fn map(addr: u64, len: u64, protection: Protection, flags: u32, offset: u64, fd: u64) -> HostCall {
    let protection = memop::host_protection(protection);
    let args = [addr, len, protection, flags.into(), fd, offset];
    HostCall::new(libc::SYS_mmap, &args)
}

fn page_calls(mapping: &Mapping, image: &Image, fd: u64) -> Vec<HostCall> {
    let start = mapping.range.start;
    let runs = image.runs().iter();
    runs.map(|&(to, from, len)| {
        let protection = mapping.protection;
        map(start + to, len, protection, MAP_PRIVATE_FLAGS, from, fd)
    })
    .collect()
}
