//! The control thread: traces the zygote and the leader of every stub
//! process. Leaders never run guest code, so nothing here takes long.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

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

fn serve(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job();
    }
}

/// Kills the process of `leader` and reaps it. Its other threads must be dead
/// or have tracers that reap them.
pub(super) fn bury(mut leader: Tracee) {
    leader.kill();
}
