//! What all requests share.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::broadcast;
use tonic::Status;

use crate::cni::Cni;
use crate::config::Config;
use crate::images::Images;
use crate::proto::ContainerEventResponse;
use crate::runtime::Runtime;
use crate::store::{Container, Pod, Store};
use crate::supervisor::client::Client;

#[derive(Debug)]
pub struct Node {
    pub config: Config,
    pub store: Store,
    pub images: Images,
    pub cni: Cni,
    pub events: broadcast::Sender<ContainerEventResponse>,
    /// Set once the server listens.
    pub streaming: std::sync::OnceLock<crate::streaming::Server>,
    /// For the metrics.
    pub calls: Arc<crate::metrics::Calls>,
    /// Of this boot: namespaces and processes of others are gone.
    pub boot_id: String,
    features: parking_lot::Mutex<std::collections::HashMap<String, Features>>,
}

impl Node {
    pub fn open(config: Config) -> Result<Arc<Self>> {
        for dir in ["pods", "containers", "s", "tmp", "runtimes"] {
            let dir = config.state.join(dir);
            std::fs::create_dir_all(&dir)
                .with_context(|| format!("{} can't be made", dir.display()))?;
        }
        // Configurations of pods hold secrets.
        for dir in [&config.state, &config.root] {
            std::fs::create_dir_all(dir)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            std::fs::set_permissions(dir, mode)?;
        }
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Arc::new(Self {
            store: Store::open(&config.root)?,
            images: Images::open(&config.root, config.images.clone())?,
            cni: Cni::new(config.cni.clone()),
            events: broadcast::Sender::new(1024),
            streaming: std::sync::OnceLock::new(),
            calls: Arc::default(),
            boot_id: boot_id.trim().to_owned(),
            features: parking_lot::Mutex::default(),
            config,
        }))
    }

    pub fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        self.store
            .pod(id)
            .ok_or_else(|| Status::not_found(format!("no pod sandbox {id:?}")).into())
    }

    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.store
            .container(id)
            .ok_or_else(|| Status::not_found(format!("no container {id:?}")).into())
    }

    pub fn runtime(&self, handler: &str) -> Result<Runtime> {
        Runtime::new(&self.config, handler)
    }

    /// Run-time folder of a pod.
    pub fn pod_state(&self, id: &str) -> PathBuf {
        self.config.state.join("pods").join(id)
    }

    /// Bundle of a container.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.config.state.join("containers").join(id)
    }

    /// A short path for a socket.
    pub fn socket(&self, id: &str, suffix: &str) -> PathBuf {
        let name = format!("{}{suffix}", crate::ids::short(id));
        self.config.state.join("s").join(name)
    }

    pub fn supervisor(&self, pod: &str) -> Client {
        Client::new(&self.socket(pod, ""))
    }

    /// Layers that containers keep.
    pub fn used_layers(&self) -> HashSet<String> {
        self.store
            .containers()
            .iter()
            .flat_map(|c| c.record().layers)
            .collect()
    }
}

/// Errors with a gRPC status keep it, all others are `UNKNOWN`, as kubelets
/// expect of a runtime.
pub fn status(err: anyhow::Error) -> Status {
    match err.downcast_ref::<Status>() {
        Some(status) => Status::new(status.code(), status.message()),
        None => Status::unknown(brief(format!("{err:#}"))),
    }
}

/// Messages travel in a header: what a registry or a runtime sends as an error
/// may be a whole page.
fn brief(mut text: String) -> String {
    const MOST: usize = 4096;
    if text.len() > MOST {
        let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

/// What a runtime says it can (`features`, OCI runtime specification 1.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    pub recursive_read_only: bool,
    pub idmapped_mounts: bool,
}

impl Node {
    /// Asked once per handler; a runtime without the command has none.
    pub fn features(&self, handler: &str) -> Features {
        if let Some(known) = self.features.lock().get(handler) {
            return *known;
        }
        let found = self
            .runtime(handler)
            .ok()
            .and_then(|runtime| {
                let output = std::process::Command::new(&runtime.path)
                    .arg("features")
                    .output()
                    .ok()?;
                serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()
            })
            .map(|value| Features {
                recursive_read_only: value
                    .get("mountOptions")
                    .and_then(|o| o.as_array())
                    .is_some_and(|all| all.iter().any(|o| o == "rro")),
                idmapped_mounts: value
                    .pointer("/linux/mountExtensions/idmap/enabled")
                    .and_then(serde_json::Value::as_bool)
                    .unwrap_or(false),
            })
            .unwrap_or_default();
        self.features.lock().insert(handler.to_owned(), found);
        found
    }
}
