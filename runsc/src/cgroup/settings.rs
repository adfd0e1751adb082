//! `linux.resources` of an OCI configuration as contents of cgroup files.
//!
//! Sources: OCI runtime specification, `config-linux.md`; kernel documents
//! `cgroup-v1/*` and `cgroup-v2.rst`.

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};
use sentry_kernel::limits::{Limits, weight_of_shares};

use super::Version;

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub controller: String,
    pub file: String,
    /// Name of the file on kernels that don't have the first.
    pub alternative: Option<String>,
    pub value: String,
    /// Hosts that don't have the file can do without.
    pub optional: bool,
}

/// What the sandbox itself needs beside the guest's own tasks: threads of the
/// sentry, the gofer, stubs kept ready.
const OWN_TASKS: u64 = 96;

/// The kernel's own when none is set.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// Host tasks per guest task: a stub has a control thread beside each
/// process's first thread.
const HOST_TASKS: u64 = 2;

struct List {
    settings: Vec<Setting>,
}

impl List {
    fn push(&mut self, controller: &str, file: &str, value: impl ToString) -> &mut Setting {
        self.settings.push(Setting {
            controller: controller.to_owned(),
            file: file.to_owned(),
            alternative: None,
            value: value.to_string(),
            optional: false,
        });
        let last = self.settings.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "one has just been pushed")]
        &mut self.settings[last]
    }
}

/// The files to write, in order.
pub fn of(resources: &LinuxResources, version: Version) -> Result<Vec<Setting>> {
    let mut list = List {
        settings: Vec::new(),
    };
    if let Some(memory) = resources.memory() {
        match version {
            Version::V1 => memory_v1(&mut list, memory),
            Version::V2 => memory_v2(&mut list, memory)?,
        }
    }
    if let Some(cpu) = resources.cpu() {
        match version {
            Version::V1 => cpu_v1(&mut list, cpu),
            Version::V2 => cpu_v2(&mut list, cpu)?,
        }
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                list.push("cpuset", file, value);
            }
        }
    }
    if let Some(pids) = resources.pids() {
        // The sentry holds the guest to the exact number.
        match pids.limit() {
            limit if limit > 0 => {
                list.push("pids", "pids.max", host_tasks(limit.unsigned_abs()));
            }
            limit if limit < 0 => {
                list.push("pids", "pids.max", "max").optional = true;
            }
            _ => {}
        }
    }
    if let Some(block_io) = resources.block_io() {
        match version {
            Version::V1 => block_io_v1(&mut list, block_io),
            Version::V2 => block_io_v2(&mut list, block_io),
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = match version {
            Version::V1 => format!("hugetlb.{}.limit_in_bytes", limit.page_size()),
            Version::V2 => format!("hugetlb.{}.max", limit.page_size()),
        };
        list.push("hugetlb", &file, limit.limit());
    }
    if let (Some(network), Version::V1) = (resources.network(), version) {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            list.push("net_cls", "net_cls.classid", class);
        }
        for priority in network.priorities().iter().flatten() {
            let line = format!("{} {}", priority.name(), priority.priority());
            list.push("net_prio", "net_prio.ifpriomap", line);
        }
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        let part = |name: &str, value: Option<u32>| {
            value.map_or_else(String::new, |value| format!(" {name}={value}"))
        };
        let handles = part("hca_handle", limits.hca_handles());
        let objects = part("hca_object", limits.hca_objects());
        list.push("rdma", "rdma.max", format!("{device}{handles}{objects}"));
    }
    let unified = resources.unified().iter().flatten();
    for (file, value) in unified {
        ensure!(
            version == Version::V2 || super::hierarchy::unified_only(),
            "resources.unified needs a host with cgroup version 2 alone"
        );
        let controller = file.split('.').next().unwrap_or_default();
        ensure!(
            !file.contains('/') && file.contains('.'),
            "resources.unified: {file:?} is not the name of a cgroup file"
        );
        list.push(controller, file, value);
    }
    Ok(list.settings)
}

/// `pids.max` of the host for so many tasks of the guest.
fn host_tasks(tasks: u64) -> u64 {
    tasks.saturating_mul(HOST_TASKS).saturating_add(OWN_TASKS)
}

/// What the guest sees of its limits in its own cgroup files.
pub fn limits(resources: Option<&LinuxResources>) -> Limits {
    let positive = |value: Option<i64>| u64::try_from(value?).ok().filter(|value| *value > 0);
    let memory = resources.and_then(|resources| resources.memory().as_ref());
    let cpu = resources.and_then(|resources| resources.cpu().as_ref());
    let pids = resources.and_then(|resources| resources.pids().as_ref());
    let memory_bytes = positive(memory.and_then(LinuxMemory::limit));
    let with_swap = positive(memory.and_then(LinuxMemory::swap));
    let quota = positive(cpu.and_then(LinuxCpu::quota));
    let period = cpu.and_then(LinuxCpu::period).filter(|period| *period > 0);
    let shares = cpu.and_then(LinuxCpu::shares).filter(|shares| *shares > 0);
    let cpus = cpu.and_then(|cpu| cpu.cpus().clone());
    let tasks = positive(pids.map(|pids| pids.limit()));
    Limits {
        // The host counts whole pages.
        memory_bytes: memory_bytes.map(|bytes| bytes & !0xfff),
        swap_bytes: with_swap
            .zip(memory_bytes)
            .map(|(both, memory)| both.saturating_sub(memory)),
        cpu: quota.map(|quota| (quota, period.unwrap_or(DEFAULT_PERIOD_US))),
        cpu_weight: shares.map(weight_of_shares),
        cpus: cpus.filter(|cpus| !cpus.is_empty()),
        tasks,
        host_tasks: tasks.map(host_tasks),
    }
}

/// -1 is "no limit" in both versions' own words.
fn bytes_v2(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

fn memory_v1(list: &mut List, memory: &LinuxMemory) {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    // Memory with swap is never below memory alone: to lift both, the larger
    // one goes first. A fresh cgroup has neither.
    if let (Some(swap), Some(_)) = (swap, limit)
        && swap < 0
    {
        list.push("memory", "memory.memsw.limit_in_bytes", swap)
            .optional = true;
    }
    if let Some(limit) = limit {
        list.push("memory", "memory.limit_in_bytes", limit);
    }
    if let Some(swap) = swap.filter(|swap| *swap > 0 || limit.is_none()) {
        // Hosts without swap accounting don't have the file.
        list.push("memory", "memory.memsw.limit_in_bytes", swap)
            .optional = true;
    }
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        list.push("memory", "memory.soft_limit_in_bytes", reservation);
    }
    if let Some(swappiness) = memory.swappiness().filter(|value| *value <= 100) {
        list.push("memory", "memory.swappiness", swappiness);
    }
    if memory.disable_oom_killer() == Some(true) {
        list.push("memory", "memory.oom_control", 1);
    }
}

fn memory_v2(list: &mut List, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        // Version 2 counts swap alone, the configuration memory and swap.
        let value = match limit {
            _ if swap < 0 => "max".to_owned(),
            Some(limit) if limit >= 0 => {
                let alone = swap.checked_sub(limit).filter(|alone| *alone >= 0);
                let alone = alone
                    .with_context(|| format!("memory.swap {swap} is below memory.limit {limit}"))?;
                alone.to_string()
            }
            _ => bail!("memory.swap {swap} needs memory.limit"),
        };
        list.push("memory", "memory.swap.max", value).optional = true;
    }
    if let Some(limit) = limit {
        list.push("memory", "memory.max", bytes_v2(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
        list.push("memory", "memory.low", bytes_v2(reservation));
    }
    Ok(())
}

fn cpu_v1(list: &mut List, cpu: &LinuxCpu) {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        list.push("cpu", "cpu.shares", shares);
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        list.push("cpu", "cpu.cfs_period_us", period);
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        list.push("cpu", "cpu.cfs_quota_us", quota);
    }
    if let Some(burst) = cpu.burst() {
        list.push("cpu", "cpu.cfs_burst_us", burst);
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        list.push("cpu", "cpu.rt_period_us", period);
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        list.push("cpu", "cpu.rt_runtime_us", runtime);
    }
    if let Some(idle) = cpu.idle() {
        list.push("cpu", "cpu.idle", idle);
    }
}

fn cpu_v2(list: &mut List, cpu: &LinuxCpu) -> Result<()> {
    ensure!(
        cpu.realtime_runtime().unwrap_or(0) == 0 && cpu.realtime_period().unwrap_or(0) == 0,
        "cpu.realtimeRuntime and realtimePeriod need cgroup version 1"
    );
    if let Some(idle) = cpu.idle() {
        list.push("cpu", "cpu.idle", idle);
    }
    // The weight of an idle cgroup can't be set.
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0)
        && cpu.idle() != Some(1)
    {
        list.push("cpu", "cpu.weight", weight_of_shares(shares));
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.map_or_else(|| "max".to_owned(), bytes_v2);
        let period = period.map_or_else(String::new, |period| format!(" {period}"));
        list.push("cpu", "cpu.max", format!("{quota}{period}"));
    }
    if let Some(burst) = cpu.burst() {
        list.push("cpu", "cpu.max.burst", burst);
    }
    Ok(())
}

fn block_io_v1(list: &mut List, block_io: &LinuxBlockIo) {
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        let setting = list.push("blkio", "blkio.weight", weight);
        setting.alternative = Some("blkio.bfq.weight".to_owned());
        // Neither scheduler that has weights may be in use.
        setting.optional = true;
    }
    for device in block_io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight() {
            let line = format!("{}:{} {weight}", device.major(), device.minor());
            let setting = list.push("blkio", "blkio.weight_device", line);
            setting.alternative = Some("blkio.bfq.weight_device".to_owned());
        }
    }
    throttles(block_io, |file_v1, _, device| {
        let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
        list.push("blkio", file_v1, line);
    });
}

fn block_io_v2(list: &mut List, block_io: &LinuxBlockIo) {
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        // 10 to 1000 there, 1 to 10000 here.
        let weight = u64::from(weight.clamp(10, 1000));
        let setting = list.push("io", "io.bfq.weight", weight);
        setting.optional = true;
    }
    throttles(block_io, |_, key, device| {
        let line = format!(
            "{}:{} {key}={}",
            device.major(),
            device.minor(),
            device.rate()
        );
        list.push("io", "io.max", line);
    });
}

/// Calls `each` with the version 1 file, the version 2 key and the device of
/// all throttles.
fn throttles(block_io: &LinuxBlockIo, mut each: impl FnMut(&str, &str, &LinuxThrottleDevice)) {
    let groups = [
        (
            "blkio.throttle.read_bps_device",
            "rbps",
            block_io.throttle_read_bps_device(),
        ),
        (
            "blkio.throttle.write_bps_device",
            "wbps",
            block_io.throttle_write_bps_device(),
        ),
        (
            "blkio.throttle.read_iops_device",
            "riops",
            block_io.throttle_read_iops_device(),
        ),
        (
            "blkio.throttle.write_iops_device",
            "wiops",
            block_io.throttle_write_iops_device(),
        ),
    ];
    for (file, key, devices) in groups {
        for device in devices.iter().flatten() {
            each(file, key, device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn settings(resources: Value, version: Version) -> Vec<(String, String)> {
        let resources = serde_json::from_value(resources).expect("resources");
        let list = of(&resources, version).expect("settings");
        list.into_iter().map(|one| (one.file, one.value)).collect()
    }

    fn pair(file: &str, value: &str) -> (String, String) {
        (file.to_owned(), value.to_owned())
    }

    #[test]
    fn memory() {
        let resources = json!({"memory": {"limit": 1000, "swap": 3000, "reservation": 500}});
        assert_eq!(
            settings(resources.clone(), Version::V1),
            [
                pair("memory.limit_in_bytes", "1000"),
                pair("memory.memsw.limit_in_bytes", "3000"),
                pair("memory.soft_limit_in_bytes", "500"),
            ]
        );
        assert_eq!(
            settings(resources, Version::V2),
            [
                pair("memory.swap.max", "2000"),
                pair("memory.max", "1000"),
                pair("memory.low", "500"),
            ]
        );
        let unlimited = json!({"memory": {"limit": -1, "swap": -1}});
        assert_eq!(
            settings(unlimited, Version::V2),
            [pair("memory.swap.max", "max"), pair("memory.max", "max")]
        );
    }

    #[test]
    fn swap_below_memory_is_refused() {
        let resources = json!({"memory": {"limit": 1000, "swap": 10}});
        let resources = serde_json::from_value(resources).expect("resources");
        assert!(of(&resources, Version::V2).is_err());
    }

    #[test]
    fn cpu() {
        let resources = json!({"cpu": {"shares": 1024, "quota": 50000, "period": 100000,
            "cpus": "0-1"}});
        assert_eq!(
            settings(resources.clone(), Version::V2),
            [
                pair("cpu.weight", "39"),
                pair("cpu.max", "50000 100000"),
                pair("cpuset.cpus", "0-1"),
            ]
        );
        assert_eq!(
            settings(resources, Version::V1),
            [
                pair("cpu.shares", "1024"),
                pair("cpu.cfs_period_us", "100000"),
                pair("cpu.cfs_quota_us", "50000"),
                pair("cpuset.cpus", "0-1"),
            ]
        );
    }

    #[test]
    fn files_of_unified_stay_in_the_cgroup() {
        let resources = json!({"unified": {"../memory.max": "1"}});
        let resources = serde_json::from_value(resources).expect("resources");
        assert!(of(&resources, Version::V2).is_err());
    }
}
