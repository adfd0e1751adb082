//! Pods: one sandbox with many containers. The annotations of containerd's
//! CRI plug-in and of CRI-O say which container a sandbox is made with, and
//! which ones run in it.
//!
//! A further container has its own root, gofer and mount namespace; an
//! attendant is its host process. It shares the network of the pod, and pid,
//! IPC and UTS namespaces as its configuration says.
//! The sandbox ends with the container it was made with.

use std::os::fd::RawFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::attendant::{self, Attended, Guest, NewContainer};
use crate::boot::TerminalOwner;
use crate::cli::Global;
use crate::control::Client;
use crate::creation::Creation;
use crate::gofer_process;
use crate::launch::{self, Created};
use crate::plan::{ContainerPlan, PodNamespace, PodPlan, SharesPlan};
use crate::state::{Status, Store};

/// Annotations with the kind of a container and the id of its sandbox.
const NAMES: [(&str, &str); 2] = [
    (
        "io.kubernetes.cri.container-type",
        "io.kubernetes.cri.sandbox-id",
    ),
    (
        "io.kubernetes.cri-o.ContainerType",
        "io.kubernetes.cri-o.SandboxID",
    ),
];

/// The place in a pod that a configuration asks for; `None` for containers
/// that get a sandbox of their own.
pub fn of_spec(spec: &Spec) -> Result<Option<PodPlan>> {
    let annotations = spec.annotations().as_ref();
    let get = |name: &str| annotations.and_then(|all| all.get(name).map(String::as_str));
    let Some((_, sandbox_name)) = NAMES
        .into_iter()
        .find(|(kind, _)| get(kind) == Some("container"))
    else {
        return Ok(None);
    };
    let sandbox = get(sandbox_name).unwrap_or_default();
    ensure!(
        !sandbox.is_empty(),
        "annotation {sandbox_name} is missing, which names the sandbox of this container"
    );
    Ok(Some(PodPlan {
        sandbox: sandbox.to_owned(),
        pid: namespace(spec, LinuxNamespaceType::Pid),
        ipc: namespace(spec, LinuxNamespaceType::Ipc),
        uts: namespace(spec, LinuxNamespaceType::Uts),
    }))
}

fn namespace(spec: &Spec, kind: LinuxNamespaceType) -> PodNamespace {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    let wanted = namespaces
        .into_iter()
        .flatten()
        .find(|namespace| namespace.typ() == kind);
    match wanted.map(|namespace| namespace.path().as_deref()) {
        Some(None) => PodNamespace::Own,
        // Other paths are of files that engines bind to the pod's namespaces.
        Some(Some(path)) => process_of(path).map_or(PodNamespace::Sandbox, PodNamespace::Of),
        // The host's is out of reach: the pod's is the widest there is.
        None => PodNamespace::Sandbox,
    }
}

/// The pid in `/proc/PID/ns/TYPE`.
fn process_of(path: &Path) -> Option<i32> {
    let rest = path.strip_prefix("/proc").ok()?;
    let pid = rest.parent()?.parent()?;
    pid.to_str()?.parse().ok()
}

/// The containers whose namespaces one of this plan shares.
fn shares(store: &Store, pod: &PodPlan) -> Result<SharesPlan> {
    Ok(SharesPlan {
        pid_of: namespace_of(store, pod, &pod.pid)?,
        ipc_of: namespace_of(store, pod, &pod.ipc)?,
        uts_of: namespace_of(store, pod, &pod.uts)?,
    })
}

fn namespace_of(store: &Store, pod: &PodPlan, plan: &PodNamespace) -> Result<Option<String>> {
    let wanted = match *plan {
        PodNamespace::Own => return Ok(None),
        PodNamespace::Sandbox => return Ok(Some(pod.sandbox.clone())),
        PodNamespace::Of(pid) => pid,
    };
    for id in store.ids()? {
        let Ok(record) = store.peek(&id) else {
            continue;
        };
        let sandbox = record.plan.pod.as_ref().map(|pod| pod.sandbox.as_str());
        let same_pod = sandbox.unwrap_or(&id) == pod.sandbox;
        if same_pod && record.pid == wanted {
            return Ok(Some(id));
        }
    }
    bail!("process {wanted}, whose namespace is to be shared, is no container of the pod")
}

/// Creates a further container of a pod, ready to start.
pub fn create(
    global: &Global,
    plan: ContainerPlan,
    stdio: &[RawFd],
    terminal: TerminalOwner,
) -> Result<Created> {
    let pod = plan.pod.clone().context("the container is in no pod")?;
    let store = global.store();
    let sandbox = store
        .peek(&pod.sandbox)
        .with_context(|| format!("sandbox {} can't be used", pod.sandbox))?;
    ensure!(
        sandbox.plan.pod.is_none() && pod.sandbox != plan.id,
        "container {} is no sandbox, but runs in one",
        pod.sandbox
    );
    ensure!(
        matches!(
            sandbox.status,
            Status::Created | Status::Running | Status::Paused
        ),
        "sandbox {} is {}",
        pod.sandbox,
        sandbox.status.name()
    );
    let shares = shares(&store, &pod)?;
    let mut creation = Creation::begin(&store, plan)?;
    let client = Client::new(&creation.entry()?.control_path_of(&pod.sandbox));
    let cgroup = creation.record.cgroup.clone();
    let log = launch::open_log(global, terminal)?;
    let home = launch::Home::of(cgroup.as_ref());
    let roots = creation.record.plan.gofer_roots();
    let (gofer_pid, gofer) =
        gofer_process::start(&roots, &log, &home, |pid| creation.note_gofer(pid))?;
    creation.owns(gofer_pid);
    let exit_status = creation.exit_file()?;
    let plan = creation.record.plan.clone();
    let attended = Attended {
        container: &plan.id,
        network_of: sandbox.pid,
        client: &client,
        guest: Guest::Container(Box::new(NewContainer {
            plan: plan.clone(),
            gofer,
            shares,
            cgroup: cgroup.clone(),
            exit_status,
        })),
        stdio: stdio.to_vec(),
    };
    let pid = attendant::start(attended, &home, |pid| {
        if let Some(score) = plan.process.oom_score_adj {
            launch::set_oom_score(pid, score)?;
        }
        creation.note_process(pid)
    });
    let pid = pid.context("unable to start container process")?;
    creation.owns(Pid::from_raw(pid));
    creation.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotations: &str, namespaces: &str) -> Result<Option<PodPlan>> {
        let text = format!(
            r#"{{"ociVersion": "1.2.0", "root": {{"path": "r"}},
                 "annotations": {annotations}, "linux": {{"namespaces": {namespaces}}}}}"#
        );
        of_spec(&serde_json::from_str(&text).expect("json"))
    }

    #[test]
    fn annotations_of_both_engines() {
        let containerd = r#"{"io.kubernetes.cri.container-type": "container",
                             "io.kubernetes.cri.sandbox-id": "pod"}"#;
        let plan = of(containerd, r#"[{"type": "pid"}]"#).expect("valid");
        let plan = plan.expect("in a pod");
        assert_eq!(plan.sandbox, "pod");
        assert_eq!(
            (plan.pid, plan.uts),
            (PodNamespace::Own, PodNamespace::Sandbox)
        );
        let crio = r#"{"io.kubernetes.cri-o.ContainerType": "container",
                       "io.kubernetes.cri-o.SandboxID": "other"}"#;
        let shared = r#"[{"type": "pid", "path": "/proc/42/ns/pid"}]"#;
        let plan = of(crio, shared).expect("valid").expect("in a pod");
        assert_eq!(plan.pid, PodNamespace::Of(42));
        let sandbox = r#"{"io.kubernetes.cri.container-type": "sandbox",
                          "io.kubernetes.cri.sandbox-id": "pod"}"#;
        assert_eq!(of(sandbox, "[]").expect("valid"), None);
        assert_eq!(of("{}", "[]").expect("valid"), None);
        let broken = r#"{"io.kubernetes.cri.container-type": "container"}"#;
        assert!(of(broken, "[]").is_err());
    }
}
