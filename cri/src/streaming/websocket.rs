//! WebSocket connections: numbered channels in the first byte of each
//! message, or a SPDY connection tunnelled through messages.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message as Frame, Utf8Bytes};

use super::activity::Activity;
use super::stream::{Input, Message, Output, QUEUED_CHUNKS};

/// Largest message taken from a client.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
const CHUNK_BYTES: usize = 32 << 10;
/// How long a client may take to answer the end of the connection.
const LINGER: Duration = Duration::from_secs(5);
/// In version 5, a message on this channel names one that the client ends.
const CLOSE_CHANNEL: u8 = 255;

/// How messages carry bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// The channel is a byte, the bytes follow.
    Binary,
    /// The channel is a digit, the bytes follow in base64, as text.
    Base64,
}

/// Limits of the connection below.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// A connection of numbered channels. Dropping it cuts the connection.
#[derive(Debug)]
pub struct Channels {
    inputs: HashMap<u8, Input>,
    messages: mpsc::Sender<Message>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Channels {
    /// Serves `socket`; clients send on the channels in `inputs`.
    pub fn start<I>(socket: WebSocketStream<I>, codec: Codec, inputs: &[u8], idle: Duration) -> Self
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (to, from) = socket.split();
        let (messages, queue) = mpsc::channel(QUEUED_CHUNKS);
        let activity = Activity::new();
        let (mut senders, mut receivers) = (HashMap::new(), HashMap::new());
        for &channel in inputs {
            let (sender, receiver) = mpsc::channel(QUEUED_CHUNKS);
            senders.insert(channel, sender);
            receivers.insert(channel, Input(receiver));
        }
        let (touch, pongs) = (activity.clone(), messages.clone());
        let reader = tokio::spawn(async move {
            tokio::select! {
                () = read(from, codec, senders, touch.clone(), pongs) => {}
                () = touch.idle_for(idle) => tracing::debug!("idle streaming connection ends"),
            }
        });
        let writer = tokio::spawn(async move {
            if let Err(err) = write(to, codec, queue, activity).await {
                tracing::debug!(%err, "streaming client is gone");
            }
        });
        Self {
            inputs: receivers,
            messages,
            reader,
            writer,
        }
    }

    /// The receiving side of a channel, once.
    pub fn input(&mut self, channel: u8) -> Option<Input> {
        self.inputs.remove(&channel)
    }

    pub fn output(&self, channel: u8) -> Output {
        Output {
            stream: u32::from(channel),
            messages: self.messages.clone(),
        }
    }

    /// Returns when the client has closed the connection.
    pub async fn closed(&mut self) {
        let _ = (&mut self.reader).await;
    }

    /// Sends what is queued, then closes the connection.
    pub async fn finish(mut self) {
        let _ = self.messages.send(Message::Close).await;
        let _ = tokio::time::timeout(LINGER, async {
            let _ = (&mut self.writer).await;
            let _ = (&mut self.reader).await;
        })
        .await;
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

async fn read(
    mut from: impl Stream<Item = Result<Frame, Error>> + Unpin,
    codec: Codec,
    mut open: HashMap<u8, mpsc::Sender<Bytes>>,
    activity: Activity,
    messages: mpsc::Sender<Message>,
) {
    while let Some(Ok(frame)) = from.next().await {
        activity.touch();
        let payload = match frame {
            Frame::Binary(payload) => payload,
            Frame::Text(text) => Bytes::from(text),
            Frame::Ping(payload) => {
                // Its end is noticed by the writer.
                let _ = messages.send(Message::Pong { payload }).await;
                continue;
            }
            Frame::Close(_) => return,
            _ => continue,
        };
        let Some((channel, bytes)) = decode(codec, payload) else {
            tracing::debug!("a WebSocket message has no channel");
            return;
        };
        if channel == CLOSE_CHANNEL {
            if let Some(ended) = bytes.first() {
                open.remove(ended);
            }
        } else if let Some(data) = open.get(&channel)
            && !bytes.is_empty()
        {
            // Nobody may be interested any more.
            let _ = data.send(bytes).await;
        }
    }
}

fn decode(codec: Codec, mut payload: Bytes) -> Option<(u8, Bytes)> {
    let first = *payload.first()?;
    let rest = payload.split_off(1);
    match codec {
        Codec::Binary => Some((first, rest)),
        Codec::Base64 => {
            let channel = first.checked_sub(b'0').filter(|channel| *channel < 10)?;
            Some((channel, Bytes::from(STANDARD.decode(rest).ok()?)))
        }
    }
}

fn encode(codec: Codec, stream: u32, bytes: &[u8]) -> Frame {
    // Outputs are made from channel numbers.
    let channel = u8::try_from(stream).unwrap_or(u8::MAX);
    match codec {
        Codec::Binary => {
            let mut message = BytesMut::with_capacity(bytes.len() + 1);
            message.put_u8(channel);
            message.extend_from_slice(bytes);
            Frame::Binary(message.freeze())
        }
        Codec::Base64 => {
            let mut message = channel.to_string();
            STANDARD.encode_string(bytes, &mut message);
            Frame::text(message)
        }
    }
}

async fn write(
    mut to: impl Sink<Frame, Error = Error> + Unpin,
    codec: Codec,
    mut queue: mpsc::Receiver<Message>,
    activity: Activity,
) -> Result<(), Error> {
    while let Some(message) = queue.recv().await {
        match message {
            Message::Data { stream, bytes } if bytes.is_empty() => {
                to.send(encode(codec, stream, &[])).await?;
            }
            Message::Data { stream, bytes } => {
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    to.feed(encode(codec, stream, chunk)).await?;
                }
                to.flush().await?;
            }
            Message::Pong { payload } => to.send(Frame::Pong(payload)).await?,
            Message::Close => {
                // Clients take an end without this code for a failure.
                let normal = CloseFrame {
                    code: CloseCode::Normal,
                    reason: Utf8Bytes::default(),
                };
                return to.send(Frame::Close(Some(normal))).await;
            }
            // Channels have no beginning and no end of their own.
            Message::End { .. } | Message::Accept { .. } | Message::Reset { .. } => {}
        }
        activity.touch();
    }
    Ok(())
}

/// A byte stream through binary messages. The task that carries it ends with
/// either side.
pub fn tunnel<I>(socket: WebSocketStream<I>) -> DuplexStream
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (near, far) = tokio::io::duplex(CHUNK_BYTES);
    tokio::spawn(async move {
        let (mut to, mut from) = socket.split();
        let (mut reader, mut writer) = tokio::io::split(far);
        let upwards = async {
            while let Some(Ok(frame)) = from.next().await {
                match frame {
                    Frame::Binary(payload) => match writer.write_all(&payload).await {
                        Ok(()) => {}
                        Err(_) => return,
                    },
                    Frame::Close(_) => break,
                    // Pings are answered by the library with the next write.
                    _ => {}
                }
            }
            // The reader of the other side then sees the end.
            let _ = writer.shutdown().await;
        };
        let downwards = async {
            let mut buffer = vec![0; CHUNK_BYTES];
            while let Ok(len @ 1..) = reader.read(&mut buffer).await {
                let payload = buffer
                    .get(..len)
                    .map(Bytes::copy_from_slice)
                    .unwrap_or_default();
                if to.send(Frame::Binary(payload)).await.is_err() {
                    return;
                }
            }
            // A client that is gone needs no good-bye.
            let _ = to.close().await;
        };
        tokio::join!(upwards, downwards);
    });
    near
}
