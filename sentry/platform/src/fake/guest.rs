//! The test's side of a fake thread.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use syscall_tables::abi::Regs;

use crate::traits::{Fault, Trap};

/// Plays guest code of one thread: traps it queues come out of `poll_run` in
/// order. Cheap to clone.
#[derive(Clone)]
pub struct FakeGuest(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    steps: VecDeque<Step>,
    /// The step whose trap the kernel handles now.
    current: Option<Arc<Mutex<Outcome>>>,
    interrupt: bool,
    killed: bool,
    ended: bool,
    waker: Option<Waker>,
}

type Prepare = Box<dyn FnOnce(&mut Regs) + Send>;

struct Step {
    trap: Trap,
    prepare: Prepare,
    outcome: Arc<Mutex<Outcome>>,
}

#[derive(Default)]
struct Outcome {
    /// Registers that the kernel resumed with; `Some(None)` if it never did.
    result: Option<Option<Regs>>,
    waker: Option<Waker>,
}

/// Completes when the kernel has handled the trap: with the registers it
/// resumed the thread with, or `None` if it ended the thread instead.
#[must_use]
pub struct PendingTrap(Arc<Mutex<Outcome>>);

impl Future for PendingTrap {
    type Output = Option<Regs>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Regs>> {
        let mut outcome = self.0.lock();
        match outcome.result {
            Some(result) => Poll::Ready(result),
            None => {
                outcome.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn finish(outcome: &Mutex<Outcome>, result: Option<Regs>) {
    let waker = {
        let mut outcome = outcome.lock();
        outcome.result = Some(result);
        outcome.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl FakeGuest {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Queues a system call; the future has the registers after it (result
    /// in `rax`).
    pub fn queue_syscall(&self, number: u64, args: [u64; 6]) -> PendingTrap {
        self.queue_trap(Trap::Syscall, move |regs| {
            regs.orig_rax = number;
            regs.rax = (-38_i64).cast_unsigned();
            [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
            regs.rip = regs.rip.wrapping_add(2);
        })
    }

    /// As [`Self::queue_syscall`], but waits and returns `rax`; `None` if the
    /// call did not return.
    pub async fn syscall(&self, number: u64, args: [u64; 6]) -> Option<u64> {
        self.queue_syscall(number, args).await.map(|regs| regs.rax)
    }

    /// Queues a synchronous exception.
    pub fn queue_fault(&self, fault: Fault) -> PendingTrap {
        self.queue_trap(Trap::Fault(fault), |_| {})
    }

    /// Queues `trap`, before which `prepare` plays the guest code that
    /// changes registers.
    pub fn queue_trap(
        &self,
        trap: Trap,
        prepare: impl FnOnce(&mut Regs) + Send + 'static,
    ) -> PendingTrap {
        let outcome = Arc::<Mutex<Outcome>>::default();
        let step = Step {
            trap,
            prepare: Box::new(prepare),
            outcome: outcome.clone(),
        };
        let waker = {
            let mut state = self.0.lock();
            if state.ended {
                drop(state);
                finish(&outcome, None);
                return PendingTrap(outcome);
            }
            state.steps.push_back(step);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        PendingTrap(outcome)
    }

    /// Whether the kernel has dropped the thread.
    pub fn has_ended(&self) -> bool {
        self.0.lock().ended
    }

    pub(super) fn poll_run(&self, cx: &mut Context<'_>, regs: &mut Regs) -> Poll<Trap> {
        let mut state = self.0.lock();
        let handled = state.current.take();
        let trap = if state.killed {
            Poll::Ready(Trap::Killed)
        } else if std::mem::take(&mut state.interrupt) {
            Poll::Ready(Trap::Interrupted)
        } else {
            match state.steps.pop_front() {
                Some(step) => {
                    let before = *regs;
                    (step.prepare)(regs);
                    state.current = Some(step.outcome);
                    drop(state);
                    if let Some(handled) = handled {
                        finish(&handled, Some(before));
                    }
                    return Poll::Ready(step.trap);
                }
                None => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        };
        drop(state);
        if let Some(handled) = handled {
            finish(&handled, Some(*regs));
        }
        trap
    }

    pub(super) fn interrupt(&self) {
        self.set(|state| state.interrupt = true);
    }

    pub(super) fn kill(&self) {
        self.set(|state| state.killed = true);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.0.lock();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn end(&self) {
        let (current, steps) = {
            let mut state = self.0.lock();
            state.ended = true;
            (state.current.take(), std::mem::take(&mut state.steps))
        };
        for outcome in current
            .into_iter()
            .chain(steps.into_iter().map(|step| step.outcome))
        {
            finish(&outcome, None);
        }
    }
}
