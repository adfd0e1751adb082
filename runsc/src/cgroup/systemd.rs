//! systemd as the maker of cgroups (`--systemd-cgroup`): a container is a
//! transient scope, named and limited as `runc` does it.
//!
//! Sources: `systemd.scope(5)`, `systemd.resource-control(5)`,
//! `org.freedesktop.systemd1(5)`; runc's `docs/systemd.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::bus::{Bus, Properties, Refusal, Target, Value};
use super::settings::Setting;
use crate::sys::{PidNamespace, spawn};

const SOCKET: &str = "/run/dbus/system_bus_socket";

const MANAGER: Target = Target {
    service: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// What names of scopes begin with if nobody says so.
const PREFIX: &str = "runsc";
const SLICE: &str = "system.slice";

/// Annotations that are properties of the scope.
const ANNOTATION: &str = "org.systemd.property.";

/// CPU time per second is counted by systemd in steps of 10 ms.
const QUOTA_STEP_US: u64 = 10_000;

/// A container's scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `PREFIX-NAME.scope`.
    name: String,
    /// `a-b.slice`.
    slice: String,
}

impl Unit {
    /// The scope that `linux.cgroupsPath` names as `SLICE:PREFIX:NAME`.
    pub fn of(cgroups_path: Option<&Path>, id: &str) -> Result<Self> {
        let path = cgroups_path.map_or("", |path| path.to_str().unwrap_or("?"));
        let (slice, prefix, name) = if path.is_empty() {
            ("", PREFIX, id)
        } else {
            let mut parts = path.split(':');
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
                _ => bail!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd \
                     cgroups, got {path:?} instead"
                ),
            }
        };
        ensure!(
            !name.is_empty() && !name.ends_with(".slice"),
            "cgroupsPath {path:?} names no scope"
        );
        let name = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        ensure!(!name.contains('/'), "{name:?} is no name of a unit");
        let slice = if slice.is_empty() { SLICE } else { slice };
        let unit = Self {
            name,
            slice: slice.to_owned(),
        };
        unit.path()?;
        Ok(unit)
    }

    /// Its cgroup below the root of a hierarchy.
    pub fn path(&self) -> Result<PathBuf> {
        Ok(slice_path(&self.slice)?.join(&self.name))
    }

    /// Starts the scope with process `pid` in it.
    pub fn start(
        &self,
        pid: i32,
        description: &str,
        settings: &[Setting],
        annotations: &BTreeMap<String, String>,
    ) -> Result<()> {
        let mut list = vec![
            (
                "Description".to_owned(),
                Value::Text(description.to_owned()),
            ),
            ("Slice".to_owned(), Value::Text(self.slice.clone())),
            ("Delegate".to_owned(), Value::Bool(true)),
            ("PIDs".to_owned(), Value::Numbers(vec![pid.unsigned_abs()])),
        ];
        let accounting = ["MemoryAccounting", "CPUAccounting", "TasksAccounting"];
        let io = if super::hierarchy::unified_only() {
            "IOAccounting"
        } else {
            "BlockIOAccounting"
        };
        for name in accounting.into_iter().chain([io]) {
            list.push((name.to_owned(), Value::Bool(true)));
        }
        list.push(("DefaultDependencies".to_owned(), Value::Bool(false)));
        for (name, value) in annotated(annotations)? {
            list.retain(|(known, _)| *known != name);
            list.push((name, value));
        }
        list.extend(properties(settings)?);
        let mut bus = connect()?;
        bus.watch_jobs(MANAGER)?;
        let mut started = self.start_with(&mut bus, &list);
        let exists = |err: &anyhow::Error| {
            let refusal = err.downcast_ref::<Refusal>();
            refusal.is_some_and(|refusal| refusal.name.ends_with(".UnitExists"))
        };
        if started.as_ref().is_err_and(exists) {
            // One of a container that has failed before stays loaded.
            self.forget_failure(&mut bus);
            started = self.start_with(&mut bus, &list);
        }
        let job = started.with_context(|| format!("systemd can't start {}", self.name))?;
        let result = bus.job_result(&job)?;
        ensure!(
            result == "done",
            "systemd did not start {}: {result}",
            self.name
        );
        Ok(())
    }

    fn start_with(&self, bus: &mut Bus, list: &Properties) -> Result<String> {
        let job = bus.call(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", |w| {
            w.text(&self.name);
            w.text("replace");
            w.properties(list);
            w.no_structures();
        })?;
        job.context("systemd has answered without a job")
    }

    fn forget_failure(&self, bus: &mut Bus) {
        // It fails for units that have not.
        let _ = bus.call(MANAGER, "ResetFailedUnit", "s", |w| w.text(&self.name));
    }

    /// Sets limits, which otherwise a reload of systemd would take back.
    pub fn set(&self, settings: &[Setting]) -> Result<()> {
        let list = properties(settings)?;
        if list.is_empty() {
            return Ok(());
        }
        let mut bus = connect()?;
        bus.call(MANAGER, "SetUnitProperties", "sba(sv)", |w| {
            w.text(&self.name);
            // For as long as it runs.
            w.bool(true);
            w.properties(&list);
        })
        .with_context(|| format!("systemd can't change {}", self.name))?;
        Ok(())
    }

    /// Stops the scope. One without processes has ended by itself.
    pub fn stop(&self) -> Result<()> {
        let mut bus = connect()?;
        bus.watch_jobs(MANAGER)?;
        let job = bus.call(MANAGER, "StopUnit", "ss", |w| {
            w.text(&self.name);
            w.text("replace");
        });
        if let Ok(Some(job)) = job {
            bus.job_result(&job)?;
        }
        self.forget_failure(&mut bus);
        Ok(())
    }
}

fn connect() -> Result<Bus> {
    Bus::connect(Path::new(SOCKET))
        .context("--systemd-cgroup needs systemd; without it use the cgroupfs driver")
}

/// The process that a scope is started with, as it can't be without one. It
/// does nothing, and ends when this is dropped or this command ends.
pub struct Holder {
    pid: Pid,
}

impl Holder {
    pub fn start() -> Result<Self> {
        let pid = spawn(
            PidNamespace::Shared,
            |_| Ok(()),
            || {
                if nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
                    return 1;
                }
                loop {
                    nix::unistd::pause();
                }
            },
        )?;
        Ok(Self { pid })
    }

    pub const fn pid(&self) -> i32 {
        self.pid.as_raw()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have been killed with its cgroup.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}

/// The cgroup of a slice: `a-b.slice` is in `a.slice`.
fn slice_path(slice: &str) -> Result<PathBuf> {
    let stem = slice.strip_suffix(".slice").unwrap_or_default();
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let plain = !stem.is_empty() && !stem.contains('/') && stem.split('-').all(|p| !p.is_empty());
    ensure!(plain, "{slice:?} is no name of a slice");
    let mut path = PathBuf::new();
    for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push(format!("{}.slice", stem.get(..end).unwrap_or_default()));
    }
    Ok(path)
}

/// Files of a cgroup as properties of its unit, as far as there are such; the
/// rest is written by ourselves alone.
fn properties(settings: &[Setting]) -> Result<Properties> {
    let value_of = |file: &str| {
        let setting = settings.iter().find(|setting| setting.file == file)?;
        Some(setting.value.as_str())
    };
    let mut list = Properties::new();
    for (file, name) in [
        ("memory.max", "MemoryMax"),
        ("memory.high", "MemoryHigh"),
        ("memory.low", "MemoryLow"),
        ("memory.min", "MemoryMin"),
        ("memory.swap.max", "MemorySwapMax"),
        ("memory.limit_in_bytes", "MemoryLimit"),
        ("cpu.weight", "CPUWeight"),
        ("cpu.shares", "CPUShares"),
        ("blkio.weight", "BlockIOWeight"),
        ("pids.max", "TasksMax"),
    ] {
        if let Some(value) = value_of(file) {
            list.push((name.to_owned(), Value::U64(limit(value)?)));
        }
    }
    for (file, name) in [
        ("cpuset.cpus", "AllowedCPUs"),
        ("cpuset.mems", "AllowedMemoryNodes"),
    ] {
        // There only on version 2.
        if let (Some(value), true) = (value_of(file), super::hierarchy::unified_only()) {
            list.push((name.to_owned(), Value::Bytes(bits(value)?)));
        }
    }
    let quota = match value_of("cpu.max") {
        Some(both) => {
            let (quota, period) = both.split_once(' ').unwrap_or((both, ""));
            Some((quota, period))
        }
        None => value_of("cpu.cfs_quota_us")
            .map(|quota| (quota, value_of("cpu.cfs_period_us").unwrap_or(""))),
    };
    if let Some((quota, period)) = quota {
        let period = if period.is_empty() { "100000" } else { period };
        let (quota, period) = (limit(quota)?, limit(period)?.max(1));
        let per_second = match quota {
            u64::MAX => u64::MAX,
            quota => quota
                .saturating_mul(1_000_000)
                .div_ceil(period)
                .next_multiple_of(QUOTA_STEP_US),
        };
        list.push(("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)));
        list.push(("CPUQuotaPerSecUSec".to_owned(), Value::U64(per_second)));
    }
    Ok(list)
}

/// A number, or none in the words of either version.
fn limit(text: &str) -> Result<u64> {
    match text {
        "max" => Ok(u64::MAX),
        text if text.starts_with('-') => Ok(u64::MAX),
        text => text
            .parse()
            .with_context(|| format!("{text:?} is not a number")),
    }
}

/// A list such as `0-2,5` as a mask of bits, lowest byte first.
fn bits(list: &str) -> Result<Vec<u8>> {
    let mut mask = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let wrong = || format!("{list:?} is not a list of numbers");
        let first: usize = first.trim().parse().with_context(wrong)?;
        let last: usize = last.trim().parse().with_context(wrong)?;
        ensure!(first <= last && last < 1 << 16, wrong());
        for number in first..=last {
            if mask.len() <= number / 8 {
                mask.resize(number / 8 + 1, 0);
            }
            if let Some(byte) = mask.get_mut(number / 8) {
                *byte |= 1_u8 << (number % 8);
            }
        }
    }
    Ok(mask)
}

/// Properties that annotations ask for, with values as GVariant text.
fn annotated(annotations: &BTreeMap<String, String>) -> Result<Properties> {
    let own = annotations
        .iter()
        .filter_map(|(name, text)| Some((name.strip_prefix(ANNOTATION)?, text)));
    let parsed = own.map(|(name, text)| {
        let value = parse_value(text.trim()).with_context(|| {
            format!("annotation {ANNOTATION}{name} has no value that is known: {text}")
        })?;
        Ok(in_microseconds(name, value))
    });
    parsed.collect()
}

/// Times in seconds are told in microseconds over the bus.
fn in_microseconds(name: &str, value: Value) -> (String, Value) {
    let seconds = match value {
        Value::I32(seconds) => u64::try_from(seconds).ok(),
        Value::I64(seconds) => u64::try_from(seconds).ok(),
        Value::U32(seconds) => Some(u64::from(seconds)),
        Value::U64(seconds) => Some(seconds),
        _ => None,
    };
    match (name.strip_suffix("Sec"), seconds) {
        (Some(stem), Some(seconds)) if !stem.ends_with('U') => (
            format!("{stem}USec"),
            Value::U64(seconds.saturating_mul(1_000_000)),
        ),
        _ => (name.to_owned(), value),
    }
}

fn parse_value(text: &str) -> Option<Value> {
    if let Some(list) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        let items = list
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        return Some(Value::Texts(items.map(quoted).collect::<Option<_>>()?));
    }
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some(text) = quoted(text) {
        return Some(Value::Text(text));
    }
    match text.split_once(' ') {
        Some(("uint64", number)) => Some(Value::U64(number.trim().parse().ok()?)),
        Some(("int64", number)) => Some(Value::I64(number.trim().parse().ok()?)),
        Some(("uint32", number)) => Some(Value::U32(number.trim().parse().ok()?)),
        Some(("int32", number)) => Some(Value::I32(number.trim().parse().ok()?)),
        Some(_) => None,
        None => Some(Value::I32(text.parse().ok()?)),
    }
}

fn quoted(text: &str) -> Option<String> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
        Some(inner.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(path: &str) -> Result<String> {
        let unit = Unit::of(Some(Path::new(path)), "box")?;
        Ok(unit.path()?.to_string_lossy().into_owned())
    }

    #[test]
    fn names_are_those_of_runc() {
        let of = |path| unit(path).expect(path);
        assert_eq!(of(""), "system.slice/runsc-box.scope");
        assert_eq!(of(":cri:x"), "system.slice/cri-x.scope");
        assert_eq!(
            of("kubepods-pod1.slice:cri-containerd:abc"),
            "kubepods.slice/kubepods-pod1.slice/cri-containerd-abc.scope"
        );
        assert_eq!(of("-.slice:a:b"), "a-b.scope");
        for wrong in [
            "/a/b",
            "a:b",
            "a:b:c:d",
            "a-.slice:b:c",
            "a/b.slice:b:c",
            "x:y:z",
        ] {
            assert!(unit(wrong).is_err(), "{wrong}");
        }
        assert!(unit("a.slice:b:../c").is_err() && unit("a.slice:b:c.slice").is_err());
    }

    fn setting(file: &str, value: &str) -> Setting {
        Setting {
            controller: String::new(),
            file: file.to_owned(),
            alternative: None,
            value: value.to_owned(),
            optional: false,
        }
    }

    #[test]
    fn limits_become_properties() {
        let list = properties(&[
            setting("memory.max", "1000"),
            setting("memory.swap.max", "max"),
            setting("cpu.max", "25001 100000"),
            setting("io.max", "8:0 rbps=1"),
        ]);
        let expected = [
            ("MemoryMax", 1000),
            ("MemorySwapMax", u64::MAX),
            ("CPUQuotaPeriodUSec", 100_000),
            // A quarter and a bit, rounded up.
            ("CPUQuotaPerSecUSec", 260_000),
        ]
        .map(|(name, value)| (name.to_owned(), Value::U64(value)));
        assert_eq!(list.expect("properties"), expected);
        let list = properties(&[setting("cpu.cfs_quota_us", "-1")]).expect("properties");
        assert!(list.contains(&("CPUQuotaPerSecUSec".to_owned(), Value::U64(u64::MAX))));
        assert_eq!(bits("0-2,9").expect("bits"), [7, 2]);
        assert!(bits("3-1").is_err() && bits("x").is_err());
    }

    #[test]
    fn annotations_become_properties() {
        let one = |name: &str, text: &str| {
            let key = format!("{ANNOTATION}{name}");
            annotated(&BTreeMap::from([(key, text.to_owned())]))
        };
        let got = one("TimeoutStopSec", "5").expect("value");
        assert_eq!(got, [("TimeoutStopUSec".to_owned(), Value::U64(5_000_000))]);
        let got = one("TimeoutStopUSec", "uint64 7").expect("value");
        assert_eq!(got, [("TimeoutStopUSec".to_owned(), Value::U64(7))]);
        let got = one("After", "['crio.service', 'x']").expect("value");
        let texts = Value::Texts(vec!["crio.service".to_owned(), "x".to_owned()]);
        assert_eq!(got, [("After".to_owned(), texts)]);
        assert!(one("X", "<nonsense>").is_err());
        assert!(annotated(&BTreeMap::from([("other".into(), "<".into())])).is_ok());
    }
}
