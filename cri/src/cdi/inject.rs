//! Edits carried out on an OCI configuration.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::spec::{DeviceNode, Edits, Hook, Mount};

/// Changes `spec` as `edits` say. An error where something can't be had: a
/// container without its device is not started.
pub fn inject(spec: &mut Value, edits: &Edits) -> Result<()> {
    for entry in &edits.env {
        set_env(list(spec, &["process", "env"])?, entry);
    }
    for node in &edits.device_nodes {
        add_node(spec, node).with_context(|| format!("device node {}", node.path))?;
    }
    if let Some(device) = edits.net_devices.first() {
        bail!("network device {device} can't be moved: the runtime has no netDevices");
    }
    for mount in &edits.mounts {
        add_mount(list(spec, &["mounts"])?, mount);
    }
    for hook in &edits.hooks {
        list(spec, &["hooks", &hook.hook_name])?.push(of_hook(hook));
    }
    let gids = list(spec, &["process", "user", "additionalGids"])?;
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        if !gids.contains(&json!(gid)) {
            gids.push(json!(gid));
        }
    }
    if let Some(rdt) = &edits.intel_rdt {
        object(spec, &["linux"])?.insert("intelRdt".into(), rdt.clone());
    }
    Ok(())
}

/// The object at this place, made if there is none.
fn object<'a>(spec: &'a mut Value, path: &[&str]) -> Result<&'a mut Map<String, Value>> {
    let mut at = spec;
    for key in path {
        at = at
            .as_object_mut()
            .context("the configuration is not an object")?
            .entry(*key)
            .or_insert_with(|| json!({}));
    }
    at.as_object_mut()
        .with_context(|| format!("{path:?} is not an object"))
}

fn list<'a>(spec: &'a mut Value, path: &[&str]) -> Result<&'a mut Vec<Value>> {
    let (last, parents) = path.split_last().context("no path")?;
    object(spec, parents)?
        .entry(*last)
        .or_insert_with(|| json!([]))
        .as_array_mut()
        .with_context(|| format!("{path:?} is not a list"))
}

/// Replaces the variable of that name, or adds it.
fn set_env(env: &mut Vec<Value>, entry: &str) {
    let key = entry.split('=').next();
    let same = env
        .iter_mut()
        .find(|old| old.as_str().and_then(|old| old.split('=').next()) == key);
    match same {
        Some(old) => *old = json!(entry),
        None => env.push(json!(entry)),
    }
}

fn add_node(spec: &mut Value, node: &DeviceNode) -> Result<()> {
    let host = if node.host_path.is_empty() {
        &node.path
    } else {
        &node.host_path
    };
    let mut kind = node.r#type.clone();
    let (mut major, mut minor, mut mode) = (node.major, node.minor, node.file_mode);
    let known = kind == "p" || (!kind.is_empty() && major.is_some() && minor.is_some());
    if !known {
        let meta = std::fs::metadata(host).with_context(|| host.clone())?;
        let found = if meta.file_type().is_block_device() {
            "b"
        } else if meta.file_type().is_char_device() {
            "c"
        } else if meta.file_type().is_fifo() {
            "p"
        } else {
            bail!("{host} is not a device");
        };
        if kind.is_empty() {
            found.clone_into(&mut kind);
        } else if kind != found && !(kind == "u" && found == "c") {
            bail!("{host} is of type {found}, not {kind}");
        }
        if kind != "p" {
            major = major.or(Some(i64::try_from(nix::sys::stat::major(meta.rdev()))?));
            minor = minor.or(Some(i64::try_from(nix::sys::stat::minor(meta.rdev()))?));
        }
        mode = mode.or(Some(meta.mode() & 0o7777));
    }
    let mut device = json!({"path": node.path, "type": kind});
    // Owned by the container's user unless somebody else is named.
    let owner = |key: &str| {
        spec.pointer(&format!("/process/user/{key}"))
            .and_then(Value::as_u64)
            .filter(|id| *id > 0)
    };
    let uid = node.uid.map(u64::from).or_else(|| owner("uid"));
    let gid = node.gid.map(u64::from).or_else(|| owner("gid"));
    if let Some(object) = device.as_object_mut() {
        for (key, value) in [
            ("major", major.map(|n| json!(n))),
            ("minor", minor.map(|n| json!(n))),
            ("fileMode", mode.map(|n| json!(n))),
            ("uid", uid.map(|n| json!(n))),
            ("gid", gid.map(|n| json!(n))),
        ] {
            if let Some(value) = value {
                object.insert(key.into(), value);
            }
        }
    }
    let devices = list(spec, &["linux", "devices"])?;
    devices.retain(|old| old.get("path").and_then(Value::as_str) != Some(&node.path));
    devices.push(device);
    if kind == "b" || kind == "c" {
        let access = match node.permissions.as_str() {
            "" => "rwm",
            given => given,
        };
        list(spec, &["linux", "resources", "devices"])?.push(json!({
            "allow": true, "type": kind, "major": major, "minor": minor, "access": access,
        }));
    }
    Ok(())
}

/// In the place of one with the same target, and before those below it.
fn add_mount(mounts: &mut Vec<Value>, mount: &Mount) {
    let target = |m: &Value| -> String {
        let text = m.get("destination").and_then(Value::as_str);
        text.unwrap_or_default().trim_end_matches('/').to_owned()
    };
    let is_bind = mount.options.iter().any(|o| o == "bind" || o == "rbind");
    let mut options = mount.options.clone();
    if mount.r#type.is_empty() && !is_bind {
        options.push("rbind".to_owned());
    }
    let kind = match mount.r#type.as_str() {
        "" => "bind",
        given => given,
    };
    let new = json!({
        "type": kind,
        "source": mount.host_path,
        "destination": mount.container_path,
        "options": options,
    });
    let own = target(&new);
    mounts.retain(|old| target(old) != own);
    let below = mounts
        .iter()
        .position(|old| Path::new(&target(old)).starts_with(&own));
    mounts.insert(below.unwrap_or(mounts.len()), new);
}

fn of_hook(hook: &Hook) -> Value {
    let mut value = json!({"path": hook.path});
    if let Some(object) = value.as_object_mut() {
        if !hook.args.is_empty() {
            object.insert("args".into(), json!(hook.args));
        }
        if !hook.env.is_empty() {
            object.insert("env".into(), json!(hook.env));
        }
        if let Some(timeout) = hook.timeout {
            object.insert("timeout".into(), json!(timeout));
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_carried_out() {
        let mut spec = json!({
            "process": {"env": ["A=1", "B=2"], "user": {"uid": 7, "gid": 8}},
            "mounts": [
                {"destination": "/a", "source": "x", "type": "bind"},
                {"destination": "/b/c", "source": "y", "type": "bind"},
            ],
            "linux": {"devices": [], "resources": {"devices": []}},
        });
        let edits: Edits = serde_json::from_value(json!({
            "env": ["A=3", "C=4"],
            "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null", "permissions": "rw"}],
            "mounts": [
                {"hostPath": "/n", "containerPath": "/a"},
                {"hostPath": "/m", "containerPath": "/b", "options": ["ro", "bind"]},
            ],
            "hooks": [{"hookName": "createContainer", "path": "/h", "args": ["h"], "timeout": 3}],
            "additionalGids": [0, 44],
        }))
        .expect("edits");
        inject(&mut spec, &edits).expect("inject");
        assert_eq!(
            spec.pointer("/process/env"),
            Some(&json!(["A=3", "B=2", "C=4"]))
        );
        let device = spec.pointer("/linux/devices/0").expect("device");
        assert_eq!(device.get("major"), Some(&json!(1)));
        assert_eq!(device.get("uid"), Some(&json!(7)));
        let rule = spec.pointer("/linux/resources/devices/0").expect("rule");
        assert_eq!(rule.get("access"), Some(&json!("rw")));
        let targets: Vec<_> = spec
            .get("mounts")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|m| m.get("destination")?.as_str())
            .collect();
        assert_eq!(targets, ["/b", "/b/c", "/a"]);
        assert_eq!(
            spec.pointer("/hooks/createContainer/0/timeout"),
            Some(&json!(3))
        );
        assert_eq!(
            spec.pointer("/process/user/additionalGids"),
            Some(&json!([44]))
        );
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let edits = Edits {
            device_nodes: vec![DeviceNode {
                path: "/dev/no-such-device".into(),
                ..DeviceNode::default()
            }],
            ..Edits::default()
        };
        assert!(inject(&mut json!({}), &edits).is_err());
    }
}
