//! Looking into a running sandbox: `runsc ps`, `runsc debug --stacks`.

use std::sync::Arc;
use std::time::Duration;

use sentry_platform::ProgramCalls;
use sentry_platform::executor::block_on;
use syscall_tables::table;

use super::{Sandbox, SandboxError};
use crate::task::{RunState, Task};
use crate::vfs::CacheUsage;

/// A process, as `runsc ps` lists it.
#[derive(Clone, Debug)]
pub struct ProcessInfo {
    pub container: String,
    /// Ids in the container's pid namespace.
    pub pid: i32,
    pub ppid: i32,
    pub pgid: i32,
    pub sid: i32,
    /// Id in the sandbox's root pid namespace.
    pub root_pid: i32,
    pub uid: u32,
    pub threads: usize,
    pub state: RunState,
    pub comm: String,
    /// Time of creation since boot.
    pub start_time: Duration,
    pub cpu_time: Duration,
    pub resident_bytes: u64,
}

/// A task, as `runsc debug --stacks` lists it.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    pub container: String,
    pub pid: i32,
    pub tid: i32,
    pub state: RunState,
    pub comm: String,
    /// Name of the system call it is in.
    pub call: Option<&'static str>,
    pub pending: u64,
    pub blocked: u64,
    /// Whether it is on its way out.
    pub dying: bool,
}

impl Sandbox {
    /// The processes of a container, by their ids.
    pub fn processes(&self, id: &str) -> Result<Vec<ProcessInfo>, SandboxError> {
        let ns = self.container(id)?.pid_ns.clone();
        block_on(self.kernel.measure_all());
        let mut list = Vec::new();
        for group in self.members(id) {
            let Some(leader) = group.leader() else {
                continue;
            };
            let process_group = group.process_group();
            list.push(ProcessInfo {
                container: id.to_owned(),
                pid: group.id_in(&ns),
                ppid: group.parent_id_in(&ns),
                pgid: process_group.as_ref().map_or(0, |own| own.id_in(&ns)),
                sid: process_group.map_or(0, |own| own.session().id_in(&ns)),
                root_pid: group.tgid().0,
                uid: leader.creds().uid.0,
                threads: group.thread_count(),
                state: leader.run_state(),
                comm: String::from_utf8_lossy(&leader.comm()).into_owned(),
                start_time: group.start_time,
                cpu_time: group.usage().user,
                resident_bytes: leader.mm().space.resident_bytes(),
            });
        }
        list.sort_by_key(|process| process.pid);
        Ok(list)
    }

    /// All tasks of the sandbox with state and current call.
    pub fn stacks(&self) -> Vec<TaskInfo> {
        let tasks = self.kernel.root_pid_ns.tasks().into_iter();
        tasks.map(|(_, task)| describe(&task)).collect()
    }

    /// What remembered names take.
    pub fn name_cache(&self) -> CacheUsage {
        self.kernel.vfs.dentries.usage()
    }

    /// How calls have come from guests, for `runsc debug --stats`.
    pub fn calls(&self) -> Vec<ProgramCalls> {
        self.kernel.platform.calls()
    }
}

fn describe(task: &Arc<Task>) -> TaskInfo {
    let call = task
        .current_call()
        .and_then(table::by_number)
        .map(|row| row.name);
    TaskInfo {
        container: task.group.container.to_string(),
        pid: task.group.pid().number(),
        tid: task.pid().number(),
        state: task.run_state(),
        comm: String::from_utf8_lossy(&task.comm()).into_owned(),
        call,
        pending: task.pending_signals().0,
        blocked: task.blocked().0,
        dying: task.is_killed() || task.has_exited(),
    }
}
