//! Sessions from a client's side of the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::spdy::client::{Client, Event};
use super::*;

/// Echoes stdin to stdout, tells sizes on stderr, exits with 7. Forwarded
/// connections are echoed; port 1 refuses.
struct Echo;

impl Backend for Echo {
    fn exec<'a>(&'a self, exec: &'a Exec, mut io: Io) -> BoxFuture<'a, Result<i32, String>> {
        Box::pin(async move {
            if exec.command.first().is_none_or(|word| word != "echo") {
                return Err(format!("{:?} is not there", exec.command));
            }
            if let Some(size) = io.resizes.next().await {
                let text = format!("{}x{}\n", size.columns, size.rows);
                let stdout = io.stdout.as_ref().ok_or("no stdout")?;
                stdout
                    .write(text.into())
                    .await
                    .map_err(|err| err.to_string())?;
            }
            let mut stdin = io.stdin.ok_or("no stdin")?;
            let stdout = io.stdout.ok_or("no stdout")?;
            while let Some(bytes) = stdin.next().await {
                stdout.write(bytes).await.map_err(|err| err.to_string())?;
            }
            Ok(7)
        })
    }

    fn attach<'a>(&'a self, _: &'a Attach, _: Io) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn connect<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Duplex>>> {
        Box::pin(async move {
            if port == 1 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(1000);
            tokio::spawn(async move {
                let (mut from, mut to) = tokio::io::split(far);
                // The other side may leave at any time.
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
            });
            Ok(Box::new(near) as Box<dyn Duplex>)
        })
    }
}

async fn server() -> Server {
    let mut config = Config::new(([127, 0, 0, 1], 0).into());
    config.idle_timeout = Duration::from_secs(5);
    Server::start(config, Arc::new(Echo)).await.expect("server")
}

fn exec(command: &str, tty: bool) -> Session {
    Session::Exec(Exec {
        container_id: "c".into(),
        command: vec![command.into()],
        streams: Wanted {
            stdin: true,
            stdout: true,
            stderr: !tty,
            tty,
        },
    })
}

fn forward(ports: &[u16]) -> Session {
    Session::PortForward(PortForward {
        sandbox_id: "s".into(),
        ports: ports.to_vec(),
    })
}

async fn spdy(url: &str, protocol: &str) -> Client<TcpStream> {
    Client::connect(url, protocol).await.expect("connection")
}

#[tokio::test]
async fn exec_over_spdy_echoes_and_reports_its_exit_code() {
    let server = server().await;
    let mut client = spdy(
        &server.url(exec("echo", false)).expect("url"),
        "v4.channel.k8s.io",
    )
    .await;
    let error = client.open(&[("streamType", "error")]).await;
    let stdin = client.open(&[("streamType", "stdin")]).await;
    let stdout = client.open(&[("streamType", "stdout")]).await;
    client.open(&[("streamType", "stderr")]).await;
    let text = vec![b'x'; 3 << 20];
    let mut received = Vec::new();
    for part in text.chunks(60_000) {
        client.send(stdin, part).await;
        // As much as there is, so that neither side fills up.
        while received.len() + 1_000_000 < text.len() && client.pending() {
            if let Event::Data(id, bytes) = client.next().await {
                assert_eq!(id, stdout);
                received.extend_from_slice(&bytes);
            }
        }
    }
    client.end(stdin).await;
    let mut status = Vec::new();
    loop {
        match client.next().await {
            Event::Data(id, bytes) if id == stdout => received.extend_from_slice(&bytes),
            Event::Data(id, bytes) if id == error => status.extend_from_slice(&bytes),
            Event::Closed => break,
            _ => {}
        }
    }
    assert!(received == text);
    let status: serde_json::Value = serde_json::from_slice(&status).expect("status");
    assert_eq!(status["details"]["causes"][0]["message"], "7");
}

#[tokio::test]
async fn terminal_sizes_arrive_and_unknown_commands_are_reported() {
    let server = server().await;
    let mut client = spdy(
        &server.url(exec("echo", true)).expect("url"),
        "v4.channel.k8s.io",
    )
    .await;
    client.open(&[("streamType", "error")]).await;
    let stdin = client.open(&[("streamType", "stdin")]).await;
    let stdout = client.open(&[("streamType", "stdout")]).await;
    let resize = client.open(&[("streamType", "resize")]).await;
    client
        .send(resize, b"{\"Width\":120,\"Height\":40}\n")
        .await;
    client.end(stdin).await;
    assert_eq!(client.data(stdout).await, b"120x40\n");

    let mut client = spdy(
        &server.url(exec("nope", true)).expect("url"),
        "v4.channel.k8s.io",
    )
    .await;
    let error = client.open(&[("streamType", "error")]).await;
    for kind in ["stdin", "stdout", "resize"] {
        client.open(&[("streamType", kind)]).await;
    }
    let status = client.data(error).await;
    assert!(String::from_utf8_lossy(&status).contains("is not there"));
}

#[tokio::test]
async fn urls_work_once_and_foreign_protocols_are_refused() {
    let server = server().await;
    let url = server.url(exec("echo", false)).expect("url");
    assert_eq!(
        Client::connect(&url, "v9.channel.k8s.io").await.err(),
        Some(403)
    );
    assert_eq!(
        Client::connect(&url, "v4.channel.k8s.io").await.err(),
        Some(404)
    );
    let url = server
        .url(exec("echo", false))
        .expect("url")
        .replace("/exec/", "/attach/");
    assert_eq!(
        Client::connect(&url, "v4.channel.k8s.io").await.err(),
        Some(404)
    );
}

#[tokio::test]
async fn connections_are_forwarded_side_by_side_and_refusals_told() {
    let server = server().await;
    let mut client = spdy(
        &server.url(forward(&[])).expect("url"),
        "portforward.k8s.io",
    )
    .await;
    let mut open = async |port: &str, request: &str| {
        let id = [("port", port), ("requestID", request)];
        let error = client.open(&[id[0], id[1], ("streamType", "error")]).await;
        let data = client.open(&[id[0], id[1], ("streamType", "data")]).await;
        (data, error)
    };
    let (first, _) = open("80", "0").await;
    let (second, _) = open("81", "1").await;
    let (_, refused) = open("1", "2").await;
    client.send(first, b"one").await;
    client.send(second, b"two").await;
    client.end(second).await;
    client.end(first).await;
    assert!(
        client
            .data(refused)
            .await
            .starts_with(b"failed to connect to port 1 ")
    );
    assert_eq!(client.data(first).await, b"one");
    assert_eq!(client.data(second).await, b"two");
}

type WebSocket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn websocket(url: &str, protocol: &'static str) -> WebSocket {
    let address = url
        .trim_start_matches("http://")
        .split('/')
        .next()
        .expect("address");
    let stream = TcpStream::connect(address).await.expect("connected");
    let mut request = url
        .replace("http", "ws")
        .into_client_request()
        .expect("request");
    let name = hyper::header::SEC_WEBSOCKET_PROTOCOL;
    request
        .headers_mut()
        .insert(name, protocol.parse().expect("protocol"));
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .expect("upgrade");
    socket
}

async fn message(socket: &mut WebSocket) -> Option<Vec<u8>> {
    while let Some(Ok(frame)) = socket.next().await {
        match frame {
            Frame::Binary(_) | Frame::Text(_) => return Some(frame.into_data().to_vec()),
            Frame::Close(reason) => {
                let code = reason.expect("a reason").code;
                assert_eq!(code, CloseCode::Normal);
                return None;
            }
            _ => {}
        }
    }
    None
}

#[tokio::test]
async fn exec_over_websocket_ends_stdin_by_its_channel() {
    let server = server().await;
    let url = server.url(exec("echo", false)).expect("url");
    let mut socket = websocket(&url, "v5.channel.k8s.io, v4.channel.k8s.io").await;
    assert_eq!(message(&mut socket).await.as_deref(), Some(&[1][..]));
    socket
        .send(Frame::Binary(Bytes::from_static(b"\x00hello")))
        .await
        .expect("sent");
    assert_eq!(
        message(&mut socket).await.as_deref(),
        Some(&b"\x01hello"[..])
    );
    socket
        .send(Frame::Binary(Bytes::from_static(b"\xff\x00")))
        .await
        .expect("sent");
    let status = message(&mut socket).await.expect("status");
    assert_eq!(status.first(), Some(&3));
    assert!(String::from_utf8_lossy(&status).contains("NonZeroExitCode"));
    assert_eq!(message(&mut socket).await, None);
}

#[tokio::test]
async fn base64_channels_carry_text() {
    let server = server().await;
    let url = server.url(forward(&[8080])).expect("url");
    let mut socket = websocket(&url, "v4.base64.channel.k8s.io").await;
    // 8080 is 0x1f90, its low byte first.
    assert_eq!(message(&mut socket).await.as_deref(), Some(&b"0kB8="[..]));
    assert_eq!(message(&mut socket).await.as_deref(), Some(&b"1kB8="[..]));
    socket.send(Frame::text("0aGk=")).await.expect("sent");
    assert_eq!(message(&mut socket).await.as_deref(), Some(&b"0aGk="[..]));
}

#[tokio::test]
async fn spdy_is_tunnelled_through_websockets() {
    let server = server().await;
    let url = server.url(forward(&[])).expect("url");
    let socket = websocket(&url, "SPDY/3.1+portforward.k8s.io").await;
    let mut client = Client::on(super::websocket::tunnel(socket));
    let error = client
        .open(&[("port", "80"), ("requestID", "0"), ("streamType", "error")])
        .await;
    let data = client
        .open(&[("port", "80"), ("requestID", "0"), ("streamType", "data")])
        .await;
    client.send(data, b"through").await;
    client.end(data).await;
    assert_eq!(client.data(data).await, b"through");
    assert_eq!(client.data(error).await, b"");
}
