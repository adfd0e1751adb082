//! Control protocol between `runsc` commands and a sentry: length-prefixed
//! JSON over a unix stream socket, one request and one reply per connection,
//! descriptors passed with the request.
//!
//! Both sides treat what they read as hostile: lengths are bounded, unknown
//! fields are errors.

mod client;
mod server;
mod wire;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use crate::plan::{ContainerPlan, ProcessPlan, SharesPlan};

pub use client::Client;
pub use server::{Handler, serve};

/// Longest message in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// What a command asks of a sentry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Creates a further container of a pod. Descriptors: ring and socket of
    /// its gofer, files of its cgroup, then those of its first process as for
    /// `Exec`.
    Create {
        plan: Box<ContainerPlan>,
        shares: SharesPlan,
        /// Names of the files of its cgroup.
        cgroup: Vec<String>,
    },
    /// Has the process made of which the stubs of a further container will be
    /// copies, before that is created; replies with its pid.
    Nursery {
        container: String,
    },
    /// Kills what is left of a further container and forgets it.
    Remove {
        container: String,
    },
    /// Starts the process of a created container.
    Start {
        container: String,
    },
    /// Runs a further process; stdin, stdout and stderr come as descriptors
    /// (one descriptor: a terminal), then those from 3 on.
    Exec {
        container: String,
        process: Box<ProcessPlan>,
    },
    /// Replies when the process has ended; `pid` 0 is the container's first.
    Wait {
        container: String,
        pid: i32,
    },
    /// As `Wait`; the process is killed if the connection ends before it.
    Attend {
        container: String,
        pid: i32,
    },
    /// Tells what limits the container from now on.
    Limits {
        container: String,
        resources: Box<LinuxResources>,
    },
    /// Stops all tasks of a container until `Resume`.
    Pause {
        container: String,
    },
    Resume {
        container: String,
    },
    /// Sends a signal to a process (`pid` 0: the container's first) or to all.
    Signal {
        container: String,
        signal: i32,
        pid: i32,
        all: bool,
    },
    /// Sets the size of the terminal of process `pid`.
    Resize {
        container: String,
        pid: i32,
        rows: u16,
        columns: u16,
    },
    /// Lists the container's processes.
    Processes {
        container: String,
    },
    /// What all tasks are doing (`runsc debug --stacks`).
    Stacks,
    /// How calls have come from guests (`runsc debug --stats`).
    Stats,
}

/// What a sentry answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    Done,
    /// Pid of a started process inside the sandbox.
    Started {
        pid: i32,
    },
    /// Exit status of a waited-for process, as a shell shows it
    /// (128 + signal for a killed one).
    Exited {
        status: i32,
    },
    Processes {
        processes: Vec<ProcessInfo>,
    },
    Text {
        text: String,
    },
    Error {
        message: String,
    },
}

/// A process as `runsc ps` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessInfo {
    pub pid: i32,
    pub ppid: i32,
    pub uid: u32,
    pub threads: usize,
    /// CPU time used, in seconds.
    pub cpu_seconds: f64,
    /// Seconds since the sandbox started, when the process started.
    pub start_seconds: f64,
    pub command: String,
}

/// Calls `action` with a path of `socket` that fits into `sun_path` (108
/// bytes), however deep the state directory is.
pub fn with_short_path<T>(
    socket: &std::path::Path,
    action: impl FnOnce(&std::path::Path) -> std::io::Result<T>,
) -> std::io::Result<T> {
    use std::os::fd::AsRawFd;
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let dir = std::fs::File::open(dir)?;
    let short = std::path::PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    action(&short.join(name))
}
