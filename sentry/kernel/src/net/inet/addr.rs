//! Addresses of internet sockets.
//!
//! Inside, an IPv4 address mapped into IPv6 is an IPv4 address; a socket's
//! [`Family`] decides how it looks from outside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use syscall_tables::Errno;
use syscall_tables::abi::{AF_INET, AF_INET6, AF_UNSPEC, SockAddrIn, SockAddrIn6};
use zerocopy::{FromBytes, IntoBytes};

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// What a guest gave for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenAddr {
    Addr(SocketAddr),
    /// `AF_UNSPEC`.
    Unspecified,
}

impl Family {
    pub const fn raw(self) -> u16 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }

    /// Decodes a socket address of this family. `EINVAL` for short ones,
    /// `EAFNOSUPPORT` for other families.
    pub fn parse(self, addr: &[u8]) -> Result<GivenAddr, Errno> {
        let family = addr.first_chunk::<2>().ok_or(Errno::EINVAL)?;
        let family = u16::from_ne_bytes(*family);
        if family == AF_UNSPEC {
            return Ok(GivenAddr::Unspecified);
        }
        let least = match self {
            Self::V4 => size_of::<SockAddrIn>(),
            Self::V6 => SockAddrIn6::MIN_LEN,
        };
        if addr.len() < least {
            return Err(Errno::EINVAL);
        }
        if family != self.raw() {
            return Err(Errno::EAFNOSUPPORT);
        }
        let (ip, port) = match self {
            Self::V4 => {
                let (addr, _) = SockAddrIn::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
                (IpAddr::V4(Ipv4Addr::from(addr.sin_addr)), addr.sin_port)
            }
            Self::V6 => {
                let mut padded = [0; size_of::<SockAddrIn6>()];
                for (to, from) in padded.iter_mut().zip(addr) {
                    *to = *from;
                }
                let (addr, _) =
                    SockAddrIn6::read_from_prefix(&padded).map_err(|_| Errno::EINVAL)?;
                (IpAddr::V6(Ipv6Addr::from(addr.sin6_addr)), addr.sin6_port)
            }
        };
        let port = u16::from_be_bytes(port);
        Ok(GivenAddr::Addr(SocketAddr::new(ip.to_canonical(), port)))
    }

    /// As [`Self::parse`] for destinations of datagrams, where IPv6 sockets
    /// take IPv4 addresses in their own form too.
    pub fn parse_destination(self, addr: &[u8]) -> Result<GivenAddr, Errno> {
        let family = addr
            .first_chunk::<2>()
            .map(|family| u16::from_ne_bytes(*family));
        match (self, family) {
            (Self::V6, Some(AF_INET)) => Self::V4.parse(addr),
            _ => self.parse(addr),
        }
    }

    /// What asking for an option of a protocol that is not the socket's
    /// answers; setting it is `ENOPROTOOPT` always.
    pub const fn no_such_level(self) -> Errno {
        match self {
            Self::V4 => Errno::EOPNOTSUPP,
            Self::V6 => Errno::ENOPROTOOPT,
        }
    }

    /// `addr` as a socket of this family shows it.
    pub fn to_wire(self, addr: SocketAddr) -> Vec<u8> {
        let port = addr.port().to_be_bytes();
        match (self, addr.ip()) {
            (Self::V4, IpAddr::V4(ip)) => SockAddrIn {
                sin_family: AF_INET,
                sin_port: port,
                sin_addr: ip.octets(),
                sin_zero: [0; 8],
            }
            .as_bytes()
            .to_vec(),
            (_, ip) => {
                let ip = match ip {
                    // The unspecified address is the same in both families.
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv6Addr::UNSPECIFIED,
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                SockAddrIn6 {
                    sin6_family: AF_INET6,
                    sin6_port: port,
                    sin6_flowinfo: [0; 4],
                    sin6_addr: ip.octets(),
                    sin6_scope_id: 0,
                }
                .as_bytes()
                .to_vec()
            }
        }
    }

    /// The address that stands for all local ones.
    pub const fn any(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// Whether a socket may be bound to `ip` (`EADDRNOTAVAIL` if not).
pub fn is_bindable(ip: IpAddr) -> bool {
    ip.is_unspecified()
        || is_local(ip)
        || ip.is_multicast()
        || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether packets to `ip` arrive here.
pub fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback()
}

/// Where a packet to `ip` goes: the unspecified address means this host;
/// `ENETUNREACH` for other hosts.
pub fn destination(ip: IpAddr) -> Result<IpAddr, Errno> {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(ip) if ip.is_unspecified() => Ok(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ip if is_local(ip) => Ok(ip),
        _ => Err(Errno::ENETUNREACH),
    }
}

/// The source address of packets to `to`.
pub fn source_for(to: IpAddr) -> IpAddr {
    match to {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

/// Whether `ip` is a broadcast address.
pub fn is_broadcast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip == Ipv4Addr::new(127, 255, 255, 255),
        IpAddr::V6(_) => false,
    }
}
