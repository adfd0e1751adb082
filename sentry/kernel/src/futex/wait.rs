//! Waiting for futex words.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use sentry_platform::AtomicOp;
use syscall_tables::Errno;

use super::table::{FutexKey, FutexTable, Parker, Waiter};
use super::{Scope, key};
use crate::ctx::Ctx;

/// A word to wait for.
#[derive(Clone, Copy, Debug)]
pub struct WaitOn {
    pub addr: u64,
    pub scope: Scope,
    /// Wait only while the word has this value.
    pub expected: u32,
    pub bitset: u32,
}

/// Takes waiters out of their queues when the wait ends, however it ends.
pub(super) struct Queued<'a> {
    table: &'a FutexTable,
    pub parker: Arc<Parker>,
    pub waiters: Vec<Arc<Waiter>>,
}

impl<'a> Queued<'a> {
    pub fn new(table: &'a FutexTable) -> Self {
        Self {
            table,
            parker: Arc::default(),
            waiters: Vec::new(),
        }
    }

    pub fn add(&mut self, key: &FutexKey, bitset: u32) {
        let waiter = Waiter::new(self.parker.clone(), bitset);
        self.table.enqueue(key, &waiter);
        self.waiters.push(waiter);
    }

    /// Leaves all queues: the index of a waiter that had been woken.
    fn leave(&mut self) -> Option<usize> {
        let mut woken = None;
        for (index, waiter) in self.waiters.drain(..).enumerate() {
            if !self.table.dequeue(&waiter) {
                woken = Some(index);
            }
        }
        woken
    }

    /// Whether any waiter has been woken.
    pub fn is_woken(&self) -> bool {
        self.waiters.iter().any(|waiter| waiter.is_woken())
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Sleeps until one of `queued` is woken, `ERESTARTSYS` for a signal,
/// `ETIMEDOUT` at `deadline`. A wake that has come counts before all else.
pub(super) async fn sleep(
    ctx: &Ctx<'_>,
    queued: &Queued<'_>,
    deadline: Option<Instant>,
) -> Result<(), Errno> {
    let timer = deadline.map(|deadline| ctx.kernel.executor.sleep_until(deadline));
    let mut timer = pin!(timer);
    poll_fn(|cx| {
        queued.parker.register(cx);
        if queued.is_woken() {
            return Poll::Ready(Ok(()));
        }
        if ctx.task.has_interrupt(cx) {
            return Poll::Ready(Err(Errno::ERESTARTSYS));
        }
        if let Some(timer) = timer.as_mut().as_pin_mut()
            && timer.poll(cx).is_ready()
        {
            return Poll::Ready(Err(Errno::ETIMEDOUT));
        }
        Poll::Pending
    })
    .await
}

/// Waits for one word. `EAGAIN` if it has another value, `ETIMEDOUT`,
/// `ERESTARTSYS`.
pub async fn wait(ctx: &mut Ctx<'_>, on: &WaitOn, deadline: Option<Instant>) -> Result<(), Errno> {
    wait_any(ctx, std::slice::from_ref(on), deadline)
        .await
        .map(|_| ())
}

/// Waits for any of several words: the index of one that was woken.
pub async fn wait_any(
    ctx: &mut Ctx<'_>,
    on: &[WaitOn],
    deadline: Option<Instant>,
) -> Result<usize, Errno> {
    let kernel = ctx.kernel.clone();
    let mm = ctx.task.mm();
    let mut keys = smallvec::SmallVec::<[FutexKey; 1]>::new();
    for word in on {
        keys.push(key(&mm, word.addr, word.scope)?);
    }
    drop(mm);
    let mut queued = Queued::new(&kernel.futexes);
    for (word, key) in on.iter().zip(&keys) {
        queued.add(key, word.bitset);
    }
    let mut failed = None;
    for word in on {
        match ctx.atomic(word.addr, AtomicOp::Load).await {
            Ok(value) if value == word.expected => {}
            Ok(_) => failed = Some(Errno::EAGAIN),
            Err(error) => failed = Some(error),
        }
        if failed.is_some() {
            break;
        }
    }
    if let Some(error) = failed {
        let woken = queued.leave();
        if on.len() > 1
            && let Some(index) = woken
        {
            // Of several words one may well have been woken for good reason.
            return Ok(index);
        }
        if woken.is_some()
            && let (Some(word), Some(key)) = (on.first(), keys.first())
        {
            // The wake was meant for somebody who waits for the old value.
            kernel.futexes.wake(key, 1, word.bitset);
        }
        return Err(error);
    }
    let outcome = sleep(ctx, &queued, deadline).await;
    match queued.leave() {
        Some(index) => Ok(index),
        None => Err(outcome.err().unwrap_or(Errno::EAGAIN)),
    }
}
