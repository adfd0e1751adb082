//! Starts the gofer of a container.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;

use crate::sys::{PidNamespace, spawn};

/// The sentry's end of a gofer connection.
pub struct GoferLink {
    pub ring: OwnedFd,
    pub socket: OwnedFd,
}

/// Starts a gofer that serves `roots` (host path, read-only), numbered in
/// order.
pub fn start(roots: &[(PathBuf, bool)]) -> Result<(Pid, GoferLink)> {
    let ring = new_ring().context("the gofer's ring can't be made")?;
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .context("the gofer's socket can't be made")?;
    let theirs_ring = ring
        .try_clone()
        .context("the gofer's ring can't be shared")?;
    let mut ends = Some((ours, theirs, theirs_ring));
    let pid = spawn(PidNamespace::Shared, || match ends.take() {
        Some((_, socket, ring)) => serve(roots, ring, socket),
        None => 1,
    })?;
    let (socket, ..) = ends.context("the gofer's socket is gone")?;
    Ok((pid, GoferLink { ring, socket }))
}

fn new_ring() -> nix::Result<OwnedFd> {
    let ring = memfd_create(
        "gofer-ring",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    nix::unistd::ftruncate(&ring, gofer_proto::ring::RING_LEN as i64)?;
    fcntl(
        &ring,
        FcntlArg::F_ADD_SEALS(
            SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL,
        ),
    )?;
    Ok(ring)
}

fn serve(_roots: &[(PathBuf, bool)], _ring: OwnedFd, _socket: OwnedFd) -> i32 {
    1
}
