//! The host cgroup of a container, through files that are open since the
//! container was made: what limits it by now, whoever has changed that, and
//! what it has used. Version 1 is told in the words of version 2.
//!
//! Sources: kernel documents `cgroup-v2.rst` and `cgroup-v1/*`.

use std::fmt::Write;

use sentry_platform::host::cgroup::CgroupFiles;

use super::Limits;

/// Names of the files that are looked at, in both versions; those that a host
/// lacks can be left out.
pub const HOST_FILES: &[&str] = &[
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.current",
    "memory.peak",
    "memory.stat",
    "memory.events",
    "memory.swap.max",
    "memory.swap.current",
    "cpu.max",
    "cpu.weight",
    "cpu.idle",
    "cpu.stat",
    "cpuset.cpus",
    "cpuset.cpus.effective",
    "cpuset.mems.effective",
    "pids.max",
    "pids.events",
    "io.stat",
    "io.max",
    // Of version 1 alone.
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.max_usage_in_bytes",
    "memory.failcnt",
    "memory.oom_control",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpuacct.usage",
    "cpuacct.stat",
    "cpuset.effective_cpus",
    "cpuset.effective_mems",
];

/// Version 1 has no word for "no limit": a number that no host reaches.
const V1_UNLIMITED: u64 = 1 << 60;

/// `cpu.shares` of a cgroup that nobody has set.
const V1_SHARES: u64 = 1024;

/// Length of a tick of `cpuacct.stat` (`USER_HZ`).
const TICK_US: u64 = 10_000;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct HostCgroup {
    files: CgroupFiles,
}

impl HostCgroup {
    /// Of files named as in [`HOST_FILES`]; `None` if there are none.
    pub fn new(files: CgroupFiles) -> Option<Self> {
        (!files.is_empty()).then_some(Self { files })
    }

    fn word(&self, name: &str) -> Option<String> {
        Some(self.files.text(name)?.trim().to_owned())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.word(name)?.parse().ok()
    }

    /// The number behind `key` in lines of keys and numbers.
    fn keyed(&self, name: &str, key: &str) -> Option<u64> {
        keyed(&self.files.text(name)?, key)
    }

    fn memory_is_v1(&self) -> bool {
        self.files.has("memory.limit_in_bytes")
    }

    /// What limits the container now, where `told` is what its makers said.
    pub(super) fn limits(&self, told: Limits) -> Limits {
        Limits {
            memory_bytes: self.memory_max().unwrap_or(told.memory_bytes),
            swap_bytes: self.swap_max().unwrap_or(told.swap_bytes),
            cpu: self.cpu_max().unwrap_or(told.cpu),
            cpu_weight: self.cpu_weight().or(told.cpu_weight),
            cpus: self.cpus(told.cpus),
            tasks: match self.tasks() {
                // As it was written for the guest's limit, or later that of
                // somebody who means this number.
                Some(now) if now != told.host_tasks => now,
                _ => told.tasks,
            },
            host_tasks: told.host_tasks,
        }
    }

    /// The limit of tasks alone, as [`Self::limits`] has it.
    pub(super) fn task_limit(&self, told: Option<u64>, host_told: Option<u64>) -> Option<u64> {
        match self.tasks() {
            Some(now) if now != host_told => now,
            _ => told,
        }
    }

    fn tasks(&self) -> Option<Option<u64>> {
        self.limit_v2("pids.max")
    }

    /// A limit or `max`.
    fn limit_v2(&self, name: &str) -> Option<Option<u64>> {
        match self.word(name)?.as_str() {
            "max" => Some(None),
            number => number.parse().ok().map(Some),
        }
    }

    fn limit_v1(&self, name: &str) -> Option<Option<u64>> {
        let number = self.number(name)?;
        Some((number < V1_UNLIMITED).then_some(number))
    }

    fn memory_max(&self) -> Option<Option<u64>> {
        self.limit_v2("memory.max")
            .or_else(|| self.limit_v1("memory.limit_in_bytes"))
    }

    fn swap_max(&self) -> Option<Option<u64>> {
        if let Some(limit) = self.limit_v2("memory.swap.max") {
            return Some(limit);
        }
        let both = self.limit_v1("memory.memsw.limit_in_bytes")?;
        let memory = self.limit_v1("memory.limit_in_bytes")?;
        Some(both.map(|both| both.saturating_sub(memory.unwrap_or(both))))
    }

    fn cpu_max(&self) -> Option<Option<(u64, u64)>> {
        if let Some(text) = self.word("cpu.max") {
            let (quota, period) = text.split_once(' ')?;
            let quota = match quota {
                "max" => return Some(None),
                number => number.parse().ok()?,
            };
            return Some(Some((quota, period.parse().ok()?)));
        }
        // -1 is no limit.
        let quota: i64 = self.word("cpu.cfs_quota_us")?.parse().ok()?;
        let period = self.number("cpu.cfs_period_us")?;
        Some(u64::try_from(quota).ok().map(|quota| (quota, period)))
    }

    fn cpu_weight(&self) -> Option<u64> {
        self.number("cpu.weight").or_else(|| {
            let shares = self.number("cpu.shares")?;
            (shares != V1_SHARES).then(|| weight_of_shares(shares))
        })
    }

    fn cpus(&self, told: Option<String>) -> Option<String> {
        let now = self.word("cpuset.cpus");
        // In version 1 it is never empty.
        if self.files.has("cpuset.effective_cpus") && told.is_none() {
            return None;
        }
        match now {
            Some(now) if now.is_empty() => None,
            Some(now) => Some(now),
            None => told,
        }
    }

    /// CPUs that the container may run on, as a list.
    pub fn effective_cpus(&self) -> Option<String> {
        let v2 = self.word("cpuset.cpus.effective");
        v2.or_else(|| self.word("cpuset.effective_cpus"))
    }

    /// Memory nodes that it may use.
    pub fn effective_mems(&self) -> Option<String> {
        let v2 = self.word("cpuset.mems.effective");
        v2.or_else(|| self.word("cpuset.effective_mems"))
    }

    /// A file that only version 2 has, as it is.
    pub fn text(&self, name: &str) -> Option<String> {
        self.files.text(name)
    }

    /// Memory that counts against the limit now, in bytes.
    pub fn memory_current(&self) -> Option<u64> {
        let v2 = self.number("memory.current");
        v2.or_else(|| self.number("memory.usage_in_bytes"))
    }

    /// The most that has been used.
    pub fn memory_peak(&self) -> Option<u64> {
        let v2 = self.number("memory.peak");
        v2.or_else(|| self.number("memory.max_usage_in_bytes"))
    }

    /// `memory.low` of version 2.
    pub fn memory_low(&self) -> Option<String> {
        let soft = || {
            let limit = self.limit_v1("memory.soft_limit_in_bytes")??;
            Some(format!("{limit}\n"))
        };
        self.text("memory.low").or_else(soft)
    }

    /// `memory.stat` of version 2.
    pub fn memory_stat(&self) -> Option<String> {
        let text = self.files.text("memory.stat")?;
        if !self.memory_is_v1() {
            return Some(text);
        }
        let lines = [
            ("anon", "rss"),
            ("file", "cache"),
            ("shmem", "shmem"),
            ("file_mapped", "mapped_file"),
            ("file_dirty", "dirty"),
            ("file_writeback", "writeback"),
            ("inactive_anon", "inactive_anon"),
            ("active_anon", "active_anon"),
            ("inactive_file", "inactive_file"),
            ("active_file", "active_file"),
            ("unevictable", "unevictable"),
            ("pgfault", "pgfault"),
            ("pgmajfault", "pgmajfault"),
        ];
        let mut out = String::new();
        for (name, v1) in lines {
            if let Some(value) = keyed(&text, v1) {
                let _ = writeln!(out, "{name} {value}");
            }
        }
        Some(out)
    }

    /// `memory.events` of version 2. Version 1 counts kills and hits of the
    /// limit only.
    pub fn memory_events(&self) -> Option<String> {
        if let Some(text) = self.files.text("memory.events") {
            return Some(text);
        }
        let kills = self.keyed("memory.oom_control", "oom_kill")?;
        let hits = self.number("memory.failcnt").unwrap_or(0);
        Some(format!(
            "low 0\nhigh 0\nmax {hits}\noom {kills}\noom_kill {kills}\noom_group_kill 0\n"
        ))
    }

    /// Tasks that the host has refused for its own limit.
    pub fn tasks_refused(&self) -> u64 {
        self.keyed("pids.events", "max").unwrap_or(0)
    }

    /// `cpu.stat` of version 2.
    pub fn cpu_stat(&self) -> Option<String> {
        let text = self.files.text("cpu.stat");
        let Some(usage_ns) = self.number("cpuacct.usage") else {
            // Without the controller there is nothing about throttling.
            return text.filter(|text| keyed(text, "usage_usec").is_some());
        };
        let ticks = |key| self.keyed("cpuacct.stat", key).unwrap_or(0);
        let count = |key| text.as_deref().and_then(|text| keyed(text, key));
        Some(format!(
            "usage_usec {}\nuser_usec {}\nsystem_usec {}\nnr_periods {}\nnr_throttled {}\n\
             throttled_usec {}\n",
            usage_ns / 1000,
            ticks("user").saturating_mul(TICK_US),
            ticks("system").saturating_mul(TICK_US),
            count("nr_periods").unwrap_or(0),
            count("nr_throttled").unwrap_or(0),
            count("throttled_time").unwrap_or(0) / 1000,
        ))
    }
}

/// Version 1 shares (2 to 262144) on the scale of version 2 weights (1 to
/// 10000), linear as all runtimes map them.
pub fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

/// The number behind `key` in lines of keys and numbers.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    /// A cgroup of files with these contents.
    fn host(files: &[(&str, &str)]) -> HostCgroup {
        let dir = std::env::temp_dir();
        let files = files.iter().enumerate().map(|(index, (name, text))| {
            let thread = std::thread::current().id();
            let path = dir.join(format!("host-{}-{thread:?}-{index}", std::process::id()));
            std::fs::write(&path, text).expect("write");
            let file = std::fs::File::open(&path).expect("open");
            std::fs::remove_file(&path).expect("remove");
            ((*name).to_owned(), OwnedFd::from(file))
        });
        HostCgroup::new(CgroupFiles::new(files)).expect("files")
    }

    fn told() -> Limits {
        Limits {
            memory_bytes: Some(5),
            tasks: Some(10),
            host_tasks: Some(116),
            ..Limits::default()
        }
    }

    #[test]
    fn version_2_counts_more_than_what_was_told() {
        let host = host(&[
            ("memory.max", "4096\n"),
            ("memory.swap.max", "max\n"),
            ("cpu.max", "20000 100000\n"),
            ("cpu.weight", "39\n"),
            ("cpuset.cpus", "\n"),
            ("pids.max", "116\n"),
        ]);
        let limits = host.limits(told());
        assert_eq!(limits.memory_bytes, Some(4096));
        assert_eq!(limits.swap_bytes, None);
        assert_eq!(limits.cpu, Some((20_000, 100_000)));
        assert_eq!(limits.cpu_weight, Some(39));
        assert_eq!(limits.cpus, None);
        // The host's number for the guest's 10.
        assert_eq!(limits.tasks, Some(10));
    }

    #[test]
    fn version_1_in_words_of_version_2() {
        let host = host(&[
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.stat", "cache 1\nrss 2\ntotal_rss 9\n"),
            ("memory.failcnt", "7\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            ),
            ("cpu.cfs_quota_us", "-1\n"),
            ("cpu.cfs_period_us", "100000\n"),
            (
                "cpu.stat",
                "nr_periods 4\nnr_throttled 2\nthrottled_time 5000\n",
            ),
            ("cpuacct.usage", "9000\n"),
            ("cpuacct.stat", "user 1\nsystem 2\n"),
            ("pids.max", "30\n"),
        ]);
        let limits = host.limits(told());
        assert_eq!((limits.memory_bytes, limits.cpu), (None, None));
        // Not what was written for the guest's 10: somebody else's.
        assert_eq!(limits.tasks, Some(30));
        assert_eq!(host.memory_stat().as_deref(), Some("anon 2\nfile 1\n"));
        let events = host.memory_events().expect("events");
        assert_eq!(keyed(&events, "max"), Some(7));
        assert_eq!(keyed(&events, "oom_kill"), Some(3));
        assert_eq!(
            host.cpu_stat().as_deref(),
            Some(
                "usage_usec 9\nuser_usec 10000\nsystem_usec 20000\nnr_periods 4\n\
                 nr_throttled 2\nthrottled_usec 5\n"
            )
        );
    }

    #[test]
    fn weights() {
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(1024), 39);
        assert_eq!(weight_of_shares(262_144), 10_000);
    }
}
