//! `runsc do`: a program on this machine's files, with a throw-away overlay.

use std::env;
use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Global, NO_STACK, Network};
use crate::launch::{self, Foreground};
use crate::network::NetworkPlan;
use crate::oci;
use crate::plan::{CapabilityPlan, ContainerPlan, HostPlan, Overlay, ProcessPlan, RootPlan};

/// What ids of these containers begin with.
const ID_PREFIX: &str = "do-";

#[derive(Args)]
pub struct Do {
    /// Directory that becomes the root, read-only below the overlay.
    #[arg(long = "rootfs", value_name = "DIR", default_value = "/")]
    rootfs: PathBuf,
    /// Working directory, the current one by default.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Program and arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    args: Vec<String>,
}

impl Do {
    pub fn run(self, global: &Global) -> Result<u8> {
        let rootfs = std::fs::canonicalize(&self.rootfs)
            .with_context(|| format!("--rootfs {} can't be opened", self.rootfs.display()))?;
        let cwd = match self.cwd {
            Some(cwd) => cwd,
            None if rootfs.as_os_str() == "/" => {
                env::current_dir().context("the current directory can't be found")?
            }
            None => PathBuf::from("/"),
        };
        let cwd = cwd.into_os_string().into_string().ok();
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let all = oci::ALL_CAPABILITIES;
        let root = nix::unistd::geteuid().is_root();
        let capabilities = if root {
            CapabilityPlan {
                bounding: all,
                effective: all,
                inheritable: 0,
                permitted: all,
                ambient: 0,
            }
        } else {
            CapabilityPlan {
                bounding: all,
                ..CapabilityPlan::default()
            }
        };
        let hostname = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok());
        let groups = nix::unistd::getgroups().unwrap_or_default();
        let plan = ContainerPlan {
            id: format!(
                "{ID_PREFIX}{}-{}",
                std::process::id(),
                crate::time::nanos_of_day()
            ),
            bundle: PathBuf::from("/"),
            process: ProcessPlan {
                args: self.args,
                env: env::vars_os()
                    .filter_map(|(key, value)| {
                        Some(format!("{}={}", key.to_str()?, value.to_str()?))
                    })
                    .collect(),
                cwd: cwd.context("the working directory is not valid UTF-8")?,
                uid: nix::unistd::geteuid().as_raw(),
                gid: nix::unistd::getegid().as_raw(),
                additional_gids: groups.iter().map(|gid| gid.as_raw()).collect(),
                umask: None,
                capabilities,
                no_new_privileges: false,
                rlimits: Vec::new(),
                terminal,
                console_size: None,
                oom_score_adj: None,
                seccomp: None,
            },
            root: RootPlan {
                path: rootfs,
                readonly: false,
                overlay: Overlay::Memory,
            },
            hostname: hostname.unwrap_or_else(|| "sandbox".to_owned()),
            domainname: String::new(),
            mounts: oci::default_mounts(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            devices: Vec::new(),
            sysctl: Default::default(),
            annotations: Default::default(),
            network: match global.network {
                Some(Network::Host) => NetworkPlan::of_caller(),
                Some(Network::Sandbox) => bail!("{NO_STACK}"),
                Some(Network::None) | None => NetworkPlan::None,
            },
            users: Vec::new(),
            groups: Vec::new(),
            pod: None,
            host: HostPlan::default(),
        };
        launch::sweep(global, ID_PREFIX);
        let settings = launch::RunSettings {
            foreground: Foreground::EndOnKill,
            preserve_fds: 0,
            keep: false,
        };
        launch::run(global, plan, settings, |_| Ok(()))
    }
}
