//! `NETLINK_SOCK_DIAG`: the internet sockets of a namespace (`sock_diag(7)`),
//! as `ss` asks for them. Only whole dumps, without filters in the kernel.

use std::net::{IpAddr, SocketAddr};

use syscall_tables::Errno;
use syscall_tables::abi::{
    InetDiagMsg, InetDiagReqV2, InetDiagSockId, NlMsgHdr, NlmFlags, SOCK_DIAG_BY_FAMILY, TCP_CLOSE,
    TCP_ESTABLISHED,
};
use zerocopy::FromBytes;

use super::message::{Message, Reply, done, error, pack, requests};
use crate::net::inet::Family;
use crate::net::{NetNamespace, Socket, SocketBase};
use crate::task::UserNamespace;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_UDPLITE: u8 = 136;

/// Who asks.
pub struct Caller<'a> {
    pub port: u32,
    /// Wants errors without the request (`NETLINK_CAP_ACK`).
    pub cap_ack: bool,
    pub namespace: &'a NetNamespace,
    pub user_ns: &'a UserNamespace,
}

/// Answers all requests of a datagram, as datagrams.
pub fn answer(datagram: &[u8], caller: &Caller<'_>) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (request, header) in requests(datagram) {
        let flags = NlmFlags::from_bits_retain(header.nlmsg_flags);
        if !flags.contains(NlmFlags::NLM_F_REQUEST) || header.nlmsg_type < SOCK_DIAG_BY_FAMILY - 4 {
            continue;
        }
        let reply = Reply {
            seq: header.nlmsg_seq,
            port: caller.port,
            multi: true,
        };
        match dump(request, header, flags, reply, caller) {
            Ok(mut messages) => {
                messages.push(done(reply));
                pack(messages, &mut out);
            }
            Err(errno) => {
                let errno = Some(errno);
                out.push(error(request, header, caller.port, errno, caller.cap_ack));
            }
        }
    }
    out
}

fn dump(
    request: &[u8],
    header: NlMsgHdr,
    flags: NlmFlags,
    reply: Reply,
    caller: &Caller<'_>,
) -> Result<Vec<Vec<u8>>, Errno> {
    if header.nlmsg_type != SOCK_DIAG_BY_FAMILY {
        return Err(Errno::EINVAL);
    }
    let body = request.get(size_of::<NlMsgHdr>()..).unwrap_or_default();
    // Requests of other families have another form.
    let family = body.first().copied().ok_or(Errno::EINVAL)?;
    let family = [Family::V4, Family::V6]
        .into_iter()
        .find(|known| known.raw() == u16::from(family))
        .ok_or(Errno::ENOENT)?;
    let (wanted, _) = InetDiagReqV2::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
    if !flags.contains(NlmFlags::NLM_F_DUMP) {
        return Err(Errno::EOPNOTSUPP);
    }
    let entries = match wanted.sdiag_protocol {
        IPPROTO_TCP => tcp(caller, family),
        IPPROTO_UDP => udp(caller, family, caller.namespace.udp.bound()),
        IPPROTO_UDPLITE => udp(caller, family, caller.namespace.udp_lite.bound()),
        // No such module.
        _ => return Err(Errno::ENOENT),
    };
    let is_wanted = |entry: &InetDiagMsg| {
        let bit = 1_u32.checked_shl(entry.idiag_state.into()).unwrap_or(0);
        wanted.idiag_states & bit != 0
    };
    let messages = entries.into_iter().filter(is_wanted);
    let messages = messages.map(|entry| Message::new(SOCK_DIAG_BY_FAMILY, reply, &entry).finish());
    Ok(messages.collect())
}

fn tcp(caller: &Caller<'_>, family: Family) -> Vec<InetDiagMsg> {
    let sockets = caller.namespace.tcp_sockets();
    let listed = sockets.iter().filter(|socket| {
        // What is closed has no place in the tables.
        socket.family() == family && socket.state_number() != TCP_CLOSE
    });
    let entries = listed.map(|socket| InetDiagMsg {
        idiag_state: socket.state_number(),
        idiag_rqueue: count(socket.queued()),
        idiag_wqueue: count(socket.backlog().unwrap_or(0)),
        ..entry(caller, family, socket.base(), socket.addresses())
    });
    entries.collect()
}

fn udp(
    caller: &Caller<'_>,
    family: Family,
    sockets: Vec<std::sync::Arc<crate::net::inet::udp::UdpSocket>>,
) -> Vec<InetDiagMsg> {
    let listed = sockets.iter().filter(|socket| socket.family() == family);
    let entries = listed.map(|socket| {
        let (local, peer) = socket.addresses();
        InetDiagMsg {
            idiag_state: peer.map_or(TCP_CLOSE, |_| TCP_ESTABLISHED),
            idiag_rqueue: count(socket.queue_state().0),
            ..entry(caller, family, socket.base(), (local, peer))
        }
    });
    entries.collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn entry(
    caller: &Caller<'_>,
    family: Family,
    base: &SocketBase,
    (local, peer): (SocketAddr, Option<SocketAddr>),
) -> InetDiagMsg {
    let peer_port = peer.map_or(0, |peer| peer.port());
    InetDiagMsg {
        idiag_family: family.raw() as u8,
        id: InetDiagSockId {
            idiag_sport: local.port().to_be_bytes(),
            idiag_dport: peer_port.to_be_bytes(),
            idiag_src: address(family, local.ip()),
            idiag_dst: peer.map_or([0; 16], |peer| address(family, peer.ip())),
            idiag_if: 0,
            idiag_cookie: [base.ino as u32, (base.ino >> 32) as u32],
        },
        idiag_uid: caller.user_ns.uid_or_overflow(base.owner),
        idiag_inode: base.ino as u32,
        ..InetDiagMsg::default()
    }
}

/// An address as a socket of `family` has it, in the first bytes.
fn address(family: Family, ip: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match (family, ip) {
        (Family::V4, IpAddr::V4(ip)) => {
            for (to, from) in bytes.iter_mut().zip(ip.octets()) {
                *to = from;
            }
            bytes
        }
        (_, ip) if ip.is_unspecified() => bytes,
        (_, IpAddr::V4(ip)) => ip.to_ipv6_mapped().octets(),
        (_, IpAddr::V6(ip)) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_their_sizes() {
        assert_eq!(size_of::<InetDiagReqV2>(), 56);
        assert_eq!(size_of::<InetDiagMsg>(), 72);
    }

    #[test]
    fn addresses_lie_in_the_first_bytes() {
        let v4: IpAddr = [127, 0, 0, 1].into();
        assert_eq!(address(Family::V4, v4)[..5], [127, 0, 0, 1, 0]);
        assert_eq!(address(Family::V6, v4)[10..], [0xff, 0xff, 127, 0, 0, 1]);
    }
}
