//! Many pods, long lists.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::Shared;

pub fn cases() -> Vec<Case> {
    vec![
        case!("load/hundred-pods", hundred_pods, long),
        case!("load/thousand-containers", thousand_containers, long),
    ]
}

/// Proportional memory of a process in bytes.
pub fn memory(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("Pss:"))
        .context("no Pss")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

async fn hundred_pods(env: Shared) -> Result<()> {
    let start = Instant::now();
    let pods = (0..100).map(|_| async {
        let (_, pod, id) = env.simple(&["sleep", "1000"]).await?;
        ensure!(env.sh(&id, "echo x").await? == "x");
        anyhow::Ok(pod)
    });
    let mut made = Vec::new();
    for pod in futures_util::future::join_all(pods).await {
        made.push(pod?);
    }
    let created = start.elapsed();
    let bytes = memory(env.daemon_pid())?;
    let supervisor = std::fs::read_to_string(
        env.dir
            .join("state/pods")
            .join(made.first().context("none")?)
            .join("supervisor.pid"),
    )?;
    let small = memory(supervisor.trim().parse()?)?;
    let start = Instant::now();
    for done in futures_util::future::join_all(made.iter().map(|pod| env.remove_pod(pod))).await {
        done?;
    }
    println!(
        "   100 pods made in {created:.1?}, removed in {:.1?}; daemon {} KiB, a supervisor {} KiB",
        start.elapsed(),
        bytes >> 10,
        small >> 10,
    );
    ensure!(bytes < 50 << 20, "the daemon takes {} KiB", bytes >> 10);
    super::crash::nothing_left(&env).await
}

/// Lists whose answer is larger than usual messages.
async fn thousand_containers(env: Shared) -> Result<()> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let value = "v".repeat(18 << 10);
    for batch in 0..40 {
        let creates = (0..25).map(|number| {
            let mut container = env.container_config(&format!("c{batch}-{number}"), &["true"]);
            container.annotations.insert("large".into(), value.clone());
            let (env, pod, config) = (env.clone(), pod.clone(), config.clone());
            async move {
                let id = env.create(&pod, &config, &container).await?;
                env.start_container(&id).await
            }
        });
        for done in futures_util::future::join_all(creates).await {
            done?;
        }
    }
    let mut client = env.runtime().await?;
    let start = Instant::now();
    let all = client
        .list_containers(ListContainersRequest::default())
        .await?;
    let listed = start.elapsed();
    ensure!(all.into_inner().containers.len() == 1000);
    let start = Instant::now();
    let mut stream = client
        .stream_containers(StreamContainersRequest::default())
        .await?
        .into_inner();
    let (mut count, mut pages) = (0, 0);
    while let Some(page) = stream.message().await? {
        use prost::Message;
        ensure!(
            page.encoded_len() < 16 << 20,
            "a page of {} bytes",
            page.encoded_len()
        );
        count += page.containers.len();
        pages += 1;
    }
    ensure!(count == 1000 && pages > 1, "{count} in {pages}");
    println!(
        "   list of 1000 in {listed:.1?}, streamed in {:.1?}",
        start.elapsed()
    );
    ensure!(listed < Duration::from_secs(2), "{listed:?}");
    env.remove_pod(&pod).await?;
    Ok(())
}
