//! Route queries.

use syscall_tables::Errno;
use syscall_tables::abi::{
    NLMSG_DONE, NLMSG_ERROR, NlMsgHdr, RTM_GETADDR, RTM_GETLINK, RTM_NEWLINK,
};
use zerocopy::{FromBytes, IntoBytes};

use super::route::{Caller, answer};

const CALLER: Caller<'static> = Caller {
    port: 42,
    admin: false,
    cap_ack: false,
    host: None,
};

fn request(kind: u16, flags: u16) -> Vec<u8> {
    let header = NlMsgHdr {
        nlmsg_len: 32,
        nlmsg_type: kind,
        nlmsg_flags: flags,
        nlmsg_seq: 7,
        nlmsg_pid: 0,
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(32, 0);
    bytes
}

/// Types of the messages in a datagram.
fn kinds(mut datagram: &[u8]) -> Vec<u16> {
    let mut kinds = Vec::new();
    while let Ok((header, _)) = NlMsgHdr::read_from_prefix(datagram) {
        assert_eq!((header.nlmsg_seq, header.nlmsg_pid), (7, 42));
        kinds.push(header.nlmsg_type);
        datagram = &datagram[header.nlmsg_len.next_multiple_of(4) as usize..];
    }
    kinds
}

#[test]
fn dumps_end() {
    let link = answer(&request(RTM_GETLINK, 0x301), &CALLER);
    let all: Vec<_> = link.iter().map(|datagram| kinds(datagram)).collect();
    assert_eq!(all, [vec![RTM_NEWLINK], vec![NLMSG_DONE]]);
    let addresses = answer(&request(RTM_GETADDR, 0x301), &CALLER);
    assert_eq!(kinds(&addresses[0]).len(), 2);
}

#[test]
fn refusals_repeat_the_request() {
    let bytes = request(0x0ff0, 5);
    let refused = answer(&bytes, &CALLER);
    assert_eq!(kinds(&refused[0]), [NLMSG_ERROR]);
    assert_eq!(refused[0][16..20], (-Errno::EOPNOTSUPP.raw()).to_ne_bytes());
    assert_eq!(refused[0][20..], bytes);
    // Changing something takes a capability.
    let refused = answer(&request(16, 5), &CALLER);
    assert_eq!(refused[0][16..20], (-Errno::EPERM.raw()).to_ne_bytes());
}
