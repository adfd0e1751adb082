//! Forwarded connections. Each has a stream for data and one for an error
//! message.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::spdy::{Connection, Stream};
use super::stream::{Input, Output};
use super::websocket::Channels;
use super::{Backend, PortForward};

const BUFFER_BYTES: usize = 32 << 10;
/// Connections whose second stream has not been opened yet.
const MAX_HALVES: usize = 64;

/// Serves a session on a SPDY connection: pairs of streams with the same
/// `requestID` are connections, opened at any time.
pub async fn serve_spdy(
    mut connection: Connection,
    session: &PortForward,
    backend: &Arc<dyn Backend>,
) {
    // Dropped, and with it all connections, when the client goes away.
    let mut forwards = JoinSet::new();
    let mut halves = HashMap::new();
    loop {
        let stream = tokio::select! {
            stream = connection.streams.recv() => stream,
            Some(_) = forwards.join_next() => continue,
        };
        let Some(stream) = stream else {
            return;
        };
        let Some(half) = Half::of(stream) else {
            tracing::debug!("a forwarded stream has no type, port or request id");
            return;
        };
        match halves.remove(&half.request) {
            None if halves.len() >= MAX_HALVES => return,
            None => {
                halves.insert(half.request.clone(), half);
            }
            Some(other) => {
                let Some((port, data, error)) = pair(half, other) else {
                    tracing::debug!("two forwarded streams do not belong together");
                    return;
                };
                let (backend, session) = (Arc::clone(backend), session.clone());
                forwards.spawn(async move {
                    let (input, output) = data;
                    forward(&*backend, &session, port, input, &output, &error).await;
                });
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// One of the two streams of a connection.
struct Half {
    kind: Kind,
    port: u16,
    request: String,
    stream: Stream,
}

impl Half {
    fn of(stream: Stream) -> Option<Self> {
        let kind = match stream.headers.get("streamtype")? {
            "data" => Kind::Data,
            "error" => Kind::Error,
            _ => return None,
        };
        let port = stream
            .headers
            .get("port")?
            .parse()
            .ok()
            .filter(|port| *port > 0)?;
        // Clients of before request ids open one connection at a time.
        let request = stream
            .headers
            .get("requestid")
            .unwrap_or_default()
            .to_owned();
        Some(Self {
            kind,
            port,
            request,
            stream,
        })
    }
}

fn pair(a: Half, b: Half) -> Option<(u16, (Input, Output), Output)> {
    let (data, error) = match (a.kind, b.kind) {
        (Kind::Data, Kind::Error) => (a, b),
        (Kind::Error, Kind::Data) => (b, a),
        _ => return None,
    };
    (data.port == error.port).then_some((
        data.port,
        (data.stream.input, data.stream.output),
        error.stream.output,
    ))
}

/// Serves a session on WebSocket channels: a data and an error channel for
/// each port that the URL was made for, one connection each.
pub async fn serve_channels(
    mut channels: Channels,
    session: &PortForward,
    backend: &Arc<dyn Backend>,
) {
    let mut forwards = JoinSet::new();
    for (&port, index) in session.ports.iter().zip((0u8..).step_by(2)) {
        let Some(input) = channels.input(index) else {
            return;
        };
        let (output, error) = (
            channels.output(index),
            channels.output(index.saturating_add(1)),
        );
        let (backend, session) = (Arc::clone(backend), session.clone());
        forwards.spawn(async move {
            // Both channels begin with the number of their port.
            let number = Bytes::copy_from_slice(&port.to_le_bytes());
            if output.write(number.clone()).await.is_ok() && error.write(number).await.is_ok() {
                forward(&*backend, &session, port, input, &output, &error).await;
            }
        });
    }
    tokio::select! {
        () = async { while forwards.join_next().await.is_some() {} } => channels.finish().await,
        () = channels.closed() => {}
    }
}

/// Carries one connection until both sides have ended it.
async fn forward(
    backend: &dyn Backend,
    session: &PortForward,
    port: u16,
    mut input: Input,
    output: &Output,
    error: &Output,
) {
    let failure = match backend.connect(&session.sandbox_id, port).await {
        Err(err) => Some(format!(
            "failed to connect to port {port} inside the sandbox: {err}"
        )),
        Ok(socket) => {
            let (mut from, mut to) = tokio::io::split(socket);
            let upwards = async {
                while let Some(bytes) = input.next().await {
                    to.write_all(&bytes).await?;
                }
                to.shutdown().await
            };
            let downwards = async {
                let mut buffer = vec![0; BUFFER_BYTES];
                loop {
                    let len = from.read(&mut buffer).await?;
                    let bytes = buffer
                        .get(..len)
                        .map(Bytes::copy_from_slice)
                        .unwrap_or_default();
                    if bytes.is_empty() || output.write(bytes).await.is_err() {
                        output.end().await;
                        return Ok(());
                    }
                }
            };
            let outcome = tokio::try_join!(upwards, downwards);
            outcome
                .err()
                .map(|err: std::io::Error| format!("port {port}: {err}"))
        }
    };
    if let Some(message) = failure {
        // Whoever has left does not read it.
        let _ = error.write(Bytes::from(message)).await;
        output.end().await;
    }
    error.end().await;
}
