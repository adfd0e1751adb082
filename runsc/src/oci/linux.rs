//! Namespaces, devices and settings of the `linux` object, and the parts of a
//! configuration that don't apply to a sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{
    Linux, LinuxDeviceType, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType,
    LinuxPersonalityDomain, Process,
};

use super::path_string;
use crate::plan::{DeviceKind, DevicePlan, IdRange};

/// Permissions of devices that name none.
const DEVICE_MODE: u32 = 0o666;

/// Annotations by which containerd and CRI-O say that a container joins a
/// sandbox that exists.
const IN_POD: [&str; 2] = [
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri-o.ContainerType",
];

/// Refuses what can't be had and names what does not apply.
pub fn check(
    linux: &Linux,
    annotations: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let in_pod = IN_POD.iter().any(|key| {
        annotations
            .get(*key)
            .is_some_and(|kind| kind == "container")
    });
    let mut kinds = Vec::new();
    for namespace in linux.namespaces().iter().flatten() {
        let kind = namespace.typ();
        ensure!(
            !kinds.contains(&kind),
            "linux.namespaces names a {kind} namespace more than once"
        );
        kinds.push(kind);
        check_namespace(namespace, in_pod, warnings)?;
    }
    if !in_pod {
        warn_of_shared(&kinds, warnings);
    }
    let lists = [
        ("maskedPaths", linux.masked_paths()),
        ("readonlyPaths", linux.readonly_paths()),
    ];
    for (name, paths) in lists {
        for path in paths.iter().flatten() {
            ensure!(
                path.starts_with('/'),
                "linux.{name}: {path:?} is not an absolute path"
            );
        }
    }
    ensure!(
        linux.intel_rdt().is_none(),
        "linux.intelRdt is not supported"
    );
    ensure!(
        linux.memory_policy().is_none(),
        "linux.memoryPolicy is not supported"
    );
    ensure!(
        linux
            .net_devices()
            .as_ref()
            .is_none_or(|devices| devices.is_empty()),
        "linux.netDevices is not supported"
    );
    if let Some(personality) = linux.personality() {
        ensure!(
            personality.flags().as_ref().is_none_or(Vec::is_empty),
            "linux.personality.flags: no flag is supported"
        );
        ensure!(
            personality.domain() == LinuxPersonalityDomain::PerLinux,
            "linux.personality LINUX32 is not supported: the sandbox runs x86-64 programs"
        );
    }
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        ensure!(
            offset.secs().unwrap_or(0) == 0 && offset.nanosecs().unwrap_or(0) == 0,
            "linux.timeOffsets of {clock} are not supported"
        );
    }
    if let Some(propagation) = linux.rootfs_propagation().as_deref() {
        ensure!(
            matches!(
                propagation,
                "" | "private"
                    | "rprivate"
                    | "shared"
                    | "rshared"
                    | "slave"
                    | "rslave"
                    | "unbindable"
                    | "runbindable"
            ),
            "linux.rootfsPropagation {propagation:?} is not known"
        );
        if !matches!(propagation.trim_start_matches('r'), "" | "private") {
            warnings.push(format!(
                "linux.rootfsPropagation {propagation} does not apply: mounts of the sandbox and \
                 of the host don't reach each other"
            ));
        }
    }
    if linux
        .mount_label()
        .as_ref()
        .is_some_and(|label| !label.is_empty())
    {
        warnings.push("linux.mountLabel does not apply inside the sandbox".to_owned());
    }
    Ok(())
}

/// Names the namespaces of the host that a container would share under a
/// runtime without a kernel of its own.
fn warn_of_shared(kinds: &[LinuxNamespaceType], warnings: &mut Vec<String>) {
    let own = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
    ];
    for kind in own {
        if !kinds.contains(&kind) {
            warnings.push(format!(
                "linux.namespaces: the sandbox has a {kind} namespace of its own all the same"
            ));
        }
    }
}

fn check_namespace(
    namespace: &LinuxNamespace,
    in_pod: bool,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let Some(path) = namespace.path() else {
        return Ok(());
    };
    ensure!(
        path.as_os_str().is_empty() || path.is_absolute(),
        "namespace path {} is not absolute",
        path.display()
    );
    // Networks are entered; those of a pod are the sandbox's own.
    let name = match namespace.typ() {
        LinuxNamespaceType::Network => return Ok(()),
        _ if in_pod || path.as_os_str().is_empty() => return Ok(()),
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Time => "time",
    };
    let target = fs::read_link(path)
        .map(|target| target.display().to_string())
        .or_else(|err| {
            if is_namespace_file(path) {
                Ok(String::new())
            } else {
                Err(err)
            }
        })
        .with_context(|| format!("namespace path {} can't be read", path.display()))?;
    let kind = match name {
        "mount" => "mnt",
        name => name,
    };
    ensure!(
        target.is_empty() || target.starts_with(&format!("{kind}:[")),
        "{} is not a {name} namespace",
        path.display()
    );
    match name {
        "ipc" | "uts" | "cgroup" => {
            warnings.push(format!(
                "linux.namespaces: the sandbox keeps a {name} namespace of its own instead of {}",
                path.display()
            ));
            Ok(())
        }
        _ => bail!(
            "a {name} namespace of the host ({}) can't be joined by a sandbox; containers that \
             share it must be in one pod",
            path.display()
        ),
    }
}

/// Whether a namespace is bound to this file.
fn is_namespace_file(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type().0 == NSFS_MAGIC)
}

/// The ids of the container's user namespace; none where all are the host's.
pub fn id_ranges(linux: &Linux) -> Result<(Vec<IdRange>, Vec<IdRange>)> {
    let ranges = |mappings: &Option<Vec<LinuxIdMapping>>| -> Vec<IdRange> {
        let mappings = mappings.iter().flatten();
        mappings
            .map(|mapping| IdRange {
                inner: mapping.container_id(),
                outer: mapping.host_id(),
                count: mapping.size(),
            })
            .collect()
    };
    let (users, groups) = (ranges(linux.uid_mappings()), ranges(linux.gid_mappings()));
    // Rootless engines map what they have to itself.
    if users
        .iter()
        .chain(&groups)
        .all(|range| range.inner == range.outer)
    {
        return Ok(Default::default());
    }
    let mut namespaces = linux.namespaces().iter().flatten();
    ensure!(
        namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::User),
        "linux.uidMappings and gidMappings are for a user namespace, which linux.namespaces \
         does not name"
    );
    ensure!(
        !users.is_empty() && !groups.is_empty(),
        "of linux.uidMappings and gidMappings only one is given"
    );
    Ok((users, groups))
}

/// Names what does not apply to a process.
pub fn check_process(process: &Process, warnings: &mut Vec<String>) {
    let given = |value: &Option<String>| {
        value
            .as_ref()
            .is_some_and(|value| !value.is_empty() && value != "unconfined")
    };
    let ignored = [
        ("apparmorProfile", given(process.apparmor_profile())),
        ("selinuxLabel", given(process.selinux_label())),
        ("ioPriority", process.io_priority().is_some()),
        ("scheduler", process.scheduler().is_some()),
        ("execCPUAffinity", process.exec_cpu_affinity().is_some()),
        ("commandLine", process.command_line().is_some()),
        ("user.username", process.user().username().is_some()),
    ];
    for (name, there) in ignored {
        if there {
            warnings.push(format!("process.{name} does not apply inside the sandbox"));
        }
    }
}

/// Device nodes to make.
pub fn devices(linux: &Linux) -> Result<Vec<DevicePlan>> {
    let devices = linux.devices().iter().flatten().map(|device| {
        let path = path_string(device.path())?;
        ensure!(
            device.path().is_absolute(),
            "linux.devices: path {path:?} is not absolute"
        );
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
            LinuxDeviceType::B => DeviceKind::Block,
            LinuxDeviceType::P => DeviceKind::Fifo,
            LinuxDeviceType::A => bail!("linux.devices: {path} has no type"),
        };
        let number = |number: i64| {
            u32::try_from(number).with_context(|| {
                format!("linux.devices: {number} of {path} is not a device number")
            })
        };
        let fifo = kind == DeviceKind::Fifo;
        Ok(DevicePlan {
            kind,
            major: if fifo { 0 } else { number(device.major())? },
            minor: if fifo { 0 } else { number(device.minor())? },
            mode: device.file_mode().unwrap_or(DEVICE_MODE) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            path,
        })
    });
    devices.collect()
}

/// The setting that engines give a container's domain name by.
pub const DOMAINNAME: &str = "kernel.domainname";

/// Settings for the sandbox itself.
pub fn sysctl(linux: &Linux) -> BTreeMap<String, String> {
    let settings = linux.sysctl().iter().flatten();
    settings
        .filter(|(key, _)| *key != DOMAINNAME)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
