//! `update`: other limits for a container that runs.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use super::Global;
use crate::control::Request;
use crate::launch::Created;
use crate::state::{Record, Status};

/// Flags are those of `runc update`; each sets one field of the resources.
#[derive(Args)]
pub struct Update {
    /// File with the resources as JSON (OCI `linux.resources`), - is stdin.
    #[arg(long, short, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Relative weight of the block devices' time.
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Length of a period in microseconds.
    #[arg(long, value_name = "US")]
    cpu_period: Option<u64>,
    /// CPU time per period in microseconds, -1 for no limit.
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU time beyond the quota that may be saved up.
    #[arg(long, value_name = "US")]
    cpu_burst: Option<u64>,
    /// Relative weight of CPU time.
    #[arg(long, alias = "cpu-shares", value_name = "SHARES")]
    cpu_share: Option<u64>,
    #[arg(long, value_name = "US")]
    cpu_rt_period: Option<u64>,
    #[arg(long, value_name = "US", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// 1 makes the container run only when nobody else wants to.
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Bytes of memory; units b, k, m and g are known; -1 for no limit.
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory: Option<i64>,
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_reservation: Option<i64>,
    /// Bytes of memory and swap together.
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    memory_swap: Option<i64>,
    /// Most processes and threads, -1 for no limit.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    id: String,
}

/// Bytes with an optional unit.
fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = lower.get(number.len()..).unwrap_or_default();
    let factor = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(format!("unknown unit {unit:?}")),
    };
    let number: i64 = number.parse().map_err(|_| "not a number of bytes")?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "too large".to_owned())
}

impl Update {
    pub fn run(self, global: &Global) -> Result<u8> {
        let change = self.change()?;
        let created = Created::open(global, &self.id)?;
        ensure!(
            created.record.status != Status::Stopped,
            "container {} is not running",
            self.id
        );
        let cgroup = created.record.cgroup.clone();
        let cgroup = cgroup.context("the container has no cgroup, which limits act through")?;
        let old = &created.record.plan.host.resources;
        let (applied, merged) = merge(old.as_ref(), change)?;
        cgroup.update(&applied)?;
        created.client().call(
            &Request::Limits {
                container: self.id.clone(),
                resources: Box::new(merged.clone()),
            },
            &[],
        )?;
        let mut record: Record = created.record.clone();
        record.plan.host.resources = Some(merged);
        created.save(&record)?;
        Ok(0)
    }

    /// The fields to change.
    fn change(&self) -> Result<Value> {
        if let Some(path) = &self.resources {
            let mut text = Vec::new();
            if path.as_os_str() == "-" {
                std::io::stdin()
                    .read_to_end(&mut text)
                    .context("stdin can't be read")?;
            } else {
                text =
                    fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
            }
            return serde_json::from_slice(&text).context("resources are not valid JSON");
        }
        let mut cpu = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                cpu.insert(name.to_owned(), value);
            }
        };
        set("period", self.cpu_period.map(Value::from));
        set("quota", self.cpu_quota.map(Value::from));
        set("burst", self.cpu_burst.map(Value::from));
        set("shares", self.cpu_share.map(Value::from));
        set("realtimePeriod", self.cpu_rt_period.map(Value::from));
        set("realtimeRuntime", self.cpu_rt_runtime.map(Value::from));
        set("idle", self.cpu_idle.map(Value::from));
        set("cpus", self.cpuset_cpus.clone().map(Value::from));
        set("mems", self.cpuset_mems.clone().map(Value::from));
        let mut memory = Map::new();
        let mut set = |name: &str, value: Option<i64>| {
            if let Some(value) = value {
                memory.insert(name.to_owned(), value.into());
            }
        };
        set("limit", self.memory);
        set("reservation", self.memory_reservation);
        set("swap", self.memory_swap);
        let mut change = json!({"cpu": cpu, "memory": memory});
        if let (Some(limit), Some(object)) = (self.pids_limit, change.as_object_mut()) {
            object.insert("pids".to_owned(), json!({"limit": limit}));
        }
        if let (Some(weight), Some(object)) = (self.blkio_weight, change.as_object_mut()) {
            object.insert("blockIO".to_owned(), json!({"weight": weight}));
        }
        Ok(change)
    }
}

/// What to write now, and all that holds afterwards.
fn merge(old: Option<&LinuxResources>, change: Value) -> Result<(LinuxResources, LinuxResources)> {
    let mut whole = match old {
        Some(old) => serde_json::to_value(old)?,
        None => json!({}),
    };
    lay_over(&mut whole, &change);
    let merged: LinuxResources =
        serde_json::from_value(whole.clone()).context("resources are not valid")?;
    // A quota means nothing without its period, swap nothing without the
    // memory it is counted from: parts that are touched are written whole.
    if let (Some(whole), Some(change)) = (whole.as_object_mut(), change.as_object()) {
        whole.retain(|part, _| {
            let touched = change.get(part);
            touched.is_some_and(|value| value.as_object().is_none_or(|part| !part.is_empty()))
        });
    }
    let applied = serde_json::from_value(whole).context("resources are not valid")?;
    Ok((applied, merged))
}

/// Replaces what `change` names in `whole`.
fn lay_over(whole: &mut Value, change: &Value) {
    match (whole, change) {
        (Value::Object(whole), Value::Object(change)) => {
            for (key, value) in change {
                lay_over(whole.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (whole, change) => *whole = change.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_parts_stay() {
        let old = json!({"memory": {"limit": 100, "swap": 300}, "pids": {"limit": 5}});
        let old: LinuxResources = serde_json::from_value(old).expect("resources");
        let (applied, merged) =
            merge(Some(&old), json!({"memory": {"limit": 200}, "cpu": {}})).expect("merged");
        assert_eq!(
            serde_json::to_value(applied).expect("json"),
            json!({"memory": {"limit": 200, "swap": 300}})
        );
        assert_eq!(merged.pids().map(|pids| pids.limit()), Some(5));
    }

    #[test]
    fn units() {
        assert_eq!(bytes("64m"), Ok(64 << 20));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("-1"), Ok(-1));
        assert!(bytes("1x").is_err());
    }
}
