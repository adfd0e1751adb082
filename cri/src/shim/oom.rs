//! Tells of a container that has run out of memory: of its host cgroup, by
//! the notifications of either version (`cgroup-v1/memory.rst`, section 10,
//! and `cgroup-v2.rst`, "memory.events", of the kernel's documentation).

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// How often and at which distance it is looked whether the kill has followed.
const KILL_STEPS: u32 = 100;
const KILL_STEP: Duration = Duration::from_millis(10);

/// Calls `report` each time the kernel has killed a process of the memory
/// cgroup that process `pid` is in, until that cgroup is removed.
pub fn watch(pid: i32, report: impl Fn() + Send + 'static) -> Result<()> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let table = table.context("the container has ended")?;
    let counter = counter(&table).context("there is no memory cgroup")?;
    let mut changes =
        Changes::of(&counter).with_context(|| format!("{} can't be watched", counter.display()))?;
    std::thread::Builder::new()
        .name("oom".to_owned())
        .stack_size(128 << 10)
        .spawn(move || {
            let mut seen = kills(&counter).unwrap_or(0);
            while changes.wait().is_ok()
                && let Some(now) = changes.kills_since(seen, &counter)
            {
                if now > seen {
                    report();
                }
                seen = now;
            }
        })
        .context("a thread can't be made")?;
    Ok(())
}

/// The file with the number of kills in the memory cgroup that
/// `/proc/PID/cgroup` names.
fn counter(table: &str) -> Option<PathBuf> {
    let mut unified = None;
    for line in table.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|name| name == "memory") {
            return Some(
                Path::new(ROOT)
                    .join("memory")
                    .join(path)
                    .join("memory.oom_control"),
            );
        }
        if controllers.is_empty() {
            unified = Some(Path::new(ROOT).join(path).join("memory.events"));
        }
    }
    unified
}

/// `None` once the cgroup is gone.
fn kills(counter: &Path) -> Option<u64> {
    let text = fs::read_to_string(counter).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Some(
        value
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0),
    )
}

/// Notifications of one cgroup; also of its removal.
struct Changes {
    source: File,
    /// The file whose descriptor version 1 was given.
    registration: Option<File>,
}

impl Changes {
    fn of(counter: &Path) -> Result<Self> {
        if counter.ends_with("memory.events") {
            let source: OwnedFd = inotify::init(inotify::CreateFlags::CLOEXEC)?;
            let wanted = inotify::WatchFlags::MODIFY | inotify::WatchFlags::DELETE_SELF;
            inotify::add_watch(&source, counter, wanted)?;
            return Ok(Self {
                source: File::from(source),
                registration: None,
            });
        }
        let file = File::open(counter)?;
        let source = eventfd(0, EventfdFlags::CLOEXEC)?;
        let line = format!("{} {}", source.as_raw_fd(), file.as_raw_fd());
        fs::write(counter.with_file_name("cgroup.event_control"), line)?;
        Ok(Self {
            source: File::from(source),
            registration: Some(file),
        })
    }

    fn wait(&mut self) -> std::io::Result<()> {
        let mut space = [0; 4096];
        self.source.read(&mut space).map(drop)
    }

    /// The number of kills after a notification, of which version 1 tells
    /// when memory has run out, just before it kills; `None` once the cgroup
    /// is gone.
    fn kills_since(&self, seen: u64, counter: &Path) -> Option<u64> {
        let is_early = self.registration.is_some();
        let mut now = kills(counter)?;
        for _ in 0..KILL_STEPS {
            if now > seen || !is_early {
                break;
            }
            std::thread::sleep(KILL_STEP);
            now = kills(counter)?;
        }
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let hybrid = "5:memory:/a/b\n1:name=systemd:/\n0::/c\n";
        let found = counter(hybrid).expect("found");
        assert_eq!(
            found,
            Path::new("/sys/fs/cgroup/memory/a/b/memory.oom_control")
        );
        let found = counter("0::/x.slice/y\n").expect("found");
        assert_eq!(found, Path::new("/sys/fs/cgroup/x.slice/y/memory.events"));
        assert_eq!(counter("1:cpu:/\n"), None);
    }
}
