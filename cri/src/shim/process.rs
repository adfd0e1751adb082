//! A process of a container: its first one, or one of `exec`.
//!
//! Locks: `order` before `state`; neither is held while waiting for an end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::console::{self, ConsoleSocket};
use crate::logger::LoggerFor;
use crate::messages::TaskStatus;
use crate::reaper::{Exit, Reaper};
use crate::runtime::{NewProcess, Runtime};
use crate::stdio::{ChildStreams, StreamPaths, Streams};
use crate::ttrpc::{Code, Error};

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `exec` was asked for, `start` was not.
    Added,
    Created,
    Running,
    Stopped,
}

struct State {
    phase: Phase,
    pid: i32,
    /// Signals reach the process through this, never another one with its
    /// pid.
    handle: Option<OwnedFd>,
    exit: Option<Exit>,
    master: Option<Arc<File>>,
    streams: Option<Arc<Streams>>,
}

pub struct Process {
    /// Empty for the first process.
    pub exec_id: String,
    pub paths: StreamPaths,
    /// Held from before a start until its event is published, so that the
    /// event of the end comes behind.
    pub order: Mutex<()>,
    state: Mutex<State>,
    ended: Condvar,
}

/// A process that has been started.
pub struct Started {
    pub pid: i32,
}

impl Process {
    pub fn new(exec_id: &str, paths: StreamPaths) -> Self {
        Self {
            exec_id: exec_id.to_owned(),
            paths,
            order: Mutex::new(()),
            state: Mutex::new(State {
                phase: Phase::Added,
                pid: 0,
                handle: None,
                exit: None,
                master: None,
                streams: None,
            }),
            ended: Condvar::new(),
        }
    }

    /// Starts it with `runsc NAME ARGS`, which answers when the process
    /// exists.
    pub fn launch(
        &self,
        runtime: &Runtime,
        name: &str,
        args: &[&str],
        logger: LoggerFor<'_>,
        reaper: &Reaper,
    ) -> Result<Started> {
        let mut master = None;
        let (pid, streams) = if self.paths.terminal {
            let socket = ConsoleSocket::new()?;
            let path = socket.path();
            let new = NewProcess {
                streams: ChildStreams::null(),
                console_socket: Some(&path),
            };
            let pid = runtime.start_process(name, args, new)?;
            let terminal = socket.receive()?;
            let streams = Streams::terminal(&self.paths, &terminal, logger, reaper)?;
            master = Some(terminal);
            (pid, streams)
        } else {
            let (streams, child) = Streams::pipes(&self.paths, logger, reaper)?;
            let new = NewProcess {
                streams: child,
                console_socket: None,
            };
            (runtime.start_process(name, args, new)?, streams)
        };
        let handle = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let mut state = self.state.lock();
        state.phase = Phase::Created;
        state.pid = pid;
        // It may have ended already, which the reaper knows.
        state.handle = handle.and_then(Result::ok);
        state.master = master;
        state.streams = Some(Arc::new(streams));
        Ok(Started { pid })
    }

    pub fn set_running(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Created {
            state.phase = Phase::Running;
        }
    }

    /// Records its end.
    pub fn set_exit(&self, exit: Exit) {
        let mut state = self.state.lock();
        state.phase = Phase::Stopped;
        state.exit = Some(exit);
        state.handle = None;
        drop(state);
        self.ended.notify_all();
    }

    pub fn pid(&self) -> u32 {
        self.state.lock().pid.unsigned_abs()
    }

    pub fn exit(&self) -> Option<Exit> {
        self.state.lock().exit
    }

    pub fn status(&self) -> TaskStatus {
        match self.state.lock().phase {
            Phase::Added | Phase::Created => TaskStatus::Created,
            Phase::Running => TaskStatus::Running,
            Phase::Stopped => TaskStatus::Stopped,
        }
    }

    /// Whether it waits for its `start`.
    pub fn is_added(&self) -> bool {
        self.state.lock().phase == Phase::Added
    }

    /// Waits for its end.
    pub fn wait(&self) -> Exit {
        let mut state = self.state.lock();
        loop {
            if let Some(exit) = state.exit {
                return exit;
            }
            self.ended.wait(&mut state);
        }
    }

    /// Waits for its end, at most `timeout`.
    pub fn wait_for(&self, timeout: Duration) -> Option<Exit> {
        let end = Instant::now() + timeout;
        let mut state = self.state.lock();
        while state.exit.is_none() {
            if self.ended.wait_until(&mut state, end).timed_out() {
                break;
            }
        }
        state.exit
    }

    /// Sends a signal to its host process, which passes it on.
    pub fn signal(&self, number: u32) -> Result<(), Error> {
        let ended = || Error::new(Code::NotFound, "process already finished");
        let number = i32::try_from(number).unwrap_or(0);
        let signal = Signal::from_named_raw(number).ok_or_else(|| {
            Error::new(
                Code::InvalidArgument,
                format!("signal {number} can't be sent to a process of exec"),
            )
        })?;
        let state = self.state.lock();
        let handle = state.handle.as_ref().ok_or_else(ended)?;
        pidfd_send_signal(handle, signal).map_err(|_| ended())
    }

    pub fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        let master = self.state.lock().master.clone();
        console::resize(
            &*master.context("the process has no terminal")?,
            columns,
            rows,
        )
    }

    pub fn close_stdin(&self) {
        let streams = self.state.lock().streams.clone();
        if let Some(streams) = streams {
            streams.close_stdin();
        }
    }

    /// Waits until its output has been passed on.
    pub fn drain(&self) {
        let (streams, master) = {
            let mut state = self.state.lock();
            (state.streams.take(), state.master.take())
        };
        if let Some(streams) = streams {
            streams.drain();
        }
        drop(master);
    }
}
