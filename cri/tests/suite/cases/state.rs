//! Statistics, limits, logs, and the other faces of the daemon.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::{BUSYBOX, Shared, read_log};

pub fn cases() -> Vec<Case> {
    vec![
        case!("state/stats", stats),
        case!("state/pod-stats", pod_stats, own),
        case!("state/metrics", metrics, own),
        case!("state/limits", limits),
        case!("state/out-of-memory", out_of_memory),
        case!("state/log-rotation", log_rotation),
        case!("state/streamed-lists", streamed_lists, own),
        case!("state/image-command", image_command, own),
        case!("state/status", status, own),
    ]
}

async fn stats(env: Shared) -> Result<()> {
    let script = "dd if=/dev/zero of=/written bs=1M count=4 2>/dev/null; i=0; \
                  while [ $i -lt 30000 ]; do i=$((i+1)); done; exec sleep 1000";
    let (_, pod, id) = env.simple(&["sh", "-c", script]).await?;
    let mut client = env.runtime().await?;
    let mut last = ContainerStats::default();
    for _ in 0..60 {
        let request = ContainerStatsRequest {
            container_id: id.clone(),
        };
        last = client
            .container_stats(request)
            .await?
            .into_inner()
            .stats
            .context("none")?;
        let cpu = last
            .cpu
            .as_ref()
            .and_then(|c| c.usage_core_nano_seconds.as_ref());
        let layer = last
            .writable_layer
            .as_ref()
            .and_then(|l| l.used_bytes.as_ref());
        // containerd looks at the disk every ten seconds.
        if cpu.is_some_and(|v| v.value > 1_000_000)
            && (!env.own || layer.is_some_and(|v| v.value >= 4 << 20))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let memory = last.memory.unwrap_or_default();
    ensure!(
        memory
            .working_set_bytes
            .as_ref()
            .is_some_and(|v| v.value > 10_000),
        "{last:?}"
    );
    let cpu = last.cpu.unwrap_or_default();
    ensure!(
        cpu.usage_core_nano_seconds
            .is_some_and(|v| v.value > 1_000_000),
        "{last:?}"
    );
    if env.own {
        let layer = last.writable_layer.clone().unwrap_or_default();
        ensure!(
            layer.used_bytes.is_some_and(|v| v.value >= 4 << 20),
            "{last:?}"
        );
    }
    let filter = Some(ContainerStatsFilter {
        pod_sandbox_id: pod,
        ..ContainerStatsFilter::default()
    });
    let all = client
        .list_container_stats(ListContainerStatsRequest { filter })
        .await?;
    ensure!(all.into_inner().stats.len() == 1);
    let nobody = ContainerStatsRequest {
        container_id: "nonsense".into(),
    };
    ensure!(client.container_stats(nobody).await.is_err());
    Ok(())
}

async fn pod_stats(env: Shared) -> Result<()> {
    let (_, pod, id) = env.simple(&["sleep", "1000"]).await?;
    let mut client = env.runtime().await?;
    let request = PodSandboxStatsRequest {
        pod_sandbox_id: pod.clone(),
    };
    let found = client
        .pod_sandbox_stats(request)
        .await?
        .into_inner()
        .stats
        .unwrap_or_default();
    let linux = found.linux.context("no Linux part")?;
    ensure!(linux.containers.len() == 1, "{linux:?}");
    ensure!(
        linux
            .containers
            .iter()
            .all(|c| c.attributes.as_ref().is_some_and(|a| a.id == id))
    );
    let eth0 = linux
        .network
        .and_then(|n| n.default_interface)
        .context("no interface")?;
    ensure!(eth0.name == "eth0", "{eth0:?}");
    ensure!(
        linux
            .process
            .is_some_and(|p| p.process_count.is_some_and(|v| v.value > 0))
    );
    ensure!(
        linux
            .memory
            .is_some_and(|m| m.working_set_bytes.is_some_and(|v| v.value > 0))
    );
    let all = client
        .list_pod_sandbox_stats(ListPodSandboxStatsRequest::default())
        .await?
        .into_inner()
        .stats;
    ensure!(all.len() == 1, "{}", all.len());
    Ok(())
}

async fn metrics(env: Shared) -> Result<()> {
    let (_, pod, _) = env.simple(&["sleep", "1000"]).await?;
    let mut client = env.runtime().await?;
    let known = client
        .list_metric_descriptors(ListMetricDescriptorsRequest::default())
        .await?
        .into_inner()
        .descriptors;
    let all = client
        .list_pod_sandbox_metrics(ListPodSandboxMetricsRequest::default())
        .await?
        .into_inner()
        .pod_metrics;
    let one = all
        .iter()
        .find(|m| m.pod_sandbox_id == pod)
        .context("no metrics")?;
    ensure!(
        !one.metrics.is_empty() && !one.container_metrics.is_empty(),
        "{one:?}"
    );
    let containers = one.container_metrics.iter().flat_map(|c| &c.metrics);
    for metric in one.metrics.iter().chain(containers) {
        let found = known
            .iter()
            .find(|d| d.name == metric.name)
            .context("not described")?;
        ensure!(
            found.label_keys.len() == metric.label_values.len(),
            "{metric:?}"
        );
    }
    // The daemon's own, for Prometheus.
    let text = crate::env::get(&format!("127.0.0.1:{}", env.metrics_port), "/metrics").await?;
    ensure!(text.contains("runsc_cri_pods{state=\"ready\"} 1"), "{text}");
    ensure!(
        text.contains("method=\"RunPodSandbox\",code=\"0\""),
        "{text}"
    );
    Ok(())
}

async fn limits(env: Shared) -> Result<()> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("main", &["sleep", "1000"]);
    let linux = container.linux.get_or_insert_default();
    linux.resources = Some(LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 256 << 20,
        oom_score_adj: 500,
        ..LinuxContainerResources::default()
    });
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let resources = async || {
        let found = env.status(&id).await?.resources.and_then(|r| r.linux);
        found.context("no resources")
    };
    ensure!(resources().await?.memory_limit_in_bytes == 256 << 20);
    if !env.sandboxed() {
        ensure!(env.sh(&id, "cat /proc/1/oom_score_adj").await? == "500");
    }
    let update = |memory| UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(LinuxContainerResources {
            memory_limit_in_bytes: memory,
            cpu_shares: 256,
            ..LinuxContainerResources::default()
        }),
        ..UpdateContainerResourcesRequest::default()
    };
    env.runtime()
        .await?
        .update_container_resources(update(512 << 20))
        .await?;
    let now = resources().await?;
    ensure!(
        now.memory_limit_in_bytes == 512 << 20 && now.cpu_shares == 256,
        "{now:?}"
    );
    // What was not named stays.
    ensure!(now.cpu_quota == 50_000, "{now:?}");
    let line =
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";
    let seen = env.exec(&id, &["sh", "-c", line]).await?.stdout;
    let seen = String::from_utf8_lossy(&seen).trim().to_owned();
    ensure!(
        seen == (512 << 20).to_string(),
        "the container sees {seen:?}"
    );
    Ok(())
}

async fn out_of_memory(env: Shared) -> Result<()> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let script = "head -c 200000000 /dev/zero | tail";
    let mut container = env.container_config("main", &["sh", "-c", script]);
    container.command = ["busybox", "tail", "/dev/zero"].map(str::to_owned).to_vec();
    let linux = container.linux.get_or_insert_default();
    linux.resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 48 << 20,
        ..LinuxContainerResources::default()
    });
    if env.sandboxed() {
        // The sandbox itself needs some.
        linux
            .resources
            .get_or_insert_default()
            .memory_limit_in_bytes = 128 << 20;
    }
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let status = env.wait_exit(&id).await?;
    ensure!(status.exit_code == 137, "{status:?}");
    ensure!(status.reason == "OOMKilled", "{status:?}");
    Ok(())
}

/// The kubelet renames the file, then asks for a new one: no line is lost.
async fn log_rotation(env: Shared) -> Result<()> {
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done";
    let (_, _, id) = env.simple(&["sh", "-c", script]).await?;
    let path = std::path::PathBuf::from(env.status(&id).await?.log_path);
    let mut parts = Vec::new();
    let mut client = env.runtime().await?;
    for number in 0..20 {
        let old = path.with_extension(format!("log.{number}"));
        std::fs::rename(&path, &old)?;
        parts.push(old);
        let request = ReopenContainerLogRequest {
            container_id: id.clone(),
        };
        if client.reopen_container_log(request).await.is_err() {
            // It has ended already.
            break;
        }
        ensure!(path.exists(), "no new file");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    env.wait_exit(&id).await?;
    if path.exists() {
        parts.push(path);
    }
    let mut expected = 1;
    for part in parts {
        for (_, _, content) in read_log(&part)? {
            ensure!(
                content == format!("line {expected}"),
                "{content:?}, not {expected}"
            );
            expected += 1;
        }
    }
    ensure!(expected == 20_001, "{expected}");
    Ok(())
}

async fn streamed_lists(env: Shared) -> Result<()> {
    env.simple(&["sleep", "1000"]).await?;
    let mut client = env.runtime().await?;
    let mut pods = client
        .stream_pod_sandboxes(StreamPodSandboxesRequest::default())
        .await?
        .into_inner();
    let mut count = 0;
    while let Some(page) = pods.message().await? {
        count += page.pod_sandboxes.len();
    }
    ensure!(count == 1, "{count}");
    let mut all = client
        .stream_containers(StreamContainersRequest::default())
        .await?
        .into_inner();
    let page = all.message().await?.context("no page")?;
    ensure!(page.containers.len() == 1 && all.message().await?.is_none());
    let mut images = env
        .images()
        .await?
        .stream_images(StreamImagesRequest::default())
        .await?
        .into_inner();
    ensure!(
        !images
            .message()
            .await?
            .context("no page")?
            .images
            .is_empty()
    );
    Ok(())
}

async fn image_command(env: Shared) -> Result<()> {
    let run = |args: &[&str]| -> Result<String> {
        let done = Command::new(env!("CARGO_BIN_EXE_runsc-cri"))
            .arg("--listen")
            .arg(&env.socket)
            .arg("image")
            .args(args)
            .output()?;
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success(), "image {args:?}: {errors}");
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let image = env.image(BUSYBOX);
    let archive = env.dir.join("archive.tar").display().to_string();
    tokio::task::block_in_place(|| {
        ensure!(run(&["ls"])?.contains(&image));
        let id = run(&["pull", &image])?;
        ensure!(id.starts_with("sha256:"), "{id}");
        ensure!(run(&["pull", "127.0.0.1:1/no:1"]).is_err());
        run(&["export", &archive, &image])?;
        run(&["rm", &image])?;
        ensure!(!run(&["ls"])?.contains(&image));
        ensure!(run(&["import", &archive])? == id);
        ensure!(run(&["ls"])?.contains(&image));
        anyhow::Ok(())
    })?;
    ensure!(env.in_image(BUSYBOX, "echo imported").await? == "imported");
    let doctor = Command::new(env!("CARGO_BIN_EXE_runsc-cri"))
        .arg("--config")
        .arg(env.dir.join("config.toml"))
        .arg("doctor")
        .output()?;
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ensure!(
        text.contains("ok   handler runc") && text.contains("is served"),
        "{text}"
    );
    Ok(())
}

async fn status(env: Shared) -> Result<()> {
    let mut client = env.runtime().await?;
    let status = client
        .status(StatusRequest { verbose: true })
        .await?
        .into_inner();
    ensure!(
        status.runtime_handlers.iter().any(|h| h.name.is_empty()),
        "no default"
    );
    ensure!(status.runtime_handlers.iter().any(|h| h.name == "runc"));
    ensure!(status.features.is_some() && status.info.contains_key("config"));
    let config = client
        .runtime_config(RuntimeConfigRequest::default())
        .await?
        .into_inner();
    ensure!(
        config
            .linux
            .is_some_and(|l| l.cgroup_driver() == CgroupDriver::Cgroupfs)
    );
    let refused = client
        .checkpoint_container(CheckpointContainerRequest::default())
        .await;
    ensure!(refused.is_err_and(|e| e.code() == tonic::Code::Unimplemented));
    // Without a network configuration the node says why.
    let list = env.dir.join("cni/10-suite.conflist");
    let away = env.dir.join("away.conflist");
    std::fs::rename(&list, &away)?;
    let answer = client.status(StatusRequest::default()).await;
    std::fs::rename(&away, &list)?;
    let conditions = answer?.into_inner().status.unwrap_or_default().conditions;
    let network = conditions
        .iter()
        .find(|c| c.r#type == "NetworkReady")
        .context("none")?;
    ensure!(!network.status && !network.reason.is_empty() && !network.message.is_empty());
    Ok(())
}
