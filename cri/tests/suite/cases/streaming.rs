//! Exec, attach and port-forward as kubectl does them, over both carriers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Case;
use crate::case;
use crate::env::Shared;
use crate::kubectl::{self, Api, Carrier};

pub fn cases() -> Vec<Case> {
    vec![
        case!("streaming/requests", requests),
        case!("streaming/exec", exec),
        case!("streaming/exec-gone", exec_gone, own),
        case!("streaming/attach", attach),
        case!("streaming/port-forward", port_forward),
        case!("streaming/many", many, long),
    ]
}

const CARRIERS: [Carrier; 2] = [Carrier::WebSocket, Carrier::Spdy];

fn request(id: &str, command: &[&str]) -> ExecRequest {
    ExecRequest {
        container_id: id.to_owned(),
        cmd: command.iter().map(|c| (*c).to_owned()).collect(),
        stdout: true,
        stderr: true,
        ..ExecRequest::default()
    }
}

/// Status line of a request to a streaming URL.
async fn open(url: &str) -> Result<(String, TcpStream)> {
    let rest = url.strip_prefix("http://").context("not plain HTTP")?;
    let (address, path) = rest.split_once('/').context("no path")?;
    let mut stream = TcpStream::connect(address).await?;
    let text = format!(
        "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok((String::from_utf8_lossy(&head).trim().to_owned(), stream))
}

async fn requests(env: Shared) -> Result<()> {
    let (_, _, id) = env.simple(&["sleep", "1000"]).await?;
    let mut client = env.runtime().await?;
    // What can't be is told at once.
    ensure!(client.exec(request("nonsense", &["true"])).await.is_err());
    let both = ExecRequest {
        tty: true,
        ..request(&id, &["true"])
    };
    ensure!(client.exec(both).await.is_err(), "terminal with stderr");
    let none = ExecRequest {
        stdout: false,
        stderr: false,
        ..request(&id, &["true"])
    };
    ensure!(client.exec(none).await.is_err(), "no stream");
    // A URL works once.
    let url = client.exec(request(&id, &["true"])).await?.into_inner().url;
    let (first, _stream) = open(&url).await?;
    ensure!(first.contains("101"), "{first}");
    let (second, _stream) = open(&url).await?;
    ensure!(second.contains("404"), "{second}");
    Ok(())
}

async fn exec(env: Shared) -> Result<()> {
    if !kubectl::installed() {
        return Ok(());
    }
    let (_, pod, id) = env.simple(&["sleep", "1000"]).await?;
    let api = Api::start(&env, &pod, &id, false).await?;
    let big: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    for carrier in CARRIERS {
        let script = "echo out; echo err >&2; exit 5";
        let done = api
            .run(carrier, &["exec", "p", "--", "sh", "-c", script], b"")
            .await?;
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.stdout == b"out\n", "{carrier:?} {done:?}");
        ensure!(stderr.starts_with("err\n"), "{carrier:?} {stderr}");
        ensure!(done.status.code() == Some(5), "{carrier:?} {done:?}");
        let done = api
            .run(carrier, &["exec", "-i", "p", "--", "cat"], &big)
            .await?;
        ensure!(done.status.success(), "{carrier:?} {done:?}");
        ensure!(done.stdout == big, "{carrier:?} {}", done.stdout.len());
        // The end of the input is told.
        let done = api
            .run(carrier, &["exec", "-i", "p", "--", "wc", "-c"], b"12345")
            .await?;
        ensure!(done.stdout.starts_with(b"5"), "{carrier:?} {done:?}");
        let done = api
            .run(carrier, &["exec", "p", "--", "/no/such"], b"")
            .await?;
        ensure!(!done.status.success(), "{carrier:?} {done:?}");
        let done = api
            .run(carrier, &["exec", "-it", "p", "--", "tty"], b"\n")
            .await?;
        // kubectl has no terminal here and asks for none.
        ensure!(
            done.stdout.starts_with(b"not a tty"),
            "{carrier:?} {done:?}"
        );
    }
    Ok(())
}

/// A client that hangs up takes its process along.
async fn exec_gone(env: Shared) -> Result<()> {
    let (_, _, id) = env.simple(&["sleep", "1000"]).await?;
    let mut client = env.runtime().await?;
    let url = client
        .exec(request(&id, &["sleep", "4242"]))
        .await?
        .into_inner()
        .url;
    let (line, stream) = open(&url).await?;
    ensure!(line.contains("101"), "{line}");
    let mut seen = false;
    for _ in 0..100 {
        seen = env.sh(&id, "ps").await?.contains("4242");
        if seen {
            break;
        }
    }
    ensure!(seen, "the process does not start");
    drop(stream);
    for _ in 0..100 {
        if !env.sh(&id, "ps").await?.contains("4242") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("the process lives on")
}

async fn attach(env: Shared) -> Result<()> {
    if !kubectl::installed() {
        return Ok(());
    }
    for carrier in CARRIERS {
        let config = env.pod_config();
        let pod = env.run_pod(&config).await?;
        let script = "while read line; do echo \"got $line\"; done; echo end";
        let mut container = env.container_config("main", &["sh", "-c", script]);
        container.stdin = true;
        container.stdin_once = true;
        let id = env.create(&pod, &config, &container).await?;
        env.start_container(&id).await?;
        let api = Api::start(&env, &pod, &id, false).await?;
        let done = api
            .run(carrier, &["attach", "-i", "p", "-c", "c"], b"one\ntwo\n")
            .await?;
        let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure!(
            stdout.contains("got one\ngot two\nend"),
            "{carrier:?} {done:?}"
        );
        let status = env.wait_exit(&id).await?;
        ensure!(status.exit_code == 0, "{status:?}");
        // What went to the client went to the log as well.
        let log = env.log(&status)?;
        ensure!(log.iter().any(|(_, _, line)| line == "got two"), "{log:?}");
    }
    Ok(())
}

async fn fetch(port: u16, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer))
        .await
        .context("no answer")??;
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n");
    Ok(answer.split_off(body.context("no header")? + 4))
}

async fn port_forward(env: Shared) -> Result<()> {
    if !kubectl::installed() {
        return Ok(());
    }
    let script = "mkdir /www && head -c 500000 /dev/urandom > /www/f && echo small > /www/s && \
                  exec httpd -f -p 127.0.0.1:8080 -h /www";
    let (_, pod, id) = env.simple(&["sh", "-c", script]).await?;
    let api = Api::start(&env, &pod, &id, false).await?;
    let mut sum = String::new();
    for _ in 0..100 {
        // The server comes up a little later.
        if env
            .sh(&id, "wget -q -O /dev/null http://127.0.0.1:8080/s")
            .await
            .is_ok()
        {
            sum = env.sh(&id, "busybox sha256sum < /www/f").await?;
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for carrier in CARRIERS {
        let mut child = api
            .command(carrier, &["port-forward", "pod/p", ":8080"])
            .spawn()?;
        let port = kubectl::forwarded(&mut child).await?;
        ensure!(fetch(port, "/s").await? == b"small\n", "{carrier:?}");
        let all = (0..16).map(|_| fetch(port, "/f"));
        for body in futures_util::future::join_all(all).await {
            let hex = crate::image::digest(&body?);
            ensure!(
                sum.contains(hex.trim_start_matches("sha256:")),
                "{carrier:?}"
            );
        }
        child.kill().await?;
    }
    Ok(())
}

/// A thousand sessions at once.
async fn many(env: Shared) -> Result<()> {
    let (_, _, id) = env.simple(&["sleep", "1000"]).await?;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let batch = (0..100).map(|_| {
            let (env, id) = (env.clone(), id.clone());
            async move {
                let mut client = env.runtime().await?;
                let attach = AttachRequest {
                    container_id: id,
                    stdout: true,
                    ..AttachRequest::default()
                };
                let url = client.attach(attach).await?.into_inner().url;
                let (line, stream) = open(&url).await?;
                ensure!(line.contains("101"), "{line}");
                anyhow::Ok(stream)
            }
        });
        for stream in futures_util::future::join_all(batch).await {
            streams.push(stream?);
        }
    }
    ensure!(streams.len() == 1000);
    ensure!(env.sh(&id, "echo still here").await? == "still here");
    Ok(())
}
