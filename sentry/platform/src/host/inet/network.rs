//! What the sentry keeps open of the network namespace it is in.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use syscall_tables::Errno;

use super::RouteSocket;

/// Files of `/proc/net` that guests see as they are.
const TABLES: [&str; 20] = [
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "udplite",
    "udplite6",
    "icmp",
    "icmp6",
    "dev",
    "route",
    "arp",
    "if_inet6",
    "ipv6_route",
    "snmp",
    "snmp6",
    "netstat",
    "sockstat",
    "sockstat6",
    "dev_mcast",
    "igmp",
];

/// Longest table shown.
const TABLE_MAX: usize = 4 << 20;
/// First port that needs no privilege, unless the host says otherwise.
const UNPRIVILEGED_PORTS: u16 = 1024;

/// The host's side of host network mode.
pub struct HostNetwork {
    queries: OwnedFd,
    /// Route queries.
    pub routes: RouteSocket,
    tables: BTreeMap<&'static str, File>,
    /// Ports below this are for guests with `CAP_NET_BIND_SERVICE`.
    pub unprivileged_ports: u16,
}

impl HostNetwork {
    /// Opens what is needed later, in the network namespace of the caller and
    /// before the sentry is locked in. Tables that the host lacks are left
    /// out.
    pub fn open() -> Result<Self, Errno> {
        let dgram = libc::SOCK_DGRAM as u32;
        let queries = super::socket(libc::AF_INET as u16, dgram, 0)?;
        let tables = TABLES.iter().filter_map(|name| {
            let file = File::open(format!("/proc/thread-self/net/{name}")).ok()?;
            Some((*name, file))
        });
        let first = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        let first = std::fs::read_to_string(first).ok();
        let first = first.and_then(|text| text.trim().parse().ok());
        Ok(Self {
            queries,
            routes: RouteSocket::open()?,
            tables: tables.collect(),
            unprivileged_ports: first.unwrap_or(UNPRIVILEGED_PORTS),
        })
    }

    /// A socket to ask about interfaces.
    pub fn queries(&self) -> BorrowedFd<'_> {
        self.queries.as_fd()
    }

    /// What the host's `/proc/net/NAME` says now; `None` if it is not shown.
    pub fn table(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.tables.get(name)?;
        let mut text = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        while text.len() < TABLE_MAX {
            let len = file.read_at(&mut chunk, text.len() as u64).ok()?;
            if len == 0 {
                break;
            }
            text.extend_from_slice(chunk.get(..len)?);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_anew_each_time() {
        let network = HostNetwork::open().expect("open");
        let dev = network.table("dev").expect("dev");
        assert!(dev.starts_with(b"Inter-|"));
        assert!(network.table("dev").is_some());
        assert_eq!(network.table("nonsense"), None);
        assert!(super::super::interfaces(network.queries(), 8).is_ok());
    }
}
