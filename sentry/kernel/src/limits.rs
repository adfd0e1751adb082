//! Limits of containers, as far as the sentry knows them. Memory and CPU are
//! limited by the host, and are only told here; the number of tasks is also
//! counted here, since the host's tasks of a container are not the guest's.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use syscall_tables::Errno;

use crate::kernel::Kernel;
use crate::task::Task;

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
}

/// Limits by container.
#[derive(Default)]
pub struct LimitTable {
    by_container: RwLock<BTreeMap<String, Limits>>,
}

impl LimitTable {
    /// Sets what limits a container from now on.
    pub fn set(&self, container: &str, limits: Limits) {
        self.by_container
            .write()
            .insert(container.to_owned(), limits);
    }

    /// Forgets a container.
    pub fn remove(&self, container: &str) {
        self.by_container.write().remove(container);
    }

    /// What limits a container.
    pub fn of(&self, container: &str) -> Limits {
        let table = self.by_container.read();
        table.get(container).cloned().unwrap_or_default()
    }

    fn tasks(&self, container: &str) -> Option<u64> {
        self.by_container.read().get(container)?.tasks
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
        return Err(Errno::EAGAIN);
    }
    Ok(())
}
