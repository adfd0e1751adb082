//! What `runsc`'s boot code does with the kernel: containers, their
//! processes, signals, waiting, inspection. Callable from any thread of the
//! sentry that is not a worker.
//!
//! A container's root file system is built by the caller as a mount
//! namespace; its processes start through the same loader as `execve`.

mod inspect;
mod memory;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sentry_platform::GuestThread;
use sentry_platform::executor::host_poll::Watch;
use syscall_tables::Errno;
use syscall_tables::abi::{SigInfo, Signal};

use crate::kernel::{Kernel, KernelConfig};
use crate::signal::Origin;
use crate::sync::Events;
use crate::task::seccomp::Seccomp;
use crate::task::{
    ControllingTerminal, Creds, ExitStatus, Namespaces, PidNamespace, Rlimits, Task, ThreadGroup,
    UserNamespace, exit, run,
};
use crate::vfs::{Fd, File, MountNamespace};

pub use crate::vfs::CacheUsage;
pub use inspect::{ProcessInfo, TaskInfo};
pub use memory::PressureNotice;

/// A new container.
pub struct ContainerConfig {
    pub id: String,
    pub process: ProcessConfig,
    /// Empty keeps the sandbox's own.
    pub hostname: Vec<u8>,
    pub domainname: Vec<u8>,
    /// Settings of the IPC namespace, by their names below `/proc/sys/kernel`.
    pub ipc: Vec<(String, Vec<u8>)>,
    /// The container's mount tree, complete.
    pub root: Arc<MountNamespace>,
    pub shares: Shares,
}

/// Containers whose namespaces a new one shares; it has those of its own that
/// name none.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    pub pid_of: Option<String>,
    pub ipc_of: Option<String>,
    /// The host name.
    pub uts_of: Option<String>,
}

/// A process that is started from outside.
pub struct ProcessConfig {
    pub argv: Vec<Vec<u8>>,
    pub envp: Vec<Vec<u8>>,
    /// Absolute; must exist.
    pub cwd: Vec<u8>,
    pub creds: Creds,
    pub rlimits: Rlimits,
    pub umask: u32,
    pub oom_score_adj: i32,
    /// Filters to start with.
    pub seccomp: Seccomp,
    /// Descriptors to start with.
    pub files: Vec<(Fd, Arc<File>)>,
    /// The controlling terminal; `files` name it too.
    pub terminal: Option<Arc<dyn ControllingTerminal>>,
}

/// Why the control interface could not do something.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("container {0} does not exist in this sandbox")]
    NoContainer(String),
    #[error("container {0} exists already")]
    Exists(String),
    #[error("container {0} is not running")]
    NotRunning(String),
    #[error("container {0} has been started already")]
    Started(String),
    #[error("process {0} does not exist")]
    NoProcess(i32),
    #[error("process has no arguments")]
    NoArguments,
    /// The message begins as runc's does, which tools look for.
    #[error("exec: \"{0}\": executable file not found in $PATH")]
    NotFound(String),
    #[error("exec: \"{path}\": {}", describe(*errno))]
    Exec { path: String, errno: Errno },
    #[error("exec: {0}")]
    Load(#[from] crate::loader::LoadError),
    #[error("working directory {path}: {}", describe(*errno))]
    Cwd { path: String, errno: Errno },
    #[error("{what}: {errno}")]
    Other { what: &'static str, errno: Errno },
}

impl SandboxError {
    /// The error number that fits best, for those who need one.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoContainer(_) | Self::NotRunning(_) | Self::NoProcess(_) => Errno::ESRCH,
            Self::Exists(_) | Self::Started(_) => Errno::EEXIST,
            Self::NoArguments => Errno::EINVAL,
            Self::NotFound(_) => Errno::ENOENT,
            Self::Load(error) => error.errno,
            Self::Exec { errno, .. } | Self::Cwd { errno, .. } | Self::Other { errno, .. } => {
                *errno
            }
        }
    }
}

/// The error as `strerror(3)` says it, which engines look for.
fn describe(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno.raw()).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_ascii_lowercase()
}

/// A task that has not run yet, with its thread.
type ReadyTask = (Arc<Task>, Box<dyn GuestThread>);

/// A container: its init process and what further processes start with.
struct Container {
    user_ns: Arc<UserNamespace>,
    pid_ns: Arc<PidNamespace>,
    namespaces: Arc<Namespaces>,
    root: Arc<MountNamespace>,
    init: Arc<ThreadGroup>,
    /// The init task before `start`.
    ready: Mutex<Option<ReadyTask>>,
    /// Processes started by `exec`, by their id in the container.
    execs: Mutex<BTreeMap<i32, Arc<ThreadGroup>>>,
}

/// One sandbox.
pub struct Sandbox {
    kernel: Arc<Kernel>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    /// Hears that memory is short.
    pressure: Mutex<Option<Watch>>,
}

impl Sandbox {
    /// Starts the kernel; nothing runs yet.
    pub fn new(config: KernelConfig) -> Result<Self, SandboxError> {
        let kernel = Kernel::new(config).map_err(|errno| SandboxError::Other {
            what: "starting the kernel",
            errno,
        })?;
        Ok(Self {
            kernel,
            containers: Mutex::default(),
            pressure: Mutex::default(),
        })
    }

    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, SandboxError> {
        let containers = self.containers.lock();
        let found = containers.get(id).cloned();
        found.ok_or_else(|| SandboxError::NoContainer(id.to_owned()))
    }

    /// Ids of all containers that have not been removed.
    pub fn containers(&self) -> Vec<String> {
        self.containers.lock().keys().cloned().collect()
    }

    /// Loads a container's init process; [`Self::start`] lets it run.
    pub async fn create_container(&self, config: ContainerConfig) -> Result<(), SandboxError> {
        if self.containers.lock().contains_key(&config.id) {
            return Err(SandboxError::Exists(config.id));
        }
        let of = |id: &Option<String>| id.as_deref().map(|id| self.container(id)).transpose();
        let shares = &config.shares;
        let shared = start::Shared {
            pid: of(&shares.pid_of)?.map(|other| other.pid_ns.clone()),
            ipc: of(&shares.ipc_of)?.map(|other| other.namespaces.ipc.clone()),
            uts: of(&shares.uts_of)?.map(|other| other.namespaces.uts.clone()),
        };
        let id = config.id.clone();
        let container = start::create(&self.kernel, config, shared).await?;
        let container = Arc::new(container);
        let previous = self.containers.lock().insert(id.clone(), container.clone());
        if let Some(previous) = previous {
            // Two creations at once: the first one stays.
            self.containers.lock().insert(id.clone(), previous);
            return Err(SandboxError::Exists(id));
        }
        Ok(())
    }

    /// Lets a created container run.
    pub fn start(&self, id: &str) -> Result<(), SandboxError> {
        let container = self.container(id)?;
        let ready = container.ready.lock().take();
        let (task, thread) = ready.ok_or_else(|| SandboxError::Started(id.to_owned()))?;
        run::spawn(task, thread);
        Ok(())
    }

    /// Whether the container has been started.
    pub fn is_started(&self, id: &str) -> Result<bool, SandboxError> {
        Ok(self.container(id)?.ready.lock().is_none())
    }

    /// Starts a further process in a container; answers its id there.
    pub async fn exec(&self, id: &str, process: ProcessConfig) -> Result<i32, SandboxError> {
        let container = self.container(id)?;
        if container.init.is_zombie() {
            return Err(SandboxError::NotRunning(id.to_owned()));
        }
        let group = start::exec(&self.kernel, id, &container, process).await?;
        let pid = group.pid().number_in(&container.pid_ns);
        container.execs.lock().insert(pid, group);
        Ok(pid)
    }

    /// Sends a signal to a container's init, or to all its processes.
    pub fn signal(&self, id: &str, signal: Signal, all: bool) -> Result<(), SandboxError> {
        let container = self.container(id)?;
        if all {
            for group in self.members(id) {
                let _ = group.signal(SigInfo::kill(signal, 0, 0), Origin::Outside);
            }
            return Ok(());
        }
        if container.init.is_zombie() {
            return Err(SandboxError::NotRunning(id.to_owned()));
        }
        self.send(&container.init, signal)?;
        // A container that never ran has nobody to see the signal.
        if signal == Signal::SIGKILL
            && let Some((task, thread)) = container.ready.lock().take()
        {
            run::spawn(task, thread);
        }
        Ok(())
    }

    /// Sends a signal to one process by its id in the container.
    pub fn signal_process(&self, id: &str, pid: i32, signal: Signal) -> Result<(), SandboxError> {
        let container = self.container(id)?;
        let found = container.pid_ns.process(pid);
        let group = found.ok_or(SandboxError::NoProcess(pid))?;
        self.send(&group, signal)
    }

    /// Sends a signal to the foreground process group of a process's
    /// terminal, as its line discipline would.
    pub fn signal_foreground(
        &self,
        id: &str,
        pid: i32,
        signal: Signal,
    ) -> Result<(), SandboxError> {
        let container = self.container(id)?;
        let found = container.pid_ns.process(pid);
        let group = found.ok_or(SandboxError::NoProcess(pid))?;
        let terminal = group.session().and_then(|session| session.terminal());
        match terminal.and_then(|terminal| terminal.foreground()) {
            Some(foreground) => foreground.signal_from_kernel(signal),
            None => self.send(&group, signal)?,
        }
        Ok(())
    }

    fn send(&self, group: &Arc<ThreadGroup>, signal: Signal) -> Result<(), SandboxError> {
        group
            .signal(SigInfo::kill(signal, 0, 0), Origin::Outside)
            .map_err(|errno| SandboxError::Other {
                what: "signal",
                errno,
            })
    }

    /// Waits for a container's init to end.
    pub async fn wait(&self, id: &str) -> Result<ExitStatus, SandboxError> {
        let init = self.container(id)?.init.clone();
        Ok(wait_for_end(&init).await)
    }

    /// Waits for a process that [`Self::exec`] started (or init) to end. Its
    /// status is kept until it has been waited for once.
    pub async fn wait_process(&self, id: &str, pid: i32) -> Result<ExitStatus, SandboxError> {
        let container = self.container(id)?;
        if container.init.pid().number_in(&container.pid_ns) == pid {
            return Ok(wait_for_end(&container.init).await);
        }
        let group = container.execs.lock().get(&pid).cloned();
        let group = group.ok_or(SandboxError::NoProcess(pid))?;
        let status = wait_for_end(&group).await;
        container.execs.lock().remove(&pid);
        Ok(status)
    }

    /// How a container's init ended, if it has.
    pub fn exit_status(&self, id: &str) -> Result<Option<ExitStatus>, SandboxError> {
        Ok(self.container(id)?.init.exit_status())
    }

    /// Id of a container's init in its pid namespace.
    pub fn init_pid(&self, id: &str) -> Result<i32, SandboxError> {
        let container = self.container(id)?;
        Ok(container.init.pid().number_in(&container.pid_ns))
    }

    /// Kills what is left of a container and forgets it.
    pub async fn remove_container(&self, id: &str) -> Result<(), SandboxError> {
        self.kernel.remove_nursery(id);
        let container = self.container(id)?;
        let status = ExitStatus::Signal {
            signal: Signal::SIGKILL,
            core: false,
        };
        container.init.begin_exit(status);
        if let Some((task, thread)) = container.ready.lock().take() {
            run::spawn(task, thread);
        }
        for group in self.members(id) {
            group.begin_exit(status);
        }
        // A paused one has to go on to end.
        self.kernel.thaw(id);
        wait_for_end(&container.init).await;
        // In a shared pid namespace its orphans are children of an init that
        // may never wait for them.
        for group in self.members(id) {
            wait_for_end(&group).await;
            let tree = self.kernel.tree.lock();
            if group.is_zombie() {
                exit::reap(&tree, &group);
            }
        }
        self.kernel.limits.remove(id);
        self.containers.lock().remove(id);
        Ok(())
    }

    /// Holds all tasks of a container.
    pub fn pause(&self, id: &str) -> Result<(), SandboxError> {
        self.container(id)?;
        self.kernel.freeze(id);
        Ok(())
    }

    /// Lets them go on.
    pub fn resume(&self, id: &str) -> Result<(), SandboxError> {
        self.container(id)?;
        self.kernel.thaw(id);
        Ok(())
    }

    /// The mount tree of a container.
    pub fn root(&self, id: &str) -> Result<Arc<MountNamespace>, SandboxError> {
        Ok(self.container(id)?.root.clone())
    }

    /// The user namespace of a container.
    pub fn user_ns(&self, id: &str) -> Result<Arc<UserNamespace>, SandboxError> {
        Ok(self.container(id)?.user_ns.clone())
    }

    fn members(&self, id: &str) -> Vec<Arc<ThreadGroup>> {
        let processes = self.kernel.root_pid_ns.processes().into_iter();
        processes
            .map(|(_, group)| group)
            .filter(|group| &*group.container == id)
            .collect()
    }
}

async fn wait_for_end(group: &Arc<ThreadGroup>) -> ExitStatus {
    let mut subscription = None;
    std::future::poll_fn(|cx| {
        if subscription.is_none() {
            let waker = Arc::new(cx.waker().clone());
            subscription = Some(group.pid().exited.subscribe(Events::READABLE, waker));
        }
        match group.exit_status() {
            Some(status) => std::task::Poll::Ready(status),
            None => std::task::Poll::Pending,
        }
    })
    .await
}
