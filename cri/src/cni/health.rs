//! Is the network ready, as the plugins themselves say (STATUS), and what is
//! done in the background: the directory is watched, and GC runs now and then.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::fs::inotify;
use tokio::net::unix::pipe;

use super::{Attachment, Cni, NetworkList};
use crate::node::Node;

/// How long an answer of the plugins counts.
const FRESH: Duration = Duration::from_secs(5);
/// Without a directory to watch it is looked at so often.
const LOOK: Duration = Duration::from_secs(5);

/// What the plugins of a configuration have said.
#[derive(Debug)]
pub struct Health {
    at: Instant,
    network: NetworkList,
    problem: Option<String>,
}

impl Cni {
    /// The configuration is valid, its plugins are installed, and from version
    /// 1.1 on they say that they are ready.
    pub async fn ready(&self) -> Result<()> {
        let network = self.installed()?;
        if !network.since(1, 1) {
            return Ok(());
        }
        let known = self.health.lock().as_ref().and_then(|health| {
            let counts = health.network == network && health.at.elapsed() < FRESH;
            counts.then(|| health.problem.clone())
        });
        let problem = match known {
            Some(problem) => problem,
            None => {
                let problem = self.status(&network).await.err();
                let problem = problem.map(|err| format!("{err:#}"));
                *self.health.lock() = Some(Health {
                    at: Instant::now(),
                    network,
                    problem: problem.clone(),
                });
                problem
            }
        };
        problem.map_or(Ok(()), |problem| Err(anyhow::Error::msg(problem)))
    }

    async fn status(&self, network: &NetworkList) -> Result<()> {
        let nobody = Attachment {
            network: network.clone(),
            ..Attachment::default()
        };
        for plugin in &network.plugins {
            self.call("STATUS", &nobody, plugin, None).await?;
        }
        Ok(())
    }
}

/// Attachments of the pods that have one.
fn attachments(node: &Node) -> Vec<Attachment> {
    let records = node.store.pods().into_iter().map(|pod| pod.record());
    records
        .filter(|record| !record.network_released)
        .filter_map(|record| record.network)
        .collect()
}

/// Cleans up at once, and starts what goes on in the background.
pub async fn start(node: &Arc<Node>) {
    collect(node).await;
    let every = Duration::from_secs(node.config.cni.gc_interval_s);
    if !every.is_zero() {
        let node = Arc::clone(node);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                collect(&node).await;
            }
        });
    }
    tokio::spawn(watch(Arc::clone(node)));
    tokio::spawn(check(Arc::clone(node)));
}

async fn collect(node: &Node) {
    if let Err(err) = node.cni.gc(|| attachments(node)).await {
        tracing::warn!("network clean-up: {err:#}");
    }
}

/// CHECK of all pods that were found: a network that was broken while nobody
/// looked is told. The pods go on; what they have may be enough.
async fn check(node: Arc<Node>) {
    for pod in node.store.pods() {
        let record = pod.record();
        let ready = record.stage == crate::store::PodStage::Ready && !record.network_released;
        if let Some(attachment) = record.network.filter(|_| ready)
            && let Err(err) = node.cni.check(&attachment).await
            && pod.stage() == crate::store::PodStage::Ready
        {
            tracing::warn!(pod = pod.id, "the pod's network is not as it was: {err:#}");
        }
    }
}

/// Tells of each change of the directory what network is in force, and has the
/// plugins asked anew.
async fn watch(node: Arc<Node>) {
    let dir = &node.config.cni.config_dir;
    let mut known = describe(&node);
    loop {
        // Before the look, so that no change comes between.
        let notifier = notifier(dir);
        let now = describe(&node);
        if now != known {
            tracing::info!(network = now, "network configuration changed");
            *node.cni.health.lock() = None;
            known = now;
        }
        match notifier {
            Ok(notifier) => drop(changed(&notifier).await),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

fn describe(node: &Node) -> String {
    match node.cni.network() {
        Ok(list) => {
            let kinds = list.plugins.iter().filter_map(|p| p.get("type")?.as_str());
            let kinds: Vec<&str> = kinds.collect();
            format!("{} {} {kinds:?}", list.name, list.version)
        }
        Err(err) => format!("{err:#}"),
    }
}

/// Readable (as a pipe is) once something has changed.
fn notifier(dir: &Path) -> std::io::Result<pipe::Receiver> {
    use inotify::{CreateFlags, WatchFlags};
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let what = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, dir, what)?;
    pipe::Receiver::from_owned_fd_unchecked(fd)
}

/// Returns a moment after something has changed. The watch ends with it, so
/// that a directory that was replaced is found again.
async fn changed(notifier: &pipe::Receiver) -> std::io::Result<()> {
    notifier.readable().await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(())
}
