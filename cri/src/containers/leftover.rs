//! What a runtime that was killed in the middle of a command has not recorded,
//! and so does not delete: processes in a container's cgroup, and the cgroup.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::spec::cgroup_path;
use crate::config::CgroupDriver;
use crate::node::Node;
use crate::store::PodRecord;

/// How often killed processes are looked for again, and how long between.
const ROUNDS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// After the runtime's `delete`: ends what is left of `id` (a container or the
/// sandbox itself) of this pod. Scopes of systemd go when they are empty.
pub async fn sweep(node: &Node, pod: &PodRecord, id: &str) {
    if node.config.cgroup_driver != CgroupDriver::Cgroupfs {
        return;
    }
    let path = cgroup_path(node, pod, id);
    for round in 0..ROUNDS {
        let groups = groups(&path);
        if groups.is_empty() {
            return;
        }
        if round == 0 {
            tracing::debug!(container = id, "the runtime has left its cgroup");
        }
        groups.iter().for_each(|group| end(group));
        tokio::time::sleep(PAUSE).await;
    }
    tracing::warn!(container = id, "cgroup {path} can't be removed");
}

/// The cgroup in each hierarchy that has it.
fn groups(path: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(top).into_iter().flatten().flatten();
    let hierarchies = hierarchies.map(|entry| entry.path());
    hierarchies
        .chain([top.to_owned()])
        .map(|base| base.join(path.trim_start_matches('/')))
        .filter(|group| group.join("cgroup.procs").exists())
        .collect()
}

/// Kills what is in it and below, and removes what is empty.
fn end(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            end(&entry.path());
        }
    }
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse::<i32>().ok()) {
        // Zero is a process of a namespace that is not seen from here.
        if pid > 0 {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = std::fs::remove_dir(group);
}
