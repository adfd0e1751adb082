//! Pod sandboxes: running, stopping, removing them, and finding them again.

pub mod files;
pub mod recover;
pub mod run;
pub mod sandbox;
pub mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use crate::containers;
use crate::containers::lifecycle::pod_event;
use crate::images::layers::unmount;
use crate::node::Node;
use crate::proto::ContainerEventType;
use crate::store::{Pod, PodStage};
use crate::supervisor::protocol::Request;

/// Kills what runs, releases the network, ends the supervisor. Repeatable.
pub async fn stop(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    let _operation = pod.operation.lock().await;
    stop_locked(node, pod).await
}

async fn stop_locked(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    let mut kills = tokio::task::JoinSet::new();
    for container in node.store.containers_of(&pod.id) {
        let node = Arc::clone(node);
        kills.spawn(
            async move { containers::lifecycle::stop(&node, &container, Duration::ZERO).await },
        );
    }
    while let Some(done) = kills.join_next().await {
        done??;
    }
    release(node, pod).await?;
    ended(node, pod)
}

/// Records that the pod is not ready any more, and tells so once.
fn ended(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    let mut was_ready = false;
    pod.update(|record| {
        was_ready = record.stage != PodStage::NotReady;
        record.stage = PodStage::NotReady;
    })?;
    if was_ready {
        pod_event(node, pod, ContainerEventType::ContainerStoppedEvent);
    }
    Ok(())
}

/// Everything of the pod that is not a record: network, supervisor, mounts.
pub async fn release(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    let record = pod.record();
    if let Some(attachment) = &record.network
        && !record.network_released
    {
        node.cni.del(attachment).await?;
        pod.update(|record| record.network_released = true)?;
    }
    let state = node.pod_state(&pod.id);
    if state.exists() {
        sandbox::delete(node, pod).await?;
        end_supervisor(node, &pod.id, &state).await;
        unpin(&state)?;
        std::fs::remove_dir_all(&state)?;
    }
    let _ = std::fs::remove_file(node.socket(&pod.id, ""));
    containers::leftover::sweep(node, &record, &pod.id).await;
    Ok(())
}

/// Asks it to end; one that does not answer is killed.
async fn end_supervisor(node: &Node, id: &str, state: &Path) {
    let client = node.supervisor(id);
    let request = client.call(&Request::Shutdown);
    let asked = tokio::time::timeout(Duration::from_secs(5), request).await;
    if !matches!(asked, Ok(Ok(_)))
        && let Some(pid) = supervisor_pid(state)
    {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

/// The supervisor of this folder, if it is alive (not another process that has
/// got its pid).
pub fn supervisor_pid(state: &Path) -> Option<nix::unistd::Pid> {
    let text = std::fs::read_to_string(state.join("supervisor.pid")).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let ours = line
        .split(|b| *b == 0)
        .any(|arg| arg == state.as_os_str().as_encoded_bytes());
    ours.then(|| nix::unistd::Pid::from_raw(pid))
}

/// Unmounts the pinned namespaces and the shared memory.
fn unpin(state: &Path) -> Result<()> {
    for name in ["net", "ipc", "uts", "pid", "user"] {
        unmount(&state.join("ns").join(name))?;
    }
    unmount(&state.join("shm"))
}

/// Stops and forgets the pod and its containers. Repeatable.
pub async fn remove(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    let _operation = pod.operation.lock().await;
    stop_locked(node, pod).await?;
    for container in node.store.containers_of(&pod.id) {
        containers::lifecycle::remove(node, &container).await?;
    }
    node.store.remove_pod(pod)?;
    pod_event(node, pod, ContainerEventType::ContainerDeletedEvent);
    Ok(())
}
