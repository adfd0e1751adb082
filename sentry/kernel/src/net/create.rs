//! Which kind of socket `socket(2)` makes.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::AF_UNIX;

use super::Socket;
use super::unix::{UnixKind, UnixSocket};
use crate::ctx::Ctx;

/// A fresh socket of the caller.
pub fn create(
    ctx: &Ctx<'_>,
    domain: u16,
    kind: u32,
    protocol: i32,
) -> Result<Arc<dyn Socket>, Errno> {
    match domain {
        AF_UNIX => {
            if protocol != 0 && protocol != i32::from(AF_UNIX) {
                return Err(Errno::EPROTONOSUPPORT);
            }
            let kind = UnixKind::from_raw(kind)?;
            Ok(UnixSocket::new(ctx.kernel, ctx.task, kind))
        }
        _ => Err(Errno::EAFNOSUPPORT),
    }
}
