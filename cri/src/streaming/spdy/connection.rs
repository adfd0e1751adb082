//! A connection: one task reads frames and hands them to their streams, one
//! writes what the streams send.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::frame::{self, End, Frame};
use super::headers::{Deflater, Headers, Inflater};
use crate::streaming::activity::Activity;
use crate::streaming::stream::{Input, Message, Output, QUEUED_CHUNKS};

/// Streams that may be open at once; each forwarded connection takes two.
const MAX_STREAMS: usize = 2048;
/// Bytes of one data frame that goes out.
const CHUNK_BYTES: usize = 32 << 10;
/// How long a client may take to close its side after we have closed ours.
const LINGER: Duration = Duration::from_secs(5);

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 3;

/// A stream that the client has opened.
#[derive(Debug)]
pub struct Stream {
    pub headers: Headers,
    pub input: Input,
    pub output: Output,
}

/// A served connection. Dropping it cuts the connection.
#[derive(Debug)]
pub struct Connection {
    /// Streams in the order in which the client opens them. Ends with the
    /// connection.
    pub streams: mpsc::Receiver<Stream>,
    messages: mpsc::Sender<Message>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Connection {
    /// Serves `io` until it is closed or has been idle for `idle`.
    pub fn start<I>(io: I, idle: Duration) -> io::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (messages, queue) = mpsc::channel(QUEUED_CHUNKS);
        let (opened, streams) = mpsc::channel(QUEUED_CHUNKS);
        let (from, to) = tokio::io::split(io);
        let activity = Activity::new();
        let mut reader = Reader {
            from,
            inflater: Inflater::new(),
            open: HashMap::new(),
            last_id: 0,
            opened,
            messages: messages.clone(),
            activity: activity.clone(),
        };
        let mut writer = Writer {
            to,
            deflater: Deflater::new()?,
            activity: activity.clone(),
            batch: Vec::new(),
        };
        let reader = tokio::spawn(async move {
            tokio::select! {
                outcome = reader.run() => if let Err(err) = outcome {
                    tracing::debug!(%err, "streaming connection ends");
                },
                () = activity.idle_for(idle) => tracing::debug!("idle streaming connection ends"),
            }
        });
        let writer = tokio::spawn(async move {
            if let Err(err) = writer.run(queue).await {
                tracing::debug!(%err, "streaming client is gone");
            }
        });
        Ok(Self {
            streams,
            messages,
            reader,
            writer,
        })
    }

    /// Returns when the client has closed the connection. Streams that it
    /// still opens are dropped.
    pub async fn closed(&mut self) {
        while self.streams.recv().await.is_some() {}
    }

    /// Sends what is queued, then closes in an order that loses nothing of it.
    pub async fn finish(mut self) {
        let _ = self.messages.send(Message::Close).await;
        let _ = tokio::time::timeout(LINGER, async {
            let _ = (&mut self.writer).await;
            let _ = (&mut self.reader).await;
        })
        .await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

struct Reader<I> {
    from: ReadHalf<I>,
    inflater: Inflater,
    /// Where the data of streams goes whose client side is open.
    open: HashMap<u32, mpsc::Sender<Bytes>>,
    last_id: u32,
    opened: mpsc::Sender<Stream>,
    messages: mpsc::Sender<Message>,
    activity: Activity,
}

impl<I: AsyncRead> Reader<I> {
    async fn run(&mut self) -> io::Result<()> {
        while let Some(frame) = frame::read(&mut self.from, &mut self.inflater).await? {
            self.activity.touch();
            match frame {
                Frame::SynStream { id, end, headers } => self.open(id, end, headers).await,
                Frame::Data { id, end, bytes } => {
                    if let Some(data) = self.open.get(&id)
                        && !bytes.is_empty()
                    {
                        // Nobody may be interested any more.
                        let _ = data.send(bytes).await;
                    }
                    if end == End::Fin {
                        self.open.remove(&id);
                    }
                }
                Frame::Reset { id } => {
                    self.open.remove(&id);
                }
                Frame::Ping { id } => {
                    let payload = Bytes::copy_from_slice(&id.to_be_bytes());
                    self.answer(Message::Pong { payload }).await;
                }
                Frame::GoAway => {
                    tracing::trace!("streaming client says good-bye");
                }
                Frame::Other => {}
            }
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, end: End, headers: Headers) {
        // Ids of clients are odd and rise (section 2.3.2).
        let status = if id.is_multiple_of(2) || id <= self.last_id {
            Some(PROTOCOL_ERROR)
        } else if self.open.len() >= MAX_STREAMS {
            Some(REFUSED_STREAM)
        } else {
            None
        };
        if let Some(status) = status {
            self.answer(Message::Reset { stream: id, status }).await;
            return;
        }
        self.last_id = id;
        let (data, input) = mpsc::channel(QUEUED_CHUNKS);
        if end == End::Open {
            self.open.insert(id, data);
        }
        self.answer(Message::Accept { stream: id }).await;
        let output = Output {
            stream: id,
            messages: self.messages.clone(),
        };
        let stream = Stream {
            headers,
            input: Input(input),
            output,
        };
        // The session may have all streams that it wants.
        let _ = self.opened.send(stream).await;
    }

    async fn answer(&mut self, message: Message) {
        // The writer ends first when the client is gone; reading then ends
        // as well.
        let _ = self.messages.send(message).await;
    }
}

struct Writer<I> {
    to: WriteHalf<I>,
    deflater: Deflater,
    activity: Activity,
    /// Frames that go out with the next write.
    batch: Vec<u8>,
}

impl<I: AsyncWrite> Writer<I> {
    async fn run(&mut self, mut queue: mpsc::Receiver<Message>) -> io::Result<()> {
        while let Some(message) = queue.recv().await {
            let mut next = Some(message);
            while let Some(message) = next {
                if matches!(message, Message::Close) {
                    self.flush().await?;
                    return self.to.shutdown().await;
                }
                self.put(message)?;
                if self.batch.len() >= CHUNK_BYTES {
                    self.flush().await?;
                }
                next = queue.try_recv().ok();
            }
            self.flush().await?;
        }
        Ok(())
    }

    fn put(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Data { stream, mut bytes } => {
                while !bytes.is_empty() {
                    let chunk = bytes.len().min(CHUNK_BYTES);
                    frame::put_data_head(&mut self.batch, stream, End::Open, chunk)?;
                    self.batch.extend_from_slice(&bytes.split_to(chunk));
                }
                Ok(())
            }
            Message::End { stream } => frame::put_data_head(&mut self.batch, stream, End::Fin, 0),
            Message::Accept { stream } => {
                frame::put_reply(&mut self.batch, stream, &mut self.deflater)
            }
            Message::Reset { stream, status } => frame::put_reset(&mut self.batch, stream, status),
            Message::Pong { mut payload } => {
                frame::put_ping(&mut self.batch, payload.try_get_u32().unwrap_or_default())
            }
            Message::Close => Ok(()),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.batch).await?;
        self.batch.clear();
        self.to.flush().await?;
        self.activity.touch();
        Ok(())
    }
}
