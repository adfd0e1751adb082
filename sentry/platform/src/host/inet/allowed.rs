//! What of the host's socket interface guests may use in host network mode:
//! options and ioctls. The one source for the seccomp list of the sentry and
//! for the kernel's own checks; `docs/SECURITY.md` names them.

/// A socket option with what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedOption {
    pub level: u32,
    pub name: u32,
    pub get: bool,
    pub set: bool,
}

const fn both(level: i32, name: i32) -> AllowedOption {
    AllowedOption {
        level: level as u32,
        name: name as u32,
        get: true,
        set: true,
    }
}

const fn read_only(level: i32, name: i32) -> AllowedOption {
    AllowedOption {
        set: false,
        ..both(level, name)
    }
}

const fn write_only(level: i32, name: i32) -> AllowedOption {
    AllowedOption {
        get: false,
        ..both(level, name)
    }
}

/// Names that the C library crate lacks.
const IP_LOCAL_PORT_RANGE: i32 = 51;
const IPV6_MULTICAST_ALL: i32 = 29;
const IPV6_ADDR_PREFERENCES: i32 = 72;
const IPV6_UNICAST_IF: i32 = 76;
const IPV6_MINHOPCOUNT: i32 = 73;
const ICMP_FILTER: i32 = 1;

/// All options that reach the host. Not here: filters and programs
/// (`SO_ATTACH_*`), marks, zero copy, upper-layer protocols (`TCP_ULP`),
/// repair, firewall tables, multicast routing, transparent proxying.
pub const OPTIONS: &[AllowedOption] = &[
    both(libc::SOL_SOCKET, libc::SO_REUSEADDR),
    read_only(libc::SOL_SOCKET, libc::SO_TYPE),
    read_only(libc::SOL_SOCKET, libc::SO_ERROR),
    both(libc::SOL_SOCKET, libc::SO_DONTROUTE),
    both(libc::SOL_SOCKET, libc::SO_BROADCAST),
    both(libc::SOL_SOCKET, libc::SO_SNDBUF),
    both(libc::SOL_SOCKET, libc::SO_RCVBUF),
    both(libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    both(libc::SOL_SOCKET, libc::SO_OOBINLINE),
    both(libc::SOL_SOCKET, libc::SO_NO_CHECK),
    both(libc::SOL_SOCKET, libc::SO_PRIORITY),
    both(libc::SOL_SOCKET, libc::SO_LINGER),
    both(libc::SOL_SOCKET, libc::SO_REUSEPORT),
    both(libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    read_only(libc::SOL_SOCKET, libc::SO_SNDLOWAT),
    both(libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
    both(libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    read_only(libc::SOL_SOCKET, libc::SO_ACCEPTCONN),
    both(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS),
    read_only(libc::SOL_SOCKET, libc::SO_PROTOCOL),
    read_only(libc::SOL_SOCKET, libc::SO_DOMAIN),
    both(libc::SOL_SOCKET, libc::SO_RXQ_OVFL),
    both(libc::SOL_SOCKET, libc::SO_PEEK_OFF),
    both(libc::SOL_SOCKET, libc::SO_SELECT_ERR_QUEUE),
    both(libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE),
    both(libc::SOL_SOCKET, libc::SO_INCOMING_CPU),
    both(libc::SOL_SOCKET, 63), // SO_TIMESTAMP_NEW
    both(libc::SOL_SOCKET, 64), // SO_TIMESTAMPNS_NEW
    both(libc::SOL_SOCKET, 72), // SO_BUF_LOCK
    both(libc::SOL_IP, libc::IP_TOS),
    both(libc::SOL_IP, libc::IP_TTL),
    both(libc::SOL_IP, libc::IP_PKTINFO),
    both(libc::SOL_IP, libc::IP_MTU_DISCOVER),
    both(libc::SOL_IP, libc::IP_RECVERR),
    both(libc::SOL_IP, libc::IP_RECVTTL),
    both(libc::SOL_IP, libc::IP_RECVTOS),
    read_only(libc::SOL_IP, libc::IP_MTU),
    both(libc::SOL_IP, libc::IP_FREEBIND),
    both(libc::SOL_IP, libc::IP_RECVORIGDSTADDR),
    both(libc::SOL_IP, libc::IP_MINTTL),
    both(libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT),
    both(libc::SOL_IP, libc::IP_MULTICAST_IF),
    both(libc::SOL_IP, libc::IP_MULTICAST_TTL),
    both(libc::SOL_IP, libc::IP_MULTICAST_LOOP),
    write_only(libc::SOL_IP, libc::IP_ADD_MEMBERSHIP),
    write_only(libc::SOL_IP, libc::IP_DROP_MEMBERSHIP),
    write_only(libc::SOL_IP, libc::IP_ADD_SOURCE_MEMBERSHIP),
    write_only(libc::SOL_IP, libc::IP_DROP_SOURCE_MEMBERSHIP),
    both(libc::SOL_IP, libc::IP_MULTICAST_ALL),
    both(libc::SOL_IP, libc::IP_UNICAST_IF),
    both(libc::SOL_IP, IP_LOCAL_PORT_RANGE),
    // Where a redirected connection was to go; service meshes need it.
    read_only(libc::SOL_IP, libc::SO_ORIGINAL_DST),
    both(libc::SOL_IPV6, libc::IPV6_UNICAST_HOPS),
    both(libc::SOL_IPV6, libc::IPV6_MULTICAST_IF),
    both(libc::SOL_IPV6, libc::IPV6_MULTICAST_HOPS),
    both(libc::SOL_IPV6, libc::IPV6_MULTICAST_LOOP),
    write_only(libc::SOL_IPV6, libc::IPV6_ADD_MEMBERSHIP),
    write_only(libc::SOL_IPV6, libc::IPV6_DROP_MEMBERSHIP),
    both(libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER),
    both(libc::SOL_IPV6, libc::IPV6_MTU),
    both(libc::SOL_IPV6, libc::IPV6_RECVERR),
    both(libc::SOL_IPV6, libc::IPV6_V6ONLY),
    both(libc::SOL_IPV6, IPV6_MULTICAST_ALL),
    both(libc::SOL_IPV6, libc::IPV6_RECVPKTINFO),
    both(libc::SOL_IPV6, libc::IPV6_RECVHOPLIMIT),
    both(libc::SOL_IPV6, libc::IPV6_RECVTCLASS),
    both(libc::SOL_IPV6, libc::IPV6_TCLASS),
    both(libc::SOL_IPV6, libc::IPV6_DONTFRAG),
    both(libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR),
    both(libc::SOL_IPV6, libc::IPV6_FREEBIND),
    both(libc::SOL_IPV6, IPV6_ADDR_PREFERENCES),
    both(libc::SOL_IPV6, IPV6_MINHOPCOUNT),
    both(libc::SOL_IPV6, IPV6_UNICAST_IF),
    read_only(libc::SOL_IPV6, libc::SO_ORIGINAL_DST),
    both(libc::SOL_TCP, libc::TCP_NODELAY),
    both(libc::SOL_TCP, libc::TCP_MAXSEG),
    both(libc::SOL_TCP, libc::TCP_CORK),
    both(libc::SOL_TCP, libc::TCP_KEEPIDLE),
    both(libc::SOL_TCP, libc::TCP_KEEPINTVL),
    both(libc::SOL_TCP, libc::TCP_KEEPCNT),
    both(libc::SOL_TCP, libc::TCP_SYNCNT),
    both(libc::SOL_TCP, libc::TCP_LINGER2),
    both(libc::SOL_TCP, libc::TCP_DEFER_ACCEPT),
    both(libc::SOL_TCP, libc::TCP_WINDOW_CLAMP),
    read_only(libc::SOL_TCP, libc::TCP_INFO),
    both(libc::SOL_TCP, libc::TCP_QUICKACK),
    both(libc::SOL_TCP, libc::TCP_CONGESTION),
    both(libc::SOL_TCP, libc::TCP_USER_TIMEOUT),
    both(libc::SOL_TCP, libc::TCP_FASTOPEN),
    both(libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT),
    both(libc::SOL_TCP, libc::TCP_INQ),
    read_only(libc::SOL_TCP, libc::TCP_CC_INFO),
    both(libc::SOL_UDP, libc::UDP_CORK),
    both(libc::SOL_UDP, libc::UDP_SEGMENT),
    both(libc::SOL_UDP, libc::UDP_GRO),
    both(libc::IPPROTO_ICMPV6, ICMP_FILTER),
];

/// The option's entry, if it is on the list.
pub fn option(level: u32, name: u32) -> Option<&'static AllowedOption> {
    OPTIONS
        .iter()
        .find(|option| option.level == level && option.name == name)
}

/// Queries about an interface that take and fill a `struct ifreq`.
pub const INTERFACE_QUERIES: [u32; 11] = [
    0x8910, // SIOCGIFNAME
    0x8913, // SIOCGIFFLAGS
    0x8915, // SIOCGIFADDR
    0x8917, // SIOCGIFDSTADDR
    0x8919, // SIOCGIFBRDADDR
    0x891b, // SIOCGIFNETMASK
    0x891d, // SIOCGIFMETRIC
    0x8921, // SIOCGIFMTU
    0x8927, // SIOCGIFHWADDR
    0x8933, // SIOCGIFINDEX
    0x8942, // SIOCGIFTXQLEN
];

/// `SIOCGIFCONF`: the interfaces with IPv4 addresses.
pub const SIOCGIFCONF: u32 = 0x8912;

/// Queries about a socket that fill an `int`.
pub const SOCKET_QUERIES: [u32; 3] = [
    libc::FIONREAD as u32,
    libc::TIOCOUTQ as u32,
    0x8905, // SIOCATMARK
];

/// Control messages that guests may send with a packet: level and type.
pub const SENT_CONTROL: [(i32, i32); 8] = [
    (libc::SOL_IP, libc::IP_TOS),
    (libc::SOL_IP, libc::IP_TTL),
    (libc::SOL_IP, libc::IP_PKTINFO),
    (libc::SOL_IPV6, libc::IPV6_PKTINFO),
    (libc::SOL_IPV6, libc::IPV6_HOPLIMIT),
    (libc::SOL_IPV6, libc::IPV6_TCLASS),
    (libc::SOL_IPV6, libc::IPV6_DONTFRAG),
    (libc::SOL_UDP, libc::UDP_SEGMENT),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_is_listed_twice() {
        for (at, option) in OPTIONS.iter().enumerate() {
            let rest = OPTIONS.get(at + 1..).expect("in range");
            let again = rest
                .iter()
                .any(|other| (other.level, other.name) == (option.level, option.name));
            assert!(!again, "{option:?}");
            assert!(option.get || option.set);
        }
        let filter = option(libc::SOL_SOCKET as u32, libc::SO_ATTACH_FILTER as u32);
        assert_eq!(filter, None);
    }
}
