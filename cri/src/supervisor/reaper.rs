//! Children of the supervisor: runtime commands it started, and processes of
//! containers that were re-parented to it.

use std::collections::HashMap;

use rustix::process::{WaitOptions, WaitStatus};

/// Statuses of processes nobody has claimed yet: a container's first process
/// may end before the runtime has said what its pid is.
#[derive(Debug, Default)]
pub struct Reaper {
    unclaimed: HashMap<i32, i32>,
}

impl Reaper {
    /// Reaps everything that has ended: `(pid, code)`.
    pub fn reap(&mut self) -> Vec<(i32, i32)> {
        let mut ended = Vec::new();
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => ended.push((pid.as_raw_nonzero().get(), code(status))),
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => return ended,
            }
        }
    }

    pub fn keep(&mut self, pid: i32, code: i32) {
        self.unclaimed.insert(pid, code);
    }

    /// The status of a process that ended before it was known.
    pub fn claim(&mut self, pid: i32) -> Option<i32> {
        self.unclaimed.remove(&pid)
    }

    /// No command is under way that could still name one of them.
    pub fn forget_unclaimed(&mut self) {
        self.unclaimed.clear();
    }
}

/// Exit status, or 128 + signal.
fn code(status: WaitStatus) -> i32 {
    status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|s| s.saturating_add(128)))
        .unwrap_or(255)
}
