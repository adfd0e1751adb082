//! Byte streams of a session, whichever protocol carries them.

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;

/// Chunks that may wait for a slow receiver; what comes then waits in the
/// connection, which slows the sender down.
pub const QUEUED_CHUNKS: usize = 32;

/// The client has closed the connection or this stream.
#[derive(Debug, Error)]
#[error("the client is gone")]
pub struct ClientGone;

/// What goes out on a connection. Streams are SPDY stream ids or WebSocket
/// channel numbers.
#[derive(Debug)]
pub enum Message {
    Data {
        stream: u32,
        bytes: Bytes,
    },
    /// Nothing more comes on this stream.
    End {
        stream: u32,
    },
    /// A stream is accepted (SPDY).
    Accept {
        stream: u32,
    },
    /// A stream is refused or given up (SPDY), with the status that says why.
    Reset {
        stream: u32,
        status: u32,
    },
    /// Answer to a ping.
    Pong {
        payload: Bytes,
    },
    /// Everything before this is sent, then the connection is closed.
    Close,
}

/// The receiving direction of a stream.
#[derive(Debug)]
pub struct Input(pub(super) mpsc::Receiver<Bytes>);

impl Input {
    /// The next bytes; `None` when the client has ended the stream or is gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// The sending direction of a stream.
#[derive(Clone, Debug)]
pub struct Output {
    pub(super) stream: u32,
    pub(super) messages: mpsc::Sender<Message>,
}

impl Output {
    /// Queues bytes, waiting while the client is slow.
    pub async fn write(&self, bytes: Bytes) -> Result<(), ClientGone> {
        let stream = self.stream;
        let sent = self.messages.send(Message::Data { stream, bytes }).await;
        sent.map_err(|_| ClientGone)
    }

    /// Ends the stream after what has been written.
    pub async fn end(&self) {
        let stream = self.stream;
        // A client that is gone needs no end.
        let _ = self.messages.send(Message::End { stream }).await;
    }
}
