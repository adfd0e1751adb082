//! The shim process.

use std::fmt;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::args::Args;
use crate::events::Events;
use crate::reaper::Reaper;
use crate::service::TaskService;
use crate::ttrpc;

/// Environment variable with the path of the socket that is stdin.
pub const SOCKET: &str = "RUNSC_SHIM_SOCKET";
/// How long events may take to be sent at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answer to `Shutdown` may take to be sent.
const ANSWER_TIME: Duration = Duration::from_millis(50);

/// Serves containers until `Shutdown`.
pub fn run(args: &Args) -> Result<()> {
    let socket = std::env::var_os(SOCKET).context("this program is called by containerd")?;
    let listener = std::io::stdin().as_fd().try_clone_to_owned();
    let listener = UnixListener::from(listener.context("the socket is missing")?);
    let reaper = Reaper::start()?;
    let events = Arc::new(Events::start(args, &reaper)?);
    let service = Arc::new(TaskService::new(&args.namespace, events.clone(), reaper));
    let serving = service.clone();
    std::thread::Builder::new()
        .name("listener".to_owned())
        .spawn(move || ttrpc::serve(&listener, &serving))
        .context("a thread can't be made")?;
    if args.debug {
        note(format_args!("shim of {} serves", args.id));
    }
    service.wait_for_shutdown();
    let _ = std::fs::remove_file(&socket);
    events.flush(FLUSH_TIMEOUT);
    std::thread::sleep(ANSWER_TIME);
    Ok(())
}

/// A line for containerd's log; lost if nobody reads it.
pub fn note(line: fmt::Arguments<'_>) {
    let _ = std::io::stderr().write_all(format!("runsc shim: {line}\n").as_bytes());
}
