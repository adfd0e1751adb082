//! Metrics as containerd wants them, from what `runsc events --stats` says
//! (the format is runc's).

use std::path::Path;

use anyhow::{Context, Result};
use prost::Message;
use serde_json::Value;

use crate::messages::Any;

/// `io.containerd.cgroups.v2.Metrics`.
#[derive(Clone, PartialEq, Message)]
struct MetricsV2 {
    #[prost(message, optional, tag = "1")]
    pids: Option<Pids>,
    #[prost(message, optional, tag = "2")]
    cpu: Option<CpuV2>,
    #[prost(message, optional, tag = "4")]
    memory: Option<MemoryV2>,
}

#[derive(Clone, PartialEq, Message)]
struct Pids {
    #[prost(uint64, tag = "1")]
    current: u64,
    #[prost(uint64, tag = "2")]
    limit: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CpuV2 {
    #[prost(uint64, tag = "1")]
    usage_usec: u64,
    #[prost(uint64, tag = "2")]
    user_usec: u64,
    #[prost(uint64, tag = "3")]
    system_usec: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MemoryV2 {
    #[prost(uint64, tag = "1")]
    anon: u64,
    #[prost(uint64, tag = "2")]
    file: u64,
    #[prost(uint64, tag = "32")]
    usage: u64,
    #[prost(uint64, tag = "33")]
    usage_limit: u64,
}

/// `io.containerd.cgroups.v1.Metrics`.
#[derive(Clone, PartialEq, Message)]
struct MetricsV1 {
    #[prost(message, optional, tag = "2")]
    pids: Option<Pids>,
    #[prost(message, optional, tag = "3")]
    cpu: Option<CpuV1>,
    #[prost(message, optional, tag = "4")]
    memory: Option<MemoryV1>,
}

#[derive(Clone, PartialEq, Message)]
struct CpuV1 {
    #[prost(message, optional, tag = "1")]
    usage: Option<CpuUsage>,
}

#[derive(Clone, PartialEq, Message)]
struct CpuUsage {
    #[prost(uint64, tag = "1")]
    total: u64,
    #[prost(uint64, tag = "2")]
    kernel: u64,
    #[prost(uint64, tag = "3")]
    user: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MemoryV1 {
    #[prost(uint64, tag = "1")]
    cache: u64,
    #[prost(uint64, tag = "2")]
    rss: u64,
    #[prost(message, optional, tag = "33")]
    usage: Option<MemoryEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct MemoryEntry {
    #[prost(uint64, tag = "1")]
    limit: u64,
    #[prost(uint64, tag = "2")]
    usage: u64,
    #[prost(uint64, tag = "3")]
    max: u64,
    #[prost(uint64, tag = "4")]
    failcnt: u64,
}

/// Numbers of one container.
struct Numbers<'a>(&'a Value);

impl Numbers<'_> {
    /// 0 for what is not there.
    fn get(&self, pointer: &str) -> u64 {
        let value = self.0.pointer(pointer);
        value.and_then(Value::as_u64).unwrap_or(0)
    }
}

/// Metrics in the form of the host's cgroups.
pub fn metrics(text: &[u8]) -> Result<Any> {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    convert(text, unified)
}

fn convert(text: &[u8], unified: bool) -> Result<Any> {
    let event: Value = serde_json::from_slice(text).context("events has said no statistics")?;
    let data = event.get("data").context("statistics are missing")?;
    let numbers = Numbers(data);
    let pids = Some(Pids {
        current: numbers.get("/pids/current"),
        limit: numbers.get("/pids/limit"),
    });
    let (total, kernel, user) = (
        numbers.get("/cpu/usage/total"),
        numbers.get("/cpu/usage/kernel"),
        numbers.get("/cpu/usage/user"),
    );
    if unified {
        let metrics = MetricsV2 {
            pids,
            cpu: Some(CpuV2 {
                usage_usec: total / 1000,
                user_usec: user / 1000,
                system_usec: kernel / 1000,
            }),
            memory: Some(MemoryV2 {
                anon: numbers.get("/memory/raw/anon"),
                file: numbers.get("/memory/raw/file"),
                usage: numbers.get("/memory/usage/usage"),
                usage_limit: numbers.get("/memory/usage/limit"),
            }),
        };
        return Ok(Any::of("io.containerd.cgroups.v2.Metrics", &metrics));
    }
    let metrics = MetricsV1 {
        pids,
        cpu: Some(CpuV1 {
            usage: Some(CpuUsage {
                total,
                kernel,
                user,
            }),
        }),
        memory: Some(MemoryV1 {
            cache: numbers.get("/memory/cache"),
            rss: numbers.get("/memory/raw/rss"),
            usage: Some(MemoryEntry {
                limit: numbers.get("/memory/usage/limit"),
                usage: numbers.get("/memory/usage/usage"),
                max: numbers.get("/memory/usage/max"),
                failcnt: numbers.get("/memory/usage/failcnt"),
            }),
        }),
    };
    Ok(Any::of("io.containerd.cgroups.v1.Metrics", &metrics))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"type": "stats", "id": "x", "data": {
        "cpu": {"usage": {"total": 5000, "kernel": 2000, "user": 3000}},
        "memory": {"cache": 1, "usage": {"limit": 100, "usage": 50}, "raw": {"anon": 7}},
        "pids": {"current": 3}}}"#;

    #[test]
    fn both_forms() {
        let v2 = convert(TEXT.as_bytes(), true).expect("valid");
        let v2 = MetricsV2::decode(v2.value.as_slice()).expect("message");
        assert_eq!(v2.cpu.expect("cpu").usage_usec, 5);
        assert_eq!(v2.memory.expect("memory").usage, 50);
        let v1 = convert(TEXT.as_bytes(), false).expect("valid");
        assert_eq!(v1.type_url, "io.containerd.cgroups.v1.Metrics");
        let v1 = MetricsV1::decode(v1.value.as_slice()).expect("message");
        assert_eq!(v1.pids.expect("pids").current, 3);
        assert!(convert(b"{}", true).is_err());
    }
}
