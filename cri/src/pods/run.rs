//! `RunPodSandbox`.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tonic::Status;

use super::{files, sandbox, watch};
use crate::containers::lifecycle::pod_event;
use crate::node::Node;
use crate::proto::{ContainerEventType, NamespaceMode, PodSandboxConfig};
use crate::store::{Pod, PodRecord, PodStage, atomic};
use crate::supervisor::protocol::{Mapping, PodSpec};
use crate::{ids, time};

pub async fn run(node: &Arc<Node>, config: PodSandboxConfig, handler: &str) -> Result<String> {
    let Some(metadata) = &config.metadata else {
        return Err(Status::invalid_argument("the pod has no metadata").into());
    };
    if metadata.name.is_empty() || metadata.uid.is_empty() {
        return Err(Status::invalid_argument("the pod has no name or uid").into());
    }
    let resolved = if handler.is_empty() {
        node.config.default_handler.clone()
    } else {
        handler.to_owned()
    };
    // An unknown or missing runtime fails here, not at the first container.
    let runtime = node
        .runtime(&resolved)
        .map_err(|err| Status::invalid_argument(format!("{err:#}")))?;
    let record = PodRecord {
        id: ids::random(),
        handler: resolved,
        requested_handler: handler.to_owned(),
        created_at: time::now_ns(),
        stage: PodStage::Creating,
        boot_id: node.boot_id.clone(),
        config,
        ..PodRecord::default()
    };
    let spec = plan(node, &record, runtime.sandboxed)?;
    let name = record.name();
    let guard = node.store.reserve(&name, &record.id).map_err(|holder| {
        Status::already_exists(format!("pod name {name:?} is taken by sandbox {holder}"))
    })?;
    let pod = node.store.add_pod(record)?;
    guard.keep();
    match start(node, &pod, &spec).await {
        Ok(()) => {
            pod_event(node, &pod, ContainerEventType::ContainerCreatedEvent);
            pod_event(node, &pod, ContainerEventType::ContainerStartedEvent);
            Ok(pod.id.clone())
        }
        Err(err) => {
            if let Err(undo) = undo(node, &pod).await {
                tracing::warn!(pod = pod.id, "half-made pod stays for later: {undo:#}");
            }
            Err(err)
        }
    }
}

/// Removes a pod whose creation did not end.
pub async fn undo(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    super::release(node, pod).await?;
    node.store.remove_pod(pod)
}

fn plan(node: &Node, record: &PodRecord, sandboxed: bool) -> Result<PodSpec> {
    let namespaces = record.namespaces();
    let state = node.pod_state(&record.id);
    let host_network = record.host_network();
    let sysctls = record
        .config
        .linux
        .as_ref()
        .map(|l| l.sysctls.clone())
        .unwrap_or_default();
    let mut sysctls: Vec<(String, String)> = sysctls.into_iter().collect();
    // A sandbox has a user namespace of its own in any case, and ids inside it
    // are never those of the host's processes.
    let own_users = record.user_namespace().is_some() && !sandboxed;
    if own_users {
        let able = tokio::task::block_in_place(|| node.user_namespaces(&record.handler));
        able.map_err(|why| {
            let text = format!("pods with a user namespace can't be run here: {why}");
            Status::failed_precondition(text)
        })?;
    }
    if !host_network && !own_users {
        // In a network of its own nothing is to be kept from unprivileged
        // processes, as containerd has it. A sandbox, whose processes have no
        // privileges on the host, needs it.
        for (name, value) in [
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            ("net.ipv4.ping_group_range", "0 2147483647"),
        ] {
            if !sysctls.iter().any(|(set, _)| set == name) {
                sysctls.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    let hostname = files::hostname(record);
    if hostname.len() > 64 {
        return Err(Status::invalid_argument(format!(
            "host name {hostname:?} is longer than 64 bytes"
        ))
        .into());
    }
    let map = |list: &[crate::proto::IdMapping]| -> Vec<Mapping> {
        list.iter()
            .map(|m| Mapping {
                container_id: m.container_id,
                host_id: m.host_id,
                length: m.length,
            })
            .collect()
    };
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    if let Some(user) = &namespaces.userns_options {
        match user.mode() {
            NamespaceMode::Node => {}
            NamespaceMode::Pod => {
                if host_id(&user.uids, 0).is_none() || host_id(&user.gids, 0).is_none() {
                    return Err(Status::invalid_argument(
                        "a user namespace that does not map root, user and group",
                    )
                    .into());
                }
                if host_network {
                    return Err(Status::unimplemented(
                        "a user namespace together with the host's network",
                    )
                    .into());
                }
                if own_users {
                    uids = map(&user.uids);
                    gids = map(&user.gids);
                }
            }
            other => {
                return Err(Status::invalid_argument(format!(
                    "user namespace mode {} is not one",
                    other.as_str_name()
                ))
                .into());
            }
        }
    }
    Ok(PodSpec {
        id: record.id.clone(),
        socket: node.socket(&record.id, ""),
        namespace_dir: state.join("ns"),
        new_network: !host_network,
        new_ipc: namespaces.ipc() != NamespaceMode::Node,
        // Inside a sandbox pids are the sandbox's business.
        shared_pid: namespaces.pid() == NamespaceMode::Pod && !sandboxed,
        hostname: (!host_network).then_some(hostname),
        sysctls,
        uid_mappings: uids,
        gid_mappings: gids,
    })
}

/// The host's id of an id inside.
pub fn host_id(mappings: &[crate::proto::IdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|m| {
        let offset = id.checked_sub(m.container_id)?;
        (offset < m.length).then(|| m.host_id.checked_add(offset))?
    })
}

async fn start(node: &Arc<Node>, pod: &Arc<Pod>, spec: &PodSpec) -> Result<()> {
    let state = node.pod_state(&pod.id);
    std::fs::create_dir_all(&state)?;
    let record = pod.record();
    if !record.config.log_directory.is_empty() {
        std::fs::create_dir_all(&record.config.log_directory)
            .with_context(|| format!("log folder {}", record.config.log_directory))?;
    }
    atomic::write_json(&state.join("supervisor.json"), spec)?;
    files::write(node, &record)?;
    supervise(&state).await?;
    if spec.new_network {
        let mut attachment = node
            .cni
            .plan(&pod.id, &spec.namespace_dir.join("net"), &record.config)
            .context("network is not ready")?;
        // Known before it is done: a killed daemon's successor undoes it.
        pod.update(|record| record.network = Some(attachment.clone()))?;
        node.cni.add(&mut attachment).await?;
        pod.update(|record| record.network = Some(attachment))?;
    }
    if node.runtime(&record.handler)?.sandboxed {
        sandbox::create(node, pod).await?;
    }
    pod.update(|record| record.stage = PodStage::Ready)?;
    watch::spawn(node, pod);
    Ok(())
}

/// Starts the pod's supervisor and waits until it serves.
async fn supervise(state: &Path) -> Result<()> {
    let mut command = tokio::process::Command::new(crate::supervisor::program());
    command
        .arg0("runsc-cri")
        .arg("supervise")
        .arg(state)
        .env_clear()
        .envs(std::env::vars().filter(|(k, _)| k == "PATH" || k == "XDG_RUNTIME_DIR"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .context("the pod's supervisor can't be started")?;
    let stdout = child.stdout.take().context("no pipe to the supervisor")?;
    tokio::spawn(async move { child.wait().await });
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    tokio::time::timeout(Duration::from_secs(30), reader.read_line(&mut line))
        .await
        .context("the pod's supervisor does not come up")??;
    match line.trim() {
        "ready" => Ok(()),
        "" => bail!("the pod's supervisor ended at once"),
        message => bail!("{message}"),
    }
}
