//! Bundles for tests: a busybox root file system and a config.json to vary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::command::{self, Done};
use super::options::Options;

/// What a test works with; everything goes away when it is dropped.
pub struct Ctx<'a> {
    pub options: &'a Options,
    pub platform: &'a str,
    /// Scratch directory of the test.
    pub dir: PathBuf,
    /// `--root` of its containers.
    pub state: PathBuf,
}

impl<'a> Ctx<'a> {
    pub fn new(options: &'a Options, platform: &'a str, name: &str) -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!(
            "runsc-test-{}-{platform}-{name}",
            std::process::id()
        ));
        let _ = std::fs::remove_dir_all(&dir);
        let state = dir.join("state");
        std::fs::create_dir_all(&state).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Self {
            options,
            platform,
            dir,
            state,
        })
    }

    /// `runsc` with the test's state directory and platform.
    pub fn runsc(&self, args: &[&str]) -> Command {
        let mut c = Command::new(&self.options.runsc);
        c.arg("--root")
            .arg(&self.state)
            .arg(format!("--platform={}", self.platform))
            .args(args);
        c.current_dir(&self.dir);
        c
    }

    pub fn run(&self, args: &[&str]) -> Done {
        command::run(&mut self.runsc(args), Duration::from_secs(40))
    }

    /// `runsc do -- sh -c SCRIPT`.
    pub fn sh(&self, script: &str) -> Done {
        self.run(&["do", "--", "/bin/sh", "-c", script])
    }

    /// A bundle whose process is `args`, with changes by `f`.
    pub fn bundle(
        &self,
        name: &str,
        args: &[&str],
        f: impl FnOnce(&mut Value),
    ) -> Result<String, String> {
        let bundle = self.dir.join(name);
        let rootfs = bundle.join("rootfs");
        for d in ["bin", "proc", "sys", "dev", "tmp", "etc", "root"] {
            std::fs::create_dir_all(rootfs.join(d)).map_err(|e| e.to_string())?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|p| Path::new(p).exists())
            .ok_or("busybox-static is not installed")?;
        std::fs::copy(busybox, rootfs.join("bin/busybox")).map_err(|e| e.to_string())?;
        for applet in [
            "sh", "true", "false", "cat", "echo", "id", "sleep", "ls", "kill", "pwd", "ps",
            "hostname", "env", "mount", "touch", "stat", "grep", "mkdir", "rm", "test", "ulimit",
            "head", "wc", "tty", "stty", "nc", "dd",
        ] {
            let link = rootfs.join("bin").join(applet);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink("busybox", link).map_err(|e| e.to_string())?;
        }
        let _ = std::fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
        );
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/bin", "TERM=dumb"],
                "cwd": "/",
                "capabilities": {
                    "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"],
                    "effective": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"],
                    "permitted": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"],
                },
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs", "readonly": false},
            "hostname": "test-host",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]},
        });
        f(&mut config);
        let path = bundle.join("config.json");
        std::fs::write(&path, config.to_string())
            .map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(bundle.to_string_lossy().into_owned())
    }

    /// Runs a bundle in the foreground.
    pub fn run_bundle(&self, id: &str, bundle: &str) -> Done {
        self.run(&["run", "--bundle", bundle, id])
    }

    /// Nothing of the test may be left: no state, no process that names it.
    pub fn nothing_left(&self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let mut left: Vec<String> = std::fs::read_dir(&self.state)
                .map(|d| {
                    d.flatten()
                        .map(|e| format!("state {}", e.path().display()))
                        .collect()
                })
                .unwrap_or_default();
            left.extend(self.processes().into_iter().map(|p| format!("process {p}")));
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("left behind: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Pids whose command line names the test's state directory.
    pub fn processes(&self) -> Vec<u32> {
        let needle = self.state.to_string_lossy().into_owned();
        pids()
            .into_iter()
            .filter(|pid| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|c| String::from_utf8_lossy(&c).contains(&needle))
            })
            .collect()
    }
}

impl Drop for Ctx<'_> {
    fn drop(&mut self) {
        for pid in self.processes() {
            // SAFETY: kill takes plain integers.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// All pids of the machine.
pub fn pids() -> Vec<u32> {
    std::fs::read_dir("/proc")
        .map(|d| {
            d.flatten()
                .filter_map(|e| e.file_name().to_string_lossy().parse().ok())
                .collect()
        })
        .unwrap_or_default()
}

/// `pid` and everything below it.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for p in pids() {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{p}/stat")) else {
            continue;
        };
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if let Some(parent) = parent {
            parents.push((p, parent));
        }
    }
    let mut all = vec![pid];
    let mut i = 0;
    while let Some(at) = all.get(i).copied() {
        all.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == at)
                .map(|(p, _)| *p),
        );
        i += 1;
    }
    all
}

/// An error that says what, unless the condition holds.
pub fn check(ok: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(what()) }
}

/// Expectations on the end of a command.
pub fn expect(done: &Done, code: i32, stdout: &str) -> Result<(), String> {
    if done.code() != Some(code) || done.stdout != stdout {
        return Err(format!(
            "expected code {code} and {stdout:?}, got {:?} and {:?}\n{}",
            done.code(),
            done.stdout,
            done.describe()
        ));
    }
    Ok(())
}

/// A failure of the runtime itself: code 1 (runc's), nothing on stdout, and
/// one message that holds all the words.
pub fn refused(done: &Done, words: &[&str]) -> Result<(), String> {
    let lower = done.stderr.to_lowercase();
    if done.code() != Some(1) {
        return Err(format!(
            "expected exit code 1, got {:?}\n{}",
            done.code(),
            done.describe()
        ));
    }
    for word in words {
        if !lower.contains(&word.to_lowercase()) {
            return Err(format!(
                "the message does not name {word:?}:\n{}",
                done.stderr
            ));
        }
    }
    if done.stderr.trim().lines().count() > 3 {
        return Err(format!(
            "the message is longer than it needs to be:\n{}",
            done.stderr
        ));
    }
    Ok(())
}
