//! The sandbox of a pod whose runtime puts all containers of a pod into one:
//! made with the pod, without an image, by a container whose only process
//! waits for ever. The containers follow by their annotations.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::files;
use crate::containers::spec::cgroup_path;
use crate::node::Node;
use crate::proto::NamespaceMode;
use crate::store::{Pod, PodRecord};
use crate::supervisor::protocol::{Create, Event, Request};

/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
/// Bytes of its ELF header and of its one program header.
const HEADERS: u64 = 64 + 56;

/// `sigaction(SIGCHLD, SIG_IGN)`, so that orphans need no wait, then
/// `pause()` for ever.
const CODE: [u8; 41] = [
    0x31, 0xc0, // xor eax, eax
    0x50, 0x50, 0x50, // push rax, three times: flags, restorer, mask
    0x6a, 0x01, // push 1: SIG_IGN
    0xb8, 0x0d, 0x00, 0x00, 0x00, // mov eax, SYS_rt_sigaction
    0xbf, 0x11, 0x00, 0x00, 0x00, // mov edi, SIGCHLD
    0x48, 0x89, 0xe6, // mov rsi, rsp
    0x31, 0xd2, // xor edx, edx
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov r10d, 8
    0x0f, 0x05, // syscall
    0xb8, 0x22, 0x00, 0x00, 0x00, // again: mov eax, SYS_pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp again
    0x0f, 0x0b, // ud2
];

/// The program as a static ELF file of one read-only segment.
fn program() -> Vec<u8> {
    let len = HEADERS + CODE.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.extend([0; 8]);
    // ET_EXEC for x86-64, version 1.
    file.extend([2, 0, 0x3e, 0, 1, 0, 0, 0]);
    for value in [BASE + HEADERS, 64, 0] {
        file.extend(value.to_le_bytes());
    }
    // No flags; sizes of the headers, one program header, no sections.
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for value in [0, BASE, BASE, len, len, 0x1000] {
        file.extend(value.to_le_bytes());
    }
    file.extend(CODE);
    file
}

/// Makes and starts the sandbox.
pub async fn create(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    let record = pod.record();
    let runtime = node.runtime(&record.handler)?;
    let bundle = node.pod_state(&pod.id).join("sandbox");
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("pause"), program())?;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(root.join("pause"), mode)?;
    let text = serde_json::to_vec_pretty(&spec(node, &record))?;
    std::fs::write(bundle.join("config.json"), text)?;
    let runtime_log = bundle.join("runtime.log");
    let mut command = runtime.command(&runtime_log);
    let pid_file = bundle.join("pid");
    command.extend(["create", "--bundle"].map(str::to_owned));
    command.push(bundle.display().to_string());
    command.push("--pid-file".to_owned());
    command.push(pid_file.display().to_string());
    // Its parent is the supervisor, as that of all containers.
    let request = Request::Create(Create {
        container: pod.id.clone(),
        command,
        tail: vec![pod.id.clone()],
        pid_file,
        runtime_log,
        log_path: None,
        tty: false,
        stdin: false,
        stdin_once: false,
        console_socket: node.socket(&pod.id, ".c"),
        exit_file: bundle.join("exit.json"),
        max_log_line: node.config.max_log_line,
    });
    let client = node.supervisor(&pod.id);
    let limit = Duration::from_secs(node.config.runtime_timeout_s);
    let created = tokio::time::timeout(limit, client.call(&request))
        .await
        .context("the runtime's create takes too long")?;
    match created.context("the pod's sandbox can't be made")? {
        Event::Created { .. } => {}
        other => bail!("the supervisor answered {other:?}"),
    }
    let started = runtime.start(&pod.id).await;
    started.context("the pod's sandbox can't be started")
}

/// Ends it and all that runs in it. Repeatable.
pub async fn delete(node: &Arc<Node>, pod: &Arc<Pod>) -> Result<()> {
    let runtime = node.runtime(&pod.record().handler)?;
    if runtime.sandboxed {
        runtime.delete(&pod.id).await?;
    }
    Ok(())
}

fn spec(node: &Node, record: &PodRecord) -> Value {
    let pinned = node.pod_state(&record.id).join("ns");
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "pid"})];
    if !record.host_network() {
        namespaces.push(json!({"type": "network", "path": pinned.join("net")}));
        namespaces.push(json!({"type": "uts", "path": pinned.join("uts")}));
    }
    if record.namespaces().ipc() != NamespaceMode::Node {
        namespaces.push(json!({"type": "ipc", "path": pinned.join("ipc")}));
    }
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 65535, "gid": 65535},
            "args": ["/pause"],
            "cwd": "/",
            "noNewPrivileges": true,
            "oomScoreAdj": 0,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": files::hostname(record),
        "annotations": {
            "io.kubernetes.cri.container-type": "sandbox",
            "io.kubernetes.cri.sandbox-id": record.id,
        },
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup_path(node, record, &record.id),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_waits_natively() {
        let path = std::env::temp_dir().join(format!("cri-pause-{}", std::process::id()));
        std::fs::write(&path, program()).expect("write");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("mode");
        let mut child = std::process::Command::new(&path).spawn().expect("start");
        std::thread::sleep(Duration::from_millis(100));
        assert!(child.try_wait().expect("wait").is_none());
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", child.id()));
        assert!(call.expect("call").starts_with("34 "), "it is in pause(2)");
        child.kill().expect("kill");
        child.wait().expect("wait");
        std::fs::remove_file(&path).expect("remove");
    }
}
