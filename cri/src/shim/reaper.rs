//! Ends of processes. The shim is the subreaper of all that `runsc` starts:
//! one thread collects every child, and others ask it for theirs.

use std::collections::{HashMap, VecDeque};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use parking_lot::{Condvar, Mutex};
use rustix::process::WaitOptions;

/// Statuses kept of processes nobody has asked for.
const KEPT: usize = 4096;
/// How often to look for children while there are none.
const IDLE: Duration = Duration::from_millis(50);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub status: u32,
    pub at: SystemTime,
}

#[derive(Default)]
struct State {
    exits: HashMap<i32, Exit>,
    order: VecDeque<i32>,
}

/// Collects children.
#[derive(Clone, Default)]
pub struct Reaper {
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

impl Reaper {
    /// Starts collecting; from here on nobody else may wait for children.
    pub fn start() -> Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .context("the shim can't become a subreaper")?;
        let reaper = Self::default();
        let collecting = reaper.clone();
        std::thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || collecting.collect())
            .context("a thread can't be made")?;
        Ok(reaper)
    }

    fn collect(&self) {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => {
                    let code = status
                        .exit_status()
                        .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0));
                    let exit = Exit {
                        status: code.unsigned_abs(),
                        at: SystemTime::now(),
                    };
                    self.add(pid.as_raw_nonzero().get(), exit);
                }
                Ok(None) => {}
                Err(rustix::io::Errno::INTR) => {}
                // No children now; orphans may come at any time.
                Err(_) => std::thread::sleep(IDLE),
            }
        }
    }

    fn add(&self, pid: i32, exit: Exit) {
        let mut state = self.state.lock();
        if state.order.len() >= KEPT
            && let Some(oldest) = state.order.pop_front()
        {
            state.exits.remove(&oldest);
        }
        // A pid that is used anew is another process.
        if state.exits.insert(pid, exit).is_some() {
            state.order.retain(|known| *known != pid);
        }
        state.order.push_back(pid);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for a child to end and forgets it.
    pub fn wait(&self, pid: i32) -> Exit {
        let mut state = self.state.lock();
        loop {
            if let Some(exit) = state.exits.remove(&pid) {
                state.order.retain(|known| *known != pid);
                return exit;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &mut Command) -> Result<Exit> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("{name} can't be run"))?;
        let pid = i32::try_from(child.id()).context("pid out of range")?;
        drop(child);
        Ok(self.wait(pid))
    }
}
