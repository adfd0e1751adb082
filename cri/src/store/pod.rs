//! A pod sandbox.

use std::path::PathBuf;

use anyhow::Result;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::atomic;
use crate::cni::Attachment;
use crate::proto::{NamespaceMode, PodSandboxConfig, PodSandboxMetadata};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodStage {
    /// `RunPodSandbox` has not answered: removed when the daemon finds it so.
    #[default]
    Creating,
    Ready,
    NotReady,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PodRecord {
    pub id: String,
    /// Resolved: never empty.
    pub handler: String,
    /// As in the request, for the status.
    pub requested_handler: String,
    pub config: PodSandboxConfig,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    pub stage: PodStage,
    /// The boot in which its namespaces exist.
    pub boot_id: String,
    /// What the network plugins have done and how to undo it.
    pub network: Option<Attachment>,
    /// The network has been released.
    pub network_released: bool,
}

impl PodRecord {
    pub fn metadata(&self) -> PodSandboxMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    /// Unique among pods.
    pub fn name(&self) -> String {
        let m = self.metadata();
        format!("{}_{}_{}_{}", m.name, m.namespace, m.uid, m.attempt)
    }

    pub fn namespaces(&self) -> crate::proto::NamespaceOption {
        self.config
            .linux
            .as_ref()
            .and_then(|l| l.security_context.as_ref())
            .and_then(|s| s.namespace_options.clone())
            .unwrap_or_default()
    }

    /// The user namespace of its own, if it asks for one.
    pub fn user_namespace(&self) -> Option<crate::proto::UserNamespace> {
        let options = self.namespaces().userns_options?;
        (options.mode() == NamespaceMode::Pod).then_some(options)
    }

    pub fn host_network(&self) -> bool {
        self.namespaces().network() == NamespaceMode::Node
    }

    pub fn cgroup_parent(&self) -> &str {
        self.config
            .linux
            .as_ref()
            .map_or("", |l| l.cgroup_parent.as_str())
    }
}

#[derive(Debug)]
pub struct Pod {
    pub id: String,
    pub dir: PathBuf,
    record: Mutex<PodRecord>,
    /// Serialises stop and remove.
    pub operation: tokio::sync::Mutex<()>,
}

impl Pod {
    pub fn new(record: PodRecord, dir: PathBuf) -> Self {
        Self {
            id: record.id.clone(),
            dir,
            record: Mutex::new(record),
            operation: tokio::sync::Mutex::new(()),
        }
    }

    pub fn record(&self) -> PodRecord {
        self.record.lock().clone()
    }

    pub fn stage(&self) -> PodStage {
        self.record.lock().stage
    }

    /// Changes the record and writes it; in memory only when that worked.
    pub fn update(&self, change: impl FnOnce(&mut PodRecord)) -> Result<()> {
        let mut record = self.record.lock();
        let mut new = record.clone();
        change(&mut new);
        atomic::write_json(&self.dir.join("pod.json"), &new)?;
        *record = new;
        Ok(())
    }
}
