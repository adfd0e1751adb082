//! What a container's processes have used, in the form of `runc events`.

use serde_json::{Map, Value, json};

use super::{Cgroup, Dir, Version};

/// Counters of one container.
#[derive(Clone, Debug)]
pub struct Stats(pub Value);

impl Stats {
    pub(super) fn read(cgroup: &Cgroup) -> Self {
        Self(json!({
            "cpu": cpu(cgroup),
            "cpuset": {},
            "memory": memory(cgroup),
            "pids": pids(cgroup),
            "blkio": {},
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null,
        }))
    }
}

/// Nanoseconds of CPU time.
fn cpu(cgroup: &Cgroup) -> Value {
    let micros = |dir: &Dir, key| dir.keyed("cpu.stat", key).unwrap_or(0) * 1000;
    if let Some(dir) = cgroup.dir("cpuacct") {
        // Ticks of 1/100 s, as `cpuacct.stat` counts them.
        let ticks = |key| dir.keyed("cpuacct.stat", key).unwrap_or(0) * 10_000_000;
        let percpu = std::fs::read_to_string(dir.path.join("cpuacct.usage_percpu"));
        let percpu: Vec<u64> = percpu
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        let throttling = cgroup.dir("cpu").map(|dir| {
            json!({
                "periods": dir.keyed("cpu.stat", "nr_periods").unwrap_or(0),
                "throttledPeriods": dir.keyed("cpu.stat", "nr_throttled").unwrap_or(0),
                "throttledTime": dir.keyed("cpu.stat", "throttled_time").unwrap_or(0),
            })
        });
        return json!({
            "usage": {
                "total": dir.number("cpuacct.usage").unwrap_or(0),
                "percpu": percpu,
                "user": ticks("user"),
                "kernel": ticks("system"),
            },
            "throttling": throttling.unwrap_or_else(|| json!({})),
        });
    }
    let dir = cgroup.dirs.iter().find(|dir| dir.version == Version::V2);
    dir.map_or_else(
        || json!({}),
        |dir| {
            json!({
                "usage": {
                    "total": micros(dir, "usage_usec"),
                    "user": micros(dir, "user_usec"),
                    "kernel": micros(dir, "system_usec"),
                },
                "throttling": {
                    "periods": dir.keyed("cpu.stat", "nr_periods").unwrap_or(0),
                    "throttledPeriods": dir.keyed("cpu.stat", "nr_throttled").unwrap_or(0),
                    "throttledTime": micros(dir, "throttled_usec"),
                },
            })
        },
    )
}

fn memory(cgroup: &Cgroup) -> Value {
    let Some(dir) = cgroup.dir("memory") else {
        return json!({});
    };
    let raw = std::fs::read_to_string(dir.path.join("memory.stat")).unwrap_or_default();
    let raw: Map<String, Value> = raw
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), Value::from(value.parse::<u64>().ok()?)))
        })
        .collect();
    let (usage, cache_key) = match dir.version {
        Version::V1 => (
            json!({
                "limit": dir.number("memory.limit_in_bytes"),
                "usage": dir.number("memory.usage_in_bytes"),
                "max": dir.number("memory.max_usage_in_bytes"),
                "failcnt": dir.number("memory.failcnt").unwrap_or(0),
            }),
            "cache",
        ),
        Version::V2 => (
            json!({
                // No limit is the largest number in runc's output.
                "limit": dir.number("memory.max").unwrap_or(u64::MAX),
                "usage": dir.number("memory.current"),
                "max": dir.number("memory.peak"),
                "failcnt": dir.keyed("memory.events", "max").unwrap_or(0),
            }),
            "file",
        ),
    };
    json!({
        "cache": raw.get(cache_key).cloned().unwrap_or(Value::from(0)),
        "usage": usage,
        "raw": raw,
    })
}

fn pids(cgroup: &Cgroup) -> Value {
    let Some(dir) = cgroup.dir("pids") else {
        return json!({});
    };
    json!({
        "current": dir.number("pids.current").unwrap_or(0),
        // "max" is no limit, which runc leaves out.
        "limit": dir.number("pids.max").unwrap_or(0),
    })
}

pub(super) fn oom_kills(cgroup: &Cgroup) -> u64 {
    let Some(dir) = cgroup.dir("memory") else {
        return 0;
    };
    let file = match dir.version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    dir.keyed(file, "oom_kill").unwrap_or(0)
}
