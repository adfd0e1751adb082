//! Exec and attach, over SPDY streams or WebSocket channels.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::spdy::{Connection, Stream};
use super::stream::{ClientGone, Input, Output};
use super::websocket::Channels;
use super::{Backend, Io, Session, Wanted};

/// What clients and servers have agreed on over the years
/// (`vN.channel.k8s.io`). Version 1 has no name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V1,
    V2,
    /// Adds the stream of terminal sizes.
    V3,
    /// The error stream carries a `metav1.Status`.
    V4,
    /// Adds the end of single channels (WebSocket only).
    V5,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub columns: u16,
    pub rows: u16,
}

/// Terminal sizes that the client sends.
#[derive(Debug)]
pub struct Resizes {
    input: Option<Input>,
    pending: Vec<u8>,
}

/// Bytes of a size; what is longer is none.
const MAX_SIZE_BYTES: usize = 4096;

impl Resizes {
    pub fn new(input: Option<Input>) -> Self {
        let pending = Vec::new();
        Self { input, pending }
    }

    /// The next size; `None` when no more will come.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.pending).into_iter();
            match values.next() {
                Some(Ok(value)) => {
                    let used = values.byte_offset();
                    self.pending.drain(..used);
                    if let Some(size) = size(&value) {
                        return Some(size);
                    }
                    continue;
                }
                Some(Err(err)) if !err.is_eof() => self.pending.clear(),
                _ => {}
            }
            if self.pending.len() > MAX_SIZE_BYTES {
                self.pending.clear();
            }
            let bytes = self.input.as_mut()?.next().await?;
            self.pending.extend_from_slice(&bytes);
        }
    }
}

fn size(value: &Value) -> Option<TerminalSize> {
    let field = |name| u16::try_from(value.get(name)?.as_u64()?).ok();
    Some(TerminalSize {
        columns: field("Width")?,
        rows: field("Height")?,
    })
}

/// How a session ended.
type Outcome = Result<i32, String>;

/// What the error stream says at the end; `None` for nothing.
fn report(version: Version, outcome: &Outcome) -> Option<Bytes> {
    let plain = |text: String| (!text.is_empty()).then(|| Bytes::from(text));
    match outcome {
        Ok(0) if version < Version::V4 => None,
        Ok(code) if version < Version::V4 => {
            plain(format!("command terminated with non-zero exit code: {code}"))
        }
        Err(reason) if version < Version::V4 => plain(reason.clone()),
        Ok(0) => plain(json!({"metadata": {}, "status": "Success"}).to_string()),
        Ok(code) => plain(
            json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            })
            .to_string(),
        ),
        Err(reason) => plain(
            json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {reason}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": reason}]},
                "code": 500,
            })
            .to_string(),
        ),
    }
}

fn wanted(session: &Session) -> Wanted {
    match session {
        Session::Exec(exec) => exec.streams,
        Session::Attach(attach) => attach.streams,
        Session::PortForward(_) => Wanted {
            stdin: false,
            stdout: false,
            stderr: false,
            tty: false,
        },
    }
}

async fn run(backend: &dyn Backend, session: &Session, io: Io) -> Outcome {
    match session {
        Session::Exec(exec) => backend.exec(exec, io).await,
        Session::Attach(attach) => backend.attach(attach, io).await.map(|()| 0),
        Session::PortForward(_) => Err("this URL is for forwarding ports".to_owned()),
    }
}

/// Streams of a SPDY session by their type.
#[derive(Default)]
struct Collected {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    error: Option<Stream>,
    resize: Option<Stream>,
}

impl Collected {
    /// Takes the streams that the session needs, as they are opened.
    async fn from(
        connection: &mut Connection,
        wanted: Wanted,
        version: Version,
    ) -> io::Result<Self> {
        let mut found = Self::default();
        while !found.complete(wanted, version) {
            let Some(stream) = connection.streams.recv().await else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            let place = match stream.headers.get("streamtype") {
                Some("stdin") => &mut found.stdin,
                Some("stdout") => &mut found.stdout,
                Some("stderr") => &mut found.stderr,
                Some("error") => &mut found.error,
                Some("resize") => &mut found.resize,
                other => {
                    let message = format!("a stream has the unknown type {other:?}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
            };
            if place.replace(stream).is_some() {
                let message = "a stream is opened twice";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        Ok(found)
    }

    fn complete(&self, wanted: Wanted, version: Version) -> bool {
        let resize = wanted.tty && version >= Version::V3;
        self.error.is_some()
            && (self.stdin.is_some() || !wanted.stdin)
            && (self.stdout.is_some() || !wanted.stdout)
            && (self.stderr.is_some() || !wanted.stderr)
            && (self.resize.is_some() || !resize)
    }
}

/// Serves an exec or attach session on a SPDY connection. `patience` is how
/// long the client may take to open its streams.
pub async fn serve_spdy(
    mut connection: Connection,
    version: Version,
    session: &Session,
    backend: &dyn Backend,
    patience: Duration,
) {
    let collected = Collected::from(&mut connection, wanted(session), version);
    let streams = match tokio::time::timeout(patience, collected).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(err)) => {
            tracing::debug!(%err, "streaming client gave up");
            return;
        }
        Err(_) => {
            tracing::debug!("streaming client opens too few streams");
            return;
        }
    };
    let Some(error) = streams.error.map(|stream| stream.output) else {
        return;
    };
    let output = |stream: Option<Stream>| stream.map(|stream| stream.output);
    let (stdout, stderr) = (output(streams.stdout), output(streams.stderr));
    let io = Io {
        stdin: streams.stdin.map(|stream| stream.input),
        stdout: stdout.clone(),
        stderr: stderr.clone(),
        resizes: Resizes::new(streams.resize.map(|stream| stream.input)),
    };
    let outcome = tokio::select! {
        outcome = run(backend, session, io) => outcome,
        () = connection.closed() => return,
    };
    // A client that is gone by now needs no report.
    let _ = tell(&error, report(version, &outcome)).await;
    for stream in [Some(error), stdout, stderr].into_iter().flatten() {
        stream.end().await;
    }
    connection.finish().await;
}

async fn tell(error: &Output, report: Option<Bytes>) -> Result<(), ClientGone> {
    match report {
        Some(report) => error.write(report).await,
        None => Ok(()),
    }
}

/// Channels of a WebSocket session.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// The channels on which clients of exec and attach send.
pub const CLIENT_CHANNELS: &[u8] = &[STDIN, RESIZE];

/// Serves an exec or attach session on WebSocket channels.
pub async fn serve_channels(
    mut channels: Channels,
    version: Version,
    session: &Session,
    backend: &dyn Backend,
) {
    let wanted = wanted(session);
    let output = |wanted: bool, channel| wanted.then(|| channels.output(channel));
    let stdout = output(wanted.stdout, STDOUT);
    let stderr = output(wanted.stderr, STDERR);
    let error = channels.output(ERROR);
    let io = Io {
        stdin: channels.input(STDIN).filter(|_| wanted.stdin),
        stdout: stdout.clone(),
        stderr: stderr.clone(),
        resizes: Resizes::new(channels.input(RESIZE).filter(|_| wanted.tty)),
    };
    // An empty message tells the client that the session has begun.
    let first = stdout.as_ref().or(stderr.as_ref()).unwrap_or(&error);
    if first.write(Bytes::new()).await.is_err() {
        return;
    }
    let outcome = tokio::select! {
        outcome = run(backend, session, io) => outcome,
        () = channels.closed() => return,
    };
    // A client that is gone by now needs no report.
    let _ = tell(&error, report(version, &outcome)).await;
    channels.finish().await;
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn sizes_come_one_by_one_however_they_are_cut() {
        let (send, receive) = mpsc::channel(8);
        for part in [
            "{\"Width\":80,\"Hei",
            "ght\":24}\n{\"Width\":1,\"Height\":2}",
            "garbage",
            "{\"Width\":70000,\"Height\":2}{\"Width\":3,\"Height\":4}",
        ] {
            send.send(Bytes::from(part)).await.expect("sent");
        }
        drop(send);
        let mut resizes = Resizes::new(Some(Input(receive)));
        let mut sizes = Vec::new();
        while let Some(size) = resizes.next().await {
            sizes.push((size.columns, size.rows));
        }
        assert_eq!(sizes, [(80, 24), (1, 2), (3, 4)]);
    }

    #[test]
    fn reports_are_those_that_clients_parse() {
        let parse = |outcome| {
            let bytes = report(Version::V4, &outcome).expect("report");
            serde_json::from_slice::<Value>(&bytes).expect("JSON")
        };
        assert_eq!(parse(Ok(0))["status"], "Success");
        let failure = parse(Ok(3));
        assert_eq!(failure["reason"], "NonZeroExitCode");
        assert_eq!(failure["details"]["causes"][0]["message"], "3");
        assert_eq!(parse(Err("no such file".into()))["code"], 500);
        assert_eq!(report(Version::V1, &Ok(0)), None);
    }
}
