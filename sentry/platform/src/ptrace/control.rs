//! The control thread: traces the zygote and the leader of every stub
//! process. Leaders never run guest code, so nothing here takes long.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use syscall_tables::Errno;

use super::promise::{Promise, promise};
use super::tracee::Tracee;

type Job = Box<dyn FnOnce() + Send>;

/// Sends work to the control thread, which ends with the last handle.
#[derive(Clone)]
pub(super) struct Control(Arc<Sender<Job>>);

impl Control {
    /// Starts the thread; `first` runs on it before all others.
    pub(super) fn start() -> Result<Self, Errno> {
        let (sender, receiver) = channel::<Job>();
        std::thread::Builder::new()
            .name("trace-control".to_owned())
            .spawn(move || serve(&receiver))
            .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(0)))?;
        Ok(Self(Arc::new(sender)))
    }

    /// Calls `job` on the control thread, also if nobody awaits its result.
    pub(super) fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Promise<T> {
        let (setter, result) = promise();
        self.send(move || {
            if let Some(waker) = setter.set(job()) {
                waker.wake();
            }
        });
        result
    }

    /// Calls `job` on the control thread some time later.
    pub(super) fn send(&self, job: impl FnOnce() + Send + 'static) {
        // It fails only if the thread is gone; the job is dropped then, and
        // whoever awaits it learns.
        let _ = self.0.send(Box::new(job));
    }
}

thread_local! {
    /// Killed leaders that have not been reaped yet.
    static DYING: RefCell<Vec<Tracee>> = const { RefCell::new(Vec::new()) };
}

/// First and longest pause between two looks at the dying.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(100);

fn serve(jobs: &Receiver<Job>) {
    let mut pause = FIRST_LOOK;
    loop {
        let job = if DYING.with_borrow(Vec::is_empty) {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(pause)
        };
        match job {
            Ok(job) => {
                job();
                pause = FIRST_LOOK;
            }
            Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(LAST_LOOK),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        DYING.with_borrow_mut(|dying| dying.retain_mut(|leader| !leader.try_reap()));
    }
    for mut leader in DYING.take() {
        leader.kill();
    }
}

/// Kills the process of `leader` and reaps it as soon as it is dead, without
/// holding up others meanwhile. Its other threads must be dead or have tracers
/// that reap them. Called on the control thread.
pub(super) fn bury(leader: Tracee) {
    super::tracee::kill(leader.pid);
    DYING.with_borrow_mut(|dying| dying.push(leader));
}
