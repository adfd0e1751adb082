//! Hears of exits from a pod's supervisor, and of the supervisor's own end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::containers::lifecycle;
use crate::node::Node;
use crate::store::{ContainerStage, Pod, PodStage};
use crate::supervisor::protocol::{Event, Exit, Request};
use crate::time;

/// Watches the pod until it is removed or its supervisor has ended.
pub fn spawn(node: &Arc<Node>, pod: &Arc<Pod>) {
    let (node, pod) = (Arc::clone(node), Arc::clone(pod));
    tokio::spawn(async move {
        if let Err(err) = follow(&node, &pod).await {
            tracing::debug!(pod = pod.id, "supervisor: {err:#}");
        }
        // Stop and remove end the supervisor themselves, under this lock.
        let _operation = pod.operation.lock().await;
        if pod.stage() == PodStage::Ready && node.store.pod(&pod.id).is_some() {
            tracing::warn!(pod = pod.id, "the pod's supervisor has gone");
            lost(&node, &pod).await;
        }
    });
}

async fn follow(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    let mut events = node.supervisor(&pod.id).open(&Request::Watch, &[]).await?;
    while let Some(event) = events.next().await? {
        match event {
            Event::Containers(states) => {
                for state in states {
                    if let Some(exit) = state.exit {
                        told(node, pod, &exit)?;
                    }
                }
            }
            Event::Exited(exit) => told(node, pod, &exit)?,
            _ => {}
        }
    }
    Ok(())
}

/// All containers end with the sandbox, and tell so themselves.
fn told(node: &Arc<Node>, pod: &Arc<Pod>, exit: &Exit) -> Result<()> {
    if exit.container == pod.id {
        return super::ended(node, pod);
    }
    exited(node, exit);
    Ok(())
}

fn exited(node: &Arc<Node>, exit: &Exit) {
    if let Some(container) = node.store.container(&exit.container) {
        lifecycle::exited(node, &container, exit, "");
    }
}

/// The supervisor was killed: nobody is the parent of the containers any more,
/// and their output goes nowhere. They are ended; what they would have exited
/// with is not known.
pub async fn lost(node: &Arc<Node>, pod: &Arc<Pod>) {
    for container in node.store.containers_of(&pod.id) {
        let record = container.record();
        if !record.alive() {
            continue;
        }
        // An exit that was recorded but not told.
        let recorded = crate::store::atomic::read_json::<Exit>(&container.dir.join("exit.json"));
        if let Ok(Some(exit)) = recorded {
            lifecycle::exited(node, &container, &exit, "");
            continue;
        }
        if let Ok(runtime) = node.runtime(&record.handler) {
            let deletion =
                tokio::time::timeout(Duration::from_secs(30), runtime.delete(&container.id));
            if let Ok(Err(err)) = deletion.await {
                tracing::warn!(container = container.id, "delete: {err:#}");
            }
        }
        let exit = Exit {
            container: container.id.clone(),
            code: 255,
            finished_at: time::now_ns(),
            oom_killed: false,
        };
        if container.stage() != ContainerStage::Exited {
            lifecycle::exited(node, &container, &exit, "Unknown");
        }
    }
    if let Err(err) = super::ended(node, pod) {
        tracing::error!(pod = pod.id, "record: {err:#}");
    }
}
