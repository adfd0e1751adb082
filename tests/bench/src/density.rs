//! What an idle sandbox takes of the machine: memory and CPU of all processes
//! that the runtime's command has started. They are found as descendants of
//! it, or of this program where their parents have ended (it is a subreaper).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::rows::Row;
use crate::stats::Samples;
use crate::target::{Place, Running, Target};

/// Further processes, whose memory is shared out among them.
const PROCESSES: u32 = 50;
/// How long a sandbox gets to come to rest.
const SETTLE: Duration = Duration::from_millis(1500);
const WATCHED: Duration = Duration::from_secs(3);

/// Takes one sample of each row.
pub fn measure(
    place: &Place,
    target: &Target,
    rows: &[&'static Row],
    samples: &mut Samples,
) -> Result<()> {
    let wants = |name: &str| rows.iter().any(|row| row.name == name);
    let idle = target.start(place, &["/bench/micro", "idle", "0"])?;
    std::thread::sleep(SETTLE);
    let alone = pss(&idle)?;
    if wants("idle-pss") {
        samples.add(&target.name, "idle-pss", alone);
    }
    if wants("idle-cpu") {
        let (start, before) = (Instant::now(), cpu_ns(&idle)?);
        std::thread::sleep(WATCHED);
        let used = cpu_ns(&idle)?.saturating_sub(before);
        let share = used as f64 / start.elapsed().as_nanos() as f64;
        samples.add(&target.name, "idle-cpu", share * 100.0);
    }
    drop(idle);
    if wants("process-pss") {
        let count = PROCESSES.to_string();
        let many = target.start(place, &["/bench/micro", "idle", &count])?;
        std::thread::sleep(SETTLE);
        let each = (pss(&many)? - alone) / f64::from(PROCESSES);
        samples.add(&target.name, "process-pss", each);
    }
    Ok(())
}

/// The processes of a sandbox.
fn processes(running: &Running<'_>) -> Result<BTreeSet<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Gone since: none of ours.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // The name before may hold anything; behind it come state and parent.
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut left = vec![running.pid(), std::process::id()];
    while let Some(pid) = left.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            if found.insert(child) {
                left.push(child);
            }
        }
    }
    Ok(found)
}

fn pss(running: &Running<'_>) -> Result<f64> {
    let mut total = 0.0;
    for pid in processes(running)? {
        let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
            continue;
        };
        let kib = rollup.lines().find_map(|line| {
            line.strip_prefix("Pss:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        });
        let kib: f64 = kib.unwrap_or(0.0);
        total += kib * 1024.0;
    }
    Ok(total)
}

fn cpu_ns(running: &Running<'_>) -> Result<u64> {
    let mut total = 0;
    for pid in processes(running)? {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let used = text.split_whitespace().next().context("empty schedstat")?;
            total += used.parse::<u64>()?;
        }
    }
    Ok(total)
}
