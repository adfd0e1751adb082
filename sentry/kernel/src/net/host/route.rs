//! Route queries answered by the host. Queries are made anew from the few
//! fields that matter: guests' bytes don't reach the host's parser.

use sentry_platform::host::inet::RouteSocket;
use syscall_tables::Errno;
use syscall_tables::abi::{
    IFLA_IFNAME, IfAddrMsg, IfInfoMsg, NdMsg, RTA_DST, RTA_OIF, RTM_GETADDR, RTM_GETLINK,
    RTM_GETNEIGH, RTM_GETROUTE, RTM_GETRULE, RtAttr, RtMsg,
};
use zerocopy::{FromBytes, IntoBytes};

/// Longest attribute passed on: a name or an address.
const ATTRIBUTE_MAX: usize = 128;
/// `RTM_F_LOOKUP_TABLE`: `ip route get` wants the table named.
const LOOKUP_TABLE: u32 = 0x1000;

/// Answers a query of `kind`: whole messages without sequence and port.
/// `attributes` are those of the request. `None` if the host is not asked.
pub fn answer<'a>(
    host: &RouteSocket,
    kind: u16,
    dump: bool,
    body: &[u8],
    attributes: impl Iterator<Item = (u16, &'a [u8])>,
) -> Option<Result<Vec<Vec<u8>>, Errno>> {
    if !RouteSocket::answers(kind) {
        return None;
    }
    Some(request(kind, dump, body, attributes).and_then(|body| host.query(kind, dump, &body)))
}

fn request<'a>(
    kind: u16,
    dump: bool,
    body: &[u8],
    attributes: impl Iterator<Item = (u16, &'a [u8])>,
) -> Result<Vec<u8>, Errno> {
    let family = *body.first().unwrap_or(&0);
    let mut kept: &[u16] = &[];
    let mut bytes = match kind {
        RTM_GETLINK => {
            let mut wanted = IfInfoMsg {
                ifi_family: family,
                ..IfInfoMsg::default()
            };
            if !dump {
                let (asked, _) = IfInfoMsg::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
                wanted.ifi_index = asked.ifi_index;
                kept = &[IFLA_IFNAME];
            }
            wanted.as_bytes().to_vec()
        }
        RTM_GETADDR if dump => IfAddrMsg {
            ifa_family: family,
            ..IfAddrMsg::default()
        }
        .as_bytes()
        .to_vec(),
        RTM_GETROUTE | RTM_GETRULE => {
            let mut wanted = RtMsg {
                rtm_family: family,
                ..RtMsg::default()
            };
            if !dump {
                let (asked, _) = RtMsg::read_from_prefix(body).map_err(|_| Errno::EINVAL)?;
                wanted.rtm_dst_len = asked.rtm_dst_len;
                wanted.rtm_flags = asked.rtm_flags & LOOKUP_TABLE;
                kept = &[RTA_DST, RTA_OIF];
            }
            wanted.as_bytes().to_vec()
        }
        RTM_GETNEIGH if dump => NdMsg {
            ndm_family: family,
            ..NdMsg::default()
        }
        .as_bytes()
        .to_vec(),
        _ => return Err(Errno::EOPNOTSUPP),
    };
    for (kind, data) in attributes {
        if !kept.contains(&kind) || data.len() > ATTRIBUTE_MAX {
            continue;
        }
        let len = size_of::<RtAttr>() + data.len();
        let header = RtAttr {
            rta_len: u16::try_from(len).map_err(|_| Errno::EINVAL)?,
            rta_type: kind,
        };
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Ok(bytes)
}

/// Makes `message` an answer to query `sequence` of `port`.
pub fn address(message: &mut [u8], sequence: u32, port: u32) {
    if let Some(fields) = message.get_mut(8..16).and_then(<[u8]>::first_chunk_mut) {
        let [s, p] = [sequence, port].map(u32::to_ne_bytes);
        *fields = [s[0], s[1], s[2], s[3], p[0], p[1], p[2], p[3]];
    }
}
