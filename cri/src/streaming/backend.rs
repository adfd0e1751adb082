//! What sessions do on this node: processes in containers, the streams of a
//! container's first process, connections into a pod's network.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::BytesMut;
use futures_util::future::BoxFuture;
use rustix::pipe::PipeFlags;
use rustix::termios::Winsize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::sandbox_port;
use super::{Attach, Backend, Duplex, Exec, Input, Io, Output, Resizes};
use crate::containers::exec::{self, Streams};
use crate::node::Node;
use crate::supervisor::protocol::{Event, Request};

const CHUNK: usize = 32 << 10;
/// How long a port may take to answer.
const DIAL: Duration = Duration::from_secs(10);

/// The backend of the server.
#[derive(Debug)]
pub struct NodeBackend(pub Arc<Node>);

impl Backend for NodeBackend {
    fn exec<'a>(&'a self, exec: &'a Exec, io: Io) -> BoxFuture<'a, Result<i32, String>> {
        Box::pin(async move { run(&self.0, exec, io).await.map_err(text) })
    }

    fn attach<'a>(&'a self, attach: &'a Attach, io: Io) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { join(&self.0, attach, io).await.map_err(text) })
    }

    fn connect<'a>(
        &'a self,
        sandbox_id: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Box<dyn Duplex>>> {
        let netns = self.0.pod_state(sandbox_id).join("ns").join("net");
        let through = through_runtime(&self.0, sandbox_id);
        Box::pin(async move {
            if let Some(line) = through {
                let stream = sandbox_port::open(&line, sandbox_id, port)?;
                return Ok(Box::new(stream) as Box<dyn Duplex>);
            }
            let stream = dial(netns, port).await?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}

/// The runtime's command line where only the runtime reaches the pod's ports.
fn through_runtime(node: &Node, sandbox_id: &str) -> Option<Vec<String>> {
    let handler = node.store.pod(sandbox_id)?.record().handler;
    let settings = node.config.handlers.get(&handler)?;
    if !settings.sandboxed || !sandbox_port::is_apart(&settings.options) {
        return None;
    }
    Some(node.runtime(&handler).ok()?.command(Path::new("/dev/null")))
}

fn text(err: anyhow::Error) -> String {
    crate::node::status(err).message().to_owned()
}

/// Runs a command; a dropped future drops `running`, which kills it.
async fn run(node: &Arc<Node>, exec: &Exec, io: Io) -> Result<i32> {
    let container = node.container(&exec.container_id)?;
    let streams = Streams {
        stdin: exec.streams.stdin,
        stdout: exec.streams.stdout,
        stderr: exec.streams.stderr,
        tty: exec.streams.tty,
    };
    let mut running = exec::start(node, &container, &exec.command, streams).await?;
    let (mut stdin, mut stdout) = (running.stdin.take(), running.stdout.take());
    let stderr = running.stderr.take();
    let terminal = running.terminal.take();
    if let Some(fd) = &terminal {
        rustix::io::ioctl_fionbio(fd, true)?;
        stdin = Some(pipe::Sender::from_owned_fd_unchecked(fd.try_clone()?)?);
        stdout = Some(pipe::Receiver::from_owned_fd_unchecked(fd.try_clone()?)?);
    }
    let (ended, exited) = watch::channel(false);
    let output = async {
        tokio::join!(
            pipe_output(stdout, io.stdout, exited.clone()),
            pipe_output(stderr, io.stderr, exited.clone()),
        )
    };
    let input = async {
        tokio::join!(feed(io.stdin, stdin), resize(io.resizes, terminal.as_ref()),);
        // The process goes on without input.
        std::future::pending::<Infallible>().await
    };
    let wait = async {
        let code = running.wait().await;
        ended.send_replace(true);
        code
    };
    let both = async { tokio::join!(wait, output).0 };
    tokio::select! {
        code = both => code,
        never = input => match never {},
    }
}

/// A container's own streams. Its output has ended when this returns.
async fn join(node: &Arc<Node>, attach: &Attach, io: Io) -> Result<()> {
    let container = node.container(&attach.container_id)?;
    let mut theirs: Vec<OwnedFd> = Vec::new();
    let mut stdin = None;
    if attach.streams.stdin {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        stdin = Some(pipe::Sender::from_owned_fd(write)?);
        theirs.push(read);
    }
    let (mut stdout, mut stderr) = (None, None);
    for (wanted, ours) in [
        (attach.streams.stdout, &mut stdout),
        (attach.streams.stderr, &mut stderr),
    ] {
        if wanted {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&read, true)?;
            *ours = Some(pipe::Receiver::from_owned_fd(read)?);
            theirs.push(write);
        }
    }
    let client = node.supervisor(&container.pod);
    let request = Request::Attach {
        container: container.id.clone(),
        stdin: attach.streams.stdin,
        stdout: attach.streams.stdout,
        stderr: attach.streams.stderr,
    };
    let fds: Vec<_> = theirs.iter().map(|fd| fd.as_fd()).collect();
    let mut events = client.open(&request, &fds).await?;
    drop(theirs);
    let (ended, exited) = watch::channel(false);
    let output = async {
        tokio::join!(
            pipe_output(stdout, io.stdout, exited.clone()),
            pipe_output(stderr, io.stderr, exited.clone()),
        )
    };
    let mut sizes = io.resizes;
    let input = async {
        let sizes = async {
            while let Some(size) = sizes.next().await {
                let request = Request::Resize {
                    container: container.id.clone(),
                    columns: size.columns,
                    rows: size.rows,
                };
                // A container that ends meanwhile has no size.
                let _ = client.call(&request).await;
            }
        };
        tokio::join!(feed(io.stdin, stdin), sizes);
        std::future::pending::<Infallible>().await
    };
    let wait = async {
        let event = events.expect().await;
        ended.send_replace(true);
        match event? {
            Event::Done => Ok(()),
            other => Err(anyhow::anyhow!("the supervisor answered {other:?}")),
        }
    };
    let both = async { tokio::join!(wait, output).0 };
    tokio::select! {
        result = both => result,
        never = input => match never {},
    }
}

async fn feed(from: Option<Input>, to: Option<pipe::Sender>) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    while let Some(bytes) = from.next().await {
        // Who has closed the input is not sent more.
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn resize(mut sizes: Resizes, terminal: Option<&OwnedFd>) {
    let Some(terminal) = terminal else { return };
    while let Some(size) = sizes.next().await {
        let size = Winsize {
            ws_col: size.columns,
            ws_row: size.rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // The terminal may have been hung up.
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}

async fn pipe_output(
    from: Option<pipe::Receiver>,
    to: Option<Output>,
    mut exited: watch::Receiver<bool>,
) {
    let (Some(mut from), Some(to)) = (from, to) else {
        return;
    };
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        tokio::select! {
            read = from.read_buf(&mut chunk) => match read {
                Ok(1..) => {}
                _ => return,
            },
            () = exec::quiet(&mut exited) => return,
        }
        if to.write(chunk.freeze()).await.is_err() {
            return;
        }
    }
}

/// Connects to the pod's loopback. A socket belongs to the network namespace
/// of the thread that makes it, so a thread goes there for that moment. A pod
/// without a namespace of its own uses the host's.
async fn dial(netns: PathBuf, port: u16) -> io::Result<TcpStream> {
    let socket = tokio::task::spawn_blocking(move || {
        let connect = move || -> Result<std::net::TcpStream> {
            if netns.exists() {
                let file = std::fs::File::open(&netns)?;
                nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
                    .context("can't enter the pod's network")?;
            }
            let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
            Ok(
                std::net::TcpStream::connect_timeout(&v4, DIAL).or_else(|first| {
                    std::net::TcpStream::connect_timeout(&v6, DIAL).map_err(|_| first)
                })?,
            )
        };
        std::thread::spawn(connect)
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the connecting thread failed")))
    })
    .await?
    .map_err(io::Error::other)?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    TcpStream::from_std(socket)
}
