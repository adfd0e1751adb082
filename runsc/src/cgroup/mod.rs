//! The host cgroups of a container: where its processes live, what limits
//! them, and what they have used.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Cgroup`]: making, joining, removing |
//! | `hierarchy.rs` | what is mounted on this host |
//! | `pressure.rs` | hearing that memory runs short |
//! | `settings.rs` | resources of an OCI configuration as file contents |
//! | `stats.rs` | counters |
//! | `systemd.rs` | systemd as the maker of cgroups |
//! | `bus.rs` | calls to it |
//!
//! Version 1, version 2 and hybrid set-ups are served alike: a container has
//! one directory in each mounted hierarchy.

mod bus;
mod hierarchy;
mod pressure;
mod settings;
mod stats;
mod systemd;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, access};
use oci_spec::runtime::LinuxResources;
use sentry_kernel::limits::HOST_FILES;
use serde::{Deserialize, Serialize};

use crate::plan::ContainerPlan;
use crate::sys::Born;
use hierarchy::mounted;
pub use settings::limits;
pub use stats::Stats;
pub use systemd::Holder;
use systemd::Unit;

/// How long killed processes may take to leave their cgroup.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(10);

/// The cgroup of a container, in all hierarchies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cgroup {
    dirs: Vec<Dir>,
    /// Its scope, if systemd makes it.
    #[serde(default)]
    unit: Option<Unit>,
}

/// The cgroup's directory in one hierarchy.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Dir {
    path: PathBuf,
    version: Version,
    /// Of version 1: `memory`, `cpu`… Of version 2: those that are enabled.
    controllers: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    V1,
    V2,
}

impl Cgroup {
    /// The cgroup that `linux.cgroupsPath` names: below the root of the
    /// hierarchies if absolute, else below the cgroup of this process; one
    /// that nobody else has if it names none. Nothing is made yet.
    pub fn locate(cgroups_path: Option<&Path>, id: &str) -> Result<Self> {
        // Ids are unique below one `--root` only.
        let own = format!("{id}.{:x}", crate::time::nanos_of_day());
        let path = match cgroups_path {
            Some(path) if !path.as_os_str().is_empty() => path,
            _ => Path::new(&own),
        };
        let plain = path
            .components()
            .all(|part| !matches!(part, std::path::Component::ParentDir));
        if !plain {
            bail!("cgroupsPath {} leads upwards", path.display());
        }
        let dirs = mounted()?
            .into_iter()
            .map(|hierarchy| Dir {
                path: hierarchy.place(path),
                version: hierarchy.version,
                controllers: hierarchy.controllers,
            })
            .collect();
        Ok(Self { dirs, unit: None })
    }

    /// As [`Self::locate`], for a cgroup that systemd makes.
    pub fn locate_scope(cgroups_path: Option<&Path>, id: &str) -> Result<Self> {
        ensure!(
            crate::user::is_host_root(),
            "--systemd-cgroup needs root of the host; without it use the cgroupfs driver"
        );
        let unit = Unit::of(cgroups_path, id)?;
        let path = unit.path()?;
        let dirs = mounted()?
            .into_iter()
            .map(|hierarchy| Dir {
                path: hierarchy.mount_point.join(&path),
                version: hierarchy.version,
                controllers: hierarchy.controllers,
            })
            .collect();
        Ok(Self {
            dirs,
            unit: Some(unit),
        })
    }

    /// Makes the cgroup. The answer is to be kept until processes of the
    /// container are there.
    pub fn create(&self, plan: &ContainerPlan) -> Result<Option<Holder>> {
        let Some(unit) = &self.unit else {
            self.create_dirs()?;
            return Ok(None);
        };
        let settings = match &plan.host.resources {
            Some(resources) => settings::of(resources, self.main_version())?,
            None => Vec::new(),
        };
        let holder = Holder::start()?;
        let description = format!("runsc container {}", plan.id);
        unit.start(holder.pid(), &description, &settings, &plan.annotations)?;
        // Those of hierarchies that systemd leaves alone.
        self.create_dirs()?;
        Ok(Some(holder))
    }

    /// The version that has the controllers.
    fn main_version(&self) -> Version {
        let old = self.dirs.iter().any(|dir| dir.version == Version::V1);
        if old { Version::V1 } else { Version::V2 }
    }

    /// Refuses a cgroup with processes of others, who would end with the
    /// container.
    pub fn check_empty(&self) -> Result<()> {
        let others = self.processes().len();
        ensure!(
            others == 0,
            "the container's cgroup is not empty: {others} process(es) found"
        );
        Ok(())
    }

    /// Makes the directories that are missing.
    fn create_dirs(&self) -> Result<()> {
        for dir in &self.dirs {
            match dir.create() {
                Ok(()) => {}
                // Version 2 beside version 1 holds no limits: do without it.
                Err(_) if dir.controllers.is_empty() => {}
                Err(err) => {
                    for made in &self.dirs {
                        // Those in use stay.
                        let _ = fs::remove_dir(&made.path);
                    }
                    return Err(err)
                        .with_context(|| format!("cgroup {} can't be made", dir.path.display()));
                }
            }
        }
        Ok(())
    }

    /// Moves a process here.
    pub fn add(&self, pid: i32) -> Result<()> {
        for dir in &self.dirs {
            let path = dir.path.join("cgroup.procs");
            match fs::write(&path, pid.to_string()) {
                Err(_) if dir.controllers.is_empty() => {}
                written => written
                    .with_context(|| format!("process {pid} can't join {}", dir.path.display()))?,
            }
        }
        Ok(())
    }

    /// Where a process can be born instead of being moved there.
    pub fn birthplace(&self) -> Option<fs::File> {
        let dir = self.dirs.iter().find(|dir| dir.version == Version::V2)?;
        fs::File::open(&dir.path).ok()
    }

    /// Moves this process, which has a single thread, here. Other than by
    /// [`Self::add`] the kernel does not wait for an RCU grace period.
    pub fn join(&self, born: Born) -> Result<()> {
        for dir in &self.dirs {
            let file = match dir.version {
                Version::V1 => "tasks",
                Version::V2 if born == Born::There => continue,
                Version::V2 => "cgroup.procs",
            };
            match fs::write(dir.path.join(file), "0") {
                Err(_) if dir.controllers.is_empty() => {}
                written => written
                    .with_context(|| format!("a process can't join {}", dir.path.display()))?,
            }
        }
        Ok(())
    }

    /// Changes the limits of a container that runs.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        if let Some(unit) = &self.unit {
            unit.set(&settings::of(resources, self.main_version())?)?;
        }
        self.apply(resources)
    }

    /// Sets the limits that `resources` names.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let versions = [Version::V1, Version::V2];
        for version in versions {
            if !self.dirs.iter().any(|dir| dir.version == version) {
                continue;
            }
            let all = settings::of(resources, version)?;
            for setting in &all {
                let dir = self
                    .dirs
                    .iter()
                    .find(|dir| dir.version == version && dir.has(&setting.controller));
                let Some(dir) = dir else {
                    // The other version has it, or nobody.
                    let elsewhere = self.dirs.iter().any(|dir| dir.has(&setting.controller));
                    if elsewhere || setting.optional {
                        continue;
                    }
                    bail!(
                        "the {} controller of cgroups, which resources of the configuration \
                         need, is not mounted",
                        setting.controller
                    );
                };
                let done = dir.write(setting);
                // Memory alone is never above memory with swap: where both are
                // raised, that goes first.
                let first = all.iter().find(|other| {
                    setting.file == "memory.limit_in_bytes"
                        && other.file == "memory.memsw.limit_in_bytes"
                });
                match (done, first) {
                    (Err(_), Some(first)) => {
                        dir.write(first)?;
                        dir.write(setting)?;
                    }
                    (done, _) => done?,
                }
            }
        }
        Ok(())
    }

    /// Host pids of all processes here.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .dirs
            .iter()
            .filter_map(|dir| fs::read_to_string(dir.path.join("cgroup.procs")).ok())
            .flat_map(|text| {
                let numbers = text.lines().filter_map(|line| line.parse().ok());
                numbers.collect::<Vec<i32>>()
            })
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills everything here and removes the cgroup.
    pub fn remove(&self) -> Result<()> {
        self.remove_dirs()?;
        if let Some(unit) = &self.unit {
            // Without its cgroup it ends by itself, if later: systemd may be
            // out of reach by now.
            let _ = unit.stop();
            // Which may have made them once more meanwhile.
            self.remove_dirs()?;
        }
        Ok(())
    }

    fn remove_dirs(&self) -> Result<()> {
        let deadline = Instant::now() + EMPTY_TIMEOUT;
        let mut pause = Duration::from_micros(500);
        loop {
            let mut left = None;
            for dir in &self.dirs {
                if let Err(err) = remove_tree(&dir.path) {
                    left = Some((dir, err));
                }
            }
            let Some((dir, err)) = left else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(err)
                    .with_context(|| format!("cgroup {} can't be removed", dir.path.display()));
            }
            for dir in &self.dirs {
                // Kernels before 5.14 don't have it.
                let _ = fs::write(dir.path.join("cgroup.kill"), "1");
            }
            for pid in self.processes() {
                // It may be gone by now.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// The files that the sentry tells the guest from, open for reading;
    /// those that this host lacks are left out.
    pub fn told_files(&self) -> Vec<(String, OwnedFd)> {
        let files = HOST_FILES.iter().filter_map(|name| {
            let controller = name.split('.').next()?;
            let file = fs::File::open(self.dir(controller)?.path.join(name)).ok()?;
            Some(((*name).to_owned(), OwnedFd::from(file)))
        });
        files.collect()
    }

    /// Processes that the host killed for lack of memory, since the start.
    pub fn oom_kills(&self) -> u64 {
        stats::oom_kills(self)
    }

    pub fn stats(&self) -> Stats {
        Stats::read(self)
    }

    fn dir(&self, controller: &str) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.has(controller))
    }
}

impl Dir {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }

    fn create(&self) -> std::io::Result<()> {
        fs::create_dir_all(&self.path)?;
        match self.version {
            Version::V2 => self.delegate(),
            Version::V1 if self.has("cpuset") => self.inherit_cpuset()?,
            Version::V1 => {}
        }
        Ok(())
    }

    /// Enables controllers in all ancestors. What can't be enabled shows when
    /// a limit needs it.
    fn delegate(&self) {
        let Some(root) = hierarchy::mount_point_of(&self.path) else {
            return;
        };
        let mut at = root.clone();
        let below = self.path.strip_prefix(&root).unwrap_or(Path::new(""));
        for part in below.components() {
            for controller in &self.controllers {
                let line = format!("+{controller}");
                let _ = fs::write(at.join("cgroup.subtree_control"), line);
            }
            at.push(part);
        }
    }

    /// A fresh version 1 cpuset is empty and takes nobody in.
    fn inherit_cpuset(&self) -> std::io::Result<()> {
        let Some(root) = hierarchy::mount_point_of(&self.path) else {
            return Ok(());
        };
        let mut at = root.clone();
        let below = self.path.strip_prefix(&root).unwrap_or(Path::new(""));
        for part in below.components() {
            let parent = at.clone();
            at.push(part);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = fs::read_to_string(at.join(file))?;
                if own.trim().is_empty() {
                    fs::write(at.join(file), fs::read_to_string(parent.join(file))?.trim())?;
                }
            }
        }
        Ok(())
    }

    fn write(&self, setting: &settings::Setting) -> Result<()> {
        let path = self.path.join(&setting.file);
        let done = fs::write(&path, &setting.value).or_else(|err| match &setting.alternative {
            Some(file) if err.kind() == ErrorKind::NotFound => {
                fs::write(self.path.join(file), &setting.value)
            }
            _ => Err(err),
        });
        match done {
            Err(err) if setting.optional && err.kind() == ErrorKind::NotFound => Ok(()),
            done => done.with_context(|| {
                format!("{} can't be written to {}", setting.value, path.display())
            }),
        }
    }

    /// The number in a file.
    fn number(&self, file: &str) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(file)).ok()?;
        text.trim().parse().ok()
    }

    /// The number behind `key` in a file of keys and numbers.
    fn keyed(&self, file: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(file)).ok()?;
        let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
        // Of `oom_kill_disable` and `oom_kill`, the whole word counts.
        let (_, value) = pairs.find(|(name, _)| *name == key)?;
        value.trim().parse().ok()
    }
}

/// Removes a cgroup and those below it; what is not there needs no removal.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    let entries = match fs::read_dir(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Whether this user may make cgroups at all.
pub fn writable(cgroup: &Cgroup) -> bool {
    crate::user::is_host_root()
        || cgroup
            .dirs
            .iter()
            .filter(|dir| !dir.controllers.is_empty())
            .all(|dir| {
                let there = dir.path.ancestors().find(|path| path.exists());
                there.is_some_and(|path| access(path, AccessFlags::W_OK).is_ok())
            })
}

/// Whether a configuration sets any limit, so that doing without cgroups
/// would not be what was asked for.
pub fn limits_anything(resources: &LinuxResources) -> bool {
    [Version::V1, Version::V2].into_iter().any(|version| {
        settings::of(resources, version).is_ok_and(|list| list.iter().any(|one| !one.optional))
    })
}
