//! Which kind of socket `socket(2)` makes.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX};

use super::Socket;
use super::inet::{self, Family};
use super::netlink;
use super::unix::{UnixKind, UnixSocket};
use crate::ctx::Ctx;
use crate::task::CapSet;

/// A fresh socket of the caller.
pub fn create(
    ctx: &Ctx<'_>,
    domain: u16,
    kind: u32,
    protocol: i32,
) -> Result<Arc<dyn Socket>, Errno> {
    let host = ctx.kernel.net.host_of(ctx.task);
    let family = match domain {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    };
    if let (Some(host), Some(family)) = (host, family) {
        return Ok(super::host::create(ctx, host, family, kind, protocol)?);
    }
    match domain {
        AF_UNIX => {
            if protocol != 0 && protocol != i32::from(AF_UNIX) {
                return Err(Errno::EPROTONOSUPPORT);
            }
            let kind = UnixKind::from_raw(kind)?;
            Ok(UnixSocket::new(ctx.kernel, ctx.task, kind))
        }
        AF_INET => inet::create(ctx, Family::V4, kind, protocol),
        AF_INET6 => inet::create(ctx, Family::V6, kind, protocol),
        AF_NETLINK => netlink::create(ctx, kind, protocol),
        AF_PACKET if !ctx.task.creds().has_own(CapSet::NET_RAW) => Err(Errno::EPERM),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}
