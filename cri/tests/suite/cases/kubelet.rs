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
        case!("kubelet/relist-events", relist_events, own),
        case!("kubelet/resize", resize),
        case!("kubelet/termination", termination),
        case!("kubelet/follow", follow),
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

/// States of all containers of the suite, as a relist sees them.
async fn relist(env: &Shared) -> Result<std::collections::BTreeMap<String, ContainerState>> {
    let mut client = env.runtime().await?;
    let all = client.list_containers(ListContainersRequest::default());
    let all = all.await?.into_inner().containers;
    Ok(all.into_iter().map(|c| (c.id.clone(), c.state())).collect())
}

/// Events and relists tell the same story: whoever heard all events knows what
/// the next list says.
async fn relist_events(env: Shared) -> Result<()> {
    let mut stream = env
        .runtime()
        .await?
        .get_container_events(GetEventsRequest::default())
        .await?
        .into_inner();
    let pods = (0..6).map(|number| {
        let env = env.clone();
        async move {
            let config = env.pod_config();
            let pod = env.run_pod(&config).await?;
            let stays = env.running(&pod, &config, "stays").await?;
            let ends = env.container_config("ends", &["sh", "-c", "exit 5"]);
            let ends = env.create(&pod, &config, &ends).await?;
            env.start_container(&ends).await?;
            env.wait_exit(&ends).await?;
            if number % 2 == 0 {
                env.remove_pod(&pod).await?;
                return anyhow::Ok(Vec::new());
            }
            Ok(vec![stays, ends])
        }
    });
    let mut expected = Vec::new();
    for done in futures_util::future::join_all(pods).await {
        expected.extend(done?);
    }
    let mut heard = std::collections::BTreeMap::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(2), stream.message());
        let Ok(event) = next.await else { break };
        let event = event?.context("the events have ended")?;
        // The statuses that come with an event are of its time or later.
        let id = event.container_id.clone();
        match event.container_event_type() {
            ContainerEventType::ContainerDeletedEvent => drop(heard.remove(&id)),
            ContainerEventType::ContainerCreatedEvent => {
                heard.insert(id, ContainerState::ContainerCreated);
            }
            ContainerEventType::ContainerStartedEvent => {
                // A short life may be over before its start is told.
                let known = heard.entry(id).or_insert(ContainerState::ContainerRunning);
                if *known != ContainerState::ContainerExited {
                    *known = ContainerState::ContainerRunning;
                }
            }
            ContainerEventType::ContainerStoppedEvent => {
                heard.insert(id, ContainerState::ContainerExited);
            }
        }
    }
    let listed = relist(&env).await?;
    heard.retain(|id, _| expected.contains(id));
    ensure!(listed == heard, "listed {listed:?}, heard {heard:?}");
    ensure!(listed.len() == expected.len(), "{listed:?}");
    // By state and by id, as the kubelet narrows its lists down.
    let mut client = env.runtime().await?;
    for state in [
        ContainerState::ContainerRunning,
        ContainerState::ContainerExited,
    ] {
        let filter = Some(ContainerFilter {
            state: Some(ContainerStateValue {
                state: state.into(),
            }),
            ..ContainerFilter::default()
        });
        let some = client
            .list_containers(ListContainersRequest { filter })
            .await?;
        ensure!(some.into_inner().containers.len() == expected.len() / 2);
    }
    Ok(())
}

/// In-place resize: up and down while it runs, seen from inside, without a
/// restart.
async fn resize(env: Shared) -> Result<()> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("main", &["sleep", "1000"]);
    let limits = |cpu: i64, memory: i64| LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: cpu,
        cpu_shares: cpu * 1024 / 100_000,
        memory_limit_in_bytes: memory << 20,
        ..LinuxContainerResources::default()
    };
    container.linux.get_or_insert_default().resources = Some(limits(50_000, 256));
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let before = env.status(&id).await?;
    let inside = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes \
                  2>/dev/null; cut -d' ' -f1 /sys/fs/cgroup/cpu.max \
                  /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null";
    for (cpu, memory) in [(100_000, 512), (25_000, 128), (200_000, 256)] {
        let request = UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(limits(cpu, memory)),
            ..UpdateContainerResourcesRequest::default()
        };
        env.runtime()
            .await?
            .update_container_resources(request)
            .await?;
        let status = env.status(&id).await?;
        ensure!(status.started_at == before.started_at, "restarted");
        let now = status
            .resources
            .and_then(|r| r.linux)
            .context("no resources")?;
        ensure!(
            now.cpu_quota == cpu && now.memory_limit_in_bytes == memory << 20,
            "{now:?}"
        );
        let seen = env.exec(&id, &["sh", "-c", inside]).await?.stdout;
        let seen = String::from_utf8_lossy(&seen).into_owned();
        ensure!(
            seen.contains(&(memory << 20).to_string()),
            "{memory} MiB: {seen:?}"
        );
    }
    // Less memory than is in use: refused, and what was asked for is not told
    // as if it were so.
    let usage = "dd if=/dev/zero of=/dev/shm/fill bs=1M count=60";
    env.sh(&id, usage).await?;
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(limits(200_000, 8)),
        ..UpdateContainerResourcesRequest::default()
    };
    let refused = env
        .runtime()
        .await?
        .update_container_resources(request)
        .await;
    let status = env.status(&id).await?;
    if refused.is_err() {
        let now = status
            .resources
            .and_then(|r| r.linux)
            .context("no resources")?;
        ensure!(now.memory_limit_in_bytes == 256 << 20, "{now:?}");
        ensure!(env.sh(&id, "echo alive").await? == "alive");
    }
    env.remove_pod(&pod).await
}

/// A hook before the stop, the signal, grace, and a second stop that has less
/// patience.
async fn termination(env: Shared) -> Result<()> {
    let script = "trap 'echo term' TERM; while :; do sleep 0.1; done";
    let (_, pod, id) = env.simple(&["sh", "-c", script]).await?;
    let hook = env
        .exec(&id, &["sh", "-c", "echo draining > /proc/1/fd/1"])
        .await?;
    ensure!(hook.exit_code == 0, "{hook:?}");
    let patient = {
        let (env, id) = (env.clone(), id.clone());
        tokio::spawn(async move { env.stop(&id, 60).await })
    };
    let status = env.status(&id).await?;
    crate::env::wait_for("the signal", || {
        env.log(&status)
            .is_ok_and(|l| l.iter().any(|(_, _, line)| line == "term"))
    })
    .await?;
    ensure!(env.status(&id).await?.state() == ContainerState::ContainerRunning);
    let begin = std::time::Instant::now();
    env.stop(&id, 0).await?;
    patient.await??;
    ensure!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    let status = env.status(&id).await?;
    ensure!(status.exit_code == 137, "{status:?}");
    let log = env.log(&status)?;
    ensure!(
        log.first().is_some_and(|(_, _, line)| line == "draining"),
        "{log:?}"
    );
    env.remove_pod(&pod).await
}

/// Somebody follows the log while it grows and is rotated, as `kubectl logs -f`
/// does: whole lines, all of them, in order.
async fn follow(env: Shared) -> Result<()> {
    let script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; sleep 1000";
    let (_, pod, id) = env.simple(&["sh", "-c", script]).await?;
    let path = std::path::PathBuf::from(env.status(&id).await?.log_path);
    let mut client = env.runtime().await?;
    let mut open = std::fs::File::open(&path)?;
    let (mut text, mut rotations) = (String::new(), 0);
    let begin = std::time::Instant::now();
    while !text.ends_with("line 2000\n") {
        use std::io::Read;
        ensure!(
            begin.elapsed() < Duration::from_secs(30),
            "{} bytes",
            text.len()
        );
        let read = open.read_to_string(&mut text)?;
        if read == 0 && rotations < 5 {
            // What is written between the look and the rename is read after it.
            let old = path.with_extension(format!("log.{rotations}"));
            std::fs::rename(&path, &old)?;
            let request = ReopenContainerLogRequest {
                container_id: id.clone(),
            };
            client.reopen_container_log(request).await?;
            open.read_to_string(&mut text)?;
            open = std::fs::File::open(&path)?;
            rotations += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.len() == 2000, "{} lines", lines.len());
    for (number, line) in lines.iter().enumerate() {
        ensure!(
            line.ends_with(&format!(" stdout F line {}", number + 1)),
            "{line}"
        );
    }
    env.remove_pod(&pod).await
}
