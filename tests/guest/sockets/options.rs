//! What socket(2), setsockopt(2) and accept4(2) take and refuse: socket(7).

use super::*;
use crate::util::*;

cases![
    socket_errors,
    so_options,
    options_of_other_protocols,
    so_timeouts,
    so_linger_and_error,
    accept4_flags,
    raw_refused_for_user,
    inet_unknown,
    getsockopt_sizes,
];

unsafe fn socket_errors() {
    err!(libc::EAFNOSUPPORT, libc::socket(200, libc::SOCK_STREAM, 0));
    err!(
        libc::EINVAL,
        libc::socket(libc::AF_UNIX, 0x4000_0000 | libc::SOCK_STREAM, 0)
    );
    err!(libc::EINVAL, libc::socket(libc::AF_INET, 77, 0));
    err!(
        libc::EPROTONOSUPPORT,
        libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 5)
    );
    err!(
        libc::EPROTONOSUPPORT,
        libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_UDP)
    );
    err!(
        libc::ESOCKTNOSUPPORT,
        libc::socket(libc::AF_INET, libc::SOCK_RDM, 0)
    );
    let mut a: libc::sockaddr_un = std::mem::zeroed();
    let mut len = 110u32;
    err!(
        libc::ENOTSOCK,
        libc::getsockname(0, (&mut a as *mut libc::sockaddr_un).cast(), &mut len)
    );
    err!(
        libc::ENOTSOCK,
        libc::bind(0, (&a as *const libc::sockaddr_un).cast(), 3)
    );
    err!(libc::ENOTSOCK, libc::listen(0, 3));
    err!(
        libc::EOPNOTSUPP,
        libc::listen(socket(libc::AF_UNIX, libc::SOCK_DGRAM), 3)
    );
    err!(
        libc::EINVAL,
        libc::listen(socket(libc::AF_UNIX, libc::SOCK_STREAM), 3)
    );
}

unsafe fn so_options() {
    for (family, kind) in [
        (libc::AF_UNIX, libc::SOCK_STREAM),
        (libc::AF_INET, libc::SOCK_STREAM),
        (libc::AF_INET6, libc::SOCK_DGRAM),
    ] {
        let s = socket(family, kind);
        eq!(getopt(s, libc::SOL_SOCKET, libc::SO_TYPE), kind);
        eq!(getopt(s, libc::SOL_SOCKET, libc::SO_DOMAIN), family);
        eq!(getopt(s, libc::SOL_SOCKET, libc::SO_ERROR), 0);
        eq!(getopt(s, libc::SOL_SOCKET, libc::SO_ACCEPTCONN), 0);
        ok!(setopt(s, libc::SOL_SOCKET, libc::SO_SNDBUF, 20_000));
        eq!(getopt(s, libc::SOL_SOCKET, libc::SO_SNDBUF), 40_000);
        check!(getopt(s, libc::SOL_SOCKET, libc::SO_RCVBUF) > 1000);
        ok!(setopt(s, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1));
        ok!(setopt(s, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1));
        eq!(getopt(s, libc::SOL_SOCKET, libc::SO_REUSEADDR), 1);
        err!(libc::ENOPROTOOPT, setopt(s, libc::SOL_SOCKET, 9999, 1));
        err!(
            libc::EINVAL,
            libc::setsockopt(
                s,
                libc::SOL_SOCKET,
                libc::SO_REUSEADDR,
                (&1i32 as *const i32).cast(),
                2
            )
        );
        err!(
            libc::EFAULT,
            libc::setsockopt(s, libc::SOL_SOCKET, libc::SO_REUSEADDR, 8 as *const _, 4)
        );
    }
    err!(
        libc::ENOTSOCK,
        setopt(0, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)
    );
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    eq!(
        getopt(s, libc::SOL_SOCKET, libc::SO_PROTOCOL),
        libc::IPPROTO_TCP
    );
}

unsafe fn options_of_other_protocols() {
    for (family, unknown) in [
        (libc::AF_INET, libc::EOPNOTSUPP),
        (libc::AF_INET6, libc::ENOPROTOOPT),
    ] {
        let datagrams = socket(family, libc::SOCK_DGRAM);
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_NODELAY);
        err!(libc::ENOPROTOOPT, setopt(datagrams, level, name, 1));
        err!(unknown, getopt_raw(datagrams, level, name));
        let stream = socket(family, libc::SOCK_STREAM);
        let (level, name) = (libc::IPPROTO_UDP, libc::UDP_CORK);
        err!(libc::ENOPROTOOPT, setopt(stream, level, name, 1));
        err!(unknown, getopt_raw(stream, level, name));
    }
}

unsafe fn getsockopt_sizes() {
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    let mut v = [0xffu8; 8];
    let mut len = 2u32;
    ok!(libc::getsockopt(
        s,
        libc::SOL_SOCKET,
        libc::SO_TYPE,
        v.as_mut_ptr().cast(),
        &mut len
    ));
    eq!((len, &v[..3]), (2, &[1, 0, 0xff][..]));
    len = u32::MAX;
    err!(
        libc::EINVAL,
        libc::getsockopt(
            s,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            v.as_mut_ptr().cast(),
            &mut len
        )
    );
    len = 8;
    ok!(libc::getsockopt(
        s,
        libc::SOL_SOCKET,
        libc::SO_TYPE,
        v.as_mut_ptr().cast(),
        &mut len
    ));
    eq!(len, 4);
    err!(
        libc::EFAULT,
        libc::getsockopt(
            s,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            v.as_mut_ptr().cast(),
            8 as *mut u32
        )
    );
    err!(
        libc::EOPNOTSUPP,
        getopt_raw(socket(libc::AF_UNIX, libc::SOCK_STREAM), 99, 1)
    );
}

unsafe fn getopt_raw(fd: i32, level: i32, name: i32) -> i32 {
    let mut v = 0i32;
    let mut len = 4u32;
    libc::getsockopt(fd, level, name, (&mut v as *mut i32).cast(), &mut len)
}

unsafe fn so_timeouts() {
    let (a, b) = pair(libc::SOCK_STREAM);
    let tv = libc::timeval {
        tv_sec: 0,
        tv_usec: 40_000,
    };
    ok!(libc::setsockopt(
        b,
        libc::SOL_SOCKET,
        libc::SO_RCVTIMEO,
        (&tv as *const libc::timeval).cast(),
        16
    ));
    let start = now_ms();
    err!(libc::EAGAIN, try_recv(b, 0));
    check!((38..1500).contains(&(now_ms() - start)));
    ok!(libc::setsockopt(
        a,
        libc::SOL_SOCKET,
        libc::SO_SNDTIMEO,
        (&tv as *const libc::timeval).cast(),
        16
    ));
    loop {
        if send(a, &[0; 8000], 0) < 0 {
            break;
        }
    }
    eq!(errno(), libc::EAGAIN);
    let bad = libc::timeval {
        tv_sec: 0,
        tv_usec: 2_000_000,
    };
    err!(
        libc::EDOM,
        libc::setsockopt(
            b,
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&bad as *const libc::timeval).cast(),
            16
        )
    );
}

unsafe fn so_linger_and_error() {
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    let l = libc::linger {
        l_onoff: 1,
        l_linger: 5,
    };
    ok!(libc::setsockopt(
        s,
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        (&l as *const libc::linger).cast(),
        8
    ));
    let mut out = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    let mut len = 8u32;
    ok!(libc::getsockopt(
        s,
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        (&mut out as *mut libc::linger).cast(),
        &mut len
    ));
    eq!((out.l_onoff, out.l_linger), (1, 5));
}

unsafe fn accept4_flags() {
    let l = listen_un(b"s", libc::SOCK_STREAM, 3);
    let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    ok!(connect_un(s, b"s"));
    let conn = ok!(libc::accept4(
        l,
        std::ptr::null_mut(),
        std::ptr::null_mut(),
        libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK
    ));
    eq!(ok!(libc::fcntl(conn, libc::F_GETFD)), libc::FD_CLOEXEC);
    err!(libc::EAGAIN, try_recv(conn, 0));
    err!(
        libc::EINVAL,
        libc::accept4(l, std::ptr::null_mut(), std::ptr::null_mut(), 1)
    );
}

unsafe fn raw_refused_for_user() {
    in_child(|| {
        ok!(libc::setresuid(1000, 1000, 1000));
        err!(
            libc::EPERM,
            libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)
        );
        let r = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        check!(r == -1 && [libc::EPERM, libc::EAFNOSUPPORT].contains(&errno()));
    });
}

unsafe fn inet_unknown() {
    err!(
        libc::EPROTONOSUPPORT,
        libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 200)
    );
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    err!(libc::ENOPROTOOPT, setopt(s, libc::IPPROTO_IP, 250, 1));
    err!(
        libc::EOPNOTSUPP,
        libc::accept(
            socket(libc::AF_INET, libc::SOCK_DGRAM),
            std::ptr::null_mut(),
            std::ptr::null_mut()
        )
    );
    err!(
        libc::EINVAL,
        libc::accept(s, std::ptr::null_mut(), std::ptr::null_mut())
    );
}
