//! Clients of the socket: what one of them does is not felt by the others.

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::Shared;
use crate::hostile::{Hostile, KINDS};

pub fn cases() -> Vec<Case> {
    vec![
        case!("clients/hostile", hostile, own),
        case!("clients/too-large", too_large, own),
        case!("clients/activation", activation, own),
    ]
}

/// While others open connections, streams and requests without end, a pod runs
/// and lists come at once.
async fn hostile(env: Shared) -> Result<()> {
    for kind in KINDS {
        let others = [
            Hostile::start(kind, &env.socket)?,
            Hostile::start(kind, &env.socket)?,
        ];
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begin = Instant::now();
        let (config, pod, id) = env.simple(&["sleep", "1000"]).await?;
        ensure!(env.sh(&id, "echo alive").await? == "alive");
        ensure!(config.metadata.is_some());
        env.remove_pod(&pod).await?;
        let ran = begin.elapsed();
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let begin = Instant::now();
            let mut client = env.runtime().await?;
            client
                .list_containers(ListContainersRequest::default())
                .await?;
            slowest = slowest.max(begin.elapsed());
        }
        let memory = super::load::memory(env.daemon_pid())? >> 20;
        println!("   {kind}: a pod {ran:.2?}, slowest list {slowest:.2?}, daemon {memory} MiB");
        ensure!(
            ran < Duration::from_secs(15),
            "{kind}: the pod took {ran:?}"
        );
        ensure!(
            slowest < Duration::from_secs(3),
            "{kind}: a list took {slowest:?}"
        );
        ensure!(memory < 200, "{kind}: the daemon has {memory} MiB");
        drop(others);
    }
    // All of it is given back.
    let fds = format!("/proc/{}/fd", env.daemon_pid());
    crate::env::wait_for("the end of the connections", || {
        std::fs::read_dir(&fds).is_ok_and(|all| all.count() < 60)
    })
    .await
}

/// Requests beyond the limit are refused, and nothing else happens.
async fn too_large(env: Shared) -> Result<()> {
    let mut client = env.runtime().await?;
    let request = ExecSyncRequest {
        container_id: "x".repeat(17 << 20),
        ..ExecSyncRequest::default()
    };
    let answer = client.exec_sync(request).await;
    let code = answer.err().context("taken")?.code();
    ensure!(code == tonic::Code::OutOfRange, "{code:?}");
    client.version(VersionRequest::default()).await?;
    Ok(())
}

/// A socket that the service manager made, and what it is told.
async fn activation(env: Shared) -> Result<()> {
    let dir = env.dir.join("activated");
    std::fs::create_dir_all(&dir)?;
    let (socket, told) = (dir.join("cri.sock"), dir.join("notify"));
    let listener = UnixListener::bind(&socket)?;
    let manager = UnixDatagram::bind(&told)?;
    manager.set_read_timeout(Some(Duration::from_secs(20)))?;
    let hear = || -> Result<String> {
        let mut text = [0u8; 256];
        let len = tokio::task::block_in_place(|| manager.recv(&mut text))?;
        Ok(String::from_utf8_lossy(text.get(..len).unwrap_or_default()).into_owned())
    };
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    let mut daemon = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_runsc-cri")])
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--state")
        .arg(dir.join("state"))
        .env("NOTIFY_SOCKET", &told)
        .env("WATCHDOG_USEC", "200000")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stderr(Stdio::null())
        .spawn()?;
    let works = async {
        ensure!(hear()? == "READY=1");
        ensure!(hear()? == "WATCHDOG=1");
        let uri = format!("unix://{}", socket.display());
        let channel = tonic::transport::Endpoint::from_shared(uri)?
            .connect()
            .await?;
        let mut client = runtime_service_client::RuntimeServiceClient::new(channel);
        client.version(VersionRequest::default()).await?;
        // Passed on to nobody.
        let fds = format!("/proc/{}/fdinfo/3", daemon.id());
        let flags = std::fs::read_to_string(fds)?;
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.context("no flags")?.trim(), 8)?;
        ensure!(flags & 0o2_000_000 != 0, "not close-on-exec: {flags:o}");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        while hear()? != "STOPPING=1" {}
        anyhow::Ok(())
    };
    let works = works.await;
    if works.is_err() {
        let _ = daemon.kill();
    }
    let status = tokio::task::block_in_place(|| daemon.wait())?;
    works?;
    ensure!(status.success(), "{status}");
    ensure!(socket.exists(), "the manager's socket is gone");
    Ok(())
}
