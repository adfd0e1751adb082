//! The command's side of a running process: its terminal, signals that
//! arrive here, and its exit status.

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::control::{Client, Reply, Request};
use crate::plan::ProcessPlan;

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

impl Forwarder {
    /// From here on signals are kept for [`Self::wait`]. Call after the
    /// sandbox's processes have been made: they must not inherit the mask.
    pub fn new() -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in FORWARDED {
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
        let request = Request::Wait {
            container: container.to_owned(),
            pid,
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

fn forward(client: &Client, container: &str, pid: i32, signal: i32) -> Result<()> {
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

/// Runs a further process in a container (`exec`) with this command's stdio.
pub fn run_process(
    client: &Client,
    container: &str,
    mut process: ProcessPlan,
    detach: bool,
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
    let fds = stdio(terminal);
    let raw = if terminal && !detach {
        Some(RawTerminal::enter()?)
    } else {
        None
    };
    let Reply::Started { pid } = client.call(&request, &fds)? else {
        bail!("the sandbox answered something else than a pid");
    };
    let status = if detach {
        0
    } else {
        forwarder.wait(client, container, pid)?
    };
    drop(raw);
    Ok(status)
}

/// Sends the master of a new terminal over an engine's console socket and
/// answers the slave.
pub fn open_for_socket(path: &std::path::Path) -> Result<std::os::fd::OwnedFd> {
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
