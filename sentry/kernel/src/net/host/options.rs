//! Options of host sockets: those on the platform's list are the host's, some
//! at `SOL_SOCKET` are the sandbox's own, all others don't exist.

use std::sync::atomic::Ordering;

use sentry_platform::host::inet::{self, allowed};
use syscall_tables::Errno;
use syscall_tables::abi::{
    IP_OPTIONS_OPT, Linger, SO_BSDCOMPAT, SO_BUSY_POLL, SO_COOKIE, SO_LINGER, SO_MARK, SO_PASSCRED,
    SO_PEERCRED, SO_RCVBUF, SO_RCVBUFFORCE, SO_RCVTIMEO, SO_RCVTIMEO_NEW, SO_SNDBUF,
    SO_SNDBUFFORCE, SO_SNDTIMEO, SO_SNDTIMEO_NEW, SO_TIMESTAMP, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS,
    SO_TIMESTAMPNS_NEW, SO_ZEROCOPY, SOL_IP, SOL_SOCKET, SOL_TCP, TCP_INQ, Ucred,
};
use zerocopy::{FromBytes, IntoBytes};

use super::HostSocket;
use crate::ctx::Ctx;
use crate::task::CapSet;

pub(super) fn get(
    socket: &HostSocket,
    level: u32,
    name: u32,
    max_len: usize,
) -> Result<Vec<u8>, Errno> {
    match (level, name) {
        (SOL_SOCKET, SO_PEERCRED) => {
            let nobody = Ucred {
                pid: 0,
                uid: u32::MAX,
                gid: u32::MAX,
            };
            return Ok(nobody.as_bytes().to_vec());
        }
        (SOL_IP, IP_OPTIONS_OPT) => return Ok(Vec::new()),
        _ if is_own(level, name) => return socket.base.get_option(name, false, max_len),
        _ => {}
    }
    match allowed::option(level, name) {
        Some(option) if option.get => inet::get_option(&*socket.fd, level, name, max_len),
        _ => Err(Errno::ENOPROTOOPT),
    }
}

/// Options that the sentry keeps itself: times to wait, since host sockets
/// never do, and what makes no difference.
fn is_own(level: u32, name: u32) -> bool {
    level == SOL_SOCKET
        && matches!(
            name,
            SO_RCVTIMEO
                | SO_RCVTIMEO_NEW
                | SO_SNDTIMEO
                | SO_SNDTIMEO_NEW
                | SO_BSDCOMPAT
                | SO_PASSCRED
                | SO_BUSY_POLL
                | SO_COOKIE
                | SO_MARK
                | SO_ZEROCOPY
        )
}

pub(super) fn set(
    socket: &HostSocket,
    ctx: &Ctx<'_>,
    level: u32,
    name: u32,
    value: &[u8],
) -> Result<(), Errno> {
    match (level, name) {
        // Marks steer the host's packets.
        (SOL_SOCKET, SO_MARK) => return Err(Errno::EPERM),
        (SOL_SOCKET, SO_ZEROCOPY) => return Err(Errno::EOPNOTSUPP),
        // The host's limits are not the guest's to pass; within them this is
        // the plain option.
        (SOL_SOCKET, SO_SNDBUFFORCE | SO_RCVBUFFORCE) => {
            if !ctx.task.creds().has_own(CapSet::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            let plain = if name == SO_SNDBUFFORCE {
                SO_SNDBUF
            } else {
                SO_RCVBUF
            };
            return inet::set_option(&*socket.fd, level, plain, value);
        }
        (SOL_IP, IP_OPTIONS_OPT) if value.is_empty() => return Ok(()),
        _ if is_own(level, name) => return socket.base.set_option(ctx, name, value),
        _ => {}
    }
    if !allowed::option(level, name).is_some_and(|option| option.set) {
        return Err(Errno::ENOPROTOOPT);
    }
    inet::set_option(&*socket.fd, level, name, value)?;
    match (level, name) {
        (SOL_SOCKET, SO_LINGER) => {
            if let Ok((linger, _)) = Linger::read_from_prefix(value) {
                socket.base.options.lock().linger = linger;
            }
        }
        (SOL_SOCKET, SO_TIMESTAMP | SO_TIMESTAMP_NEW | SO_TIMESTAMPNS | SO_TIMESTAMPNS_NEW)
        | (SOL_TCP, TCP_INQ) => socket.wants_control.store(true, Ordering::Relaxed),
        _ => {}
    }
    Ok(())
}
