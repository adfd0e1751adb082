//! The surroundings of a test: folders, registry, daemon, clients, and the
//! requests a kubelet makes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use runsc_cri::proto::image_service_client::ImageServiceClient;
use runsc_cri::proto::runtime_service_client::RuntimeServiceClient;
use runsc_cri::proto::*;
use serde_json::json;
use tonic::transport::{Channel, Endpoint};

use crate::image;
use crate::options::Options;

pub const BUSYBOX: &str = "test/busybox:1";

pub struct Env {
    pub dir: PathBuf,
    pub registry: String,
    pub handler: String,
    pub socket: PathBuf,
    /// The server is ours: it may be killed, and looked into.
    pub own: bool,
    containerd: bool,
    pub metrics_port: u16,
    daemon: Mutex<Option<Child>>,
    registry_process: Mutex<Option<Child>>,
    next: AtomicU32,
}

pub type Shared = Arc<Env>;
pub type Runtime = RuntimeServiceClient<Channel>;
pub type Images = ImageServiceClient<Channel>;

/// A port that stays ours while nobody listens on it, as when the daemon is
/// restarted: below those that connections get.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let n = std::process::id() * 7 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(12_000 + n % 20_000)?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

impl Env {
    pub async fn start(options: &Options) -> Result<Shared> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = PathBuf::from(format!("/tmp/cri-suite-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let port = free_port()?;
        let env = Self {
            registry: format!("127.0.0.1:{port}"),
            handler: options.handler.clone(),
            socket: options
                .endpoint
                .clone()
                .unwrap_or_else(|| dir.join("cri.sock")),
            own: options.endpoint.is_none() && !options.containerd,
            containerd: options.containerd,
            metrics_port: free_port()?,
            daemon: Mutex::new(None),
            registry_process: Mutex::new(None),
            next: AtomicU32::new(1),
            dir,
        };
        env.start_registry(port)?;
        env.write_network()?;
        if env.own {
            env.write_config()?;
            env.start_daemon()?;
        }
        wait_for("the registry", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await?;
        image::push(
            &env.registry,
            BUSYBOX,
            vec![image::busybox()],
            json!({"Env": ["FROM_IMAGE=yes", "PATH=/bin"], "Cmd": ["sh"]}),
        )
        .await
        .context("push")?;
        if env.containerd {
            env.start_containerd().await?;
        }
        env.wait_ready().await?;
        env.pull(BUSYBOX).await.context("pull")?;
        Ok(Arc::new(env))
    }

    fn start_registry(&self, port: u16) -> Result<()> {
        let config = self.dir.join("registry.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
                 delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
                self.dir.join("registry").display()
            ),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.dir.join("registry.log"))?)
            .spawn()
            .context("docker-registry is not installed")?;
        *self.registry_process.lock().expect("lock") = Some(child);
        Ok(())
    }

    fn write_network(&self) -> Result<()> {
        let cni = self.dir.join("cni");
        std::fs::create_dir_all(&cni)?;
        let list = json!({
            "cniVersion": "0.4.0",
            "name": "suite",
            "plugins": [
                {
                    "type": "bridge", "bridge": "suite0", "isGateway": true, "ipMasq": false,
                    "ipam": {
                        "type": "host-local", "dataDir": self.dir.join("ipam"),
                        "ranges": [[{"subnet": "10.77.0.0/16"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
            ],
        });
        std::fs::write(cni.join("10-suite.conflist"), list.to_string())?;
        Ok(())
    }

    /// containerd with everything in our folder; its pause container is of a
    /// pushed image as well.
    async fn start_containerd(&self) -> Result<()> {
        let command = json!({"Cmd": ["sleep", "1000000000"], "Env": ["PATH=/bin"]});
        image::push(
            &self.registry,
            "test/pause:1",
            vec![image::busybox()],
            command,
        )
        .await?;
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        // Through runc's shim, as its own is not packaged.
        let gvisor = match std::env::var("GVISOR") {
            Ok(path) => format!(
                "[{cri}.containerd.runtimes.runsc]\nruntime_type = \"io.containerd.runc.v2\"\n\
                 [{cri}.containerd.runtimes.runsc.options]\nBinaryName = \"{path}\"\n"
            ),
            Err(_) => String::new(),
        };
        std::fs::write(
            self.dir.join("containerd.toml"),
            format!(
                "version = 2\nroot = \"{d}/containerd-root\"\nstate = \"{d}/containerd-state\"\n\
                 [grpc]\naddress = \"{d}/cri.sock\"\n\
                 [{cri}]\nsandbox_image = \"{registry}/test/pause:1\"\n\
                 restrict_oom_score_adj = true\n\
                 [{cri}.cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"{d}/cni\"\n\
                 [{cri}.registry]\nconfig_path = \"{d}/certs.d\"\n\
                 [{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
                 {gvisor}",
                d = self.dir.display(),
                registry = self.registry,
            ),
        )?;
        let log = std::fs::File::create(self.dir.join("daemon.log"))?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(self.dir.join("containerd.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("containerd is not installed")?;
        *self.daemon.lock().expect("lock") = Some(child);
        Ok(())
    }

    fn write_config(&self) -> Result<()> {
        let runsc = match std::env::var("RUNSC") {
            Ok(path) => format!("[handlers.runsc]\npath = \"{path}\"\nsandboxed = true\n"),
            Err(_) => String::new(),
        };
        std::fs::write(
            self.dir.join("config.toml"),
            format!(
                "root = \"{d}/root\"\nstate = \"{d}/state\"\nlisten = \"{d}/cri.sock\"\n\
                 cgroup_parent = \"/{parent}\"\ncdi_spec_dirs = [\"{d}/cdi\"]\n\
                 [cni]\nconfig_dir = \"{d}/cni\"\n\
                 bin_dirs = [\"{d}/plugins\", \"/opt/cni/bin\", \"/usr/lib/cni\"]\n\
                 [images]\nregistry_config_dir = \"{d}/certs.d\"\n\
                 max_layer_bytes = 268435456\nmax_layer_files = 20000\n\
                 pull_progress_timeout_s = 4\n\
                 [limits]\nreceive_timeout_s = 3\n\
                 [metrics]\nlisten = \"127.0.0.1:{port}\"\n\
                 [log]\nlevel = \"debug,h2=info,hyper=info,tower=info\"\n{runsc}",
                parent = self.cgroup_parent(),
                port = self.metrics_port,
                d = self.dir.display()
            ),
        )?;
        Ok(())
    }

    pub fn start_daemon(&self) -> Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("daemon.log"))?;
        // Figures want a release build.
        let program = std::env::var("RUNSC_CRI")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_runsc-cri").to_owned());
        let child = Command::new(program)
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        *self.daemon.lock().expect("lock") = Some(child);
        Ok(())
    }

    /// Cgroups of pods are below this one.
    pub fn cgroup_parent(&self) -> String {
        format!("cri-suite-{}", std::process::id())
    }

    pub fn daemon_pid(&self) -> u32 {
        self.daemon
            .lock()
            .expect("lock")
            .as_ref()
            .map_or(0, Child::id)
    }

    /// `kill -9`, without a new one.
    pub fn kill_daemon(&self) -> Result<()> {
        if let Some(mut child) = self.daemon.lock().expect("lock").take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub async fn restart_daemon(&self) -> Result<()> {
        self.kill_daemon()?;
        self.start_daemon()?;
        self.wait_ready().await
    }

    pub async fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Ok(mut client) = self.runtime().await
                && client.version(VersionRequest::default()).await.is_ok()
            {
                return Ok(());
            }
            if start.elapsed() > Duration::from_secs(20) {
                bail!("the server does not come up: {}", self.daemon_log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn channel(&self) -> Result<Channel> {
        let uri = format!("unix://{}", self.socket.display());
        Ok(Endpoint::from_shared(uri)?
            .connect_timeout(Duration::from_secs(5))
            .connect()
            .await?)
    }

    pub async fn runtime(&self) -> Result<Runtime> {
        Ok(RuntimeServiceClient::new(self.channel().await?).max_decoding_message_size(256 << 20))
    }

    pub async fn images(&self) -> Result<Images> {
        Ok(ImageServiceClient::new(self.channel().await?).max_decoding_message_size(256 << 20))
    }

    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry)
    }

    pub fn image_spec(&self, name: &str) -> Option<ImageSpec> {
        Some(ImageSpec {
            image: self.image(name),
            ..ImageSpec::default()
        })
    }

    pub async fn pull(&self, name: &str) -> Result<String> {
        let response = self
            .images()
            .await?
            .pull_image(PullImageRequest {
                image: self.image_spec(name),
                ..PullImageRequest::default()
            })
            .await?;
        Ok(response.into_inner().image_ref)
    }

    pub async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        let response = self
            .images()
            .await?
            .image_status(ImageStatusRequest {
                image: Some(ImageSpec {
                    image: image.to_owned(),
                    ..ImageSpec::default()
                }),
                verbose: false,
            })
            .await?;
        Ok(response.into_inner().image)
    }

    pub async fn remove_image(&self, image: &str) -> Result<()> {
        self.images()
            .await?
            .remove_image(RemoveImageRequest {
                image: Some(ImageSpec {
                    image: image.to_owned(),
                    ..ImageSpec::default()
                }),
            })
            .await?;
        Ok(())
    }

    /// Output of a shell line in a container of this image (with busybox in a
    /// layer of it).
    pub async fn in_image(&self, name: &str, line: &str) -> Result<String> {
        let config = self.pod_config();
        let pod = self.run_pod(&config).await?;
        let mut container = self.container_config("main", &["sleep", "1000"]);
        container.image = self.image_spec(name);
        let id = self.create(&pod, &config, &container).await?;
        self.start_container(&id).await?;
        let text = self.sh(&id, line).await;
        self.remove_pod(&pod).await?;
        text
    }

    pub fn daemon_log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(60)..)
            .unwrap_or_default()
            .join("\n")
    }

    pub fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn pod_config(&self) -> PodSandboxConfig {
        let number = self.number();
        let name = format!("pod-{number}");
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: format!("uid-{number}-{}", std::process::id()),
                namespace: "suite".into(),
                attempt: 0,
            }),
            hostname: name.clone(),
            log_directory: self.dir.join("logs").join(&name).display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..NamespaceOption::default()
                    }),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    pub async fn run_pod(&self, config: &PodSandboxConfig) -> Result<String> {
        let response = self
            .runtime()
            .await?
            .run_pod_sandbox(RunPodSandboxRequest {
                config: Some(config.clone()),
                runtime_handler: self.handler.clone(),
            })
            .await?;
        Ok(response.into_inner().pod_sandbox_id)
    }

    pub fn container_config(&self, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.into(),
                attempt: 0,
            }),
            image: self.image_spec(BUSYBOX),
            command: command.iter().map(|c| (*c).to_owned()).collect(),
            log_path: format!("{name}/0.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..NamespaceOption::default()
                    }),
                    ..LinuxContainerSecurityContext::default()
                }),
                ..LinuxContainerConfig::default()
            }),
            ..ContainerConfig::default()
        }
    }

    pub async fn create(
        &self,
        pod: &str,
        pod_config: &PodSandboxConfig,
        config: &ContainerConfig,
    ) -> Result<String> {
        let response = self
            .runtime()
            .await?
            .create_container(CreateContainerRequest {
                pod_sandbox_id: pod.into(),
                config: Some(config.clone()),
                sandbox_config: Some(pod_config.clone()),
            })
            .await?;
        Ok(response.into_inner().container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<()> {
        self.runtime()
            .await?
            .start_container(StartContainerRequest {
                container_id: id.into(),
            })
            .await?;
        Ok(())
    }

    /// A pod with one started container.
    pub async fn simple(&self, command: &[&str]) -> Result<(PodSandboxConfig, String, String)> {
        let config = self.pod_config();
        let pod = self.run_pod(&config).await?;
        let id = self
            .create(&pod, &config, &self.container_config("main", command))
            .await?;
        self.start_container(&id).await?;
        Ok((config, pod, id))
    }

    /// A started container of a pod that waits.
    pub async fn running(
        &self,
        pod: &str,
        config: &PodSandboxConfig,
        name: &str,
    ) -> Result<String> {
        let container = self.container_config(name, &["sleep", "1000"]);
        let id = self.create(pod, config, &container).await?;
        self.start_container(&id).await?;
        Ok(id)
    }

    /// The handler does not give containers the host's kernel.
    pub fn sandboxed(&self) -> bool {
        self.handler == "runsc"
    }

    pub async fn pod_ip(&self, pod: &str) -> Result<String> {
        let response = self
            .runtime()
            .await?
            .pod_sandbox_status(PodSandboxStatusRequest {
                pod_sandbox_id: pod.into(),
                verbose: false,
            })
            .await?;
        let status = response.into_inner().status.context("no status")?;
        Ok(status.network.context("no network")?.ip)
    }

    /// Body of `http://ADDRESS/`, from the node; the server may come up late.
    pub async fn fetch(&self, address: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            match tokio::time::timeout(Duration::from_secs(5), get(address, "/")).await {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(err)) if start.elapsed() > Duration::from_secs(8) => return Err(err),
                Err(_) => bail!("{address} does not answer"),
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub async fn status(&self, id: &str) -> Result<ContainerStatus> {
        let response = self
            .runtime()
            .await?
            .container_status(ContainerStatusRequest {
                container_id: id.into(),
                verbose: false,
            })
            .await?;
        response.into_inner().status.context("no status")
    }

    /// The host's pid of a container's first process.
    pub async fn container_pid(&self, id: &str) -> Result<i64> {
        let response = self
            .runtime()
            .await?
            .container_status(ContainerStatusRequest {
                container_id: id.into(),
                verbose: true,
            })
            .await?;
        let info = response
            .into_inner()
            .info
            .remove("info")
            .context("no info")?;
        let info: serde_json::Value = serde_json::from_str(&info)?;
        let pid = info.get("pid").and_then(serde_json::Value::as_i64);
        pid.context("no pid")
    }

    pub async fn wait_exit(&self, id: &str) -> Result<ContainerStatus> {
        let start = Instant::now();
        loop {
            let status = self.status(id).await?;
            if status.state() == ContainerState::ContainerExited {
                return Ok(status);
            }
            if start.elapsed() > Duration::from_secs(20) {
                bail!("container does not end: {status:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn stop(&self, id: &str, timeout: i64) -> Result<()> {
        self.runtime()
            .await?
            .stop_container(StopContainerRequest {
                container_id: id.into(),
                timeout,
            })
            .await?;
        Ok(())
    }

    pub async fn exec(&self, id: &str, command: &[&str]) -> Result<ExecSyncResponse> {
        let response = self
            .runtime()
            .await?
            .exec_sync(ExecSyncRequest {
                container_id: id.into(),
                cmd: command.iter().map(|c| (*c).to_owned()).collect(),
                timeout: 20,
            })
            .await?;
        Ok(response.into_inner())
    }

    /// Standard output of a shell line that must succeed.
    pub async fn sh(&self, id: &str, line: &str) -> Result<String> {
        let done = self.exec(id, &["sh", "-c", line]).await?;
        if done.exit_code != 0 {
            bail!(
                "{line:?} exits with {}: {}",
                done.exit_code,
                String::from_utf8_lossy(&done.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
    }

    /// `(stream, tag, content)` of each line.
    pub fn log(&self, status: &ContainerStatus) -> Result<Vec<(String, String, String)>> {
        read_log(Path::new(&status.log_path))
    }

    /// Stops and removes a pod.
    pub async fn remove_pod(&self, pod: &str) -> Result<()> {
        let mut client = self.runtime().await?;
        let pod_sandbox_id = pod.to_owned();
        client
            .stop_pod_sandbox(StopPodSandboxRequest {
                pod_sandbox_id: pod_sandbox_id.clone(),
            })
            .await?;
        client
            .remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id })
            .await?;
        Ok(())
    }

    /// Removes all pods.
    pub async fn clean(&self) -> Result<()> {
        let mut client = self.runtime().await?;
        let pods = client
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await?
            .into_inner()
            .items;
        for pod in pods {
            client
                .stop_pod_sandbox(StopPodSandboxRequest {
                    pod_sandbox_id: pod.id.clone(),
                })
                .await?;
            client
                .remove_pod_sandbox(RemovePodSandboxRequest {
                    pod_sandbox_id: pod.id,
                })
                .await?;
        }
        Ok(())
    }

    pub async fn stop_all(&self) {
        let _ = self.clean().await;
    }

    pub async fn shut_down(&self) {
        self.stop_all().await;
        let _ = self.kill_daemon();
        if let Some(mut child) = self.registry_process.lock().expect("lock").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // The parents of the pods' cgroups.
        for base in std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            for below in ["burstable/pod1", "burstable", ""] {
                let _ = std::fs::remove_dir(base.path().join(self.cgroup_parent()).join(below));
            }
        }
        if std::env::var_os("CRI_SUITE_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The body of an answer.
pub async fn get(address: &str, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: suite\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok(body.to_owned())
}

pub fn read_log(path: &Path) -> Result<Vec<(String, String, String)>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(4, ' ');
        let (time, stream, tag) = (fields.next(), fields.next(), fields.next());
        let (Some(time), Some(stream), Some(tag)) = (time, stream, tag) else {
            bail!("not a log line: {line:?}");
        };
        if time.len() < 20 || !time.contains('T') {
            bail!("not a time: {time:?}");
        }
        lines.push((
            stream.to_owned(),
            tag.to_owned(),
            fields.next().unwrap_or_default().to_owned(),
        ));
    }
    Ok(lines)
}

pub async fn wait_for(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > Duration::from_secs(20) {
            bail!("{what} does not happen");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
