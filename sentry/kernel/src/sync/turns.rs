//! Turns of those who change a file.

use std::future::poll_fn;
use std::sync::OnceLock;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

#[derive(Default)]
struct State {
    /// Short writes under way.
    short: usize,
    /// A long write is under way.
    long: bool,
    /// Long writes that wait; new short ones wait behind them.
    long_waiting: usize,
    waiters: Vec<Waker>,
}

/// How a write reaches its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteLen {
    /// In one piece: nobody sees half of it.
    Short,
    /// In several pieces.
    Long,
}

/// Keeps a write in several pieces whole: while it is under way there is no
/// other one, as with the lock that Linux holds on the inode. Writes in one
/// piece don't wait for each other. Takes memory once it is used.
///
/// A turn may be held across an await; whoever has one needs nothing but the
/// guest thread's own memory to end it.
#[derive(Default)]
pub struct WriteTurns(OnceLock<Box<Mutex<State>>>);

impl WriteTurns {
    fn state(&self) -> &Mutex<State> {
        self.0.get_or_init(Box::default)
    }

    /// Waits for one's turn.
    pub async fn take(&self, len: WriteLen) -> WriteTurn<'_> {
        let state = self.state();
        {
            let mut state = state.lock();
            if state.admit(len) {
                drop(state);
                return WriteTurn { turns: self, len };
            }
        }
        let _place = (len == WriteLen::Long).then(|| Place::new(self));
        poll_fn(|cx| {
            let mut state = state.lock();
            let free = !state.long && (len == WriteLen::Short || state.short == 0);
            // Those in front have gone when the place alone is left.
            if free && (len == WriteLen::Long || state.long_waiting == 0) {
                state.enter(len);
                return Poll::Ready(());
            }
            if !state
                .waiters
                .iter()
                .any(|other| other.will_wake(cx.waker()))
            {
                state.waiters.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
        WriteTurn { turns: self, len }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state().lock();
        change(&mut state);
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waker in waiters {
            waker.wake();
        }
    }
}

impl State {
    fn admit(&mut self, len: WriteLen) -> bool {
        let busy =
            self.long || self.long_waiting != 0 || (len == WriteLen::Long && self.short != 0);
        if !busy {
            self.enter(len);
        }
        !busy
    }

    fn enter(&mut self, len: WriteLen) {
        match len {
            WriteLen::Short => self.short += 1,
            WriteLen::Long => self.long = true,
        }
    }
}

/// A long write that waits.
struct Place<'a>(&'a WriteTurns);

impl<'a> Place<'a> {
    fn new(turns: &'a WriteTurns) -> Self {
        turns.state().lock().long_waiting += 1;
        Self(turns)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.long_waiting -= 1);
    }
}

/// The right to change a file; ends when dropped.
#[must_use = "dropping it ends the turn"]
pub struct WriteTurn<'a> {
    turns: &'a WriteTurns,
    len: WriteLen,
}

impl Drop for WriteTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state().lock();
        match self.len {
            WriteLen::Short => state.short -= 1,
            WriteLen::Long => state.long = false,
        }
        if state.waiters.is_empty() || state.short != 0 {
            return;
        }
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waker in waiters {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn now<'a>(turns: &'a WriteTurns, len: WriteLen) -> Option<WriteTurn<'a>> {
        let waker = Waker::noop();
        match pin!(turns.take(len)).poll(&mut Context::from_waker(waker)) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn short_writes_do_not_wait_for_each_other() {
        let turns = WriteTurns::default();
        let first = now(&turns, WriteLen::Short);
        let second = now(&turns, WriteLen::Short);
        assert!(first.is_some() && second.is_some());
        assert!(now(&turns, WriteLen::Long).is_none());
        drop(first);
        assert!(now(&turns, WriteLen::Long).is_none());
        drop(second);
        let long = now(&turns, WriteLen::Long);
        assert!(long.is_some());
        assert!(now(&turns, WriteLen::Short).is_none());
        assert!(now(&turns, WriteLen::Long).is_none());
        drop(long);
        assert!(now(&turns, WriteLen::Short).is_some());
    }

    #[test]
    fn short_writes_wait_behind_a_long_one() {
        let turns = WriteTurns::default();
        let short = now(&turns, WriteLen::Short);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        {
            let mut waiting = pin!(turns.take(WriteLen::Long));
            let mut cx = Context::from_waker(&waker);
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            assert!(now(&turns, WriteLen::Short).is_none());
            drop(short);
            assert_eq!(count.0.load(Ordering::SeqCst), 1);
            let Poll::Ready(turn) = waiting.as_mut().poll(&mut cx) else {
                panic!("the file is free");
            };
            assert!(now(&turns, WriteLen::Short).is_none());
            drop(turn);
        }
        assert!(now(&turns, WriteLen::Short).is_some());
    }

    #[test]
    fn one_that_gives_up_is_not_waited_for() {
        let turns = WriteTurns::default();
        let short = now(&turns, WriteLen::Short);
        // Polled once and dropped.
        assert!(now(&turns, WriteLen::Long).is_none());
        assert!(now(&turns, WriteLen::Short).is_some());
        drop(short);
    }
}
