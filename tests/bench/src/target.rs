//! Where a workload runs: on the host or in a container of an OCI runtime.
//! All use the same root directory, natively by `chroot` in a mount namespace.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

const MICRO: &str = include_str!("../guest/micro.c");

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
            "bin",
            "proc",
            "dev",
            "sys",
            "tmp",
            "etc",
            "data/big",
            "data/tree",
        ] {
            std::fs::create_dir_all(rootfs.join(dir))?;
        }
        // The runtime's own uid must reach the root.
        for dir in [&self.dir, &rootfs] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir, mode)?;
        }
        let source = self.dir.join("micro.c");
        std::fs::write(&source, MICRO)?;
        let compiled = Command::new("cc")
            .args(["-O2", "-static", "-pthread", "-o"])
            .arg(rootfs.join("bin/micro"))
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

    fn write_config(&self, args: &[&str]) -> Result<()> {
        let mounts = json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "nodev", "mode=1777"]},
        ]);
        let all = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL"]);
        let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount"]
            .iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"],
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

    /// Runs a program of the bundle's root to its end.
    pub fn run(&self, place: &Place, args: &[&str], limit: Duration) -> Result<Done> {
        let Some(command) = &self.command else {
            let script = "mount -t tmpfs tmpfs \"$0/tmp\" && mount --rbind /dev \"$0/dev\" && \
                          mount -t proc proc \"$0/proc\" && exec chroot \"$0\" \"$@\"";
            let mut native = Command::new("unshare");
            native.args(["--mount", "sh", "-c", script]);
            native.arg(place.rootfs()).args(args);
            return finish(&mut native, limit);
        };
        place.write_config(args)?;
        let state = place.state(&self.name);
        std::fs::create_dir_all(&state)?;
        let id = format!("b{}", place.next_id.fetch_add(1, Ordering::Relaxed));
        let (program, flags) = command.split_first().context("an empty runtime command")?;
        let runtime = |verb: &str| {
            let mut c = Command::new(program);
            c.args(flags).arg("--root").arg(&state).arg(verb);
            c
        };
        let mut run = runtime("run");
        run.arg("--bundle").arg(&place.dir).arg(&id);
        let done = finish(&mut run, limit);
        // Of one that was killed something stays behind.
        let mut delete = runtime("delete");
        delete.args(["--force", &id]);
        finish(&mut delete, Duration::from_secs(20))?;
        done
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
        std::thread::sleep(Duration::from_millis(5));
    }
}
