//! Priority inheritance futexes: the word holds the owner's thread id, and
//! the kernel hands it to the first waiter. There are no priorities to
//! inherit here; who waits longest is first.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Instant;

use parking_lot::Mutex;
use sentry_platform::AtomicOp;
use syscall_tables::Errno;
use syscall_tables::abi::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};

use super::table::{FutexKey, Parker};
use super::{Scope, key};
use crate::ctx::Ctx;
use crate::sync::AsyncMutex;
use crate::task::Task;

/// Still waiting.
const WAITING: u8 = 0;
/// The lock has been handed over.
const OWNER: u8 = 1;
/// The owner has died: try again.
const RETRY: u8 = 2;

struct PiWaiter {
    parker: Parker,
    state: AtomicU8,
    task: Arc<Task>,
}

struct PiQueue {
    /// Who had the lock when the last waiter came; its own id for itself.
    owner: Arc<Task>,
    waiters: VecDeque<Arc<PiWaiter>>,
}

/// Waiters for locks that are handed over.
pub struct PiTable {
    /// Serialises changes of words with the queues; held across the accesses
    /// to guest memory, not while waiting.
    changes: AsyncMutex<()>,
    queues: Mutex<HashMap<FutexKey, PiQueue>>,
}

impl Default for PiTable {
    fn default() -> Self {
        Self {
            changes: AsyncMutex::new(()),
            queues: Mutex::default(),
        }
    }
}

impl PiTable {
    /// Tells those who wait for locks of `task`, which exits, to try again.
    pub(super) fn owner_exits(&self, task: &Arc<Task>) {
        let mut queues = self.queues.lock();
        if queues.is_empty() {
            return;
        }
        let mut woken = Vec::new();
        for queue in queues.values_mut() {
            if Arc::ptr_eq(&queue.owner, task) {
                woken.extend(queue.waiters.drain(..));
            }
        }
        queues.retain(|_, queue| !queue.waiters.is_empty());
        drop(queues);
        for waiter in woken {
            waiter.finish(RETRY);
        }
    }

    fn leave(&self, key: &FutexKey, waiter: &Arc<PiWaiter>) {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get_mut(key) {
            queue.waiters.retain(|other| !Arc::ptr_eq(other, waiter));
            if queue.waiters.is_empty() {
                queues.remove(key);
            }
        }
    }
}

impl PiWaiter {
    fn finish(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.parker.wake();
    }
}

/// The thread id as futex words of `task` show it.
fn own_tid(task: &Task) -> u32 {
    task.tid_in(&task.pid_ns()).cast_unsigned() & FUTEX_TID_MASK
}

async fn exchange(ctx: &mut Ctx<'_>, addr: u64, expected: u32, new: u32) -> Result<bool, Errno> {
    let op = AtomicOp::CompareExchange { expected, new };
    Ok(ctx.atomic(addr, op).await? == expected)
}

/// What came of an attempt to take a lock.
enum Attempt {
    Taken,
    /// Somebody has it; the word has the bit that makes them ask us.
    Contended(Arc<Task>),
}

/// Tries to take the lock at `addr`; the caller holds the table's lock.
async fn attempt(ctx: &mut Ctx<'_>, addr: u64, has_waiters: bool) -> Result<Attempt, Errno> {
    let tid = own_tid(ctx.task);
    loop {
        let word = ctx.atomic(addr, AtomicOp::Load).await?;
        let owner_tid = word & FUTEX_TID_MASK;
        if owner_tid == tid {
            return Err(Errno::EDEADLK);
        }
        let waiters = if has_waiters { FUTEX_WAITERS } else { 0 };
        if owner_tid == 0 {
            let new = tid | (word & FUTEX_OWNER_DIED) | waiters;
            if exchange(ctx, addr, word, new).await? {
                return Ok(Attempt::Taken);
            }
            continue;
        }
        let owner = ctx.task.pid_ns().task(owner_tid.cast_signed());
        let owner = owner.filter(|owner| !owner.is_leaving() && !owner.has_exited());
        let Some(owner) = owner else {
            if word & FUTEX_OWNER_DIED == 0 && !has_waiters {
                return Err(Errno::ESRCH);
            }
            let new = tid | FUTEX_OWNER_DIED | waiters;
            if exchange(ctx, addr, word, new).await? {
                return Ok(Attempt::Taken);
            }
            continue;
        };
        if word & FUTEX_WAITERS != 0 || exchange(ctx, addr, word, word | FUTEX_WAITERS).await? {
            return Ok(Attempt::Contended(owner));
        }
    }
}

/// `FUTEX_LOCK_PI`.
pub async fn lock_pi(
    ctx: &mut Ctx<'_>,
    addr: u64,
    scope: Scope,
    deadline: Option<Instant>,
) -> Result<(), Errno> {
    let kernel = ctx.kernel.clone();
    let table = &kernel.futexes.pi;
    let key = key(&ctx.task.mm(), addr, scope)?;
    let mut was_queued = false;
    loop {
        let waiter = {
            let _changes = table.changes.lock().await;
            let others = table.queues.lock().contains_key(&key);
            let owner = match attempt(ctx, addr, others || was_queued).await? {
                Attempt::Taken => {
                    if let Some(queue) = table.queues.lock().get_mut(&key) {
                        queue.owner = ctx.task.clone();
                    }
                    return Ok(());
                }
                Attempt::Contended(owner) => owner,
            };
            let waiter = Arc::new(PiWaiter {
                parker: Parker::default(),
                state: AtomicU8::new(WAITING),
                task: ctx.task.clone(),
            });
            let mut queues = table.queues.lock();
            let queue = queues.entry(key).or_insert_with(|| PiQueue {
                owner: owner.clone(),
                waiters: VecDeque::new(),
            });
            queue.owner = owner.clone();
            queue.waiters.push_back(waiter.clone());
            drop(queues);
            if owner.is_leaving() || owner.has_exited() {
                // It went before it could see this waiter.
                table.leave(&key, &waiter);
                waiter.state.store(RETRY, Ordering::Release);
            }
            waiter
        };
        let outcome = sleep(ctx, &waiter, deadline).await;
        let state = {
            // An unlock that is under way is waited for: it may choose us.
            let _changes = table.changes.lock().await;
            table.leave(&key, &waiter);
            waiter.state.load(Ordering::Acquire)
        };
        match state {
            OWNER => return Ok(()),
            RETRY => was_queued = true,
            _ => outcome?,
        }
    }
}

async fn sleep(ctx: &Ctx<'_>, waiter: &PiWaiter, deadline: Option<Instant>) -> Result<(), Errno> {
    let timer = deadline.map(|deadline| ctx.kernel.executor.sleep_until(deadline));
    let mut timer = pin!(timer);
    poll_fn(|cx| {
        waiter.parker.register(cx);
        if waiter.state.load(Ordering::Acquire) != WAITING {
            return Poll::Ready(Ok(()));
        }
        if ctx.task.has_interrupt(cx) {
            return Poll::Ready(Err(Errno::ERESTARTNOINTR));
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

/// `FUTEX_TRYLOCK_PI`: `EAGAIN` if somebody has the lock.
pub async fn trylock_pi(ctx: &mut Ctx<'_>, addr: u64, scope: Scope) -> Result<(), Errno> {
    let kernel = ctx.kernel.clone();
    let table = &kernel.futexes.pi;
    let key = key(&ctx.task.mm(), addr, scope)?;
    let _changes = table.changes.lock().await;
    let has_waiters = table.queues.lock().contains_key(&key);
    match attempt(ctx, addr, has_waiters).await? {
        Attempt::Taken => Ok(()),
        Attempt::Contended(_) => Err(Errno::EAGAIN),
    }
}

/// `FUTEX_UNLOCK_PI`: `EPERM` unless the caller is the owner.
pub async fn unlock_pi(ctx: &mut Ctx<'_>, addr: u64, scope: Scope) -> Result<(), Errno> {
    let kernel = ctx.kernel.clone();
    let table = &kernel.futexes.pi;
    let key = key(&ctx.task.mm(), addr, scope)?;
    let tid = own_tid(ctx.task);
    let _changes = table.changes.lock().await;
    loop {
        let word = ctx.atomic(addr, AtomicOp::Load).await?;
        if word & FUTEX_TID_MASK != tid {
            return Err(Errno::EPERM);
        }
        let next = {
            let queues = table.queues.lock();
            queues.get(&key).and_then(|queue| {
                let next = queue.waiters.front()?.clone();
                Some((next, queue.waiters.len() > 1))
            })
        };
        let new = match &next {
            Some((next, more)) => own_tid(&next.task) | if *more { FUTEX_WAITERS } else { 0 },
            None => 0,
        };
        if !exchange(ctx, addr, word, new).await? {
            continue;
        }
        if let Some((next, _)) = next {
            table.leave(&key, &next);
            if let Some(queue) = table.queues.lock().get_mut(&key) {
                queue.owner = next.task.clone();
            }
            next.finish(OWNER);
        }
        return Ok(());
    }
}
