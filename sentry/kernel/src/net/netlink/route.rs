//! `NETLINK_ROUTE`: links, addresses, routes and neighbours of a namespace
//! that has a loopback interface and nothing else.

use std::net::{Ipv4Addr, Ipv6Addr};

use sentry_platform::host::inet::RouteSocket;
use syscall_tables::Errno;
use syscall_tables::abi::{
    AF_INET, AF_INET6, AF_UNSPEC, ARPHRD_LOOPBACK, IFA_ADDRESS, IFA_CACHEINFO, IFA_F_PERMANENT,
    IFA_FLAGS, IFA_LABEL, IFA_LOCAL, IFLA_ADDRESS, IFLA_BROADCAST, IFLA_CARRIER,
    IFLA_CARRIER_CHANGES, IFLA_GROUP, IFLA_GSO_MAX_SEGS, IFLA_GSO_MAX_SIZE, IFLA_IFNAME,
    IFLA_LINKMODE, IFLA_MTU, IFLA_NUM_RX_QUEUES, IFLA_NUM_TX_QUEUES, IFLA_OPERSTATE,
    IFLA_PROMISCUITY, IFLA_QDISC, IFLA_STATS64, IFLA_TXQLEN, IfAddrMsg, IfFlags, IfInfoMsg,
    IfaCacheinfo, NLMSG_ERROR, NlMsgHdr, NlmFlags, RT_SCOPE_HOST, RT_TABLE_LOCAL, RTA_DST, RTA_OIF,
    RTA_PREFSRC, RTA_PRIORITY, RTA_TABLE, RTM_GETADDR, RTM_GETLINK, RTM_GETNEIGH, RTM_GETNEIGHTBL,
    RTM_GETNETCONF, RTM_GETQDISC, RTM_GETROUTE, RTM_GETRULE, RTM_NEWADDR, RTM_NEWLINK,
    RTM_NEWROUTE, RTM_SETLINK, RTN_LOCAL, RTPROT_KERNEL, RtAttr, RtMsg, RtnlLinkStats64,
};
use zerocopy::{FromBytes, IntoBytes};

use super::message::{Message, Reply, done, error, pack, requests};
use crate::net::host::route::{address, answer as answer_from_host};
use crate::net::interface::{LOOPBACK_INDEX, LOOPBACK_MTU, LOOPBACK_NAME, loopback_flags};

/// `IF_OPER_UNKNOWN`: what loopback reports.
const OPER_UNKNOWN: u8 = 0;
/// First of the route message types, and the last known.
const RTM_BASE: u16 = 16;
const RTM_MAX: u16 = 123;
/// Attribute types of requests.
const IFLA_ALT_IFNAME: u16 = 53;

/// Who asks.
pub struct Caller<'a> {
    pub port: u32,
    /// Has `CAP_NET_ADMIN`.
    pub admin: bool,
    /// Wants errors without the request (`NETLINK_CAP_ACK`).
    pub cap_ack: bool,
    /// Who answers queries instead, in host network mode.
    pub host: Option<&'a RouteSocket>,
}

/// Answers all requests of a datagram, as datagrams.
pub fn answer(datagram: &[u8], caller: &Caller<'_>) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    for (request, header) in requests(datagram) {
        answer_one(request, header, caller, &mut datagrams);
    }
    datagrams
}

fn answer_one(request: &[u8], header: NlMsgHdr, caller: &Caller<'_>, out: &mut Vec<Vec<u8>>) {
    let flags = NlmFlags::from_bits_retain(header.nlmsg_flags);
    // Control messages are not for the kernel.
    if !flags.contains(NlmFlags::NLM_F_REQUEST) || header.nlmsg_type < RTM_BASE {
        return;
    }
    let body = request.get(size_of::<NlMsgHdr>()..).unwrap_or_default();
    // Only queries know dumps; of others the bits mean something else.
    let is_query = header.nlmsg_type % 4 == 2;
    let dump = is_query && flags.contains(NlmFlags::NLM_F_DUMP);
    let reply = Reply {
        seq: header.nlmsg_seq,
        port: caller.port,
        multi: dump,
    };
    let found = handle(header.nlmsg_type, body, dump, reply, caller);
    match found {
        Ok(mut messages) => {
            if dump {
                messages.push(done(reply));
            }
            pack(messages, out);
            if !dump && flags.contains(NlmFlags::NLM_F_ACK) {
                out.push(error(request, header, caller.port, None, true));
            }
        }
        Err(errno) => out.push(error(
            request,
            header,
            caller.port,
            Some(errno),
            caller.cap_ack,
        )),
    }
}

fn handle(
    kind: u16,
    body: &[u8],
    dump: bool,
    reply: Reply,
    caller: &Caller<'_>,
) -> Result<Vec<Vec<u8>>, Errno> {
    if kind > RTM_MAX {
        return Err(Errno::EOPNOTSUPP);
    }
    let is_query = kind % 4 == 2;
    if !is_query && !caller.admin {
        return Err(Errno::EPERM);
    }
    if let Some(host) = caller.host {
        return ask_host(host, kind, body, dump, reply);
    }
    let family = u16::from(*body.first().unwrap_or(&0));
    match kind {
        RTM_GETLINK if dump => Ok(vec![link(reply)]),
        RTM_GETLINK => one_link(body, reply),
        RTM_GETADDR if dump => Ok(addresses(family, reply)),
        RTM_GETROUTE if dump => Ok(routes(family, reply)),
        RTM_GETROUTE => one_route(body, family, reply),
        // There are none.
        RTM_GETNEIGH | RTM_GETNEIGHTBL | RTM_GETRULE | RTM_GETQDISC | RTM_GETNETCONF if dump => {
            Ok(Vec::new())
        }
        RTM_GETNEIGH => Err(Errno::ENOENT),
        RTM_NEWLINK | RTM_SETLINK => same_link(body),
        RTM_NEWADDR => same_address(body),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Has the host answer.
fn ask_host(
    host: &RouteSocket,
    kind: u16,
    body: &[u8],
    dump: bool,
    reply: Reply,
) -> Result<Vec<Vec<u8>>, Errno> {
    let head = match kind {
        RTM_GETLINK => size_of::<IfInfoMsg>(),
        _ => size_of::<RtMsg>(),
    };
    match answer_from_host(host, kind, dump, body, attributes(body, head)) {
        Some(answered) => {
            let mut messages = answered?;
            for message in &mut messages {
                address(message, reply.seq, reply.port);
            }
            Ok(messages)
        }
        None if dump && matches!(kind, RTM_GETNEIGHTBL | RTM_GETQDISC | RTM_GETNETCONF) => {
            Ok(Vec::new())
        }
        // Interfaces and routes are the host's to change.
        None if kind % 4 != 2 => Err(Errno::EPERM),
        None => Err(Errno::EOPNOTSUPP),
    }
}

/// Attributes that follow a body of `head` bytes.
fn attributes(body: &[u8], head: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(head.next_multiple_of(4)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (header, _) = RtAttr::read_from_prefix(rest).ok()?;
        let len = usize::from(header.rta_len);
        let data = rest.get(size_of::<RtAttr>()..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((header.rta_type & syscall_tables::abi::NLA_TYPE_MASK, data))
    })
}

fn one_link(body: &[u8], reply: Reply) -> Result<Vec<Vec<u8>>, Errno> {
    let (request, _) = IfInfoMsg::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    let name = attributes(body, size_of::<IfInfoMsg>())
        .find(|(kind, _)| matches!(*kind, IFLA_IFNAME | IFLA_ALT_IFNAME))
        .map(|(_, name)| name.split(|byte| *byte == 0).next().unwrap_or_default());
    let found = match (request.ifi_index, name) {
        (0, None) => return Err(Errno::EINVAL),
        (0, Some(name)) => name == LOOPBACK_NAME,
        (index, _) => index == LOOPBACK_INDEX,
    };
    if !found {
        return Err(Errno::ENODEV);
    }
    Ok(vec![link(reply)])
}

/// Who sets up a namespace brings its loopback interface up, which it is.
fn same_link(body: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    let (wanted, _) = IfInfoMsg::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    let changed = IfFlags::from_bits_retain(wanted.ifi_change);
    let only_up = (changed - IfFlags::IFF_UP).is_empty();
    let up = IfFlags::from_bits_retain(wanted.ifi_flags).contains(IfFlags::IFF_UP);
    match attributes(body, size_of::<IfInfoMsg>()).next() {
        None if wanted.ifi_index == LOOPBACK_INDEX && only_up && up => Ok(Vec::new()),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// ... and gives it the address that it has.
fn same_address(body: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    let (wanted, _) = IfAddrMsg::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    let local = attributes(body, size_of::<IfAddrMsg>())
        .find(|(kind, _)| *kind == IFA_LOCAL)
        .map(|(_, address)| address);
    let host = Ipv4Addr::LOCALHOST.octets();
    let same = u16::from(wanted.ifa_family) == AF_INET
        && wanted.ifa_prefixlen == 8
        && wanted.ifa_index == LOOPBACK_INDEX.unsigned_abs()
        && local == Some(host.as_slice());
    if same {
        Ok(Vec::new())
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}

fn link(reply: Reply) -> Vec<u8> {
    let flags = loopback_flags() | IfFlags::IFF_LOWER_UP;
    let body = IfInfoMsg {
        ifi_family: 0,
        ifi_type: ARPHRD_LOOPBACK,
        ifi_index: LOOPBACK_INDEX,
        ifi_flags: flags.bits(),
        ..IfInfoMsg::default()
    };
    let mut message = Message::new(RTM_NEWLINK, reply, &body);
    message.attr_str(IFLA_IFNAME, LOOPBACK_NAME);
    message.attr_u32(IFLA_TXQLEN, 1000);
    message.attr(IFLA_OPERSTATE, &[OPER_UNKNOWN]);
    message.attr(IFLA_LINKMODE, &[0]);
    message.attr_u32(IFLA_MTU, LOOPBACK_MTU.unsigned_abs());
    message.attr_u32(IFLA_GROUP, 0);
    message.attr_u32(IFLA_PROMISCUITY, 0);
    message.attr_u32(IFLA_NUM_TX_QUEUES, 1);
    message.attr_u32(IFLA_GSO_MAX_SEGS, 65_535);
    message.attr_u32(IFLA_GSO_MAX_SIZE, 65_536);
    message.attr_u32(IFLA_NUM_RX_QUEUES, 1);
    message.attr(IFLA_CARRIER, &[1]);
    message.attr_str(IFLA_QDISC, b"noqueue");
    message.attr_u32(IFLA_CARRIER_CHANGES, 0);
    message.attr(IFLA_ADDRESS, &[0; 6]);
    message.attr(IFLA_BROADCAST, &[0; 6]);
    message.attr(IFLA_STATS64, RtnlLinkStats64::default().as_bytes());
    message.finish()
}

fn wants(family: u16, other: u16) -> bool {
    family == AF_UNSPEC || family == other
}

fn addresses(family: u16, reply: Reply) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let for_ever = IfaCacheinfo {
        ifa_prefered: u32::MAX,
        ifa_valid: u32::MAX,
        cstamp: 0,
        tstamp: 0,
    };
    let body = |family: u16, prefix: u8| IfAddrMsg {
        ifa_family: family as u8,
        ifa_prefixlen: prefix,
        ifa_flags: IFA_F_PERMANENT,
        ifa_scope: RT_SCOPE_HOST,
        ifa_index: LOOPBACK_INDEX.unsigned_abs(),
    };
    if wants(family, AF_INET) {
        let address = Ipv4Addr::LOCALHOST.octets();
        let mut message = Message::new(RTM_NEWADDR, reply, &body(AF_INET, 8));
        message.attr(IFA_ADDRESS, &address);
        message.attr(IFA_LOCAL, &address);
        message.attr_str(IFA_LABEL, LOOPBACK_NAME);
        message.attr_u32(IFA_FLAGS, IFA_F_PERMANENT.into());
        message.attr(IFA_CACHEINFO, for_ever.as_bytes());
        found.push(message.finish());
    }
    if wants(family, AF_INET6) {
        let mut message = Message::new(RTM_NEWADDR, reply, &body(AF_INET6, 128));
        message.attr(IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets());
        message.attr(IFA_CACHEINFO, for_ever.as_bytes());
        message.attr_u32(IFA_FLAGS, IFA_F_PERMANENT.into());
        found.push(message.finish());
    }
    found
}

/// A route of the local table.
fn local_route(reply: Reply, family: u16, prefix: u8, dst: &[u8], src: Option<&[u8]>) -> Vec<u8> {
    let body = RtMsg {
        rtm_family: family as u8,
        rtm_dst_len: prefix,
        rtm_table: RT_TABLE_LOCAL,
        rtm_protocol: RTPROT_KERNEL,
        rtm_scope: RT_SCOPE_HOST,
        rtm_type: RTN_LOCAL,
        ..RtMsg::default()
    };
    let mut message = Message::new(RTM_NEWROUTE, reply, &body);
    message.attr_u32(RTA_TABLE, RT_TABLE_LOCAL.into());
    message.attr(RTA_DST, dst);
    if let Some(src) = src {
        message.attr(RTA_PREFSRC, src);
    } else {
        message.attr_u32(RTA_PRIORITY, 0);
    }
    message.attr_u32(RTA_OIF, LOOPBACK_INDEX.unsigned_abs());
    message.finish()
}

fn routes(family: u16, reply: Reply) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    if wants(family, AF_INET) {
        let host = Ipv4Addr::LOCALHOST.octets();
        let net = [127, 0, 0, 0];
        found.push(local_route(reply, AF_INET, 8, &net, Some(&host)));
        found.push(local_route(reply, AF_INET, 32, &host, Some(&host)));
    }
    if wants(family, AF_INET6) {
        let host = Ipv6Addr::LOCALHOST.octets();
        found.push(local_route(reply, AF_INET6, 128, &host, None));
    }
    found
}

/// `ip route get`: the route to one address.
fn one_route(body: &[u8], family: u16, reply: Reply) -> Result<Vec<Vec<u8>>, Errno> {
    let to = attributes(body, size_of::<RtMsg>()).find(|(kind, _)| *kind == RTA_DST);
    let to = to.map(|(_, to)| to).ok_or(Errno::EINVAL)?;
    match family {
        AF_INET => {
            let to = to.first_chunk::<4>().ok_or(Errno::EINVAL)?;
            if !Ipv4Addr::from(*to).is_loopback() {
                return Err(Errno::ENETUNREACH);
            }
            let host = Ipv4Addr::LOCALHOST.octets();
            Ok(vec![local_route(reply, AF_INET, 32, to, Some(&host))])
        }
        AF_INET6 => {
            let to = to.first_chunk::<16>().ok_or(Errno::EINVAL)?;
            if !Ipv6Addr::from(*to).is_loopback() {
                return Err(Errno::ENETUNREACH);
            }
            Ok(vec![local_route(reply, AF_INET6, 128, to, Some(to))])
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

const _: () = assert!(NLMSG_ERROR < RTM_BASE);
