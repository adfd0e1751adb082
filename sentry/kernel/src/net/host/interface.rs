//! `ioctl`s about interfaces (`netdevice(7)`), answered by the host.

use sentry_platform::host::inet::{self, HostNetwork, allowed};
use syscall_tables::Errno;
use syscall_tables::abi::{IfConf, IfReq};

use crate::ctx::{Ctx, SysResult};
use crate::user::UserPtr;

/// Most interfaces listed.
const LIST_MAX: usize = 1024;
/// First and one past the last of the ioctls about interfaces.
const INTERFACE_IOCTLS: std::ops::Range<u32> = 0x8910..0x8970;

/// Interface ioctls of any socket; `ENOTTY` for others, `EPERM` for those
/// that change something: the interfaces are the host's.
pub async fn ioctl(ctx: &mut Ctx<'_>, network: &HostNetwork, command: u32, arg: u64) -> SysResult {
    if command == allowed::SIOCGIFCONF {
        return list(ctx, network, arg).await;
    }
    if !INTERFACE_IOCTLS.contains(&command) {
        return Err(Errno::ENOTTY);
    }
    if !allowed::INTERFACE_QUERIES.contains(&command) {
        return Err(Errno::EPERM);
    }
    let ptr = UserPtr::<[u8; 40]>::new(arg);
    let mut request = ctx.read(ptr).await?;
    inet::query_interface(network.queries(), command, &mut request)?;
    ctx.write(ptr, &request).await?;
    Ok(0)
}

async fn list(ctx: &mut Ctx<'_>, network: &HostNetwork, arg: u64) -> SysResult {
    let ptr = UserPtr::<IfConf>::new(arg);
    let mut conf = ctx.read(ptr).await?;
    let size = size_of::<IfReq>();
    let found = inet::interfaces(network.queries(), LIST_MAX)?;
    let mut fit = found.len();
    if conf.ifc_buf != 0 {
        let room = usize::try_from(conf.ifc_len).map_err(|_| Errno::EINVAL)?;
        fit = fit.min(room / size);
        let bytes = found.iter().take(fit).flatten().copied();
        let bytes: Vec<u8> = bytes.collect();
        ctx.write_bytes(conf.ifc_buf, &bytes).await?;
    }
    conf.ifc_len = i32::try_from(fit * size).unwrap_or(i32::MAX);
    ctx.write(ptr, &conf).await?;
    Ok(0)
}
