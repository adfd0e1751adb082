//! Configuration of the shim, as users of gVisor's know it: containerd's
//! options with `TypeUrl = "io.containerd.runsc.v1.options"` and a
//! `ConfigPath` to a TOML file, or runc's options (`BinaryName`, `Root`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::messages::{Any, GenericOptions, RuncOptions};

/// File that is read if the options name none.
const DEFAULT_CONFIG: &str = "/etc/containerd/runsc.toml";

/// Where the options are kept, in the bundle.
const SAVED: &str = "shim-options.json";

/// What `runsc` is called with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub binary: String,
    /// `--root`.
    pub root: PathBuf,
    pub systemd_cgroup: bool,
    /// Further flags: `--KEY=VALUE`.
    pub flags: Vec<String>,
}

/// The TOML file. What the shim has no use for is accepted.
#[derive(Debug, Default, Deserialize)]
struct Config {
    binary_name: Option<String>,
    root: Option<PathBuf>,
    #[serde(default)]
    runsc_config: BTreeMap<String, toml::Value>,
}

impl Options {
    /// From the options of a `Create` request; `namespace` is containerd's.
    pub fn load(given: Option<&Any>, namespace: &str) -> Result<Self> {
        let mut options = Self {
            binary: "runsc".to_owned(),
            root: Path::new("/run/containerd/runsc").join(namespace),
            systemd_cgroup: false,
            flags: Vec::new(),
        };
        let Some(given) = given.filter(|given| !given.value.is_empty()) else {
            return options.with_default_file();
        };
        match given.name() {
            "runtimeoptions.v1.Options" | "cri.runtimeoptions.v1.Options" => {
                let generic = GenericOptions::decode(given.value.as_slice())?;
                if !generic.config_body.is_empty() {
                    let text = String::from_utf8(generic.config_body)
                        .context("runtime options are not text")?;
                    options.apply(&text).context("runtime options")?;
                } else if !generic.config_path.is_empty() {
                    options.apply_file(Path::new(&generic.config_path))?;
                } else {
                    return options.with_default_file();
                }
                Ok(options)
            }
            "containerd.runc.v1.Options" => {
                let runc = RuncOptions::decode(given.value.as_slice())?;
                let mut options = options.with_default_file()?;
                if !runc.binary_name.is_empty() {
                    options.binary = runc.binary_name;
                }
                if !runc.root.is_empty() {
                    options.root = Path::new(&runc.root).join(namespace);
                }
                options.systemd_cgroup = runc.systemd_cgroup;
                Ok(options)
            }
            other => bail!(
                "runtime options of type {other:?} are not known; use \
                 io.containerd.runsc.v1.options with a ConfigPath"
            ),
        }
    }

    /// Keeps them with the bundle, for `delete` after a crash.
    pub fn save(&self, bundle: &Path) -> Result<()> {
        let path = bundle.join(SAVED);
        std::fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("{} can't be written", path.display()))
    }

    /// What [`Self::save`] has kept.
    pub fn saved(bundle: &Path) -> Result<Self> {
        let path = bundle.join(SAVED);
        let text =
            std::fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    fn with_default_file(mut self) -> Result<Self> {
        let path = Path::new(DEFAULT_CONFIG);
        if path.exists() {
            self.apply_file(path)?;
        }
        Ok(self)
    }

    fn apply_file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} can't be read", path.display()))?;
        self.apply(&text)
            .with_context(|| path.display().to_string())
    }

    fn apply(&mut self, text: &str) -> Result<()> {
        let config: Config = toml::from_str(text).context("not a valid configuration")?;
        if let Some(binary) = config.binary_name {
            self.binary = binary;
        }
        if let Some(root) = config.root {
            self.root = root;
        }
        for (name, value) in config.runsc_config {
            let value = match value {
                toml::Value::String(text) => text,
                other => other.to_string(),
            };
            match name.as_str() {
                "root" => self.root = PathBuf::from(value),
                "systemd-cgroup" => self.systemd_cgroup = value == "true",
                // A flag without a value is on or not there.
                _ if value == "true" => self.flags.push(format!("--{name}")),
                _ if value == "false" => {}
                _ => self.flags.push(format!("--{name}={value}")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_like_gvisors() {
        let body = b"binary_name = '/opt/runsc'\nlog_level = 'debug'\n[runsc_config]\n\
                     platform = 'ptrace'\nstrace = 'true'\ndebug = false\nroot = '/r'\n";
        let generic = GenericOptions {
            type_url: "io.containerd.runsc.v1.options".to_owned(),
            config_path: String::new(),
            config_body: body.to_vec(),
        };
        let any = Any::of("runtimeoptions.v1.Options", &generic);
        let options = Options::load(Some(&any), "ns").expect("valid");
        assert_eq!(options.binary, "/opt/runsc");
        assert_eq!(options.root, Path::new("/r"));
        assert_eq!(options.flags, ["--platform=ptrace", "--strace"]);
    }

    #[test]
    fn options_of_runc() {
        let runc = RuncOptions {
            binary_name: "/bin/other".to_owned(),
            root: "/var/r".to_owned(),
            systemd_cgroup: true,
        };
        let any = Any::of("type.googleapis.com/containerd.runc.v1.Options", &runc);
        let options = Options::load(Some(&any), "k8s.io").expect("valid");
        assert_eq!(options.root, Path::new("/var/r/k8s.io"));
        assert!(options.systemd_cgroup && options.binary == "/bin/other");
        assert!(Options::load(Some(&Any::of("x.y", &runc)), "n").is_err());
    }
}
