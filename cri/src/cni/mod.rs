//! Container network interface (CNI specification 1.1): ADD, CHECK, DEL, GC and
//! STATUS of a list of plugins.
//!
//! | file | holds |
//! |---|---|
//! | `config.rs` | the configuration directory |
//! | `capabilities.rs` | what a pod asks of plugins |
//! | `exec.rs` | one call of one plugin |
//! | `health.rs` | is the network ready; watch and clean-up in the background |
//! | `init.rs` | `runsc-cri init` |

mod capabilities;
mod config;
mod exec;
mod health;
pub mod init;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::CniConfig;
use crate::proto::PodSandboxConfig;
use capabilities::capabilities;
pub use config::NetworkList;
use exec::Call;
pub use health::start;

/// Interface of the pod's default network.
const INTERFACE: &str = "eth0";

/// What was attached, kept with the pod so that it can be undone with the very
/// same configuration, also by a later daemon.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub network: NetworkList,
    pub container_id: String,
    pub netns: PathBuf,
    pub args: String,
    /// Values for plugins with the capability of that name.
    pub capabilities: BTreeMap<String, Value>,
    /// Result of the last plugin; none while ADD is under way.
    pub result: Option<Value>,
}

#[derive(Debug)]
pub struct Cni {
    config: CniConfig,
    /// Of the node, told by the kubelet (`UpdateRuntimeConfig`).
    pod_cidr: parking_lot::Mutex<String>,
    /// Taken for writing by GC, for reading by all that attach or detach.
    turn: tokio::sync::RwLock<()>,
    /// What the plugins last said of themselves.
    health: parking_lot::Mutex<Option<health::Health>>,
}

impl Attachment {
    /// Addresses without their prefix length, in the plugins' order.
    pub fn addresses(&self) -> Vec<String> {
        let ips = self
            .result
            .as_ref()
            .and_then(|r| r.get("ips"))
            .and_then(Value::as_array);
        ips.into_iter()
            .flatten()
            .filter_map(|ip| ip.get("address")?.as_str())
            .map(|a| a.split('/').next().unwrap_or(a).to_owned())
            .collect()
    }
}

impl Cni {
    pub fn new(config: CniConfig) -> Self {
        Self {
            config,
            pod_cidr: parking_lot::Mutex::default(),
            turn: tokio::sync::RwLock::default(),
            health: parking_lot::Mutex::default(),
        }
    }

    pub fn set_pod_cidr(&self, cidr: &str) {
        cidr.clone_into(&mut self.pod_cidr.lock());
    }

    /// The first valid configuration of the directory, or why there is none.
    pub fn network(&self) -> Result<NetworkList> {
        config::first(&self.config.config_dir)
    }

    /// All plugins of the configuration are installed.
    pub fn installed(&self) -> Result<NetworkList> {
        let network = self.network()?;
        for plugin in &network.plugins {
            self.find(plugin)?;
        }
        Ok(network)
    }

    fn find(&self, plugin: &Map<String, Value>) -> Result<PathBuf> {
        let kind = plugin
            .get("type")
            .and_then(Value::as_str)
            .context("a plugin without a type")?;
        if kind.is_empty() || kind.contains('/') || kind == ".." {
            bail!("plugin type {kind:?} is not a file name");
        }
        self.config
            .bin_dirs
            .iter()
            .map(|dir| dir.join(kind))
            .find(|path| path.is_file())
            .with_context(|| format!("network plugin {kind} is not in {:?}", self.config.bin_dirs))
    }

    /// What ADD will be called with.
    pub fn plan(&self, id: &str, netns: &Path, pod: &PodSandboxConfig) -> Result<Attachment> {
        let metadata = pod.metadata.clone().unwrap_or_default();
        Ok(Attachment {
            network: self.network()?,
            container_id: id.to_owned(),
            netns: netns.to_owned(),
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};\
                 K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={}",
                metadata.namespace, metadata.name, metadata.uid
            ),
            capabilities: capabilities(pod, &self.pod_cidr.lock()),
            result: None,
        })
    }

    /// ADD of all plugins. When one fails those before it are undone.
    pub async fn add(&self, attachment: &mut Attachment) -> Result<()> {
        let _turn = self.turn.read().await;
        let mut previous = None;
        for plugin in attachment.network.plugins.clone() {
            let result = self
                .call("ADD", attachment, &plugin, previous.as_ref())
                .await;
            match result {
                Ok(text) => {
                    let value = serde_json::from_str(&text)
                        .context("a network plugin's result is not valid")?;
                    previous = Some(value);
                }
                Err(err) => {
                    if let Err(undo) = self.del_all(attachment).await {
                        tracing::warn!("network of a failed pod: {undo:#}");
                    }
                    return Err(err);
                }
            }
        }
        attachment.result = previous;
        Ok(())
    }

    /// CHECK, where the version has it.
    pub async fn check(&self, attachment: &Attachment) -> Result<()> {
        let list = &attachment.network;
        if list.disable_check || !list.since(0, 4) {
            return Ok(());
        }
        let _turn = self.turn.read().await;
        for plugin in &list.plugins {
            self.call("CHECK", attachment, plugin, attachment.result.as_ref())
                .await?;
        }
        Ok(())
    }

    /// DEL of all plugins, last first. Plugins take what is gone as success; all
    /// are called, and the first error is returned.
    pub async fn del(&self, attachment: &Attachment) -> Result<()> {
        let _turn = self.turn.read().await;
        self.del_all(attachment).await
    }

    async fn del_all(&self, attachment: &Attachment) -> Result<()> {
        let mut first = Ok(());
        for plugin in attachment.network.plugins.iter().rev() {
            let result = self
                .call("DEL", attachment, plugin, attachment.result.as_ref())
                .await;
            if let Err(err) = result
                && first.is_ok()
            {
                first = Err(err);
            }
        }
        first
    }

    /// GC (CNI 1.1): plugins drop what is not of these attachments. Asked of
    /// the configuration in force, if its version has it. Nothing is attached
    /// or detached meanwhile, so that `valid` is still true when they look.
    pub async fn gc(&self, valid: impl FnOnce() -> Vec<Attachment>) -> Result<()> {
        let Ok(network) = self.network() else {
            return Ok(());
        };
        if network.disable_gc || !network.since(1, 1) {
            return Ok(());
        }
        let _turn = self.turn.write().await;
        let valid = valid();
        let mine = valid.iter().filter(|a| a.network.name == network.name);
        let valid: Vec<Value> = mine
            .map(|a| json!({"containerID": a.container_id, "ifname": INTERFACE}))
            .collect();
        let nobody = Attachment {
            network: network.clone(),
            ..Attachment::default()
        };
        let mut first = Ok(());
        for plugin in &network.plugins {
            let mut plugin = plugin.clone();
            plugin.insert("cni.dev/valid-attachments".into(), json!(valid));
            let result = self.call("GC", &nobody, &plugin, None).await;
            if let Err(err) = result
                && first.is_ok()
            {
                first = Err(err);
            }
        }
        first
    }

    async fn call(
        &self,
        command: &str,
        attachment: &Attachment,
        plugin: &Map<String, Value>,
        previous: Option<&Value>,
    ) -> Result<String> {
        let list = &attachment.network;
        let mut config = plugin.clone();
        config.insert("name".into(), json!(list.name));
        config.insert("cniVersion".into(), json!(list.version));
        if let Some(previous) = previous {
            config.insert("prevResult".into(), previous.clone());
        }
        if let Some(Value::Object(wanted)) = config.remove("capabilities") {
            let values: Map<String, Value> = wanted
                .iter()
                .filter(|(_, on)| on.as_bool() == Some(true))
                .filter_map(|(name, _)| {
                    let value = attachment.capabilities.get(name)?;
                    Some((name.clone(), value.clone()))
                })
                .collect();
            if !values.is_empty() {
                config.insert("runtimeConfig".into(), Value::Object(values));
            }
        }
        let program = self.find(plugin)?;
        exec::run(Call {
            command,
            program: &program,
            container_id: &attachment.container_id,
            // A namespace that has gone (a reboot) is not named.
            netns: if command != "DEL" || attachment.netns.exists() {
                &attachment.netns
            } else {
                Path::new("")
            },
            interface: INTERFACE,
            args: &attachment.args,
            bin_dirs: &self.config.bin_dirs,
            config: &Value::Object(config),
            timeout: std::time::Duration::from_secs(self.config.timeout_s.max(1)),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_result() {
        let attachment = Attachment {
            result: Some(json!({"ips": [{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}]})),
            ..Attachment::default()
        };
        assert_eq!(attachment.addresses(), ["10.0.0.2", "fd00::2"]);
    }
}
