//! The OCI runtime configuration (`config.json`) of a container.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};
use tonic::Status;

use super::mounts::{self, ImageMount};
use super::security;
use super::user::{self, Databases};
use super::{resources, seccomp};
use crate::cdi;
use crate::images::ProcessDefaults;
use crate::images::idmap::IdMap;
use crate::node::Node;
use crate::pods::files;
use crate::proto::{
    LinuxContainerSecurityContext, LinuxContainerUser, NamespaceMode, SupplementalGroupsPolicy,
};
use crate::store::{ContainerRecord, PodRecord};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub struct Input<'a> {
    pub node: &'a Node,
    pub pod: &'a PodRecord,
    pub container: &'a ContainerRecord,
    pub defaults: &'a ProcessDefaults,
    pub bundle: &'a Path,
    pub image_mounts: &'a [ImageMount],
    /// Ids of the pod's user namespace, where files have to be mapped.
    pub ids: Option<&'a IdMap>,
    /// The runtime is a sandbox: what only the host's kernel means is left out.
    pub sandboxed: bool,
}

pub struct Built {
    pub spec: Value,
    pub stop_signal: String,
    pub user: LinuxContainerUser,
}

pub fn build(input: &Input<'_>) -> Result<Built> {
    let config = &input.container.config;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let rootfs = input.bundle.join("rootfs");
    let user = resolve_user(input, &security, &rootfs)?;
    check_ids(input.pod, &user)?;
    let process = process(input, &security, &user)?;
    let mut oci_linux = Map::new();
    oci_linux.insert("namespaces".into(), namespaces(input, &security)?);
    oci_linux.insert(
        "cgroupsPath".into(),
        json!(cgroup_path(input.node, input.pod, &input.container.id)),
    );
    let mut limits = resources::oci(linux.resources.as_ref());
    let devices = security::devices(config, security.privileged, input.sandboxed)?;
    limits.insert("devices".into(), json!(devices.rules));
    oci_linux.insert("resources".into(), Value::Object(limits));
    oci_linux.insert("devices".into(), json!(devices.nodes));
    if let Some(label) = security::selinux_label(security.selinux_options.as_ref()) {
        oci_linux.insert("mountLabel".into(), json!(label));
    }
    if !security.privileged {
        oci_linux.insert("maskedPaths".into(), json!(security.masked_paths));
        oci_linux.insert("readonlyPaths".into(), json!(security.readonly_paths));
        // A sandbox is more than the default profile; a profile that is named is
        // for the processes inside.
        if let Some(profile) = seccomp::profile(&security)?
            && !(input.sandboxed && seccomp::is_default(&security))
        {
            oci_linux.insert("seccomp".into(), profile);
        }
    }
    let mounts = mounts::all(input, &security)?;
    if let Some(propagation) = mounts.root_propagation {
        oci_linux.insert("rootfsPropagation".into(), json!(propagation));
    }
    add_user_namespace(input, &mut oci_linux);
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": rootfs, "readonly": security.readonly_rootfs},
        "mounts": mounts.list,
        "annotations": annotations(input),
        "linux": oci_linux,
    });
    if !input.pod.host_network()
        && let Some(object) = spec.as_object_mut()
    {
        object.insert("hostname".into(), json!(files::hostname(input.pod)));
    }
    inject_devices(input, &mut spec)?;
    Ok(Built {
        spec,
        stop_signal: stop_signal(input),
        user: LinuxContainerUser {
            uid: i64::from(user.uid),
            gid: i64::from(user.gid),
            supplemental_groups: user.groups.iter().map(|g| i64::from(*g)).collect(),
        },
    })
}

/// Devices named by the Container Device Interface.
fn inject_devices(input: &Input<'_>, spec: &mut Value) -> Result<()> {
    let names = cdi::wanted(&input.container.config);
    if names.is_empty() {
        return Ok(());
    }
    let refused = |err: anyhow::Error| Status::invalid_argument(format!("{err:#}"));
    for edits in cdi::resolve(&input.node.config.cdi_spec_dirs, &names).map_err(refused)? {
        if input.sandboxed
            && let Some(node) = edits.device_nodes.first()
        {
            return Err(security::no_device(&node.path).into());
        }
        cdi::inject(spec, &edits).map_err(refused)?;
    }
    Ok(())
}

/// The request's signal, else the image's, else SIGTERM.
fn stop_signal(input: &Input<'_>) -> String {
    let requested = input.container.config.stop_signal();
    if requested != crate::proto::Signal::RuntimeDefault {
        return super::lifecycle::signal_name(requested);
    }
    match &input.defaults.stop_signal {
        Some(signal) if !signal.is_empty() => signal.clone(),
        _ => "SIGTERM".to_owned(),
    }
}

fn resolve_user(
    input: &Input<'_>,
    security: &LinuxContainerSecurityContext,
    rootfs: &Path,
) -> Result<user::User> {
    let databases = Databases::read(rootfs);
    let mut text = match (&security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => user::id(uid.value, "run_as_user")?.to_string(),
        (None, "") => input.defaults.user.clone().unwrap_or_default(),
        (None, name) => name.to_owned(),
    };
    if let Some(gid) = &security.run_as_group {
        if security.run_as_user.is_none() && security.run_as_username.is_empty() {
            return Err(Status::invalid_argument("run_as_group without a user").into());
        }
        let user = text.split(':').next().unwrap_or_default();
        text = format!("{user}:{}", user::id(gid.value, "run_as_group")?);
    }
    let mut user = databases
        .resolve(&text)
        .map_err(|err| Status::invalid_argument(format!("{err:#}")))?;
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Strict {
        user.groups.clear();
    }
    for group in &security.supplemental_groups {
        user.groups.push(user::id(*group, "supplemental group")?);
    }
    // The primary group is one of the groups, as login makes it.
    user.groups.insert(0, user.gid);
    let mut seen = std::collections::HashSet::new();
    user.groups.retain(|g| seen.insert(*g));
    Ok(user)
}

/// Ids of the process exist in the pod's user namespace.
fn check_ids(pod: &PodRecord, user: &user::User) -> Result<()> {
    let Some(options) = pod.user_namespace() else {
        return Ok(());
    };
    let mapped = |id: u32, maps: &[crate::proto::IdMapping]| {
        maps.iter().any(|m| {
            id.checked_sub(m.container_id)
                .is_some_and(|offset| offset < m.length)
        })
    };
    let groups = user
        .groups
        .iter()
        .all(|group| mapped(*group, &options.gids));
    if !mapped(user.uid, &options.uids) || !groups {
        return Err(Status::invalid_argument(format!(
            "user {} or one of the groups {:?} is not mapped in the pod's user namespace",
            user.uid, user.groups
        ))
        .into());
    }
    Ok(())
}

fn process(
    input: &Input<'_>,
    security: &LinuxContainerSecurityContext,
    user: &user::User,
) -> Result<Value> {
    let config = &input.container.config;
    let defaults = input.defaults;
    // As Kubernetes has it: a command replaces entrypoint and cmd, args alone
    // replace cmd.
    let (mut args, tail) = if config.command.is_empty() {
        let tail = if config.args.is_empty() {
            defaults.cmd.clone().unwrap_or_default()
        } else {
            config.args.clone()
        };
        (defaults.entrypoint.clone().unwrap_or_default(), tail)
    } else {
        (config.command.clone(), config.args.clone())
    };
    args.extend(tail);
    if args.is_empty() {
        return Err(Status::invalid_argument("neither image nor request names a command").into());
    }
    let mut cwd = config.working_dir.clone();
    if cwd.is_empty() {
        cwd = defaults.working_dir.clone().unwrap_or_default();
    }
    if cwd.is_empty() {
        "/".clone_into(&mut cwd);
    }
    let mut process = json!({
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": args,
        "env": environment(input)?,
        "cwd": cwd,
        "capabilities": security::capabilities(security)?,
        "noNewPrivileges": security.no_new_privs,
    });
    if let Some(object) = process.as_object_mut() {
        let oom = config
            .linux
            .as_ref()
            .and_then(|l| l.resources.as_ref())
            .map_or(0, |r| security::permitted_oom_score(r.oom_score_adj));
        object.insert("oomScoreAdj".into(), json!(oom));
        if let Some(profile) = security::apparmor(security)? {
            object.insert("apparmorProfile".into(), json!(profile));
        }
        if let Some(label) = security::selinux_label(security.selinux_options.as_ref()) {
            object.insert("selinuxLabel".into(), json!(label));
        }
    }
    Ok(process)
}

/// PATH, HOSTNAME, TERM, then the image's, then the request's; later ones win.
fn environment(input: &Input<'_>) -> Result<Vec<String>> {
    let config = &input.container.config;
    let mut all = vec![
        DEFAULT_PATH.to_owned(),
        format!("HOSTNAME={}", files::hostname(input.pod)),
    ];
    if config.tty {
        all.push("TERM=xterm".to_owned());
    }
    all.extend(input.defaults.env.iter().flatten().cloned());
    for pair in &config.envs {
        let value = String::from_utf8(pair.value.clone()).map_err(|_| {
            Status::invalid_argument(format!("the value of {:?} is not UTF-8", pair.key))
        })?;
        all.push(format!("{}={value}", pair.key));
    }
    let mut merged: Vec<String> = Vec::new();
    for entry in all {
        let key = entry.split('=').next().unwrap_or_default();
        let same = merged
            .iter_mut()
            .find(|old| old.split('=').next() == Some(key));
        match same {
            Some(old) => *old = entry,
            None => merged.push(entry),
        }
    }
    Ok(merged)
}

fn namespaces(input: &Input<'_>, security: &LinuxContainerSecurityContext) -> Result<Value> {
    let pinned = input.node.pod_state(&input.pod.id).join("ns");
    let pod = input.pod.namespaces();
    let mut list = vec![json!({"type": "mount"})];
    if !input.pod.host_network() {
        list.push(json!({"type": "network", "path": pinned.join("net")}));
        list.push(json!({"type": "uts", "path": pinned.join("uts")}));
    }
    if pod.ipc() != NamespaceMode::Node {
        list.push(json!({"type": "ipc", "path": pinned.join("ipc")}));
    }
    let options = security.namespace_options.clone().unwrap_or_default();
    match options.pid() {
        NamespaceMode::Node => {}
        NamespaceMode::Container => list.push(json!({"type": "pid"})),
        NamespaceMode::Pod => {
            let path = pinned.join("pid");
            if input.sandboxed {
                // One that names none is in the sandbox's.
            } else if path.exists() {
                list.push(json!({"type": "pid", "path": path}));
            } else {
                list.push(json!({"type": "pid"}));
            }
        }
        NamespaceMode::Target => {
            let target = input.node.container(&options.target_id)?.record();
            if target.pod != input.pod.id || !target.alive() {
                return Err(Status::invalid_argument(format!(
                    "target container {} is not a running one of this pod",
                    options.target_id
                ))
                .into());
            }
            list.push(json!({"type": "pid", "path": format!("/proc/{}/ns/pid", target.pid)}));
        }
    }
    if resources::unified_hierarchy() && !security.privileged {
        list.push(json!({"type": "cgroup"}));
    }
    Ok(Value::Array(list))
}

fn add_user_namespace(input: &Input<'_>, linux: &mut Map<String, Value>) {
    let pinned = input.node.pod_state(&input.pod.id).join("ns/user");
    let Some(options) = input.pod.namespaces().userns_options else {
        return;
    };
    if options.mode() != NamespaceMode::Pod || !pinned.exists() {
        return;
    }
    let map = |list: &[crate::proto::IdMapping]| -> Vec<Value> {
        list.iter()
            .map(|m| json!({"containerID": m.container_id, "hostID": m.host_id, "size": m.length}))
            .collect()
    };
    if let Some(Value::Array(list)) = linux.get_mut("namespaces") {
        list.push(json!({"type": "user", "path": pinned}));
    }
    // With a path the mappings are those of the namespace; they are given for
    // mounts.
    linux.insert("uidMappings".into(), json!(map(&options.uids)));
    linux.insert("gidMappings".into(), json!(map(&options.gids)));
}

/// The cgroup of container (or sandbox) `id` of a pod.
pub fn cgroup_path(node: &Node, pod: &PodRecord, id: &str) -> String {
    let parent = match pod.cgroup_parent() {
        "" => &node.config.cgroup_parent,
        parent => parent,
    };
    match node.config.cgroup_driver {
        crate::config::CgroupDriver::Cgroupfs => {
            format!("{}/{id}", parent.trim_end_matches('/'))
        }
        crate::config::CgroupDriver::Systemd => {
            let slice = parent.rsplit('/').next().unwrap_or_default();
            let slice = if slice.ends_with(".slice") {
                slice
            } else {
                "system.slice"
            };
            format!("{slice}:runsc-cri:{id}")
        }
    }
}

/// What runtimes and tools look for: names as containerd has them. The
/// container's own annotations are not the runtime's business; the pod's are
/// passed where they are addressed to a sandbox.
fn annotations(input: &Input<'_>) -> Value {
    let pod = input.pod.metadata();
    let mut all = Map::new();
    for (name, value) in [
        ("container-type", "container"),
        ("sandbox-id", input.pod.id.as_str()),
        ("sandbox-name", pod.name.as_str()),
        ("sandbox-namespace", pod.namespace.as_str()),
        ("sandbox-uid", pod.uid.as_str()),
        ("container-name", input.container.metadata().name.as_str()),
        (
            "image-name",
            input
                .container
                .config
                .image
                .as_ref()
                .map_or("", |i| i.image.as_str()),
        ),
    ] {
        all.insert(format!("io.kubernetes.cri.{name}"), json!(value));
    }
    for (key, value) in &input.pod.config.annotations {
        if key.starts_with("dev.gvisor.") || key.starts_with("dev.runsc.") {
            all.insert(key.clone(), json!(value));
        }
    }
    Value::Object(all)
}
