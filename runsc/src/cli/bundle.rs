//! `create`, `run` and `spec`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Global, NO_STACK, Network};
use crate::launch::{self, Foreground};
use crate::network::NetworkPlan;
use crate::plan::CgroupUse;
use crate::{console, oci, spec};

/// Where the bundle is and what to call the container.
#[derive(Args)]
struct Bundle {
    /// Bundle directory, the current one by default.
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// File to write the container's host pid to.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Unix socket that receives the terminal's master.
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Pass on this many descriptors, from 3 on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Accepted for engines: the sandbox's root is never the host's.
    #[arg(long)]
    no_pivot: bool,
    /// Accepted for engines: sandboxes have no keyrings of the host.
    #[arg(long)]
    no_new_keyring: bool,
    /// Accepted for engines: nobody can reap processes of the sandbox.
    #[arg(long)]
    no_subreaper: bool,
    /// Name of the container, unique below `--root`.
    id: String,
}

impl Bundle {
    /// Descriptors to pass on: those asked for and those of a service manager.
    fn preserved(&self) -> u32 {
        listen_fds().saturating_add(self.preserve_fds)
    }
}

/// Descriptors that a service manager gave this command (`sd_listen_fds(3)`).
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    // Those of a process that has passed its environment on are not ours.
    if number("LISTEN_PID") != Some(std::process::id()) {
        return 0;
    }
    number("LISTEN_FDS").unwrap_or(0)
}

#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    bundle: Bundle,
}

#[derive(Args)]
pub struct Run {
    /// Don't wait for the container to end.
    #[arg(long, short)]
    detach: bool,
    /// Don't delete the container when it has ended.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    bundle: Bundle,
}

impl Create {
    pub fn run(self, global: &Global) -> Result<u8> {
        console::check_preserved(self.bundle.preserved())?;
        create(global, &self.bundle)?;
        Ok(0)
    }
}

impl Run {
    pub fn run(self, global: &Global) -> Result<u8> {
        console::check_preserved(self.bundle.preserved())?;
        let foreground = !self.detach && self.bundle.console_socket.is_none();
        if foreground {
            let plan = load(global, &self.bundle)?;
            let settings = launch::RunSettings {
                foreground: Foreground::KeepOnKill,
                preserve_fds: self.bundle.preserved(),
                keep: self.keep,
            };
            return launch::run(global, plan, settings, |record| {
                write_pid_file(&self.bundle.pid_file, record.pid)
            });
        }
        let created = create(global, &self.bundle)?;
        created.start()?;
        if self.detach {
            return Ok(0);
        }
        drop(created);
        let status = launch::wait(global, &self.bundle.id)?;
        if !self.keep {
            launch::Created::open(global, &self.bundle.id)?.delete()?;
        }
        Ok(status)
    }
}

fn load(global: &Global, bundle: &Bundle) -> Result<crate::plan::ContainerPlan> {
    let mut plan = oci::load_bundle(
        &bundle.id,
        &oci::bundle_path(bundle.bundle.clone()),
        global.overlay()?,
    )?;
    match global.network {
        Some(Network::None) => plan.network = NetworkPlan::None,
        Some(Network::Sandbox) => bail!("{NO_STACK}"),
        Some(Network::Host) | None => {}
    }
    if global.systemd_cgroup {
        plan.host.cgroups = CgroupUse::Systemd;
    }
    for warning in &plan.host.warnings {
        global.warn(warning);
    }
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        global.warn(
            "NOTIFY_SOCKET is not passed on: sockets of the host are out of the sandbox's reach",
        );
    }
    let listening = listen_fds();
    if listening > 0 {
        let env = &mut plan.process.env;
        env.push(format!("LISTEN_FDS={listening}"));
        env.push("LISTEN_PID=1".to_owned());
    }
    Ok(plan)
}

fn create(global: &Global, bundle: &Bundle) -> Result<launch::Created> {
    let plan = load(global, bundle)?;
    let console = match (plan.process.terminal, &bundle.console_socket) {
        (true, Some(socket)) => Some(socket.as_path()),
        (true, None) => bail!("process.terminal is true: --console-socket is needed"),
        (false, Some(_)) => bail!("process.terminal is false: --console-socket is not wanted"),
        (false, None) => None,
    };
    let streams = launch::Streams {
        console,
        preserve_fds: bundle.preserved(),
    };
    let created = launch::create(global, plan, streams)?;
    if let Err(err) = write_pid_file(&bundle.pid_file, created.pid()) {
        created.delete()?;
        return Err(err);
    }
    Ok(created)
}

/// Writes a host pid to the file that an engine has named, if it has.
pub fn write_pid_file(path: &Option<PathBuf>, pid: i32) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    // Engines poll for this file: it must never be seen empty.
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, pid.to_string())
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("pid file {} can't be written", path.display()))
}

#[derive(Args)]
pub struct Spec {
    /// Directory for config.json, the current one by default.
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Program and arguments of the container's process.
    #[arg(last = true)]
    args: Vec<String>,
}

impl Spec {
    pub fn run(self) -> Result<u8> {
        let path = oci::bundle_path(self.bundle).join("config.json");
        if path.exists() {
            bail!("{} exists already; remove it first", path.display());
        }
        let text = spec::example(self.args)?;
        fs::write(&path, text).with_context(|| format!("{} can't be written", path.display()))?;
        Ok(0)
    }
}
