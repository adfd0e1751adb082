//! The configuration file (TOML). Every key has a default; an unknown key is
//! an error, so that a typing mistake does not go unnoticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Images, metadata and writable layers; kept over reboots.
    pub root: PathBuf,
    /// Sockets, namespaces, mounts; on a tmpfs.
    pub state: PathBuf,
    /// Unix socket of the CRI.
    pub listen: PathBuf,
    /// Mode of that socket, owned by root.
    pub socket_mode: u32,
    /// Handler of pods without a RuntimeClass. System pods (kube-proxy, CNI
    /// agents) come without one and need the host's kernel.
    pub default_handler: String,
    /// `cgroupfs` or `systemd`; must be the kubelet's.
    pub cgroup_driver: CgroupDriver,
    /// Parent cgroup of pods that name none (not made by a kubelet).
    pub cgroup_parent: String,
    /// Bytes after which a log line is split into partial lines.
    pub max_log_line: usize,
    /// Longest time the OCI runtime may take for one command.
    pub runtime_timeout_s: u64,
    pub handlers: BTreeMap<String, HandlerConfig>,
    pub cni: CniConfig,
    pub images: ImageConfig,
    pub streaming: StreamingConfig,
    pub metrics: MetricsConfig,
    pub log: LogConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    Cgroupfs,
    Systemd,
}

/// An OCI runtime, driven by its command line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HandlerConfig {
    /// Name looked up in PATH (and beside `runsc-cri`), or absolute path.
    pub path: PathBuf,
    /// Further global arguments.
    pub options: Vec<String>,
    /// The runtime puts the containers of a pod into one sandbox.
    pub sandboxed: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CniConfig {
    /// The first configuration file in it, by name, is used.
    pub config_dir: PathBuf,
    pub bin_dirs: Vec<PathBuf>,
    /// Longest time one plugin may take.
    pub timeout_s: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    /// `DIR/REGISTRY/hosts.toml`, as containerd has it.
    pub registry_config_dir: PathBuf,
    /// Credentials where the kubelet gives none (docker's config.json).
    pub docker_config: Option<PathBuf>,
    /// Layers of one image fetched at a time.
    pub parallel_layers: usize,
    /// A pull without a byte for this long has failed.
    pub pull_progress_timeout_s: u64,
    /// Never removed by the kubelet's garbage collection.
    pub pinned: Vec<String>,
    /// Limits of one unpacked layer.
    pub max_layer_bytes: u64,
    pub max_layer_files: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamingConfig {
    /// Where exec, attach and port-forward are served, for the kubelet.
    pub address: String,
    /// 0 takes a free one.
    pub port: u16,
    pub idle_timeout_s: u64,
    /// Both or none.
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// ADDRESS:PORT of the Prometheus endpoint; none when empty.
    pub listen: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, or a tracing filter.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/runsc-cri".into(),
            state: "/run/runsc-cri".into(),
            listen: "/run/runsc-cri/runsc-cri.sock".into(),
            socket_mode: 0o660,
            default_handler: "runc".into(),
            cgroup_driver: CgroupDriver::Cgroupfs,
            cgroup_parent: "/runsc-cri".into(),
            max_log_line: 16 << 10,
            runtime_timeout_s: 120,
            handlers: [
                (
                    "runc".to_owned(),
                    HandlerConfig {
                        path: "runc".into(),
                        ..HandlerConfig::default()
                    },
                ),
                (
                    "runsc".to_owned(),
                    HandlerConfig {
                        path: "runsc".into(),
                        sandboxed: true,
                        ..HandlerConfig::default()
                    },
                ),
            ]
            .into(),
            cni: CniConfig::default(),
            images: ImageConfig::default(),
            streaming: StreamingConfig::default(),
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for CniConfig {
    fn default() -> Self {
        Self {
            config_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            timeout_s: 60,
        }
    }
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            registry_config_dir: "/etc/runsc-cri/certs.d".into(),
            docker_config: None,
            parallel_layers: 4,
            pull_progress_timeout_s: 60,
            pinned: Vec::new(),
            max_layer_bytes: 64 << 30,
            max_layer_files: 4_000_000,
        }
    }
}

impl Default for StreamingConfig {
    fn default() -> Self {
        Self {
            address: "127.0.0.1".into(),
            port: 0,
            idle_timeout_s: 4 * 3600,
            tls_cert: None,
            tls_key: None,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
        }
    }
}

impl Config {
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} can't be read", path.display()))?;
        let mut config: Self =
            toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
        // Handlers of the file come beside the built-in ones.
        for (name, handler) in Self::default().handlers {
            config.handlers.entry(name).or_insert(handler);
        }
        Ok(config)
    }

    pub fn check(&self) -> Result<()> {
        if !self.handlers.contains_key(&self.default_handler) {
            bail!(
                "default_handler {:?} is not one of the handlers {:?}",
                self.default_handler,
                self.handlers.keys().collect::<Vec<_>>()
            );
        }
        for path in [&self.root, &self.state, &self.listen] {
            if !path.is_absolute() {
                bail!("{} must be an absolute path", path.display());
            }
        }
        if self.streaming.tls_cert.is_some() != self.streaming.tls_key.is_some() {
            bail!("streaming.tls_cert and streaming.tls_key come together");
        }
        Ok(())
    }
}
