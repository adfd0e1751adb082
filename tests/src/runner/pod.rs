//! A pod whose containers share one sandbox, and what its tests do with it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bundle::{Ctx, check};
use super::command::Done;

/// Repeats `attempt` until it answers something.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> Result<T, String> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = attempt() {
            return Ok(found);
        }
        if Instant::now() > until {
            return Err(format!("in vain: {what}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Which pid namespace a container asks for.
pub enum PidNamespace {
    Own,
    /// None in its configuration.
    OfPod,
}

/// A pod whose sandbox is the container `pod`.
pub struct Pod<'a> {
    pub ctx: &'a Ctx<'a>,
}

impl<'a> Pod<'a> {
    pub fn start(ctx: &'a Ctx<'a>) -> Result<Self, String> {
        let pod = Self { ctx };
        pod.create("pod", &["/bin/sleep", "1000"], |config| {
            config["annotations"] = json!({
                "io.kubernetes.cri.container-type": "sandbox",
                "io.kubernetes.cri.sandbox-id": "pod",
            });
        })?;
        pod.ok(&["start", "pod"])?;
        Ok(pod)
    }

    /// Makes the bundle of a container and creates that; its output goes to
    /// `ID.out`, its host pid to `ID.pid`.
    pub fn create(
        &self,
        id: &str,
        args: &[&str],
        f: impl FnOnce(&mut Value),
    ) -> Result<(), String> {
        let bundle = self.ctx.bundle(id, args, f)?;
        let guest = self.ctx.dir.join(id).join("rootfs/bin/guest");
        std::fs::copy(&self.ctx.options.guest, guest).map_err(|e| e.to_string())?;
        let done = self.create_from(id, &bundle)?;
        check(done, || format!("create {id}: {}", self.output(id)))
    }

    /// Creates a container from a bundle; answers whether that worked.
    pub fn create_from(&self, id: &str, bundle: &str) -> Result<bool, String> {
        let log = std::fs::File::create(self.path(id, "out")).map_err(|e| e.to_string())?;
        let errors = log.try_clone().map_err(|e| e.to_string())?;
        let pid = self.path(id, "pid");
        let flags = ["create", "--bundle", bundle, "--pid-file"];
        let status = self
            .ctx
            .runsc(&[&flags[..], &[&pid.to_string_lossy(), id]].concat())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .status();
        Ok(status.map_err(|e| e.to_string())?.success())
    }

    /// Creates and starts a further container.
    pub fn add(&self, id: &str, pid: PidNamespace, script: &str) -> Result<(), String> {
        self.add_with(id, pid, &["/bin/sh", "-c", script], |_| {})
    }

    pub fn add_with(
        &self,
        id: &str,
        pid: PidNamespace,
        args: &[&str],
        f: impl FnOnce(&mut Value),
    ) -> Result<(), String> {
        self.create(id, args, |config| {
            config["annotations"] = json!({
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.sandbox-id": "pod",
            });
            if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                // Those that are not named are the pod's.
                namespaces.retain(|namespace| match namespace["type"].as_str() {
                    Some("pid") => matches!(pid, PidNamespace::Own),
                    Some("ipc" | "uts") => false,
                    _ => true,
                });
            }
            f(config);
        })?;
        self.ok(&["start", id])
    }

    pub fn path(&self, id: &str, kind: &str) -> PathBuf {
        self.ctx.dir.join(format!("{id}.{kind}"))
    }

    pub fn output(&self, id: &str) -> String {
        std::fs::read_to_string(self.path(id, "out")).unwrap_or_default()
    }

    /// Waits until the output of a container is this.
    pub fn says(&self, id: &str, wanted: &str) -> Result<(), String> {
        eventually(wanted, || (self.output(id) == wanted).then_some(()))
            .map_err(|e| format!("{id}: {e}; it said {:?}", self.output(id)))
    }

    pub fn pid(&self, id: &str) -> Result<i32, String> {
        let text = std::fs::read_to_string(self.path(id, "pid")).map_err(|e| e.to_string())?;
        text.trim().parse().map_err(|_| format!("pid {text:?}"))
    }

    pub fn ok(&self, args: &[&str]) -> Result<(), String> {
        let done = self.ctx.run(args);
        check(done.ok(), || format!("{args:?}: {}", done.describe()))
    }

    pub fn exec(&self, id: &str, script: &str) -> Done {
        self.ctx.run(&["exec", id, "/bin/sh", "-c", script])
    }

    pub fn status(&self, id: &str) -> String {
        let done = self.ctx.run(&["state", id]);
        let state: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or("none").to_owned()
    }

    pub fn becomes(&self, id: &str, status: &str) -> Result<(), String> {
        eventually(&format!("{id} {status}"), || {
            (self.status(id) == status).then_some(())
        })
    }

    /// Deletes everything; nothing may be left.
    pub fn end(self) -> Result<(), String> {
        let ids = self.ctx.run(&["list", "--quiet"]).stdout;
        for id in ids.lines().filter(|id| *id != "pod").chain(["pod"]) {
            self.ok(&["delete", "--force", id])?;
        }
        self.ctx.nothing_left()
    }
}
