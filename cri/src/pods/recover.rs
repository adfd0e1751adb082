//! After a start of the daemon: what it finds is adopted, finished or removed.

use std::sync::Arc;

use anyhow::Result;

use super::{run, supervisor_pid, watch};
use crate::containers::lifecycle;
use crate::node::Node;
use crate::store::{Container, ContainerStage, Pod, PodStage, atomic};
use crate::supervisor::protocol::Exit;
use crate::time;

pub async fn recover(node: &Arc<Node>) -> Result<()> {
    node.store.load()?;
    for pod in node.store.pods() {
        if let Err(err) = recover_pod(node, &pod).await {
            tracing::error!(pod = pod.id, "recovery: {err:#}");
        }
    }
    for container in node.store.containers() {
        if let Err(err) = recover_container(node, &container).await {
            tracing::error!(container = container.id, "recovery: {err:#}");
        }
    }
    remove_strays(node);
    crate::cni::start(node).await;
    node.images.collect(node.used_layers()).await?;
    Ok(())
}

async fn recover_pod(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    let record = pod.record();
    match record.stage {
        PodStage::Creating => run::undo(node, pod).await,
        PodStage::NotReady => Ok(()),
        PodStage::Ready if record.boot_id != node.boot_id => {
            // The namespaces went with the reboot; plugins give back addresses
            // and rules.
            if let Some(attachment) = &record.network
                && let Err(err) = node.cni.del(attachment).await
            {
                tracing::warn!(pod = pod.id, "network: {err:#}");
            }
            pod.update(|record| {
                record.stage = PodStage::NotReady;
                record.network_released = true;
            })
        }
        PodStage::Ready => {
            if supervisor_pid(&node.pod_state(&pod.id)).is_none() {
                watch::lost(node, pod).await;
            } else {
                watch::spawn(node, pod);
            }
            Ok(())
        }
    }
}

async fn recover_container(node: &Arc<Node>, container: &Arc<Container>) -> Result<()> {
    let record = container.record();
    match record.stage {
        ContainerStage::Creating | ContainerStage::Removing => {
            lifecycle::remove(node, container).await
        }
        ContainerStage::Exited => Ok(()),
        ContainerStage::Created | ContainerStage::Running => {
            let recorded = atomic::read_json::<Exit>(&container.dir.join("exit.json"))?;
            if let Some(exit) = recorded {
                lifecycle::exited(node, container, &exit, "");
            } else if record.boot_id != node.boot_id {
                let exit = Exit {
                    container: container.id.clone(),
                    code: 255,
                    finished_at: time::now_ns(),
                    oom_killed: false,
                };
                lifecycle::exited(node, container, &exit, "Unknown");
            } else if record.stage == ContainerStage::Created
                && let Some(state) = node.runtime(&record.handler)?.state(&container.id).await?
                && state.status == "running"
            {
                // Started, but the daemon died before it wrote so.
                container.update(|record| {
                    record.stage = ContainerStage::Running;
                    record.started_at = time::now_ns();
                })?;
            }
            Ok(())
        }
    }
}

/// Folders without a record.
fn remove_strays(node: &Node) {
    for entry in list(&node.config.state.join("containers")) {
        let id = entry.file_name().to_string_lossy().into_owned();
        if node.store.container(&id).is_none() {
            // What can't be unmounted is not removed through.
            if crate::containers::mounts::unmount_all(&entry.path()).is_ok() {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
    for entry in list(&node.config.state.join("tmp")) {
        let _ = std::fs::remove_file(entry.path());
    }
}

fn list(dir: &std::path::Path) -> Vec<std::fs::DirEntry> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .collect()
}
