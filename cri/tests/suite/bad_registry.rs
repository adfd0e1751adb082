//! A registry that misbehaves as it is told, one blob at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::image::{Blob, configuration, digest};

#[derive(Clone, Debug, Default)]
pub enum Behaviour {
    #[default]
    Plain,
    /// Sends the first so many bytes, then nothing, for ever.
    Stall(usize),
    /// This status, so many times.
    Fail(u16, u32),
    /// Closes after so many bytes, so many times.
    Close(usize, u32),
    /// The same, and answers a range with the whole.
    CloseWithoutRanges(usize, u32),
    /// Sends to another server.
    Redirect(String),
    /// Sends this instead.
    Instead(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Content {
    media_type: String,
    bytes: Vec<u8>,
    behaviour: Behaviour,
}

#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub path: String,
    pub range: Option<String>,
    pub authorized: bool,
}

#[derive(Debug, Default)]
struct Shared {
    content: Mutex<HashMap<String, Content>>,
    seen: Mutex<Vec<Seen>>,
    password: bool,
}

pub struct BadRegistry {
    pub address: String,
    shared: Arc<Shared>,
}

/// A descriptor that may lie.
pub struct Layer {
    pub blob: Blob,
    pub behaviour: Behaviour,
    /// Added to the size.
    pub size: i64,
}

impl Layer {
    pub fn new(blob: Blob, behaviour: Behaviour) -> Self {
        Self {
            blob,
            behaviour,
            size: 0,
        }
    }
}

impl BadRegistry {
    /// On 127.0.0.1 or another address of the loopback; with `password` nothing
    /// is given without credentials.
    pub async fn start(host: &str, password: bool) -> Result<Self> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            password,
            ..Shared::default()
        });
        let inner = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away is no matter.
                tokio::spawn(serve(stream, Arc::clone(&inner)));
            }
        });
        Ok(Self { address, shared })
    }

    pub fn put(&self, path: String, media_type: &str, bytes: Vec<u8>, behaviour: Behaviour) {
        let content = Content {
            media_type: media_type.to_owned(),
            bytes,
            behaviour,
        };
        self.shared
            .content
            .lock()
            .expect("lock")
            .insert(path, content);
    }

    /// Makes an image NAME:1 and returns its whole name.
    pub fn image(&self, name: &str, layers: Vec<Layer>) -> String {
        let diff_ids: Vec<String> = layers.iter().map(|l| l.blob.diff_id.clone()).collect();
        let config = configuration(&diff_ids, &json!({"Cmd": ["sleep", "1000"]}));
        let mut descriptors = Vec::new();
        for layer in layers {
            let digest = digest(&layer.blob.bytes);
            let size = i64::try_from(layer.blob.bytes.len()).expect("small") + layer.size;
            descriptors.push(json!({
                "mediaType": layer.blob.media_type, "digest": digest, "size": size,
            }));
            let path = format!("/v2/{name}/blobs/{digest}");
            self.put(path, "", layer.blob.bytes, layer.behaviour);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": digest(&config), "size": config.len(),
            },
            "layers": descriptors,
        });
        let path = format!("/v2/{name}/blobs/{}", digest(&config));
        self.put(path, "", config, Behaviour::Plain);
        self.manifest(name, &manifest, Behaviour::Plain)
    }

    pub fn manifest(&self, name: &str, manifest: &serde_json::Value, how: Behaviour) -> String {
        let media_type = manifest
            .get("mediaType")
            .and_then(|t| t.as_str())
            .unwrap_or("application/vnd.docker.distribution.manifest.v1+prettyjws");
        let path = format!("/v2/{name}/manifests/1");
        self.put(path, media_type, manifest.to_string().into_bytes(), how);
        format!("{}/{name}:1", self.address)
    }

    /// Requests for paths with `part`.
    pub fn seen(&self, part: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().expect("lock");
        let matching = seen.iter().filter(|s| s.path.contains(part));
        matching.cloned().collect()
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if read.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let first = lines.first().context("no request")?;
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let header = |name: &str| {
            let mut found = lines.iter().filter_map(|line| line.split_once(": "));
            let found = found.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned())
        };
        let seen = Seen {
            path: path.to_owned(),
            range: header("range"),
            authorized: header("authorization").is_some(),
        };
        shared.seen.lock().expect("lock").push(seen.clone());
        if shared.password && !seen.authorized {
            let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\n\
                          Content-Length: 0\r\n\r\n";
            write.write_all(answer.as_bytes()).await?;
            continue;
        }
        if path == "/v2/" {
            write
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                .await?;
            continue;
        }
        let content = {
            let mut all = shared.content.lock().expect("lock");
            let found = all.get_mut(path);
            found.map(|content| {
                let now = content.clone();
                // How often is counted down.
                match &mut content.behaviour {
                    Behaviour::Fail(_, times)
                    | Behaviour::Close(_, times)
                    | Behaviour::CloseWithoutRanges(_, times) => *times = times.saturating_sub(1),
                    _ => {}
                }
                now
            })
        };
        let Some(content) = content else {
            let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            write.write_all(answer.as_bytes()).await?;
            continue;
        };
        if !answer(&mut write, &seen, content, method == "HEAD").await? {
            return Ok(());
        }
    }
}

/// False: the connection is to be closed.
async fn answer(
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    seen: &Seen,
    content: Content,
    head: bool,
) -> Result<bool> {
    let mut bytes = content.bytes;
    let mut most = usize::MAX;
    let mut stall = false;
    let mut ranges = true;
    match content.behaviour {
        Behaviour::Plain => {}
        Behaviour::Stall(after) => {
            most = after;
            stall = true;
        }
        Behaviour::Fail(code, times) if times > 0 => {
            let answer = format!("HTTP/1.1 {code} Trouble\r\nContent-Length: 8\r\n\r\ntrouble\n");
            write.write_all(answer.as_bytes()).await?;
            return Ok(true);
        }
        Behaviour::Close(after, times) if times > 0 => most = after,
        Behaviour::CloseWithoutRanges(after, times) => {
            ranges = false;
            if times > 0 {
                most = after;
            }
        }
        Behaviour::Redirect(to) => {
            let answer = format!(
                "HTTP/1.1 307 Elsewhere\r\nLocation: {to}{}\r\nContent-Length: 0\r\n\r\n",
                seen.path
            );
            write.write_all(answer.as_bytes()).await?;
            return Ok(true);
        }
        Behaviour::Instead(other) => bytes = other,
        Behaviour::Fail(..) | Behaviour::Close(..) => {}
    }
    let whole = bytes.len();
    let from = seen.range.as_deref().filter(|_| ranges).and_then(|r| {
        r.strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    let status = match from {
        Some(from) if from < whole => {
            bytes.drain(..from);
            format!(
                "206 Partial\r\nContent-Range: bytes {from}-{}/{whole}",
                whole - 1
            )
        }
        Some(_) => {
            let answer = "HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n";
            write.write_all(answer.as_bytes()).await?;
            return Ok(true);
        }
        None => "200 OK".to_owned(),
    };
    let head_text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        content.media_type,
        bytes.len()
    );
    write.write_all(head_text.as_bytes()).await?;
    if head {
        return Ok(true);
    }
    if stall {
        most = most.saturating_sub(from.unwrap_or(0));
    }
    let part = bytes.get(..bytes.len().min(most)).unwrap_or_default();
    write.write_all(part).await?;
    if stall {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    Ok(part.len() == bytes.len())
}
