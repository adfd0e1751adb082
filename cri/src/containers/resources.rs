//! Limits: from the CRI's to the OCI's `linux.resources`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::proto::LinuxContainerResources;

/// cgroup version 2 alone.
pub fn unified_hierarchy() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Zero means "not set" throughout.
pub fn oci(resources: Option<&LinuxContainerResources>) -> Map<String, Value> {
    let mut all = Map::new();
    let Some(r) = resources else {
        return all;
    };
    let mut cpu = Map::new();
    for (name, value) in [
        ("period", r.cpu_period),
        ("quota", r.cpu_quota),
        ("shares", r.cpu_shares),
    ] {
        if value != 0 {
            cpu.insert(name.into(), json!(value));
        }
    }
    for (name, value) in [("cpus", &r.cpuset_cpus), ("mems", &r.cpuset_mems)] {
        if !value.is_empty() {
            cpu.insert(name.into(), json!(value));
        }
    }
    if !cpu.is_empty() {
        all.insert("cpu".into(), Value::Object(cpu));
    }
    let mut memory = Map::new();
    if r.memory_limit_in_bytes != 0 {
        memory.insert("limit".into(), json!(r.memory_limit_in_bytes));
        // No swap beyond the limit unless it is asked for.
        let swap = match r.memory_swap_limit_in_bytes {
            0 => r.memory_limit_in_bytes,
            swap => swap,
        };
        if swap_accounted() {
            memory.insert("swap".into(), json!(swap));
        }
    }
    if !memory.is_empty() {
        all.insert("memory".into(), Value::Object(memory));
    }
    if !r.hugepage_limits.is_empty() {
        let limits: Vec<Value> = r
            .hugepage_limits
            .iter()
            .filter(|l| hugepages_known(&l.page_size))
            .map(|l| json!({"pageSize": l.page_size, "limit": l.limit}))
            .collect();
        if !limits.is_empty() {
            all.insert("hugepageLimits".into(), json!(limits));
        }
    }
    if !r.unified.is_empty() && unified_hierarchy() {
        all.insert("unified".into(), json!(r.unified));
    }
    all
}

fn swap_accounted() -> bool {
    unified_hierarchy() || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
}

/// Kubelets send limits for all sizes; runtimes refuse those without a
/// controller.
fn hugepages_known(size: &str) -> bool {
    if unified_hierarchy() {
        std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .is_ok_and(|text| text.split_whitespace().any(|c| c == "hugetlb"))
    } else {
        Path::new("/sys/fs/cgroup/hugetlb")
            .join(format!("hugetlb.{size}.limit_in_bytes"))
            .exists()
    }
}

/// The fields of `new` that are set replace those of `old`.
pub fn merge(old: &mut LinuxContainerResources, new: &LinuxContainerResources) {
    for (old, new) in [
        (&mut old.cpu_period, new.cpu_period),
        (&mut old.cpu_quota, new.cpu_quota),
        (&mut old.cpu_shares, new.cpu_shares),
        (&mut old.memory_limit_in_bytes, new.memory_limit_in_bytes),
        (
            &mut old.memory_swap_limit_in_bytes,
            new.memory_swap_limit_in_bytes,
        ),
        (&mut old.oom_score_adj, new.oom_score_adj),
    ] {
        if new != 0 {
            *old = new;
        }
    }
    if !new.cpuset_cpus.is_empty() {
        old.cpuset_cpus.clone_from(&new.cpuset_cpus);
    }
    if !new.cpuset_mems.is_empty() {
        old.cpuset_mems.clone_from(&new.cpuset_mems);
    }
    if !new.hugepage_limits.is_empty() {
        old.hugepage_limits.clone_from(&new.hugepage_limits);
    }
    for (key, value) in &new.unified {
        old.unified.insert(key.clone(), value.clone());
    }
}
