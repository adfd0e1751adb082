//! `start`, `state`, `pause`, `resume`, `kill`, `delete`, `list` and `wait`.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::Global;
use crate::control::Request;
use crate::launch::{self, Created};
use crate::state::{Record, Status};
use crate::{signals, time};

#[derive(Args)]
pub struct Start {
    id: String,
}

impl Start {
    pub fn run(self, global: &Global) -> Result<u8> {
        Created::open(global, &self.id)?.start()?;
        Ok(0)
    }
}

#[derive(Args)]
pub struct State {
    id: String,
}

impl State {
    pub fn run(self, global: &Global) -> Result<u8> {
        let record = global.store().peek(&self.id)?;
        println!("{:#}", state_json(&record));
        Ok(0)
    }
}

/// The state object with the fields that runc adds to it.
fn state_json(record: &Record) -> serde_json::Value {
    let mut state = record.state();
    if let Some(object) = state.as_object_mut() {
        let created = time::rfc3339(time::from_epoch(record.created_at));
        object.insert("created".to_owned(), created.into());
        object.insert("owner".to_owned(), record.owner.clone().into());
        object.insert("rootfs".to_owned(), json!(record.plan.root.path));
    }
    state
}

#[derive(Args)]
pub struct Pause {
    id: String,
}

impl Pause {
    pub fn run(self, global: &Global) -> Result<u8> {
        let created = Created::open(global, &self.id)?;
        match created.record.status {
            Status::Running | Status::Created => {}
            status => bail!("cannot pause a container in the {} state", status.name()),
        }
        let container = self.id;
        created.client().call(&Request::Pause { container }, &[])?;
        created.save(&Record {
            status: Status::Paused,
            ..created.record.clone()
        })?;
        Ok(0)
    }
}

#[derive(Args)]
pub struct Resume {
    id: String,
}

impl Resume {
    pub fn run(self, global: &Global) -> Result<u8> {
        let created = Created::open(global, &self.id)?;
        if created.record.status != Status::Paused {
            bail!("container not paused");
        }
        let container = self.id;
        created.client().call(&Request::Resume { container }, &[])?;
        created.save(&Record {
            status: Status::Running,
            ..created.record.clone()
        })?;
        Ok(0)
    }
}

#[derive(Args)]
pub struct Kill {
    /// Send the signal to all processes of the container.
    #[arg(long, short)]
    all: bool,
    /// Send the signal to this process (a pid inside the sandbox).
    #[arg(long, default_value_t = 0)]
    pid: i32,
    id: String,
    /// Name or number, SIGTERM by default.
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

impl Kill {
    pub fn run(self, global: &Global) -> Result<u8> {
        let signal = signals::parse(&self.signal)
            .with_context(|| format!("unknown signal {:?}", self.signal))?;
        let created = Created::open(global, &self.id)?;
        if created.record.status == Status::Stopped {
            bail!("container not running");
        }
        created.client().call(
            &Request::Signal {
                container: self.id,
                signal,
                pid: self.pid,
                all: self.all,
            },
            &[],
        )?;
        Ok(0)
    }
}

#[derive(Args)]
pub struct Delete {
    /// Kill the container first if it runs; no error if it does not exist.
    #[arg(long, short)]
    force: bool,
    #[arg(required = true)]
    ids: Vec<String>,
}

impl Delete {
    pub fn run(self, global: &Global) -> Result<u8> {
        for id in &self.ids {
            let created = match Created::open(global, id) {
                Ok(created) => created,
                Err(_) if self.force => {
                    // A command that was killed early may have left files.
                    if let Some(remains) = global.store().open_remains(id) {
                        remains.remove()?;
                    }
                    continue;
                }
                Err(err) => return Err(err),
            };
            let status = created.record.status;
            if !self.force && !matches!(status, Status::Created | Status::Stopped) {
                bail!(
                    "cannot delete container {id} that is not stopped: {}",
                    status.name()
                );
            }
            created.delete()?;
        }
        Ok(0)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ListFormat {
    Table,
    Json,
}

#[derive(Args)]
pub struct List {
    /// Print ids only.
    #[arg(long, short)]
    quiet: bool,
    #[arg(long, short, value_enum, default_value_t = ListFormat::Table)]
    format: ListFormat,
}

impl List {
    pub fn run(self, global: &Global) -> Result<u8> {
        let store = global.store();
        let mut records = Vec::new();
        for id in store.ids()? {
            // A container may be deleted while we look.
            if let Ok(record) = store.peek(&id) {
                records.push(record);
            }
        }
        if self.quiet {
            for record in &records {
                println!("{}", record.plan.id);
            }
            return Ok(0);
        }
        match self.format {
            ListFormat::Json => {
                let states: Vec<_> = records.iter().map(state_json).collect();
                println!("{}", serde_json::Value::from(states));
            }
            ListFormat::Table => {
                let longest = |length: fn(&Record) -> usize, title: &str| {
                    let all = records.iter().map(length);
                    all.chain([title.len()]).max().unwrap_or(0)
                };
                let width = longest(|record| record.plan.id.len(), "ID");
                let bundles = longest(|record| record.plan.bundle.as_os_str().len(), "BUNDLE");
                println!(
                    "{:width$}  {:<8}  {:8}  {:bundles$}  {:20}  OWNER",
                    "ID", "PID", "STATUS", "BUNDLE", "CREATED"
                );
                for record in &records {
                    println!(
                        "{:width$}  {:<8}  {:8}  {:bundles$}  {:20}  {}",
                        record.plan.id,
                        if record.status == Status::Stopped {
                            0
                        } else {
                            record.pid
                        },
                        record.status.name(),
                        record.plan.bundle.display().to_string(),
                        time::rfc3339(time::from_epoch(record.created_at)),
                        record.owner
                    );
                }
            }
        }
        Ok(0)
    }
}

#[derive(Args)]
pub struct Wait {
    id: String,
}

impl Wait {
    pub fn run(self, global: &Global) -> Result<u8> {
        let status = launch::wait(global, &self.id)?;
        println!("{}", json!({"id": self.id, "exitStatus": status}));
        Ok(0)
    }
}
