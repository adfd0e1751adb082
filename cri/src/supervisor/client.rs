//! The daemon's side of the supervisor's socket.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

use super::protocol::{Event, Request};

/// Connects anew for each request.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Answers to one request.
#[derive(Debug)]
pub struct Events {
    reader: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Sends a request with descriptors; its answers follow.
    pub async fn open(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Events> {
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .context("the pod's supervisor does not answer")?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let sent = if fds.is_empty() {
            0
        } else {
            send_with_fds(&stream, &line, fds).await?
        };
        stream
            .write_all(line.get(sent..).unwrap_or_default())
            .await?;
        Ok(Events {
            reader: BufReader::with_capacity(1024, stream),
            line: Vec::new(),
        })
    }

    /// A request with one answer.
    pub async fn call(&self, request: &Request) -> Result<Event> {
        let mut events = self.open(request, &[]).await?;
        events.expect().await
    }
}

async fn send_with_fds(stream: &UnixStream, line: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    loop {
        stream.writable().await?;
        let sent = stream.try_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(std::io::Error::other("too many descriptors"));
            }
            Ok(rustix::net::sendmsg(
                stream.as_fd(),
                &[IoSlice::new(line)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )?)
        });
        match sent {
            Ok(n) => return Ok(n),
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(err) => return Err(err.into()),
        }
    }
}

impl Events {
    /// The next event; `None` when the supervisor has gone.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        // A line that a cancelled call has begun is kept in `line`.
        if self.reader.read_until(b'\n', &mut self.line).await? == 0 {
            return Ok(None);
        }
        let event = serde_json::from_slice(&self.line).context("the supervisor's answer")?;
        self.line.clear();
        Ok(Some(event))
    }

    /// The next event, where `Failed` and the end are errors.
    pub async fn expect(&mut self) -> Result<Event> {
        match self.next().await? {
            Some(Event::Failed { message }) => bail!("{message}"),
            Some(event) => Ok(event),
            None => bail!("the pod's supervisor has gone"),
        }
    }
}
