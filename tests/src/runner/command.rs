//! Commands with a deadline, their output kept.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    /// `None` when it was killed at the deadline.
    pub status: Option<ExitStatus>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|s| s.code())
    }

    pub fn ok(&self) -> bool {
        self.status.is_some_and(|s| s.success())
    }

    /// What a failure report shows.
    pub fn describe(&self) -> String {
        let how = match self.status {
            None => "timed out".to_owned(),
            Some(s) => s.to_string(),
        };
        format!(
            "{how}\n{}{}",
            tail(&self.stderr, 25),
            tail(&self.stdout, 25)
        )
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.iter().skip(from).map(|l| format!("{l}\n")).collect()
}

/// A child in its own process group with pumped output.
pub struct Running {
    child: Child,
    output: Receiver<(bool, Vec<u8>)>,
    open: u32,
    /// Until when output is expected of a child that has exited.
    last_words: Option<Instant>,
}

/// How long the output of a child that has exited may be on its way.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Running {
    pub fn start(command: &mut Command) -> Result<Self, String> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(|e| format!("{:?}: {e}", command.get_program()))?;
        let (tx, output) = channel();
        let mut open = 0;
        let mut pump = |is_err: bool, stream: Option<Box<dyn Read + Send>>| {
            if let Some(mut stream) = stream {
                open += 1;
                let tx = tx.clone();
                std::thread::spawn(move || {
                    let mut buf = [0u8; 8192];
                    loop {
                        match stream.read(&mut buf) {
                            Ok(n) if n > 0 => {
                                if tx
                                    .send((is_err, buf.iter().take(n).copied().collect()))
                                    .is_err()
                                {
                                    return;
                                }
                            }
                            _ => {
                                let _ = tx.send((is_err, Vec::new()));
                                return;
                            }
                        }
                    }
                });
            }
        };
        pump(
            false,
            child
                .stdout
                .take()
                .map(|s| Box::new(s) as Box<dyn Read + Send>),
        );
        pump(
            true,
            child
                .stderr
                .take()
                .map(|s| Box::new(s) as Box<dyn Read + Send>),
        );
        Ok(Self {
            child,
            output,
            open,
            last_words: None,
        })
    }

    /// The next piece of output: `Ok(Some((is_stderr, bytes)))`, `Ok(None)`
    /// at the end, `Err(())` when nothing came until then.
    #[expect(clippy::result_unit_err, reason = "the only error is the time-out")]
    pub fn next(&mut self, until: Instant) -> Result<Option<(bool, Vec<u8>)>, ()> {
        while self.open > 0 {
            let wait = until.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(wait) {
                Ok((_, bytes)) if bytes.is_empty() => self.open -= 1,
                Ok(piece) => return Ok(Some(piece)),
                Err(RecvTimeoutError::Timeout) => {
                    // A descendant may hold the pipes open behind an exited child.
                    if !matches!(self.child.try_wait(), Ok(Some(_))) {
                        return Err(());
                    }
                    let now = Instant::now();
                    if now >= *self.last_words.get_or_insert(now + LAST_WORDS) {
                        return Ok(None);
                    }
                    return Err(());
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Waits for the exit, at most until then.
    pub fn wait(&mut self, until: Instant) -> Option<ExitStatus> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the whole process group.
    pub fn kill(&mut self) {
        let group = -(self.child.id() as i32);
        // SAFETY: kill takes plain integers; the group is the child's own.
        unsafe { libc::kill(group, libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

/// Runs a command to its end or its deadline.
pub fn run(command: &mut Command, timeout: Duration) -> Done {
    let mut running = match Running::start(command) {
        Ok(r) => r,
        Err(e) => {
            return Done {
                status: None,
                stdout: String::new(),
                stderr: e,
            };
        }
    };
    let until = Instant::now() + timeout;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut poll = Instant::now();
    loop {
        poll = (poll.max(Instant::now()) + Duration::from_millis(200)).min(until);
        match running.next(poll) {
            Ok(Some((true, bytes))) => err.extend(bytes),
            Ok(Some((false, bytes))) => out.extend(bytes),
            Ok(None) => break,
            Err(()) if Instant::now() < until => {}
            Err(()) => break,
        }
    }
    let status = running.wait(until);
    if status.is_none() {
        running.kill();
    }
    Done {
        status,
        stdout: String::from_utf8_lossy(&out).into_owned(),
        stderr: String::from_utf8_lossy(&err).into_owned(),
    }
}
