//! A container that is being made: its entry in the state directory, its
//! record there, its cgroup and processes, all of which go away again unless
//! it is finished.

use std::fs::File;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::{Cgroup, Holder};
use crate::hooks::{self, Point};
use crate::launch::{self, Created};
use crate::plan::ContainerPlan;
use crate::state::{Entry, Record, Status, Store, start_time};
use crate::time;

/// See the module documentation.
pub struct Creation {
    pub record: Record,
    /// `None` once the container is made.
    entry: Option<Entry>,
    processes: Vec<Pid>,
    cgroup: Option<Cgroup>,
    /// Keeps the cgroup while it is empty.
    holder: Option<Holder>,
}

impl Creation {
    /// Claims the id, and makes the cgroup with its limits.
    pub fn begin(store: &Store, plan: ContainerPlan) -> Result<Self> {
        let entry = store.create(&plan.id)?;
        let creator = Pid::this().as_raw();
        let mut creation = Self {
            record: Record {
                status: Status::Creating,
                pid: 0,
                pid_start_time: 0,
                gofer_pid: 0,
                gofer_start_time: 0,
                creator_pid: creator,
                creator_start_time: 0,
                cgroup: None,
                created_at: time::now_secs(),
                owner: launch::owner_name(),
                plan,
            },
            entry: Some(entry),
            processes: Vec::new(),
            cgroup: None,
            holder: None,
        };
        let record = &mut creation.record;
        record.creator_start_time = start_time(creator).context("/proc is not mounted")?;
        record.cgroup = launch::locate_cgroup(&record.plan)?;
        // From here on `delete` finds all there is, whenever this process dies.
        creation.save()?;
        if let Some(cgroup) = creation.record.cgroup.clone() {
            cgroup.check_empty()?;
            // Also what a failure leaves of it goes with the creation.
            creation.cgroup = Some(cgroup.clone());
            creation.holder = cgroup.create(&creation.record.plan)?;
            if let Some(resources) = &creation.record.plan.host.resources {
                cgroup
                    .apply(resources)
                    .context("resources can't be limited")?;
            }
        }
        Ok(creation)
    }

    pub fn entry(&self) -> Result<&Entry> {
        self.entry.as_ref().context("the container is made")
    }

    fn save(&self) -> Result<()> {
        self.entry()?.save(&self.record)
    }

    /// Notes the gofer, before it does anything.
    pub fn note_gofer(&mut self, pid: Pid) -> Result<()> {
        self.record.gofer_pid = pid.as_raw();
        self.record.gofer_start_time = started(pid)?;
        self.save()
    }

    /// Notes the container's host process, before it does anything.
    pub fn note_process(&mut self, pid: Pid) -> Result<()> {
        self.record.pid = pid.as_raw();
        self.record.pid_start_time = started(pid)?;
        self.save()
    }

    /// Ends this child as well if the creation fails.
    pub fn owns(&mut self, pid: Pid) {
        self.processes.push(pid);
    }

    /// The file that takes the exit status of the first process.
    pub fn exit_file(&self) -> Result<File> {
        File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(self.entry()?.exit_path())
            .context("the exit status file can't be made")
    }

    /// Runs the hooks that see the container before its process may start;
    /// then it is made.
    pub fn finish(mut self) -> Result<Created> {
        if let Err(err) = launch::run_creation_hooks(&self.record) {
            let record = self.record.clone();
            drop(self);
            let state = Record {
                status: Status::Stopped,
                ..record.clone()
            }
            .state();
            let plan = &record.plan;
            hooks::run_all(
                Point::Poststop,
                plan.host.hooks.as_ref(),
                &state,
                &plan.bundle,
            );
            return Err(err);
        }
        self.record.status = Status::Created;
        self.save()?;
        self.processes.clear();
        self.cgroup = None;
        self.holder = None;
        Ok(Created {
            entry: self.entry.take().context("the container is made")?,
            record: self.record.clone(),
        })
    }
}

fn started(pid: Pid) -> Result<u64> {
    start_time(pid.as_raw()).context("a process of the sandbox ended at once")
}

impl Drop for Creation {
    fn drop(&mut self) {
        for pid in &self.processes {
            // It may have ended on its own.
            let _ = kill(*pid, Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(*pid, None);
        }
        self.holder = None;
        let cgroup = self.cgroup.take().map_or(Ok(()), |cgroup| cgroup.remove());
        let entry = self.entry.take().map_or(Ok(()), Entry::remove);
        for err in [cgroup, entry].into_iter().filter_map(Result::err) {
            eprintln!("runsc: {err:#}");
        }
    }
}
