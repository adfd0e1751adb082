//! `ps`.

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use super::Global;
use crate::control::{Reply, Request};
use crate::launch::Created;
use crate::state::{Record, Status};

#[derive(Clone, Copy, ValueEnum)]
enum PsFormat {
    Table,
    Json,
}

#[derive(Args)]
pub struct Ps {
    /// `table` shows the processes inside; `json` the pids of the container's
    /// host processes, which is what engines look for.
    #[arg(long, short, value_enum, default_value_t = PsFormat::Table)]
    format: PsFormat,
    id: String,
    /// Accepted for engines: options of ps(1).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    ps_options: Vec<String>,
}

impl Ps {
    pub fn run(self, global: &Global) -> Result<u8> {
        let created = Created::open(global, &self.id)?;
        ensure!(
            created.record.status != Status::Stopped,
            "container {} is not running",
            self.id
        );
        if matches!(self.format, PsFormat::Json) {
            println!(
                "{}",
                serde_json::to_string(&host_processes(&created.record))?
            );
            return Ok(0);
        }
        let client = created.client();
        drop(created);
        let request = Request::Processes {
            container: self.id.clone(),
        };
        let Reply::Processes { processes } = client.call(&request, &[])? else {
            bail!("the sandbox answered something else than its processes");
        };
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
        Ok(0)
    }
}

/// Pids of the container's host processes.
fn host_processes(record: &Record) -> Vec<i32> {
    match &record.cgroup {
        Some(cgroup) => cgroup.processes(),
        None => vec![record.pid],
    }
}
