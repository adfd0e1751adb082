//! Limits of containers. Memory and CPU are limited by the host's cgroups, and
//! are only told here, as the host has them at the moment; the number of tasks
//! is also counted here, since the host's tasks of a container are not the
//! guest's.

mod host;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use syscall_tables::Errno;

use crate::kernel::Kernel;
use crate::task::Task;

pub use host::{HOST_FILES, HostCgroup, weight_of_shares};

/// What limits one container; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    /// CPU time per period, both in microseconds.
    pub cpu: Option<(u64, u64)>,
    /// As `cpu.weight` of cgroup version 2.
    pub cpu_weight: Option<u64>,
    pub cpus: Option<String>,
    pub tasks: Option<u64>,
    /// What `pids.max` of the host is for that many tasks of the guest.
    pub host_tasks: Option<u64>,
}

/// What is known of one container.
#[derive(Default)]
struct Entry {
    told: Limits,
    host: Option<Arc<HostCgroup>>,
    /// Tasks that were refused (`pids.events`).
    refused: AtomicU64,
}

/// Limits by container.
#[derive(Default)]
pub struct LimitTable {
    by_container: RwLock<BTreeMap<String, Entry>>,
}

impl LimitTable {
    /// Makes a container known, with its cgroup on the host if it has one.
    pub fn add(&self, container: &str, told: Limits, host: Option<HostCgroup>) {
        let entry = Entry {
            told,
            host: host.map(Arc::new),
            refused: AtomicU64::new(0),
        };
        self.by_container
            .write()
            .insert(container.to_owned(), entry);
    }

    /// Sets what limits a container from now on.
    pub fn set(&self, container: &str, limits: Limits) {
        let mut table = self.by_container.write();
        table.entry(container.to_owned()).or_default().told = limits;
    }

    /// Forgets a container.
    pub fn remove(&self, container: &str) {
        self.by_container.write().remove(container);
    }

    /// What limits a container now.
    pub fn of(&self, container: &str) -> Limits {
        let table = self.by_container.read();
        let Some(entry) = table.get(container) else {
            return Limits::default();
        };
        let told = entry.told.clone();
        match &entry.host {
            Some(host) => host.limits(told),
            None => told,
        }
    }

    /// A container's cgroup on the host.
    pub fn host(&self, container: &str) -> Option<Arc<HostCgroup>> {
        self.by_container.read().get(container)?.host.clone()
    }

    /// How many tasks a container was refused for its limit.
    pub fn refused(&self, container: &str) -> u64 {
        let table = self.by_container.read();
        let entry = table.get(container);
        entry.map_or(0, |entry| entry.refused.load(Ordering::Relaxed))
    }

    fn refuse(&self, container: &str) {
        if let Some(entry) = self.by_container.read().get(container) {
            entry.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tasks(&self, container: &str) -> Option<u64> {
        let table = self.by_container.read();
        let Entry { told, host, .. } = table.get(container)?;
        match host {
            Some(host) => host.task_limit(told.tasks, told.host_tasks),
            None => told.tasks,
        }
    }
}

/// Refuses a task more than its container may have (`pids.max`).
pub(crate) fn check_tasks(kernel: &Kernel, task: &Task) -> Result<(), Errno> {
    let container = &task.group.container;
    let Some(limit) = kernel.limits.tasks(container) else {
        return Ok(());
    };
    // Counted only where there is a limit, which keeps the number small.
    let tasks = kernel.root_pid_ns.tasks();
    let own = tasks
        .iter()
        .filter(|(_, task)| task.group.container == *container && !task.has_exited());
    if own.count() as u64 >= limit {
        kernel.limits.refuse(container);
        return Err(Errno::EAGAIN);
    }
    Ok(())
}
