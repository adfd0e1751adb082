//! `ioctl`s about network interfaces (`netdevice(7)`): there is `lo`.

use syscall_tables::Errno;
use syscall_tables::abi::{
    ARPHRD_LOOPBACK, IfConf, IfFlags, IfReq, SIOCGIFADDR, SIOCGIFBRDADDR, SIOCGIFCONF,
    SIOCGIFDSTADDR, SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFMETRIC, SIOCGIFMTU,
    SIOCGIFNAME, SIOCGIFNETMASK, SIOCGIFTXQLEN, SIOCSIFADDR, SIOCSIFFLAGS, SIOCSIFMTU,
    SIOCSIFNETMASK,
};

use crate::ctx::{Ctx, SysResult};
use crate::task::CapSet;
use crate::user::UserPtr;

/// Index of the loopback interface.
pub const LOOPBACK_INDEX: i32 = 1;
/// Its MTU.
pub const LOOPBACK_MTU: i32 = 65_536;
/// Its name.
pub const LOOPBACK_NAME: &[u8] = b"lo";

/// Flags of the loopback interface.
pub fn loopback_flags() -> IfFlags {
    IfFlags::IFF_UP | IfFlags::IFF_LOOPBACK | IfFlags::IFF_RUNNING
}

/// `AF_INET` socket address bytes of `addr`.
fn inet_addr(addr: [u8; 4]) -> [u8; 24] {
    let mut data = [0; 24];
    data[0] = 2;
    data[4..8].copy_from_slice(&addr);
    data
}

fn int(value: i32) -> [u8; 24] {
    let mut data = [0; 24];
    data[..4].copy_from_slice(&value.to_ne_bytes());
    data
}

fn loopback_name() -> [u8; 16] {
    let mut name = [0; 16];
    name[..LOOPBACK_NAME.len()].copy_from_slice(LOOPBACK_NAME);
    name
}

/// Interface ioctls of any socket; `ENOTTY` for others.
pub async fn ioctl(ctx: &mut Ctx<'_>, command: u32, arg: u64) -> SysResult {
    if command == SIOCGIFCONF {
        return list(ctx, arg).await;
    }
    if !(0x8910..=0x8970).contains(&command) {
        return Err(Errno::ENOTTY);
    }
    let ptr = UserPtr::<IfReq>::new(arg);
    let mut request = ctx.read(ptr).await?;
    if command == SIOCGIFNAME {
        let index = request.ifr_data.first_chunk::<4>();
        if index.map(|index| i32::from_ne_bytes(*index)) != Some(LOOPBACK_INDEX) {
            return Err(Errno::ENODEV);
        }
        request.ifr_name = loopback_name();
        ctx.write(ptr, &request).await?;
        return Ok(0);
    }
    let name = request.ifr_name.split(|byte| *byte == 0).next();
    if name != Some(LOOPBACK_NAME) {
        return Err(Errno::ENODEV);
    }
    request.ifr_data = match command {
        SIOCGIFFLAGS => {
            let bits = loopback_flags().bits() as u16;
            let mut data = [0; 24];
            data[..2].copy_from_slice(&bits.to_ne_bytes());
            data
        }
        SIOCGIFINDEX => int(LOOPBACK_INDEX),
        SIOCGIFADDR | SIOCGIFDSTADDR => inet_addr([127, 0, 0, 1]),
        SIOCGIFBRDADDR => inet_addr([0; 4]),
        SIOCGIFNETMASK => inet_addr([255, 0, 0, 0]),
        SIOCGIFMTU => int(LOOPBACK_MTU),
        SIOCGIFMETRIC => int(0),
        SIOCGIFTXQLEN => int(1000),
        SIOCGIFHWADDR => {
            let mut data = [0; 24];
            data[..2].copy_from_slice(&ARPHRD_LOOPBACK.to_ne_bytes());
            data
        }
        SIOCSIFFLAGS | SIOCSIFMTU | SIOCSIFADDR | SIOCSIFNETMASK => {
            if !ctx.task.creds().has_own(CapSet::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            // The interface is up and stays as it is; setting what is so
            // already is what container tools do.
            return if command == SIOCSIFFLAGS {
                Ok(0)
            } else {
                Err(Errno::EOPNOTSUPP)
            };
        }
        _ => return Err(Errno::ENOTTY),
    };
    ctx.write(ptr, &request).await?;
    Ok(0)
}

/// `SIOCGIFCONF`: interfaces with an IPv4 address.
async fn list(ctx: &mut Ctx<'_>, arg: u64) -> SysResult {
    let ptr = UserPtr::<IfConf>::new(arg);
    let mut conf = ctx.read(ptr).await?;
    let size = size_of::<IfReq>() as i32;
    if conf.ifc_buf != 0 && conf.ifc_len < size {
        conf.ifc_len = 0;
    } else {
        if conf.ifc_buf != 0 {
            let request = IfReq {
                ifr_name: loopback_name(),
                ifr_data: inet_addr([127, 0, 0, 1]),
            };
            ctx.write(UserPtr::new(conf.ifc_buf), &request).await?;
        }
        conf.ifc_len = size;
    }
    ctx.write(ptr, &conf).await?;
    Ok(0)
}
