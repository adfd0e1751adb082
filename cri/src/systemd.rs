//! A service of systemd: its socket comes from there, and it says when it is
//! ready (sd_listen_fds(3), sd_notify(3)). Without systemd nothing of this has
//! an effect.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::FdFlags;

/// The socket that was passed, if one was.
pub fn passed_socket() -> Result<Option<UnixListener>> {
    let mut passed = listenfd::ListenFd::from_env();
    if passed.len() > 1 {
        bail!("{} sockets are passed; one is expected", passed.len());
    }
    let listener = passed
        .take_unix_listener(0)
        .context("the passed socket is not a unix stream socket")?;
    if let Some(listener) = &listener {
        // Not for the children.
        rustix::io::fcntl_setfd(listener, FdFlags::CLOEXEC)?;
        listener.set_nonblocking(true)?;
    }
    Ok(listener)
}

/// Tells the service manager; who is not there hears nothing.
pub fn notify(state: &str) {
    if let Err(err) = send(state) {
        tracing::debug!("notification of systemd: {err}");
    }
}

fn send(state: &str) -> std::io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read holds nobody up.
    socket.set_write_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

/// Says twice per interval that the server is alive, where the unit has
/// `WatchdogSec=` (sd_watchdog_enabled(3)).
pub fn watch() {
    let number = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    let Some(interval_us) = number("WATCHDOG_USEC").filter(|us| *us > 0) else {
        return;
    };
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return;
    }
    tokio::spawn(async move {
        loop {
            notify("WATCHDOG=1");
            tokio::time::sleep(Duration::from_micros(interval_us / 2)).await;
        }
    });
}
