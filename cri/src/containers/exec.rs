//! Processes beside a container's first: `ExecSync` and the streaming `Exec`.
//!
//! The daemon makes the pipes or takes the terminal; the supervisor runs the
//! runtime and is the process's parent. When this side goes away, for whatever
//! reason, the connection to the supervisor closes and the process is killed.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::pipe::PipeFlags;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tonic::Status;

use crate::ids;
use crate::node::Node;
use crate::proto::ExecSyncResponse;
use crate::store::{Container, ContainerStage};
use crate::supervisor::client::Events;
use crate::supervisor::protocol::{Event, Exec, Request};

/// Output of `ExecSync` beyond this is cut off, as kubelets expect.
const MAX_OUTPUT: usize = 16 << 20;

/// After the exit, output on which nothing comes for this long has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// Which streams a process gets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A started process; dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    pub stdin: Option<pipe::Sender>,
    pub stdout: Option<pipe::Receiver>,
    pub stderr: Option<pipe::Receiver>,
    pub terminal: Option<OwnedFd>,
    events: Events,
    files: Vec<PathBuf>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

impl Running {
    /// The exit code.
    pub async fn wait(&mut self) -> Result<i32> {
        loop {
            if let Event::Exited(exit) = self.events.expect().await? {
                return Ok(exit.code);
            }
        }
    }
}

/// The container's process with another command line.
fn process(node: &Node, container: &Container, command: &[String], tty: bool) -> Result<Value> {
    let path = node.bundle(&container.id).join("process.json");
    let text = std::fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
    let mut process: Value = serde_json::from_slice(&text)?;
    let object = process
        .as_object_mut()
        .context("the container's process is not an object")?;
    object.insert("args".into(), json!(command));
    object.insert("terminal".into(), json!(tty));
    if tty
        && let Some(Value::Array(env)) = object.get_mut("env")
        && !env
            .iter()
            .any(|e| e.as_str().is_some_and(|e| e.starts_with("TERM=")))
    {
        env.push(json!("TERM=xterm"));
    }
    Ok(process)
}

pub async fn start(
    node: &Arc<Node>,
    container: &Container,
    command: &[String],
    streams: Streams,
) -> Result<Running> {
    if command.is_empty() {
        return Err(Status::invalid_argument("no command").into());
    }
    let record = container.record();
    if record.stage != ContainerStage::Running {
        return Err(Status::failed_precondition(format!(
            "container {} is not running",
            container.id
        ))
        .into());
    }
    let runtime = node.runtime(&record.handler)?;
    let id = ids::random();
    let bundle = node.bundle(&container.id);
    let file = |suffix: &str| bundle.join(format!("exec-{}{suffix}", ids::short(&id)));
    let (process_file, pid_file, runtime_log) = (file(".json"), file(".pid"), file(".log"));
    let text = serde_json::to_vec(&process(node, container, command, streams.tty)?)?;
    std::fs::write(&process_file, text)?;
    let mut line = runtime.command(&runtime_log);
    line.extend([
        "exec".to_owned(),
        "--detach".to_owned(),
        "--process".to_owned(),
        process_file.display().to_string(),
        "--pid-file".to_owned(),
        pid_file.display().to_string(),
    ]);
    let mut files = vec![process_file];
    let mut console = None;
    let mut ours = (None, None, None);
    let mut theirs: Vec<OwnedFd> = Vec::new();
    if streams.tty {
        let socket = node.socket(&id, ".x");
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        line.extend(["--console-socket".to_owned(), socket.display().to_string()]);
        files.push(socket);
        console = Some(listener);
    } else {
        // Positions matter: what is not wanted is /dev/null.
        let null = || -> Result<OwnedFd> {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null")?;
            Ok(file.into())
        };
        if streams.stdin {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&write, true)?;
            ours.0 = Some(pipe::Sender::from_owned_fd(write)?);
            theirs.push(read);
        } else {
            theirs.push(null()?);
        }
        for (wanted, our) in [(streams.stdout, &mut ours.1), (streams.stderr, &mut ours.2)] {
            if wanted {
                let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
                rustix::io::ioctl_fionbio(&read, true)?;
                *our = Some(pipe::Receiver::from_owned_fd(read)?);
                theirs.push(write);
            } else {
                theirs.push(null()?);
            }
        }
    }
    line.push(container.id.clone());
    let request = Request::Exec(Exec {
        container: container.id.clone(),
        command: line,
        pid_file,
        runtime_log,
    });
    let fds: Vec<_> = theirs.iter().map(|fd| fd.as_fd()).collect();
    let mut events = node.supervisor(&record.pod).open(&request, &fds).await?;
    drop(theirs);
    let limit = Duration::from_secs(node.config.runtime_timeout_s);
    let started = tokio::time::timeout(limit, events.expect())
        .await
        .context("the runtime's exec takes too long")?;
    match started {
        Ok(Event::Started { .. }) => {}
        Ok(other) => bail!("the supervisor answered {other:?}"),
        Err(err) => {
            for file in files {
                let _ = std::fs::remove_file(file);
            }
            return Err(err);
        }
    }
    let terminal = match console {
        Some(listener) => Some(
            tokio::task::spawn_blocking(move || crate::supervisor::receive_terminal(&listener))
                .await??,
        ),
        None => None,
    };
    Ok(Running {
        stdin: ours.0,
        stdout: ours.1,
        stderr: ours.2,
        terminal,
        events,
        files,
    })
}

/// Runs a command to its end; `timeout_s` of zero means none.
pub async fn sync(
    node: &Arc<Node>,
    container: &Container,
    command: &[String],
    timeout_s: i64,
) -> Result<ExecSyncResponse> {
    let streams = Streams {
        stdout: true,
        stderr: true,
        ..Streams::default()
    };
    let work = async {
        let mut running = start(node, container, command, streams).await?;
        let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
        let (ended, exited) = watch::channel(false);
        let wait = async {
            let code = running.wait().await;
            ended.send_replace(true);
            code
        };
        let (code, stdout, stderr) = tokio::join!(
            wait,
            read_all(stdout, exited.clone()),
            read_all(stderr, exited.clone()),
        );
        anyhow::Ok(ExecSyncResponse {
            stdout,
            stderr,
            exit_code: code?,
        })
    };
    if timeout_s <= 0 {
        return work.await;
    }
    let limit = Duration::from_secs(timeout_s.unsigned_abs());
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        // Dropping the work has killed the process.
        Err(_) => Err(Status::deadline_exceeded(format!(
            "command {command:?} timed out after {limit:?}"
        ))
        .into()),
    }
}

/// Returns some time after the process has exited: a child of it may keep the
/// output open for longer than anybody wants to know.
pub async fn quiet(exited: &mut watch::Receiver<bool>) {
    // Who reports the exit lives as long as the reader.
    let _ = exited.wait_for(|exited| *exited).await;
    tokio::time::sleep(DRAIN).await;
}

async fn read_all(from: Option<pipe::Receiver>, mut exited: watch::Receiver<bool>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(mut from) = from {
        let mut chunk = vec![0u8; 32 << 10];
        loop {
            let n = tokio::select! {
                read = from.read(&mut chunk) => match read {
                    Ok(n @ 1..) => n,
                    _ => break,
                },
                () = quiet(&mut exited) => break,
            };
            let room = MAX_OUTPUT.saturating_sub(all.len()).min(n);
            all.extend_from_slice(chunk.get(..room).unwrap_or_default());
        }
    }
    all
}
