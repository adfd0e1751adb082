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
use crate::images::idmap::IdMap;
use crate::proto::ContainerEventResponse;
use crate::runtime::Runtime;
use crate::store::{Container, Pod, PodRecord, Store};
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
    /// Whether ids of mounts can be mapped, once it was tried.
    idmap: std::sync::OnceLock<Result<(), String>>,
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
            idmap: std::sync::OnceLock::new(),
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

/// User namespaces of pods.
impl Node {
    /// Host ids of root in the pod's user namespace, where files are to be
    /// owned by it: not in a sandbox, which keeps ids as they are.
    pub fn mapped_root(&self, pod: &PodRecord) -> Option<(u32, u32)> {
        let sandboxed = |handler: &str| {
            let settings = self.config.handlers.get(handler);
            settings.is_some_and(|settings| settings.sandboxed)
        };
        let options = pod.user_namespace()?;
        if sandboxed(&pod.handler) {
            return None;
        }
        let host_id = crate::pods::run::host_id;
        Some((host_id(&options.uids, 0)?, host_id(&options.gids, 0)?))
    }

    /// How files of the pod's containers are mapped, if they are to be.
    pub fn id_map(&self, pod: &PodRecord) -> Result<Option<IdMap>> {
        let Some(root) = self.mapped_root(pod) else {
            return Ok(None);
        };
        Ok(Some(IdMap {
            program: self.idmap_program()?,
            userns: self.pod_state(&pod.id).join("ns/user"),
            root,
        }))
    }

    fn idmap_program(&self) -> Result<PathBuf> {
        let settings = self.config.handlers.get("runsc");
        let path = settings.map_or("runsc".into(), |settings| settings.path.clone());
        crate::runtime::find(&path).context("idmapped mounts are made by runsc")
    }

    /// Whether pods of this handler may have a user namespace of their own, or
    /// why not. Blocks when it is asked first: it is tried.
    pub fn user_namespaces(&self, handler: &str) -> Result<(), String> {
        if self.runtime(handler).is_ok_and(|runtime| runtime.sandboxed) {
            return Ok(());
        }
        if !self.features(handler).user_namespaces {
            return Err(format!("the runtime of handler {handler} has none"));
        }
        let tried = self.idmap.get_or_init(|| {
            let program = self.idmap_program().map_err(|err| format!("{err:#}"))?;
            let try_with = |userns: &std::path::Path| {
                let ids = IdMap {
                    program,
                    userns: userns.to_owned(),
                    root: (0, 0),
                };
                ids.check(&self.config.root.join("layers"))
            };
            crate::supervisor::with_sample_user_namespace(try_with)
                .map_err(|err| format!("{err:#}"))
        });
        tried.clone()
    }
}

/// What a runtime says it can (`features`, OCI runtime specification 1.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    pub recursive_read_only: bool,
    pub user_namespaces: bool,
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
                user_namespaces: value
                    .pointer("/linux/namespaces")
                    .and_then(|n| n.as_array())
                    .is_some_and(|all| all.iter().any(|n| n == "user")),
            })
            .unwrap_or_default();
        self.features.lock().insert(handler.to_owned(), found);
        found
    }
}
