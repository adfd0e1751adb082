//! Death of the daemon, of supervisors, of the machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::{BUSYBOX, Shared, read_log};

pub fn cases() -> Vec<Case> {
    vec![
        case!("crash/daemon", daemon, own),
        case!("crash/exec-in-flight", exec_in_flight, own),
        case!("crash/supervisor", supervisor, own),
        case!("crash/reboot", reboot, own),
        case!("crash/graceful", graceful, own),
    ]
}

pub fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    );
}

pub fn supervisor_pid(env: &Shared, pod: &str) -> Result<i32> {
    let path = env.dir.join("state/pods").join(pod).join("supervisor.pid");
    Ok(std::fs::read_to_string(path)?.trim().parse()?)
}

/// What must be gone when all pods are removed.
pub async fn nothing_left(env: &Shared) -> Result<()> {
    let mut reason = String::new();
    for _ in 0..100 {
        reason = left(env)?;
        if reason.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{reason}")
}

fn left(env: &Shared) -> Result<String> {
    let state = env.dir.join("state").display().to_string();
    let root = env.dir.join("root").display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    for line in mounts.lines() {
        if line.contains(&state) || line.contains(&format!("{root}/containers")) {
            return Ok(format!("mount {line}"));
        }
    }
    for dir in [
        "state/pods",
        "state/containers",
        "root/pods",
        "root/containers",
    ] {
        if let Some(entry) = std::fs::read_dir(env.dir.join(dir))?.flatten().next() {
            return Ok(format!("{}", entry.path().display()));
        }
    }
    for handler in std::fs::read_dir(env.dir.join("state/runtimes"))?.flatten() {
        for entry in std::fs::read_dir(handler.path())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.len() == 64 {
                return Ok(format!("runtime state {}", entry.path().display()));
            }
        }
    }
    if let Ok(addresses) = std::fs::read_dir(env.dir.join("ipam/suite")) {
        for entry in addresses.flatten() {
            if entry.file_name().to_string_lossy().starts_with("10.77.") {
                return Ok(format!("address {}", entry.path().display()));
            }
        }
    }
    for process in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&state) || line.contains(&root) {
            return Ok(format!("process {} {line}", process.path().display()));
        }
    }
    for entry in std::fs::read_dir(env.dir.join("root/layers"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("tmp-") {
            return Ok(format!("half a layer {}", entry.path().display()));
        }
    }
    for dir in ["state/s", "state/tmp"] {
        if let Some(entry) = std::fs::read_dir(env.dir.join(dir))?.flatten().next() {
            return Ok(format!("{}", entry.path().display()));
        }
    }
    if let Some(group) = cgroup_left(env)? {
        return Ok(format!("cgroup {group}"));
    }
    let links = Command::new("ip")
        .args(["-o", "link", "show", "type", "veth"])
        .output()?;
    let links = String::from_utf8_lossy(&links.stdout).trim().to_owned();
    Ok(links)
}

/// A container's cgroup, in any hierarchy.
fn cgroup_left(env: &Shared) -> Result<Option<String>> {
    let top = std::path::PathBuf::from("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(&top)?.flatten().map(|e| e.path());
    for base in hierarchies.chain([top.clone()]) {
        let entries = std::fs::read_dir(base.join(env.cgroup_parent()));
        for entry in entries.into_iter().flatten().flatten() {
            if entry.file_name().len() == 64 {
                let processes = std::fs::read_to_string(entry.path().join("cgroup.procs"));
                let processes = processes.unwrap_or_default().replace('\n', " ");
                return Ok(Some(format!("{} ({processes})", entry.path().display())));
            }
        }
    }
    Ok(None)
}

async fn daemon(env: Shared) -> Result<()> {
    let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 6";
    let (config, pod, id) = env.simple(&["sh", "-c", script]).await?;
    let waiting = env
        .create(
            &pod,
            &config,
            &env.container_config("created", &["sleep", "98765"]),
        )
        .await?;
    let before = env.status(&id).await?;
    for _ in 0..5 {
        env.restart_daemon().await?;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let after = env.status(&id).await?;
    ensure!(after.started_at == before.started_at && after.labels == before.labels);
    ensure!(env.status(&waiting).await?.state() == ContainerState::ContainerCreated);
    env.start_container(&waiting).await?;
    ensure!(env.sh(&waiting, "echo here").await? == "here");
    ensure!(env.pod_ip(&pod).await?.starts_with("10.77."));
    // It ends while nobody serves.
    env.kill_daemon()?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    env.start_daemon()?;
    env.wait_ready().await?;
    let status = env.wait_exit(&id).await?;
    ensure!(
        status.exit_code == 6 && status.reason == "Error",
        "{status:?}"
    );
    let lines = read_log(Path::new(&status.log_path))?;
    let expected: Vec<String> = (1..=300).map(|n| format!("line {n}")).collect();
    let found: Vec<String> = lines.into_iter().map(|(_, _, content)| content).collect();
    ensure!(found == expected, "{} lines", found.len());
    env.clean().await?;
    nothing_left(&env).await
}

async fn exec_in_flight(env: Shared) -> Result<()> {
    let (_, _, id) = env.simple(&["sleep", "98765"]).await?;
    let running = {
        let (env, id) = (env.clone(), id.clone());
        tokio::spawn(async move { env.exec(&id, &["sleep", "5555"]).await })
    };
    for _ in 0..200 {
        if env.sh(&id, "ps").await?.contains("5555") {
            break;
        }
    }
    env.kill_daemon()?;
    ensure!(running.await?.is_err(), "the exec was answered");
    env.start_daemon()?;
    env.wait_ready().await?;
    for _ in 0..100 {
        if !env.sh(&id, "ps").await?.contains("5555") {
            env.clean().await?;
            return nothing_left(&env).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    anyhow::bail!("the process lives on")
}

async fn supervisor(env: Shared) -> Result<()> {
    let (_, pod, id) = env
        .simple(&["sh", "-c", "echo logged; exec sleep 98765"])
        .await?;
    let path = env.status(&id).await?.log_path;
    crate::env::wait_for("the line", || {
        std::fs::read_to_string(&path).is_ok_and(|t| t.contains("logged"))
    })
    .await?;
    kill(supervisor_pid(&env, &pod)?);
    let status = env.wait_exit(&id).await?;
    ensure!(
        status.reason == "Unknown" && status.exit_code == 255,
        "{status:?}"
    );
    ensure!(std::fs::read_to_string(&path)?.contains("logged"));
    let pods = env
        .runtime()
        .await?
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: pod.clone(),
            verbose: false,
        })
        .await?
        .into_inner();
    ensure!(pods.status.unwrap_or_default().state() == PodSandboxState::SandboxNotready);
    env.clean().await?;
    nothing_left(&env).await?;
    // The same with the daemon away.
    let (_, pod, id) = env.simple(&["sleep", "98765"]).await?;
    let pid = supervisor_pid(&env, &pod)?;
    env.kill_daemon()?;
    kill(pid);
    env.start_daemon()?;
    env.wait_ready().await?;
    let status = env.wait_exit(&id).await?;
    ensure!(status.reason == "Unknown", "{status:?}");
    env.clean().await?;
    nothing_left(&env).await
}

/// The state folder and all processes are gone, the root is kept.
async fn reboot(env: Shared) -> Result<()> {
    let (_, pod, id) = env.simple(&["sleep", "98765"]).await?;
    let (_, _, done) = env.simple(&["sh", "-c", "exit 3"]).await?;
    env.wait_exit(&done).await?;
    let pods: Vec<String> = std::fs::read_dir(env.dir.join("state/pods"))?
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    let pid = container_pid(&env, &id).await?;
    env.kill_daemon()?;
    for pod in &pods {
        kill(supervisor_pid(&env, pod)?);
    }
    kill(pid);
    // A runtime with one sandbox for the pod has a process for that as well.
    for pod in &pods {
        let file = env.dir.join("state/pods").join(pod).join("sandbox/pid");
        if let Ok(text) = std::fs::read_to_string(file) {
            kill(text.trim().parse()?);
        }
    }
    let script = format!(
        "grep -o '{d}/state[^ ]*' /proc/self/mounts | sort -r | xargs -r -n1 umount -l; rm -rf {d}/state",
        d = env.dir.display()
    );
    ensure!(Command::new("sh").args(["-c", &script]).status()?.success());
    // Records of another boot.
    for kind in ["pods/*/pod.json", "containers/*/container.json"] {
        let script = format!(
            "sed -i 's/\"boot_id\": *\"[^\"]*\"/\"boot_id\":\"another\"/' {}/root/{kind}",
            env.dir.display()
        );
        ensure!(Command::new("sh").args(["-c", &script]).status()?.success());
    }
    env.start_daemon()?;
    env.wait_ready().await?;
    let status = env
        .runtime()
        .await?
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: pod,
            verbose: false,
        })
        .await?
        .into_inner()
        .status
        .context("no status")?;
    ensure!(
        status.state() == PodSandboxState::SandboxNotready,
        "{status:?}"
    );
    let container = env.status(&id).await?;
    ensure!(
        container.state() == ContainerState::ContainerExited,
        "{container:?}"
    );
    ensure!(env.status(&done).await?.exit_code == 3);
    ensure!(env.image_status(&env.image(BUSYBOX)).await?.is_some());
    for entry in std::fs::read_dir(env.dir.join("ipam/suite"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        ensure!(!name.starts_with("10.77."), "{name} is still taken");
    }
    let (_, _, fresh) = env.simple(&["sleep", "98765"]).await?;
    ensure!(env.sh(&fresh, "echo runs").await? == "runs");
    env.clean().await?;
    nothing_left(&env).await
}

async fn container_pid(env: &Shared, id: &str) -> Result<i32> {
    let request = ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: true,
    };
    let answer = env
        .runtime()
        .await?
        .container_status(request)
        .await?
        .into_inner();
    let info: serde_json::Value = serde_json::from_str(answer.info.get("info").context("info")?)?;
    Ok(i32::try_from(info["pid"].as_i64().context("pid")?)?)
}

async fn graceful(env: Shared) -> Result<()> {
    let (_, _, id) = env.simple(&["sleep", "98765"]).await?;
    let pid = env.daemon_pid();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid)?),
        nix::sys::signal::Signal::SIGTERM,
    )?;
    crate::env::wait_for("the end of the daemon", || !env.socket.exists()).await?;
    env.restart_daemon().await?;
    ensure!(env.sh(&id, "echo alive").await? == "alive");
    Ok(())
}
