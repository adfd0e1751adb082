//! What daemon and supervisor say to each other: one JSON object per line over
//! a unix stream socket. A connection carries one request; descriptors travel
//! with its first byte. The supervisor answers with one or more [`Event`]s.
//!
//! The daemon is trusted; the supervisor still bounds what it reads.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest request line: argument lists of exec make it large.
pub const MAX_LINE: usize = 4 << 20;

/// What the supervisor is to set up before it serves; `supervise DIR` reads it
/// from `DIR/supervisor.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PodSpec {
    pub id: String,
    /// Control socket. Short, because of the limit of 108 bytes.
    pub socket: PathBuf,
    /// Directory in which the namespaces are pinned.
    pub namespace_dir: PathBuf,
    pub new_network: bool,
    pub new_ipc: bool,
    /// A process that is PID 1 of a pid namespace shared by the containers.
    pub shared_pid: bool,
    /// Set in a new UTS namespace when not empty.
    pub hostname: Option<String>,
    /// `net.*`, `kernel.*`, `fs.*` names with values.
    pub sysctls: Vec<(String, String)>,
    pub uid_mappings: Vec<Mapping>,
    pub gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Mapping {
    pub container_id: u32,
    pub host_id: u32,
    pub length: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Runs the runtime's `create`; the supervisor owns the container's stdio.
    Create(Create),
    /// Runs the runtime's detached `exec`. Descriptors: its stdin, stdout,
    /// stderr. The process is killed when the connection closes.
    Exec(Exec),
    /// Answers [`Event::Containers`], then one [`Event::Exited`] per exit.
    Watch,
    /// Opens the log file anew at its path.
    ReopenLog { container: String },
    /// Descriptors as flagged, in the order stdin (readable), stdout, stderr
    /// (writable). Answers `Done` when the container's output has ended.
    Attach {
        container: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Resize {
        container: String,
        columns: u16,
        rows: u16,
    },
    /// Drops a container that has exited (or was never created).
    Forget { container: String },
    /// Ends the supervisor and the pod's pid namespace.
    Shutdown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Create {
    pub container: String,
    /// Command line of the runtime up to and without `--console-socket`.
    pub command: Vec<String>,
    /// Arguments after it (the container id).
    pub tail: Vec<String>,
    /// Where the runtime leaves the pid of the container's first process.
    pub pid_file: PathBuf,
    /// Where the runtime logs its errors (JSON lines).
    pub runtime_log: PathBuf,
    pub log_path: Option<PathBuf>,
    pub tty: bool,
    pub stdin: bool,
    /// Stdin closes when the first attached client has gone.
    pub stdin_once: bool,
    /// Socket the runtime sends the terminal to.
    pub console_socket: PathBuf,
    /// Durable record of the exit.
    pub exit_file: PathBuf,
    /// Longest log line in bytes before it is split into partial ones.
    pub max_log_line: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    pub container: String,
    pub command: Vec<String>,
    pub pid_file: PathBuf,
    pub runtime_log: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Created { pid: i32 },
    Started { pid: i32 },
    Exited(Exit),
    Containers(Vec<ContainerState>),
    Done,
    Failed { message: String },
}

/// End of a container or exec, as kept in `exit.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub container: String,
    /// Status, or 128 + signal.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
    pub oom_killed: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerState {
    pub container: String,
    pub pid: i32,
    pub exit: Option<Exit>,
}
