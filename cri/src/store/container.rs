//! A container of a pod.

use std::path::PathBuf;

use anyhow::Result;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::atomic;
use crate::proto::{
    ContainerConfig, ContainerMetadata, LinuxContainerResources, LinuxContainerUser,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerStage {
    /// `CreateContainer` has not answered: removed when the daemon finds it so.
    #[default]
    Creating,
    Created,
    Running,
    Exited,
    /// `RemoveContainer` has begun: finished when the daemon finds it so.
    Removing,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerRecord {
    pub id: String,
    pub pod: String,
    pub handler: String,
    pub config: ContainerConfig,
    /// Image configuration digest.
    pub image_id: String,
    /// `REPOSITORY@DIGEST` as in the status, or the id.
    pub image_ref: String,
    /// Chain ids of its layers, lowest first; kept from collection.
    pub layers: Vec<String>,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub stage: ContainerStage,
    /// Absolute; none when the pod has no log folder.
    pub log_path: Option<PathBuf>,
    /// `SIGTERM` or what the image says.
    pub stop_signal: String,
    pub user: Option<LinuxContainerUser>,
    /// As last updated.
    pub resources: Option<LinuxContainerResources>,
    pub boot_id: String,
    pub pid: i32,
}

impl ContainerRecord {
    pub fn metadata(&self) -> ContainerMetadata {
        self.config.metadata.clone().unwrap_or_default()
    }

    /// Unique among containers: the restart count is part of it.
    pub fn name(&self, pod_name: &str) -> String {
        let m = self.metadata();
        format!("{}_{pod_name}_{}", m.name, m.attempt)
    }

    pub fn alive(&self) -> bool {
        matches!(
            self.stage,
            ContainerStage::Created | ContainerStage::Running
        )
    }
}

#[derive(Debug)]
pub struct Container {
    pub id: String,
    pub pod: String,
    pub dir: PathBuf,
    record: Mutex<ContainerRecord>,
    pub operation: tokio::sync::Mutex<()>,
    stage: watch::Sender<ContainerStage>,
    /// Last reading of the CPU counter: (time, ns of CPU).
    pub last_cpu: Mutex<Option<(i64, u64)>>,
}

impl Container {
    pub fn new(record: ContainerRecord, dir: PathBuf) -> Self {
        Self {
            id: record.id.clone(),
            pod: record.pod.clone(),
            dir,
            operation: tokio::sync::Mutex::new(()),
            stage: watch::Sender::new(record.stage),
            record: Mutex::new(record),
            last_cpu: Mutex::new(None),
        }
    }

    pub fn record(&self) -> ContainerRecord {
        self.record.lock().clone()
    }

    pub fn stage(&self) -> ContainerStage {
        self.record.lock().stage
    }

    /// Changes the record and writes it; in memory only when that worked.
    pub fn update(&self, change: impl FnOnce(&mut ContainerRecord)) -> Result<()> {
        let mut record = self.record.lock();
        let mut new = record.clone();
        change(&mut new);
        atomic::write_json(&self.dir.join("container.json"), &new)?;
        *record = new;
        self.stage.send_replace(record.stage);
        Ok(())
    }

    /// Waits until it runs no more.
    pub async fn ended(&self) {
        let mut stage = self.stage.subscribe();
        // The sender lives in `self`.
        let _ = stage
            .wait_for(|s| matches!(s, ContainerStage::Exited | ContainerStage::Removing))
            .await;
    }
}
