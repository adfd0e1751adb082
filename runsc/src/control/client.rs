//! The command's side.

use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Reply, Request, wire};

/// Talks to the sentry behind one control socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

/// A request whose reply is still to come.
pub struct Pending(UnixStream);

impl Client {
    /// `path` is the socket in the container's state directory.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Sends `request`.
    pub fn begin(&self, request: &Request, fds: &[RawFd]) -> Result<Pending> {
        let connected = super::with_short_path(&self.path, |path| UnixStream::connect(path));
        let mut stream = match connected {
            Ok(stream) => stream,
            Err(err)
                if matches!(
                    err.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::NotFound
                ) =>
            {
                bail!("the sandbox is not running")
            }
            Err(err) => return Err(err).context("the sandbox can't be reached"),
        };
        wire::send(&mut stream, request, fds)?;
        Ok(Pending(stream))
    }

    /// Sends `request` and waits for its reply; an error reply is an error.
    pub fn call(&self, request: &Request, fds: &[RawFd]) -> Result<Reply> {
        self.begin(request, fds)?.finish()
    }
}

impl Pending {
    /// The connection, to poll for the reply.
    pub fn stream(&self) -> &UnixStream {
        &self.0
    }

    /// Waits for the reply.
    pub fn finish(&mut self) -> Result<Reply> {
        match wire::receive(&mut self.0)? {
            Some((Reply::Error { message }, _)) => bail!("{message}"),
            Some((reply, _)) => Ok(reply),
            None => bail!("the sandbox ended before it answered"),
        }
    }
}
