//! A connection to a port inside a sandbox whose network is not the host's:
//! through the runtime (`port-forward --stdio`).

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// Bytes of the runtime's complaint that are passed on.
const MAX_COMPLAINT: u64 = 4096;

/// Options of the runtime give its sandboxes a network of their own, which
/// can't be entered from outside.
pub fn is_apart(options: &[String]) -> bool {
    let mut words = options.iter().flat_map(|option| option.split('='));
    let named = words
        .by_ref()
        .any(|word| word == "--network" || word == "-network");
    named && words.next().is_some_and(|network| network != "host")
}

/// Input and output of the runtime's process, which ends with this.
#[derive(Debug)]
pub struct SandboxPort {
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// Waits for the end: what went wrong, if something did.
    end: JoinHandle<Option<String>>,
    /// The end has been told; it is not asked for again.
    told: bool,
}

impl Drop for SandboxPort {
    fn drop(&mut self) {
        // The process is killed with its handle.
        self.end.abort();
    }
}

/// Starts the runtime; `line` is its command line with global arguments.
pub fn open(line: &[String], sandbox: &str, port: u16) -> io::Result<SandboxPort> {
    let missing = || io::Error::other("the runtime has no pipes");
    let (program, arguments) = line.split_first().ok_or_else(missing)?;
    let mut child = Command::new(program)
        .args(arguments)
        .args(["port-forward", "--stdio", sandbox, &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let input = child.stdin.take();
    let output = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let end = tokio::spawn(async move {
        let mut complaint = Vec::new();
        let _ = stderr.take(MAX_COMPLAINT).read_to_end(&mut complaint).await;
        match child.wait().await {
            Ok(status) if status.success() => None,
            Ok(status) if complaint.is_empty() => Some(status.to_string()),
            Ok(_) => Some(String::from_utf8_lossy(&complaint).trim().to_owned()),
            Err(err) => Some(err.to_string()),
        }
    });
    Ok(SandboxPort {
        input,
        output,
        end,
        told: false,
    })
}

impl AsyncRead for SandboxPort {
    /// The end of the output is an error where the runtime says so.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.output).poll_read(cx, buffer);
        if !matches!(read, Poll::Ready(Ok(()))) || buffer.filled().len() > before {
            return read;
        }
        if self.told {
            return read;
        }
        match Pin::new(&mut self.end).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(end) => {
                self.told = true;
                match end {
                    Ok(Some(complaint)) => Poll::Ready(Err(io::Error::other(complaint))),
                    _ => Poll::Ready(Ok(())),
                }
            }
        }
    }
}

impl AsyncWrite for SandboxPort {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A pipe ends when it is closed.
        self.input = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[test]
    fn networks() {
        let apart = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            is_apart(&options)
        };
        assert!(!apart(&[]));
        assert!(!apart(&["--platform=ptrace", "--network=host"]));
        assert!(!apart(&["--network", "host"]));
        assert!(apart(&["--network=none", "--strace"]));
        assert!(apart(&["--network", "sandbox"]));
    }

    fn shell(script: &str) -> SandboxPort {
        // `sh -c SCRIPT port-forward --stdio box 1`
        let line = ["sh", "-c", script].map(str::to_owned);
        open(&line, "box", 1).expect("started")
    }

    #[tokio::test]
    async fn both_ways_and_half_closed() {
        let mut port = shell("echo $2 $3; cat; echo end");
        port.write_all(b"hello\n").await.expect("written");
        port.shutdown().await.expect("closed");
        let mut text = String::new();
        port.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "box 1\nhello\nend\n");
    }

    #[tokio::test]
    async fn a_complaint_is_an_error() {
        let mut port = shell("echo no such port >&2; exit 1");
        let mut text = String::new();
        let err = port.read_to_string(&mut text).await.expect_err("refused");
        assert_eq!(err.to_string(), "no such port");
    }
}
