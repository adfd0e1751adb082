//! Clients that mean no good, each in a process of its own: `suite hostile KIND
//! SOCKET` goes on until it is killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use runsc_cri::proto::runtime_service_client::RuntimeServiceClient;
use runsc_cri::proto::{GetEventsRequest, ListContainersRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::transport::Endpoint;

pub const KINDS: &[&str] = &["silent", "slow", "streams", "huge", "unread"];

/// RFC 9113, section 3.4, and empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A client in the background, killed when dropped.
pub struct Hostile(Child);

impl Hostile {
    pub fn start(kind: &str, socket: &Path) -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["hostile", kind])
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process of one.
pub fn run(mut args: impl Iterator<Item = String>) -> Result<()> {
    let kind = args.next().context("no kind")?;
    let socket = PathBuf::from(args.next().context("no socket")?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        match kind.as_str() {
            "silent" => many(&socket, b"").await,
            "slow" => many(&socket, PREFACE).await,
            "streams" => streams(&socket).await,
            "huge" => huge(&socket).await,
            "unread" => unread(&socket).await,
            other => bail!("{other:?} is not one of {KINDS:?}"),
        }
    })
}

/// Hundreds of connections that say this and no more; closed ones come again.
async fn many(socket: &Path, first: &'static [u8]) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let socket = socket.to_owned();
        tasks.spawn(async move {
            loop {
                if let Ok(mut stream) = UnixStream::connect(&socket).await {
                    let _ = stream.write_all(first).await;
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// 10,000 calls at once, and as many streams of events.
async fn streams(socket: &Path) -> Result<()> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    let channel = endpoint.connect().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..10_000 {
        let mut client = RuntimeServiceClient::new(channel.clone());
        tasks.spawn(async move {
            if number % 2 == 0 {
                if let Ok(events) = client.get_container_events(GetEventsRequest {}).await {
                    let mut events = events.into_inner();
                    while let Ok(Some(_)) = events.message().await {}
                }
                return;
            }
            loop {
                let list = client.list_containers(ListContainersRequest::default());
                let _ = list.await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Requests of as many bytes as the windows take, on many streams at once, none
/// of which ever ends.
async fn huge(socket: &Path) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let socket = socket.to_owned();
        tasks.spawn(async move {
            loop {
                let _ = fill(&socket).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// HEADERS of a call of this method, without indexing and Huffman codes.
fn headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    for (name, value) in [
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend(text.as_bytes());
        }
    }
    block
}

async fn fill(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(PREFACE).await?;
    let block = headers("/runtime.v1.ImageService/PullImage");
    let mut message = vec![0u8];
    message.extend((15u32 << 20).to_be_bytes());
    message.resize(16 << 10, b'x');
    for number in 0..500u32 {
        let id = number * 2 + 1;
        stream.write_all(&frame(1, 4, id, &block)).await?;
        for _ in 0..3 {
            stream.write_all(&frame(0, 0, id, &message)).await?;
        }
    }
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Asks for lists and reads none of the answers.
async fn unread(socket: &Path) -> Result<()> {
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(PREFACE).await?;
        let block = headers("/runtime.v1.ImageService/ListImages");
        for number in 0..1000u32 {
            let id = number * 2 + 1;
            stream.write_all(&frame(1, 4, id, &block)).await?;
            stream.write_all(&frame(0, 1, id, &[0; 5])).await?;
        }
        open.push(stream);
    }
    std::future::pending::<()>().await;
    Ok(())
}
