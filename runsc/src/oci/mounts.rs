//! Mounts of an OCI configuration.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::Mount;

use super::path_string;
use crate::plan::{Contents, MountKind, MountPlan};

/// Mount options that set or clear `MS_*` bits (`mount(8)`).
const MOUNT_FLAGS: [(&str, bool, u64); 23] = [
    ("async", false, libc::MS_SYNCHRONOUS),
    ("atime", false, libc::MS_NOATIME),
    ("bind", true, libc::MS_BIND),
    ("defaults", true, 0),
    ("dev", false, libc::MS_NODEV),
    ("diratime", false, libc::MS_NODIRATIME),
    ("dirsync", true, libc::MS_DIRSYNC),
    ("exec", false, libc::MS_NOEXEC),
    ("noatime", true, libc::MS_NOATIME),
    ("nodev", true, libc::MS_NODEV),
    ("nodiratime", true, libc::MS_NODIRATIME),
    ("noexec", true, libc::MS_NOEXEC),
    ("norelatime", false, libc::MS_RELATIME),
    ("nostrictatime", false, libc::MS_STRICTATIME),
    ("nosuid", true, libc::MS_NOSUID),
    ("nosymfollow", true, MS_NOSYMFOLLOW),
    ("rbind", true, libc::MS_BIND | libc::MS_REC),
    ("relatime", true, libc::MS_RELATIME),
    ("ro", true, libc::MS_RDONLY),
    ("rw", false, libc::MS_RDONLY),
    ("strictatime", true, libc::MS_STRICTATIME),
    ("suid", false, libc::MS_NOSUID),
    ("sync", true, libc::MS_SYNCHRONOUS),
];

/// `nosymfollow` of `mount(2)`.
const MS_NOSYMFOLLOW: u64 = 256;

/// Options for the mount and those below it: a bind mount is one mount in the
/// sandbox, whatever is mounted below its source on the host.
const RECURSIVE: [&str; 15] = [
    "rro",
    "rrw",
    "rnosuid",
    "rsuid",
    "rnodev",
    "rdev",
    "rnoexec",
    "rexec",
    "rnodiratime",
    "rdiratime",
    "rrelatime",
    "rnorelatime",
    "rnoatime",
    "ratime",
    "rstrictatime",
];

/// Options that change nothing here.
const WITHOUT_EFFECT: [&str; 14] = [
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
    "acl",
    "noacl",
    "symfollow",
    "rsymfollow",
    "rnostrictatime",
    "seclabel",
];

/// Propagation options: mounts of the sandbox never propagate to the host,
/// so that all of them are as good as private.
const PROPAGATION: [&str; 8] = [
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];

/// Options that mean the same for all mounts.
pub fn known_mount_options() -> Vec<&'static str> {
    let flags = MOUNT_FLAGS.iter().map(|(name, ..)| *name);
    let flags = flags.chain(PROPAGATION).chain(RECURSIVE);
    flags.chain(WITHOUT_EFFECT).chain(["tmpcopyup"]).collect()
}

/// Checks one mount.
pub fn plan_mount(bundle: &Path, mount: &Mount, warnings: &mut Vec<String>) -> Result<MountPlan> {
    // Old tools give paths without the first slash.
    let destination = &Path::new("/").join(mount.destination());
    let mut flags = 0;
    let mut data = Vec::new();
    let mut contents = Contents::Empty;
    for option in mount.options().iter().flatten() {
        let option = option.as_str();
        let plain = if RECURSIVE.contains(&option) {
            option.strip_prefix('r').unwrap_or(option)
        } else {
            option
        };
        if let Some((_, set, bits)) = MOUNT_FLAGS.iter().find(|(name, ..)| *name == plain) {
            if *set {
                flags |= bits;
            } else {
                flags &= !bits;
            }
        } else if option == "tmpcopyup" {
            contents = Contents::Copied;
        } else if matches!(option, "idmap" | "ridmap") {
            bail!("option {option} is not supported: the gofer serves files with their host ids");
        } else if PROPAGATION.contains(&option) {
            if !matches!(option.trim_start_matches('r'), "private") {
                warnings.push(format!(
                    "mounts: {option} of {} does not apply: mounts of the sandbox and of the \
                     host don't reach each other",
                    destination.display()
                ));
            }
        } else if option.starts_with("context=") {
            warnings.push(format!(
                "mounts: label {option} of {} does not apply inside the sandbox",
                destination.display()
            ));
        } else if !WITHOUT_EFFECT.contains(&option) {
            data.push(option);
        }
    }
    let mappings = [mount.uid_mappings(), mount.gid_mappings()];
    ensure!(
        mappings.into_iter().flatten().all(Vec::is_empty),
        "uidMappings and gidMappings of mounts are not supported: the gofer serves files with \
         their host ids"
    );
    let typ = mount.typ().as_deref().unwrap_or("");
    let kind = if flags & libc::MS_BIND != 0 || typ == "bind" {
        let source = mount.source().as_ref().context("source is missing")?;
        let source = bundle.join(source);
        let source = fs::canonicalize(&source)
            .with_context(|| format!("source {} can't be opened", source.display()))?;
        MountKind::Bind { source }
    } else {
        match typ {
            "proc" => MountKind::Proc,
            "sysfs" => MountKind::Sysfs,
            "tmpfs" if destination == Path::new("/dev") => MountKind::Dev,
            "tmpfs" => MountKind::Tmpfs,
            "devtmpfs" => MountKind::Dev,
            "devpts" => MountKind::Devpts,
            "mqueue" => MountKind::Mqueue,
            "cgroup" | "cgroup2" => MountKind::Cgroup,
            other => bail!(
                "file system type {other:?} is not supported; known types are bind, proc, \
                 sysfs, tmpfs, devtmpfs, devpts, mqueue and cgroup"
            ),
        }
    };
    ensure!(
        contents == Contents::Empty || kind == MountKind::Tmpfs,
        "option tmpcopyup is for tmpfs"
    );
    Ok(MountPlan {
        destination: path_string(destination)?,
        kind,
        flags,
        data: data.join(","),
        contents,
    })
}

/// The mounts every sandbox made by `runsc do` and `runsc spec` has.
pub fn default_mounts() -> Vec<MountPlan> {
    let mount = |destination: &str, kind, flags, data: &str| MountPlan {
        destination: destination.to_owned(),
        kind,
        flags,
        data: data.to_owned(),
        contents: Contents::Empty,
    };
    let locked = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
    vec![
        mount("/proc", MountKind::Proc, locked, ""),
        mount("/dev", MountKind::Dev, libc::MS_NOSUID, "mode=755"),
        mount(
            "/dev/pts",
            MountKind::Devpts,
            libc::MS_NOSUID | libc::MS_NOEXEC,
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        mount(
            "/dev/shm",
            MountKind::Tmpfs,
            libc::MS_NOSUID | libc::MS_NODEV,
            "mode=1777",
        ),
        mount("/dev/mqueue", MountKind::Mqueue, locked, ""),
        mount("/sys", MountKind::Sysfs, locked | libc::MS_RDONLY, ""),
        mount(
            "/sys/fs/cgroup",
            MountKind::Cgroup,
            locked | libc::MS_RDONLY,
            "",
        ),
    ]
}
