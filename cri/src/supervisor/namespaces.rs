//! The pod's namespaces: made by the supervisor, pinned by bind mounts, so
//! that they last without a process in them. A pid namespace needs a process
//! and gets the smallest: [`hold`].

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::WaitOptions;

use super::protocol::{Mapping, PodSpec};

/// Makes the namespaces of `spec` and pins them below its directory as `net`,
/// `ipc`, `uts`, `pid` and `user`. Returns the pid of the holder of a shared
/// pid namespace. The caller has a single thread.
pub fn set_up(spec: &PodSpec) -> Result<Option<i32>> {
    fs::create_dir_all(&spec.namespace_dir)?;
    if !spec.uid_mappings.is_empty() {
        return with_user_namespace(spec);
    }
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, spec.new_network);
    flags.set(CloneFlags::CLONE_NEWIPC, spec.new_ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, spec.hostname.is_some());
    nix::sched::unshare(flags).context("the pod's namespaces can't be made")?;
    configure(spec)?;
    pin_all(spec, Path::new("/proc/self/ns"))?;
    if !spec.shared_pid {
        return Ok(None);
    }
    // Children go into the new namespace only until the way back.
    let own = File::open("/proc/self/ns/pid")?;
    nix::sched::unshare(CloneFlags::CLONE_NEWPID)
        .context("the pod's pid namespace can't be made")?;
    let child = Command::new("/proc/self/exe")
        .arg("hold")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env_clear()
        .spawn();
    nix::sched::setns(&own, CloneFlags::CLONE_NEWPID)?;
    let holder = i32::try_from(
        child
            .context("the pod's first process can't be started")?
            .id(),
    )?;
    pin(
        Path::new(&format!("/proc/{holder}/ns/pid")),
        &spec.namespace_dir.join("pid"),
    )?;
    Ok(Some(holder))
}

/// Settings that are made from within the namespaces.
fn configure(spec: &PodSpec) -> Result<()> {
    if let Some(hostname) = &spec.hostname {
        nix::unistd::sethostname(hostname)
            .with_context(|| format!("host name {hostname:?} is not accepted"))?;
    }
    if spec.new_network {
        loopback_up().context("the loopback interface can't be brought up")?;
    }
    for (name, value) in &spec.sysctls {
        // A dot in an interface name is written as a slash, as sysctl(8) has it.
        let path: String = name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect();
        if path.split('/').any(|part| part == ".." || part.is_empty()) {
            bail!("sysctl {name:?} is not a name");
        }
        fs::write(Path::new("/proc/sys").join(path), value)
            .with_context(|| format!("sysctl {name} can't be set to {value:?}"))?;
    }
    Ok(())
}

fn pin_all(spec: &PodSpec, from: &Path) -> Result<()> {
    for (wanted, name) in [
        (spec.new_network, "net"),
        (spec.new_ipc, "ipc"),
        (spec.hostname.is_some(), "uts"),
    ] {
        if wanted {
            pin(&from.join(name), &spec.namespace_dir.join(name))?;
        }
    }
    Ok(())
}

fn pin(from: &Path, to: &Path) -> Result<()> {
    File::create(to)?;
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("{} can't be pinned at {}", from.display(), to.display()))
}

/// With id mappings a child makes the user namespace, then, once its ids are
/// mapped, the others owned by it; it ends when they are pinned. The holder of a
/// shared pid namespace is its child, and becomes ours.
fn with_user_namespace(spec: &PodSpec) -> Result<Option<i32>> {
    let mut child = Command::new("/proc/self/exe")
        .arg("hold")
        .arg("--user")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut to), Some(mut from)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("no pipes to the helper");
    };
    let pid = child.id();
    let mut byte = [0u8; 1];
    let result = (|| -> Result<Option<i32>> {
        from.read_exact(&mut byte)
            .context("the user namespace can't be made")?;
        fs::write(format!("/proc/{pid}/uid_map"), map_text(&spec.uid_mappings))
            .context("the user ids can't be mapped")?;
        fs::write(format!("/proc/{pid}/gid_map"), map_text(&spec.gid_mappings))
            .context("the group ids can't be mapped")?;
        to.write_all(&serde_json::to_vec(spec)?)?;
        drop(to);
        let mut answer = [0u8; 4];
        from.read_exact(&mut answer)
            .context("the namespaces can't be made inside the user namespace")?;
        let holder = i32::from_ne_bytes(answer);
        let ns = format!("/proc/{pid}/ns");
        pin(
            &Path::new(&ns).join("user"),
            &spec.namespace_dir.join("user"),
        )?;
        pin_all(spec, Path::new(&ns))?;
        // As without a user namespace: the supervisor is in the pod's network.
        if spec.new_network {
            let network = File::open(Path::new(&ns).join("net"))?;
            nix::sched::setns(&network, CloneFlags::CLONE_NEWNET)?;
        }
        if holder == 0 {
            return Ok(None);
        }
        let pid_namespace = format!("/proc/{holder}/ns/pid");
        pin(Path::new(&pid_namespace), &spec.namespace_dir.join("pid"))?;
        Ok(Some(holder))
    })();
    // The namespaces are pinned (or of no use): the child may go.
    let _ = child.kill();
    let _ = child.wait();
    if matches!(result, Ok(Some(_))) {
        // Open for as long as this process lives: the holder looks at it.
        std::mem::forget(from);
    }
    result
}

/// Calls `work` with the file of a user namespace that maps some ids.
pub fn with_sample_user_namespace<T>(work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let mut child = Command::new("/proc/self/exe")
        .arg("hold")
        .arg("--user")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = child.id();
    let map = map_text(&[Mapping {
        container_id: 0,
        host_id: 1 << 20,
        length: 1 << 16,
    }]);
    let result = (|| {
        let mut byte = [0u8; 1];
        let from = child.stdout.as_mut().context("no pipe to the helper")?;
        from.read_exact(&mut byte)
            .context("the kernel gives no user namespaces")?;
        fs::write(format!("/proc/{pid}/uid_map"), &map)?;
        fs::write(format!("/proc/{pid}/gid_map"), &map)?;
        work(Path::new(&format!("/proc/{pid}/ns/user")))
    })();
    let _ = child.kill();
    let _ = child.wait();
    result
}

fn map_text(mappings: &[Mapping]) -> String {
    mappings
        .iter()
        .map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.length))
        .collect()
}

/// `hold --user`: see [`with_user_namespace`].
pub fn hold_user() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?;
    let mut out = std::io::stdout();
    out.write_all(b"u")?;
    out.flush()?;
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let spec: PodSpec = serde_json::from_slice(&text)?;
    // Root of the new namespace, whose files in /proc are its own.
    nix::unistd::setgid(0.into())?;
    nix::unistd::setuid(0.into())?;
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWNET, spec.new_network);
    flags.set(CloneFlags::CLONE_NEWIPC, spec.new_ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, spec.hostname.is_some());
    nix::sched::unshare(flags)?;
    configure(&spec)?;
    let mut holder = 0;
    if spec.shared_pid {
        nix::sched::unshare(CloneFlags::CLONE_NEWPID)?;
        let child = Command::new("/proc/self/exe")
            .arg("hold")
            .arg("--orphan")
            .stdin(Stdio::null())
            .stdout(Stdio::inherit())
            .stderr(Stdio::null())
            .env_clear()
            .spawn()?;
        holder = i32::try_from(child.id())?;
    }
    out.write_all(&holder.to_ne_bytes())?;
    out.flush()?;
    // Killed by the supervisor.
    loop {
        nix::unistd::pause();
    }
}

/// `hold`: PID 1 of a shared pid namespace; reaps orphans until it is killed.
pub fn hold() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let _ = nix::sys::prctl::set_name(c"pod");
    let mut child_signal = SigSet::empty();
    child_signal.add(Signal::SIGCHLD);
    child_signal.thread_block()?;
    loop {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        child_signal.wait()?;
    }
}

/// `hold --orphan`: the same, started by a process that goes: it lives until
/// nobody reads its standard output any more.
pub fn hold_orphan() -> Result<()> {
    use rustix::event::{PollFd, PollFlags};
    let _ = nix::sys::prctl::set_name(c"pod");
    let mut child_signal = SigSet::empty();
    child_signal.add(Signal::SIGCHLD);
    child_signal.thread_block()?;
    let signals = SignalFd::with_flags(&child_signal, SfdFlags::SFD_NONBLOCK)?;
    let out = std::io::stdout();
    loop {
        let mut fds = [
            PollFd::new(&out, PollFlags::empty()),
            PollFd::new(&signals, PollFlags::IN),
        ];
        let _ = rustix::event::poll(&mut fds, None);
        if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
            return Ok(());
        }
        while let Ok(Some(_)) = signals.read_signal() {}
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
}

/// Brings `lo` up with one RTM_NEWLINK request (rtnetlink(7)).
fn loopback_up() -> Result<()> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&32u32.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&REQUEST_ACK.to_ne_bytes());
    message.extend_from_slice(&1u32.to_ne_bytes());
    message.extend_from_slice(&0u32.to_ne_bytes());
    // ifinfomsg: family, padding, type, index 1 (always `lo`), flags, mask.
    message.extend_from_slice(&[0, 0, 0, 0]);
    message.extend_from_slice(&1i32.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes());
    message.extend_from_slice(&IFF_UP.to_ne_bytes());
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0u8; 64];
    let (_, len) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let error = answer
        .get(16..20)
        .filter(|_| len >= 20)
        .and_then(|b| b.try_into().ok())
        .map(i32::from_ne_bytes);
    match error {
        Some(0) => Ok(()),
        Some(errno) => Err(std::io::Error::from_raw_os_error(-errno).into()),
        None => bail!("short answer of the kernel"),
    }
}
