//! Start, stop, exit and removal of containers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tonic::Status;

use super::{leftover, mounts};
use crate::node::Node;
use crate::proto::{ContainerEventResponse, ContainerEventType, Signal};
use crate::runtime::KillTarget;
use crate::service::convert;
use crate::store::{Container, ContainerStage, Pod};
use crate::supervisor::protocol::{Exit, Request};
use crate::time;

/// How long a killed process may take to end before the kernel is to blame.
const KILL_WAIT: Duration = Duration::from_secs(30);

pub async fn start(node: &Arc<Node>, container: &Arc<Container>) -> Result<()> {
    let _operation = container.operation.lock().await;
    let record = container.record();
    if record.stage != ContainerStage::Created {
        return Err(Status::failed_precondition(format!(
            "container {} is {:?}, not created",
            container.id, record.stage
        ))
        .into());
    }
    let runtime = node.runtime(&record.handler)?;
    let started_at = time::now_ns();
    match runtime.start(&container.id).await {
        Ok(()) => {
            container.update(|record| {
                record.started_at = started_at;
                // It may have ended meanwhile.
                if record.stage == ContainerStage::Created {
                    record.stage = ContainerStage::Running;
                }
            })?;
            event(node, container, ContainerEventType::ContainerStartedEvent);
            Ok(())
        }
        Err(err) => {
            container.update(|record| {
                record.started_at = started_at;
                record.message = format!("{err:#}");
            })?;
            let _ = runtime.delete(&container.id).await;
            let exit = Exit {
                container: container.id.clone(),
                code: 128,
                finished_at: time::now_ns(),
                oom_killed: false,
            };
            exited(node, container, &exit, "StartError");
            Err(err)
        }
    }
}

/// The stop signal, after `grace` SIGKILL. Repeatable; done when it has ended.
pub async fn stop(node: &Arc<Node>, container: &Arc<Container>, grace: Duration) -> Result<()> {
    // Not under the operation lock: a second stop with a shorter grace is to
    // take effect.
    let record = container.record();
    if !record.alive() {
        return Ok(());
    }
    let runtime = node.runtime(&record.handler)?;
    if !grace.is_zero() && record.stage == ContainerStage::Running {
        let signal = if record.stop_signal.is_empty() {
            "SIGTERM"
        } else {
            &record.stop_signal
        };
        if let Err(err) = runtime.kill(&container.id, signal, KillTarget::Init).await {
            tracing::debug!(container = container.id, "stop: {err:#}");
        }
        if tokio::time::timeout(grace, container.ended()).await.is_ok() {
            return Ok(());
        }
    }
    let killed = runtime.kill(&container.id, "KILL", KillTarget::All).await;
    if killed.is_err() {
        // A runtime without --all for this state, or a process that has just
        // ended.
        let second = runtime.kill(&container.id, "KILL", KillTarget::Init).await;
        if let Err(err) = second {
            tracing::debug!(container = container.id, "kill: {err:#}");
        }
    }
    if tokio::time::timeout(Duration::from_secs(5), container.ended())
        .await
        .is_ok()
    {
        return Ok(());
    }
    runtime.delete(&container.id).await?;
    tokio::time::timeout(KILL_WAIT, container.ended())
        .await
        .with_context(|| format!("container {} does not end", container.id))
}

/// Records an exit once; `reason` overrides what the exit says.
pub fn exited(node: &Arc<Node>, container: &Arc<Container>, exit: &Exit, reason: &str) {
    if !container.record().alive() {
        return;
    }
    let result = container.update(|record| {
        record.stage = ContainerStage::Exited;
        record.exit_code = exit.code;
        record.finished_at = exit.finished_at;
        record.reason = if !reason.is_empty() {
            reason
        } else if exit.oom_killed {
            "OOMKilled"
        } else if exit.code == 0 {
            "Completed"
        } else {
            "Error"
        }
        .to_owned();
        if record.started_at == 0 {
            record.started_at = record.finished_at;
        }
    });
    if let Err(err) = result {
        tracing::error!(container = container.id, "exit: {err:#}");
    }
    event(node, container, ContainerEventType::ContainerStoppedEvent);
    // The runtime's record and the cgroup go; files and log stay.
    let (node, container) = (Arc::clone(node), Arc::clone(container));
    tokio::spawn(async move {
        // Not while the runtime's `start` of a short-lived process is at it.
        let _operation = container.operation.lock().await;
        if node.store.container(&container.id).is_some()
            && let Ok(runtime) = node.runtime(&container.record().handler)
            && let Err(err) = runtime.delete(&container.id).await
        {
            tracing::debug!(container = container.id, "delete: {err:#}");
        }
    });
}

/// Ends it if it runs, and forgets it. Repeatable.
pub async fn remove(node: &Arc<Node>, container: &Arc<Container>) -> Result<()> {
    let _operation = container.operation.lock().await;
    if node.store.container(&container.id).is_none() {
        return Ok(());
    }
    let record = container.record();
    if record.stage == ContainerStage::Running {
        stop(node, container, Duration::ZERO).await?;
    }
    container.update(|record| record.stage = ContainerStage::Removing)?;
    let bundle = node.bundle(&container.id);
    // Without a bundle the runtime was never called.
    if bundle.exists() {
        node.runtime(&record.handler)?.delete(&container.id).await?;
        let client = node.supervisor(&record.pod);
        let request = Request::Forget {
            container: container.id.clone(),
        };
        // A supervisor that has gone holds nothing.
        let _ = tokio::time::timeout(Duration::from_secs(10), client.call(&request)).await;
        let dir = bundle.clone();
        tokio::task::spawn_blocking(move || -> Result<()> {
            mounts::unmount_all(&dir)?;
            std::fs::remove_dir_all(&dir)?;
            Ok(())
        })
        .await??;
    }
    if let Some(pod) = node.store.pod(&record.pod) {
        leftover::sweep(node, &pod.record(), &container.id).await;
    }
    event(node, container, ContainerEventType::ContainerDeletedEvent);
    let (node, container) = (Arc::clone(node), Arc::clone(container));
    tokio::task::spawn_blocking(move || node.store.remove_container(&container)).await?
}

/// Tells the listeners of `GetContainerEvents`.
pub fn event(node: &Node, container: &Container, kind: ContainerEventType) {
    if node.events.receiver_count() == 0 {
        return;
    }
    if let Some(pod) = node.store.pod(&container.pod) {
        send(node, &pod, &container.id, kind);
    }
}

/// The same of a sandbox, under its own id.
pub fn pod_event(node: &Node, pod: &Pod, kind: ContainerEventType) {
    if node.events.receiver_count() > 0 {
        send(node, pod, &pod.id, kind);
    }
}

fn send(node: &Node, pod: &Pod, id: &str, kind: ContainerEventType) {
    let statuses = node
        .store
        .containers_of(&pod.id)
        .iter()
        .map(|c| c.record())
        .filter(|r| r.stage != ContainerStage::Removing)
        .map(|r| convert::container_status(&r))
        .collect();
    let _ = node.events.send(ContainerEventResponse {
        container_id: id.to_owned(),
        container_event_type: kind.into(),
        created_at: time::now_ns(),
        pod_sandbox_status: Some(convert::pod_status(&pod.record())),
        containers_statuses: statuses,
    });
}

/// `SIGRTMIN+3` and the like, from the enumeration's names.
pub fn signal_name(signal: Signal) -> String {
    signal
        .as_str_name()
        .replace("PLUS", "+")
        .replace("MINUS", "-")
}
