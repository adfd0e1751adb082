//! Processes that are started from outside: a container's init and `exec`.

use std::sync::Arc;

use parking_lot::Mutex;
use sentry_platform::GuestThread;
use syscall_tables::Errno;
use syscall_tables::abi::RLIMIT_STACK;

use super::{Container, ContainerConfig, ProcessConfig, SandboxError};
use crate::ipc::IpcNamespace;
use crate::kernel::{Kernel, ROOT_NET_ID};
use crate::loader::Arguments;
use crate::signal::{SigHand, TaskSignals};
use crate::task::sched::SchedState;
use crate::task::{
    Creds, Login, Namespaces, NewGroup, NewTask, Pid, PidNamespace, ProcessGroup, Session, Task,
    ThreadGroup, UtsNamespace, exec, run,
};
use crate::vfs::{
    FdFlags, FdTable, File, FsContext, FsState, MountNamespace, VfsPath, WalkFlags, open,
    path::Walk,
};

/// Where commands are looked for without `PATH`, as runc does.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Default timer slack in nanoseconds.
const TIMER_SLACK_NS: u64 = 50_000;

/// Namespaces of other containers that a new one shares.
pub(super) struct Shared {
    pub pid: Option<Arc<PidNamespace>>,
    pub ipc: Option<Arc<IpcNamespace>>,
    pub uts: Option<Arc<UtsNamespace>>,
}

pub(super) async fn create(
    kernel: &Arc<Kernel>,
    config: ContainerConfig,
    shared: Shared,
) -> Result<Container, SandboxError> {
    let user_ns = config.process.creds.user_ns.clone();
    let pid_ns = match shared.pid {
        Some(shared) => shared,
        None => {
            let root = kernel.root_pid_ns.clone();
            PidNamespace::new(kernel.new_namespace_id(), Some(root), user_ns.clone()).map_err(
                |errno| SandboxError::Other {
                    what: "pid namespace",
                    errno,
                },
            )?
        }
    };
    let uts = match shared.uts {
        Some(uts) => uts,
        None => {
            let mut names = kernel.initial_uts.names.read().clone();
            if !config.hostname.is_empty() {
                names.host = config.hostname;
            }
            if !config.domainname.is_empty() {
                names.domain = config.domainname;
            }
            UtsNamespace::new(kernel.new_namespace_id(), user_ns.clone(), names)
        }
    };
    let ipc = match shared.ipc {
        Some(ipc) => ipc,
        None => IpcNamespace::new(kernel, user_ns.clone()),
    };
    for (name, value) in &config.ipc {
        ipc.settings
            .set(name, value)
            .map_err(|errno| SandboxError::Other {
                what: "setting of the IPC namespace",
                errno,
            })?;
    }
    let namespaces = Arc::new(Namespaces {
        uts,
        pid_for_children: pid_ns.clone(),
        net_id: ROOT_NET_ID,
        cgroup_id: kernel.new_namespace_id(),
        ipc,
    });
    for mount in config.root.mounts() {
        mount.fs.bind_pid_namespace(&pid_ns);
        mount.fs.bind_ipc_namespace(&namespaces.ipc);
    }
    let place = Place {
        id: config.id.as_str().into(),
        pid_ns: pid_ns.clone(),
        namespaces: namespaces.clone(),
        root: config.root.clone(),
    };
    let (task, thread) = prepare(kernel, &place, config.process).await?;
    let init = task.group.clone();
    if init.pid().number() == 1 {
        pid_ns.set_init(&init);
        init.unkillable
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }
    Ok(Container {
        user_ns,
        pid_ns,
        namespaces,
        root: config.root,
        init,
        ready: Mutex::new(Some((task, thread))),
        execs: Mutex::default(),
    })
}

pub(super) async fn exec(
    kernel: &Arc<Kernel>,
    id: &str,
    container: &Container,
    process: ProcessConfig,
) -> Result<Arc<ThreadGroup>, SandboxError> {
    let place = Place {
        id: id.into(),
        pid_ns: container.pid_ns.clone(),
        namespaces: container.namespaces.clone(),
        root: container.root.clone(),
    };
    let (task, thread) = prepare(kernel, &place, process).await?;
    let group = task.group.clone();
    run::spawn(task, thread);
    Ok(group)
}

/// Where a process starts.
struct Place {
    id: Arc<str>,
    pid_ns: Arc<PidNamespace>,
    namespaces: Arc<Namespaces>,
    root: Arc<MountNamespace>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Loads the program of `process` and makes a visible task that has not run.
async fn prepare(
    kernel: &Arc<Kernel>,
    place: &Place,
    process: ProcessConfig,
) -> Result<(Arc<Task>, Box<dyn GuestThread>), SandboxError> {
    let lookup = Lookup::new(kernel, place, &process)?;
    let (path, file) = lookup.find_program(&process)?;
    let arguments = Arguments {
        filename: path,
        argv: process.argv,
        envp: process.envp,
    };
    let (fs, creds) = (lookup.fs.clone(), process.creds.clone());
    let vfs_kernel = kernel.clone();
    let open_exec = move |path: &[u8]| open_exec(&vfs_kernel, &fs, &creds, path);
    let stack_limit = process.rlimits.soft(RLIMIT_STACK);
    let caller = exec::Caller {
        creds: &process.creds,
        stack_limit,
        personality: 0,
        by: exec::ReachedBy::Path,
        container: &place.id,
    };
    let program = exec::load(kernel, &open_exec, file, arguments, &caller).await?;
    let other = |what| move |errno| SandboxError::Other { what, errno };
    let pid = Pid::allocate(&place.pid_ns, &[]).map_err(other("process id"))?;
    let files = Arc::new(FdTable::new());
    for (fd, file) in process.files {
        files
            .replace(fd, file, FdFlags::empty(), u64::MAX)
            .map_err(other("descriptor"))?;
    }
    let group = ThreadGroup::new(NewGroup {
        kernel: kernel.clone(),
        pid: pid.clone(),
        sighand: Arc::new(SigHand::default()),
        limits: process.rlimits,
        exit_signal: 0,
        container: place.id.clone(),
        oom_score_adj: process.oom_score_adj,
    });
    let task = Task::new(NewTask {
        pid: pid.clone(),
        group: group.clone(),
        creds: Arc::new(program.creds.creds),
        files,
        fs: FsContext::new(lookup.fs),
        mm: program.loaded.mm.clone(),
        namespaces: place.namespaces.clone(),
        comm: program.loaded.comm.clone(),
        handle: program.thread.handle(),
        signals: TaskSignals::default(),
        sched: SchedState::new(kernel.cpus),
        personality: 0,
        timer_slack_ns: TIMER_SLACK_NS,
        login: Login::default(),
        seccomp: process.seccomp,
    });
    group.timers.set_cpu_limit(&group);
    let tree = kernel.tree.lock();
    pid.attach_task(task.clone());
    {
        let mut links = group.links.lock();
        links.leader = Some(task.clone());
        links.tasks.push(task.clone());
    }
    let session = Session::new(pid.clone());
    let process_group = ProcessGroup::new(pid.clone(), session.clone());
    group.join_process_group(&tree, process_group.clone());
    drop(tree);
    if let Some(terminal) = process.terminal {
        terminal.session_started(&session, &process_group);
        session.set_terminal(Some(terminal));
    }
    Ok((task, program.thread))
}

/// Path lookup for a process that does not exist yet.
struct Lookup<'a> {
    kernel: &'a Arc<Kernel>,
    fs: FsState,
}

impl<'a> Lookup<'a> {
    fn new(
        kernel: &'a Arc<Kernel>,
        place: &Place,
        process: &ProcessConfig,
    ) -> Result<Self, SandboxError> {
        let mut fs = FsState::at_root_of(&place.root).ok_or(SandboxError::Other {
            what: "mount namespace",
            errno: Errno::ENOENT,
        })?;
        fs.umask = process.umask;
        let cwd = resolve(
            kernel,
            &fs,
            &process.creds,
            &process.cwd,
            WalkFlags::DIRECTORY,
        )
        .map_err(|errno| SandboxError::Cwd {
            path: text(&process.cwd),
            errno,
        })?;
        fs.cwd = cwd;
        Ok(Self { kernel, fs })
    }

    /// The program's path and file: `PATH` is searched for a bare name.
    fn find_program(&self, process: &ProcessConfig) -> Result<(Vec<u8>, Arc<File>), SandboxError> {
        let name = process.argv.first().ok_or(SandboxError::NoArguments)?;
        if name.contains(&b'/') {
            let file = open_exec(self.kernel, &self.fs, &process.creds, name);
            return match file {
                Ok(file) => Ok((name.clone(), file)),
                Err(errno) => Err(SandboxError::Exec {
                    path: text(name),
                    errno,
                }),
            };
        }
        let path = process
            .envp
            .iter()
            .find_map(|var| var.strip_prefix(b"PATH="));
        let mut denied = None;
        for dir in path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
            let dir: &[u8] = if dir.is_empty() { b"." } else { dir };
            let candidate = [dir, b"/", name].concat();
            match open_exec(self.kernel, &self.fs, &process.creds, &candidate) {
                Ok(file) => return Ok((candidate, file)),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => denied = Some(errno),
            }
        }
        match denied {
            Some(errno) => Err(SandboxError::Exec {
                path: text(name),
                errno,
            }),
            None => Err(SandboxError::NotFound(text(name))),
        }
    }
}

fn resolve(
    kernel: &Kernel,
    fs: &FsState,
    creds: &Creds,
    path: &[u8],
    flags: WalkFlags,
) -> Result<VfsPath, Errno> {
    let at = if path.first() == Some(&b'/') {
        &fs.root
    } else {
        &fs.cwd
    };
    let flags = flags | WalkFlags::FOLLOW;
    let mut walk = Walk::new(&kernel.vfs, creds, fs.root.clone(), at.clone(), flags);
    walk.resolve(path)
}

fn open_exec(
    kernel: &Kernel,
    fs: &FsState,
    creds: &Creds,
    path: &[u8],
) -> Result<Arc<File>, Errno> {
    open::exec_file(
        &kernel.vfs,
        resolve(kernel, fs, creds, path, WalkFlags::empty())?,
        creds,
    )
}
