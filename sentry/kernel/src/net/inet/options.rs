//! Options at the levels of IP, IPv6, TCP and UDP: most are kept and told
//! again, since on loopback they make no difference.

use syscall_tables::Errno;
use syscall_tables::abi::{
    IP_BIND_ADDRESS_NO_PORT, IP_CHECKSUM, IP_FREEBIND, IP_LOCAL_PORT_RANGE, IP_MINTTL,
    IP_MTU_DISCOVER, IP_MULTICAST_ALL, IP_MULTICAST_LOOP, IP_MULTICAST_TTL, IP_NODEFRAG,
    IP_ORIGDSTADDR, IP_PASSSEC, IP_PKTINFO, IP_RECVERR, IP_RECVERR_RFC4884, IP_RECVFRAGSIZE,
    IP_RECVOPTS, IP_RECVTOS, IP_RECVTTL, IP_RETOPTS, IP_TOS, IP_TRANSPARENT, IP_TTL, IP_UNICAST_IF,
    IPV6_ADDR_PREFERENCES, IPV6_AUTOFLOWLABEL, IPV6_DONTFRAG, IPV6_FLOWINFO_SEND, IPV6_FREEBIND,
    IPV6_MINHOPCOUNT, IPV6_MTU_DISCOVER, IPV6_MULTICAST_ALL, IPV6_MULTICAST_HOPS,
    IPV6_MULTICAST_IF, IPV6_MULTICAST_LOOP, IPV6_ORIGDSTADDR, IPV6_RECVDSTOPTS, IPV6_RECVERR,
    IPV6_RECVFRAGSIZE, IPV6_RECVHOPLIMIT, IPV6_RECVHOPOPTS, IPV6_RECVPATHMTU, IPV6_RECVPKTINFO,
    IPV6_RECVRTHDR, IPV6_RECVTCLASS, IPV6_TCLASS, IPV6_TRANSPARENT, IPV6_UNICAST_HOPS,
    IPV6_UNICAST_IF, IPV6_V6ONLY, SOL_IP, SOL_IPV6, SOL_TCP, SOL_UDP, SOL_UDPLITE, TCP_CORK,
    TCP_DEFER_ACCEPT, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_FASTOPEN_NO_COOKIE, TCP_INQ,
    TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_LINGER2, TCP_MAXSEG, TCP_NODELAY,
    TCP_NOTSENT_LOWAT, TCP_QUICKACK, TCP_SAVE_SYN, TCP_SYNCNT, TCP_THIN_DUPACK,
    TCP_THIN_LINEAR_TIMEOUTS, TCP_TIMESTAMP, TCP_TX_DELAY, TCP_USER_TIMEOUT, TCP_WINDOW_CLAMP,
    UDP_CORK, UDP_GRO, UDP_NO_CHECK6_RX, UDP_NO_CHECK6_TX, UDPLITE_RECV_CSCOV, UDPLITE_SEND_CSCOV,
};

use super::Family;
use crate::net::int_option;
use crate::task::{CapSet, Creds};

/// What an integer option may be.
struct Kind {
    level: u32,
    name: u32,
    default: i32,
    least: i32,
    most: i32,
}

const fn option(level: u32, name: u32, default: i32, least: i32, most: i32) -> Kind {
    Kind {
        level,
        name,
        default,
        least,
        most,
    }
}

const fn switch(level: u32, name: u32, default: i32) -> Kind {
    // Any number but 0 switches on.
    option(level, name, default, 0, 1)
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    option(SOL_IP, IP_TOS, 0, 0, 255),
    option(SOL_IP, IP_TTL, 64, 1, 255),
    switch(SOL_IP, IP_RECVOPTS, 0),
    switch(SOL_IP, IP_RETOPTS, 0),
    switch(SOL_IP, IP_PKTINFO, 0),
    option(SOL_IP, IP_MTU_DISCOVER, 1, 0, 5),
    switch(SOL_IP, IP_RECVERR, 0),
    switch(SOL_IP, IP_RECVTTL, 0),
    switch(SOL_IP, IP_RECVTOS, 0),
    switch(SOL_IP, IP_FREEBIND, 0),
    switch(SOL_IP, IP_PASSSEC, 0),
    switch(SOL_IP, IP_TRANSPARENT, 0),
    switch(SOL_IP, IP_ORIGDSTADDR, 0),
    option(SOL_IP, IP_MINTTL, 0, 0, 255),
    switch(SOL_IP, IP_NODEFRAG, 0),
    switch(SOL_IP, IP_CHECKSUM, 0),
    switch(SOL_IP, IP_BIND_ADDRESS_NO_PORT, 0),
    switch(SOL_IP, IP_RECVFRAGSIZE, 0),
    switch(SOL_IP, IP_RECVERR_RFC4884, 0),
    option(SOL_IP, IP_MULTICAST_TTL, 1, 0, 255),
    switch(SOL_IP, IP_MULTICAST_LOOP, 1),
    switch(SOL_IP, IP_MULTICAST_ALL, 1),
    option(SOL_IP, IP_UNICAST_IF, 0, i32::MIN, i32::MAX),
    option(SOL_IP, IP_LOCAL_PORT_RANGE, 0, i32::MIN, i32::MAX),
    option(SOL_IPV6, IPV6_UNICAST_HOPS, 64, 0, 255),
    option(SOL_IPV6, IPV6_MULTICAST_IF, 0, 0, 1),
    option(SOL_IPV6, IPV6_MULTICAST_HOPS, 1, 0, 255),
    switch(SOL_IPV6, IPV6_MULTICAST_LOOP, 1),
    switch(SOL_IPV6, IPV6_MULTICAST_ALL, 1),
    option(SOL_IPV6, IPV6_MTU_DISCOVER, 1, 0, 5),
    switch(SOL_IPV6, IPV6_RECVERR, 0),
    switch(SOL_IPV6, IPV6_V6ONLY, 0),
    switch(SOL_IPV6, IPV6_FLOWINFO_SEND, 0),
    switch(SOL_IPV6, IPV6_RECVPKTINFO, 0),
    switch(SOL_IPV6, IPV6_RECVHOPLIMIT, 0),
    switch(SOL_IPV6, IPV6_RECVHOPOPTS, 0),
    switch(SOL_IPV6, IPV6_RECVRTHDR, 0),
    switch(SOL_IPV6, IPV6_RECVDSTOPTS, 0),
    switch(SOL_IPV6, IPV6_RECVPATHMTU, 0),
    switch(SOL_IPV6, IPV6_DONTFRAG, 0),
    switch(SOL_IPV6, IPV6_RECVTCLASS, 0),
    option(SOL_IPV6, IPV6_TCLASS, 0, 0, 255),
    switch(SOL_IPV6, IPV6_AUTOFLOWLABEL, 1),
    option(SOL_IPV6, IPV6_ADDR_PREFERENCES, 0, 0, i32::MAX),
    option(SOL_IPV6, IPV6_MINHOPCOUNT, 0, 0, 255),
    switch(SOL_IPV6, IPV6_ORIGDSTADDR, 0),
    switch(SOL_IPV6, IPV6_TRANSPARENT, 0),
    option(SOL_IPV6, IPV6_UNICAST_IF, 0, i32::MIN, i32::MAX),
    switch(SOL_IPV6, IPV6_RECVFRAGSIZE, 0),
    switch(SOL_IPV6, IPV6_FREEBIND, 0),
    switch(SOL_TCP, TCP_NODELAY, 0),
    option(SOL_TCP, TCP_MAXSEG, 536, 88, 32_767),
    switch(SOL_TCP, TCP_CORK, 0),
    option(SOL_TCP, TCP_KEEPIDLE, 7200, 1, 32_767),
    option(SOL_TCP, TCP_KEEPINTVL, 75, 1, 32_767),
    option(SOL_TCP, TCP_KEEPCNT, 9, 1, 127),
    option(SOL_TCP, TCP_SYNCNT, 6, 1, 127),
    option(SOL_TCP, TCP_LINGER2, 60, i32::MIN, i32::MAX),
    option(SOL_TCP, TCP_DEFER_ACCEPT, 0, 0, i32::MAX),
    option(SOL_TCP, TCP_WINDOW_CLAMP, 0, 0, i32::MAX),
    switch(SOL_TCP, TCP_QUICKACK, 1),
    switch(SOL_TCP, TCP_THIN_LINEAR_TIMEOUTS, 0),
    switch(SOL_TCP, TCP_THIN_DUPACK, 0),
    option(SOL_TCP, TCP_USER_TIMEOUT, 0, 0, i32::MAX),
    option(SOL_TCP, TCP_FASTOPEN, 0, 0, i32::MAX),
    switch(SOL_TCP, TCP_FASTOPEN_CONNECT, 0),
    switch(SOL_TCP, TCP_FASTOPEN_NO_COOKIE, 0),
    option(SOL_TCP, TCP_TIMESTAMP, 0, i32::MIN, i32::MAX),
    option(SOL_TCP, TCP_NOTSENT_LOWAT, -1, i32::MIN, i32::MAX),
    option(SOL_TCP, TCP_SAVE_SYN, 0, 0, 2),
    switch(SOL_TCP, TCP_INQ, 0),
    option(SOL_TCP, TCP_TX_DELAY, 0, 0, i32::MAX),
    switch(SOL_UDP, UDP_CORK, 0),
    switch(SOL_UDP, UDP_NO_CHECK6_TX, 0),
    switch(SOL_UDP, UDP_NO_CHECK6_RX, 0),
    switch(SOL_UDP, UDP_GRO, 0),
    option(SOL_UDPLITE, UDPLITE_SEND_CSCOV, 0, 0, 65_535),
    option(SOL_UDPLITE, UDPLITE_RECV_CSCOV, 0, 0, 65_535),
];

/// Options of an internet socket that differ from their defaults.
#[derive(Clone, Default)]
pub struct InetOptions {
    changed: Vec<(u32, u32, i32)>,
}

impl InetOptions {
    /// The value of an integer option.
    pub fn value(&self, level: u32, name: u32) -> Option<i32> {
        let kind = find(level, name)?;
        Some(self.given(level, name).unwrap_or(kind.default))
    }

    /// The value of an option that was set.
    pub fn given(&self, level: u32, name: u32) -> Option<i32> {
        let mut changed = self.changed.iter();
        let own = changed.find(|(l, n, _)| (*l, *n) == (level, name));
        own.map(|(_, _, value)| *value)
    }

    pub fn is_on(&self, level: u32, name: u32) -> bool {
        self.changed
            .iter()
            .any(|(l, n, value)| (*l, *n) == (level, name) && *value != 0)
    }

    /// Sets an integer option of a socket of `family`.
    pub fn set(
        &mut self,
        creds: &Creds,
        family: Family,
        level: u32,
        name: u32,
        value: &[u8],
    ) -> Result<(), Errno> {
        let kind = find(level, name).filter(|kind| applies(kind, family));
        let kind = kind.ok_or(Errno::ENOPROTOOPT)?;
        let number = match level {
            // ip(7): these may be given as a single byte.
            SOL_IP if value.len() < 4 => i32::from(*value.first().unwrap_or(&0)),
            _ => int_option(value)?,
        };
        let privileged = matches!(
            (level, name),
            (SOL_IP, IP_TRANSPARENT) | (SOL_IPV6, IPV6_TRANSPARENT)
        );
        if privileged && number != 0 && !creds.has_own(CapSet::NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        let hops = matches!(
            (level, name),
            (SOL_IP, IP_TTL | IP_MULTICAST_TTL)
                | (
                    SOL_IPV6,
                    IPV6_UNICAST_HOPS | IPV6_MULTICAST_HOPS | IPV6_TCLASS
                )
        );
        let number = if (kind.least, kind.most) == (0, 1) {
            i32::from(number != 0)
        } else if (hops && number == -1) || ((level, name) == (SOL_TCP, TCP_MAXSEG) && number == 0)
        {
            kind.default
        } else if (level, name) == (SOL_IP, IP_TOS) {
            number & 0xff
        } else if level == SOL_UDPLITE {
            super::udp::coverage(number)
        } else {
            number
        };
        if !(kind.least..=kind.most).contains(&number) {
            return Err(Errno::EINVAL);
        }
        self.changed.retain(|(l, n, _)| (*l, *n) != (level, name));
        self.changed.push((level, name, number));
        Ok(())
    }

    /// Gets an integer option of a socket of `family`.
    pub fn get(
        &self,
        family: Family,
        level: u32,
        name: u32,
        max_len: usize,
    ) -> Result<Vec<u8>, Errno> {
        let known = find(level, name).is_some_and(|kind| applies(kind, family));
        let value = self.value(level, name).filter(|_| known);
        let value = value.ok_or(Errno::ENOPROTOOPT)?;
        if level == SOL_IP
            && (1..4).contains(&max_len)
            && let Ok(byte) = u8::try_from(value)
        {
            return Ok(vec![byte]);
        }
        Ok(value.to_ne_bytes().to_vec())
    }
}

fn find(level: u32, name: u32) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| (kind.level, kind.name) == (level, name))
}

fn applies(kind: &Kind, family: Family) -> bool {
    kind.level != SOL_IPV6 || family == Family::V6
}
