//! ttrpc, containerd's small RPC protocol: frames of a ten-byte header
//! (length and stream id, both big-endian, type, flags) and a protobuf message
//! (`PROTOCOL.md` of containerd/ttrpc). Unary calls only; the task service has
//! no others.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use prost::Message;

use crate::messages::{Request, Response, Status};

const HEADER_LEN: usize = 10;
/// Longest message of the protocol.
const MESSAGE_MAX: usize = 4 << 20;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// Error codes (`google.rpc.Code`) that containerd tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    FailedPrecondition = 9,
    Unimplemented = 12,
}

/// What a method fails with.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    pub message: String,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<anyhow::Error> for Error {
    fn from(err: anyhow::Error) -> Self {
        Self::new(Code::Unknown, format!("{err:#}"))
    }
}

impl From<prost::DecodeError> for Error {
    fn from(err: prost::DecodeError) -> Self {
        Self::new(Code::InvalidArgument, err.to_string())
    }
}

/// Carries out calls.
pub trait Service: Send + Sync + 'static {
    fn call(&self, service: &str, method: &str, payload: &[u8]) -> Result<Vec<u8>, Error>;
}

struct Frame {
    stream: u32,
    kind: u8,
    message: Vec<u8>,
}

/// `None` at the end of the connection.
fn read_frame(mut from: impl Read) -> Result<Option<Frame>> {
    let mut header = [0; HEADER_LEN];
    if let Err(err) = from.read_exact(&mut header) {
        return match err.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => Ok(None),
            _ => Err(err).context("connection can't be read"),
        };
    }
    let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = header;
    let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    ensure!(len <= MESSAGE_MAX, "message of {len} bytes is too long");
    let mut message = vec![0; len];
    from.read_exact(&mut message)
        .context("message is cut off")?;
    Ok(Some(Frame {
        stream: u32::from_be_bytes([s0, s1, s2, s3]),
        kind,
        message,
    }))
}

fn write_frame(mut to: impl Write, stream: u32, kind: u8, message: &[u8]) -> Result<()> {
    ensure!(message.len() <= MESSAGE_MAX, "message is too long");
    let len = u32::try_from(message.len()).context("message is too long")?;
    let mut bytes = Vec::with_capacity(HEADER_LEN + message.len());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(message);
    to.write_all(&bytes).context("connection can't be written")
}

/// Serves connections until the listener fails. Each call has a thread of its
/// own, so that it may wait.
pub fn serve(listener: &UnixListener, service: &Arc<impl Service>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { break };
        let service = service.clone();
        // A connection that can't get a thread is dropped, which its client
        // reports.
        let _ = std::thread::Builder::new()
            .name("connection".to_owned())
            .spawn(move || {
                if let Err(err) = converse(&stream, &service) {
                    crate::serve::note(format_args!("connection: {err:#}"));
                }
            });
    }
}

fn converse(stream: &UnixStream, service: &Arc<impl Service>) -> Result<()> {
    let writer = Arc::new(Mutex::new(stream.try_clone()?));
    while let Some(frame) = read_frame(stream)? {
        if frame.kind != REQUEST {
            bail!("frame of type {} where a request was due", frame.kind);
        }
        let (writer, service) = (writer.clone(), service.clone());
        std::thread::Builder::new()
            .name("call".to_owned())
            .spawn(move || {
                let answer = answer(&*service, &frame.message);
                let bytes = answer.encode_to_vec();
                // The client may be gone; nobody else waits for the answer.
                let _ = write_frame(&*writer.lock(), frame.stream, RESPONSE, &bytes);
            })
            .context("a thread can't be made")?;
    }
    Ok(())
}

fn answer(service: &impl Service, message: &[u8]) -> Response {
    let result = Request::decode(message)
        .map_err(Error::from)
        .and_then(|request| service.call(&request.service, &request.method, &request.payload));
    match result {
        Ok(payload) => Response {
            status: None,
            payload,
        },
        Err(err) => Response {
            status: Some(Status {
                code: err.code as i32,
                message: err.message,
            }),
            payload: Vec::new(),
        },
    }
}

/// A client that makes one call at a time.
pub struct Client {
    stream: UnixStream,
    next_stream: u32,
}

impl Client {
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)
            .with_context(|| format!("{} can't be reached", path.display()))?;
        Ok(Self {
            stream,
            next_stream: 1,
        })
    }

    pub fn call(&mut self, service: &str, method: &str, message: &impl Message) -> Result<Vec<u8>> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: message.encode_to_vec(),
            timeout_nano: 0,
        };
        let stream = self.next_stream;
        // Clients' streams have odd numbers.
        self.next_stream = self.next_stream.wrapping_add(2);
        write_frame(&self.stream, stream, REQUEST, &request.encode_to_vec())?;
        loop {
            let frame = read_frame(&self.stream)?.context("the peer has gone")?;
            if frame.kind != RESPONSE || frame.stream != stream {
                continue;
            }
            let response = Response::decode(frame.message.as_slice())?;
            return match response.status {
                Some(status) if status.code != 0 => bail!("{}", status.message),
                _ => Ok(response.payload),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Service for Echo {
        fn call(&self, service: &str, method: &str, payload: &[u8]) -> Result<Vec<u8>, Error> {
            match (service, method) {
                ("echo", "Echo") => Ok(payload.to_vec()),
                _ => Err(Error::new(Code::Unimplemented, format!("no {method}"))),
            }
        }
    }

    #[test]
    fn calls_are_answered_and_bad_frames_end_the_connection() {
        let dir = std::env::temp_dir().join(format!("shim-ttrpc-{}", std::process::id()));
        let listener = UnixListener::bind(&dir).expect("bind");
        std::thread::spawn(move || serve(&listener, &Arc::new(Echo)));
        let mut client = Client::connect(&dir).expect("connect");
        let message = Status {
            code: 7,
            message: "x".to_owned(),
        };
        for _ in 0..3 {
            let echoed = client.call("echo", "Echo", &message).expect("call");
            assert_eq!(Status::decode(echoed.as_slice()), Ok(message.clone()));
        }
        let refused = client.call("echo", "Shout", &message);
        assert_eq!(refused.expect_err("no method").to_string(), "no Shout");
        let mut raw = UnixStream::connect(&dir).expect("connect");
        raw.write_all(&[0xff; HEADER_LEN]).expect("write");
        assert_eq!(raw.read(&mut [0; 4]).expect("read"), 0);
        let _ = std::fs::remove_file(&dir);
    }
}
