//! The kubelet's loops: what it calls, in its order.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::Shared;

pub fn cases() -> Vec<Case> {
    vec![
        case!("kubelet/sync", sync),
        case!("kubelet/probes", probes),
        case!("kubelet/cgroup-parent", cgroup_parent),
        case!("kubelet/many-syncs", many_syncs),
    ]
}

/// Labels as the kubelet sets them, by which it finds its objects again.
fn labels(pod: &str, container: Option<&str>) -> std::collections::HashMap<String, String> {
    let mut all = vec![
        ("io.kubernetes.pod.name".to_owned(), pod.to_owned()),
        ("io.kubernetes.pod.namespace".to_owned(), "suite".to_owned()),
        ("io.kubernetes.pod.uid".to_owned(), format!("uid-{pod}")),
    ];
    if let Some(name) = container {
        all.push(("io.kubernetes.container.name".to_owned(), name.to_owned()));
    }
    all.into_iter().collect()
}

/// A pod from its creation to its end: sandbox, init container, two
/// containers, a crash with restart, graceful termination, removal.
async fn one_pod(env: &Shared) -> Result<()> {
    let mut client = env.runtime().await?;
    let mut config = env.pod_config();
    let name = config.metadata.clone().unwrap_or_default().name;
    config.labels = labels(&name, None);
    let pod = env.run_pod(&config).await?;
    let status = client
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: pod.clone(),
            verbose: false,
        })
        .await?
        .into_inner()
        .status
        .unwrap_or_default();
    ensure!(
        status.state() == PodSandboxState::SandboxReady,
        "{status:?}"
    );
    // Init container: to its end, with success, before the others.
    let mut init = env.container_config("init", &["sh", "-c", "echo prepared"]);
    init.labels = labels(&name, Some("init"));
    let init = env.create(&pod, &config, &init).await?;
    env.start_container(&init).await?;
    let done = env.wait_exit(&init).await?;
    ensure!(
        done.exit_code == 0 && done.reason == "Completed",
        "{done:?}"
    );
    // A sidecar that goes on, a main container that crashes once.
    let script = "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done";
    let mut sidecar = env.container_config("sidecar", &["sh", "-c", script]);
    sidecar.labels = labels(&name, Some("sidecar"));
    let sidecar = env.create(&pod, &config, &sidecar).await?;
    env.start_container(&sidecar).await?;
    let mut main = env.container_config("main", &["sh", "-c", "exit 9"]);
    main.labels = labels(&name, Some("main"));
    let first = env.create(&pod, &config, &main).await?;
    env.start_container(&first).await?;
    ensure!(env.wait_exit(&first).await?.exit_code == 9);
    // PLEG: the relist sees three, by the labels of the pod.
    let filter = ContainerFilter {
        label_selector: labels(&name, None),
        ..ContainerFilter::default()
    };
    let seen = client
        .list_containers(ListContainersRequest {
            filter: Some(filter.clone()),
        })
        .await?
        .into_inner()
        .containers;
    ensure!(seen.len() == 3, "{seen:?}");
    let exited = seen
        .iter()
        .filter(|c| c.state() == ContainerState::ContainerExited)
        .count();
    ensure!(exited == 2, "{seen:?}");
    main.metadata.get_or_insert_default().attempt = 1;
    main.command = ["sleep", "1000"].map(str::to_owned).to_vec();
    main.log_path = "main/1.log".into();
    let second = env.create(&pod, &config, &main).await?;
    env.start_container(&second).await?;
    ensure!(env.status(&second).await?.state() == ContainerState::ContainerRunning);
    // The garbage collection removes the dead attempt; its log is the
    // kubelet's to remove.
    let log = env.status(&first).await?.log_path;
    let request = RemoveContainerRequest {
        container_id: first,
    };
    client.remove_container(request).await?;
    ensure!(std::path::Path::new(&log).exists(), "the log has gone");
    // Termination: all containers at once, with grace.
    let (one, two) = tokio::join!(env.stop(&sidecar, 10), env.stop(&second, 1));
    one?;
    two?;
    let ended = env.status(&sidecar).await?;
    ensure!(ended.exit_code == 0, "{ended:?}");
    let stop = StopPodSandboxRequest {
        pod_sandbox_id: pod.clone(),
    };
    client.stop_pod_sandbox(stop).await?;
    let status = client
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: pod.clone(),
            verbose: false,
        })
        .await?
        .into_inner();
    let status = status.status.unwrap_or_default();
    ensure!(
        status.state() == PodSandboxState::SandboxNotready,
        "{status:?}"
    );
    // The dead pod's containers can still be asked about.
    ensure!(env.status(&second).await?.exit_code != 0);
    let remove = RemovePodSandboxRequest {
        pod_sandbox_id: pod.clone(),
    };
    client.remove_pod_sandbox(remove).await?;
    let left = client.list_containers(ListContainersRequest {
        filter: Some(filter),
    });
    ensure!(left.await?.into_inner().containers.is_empty());
    Ok(())
}

async fn sync(env: Shared) -> Result<()> {
    one_pod(&env).await
}

async fn many_syncs(env: Shared) -> Result<()> {
    let pods = (0..30).map(|_| one_pod(&env));
    for done in futures_util::future::join_all(pods).await {
        done?;
    }
    Ok(())
}

/// Exec probes by the runtime, HTTP and TCP probes from the node.
async fn probes(env: Shared) -> Result<()> {
    let script = "mkdir /www && echo fine > /www/index.html && exec httpd -f -p 8080 -h /www";
    let (_, pod, id) = env.simple(&["sh", "-c", script]).await?;
    let address = format!("{}:8080", env.pod_ip(&pod).await?);
    ensure!(env.fetch(&address).await? == "fine\n");
    for round in 0..20 {
        let code = env
            .exec(&id, &["sh", "-c", &format!("exit {}", round % 2)])
            .await?;
        ensure!(code.exit_code == round % 2, "{code:?}");
        tokio::net::TcpStream::connect(&address)
            .await
            .context("tcp probe")?;
    }
    if !env.own {
        // containerd waits for the child that keeps the output open.
        return Ok(());
    }
    // Time-outs do not leave processes behind.
    let hung = (0..10).map(|_| async {
        let mut client = env.runtime().await?;
        let request = ExecSyncRequest {
            container_id: id.clone(),
            cmd: ["sh", "-c", "sleep 4321 & wait"]
                .map(str::to_owned)
                .to_vec(),
            timeout: 1,
        };
        ensure!(client.exec_sync(request).await.is_err());
        anyhow::Ok(())
    });
    for done in futures_util::future::join_all(hung).await {
        done?;
    }
    Ok(())
}

/// The kubelet makes the pod's cgroup; containers go into it.
async fn cgroup_parent(env: Shared) -> Result<()> {
    let parent = format!("/cri-suite-{}/burstable/pod1", std::process::id());
    let mut config = env.pod_config();
    config
        .linux
        .get_or_insert_default()
        .cgroup_parent
        .clone_from(&parent);
    let pod = env.run_pod(&config).await?;
    let id = env.running(&pod, &config, "main").await?;
    let found = std::fs::read_dir("/sys/fs/cgroup")?
        .flatten()
        .map(|e| e.path())
        .chain(["/sys/fs/cgroup".into()])
        .any(|base| base.join(parent.trim_start_matches('/')).join(&id).is_dir());
    ensure!(found, "no cgroup {parent}/{id}");
    env.remove_pod(&pod).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for base in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let dir = base.path().join(parent.trim_start_matches('/')).join(&id);
        ensure!(!dir.exists(), "{} stays", dir.display());
    }
    Ok(())
}
