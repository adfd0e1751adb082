//! Just enough of an API server for `kubectl exec|attach|port-forward` of one
//! pod with one container: it asks the CRI for a URL and passes the bytes on,
//! as kubelet and API server do.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use runsc_cri::proto::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::env::Shared;

#[derive(Clone, Copy, Debug)]
pub enum Carrier {
    WebSocket,
    Spdy,
}

pub struct Api {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nothing to test with where there is no kubectl.
pub fn installed() -> bool {
    let found = std::process::Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        println!("   (kubectl is not installed: its part is left out)");
    }
    found
}

impl Api {
    pub async fn start(env: &Shared, pod: &str, container: &str, tty: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let target = Arc::new(Target {
            env: Arc::clone(env),
            pod: pod.to_owned(),
            container: container.to_owned(),
            tty,
        });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let target = Arc::clone(&target);
                tokio::spawn(async move {
                    if let Err(err) = target.serve(stream).await {
                        println!("   api server: {err:#}");
                    }
                });
            }
        });
        Ok(Self { port, task })
    }

    pub fn command(&self, carrier: Carrier, args: &[&str]) -> tokio::process::Command {
        let web_socket = matches!(carrier, Carrier::WebSocket).to_string();
        let mut command = tokio::process::Command::new("kubectl");
        command
            .arg(format!("--server=http://127.0.0.1:{}", self.port))
            .arg("--cache-dir=/tmp/cri-suite-kubectl")
            .args(args)
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", &web_socket)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", &web_socket)
            .env("KUBECONFIG", "/dev/null")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs to the end, with this input.
    pub async fn run(&self, carrier: Carrier, args: &[&str], input: &[u8]) -> Result<Output> {
        let mut command = self.command(carrier, args);
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                let _ = stdin.write_all(input).await;
            }
        };
        let all = async { tokio::join!(feed, child.wait_with_output()).1 };
        Ok(tokio::time::timeout(Duration::from_secs(30), all)
            .await
            .with_context(|| format!("kubectl {args:?} does not end"))??)
    }
}

struct Target {
    env: Shared,
    pod: String,
    container: String,
    tty: bool,
}

impl Target {
    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return Ok(()),
                }
            }
            let head = String::from_utf8(head)?;
            let (line, rest) = head.split_once("\r\n").context("no request line")?;
            let mut words = line.split(' ');
            let (method, target) = (words.next().context("verb")?, words.next().context("path")?);
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let url = match path.rsplit('/').next() {
                Some("exec") => self.exec(query).await?,
                Some("attach") => self.attach(query).await?,
                Some("portforward") => self.port_forward().await?,
                _ => {
                    let body = self.object(path).to_string();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    stream.write_all(answer.as_bytes()).await?;
                    continue;
                }
            };
            let url = url.strip_prefix("http://").context("not plain HTTP")?;
            let (address, path) = url.split_once('/').context("no path")?;
            let mut server = TcpStream::connect(address).await?;
            let request = format!("{method} /{path} HTTP/1.1\r\n{rest}");
            server.write_all(request.as_bytes()).await?;
            // Either side may hang up on the other.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            return Ok(());
        }
    }

    fn object(&self, path: &str) -> Value {
        match path {
            "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
            "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
            "/api/v1" => json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                {"name": "pods", "namespaced": true, "kind": "Pod", "verbs": ["get"]},
            ]}),
            _ => json!({
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {"name": "p", "namespace": "default"},
                "spec": {"containers": [
                    {"name": "c", "stdin": true, "stdinOnce": true, "tty": self.tty},
                ]},
                "status": {"phase": "Running"},
            }),
        }
    }

    async fn exec(&self, query: &str) -> Result<String> {
        let has = |name: &str| query.split('&').any(|p| p == format!("{name}=true"));
        let cmd = query
            .split('&')
            .filter_map(|p| p.strip_prefix("command="))
            .map(decode)
            .collect();
        let request = ExecRequest {
            container_id: self.container.clone(),
            cmd,
            tty: has("tty"),
            stdin: has("stdin"),
            stdout: has("stdout"),
            stderr: has("stderr"),
        };
        Ok(self
            .env
            .runtime()
            .await?
            .exec(request)
            .await?
            .into_inner()
            .url)
    }

    async fn attach(&self, query: &str) -> Result<String> {
        let has = |name: &str| query.split('&').any(|p| p == format!("{name}=true"));
        let request = AttachRequest {
            container_id: self.container.clone(),
            tty: has("tty"),
            stdin: has("stdin"),
            stdout: has("stdout"),
            stderr: has("stderr"),
        };
        let answer = self.env.runtime().await?.attach(request).await?;
        Ok(answer.into_inner().url)
    }

    async fn port_forward(&self) -> Result<String> {
        let request = PortForwardRequest {
            pod_sandbox_id: self.pod.clone(),
            port: Vec::new(),
        };
        let answer = self.env.runtime().await?.port_forward(request).await?;
        Ok(answer.into_inner().url)
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The local port of a `port-forward` that has begun.
pub async fn forwarded(child: &mut tokio::process::Child) -> Result<u16> {
    let stdout = child.stdout.as_mut().context("no stdout")?;
    let mut line = Vec::new();
    let read = async {
        loop {
            match stdout.read_u8().await? {
                b'\n' => return anyhow::Ok(()),
                byte => line.push(byte),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .context("kubectl forwards nothing")??;
    let text = String::from_utf8_lossy(&line).into_owned();
    let port = text
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|t| t.split(' ').next())
        .and_then(|p| p.parse().ok());
    match port {
        Some(port) => Ok(port),
        None => bail!("{text:?}"),
    }
}
