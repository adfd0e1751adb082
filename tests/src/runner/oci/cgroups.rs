//! `config-linux.md`: the cgroup's path and its resources.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::lifecycle::cgroups;
use super::runtime::{Runtime, check, equal, failed, succeeded};
use super::{Case, case};

pub const CASES: &[Case] = &[
    case(
        "linux/cgroups/absolute",
        "an absolute cgroupsPath is below the mount point",
        absolute,
    ),
    case(
        "linux/cgroups/consistent",
        "the same cgroupsPath is the same place",
        consistent,
    ),
    case(
        "linux/cgroups/made",
        "missing parents are made",
        made_parents,
    ),
    case(
        "linux/cgroups/processes",
        "the container's process is in its cgroup",
        processes,
    ),
    case(
        "linux/cgroups/not_empty",
        "a cgroup with processes of others is an error",
        not_empty,
    ),
    case("linux/resources/memory", "memory limits are set", |rt| {
        setting(
            rt,
            json!({"memory": {"limit": 268_435_456}}),
            &[
                ("memory", "memory.limit_in_bytes", "268435456"),
                ("", "memory.max", "268435456"),
            ],
        )
    }),
    case(
        "linux/resources/reservation",
        "the memory reservation is set",
        |rt| {
            setting(
                rt,
                json!({"memory": {"limit": 268_435_456, "reservation": 134_217_728}}),
                &[
                    ("memory", "memory.soft_limit_in_bytes", "134217728"),
                    ("", "memory.low", "134217728"),
                ],
            )
        },
    ),
    case(
        "linux/resources/cpu_quota",
        "quota and period of the cpu are set",
        |rt| {
            setting(
                rt,
                json!({"cpu": {"quota": 50_000, "period": 100_000}}),
                &[
                    ("cpu", "cpu.cfs_quota_us", "50000"),
                    ("", "cpu.max", "50000 100000"),
                ],
            )
        },
    ),
    case("linux/resources/cpu_shares", "cpu shares are set", |rt| {
        setting(
            rt,
            json!({"cpu": {"shares": 512}}),
            &[("cpu", "cpu.shares", "512"), ("", "cpu.weight", "20")],
        )
    }),
    case("linux/resources/cpus", "the list of cpus is set", |rt| {
        setting(
            rt,
            json!({"cpu": {"cpus": "0"}}),
            &[("cpuset", "cpuset.cpus", "0"), ("", "cpuset.cpus", "0")],
        )
    }),
    case("linux/resources/pids", "a limit of pids is set", pids),
    case(
        "linux/resources/cpu_invalid",
        "a value the kernel refuses is an error",
        |rt| {
            rt.refuses(|c| c["linux"]["resources"] = json!({"cpu": {"cpus": "4000"}}))
                .map(|_| ())
        },
    ),
    case("linux/resources/unlimited", "-1 is no limit", |rt| {
        let out = rt.output("echo ran", |c| {
            c["linux"]["resources"] = json!({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}});
        })?;
        equal(&out, "ran")
    }),
    case(
        "linux/resources/devices",
        "denied devices can't be used",
        device_rules,
    ),
    case(
        "linux/resources/unified",
        "unified settings need version 2",
        |rt| {
            if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
                return setting(
                    rt,
                    json!({"unified": {"memory.high": "268435456"}}),
                    &[("", "memory.high", "268435456")],
                );
            }
            rt.refuses(|c| {
                c["linux"]["resources"] = json!({"unified": {"memory.high": "268435456"}})
            })
            .map(|_| ())
        },
    ),
    case(
        "linux/resources/hugepages",
        "a huge page size that does not exist is an error",
        |rt| {
            rt.refuses(|c| {
                c["linux"]["resources"] =
                    json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]})
            })
            .map(|_| ())
        },
    ),
];

/// Directories of cgroups, removed when dropped.
pub struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for dir in &self.0 {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Makes a cgroup where there are limits.
pub fn make(path: &str) -> Result<Made, String> {
    let mut made = Made(Vec::new());
    for root in cgroups("/") {
        let dir = PathBuf::from(format!("{}{path}", root.trim_end_matches('/')));
        // cpuset takes nobody in before it is set up; parents are.
        if !root.contains("cpuset") {
            fs::create_dir_all(&dir).map_err(|err| format!("{}: {err}", dir.display()))?;
            made.0.push(dir);
        }
    }
    Ok(made)
}

fn absolute(rt: &Runtime<'_>) -> Result<(), String> {
    let path = format!("/{}", rt.id("group"));
    let bundle = rt.bundle("sleep 1000", |c| c["linux"]["cgroupsPath"] = json!(path))?;
    succeeded(rt.create(&rt.id("c"), &bundle))?;
    let found = cgroups(&path);
    for controller in ["memory", "pids", "cpu"] {
        let there = found
            .iter()
            .any(|dir| dir.contains(controller) || dir.starts_with("/sys/fs/cgroup/oci"));
        check(there, || format!("not in {controller}: {found:?}"))?;
    }
    Ok(())
}

fn consistent(rt: &Runtime<'_>) -> Result<(), String> {
    let path = format!("/{}", rt.id("group"));
    let place = || -> Result<Vec<String>, String> {
        let bundle = rt.bundle("sleep 1000", |c| c["linux"]["cgroupsPath"] = json!(path))?;
        let id = rt.id("c");
        succeeded(rt.create(&id, &bundle))?;
        let found = cgroups(&path);
        succeeded(rt.run(&["delete", "--force", &id]))?;
        Ok(found)
    };
    let (first, second) = (place()?, place()?);
    check(first == second && !first.is_empty(), || {
        format!("{first:?} {second:?}")
    })
}

fn made_parents(rt: &Runtime<'_>) -> Result<(), String> {
    let parent = format!("/{}", rt.id("deep"));
    let path = format!("{parent}/er/and/deeper");
    let bundle = rt.bundle("sleep 1000", |c| c["linux"]["cgroupsPath"] = json!(path))?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let found = cgroups(&path);
    succeeded(rt.run(&["delete", "--force", &id]))?;
    for dir in cgroups(&parent) {
        for below in ["er/and", "er", ""] {
            let _ = fs::remove_dir(Path::new(&dir).join(below));
        }
    }
    check(!found.is_empty(), || "no cgroup".into())
}

fn processes(rt: &Runtime<'_>) -> Result<(), String> {
    let path = format!("/{}", rt.id("group"));
    let bundle = rt.bundle("sleep 1000", |c| c["linux"]["cgroupsPath"] = json!(path))?;
    let id = rt.id("c");
    rt.start(&id, &bundle)?;
    let pid = rt.pid(&id)?;
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let limited = own.lines().filter(|line| {
        ["memory", "pids", "cpu,"]
            .iter()
            .any(|controller| line.contains(controller))
            || line.starts_with("0::")
    });
    let inside = limited.filter(|line| line.ends_with(&path)).count();
    check(inside >= 1, || format!("{path}: {own}"))
}

fn not_empty(rt: &Runtime<'_>) -> Result<(), String> {
    let path = format!("/{}", rt.id("group"));
    let made = make(&path)?;
    let mut stranger = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .map_err(|err| err.to_string())?;
    for dir in &made.0 {
        let _ = fs::write(dir.join("cgroup.procs"), stranger.id().to_string());
    }
    let bundle = rt.bundle("true", |c| c["linux"]["cgroupsPath"] = json!(path))?;
    let refused = failed(&rt.create(&rt.id("c"), &bundle));
    let alive = matches!(stranger.try_wait(), Ok(None));
    let _ = stranger.kill();
    let _ = stranger.wait();
    refused?;
    check(alive, || "the stranger was killed".into())
}

/// One of the files holds the value: version 1 by controller, version 2 without.
fn setting(
    rt: &Runtime<'_>,
    resources: serde_json::Value,
    files: &[(&str, &str, &str)],
) -> Result<(), String> {
    let path = format!("/{}", rt.id("group"));
    let bundle = rt.bundle("sleep 1000", |c| {
        c["linux"]["cgroupsPath"] = json!(path);
        c["linux"]["resources"] = resources;
    })?;
    succeeded(rt.create(&rt.id("c"), &bundle))?;
    let mut found = Vec::new();
    for dir in cgroups(&path) {
        for (_, file, value) in files {
            if let Ok(text) = fs::read_to_string(Path::new(&dir).join(file)) {
                if text.trim() == *value {
                    return Ok(());
                }
                found.push(format!("{dir}/{file}: {}", text.trim()));
            }
        }
    }
    Err(format!("not set: {found:?}"))
}

fn pids(rt: &Runtime<'_>) -> Result<(), String> {
    // A process more than there may be is not made.
    let script =
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 5 & done; echo all";
    let done = rt.container(script, |c| {
        c["linux"]["resources"] = json!({"pids": {"limit": 10}})
    })?;
    check(!done.stdout.contains("all"), || done.describe())
}

fn device_rules(rt: &Runtime<'_>) -> Result<(), String> {
    // Memory of the machine. Those who have no such device can't read it either.
    let script = "head -c 1 /dev/own > /tmp/byte && echo read; echo end";
    let out = rt.output(script, |c| {
        c["linux"]["devices"] = json!([{"type": "c", "path": "/dev/own", "major": 1, "minor": 1}]);
        c["linux"]["resources"] = json!({"devices": [
            {"allow": true, "access": "rwm"},
            {"allow": false, "type": "c", "major": 1, "minor": 1, "access": "rwm"},
        ]});
    })?;
    equal(&out, "end")
}
