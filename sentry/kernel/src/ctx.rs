//! What a system call handler gets: the kernel, the calling task, and access
//! to the calling thread's memory and registers.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use sentry_platform::{AtomicOp, GuestThread, Transferred, View, Way, Window};
use smallvec::SmallVec;
use syscall_tables::Errno;
use syscall_tables::abi::{RLIMIT_NOFILE, Regs};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::kernel::Kernel;
use crate::sync::{Events, Subscription, WaitQueue};
use crate::task::Task;
use crate::user::UserPtr;
use crate::vfs::{FdFlags, File};

/// Paths below this length are read without an allocation.
const SHORT_PATH: usize = 96;

/// A path name of a guest.
pub type PathText = SmallVec<[u8; SHORT_PATH]>;

/// Result of a system call: the value of `rax`, or an error.
pub type SysResult = Result<u64, Errno>;

/// The caller of a system call. Owned by the task's loop, lent to handlers.
pub struct Ctx<'a> {
    pub kernel: &'a Arc<Kernel>,
    pub task: &'a Arc<Task>,
    /// The guest thread; `execve` replaces it.
    pub thread: &'a mut Box<dyn GuestThread>,
}

impl Ctx<'_> {
    /// Puts a new file into the caller's lowest free descriptor.
    pub fn add_fd(&self, file: Arc<File>, flags: FdFlags) -> SysResult {
        let limit = self.task.group.limit(RLIMIT_NOFILE);
        let fd = self.task.files().insert(file, flags, 0, limit)?;
        Ok(u64::from(fd.0.unsigned_abs()))
    }

    pub fn regs(&self) -> &Regs {
        self.thread.regs()
    }

    pub fn regs_mut(&mut self) -> &mut Regs {
        self.thread.regs_mut()
    }

    /// Fills `dst` from guest memory.
    pub async fn read_bytes(&mut self, addr: u64, dst: &mut [u8]) -> Result<(), Errno> {
        if dst.is_empty() {
            return Ok(());
        }
        poll_fn(|cx| self.thread.poll_copy_in(cx, addr, dst))
            .await
            .map_err(Errno::from)
    }

    /// Stores `src` to guest memory.
    pub async fn write_bytes(&mut self, addr: u64, src: &[u8]) -> Result<(), Errno> {
        if src.is_empty() {
            return Ok(());
        }
        poll_fn(|cx| self.thread.poll_copy_out(cx, addr, src))
            .await
            .map_err(Errno::from)
    }

    /// As [`Self::read_bytes`], answering how many bytes were readable.
    pub async fn read_partial(&mut self, addr: u64, dst: &mut [u8]) -> usize {
        if dst.is_empty() {
            return 0;
        }
        match poll_fn(|cx| self.thread.poll_copy_in(cx, addr, dst)).await {
            Ok(()) => dst.len(),
            Err(fault) => fault.copied.min(dst.len()),
        }
    }

    /// As [`Self::write_bytes`], answering how many bytes were writable.
    pub async fn write_partial(&mut self, addr: u64, src: &[u8]) -> usize {
        if src.is_empty() {
            return 0;
        }
        match poll_fn(|cx| self.thread.poll_copy_out(cx, addr, src)).await {
            Ok(()) => src.len(),
            Err(fault) => fault.copied.min(src.len()),
        }
    }

    /// Moves bytes between a file and guest memory without a buffer in
    /// between; see [`GuestThread::poll_transfer`].
    pub async fn transfer(
        &mut self,
        way: Way,
        addr: u64,
        len: usize,
        mut side: impl FnMut(&Window<'_>) -> Result<usize, Errno> + Send,
    ) -> Transferred {
        poll_fn(|cx| self.thread.poll_transfer(cx, way, addr, len, &mut side)).await
    }

    /// Copies from a view; see [`GuestThread::poll_copy_view`].
    pub async fn copy_view(&mut self, view: &View, addr: u64, len: u64) -> u64 {
        poll_fn(|cx| self.thread.poll_copy_view(cx, view, addr, len)).await
    }

    /// Unmaps the views that the caller's process has of a file it closes.
    pub async fn forget_views(&mut self, file: &File) {
        if self.thread.has_views()
            && let Some(id) = file.ops.view_id()
        {
            self.thread.forget_views(id).await;
        }
    }

    /// Reads one value.
    pub async fn read<T: FromBytes + IntoBytes>(&mut self, ptr: UserPtr<T>) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_bytes(ptr.addr, value.as_mut_bytes()).await?;
        Ok(value)
    }

    /// Writes one value.
    pub async fn write<T: IntoBytes + Immutable>(
        &mut self,
        ptr: UserPtr<T>,
        value: &T,
    ) -> Result<(), Errno> {
        self.write_bytes(ptr.addr, value.as_bytes()).await
    }

    /// Reads `count` values.
    pub async fn read_array<T: FromBytes + IntoBytes>(
        &mut self,
        ptr: UserPtr<T>,
        count: usize,
    ) -> Result<Vec<T>, Errno> {
        let mut values = T::new_vec_zeroed(count).map_err(|_| Errno::ENOMEM)?;
        self.read_bytes(ptr.addr, values.as_mut_slice().as_mut_bytes())
            .await?;
        Ok(values)
    }

    /// Writes a slice of values.
    pub async fn write_array<T: IntoBytes + Immutable>(
        &mut self,
        ptr: UserPtr<T>,
        values: &[T],
    ) -> Result<(), Errno> {
        self.write_bytes(ptr.addr, values.as_bytes()).await
    }

    /// Reads a string of at most `max_len` bytes without its NUL; `too_long`
    /// if none was found.
    pub async fn read_str(
        &mut self,
        addr: u64,
        max_len: usize,
        too_long: Errno,
    ) -> Result<Vec<u8>, Errno> {
        // Most strings are short: a first small window keeps them cheap.
        let mut string = vec![0; max_len.min(256)];
        let mut filled = 0;
        loop {
            let from = addr.checked_add(filled as u64).ok_or(Errno::EFAULT)?;
            let window = string.get_mut(filled..).unwrap_or_default();
            let window_len = window.len();
            let len = poll_fn(|cx| self.thread.poll_copy_in_str(cx, from, window))
                .await
                .map_err(Errno::from)?;
            filled += len.min(window_len);
            if len < window_len {
                string.truncate(filled);
                return Ok(string);
            }
            if filled >= max_len {
                return Err(too_long);
            }
            string.resize((string.len() * 4).min(max_len), 0);
        }
    }

    /// Reads a path name: at most `PATH_MAX` bytes, not checked for being
    /// empty.
    pub async fn read_path(&mut self, addr: u64) -> Result<PathText, Errno> {
        let mut short = [0; SHORT_PATH];
        let len = poll_fn(|cx| self.thread.poll_copy_in_str(cx, addr, &mut short))
            .await
            .map_err(Errno::from)?;
        if let Some(path) = short.get(..len).filter(|_| len < SHORT_PATH) {
            return Ok(PathText::from_slice(path));
        }
        let path = self.read_str(addr, 4096, Errno::ENAMETOOLONG).await?;
        Ok(PathText::from_vec(path))
    }

    /// Atomic operation on an aligned word of guest memory.
    pub async fn atomic(&mut self, addr: u64, op: AtomicOp) -> Result<u32, Errno> {
        poll_fn(|cx| self.thread.poll_atomic(cx, addr, op))
            .await
            .map_err(Errno::from)
    }

    /// Waits until `attempt` gives something other than `EAGAIN`.
    ///
    /// `attempt` is tried again after each event of `mask` on one of
    /// `queues`. Ends early with `ERESTARTSYS` when a signal is to be
    /// delivered, and with `timeout` once `deadline` has passed.
    pub async fn wait_on<T>(
        &self,
        queues: &[&WaitQueue],
        mask: Events,
        deadline: Option<Instant>,
        timeout: Errno,
        mut attempt: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match attempt() {
            Err(Errno::EAGAIN) => {}
            done => return done,
        }
        let mut subscriptions: Vec<Subscription> = Vec::new();
        let timer = deadline.map(|deadline| self.kernel.executor.sleep_until(deadline));
        let mut timer = std::pin::pin!(timer);
        poll_fn(|cx| {
            if subscriptions.is_empty() {
                let waker: Arc<dyn crate::sync::Observer> = Arc::new(cx.waker().clone());
                subscriptions.extend(
                    queues
                        .iter()
                        .map(|queue| queue.subscribe(mask, waker.clone())),
                );
            }
            match attempt() {
                Err(Errno::EAGAIN) => {}
                done => return Poll::Ready(done),
            }
            if self.task.has_interrupt(cx) {
                return Poll::Ready(Err(Errno::ERESTARTSYS));
            }
            if let Some(timer) = timer.as_mut().as_pin_mut()
                && timer.poll(cx).is_ready()
            {
                return Poll::Ready(Err(timeout));
            }
            Poll::Pending
        })
        .await
    }

    /// Sleeps until `deadline` or for ever; `ERESTARTSYS` when a signal is to
    /// be delivered.
    pub async fn sleep(&self, deadline: Option<Instant>) -> Result<(), Errno> {
        match self
            .wait_on(&[], Events::empty(), deadline, Errno::ETIMEDOUT, || {
                Err::<(), _>(Errno::EAGAIN)
            })
            .await
        {
            Err(Errno::ETIMEDOUT) => Ok(()),
            other => other,
        }
    }
}
