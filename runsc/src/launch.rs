//! Makes and ends sandboxes: state entry, gofer process, sentry process.
//!
//! Single-threaded until all children exist, so that they can be forked
//! without another exec.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sentry_kernel::sandbox::PressureNotice;

use crate::boot::{self, BootFds, BootOptions, TerminalOwner};
use crate::cgroup::{self, Cgroup};
use crate::cli::Global;
use crate::console::{self, Forwarder, RawTerminal};
use crate::control::{self, Client, Reply, Request};
use crate::creation::Creation;
use crate::hooks::{self, Point};
use crate::plan::{CgroupUse, ContainerPlan};
use crate::state::{Entry, Record, Status, process_is};
use crate::sys::{Born, PidNamespace, duplicate, spawn_in};
use crate::{gofer_process, pod};

/// How long a killed process may take to disappear.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens to a foreground container when its command is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreground {
    /// It goes on; `state` and `delete` take it from there (`run`).
    KeepOnKill,
    /// It ends (`do`).
    EndOnKill,
}

/// An existing container, its entry locked until waited for.
pub struct Created {
    pub entry: Entry,
    pub record: Record,
}

/// Descriptors of a container's first process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams<'a> {
    /// Socket that takes the master of its terminal.
    pub console: Option<&'a Path>,
    /// How many descriptors from 3 on are passed on to it.
    pub preserve_fds: u32,
}

/// Creates a container, ready to start.
pub fn create(global: &Global, plan: ContainerPlan, streams: Streams<'_>) -> Result<Created> {
    let terminal = streams.console.map(console::open_for_socket).transpose()?;
    let mut stdio = match &terminal {
        Some(slave) => vec![slave.as_raw_fd()],
        None => console::stdio(false),
    };
    stdio.extend(console::preserved(streams.preserve_fds));
    let (foreground, owner) = (Foreground::KeepOnKill, TerminalOwner::Sentry);
    create_with(global, plan, &stdio, foreground, owner)
}

/// How a container runs in the foreground.
#[derive(Clone, Copy, Debug)]
pub struct RunSettings {
    pub foreground: Foreground,
    /// As in [`Streams`].
    pub preserve_fds: u32,
    /// Don't delete it in the end.
    pub keep: bool,
}

/// Creates, starts, waits for and deletes a container; answers its exit
/// status.
pub fn run(
    global: &Global,
    mut plan: ContainerPlan,
    settings: RunSettings,
    created: impl FnOnce(&Record) -> Result<()>,
) -> Result<u8> {
    let terminal = plan.process.terminal;
    if terminal {
        plan.process.console_size = console::window_size(std::io::stdin().as_fd());
    }
    let mut stdio = console::stdio(terminal);
    stdio.extend(console::preserved(settings.preserve_fds));
    let (foreground, owner) = (settings.foreground, TerminalOwner::Command);
    let container = create_with(global, plan, &stdio, foreground, owner)?;
    let id = container.record.plan.id.clone();
    let outcome = created(&container.record).and_then(|()| {
        let forwarder = Forwarder::new()?;
        let raw = if terminal {
            Some(RawTerminal::enter()?)
        } else {
            None
        };
        container.start()?;
        let client = container.client();
        // Other commands may work on the container while it runs.
        drop(container);
        let status = forwarder.wait(&client, &id, 0);
        drop(raw);
        Ok(status)
    });
    match outcome {
        Ok(status) => {
            // Somebody else may have deleted it meanwhile.
            let Ok(container) = Created::open(global, &id) else {
                return status;
            };
            // A process that ends at once may take the sandbox with it before
            // the question has reached it.
            let status = status.or_else(|err| container.entry.exit_status().ok_or(err));
            if !settings.keep {
                container.delete()?;
            }
            status
        }
        Err(err) => {
            if let Ok(container) = Created::open(global, &id) {
                container.delete()?;
            }
            Err(err)
        }
    }
}

/// Waits for a container to end, leaving it to other commands meanwhile;
/// answers its exit status.
pub fn wait(global: &Global, id: &str) -> Result<u8> {
    let container = Created::open(global, id)?;
    let (client, record) = (container.client(), container.record.clone());
    drop(container);
    let request = Request::Wait {
        container: id.to_owned(),
        pid: 0,
    };
    let status = match client.call(&request, &[]) {
        Ok(Reply::Exited { status }) => u8::try_from(status).unwrap_or(u8::MAX),
        Ok(_) => bail!("the sandbox answered something else than an exit status"),
        // It may have ended before it was asked.
        Err(err) => Created::open(global, id)?.entry.exit_status().ok_or(err)?,
    };
    // Who is told so may delete it: its host process must be gone.
    let deadline = Instant::now() + KILL_TIMEOUT;
    while process_is(record.pid, record.pid_start_time) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(status)
}

/// Deletes containers whose id begins with `prefix`, whose sandbox has ended
/// and whose command as well: what commands that were killed left.
pub fn sweep(global: &Global, prefix: &str) {
    let store = global.store();
    for id in store.ids().unwrap_or_default() {
        if !id.starts_with(prefix) {
            continue;
        }
        let Some(entry) = store.try_open(&id) else {
            continue;
        };
        // What can't be read or removed now is for the next sweep.
        if let Ok(record) = entry.load()
            && record.status == Status::Stopped
            && !process_is(record.creator_pid, record.creator_start_time)
        {
            let left = Created { entry, record };
            let _ = left.delete();
        }
    }
}

/// The host cgroup that processes of a container are put into.
pub struct Home {
    cgroup: Option<Cgroup>,
    birthplace: Option<File>,
}

impl Home {
    pub fn of(cgroup: Option<&Cgroup>) -> Self {
        Self {
            cgroup: cgroup.cloned(),
            birthplace: cgroup.and_then(Cgroup::birthplace),
        }
    }

    /// For [`spawn_in`].
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.birthplace.as_ref().map(AsFd::as_fd)
    }

    /// See [`Cgroup::memory_pressure`].
    pub fn memory_pressure(&self) -> Option<PressureNotice> {
        self.cgroup.as_ref()?.memory_pressure()
    }

    /// What the new process does first.
    pub fn enter(&self, born: Born) -> Result<()> {
        self.cgroup.iter().try_for_each(|cgroup| cgroup.join(born))
    }
}

fn create_with(
    global: &Global,
    plan: ContainerPlan,
    stdio: &[RawFd],
    foreground: Foreground,
    terminal: TerminalOwner,
) -> Result<Created> {
    if plan.pod.is_some() {
        return pod::create(global, plan, stdio, terminal);
    }
    let mut creation = Creation::begin(&global.store(), plan)?;
    let home = Home::of(creation.record.cgroup.as_ref());
    let control_path = creation.entry()?.control_path();
    let listener = control::with_short_path(&control_path, |path| UnixListener::bind(path))
        .with_context(|| format!("control socket {} can't be made", control_path.display()))?;
    let log = open_log(global, terminal)?;
    let roots = creation.record.plan.gofer_roots();
    let (gofer_pid, link) =
        gofer_process::start(&roots, &log, &home, |pid| creation.note_gofer(pid))?;
    creation.owns(gofer_pid);

    let (ready, ready_writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("a pipe can't be made")?;
    let options = BootOptions {
        platform: global.platform,
        patching: global.systrap_patching,
        strace: global.strace,
        debug: global.debug,
        foreground,
        terminal,
    };
    let exit_status = creation.exit_file()?;
    let mut fds = Some(BootFds {
        listener: listener
            .try_clone()
            .context("the control socket can't be duplicated")?,
        ready: ready_writer,
        gofer: link,
        cgroup: creation
            .record
            .cgroup
            .as_ref()
            .map_or_else(Vec::new, Cgroup::told_files),
        stdio: duplicate(stdio)?,
        log,
        exit_status,
    });
    let plan = creation.record.plan.clone();
    let sentry_pid = spawn_in(
        home.birthplace(),
        PidNamespace::Own,
        |pid| {
            if let Some(score) = plan.process.oom_score_adj {
                set_oom_score(pid, score)?;
            }
            creation.note_process(pid)
        },
        |born| match fds.take() {
            Some(fds) => boot::run(&plan, &options, fds, || {
                home.enter(born)?;
                Ok(home.memory_pressure())
            }),
            None => 1,
        },
    )?;
    // The sentry's ends are closed here, so that its death is seen as an end
    // of file.
    drop(fds);
    drop(listener);
    creation.owns(sentry_pid);

    let mut message = String::new();
    fs::File::from(ready)
        .read_to_string(&mut message)
        .context("the sandbox's report can't be read")?;
    match message.strip_prefix("error: ") {
        Some(reason) => bail!("unable to start container process: {reason}"),
        None => ensure!(
            message == "ready",
            "the sandbox ended while it started; see --debug-log"
        ),
    }
    creation.finish()
}

/// The hooks that see the container before its process may start.
pub fn run_creation_hooks(record: &Record) -> Result<()> {
    let (hooks, bundle) = (record.plan.host.hooks.as_ref(), &record.plan.bundle);
    let state = record.state();
    hooks::run(Point::Prestart, hooks, &state, bundle)?;
    hooks::run(Point::CreateRuntime, hooks, &state, bundle)?;
    hooks::run_in_network_of(record.pid, Point::CreateContainer, hooks, &state, bundle)
}

/// The cgroup that the plan asks for. Users who can't make any do without,
/// unless limits are asked for.
pub fn locate_cgroup(plan: &ContainerPlan) -> Result<Option<Cgroup>> {
    let host = &plan.host;
    match host.cgroups {
        CgroupUse::None => return Ok(None),
        CgroupUse::Files => {}
        CgroupUse::Systemd => {
            let path = host.cgroups_path.as_deref();
            return Cgroup::locate_scope(path, &plan.id).map(Some);
        }
    }
    let cgroup = Cgroup::locate(host.cgroups_path.as_deref(), &plan.id)?;
    if cgroup::writable(&cgroup) {
        return Ok(Some(cgroup));
    }
    let limited = host.resources.as_ref().is_some_and(cgroup::limits_anything);
    ensure!(
        !limited,
        "resources of the configuration need a cgroup, which this user can't make; have one          delegated or remove linux.resources"
    );
    Ok(None)
}

pub fn set_oom_score(pid: Pid, score: i32) -> Result<()> {
    match fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        // Only privileged users lower it.
        Err(err)
            if err.kind() == std::io::ErrorKind::PermissionDenied
                && !crate::user::is_host_root() =>
        {
            Ok(())
        }
        written => written.with_context(|| format!("oomScoreAdj {score} can't be set")),
    }
}

impl Created {
    /// The container called `id`.
    pub fn open(global: &Global, id: &str) -> Result<Self> {
        let store = global.store();
        let entry = store.open(id)?;
        let record = entry.load()?;
        Ok(Self { entry, record })
    }

    pub fn pid(&self) -> i32 {
        self.record.pid
    }

    pub fn client(&self) -> Client {
        match &self.record.plan.pod {
            Some(pod) => Client::new(&self.entry.control_path_of(&pod.sandbox)),
            None => Client::new(&self.entry.control_path()),
        }
    }

    /// Starts the container's process.
    pub fn start(&self) -> Result<()> {
        ensure!(
            self.record.status == Status::Created,
            "cannot start a container in the {} state",
            self.record.status.name()
        );
        let client = self.client();
        let (host, bundle) = (&self.record.plan.host, &self.record.plan.bundle);
        let hooks = host.hooks.as_ref();
        for (index, hook) in Point::StartContainer.of(hooks).iter().enumerate() {
            let ran = console::run_hook(&client, &self.record, hook);
            if let Err(err) = ran {
                // The process is never to run.
                let _ = end_process(self.record.pid, self.record.pid_start_time);
                let path = hook.path().display();
                return Err(err.context(format!(
                    "error running startContainer hook #{index} ({path})"
                )));
            }
        }
        client.call(
            &Request::Start {
                container: self.record.plan.id.clone(),
            },
            &[],
        )?;
        let record = Record {
            status: Status::Running,
            ..self.record.clone()
        };
        self.entry.save(&record)?;
        let started = hooks::run(Point::Poststart, hooks, &record.state(), bundle);
        if started.is_err() {
            end_process(self.record.pid, self.record.pid_start_time)?;
        }
        started
    }

    /// Remembers a change of the container.
    pub fn save(&self, record: &Record) -> Result<()> {
        self.entry.save(record)
    }

    /// Ends the sandbox, whatever it does, and forgets it.
    pub fn delete(self) -> Result<()> {
        let record = &self.record;
        let remove = || {
            let container = record.plan.id.clone();
            self.client().call(&Request::Remove { container }, &[])
        };
        let mut removed = true;
        if record.plan.pod.is_some() {
            // If that does not end it, the death of its attendant does.
            removed = remove().is_ok();
        } else if process_is(record.gofer_pid, record.gofer_start_time) {
            // While the sandbox ends.
            let _ = kill(Pid::from_raw(record.gofer_pid), Signal::SIGKILL);
        }
        end_process(record.pid, record.pid_start_time)?;
        if !removed {
            // Its attendant may have created it meanwhile. A sandbox that has
            // ended has no containers.
            let _ = remove();
        }
        end_process(record.gofer_pid, record.gofer_start_time)?;
        if let Some(cgroup) = &record.cgroup {
            cgroup.remove()?;
        }
        let state = Record {
            status: Status::Stopped,
            ..record.clone()
        }
        .state();
        let (hooks, bundle) = (record.plan.host.hooks.clone(), record.plan.bundle.clone());
        self.entry.remove()?;
        hooks::run_all(Point::Poststop, hooks.as_ref(), &state, &bundle);
        Ok(())
    }
}

/// Kills a process if it still is the one that was started, and waits until
/// it is gone.
fn end_process(pid: i32, started: u64) -> Result<()> {
    // What it refers to does not change when the number is used again.
    let process = crate::sys::pidfd_open(pid);
    if !process_is(pid, started) {
        reap(pid);
        return Ok(());
    }
    let process = process.with_context(|| format!("process {pid} can't be watched"))?;
    // It may end on its own at any moment.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "process {pid} of the sandbox does not end");
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(err) => return Err(err).context("the sandbox's end can't be waited for"),
        }
    }
    reap(pid);
    Ok(())
}

/// Collects a child's status; others' children are theirs to collect.
fn reap(pid: i32) {
    let _ = nix::sys::wait::waitpid(
        Pid::from_raw(pid),
        Some(nix::sys::wait::WaitPidFlag::WNOHANG),
    );
}

/// Where the sandbox's processes report: the file that was asked for, else
/// the terminal of a command in the foreground, else nowhere: an engine waits
/// for the end of what this command has for stderr.
pub fn open_log(global: &Global, owner: TerminalOwner) -> Result<OwnedFd> {
    let append = |path: &Path| {
        File::options()
            .create(true)
            .append(true)
            .open(path)
            .map(OwnedFd::from)
            .with_context(|| format!("log file {} can't be opened", path.display()))
    };
    match (&global.debug_log, owner) {
        (Some(path), _) => append(path),
        (None, TerminalOwner::Sentry) => append(Path::new("/dev/null")),
        (None, TerminalOwner::Command) => std::io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .context("stderr can't be duplicated"),
    }
}

pub fn owner_name() -> String {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
