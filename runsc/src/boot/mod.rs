//! The sentry process: jail, platform, kernel, container, control server.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the order of things |
//! | `mounts.rs` | the container's mount tree |
//! | `process.rs` | process plans as the kernel wants them |
//! | `users.rs` | the container's user namespace |
//! | `control.rs` | requests of commands |
//! | `log.rs` | the sentry's log |

mod control;
mod log;
mod mounts;
mod process;
mod users;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use sentry_kernel::fs::gofer::GoferFs;
use sentry_kernel::kernel::KernelConfig;
use sentry_kernel::limits::HostCgroup;
use sentry_kernel::sandbox::{ContainerConfig, PressureNotice, Sandbox, Shares};
use sentry_kernel::tty::Bridge;
use sentry_platform::executor::Executor;
use sentry_platform::host::cgroup::CgroupFiles;
use sentry_platform::host::memory;
use sentry_platform::host::seccomp::{self, NetworkKind, PlatformKind};
use sentry_platform::host::system::System;
use sentry_platform::host::tty;
use sentry_platform::ptrace::PtracePlatform;
use sentry_platform::systrap::{self, Systrap};
use sentry_platform::{Platform, executor};

use crate::cgroup;
use crate::cli::{PlatformName, Switch};
use crate::gofer_process::GoferLink;
use crate::jail;
use crate::launch::Foreground;
use crate::plan::{ContainerPlan, SharesPlan};

/// What a sentry is started with.
pub struct BootFds {
    pub listener: UnixListener,
    /// Takes `ready`, or `error: ` and the reason.
    pub ready: OwnedFd,
    pub gofer: GoferLink,
    /// Files of the container's cgroup ([`cgroup::Cgroup::told_files`]).
    pub cgroup: Vec<(String, OwnedFd)>,
    /// The first process's stdin, stdout and stderr, or one terminal.
    pub stdio: Vec<OwnedFd>,
    pub log: OwnedFd,
    /// Takes the exit status of the first process, in decimal.
    pub exit_status: File,
}

/// Settings from the command line.
#[derive(Clone, Copy, Debug)]
pub struct BootOptions {
    pub platform: PlatformName,
    pub patching: Switch,
    pub strace: bool,
    pub debug: bool,
    pub foreground: Foreground,
    pub terminal: TerminalOwner,
}

/// Who hears of changes of the size of the first process's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalOwner {
    /// The command in the foreground, which passes them on.
    Command,
    /// The sentry: an engine has the other end.
    Sentry,
}

/// Runs the sentry in this process, which enters its cgroup by `enter` first
/// and learns how it will hear of a lack of memory there; answers its exit
/// status.
pub fn run(
    plan: &ContainerPlan,
    options: &BootOptions,
    mut fds: BootFds,
    enter: impl FnOnce() -> Result<Option<PressureNotice>>,
) -> i32 {
    let entered = enter();
    let pressure = entered.as_ref().ok().and_then(Option::as_ref);
    let mut keep = vec![
        fds.listener.as_raw_fd(),
        fds.ready.as_raw_fd(),
        fds.gofer.ring.as_raw_fd(),
        fds.gofer.socket.as_raw_fd(),
        fds.log.as_raw_fd(),
        fds.exit_status.as_raw_fd(),
    ];
    keep.extend(fds.cgroup.iter().map(|(_, file)| file.as_raw_fd()));
    keep.extend(pressure.map(|notice| notice.fd.as_raw_fd()));
    if crate::sys::close_others(&keep, &fds.stdio, &fds.log).is_err() {
        return 1;
    }
    let Ok(ready) = fds.ready.try_clone() else {
        return 1;
    };
    let mut ready = File::from(ready);
    match entered.and_then(|pressure| boot(plan, options, &mut fds, pressure)) {
        Ok(sentry) => {
            let _ = ready.write_all(b"ready");
            // The command waits for the end of this pipe.
            drop((ready, fds.ready));
            sentry.serve(fds.listener, &fds.exit_status)
        }
        Err(err) => {
            // The command that waits for this line shows it; there is no
            // other place for it if that command is gone.
            let _ = write!(ready, "error: {err:#}");
            1
        }
    }
}

/// When a sentry gives back what starting has taken. One that ends before does
/// not need to.
const TRIM_AFTER: Duration = Duration::from_millis(300);

/// A booted sentry.
struct Sentry {
    sandbox: Arc<Sandbox>,
    container: String,
    /// The first process's terminal.
    bridge: Option<Bridge>,
    /// The host's side of it, if the sentry owns it.
    terminal: Option<OwnedFd>,
}

fn boot(
    plan: &ContainerPlan,
    options: &BootOptions,
    fds: &mut BootFds,
    pressure: Option<PressureNotice>,
) -> Result<Sentry> {
    // /proc and /sys are out of reach afterwards.
    let mut system = System::open();
    crate::sys::raise_file_limit();
    let network = jail::enter(&plan.id, &plan.network).context("the sandbox can't be jailed")?;
    let network_kind = match network {
        Some(_) => NetworkKind::Host,
        None => NetworkKind::Sandbox,
    };
    jail::drop_privileges()?;
    if options.foreground == Foreground::EndOnKill {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
            .context("the parent-death signal can't be set")?;
    }
    let terminal = match (options.terminal, fds.stdio.first()) {
        (TerminalOwner::Sentry, Some(terminal)) if plan.process.terminal => {
            crate::sys::take_terminal(terminal.as_fd()).context("the terminal can't be taken")?;
            // For the thread that waits for it; all others inherit this.
            size_changes()
                .thread_block()
                .context("signals can't be blocked")?;
            Some(
                terminal
                    .try_clone()
                    .context("the terminal can't be duplicated")?,
            )
        }
        _ => None,
    };
    seccomp::prepare_allocator();

    let executor = Executor::new(system.cpu_count());
    let (platform, kind) = start_platform(options, &mut system, &executor)?;
    let config = KernelConfig {
        platform,
        executor,
        hostname: plan.hostname.clone().into_bytes(),
        cpus: system.cpu_count(),
        memory_bytes: system.memory().total,
        log: log::Log::new(fds.log.try_clone()?, options.debug),
        strace: options.strace,
        host: system,
        network,
    };
    let sandbox = Arc::new(Sandbox::new(config)?);
    let limits = cgroup::limits(plan.host.resources.as_ref());
    // Without a notice the bounds have to do.
    sandbox.bound_caches(limits.memory_bytes, pressure).ok();
    // Before anything of the container is looked at.
    seccomp::install(kind, network_kind)?;

    let link = GoferLink {
        ring: fds.gofer.ring.try_clone()?,
        socket: fds.gofer.socket.try_clone()?,
    };
    let given = Given {
        gofer: link,
        cgroup: std::mem::take(&mut fds.cgroup),
        stdio: std::mem::take(&mut fds.stdio),
    };
    let bridge = create_container(&sandbox, plan, given, SharesPlan::default())?;
    Ok(Sentry {
        sandbox,
        container: plan.id.clone(),
        bridge,
        terminal,
    })
}

/// Descriptors that come with a container.
struct Given {
    gofer: GoferLink,
    /// As in [`BootFds`].
    cgroup: Vec<(String, OwnedFd)>,
    stdio: Vec<OwnedFd>,
}

/// Creates a container; answers the terminal of its first process, if that
/// has one.
fn create_container(
    sandbox: &Sandbox,
    plan: &ContainerPlan,
    given: Given,
    shares: SharesPlan,
) -> Result<Option<Bridge>> {
    let link = given.gofer;
    let gofer = GoferFs::connect(link.ring, link.socket).context("the gofer can't be reached")?;
    let kernel = sandbox.kernel();
    kernel.limits.add(
        &plan.id,
        cgroup::limits(plan.host.resources.as_ref()),
        HostCgroup::new(CgroupFiles::new(given.cgroup)),
    );
    let user_ns = users::namespace(plan)?;
    let root = mounts::build(kernel, plan, gofer, &user_ns)?;
    let (process, bridge) = process::config(
        kernel,
        &root,
        &user_ns,
        &plan.process,
        given.stdio,
        process::Console::Bound,
    )?;
    executor::block_on(sandbox.create_container(ContainerConfig {
        id: plan.id.clone(),
        process,
        hostname: plan.hostname.clone().into_bytes(),
        domainname: plan.domainname.clone().into_bytes(),
        ipc: mounts::ipc_settings(plan),
        root,
        shares: Shares {
            pid_of: shares.pid_of,
            ipc_of: shares.ipc_of,
            uts_of: shares.uts_of,
        },
    }))?;
    Ok(bridge)
}

fn start_platform(
    options: &BootOptions,
    system: &mut System,
    executor: &Executor,
) -> Result<(Arc<dyn Platform>, PlatformKind)> {
    Ok(match options.platform {
        PlatformName::Systrap => {
            let systrap_options = systrap::Options {
                patching: match options.patching {
                    Switch::On => systrap::Patching::On,
                    Switch::Off => systrap::Patching::Off,
                },
                proc: system.take_proc(),
                ..systrap::Options::default()
            };
            let platform = Systrap::new(systrap_options)
                .context("the systrap platform can't be started; try --platform=ptrace")?;
            executor.add_hot_source(platform.hot_source());
            (platform, PlatformKind::Systrap)
        }
        PlatformName::Ptrace => {
            let platform = PtracePlatform::new()
                .context("the ptrace platform can't be started; check kernel.yama.ptrace_scope")?;
            (platform, PlatformKind::Ptrace)
        }
    })
}

impl Sentry {
    /// Serves commands until the container's first process has ended.
    fn serve(self, listener: UnixListener, exit_status: &File) -> i32 {
        let handler = control::Commands::new(self.sandbox.clone(), &self.container, self.bridge);
        let handler = Arc::new(handler);
        let waiters = handler.clone();
        if let (Some(bridge), Some(terminal)) = (handler.terminal(), self.terminal) {
            let followed = std::thread::Builder::new()
                .name("terminal".to_owned())
                .stack_size(256 << 10)
                .spawn(move || follow_size(&bridge, &terminal));
            if followed.is_err() {
                return 1;
            }
        }
        let served = std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(256 << 10)
            .spawn(move || crate::control::serve(&listener, &handler));
        if served.is_err() {
            return 1;
        }
        let mut ended = pin!(self.sandbox.wait(&self.container));
        let ended = match executor::block_on_for(ended.as_mut(), TRIM_AFTER) {
            Some(ended) => ended,
            None => {
                memory::trim();
                // The first wait is told by a waker that nobody looks at now.
                executor::block_on(self.sandbox.wait(&self.container))
            }
        };
        let status = ended.map_or(1, |status| status.shell_code());
        // `wait` after the end finds it here.
        let _ = exit_status.write_all_at(status.to_string().as_bytes(), 0);
        waiters.finish();
        // Who waits for this process waits for that one.
        status
    }
}

/// The signal that tells of a terminal's new size.
fn size_changes() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    set
}

/// Gives a terminal inside the size that `host` has, whenever that changes.
fn follow_size(bridge: &Bridge, host: &OwnedFd) {
    loop {
        // A size of zero is one that nobody has set.
        if let Ok(size) = tty::window_size(host)
            && (size.ws_row, size.ws_col) != (0, 0)
        {
            bridge.resize(size.ws_row, size.ws_col);
        }
        if size_changes().wait().is_err() {
            return;
        }
    }
}
