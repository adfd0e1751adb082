//! Makes and ends sandboxes: state entry, gofer process, sentry process.
//!
//! Single-threaded until all children exist, so that they can be forked
//! without another exec.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::boot::{self, BootFds, BootOptions};
use crate::cli::Global;
use crate::console::{self, Forwarder, RawTerminal};
use crate::control::{self, Client, Reply, Request};
use crate::plan::ContainerPlan;
use crate::state::{Entry, Record, Status, process_is, start_time};
use crate::sys::{PidNamespace, spawn};
use crate::{gofer_process, time};

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
    entry: Entry,
    pub record: Record,
}

/// Creates a container, ready to start.
pub fn create(global: &Global, plan: ContainerPlan, console: Option<&Path>) -> Result<Created> {
    let terminal = console.map(console::open_for_socket).transpose()?;
    let stdio = match &terminal {
        Some(slave) => vec![slave.as_raw_fd()],
        None => console::stdio(false),
    };
    create_with(global, plan, &stdio, Foreground::KeepOnKill)
}

/// Creates, starts, waits for and deletes a container; answers its exit
/// status.
pub fn run(
    global: &Global,
    mut plan: ContainerPlan,
    foreground: Foreground,
    created: impl FnOnce(&Record) -> Result<()>,
) -> Result<u8> {
    let terminal = plan.process.terminal;
    if terminal {
        plan.process.console_size = console::window_size(std::io::stdin().as_fd());
    }
    let container = create_with(global, plan, &console::stdio(terminal), foreground)?;
    let outcome = created(&container.record).and_then(|()| {
        let forwarder = Forwarder::new()?;
        let raw = if terminal {
            Some(RawTerminal::enter()?)
        } else {
            None
        };
        container.start()?;
        let client = container.client();
        let id = container.record.plan.id.clone();
        // Other commands may work on the container while it runs.
        drop(container);
        let status = forwarder.wait(&client, &id, 0);
        drop(raw);
        Ok((id, status))
    });
    match outcome {
        Ok((id, status)) => {
            // Somebody else may have deleted it meanwhile.
            let Ok(container) = Created::open(global, &id) else {
                return status;
            };
            // A process that ends at once may take the sandbox with it before
            // the question has reached it.
            let status = status.or_else(|err| container.entry.exit_status().ok_or(err));
            container.delete()?;
            status
        }
        Err(err) => Err(err),
    }
}

/// Waits for a container to end, leaving it to other commands meanwhile;
/// answers its exit status.
pub fn wait(global: &Global, id: &str) -> Result<u8> {
    let client = Created::open(global, id)?.client();
    let request = Request::Wait {
        container: id.to_owned(),
        pid: 0,
    };
    match client.call(&request, &[]) {
        Ok(Reply::Exited { status }) => Ok(u8::try_from(status).unwrap_or(u8::MAX)),
        Ok(_) => bail!("the sandbox answered something else than an exit status"),
        // It may have ended before it was asked.
        Err(err) => Created::open(global, id)?.entry.exit_status().ok_or(err),
    }
}

/// Deletes containers whose id begins with `prefix`, whose sandbox has ended
/// and whom no command is working on: what commands that were killed left.
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
        {
            let left = Created { entry, record };
            let _ = left.delete();
        }
    }
}

/// Ends what has been made so far when a creation fails.
struct Undo {
    entry: Option<Entry>,
    processes: Vec<Pid>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        for pid in &self.processes {
            // It may have ended on its own.
            let _ = kill(*pid, Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(*pid, None);
        }
        if let Some(entry) = self.entry.take()
            && let Err(err) = entry.remove()
        {
            eprintln!("runsc: {err:#}");
        }
    }
}

fn create_with(
    global: &Global,
    plan: ContainerPlan,
    stdio: &[RawFd],
    foreground: Foreground,
) -> Result<Created> {
    let store = global.store();
    let entry = store.create(&plan.id)?;
    let control_path = entry.control_path();
    let exit_path = entry.exit_path();
    let mut undo = Undo {
        entry: Some(entry),
        processes: Vec::new(),
    };
    let listener = control::with_short_path(&control_path, |path| UnixListener::bind(path))
        .with_context(|| format!("control socket {} can't be made", control_path.display()))?;
    let log = open_log(global)?;

    let (gofer_pid, link) = gofer_process::start(&plan.gofer_roots())?;
    undo.processes.push(gofer_pid);

    let (ready, ready_writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("a pipe can't be made")?;
    let options = BootOptions {
        platform: global.platform,
        strace: global.strace,
        debug: global.debug,
        foreground,
    };
    let exit_status = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(exit_path)
        .context("the exit status file can't be made")?;
    let mut fds = Some(BootFds {
        listener: listener
            .try_clone()
            .context("the control socket can't be duplicated")?,
        ready: ready_writer,
        gofer: link,
        stdio: duplicate(stdio)?,
        log,
        exit_status,
    });
    let sentry_pid = spawn(PidNamespace::Own, || match fds.take() {
        Some(fds) => boot::run(&plan, &options, fds),
        None => 1,
    })?;
    // The sentry's ends are closed here, so that its death is seen as an end
    // of file.
    drop(fds);
    drop(listener);
    undo.processes.push(sentry_pid);

    let mut message = String::new();
    fs::File::from(ready)
        .read_to_string(&mut message)
        .context("the sandbox's report can't be read")?;
    match message.strip_prefix("error: ") {
        Some(reason) => bail!("{reason}"),
        None => ensure!(
            message == "ready",
            "the sandbox ended while it started; see --debug-log"
        ),
    }

    let started = |pid: Pid| start_time(pid.as_raw()).context("the sandbox ended at once");
    let record = Record {
        status: Status::Created,
        pid: sentry_pid.as_raw(),
        pid_start_time: started(sentry_pid)?,
        gofer_pid: gofer_pid.as_raw(),
        gofer_start_time: started(gofer_pid)?,
        created_at: time::now_secs(),
        owner: owner_name(),
        plan,
    };
    let Some(entry) = undo.entry.as_ref() else {
        bail!("the state entry is gone");
    };
    entry.save(&record)?;
    undo.processes.clear();
    let Some(entry) = undo.entry.take() else {
        bail!("the state entry is gone");
    };
    Ok(Created { entry, record })
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
        Client::new(&self.entry.control_path())
    }

    /// Starts the container's process.
    pub fn start(&self) -> Result<()> {
        ensure!(
            self.record.status == Status::Created,
            "container {} is {}, not created",
            self.record.plan.id,
            self.record.status.name()
        );
        self.client().call(
            &Request::Start {
                container: self.record.plan.id.clone(),
            },
            &[],
        )?;
        self.entry.save(&Record {
            status: Status::Running,
            ..self.record.clone()
        })
    }

    /// Ends the sandbox, whatever it does, and forgets it.
    pub fn delete(self) -> Result<()> {
        let record = &self.record;
        end_process(record.pid, record.pid_start_time)?;
        end_process(record.gofer_pid, record.gofer_start_time)?;
        self.entry.remove()
    }
}

/// Kills a process if it still is the one that was started, and waits until
/// it is gone.
fn end_process(pid: i32, started: u64) -> Result<()> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    let mut pause = Duration::from_micros(200);
    if !process_is(pid, started) {
        reap(pid);
        return Ok(());
    }
    // It may end on its own at any moment.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    while process_is(pid, started) {
        reap(pid);
        ensure!(
            Instant::now() < deadline,
            "process {pid} of the sandbox does not end"
        );
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
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

fn open_log(global: &Global) -> Result<OwnedFd> {
    match &global.debug_log {
        Some(path) => fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .map(OwnedFd::from)
            .with_context(|| format!("log file {} can't be opened", path.display())),
        None => std::io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .context("stderr can't be duplicated"),
    }
}

/// Own copies of descriptors that the sentry keeps.
fn duplicate(fds: &[RawFd]) -> Result<Vec<OwnedFd>> {
    fds.iter()
        .map(|&fd| {
            let copy = nix::fcntl::fcntl(
                // SAFETY: the caller keeps the descriptors open meanwhile.
                unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) },
                nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3),
            )
            .context("stdin, stdout or stderr is closed; give the container all three")?;
            // SAFETY: F_DUPFD has just made this descriptor for us.
            Ok(unsafe { OwnedFd::from_raw_fd(copy) })
        })
        .collect()
}

fn owner_name() -> String {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
