//! A mutex whose guard may be held across an await.
//!
//! Built from two short locks: the value sits in a slot that the owner takes
//! it out of, so no unsafe code is needed.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::task::{Poll, Waker};

use parking_lot::Mutex;

struct Slot<T> {
    /// `None` while a guard holds it.
    value: Option<T>,
    waiters: VecDeque<Waker>,
}

/// A fair-enough async lock around a movable value. Not interruptible:
/// critical sections end without guest-controlled waits.
pub struct AsyncMutex<T> {
    slot: Mutex<Slot<Box<T>>>,
}

impl<T> AsyncMutex<T> {
    pub fn new(value: T) -> Self {
        Self {
            slot: Mutex::new(Slot {
                value: Some(Box::new(value)),
                waiters: VecDeque::new(),
            }),
        }
    }

    /// Waits for the lock.
    pub async fn lock(&self) -> AsyncMutexGuard<'_, T> {
        poll_fn(|cx| {
            let mut slot = self.slot.lock();
            match slot.value.take() {
                Some(value) => Poll::Ready(AsyncMutexGuard {
                    mutex: self,
                    value: Some(value),
                }),
                None => {
                    if !slot.waiters.iter().any(|waker| waker.will_wake(cx.waker())) {
                        slot.waiters.push_back(cx.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Access to the value of an [`AsyncMutex`].
pub struct AsyncMutexGuard<'a, T> {
    mutex: &'a AsyncMutex<T>,
    value: Option<Box<T>>,
}

impl<T> Deref for AsyncMutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
            .as_ref()
            .expect("a guard holds its value until it is dropped")
    }
}

impl<T> DerefMut for AsyncMutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value
            .as_mut()
            .expect("a guard holds its value until it is dropped")
    }
}

impl<T> Drop for AsyncMutexGuard<'_, T> {
    fn drop(&mut self) {
        let mut slot = self.mutex.slot.lock();
        slot.value = self.value.take();
        // All waiters are woken: one whose task died meanwhile would
        // otherwise swallow the only wake-up.
        let waiters = std::mem::take(&mut slot.waiters);
        drop(slot);
        for waker in waiters {
            waker.wake();
        }
    }
}
