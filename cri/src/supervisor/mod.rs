//! One process per pod, `runsc-cri supervise DIR`. It makes the pod's
//! namespaces, is the parent (subreaper) of its containers, owns their stdio
//! and logs, and writes their exits to disk. It outlives the daemon, which
//! finds it again at its socket.
//!
//! A single thread and a poll loop: no lock, no runtime, little memory.

pub mod client;
mod connection;
mod container;
mod log;
mod namespaces;
pub mod protocol;
mod reaper;
mod serve;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

pub use namespaces::{hold, hold_orphan, hold_user, with_sample_user_namespace};
pub use serve::receive_terminal;

/// The commands of a pod's processes: `supervise DIR`, `hold [--user|--orphan]`.
pub fn command(args: &[OsString]) -> Result<()> {
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let is = |arg: &OsStr, name: &str| arg == name;
    match args.as_slice() {
        [verb, dir] if is(verb, "supervise") => run(Path::new(dir)),
        [verb] if is(verb, "hold") => hold(),
        [verb, flag] if is(verb, "hold") && is(flag, "--user") => hold_user(),
        [verb, flag] if is(verb, "hold") && is(flag, "--orphan") => hold_orphan(),
        _ => bail!("{args:?} is not known; runsc-cri starts this program"),
    }
}

/// Where the program of [`command`] is: beside ours, else ours does it.
pub fn program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("runsc-cri-pod")))
        .filter(|path| path.is_file());
    beside.unwrap_or_else(|| "/proc/self/exe".into())
}

/// Set-up, then service until `Shutdown`. Says `ready` or the error on stdout.
pub fn run(dir: &Path) -> Result<()> {
    match set_up(dir) {
        Ok(server) => {
            println!("ready");
            to_null()?;
            server.run()
        }
        Err(err) => {
            println!("{err:#}");
            Err(err)
        }
    }
}

fn set_up(dir: &Path) -> Result<serve::Server> {
    let path = dir.join("supervisor.json");
    let text = fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
    let spec: protocol::PodSpec = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not valid", path.display()))?;
    // Away from the daemon's terminal and process group.
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"runsc-cri-pod");
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    let holder = namespaces::set_up(&spec)?;
    let _ = fs::remove_file(&spec.socket);
    let listener = UnixListener::bind(&spec.socket)
        .with_context(|| format!("{} can't be bound", spec.socket.display()))?;
    fs::write(dir.join("supervisor.pid"), std::process::id().to_string())?;
    serve::Server::new(spec, listener, holder)
}

/// The daemon's pipes go; what the supervisor has to say is in its files.
fn to_null() -> Result<()> {
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
