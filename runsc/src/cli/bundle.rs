//! `create`, `run` and `spec`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Global, Network};
use crate::launch::{self, Foreground};
use crate::network::NetworkPlan;
use crate::{oci, spec};

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
    /// Name of the container, unique below `--root`.
    id: String,
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
    #[command(flatten)]
    bundle: Bundle,
}

impl Create {
    pub fn run(self, global: &Global) -> Result<u8> {
        create(global, &self.bundle)?;
        Ok(0)
    }
}

impl Run {
    pub fn run(self, global: &Global) -> Result<u8> {
        let foreground = !self.detach && self.bundle.console_socket.is_none();
        if foreground {
            let plan = load(global, &self.bundle)?;
            return launch::run(global, plan, Foreground::KeepOnKill, |record| {
                write_pid_file(&self.bundle, record.pid)
            });
        }
        let created = create(global, &self.bundle)?;
        created.start()?;
        if self.detach {
            return Ok(0);
        }
        drop(created);
        let status = launch::wait(global, &self.bundle.id)?;
        launch::Created::open(global, &self.bundle.id)?.delete()?;
        Ok(status)
    }
}

fn load(global: &Global, bundle: &Bundle) -> Result<crate::plan::ContainerPlan> {
    let mut plan = oci::load_bundle(
        &bundle.id,
        &oci::bundle_path(bundle.bundle.clone()),
        global.overlay()?,
    )?;
    if global.network == Some(Network::None) {
        plan.network = NetworkPlan::None;
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
    let created = launch::create(global, plan, console)?;
    write_pid_file(bundle, created.pid())?;
    Ok(created)
}

fn write_pid_file(bundle: &Bundle, pid: i32) -> Result<()> {
    let Some(path) = &bundle.pid_file else {
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
