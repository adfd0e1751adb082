//! The straight path: a pod, a container, its log, its end.

use anyhow::{Result, ensure};
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::Shared;

pub fn cases() -> Vec<Case> {
    vec![
        case!("basic/version-status", version_status),
        case!("basic/life", life),
        case!("basic/exec-sync", exec_sync),
        case!("basic/stop-grace", stop_grace),
        case!("basic/log-lines", log_lines),
        case!("basic/terminal", terminal),
        case!("basic/idempotent", idempotent),
    ]
}

async fn version_status(env: Shared) -> Result<()> {
    let mut client = env.runtime().await?;
    let version = client
        .version(VersionRequest::default())
        .await?
        .into_inner();
    ensure!(version.runtime_api_version == "v1", "{version:?}");
    let status = client
        .status(StatusRequest { verbose: true })
        .await?
        .into_inner();
    let conditions = status.status.unwrap_or_default().conditions;
    ensure!(conditions.iter().all(|c| c.status), "{conditions:?}");
    ensure!(conditions.len() >= 2, "{conditions:?}");
    Ok(())
}

async fn life(env: Shared) -> Result<()> {
    let (config, pod, id) = env
        .simple(&["sh", "-c", "echo out; echo err >&2; exit 3"])
        .await?;
    let status = env.wait_exit(&id).await?;
    ensure!(status.exit_code == 3, "{status:?}");
    ensure!(status.reason == "Error", "{status:?}");
    ensure!(status.started_at >= status.created_at, "{status:?}");
    ensure!(status.finished_at >= status.started_at, "{status:?}");
    let mut log = env.log(&status)?;
    log.sort();
    let expected = [("stderr", "F", "err"), ("stdout", "F", "out")]
        .map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    ensure!(log == expected, "{log:?}");

    let mut client = env.runtime().await?;
    let pods = client
        .list_pod_sandbox(ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                id: pod.clone(),
                ..PodSandboxFilter::default()
            }),
        })
        .await?
        .into_inner()
        .items;
    ensure!(pods.len() == 1 && pods.iter().all(|p| p.metadata == config.metadata));
    let answer = client
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: pod.clone(),
            verbose: true,
        })
        .await?
        .into_inner();
    let status = answer.status.unwrap_or_default();
    ensure!(status.state() == PodSandboxState::SandboxReady);
    ensure!(status.network.is_some_and(|n| n.ip.starts_with("10.")));
    client
        .remove_container(RemoveContainerRequest {
            container_id: id.clone(),
        })
        .await?;
    ensure!(env.status(&id).await.is_err());
    client
        .stop_pod_sandbox(StopPodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        })
        .await?;
    client
        .remove_pod_sandbox(RemovePodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        })
        .await?;
    let gone = client
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: pod,
            verbose: false,
        })
        .await;
    ensure!(gone.is_err_and(|e| e.code() == tonic::Code::NotFound));
    Ok(())
}

async fn exec_sync(env: Shared) -> Result<()> {
    let (_, _, id) = env.simple(&["sleep", "1000"]).await?;
    let done = env
        .exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 7"])
        .await?;
    ensure!(done.stdout == b"out\n" && done.stderr == b"err\n" && done.exit_code == 7);
    // The environment is the container's.
    ensure!(env.sh(&id, "echo $FROM_IMAGE").await? == "yes");
    // A time-out kills.
    let error = env
        .runtime()
        .await?
        .exec_sync(ExecSyncRequest {
            container_id: id.clone(),
            cmd: ["sleep", "777"].map(str::to_owned).to_vec(),
            timeout: 1,
        })
        .await;
    ensure!(error.is_err_and(|e| e.code() == tonic::Code::DeadlineExceeded));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    ensure!(!env.sh(&id, "ps").await?.contains("777"));
    let missing = env.exec(&id, &["/no/such/program"]).await;
    ensure!(missing.is_err() || missing.is_ok_and(|d| d.exit_code != 0));
    Ok(())
}

async fn stop_grace(env: Shared) -> Result<()> {
    let (_, _, polite) = env
        .simple(&[
            "sh",
            "-c",
            "trap 'echo bye; exit 5' TERM; while :; do sleep 0.1; done",
        ])
        .await?;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    env.stop(&polite, 10).await?;
    let status = env.status(&polite).await?;
    ensure!(status.exit_code == 5, "{status:?}");
    let (_, _, stubborn) = env
        .simple(&["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
        .await?;
    let start = std::time::Instant::now();
    env.stop(&stubborn, 1).await?;
    ensure!(start.elapsed().as_millis() >= 1000);
    let status = env.status(&stubborn).await?;
    ensure!(status.exit_code == 137, "{status:?}");
    Ok(())
}

async fn log_lines(env: Shared) -> Result<()> {
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'no newline'";
    let script = script.replace("tr", "busybox tr");
    let (_, _, id) = env.simple(&["sh", "-c", &script]).await?;
    let status = env.wait_exit(&id).await?;
    let log = env.log(&status)?;
    let joined: String = log.iter().map(|(_, _, c)| c.as_str()).collect();
    ensure!(joined == "x".repeat(40000) + "no newline");
    let tags: String = log.iter().map(|(_, t, _)| t.as_str()).collect();
    ensure!(tags.starts_with("PPF"), "{tags}");
    Ok(())
}

async fn terminal(env: Shared) -> Result<()> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("tty", &["sh", "-c", "tty; echo done"]);
    container.tty = true;
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let status = env.wait_exit(&id).await?;
    let text = format!("{:?}", env.log(&status)?);
    ensure!(
        text.contains("/dev/pts/") || text.contains("/dev/console"),
        "{text}"
    );
    ensure!(text.contains("done"), "{text}");
    Ok(())
}

async fn idempotent(env: Shared) -> Result<()> {
    let (_, pod, id) = env.simple(&["sleep", "1000"]).await?;
    let mut client = env.runtime().await?;
    for _ in 0..2 {
        env.stop(&id, 0).await?;
    }
    for _ in 0..2 {
        client
            .remove_container(RemoveContainerRequest {
                container_id: id.clone(),
            })
            .await?;
    }
    for _ in 0..2 {
        client
            .stop_pod_sandbox(StopPodSandboxRequest {
                pod_sandbox_id: pod.clone(),
            })
            .await?;
    }
    for _ in 0..2 {
        client
            .remove_pod_sandbox(RemovePodSandboxRequest {
                pod_sandbox_id: pod.clone(),
            })
            .await?;
    }
    Ok(())
}
