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
    /// Where files of the Container Device Interface are looked for; later
    /// folders win.
    pub cdi_spec_dirs: Vec<PathBuf>,
    pub handlers: BTreeMap<String, HandlerConfig>,
    pub cni: CniConfig,
    pub images: ImageConfig,
    pub streaming: StreamingConfig,
    pub metrics: MetricsConfig,
    pub limits: LimitsConfig,
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
    /// How often plugins are told what is still in use, so that they drop the
    /// rest (GC of CNI 1.1); at the start in any case. 0 is never.
    pub gc_interval_s: u64,
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

/// What clients of the socket may take, so that one that is broken or hostile
/// does not hurt the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connections at a time, of one process and of all.
    pub connections_per_process: usize,
    pub connections: usize,
    /// Calls of one connection at a time; more of them wait.
    pub calls_per_connection: u32,
    /// Calls of one process whose answers have not been taken; more of them
    /// are refused.
    pub calls_per_process: usize,
    /// Largest request and answer. Lists that are larger stream.
    pub request_bytes: usize,
    pub answer_bytes: usize,
    /// Bytes of one process's requests that have begun to come in.
    pub requests_bytes: usize,
    /// How long a connection may take to say something, and a request to come
    /// in whole.
    pub receive_timeout_s: u64,
    /// How long an answer may wait for a client that does not read it.
    pub answer_timeout_s: u64,
    /// How long calls may take.
    pub call_timeout_s: u64,
    /// The same by method; 0 is without end. Calls that change things go on
    /// when their time is over: only the caller waits no longer.
    pub call_timeouts_s: BTreeMap<String, u64>,
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
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
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
            limits: LimitsConfig::default(),
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
            gc_interval_s: 3600,
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

/// Methods with another time than the rest: what waits for others has none.
const CALL_TIMEOUTS_S: &[(&str, u64)] = &[
    ("PullImage", 0),
    ("ExecSync", 0),
    ("StopContainer", 0),
    ("GetContainerEvents", 0),
    ("Pull", 0),
    ("Import", 0),
    ("Export", 0),
    ("Version", 30),
    ("Status", 30),
    ("RuntimeConfig", 30),
    ("ListPodSandbox", 60),
    ("PodSandboxStatus", 60),
    ("ListContainers", 60),
    ("ContainerStatus", 60),
    ("ListImages", 60),
    ("ImageStatus", 60),
];

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_per_process: 512,
            connections: 4096,
            calls_per_connection: 1024,
            calls_per_process: 4096,
            request_bytes: 16 << 20,
            answer_bytes: 256 << 20,
            requests_bytes: 32 << 20,
            receive_timeout_s: 20,
            answer_timeout_s: 60,
            call_timeout_s: 240,
            call_timeouts_s: CALL_TIMEOUTS_S
                .iter()
                .map(|(method, limit)| ((*method).to_owned(), *limit))
                .collect(),
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
        for (method, limit) in CALL_TIMEOUTS_S {
            let limits = &mut config.limits.call_timeouts_s;
            limits.entry((*method).to_owned()).or_insert(*limit);
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
