//! Control messages that say how a single datagram goes: `IP_TTL`, `IP_TOS`
//! and `IP_PKTINFO` (`ip(7)`), `IPV6_HOPLIMIT`, `IPV6_TCLASS` and
//! `IPV6_PKTINFO` (RFC 3542).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use syscall_tables::Errno;
use syscall_tables::abi::{
    IP_PKTINFO, IP_TOS, IP_TTL, IPV6_HOPLIMIT, IPV6_PKTINFO, IPV6_TCLASS, In6Pktinfo, InPktinfo,
    SOL_IP, SOL_IPV6,
};
use zerocopy::FromBytes;

use crate::net::inet::Family;
use crate::net::inet::addr::is_local;

/// What differs from the options of the socket.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PacketOptions {
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    pub source: Option<IpAddr>,
}

fn int(data: &[u8]) -> Result<i32, Errno> {
    i32::read_from_bytes(data).map_err(|_| Errno::EINVAL)
}

/// -1 stands for the default.
fn byte_or_default(data: &[u8]) -> Result<Option<u8>, Errno> {
    match int(data)? {
        -1 => Ok(None),
        value => u8::try_from(value).map(Some).map_err(|_| Errno::EINVAL),
    }
}

/// A source address: unspecified for the default, else one of this host.
fn source(ip: IpAddr) -> Result<Option<IpAddr>, Errno> {
    match ip {
        ip if ip.is_unspecified() => Ok(None),
        ip if is_local(ip) => Ok(Some(ip)),
        _ => Err(Errno::EINVAL),
    }
}

impl PacketOptions {
    /// Messages of other levels are not for this socket and left alone.
    pub fn parse(family: Family, control: &[(i32, i32, Vec<u8>)]) -> Result<Self, Errno> {
        let mut options = Self::default();
        for (level, kind, data) in control {
            let kind = kind.cast_unsigned();
            match (family, level.cast_unsigned()) {
                (Family::V4, SOL_IP) => options.v4(kind, data)?,
                (Family::V6, SOL_IPV6) => options.v6(kind, data)?,
                _ => {}
            }
        }
        Ok(options)
    }

    fn v4(&mut self, kind: u32, data: &[u8]) -> Result<(), Errno> {
        match kind {
            IP_TTL => {
                let ttl = u8::try_from(int(data)?).map_err(|_| Errno::EINVAL)?;
                self.ttl = (ttl != 0).then_some(ttl);
                self.ttl.map(drop).ok_or(Errno::EINVAL)
            }
            IP_TOS => {
                let tos = match data {
                    [tos] => *tos,
                    data => u8::try_from(int(data)?).map_err(|_| Errno::EINVAL)?,
                };
                self.tos = Some(tos);
                Ok(())
            }
            IP_PKTINFO => {
                let info = InPktinfo::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
                self.source = source(IpAddr::V4(Ipv4Addr::from(info.ipi_spec_dst)))?;
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn v6(&mut self, kind: u32, data: &[u8]) -> Result<(), Errno> {
        match kind {
            IPV6_HOPLIMIT => self.ttl = byte_or_default(data)?,
            IPV6_TCLASS => self.tos = byte_or_default(data)?,
            IPV6_PKTINFO => {
                let info = In6Pktinfo::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
                let ip = Ipv6Addr::from(info.ipi6_addr);
                self.source = source(ip.to_canonical())?;
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(family: Family, level: u32, kind: u32, value: i32) -> Result<PacketOptions, Errno> {
        let data = value.to_ne_bytes().to_vec();
        PacketOptions::parse(family, &[(level.cast_signed(), kind.cast_signed(), data)])
    }

    #[test]
    fn limits_of_hops() {
        let ttl = |value| parse(Family::V4, SOL_IP, IP_TTL, value).map(|options| options.ttl);
        assert_eq!(ttl(3), Ok(Some(3)));
        assert_eq!(ttl(0), Err(Errno::EINVAL));
        assert_eq!(ttl(256), Err(Errno::EINVAL));
        let hops = |value| {
            let options = parse(Family::V6, SOL_IPV6, IPV6_HOPLIMIT, value);
            options.map(|options| options.ttl)
        };
        assert_eq!(hops(0), Ok(Some(0)));
        assert_eq!(hops(-1), Ok(None));
        assert_eq!(hops(256), Err(Errno::EINVAL));
    }

    #[test]
    fn other_levels_are_left_alone() {
        let options = parse(Family::V6, SOL_IP, IP_TTL, 0);
        assert_eq!(options, Ok(PacketOptions::default()));
        let unknown = parse(Family::V4, SOL_IP, 9999, 0);
        assert_eq!(unknown, Err(Errno::EINVAL));
    }
}
