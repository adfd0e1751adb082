//! Connections of clients: how many there may be, and how long one may be
//! silent at its beginning.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use crate::config::LimitsConfig;

/// Bytes every connection begins with (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// What a process at the other end of connections takes.
#[derive(Debug, Default)]
pub struct Usage {
    /// Bytes of requests that have begun to come in.
    pub receiving: AtomicUsize,
    /// Calls whose answers have not been taken.
    pub calls: AtomicUsize,
}

/// The process that makes a request.
#[derive(Clone, Debug, Default)]
pub struct Peer(pub Arc<Usage>);

#[derive(Debug, Default)]
struct Process {
    connections: usize,
    peer: Peer,
}

/// Connections by the process that made them.
#[derive(Debug)]
struct Table {
    by_process: Mutex<HashMap<i32, Process>>,
    per_process: usize,
    all: usize,
}

/// A place in the table, given back when dropped.
#[derive(Debug)]
struct Place {
    table: Arc<Table>,
    process: i32,
    peer: Peer,
}

impl Table {
    fn take(self: &Arc<Self>, process: i32) -> Result<Place, &'static str> {
        let mut by_process = self.by_process.lock();
        let all = by_process.values().map(|process| process.connections);
        if all.sum::<usize>() >= self.all {
            return Err("there are too many connections");
        }
        let own = by_process.entry(process).or_default();
        if own.connections >= self.per_process {
            return Err("the process has too many connections");
        }
        own.connections = own.connections.saturating_add(1);
        Ok(Place {
            table: Arc::clone(self),
            process,
            peer: own.peer.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_process = self.table.by_process.lock();
        if let Some(own) = by_process.get_mut(&self.process) {
            own.connections = own.connections.saturating_sub(1);
            if own.connections == 0 {
                by_process.remove(&self.process);
            }
        }
    }
}

/// The connections that are let in.
pub fn connections(
    listener: UnixListener,
    limits: &LimitsConfig,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let table = Arc::new(Table {
        by_process: Mutex::default(),
        per_process: limits.connections_per_process.max(1),
        all: limits.connections.max(1),
    });
    let silence = Duration::from_secs(limits.receive_timeout_s.max(1));
    futures_util::stream::unfold((listener, table), move |(listener, table)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
                    match table.take(peer.unwrap_or(0)) {
                        Ok(place) => {
                            let connection = Connection::new(stream, place, silence);
                            return Some((Ok(connection), (listener, table)));
                        }
                        Err(why) => tracing::warn!(peer, "connection refused: {why}"),
                    }
                }
                // No descriptors are left: some will be.
                Err(err) => {
                    tracing::warn!("accept: {err}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

/// A client's stream, which fails if the client says nothing.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    /// Until the preface of HTTP/2 has come; from then on pings tell.
    silence: Option<Pin<Box<Sleep>>>,
    received: usize,
    place: Place,
}

impl Connection {
    fn new(stream: UnixStream, place: Place, silence: Duration) -> Self {
        Self {
            stream,
            silence: Some(Box::pin(tokio::time::sleep(silence))),
            received: 0,
            place,
        }
    }
}

impl Connected for Connection {
    /// Comes along with each request.
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.place.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let more = buffer.filled().len().saturating_sub(before);
        self.received = self.received.saturating_add(more);
        if self.received >= PREFACE {
            self.silence = None;
        }
        if read.is_ready() {
            return read;
        }
        if let Some(silence) = &mut self.silence
            && silence.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let table = Arc::new(Table {
            by_process: Mutex::default(),
            per_process: 2,
            all: 3,
        });
        let first = table.take(1);
        let second = table.take(1);
        assert!(first.is_ok() && second.is_ok());
        assert!(table.take(1).is_err(), "two of one process");
        let other = table.take(2);
        assert!(table.take(3).is_err(), "three of all");
        drop((first, other));
        assert!(table.take(1).is_ok());
        drop(second);
        assert!(table.by_process.lock().is_empty());
    }
}
