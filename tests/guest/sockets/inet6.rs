//! TCP and UDP over IPv6: ipv6(7).

use super::*;
use crate::util::*;

cases![
    tcp_v6,
    tcp_v6_dual_stack,
    tcp_v6only,
    udp_v6,
    udp_v6_too_long,
    udp_v6_takes_v4_addresses
];

unsafe fn tcp_v6() {
    need_v6();
    let l = socket(libc::AF_INET6, libc::SOCK_STREAM);
    ok!(libc::bind(
        l,
        (&v6(0) as *const libc::sockaddr_in6).cast(),
        28
    ));
    ok!(libc::listen(l, 1));
    let s = socket(libc::AF_INET6, libc::SOCK_STREAM);
    ok!(libc::connect(
        s,
        (&v6(port_of(l)) as *const libc::sockaddr_in6).cast(),
        28
    ));
    let mut from: libc::sockaddr_in6 = std::mem::zeroed();
    let mut len = 28u32;
    let conn = ok!(libc::accept(
        l,
        (&mut from as *mut libc::sockaddr_in6).cast(),
        &mut len
    ));
    eq!(
        (
            len,
            from.sin6_addr.s6_addr[15],
            u16::from_be(from.sin6_port)
        ),
        (28, 1, port_of(s))
    );
    write_all(s, b"six");
    eq!(read_some(conn, 9), b"six");
}

unsafe fn tcp_v6_dual_stack() {
    need_v6();
    let l = socket(libc::AF_INET6, libc::SOCK_STREAM);
    ok!(setopt(l, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0));
    let mut any = v6(0);
    any.sin6_addr.s6_addr = [0; 16];
    ok!(libc::bind(
        l,
        (&any as *const libc::sockaddr_in6).cast(),
        28
    ));
    ok!(libc::listen(l, 2));
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(connect4(s, port_of(l)));
    let mut from: libc::sockaddr_in6 = std::mem::zeroed();
    let mut len = 28u32;
    let conn = ok!(libc::accept(
        l,
        (&mut from as *mut libc::sockaddr_in6).cast(),
        &mut len
    ));
    eq!(
        from.sin6_addr.s6_addr,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1]
    );
    write_all(conn, b"mapped");
    eq!(read_some(s, 9), b"mapped");
}

unsafe fn tcp_v6only() {
    need_v6();
    let l = socket(libc::AF_INET6, libc::SOCK_STREAM);
    ok!(setopt(l, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1));
    let mut any = v6(0);
    any.sin6_addr.s6_addr = [0; 16];
    ok!(libc::bind(
        l,
        (&any as *const libc::sockaddr_in6).cast(),
        28
    ));
    ok!(libc::listen(l, 2));
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    err!(libc::ECONNREFUSED, connect4(s, port_of(l)));
    // The same port for IPv4 is free.
    let t = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(bind4(t, port_of(l)));
}

unsafe fn udp_v6() {
    need_v6();
    let a = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    let b = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    ok!(libc::bind(
        b,
        (&v6(0) as *const libc::sockaddr_in6).cast(),
        28
    ));
    let to = v6(port_of(b));
    eq!(
        ok!(libc::sendto(
            a,
            b"six".as_ptr().cast(),
            3,
            0,
            (&to as *const libc::sockaddr_in6).cast(),
            28
        )),
        3
    );
    eq!(recv(b, 9, 0), b"six");
}

unsafe fn udp_v6_too_long() {
    need_v6();
    let long = vec![0u8; 70_000];
    // IPv4 looks at the length first, IPv6 at the destination.
    err!(
        libc::EMSGSIZE,
        send(socket(libc::AF_INET, libc::SOCK_DGRAM), &long, 0)
    );
    let a = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    err!(libc::EDESTADDRREQ, send(a, &long, 0));
    err!(libc::EDESTADDRREQ, send(a, b"urgent", libc::MSG_OOB));
    let b = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    ok!(libc::bind(
        b,
        (&v6(0) as *const libc::sockaddr_in6).cast(),
        28
    ));
    let to = v6(port_of(b));
    ok!(libc::connect(
        a,
        (&to as *const libc::sockaddr_in6).cast(),
        28
    ));
    err!(libc::EMSGSIZE, send(a, &long, 0));
}

unsafe fn udp_v6_takes_v4_addresses() {
    need_v6();
    let b = socket(libc::AF_INET, libc::SOCK_DGRAM);
    ok!(bind4(b, 0));
    let to = v4(port_of(b));
    let a = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    ok!(libc::sendto(
        a,
        b"one".as_ptr().cast(),
        3,
        0,
        (&to as *const libc::sockaddr_in).cast(),
        16
    ));
    eq!(recv(b, 9, 0), b"one");
    ok!(connect4(a, port_of(b)));
    ok!(send(a, b"two", 0));
    eq!(recv(b, 9, 0), b"two");
    err!(libc::EOPNOTSUPP, send(a, b"x", libc::MSG_OOB));
    let mut peer: libc::sockaddr_in6 = std::mem::zeroed();
    let mut len = 28;
    ok!(libc::getpeername(
        a,
        (&mut peer as *mut libc::sockaddr_in6).cast(),
        &mut len
    ));
    eq!(i32::from(peer.sin6_family), libc::AF_INET6);
    eq!(peer.sin6_addr.s6_addr[10..], [0xff, 0xff, 127, 0, 0, 1]);
    // Unless it is to be for IPv6 alone.
    let a = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    ok!(setopt(a, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1));
    err!(libc::EAFNOSUPPORT, connect4(a, port_of(b)));
    err!(
        libc::ENETUNREACH,
        libc::sendto(
            a,
            b"one".as_ptr().cast(),
            3,
            0,
            (&to as *const libc::sockaddr_in).cast(),
            16
        )
    );
    // Bound it is to an address of its own family.
    let a = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    err!(
        libc::EAFNOSUPPORT,
        libc::bind(a, (&v4(0) as *const libc::sockaddr_in).cast(), 28)
    );
}
