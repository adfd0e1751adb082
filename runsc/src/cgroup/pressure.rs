//! Hearing that memory of a container runs short.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::eventfd::{EfdFlags, EventFd};
use sentry_kernel::sandbox::PressureNotice;
use sentry_platform::executor::host_poll::Readiness;

use super::{Cgroup, Version};

/// Tasks that have waited for memory for a tenth of the last second
/// (`Documentation/accounting/psi.rst`), in microseconds.
const STALLS: &str = "some 100000 1000000";

/// The level of version 1 at which the kernel finds little that it can free
/// (`memory.pressure_level`).
const LEVEL: &str = "medium";

impl Cgroup {
    /// How to hear that memory is short here; none where the host does not tell.
    pub fn memory_pressure(&self) -> Option<PressureNotice> {
        let mut dirs = self.dirs.iter();
        let dir = dirs.find(|dir| dir.has("memory"))?;
        match dir.version {
            Version::V1 => levels(&dir.path),
            Version::V2 => stalls(&dir.path),
        }
        .ok()
    }
}

fn levels(dir: &Path) -> std::io::Result<PressureNotice> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let level = File::open(dir.join("memory.pressure_level"))?;
    let order = format!("{} {} {LEVEL}", event.as_raw_fd(), level.as_raw_fd());
    std::fs::write(dir.join("cgroup.event_control"), order)?;
    Ok(PressureNotice {
        fd: event.into(),
        ready: Readiness::READ,
    })
}

fn stalls(dir: &Path) -> std::io::Result<PressureNotice> {
    let path = dir.join("memory.pressure");
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.write_all(STALLS.as_bytes())?;
    Ok(PressureNotice {
        fd: file.into(),
        ready: Readiness::PRIORITY,
    })
}
