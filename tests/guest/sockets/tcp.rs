//! Connections: tcp(7), ip(7).

use super::*;
use crate::util::*;

cases![
    tcp_connect_accept,
    tcp_refused,
    tcp_names,
    tcp_bind_errors,
    tcp_nonblocking_connect,
    tcp_nonblocking_accept,
    tcp_half_close,
    tcp_rst_on_unread,
    tcp_linger_zero_reset,
    tcp_epipe,
    tcp_write_to_closed_is_partial,
    tcp_large_transfer,
    tcp_bidirectional,
    tcp_many_connections,
    tcp_peek_and_waitall,
    tcp_poll_epoll,
    tcp_options,
    tcp_info,
    tcp_urgent_or_refusal,
    tcp_ioctls,
    tcp_reuseaddr_and_port,
    tcp_listen_backlog_close,
    tcp_fork_server,
    tcp_shutdown_listener,
    tcp_self_connect_refused_after_close,
    tcp_connect_unspec_and_any,
    tcp_send_flags,
    sendfile_to_tcp,
    msg_nosignal,
    ephemeral_ports_differ,
];

/// A listening TCP socket on a free loopback port.
unsafe fn listen4(backlog: i32) -> (i32, u16) {
    let l = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(bind4(l, 0));
    ok!(libc::listen(l, backlog));
    (l, port_of(l))
}

/// A connected pair: client and server side.
unsafe fn tcp() -> (i32, i32) {
    let (l, port) = listen4(5);
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(connect4(s, port));
    let conn = accept(l);
    libc::close(l);
    (s, conn)
}

unsafe fn tcp_connect_accept() {
    let (l, port) = listen4(5);
    let pid = fork(|| {
        let s = socket(libc::AF_INET, libc::SOCK_STREAM);
        ok!(connect4(s, port));
        write_all(s, b"request");
        eq!(recv(s, 100, 0), b"answer");
        eq!(recv(s, 100, 0), b"");
    });
    let mut from: libc::sockaddr_in = std::mem::zeroed();
    let mut len = 16u32;
    let conn = ok!(libc::accept(
        l,
        (&mut from as *mut libc::sockaddr_in).cast(),
        &mut len
    ));
    eq!((len, from.sin_family), (16, libc::AF_INET as u16));
    eq!(from.sin_addr.s_addr, v4(0).sin_addr.s_addr);
    eq!(read_some(conn, 100), b"request");
    write_all(conn, b"answer");
    libc::close(conn);
    wait_ok(pid);
}

unsafe fn tcp_refused() {
    let (l, port) = listen4(1);
    libc::close(l);
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    err!(libc::ECONNREFUSED, connect4(s, port));
    // Bound but not listening.
    let b = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(bind4(b, 0));
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    err!(libc::ECONNREFUSED, connect4(s, port_of(b)));
    err!(libc::ENOTCONN, try_recv(s, 0));
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    err!(
        libc::EPIPE,
        send(socket(libc::AF_INET, libc::SOCK_STREAM), b"x", 0)
    );
}

unsafe fn tcp_names() {
    let (s, conn) = tcp();
    eq!(port_of(s), peer_port(conn));
    eq!(port_of(conn), peer_port(s));
    check!(port_of(s) != port_of(conn));
    let u = socket(libc::AF_INET, libc::SOCK_STREAM);
    eq!(port_of(u), 0);
    let mut a: libc::sockaddr_in = std::mem::zeroed();
    let mut len = 16u32;
    err!(
        libc::ENOTCONN,
        libc::getpeername(u, (&mut a as *mut libc::sockaddr_in).cast(), &mut len)
    );
}

unsafe fn tcp_bind_errors() {
    let (_l, port) = listen4(1);
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    err!(libc::EADDRINUSE, bind4(s, port));
    ok!(bind4(s, 0));
    err!(libc::EINVAL, bind4(s, 0));
    let t = socket(libc::AF_INET, libc::SOCK_STREAM);
    let mut a = v4(0);
    a.sin_addr.s_addr = u32::from_be_bytes([203, 0, 113, 7]).to_be();
    err!(
        libc::EADDRNOTAVAIL,
        libc::bind(t, (&a as *const libc::sockaddr_in).cast(), 16)
    );
    err!(
        libc::EINVAL,
        libc::bind(t, (&a as *const libc::sockaddr_in).cast(), 5)
    );
    err!(
        libc::EAFNOSUPPORT,
        libc::bind(t, (&v6(0) as *const libc::sockaddr_in6).cast(), 28)
    );
    in_child(|| {
        ok!(libc::setresuid(1000, 1000, 1000));
        let r = bind4(socket(libc::AF_INET, libc::SOCK_STREAM), 80);
        let start: u32 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .ok()
            .and_then(|s| s.trim().parse().ok())
            .unwrap_or(1024);
        check!(start <= 80 || (r == -1 && errno() == libc::EACCES));
    });
}

unsafe fn tcp_nonblocking_connect() {
    let (l, port) = listen4(5);
    let s = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let r = connect4(s, port);
    check!(r == 0 || errno() == libc::EINPROGRESS);
    eq!(poll_one(s, libc::POLLOUT, 3000), libc::POLLOUT);
    eq!(getopt(s, libc::SOL_SOCKET, libc::SO_ERROR), 0);
    let r = connect4(s, port);
    check!(r == 0 || errno() == libc::EISCONN);
    let conn = accept(l);
    write_all(conn, b"x");
    eq!(poll_one(s, libc::POLLIN, 3000), libc::POLLIN);
    libc::close(l);
    // Refused: told by SO_ERROR.
    let s = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    let r = connect4(s, port);
    check!(r == -1);
    if errno() == libc::EINPROGRESS {
        check!(poll_one(s, libc::POLLOUT, 3000) & (libc::POLLERR | libc::POLLHUP) != 0);
        eq!(
            getopt(s, libc::SOL_SOCKET, libc::SO_ERROR),
            libc::ECONNREFUSED
        );
        eq!(getopt(s, libc::SOL_SOCKET, libc::SO_ERROR), 0);
    } else {
        eq!(errno(), libc::ECONNREFUSED);
    }
}

unsafe fn tcp_nonblocking_accept() {
    let (l, port) = listen4(5);
    nonblock(l);
    err!(
        libc::EAGAIN,
        libc::accept(l, std::ptr::null_mut(), std::ptr::null_mut())
    );
    eq!(poll_one(l, libc::POLLIN, 0), 0);
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(connect4(s, port));
    eq!(poll_one(l, libc::POLLIN, 3000), libc::POLLIN);
    let conn = accept(l);
    err!(libc::EAGAIN, try_recv(conn, libc::MSG_DONTWAIT));
}

unsafe fn tcp_half_close() {
    let (a, b) = tcp();
    write_all(a, b"all of it");
    ok!(libc::shutdown(a, libc::SHUT_WR));
    eq!(read_full(b, 100), b"all of it");
    write_all(b, b"still");
    eq!(recv(a, 100, 0), b"still");
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    err!(libc::EPIPE, send(a, b"x", 0));
    let bits = poll_one(b, libc::POLLIN | libc::POLLRDHUP, 0);
    eq!(bits, libc::POLLIN | libc::POLLRDHUP);
    ok!(libc::shutdown(b, libc::SHUT_WR));
    check!(eventually(|| poll_one(a, 0, 0) & libc::POLLHUP != 0));
}

unsafe fn tcp_rst_on_unread() {
    let (a, b) = tcp();
    write_all(a, b"never read");
    check!(poll_one(b, libc::POLLIN, 2000) != 0);
    libc::close(b);
    check!(eventually(
        || poll_one(a, libc::POLLIN, 0) & libc::POLLERR != 0
    ));
    err!(libc::ECONNRESET, try_recv(a, 0));
    eq!(try_recv(a, 0), 0);
}

unsafe fn tcp_linger_zero_reset() {
    let (a, b) = tcp();
    let l = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    ok!(libc::setsockopt(
        b,
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        (&l as *const libc::linger).cast(),
        8
    ));
    libc::close(b);
    check!(poll_one(a, libc::POLLIN, 2000) & libc::POLLERR != 0);
    err!(libc::ECONNRESET, try_recv(a, 0));
}

unsafe fn tcp_epipe() {
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    let (a, b) = tcp();
    libc::close(b);
    eq!(recv(a, 10, 0), b"");
    // The first write provokes the reset, a later one fails.
    send(a, b"x", 0);
    check!(eventually(|| send(a, b"x", 0) == -1));
    check!([libc::EPIPE, libc::ECONNRESET].contains(&errno()));
    check!(eventually(
        || send(a, b"x", 0) == -1 && errno() == libc::EPIPE
    ));
}

unsafe fn tcp_write_to_closed_is_partial() {
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    let (a, b) = tcp();
    let size = 4096;
    for (fd, name) in [(a, libc::SO_SNDBUF), (b, libc::SO_RCVBUF)] {
        ok!(libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            name,
            (&size as *const i32).cast(),
            4
        ));
    }
    libc::close(b);
    // Not more than the buffers hold goes out before the reset comes back.
    let data = vec![7; 4 << 20];
    let sent = send(a, &data, libc::MSG_DONTWAIT);
    check!(sent > 0 && sent < 4 << 20, "{sent} bytes went out");
    check!(eventually(
        || send(a, &data, libc::MSG_DONTWAIT) == -1 && errno() != libc::EAGAIN
    ));
}

unsafe fn tcp_large_transfer() {
    let (a, b) = tcp();
    let data: Vec<u8> = (0..8_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8)
        .collect();
    let copy = data.clone();
    let pid = fork(|| {
        libc::close(b);
        write_all(a, &copy);
    });
    libc::close(a);
    check!(read_full(b, data.len() + 1) == data);
    wait_ok(pid);
}

unsafe fn tcp_bidirectional() {
    let (a, b) = tcp();
    let echo = fork(|| {
        libc::close(a);
        loop {
            let part = read_some(b, 10_000);
            if part.is_empty() {
                break;
            }
            write_all(b, &part);
        }
    });
    libc::close(b);
    let t = std::thread::spawn(move || {
        write_all(a, &vec![5; 1_000_000]);
        ok!(libc::shutdown(a, libc::SHUT_WR));
    });
    eq!(read_full(a, 2_000_000).len(), 1_000_000);
    check!(t.join().is_ok());
    wait_ok(echo);
    // Many small round trips.
    let (a, b) = tcp();
    let echo = fork(|| {
        for _ in 0..500 {
            write_all(b, &read_full(b, 8));
        }
    });
    for i in 0..500u64 {
        write_all(a, &i.to_ne_bytes());
        eq!(read_full(a, 8), i.to_ne_bytes());
    }
    wait_ok(echo);
}

unsafe fn tcp_many_connections() {
    let (l, port) = listen4(200);
    let clients: Vec<i32> = (0..100)
        .map(|_| {
            let s = socket(libc::AF_INET, libc::SOCK_STREAM);
            ok!(connect4(s, port));
            s
        })
        .collect();
    let servers: Vec<i32> = (0..100).map(|_| accept(l)).collect();
    for (i, s) in clients.iter().enumerate() {
        write_all(*s, &[i as u8]);
    }
    // In order of connection.
    for (i, s) in servers.iter().enumerate() {
        eq!(read_some(*s, 5), [i as u8]);
    }
}

unsafe fn tcp_peek_and_waitall() {
    let (a, b) = tcp();
    write_all(a, b"peek");
    eq!(recv(b, 4, libc::MSG_PEEK | libc::MSG_WAITALL), b"peek");
    eq!(recv(b, 2, 0), b"pe");
    let mut n = 0i32;
    ok!(libc::ioctl(b, libc::FIONREAD, &mut n));
    eq!(n, 2);
    let pid = fork(|| {
        sleep_ms(20);
        write_all(a, b"12345678");
    });
    eq!(recv(b, 10, libc::MSG_WAITALL), b"ek12345678");
    wait_ok(pid);
    // MSG_TRUNC discards on TCP.
    write_all(a, b"abcdef");
    check!(poll_one(b, libc::POLLIN, 2000) != 0);
    eq!(
        ok!(libc::recv(b, std::ptr::null_mut(), 4, libc::MSG_TRUNC)),
        4
    );
    eq!(recv(b, 10, 0), b"ef");
}

unsafe fn tcp_poll_epoll() {
    let (a, b) = tcp();
    let ep = ok!(libc::epoll_create1(0));
    let mut ev = libc::epoll_event {
        events: (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET | libc::EPOLLRDHUP) as u32,
        u64: 3,
    };
    ok!(libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, b, &mut ev));
    eq!(ok!(libc::epoll_wait(ep, &mut ev, 1, 1000)), 1);
    eq!({ ev.events }, libc::EPOLLOUT as u32);
    write_all(a, b"x");
    eq!(ok!(libc::epoll_wait(ep, &mut ev, 1, 1000)), 1);
    check!({ ev.events } & libc::EPOLLIN as u32 != 0);
    eq!(ok!(libc::epoll_wait(ep, &mut ev, 1, 0)), 0);
    libc::close(a);
    eq!(ok!(libc::epoll_wait(ep, &mut ev, 1, 1000)), 1);
    check!({ ev.events } & libc::EPOLLRDHUP as u32 != 0);
    let fresh = socket(libc::AF_INET, libc::SOCK_STREAM);
    eq!(
        poll_one(fresh, libc::POLLIN | libc::POLLOUT, 0),
        libc::POLLOUT | libc::POLLHUP
    );
}

unsafe fn tcp_options() {
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    eq!(getopt(s, libc::IPPROTO_TCP, libc::TCP_NODELAY), 0);
    ok!(setopt(s, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1));
    eq!(getopt(s, libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
    for (name, value) in [
        (libc::TCP_KEEPIDLE, 30),
        (libc::TCP_KEEPINTVL, 5),
        (libc::TCP_KEEPCNT, 4),
        (libc::TCP_USER_TIMEOUT, 5000),
        (libc::TCP_DEFER_ACCEPT, 1),
        (libc::TCP_QUICKACK, 1),
        (libc::TCP_CORK, 1),
    ] {
        ok!(setopt(s, libc::IPPROTO_TCP, name, value));
    }
    eq!(getopt(s, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 30);
    check!(getopt(s, libc::IPPROTO_TCP, libc::TCP_MAXSEG) > 0);
    ok!(setopt(s, libc::IPPROTO_IP, libc::IP_TOS, 0x10));
    eq!(getopt(s, libc::IPPROTO_IP, libc::IP_TOS), 0x10);
    eq!(getopt(s, libc::IPPROTO_IP, libc::IP_TTL), 64);
    err!(libc::ENOPROTOOPT, setopt(s, libc::IPPROTO_TCP, 9999, 1));
}

unsafe fn tcp_info() {
    let (a, _b) = tcp();
    let mut info = [0u8; 300];
    let mut len = 300u32;
    ok!(libc::getsockopt(
        a,
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        info.as_mut_ptr().cast(),
        &mut len
    ));
    check!(len >= 104);
    eq!(info[0], 1); // TCP_ESTABLISHED
}

unsafe fn tcp_urgent_or_refusal() {
    let (a, b) = tcp();
    let r = send(a, b"!", libc::MSG_OOB);
    if r == 1 {
        check!(poll_one(b, libc::POLLPRI, 2000) & libc::POLLPRI != 0);
        eq!(recv(b, 1, libc::MSG_OOB), b"!");
    } else {
        eq!(errno(), libc::EOPNOTSUPP);
    }
}

unsafe fn tcp_ioctls() {
    let (a, b) = tcp();
    write_all(a, b"12345");
    check!(poll_one(b, libc::POLLIN, 1000) != 0);
    let mut n = 0i32;
    ok!(libc::ioctl(b, libc::FIONREAD, &mut n));
    eq!(n, 5);
    ok!(libc::ioctl(a, libc::TIOCOUTQ, &mut n));
    check!(n >= 0);
    let (l, _) = listen4(1);
    err!(libc::EINVAL, libc::ioctl(l, libc::FIONREAD, &mut n));
}

unsafe fn tcp_reuseaddr_and_port() {
    let l = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(setopt(l, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1));
    ok!(bind4(l, 0));
    ok!(libc::listen(l, 1));
    let port = port_of(l);
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(connect4(s, port));
    let conn = accept(l);
    // The server side closes first: its port lingers in TIME_WAIT.
    libc::close(conn);
    libc::close(l);
    recv(s, 1, 0);
    libc::close(s);
    let again = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(setopt(again, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1));
    ok!(bind4(again, port));
    ok!(libc::listen(again, 1));
    let p1 = socket(libc::AF_INET, libc::SOCK_STREAM);
    let p2 = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(setopt(p1, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1));
    ok!(setopt(p2, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1));
    ok!(bind4(p1, 0));
    ok!(bind4(p2, port_of(p1)));
    ok!(libc::listen(p1, 1));
    ok!(libc::listen(p2, 1));
}

unsafe fn tcp_listen_backlog_close() {
    let (l, port) = listen4(5);
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    ok!(connect4(s, port));
    write_all(s, b"x");
    // Never accepted: reset when the listener closes.
    libc::close(l);
    check!(poll_one(s, libc::POLLIN, 2000) != 0);
    let r = try_recv(s, 0);
    check!(r == 0 || errno() == libc::ECONNRESET);
}

unsafe fn tcp_fork_server() {
    let (l, port) = listen4(20);
    let server = fork(|| {
        for _ in 0..10 {
            let conn = accept(l);
            let pid = fork(|| {
                let x = read_full(conn, 4);
                write_all(conn, &x);
            });
            libc::close(conn);
            wait_ok(pid);
        }
    });
    let clients: Vec<i32> = (0..10u32)
        .map(|i| {
            fork(|| {
                let s = socket(libc::AF_INET, libc::SOCK_STREAM);
                ok!(connect4(s, port));
                write_all(s, &i.to_ne_bytes());
                eq!(read_full(s, 4), i.to_ne_bytes());
            })
        })
        .collect();
    for c in clients {
        wait_ok(c);
    }
    wait_ok(server);
}

unsafe fn tcp_shutdown_listener() {
    let (l, _) = listen4(2);
    let t = std::thread::spawn(move || {
        let r = libc::accept(l, std::ptr::null_mut(), std::ptr::null_mut());
        (r, errno())
    });
    sleep_ms(20);
    ok!(libc::shutdown(l, libc::SHUT_RDWR));
    eq!(t.join().unwrap_or_default(), (-1, libc::EINVAL));
}

unsafe fn tcp_self_connect_refused_after_close() {
    let (a, b) = tcp();
    let port = port_of(b);
    libc::close(a);
    libc::close(b);
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    err!(libc::ECONNREFUSED, connect4(s, port));
}

unsafe fn tcp_connect_unspec_and_any() {
    let (l, port) = listen4(2);
    let s = socket(libc::AF_INET, libc::SOCK_STREAM);
    // 0.0.0.0 means this host.
    let mut any = v4(port);
    any.sin_addr.s_addr = 0;
    ok!(libc::connect(
        s,
        (&any as *const libc::sockaddr_in).cast(),
        16
    ));
    accept(l);
    err!(libc::EISCONN, connect4(s, port));
    let t = socket(libc::AF_INET, libc::SOCK_STREAM);
    let mut wrong = v4(port);
    wrong.sin_family = 99;
    err!(
        libc::EAFNOSUPPORT,
        libc::connect(t, (&wrong as *const libc::sockaddr_in).cast(), 16)
    );
    // Another address of the loopback net.
    let u = socket(libc::AF_INET, libc::SOCK_STREAM);
    let mut other = v4(port);
    other.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 2]).to_be();
    err!(
        libc::ECONNREFUSED,
        libc::connect(u, (&other as *const libc::sockaddr_in).cast(), 16)
    );
}

unsafe fn tcp_send_flags() {
    let (a, b) = tcp();
    nonblock(a);
    let mut total = 0usize;
    loop {
        let n = send(a, &[1; 65536], libc::MSG_NOSIGNAL);
        if n < 0 {
            eq!(errno(), libc::EAGAIN);
            break;
        }
        total += n as usize;
        check!(total < 100_000_000);
    }
    eq!(poll_one(a, libc::POLLOUT, 0), 0);
    eq!(read_full(b, total).len(), total);
    check!(poll_one(a, libc::POLLOUT, 3000) == libc::POLLOUT);
    ok!(send(a, b"more", libc::MSG_MORE));
    ok!(send(a, b"!", 0));
    eq!(read_full(b, 5), b"more!");
}

unsafe fn sendfile_to_tcp() {
    let data: Vec<u8> = (0..500_000u32).map(|i| (i % 251) as u8).collect();
    write_file("f", &data);
    let (a, b) = tcp();
    let pid = fork(|| {
        libc::close(b);
        let f = open("f", libc::O_RDONLY);
        let mut left = 500_000usize;
        while left > 0 {
            left -= ok!(libc::sendfile(a, f, std::ptr::null_mut(), left)) as usize;
        }
    });
    libc::close(a);
    check!(read_full(b, 600_000) == data);
    wait_ok(pid);
}

unsafe fn msg_nosignal() {
    let (a, b) = pair(libc::SOCK_STREAM);
    libc::close(b);
    err!(libc::EPIPE, send(a, b"x", libc::MSG_NOSIGNAL));
    let pid = fork(|| {
        send(a, b"x", 0);
    });
    eq!(libc::WTERMSIG(wait(pid)), libc::SIGPIPE);
}

unsafe fn ephemeral_ports_differ() {
    let mut seen = std::collections::HashSet::new();
    let mut fds = Vec::new();
    for _ in 0..50 {
        let (s, port) = udp4();
        check!(port >= 1024);
        check!(seen.insert(port));
        fds.push(s);
    }
}
