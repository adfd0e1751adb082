//! Usage of containers and pods, from their cgroups and writable layers.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::node::Node;
use crate::proto;
use crate::store::{Container, ContainerRecord, Pod};
use crate::time;

/// Folders of a process's cgroups by controller.
#[derive(Debug, Default)]
pub struct Cgroup {
    cpu: Option<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    unified: bool,
}

impl Cgroup {
    pub fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let base = Path::new("/sys/fs/cgroup");
        let mut found = Self::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let path = path.trim_start_matches('/');
            for controller in controllers.split(',') {
                let dir = || Some(base.join(controller).join(path));
                match controller {
                    "cpuacct" => found.cpu = dir(),
                    "memory" => found.memory = dir(),
                    "pids" => found.pids = dir(),
                    "" if found.memory.is_none() => {
                        let dir = base.join(path);
                        if dir.join("memory.current").exists() {
                            found = Self {
                                cpu: Some(dir.clone()),
                                memory: Some(dir.clone()),
                                pids: Some(dir),
                                unified: true,
                            };
                        }
                    }
                    _ => {}
                }
            }
        }
        Some(found)
    }

    /// The one above, which is the pod's where a kubelet made it.
    pub fn parent(&self) -> Self {
        let up = |dir: &Option<PathBuf>| dir.as_ref().and_then(|d| d.parent()).map(Path::to_owned);
        Self {
            cpu: up(&self.cpu),
            memory: up(&self.memory),
            pids: up(&self.pids),
            unified: self.unified,
        }
    }

    pub fn cpu_ns(&self) -> Option<u64> {
        let dir = self.cpu.as_ref()?;
        if self.unified {
            return key(&dir.join("cpu.stat"), "usage_usec").map(|us| us.saturating_mul(1000));
        }
        number(&dir.join("cpuacct.usage"))
    }

    pub fn pids(&self) -> Option<u64> {
        number(&self.pids.as_ref()?.join("pids.current"))
    }

    pub fn memory(&self, now: i64) -> Option<proto::MemoryUsage> {
        let dir = self.memory.as_ref()?;
        let stat = dir.join("memory.stat");
        let (usage, limit, inactive, rss, faults, major) = if self.unified {
            (
                number(&dir.join("memory.current"))?,
                number(&dir.join("memory.max")),
                key(&stat, "inactive_file"),
                key(&stat, "anon"),
                key(&stat, "pgfault"),
                key(&stat, "pgmajfault"),
            )
        } else {
            (
                number(&dir.join("memory.usage_in_bytes"))?,
                number(&dir.join("memory.limit_in_bytes")).filter(|l| *l < 1 << 60),
                key(&stat, "total_inactive_file"),
                key(&stat, "total_rss"),
                key(&stat, "total_pgfault"),
                key(&stat, "total_pgmajfault"),
            )
        };
        let working_set = usage.saturating_sub(inactive.unwrap_or(0));
        Some(proto::MemoryUsage {
            timestamp: now,
            working_set_bytes: value(working_set),
            available_bytes: limit.and_then(|l| value(l.saturating_sub(working_set))),
            usage_bytes: value(usage),
            rss_bytes: value(rss.unwrap_or(0)),
            page_faults: value(faults.unwrap_or(0)),
            major_page_faults: value(major.unwrap_or(0)),
            psi: self.pressure(dir, "memory.pressure"),
        })
    }

    pub fn swap(&self, now: i64) -> Option<proto::SwapUsage> {
        let dir = self.memory.as_ref()?;
        let limited = |limit: &u64| *limit < 1 << 60;
        let (used, limit) = if self.unified {
            let limit = number(&dir.join("memory.swap.max"));
            (number(&dir.join("memory.swap.current"))?, limit)
        } else {
            let of_both = |both: &str, memory: &str| {
                let both = number(&dir.join(both))?;
                Some(both.saturating_sub(number(&dir.join(memory))?))
            };
            let limit = number(&dir.join("memory.memsw.limit_in_bytes"))
                .filter(limited)
                .and_then(|_| of_both("memory.memsw.limit_in_bytes", "memory.limit_in_bytes"));
            let used = of_both("memory.memsw.usage_in_bytes", "memory.usage_in_bytes")?;
            (used, limit)
        };
        // What the host has left bounds it too.
        let free = host_swap_free();
        let available = limit.map_or(free, |limit| limit.saturating_sub(used).min(free));
        Some(proto::SwapUsage {
            timestamp: now,
            swap_available_bytes: value(available),
            swap_usage_bytes: value(used),
        })
    }

    fn pressure(&self, dir: &Path, file: &str) -> Option<proto::PsiStats> {
        if !self.unified {
            return None;
        }
        let text = std::fs::read_to_string(dir.join(file)).ok()?;
        let line = |kind: &str| {
            let line = text.lines().find(|l| l.starts_with(kind))?;
            let field = |name: &str| {
                line.split_whitespace()
                    .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            };
            Some(proto::PsiData {
                total: field("total")?.parse().ok()?,
                avg10: field("avg10")?.parse().ok()?,
                avg60: field("avg60")?.parse().ok()?,
                avg300: field("avg300")?.parse().ok()?,
            })
        };
        Some(proto::PsiStats {
            full: line("full"),
            some: line("some"),
        })
    }

    fn cpu_usage(&self, now: i64, last: Option<(i64, u64)>) -> Option<proto::CpuUsage> {
        let used = self.cpu_ns()?;
        Some(proto::CpuUsage {
            timestamp: now,
            usage_core_nano_seconds: value(used),
            usage_nano_cores: last.and_then(|(at, before)| {
                let elapsed = u64::try_from(now.saturating_sub(at))
                    .ok()
                    .filter(|e| *e > 0)?;
                let delta = u128::from(used.saturating_sub(before)) * 1_000_000_000;
                value(u64::try_from(delta / u128::from(elapsed)).ok()?)
            }),
            psi: self
                .cpu
                .as_ref()
                .and_then(|dir| self.pressure(dir, "cpu.pressure")),
        })
    }

    fn io(&self, now: i64) -> Option<proto::IoUsage> {
        let psi = self.pressure(self.cpu.as_ref()?, "io.pressure")?;
        Some(proto::IoUsage {
            timestamp: now,
            psi: Some(psi),
        })
    }
}

fn host_swap_free() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("SwapFree:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn key(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// A number as the messages have it.
pub fn value(value: u64) -> Option<proto::UInt64Value> {
    Some(proto::UInt64Value { value })
}

/// Bytes on disk and files below a folder, without other file systems.
pub fn disk_usage(dir: &Path) -> (u64, u64) {
    let Ok(top) = std::fs::symlink_metadata(dir) else {
        return (0, 0);
    };
    let (mut bytes, mut files) = (top.blocks().saturating_mul(512), 1u64);
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != top.dev() {
                continue;
            }
            bytes = bytes.saturating_add(meta.blocks().saturating_mul(512));
            files = files.saturating_add(1);
            if meta.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    (bytes, files)
}

pub fn container(node: &Node, container: &Container) -> proto::ContainerStats {
    let record = container.record();
    let now = time::now_ns();
    let cgroup = record.alive().then(|| Cgroup::of(record.pid)).flatten();
    let mut stats = proto::ContainerStats {
        attributes: Some(attributes(&record)),
        writable_layer: Some(writable_layer(node, container, now)),
        ..proto::ContainerStats::default()
    };
    if let Some(cgroup) = cgroup {
        let mut last = container.last_cpu.lock();
        stats.cpu = cgroup.cpu_usage(now, *last);
        if let Some(used) = cgroup.cpu_ns() {
            *last = Some((now, used));
        }
        stats.memory = cgroup.memory(now);
        stats.swap = cgroup.swap(now);
        stats.io = cgroup.io(now);
    }
    stats
}

fn attributes(record: &ContainerRecord) -> proto::ContainerAttributes {
    proto::ContainerAttributes {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
    }
}

fn writable_layer(node: &Node, container: &Container, now: i64) -> proto::FilesystemUsage {
    let (bytes, files) = disk_usage(&container.dir.join("upper"));
    proto::FilesystemUsage {
        timestamp: now,
        fs_id: Some(proto::FilesystemIdentifier {
            mountpoint: node.config.root.display().to_string(),
        }),
        used_bytes: value(bytes),
        inodes_used: value(files),
    }
}

pub fn pod(node: &Node, pod: &Pod) -> proto::PodSandboxStats {
    let record = pod.record();
    let now = time::now_ns();
    let containers = node.store.containers_of(&pod.id);
    let alive: Vec<_> = containers.iter().filter(|c| c.record().alive()).collect();
    let mut linux = proto::LinuxPodSandboxStats {
        containers: alive.iter().map(|c| container(node, c)).collect(),
        network: network(node, pod, now),
        ..proto::LinuxPodSandboxStats::default()
    };
    let groups: Vec<Cgroup> = alive
        .iter()
        .filter_map(|c| Cgroup::of(c.record().pid))
        .collect();
    linux.process = Some(proto::ProcessUsage {
        timestamp: now,
        process_count: value(groups.iter().filter_map(Cgroup::pids).sum()),
    });
    // The pod's own cgroup, where there is one, counts more than the sum.
    if !record.cgroup_parent().is_empty()
        && let Some(group) = groups.first().map(Cgroup::parent)
    {
        linux.cpu = group.cpu_usage(now, None);
        linux.memory = group.memory(now);
        linux.io = group.io(now);
    } else {
        linux.cpu = Some(proto::CpuUsage {
            timestamp: now,
            usage_core_nano_seconds: value(groups.iter().filter_map(Cgroup::cpu_ns).sum()),
            ..proto::CpuUsage::default()
        });
        let sum = |pick: fn(&proto::MemoryUsage) -> Option<proto::UInt64Value>| {
            let all = linux.containers.iter().filter_map(|c| c.memory.as_ref());
            value(all.filter_map(|m| pick(m).map(|v| v.value)).sum())
        };
        linux.memory = Some(proto::MemoryUsage {
            timestamp: now,
            working_set_bytes: sum(|m| m.working_set_bytes),
            usage_bytes: sum(|m| m.usage_bytes),
            rss_bytes: sum(|m| m.rss_bytes),
            page_faults: sum(|m| m.page_faults),
            major_page_faults: sum(|m| m.major_page_faults),
            ..proto::MemoryUsage::default()
        });
    }
    if let Some(cpu) = &mut linux.cpu
        && cpu.usage_nano_cores.is_none()
    {
        let all = linux.containers.iter().filter_map(|c| c.cpu.as_ref());
        let rates: Vec<u64> = all
            .filter_map(|c| c.usage_nano_cores.as_ref().map(|v| v.value))
            .collect();
        if !rates.is_empty() {
            cpu.usage_nano_cores = value(rates.iter().sum());
        }
    }
    proto::PodSandboxStats {
        attributes: Some(proto::PodSandboxAttributes {
            id: record.id,
            metadata: record.config.metadata,
            labels: record.config.labels,
            annotations: record.config.annotations,
        }),
        linux: Some(linux),
        windows: None,
    }
}

/// Counters of the pod's interfaces: the supervisor is in its namespace.
fn network(node: &Node, pod: &Pod, now: i64) -> Option<proto::NetworkUsage> {
    if pod.record().host_network() {
        return None;
    }
    let state = node.pod_state(&pod.id);
    let supervisor = crate::pods::supervisor_pid(&state)?;
    let text = std::fs::read_to_string(format!("/proc/{supervisor}/net/dev")).ok()?;
    let mut all: Vec<proto::NetworkInterfaceUsage> = text.lines().filter_map(interface).collect();
    all.retain(|i| i.name != "lo");
    let place = all.iter().position(|i| i.name == "eth0").unwrap_or(0);
    let default = (!all.is_empty()).then(|| all.remove(place));
    Some(proto::NetworkUsage {
        timestamp: now,
        default_interface: default,
        interfaces: all,
    })
}

/// A line of /proc/net/dev: receive bytes, packets, errors…, from the ninth
/// number on transmit.
fn interface(line: &str) -> Option<proto::NetworkInterfaceUsage> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let number = |place: usize| numbers.get(place).copied().and_then(value);
    Some(proto::NetworkInterfaceUsage {
        name: name.trim().to_owned(),
        rx_bytes: number(0),
        rx_errors: number(2),
        tx_bytes: number(8),
        tx_errors: number(10),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn interface_counters() {
        let line = "  eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0";
        let found = super::interface(line).unwrap();
        assert_eq!(found.name, "eth0");
        assert_eq!(found.tx_bytes.unwrap().value, 200);
        assert_eq!(found.rx_errors.unwrap().value, 3);
    }
}
