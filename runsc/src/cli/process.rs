//! `exec` and `ps`.

use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use super::Global;
use crate::control::{Reply, Request};
use crate::launch::Created;
use crate::plan::ProcessPlan;
use crate::state::Status;
use crate::{console, oci};

#[derive(Args)]
pub struct Exec {
    /// Working directory.
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Further environment variables, KEY=VALUE.
    #[arg(long, short, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// User and group: UID[:GID].
    #[arg(long, short, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Supplementary groups.
    #[arg(long, short = 'g', value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Capabilities to add, CAP_…
    #[arg(long = "cap", short, value_name = "CAP")]
    capabilities: Vec<String>,
    /// Give the process a terminal.
    #[arg(long, short)]
    tty: bool,
    /// Don't wait for the process to end.
    #[arg(long, short)]
    detach: bool,
    /// File with the process as JSON (OCI `process` object).
    #[arg(long, short, value_name = "FILE")]
    process: Option<PathBuf>,
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Exec {
    pub fn run(self, global: &Global) -> Result<u8> {
        let created = Created::open(global, &self.id)?;
        ensure!(
            created.record.status == Status::Running,
            "container {} is not running",
            self.id
        );
        let process = self.plan(&created.record.plan.process)?;
        let client = created.client();
        drop(created);
        console::run_process(&client, &self.id, process, self.detach)
    }

    fn plan(&self, template: &ProcessPlan) -> Result<ProcessPlan> {
        let mut process = match &self.process {
            Some(path) => {
                let text =
                    fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
                let process = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is not an OCI process", path.display()))?;
                oci::plan_process(&process)?
            }
            None => ProcessPlan {
                args: self.args.clone(),
                terminal: self.tty,
                ..template.clone()
            },
        };
        ensure!(!process.args.is_empty(), "name the program to run");
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        process.env.extend(self.env.iter().cloned());
        if let Some(user) = &self.user {
            let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
            process.uid = uid
                .parse()
                .with_context(|| format!("user {user:?} is not UID[:GID]"))?;
            if !gid.is_empty() {
                process.gid = gid
                    .parse()
                    .with_context(|| format!("user {user:?} is not UID[:GID]"))?;
            }
        }
        if !self.additional_gids.is_empty() {
            process.additional_gids.clone_from(&self.additional_gids);
        }
        for name in &self.capabilities {
            let number = oci::capability_number(name)
                .with_context(|| format!("unknown capability {name}"))?;
            let bit = 1 << number;
            process.capabilities.bounding |= bit;
            process.capabilities.permitted |= bit;
            process.capabilities.effective |= bit;
        }
        if process.terminal && !self.detach {
            ensure!(
                std::io::stdin().is_terminal(),
                "--tty needs a terminal on stdin"
            );
        }
        Ok(process)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum PsFormat {
    Table,
    Json,
}

#[derive(Args)]
pub struct Ps {
    #[arg(long, short, value_enum, default_value_t = PsFormat::Table)]
    format: PsFormat,
    id: String,
}

impl Ps {
    pub fn run(self, global: &Global) -> Result<u8> {
        let client = Created::open(global, &self.id)?.client();
        let request = Request::Processes {
            container: self.id.clone(),
        };
        let Reply::Processes { processes } = client.call(&request, &[])? else {
            bail!("the sandbox answered something else than its processes");
        };
        match self.format {
            PsFormat::Json => {
                let pids: Vec<_> = processes.iter().map(|process| process.pid).collect();
                println!("{}", serde_json::to_string(&pids)?);
            }
            PsFormat::Table => {
                println!(
                    "{:>8} {:>8} {:>8} {:>4} {:>10} COMMAND",
                    "UID", "PID", "PPID", "THR", "TIME"
                );
                for process in &processes {
                    println!(
                        "{:>8} {:>8} {:>8} {:>4} {:>10.2} {}",
                        process.uid,
                        process.pid,
                        process.ppid,
                        process.threads,
                        process.cpu_seconds,
                        process.command
                    );
                }
            }
        }
        Ok(0)
    }
}
