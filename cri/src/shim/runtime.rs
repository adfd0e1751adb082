//! `runsc` by its command line.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow};

use crate::options::Options;
use crate::reaper::Reaper;
use crate::stdio::ChildStreams;

/// Runs commands for one container.
pub struct Runtime {
    options: Options,
    reaper: Reaper,
    /// Directory for log and pid files.
    bundle: PathBuf,
    next_file: AtomicU64,
}

/// What a new process is started with.
pub struct NewProcess<'a> {
    pub streams: ChildStreams,
    /// Socket that takes the master of its terminal.
    pub console_socket: Option<&'a Path>,
}

impl Runtime {
    pub fn new(options: Options, reaper: &Reaper, bundle: &Path) -> Self {
        Self {
            options,
            reaper: reaper.clone(),
            bundle: bundle.to_owned(),
            next_file: AtomicU64::new(0),
        }
    }

    /// A path in the bundle that nothing else uses.
    pub fn file(&self, name: &str) -> PathBuf {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        self.bundle.join(format!("shim-{number}-{name}"))
    }

    fn command(&self, log: &Path, name: &str) -> Command {
        let mut command = Command::new(&self.options.binary);
        command
            .arg("--root")
            .arg(&self.options.root)
            .arg("--log")
            .arg(log)
            .args(["--log-format", "json"])
            .args(&self.options.flags);
        if self.options.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(name).current_dir(&self.bundle);
        command
    }

    /// Runs a command whose output nobody wants.
    pub fn call(&self, name: &str, args: &[&str]) -> Result<()> {
        let log = self.file("log.json");
        let mut command = self.command(&log, name);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.finish(name, &log, &mut command)
    }

    /// Runs a command that reads `input`.
    pub fn call_with_input(&self, name: &str, args: &[&str], input: &[u8]) -> Result<()> {
        let log = self.file("log.json");
        let path = self.file("input");
        fs::write(&path, input).with_context(|| format!("{} can't be written", path.display()))?;
        let file = fs::File::open(&path).context("input can't be opened")?;
        let _ = fs::remove_file(&path);
        let mut command = self.command(&log, name);
        command
            .args(args)
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.finish(name, &log, &mut command)
    }

    /// Runs a command and answers its output.
    pub fn output(&self, name: &str, args: &[&str]) -> Result<Vec<u8>> {
        let log = self.file("log.json");
        let (mut reader, writer) = std::io::pipe().context("a pipe can't be made")?;
        let mut command = self.command(&log, name);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(Stdio::null());
        let child = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                let mut output = Vec::new();
                reader.read_to_end(&mut output).map(|_| output)
            })
            .context("a thread can't be made")?;
        let finished = self.finish(name, &log, &mut command);
        // Its copy of the pipe's end would keep the reader waiting.
        drop(command);
        let output = child.join();
        finished?;
        output
            .map_err(|_| anyhow!("the reader of {name} has ended"))?
            .with_context(|| format!("the output of {name} can't be read"))
    }

    /// Runs `create` or `exec`; answers the new process's pid.
    pub fn start_process(&self, name: &str, args: &[&str], new: NewProcess<'_>) -> Result<i32> {
        let log = self.file("log.json");
        let pid_file = self.file("pid");
        let mut command = self.command(&log, name);
        command.arg("--pid-file").arg(&pid_file);
        if let Some(socket) = new.console_socket {
            command.arg("--console-socket").arg(socket);
        }
        command
            .args(args)
            .stdin(new.streams.stdin)
            .stdout(new.streams.stdout)
            .stderr(new.streams.stderr);
        let finished = self.finish(name, &log, &mut command);
        let pid = fs::read_to_string(&pid_file);
        let _ = fs::remove_file(&pid_file);
        finished?;
        let pid = pid.with_context(|| format!("{name} has written no pid"))?;
        pid.trim()
            .parse()
            .with_context(|| format!("{name} has written {pid:?} for a pid"))
    }

    fn finish(&self, name: &str, log: &Path, command: &mut Command) -> Result<()> {
        let exit = self.reaper.run(command);
        let text = fs::read_to_string(log).unwrap_or_default();
        let _ = fs::remove_file(log);
        match exit?.status {
            0 => Ok(()),
            status => Err(anyhow!(match last_error(&text) {
                Some(message) => message,
                None => format!("{} {name} ended with status {status}", self.options.binary),
            })),
        }
    }
}

/// The message of the last error in a log of JSON lines.
fn last_error(log: &str) -> Option<String> {
    log.lines().rev().find_map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        let error = matches!(record.get("level")?.as_str()?, "error" | "fatal");
        error.then(|| Some(record.get("msg")?.as_str()?.to_owned()))?
    })
}

/// Writes `value` to a file that only its owner reads.
pub fn write_private(path: &Path, value: &[u8]) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(value))
        .with_context(|| format!("{} can't be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_reported() {
        let log = "{\"level\":\"error\",\"msg\":\"first\"}\nnonsense\n\
                   {\"level\":\"error\",\"msg\":\"second\"}\n{\"level\":\"info\",\"msg\":\"x\"}\n";
        assert_eq!(last_error(log).as_deref(), Some("second"));
        assert_eq!(last_error("").as_deref(), None);
    }
}
