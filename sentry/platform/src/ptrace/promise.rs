//! A value that one thread sets and one task awaits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use syscall_tables::Errno;

struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
    is_abandoned: bool,
}

/// The setting side.
pub(super) struct Setter<T>(Arc<Mutex<State<T>>>);

/// The awaiting side; `ESRCH` if the setter is dropped without a value, which
/// happens when the thread that should set it has ended.
pub(super) struct Promise<T>(Arc<Mutex<State<T>>>);

pub(super) fn promise<T>() -> (Setter<T>, Promise<T>) {
    let state = Arc::new(Mutex::new(State {
        value: None,
        waker: None,
        is_abandoned: false,
    }));
    (Setter(state.clone()), Promise(state))
}

impl<T> Setter<T> {
    /// Sets the value and returns whom to wake.
    #[must_use = "the task must be woken"]
    pub(super) fn set(self, value: T) -> Option<Waker> {
        let mut state = self.0.lock();
        state.value = Some(value);
        state.waker.take()
    }
}

impl<T> Drop for Setter<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.is_abandoned = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Promise<T> {
    type Output = Result<T, Errno>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Errno>> {
        let mut state = self.0.lock();
        if let Some(value) = state.value.take() {
            return Poll::Ready(Ok(value));
        }
        if state.is_abandoned {
            return Poll::Ready(Err(Errno::ESRCH));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
