//! What a program learns of interfaces and sockets: netlink(7), rtnetlink(7), sock_diag(7).

use super::*;
use crate::util::*;

cases![
    netlink_links,
    netlink_addresses,
    netlink_errors,
    ioctl_interfaces,
    sock_diag_lists_listeners,
];

/// A route dump: the bodies of the answers with their types.
unsafe fn netlink_dump(kind: u16) -> Vec<(u16, Vec<u8>)> {
    let s = ok!(libc::socket(
        libc::AF_NETLINK,
        libc::SOCK_RAW | libc::SOCK_CLOEXEC,
        libc::NETLINK_ROUTE
    ));
    let mut req = [0u8; 20];
    req[0] = 20;
    req[4..6].copy_from_slice(&kind.to_ne_bytes());
    req[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    req[8] = 7;
    ok!(send(s, &req, 0));
    let mut out = Vec::new();
    loop {
        let data = recv(s, 32768, 0);
        let mut at = 0;
        while at + 16 <= data.len() {
            let len = u32::from_ne_bytes(data[at..at + 4].try_into().unwrap_or_default()) as usize;
            let kind = u16::from_ne_bytes([data[at + 4], data[at + 5]]);
            eq!(data[at + 8], 7);
            check!(len >= 16 && at + len <= data.len());
            if kind == libc::NLMSG_DONE as u16 {
                libc::close(s);
                return out;
            }
            check!(kind != libc::NLMSG_ERROR as u16);
            out.push((kind, data[at + 16..at + len].to_vec()));
            at += (len + 3) & !3;
        }
    }
}

fn has_attr(body: &[u8], head: usize, kind: u16, value: &[u8]) -> bool {
    let mut at = head;
    while at + 4 <= body.len() {
        let len = u16::from_ne_bytes([body[at], body[at + 1]]) as usize;
        let k = u16::from_ne_bytes([body[at + 2], body[at + 3]]);
        if len < 4 || at + len > body.len() {
            return false;
        }
        if k == kind && body[at + 4..at + len].starts_with(value) {
            return true;
        }
        at += (len + 3) & !3;
    }
    false
}

unsafe fn netlink_links() {
    let links = netlink_dump(libc::RTM_GETLINK);
    check!(
        links
            .iter()
            .any(|(k, b)| *k == libc::RTM_NEWLINK && has_attr(b, 16, libc::IFLA_IFNAME, b"lo\0"))
    );
    // lo is index 1, loopback and up.
    let lo = links
        .iter()
        .find(|(_, b)| has_attr(b, 16, libc::IFLA_IFNAME, b"lo\0"));
    let flags = lo
        .map(|(_, b)| u32::from_ne_bytes([b[8], b[9], b[10], b[11]]))
        .unwrap_or(0);
    check!(
        flags & (libc::IFF_UP | libc::IFF_LOOPBACK) as u32
            == (libc::IFF_UP | libc::IFF_LOOPBACK) as u32
    );
}

unsafe fn netlink_addresses() {
    let addresses = netlink_dump(libc::RTM_GETADDR);
    check!(addresses.iter().any(
        |(k, b)| *k == libc::RTM_NEWADDR && has_attr(b, 8, libc::IFA_ADDRESS, &[127, 0, 0, 1])
    ));
    netlink_dump(libc::RTM_GETROUTE);
}

unsafe fn netlink_errors() {
    err!(
        libc::EPROTONOSUPPORT,
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 99)
    );
    err!(
        libc::ESOCKTNOSUPPORT,
        libc::socket(libc::AF_NETLINK, libc::SOCK_STREAM, 0)
    );
    let s = ok!(libc::socket(
        libc::AF_NETLINK,
        libc::SOCK_DGRAM,
        libc::NETLINK_ROUTE
    ));
    let mut a: libc::sockaddr_nl = std::mem::zeroed();
    a.nl_family = libc::AF_NETLINK as u16;
    ok!(libc::bind(s, (&a as *const libc::sockaddr_nl).cast(), 12));
    let mut len = 12u32;
    ok!(libc::getsockname(
        s,
        (&mut a as *mut libc::sockaddr_nl).cast(),
        &mut len
    ));
    check!(a.nl_pid != 0);
    // An unknown request type is answered with an error message.
    let mut req = [0u8; 20];
    req[0] = 20;
    req[4] = 0xf0;
    req[5] = 0x0f;
    req[6] = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u8;
    ok!(send(s, &req, 0));
    let answer = recv(s, 1000, 0);
    eq!(
        u16::from_ne_bytes([answer[4], answer[5]]),
        libc::NLMSG_ERROR as u16
    );
    check!(i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) < 0);
}

unsafe fn ioctl_interfaces() {
    let s = socket(libc::AF_INET, libc::SOCK_DGRAM);
    let mut req = [0u8; 40];
    req[..2].copy_from_slice(b"lo");
    ok!(libc::ioctl(s, libc::SIOCGIFFLAGS, req.as_mut_ptr()));
    let flags = i16::from_ne_bytes([req[16], req[17]]);
    check!(i32::from(flags) & libc::IFF_LOOPBACK != 0);
    ok!(libc::ioctl(s, libc::SIOCGIFINDEX, req.as_mut_ptr()));
    eq!(i32::from_ne_bytes([req[16], req[17], req[18], req[19]]), 1);
    ok!(libc::ioctl(s, libc::SIOCGIFADDR, req.as_mut_ptr()));
    eq!(&req[20..24], &[127, 0, 0, 1]);
    ok!(libc::ioctl(s, libc::SIOCGIFMTU, req.as_mut_ptr()));
    eq!(libc::if_nametoindex(c"lo".as_ptr()), 1);
    req[..5].copy_from_slice(b"none\0");
    err!(
        libc::ENODEV,
        libc::ioctl(s, libc::SIOCGIFFLAGS, req.as_mut_ptr())
    );
}

/// Sockets that `NETLINK_SOCK_DIAG` lists: state, local port, both queues.
unsafe fn diag_dump(family: u8, protocol: u8, states: u32) -> Vec<(u8, u16, u32, u32)> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    let s = ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 4));
    let mut request = [0u8; 72];
    request[..4].copy_from_slice(&72u32.to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&0x301u16.to_ne_bytes());
    request[16] = family;
    request[17] = protocol;
    request[20..24].copy_from_slice(&states.to_ne_bytes());
    eq!(libc::send(s, request.as_ptr().cast(), 72, 0), 72);
    let mut found = Vec::new();
    let mut buf = [0u8; 65536];
    loop {
        let len = ok!(libc::recv(s, buf.as_mut_ptr().cast(), buf.len(), 0)) as usize;
        let mut rest = &buf[..len];
        while rest.len() >= 16 {
            let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                SOCK_DIAG_BY_FAMILY => {
                    let port = u16::from_be_bytes([rest[20], rest[21]]);
                    found.push((rest[17], port, word(16 + 56), word(16 + 60)));
                }
                3 => {
                    libc::close(s);
                    return found;
                }
                kind => check!(false, "a message of type {kind}"),
            }
            let step = (word(0) as usize).next_multiple_of(4);
            rest = rest.get(step..).unwrap_or_default();
        }
    }
}

unsafe fn sock_diag_lists_listeners() {
    let s = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 4);
    if s == -1 {
        // As in host network mode.
        eq!(errno(), libc::EPROTONOSUPPORT);
        return;
    }
    let listener = ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    let mut a: libc::sockaddr_in = std::mem::zeroed();
    a.sin_family = libc::AF_INET as u16;
    a.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    ok!(libc::bind(listener, (&raw const a).cast(), 16));
    ok!(libc::listen(listener, 7));
    let mut len = 16;
    ok!(libc::getsockname(listener, (&raw mut a).cast(), &mut len));
    let port = u16::from_be(a.sin_port);
    let client = ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    ok!(libc::connect(client, (&raw const a).cast(), 16));
    let listening = diag_dump(libc::AF_INET as u8, 6, 1 << 10);
    check!(listening.iter().all(|entry| entry.0 == 10), "{listening:?}");
    check!(listening.contains(&(10, port, 1, 7)), "{listening:?}");
    let connected = diag_dump(libc::AF_INET as u8, 6, 1 << 1);
    check!(
        connected
            .iter()
            .any(|entry| (entry.0, entry.1) == (1, port)),
        "{connected:?}"
    );
}
