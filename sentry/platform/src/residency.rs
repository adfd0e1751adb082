//! The peak resident size of a process that has ended.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

/// How much memory a stub has had resident at most, in bytes: known once the
/// host has told of its end.
#[derive(Default)]
pub struct FinalPeak(Mutex<State>);

#[derive(Default)]
struct State {
    bytes: Option<u64>,
    waiting: Vec<Waker>,
}

impl FinalPeak {
    /// What is known.
    pub fn get(&self) -> Option<u64> {
        self.0.lock().bytes
    }

    /// Waits until it is known.
    pub async fn known(self: &Arc<Self>) -> u64 {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            match state.bytes {
                Some(bytes) => Poll::Ready(bytes),
                None => {
                    state.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub(crate) fn set(&self, bytes: u64) {
        let waiting = {
            let mut state = self.0.lock();
            state.bytes = Some(bytes);
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }
}
