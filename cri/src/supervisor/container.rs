//! Stdio of one container: from its pipes or terminal to the log and to
//! attached clients, and from those to its stdin.
//!
//! A client that does not read holds the container's output back, as a
//! terminal would, but not for longer than [`STALL`].

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::log::{Log, Stream};
use super::protocol::{Create, Exit};

/// After this time without progress an attached client is dropped.
const STALL: Duration = Duration::from_secs(30);
/// Bytes that wait for one client before the container is held back.
const PENDING: usize = 256 << 10;

#[derive(Debug)]
pub struct Container {
    pub create: Create,
    pub log: Log,
    pub pid: i32,
    pub exit: Option<Exit>,
    /// The runtime's `create` has succeeded.
    pub created: bool,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Master of the container's terminal, instead of the three pipes.
    pub terminal: Option<OwnedFd>,
    pub stdin: Option<OwnedFd>,
    pub stdin_pending: VecDeque<u8>,
    pub attached: Vec<Attachment>,
    /// Counter file of the memory cgroup.
    pub oom_file: Option<std::path::PathBuf>,
    /// Where the runtime sends the terminal, until it has.
    pub console: Option<std::os::unix::net::UnixListener>,
}

/// An attached client, known by its control connection.
#[derive(Debug)]
pub struct Attachment {
    pub connection: u64,
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
}

#[derive(Debug)]
pub struct Output {
    pub fd: OwnedFd,
    pub pending: VecDeque<u8>,
    stalled: Option<Instant>,
}

impl Output {
    pub fn new(fd: OwnedFd) -> Self {
        let _ = rustix::io::ioctl_fionbio(&fd, true);
        Self {
            fd,
            pending: VecDeque::new(),
            stalled: None,
        }
    }

    /// Writes what waits; false when the client is gone.
    pub fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            let (head, _) = self.pending.as_slices();
            match rustix::io::write(&self.fd, head) {
                Ok(n) => {
                    self.pending.drain(..n);
                    self.stalled = None;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let since = *self.stalled.get_or_insert_with(Instant::now);
                    return since.elapsed() < STALL;
                }
                Err(_) => return false,
            }
        }
        true
    }
}

/// What reading from a stream of the container came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Some,
    Empty,
    Ended,
}

impl Container {
    pub fn new(create: Create, log: Log) -> Self {
        Self {
            create,
            log,
            pid: 0,
            exit: None,
            created: false,
            stdout: None,
            stderr: None,
            terminal: None,
            stdin: None,
            stdin_pending: VecDeque::new(),
            attached: Vec::new(),
            oom_file: None,
            console: None,
        }
    }

    /// No client is so far behind that the container has to wait.
    pub fn may_read(&self) -> bool {
        self.attached.iter().all(|a| {
            [&a.stdout, &a.stderr]
                .into_iter()
                .flatten()
                .all(|o| o.pending.len() < PENDING)
        })
    }

    pub fn output_ended(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none() && self.terminal.is_none()
    }

    /// Takes one chunk of output.
    pub fn pump(&mut self, stream: Stream, buffer: &mut [u8]) -> Progress {
        let fd = match stream {
            Stream::Stdout => self.terminal.as_ref().or(self.stdout.as_ref()),
            Stream::Stderr => self.stderr.as_ref(),
        };
        let Some(fd) = fd else {
            return Progress::Ended;
        };
        match rustix::io::read(fd, &mut *buffer) {
            // A terminal answers EIO once its last process has closed it.
            Ok(0) | Err(Errno::IO) => {
                self.end(stream);
                Progress::Ended
            }
            Ok(n) => {
                let bytes = buffer.get(..n).unwrap_or_default();
                self.log.add(stream, bytes);
                for client in &mut self.attached {
                    let output = match stream {
                        Stream::Stdout => &mut client.stdout,
                        Stream::Stderr => &mut client.stderr,
                    };
                    if let Some(o) = output {
                        o.pending.extend(bytes);
                        if !o.flush() {
                            *output = None;
                        }
                    }
                }
                Progress::Some
            }
            Err(Errno::AGAIN | Errno::INTR) => Progress::Empty,
            Err(_) => {
                self.end(stream);
                Progress::Ended
            }
        }
    }

    fn end(&mut self, stream: Stream) {
        self.log.end(stream);
        match stream {
            Stream::Stdout => {
                self.stdout = None;
                self.terminal = None;
            }
            Stream::Stderr => self.stderr = None,
        }
    }

    /// After the exit: everything that is still in the pipes.
    pub fn drain(&mut self, buffer: &mut [u8]) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            // A process that escaped into the host's pid namespace may write
            // for ever; what was in the pipe is bounded by its capacity.
            let mut rounds = 64;
            while rounds > 0 && self.pump(stream, buffer) == Progress::Some {
                rounds -= 1;
            }
        }
    }

    /// A client's input arrives.
    pub fn read_client(&mut self, index: usize, buffer: &mut [u8]) {
        let Some(client) = self.attached.get_mut(index) else {
            return;
        };
        let Some(fd) = &client.stdin else { return };
        match rustix::io::read(fd, &mut *buffer) {
            Ok(n) if n > 0 => {
                self.stdin_pending
                    .extend(buffer.get(..n).unwrap_or_default());
                self.write_stdin();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => {
                client.stdin = None;
                if self.create.stdin_once && self.stdin_pending.is_empty() {
                    self.stdin = None;
                }
            }
        }
    }

    /// Passes on what waits for the container's stdin.
    pub fn write_stdin(&mut self) {
        while !self.stdin_pending.is_empty() {
            let Some(fd) = self.terminal.as_ref().or(self.stdin.as_ref()) else {
                self.stdin_pending.clear();
                return;
            };
            let (head, _) = self.stdin_pending.as_slices();
            match rustix::io::write(fd, head) {
                Ok(n) => drop(self.stdin_pending.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.stdin = None;
                    self.stdin_pending.clear();
                }
            }
        }
    }

    /// OOM kills of the container's memory cgroup so far (either version).
    pub fn oom_kills(&self) -> u64 {
        self.oom_file
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok())
            .and_then(|text| {
                text.lines()
                    .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
            })
            .unwrap_or(0)
    }
}

/// The file that counts OOM kills of the cgroup `pid` is in.
pub fn oom_file(pid: i32) -> Option<std::path::PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|c| c == "memory") {
            let dir = std::path::Path::new("/sys/fs/cgroup/memory").join(path);
            return Some(dir.join("memory.oom_control"));
        }
    }
    let unified = text.lines().find_map(|l| l.strip_prefix("0::"))?;
    let dir = std::path::Path::new("/sys/fs/cgroup").join(unified.trim_start_matches('/'));
    Some(dir.join("memory.events"))
}
