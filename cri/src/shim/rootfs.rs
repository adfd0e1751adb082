//! Mounts of a container's root file system, which containerd leaves to the
//! shim.

use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::messages::Mount;

/// Options that are flags of `mount(2)`; all others are the file system's.
const FLAGS: [(&str, MountFlags); 12] = [
    ("ro", MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME),
    ("strictatime", MountFlags::STRICTATIME),
    ("bind", MountFlags::BIND),
    ("rbind", MountFlags::BIND.union(MountFlags::REC)),
];
/// Options that are the default.
const DEFAULTS: [&str; 8] = [
    "rw", "suid", "dev", "exec", "async", "atime", "defaults", "loop",
];

/// Mounts `mounts` in order at `rootfs`.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    if !mounts.is_empty() {
        std::fs::create_dir_all(rootfs)
            .with_context(|| format!("{} can't be made", rootfs.display()))?;
    }
    for wanted in mounts {
        let target = match wanted.target.trim_start_matches('/') {
            "" => rootfs.to_owned(),
            below => rootfs.join(below),
        };
        mount_one(wanted, &target)
            .with_context(|| format!("{} can't be mounted", target.display()))?;
    }
    Ok(())
}

fn mount_one(wanted: &Mount, target: &Path) -> Result<()> {
    let (flags, data) = split(&wanted.options);
    let data = CString::new(data).context("an option holds a NUL")?;
    let bind = flags.contains(MountFlags::BIND);
    let first = if bind {
        flags & (MountFlags::BIND | MountFlags::REC)
    } else {
        flags
    };
    mount(
        wanted.source.as_str(),
        target,
        wanted.kind.as_str(),
        first,
        data.as_c_str(),
    )?;
    // A bind mount takes its flags in a second call.
    let rest = flags - (MountFlags::BIND | MountFlags::REC);
    if bind && !rest.is_empty() {
        rustix::mount::mount_remount(target, MountFlags::BIND | rest, data.as_c_str())?;
    }
    Ok(())
}

fn split(options: &[String]) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match FLAGS.iter().find(|(name, _)| name == option) {
            Some((_, flag)) => flags |= *flag,
            None if DEFAULTS.contains(&option.as_str()) => {}
            None => data.push(option.as_str()),
        }
    }
    (flags, data.join(","))
}

/// Undoes [`mount_all`]; nothing happens where nothing is mounted.
pub fn unmount_all(rootfs: &Path) {
    // Each mount lies on the one before.
    for _ in 0..16 {
        if unmount(rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_data_are_told_apart() {
        let options = ["rw", "nosuid", "lowerdir=/a:/b", "upperdir=/c"].map(str::to_owned);
        let (flags, data) = split(&options);
        assert_eq!(flags, MountFlags::NOSUID);
        assert_eq!(data, "lowerdir=/a:/b,upperdir=/c");
    }
}
