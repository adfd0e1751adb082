//! From records to messages.

use std::collections::HashMap;

use crate::node::Node;
use crate::proto;
use crate::store::{ContainerRecord, ContainerStage, PodRecord, PodStage};

pub fn pod_state(record: &PodRecord) -> proto::PodSandboxState {
    match record.stage {
        PodStage::Ready => proto::PodSandboxState::SandboxReady,
        PodStage::Creating | PodStage::NotReady => proto::PodSandboxState::SandboxNotready,
    }
}

pub fn pod_item(record: PodRecord) -> proto::PodSandbox {
    proto::PodSandbox {
        state: pod_state(&record).into(),
        id: record.id,
        metadata: record.config.metadata,
        created_at: record.created_at,
        labels: record.config.labels,
        annotations: record.config.annotations,
        runtime_handler: record.requested_handler,
    }
}

pub fn pod_status(record: &PodRecord) -> proto::PodSandboxStatus {
    let mut addresses = record
        .network
        .iter()
        .filter(|_| !record.network_released)
        .flat_map(|n| n.addresses());
    let first = addresses.next();
    proto::PodSandboxStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: pod_state(record).into(),
        created_at: record.created_at,
        network: Some(proto::PodSandboxNetworkStatus {
            ip: first.unwrap_or_default(),
            additional_ips: addresses.map(|ip| proto::PodIp { ip }).collect(),
        }),
        linux: Some(proto::LinuxPodSandboxStatus {
            namespaces: Some(proto::Namespace {
                options: Some(record.namespaces()),
            }),
        }),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.requested_handler.clone(),
    }
}

pub fn container_state(record: &ContainerRecord) -> proto::ContainerState {
    match record.stage {
        ContainerStage::Creating | ContainerStage::Created => {
            proto::ContainerState::ContainerCreated
        }
        ContainerStage::Running => proto::ContainerState::ContainerRunning,
        ContainerStage::Exited | ContainerStage::Removing => proto::ContainerState::ContainerExited,
    }
}

pub fn container_item(record: ContainerRecord) -> proto::Container {
    proto::Container {
        state: container_state(&record).into(),
        id: record.id,
        pod_sandbox_id: record.pod,
        metadata: record.config.metadata,
        image: record.config.image,
        image_ref: record.image_ref,
        created_at: record.created_at,
        labels: record.config.labels,
        annotations: record.config.annotations,
        image_id: record.image_id,
    }
}

pub fn container_status(record: &ContainerRecord) -> proto::ContainerStatus {
    proto::ContainerStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: container_state(record).into(),
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        exit_code: record.exit_code,
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        reason: record.reason.clone(),
        message: record.message.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: record.config.mounts.clone(),
        log_path: record
            .log_path
            .as_ref()
            .map(|p| p.display().to_string())
            .unwrap_or_default(),
        resources: record
            .resources
            .clone()
            .map(|linux| proto::ContainerResources {
                linux: Some(linux),
                windows: None,
            }),
        image_id: record.image_id.clone(),
        user: record
            .user
            .clone()
            .map(|linux| proto::ContainerUser { linux: Some(linux) }),
        stop_signal: stop_signal(&record.stop_signal).into(),
    }
}

/// `SIGTERM`, `TERM` or a number.
fn stop_signal(text: &str) -> proto::Signal {
    let name = if text.starts_with("SIG") {
        text.to_owned()
    } else {
        format!("SIG{text}")
    };
    let name = name.replace('+', "PLUS").replace('-', "MINUS");
    proto::Signal::from_str_name(&name).unwrap_or(proto::Signal::RuntimeDefault)
}

/// All of `wanted` are among `labels`.
pub fn labels_match(wanted: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// An id filter: exact, or a beginning of at least one digit.
pub fn id_matches(filter: &str, id: &str) -> bool {
    filter.is_empty() || id.starts_with(filter)
}

/// The digest it was pulled by, else the id.
pub fn image_ref(record: &crate::images::ImageRecord) -> String {
    record.digests.first().unwrap_or(&record.id).clone()
}

pub fn image(node: &Node, record: &crate::images::ImageRecord) -> proto::Image {
    let user = node
        .images
        .defaults(record)
        .ok()
        .and_then(|c| c.config)
        .and_then(|c| c.user)
        .unwrap_or_default();
    let name = user.split(':').next().unwrap_or_default();
    let (uid, username) = match name.parse::<i64>() {
        Ok(uid) => (Some(proto::Int64Value { value: uid }), String::new()),
        Err(_) if name.is_empty() => (Some(proto::Int64Value { value: 0 }), String::new()),
        Err(_) => (None, name.to_owned()),
    };
    proto::Image {
        id: record.id.clone(),
        repo_tags: record.tags.clone(),
        repo_digests: record.digests.clone(),
        size: record.size,
        uid,
        username,
        // Images are the same for all handlers.
        spec: Some(proto::ImageSpec {
            image: record.id.clone(),
            image_ref: image_ref(record),
            ..proto::ImageSpec::default()
        }),
        pinned: node.images.is_pinned(record),
    }
}
