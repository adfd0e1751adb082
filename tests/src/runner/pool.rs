//! Runs jobs on a few threads.

use std::collections::VecDeque;
use std::sync::Mutex;

pub type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs all jobs, `threads` at once, in the order given.
pub fn run_all(jobs: Vec<Job<'_>>, threads: usize) {
    let queue = Mutex::new(VecDeque::from(jobs));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let job = queue.lock().ok().and_then(|mut q| q.pop_front());
                    match job {
                        Some(job) => job(),
                        None => return,
                    }
                }
            });
        }
    });
}
