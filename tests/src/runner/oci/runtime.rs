//! The runtime under test: `runc`, or this one on some platform.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::RUNC;
use crate::runner::bundle::Ctx;
use crate::runner::command::Done;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Where `runc` is, if it is installed.
fn runc() -> Option<&'static str> {
    ["/usr/sbin/runc", "/usr/bin/runc"]
        .into_iter()
        .find(|path| Path::new(path).exists())
}

pub fn has_runc() -> bool {
    runc().is_some()
}

/// One runtime with a state directory of its own.
pub struct Runtime<'a> {
    pub ctx: &'a Ctx<'a>,
    commands: AtomicU32,
    /// Of this test, for ids.
    number: u32,
}

static RUNTIMES: AtomicU32 = AtomicU32::new(0);

/// The end of the runtime's own failure.
pub fn failed(done: &Done) -> Result<(), String> {
    match done.status {
        Some(status) if !status.success() => Ok(()),
        _ => Err(format!("no error: {}", done.describe())),
    }
}

pub fn succeeded(done: Done) -> Result<Done, String> {
    if done.ok() {
        Ok(done)
    } else {
        Err(done.describe())
    }
}

pub fn check(ok: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if ok { Ok(()) } else { Err(what()) }
}

pub fn equal(found: &str, wanted: &str) -> Result<(), String> {
    check(found == wanted, || {
        format!("found {found:?}, wanted {wanted:?}")
    })
}

/// Asks until the answer is there.
pub fn until(what: &str, mut ask: impl FnMut() -> bool) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(10);
    while !ask() {
        check(Instant::now() < end, || format!("never: {what}"))?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl<'a> Runtime<'a> {
    pub fn new(ctx: &'a Ctx<'a>) -> Self {
        Self {
            ctx,
            commands: AtomicU32::new(0),
            number: RUNTIMES.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub fn is_runc(&self) -> bool {
        self.ctx.platform == RUNC
    }

    pub fn command(&self, args: &[&str]) -> Command {
        if !self.is_runc() {
            return self.ctx.runsc(args);
        }
        let mut command = Command::new(runc().unwrap_or(RUNC));
        command.arg("--root").arg(&self.ctx.state).args(args);
        command.current_dir(&self.ctx.dir);
        command
    }

    /// Runs a command; its output goes to files, since a container that is
    /// made keeps it open.
    pub fn run(&self, args: &[&str]) -> Done {
        self.finish(&mut self.command(args))
    }

    pub fn finish(&self, command: &mut Command) -> Done {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let [out, err] = ["out", "err"].map(|what| self.ctx.dir.join(format!("{what}.{number}")));
        let started = File::create(&out).and_then(|out| {
            let err = File::create(&err)?;
            command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()
        });
        let mut child = match started {
            Ok(child) => child,
            Err(err) => {
                return Done {
                    status: None,
                    stdout: String::new(),
                    stderr: err.to_string(),
                };
            }
        };
        let end = Instant::now() + TIMEOUT;
        let status = loop {
            match child.try_wait() {
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Ok(Some(status)) => break Some(status),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
            }
        };
        let read = |path: PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Done {
            status,
            stdout: read(out),
            stderr: read(err),
        }
    }

    /// An id that no other runtime or test uses.
    pub fn id(&self, name: &str) -> String {
        format!("oci{}-{}-{name}", std::process::id(), self.number)
    }

    /// A bundle that runs `script`.
    pub fn bundle(&self, script: &str, change: impl FnOnce(&mut Value)) -> Result<String, String> {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let name = format!("bundle{number}");
        self.ctx
            .bundle(&name, &["/bin/sh", "-c", script], |config| {
                config["ociVersion"] = "1.2.0".into();
                change(config);
            })
    }

    pub fn create(&self, id: &str, bundle: &str) -> Done {
        self.run(&["create", "--bundle", bundle, id])
    }

    /// Creates and starts.
    pub fn start(&self, id: &str, bundle: &str) -> Result<(), String> {
        succeeded(self.create(id, bundle))?;
        succeeded(self.run(&["start", id])).map(|_| ())
    }

    /// Runs a container of `script` in the foreground to its end.
    pub fn container(&self, script: &str, change: impl FnOnce(&mut Value)) -> Result<Done, String> {
        let bundle = self.bundle(script, change)?;
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let id = self.id(&format!("run{number}"));
        Ok(self.run(&["run", "--bundle", &bundle, &id]))
    }

    /// What `script` prints in a container of its own, without the last line's
    /// end.
    pub fn output(&self, script: &str, change: impl FnOnce(&mut Value)) -> Result<String, String> {
        let done = succeeded(self.container(script, change)?)?;
        Ok(done.stdout.trim_end_matches('\n').to_owned())
    }

    /// The configuration is refused, and nothing is left of the attempt.
    pub fn refuses(&self, change: impl FnOnce(&mut Value)) -> Result<Done, String> {
        let bundle = self.bundle("true", change)?;
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let id = self.id(&format!("refused{number}"));
        let done = self.create(&id, &bundle);
        failed(&done)?;
        failed(&self.run(&["state", &id]))
            .map_err(|_| format!("a container is there after: {}", done.describe()))?;
        Ok(done)
    }

    /// The state, if the container exists.
    pub fn state(&self, id: &str) -> Result<Value, String> {
        let done = succeeded(self.run(&["state", id]))?;
        serde_json::from_str(&done.stdout).map_err(|err| format!("{err}: {}", done.stdout))
    }

    pub fn status(&self, id: &str) -> Result<String, String> {
        let state = self.state(id)?;
        Ok(state["status"].as_str().unwrap_or_default().to_owned())
    }

    pub fn pid(&self, id: &str) -> Result<i64, String> {
        let state = self.state(id)?;
        state["pid"].as_i64().ok_or("no pid in the state".into())
    }

    pub fn wait_status(&self, id: &str, wanted: &str) -> Result<(), String> {
        until(wanted, || {
            self.status(id).is_ok_and(|status| status == wanted)
        })
    }

    /// A file in the root of a bundle.
    pub fn in_root(&self, bundle: &str, path: &str) -> PathBuf {
        Path::new(bundle).join("rootfs").join(path)
    }

    /// Waits for a file in the root of a bundle; answers what it holds.
    pub fn wait_for(&self, bundle: &str, path: &str) -> Result<String, String> {
        let path = self.in_root(bundle, path);
        let read = || fs::read_to_string(&path).unwrap_or_default();
        until(&path.display().to_string(), || read().ends_with('\n'))?;
        Ok(read())
    }
}

impl Drop for Runtime<'_> {
    fn drop(&mut self) {
        let left = self.run(&["list", "-q"]);
        for id in left.stdout.lines() {
            self.run(&["delete", "--force", id]);
        }
    }
}
