//! Datagrams: udp(7), ip(7).

use super::*;
use crate::util::*;

cases![
    udp_basic,
    udp_connected,
    udp_truncation,
    udp_refused,
    udp_zero_length,
    udp_broadcast_permission,
    udp_poll,
    udp_multicast_options,
    udp_large,
    udp_hops_of_one_packet,
    udp_lite,
];

unsafe fn sendto4(fd: i32, data: &[u8], port: u16) -> isize {
    libc::sendto(
        fd,
        data.as_ptr().cast(),
        data.len(),
        0,
        (&v4(port) as *const libc::sockaddr_in).cast(),
        16,
    )
}

unsafe fn udp_basic() {
    let (a, _pa) = udp4();
    let (b, pb) = udp4();
    eq!(ok!(sendto4(a, b"hello", pb)), 5);
    eq!(ok!(sendto4(a, b"world", pb)), 5);
    let mut from: libc::sockaddr_in = std::mem::zeroed();
    let mut len = 16u32;
    let mut buf = [0u8; 20];
    eq!(
        ok!(libc::recvfrom(
            b,
            buf.as_mut_ptr().cast(),
            20,
            0,
            (&mut from as *mut libc::sockaddr_in).cast(),
            &mut len
        )),
        5
    );
    eq!(
        (&buf[..5], u16::from_be(from.sin_port)),
        (&b"hello"[..], port_of(a))
    );
    eq!(recv(b, 20, 0), b"world");
    err!(libc::EDESTADDRREQ, send(a, b"x", 0));
    // Unbound senders get a port.
    let s = socket(libc::AF_INET, libc::SOCK_DGRAM);
    ok!(sendto4(s, b"x", pb));
    check!(port_of(s) != 0);
    eq!(recv(b, 5, 0), b"x");
}

unsafe fn udp_connected() {
    let (a, pa) = udp4();
    let (b, pb) = udp4();
    let (other, _) = udp4();
    ok!(connect4(a, pb));
    ok!(send(a, b"x", 0));
    eq!(recv(b, 5, 0), b"x");
    // Only the peer's datagrams arrive.
    ok!(sendto4(other, b"foreign", pa));
    ok!(sendto4(b, b"peer", pa));
    eq!(recv(a, 20, 0), b"peer");
    eq!(peer_port(a), pb);
    let unspec = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as u16,
        sa_data: [0; 14],
    };
    ok!(libc::connect(a, &unspec, 16));
    err!(libc::EDESTADDRREQ, send(a, b"x", 0));
}

unsafe fn udp_truncation() {
    let (a, _) = udp4();
    let (b, pb) = udp4();
    ok!(sendto4(a, b"0123456789", pb));
    eq!(recv(b, 4, libc::MSG_PEEK), b"0123");
    let mut buf = [0u8; 4];
    eq!(
        ok!(libc::recv(b, buf.as_mut_ptr().cast(), 4, libc::MSG_TRUNC)),
        10
    );
    err!(libc::EAGAIN, try_recv(b, libc::MSG_DONTWAIT));
}

unsafe fn udp_refused() {
    let (a, _) = udp4();
    let (b, pb) = udp4();
    libc::close(b);
    ok!(connect4(a, pb));
    ok!(send(a, b"x", 0));
    check!(poll_one(a, libc::POLLIN, 1000) & libc::POLLERR != 0);
    err!(libc::ECONNREFUSED, try_recv(a, libc::MSG_DONTWAIT));
    err!(libc::EAGAIN, try_recv(a, libc::MSG_DONTWAIT));
}

unsafe fn udp_zero_length() {
    let (a, _) = udp4();
    let (b, pb) = udp4();
    eq!(ok!(sendto4(a, b"", pb)), 0);
    eq!(poll_one(b, libc::POLLIN, 1000), libc::POLLIN);
    eq!(recv(b, 9, 0), b"");
    ok!(sendto4(a, b"next", pb));
    eq!(recv(b, 9, 0), b"next");
}

unsafe fn udp_broadcast_permission() {
    let (a, _) = udp4();
    let mut to = v4(9);
    to.sin_addr.s_addr = u32::MAX;
    let r = libc::sendto(
        a,
        b"x".as_ptr().cast(),
        1,
        0,
        (&to as *const libc::sockaddr_in).cast(),
        16,
    );
    check!(
        r == -1 && [libc::EACCES, libc::ENETUNREACH, libc::EINVAL].contains(&errno()),
        "{r} {}",
        errno_text()
    );
    ok!(setopt(a, libc::SOL_SOCKET, libc::SO_BROADCAST, 1));
}

unsafe fn udp_poll() {
    let (a, pa) = udp4();
    eq!(poll_one(a, libc::POLLIN | libc::POLLOUT, 0), libc::POLLOUT);
    let (b, _) = udp4();
    let pid = fork(|| {
        sleep_ms(20);
        ok!(sendto4(b, b"x", pa));
    });
    eq!(poll_one(a, libc::POLLIN, 3000), libc::POLLIN);
    let mut n = 0i32;
    ok!(libc::ioctl(a, libc::FIONREAD, &mut n));
    eq!(n, 1);
    wait_ok(pid);
    // A full receive buffer drops silently.
    for _ in 0..3000 {
        ok!(sendto4(b, &[0; 1000], pa));
    }
}

unsafe fn udp_multicast_options() {
    let (a, _) = udp4();
    ok!(setopt(a, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, 4));
    eq!(getopt(a, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL), 4);
    ok!(setopt(a, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0));
    eq!(getopt(a, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP), 0);
}

unsafe fn udp_large() {
    let (a, _) = udp4();
    let (b, pb) = udp4();
    let data = vec![9u8; 65_000];
    eq!(ok!(sendto4(a, &data, pb)), 65_000);
    check!(recv(b, 70_000, 0) == data);
    err!(libc::EMSGSIZE, sendto4(a, &vec![0; 65_508], pb));
}

/// Sends one byte with one control message that holds an `int`.
unsafe fn send_with(fd: i32, to: &libc::sockaddr_in6, kind: i32, value: i32) -> isize {
    let mut control = [0u64; 3];
    let header = control.as_mut_ptr().cast::<libc::cmsghdr>();
    (*header).cmsg_len = 20;
    (*header).cmsg_level = libc::IPPROTO_IPV6;
    (*header).cmsg_type = kind;
    libc::CMSG_DATA(header).cast::<i32>().write(value);
    let mut iov = libc::iovec {
        iov_base: b"x".as_ptr() as *mut _,
        iov_len: 1,
    };
    let mut msg: libc::msghdr = std::mem::zeroed();
    msg.msg_name = (to as *const libc::sockaddr_in6 as *mut libc::sockaddr_in6).cast();
    msg.msg_namelen = 28;
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = 24;
    libc::sendmsg(fd, &msg, 0)
}

/// The `int` of the only control message of a datagram.
unsafe fn recv_int(fd: i32, kind: i32) -> i32 {
    let (mut byte, mut control) = ([0u8; 1], [0u64; 8]);
    let mut iov = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut msg: libc::msghdr = std::mem::zeroed();
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = 64;
    eq!(ok!(libc::recvmsg(fd, &mut msg, 0)), 1);
    let header = libc::CMSG_FIRSTHDR(&msg);
    check!(!header.is_null());
    eq!((*header).cmsg_level, libc::IPPROTO_IPV6);
    eq!((*header).cmsg_type, kind);
    libc::CMSG_DATA(header).cast::<i32>().read()
}

unsafe fn udp_hops_of_one_packet() {
    need_v6();
    let a = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    let b = socket(libc::AF_INET6, libc::SOCK_DGRAM);
    ok!(libc::bind(
        b,
        (&v6(0) as *const libc::sockaddr_in6).cast(),
        28
    ));
    let to = v6(port_of(b));
    ok!(setopt(b, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1));
    let hops = |value| send_with(a, &to, libc::IPV6_HOPLIMIT, value);
    for (given, arrives) in [(2, 2), (-1, 64), (255, 255)] {
        eq!(ok!(hops(given)), 1);
        eq!(recv_int(b, libc::IPV6_HOPLIMIT), arrives);
    }
    err!(libc::EINVAL, hops(256));
    // The socket's own.
    ok!(setopt(a, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 7));
    eq!(ok!(hops(-1)), 1);
    eq!(recv_int(b, libc::IPV6_HOPLIMIT), 7);
    ok!(setopt(b, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 0));
    ok!(setopt(b, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1));
    eq!(ok!(send_with(a, &to, libc::IPV6_TCLASS, 0x20)), 1);
    eq!(recv_int(b, libc::IPV6_TCLASS), 0x20);
}

unsafe fn udp_lite() {
    const LITE: i32 = libc::IPPROTO_UDPLITE;
    const SEND_COVERAGE: i32 = 10;
    const RECV_COVERAGE: i32 = 11;
    let lite = || libc::socket(libc::AF_INET, libc::SOCK_DGRAM, LITE);
    let a = lite();
    if a < 0 {
        eq!(errno(), libc::EPROTONOSUPPORT);
        skip("no UDP-Lite here");
    }
    let b = ok!(lite());
    ok!(libc::bind(
        b,
        (&v4(0) as *const libc::sockaddr_in).cast(),
        16
    ));
    let port = port_of(b);
    // Its ports are its own.
    let udp = socket(libc::AF_INET, libc::SOCK_DGRAM);
    ok!(libc::bind(
        udp,
        (&v4(port) as *const libc::sockaddr_in).cast(),
        16
    ));
    eq!(ok!(sendto4(a, b"light", port)), 5);
    eq!(recv(b, 20, 0), b"light");
    err!(libc::EAGAIN, try_recv(udp, libc::MSG_DONTWAIT));
    // At least the header is covered.
    eq!(getopt(a, LITE, SEND_COVERAGE), 0);
    ok!(setopt(a, LITE, SEND_COVERAGE, 3));
    eq!(getopt(a, LITE, SEND_COVERAGE), 8);
    ok!(sendto4(a, b"partial", port));
    eq!(recv(b, 20, 0), b"partial");
    // Less than asked for is dropped.
    ok!(setopt(b, LITE, RECV_COVERAGE, 10));
    ok!(sendto4(a, b"dropped", port));
    ok!(setopt(a, LITE, SEND_COVERAGE, 12));
    ok!(sendto4(a, b"enough", port));
    eq!(recv(b, 20, 0), b"enough");
    err!(libc::ENOPROTOOPT, setopt(udp, LITE, SEND_COVERAGE, 8));
}
