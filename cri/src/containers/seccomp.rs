//! Seccomp profiles: none, the node's files, and `RuntimeDefault`.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tonic::Status;

use crate::proto::LinuxContainerSecurityContext;
use crate::proto::security_profile::ProfileType;

/// `RuntimeDefault` is asked for.
pub fn is_default(security: &LinuxContainerSecurityContext) -> bool {
    match &security.seccomp {
        Some(profile) => profile.profile_type() == ProfileType::RuntimeDefault,
        None => matches!(
            security.seccomp_profile_path.as_str(),
            "runtime/default" | "docker/default"
        ),
    }
}

/// The OCI `linux.seccomp`, or none.
pub fn profile(security: &LinuxContainerSecurityContext) -> Result<Option<Value>> {
    let path = match &security.seccomp {
        Some(profile) => match profile.profile_type() {
            ProfileType::Unconfined => return Ok(None),
            ProfileType::RuntimeDefault => return Ok(Some(runtime_default(security))),
            ProfileType::Localhost => profile.localhost_ref.clone(),
        },
        // The field of older kubelets.
        None => match security.seccomp_profile_path.as_str() {
            "" | "unconfined" => return Ok(None),
            "runtime/default" | "docker/default" => return Ok(Some(runtime_default(security))),
            other => other.trim_start_matches("localhost/").to_owned(),
        },
    };
    let text = std::fs::read(&path)
        .with_context(|| format!("seccomp profile {path:?}"))
        .map_err(|err| Status::invalid_argument(format!("{err:#}")))?;
    let value = serde_json::from_slice(&text)
        .map_err(|err| Status::invalid_argument(format!("seccomp profile {path:?}: {err}")))?;
    Ok(Some(value))
}

/// Everything a program commonly needs; what reaches into the kernel's
/// management (modules, mounts, namespaces, clocks, keys, bpf, tracing of
/// others) only with the capability it belongs to.
fn runtime_default(security: &LinuxContainerSecurityContext) -> Value {
    let granted = security.capabilities.clone().unwrap_or_default();
    let has = |name: &str| {
        granted.add_capabilities.iter().any(|c| {
            let c = c.to_ascii_uppercase();
            c == "ALL" || c.trim_start_matches("CAP_") == name
        })
    };
    let mut names: Vec<&str> = include_str!("seccomp-default.txt")
        .split_whitespace()
        .filter(|word| !word.starts_with('#'))
        .collect();
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            names.extend_from_slice(calls);
        }
    }
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    if !has("SYS_ADMIN") {
        // clone without new namespaces; clone3 hides its flags in memory, so
        // that libraries are sent back to clone.
        const NEW_NAMESPACES: u64 = 0x7e02_0000;
        rules.push(json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0,
                      "op": "SCMP_CMP_MASKED_EQ"}],
        }));
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    }
    // personality(2): Linux, 32 bit, without randomisation, and queries.
    for value in [0u64, 0x8, 0x20000, 0x20008, 0xffff_ffff] {
        rules.push(json!({
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}],
        }));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

const BY_CAPABILITY: &[(&str, &[&str])] = &[
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    (
        "SYS_MODULE",
        &["delete_module", "init_module", "finit_module"],
    ),
    ("SYS_PACCT", &["acct"]),
    (
        "SYS_PTRACE",
        &[
            "kcmp",
            "pidfd_getfd",
            "process_madvise",
            "process_vm_readv",
            "process_vm_writev",
            "ptrace",
        ],
    ),
    ("SYS_RAWIO", &["iopl", "ioperm"]),
    (
        "SYS_TIME",
        &["settimeofday", "stime", "clock_settime", "clock_settime64"],
    ),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    (
        "SYS_NICE",
        &[
            "get_mempolicy",
            "mbind",
            "set_mempolicy",
            "set_mempolicy_home_node",
        ],
    ),
    ("SYSLOG", &["syslog"]),
    ("BPF", &["bpf"]),
    ("PERFMON", &["perf_event_open"]),
];
