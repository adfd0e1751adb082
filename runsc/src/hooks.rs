//! Hooks of a container's life cycle: programs of the host that engines have
//! run at certain points, with the container's state on stdin.
//!
//! Source: OCI runtime specification 1.2, `config.md`, "POSIX-platform Hooks".

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{Hook, Hooks};
use serde_json::Value;

use crate::sys::{PidNamespace, spawn};

/// When hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Point {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The hooks of this point, in order.
    pub fn of(self, hooks: Option<&Hooks>) -> &[Hook] {
        let list = hooks.and_then(|hooks| match self {
            Self::Prestart => hooks.prestart().as_ref(),
            Self::CreateRuntime => hooks.create_runtime().as_ref(),
            Self::CreateContainer => hooks.create_container().as_ref(),
            Self::StartContainer => hooks.start_container().as_ref(),
            Self::Poststart => hooks.poststart().as_ref(),
            Self::Poststop => hooks.poststop().as_ref(),
        });
        list.map_or(&[], Vec::as_slice)
    }
}

/// All points, in the order of a container's life.
const POINTS: [Point; 6] = [
    Point::Prestart,
    Point::CreateRuntime,
    Point::CreateContainer,
    Point::StartContainer,
    Point::Poststart,
    Point::Poststop,
];

/// Refuses what can't be run, before anything is made.
pub fn check(hooks: Option<&Hooks>) -> Result<()> {
    for point in POINTS {
        for hook in point.of(hooks) {
            let path = hook.path().display();
            ensure!(
                hook.path().is_absolute(),
                "hooks.{}: path {path} is not absolute",
                point.name()
            );
            ensure!(
                hook.timeout().is_none_or(|timeout| timeout > 0),
                "hooks.{}: the timeout of {path} is not above zero",
                point.name()
            );
        }
    }
    Ok(())
}

/// Runs the hooks of `point` one after the other, up to the first that fails.
pub fn run(point: Point, hooks: Option<&Hooks>, state: &Value, bundle: &Path) -> Result<()> {
    for (index, hook) in point.of(hooks).iter().enumerate() {
        run_one(hook, state, bundle).with_context(|| describe(point, index, hook))?;
    }
    Ok(())
}

/// As [`run`], but all of them, whatever becomes of each; failures are
/// reported and go no further.
pub fn run_all(point: Point, hooks: Option<&Hooks>, state: &Value, bundle: &Path) {
    for (index, hook) in point.of(hooks).iter().enumerate() {
        if let Err(err) = run_one(hook, state, bundle) {
            eprintln!("runsc: warning: {}: {err:#}", describe(point, index, hook));
        }
    }
}

/// As [`run`], in the network namespace of the container's process.
pub fn run_in_network_of(
    pid: i32,
    point: Point,
    hooks: Option<&Hooks>,
    state: &Value,
    bundle: &Path,
) -> Result<()> {
    if point.of(hooks).is_empty() {
        return Ok(());
    }
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("a pipe can't be made")?;
    let mut ends = Some((reader, writer));
    let child = spawn(
        PidNamespace::Shared,
        |_| Ok(()),
        || {
            let Some((_reader, writer)) = ends.take() else {
                return 1;
            };
            let ran = enter_network_of(pid).and_then(|()| run(point, hooks, state, bundle));
            match ran {
                Ok(()) => 0,
                Err(err) => {
                    let _ = write!(std::fs::File::from(writer), "{err:#}");
                    1
                }
            }
        },
    )?;
    let (reader, writer) = ends.context("the pipe is gone")?;
    drop(writer);
    let mut reason = String::new();
    std::fs::File::from(reader)
        .read_to_string(&mut reason)
        .context("the report of hooks can't be read")?;
    // Its report says how it ended.
    let _ = nix::sys::wait::waitpid(child, None);
    ensure!(reason.is_empty(), "{reason}");
    Ok(())
}

fn enter_network_of(pid: i32) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let namespace =
        std::fs::File::open(format!("/proc/{pid}/ns/net")).context("the sandbox has ended")?;
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .context("the container's network namespace can't be entered")
}

fn describe(point: Point, index: usize, hook: &Hook) -> String {
    format!(
        "error running {} hook #{index} ({})",
        point.name(),
        hook.path().display()
    )
}

fn run_one(hook: &Hook, state: &Value, bundle: &Path) -> Result<()> {
    let mut command = Command::new(hook.path());
    if let Some((name, args)) = hook.args().as_deref().and_then(<[_]>::split_first) {
        command.arg0(name).args(args);
    }
    command.env_clear();
    for variable in hook.env().iter().flatten() {
        if let Some((key, value)) = variable.split_once('=') {
            command.env(key, value);
        }
    }
    let mut child = command
        .current_dir(bundle)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("it can't be run")?;
    // The state fits into the pipe; a hook that doesn't read it is no error.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    // A hook that leaves a child behind with its stderr must not hold us up:
    // what it says is read only once it has ended, as much as is there.
    let stderr = child.stderr.take();
    let deadline = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let status = wait(&mut child, deadline)?;
    if status.success() {
        return Ok(());
    }
    let mut said = vec![0; 4096];
    let len = stderr.map_or(Ok(0), |mut stderr| stderr.read(&mut said));
    said.truncate(len.unwrap_or(0));
    let said = String::from_utf8_lossy(&said);
    bail!("{status}, stderr: {}", said.trim_end())
}

fn wait(child: &mut Child, deadline: Option<Instant>) -> Result<std::process::ExitStatus> {
    let Some(deadline) = deadline else {
        return child.wait().context("it can't be waited for");
    };
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().context("it can't be waited for")? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            // It may end on its own at this moment.
            let _ = child.kill();
            let _ = child.wait();
            bail!("it did not end within its timeout and was killed");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hook(value: Value) -> Hook {
        serde_json::from_value(value).expect("a hook")
    }

    #[test]
    fn state_arrives_and_status_counts() {
        let state = json!({"id": "x"});
        let check = json!({"path": "/bin/sh", "args": ["sh", "-c", "grep -q '\"id\":\"x\"'"]});
        run_one(&hook(check), &state, Path::new("/")).expect("the state is there");
        let fails = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"]});
        let err = run_one(&hook(fails), &state, Path::new("/")).expect_err("it fails");
        assert!(err.to_string().contains("why"), "{err}");
    }

    #[test]
    fn time_out() {
        let slow = json!({"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1});
        let start = Instant::now();
        run_one(&hook(slow), &json!({}), Path::new("/")).expect_err("it is killed");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn environment_is_its_own() {
        let own = json!({"path": "/bin/sh", "env": ["A=b"],
            "args": ["sh", "-c", "test \"$A\" = b && test -z \"$HOME\""]});
        run_one(&hook(own), &json!({}), Path::new("/")).expect("as configured");
    }
}
