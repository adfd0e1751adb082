//! TCP and UDP over IPv4 and IPv6, on the loopback interface.
//!
//! No packets are made: a TCP connection is two byte rings, a UDP socket a
//! queue of datagrams.
//!
//! | file | holds |
//! |---|---|
//! | `addr.rs` | socket addresses, which of them are local |
//! | `ports.rs` | [`PortTable`]: who has which port |
//! | `options.rs` | options at the levels of IP, TCP and UDP |
//! | `tcp/` | TCP |
//! | `udp/` | UDP and UDP-Lite |

mod addr;
mod options;
mod ports;
pub mod tcp;
pub mod udp;

pub use addr::Family;
pub use ports::PortTable;

use syscall_tables::Errno;
use syscall_tables::abi::{
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, SOCK_DGRAM, SOCK_RAW,
    SOCK_STREAM,
};

use super::Socket;
use crate::ctx::Ctx;
use crate::task::CapSet;
use std::sync::Arc;

/// A fresh internet socket of the caller.
pub fn create(
    ctx: &Ctx<'_>,
    family: Family,
    kind: u32,
    protocol: i32,
) -> Result<Arc<dyn Socket>, Errno> {
    let protocol = u32::try_from(protocol).map_err(|_| Errno::EINVAL)?;
    let datagrams = |protocol| udp::UdpSocket::new(ctx.kernel, ctx.task, family, protocol);
    match (kind, protocol) {
        (SOCK_STREAM, 0 | IPPROTO_TCP) => Ok(tcp::TcpSocket::new(ctx.kernel, ctx.task, family)),
        (SOCK_DGRAM, 0 | IPPROTO_UDP) => Ok(datagrams(IPPROTO_UDP)),
        (SOCK_DGRAM, IPPROTO_UDPLITE) => Ok(datagrams(IPPROTO_UDPLITE)),
        // ping_group_range is empty.
        (SOCK_DGRAM, IPPROTO_ICMP) if family == Family::V4 => Err(Errno::EACCES),
        (SOCK_DGRAM, IPPROTO_ICMPV6) if family == Family::V6 => Err(Errno::EACCES),
        (SOCK_RAW, 0) => Err(Errno::EPROTONOSUPPORT),
        (SOCK_RAW, _) if ctx.task.creds().has_own(CapSet::NET_RAW) => Err(Errno::EPROTONOSUPPORT),
        (SOCK_RAW, _) => Err(Errno::EPERM),
        (SOCK_STREAM | SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}
