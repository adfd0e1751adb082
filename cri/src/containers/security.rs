//! Capabilities, devices, labels and profiles of a container.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::stat::{major, minor};
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};
use tonic::Status;

use crate::proto::security_profile::ProfileType;
use crate::proto::{ContainerConfig, LinuxContainerSecurityContext, SeLinuxOption};

/// What a container gets without asking, as docker and containerd have it.
const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Names by number (capabilities(7)).
const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Those this kernel gives us.
fn available() -> Vec<&'static str> {
    let permitted = rustix::thread::capabilities(None)
        .map(|sets| sets.permitted)
        .unwrap_or(CapabilitySet::empty());
    ALL.iter()
        .enumerate()
        .filter(|(number, _)| permitted.bits() & (1 << number) != 0)
        .map(|(_, name)| *name)
        .collect()
}

fn name(text: &str) -> Result<&'static str> {
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    };
    ALL.iter()
        .find(|known| **known == full)
        .copied()
        .ok_or_else(|| Status::invalid_argument(format!("capability {text:?} is not known")).into())
}

/// The OCI `process.capabilities`.
pub fn capabilities(security: &LinuxContainerSecurityContext) -> Result<Value> {
    let available = available();
    let asked = security.capabilities.clone().unwrap_or_default();
    let is_all = |c: &String| c.eq_ignore_ascii_case("ALL");
    let mut set: Vec<&'static str> = if security.privileged {
        available.clone()
    } else {
        let mut set = if asked.add_capabilities.iter().any(is_all) {
            available.clone()
        } else if asked.drop_capabilities.iter().any(is_all) {
            Vec::new()
        } else {
            DEFAULT.to_vec()
        };
        for add in asked.add_capabilities.iter().filter(|c| !is_all(c)) {
            let add = name(add)?;
            if !set.contains(&add) {
                set.push(add);
            }
        }
        for drop in asked.drop_capabilities.iter().filter(|c| !is_all(c)) {
            let drop = name(drop)?;
            set.retain(|c| *c != drop);
        }
        set
    };
    set.retain(|c| available.contains(c));
    let mut ambient = Vec::new();
    for add in &asked.add_ambient_capabilities {
        let add = name(add)?;
        if !set.contains(&add) {
            set.push(add);
        }
        ambient.push(add);
    }
    let mut all = json!({"bounding": set, "effective": set, "permitted": set});
    if !ambient.is_empty()
        && let Some(object) = all.as_object_mut()
    {
        object.insert("inheritable".into(), json!(ambient));
        object.insert("ambient".into(), json!(ambient));
    }
    Ok(all)
}

/// Without CAP_SYS_RESOURCE (a daemon in a container) a score can't be lowered:
/// then it stays at ours, as a runtime would fail otherwise.
pub fn permitted_oom_score(wanted: i64) -> i64 {
    if available().contains(&"CAP_SYS_RESOURCE") {
        return wanted;
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    wanted.max(own)
}

pub struct Devices {
    pub nodes: Vec<Value>,
    pub rules: Vec<Value>,
}

/// Character devices that a sandbox has of its own: memory (null, zero, full,
/// random, urandom) and the terminal.
const OWN: &[(u64, u64)] = &[(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)];

/// Why a sandbox can't have a device.
pub fn no_device(path: &str) -> Status {
    Status::invalid_argument(format!(
        "device {path} of the host can't be given to a sandbox; \
         use a RuntimeClass whose handler has the host's kernel"
    ))
}

/// Devices of the request; a privileged container gets all of the host's. In a
/// sandbox there are none but its own.
pub fn devices(config: &ContainerConfig, privileged: bool, sandboxed: bool) -> Result<Devices> {
    let mut all = Devices {
        nodes: Vec::new(),
        rules: vec![json!({"allow": false, "access": "rwm"})],
    };
    if privileged {
        all.rules = vec![json!({"allow": true, "access": "rwm"})];
    }
    if privileged && !sandboxed {
        add_tree(Path::new("/dev"), Path::new("/dev"), "", &mut all)?;
    }
    for device in &config.devices {
        let permissions = match device.permissions.as_str() {
            "" => "rwm",
            given => given,
        };
        if permissions.is_empty() || !permissions.chars().all(|c| "rwm".contains(c)) {
            return Err(Status::invalid_argument(format!(
                "device permissions {permissions:?} are not of r, w, m"
            ))
            .into());
        }
        let source = std::fs::canonicalize(&device.host_path)
            .with_context(|| format!("device {}", device.host_path))?;
        let target = if device.container_path.is_empty() {
            Path::new(&device.host_path)
        } else {
            Path::new(&device.container_path)
        };
        if source.is_dir() {
            if sandboxed {
                return Err(no_device(&device.host_path).into());
            }
            add_tree(&source, target, permissions, &mut all)?;
        } else {
            let own = |rdev| OWN.contains(&(major(rdev), minor(rdev)));
            if sandboxed && !own(std::fs::metadata(&source)?.rdev()) {
                return Err(no_device(&device.host_path).into());
            }
            add_node(&source, target, permissions, &mut all)?;
        }
    }
    Ok(all)
}

/// What the runtime makes by itself, or what is not a device.
const SKIPPED: &[&str] = &[
    "pts",
    "shm",
    "mqueue",
    "fd",
    "console",
    "ptmx",
    "stdin",
    "stdout",
    "stderr",
    ".lxc",
    ".lxd-mounts",
    ".udev",
];

fn add_tree(source: &Path, target: &Path, permissions: &str, all: &mut Devices) -> Result<()> {
    for entry in std::fs::read_dir(source)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if SKIPPED.iter().any(|s| entry.file_name() == *s) {
            continue;
        }
        let target = target.join(entry.file_name());
        if kind.is_dir() {
            add_tree(&entry.path(), &target, permissions, all)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            // A device may go away meanwhile.
            let _ = add_node(&entry.path(), &target, permissions, all);
        }
    }
    Ok(())
}

/// No permissions: the node without a rule of its own.
fn add_node(source: &Path, target: &Path, permissions: &str, all: &mut Devices) -> Result<()> {
    let meta = std::fs::metadata(source)?;
    let kind = if meta.file_type().is_block_device() {
        "b"
    } else if meta.file_type().is_char_device() {
        "c"
    } else {
        return Err(
            Status::invalid_argument(format!("{} is not a device", source.display())).into(),
        );
    };
    let (major, minor) = (major(meta.rdev()), minor(meta.rdev()));
    all.nodes.push(json!({
        "path": target,
        "type": kind,
        "major": major,
        "minor": minor,
        "fileMode": meta.mode() & 0o7777,
        "uid": meta.uid(),
        "gid": meta.gid(),
    }));
    if !permissions.is_empty() {
        all.rules.push(json!({
            "allow": true,
            "type": kind,
            "major": major,
            "minor": minor,
            "access": permissions,
        }));
    }
    Ok(())
}

/// `user:role:type:level`, where SELinux is on.
pub fn selinux_label(options: Option<&SeLinuxOption>) -> Option<String> {
    let o = options?;
    if !Path::new("/sys/fs/selinux/enforce").exists() || o.r#type.is_empty() {
        return None;
    }
    let or = |value: &str, default: &str| if value.is_empty() { default } else { value }.to_owned();
    Some(format!(
        "{}:{}:{}:{}",
        or(&o.user, "system_u"),
        or(&o.role, "system_r"),
        o.r#type,
        or(&o.level, "s0")
    ))
}

/// The AppArmor profile's name, where the host has AppArmor.
pub fn apparmor(security: &LinuxContainerSecurityContext) -> Result<Option<String>> {
    let on = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'));
    let named = match &security.apparmor {
        Some(profile) if profile.profile_type() == ProfileType::Localhost => {
            Some(profile.localhost_ref.clone())
        }
        Some(_) => None,
        None => localhost_name(&security.apparmor_profile),
    };
    match named {
        Some(name) if !on => Err(Status::invalid_argument(format!(
            "AppArmor profile {name:?} is asked for, but the host has no AppArmor"
        ))
        .into()),
        Some(name) if security.privileged => {
            tracing::debug!("privileged container: AppArmor profile {name} is not applied");
            Ok(None)
        }
        other => Ok(other),
    }
}

/// The name in the older field `apparmor_profile`: `localhost/NAME`.
fn localhost_name(text: &str) -> Option<String> {
    text.strip_prefix("localhost/").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Capability;

    fn bounding(add: &[&str], drop: &[&str]) -> Vec<String> {
        let security = LinuxContainerSecurityContext {
            capabilities: Some(Capability {
                add_capabilities: add.iter().map(|c| (*c).to_owned()).collect(),
                drop_capabilities: drop.iter().map(|c| (*c).to_owned()).collect(),
                add_ambient_capabilities: Vec::new(),
            }),
            ..LinuxContainerSecurityContext::default()
        };
        let value = capabilities(&security).unwrap();
        serde_json::from_value(value.get("bounding").unwrap().clone()).unwrap()
    }

    #[test]
    fn add_and_drop() {
        if available().len() < ALL.len() - 4 {
            return; // needs root
        }
        assert!(bounding(&["NET_ADMIN"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!bounding(&[], &["CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(bounding(&["CAP_KILL"], &["ALL"]), ["CAP_KILL"]);
        assert!(!bounding(&["ALL"], &["SYS_ADMIN"]).contains(&"CAP_SYS_ADMIN".to_owned()));
    }
}
