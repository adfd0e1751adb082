//! What a pod shares, what it does not, and what is refused.

use anyhow::{Result, ensure};
use runsc_cri::proto::*;

use super::Case;
use crate::case;
use crate::env::Shared;

pub fn cases() -> Vec<Case> {
    vec![
        case!("pods/refusals", refusals),
        case!("pods/names-files", names_files),
        case!("pods/shared", shared),
        case!("pods/pid-modes", pid_modes),
        case!("pods/host", host),
        case!("pods/labels-filters", labels_filters),
        case!("pods/host-port", host_port),
        case!("pods/network", network),
        case!("pods/sysctls", sysctls),
        case!("pods/user-namespace", user_namespace, own),
        case!("pods/user-namespace-shared-pid", user_namespace_pids, own),
        case!("pods/events", events, own),
    ]
}

/// The pod's namespace options.
pub fn namespaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    config
        .linux
        .get_or_insert_default()
        .security_context
        .get_or_insert_default()
        .namespace_options
        .get_or_insert_default()
}

pub fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config
        .linux
        .get_or_insert_default()
        .security_context
        .get_or_insert_default()
}

async fn refusals(env: Shared) -> Result<()> {
    let mut client = env.runtime().await?;
    let config = env.pod_config();
    let unknown = RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: "nonsense".into(),
    };
    ensure!(client.run_pod_sandbox(unknown).await.is_err(), "handler");
    let nameless = PodSandboxConfig {
        metadata: None,
        ..config.clone()
    };
    ensure!(env.run_pod(&nameless).await.is_err(), "no metadata");
    let pod = env.run_pod(&config).await?;
    ensure!(env.run_pod(&config).await.is_err(), "the name is taken");
    let container = env.container_config("one", &["sleep", "1000"]);
    let id = env.create(&pod, &config, &container).await?;
    ensure!(
        env.create(&pod, &config, &container).await.is_err(),
        "the container's name is taken"
    );
    // The same container again, with another restart count.
    let mut again = container.clone();
    again.metadata.get_or_insert_default().attempt = 1;
    env.create(&pod, &config, &again).await?;
    let missing = ContainerConfig {
        image: env.image_spec("test/nonsense:1"),
        ..env.container_config("two", &["true"])
    };
    ensure!(env.create(&pod, &config, &missing).await.is_err(), "image");
    ensure!(env.exec(&id, &["true"]).await.is_err(), "not started");
    env.start_container(&id).await?;
    ensure!(env.start_container(&id).await.is_err(), "started twice");
    let program = env.container_config("three", &["/no/such/program"]);
    let third = env.create(&pod, &config, &program).await;
    let failed = match &third {
        Ok(third) => env.start_container(third).await.is_err(),
        Err(_) => true,
    };
    ensure!(failed, "a program that is not there");
    if let Ok(third) = third {
        let status = env.status(&third).await?;
        ensure!(
            status.state() == ContainerState::ContainerExited,
            "{status:?}"
        );
        ensure!(status.exit_code != 0, "{status:?}");
    }
    for id in ["", "nonsense"] {
        ensure!(env.status(id).await.is_err(), "status of {id:?}");
        if env.own {
            env.stop(id, 0).await?;
        }
    }
    Ok(())
}

async fn names_files(env: Shared) -> Result<()> {
    let mut config = env.pod_config();
    config.hostname = "some-name".into();
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.0.0.10".into()],
        searches: vec!["a.example".into(), "b.example".into()],
        options: vec!["ndots:5".into()],
    });
    let pod = env.run_pod(&config).await?;
    let id = env.running(&pod, &config, "main").await?;
    ensure!(env.sh(&id, "hostname").await? == "some-name");
    ensure!(env.sh(&id, "cat /etc/hostname").await? == "some-name");
    ensure!(env.sh(&id, "echo $HOSTNAME").await? == "some-name");
    let resolv = env.sh(&id, "cat /etc/resolv.conf").await?;
    ensure!(
        resolv == "search a.example b.example\nnameserver 10.0.0.10\noptions ndots:5",
        "{resolv:?}"
    );
    ensure!(env.sh(&id, "cat /etc/hosts").await?.contains("127.0.0.1"));
    Ok(())
}

/// Containers of a pod share the network, IPC and `/dev/shm`.
async fn shared(env: Shared) -> Result<()> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let one = env.running(&pod, &config, "one").await?;
    let two = env.running(&pod, &config, "two").await?;
    env.sh(&one, "echo shared > /dev/shm/file").await?;
    ensure!(env.sh(&two, "cat /dev/shm/file").await? == "shared");
    // Inside a sandbox of its own a container has namespaces of its own.
    let (same, others) = if env.sandboxed() {
        ([].as_slice(), [].as_slice())
    } else {
        (["net", "ipc", "uts"].as_slice(), ["mnt", "pid"].as_slice())
    };
    for namespace in same {
        let line = format!("readlink /proc/self/ns/{namespace}");
        ensure!(
            env.sh(&one, &line).await? == env.sh(&two, &line).await?,
            "{namespace}"
        );
    }
    for namespace in others {
        let line = format!("readlink /proc/self/ns/{namespace}");
        ensure!(
            env.sh(&one, &line).await? != env.sh(&two, &line).await?,
            "{namespace}"
        );
    }
    // The loopback of the pod.
    env.sh(
        &one,
        "mkdir -p /www && echo hello > /www/index.html && httpd -p 127.0.0.1:80 -h /www",
    )
    .await?;
    ensure!(env.sh(&two, "wget -q -O - http://127.0.0.1/").await? == "hello");
    Ok(())
}

async fn pid_modes(env: Shared) -> Result<()> {
    let mut config = env.pod_config();
    namespaces(&mut config).pid = NamespaceMode::Pod.into();
    let pod = env.run_pod(&config).await?;
    let create = async |name: &str, seconds: &str, mode: NamespaceMode, target: &str| {
        let mut container = env.container_config(name, &["sleep", seconds]);
        let options = security(&mut container)
            .namespace_options
            .get_or_insert_default();
        options.pid = mode.into();
        target.clone_into(&mut options.target_id);
        let id = env.create(&pod, &config, &container).await?;
        env.start_container(&id).await?;
        anyhow::Ok(id)
    };
    let one = create("one", "1001", NamespaceMode::Pod, "").await?;
    let two = create("two", "1002", NamespaceMode::Pod, "").await?;
    let own = create("own", "1003", NamespaceMode::Container, "").await?;
    let guest = create("guest", "1004", NamespaceMode::Target, &own).await?;
    let sees = async |id: &str, seconds: &str| {
        anyhow::Ok(
            env.sh(id, "ps")
                .await?
                .contains(&format!("sleep {seconds}")),
        )
    };
    ensure!(
        sees(&one, "1002").await? && sees(&two, "1001").await?,
        "pod"
    );
    ensure!(!sees(&one, "1003").await?, "container in pod");
    ensure!(
        sees(&own, "1003").await? && !sees(&own, "1001").await?,
        "container"
    );
    ensure!(sees(&guest, "1003").await?, "target");
    // The end of one container is not that of another.
    env.stop(&one, 0).await?;
    ensure!(env.sh(&two, "echo alive").await? == "alive");
    Ok(())
}

/// A pod as kube-proxy is one: no RuntimeClass, the host's network, privileged.
async fn host(env: Shared) -> Result<()> {
    let mut config = env.pod_config();
    namespaces(&mut config).network = NamespaceMode::Node.into();
    config.hostname = String::new();
    let context = config
        .linux
        .get_or_insert_default()
        .security_context
        .get_or_insert_default();
    context.privileged = true;
    let mut client = env.runtime().await?;
    let pod = client
        .run_pod_sandbox(RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        })
        .await?
        .into_inner()
        .pod_sandbox_id;
    let mut container = env.container_config("proxy", &["sleep", "1000"]);
    security(&mut container).privileged = true;
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let own = std::fs::read_link("/proc/self/ns/net")?
        .display()
        .to_string();
    ensure!(env.sh(&id, "readlink /proc/self/ns/net").await? == own);
    let name = nix::unistd::gethostname()?.display().to_string();
    ensure!(env.sh(&id, "hostname").await? == name);
    ensure!(env.sh(&id, "cat /etc/hostname").await? == name);
    env.sh(&id, "echo 1 > /proc/sys/net/ipv4/conf/lo/route_localnet")
        .await?;
    env.sh(
        &id,
        "ip addr add 10.99.99.1/32 dev lo && ip addr del 10.99.99.1/32 dev lo",
    )
    .await?;
    env.sh(&id, "test -e /dev/kmsg").await?;
    let status = client
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: pod,
            verbose: false,
        })
        .await?
        .into_inner()
        .status
        .unwrap_or_default();
    ensure!(status.network.unwrap_or_default().ip.is_empty());
    ensure!(
        status.runtime_handler.is_empty(),
        "{}",
        status.runtime_handler
    );
    Ok(())
}

async fn labels_filters(env: Shared) -> Result<()> {
    let mut config = env.pod_config();
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    config.labels = [
        pair("app", "x"),
        pair("io.kubernetes.pod.name", "ü \"quoted\""),
    ]
    .into();
    config.annotations = [pair("a/b", "multi\nline"), pair("empty", "")].into();
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("main", &["sleep", "1000"]);
    container.labels = [pair("c", "1"), pair("d", "2")].into();
    container.annotations = [pair("io.kubernetes.container.hash", "abc")].into();
    let id = env.create(&pod, &config, &container).await?;
    let mut client = env.runtime().await?;
    let item = client
        .list_pod_sandbox(ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                label_selector: [pair("app", "x")].into(),
                state: Some(PodSandboxStateValue {
                    state: PodSandboxState::SandboxReady.into(),
                }),
                ..PodSandboxFilter::default()
            }),
        })
        .await?
        .into_inner()
        .items;
    ensure!(item.len() == 1, "{item:?}");
    ensure!(
        item.iter()
            .all(|p| p.labels == config.labels && p.annotations == config.annotations)
    );
    let list = async |filter: ContainerFilter| {
        let mut client = env.runtime().await?;
        let filter = Some(filter);
        let all = client
            .list_containers(ListContainersRequest { filter })
            .await?;
        anyhow::Ok(all.into_inner().containers)
    };
    let none = ContainerFilter {
        label_selector: [pair("c", "1"), pair("d", "3")].into(),
        ..ContainerFilter::default()
    };
    ensure!(list(none).await?.is_empty());
    let some = ContainerFilter {
        pod_sandbox_id: pod.clone(),
        label_selector: [pair("c", "1")].into(),
        state: Some(ContainerStateValue {
            state: ContainerState::ContainerCreated.into(),
        }),
        ..ContainerFilter::default()
    };
    let found = list(some).await?;
    ensure!(
        found.len() == 1 && found.iter().all(|c| c.id == id),
        "{found:?}"
    );
    ensure!(found.iter().all(|c| c.labels == container.labels));
    ensure!(found.iter().all(|c| c.annotations == container.annotations));
    let status = env.status(&id).await?;
    ensure!(status.labels == container.labels && status.annotations == container.annotations);
    Ok(())
}

async fn host_port(env: Shared) -> Result<()> {
    let mut config = env.pod_config();
    config.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp.into(),
        container_port: 8080,
        host_port: 18080,
        host_ip: String::new(),
    }];
    let pod = env.run_pod(&config).await?;
    let script = "mkdir -p /www && echo mapped > /www/index.html && exec httpd -f -p 8080 -h /www";
    let container = env.container_config("main", &["sh", "-c", script]);
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let address = env.pod_ip(&pod).await?;
    // From the node, as a probe; and by the host port.
    ensure!(env.fetch(&format!("{address}:8080")).await? == "mapped\n");
    let gateway = "10.77.0.1:18080";
    ensure!(env.fetch(gateway).await? == "mapped\n");
    env.remove_pod(&pod).await?;
    ensure!(
        std::net::TcpStream::connect(gateway).is_err(),
        "the port stays"
    );
    Ok(())
}

async fn network(env: Shared) -> Result<()> {
    let config = env.pod_config();
    let pod = env.run_pod(&config).await?;
    let script = "mkdir -p /www && echo one > /www/index.html && exec httpd -f -p 80 -h /www";
    let container = env.container_config("main", &["sh", "-c", script]);
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    let address = env.pod_ip(&pod).await?;
    ensure!(env.fetch(&format!("{address}:80")).await? == "one\n");
    let (_, other, client) = env.simple(&["sleep", "1000"]).await?;
    ensure!(env.pod_ip(&other).await? != address);
    let line = format!("wget -q -O - http://{address}/");
    ensure!(env.sh(&client, &line).await? == "one");
    Ok(())
}

async fn sysctls(env: Shared) -> Result<()> {
    if env.sandboxed() {
        return Ok(());
    }
    let mut config = env.pod_config();
    let linux = config.linux.get_or_insert_default();
    linux.sysctls = [
        (
            "net.ipv4.ip_local_port_range".to_owned(),
            "2000\t3000".to_owned(),
        ),
        ("kernel.shm_rmid_forced".to_owned(), "1".to_owned()),
    ]
    .into();
    let pod = env.run_pod(&config).await?;
    let id = env.running(&pod, &config, "main").await?;
    let range = env
        .sh(&id, "cat /proc/sys/net/ipv4/ip_local_port_range")
        .await?;
    ensure!(range == "2000\t3000", "{range:?}");
    ensure!(env.sh(&id, "cat /proc/sys/kernel/shm_rmid_forced").await? == "1");
    let mut wrong = env.pod_config();
    wrong.linux.get_or_insert_default().sysctls =
        [("net.no.such.thing".to_owned(), "1".to_owned())].into();
    ensure!(
        env.run_pod(&wrong).await.is_err(),
        "a sysctl that is not there"
    );
    Ok(())
}

/// A pod with ids 0 to 65535 of its own.
fn mapped_pod(env: &Shared) -> (PodSandboxConfig, Vec<IdMapping>) {
    let mut config = env.pod_config();
    let ids = vec![IdMapping {
        host_id: 1_000_000,
        container_id: 0,
        length: 65_536,
    }];
    namespaces(&mut config).userns_options = Some(UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: ids.clone(),
        gids: ids.clone(),
    });
    (config, ids)
}

/// Files of the image and of volumes belong to the ids inside that they have
/// on disk; what is written to a volume does not get the ids of the processes.
async fn user_namespace(env: Shared) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let (config, ids) = mapped_pod(&env);
    let status = env
        .runtime()
        .await?
        .status(StatusRequest::default())
        .await?
        .into_inner();
    let wanted = if env.handler.is_empty() {
        "runc"
    } else {
        &env.handler
    };
    let supported = status
        .runtime_handlers
        .iter()
        .any(|h| h.name == wanted && h.features.as_ref().is_some_and(|f| f.user_namespaces));
    if !supported {
        // Never a silent downgrade.
        ensure!(env.run_pod(&config).await.is_err(), "not refused");
        return Ok(());
    }
    let volume = env.dir.join("mapped-volume");
    std::fs::create_dir_all(&volume)?;
    std::fs::write(volume.join("roots"), "x")?;
    std::fs::write(volume.join("users"), "x")?;
    std::os::unix::fs::chown(volume.join("users"), Some(1000), Some(1000))?;
    let mount = |host: &std::path::Path, inside: &str| Mount {
        host_path: host.display().to_string(),
        container_path: inside.to_owned(),
        uid_mappings: ids.clone(),
        gid_mappings: ids.clone(),
        ..Mount::default()
    };
    let pod = env.run_pod(&config).await?;
    let mut container = env.container_config("main", &["sleep", "1000"]);
    container.mounts = vec![
        mount(&volume, "/volume"),
        mount(&volume.join("roots"), "/single"),
    ];
    let id = env.create(&pod, &config, &container).await?;
    env.start_container(&id).await?;
    if !env.sandboxed() {
        let map = env.sh(&id, "cat /proc/self/uid_map").await?;
        ensure!(map.contains("1000000") && map.contains("65536"), "{map}");
    }
    ensure!(env.sh(&id, "id -u").await? == "0");
    let owners = "stat -c %u / /bin /bin/sh /etc/hosts /dev/shm /volume /volume/roots \
                  /volume/users /single | xargs";
    let owners = env.sh(&id, owners).await?;
    ensure!(owners == "0 0 0 0 0 0 0 1000 0", "{owners}");
    env.sh(&id, "echo x > /file && chown 5:6 /file").await?;
    ensure!(env.sh(&id, "stat -c %u:%g /file").await? == "5:6");
    // A file of the image is changed: a copy in the writable layer.
    env.sh(&id, "echo x >> /etc/passwd && stat -c %u /etc/passwd")
        .await?;
    env.sh(&id, "echo x > /volume/new && chown 7:8 /volume/new")
        .await?;
    let meta = std::fs::metadata(volume.join("new"))?;
    ensure!((meta.uid(), meta.gid()) == (7, 8), "{meta:?}");
    env.sh(
        &id,
        "hostname other 2>/dev/null; echo x > /dev/shm/x; test -w /etc/hosts",
    )
    .await?;
    // The process is nobody on the host.
    let pid = env.container_pid(&id).await?;
    let owner = std::fs::metadata(format!("/proc/{pid}"))?.uid();
    ensure!(env.sandboxed() || owner == 1_000_000, "{owner}");
    let mut foreign = env.container_config("foreign", &["sleep", "1000"]);
    security(&mut foreign).run_as_user = Some(Int64Value { value: 70_000 });
    ensure!(
        env.create(&pod, &config, &foreign).await.is_err(),
        "an id that is not mapped"
    );
    let mut other = env.container_config("other", &["sleep", "1000"]);
    other.mounts = vec![mount(&volume, "/volume")];
    for m in &mut other.mounts {
        m.uid_mappings.iter_mut().for_each(|m| m.host_id += 1);
    }
    ensure!(
        env.create(&pod, &config, &other).await.is_err(),
        "mappings of another pod"
    );
    // Other pods see their own ids.
    let (_, _, plain) = env.simple(&["sleep", "1000"]).await?;
    ensure!(env.sh(&plain, "stat -c %u /bin/sh").await? == "0");
    env.clean().await?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(
        !mounts.contains("/mapped-") && !mounts.contains("rootfs.layers"),
        "mounts stay"
    );
    Ok(())
}

async fn user_namespace_pids(env: Shared) -> Result<()> {
    if env.sandboxed() {
        return Ok(());
    }
    let (mut config, _) = mapped_pod(&env);
    namespaces(&mut config).pid = NamespaceMode::Pod.into();
    let pod = match env.run_pod(&config).await {
        Err(err) if err.to_string().contains("idmapped mounts") => return Ok(()),
        other => other?,
    };
    let mut ids = Vec::new();
    for (name, seconds) in [("one", "1001"), ("two", "1002")] {
        let mut container = env.container_config(name, &["sleep", seconds]);
        security(&mut container)
            .namespace_options
            .get_or_insert_default()
            .pid = NamespaceMode::Pod.into();
        let id = env.create(&pod, &config, &container).await?;
        env.start_container(&id).await?;
        ids.push(id);
    }
    for id in &ids {
        let seen = env.sh(id, "ps").await?;
        ensure!(
            seen.contains("sleep 1001") && seen.contains("sleep 1002"),
            "{seen}"
        );
    }
    let supervisor = env.dir.join("state/pods").join(&pod).join("supervisor.pid");
    let supervisor = std::fs::read_to_string(supervisor)?;
    let children = format!("/proc/{0}/task/{0}/children", supervisor.trim());
    let children = std::fs::read_to_string(children)?;
    // The holder of the namespace and the two containers.
    ensure!(children.split_whitespace().count() == 3, "{children}");
    env.remove_pod(&pod).await?;
    crate::env::wait_for("the end of all processes", || {
        let mut all = children.split_whitespace();
        all.all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    })
    .await
}

async fn events(env: Shared) -> Result<()> {
    let mut stream = env
        .runtime()
        .await?
        .get_container_events(GetEventsRequest::default())
        .await?
        .into_inner();
    let (_, pod, id) = env.simple(&["sh", "-c", "exit 4"]).await?;
    env.wait_exit(&id).await?;
    env.remove_pod(&pod).await?;
    let mut seen = Vec::new();
    while seen.last() != Some(&(pod.clone(), ContainerEventType::ContainerDeletedEvent)) {
        let next = tokio::time::timeout(std::time::Duration::from_secs(5), stream.message());
        let Ok(Ok(Some(event))) = next.await else {
            anyhow::bail!("no more events after {seen:?}");
        };
        if event.container_event_type() == ContainerEventType::ContainerStoppedEvent
            && event.container_id == id
        {
            let found = event.containers_statuses.iter().find(|s| s.id == id);
            ensure!(found.is_some_and(|s| s.exit_code == 4), "{event:?}");
            ensure!(
                event
                    .pod_sandbox_status
                    .as_ref()
                    .is_some_and(|s| s.id == pod)
            );
        }
        seen.push((event.container_id.clone(), event.container_event_type()));
    }
    for kind in [
        ContainerEventType::ContainerCreatedEvent,
        ContainerEventType::ContainerStartedEvent,
        ContainerEventType::ContainerStoppedEvent,
        ContainerEventType::ContainerDeletedEvent,
    ] {
        ensure!(
            seen.contains(&(id.clone(), kind)),
            "{kind:?} of the container: {seen:?}"
        );
        ensure!(
            seen.contains(&(pod.clone(), kind)),
            "{kind:?} of the pod: {seen:?}"
        );
    }
    Ok(())
}
