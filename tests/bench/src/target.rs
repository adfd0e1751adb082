//! Where a workload runs: on the host or in a container of an OCI runtime.
//! All use the same root directory, natively by `chroot` in a mount namespace.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

const MICRO: &str = include_str!("../guest/micro.c");
const PROGRAMS: &str = include_str!("../guest/programs.sh");

/// Directories of the host that programs come from.
const HOST_DIRS: [&str; 7] = ["bin", "etc", "lib", "lib64", "opt", "sbin", "usr"];

/// What a container sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// The static guest program alone.
    Bare,
    /// The host's programs beside it, read-only.
    Host,
}

/// Entries of `/data/big`, and the files of `/data/tree`.
const BIG: u32 = 10_000;
const TREE_DIRS: u32 = 500;
const TREE_FILES: u32 = 100;

/// A bundle on disk; removed when dropped.
pub struct Place {
    dir: PathBuf,
    next_id: AtomicU32,
}

impl Place {
    /// Builds the guest program and the trees it works on.
    pub fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("runsc-bench-{}", std::process::id()));
        let place = Self {
            dir,
            next_id: AtomicU32::new(0),
        };
        place
            .fill()
            .with_context(|| format!("can't set up {}", place.dir.display()))?;
        Ok(place)
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// `--root` of the runtimes.
    fn state(&self, target: &str) -> PathBuf {
        self.dir.join("state").join(target)
    }

    fn fill(&self) -> Result<()> {
        let rootfs = self.rootfs();
        for dir in [
            "bench",
            "proc",
            "dev",
            "sys",
            "tmp",
            "root",
            "run",
            "var/lib/nginx",
            "var/log/nginx",
            "data/in",
            "data/big",
            "data/tree",
        ]
        .iter()
        .chain(&HOST_DIRS)
        {
            std::fs::create_dir_all(rootfs.join(dir))?;
        }
        std::fs::write(rootfs.join("bench/programs.sh"), PROGRAMS)?;
        // The runtime's own uid must reach the root.
        for dir in [&self.dir, &rootfs] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir, mode)?;
        }
        let source = self.dir.join("micro.c");
        std::fs::write(&source, MICRO)?;
        let compiled = Command::new("cc")
            .args(["-O2", "-static", "-pthread", "-o"])
            .arg(rootfs.join("bench/micro"))
            .arg(&source)
            .status()
            .context("can't run the C compiler `cc` (Debian: gcc, libc6-dev)")?;
        ensure!(compiled.success(), "guest/micro.c does not compile");
        for i in 0..BIG {
            std::fs::write(rootfs.join(format!("data/big/entry-{i:05}")), "")?;
        }
        for i in 0..TREE_DIRS {
            let dir = rootfs.join(format!("data/tree/dir-{i:03}"));
            std::fs::create_dir(&dir)?;
            for j in 0..TREE_FILES {
                std::fs::write(dir.join(format!("file-{j:02}")), "")?;
            }
        }
        Ok(())
    }

    fn write_config(&self, image: Image, args: &[&str]) -> Result<()> {
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                   "options": ["nosuid", "mode=755", "size=65536k"]}),
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
                   "options": ["nosuid", "nodev", "mode=1777"]}),
        ];
        if image == Image::Host {
            for dir in host_dirs() {
                let path = format!("/{dir}");
                mounts.push(json!({"destination": path, "type": "bind", "source": path,
                                   "options": ["rbind", "ro"]}));
            }
        }
        let all = json!([
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_KILL",
            "CAP_SETGID",
            "CAP_SETUID"
        ]);
        let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount"]
            .iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": [PATH, "HOME=/root", "LC_ALL=C"],
                "cwd": "/",
                "capabilities": {"bounding": all, "effective": all, "permitted": all},
            },
            "root": {"path": "rootfs"},
            "hostname": "bench",
            "mounts": mounts,
            "linux": {"namespaces": namespaces},
        });
        std::fs::write(self.dir.join("config.json"), config.to_string())?;
        Ok(())
    }
}

/// `PATH` of all targets.
const PATH: &str = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn host_dirs() -> impl Iterator<Item = &'static str> {
    let here = |dir: &&str| Path::new("/").join(dir).is_dir();
    HOST_DIRS.into_iter().filter(here)
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(err) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("bench: {} stays behind: {err}", self.dir.display());
        }
    }
}

/// Host or runtime.
pub struct Target {
    pub name: String,
    /// Command and global flags; `None` for the host itself.
    command: Option<Vec<String>>,
}

/// What a program in a target wrote, and how it ended.
pub struct Done {
    pub stdout: String,
    pub stderr: String,
    /// `None`: it took too long.
    pub status: Option<ExitStatus>,
}

impl Done {
    pub fn ok(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// How it failed, in one line.
    pub fn failure(&self) -> String {
        let how = match self.status {
            Some(status) => status.to_string(),
            None => "took too long".to_owned(),
        };
        match self.stderr.lines().last() {
            Some(line) => format!("{how}: {line}"),
            None => how,
        }
    }
}

impl Target {
    pub fn native() -> Self {
        Self {
            name: "native".to_owned(),
            command: None,
        }
    }

    /// This project's runtime on one platform.
    pub fn runsc(name: &str, file: &Path, platform: &str) -> Self {
        let file = file.display().to_string();
        let platform = format!("--platform={platform}");
        Self::oci(name, [file.as_str(), &platform, "--network=none"])
    }

    pub fn oci<'a>(name: &str, command: impl IntoIterator<Item = &'a str>) -> Self {
        let command = command.into_iter().map(str::to_owned).collect();
        Self {
            name: name.to_owned(),
            command: Some(command),
        }
    }

    /// Whether it is the host itself.
    pub fn is_native(&self) -> bool {
        self.command.is_none()
    }

    /// The runtime's command for one action.
    fn runtime(&self, place: &Place, verb: &str) -> Result<Command> {
        let command = self.command.as_deref().unwrap_or_default();
        let (program, flags) = command.split_first().context("an empty runtime command")?;
        let state = place.state(&self.name);
        std::fs::create_dir_all(&state)?;
        let mut c = Command::new(program);
        c.args(flags).arg("--root").arg(&state).arg(verb);
        Ok(c)
    }

    /// What runs a program of the bundle's root, and the container's name.
    fn starter(&self, place: &Place, image: Image, args: &[&str]) -> Result<(Command, String)> {
        let id = format!("b{}", place.next_id.fetch_add(1, Ordering::Relaxed));
        if self.is_native() {
            let mut script = "cd \"$0\" && mount -t tmpfs tmpfs tmp && mount --rbind /dev dev && \
                              mount -t proc proc proc && "
                .to_owned();
            if image == Image::Host {
                for dir in host_dirs() {
                    script += &format!("mount --rbind /{dir} {dir} && ");
                }
            }
            script += "exec env -i \"$1\" HOME=/root LC_ALL=C chroot \"$0\" \"${@:2}\"";
            let mut native = Command::new("unshare");
            // With its last parent everything ends.
            native.args(["--mount", "--pid", "--fork", "--kill-child"]);
            native.args(["bash", "-c", &script]);
            native.arg(place.rootfs()).arg(PATH).args(args);
            return Ok((native, id));
        }
        place.write_config(image, args)?;
        let mut run = self.runtime(place, "run")?;
        run.arg("--bundle").arg(&place.dir).arg(&id);
        Ok((run, id))
    }

    /// Of one that was killed something stays behind.
    fn delete(&self, place: &Place, id: &str) -> Result<()> {
        if !self.is_native() {
            let mut delete = self.runtime(place, "delete")?;
            delete.args(["--force", id]);
            finish(&mut delete, Duration::from_secs(20))?;
        }
        Ok(())
    }

    /// Runs a program of the bundle's root to its end.
    pub fn run(&self, place: &Place, image: Image, args: &[&str], limit: Duration) -> Result<Done> {
        Ok(self.timed_run(place, image, args, limit)?.0)
    }

    /// The same, with how long it took without what is cleaned up behind it.
    pub fn timed_run(
        &self,
        place: &Place,
        image: Image,
        args: &[&str],
        limit: Duration,
    ) -> Result<(Done, Duration)> {
        let (mut run, id) = self.starter(place, image, args)?;
        let start = Instant::now();
        let done = finish(&mut run, limit);
        let took = start.elapsed();
        self.delete(place, &id)?;
        Ok((done?, took))
    }

    /// Starts a program that stays, and waits for its first line.
    pub fn start<'a>(&'a self, place: &'a Place, args: &[&str]) -> Result<Running<'a>> {
        let (mut run, id) = self.starter(place, Image::Bare, args)?;
        let mut child = run
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("can't run {}", self.name))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let running = Running {
            target: self,
            place,
            id,
            child,
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "{} did not start it", self.name);
        Ok(running)
    }
}

/// A program that is running; killed when dropped.
pub struct Running<'a> {
    target: &'a Target,
    place: &'a Place,
    id: String,
    child: Child,
}

impl Running<'_> {
    /// The command's process; the sandbox's are its descendants.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs another program in the container.
    pub fn exec(&self, args: &[&str]) -> Result<Done> {
        let mut exec = self.target.runtime(self.place, "exec")?;
        exec.arg(&self.id).args(args);
        finish(&mut exec, Duration::from_secs(20))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Deleting ends the container, and with it the command.
        let deleted = self.target.delete(self.place, &self.id);
        let killed = self.child.kill().and_then(|()| self.child.wait());
        if let Err(err) = deleted {
            eprintln!("bench: {} stays behind: {err:#}", self.id);
        }
        if let Err(err) = killed {
            eprintln!("bench: {}: {err}", self.id);
        }
    }
}

/// Waits for a command, and kills it when its time is over.
fn finish(command: &mut Command, limit: Duration) -> Result<Done> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {name}"))?;
    let stdout = child.stdout.take().map(reader);
    let stderr = child.stderr.take().map(reader);
    let status = wait(&mut child, limit)?;
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.map_or(Ok(String::new()), |thread| match thread.join() {
            Ok(text) => Ok(text),
            Err(_) => bail!("the reader of {name} panicked"),
        })
    };
    Ok(Done {
        stdout: text(stdout)?,
        stderr: text(stderr)?,
        status,
    })
}

fn reader(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is all there is to show.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Short, since programs that end at once are timed by it.
const POLL: Duration = Duration::from_micros(200);

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}
