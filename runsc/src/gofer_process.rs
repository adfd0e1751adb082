//! Starts the gofer of a container.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::unistd::Pid;

use crate::launch::Home;
use crate::sys::{PidNamespace, spawn_in};

/// The sentry's end of a gofer connection.
pub struct GoferLink {
    pub ring: OwnedFd,
    pub socket: OwnedFd,
}

/// Starts a gofer that serves `roots` (host path, read-only), numbered in
/// order. It ends when the sentry's end of the link is closed.
///
/// `prepare` is called with its pid before it runs; it enters `home` and
/// reports to `log`.
pub fn start(
    roots: &[(PathBuf, bool)],
    log: &OwnedFd,
    home: &Home,
    prepare: impl FnOnce(Pid) -> Result<()>,
) -> Result<(Pid, GoferLink)> {
    // Here and not in the gofer, where nobody would see the reason.
    let roots = roots
        .iter()
        .map(|(path, readonly)| open_root(path, *readonly))
        .collect::<Result<Vec<_>>>()?;
    let ring = gofer::create_ring().context("the gofer's ring can't be made")?;
    let (ours, theirs) = gofer::create_socket().context("the gofer's socket can't be made")?;
    let theirs_ring = ring
        .try_clone()
        .context("the gofer's ring can't be shared")?;
    let mut ends = Some((ours, theirs, theirs_ring, roots));
    let (place, namespace) = (home.birthplace(), PidNamespace::Shared);
    let pid = spawn_in(place, namespace, prepare, |born| match ends.take() {
        Some((ours, socket, ring, roots)) => {
            // Held here too, the sentry's end would never be seen to close.
            drop(ours);
            serve(roots, ring, socket, log, || home.enter(born))
        }
        None => 1,
    })?;
    let (socket, ..) = ends.context("the gofer's socket is gone")?;
    Ok((pid, GoferLink { ring, socket }))
}

fn open_root(path: &Path, readonly: bool) -> Result<gofer::Root> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())
        .with_context(|| format!("{} can't be mounted", path.display()))?;
    let access = if readonly {
        gofer::Access::ReadOnly
    } else {
        gofer::Access::ReadWrite
    };
    Ok(gofer::Root { fd, access })
}

fn serve(
    mut roots: Vec<gofer::Root>,
    ring: OwnedFd,
    socket: OwnedFd,
    log: &OwnedFd,
    enter: impl FnOnce() -> Result<()>,
) -> i32 {
    let mut keep = vec![ring.as_raw_fd(), socket.as_raw_fd()];
    keep.extend(roots.iter().map(|root| root.fd.as_raw_fd()));
    let served = enter()
        .and_then(|()| crate::sys::close_others(&keep, &[], log))
        .and_then(|()| Ok(gofer::confine(&mut roots)?))
        .and_then(|proc_fd| {
            let config = gofer::Config::default();
            sentry_platform::host::memory::trim();
            Ok(gofer::serve(config, proc_fd, ring, socket, roots)?)
        });
    match served {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("runsc: gofer: {err:#}");
            1
        }
    }
}
