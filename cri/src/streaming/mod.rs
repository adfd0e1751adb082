//! The streaming server: exec, attach and port-forward sessions of clients
//! that a CRI call has sent here with a single-use URL.
//!
//! | file | holds |
//! |---|---|
//! | `server.rs` | listener, TLS, HTTP upgrade, choice of the protocol |
//! | `tokens.rs` | the single-use tokens of URLs |
//! | `requests.rs` | from the CRI's requests to URLs |
//! | `backend.rs` | what the sessions do on this node |
//! | `remote_command.rs` | exec and attach: streams, terminal sizes, exit status |
//! | `port_forward.rs` | forwarded connections |
//! | `sandbox_port.rs` | a port of a sandbox that only the runtime reaches |
//! | `spdy/` | SPDY/3.1 connections |
//! | `websocket.rs` | WebSocket connections: channels, and tunnelled SPDY |
//! | `stream.rs`, `activity.rs` | what both have in common |
//!
//! What the sessions do is up to a [`Backend`].

mod activity;
mod backend;
mod port_forward;
mod remote_command;
pub mod requests;
mod sandbox_port;
mod server;
mod spdy;
mod stream;
#[cfg(test)]
mod tests;
mod tokens;
mod websocket;

use std::io;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub use remote_command::{Resizes, TerminalSize};
pub use server::{Config, Server};
pub use stream::{ClientGone, Input, Output};
pub use tokens::TooMany;

/// What a URL has been handed out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    Exec(Exec),
    Attach(Attach),
    PortForward(PortForward),
}

/// Which standard streams of a process the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    /// Never together with `tty`.
    pub stderr: bool,
    pub tty: bool,
}

/// A command to run in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub container_id: String,
    pub command: Vec<String>,
    pub streams: Wanted,
}

/// A running container whose standard streams are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    pub container_id: String,
    pub streams: Wanted,
}

/// A sandbox into which connections are forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForward {
    pub sandbox_id: String,
    /// Ports that the caller has named; any if empty.
    pub ports: Vec<u16>,
}

/// Standard streams of a session, as far as it wants them.
#[derive(Debug)]
pub struct Io {
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    pub resizes: Resizes,
}

/// A connection into a sandbox.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Carries sessions out. The futures are dropped when the client goes away.
pub trait Backend: Send + Sync + 'static {
    /// Runs a command; answers its exit code, or why it could not be run. A
    /// command whose future is dropped is to be killed.
    fn exec<'a>(&'a self, exec: &'a Exec, io: Io) -> BoxFuture<'a, Result<i32, String>>;

    /// Connects to a container's main process until it ends.
    fn attach<'a>(&'a self, attach: &'a Attach, io: Io) -> BoxFuture<'a, Result<(), String>>;

    /// Connects to a port on the loopback interface of a sandbox.
    fn connect<'a>(
        &'a self,
        sandbox_id: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Box<dyn Duplex>>>;
}
