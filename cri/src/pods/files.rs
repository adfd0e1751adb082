//! Files every container of a pod sees: `/etc/hosts`, `/etc/hostname`,
//! `/etc/resolv.conf`, and `/dev/shm`.

use std::fmt::Write;

use anyhow::{Context, Result};
use nix::mount::MsFlags;

use crate::node::Node;
use crate::proto::NamespaceMode;
use crate::store::PodRecord;

/// The pod's name for itself: the host's where it shares its namespace.
pub fn hostname(record: &PodRecord) -> String {
    if record.config.hostname.is_empty() {
        nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    } else {
        record.config.hostname.clone()
    }
}

pub fn write(node: &Node, record: &PodRecord) -> Result<()> {
    let dir = node.pod_state(&record.id);
    let hosts = std::fs::read("/etc/hosts").unwrap_or_default();
    std::fs::write(dir.join("hosts"), hosts)?;
    std::fs::write(dir.join("hostname"), hostname(record) + "\n")?;
    let resolv = match &record.config.dns_config {
        Some(dns)
            if !(dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty()) =>
        {
            let mut text = String::new();
            if !dns.searches.is_empty() {
                let _ = writeln!(text, "search {}", dns.searches.join(" "));
            }
            for server in &dns.servers {
                let _ = writeln!(text, "nameserver {server}");
            }
            if !dns.options.is_empty() {
                let _ = writeln!(text, "options {}", dns.options.join(" "));
            }
            text
        }
        _ => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    std::fs::write(dir.join("resolv.conf"), resolv)?;
    let owner = node.mapped_root(record);
    if let Some((uid, gid)) = owner {
        for name in ["hosts", "hostname", "resolv.conf"] {
            std::os::unix::fs::chown(dir.join(name), Some(uid), Some(gid))?;
        }
    }
    if record.namespaces().ipc() == NamespaceMode::Node {
        return Ok(());
    }
    let mut options = "mode=1777,size=65536k".to_owned();
    if let Some((uid, gid)) = owner {
        let _ = write!(options, ",uid={uid},gid={gid}");
    }
    let shm = dir.join("shm");
    std::fs::create_dir_all(&shm)?;
    nix::mount::mount(
        Some("shm"),
        &shm,
        Some("tmpfs"),
        MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .context("/dev/shm of the pod can't be mounted")
}
