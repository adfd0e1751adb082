//! The files: JSON or YAML. One that says what is not understood is not valid:
//! half of what a device needs is worse than none.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Versions of the specification that are understood.
const VERSIONS: &[&str] = &[
    "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0",
];
/// Files are small; a larger one is not meant for us.
const MAX_BYTES: u64 = 8 << 20;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    pub cdi_version: String,
    /// `vendor.com/class`.
    pub kind: String,
    /// Not for us.
    #[serde(default, rename = "annotations")]
    _annotations: Option<Value>,
    #[serde(default)]
    pub devices: Vec<Device>,
    /// For any of the devices.
    pub container_edits: Option<Edits>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    pub name: String,
    #[serde(default, rename = "annotations")]
    _annotations: Option<Value>,
    pub container_edits: Option<Edits>,
}

/// Changes to a container's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Edits {
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub device_nodes: Vec<DeviceNode>,
    #[serde(deserialize_with = "or_default")]
    pub net_devices: Vec<Value>,
    #[serde(deserialize_with = "or_default")]
    pub mounts: Vec<Mount>,
    #[serde(deserialize_with = "or_default")]
    pub hooks: Vec<Hook>,
    #[serde(deserialize_with = "or_default")]
    pub additional_gids: Vec<u32>,
    pub intel_rdt: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNode {
    /// In the container.
    #[serde(deserialize_with = "or_default")]
    pub path: String,
    /// On the host, if that is another.
    #[serde(deserialize_with = "or_default")]
    pub host_path: String,
    /// `b`, `c`, `u` or `p`; of the host's node if missing.
    #[serde(deserialize_with = "or_default")]
    pub r#type: String,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub file_mode: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    pub permissions: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    #[serde(deserialize_with = "or_default")]
    pub host_path: String,
    #[serde(deserialize_with = "or_default")]
    pub container_path: String,
    #[serde(deserialize_with = "or_default")]
    pub r#type: String,
    #[serde(deserialize_with = "or_default")]
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    #[serde(deserialize_with = "or_default")]
    pub hook_name: String,
    #[serde(deserialize_with = "or_default")]
    pub path: String,
    #[serde(deserialize_with = "or_default")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    pub timeout: Option<i64>,
}

/// Generators write `null` where a list is empty.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Spec {
    pub fn read(path: &Path) -> Result<Self> {
        let len = std::fs::metadata(path)?.len();
        if len > MAX_BYTES {
            bail!("{len} bytes are too many");
        }
        let text = std::fs::read_to_string(path)?;
        let spec: Self = if path.extension().is_some_and(|e| e == "json") {
            serde_json::from_str(&text)?
        } else {
            serde_saphyr::from_str(&text).map_err(|err| anyhow::anyhow!("{err}"))?
        };
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<()> {
        let version = self.cdi_version.trim_start_matches('v');
        if !VERSIONS.contains(&version) {
            bail!("cdiVersion {:?} is not known", self.cdi_version);
        }
        let (vendor, class) = self
            .kind
            .split_once('/')
            .with_context(|| format!("kind {:?} is not VENDOR/CLASS", self.kind))?;
        if !is_word(vendor, "_-.") || !is_word(class, "_-.") {
            bail!("kind {:?} is not VENDOR/CLASS", self.kind);
        }
        if self.devices.is_empty() {
            bail!("no devices");
        }
        if let Some(edits) = &self.container_edits {
            edits.check()?;
        }
        let mut seen = std::collections::HashSet::new();
        for device in &self.devices {
            if !is_device(&device.name) || !seen.insert(&device.name) {
                bail!("device name {:?} is not valid or comes twice", device.name);
            }
            if let Some(edits) = &device.container_edits {
                edits.check()?;
            }
        }
        Ok(())
    }
}

const HOOKS: &[&str] = &[
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

impl Edits {
    fn check(&self) -> Result<()> {
        for entry in &self.env {
            if entry.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
                bail!("env {entry:?} is not NAME=VALUE");
            }
        }
        for node in &self.device_nodes {
            if !Path::new(&node.path).is_absolute() {
                bail!("device node {:?} is not an absolute path", node.path);
            }
            if !matches!(node.r#type.as_str(), "" | "b" | "c" | "u" | "p") {
                bail!("device type {:?} is not one of b, c, u, p", node.r#type);
            }
            if !node.permissions.chars().all(|c| "rwm".contains(c)) {
                bail!("permissions {:?} are not of r, w, m", node.permissions);
            }
        }
        for mount in &self.mounts {
            if mount.host_path.is_empty() || !Path::new(&mount.container_path).is_absolute() {
                bail!("mount {mount:?} has no source or no absolute target");
            }
        }
        for hook in &self.hooks {
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                bail!("hook {:?} is not known", hook.hook_name);
            }
            if !Path::new(&hook.path).is_absolute() {
                bail!("hook path {:?} is not absolute", hook.path);
            }
        }
        Ok(())
    }
}

/// `VENDOR/CLASS=NAME`.
pub fn check_name(text: &str) -> Result<()> {
    let valid = text.split_once('=').is_some_and(|(kind, name)| {
        is_device(name)
            && kind
                .split_once('/')
                .is_some_and(|(vendor, class)| is_word(vendor, "_-.") && is_word(class, "_-."))
    });
    if !valid {
        bail!("CDI device {text:?} is not VENDOR/CLASS=NAME");
    }
    Ok(())
}

/// Begins with a letter, ends with a letter or digit.
fn is_word(text: &str, others: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && is_name(text, others)
}

fn is_device(text: &str) -> bool {
    is_name(text, "_-.:")
}

fn is_name(text: &str, others: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}
