//! Containers on disk: one directory per container below `--root`, with a
//! state file that is replaced atomically, under a lock that serialises
//! commands.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cgroup::Cgroup;
use crate::plan::ContainerPlan;

/// Version of the runtime specification that this program follows.
pub const OCI_VERSION: &str = "1.2.0";

/// Life cycle of a container (OCI runtime specification, `runtime.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What is remembered about a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub plan: ContainerPlan,
    pub status: Status,
    /// Host process of the sandbox; 0 before it exists.
    pub pid: i32,
    /// Start time of that process (field 22 of `/proc/PID/stat`), so that a
    /// recycled pid is not taken for it.
    pub pid_start_time: u64,
    pub gofer_pid: i32,
    pub gofer_start_time: u64,
    /// The command that creates the container, while it does.
    pub creator_pid: i32,
    pub creator_start_time: u64,
    /// Where its processes live on the host, if anywhere special.
    pub cgroup: Option<Cgroup>,
    /// Seconds since the epoch.
    pub created_at: u64,
    /// User that created it.
    pub owner: String,
}

impl Record {
    /// The state object of the runtime specification, which hooks get on
    /// stdin.
    pub fn state(&self) -> Value {
        let pid = match self.status {
            Status::Stopped => 0,
            _ => self.pid,
        };
        json!({
            "ociVersion": OCI_VERSION,
            "id": self.plan.id,
            "pid": pid,
            "status": self.status.name(),
            "bundle": self.plan.bundle,
            "annotations": self.plan.annotations,
        })
    }
}

/// A container's directory, locked.
pub struct Entry {
    pub dir: PathBuf,
    _lock: Flock<File>,
}

/// The directory below which all containers are kept.
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes the directory of a new container; it must not exist.
    pub fn create(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.root)
            .with_context(|| format!("state directory {} can't be made", self.root.display()))?;
        let dir = self.root.join(id);
        loop {
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {}
                Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
                Err(err) => {
                    return Err(err).with_context(|| format!("{} can't be made", dir.display()));
                }
            }
            // A directory without a state file is what a command that was
            // killed left: it is taken over.
            if let Some(entry) = lock(&dir, LockFile::Made, FlockArg::LockExclusive)? {
                ensure!(
                    !entry.state_path().exists(),
                    "container with given ID already exists: {id}; choose another id or delete it"
                );
                return Ok(entry);
            }
        }
    }

    /// The directory of an existing container, once no other command works
    /// on it.
    pub fn open(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        let dir = self.root.join(id);
        ensure!(dir.is_dir(), "container does not exist: {id}");
        match lock(&dir, LockFile::Existing, FlockArg::LockExclusive)? {
            Some(entry) if entry.state_path().exists() => Ok(entry),
            _ => bail!("container does not exist: {id}"),
        }
    }

    /// As [`Self::open`], for what is left of a container whose state file
    /// may be missing or damaged.
    pub fn open_remains(&self, id: &str) -> Option<Entry> {
        check_id(id).ok()?;
        lock(&self.root.join(id), LockFile::Made, FlockArg::LockExclusive).ok()?
    }

    /// As [`Self::open`], unless a command is working on the container.
    pub fn try_open(&self, id: &str) -> Option<Entry> {
        lock(
            &self.root.join(id),
            LockFile::Existing,
            FlockArg::LockExclusiveNonblock,
        )
        .ok()?
    }

    /// What is known about a container, also while a command works on it.
    pub fn peek(&self, id: &str) -> Result<Record> {
        check_id(id)?;
        let dir = self.root.join(id);
        ensure!(
            dir.join("state.json").exists(),
            "container does not exist: {id}"
        );
        load(&dir)
    }

    /// Ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => {
                return Err(err)
                    .with_context(|| format!("{} can't be listed", self.root.display()));
            }
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.path().join("state.json").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

impl Entry {
    fn state_path(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// Path of the sentry's control socket.
    pub fn control_path(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Path of the control socket of the sandbox made with container `id`.
    pub fn control_path_of(&self, id: &str) -> PathBuf {
        self.dir.with_file_name(id).join("control.sock")
    }

    /// Path of the file that takes the exit status of the first process.
    pub fn exit_path(&self) -> PathBuf {
        self.dir.join("exit-status")
    }

    /// Exit status of the first process, once the sandbox has ended by itself.
    pub fn exit_status(&self) -> Option<u8> {
        fs::read_to_string(self.exit_path()).ok()?.parse().ok()
    }

    pub fn load(&self) -> Result<Record> {
        load(&self.dir)
    }

    /// Writes the record so that a crash leaves the old or the new one.
    pub fn save(&self, record: &Record) -> Result<()> {
        let path = self.state_path();
        let temporary = self.dir.join("state.json.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("{} can't be written", path.display()))
    }

    /// Removes everything known about the container. The state file goes after
    /// all else, so that a removal that was cut short can be repeated, and the
    /// lock behind it: without it nobody but a new owner makes a new lock.
    pub fn remove(self) -> Result<()> {
        let last = [self.state_path(), lock_path(&self.dir)];
        let remove = || -> std::io::Result<()> {
            for entry in fs::read_dir(&self.dir)?.flatten() {
                if !last.contains(&entry.path()) {
                    fs::remove_file(entry.path())?;
                }
            }
            for path in &last {
                match fs::remove_file(path) {
                    Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
                    _ => {}
                }
            }
            match fs::remove_dir(&self.dir) {
                // A new container of this id has taken it over.
                Err(err) if err.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
                removed => removed,
            }
        };
        remove().with_context(|| format!("{} can't be removed", self.dir.display()))
    }
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// Whether a lock file is made where there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LockFile {
    Existing,
    Made,
}

/// Locks a container's directory; `None` if it has been removed meanwhile or
/// somebody else has the lock and `how` does not wait.
fn lock(dir: &Path, file: LockFile, how: FlockArg) -> Result<Option<Entry>> {
    let path = lock_path(dir);
    let file = File::options()
        .create(file == LockFile::Made)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = match file {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("{} can't be opened", path.display()))?,
    };
    let lock = match Flock::lock(file, how) {
        Err((_, nix::Error::EWOULDBLOCK)) => return Ok(None),
        lock => lock
            .map_err(|(_, err)| err)
            .with_context(|| format!("{} can't be locked", path.display()))?,
    };
    // The file that is locked may not be the container's any more.
    let locked = lock.metadata().map(|meta| (meta.dev(), meta.ino()));
    let current = fs::metadata(&path).map(|meta| (meta.dev(), meta.ino()));
    match (locked, current) {
        (Ok(locked), Ok(current)) if locked == current => Ok(Some(Entry {
            dir: dir.to_owned(),
            _lock: lock,
        })),
        _ => Ok(None),
    }
}

fn load(dir: &Path) -> Result<Record> {
    let path = dir.join("state.json");
    let text = fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
    let mut record: Record =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let alive = match record.status {
        Status::Stopped => true,
        Status::Creating => process_is(record.creator_pid, record.creator_start_time),
        _ => process_is(record.pid, record.pid_start_time),
    };
    if !alive {
        record.status = Status::Stopped;
    }
    Ok(record)
}

/// Ids are file names (the same rule as runc's).
fn check_id(id: &str) -> Result<()> {
    let valid = !id.is_empty()
        && id.len() <= 255
        && id != "."
        && id != ".."
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.'));
    ensure!(
        valid,
        "container id {id:?} is not valid: use letters, digits, '_', '+', '-' and '.'"
    );
    Ok(())
}

/// Start time of a process in clock ticks since boot, if it runs.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether `pid` still is the process that started then.
pub fn process_is(pid: i32, started: u64) -> bool {
    pid > 0 && start_time(pid) == Some(started)
}

/// The default of `--root`.
pub fn default_root() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !crate::user::is_host_root() => Path::new(&dir).join("runsc"),
        _ => PathBuf::from("/run/runsc"),
    }
}
