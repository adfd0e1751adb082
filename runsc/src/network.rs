//! Networks of containers: what the configuration asks for, and entering it
//! in the sentry process.
//!
//! In host network mode the sentry lives in the container's network
//! namespace and makes the guests' inet sockets there; see
//! `docs/SECURITY.md` for what it may do with them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use sentry_platform::host::inet::HostNetwork;
use serde::{Deserialize, Serialize};

/// How a container reaches networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkPlan {
    /// Loopback inside the sandbox.
    #[default]
    None,
    /// Inet sockets are host sockets.
    Host {
        namespace: NamespacePlan,
        /// `net.*` of `linux.sysctl`, set in that namespace.
        sysctl: BTreeMap<String, String>,
    },
}

/// The network namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespacePlan {
    /// A fresh one, with loopback up.
    New,
    /// An existing one.
    Path(PathBuf),
    /// The one that `runsc` runs in.
    Caller,
}

impl NetworkPlan {
    /// What `linux` of a configuration asks for.
    pub fn of_spec(linux: Option<&Linux>) -> Self {
        let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
        let own = namespaces.into_iter().flatten();
        let mut own = own
            .filter(|namespace| namespace.typ() == LinuxNamespaceType::Network)
            .map(|namespace| match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => NamespacePlan::Path(path.clone()),
                _ => NamespacePlan::New,
            });
        let sysctl = linux.and_then(|linux| linux.sysctl().as_ref());
        let sysctl = sysctl.into_iter().flatten();
        Self::Host {
            namespace: own.next_back().unwrap_or(NamespacePlan::Caller),
            sysctl: sysctl
                .filter(|(name, _)| name.starts_with("net."))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        }
    }

    /// The caller's own network, for `do`.
    pub fn of_caller() -> Self {
        Self::Host {
            namespace: NamespacePlan::Caller,
            sysctl: BTreeMap::new(),
        }
    }
}

/// Enters the network of `plan` with this single-threaded process, which may
/// still do everything that `runsc` may; `None` if the sandbox is to have a
/// network namespace of its own with nothing in it.
///
/// What the guests need of the host's network is opened here.
pub fn enter(plan: &NetworkPlan) -> Result<Option<HostNetwork>> {
    let NetworkPlan::Host { namespace, sysctl } = plan else {
        return Ok(None);
    };
    let before = current()?;
    match namespace {
        NamespacePlan::Path(path) => {
            let file = File::open(path)
                .with_context(|| format!("network namespace {} can't be opened", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| {
                format!("network namespace {} can't be entered", path.display())
            })?;
        }
        NamespacePlan::New => {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace can't be made")?;
            crate::sys::loopback_up().context("loopback can't be brought up")?;
        }
        NamespacePlan::Caller => {}
    }
    let own = current()? != before;
    ensure!(
        own || sysctl.is_empty(),
        "linux.sysctl has net.* settings, but the container shares the host's network namespace"
    );
    for (name, value) in sysctl {
        set_sysctl(name, value)
            .with_context(|| format!("linux.sysctl {name}={value} can't be set"))?;
    }
    let network = HostNetwork::open().context("the host's network can't be used")?;
    if own {
        open_up()?;
    }
    Ok(Some(network))
}

/// Lets the sentry, which has no capabilities, do in its network namespace
/// what it lets guests do that have some: low ports (it checks
/// `CAP_NET_BIND_SERVICE` itself) and echo requests.
fn open_up() -> Result<()> {
    set_sysctl("net.ipv4.ip_unprivileged_port_start", "0")
        .context("low ports can't be opened to the sandbox")?;
    let range = "net.ipv4.ping_group_range";
    let nobody = fs::read_to_string(sysctl_path(range))
        .is_ok_and(|text| text.split_whitespace().eq(["1", "0"]));
    if nobody {
        // Kernels without ICMP sockets have no such setting.
        let _ = set_sysctl(range, "0 2147483647");
    }
    Ok(())
}

fn sysctl_path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

fn set_sysctl(name: &str, value: &str) -> Result<()> {
    let valid = name
        .split('.')
        .all(|part| !part.is_empty() && !part.contains('/'));
    ensure!(valid, "{name:?} is not the name of a setting");
    fs::write(sysctl_path(name), value)?;
    Ok(())
}

/// Identity of the network namespace of this process.
fn current() -> Result<(u64, u64)> {
    let meta = fs::metadata("/proc/self/ns/net").context("/proc is not mounted")?;
    Ok((meta.dev(), meta.ino()))
}

/// Whether the network namespace is entered before the user namespace:
/// rootless, only the latter gives the right to make one.
pub fn comes_first() -> bool {
    geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(linux: &str) -> NetworkPlan {
        let linux: Linux = serde_json::from_str(linux).expect("json");
        NetworkPlan::of_spec(Some(&linux))
    }

    #[test]
    fn namespaces_of_configurations() {
        let namespace = |plan| match plan {
            NetworkPlan::Host { namespace, .. } => namespace,
            NetworkPlan::None => panic!("no network"),
        };
        let made = of(r#"{"namespaces": [{"type": "network"}]}"#);
        assert_eq!(namespace(made), NamespacePlan::New);
        let path = of(r#"{"namespaces": [{"type": "network", "path": "/run/netns/a"}]}"#);
        assert_eq!(namespace(path), NamespacePlan::Path("/run/netns/a".into()));
        let shared = of(r#"{"namespaces": [{"type": "pid"}]}"#);
        assert_eq!(namespace(shared), NamespacePlan::Caller);
    }

    #[test]
    fn only_settings_of_the_network_are_taken() {
        let plan = of(r#"{"sysctl": {"net.core.somaxconn": "10", "kernel.msgmax": "1"}}"#);
        let NetworkPlan::Host { sysctl, .. } = plan else {
            panic!("no network");
        };
        assert_eq!(sysctl.keys().collect::<Vec<_>>(), ["net.core.somaxconn"]);
        assert!(set_sysctl("net/../kernel.x", "1").is_err());
        assert!(set_sysctl("net..x", "1").is_err());
    }
}
