//! The sentry process: jail, platform, kernel, container, control server.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result};

use crate::cli::PlatformName;
use crate::gofer_process::GoferLink;
use crate::jail;
use crate::launch::Foreground;
use crate::plan::ContainerPlan;

/// What a sentry is started with.
pub struct BootFds {
    pub listener: UnixListener,
    /// Takes `ready`, or `error: ` and the reason.
    pub ready: OwnedFd,
    pub gofer: GoferLink,
    /// The first process's stdin, stdout and stderr, or one terminal.
    pub stdio: Vec<OwnedFd>,
    pub log: OwnedFd,
}

/// Settings from the command line.
#[derive(Clone, Copy, Debug)]
pub struct BootOptions {
    pub platform: PlatformName,
    pub strace: bool,
    pub debug: bool,
    pub foreground: Foreground,
}

/// Runs the sentry in this process; answers its exit status.
pub fn run(plan: &ContainerPlan, options: &BootOptions, fds: BootFds) -> i32 {
    let mut ready = File::from(fds.ready);
    match boot(plan, options) {
        Ok(()) => {
            let _ = ready.write_all(b"ready");
            0
        }
        Err(err) => {
            // The command that waits for this line shows it; there is no
            // other place for it if that command is gone.
            let _ = write!(ready, "error: {err:#}");
            1
        }
    }
}

fn boot(plan: &ContainerPlan, _options: &BootOptions) -> Result<()> {
    jail::enter(&plan.id).context("the sandbox can't be jailed")?;
    jail::drop_privileges()?;
    Ok(())
}
