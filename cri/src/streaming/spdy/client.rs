//! A client for tests.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frame::{self, End, Frame};
use super::headers::{Deflater, Headers, Inflater};

/// What comes from the server.
#[derive(Debug)]
pub enum Event {
    Data(u32, Bytes),
    End,
    Other,
    Closed,
}

pub struct Client<I> {
    io: tokio::io::BufReader<I>,
    deflater: Deflater,
    inflater: Inflater,
    next_id: u32,
    received: HashMap<u32, Vec<u8>>,
    ended: HashSet<u32>,
}

impl Client<TcpStream> {
    /// Upgrades a request; answers the status if it is refused.
    pub async fn connect(url: &str, protocol: &str) -> Result<Self, u16> {
        let rest = url.trim_start_matches("http://");
        let (address, path) = rest.split_once('/').expect("path");
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!(
            "POST /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("answer"));
        }
        let head = String::from_utf8(head).expect("text");
        let status = head
            .split(' ')
            .nth(1)
            .expect("status")
            .parse()
            .expect("number");
        if status != 101 {
            return Err(status);
        }
        assert!(
            head.to_lowercase()
                .contains(&format!("x-stream-protocol-version: {protocol}"))
        );
        Ok(Self::on(stream))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Client<I> {
    pub fn on(io: I) -> Self {
        Self {
            io: tokio::io::BufReader::new(io),
            deflater: Deflater::new().expect("deflater"),
            inflater: Inflater::new(),
            next_id: 1,
            received: HashMap::new(),
            ended: HashSet::new(),
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.io.get_mut().write_all(bytes).await.expect("sent");
    }

    pub async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        let mut wire = Vec::new();
        frame::put_syn_stream(&mut wire, id, &Headers::of(headers), &mut self.deflater);
        self.write(&wire).await;
        id
    }

    pub async fn send(&mut self, id: u32, bytes: &[u8]) {
        let mut wire = Vec::new();
        frame::put_data_head(&mut wire, id, End::Open, bytes.len()).expect("head");
        wire.extend_from_slice(bytes);
        self.write(&wire).await;
    }

    pub async fn end(&mut self, id: u32) {
        let mut wire = Vec::new();
        frame::put_data_head(&mut wire, id, End::Fin, 0).expect("head");
        self.write(&wire).await;
    }

    /// Whether some of an event is there already.
    pub fn pending(&self) -> bool {
        !self.io.buffer().is_empty()
    }

    pub async fn next(&mut self) -> Event {
        match frame::read(&mut self.io, &mut self.inflater).await {
            Ok(Some(Frame::Data { id, end, bytes })) => {
                if end == End::Fin {
                    self.ended.insert(id);
                }
                if bytes.is_empty() {
                    Event::End
                } else {
                    Event::Data(id, bytes)
                }
            }
            Ok(Some(_)) => Event::Other,
            Ok(None) | Err(_) => Event::Closed,
        }
    }

    /// All data of a stream, up to its end.
    pub async fn data(&mut self, stream: u32) -> Vec<u8> {
        while !self.ended.contains(&stream) {
            match self.next().await {
                Event::Data(id, bytes) => {
                    self.received
                        .entry(id)
                        .or_default()
                        .extend_from_slice(&bytes);
                }
                Event::Closed => break,
                Event::End | Event::Other => {}
            }
        }
        self.received.remove(&stream).unwrap_or_default()
    }
}
