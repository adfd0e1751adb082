//! Process plans as the kernel wants them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use sentry_kernel::fs::devpts;
use sentry_kernel::fs::host_file::HostFile;
use sentry_kernel::kernel::Kernel;
use sentry_kernel::sandbox::ProcessConfig;
use sentry_kernel::task::seccomp::{Program, Seccomp};
use sentry_kernel::task::{CapSet, ControllingTerminal, Creds, Gid, Rlimits, UserNamespace};
use sentry_kernel::tty::{Bridge, Slave};
use sentry_kernel::vfs::path::Walk;
use sentry_kernel::vfs::{Fd, File, FsState, MountNamespace, OpenMode, StatusFlags, WalkFlags};
use syscall_tables::abi::{Rlimit, SockFilter};

use super::users;
use crate::plan::ProcessPlan;

/// Default file mode creation mask.
const UMASK: u32 = 0o022;

/// Whether a terminal is the container's console as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// `/dev/console` is the terminal: that of the first process.
    Bound,
    Unbound,
}

/// `plan` with `stdio` as its descriptors: three, or one terminal, then those
/// from 3 on. `root` is
/// where a terminal gets its `/dev/pts` name from.
pub fn config(
    kernel: &Arc<Kernel>,
    root: &Arc<MountNamespace>,
    user_ns: &Arc<UserNamespace>,
    plan: &ProcessPlan,
    mut stdio: Vec<OwnedFd>,
    console: Console,
) -> Result<(ProcessConfig, Option<Bridge>)> {
    let bytes = |list: &[String]| {
        let strings = list.iter().map(|string| string.clone().into_bytes());
        strings.collect::<Vec<_>>()
    };
    let mut rlimits = Rlimits::default();
    for limit in &plan.rlimits {
        rlimits.set(
            limit.resource,
            Rlimit {
                rlim_cur: limit.soft,
                rlim_max: limit.hard,
            },
        );
    }
    let creds = creds(plan, user_ns)?;
    let mut bridge = None;
    let own = if plan.terminal { 1 } else { 3 };
    ensure!(
        stdio.len() >= own,
        "{} descriptors are not what a process wants (terminal: {})",
        stdio.len(),
        plan.terminal
    );
    let preserved = stdio.split_off(own);
    let mut files = match stdio.pop() {
        Some(host) if plan.terminal => {
            let (made, files) = terminal(kernel, root, &creds, plan, host, console)?;
            bridge = Some(made);
            files
        }
        last => {
            stdio.extend(last);
            host_stdio(stdio)?
        }
    };
    for (number, fd) in (3..).zip(preserved) {
        let mode = access_mode(&fd);
        let file = HostFile::open(fd, mode)
            .with_context(|| format!("descriptor {number} can't be used in the sandbox"))?;
        files.push((Fd(number), file));
    }
    let config = ProcessConfig {
        argv: bytes(&plan.args),
        envp: bytes(&plan.env),
        cwd: plan.cwd.clone().into_bytes(),
        creds,
        rlimits,
        umask: plan.umask.unwrap_or(UMASK),
        oom_score_adj: plan.oom_score_adj.unwrap_or(0),
        seccomp: seccomp(plan)?,
        files,
        terminal: bridge
            .as_ref()
            .map(|bridge| bridge.terminal.clone() as Arc<dyn ControllingTerminal>),
    };
    Ok((config, bridge))
}

/// Open files by the numbers that the process has them at.
type Files = Vec<(Fd, Arc<File>)>;

/// A terminal inside the sandbox, with `host` as the user's side.
fn terminal(
    kernel: &Arc<Kernel>,
    root: &Arc<MountNamespace>,
    creds: &Creds,
    plan: &ProcessPlan,
    host: OwnedFd,
    console: Console,
) -> Result<(Bridge, Files)> {
    let root_creds = Creds::root();
    let state = FsState::at_root_of(root).context("the root is gone")?;
    let resolve = |path: &str| {
        let (at, flags) = (state.root.clone(), WalkFlags::FOLLOW);
        Walk::new(&kernel.vfs, &root_creds, at.clone(), at, flags)
            .resolve(path.as_bytes())
            .with_context(|| format!("{path} is needed for a terminal"))
    };
    let ptmx = resolve("/dev/pts/ptmx")?;
    let made = devpts::new_terminal(&ptmx, creds.uid, creds.gid)
        .context("/dev/pts is not a devpts file system")?;
    let path = devpts::slave_path(&ptmx, made.index)?;
    if console == Console::Bound {
        super::mounts::bind_console(kernel, &state.root, &path)
            .context("/dev/console can't be made")?;
    }
    let mode = OpenMode::READ | OpenMode::WRITE;
    let file = File::new(Slave::open(&made)?, path, mode, StatusFlags::empty());
    let bridge = Bridge::start(&kernel.executor, made, host);
    if let Some((rows, columns)) = plan.console_size {
        bridge.resize(rows, columns);
    }
    let files = (0..3).map(|number| (Fd(number), file.clone())).collect();
    Ok((bridge, files))
}

fn creds(plan: &ProcessPlan, user_ns: &Arc<UserNamespace>) -> Result<Creds> {
    let (uid, gid) = (
        users::uid(user_ns, plan.uid)?,
        users::gid(user_ns, plan.gid)?,
    );
    let groups = plan.additional_gids.iter();
    let groups: Vec<Gid> = groups
        .map(|gid| users::gid(user_ns, *gid))
        .collect::<Result<_>>()?;
    let caps = CapSet::from_bits_truncate;
    Ok(Creds {
        uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        groups: groups.into(),
        permitted: caps(plan.capabilities.permitted),
        effective: caps(plan.capabilities.effective),
        inheritable: caps(plan.capabilities.inheritable),
        bounding: caps(plan.capabilities.bounding),
        ambient: caps(plan.capabilities.ambient),
        no_new_privs: plan.no_new_privileges,
        user_ns: user_ns.clone(),
        ..Creds::root()
    })
}

fn host_stdio(stdio: Vec<OwnedFd>) -> Result<Vec<(Fd, Arc<File>)>> {
    let modes = [OpenMode::READ, OpenMode::WRITE, OpenMode::WRITE];
    let names = ["stdin", "stdout", "stderr"];
    let mut files = Vec::new();
    for ((number, fd), (mode, name)) in (0..).zip(stdio).zip(modes.into_iter().zip(names)) {
        let file = HostFile::open(fd, mode).with_context(|| format!("{name} can't be used"))?;
        files.push((Fd(number), file));
    }
    Ok(files)
}

/// The filter that the process starts with.
fn seccomp(plan: &ProcessPlan) -> Result<Seccomp> {
    let Some(filter) = &plan.seccomp else {
        return Ok(Seccomp::default());
    };
    let code = filter.instructions.iter().map(|instruction| SockFilter {
        code: instruction.code,
        jt: instruction.jt,
        jf: instruction.jf,
        k: instruction.k,
    });
    let program = Program::new(code.collect()).context("the seccomp filter is not valid")?;
    Ok(Seccomp::with_filter(program, filter.log))
}

/// How a descriptor was opened.
fn access_mode(fd: &OwnedFd) -> OpenMode {
    let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL).unwrap_or(0);
    match flags & libc::O_ACCMODE {
        libc::O_RDONLY => OpenMode::READ,
        libc::O_WRONLY => OpenMode::WRITE,
        _ => OpenMode::READ | OpenMode::WRITE,
    }
}
