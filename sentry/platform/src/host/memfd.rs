//! Memory shared between guest address spaces.

use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag};
use nix::sys::memfd::MFdFlags;
use syscall_tables::Errno;

use super::errno;

/// A memfd of exactly `len_bytes` zero bytes, sealed against resizing.
pub fn create(name: &str, len_bytes: u64) -> Result<OwnedFd, Errno> {
    let len = i64::try_from(len_bytes).map_err(|_| Errno::EINVAL)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = nix::sys::memfd::memfd_create(name, flags).map_err(errno)?;
    nix::unistd::ftruncate(&fd, len).map_err(errno)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    nix::fcntl::fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(errno)?;
    Ok(fd)
}
