//! `exec`.

use std::fs;
use std::io::IsTerminal;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::signal::{Signal, kill};

use super::Global;
use super::bundle::write_pid_file;
use crate::attendant::{self, Attended, Guest};
use crate::control::Client;
use crate::launch::{Created, Home};
use crate::plan::ProcessPlan;
use crate::state::{Record, Status};
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
    /// Unix socket that receives the terminal's master.
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// File to write the process's host pid to.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Pass on this many descriptors, from 3 on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Set no_new_privs for the process.
    #[arg(long)]
    no_new_privs: bool,
    /// Accepted for engines; labels don't apply inside the sandbox.
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Accepted for engines; labels don't apply inside the sandbox.
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Accepted for engines: nobody can reap processes of the sandbox.
    #[arg(long)]
    no_subreaper: bool,
    /// Accepted for engines: all processes are in the container's cgroup.
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<String>,
    /// Run the process even if the container is paused; it starts once the
    /// container goes on.
    #[arg(long)]
    ignore_paused: bool,
    /// File with the process as JSON (OCI `process` object).
    #[arg(long, short, value_name = "FILE")]
    process: Option<PathBuf>,
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Exec {
    pub fn run(self, global: &Global) -> Result<u8> {
        console::check_preserved(self.preserve_fds)?;
        let created = Created::open(global, &self.id)?;
        match created.record.status {
            Status::Created | Status::Running => {}
            Status::Paused if self.ignore_paused => {}
            Status::Paused => bail!("cannot exec in a paused container (use --ignore-paused)"),
            status => bail!("cannot exec in a container in the {} state", status.name()),
        }
        let mut warnings = Vec::new();
        let process = self.plan(&created.record.plan.process, &mut warnings)?;
        for warning in &warnings {
            global.warn(warning);
        }
        let client = created.client();
        // Others may work on the container while the process runs.
        let record = created.record.clone();
        drop(created);
        if !self.detach && self.console_socket.is_none() {
            write_pid_file(&self.pid_file, nix::unistd::Pid::this().as_raw())?;
            return console::run_process(&client, &self.id, process, self.preserve_fds);
        }
        let pid = self.run_attended(&record, &client, process)?;
        if self.detach {
            return Ok(0);
        }
        let ended = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)
            .context("the process can't be waited for")?;
        match ended {
            nix::sys::wait::WaitStatus::Exited(_, status) => {
                Ok(u8::try_from(status).unwrap_or(u8::MAX))
            }
            _ => Ok(128 + 9),
        }
    }

    /// Starts the process with a host process of its own.
    fn run_attended(&self, record: &Record, client: &Client, process: ProcessPlan) -> Result<i32> {
        let terminal = match (process.terminal, &self.console_socket) {
            (true, Some(socket)) => Some(console::open_for_socket(socket)?),
            (true, None) => {
                bail!("cannot allocate tty if --detach is given without --console-socket")
            }
            (false, Some(_)) => bail!("--console-socket is for processes with a terminal"),
            (false, None) => None,
        };
        let mut stdio = match &terminal {
            Some(slave) => vec![slave.as_raw_fd()],
            None => console::stdio(false),
        };
        stdio.extend(console::preserved(self.preserve_fds));
        let attended = Attended {
            container: &self.id,
            network_of: record.pid,
            client,
            guest: Guest::Process(Box::new(process)),
            stdio,
        };
        let home = Home::of(record.cgroup.as_ref());
        let pid = attendant::start(attended, &home, |_| Ok(()))
            .context("exec failed: unable to start container process")?;
        let written = write_pid_file(&self.pid_file, pid);
        if written.is_err() {
            // The guest's process ends with its attendant.
            let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        written.map(|()| pid)
    }

    fn plan(&self, template: &ProcessPlan, warnings: &mut Vec<String>) -> Result<ProcessPlan> {
        let mut process = match &self.process {
            Some(path) => {
                let text =
                    fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
                oci::read_process(&text, template, warnings)
                    .with_context(|| format!("{} is not an OCI process", path.display()))?
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
        process.no_new_privileges |= self.no_new_privs;
        if process.terminal && !self.detach && self.console_socket.is_none() {
            ensure!(
                std::io::stdin().is_terminal(),
                "--tty needs a terminal on stdin"
            );
        }
        Ok(process)
    }
}
