//! The command's side of a running process: its terminal, signals that
//! arrive here, and its exit status.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use oci_spec::runtime::Hook;

use crate::control::{Client, Reply, Request};
use crate::plan::ProcessPlan;
use crate::state::Record;

/// A terminal in raw mode; the sandbox's own line discipline does echo,
/// editing and signals. Restored when dropped.
pub struct RawTerminal {
    saved: Termios,
}

impl RawTerminal {
    /// Sets the terminal on stdin raw.
    pub fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let saved = tcgetattr(&stdin).context("the terminal's settings can't be read")?;
        let mut raw = saved.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).context("the terminal can't be set raw")?;
        Ok(Self { saved })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may be gone; nothing is left to restore then.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.saved);
    }
}

/// Rows and columns of the terminal behind `fd`.
pub fn window_size(fd: BorrowedFd<'_>) -> Option<(u16, u16)> {
    crate::sys::window_size(fd).ok()
}

/// Signals that end or change this command; all are passed on.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Passes signals on to a process of a sandbox until it ends.
pub struct Forwarder {
    signals: SignalFd,
}

/// Signals that an attendant does not pass on: those that nobody can, and
/// those about its own children and terminal.
const KEPT: [Signal; 5] = [
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGCHLD,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Whether the end of this process is the end of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bond {
    Watch,
    Attend,
}

impl Forwarder {
    /// From here on signals are kept for [`Self::wait`]. Call after the
    /// sandbox's processes have been made: they must not inherit the mask.
    pub fn new() -> Result<Self> {
        Self::of(FORWARDED)
    }

    /// As [`Self::new`], for all signals that can be passed on.
    pub fn of_all_signals() -> Result<Self> {
        Self::of(Signal::iterator().filter(|signal| !KEPT.contains(signal)))
    }

    fn of(signals: impl IntoIterator<Item = Signal>) -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in signals {
            mask.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)
            .context("signals can't be blocked")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC)
            .context("a signalfd can't be made")?;
        Ok(Self { signals })
    }

    /// Waits for process `pid` (0: the container's first) to end; answers its
    /// exit status.
    pub fn wait(&self, client: &Client, container: &str, pid: i32) -> Result<u8> {
        self.wait_as(Bond::Watch, client, container, pid)
    }

    /// As [`Self::wait`]; the guest's process is killed with this one.
    pub fn attend(&self, client: &Client, container: &str, pid: i32) -> Result<u8> {
        self.wait_as(Bond::Attend, client, container, pid)
    }

    fn wait_as(&self, bond: Bond, client: &Client, container: &str, pid: i32) -> Result<u8> {
        let container_id = container.to_owned();
        let request = match bond {
            Bond::Watch => Request::Wait {
                container: container_id,
                pid,
            },
            Bond::Attend => Request::Attend {
                container: container_id,
                pid,
            },
        };
        let mut reply = client.begin(&request, &[])?;
        loop {
            let mut fds = [
                PollFd::new(reply.stream().as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(err) => return Err(err).context("the sandbox can't be waited for"),
            }
            let [stream, signals] = fds.map(|fd| fd.any().unwrap_or(false));
            if signals && let Ok(Some(info)) = self.signals.read_signal() {
                let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
                // The process may have ended meanwhile, which the reply says.
                let _ = forward(client, container, pid, signal);
            }
            if stream {
                return match reply.finish()? {
                    Reply::Exited { status } => Ok(u8::try_from(status).unwrap_or(u8::MAX)),
                    _ => bail!("the sandbox answered something else than an exit status"),
                };
            }
        }
    }
}

/// Passes a signal on to a process; a change of the size of the terminal on
/// stdin as that.
pub fn forward(client: &Client, container: &str, pid: i32, signal: i32) -> Result<()> {
    let container = container.to_owned();
    let request = if signal == Signal::SIGWINCH as i32 {
        let Some((rows, columns)) = window_size(std::io::stdin().as_fd()) else {
            return Ok(());
        };
        Request::Resize {
            container,
            pid,
            rows,
            columns,
        }
    } else {
        Request::Signal {
            container,
            signal,
            pid,
            all: false,
        }
    };
    client.call(&request, &[]).map(drop)
}

/// Descriptors for the stdio of a process: a terminal, or the three of this
/// command.
pub fn stdio(terminal: bool) -> Vec<RawFd> {
    if terminal { vec![0] } else { vec![0, 1, 2] }
}

/// Checks that the descriptors to pass on are open, before this command opens
/// any of its own that would take their numbers.
pub fn check_preserved(count: u32) -> Result<()> {
    for fd in preserved(count) {
        let open = std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
        ensure!(open, "descriptor {fd} of --preserve-fds is not open");
    }
    Ok(())
}

/// The descriptors from 3 on that are passed on.
pub fn preserved(count: u32) -> impl Iterator<Item = RawFd> {
    (3..).take(usize::try_from(count).unwrap_or(0))
}

/// Runs a further process in a container (`exec`) with this command's stdio.
pub fn run_process(
    client: &Client,
    container: &str,
    mut process: ProcessPlan,
    preserve_fds: u32,
) -> Result<u8> {
    let terminal = process.terminal;
    if terminal && std::io::stdin().is_terminal() {
        process.console_size = window_size(std::io::stdin().as_fd());
    }
    let forwarder = Forwarder::new()?;
    let request = Request::Exec {
        container: container.to_owned(),
        process: Box::new(process),
    };
    let mut fds = stdio(terminal);
    fds.extend(preserved(preserve_fds));
    let raw = if terminal {
        Some(RawTerminal::enter()?)
    } else {
        None
    };
    let Reply::Started { pid } = client.call(&request, &fds)? else {
        bail!("the sandbox answered something else than a pid");
    };
    let status = forwarder.wait(client, container, pid)?;
    drop(raw);
    Ok(status)
}

/// Runs a hook inside the container (`startContainer`) and waits for it.
pub fn run_hook(client: &Client, record: &Record, hook: &Hook) -> Result<()> {
    let container = record.plan.id.clone();
    let path = hook
        .path()
        .to_str()
        .context("its path is not valid UTF-8")?;
    let mut args = hook.args().clone().unwrap_or_default();
    match args.first_mut() {
        // The program is looked up by the first argument.
        Some(first) => path.clone_into(first),
        None => args.push(path.to_owned()),
    }
    let process = ProcessPlan {
        args,
        env: hook.env().clone().unwrap_or_default(),
        terminal: false,
        ..record.plan.process.clone()
    };
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("a pipe can't be made");
    let (stdin, state) = pipe()?;
    let (said, stderr) = pipe()?;
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    let request = Request::Exec {
        container: container.clone(),
        process: Box::new(process),
    };
    let fds = [stdin.as_raw_fd(), null.as_raw_fd(), stderr.as_raw_fd()];
    let Reply::Started { pid } = client.call(&request, &fds)? else {
        bail!("the sandbox answered something else than a pid");
    };
    drop((stdin, stderr));
    // It fits into the pipe; a hook that doesn't read it is no error.
    let _ = std::fs::File::from(state).write_all(record.state().to_string().as_bytes());
    let wait = Request::Wait { container, pid };
    let mut reply = client.begin(&wait, &[])?;
    if let Some(seconds) = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
    {
        let timeout = std::time::Duration::from_secs(seconds);
        reply.stream().set_read_timeout(Some(timeout))?;
    }
    let Ok(Reply::Exited { status }) = reply.finish() else {
        bail!("it did not end within its timeout");
    };
    if status == 0 {
        return Ok(());
    }
    let mut text = vec![0; 4096];
    let len = std::fs::File::from(said).read(&mut text).unwrap_or(0);
    text.truncate(len);
    let text = String::from_utf8_lossy(&text);
    bail!("exit status {status}, stderr: {}", text.trim_end())
}

/// Sends the master of a new terminal over an engine's console socket and
/// answers the slave.
pub fn open_for_socket(path: &std::path::Path) -> Result<OwnedFd> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let pty = nix::pty::openpty(None, None).context("a terminal can't be made")?;
    let socket = std::os::unix::net::UnixStream::connect(path)
        .with_context(|| format!("console socket {} can't be reached", path.display()))?;
    let master = [pty.master.as_raw_fd()];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[std::io::IoSlice::new(b"/dev/ptmx")],
        &[ControlMessage::ScmRights(&master)],
        MsgFlags::empty(),
        None,
    )
    .with_context(|| format!("console socket {} can't be written", path.display()))?;
    let mut raw = tcgetattr(&pty.slave).context("the terminal's settings can't be read")?;
    cfmakeraw(&mut raw);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &raw).context("the terminal can't be set raw")?;
    Ok(pty.slave)
}
