//! A host process that stands for a guest process: it has a pid that engines
//! can wait for and signal, lives in the container's cgroup and network
//! namespace, passes signals on, and ends with the guest's status. If it is
//! killed, the guest process is killed too.
//!
//! The first process of a sandbox needs none: there the sentry itself is the
//! host process.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::console::{self, Forwarder};
use crate::control::{Client, Reply, Request};
use crate::plan::ProcessPlan;
use crate::state::Record;
use crate::sys::{PidNamespace, close_others, duplicate, spawn, take_terminal};

/// Status of a process whose sandbox was killed.
const KILLED: i32 = 128 + libc::SIGKILL;

/// A process to start in a container and to stand for.
pub struct Attended<'a> {
    pub record: &'a Record,
    pub client: &'a Client,
    pub process: ProcessPlan,
    /// One terminal or three descriptors, then those from 3 on.
    pub stdio: Vec<RawFd>,
}

/// Starts the process; answers the host pid of its attendant, which is a
/// child of this process and outlives it.
pub fn start(attended: &Attended<'_>) -> Result<i32> {
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("a pipe can't be made")?;
    let mut ends = Some((reader, writer));
    let cgroup = &attended.record.cgroup;
    let pid = spawn(
        PidNamespace::Shared,
        |pid: Pid| {
            cgroup
                .iter()
                .try_for_each(|cgroup| cgroup.add(pid.as_raw()))
        },
        || match ends.take() {
            Some((reader, writer)) => {
                drop(reader);
                attend(attended, writer)
            }
            None => 1,
        },
    )?;
    let (reader, writer) = ends.context("the attendant's pipe is gone")?;
    drop(writer);
    let mut report = String::new();
    File::from(reader)
        .read_to_string(&mut report)
        .context("the attendant's report can't be read")?;
    match report.strip_prefix("error: ") {
        Some(reason) => bail!("{reason}"),
        None => ensure!(report == "ready", "the attendant ended while it started"),
    }
    Ok(pid.as_raw())
}

/// The attendant's life; answers its exit status.
fn attend(attended: &Attended<'_>, report: OwnedFd) -> i32 {
    let mut report = File::from(report);
    match begin(attended, &report) {
        Ok((forwarder, pid)) => {
            let _ = report.write_all(b"ready");
            drop(report);
            let id = &attended.record.plan.id;
            let ended = forwarder.attend(attended.client, id, pid);
            ended.map_or(KILLED, i32::from)
        }
        Err(err) => {
            let _ = write!(report, "error: {err:#}");
            1
        }
    }
}

/// Starts the guest process; answers its pid inside the sandbox.
fn begin(attended: &Attended<'_>, report: &File) -> Result<(Forwarder, i32)> {
    // The engine's own standard streams are not for the attendant.
    let copies = duplicate(&attended.stdio)?;
    let null = File::options().write(true).open("/dev/null");
    let null = OwnedFd::from(null.context("/dev/null can't be opened")?);
    close_others(&[report.as_raw_fd(), null.as_raw_fd()], &copies, &null)?;
    join_network(attended.record.pid)?;
    if attended.process.terminal
        && let Some(terminal) = copies.first()
    {
        // Engines resize the terminal from its other end, which is told to
        // those who have it as their controlling terminal.
        take_terminal(terminal.as_fd()).context("the terminal can't be taken")?;
        nix::unistd::dup2_stdin(terminal)?;
    }
    let forwarder = Forwarder::of_all_signals()?;
    let id = &attended.record.plan.id;
    let request = Request::Exec {
        container: id.clone(),
        process: Box::new(attended.process.clone()),
    };
    let fds: Vec<RawFd> = copies.iter().map(AsRawFd::as_raw_fd).collect();
    let Reply::Started { pid } = attended.client.call(&request, &fds)? else {
        bail!("the sandbox answered something else than a pid");
    };
    drop(copies);
    if attended.process.terminal {
        // It may have been resized before anybody listened.
        console::forward(attended.client, id, pid, libc::SIGWINCH)?;
    }
    Ok((forwarder, pid))
}

/// Enters the network namespace of process `pid`.
fn join_network(pid: i32) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        // The namespace belongs to a user namespace that is not ours.
        return Ok(());
    }
    let namespace = File::open(format!("/proc/{pid}/ns/net")).context("the sandbox has ended")?;
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .context("the container's network namespace can't be entered")
}
