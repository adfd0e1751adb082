//! A host process that stands for a guest process: it has a pid that engines
//! can wait for and signal, lives in the container's cgroup and network
//! namespace, passes signals on, and ends with the guest's status. If it is
//! killed, the guest process is killed too.
//!
//! The first process of a sandbox needs none: there the sentry itself is the
//! host process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::console::{self, Forwarder};
use crate::control::{Client, Reply, Request};
use crate::gofer_process::GoferLink;
use crate::launch::Home;
use crate::plan::{ContainerPlan, ProcessPlan, SharesPlan};
use crate::sys::{PidNamespace, close_others, duplicate, spawn_in, take_terminal};

/// Status of a process whose sandbox was killed.
const KILLED: i32 = 128 + libc::SIGKILL;

/// A process to start in a container and to stand for.
pub struct Attended<'a> {
    pub container: &'a str,
    /// Host process whose network namespace is the container's.
    pub network_of: i32,
    pub client: &'a Client,
    pub guest: Guest,
    /// One terminal or three descriptors, then those from 3 on.
    pub stdio: Vec<RawFd>,
}

/// What is started.
pub enum Guest {
    /// A further process of a container.
    Process(Box<ProcessPlan>),
    /// A further container of a pod, with its first process.
    Container(Box<NewContainer>),
}

/// A further container of a pod.
pub struct NewContainer {
    pub plan: ContainerPlan,
    pub gofer: GoferLink,
    pub shares: SharesPlan,
    /// Where its stubs live.
    pub cgroup: Option<Cgroup>,
    /// Takes the exit status of its first process, in decimal.
    pub exit_status: File,
}

impl Guest {
    fn has_terminal(&self) -> bool {
        match self {
            Self::Process(process) => process.terminal,
            Self::Container(container) => container.plan.process.terminal,
        }
    }

    /// Descriptors that the attendant needs for it.
    fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::Process(_) => Vec::new(),
            Self::Container(container) => vec![
                container.gofer.ring.as_raw_fd(),
                container.gofer.socket.as_raw_fd(),
                container.exit_status.as_raw_fd(),
            ],
        }
    }
}

/// Starts the process; answers the host pid of its attendant, which is a
/// child of this process and outlives it, in `home`. `prepare` is called with
/// that pid before it does anything.
pub fn start(
    attended: Attended<'_>,
    home: &Home,
    prepare: impl FnOnce(Pid) -> Result<()>,
) -> Result<i32> {
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("a pipe can't be made")?;
    let mut ends = Some((reader, writer, attended));
    let (place, namespace) = (home.birthplace(), PidNamespace::Shared);
    let pid = spawn_in(place, namespace, prepare, |born| match ends.take() {
        Some((reader, writer, attended)) => {
            drop(reader);
            attend(attended, writer, || home.enter(born))
        }
        None => 1,
    })?;
    let (reader, writer, attended) = ends.context("the attendant's pipe is gone")?;
    // Held here too, a gofer's connection would never be seen to close.
    drop((writer, attended));
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
fn attend(attended: Attended<'_>, report: OwnedFd, enter: impl FnOnce() -> Result<()>) -> i32 {
    let mut report = File::from(report);
    let (id, client) = (attended.container, attended.client);
    match enter().and_then(|()| begin(attended, &report)) {
        Ok(begun) => {
            let _ = report.write_all(b"ready");
            drop(report);
            let ended = begun.forwarder.attend(client, id, begun.pid);
            let status = ended.map_or(KILLED, i32::from);
            if let Some(file) = begun.exit_status {
                // `wait` after the end finds it there.
                let _ = file.write_all_at(status.to_string().as_bytes(), 0);
            }
            status
        }
        Err(err) => {
            let _ = write!(report, "error: {err:#}");
            1
        }
    }
}

/// A guest process that has been started.
struct Begun {
    forwarder: Forwarder,
    /// Its pid inside the sandbox; 0 for the container's first.
    pid: i32,
    exit_status: Option<File>,
}

/// Starts the guest process.
fn begin(attended: Attended<'_>, report: &File) -> Result<Begun> {
    // The engine's own standard streams are not for the attendant.
    let copies = duplicate(&attended.stdio)?;
    let null = File::options().write(true).open("/dev/null");
    let null = OwnedFd::from(null.context("/dev/null can't be opened")?);
    let mut keep = attended.guest.descriptors();
    keep.extend([report.as_raw_fd(), null.as_raw_fd()]);
    close_others(&keep, &copies, &null)?;
    join_network(attended.network_of)?;
    let has_terminal = attended.guest.has_terminal();
    if has_terminal && let Some(terminal) = copies.first() {
        // Engines resize the terminal from its other end, which is told to
        // those who have it as their controlling terminal.
        take_terminal(terminal.as_fd()).context("the terminal can't be taken")?;
        nix::unistd::dup2_stdin(terminal)?;
    }
    let forwarder = Forwarder::of_all_signals()?;
    let (id, client) = (attended.container, attended.client);
    let stdio = copies.iter().map(AsRawFd::as_raw_fd);
    let (pid, exit_status) = match attended.guest {
        Guest::Process(process) => {
            let request = Request::Exec {
                container: id.to_owned(),
                process,
            };
            let fds: Vec<RawFd> = stdio.collect();
            let Reply::Started { pid } = client.call(&request, &fds)? else {
                bail!("the sandbox answered something else than a pid");
            };
            (pid, None)
        }
        Guest::Container(new) => {
            if let Some(cgroup) = &new.cgroup {
                place_nursery(client, id, attended.network_of, cgroup)?;
            }
            let told = new.cgroup.iter().flat_map(Cgroup::told_files);
            let (names, files): (Vec<String>, Vec<OwnedFd>) = told.unzip();
            let request = Request::Create {
                plan: Box::new(new.plan),
                shares: new.shares,
                cgroup: names,
            };
            let gofer = [new.gofer.ring.as_raw_fd(), new.gofer.socket.as_raw_fd()];
            let files = files.iter().map(AsRawFd::as_raw_fd);
            let fds: Vec<RawFd> = gofer.into_iter().chain(files).chain(stdio).collect();
            client.call(&request, &fds)?;
            (0, Some(new.exit_status))
        }
    };
    drop(copies);
    if has_terminal {
        // It may have been resized before anybody listened.
        console::forward(client, id, pid, libc::SIGWINCH)?;
    }
    Ok(Begun {
        forwarder,
        pid,
        exit_status,
    })
}

/// Puts the process that the stubs of a container will be copies of into the
/// container's cgroup, as the sandbox can't.
fn place_nursery(client: &Client, container: &str, sentry: i32, cgroup: &Cgroup) -> Result<()> {
    let request = Request::Nursery {
        container: container.to_owned(),
    };
    let Reply::Started { pid } = client.call(&request, &[])? else {
        bail!("the sandbox answered something else than a pid");
    };
    let pid = child_of_sentry(sentry, pid)
        .with_context(|| format!("process {pid} of the sandbox is not there"))?;
    cgroup.add(pid)
}

/// The host's pid of the child of a sentry that has number `pid` in its pid
/// namespace. What a sentry says is not trusted: it can only name a process
/// of its own.
fn child_of_sentry(sentry: i32, pid: i32) -> Option<i32> {
    let threads = fs::read_dir(format!("/proc/{sentry}/task")).ok()?;
    let children = threads.flatten().filter_map(|thread| {
        let children = fs::read_to_string(thread.path().join("children"));
        children.ok()
    });
    let children: Vec<String> = children.collect();
    let children = children.iter().flat_map(|text| text.split_whitespace());
    children
        .filter_map(|child| child.parse().ok())
        .find(|child| {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let last = numbers.and_then(|numbers| numbers.split_whitespace().last());
            last.and_then(|number| number.parse().ok()) == Some(pid)
        })
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
