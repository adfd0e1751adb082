//! `start`: makes the shim process of a container, or finds that of its pod.
//! `delete`: cleans up after a shim that has died.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use prost::Message;
use rustix::fs::OFlags;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::args::Args;
use crate::console;
use crate::messages::DeleteResponse;
use crate::options::Options;
use crate::reaper::Reaper;
use crate::rootfs;
use crate::runtime::Runtime;

/// Annotations that name the sandbox of a container: of containerd's CRI
/// plug-in and of CRI-O.
const SANDBOX_ID: [&str; 2] = [
    "io.kubernetes.cri.sandbox-id",
    "io.kubernetes.cri-o.SandboxID",
];
/// Exit status of what a dead shim left: as if killed.
const KILLED: u32 = 137;

/// The part of `config.json` that matters here.
#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// Prints the address of the shim that is to serve this container.
pub fn start(args: &Args) -> Result<()> {
    let group = group(args)?;
    let socket = socket_path(args, &group)?;
    if UnixStream::connect(&socket).is_err() {
        serve_in_background(args, &socket)?;
    }
    let address = format!("unix://{}", socket.display());
    // containerd finds the shim again by this file after it has restarted.
    std::fs::write("address", &address).context("the address can't be written")?;
    print!("{address}");
    std::io::stdout()
        .flush()
        .context("the address can't be printed")
}

/// Id of the pod's sandbox, or of the container itself.
fn group(args: &Args) -> Result<String> {
    let text = match std::fs::read("config.json") {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(args.id.clone()),
        Err(err) => return Err(err).context("config.json can't be read"),
    };
    let config: Config =
        serde_json::from_slice(&text).context("config.json is not a valid configuration")?;
    let sandbox = SANDBOX_ID
        .iter()
        .find_map(|name| config.annotations.get(*name));
    Ok(sandbox.unwrap_or(&args.id).clone())
}

/// Where the shim of a group listens: beside containerd's own socket.
fn socket_path(args: &Args, group: &str) -> Result<PathBuf> {
    let dir = Path::new(&args.address)
        .parent()
        .filter(|dir| dir.is_absolute())
        .unwrap_or(Path::new("/run/containerd"))
        .join("s");
    let mut hash = Sha256::new();
    for part in [args.address.as_str(), &args.namespace, group] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let name: String = hash
        .finalize()
        .iter()
        .take(24)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = dir.join(name);
    ensure!(
        console::fits(&path),
        "{} is too long for a socket; choose a shorter state directory for containerd",
        path.display()
    );
    Ok(path)
}

fn serve_in_background(args: &Args, socket: &Path) -> Result<()> {
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("{} can't be made", dir.display()))?;
    }
    // Of a shim that has died.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)
        .with_context(|| format!("socket {} can't be made", socket.display()))?;
    let own = std::env::current_exe().context("the shim's own program can't be found")?;
    let mut command = Command::new(own);
    command
        .args(["-namespace", &args.namespace, "-id", &args.id])
        .args(["-address", &args.address])
        .args(["-publish-binary", &args.publish_binary]);
    if args.debug {
        command.arg("-debug");
    }
    let child = command
        .env(crate::serve::SOCKET, socket)
        // Signals of containerd's terminal are not for the shim.
        .process_group(0)
        // The way a descriptor gets to a child of the standard library.
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(log())
        .spawn()
        .context("the shim can't be started")?;
    std::fs::write("shim.pid", child.id().to_string()).context("the pid can't be written")
}

/// The FIFO that containerd reads the shim's log from.
fn log() -> Stdio {
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let fifo = File::options()
        .read(true)
        .write(true)
        .custom_flags(nonblock)
        .open("log");
    fifo.map_or_else(|_| Stdio::null(), Stdio::from)
}

/// Deletes a container whose shim has died and prints what is left to say.
pub fn delete(args: &Args) -> Result<()> {
    let bundle = match &args.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().context("the bundle is not known")?,
    };
    let reaper = Reaper::start()?;
    let options = match Options::saved(&bundle) {
        Ok(options) => options,
        // It never came to creating one.
        Err(_) => Options::load(None, &args.namespace)?,
    };
    let runtime = Runtime::new(options, &reaper, &bundle);
    runtime.call("delete", &["--force", &args.id])?;
    rootfs::unmount_all(&bundle.join("rootfs"));
    let response = DeleteResponse {
        pid: 0,
        exit_status: KILLED,
        exited_at: Some(SystemTime::now().into()),
    };
    std::io::stdout()
        .write_all(&response.encode_to_vec())
        .context("the answer can't be printed")
}
