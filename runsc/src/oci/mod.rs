//! Reads `config.json` of an OCI bundle and turns it into a
//! [`ContainerPlan`]. Each field is applied, refused with a reason, or, where
//! the specification lets it be ignored, named in a warning.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the configuration as a whole, processes, capabilities |
//! | `linux.rs` | namespaces, devices, what does not apply |
//! | `mounts.rs` | mounts and their options |
//! | `seccomp.rs` | filters of the guest |
//! | `fields.rs` | the test that no field is ignored in silence |
//! | `unknown.rs` | what a newer or another runtime would know |
//!
//! Source: OCI runtime specification 1.2, `config.md` and `config-linux.md`.

#[cfg(test)]
mod fields;
mod linux;
mod mounts;
mod seccomp;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, Spec};
use serde_json::Value;

use crate::network::NetworkPlan;
use crate::plan::{
    CapabilityPlan, CgroupUse, ContainerPlan, HostPlan, Overlay, ProcessPlan, RlimitPlan, RootPlan,
};
use crate::{hooks, pod};

pub use mounts::{default_mounts, known_mount_options};

/// Reads and checks `bundle/config.json`.
pub fn load_bundle(id: &str, bundle: &Path, overlay: Overlay) -> Result<ContainerPlan> {
    let bundle = fs::canonicalize(bundle)
        .with_context(|| format!("bundle directory {} can't be opened", bundle.display()))?;
    let config_path = bundle.join("config.json");
    let text = fs::read(&config_path)
        .with_context(|| format!("{} can't be read", config_path.display()))?;
    let mut warnings = Vec::new();
    let spec = read(&text, &mut warnings)
        .with_context(|| format!("{} is not a valid OCI configuration", config_path.display()))?;
    plan(id, &bundle, &spec, overlay, warnings)
        .with_context(|| format!("{} can't be run", config_path.display()))
}

/// Reads a configuration; what is not known in it is named in `warnings`.
fn read(text: &[u8], warnings: &mut Vec<String>) -> Result<Spec> {
    let mut value: Value = serde_json::from_slice(text)?;
    if let Some(process) = value.get_mut("process") {
        unknown::drop_capabilities(process, warnings);
    }
    let spec: Spec = serde_json::from_value(value.clone())?;
    unknown::name_properties(&value, &serde_json::to_value(&spec)?, warnings);
    Ok(spec)
}

fn plan(
    id: &str,
    bundle: &Path,
    spec: &Spec,
    overlay: Overlay,
    mut warnings: Vec<String>,
) -> Result<ContainerPlan> {
    check_version(spec.version())?;
    let process = spec.process().as_ref().context("process is missing")?;
    hooks::check(spec.hooks().as_ref())?;
    let root = spec.root().as_ref().context("root is missing")?;
    let root_path = bundle.join(root.path());
    let root_path = fs::canonicalize(&root_path)
        .with_context(|| format!("root.path {} can't be opened", root_path.display()))?;
    ensure!(
        root_path.is_dir(),
        "root.path {} is not a directory",
        root_path.display()
    );
    let mut mounts = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let destination = mount.destination().display();
        mounts.push(
            mounts::plan_mount(bundle, mount, &mut warnings)
                .with_context(|| format!("mount of {destination} is not usable"))?,
        );
    }
    let linux = spec.linux().as_ref();
    let annotations: BTreeMap<_, _> = spec
        .annotations()
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let masked = linux.and_then(|linux| linux.masked_paths().clone());
    let readonly = linux.and_then(|linux| linux.readonly_paths().clone());
    ensure!(!annotations.contains_key(""), "annotations: a key is empty");
    linux::check_process(process, &mut warnings);
    let mut process = plan_process(process)?;
    if let Some(linux) = linux {
        linux::check(linux, &annotations, &mut warnings)?;
        let profile = linux.seccomp().as_ref();
        process.seccomp = profile.map(seccomp::compile).transpose()?.flatten();
    }
    ensure!(
        spec.vm().is_none(),
        "vm is not supported: a sandbox is no virtual machine"
    );
    let of_others = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    for (name, _) in of_others.into_iter().filter(|(_, there)| *there) {
        warnings.push(format!("{name} is for another operating system"));
    }
    let misplaced = [
        ("uidMappings", spec.uid_mappings().is_some()),
        ("gidMappings", spec.gid_mappings().is_some()),
    ];
    for (name, _) in misplaced.into_iter().filter(|(_, there)| *there) {
        warnings.push(format!("{name} has no effect outside of linux"));
    }
    let (users, groups) = linux.map_or(Ok(Default::default()), linux::id_ranges)?;
    Ok(ContainerPlan {
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        process,
        root: RootPlan {
            path: root_path,
            readonly: root.readonly().unwrap_or(false),
            overlay,
        },
        hostname: spec.hostname().clone().unwrap_or_default(),
        domainname: domainname(spec),
        mounts,
        masked_paths: masked.unwrap_or_default(),
        readonly_paths: readonly.unwrap_or_default(),
        annotations,
        devices: linux.map_or(Ok(Vec::new()), linux::devices)?,
        sysctl: linux.map(linux::sysctl).unwrap_or_default(),
        network: NetworkPlan::of_spec(linux),
        users,
        groups,
        pod: pod::of_spec(spec)?,
        host: HostPlan {
            cgroups: CgroupUse::Files,
            cgroups_path: linux.and_then(|linux| linux.cgroups_path().clone()),
            resources: linux.and_then(|linux| linux.resources().clone()),
            hooks: spec.hooks().clone(),
            warnings,
        },
    })
}

/// Versions are `MAJOR.MINOR.PATCH`, with a pre-release or build behind
/// (SemVer 2.0.0); those of one major version are compatible.
fn check_version(version: &str) -> Result<()> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    ensure!(
        parts.len() == 3 && parts.iter().all(number),
        "ociVersion {version:?} is not a version, such as 1.2.0"
    );
    ensure!(
        parts.first() == Some(&"1"),
        "ociVersion {version:?} is not supported, it must be 1.x"
    );
    Ok(())
}

/// The domain name, by its own field or as the setting of the kernel.
fn domainname(spec: &Spec) -> String {
    let linux = spec.linux().as_ref();
    let sysctl = linux.and_then(|linux| linux.sysctl().as_ref());
    let set = sysctl.and_then(|sysctl| sysctl.get(linux::DOMAINNAME));
    let own = spec.domainname().as_ref().filter(|name| !name.is_empty());
    own.or(set).cloned().unwrap_or_default()
}

/// Reads the `process` object of `exec --process`. Capabilities and limits
/// that it does not name are those of the container.
pub fn read_process(
    text: &[u8],
    container: &ProcessPlan,
    warnings: &mut Vec<String>,
) -> Result<ProcessPlan> {
    let mut value: Value = serde_json::from_slice(text)?;
    unknown::drop_capabilities(&mut value, warnings);
    let process: Process = serde_json::from_value(value.clone())?;
    unknown::name_properties(&value, &serde_json::to_value(&process)?, warnings);
    linux::check_process(&process, warnings);
    let mut plan = plan_process(&process)?;
    if process.capabilities().is_none() {
        plan.capabilities = container.capabilities;
    }
    if plan.rlimits.is_empty() {
        plan.rlimits.clone_from(&container.rlimits);
    }
    plan.oom_score_adj = plan.oom_score_adj.or(container.oom_score_adj);
    // The filter is the container's.
    plan.seccomp.clone_from(&container.seccomp);
    Ok(plan)
}

/// Checks the `process` object (of `config.json` or of `exec --process`).
pub fn plan_process(process: &Process) -> Result<ProcessPlan> {
    let args = process.args().clone().unwrap_or_default();
    ensure!(
        args.first().is_some_and(|program| !program.is_empty()),
        "process.args is empty: name the program to run"
    );
    let cwd = process.cwd();
    ensure!(
        cwd.is_absolute(),
        "process.cwd {:?} is not an absolute path",
        cwd.display().to_string()
    );
    let user = process.user();
    for (what, id) in [("uid", user.uid()), ("gid", user.gid())] {
        // -1 means "no change" to the calls that set ids.
        ensure!(id != u32::MAX, "process.user.{what} {id} is not a valid id");
    }
    let mut limited = BTreeSet::new();
    let rlimits = process.rlimits().iter().flatten().map(|limit| {
        let name = limit.typ().to_string();
        ensure!(
            limited.insert(name.clone()),
            "process.rlimits names {name} more than once"
        );
        let resource = rlimit_number(&name).with_context(|| format!("unknown rlimit {name}"))?;
        ensure!(
            limit.soft() <= limit.hard(),
            "rlimit {name}: soft limit {} is above hard limit {}",
            limit.soft(),
            limit.hard()
        );
        Ok(RlimitPlan {
            resource,
            soft: limit.soft(),
            hard: limit.hard(),
        })
    });
    let console_size = process.console_size().and_then(|size| {
        let rows = u16::try_from(size.height()).ok()?;
        let columns = u16::try_from(size.width()).ok()?;
        Some((rows, columns))
    });
    Ok(ProcessPlan {
        args,
        env: process.env().clone().unwrap_or_default(),
        cwd: path_string(cwd)?,
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
        capabilities: process
            .capabilities()
            .as_ref()
            .map(plan_capabilities)
            .unwrap_or_default(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: rlimits.collect::<Result<_>>()?,
        terminal: process.terminal().unwrap_or(false),
        console_size,
        oom_score_adj: process.oom_score_adj(),
        seccomp: None,
    })
}

fn plan_capabilities(caps: &LinuxCapabilities) -> CapabilityPlan {
    let mask = |set: &Option<Capabilities>| {
        let set = set.iter().flatten();
        set.filter_map(|cap| capability_number(&cap.to_string()))
            .fold(0, |mask, number| mask | 1 << number)
    };
    CapabilityPlan {
        bounding: mask(caps.bounding()),
        effective: mask(caps.effective()),
        inheritable: mask(caps.inheritable()),
        permitted: mask(caps.permitted()),
        ambient: mask(caps.ambient()),
    }
}

/// Names of capabilities by number (`capabilities(7)`).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All capabilities the sandbox knows, as a mask.
pub const ALL_CAPABILITIES: u64 = (1 << CAPABILITIES.len()) - 1;

/// Number of a capability, with or without `CAP_`, any case.
pub fn capability_number(name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    let at = CAPABILITIES.iter().position(|known| *known == name)?;
    u32::try_from(at).ok()
}

/// All capabilities the sandbox knows, by their full names.
pub fn capability_names() -> Vec<String> {
    CAPABILITIES
        .iter()
        .map(|name| format!("CAP_{name}"))
        .collect()
}

/// Names of resource limits by number (`getrlimit(2)`).
const RLIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

fn rlimit_number(name: &str) -> Option<u32> {
    let at = RLIMITS.iter().position(|known| *known == name)?;
    u32::try_from(at).ok()
}

fn path_string(path: &Path) -> Result<String> {
    let text = path.to_str();
    text.map(str::to_owned)
        .with_context(|| format!("path {} is not valid UTF-8", path.display()))
}

/// Absolute form of a bundle path given on the command line.
pub fn bundle_path(bundle: Option<PathBuf>) -> PathBuf {
    bundle.unwrap_or_else(|| PathBuf::from("."))
}
