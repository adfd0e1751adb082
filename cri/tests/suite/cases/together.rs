//! Several containers of one pod, which with a sandboxing handler share one
//! sandbox: roots of their own, common volumes, restarts, init and sidecar.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;
use serde_json::json;

use super::Case;
use crate::case;
use crate::env::Shared;
use crate::image::{self, Layer};

pub fn cases() -> Vec<Case> {
    vec![
        case!("together/own-roots", own_roots),
        case!("together/one-restarts", one_restarts),
        case!("together/init-sidecar", init_sidecar),
        case!("together/ends", ends),
    ]
}

/// A container with a common volume at `/common`.
fn with_volume(env: &Shared, name: &str, script: &str, volume: &Path) -> ContainerConfig {
    let mut container = env.container_config(name, &["sh", "-c", script]);
    container.mounts.push(Mount {
        host_path: volume.display().to_string(),
        container_path: "/common".into(),
        ..Mount::default()
    });
    container
}

async fn begin(
    env: &Shared,
    pod: &str,
    config: &PodSandboxConfig,
    container: &ContainerConfig,
) -> Result<String> {
    let id = env.create(pod, config, container).await?;
    env.start_container(&id).await?;
    Ok(id)
}

fn volume(env: &Shared) -> Result<std::path::PathBuf> {
    let dir = env.dir.join(format!("volume-{}", env.number()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Files of one container are not those of another, but in a common volume.
async fn own_roots(env: Shared) -> Result<()> {
    let layer = Layer::default().file("only-here", 0o644, b"other image");
    let other = json!({"Env": ["PATH=/bin", "WHO=other"], "Cmd": ["sleep", "1000"]});
    let layers = vec![image::busybox(), layer];
    image::push(&env.registry, "test/other:1", layers, other).await?;
    env.pull("test/other:1").await?;
    let dir = volume(&env)?;
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let wait = "sleep 1000";
    let one = begin(&env, &pod, &config, &with_volume(&env, "one", wait, &dir)).await?;
    let mut second = with_volume(&env, "two", wait, &dir);
    second.image = env.image_spec("test/other:1");
    let two = begin(&env, &pod, &config, &second).await?;
    let mut third = with_volume(&env, "three", wait, &dir);
    if let Some(mount) = third.mounts.first_mut() {
        mount.readonly = true;
    }
    let three = begin(&env, &pod, &config, &third).await?;
    ensure!(env.sh(&two, "cat /only-here; echo $WHO").await? == "other imageother");
    ensure!(env.sh(&one, "ls /only-here; echo $WHO").await.is_ok());
    ensure!(env.sh(&one, "cat /only-here").await.is_err());
    env.sh(
        &one,
        "echo one > /etc/mine; mkdir /tmp/d; echo 1 > /tmp/d/f",
    )
    .await?;
    ensure!(
        env.sh(&two, "cat /etc/mine /tmp/d/f").await.is_err(),
        "another's file"
    );
    // The volume: at once, both ways, renamed, removed, appended to by both.
    env.sh(&one, "echo a > /common/a; mkdir /common/d").await?;
    ensure!(
        env.sh(&two, "cat /common/a && mv /common/a /common/d/b")
            .await?
            == "a"
    );
    ensure!(env.sh(&one, "cat /common/d/b; ls /common").await? == "a\nd");
    ensure!(env.sh(&three, "cat /common/d/b").await? == "a");
    ensure!(
        env.sh(&three, "echo x > /common/d/b").await.is_err(),
        "read-only"
    );
    let append = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line >> /common/log; done";
    let (a, b) = tokio::join!(env.sh(&one, append), env.sh(&two, append));
    (a?, b?);
    ensure!(env.sh(&three, "grep -c line /common/log").await? == "400");
    ensure!(std::fs::read_to_string(dir.join("log"))?.lines().count() == 400);
    env.sh(&one, "rm /common/log").await?;
    ensure!(
        env.sh(&two, "cat /common/log").await.is_err(),
        "a removed file"
    );
    env.remove_pod(&pod).await
}

/// One container dies and comes again, with a new root; its neighbour does not
/// notice.
async fn one_restarts(env: Shared) -> Result<()> {
    let dir = volume(&env)?;
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let ticks = "i=0; while :; do i=$((i+1)); echo $i > /common/ticks.new; \
                 mv /common/ticks.new /common/ticks; sleep 0.05; done";
    let neighbour = begin(
        &env,
        &pod,
        &config,
        &with_volume(&env, "ticks", ticks, &dir),
    )
    .await?;
    let before = env.status(&neighbour).await?.started_at;
    let script = "test ! -e /was-here && touch /was-here && echo run >> /common/runs; \
                  sleep 0.1; exit 7";
    let mut last = 0;
    for attempt in 0..5 {
        let mut container = with_volume(&env, "dies", script, &dir);
        container.metadata.get_or_insert_default().attempt = attempt;
        container.log_path = format!("dies/{attempt}.log");
        let id = begin(&env, &pod, &config, &container).await?;
        let status = env.wait_exit(&id).await?;
        ensure!(status.exit_code == 7, "{status:?}");
        if attempt > 0 {
            let request = RemoveContainerRequest { container_id: id };
            env.runtime().await?.remove_container(request).await?;
        }
        crate::env::wait_for("the neighbour's work", || {
            let text = std::fs::read_to_string(dir.join("ticks")).unwrap_or_default();
            text.trim().parse().is_ok_and(|now: u64| now > last)
        })
        .await?;
        last = std::fs::read_to_string(dir.join("ticks"))?.trim().parse()?;
    }
    let runs = std::fs::read_to_string(dir.join("runs"))?;
    ensure!(runs.lines().count() == 5, "an old root: {runs}");
    let status = env.status(&neighbour).await?;
    ensure!(
        status.state() == ContainerState::ContainerRunning && status.started_at == before,
        "{status:?}"
    );
    env.remove_pod(&pod).await
}

/// A static pod with a sidecar (an init container that stays), an init container
/// that needs it, and a main one; it ends in the reverse order.
async fn init_sidecar(env: Shared) -> Result<()> {
    let dir = volume(&env)?;
    let mut config = env.pod_config();
    let source = "kubernetes.io/config.source".to_owned();
    config.annotations.insert(source, "file".into());
    let pod = env.run_pod(&config).await?;
    let serve = "mkdir /www; echo token > /www/index.html; \
                 httpd -p 127.0.0.1:8765 -h /www; \
                 trap 'echo late > /common/sidecar; exit 0' TERM; \
                 while :; do sleep 0.1; done";
    let sidecar = begin(
        &env,
        &pod,
        &config,
        &with_volume(&env, "sidecar", serve, &dir),
    )
    .await?;
    // Its start-up probe.
    let mut ready = false;
    for _ in 0..100 {
        let probe = ["wget", "-q", "-O", "-", "http://127.0.0.1:8765/"];
        ready = env.exec(&sidecar, &probe).await?.exit_code == 0;
        if ready {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(ready, "the sidecar does not serve");
    let fetch = "wget -q -O /common/token http://127.0.0.1:8765/";
    let init = begin(&env, &pod, &config, &with_volume(&env, "init", fetch, &dir)).await?;
    let done = env.wait_exit(&init).await?;
    ensure!(
        done.exit_code == 0 && done.reason == "Completed",
        "{done:?}"
    );
    let work = "cat /common/token; trap 'echo main > /common/main; exit 3' TERM; \
                while :; do sleep 0.1; done";
    let main = begin(&env, &pod, &config, &with_volume(&env, "main", work, &dir)).await?;
    let status = env.status(&main).await?;
    crate::env::wait_for("the token", || {
        env.log(&status)
            .is_ok_and(|l| l.iter().any(|(_, _, line)| line == "token"))
    })
    .await?;
    env.stop(&main, 10).await?;
    ensure!(env.status(&main).await?.exit_code == 3);
    ensure!(dir.join("main").exists() && !dir.join("sidecar").exists());
    let status = env.status(&sidecar).await?;
    ensure!(
        status.state() == ContainerState::ContainerRunning,
        "{status:?}"
    );
    env.stop(&sidecar, 10).await?;
    ensure!(env.status(&sidecar).await?.exit_code == 0);
    ensure!(dir.join("sidecar").exists());
    let status = env
        .runtime()
        .await?
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: pod.clone(),
            verbose: false,
        })
        .await?
        .into_inner()
        .status
        .context("no status")?;
    ensure!(
        status
            .annotations
            .get("kubernetes.io/config.source")
            .is_some()
    );
    // Without a running container the pod is still one.
    ensure!(
        status.state() == PodSandboxState::SandboxReady,
        "{status:?}"
    );
    env.remove_pod(&pod).await
}

/// The end of one container, by its own fault or a kill, takes no process of
/// another along and leaves none of its own.
async fn ends(env: Shared) -> Result<()> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let stays = env.running(&pod, &config, "stays").await?;
    for (attempt, script) in [
        "sleep 7654 & sleep 7654 & exit 1",
        "(setsid sleep 7654 &); exit 42",
        "setsid sleep 7654 & sleep 7654",
    ]
    .into_iter()
    .enumerate()
    {
        let mut container = env.container_config("goes", &["sh", "-c", script]);
        container.metadata.get_or_insert_default().attempt = u32::try_from(attempt)?;
        let id = begin(&env, &pod, &config, &container).await?;
        if script.ends_with("7654") {
            env.exec(&id, &["true"]).await?;
            env.stop(&id, 0).await?;
        }
        let status = env.wait_exit(&id).await?;
        let expected = [1, 42, 137];
        ensure!(
            expected.get(attempt) == Some(&status.exit_code),
            "{script}: {status:?}"
        );
        ensure!(
            env.exec(&id, &["true"]).await.is_err(),
            "exec after the end"
        );
    }
    ensure!(env.sh(&stays, "echo alive").await? == "alive");
    env.remove_pod(&pod).await
}
