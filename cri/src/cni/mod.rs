//! Container network interface (CNI specification 1.1): the configuration
//! directory, and ADD, CHECK and DEL of a list of plugins.

mod exec;
pub mod init;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::CniConfig;
use crate::proto::{PodSandboxConfig, Protocol};
use exec::Call;

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

/// A network configuration list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkList {
    #[serde(rename = "cniVersion")]
    pub version: String,
    pub name: String,
    #[serde(rename = "disableCheck")]
    pub disable_check: bool,
    pub plugins: Vec<Map<String, Value>>,
}

#[derive(Debug)]
pub struct Cni {
    config: CniConfig,
    /// Of the node, told by the kubelet (`UpdateRuntimeConfig`).
    pod_cidr: parking_lot::Mutex<String>,
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
        }
    }

    pub fn set_pod_cidr(&self, cidr: &str) {
        cidr.clone_into(&mut self.pod_cidr.lock());
    }

    /// The first valid configuration of the directory, or why there is none.
    pub fn network(&self) -> Result<NetworkList> {
        let dir = &self.config.config_dir;
        let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
            Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(err).with_context(|| dir.display().to_string()),
        };
        files.retain(|path| {
            path.extension()
                .is_some_and(|e| e == "conflist" || e == "conf" || e == "json")
        });
        files.sort();
        let mut first = None;
        for path in files {
            match parse(&path) {
                Ok(list) => return Ok(list),
                Err(err) => first = first.or(Some(err)),
            }
        }
        Err(first.unwrap_or_else(|| {
            anyhow::anyhow!(
                "no network configuration in {} (`runsc-cri init` writes one)",
                dir.display()
            )
        }))
    }

    /// All plugins of the configuration are installed.
    pub fn ready(&self) -> Result<()> {
        for plugin in self.network()?.plugins {
            self.find(&plugin)?;
        }
        Ok(())
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
                    if let Err(undo) = self.del(attachment).await {
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
        if list.disable_check
            || matches!(list.version.as_str(), "0.1.0" | "0.2.0" | "0.3.0" | "0.3.1")
        {
            return Ok(());
        }
        for plugin in &list.plugins {
            self.call("CHECK", attachment, plugin, attachment.result.as_ref())
                .await?;
        }
        Ok(())
    }

    /// DEL of all plugins, last first. Plugins take what is gone as success; all
    /// are called, and the first error is returned.
    pub async fn del(&self, attachment: &Attachment) -> Result<()> {
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
    /// the configuration in force, if its version has it.
    pub async fn gc(&self, valid: &[Attachment]) -> Result<()> {
        let Ok(network) = self.network() else {
            return Ok(());
        };
        if !has_gc(&network.version) {
            return Ok(());
        }
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

/// Version 1.1 and later.
fn has_gc(version: &str) -> bool {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (1, 1)
}

/// A list (`.conflist`) or a single plugin (`.conf`, `.json`).
fn parse(path: &Path) -> Result<NetworkList> {
    let text = std::fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
    let value: Value = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not valid", path.display()))?;
    let list = if value.get("plugins").is_some() {
        serde_json::from_value(value).with_context(|| format!("{} is not valid", path.display()))?
    } else {
        let Value::Object(plugin) = value else {
            bail!("{} is not an object", path.display());
        };
        let text = |key: &str| {
            plugin
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        NetworkList {
            version: text("cniVersion"),
            name: text("name"),
            disable_check: false,
            plugins: vec![plugin],
        }
    };
    if list.name.is_empty() || list.plugins.is_empty() {
        bail!("{} has no name or no plugin", path.display());
    }
    Ok(list)
}

fn capabilities(pod: &PodSandboxConfig, pod_cidr: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let ports: Vec<Value> = pod
        .port_mappings
        .iter()
        .filter(|p| p.host_port > 0)
        .map(|p| {
            json!({
                "hostPort": p.host_port,
                "containerPort": p.container_port,
                "protocol": match p.protocol() {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                    Protocol::Sctp => "sctp",
                },
                "hostIP": p.host_ip,
            })
        })
        .collect();
    if !ports.is_empty() {
        found.insert("portMappings".into(), json!(ports));
    }
    let rate = |direction: &str| {
        let text = pod
            .annotations
            .get(&format!("kubernetes.io/{direction}-bandwidth"))?;
        parse_rate(text)
    };
    let (ingress, egress) = (rate("ingress"), rate("egress"));
    if ingress.is_some() || egress.is_some() {
        let mut bandwidth = Map::new();
        // A burst as large as the plugin takes, since none is given.
        const BURST: u64 = (1 << 31) - 1;
        for (name, value) in [("ingress", ingress), ("egress", egress)] {
            if let Some(value) = value {
                bandwidth.insert(format!("{name}Rate"), json!(value));
                bandwidth.insert(format!("{name}Burst"), json!(BURST));
            }
        }
        found.insert("bandwidth".into(), Value::Object(bandwidth));
    }
    if let Some(dns) = &pod.dns_config {
        found.insert(
            "dns".into(),
            json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options}),
        );
    }
    if !pod_cidr.is_empty() {
        let ranges: Vec<Value> = pod_cidr
            .split(',')
            .map(|subnet| json!([{ "subnet": subnet }]))
            .collect();
        found.insert("ipRanges".into(), json!(ranges));
    }
    found
}

/// A Kubernetes quantity (`10M`, `1Gi`) in bits per second.
fn parse_rate(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(parse_rate("10M"), Some(10_000_000));
        assert_eq!(parse_rate("1Ki"), Some(1024));
        assert_eq!(parse_rate("fast"), None);
    }

    #[test]
    fn addresses_of_a_result() {
        let attachment = Attachment {
            result: Some(json!({"ips": [{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}]})),
            ..Attachment::default()
        };
        assert_eq!(attachment.addresses(), ["10.0.0.2", "fd00::2"]);
    }
}
