//! `CreateContainer`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tonic::Status;

use super::{lifecycle, mounts, spec};
use crate::node::Node;
use crate::proto::{ContainerConfig, ContainerEventType};
use crate::service::convert;
use crate::store::{Container, ContainerRecord, ContainerStage, Pod, PodStage};
use crate::supervisor::protocol::{Create, Event, Request};
use crate::{ids, time};

pub async fn create(node: &Arc<Node>, pod: &Arc<Pod>, config: ContainerConfig) -> Result<String> {
    let Some(metadata) = &config.metadata else {
        return Err(Status::invalid_argument("the container has no metadata").into());
    };
    if metadata.name.is_empty() {
        return Err(Status::invalid_argument("the container has no name").into());
    }
    let pod_record = pod.record();
    if pod_record.stage != PodStage::Ready {
        return Err(Status::failed_precondition(format!("sandbox {} is not ready", pod.id)).into());
    }
    let wanted = config
        .image
        .as_ref()
        .map(|i| i.image.clone())
        .unwrap_or_default();
    // From here to the record of the container its layers must not go.
    let hold = node.images.hold().await;
    let image = node
        .images
        .find(&wanted)
        .ok_or_else(|| Status::not_found(format!("image {wanted:?} is not here")))?;
    let log_path = (!config.log_path.is_empty() && !pod_record.config.log_directory.is_empty())
        .then(|| PathBuf::from(&pod_record.config.log_directory).join(&config.log_path));
    let record = ContainerRecord {
        id: ids::random(),
        pod: pod.id.clone(),
        handler: pod_record.handler.clone(),
        image_id: image.id.clone(),
        image_ref: convert::image_ref(&image),
        layers: image.layers.clone(),
        created_at: time::now_ns(),
        stage: ContainerStage::Creating,
        log_path,
        boot_id: node.boot_id.clone(),
        resources: config.linux.as_ref().and_then(|l| l.resources.clone()),
        config,
        ..ContainerRecord::default()
    };
    let name = record.name(&pod_record.name());
    let guard = node.store.reserve(&name, &record.id).map_err(|holder| {
        Status::already_exists(format!("container name {name:?} is taken by {holder}"))
    })?;
    let container = node.store.add_container(record)?;
    guard.keep();
    drop(hold);
    match build(node, pod, &container, &image).await {
        Ok(()) => {
            lifecycle::event(node, &container, ContainerEventType::ContainerCreatedEvent);
            Ok(container.id.clone())
        }
        Err(err) => {
            if let Err(undo) = lifecycle::remove(node, &container).await {
                tracing::warn!(container = container.id, "half-made container: {undo:#}");
            }
            Err(err)
        }
    }
}

async fn build(
    node: &Arc<Node>,
    pod: &Arc<Pod>,
    container: &Arc<Container>,
    image: &crate::images::ImageRecord,
) -> Result<()> {
    let bundle = node.bundle(&container.id);
    let record = container.record();
    let defaults = node.images.defaults(image)?.config.unwrap_or_default();
    let rootfs = bundle.join("rootfs");
    let runtime = node.runtime(&record.handler)?;
    let pod_record = pod.record();
    let ids = node.id_map(&pod_record)?;
    for dir in [
        rootfs.clone(),
        container.dir.join("upper"),
        container.dir.join("work"),
    ] {
        std::fs::create_dir_all(&dir)?;
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(container.dir.join("upper"), mode)?;
    {
        let layers = Arc::clone(&node.images.layers);
        let chain = record.layers.clone();
        let dir = container.dir.clone();
        let target = rootfs.clone();
        let ids = ids.clone();
        tokio::task::spawn_blocking(move || {
            layers.mount(
                &chain,
                Some((&dir.join("upper"), &dir.join("work"))),
                ids.as_ref(),
                &target,
            )
        })
        .await??;
    }
    let image_mounts = mounts::image_volumes(node, container, ids.as_ref(), &bundle).await?;
    let input = spec::Input {
        node,
        pod: &pod_record,
        container: &record,
        defaults: &defaults,
        bundle: &bundle,
        image_mounts: &image_mounts,
        sandboxed: runtime.sandboxed,
        ids: ids.as_ref(),
    };
    // Reads the image's files, and may copy some.
    let built = tokio::task::block_in_place(|| spec::build(&input))?;
    let text = serde_json::to_vec_pretty(&built.spec)?;
    std::fs::write(bundle.join("config.json"), text)?;
    // For exec, which starts from the container's process.
    std::fs::write(
        bundle.join("process.json"),
        serde_json::to_vec(built.spec.get("process").context("no process")?)?,
    )?;
    if let Some(path) = &record.log_path
        && let Some(dir) = path.parent()
    {
        std::fs::create_dir_all(dir)?;
    }
    let runtime_log = bundle.join("runtime.log");
    let mut command = runtime.command(&runtime_log);
    command.extend([
        "create".to_owned(),
        "--bundle".to_owned(),
        bundle.display().to_string(),
        "--pid-file".to_owned(),
        bundle.join("pid").display().to_string(),
    ]);
    let request = Request::Create(Create {
        container: container.id.clone(),
        command,
        tail: vec![container.id.clone()],
        pid_file: bundle.join("pid"),
        runtime_log,
        log_path: record.log_path.clone(),
        tty: record.config.tty,
        stdin: record.config.stdin,
        stdin_once: record.config.stdin_once,
        console_socket: node.socket(&container.id, ".c"),
        exit_file: container.dir.join("exit.json"),
        max_log_line: node.config.max_log_line,
    });
    let call = async {
        let client = node.supervisor(&pod.id);
        client.call(&request).await
    };
    let limit = std::time::Duration::from_secs(node.config.runtime_timeout_s);
    let pid = match tokio::time::timeout(limit, call)
        .await
        .context("the runtime's create takes too long")??
    {
        Event::Created { pid } => pid,
        other => bail!("the supervisor answered {other:?}"),
    };
    container.update(|record| {
        record.stage = ContainerStage::Created;
        record.pid = pid;
        record.stop_signal = built.stop_signal;
        record.user = Some(built.user);
    })?;
    Ok(())
}
