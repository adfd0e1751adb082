//! Tracer threads that have lost their guest wait a while for another one.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use syscall_tables::Errno;

/// What a thread does for one guest.
type Work = Box<dyn FnOnce() + Send>;

/// How long a thread waits before it ends.
const LINGER: Duration = Duration::from_secs(5);

/// Most threads that wait.
const MAX_WAITING: usize = 32;

#[derive(Default)]
struct Waiting {
    next_id: u64,
    /// The last one to wait is the first to go on.
    threads: Vec<(u64, Sender<Work>)>,
}

/// The waiting threads of a platform.
#[derive(Clone, Default)]
pub(super) struct Spares(Arc<Mutex<Waiting>>);

impl Spares {
    /// Does `work` on a thread that does nothing else meanwhile.
    ///
    /// # Errors
    /// `EAGAIN` if the host is out of threads.
    pub(super) fn run(&self, work: Work) -> Result<(), Errno> {
        let mut work = work;
        loop {
            let waiting = self.0.lock().threads.pop();
            let Some((_, thread)) = waiting else { break };
            match thread.send(work) {
                Ok(()) => return Ok(()),
                Err(unsent) => work = unsent.0,
            }
        }
        let spares = self.clone();
        std::thread::Builder::new()
            .name("tracer".to_owned())
            .spawn(move || spares.thread(work))
            .map(drop)
            .map_err(|_| Errno::EAGAIN)
    }

    fn thread(&self, work: Work) {
        let mut work = Some(work);
        while let Some(now) = work.take() {
            now();
            work = self.wait();
        }
    }

    fn wait(&self) -> Option<Work> {
        let (sender, receiver) = channel();
        let id = {
            let mut waiting = self.0.lock();
            if waiting.threads.len() >= MAX_WAITING {
                return None;
            }
            waiting.next_id += 1;
            let id = waiting.next_id;
            waiting.threads.push((id, sender));
            id
        };
        if let Ok(work) = receiver.recv_timeout(LINGER) {
            return Some(work);
        }
        let mut waiting = self.0.lock();
        let index = waiting.threads.iter().position(|(other, _)| *other == id);
        match index {
            Some(index) => {
                waiting.threads.remove(index);
                None
            }
            // Somebody has just chosen this thread.
            None => {
                drop(waiting);
                receiver.recv().ok()
            }
        }
    }
}
