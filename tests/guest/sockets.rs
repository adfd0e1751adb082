//! Sockets: unix(7), socket(7), ip(7), tcp(7), udp(7), netlink(7).

use crate::util::*;

cases![
    socketpair_stream,
    socketpair_dgram_boundaries,
    socketpair_seqpacket,
    socketpair_errors,
    unix_stream_listen_accept,
    unix_bind_errors,
    unix_connect_errors,
    unix_abstract_names,
    unix_autobind,
    unix_names_reported,
    unix_dgram_named,
    unix_dgram_connected_filter,
    unix_path_permissions,
    unix_unlinked_path,
    unix_shutdown,
    unix_peer_close,
    unix_backlog,
    unix_nonblocking,
    unix_buffer_fills,
    unix_dgram_blocks_when_full,
    unix_peek_waitall_trunc,
    unix_poll_states,
    scm_rights_basic,
    scm_rights_many_and_truncated,
    scm_rights_in_flight_closed,
    scm_rights_boundaries,
    scm_rights_cloexec,
    scm_credentials,
    so_peercred,
    sendmmsg_recvmmsg,
    msg_errors,
    socket_errors,
    so_options,
    so_timeouts,
    so_linger_and_error,
    accept4_flags,
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
    tcp_v6,
    tcp_v6_dual_stack,
    tcp_v6only,
    tcp_listen_backlog_close,
    tcp_fork_server,
    tcp_shutdown_listener,
    tcp_self_connect_refused_after_close,
    tcp_connect_unspec_and_any,
    tcp_send_flags,
    udp_basic,
    udp_connected,
    udp_truncation,
    udp_refused,
    udp_v6,
    udp_zero_length,
    udp_broadcast_permission,
    udp_poll,
    udp_multicast_options,
    udp_large,
    udp_hops_of_one_packet,
    udp_lite,
    raw_refused_for_user,
    inet_unknown,
    netlink_links,
    netlink_addresses,
    netlink_errors,
    getsockopt_sizes,
    ioctl_interfaces,
    sendfile_to_tcp,
    msg_nosignal,
    ephemeral_ports_differ,
    sock_diag_lists_listeners,
];

unsafe fn pair(kind: i32) -> (i32, i32) {
    let mut sv = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, kind, 0, sv.as_mut_ptr()));
    (sv[0], sv[1])
}

unsafe fn socket(family: i32, kind: i32) -> i32 {
    ok!(libc::socket(family, kind, 0))
}

unsafe fn send(fd: i32, data: &[u8], flags: i32) -> isize {
    libc::send(fd, data.as_ptr().cast(), data.len(), flags)
}

unsafe fn recv(fd: i32, len: usize, flags: i32) -> Vec<u8> {
    let mut b = vec![0u8; len];
    let n = ok!(libc::recv(fd, b.as_mut_ptr().cast(), len, flags));
    b.truncate(n as usize);
    b
}

unsafe fn try_recv(fd: i32, flags: i32) -> isize {
    let mut b = [0u8; 100];
    libc::recv(fd, b.as_mut_ptr().cast(), 100, flags)
}

unsafe fn nonblock(fd: i32) {
    ok!(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK));
}

unsafe fn un(path: &[u8]) -> (libc::sockaddr_un, u32) {
    let mut a: libc::sockaddr_un = std::mem::zeroed();
    a.sun_family = libc::AF_UNIX as u16;
    for (to, from) in a.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    let nul = u32::from(path.first() != Some(&0));
    (a, 2 + path.len() as u32 + nul)
}

unsafe fn bind_un(fd: i32, path: &[u8]) -> i32 {
    let (a, len) = un(path);
    libc::bind(fd, (&a as *const libc::sockaddr_un).cast(), len)
}

unsafe fn connect_un(fd: i32, path: &[u8]) -> i32 {
    let (a, len) = un(path);
    libc::connect(fd, (&a as *const libc::sockaddr_un).cast(), len)
}

unsafe fn listen_un(path: &[u8], kind: i32, backlog: i32) -> i32 {
    let s = socket(libc::AF_UNIX, kind);
    ok!(bind_un(s, path));
    ok!(libc::listen(s, backlog));
    s
}

unsafe fn accept(fd: i32) -> i32 {
    ok!(libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()))
}

unsafe fn setopt(fd: i32, level: i32, name: i32, value: i32) -> i32 {
    libc::setsockopt(fd, level, name, (&value as *const i32).cast(), 4)
}

unsafe fn getopt(fd: i32, level: i32, name: i32) -> i32 {
    let mut v = 0i32;
    let mut len = 4u32;
    ok!(libc::getsockopt(
        fd,
        level,
        name,
        (&mut v as *mut i32).cast(),
        &mut len
    ));
    v
}

unsafe fn socketpair_stream() {
    let (a, b) = pair(libc::SOCK_STREAM);
    write_all(a, b"one");
    write_all(a, b"two");
    eq!(read_some(b, 100), b"onetwo");
    write_all(b, b"back");
    eq!(recv(a, 2, 0), b"ba");
    eq!(recv(a, 9, 0), b"ck");
    libc::close(a);
    eq!(read_some(b, 1), b"");
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    err!(libc::EPIPE, send(b, b"x", 0));
}

unsafe fn socketpair_dgram_boundaries() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    ok!(send(a, b"first", 0));
    ok!(send(a, b"second", 0));
    ok!(send(a, b"", 0));
    eq!(recv(b, 100, 0), b"first");
    eq!(recv(b, 3, 0), b"sec");
    eq!(recv(b, 100, 0), b"");
    libc::close(a);
    err!(libc::ECONNREFUSED, send(b, b"x", 0));
}

unsafe fn socketpair_seqpacket() {
    let (a, b) = pair(libc::SOCK_SEQPACKET);
    ok!(send(a, b"12345", 0));
    ok!(send(a, b"678", 0));
    eq!(recv(b, 2, 0), b"12");
    eq!(recv(b, 100, 0), b"678");
    libc::close(a);
    eq!(recv(b, 10, 0), b"");
}

unsafe fn socketpair_errors() {
    let mut sv = [0; 2];
    err!(
        libc::EOPNOTSUPP,
        libc::socketpair(libc::AF_INET, libc::SOCK_STREAM, 0, sv.as_mut_ptr())
    );
    err!(
        libc::EPROTONOSUPPORT,
        libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 99, sv.as_mut_ptr())
    );
    err!(
        libc::EAFNOSUPPORT,
        libc::socketpair(199, libc::SOCK_STREAM, 0, sv.as_mut_ptr())
    );
    err!(
        libc::ESOCKTNOSUPPORT,
        libc::socketpair(libc::AF_UNIX, 9, 0, sv.as_mut_ptr())
    );
    err!(
        libc::EFAULT,
        libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, 8 as *mut i32)
    );
    ok!(libc::socketpair(
        libc::AF_UNIX,
        libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        0,
        sv.as_mut_ptr()
    ));
    eq!(ok!(libc::fcntl(sv[0], libc::F_GETFD)), libc::FD_CLOEXEC);
    err!(libc::EAGAIN, try_recv(sv[0], 0));
}

unsafe fn unix_stream_listen_accept() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_SEQPACKET] {
        let path = format!("sock{kind}").into_bytes();
        let l = listen_un(&path, kind, 5);
        let pid = fork(|| {
            let s = socket(libc::AF_UNIX, kind);
            ok!(connect_un(s, &path));
            ok!(send(s, b"ping", 0));
            eq!(recv(s, 10, 0), b"pong");
        });
        let conn = accept(l);
        eq!(recv(conn, 10, 0), b"ping");
        ok!(send(conn, b"pong", 0));
        wait_ok(pid);
        eq!(recv(conn, 10, 0), b"");
    }
}

unsafe fn unix_bind_errors() {
    let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    ok!(bind_un(s, b"a"));
    err!(libc::EINVAL, bind_un(s, b"b"));
    let t = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    err!(libc::EADDRINUSE, bind_un(t, b"a"));
    write_file("file", b"");
    err!(libc::EADDRINUSE, bind_un(t, b"file"));
    err!(libc::ENOENT, bind_un(t, b"no/dir"));
    err!(libc::ENOTDIR, bind_un(t, b"file/x"));
    let (a, _) = un(b"x");
    err!(
        libc::EINVAL,
        libc::bind(t, (&a as *const libc::sockaddr_un).cast(), 1)
    );
    err!(
        libc::EINVAL,
        libc::bind(t, (&a as *const libc::sockaddr_un).cast(), 200)
    );
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::stat(c("a").as_ptr(), &mut st));
    eq!(st.st_mode & libc::S_IFMT, libc::S_IFSOCK);
}

unsafe fn unix_connect_errors() {
    let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    err!(libc::ENOENT, connect_un(s, b"none"));
    write_file("file", b"");
    err!(libc::ECONNREFUSED, connect_un(s, b"file"));
    let b = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    ok!(bind_un(b, b"bound"));
    err!(libc::ECONNREFUSED, connect_un(s, b"bound"));
    ok!(libc::listen(b, 1));
    ok!(connect_un(s, b"bound"));
    err!(libc::EISCONN, connect_un(s, b"bound"));
    libc::close(b);
    let s2 = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    err!(libc::ECONNREFUSED, connect_un(s2, b"bound"));
    let d = socket(libc::AF_UNIX, libc::SOCK_DGRAM);
    let l = listen_un(b"stream", libc::SOCK_STREAM, 1);
    err!(libc::EPROTOTYPE, connect_un(d, b"stream"));
    let _ = l;
}

unsafe fn unix_abstract_names() {
    let name = format!("\0guest-{}", libc::getpid()).into_bytes();
    let l = listen_un(&name, libc::SOCK_STREAM, 2);
    let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    ok!(connect_un(s, &name));
    let conn = accept(l);
    write_all(s, b"x");
    eq!(read_some(conn, 1), b"x");
    // The whole length counts, NUL bytes too.
    let mut longer = name.clone();
    longer.push(0);
    let t = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    err!(libc::ECONNREFUSED, connect_un(t, &longer));
    err!(libc::EADDRINUSE, bind_un(t, &name));
    libc::close(l);
    ok!(bind_un(t, &name));
}

unsafe fn unix_autobind() {
    let s = socket(libc::AF_UNIX, libc::SOCK_DGRAM);
    let (a, _) = un(b"");
    ok!(libc::bind(s, (&a as *const libc::sockaddr_un).cast(), 2));
    let mut out: libc::sockaddr_un = std::mem::zeroed();
    let mut len = std::mem::size_of_val(&out) as u32;
    ok!(libc::getsockname(
        s,
        (&mut out as *mut libc::sockaddr_un).cast(),
        &mut len
    ));
    eq!(len, 8);
    eq!(out.sun_path[0], 0);
}

unsafe fn name_of(fd: i32, peer: bool) -> Vec<u8> {
    let mut out: libc::sockaddr_un = std::mem::zeroed();
    let mut len = std::mem::size_of_val(&out) as u32;
    let p = (&mut out as *mut libc::sockaddr_un).cast();
    ok!(if peer {
        libc::getpeername(fd, p, &mut len)
    } else {
        libc::getsockname(fd, p, &mut len)
    });
    eq!(out.sun_family, libc::AF_UNIX as u16);
    out.sun_path[..(len as usize - 2)]
        .iter()
        .map(|x| *x as u8)
        .collect()
}

unsafe fn unix_names_reported() {
    let l = listen_un(b"server", libc::SOCK_STREAM, 2);
    let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    err!(
        libc::ENOTCONN,
        libc::getpeername(s, [0u8; 128].as_mut_ptr().cast(), &mut 128)
    );
    ok!(connect_un(s, b"server"));
    let conn = accept(l);
    eq!(name_of(l, false), b"server\0");
    eq!(name_of(s, true), b"server\0");
    eq!(name_of(conn, false), b"server\0");
    eq!(name_of(s, false), b"");
    eq!(name_of(conn, true), b"");
    // A short buffer is filled and the true length told.
    let mut small = [0u8; 4];
    let mut len = 4u32;
    ok!(libc::getsockname(l, small.as_mut_ptr().cast(), &mut len));
    eq!((len, &small[2..]), (9, &b"se"[..]));
}

unsafe fn unix_dgram_named() {
    let a = socket(libc::AF_UNIX, libc::SOCK_DGRAM);
    let b = socket(libc::AF_UNIX, libc::SOCK_DGRAM);
    ok!(bind_un(a, b"a"));
    ok!(bind_un(b, b"b"));
    let (to, len) = un(b"b");
    eq!(
        ok!(libc::sendto(
            a,
            b"hi".as_ptr().cast(),
            2,
            0,
            (&to as *const libc::sockaddr_un).cast(),
            len
        )),
        2
    );
    let mut from: libc::sockaddr_un = std::mem::zeroed();
    let mut flen = std::mem::size_of_val(&from) as u32;
    let mut buf = [0u8; 10];
    eq!(
        ok!(libc::recvfrom(
            b,
            buf.as_mut_ptr().cast(),
            10,
            0,
            (&mut from as *mut libc::sockaddr_un).cast(),
            &mut flen
        )),
        2
    );
    eq!((flen, from.sun_path[0] as u8), (4, b'a'));
    err!(libc::ENOTCONN, send(a, b"x", 0));
    let (none, len) = un(b"none");
    err!(
        libc::ENOENT,
        libc::sendto(
            a,
            b"x".as_ptr().cast(),
            1,
            0,
            (&none as *const libc::sockaddr_un).cast(),
            len
        )
    );
}

unsafe fn unix_dgram_connected_filter() {
    let a = socket(libc::AF_UNIX, libc::SOCK_DGRAM);
    let b = socket(libc::AF_UNIX, libc::SOCK_DGRAM);
    let other = socket(libc::AF_UNIX, libc::SOCK_DGRAM);
    ok!(bind_un(a, b"a"));
    ok!(bind_un(b, b"b"));
    ok!(connect_un(a, b"b"));
    ok!(send(a, b"x", 0));
    eq!(recv(b, 9, 0), b"x");
    ok!(connect_un(b, b"a"));
    // A connected one takes only from its peer.
    err!(libc::EPERM, connect_un(other, b"a"));
    // Disconnect with AF_UNSPEC.
    let unspec = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as u16,
        sa_data: [0; 14],
    };
    ok!(libc::connect(a, &unspec, 16));
    err!(libc::ENOTCONN, send(a, b"x", 0));
}

unsafe fn unix_path_permissions() {
    let l = listen_un(b"s", libc::SOCK_STREAM, 5);
    ok!(libc::chmod(c("s").as_ptr(), 0o600));
    in_child(|| {
        ok!(libc::setresuid(1000, 1000, 1000));
        let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
        err!(libc::EACCES, connect_un(s, b"s"));
        err!(libc::EACCES, bind_un(s, b"new"));
    });
    let _ = l;
}

unsafe fn unix_unlinked_path() {
    let l = listen_un(b"s", libc::SOCK_STREAM, 5);
    ok!(libc::link(c("s").as_ptr(), c("t").as_ptr()));
    let a = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    ok!(connect_un(a, b"t"));
    ok!(libc::rename(c("s").as_ptr(), c("u").as_ptr()));
    let b = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    ok!(connect_un(b, b"u"));
    ok!(libc::unlink(c("u").as_ptr()));
    ok!(libc::unlink(c("t").as_ptr()));
    let d = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    err!(libc::ENOENT, connect_un(d, b"u"));
    // Already connected ones stay.
    let conn = accept(l);
    write_all(a, b"x");
    eq!(read_some(conn, 1), b"x");
}

unsafe fn unix_shutdown() {
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    let (a, b) = pair(libc::SOCK_STREAM);
    write_all(a, b"data");
    ok!(libc::shutdown(a, libc::SHUT_WR));
    err!(libc::EPIPE, send(a, b"x", 0));
    eq!(recv(b, 9, 0), b"data");
    eq!(recv(b, 9, 0), b"");
    ok!(send(b, b"other way", 0));
    eq!(recv(a, 20, 0), b"other way");
    ok!(libc::shutdown(a, libc::SHUT_RD));
    err!(libc::EPIPE, send(b, b"x", 0));
    err!(libc::EINVAL, libc::shutdown(a, 9));
    err!(libc::ENOTSOCK, libc::shutdown(0, libc::SHUT_RD));
}

unsafe fn unix_peer_close() {
    let (a, b) = pair(libc::SOCK_STREAM);
    write_all(a, b"unread");
    write_all(b, b"also");
    // Closing with unread data resets the peer.
    libc::close(a);
    eq!(recv(b, 100, 0), b"unread");
    err!(libc::ECONNRESET, try_recv(b, 0));
    eq!(recv(b, 100, 0), b"");
}

unsafe fn unix_backlog() {
    let l = listen_un(b"s", libc::SOCK_STREAM, 1);
    let mut fds = Vec::new();
    let mut refused = false;
    for _ in 0..10 {
        let s = socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
        if connect_un(s, b"s") == -1 {
            eq!(errno(), libc::EAGAIN);
            refused = true;
            break;
        }
        fds.push(s);
    }
    check!(refused);
    eq!(fds.len(), 2);
    // A blocked connect goes on once one is accepted.
    let pid = fork(|| {
        let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
        ok!(connect_un(s, b"s"));
    });
    wait_state(pid, "S");
    accept(l);
    wait_ok(pid);
}

unsafe fn unix_nonblocking() {
    let l = listen_un(b"s", libc::SOCK_STREAM, 5);
    nonblock(l);
    err!(
        libc::EAGAIN,
        libc::accept(l, std::ptr::null_mut(), std::ptr::null_mut())
    );
    let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    ok!(connect_un(s, b"s"));
    let conn = accept(l);
    // The flag is not inherited.
    eq!(ok!(libc::fcntl(conn, libc::F_GETFL)) & libc::O_NONBLOCK, 0);
    err!(libc::EAGAIN, try_recv(conn, libc::MSG_DONTWAIT));
    err!(
        libc::EINVAL,
        libc::accept(s, std::ptr::null_mut(), std::ptr::null_mut())
    );
    err!(
        libc::EOPNOTSUPP,
        libc::accept(
            socket(libc::AF_UNIX, libc::SOCK_DGRAM),
            std::ptr::null_mut(),
            std::ptr::null_mut()
        )
    );
    err!(
        libc::ENOTSOCK,
        libc::accept(0, std::ptr::null_mut(), std::ptr::null_mut())
    );
}

unsafe fn unix_buffer_fills() {
    let (a, b) = pair(libc::SOCK_STREAM);
    nonblock(a);
    let mut total = 0usize;
    loop {
        let n = send(a, &[7; 5000], 0);
        if n < 0 {
            eq!(errno(), libc::EAGAIN);
            break;
        }
        total += n as usize;
    }
    check!((50_000..2_000_000).contains(&total), "{total}");
    eq!(poll_one(a, libc::POLLOUT, 0), 0);
    eq!(read_full(b, total).len(), total);
    eq!(poll_one(a, libc::POLLOUT, 0), libc::POLLOUT);
    err!(libc::EAGAIN, try_recv(b, libc::MSG_DONTWAIT));
}

unsafe fn unix_dgram_blocks_when_full() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    let mut n = 0;
    while send(a, b"datagram", libc::MSG_DONTWAIT) == 8 {
        n += 1;
        check!(n < 10_000);
    }
    eq!(errno(), libc::EAGAIN);
    let pid = fork(|| {
        ok!(send(a, b"blocked", 0));
    });
    wait_state(pid, "S");
    for _ in 0..n {
        eq!(recv(b, 100, 0), b"datagram");
    }
    eq!(recv(b, 100, 0), b"blocked");
    wait_ok(pid);
    err!(
        libc::EMSGSIZE,
        send(a, &vec![0; 4 << 20], libc::MSG_DONTWAIT)
    );
}

unsafe fn unix_peek_waitall_trunc() {
    let (a, b) = pair(libc::SOCK_STREAM);
    write_all(a, b"abcdef");
    eq!(recv(b, 3, libc::MSG_PEEK), b"abc");
    eq!(recv(b, 6, 0), b"abcdef");
    let pid = fork(|| {
        write_all(a, b"123");
        sleep_ms(20);
        write_all(a, b"456");
    });
    eq!(recv(b, 6, libc::MSG_WAITALL), b"123456");
    wait_ok(pid);
    let (a, b) = pair(libc::SOCK_DGRAM);
    ok!(send(a, b"0123456789", 0));
    let mut buf = [0u8; 4];
    eq!(
        ok!(libc::recv(
            b,
            buf.as_mut_ptr().cast(),
            4,
            libc::MSG_TRUNC | libc::MSG_PEEK
        )),
        10
    );
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: 4,
    };
    let mut m: libc::msghdr = std::mem::zeroed();
    m.msg_iov = &mut iov;
    m.msg_iovlen = 1;
    eq!(ok!(libc::recvmsg(b, &mut m, 0)), 4);
    eq!(m.msg_flags & libc::MSG_TRUNC, libc::MSG_TRUNC);
}

unsafe fn unix_poll_states() {
    let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    eq!(
        poll_one(s, libc::POLLIN | libc::POLLOUT, 0),
        libc::POLLOUT | libc::POLLHUP
    );
    let l = listen_un(b"s", libc::SOCK_STREAM, 5);
    eq!(poll_one(l, libc::POLLIN, 0), 0);
    ok!(connect_un(s, b"s"));
    eq!(poll_one(l, libc::POLLIN, 0), libc::POLLIN);
    let conn = accept(l);
    eq!(poll_one(s, libc::POLLIN | libc::POLLOUT, 0), libc::POLLOUT);
    ok!(libc::shutdown(conn, libc::SHUT_WR));
    eq!(
        poll_one(s, libc::POLLIN | libc::POLLRDHUP, 0),
        libc::POLLIN | libc::POLLRDHUP
    );
    libc::close(conn);
    let both = libc::POLLIN | libc::POLLOUT | libc::POLLHUP;
    eq!(poll_one(s, libc::POLLIN | libc::POLLOUT, 0) & both, both);
}

/// Sends bytes with descriptors.
unsafe fn send_fds(fd: i32, data: &[u8], fds: &[i32]) -> isize {
    let mut control = [0u64; 300];
    let mut iov = libc::iovec {
        iov_base: data.as_ptr() as *mut _,
        iov_len: data.len(),
    };
    let mut m: libc::msghdr = std::mem::zeroed();
    m.msg_iov = &mut iov;
    m.msg_iovlen = 1;
    m.msg_control = control.as_mut_ptr().cast();
    m.msg_controllen = libc::CMSG_SPACE(4 * fds.len() as u32) as usize;
    let h = libc::CMSG_FIRSTHDR(&m);
    (*h).cmsg_level = libc::SOL_SOCKET;
    (*h).cmsg_type = libc::SCM_RIGHTS;
    (*h).cmsg_len = libc::CMSG_LEN(4 * fds.len() as u32) as usize;
    std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(h).cast(), fds.len());
    libc::sendmsg(fd, &m, 0)
}

/// Receives bytes, descriptors and message flags.
unsafe fn recv_fds(
    fd: i32,
    len: usize,
    control_len: usize,
    flags: i32,
) -> (Vec<u8>, Vec<i32>, i32) {
    let mut control = [0u64; 300];
    let mut data = vec![0u8; len];
    let mut iov = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: len,
    };
    let mut m: libc::msghdr = std::mem::zeroed();
    m.msg_iov = &mut iov;
    m.msg_iovlen = 1;
    m.msg_control = control.as_mut_ptr().cast();
    m.msg_controllen = control_len;
    let n = ok!(libc::recvmsg(fd, &mut m, flags));
    data.truncate(n as usize);
    let mut fds = Vec::new();
    let mut h = libc::CMSG_FIRSTHDR(&m);
    while !h.is_null() {
        if (*h).cmsg_type == libc::SCM_RIGHTS {
            let n = ((*h).cmsg_len - libc::CMSG_LEN(0) as usize) / 4;
            for i in 0..n {
                fds.push(*libc::CMSG_DATA(h).cast::<i32>().add(i));
            }
        }
        h = libc::CMSG_NXTHDR(&m, h);
    }
    (data, fds, m.msg_flags)
}

unsafe fn scm_rights_basic() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = pair(kind);
        let (r, w) = pipe();
        eq!(ok!(send_fds(a, b"x", &[w])), 1);
        libc::close(w);
        let pid = fork(|| {
            let (data, fds, _) = recv_fds(b, 10, 1000, 0);
            eq!((data.as_slice(), fds.len()), (&b"x"[..], 1));
            write_all(fds[0], b"through");
        });
        wait_ok(pid);
        eq!(read_some(r, 10), b"through");
    }
}

unsafe fn scm_rights_many_and_truncated() {
    let (a, b) = pair(libc::SOCK_STREAM);
    let fds: Vec<i32> = vec![0; 253];
    ok!(send_fds(a, b"x", &fds));
    let (_, got, _) = recv_fds(b, 1, 2000, 0);
    eq!(got.len(), 253);
    for fd in got {
        libc::close(fd);
    }
    err!(libc::EINVAL, send_fds(a, b"x", &vec![0; 254]));
    err!(libc::EBADF, send_fds(a, b"x", &[99]));
    // Room for one of three: the others are closed, MSG_CTRUNC tells.
    ok!(send_fds(a, b"x", &[0, 0, 0]));
    let (_, got, flags) = recv_fds(b, 1, libc::CMSG_LEN(4) as usize, 0);
    eq!((got.len(), flags & libc::MSG_CTRUNC), (1, libc::MSG_CTRUNC));
    ok!(send_fds(a, b"x", &[0]));
    let (_, got, flags) = recv_fds(b, 1, 0, 0);
    eq!((got.len(), flags & libc::MSG_CTRUNC), (0, libc::MSG_CTRUNC));
}

unsafe fn scm_rights_in_flight_closed() {
    let (a, b) = pair(libc::SOCK_STREAM);
    let (r, w) = pipe();
    ok!(send_fds(a, b"x", &[w]));
    libc::close(w);
    eq!(poll_one(r, libc::POLLIN, 0), 0);
    // Never received: closed with the socket.
    libc::close(b);
    libc::close(a);
    eq!(poll_one(r, libc::POLLIN, 2000), libc::POLLHUP);
    // A socket sent through itself is collected as well; at least no crash.
    let (a, b) = pair(libc::SOCK_STREAM);
    ok!(send_fds(a, b"x", &[a, b]));
    libc::close(a);
    libc::close(b);
}

unsafe fn scm_rights_boundaries() {
    // A read ends behind bytes that carried descriptors.
    let (a, b) = pair(libc::SOCK_STREAM);
    write_all(a, b"before");
    ok!(send_fds(a, b"with", &[0]));
    write_all(a, b"after");
    let (d, f, _) = recv_fds(b, 100, 100, 0);
    eq!((d.as_slice(), f.len()), (&b"beforewith"[..], 1));
    let (d, f, _) = recv_fds(b, 100, 100, 0);
    eq!((d.as_slice(), f.len()), (&b"after"[..], 0));
    // A plain read drops the descriptors.
    ok!(send_fds(a, b"y", &[0]));
    eq!(read_some(b, 9), b"y");
    // Peeking gives a descriptor each time.
    ok!(send_fds(a, b"z", &[0]));
    eq!(recv_fds(b, 9, 100, libc::MSG_PEEK).1.len(), 1);
    eq!(recv_fds(b, 9, 100, 0).1.len(), 1);
}

unsafe fn scm_rights_cloexec() {
    let (a, b) = pair(libc::SOCK_STREAM);
    ok!(send_fds(a, b"x", &[0]));
    let (_, f, _) = recv_fds(b, 1, 100, libc::MSG_CMSG_CLOEXEC);
    eq!(ok!(libc::fcntl(f[0], libc::F_GETFD)), libc::FD_CLOEXEC);
    ok!(send_fds(a, b"x", &[f[0]]));
    let (_, g, _) = recv_fds(b, 1, 100, 0);
    eq!(ok!(libc::fcntl(g[0], libc::F_GETFD)), 0);
}

unsafe fn scm_credentials() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    ok!(setopt(b, libc::SOL_SOCKET, libc::SO_PASSCRED, 1));
    eq!(getopt(b, libc::SOL_SOCKET, libc::SO_PASSCRED), 1);
    let pid = fork(|| {
        ok!(libc::setresuid(1000, 1000, 1000));
        ok!(send(a, b"x", 0));
    });
    wait_ok(pid);
    let mut control = [0u64; 20];
    let mut buf = [0u8; 4];
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: 4,
    };
    let mut m: libc::msghdr = std::mem::zeroed();
    m.msg_iov = &mut iov;
    m.msg_iovlen = 1;
    m.msg_control = control.as_mut_ptr().cast();
    m.msg_controllen = 160;
    ok!(libc::recvmsg(b, &mut m, 0));
    let h = libc::CMSG_FIRSTHDR(&m);
    check!(!h.is_null());
    eq!((*h).cmsg_type, libc::SCM_CREDENTIALS);
    let cred = *libc::CMSG_DATA(h).cast::<libc::ucred>();
    eq!((cred.pid, cred.uid), (pid, 1000));
    // Somebody else's identity may be claimed only with capabilities.
    in_child(|| {
        ok!(libc::setresuid(1000, 1000, 1000));
        m.msg_controllen = libc::CMSG_SPACE(12) as usize;
        let h = libc::CMSG_FIRSTHDR(&m);
        (*h).cmsg_len = libc::CMSG_LEN(12) as usize;
        *libc::CMSG_DATA(h).cast::<libc::ucred>() = libc::ucred {
            pid: libc::getpid(),
            uid: 0,
            gid: 0,
        };
        err!(libc::EPERM, libc::sendmsg(a, &m, 0));
    });
}

unsafe fn so_peercred() {
    let (a, _b) = pair(libc::SOCK_STREAM);
    let mut cred: libc::ucred = std::mem::zeroed();
    let mut len = 12u32;
    ok!(libc::getsockopt(
        a,
        libc::SOL_SOCKET,
        libc::SO_PEERCRED,
        (&mut cred as *mut libc::ucred).cast(),
        &mut len
    ));
    eq!((cred.pid, cred.uid, cred.gid), (libc::getpid(), 0, 0));
    let l = listen_un(b"s", libc::SOCK_STREAM, 3);
    ok!(libc::chmod(c("s").as_ptr(), 0o777));
    let pid = fork(|| {
        ok!(libc::setresgid(1001, 1001, 1001));
        ok!(libc::setresuid(1000, 1000, 1000));
        let s = socket(libc::AF_UNIX, libc::SOCK_STREAM);
        ok!(connect_un(s, b"s"));
        let mut cred: libc::ucred = std::mem::zeroed();
        let mut len = 12u32;
        ok!(libc::getsockopt(
            s,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&mut cred as *mut libc::ucred).cast(),
            &mut len
        ));
        eq!((cred.pid, cred.uid), (libc::getppid(), 0));
    });
    let conn = accept(l);
    ok!(libc::getsockopt(
        conn,
        libc::SOL_SOCKET,
        libc::SO_PEERCRED,
        (&mut cred as *mut libc::ucred).cast(),
        &mut len
    ));
    eq!((cred.pid, cred.uid, cred.gid), (pid, 1000, 1001));
    wait_ok(pid);
}

unsafe fn sendmmsg_recvmmsg() {
    let (a, b) = pair(libc::SOCK_DGRAM);
    let mut texts = [*b"one", *b"two", *b"six"];
    let mut iovs: Vec<libc::iovec> = texts
        .iter_mut()
        .map(|t| libc::iovec {
            iov_base: t.as_mut_ptr().cast(),
            iov_len: 3,
        })
        .collect();
    let mut msgs: Vec<libc::mmsghdr> = iovs
        .iter_mut()
        .map(|i| {
            let mut m: libc::mmsghdr = std::mem::zeroed();
            m.msg_hdr.msg_iov = i;
            m.msg_hdr.msg_iovlen = 1;
            m
        })
        .collect();
    eq!(ok!(libc::sendmmsg(a, msgs.as_mut_ptr(), 3, 0)), 3);
    eq!(msgs[1].msg_len, 3);
    let mut bufs = [[0u8; 10]; 5];
    let mut iovs: Vec<libc::iovec> = bufs
        .iter_mut()
        .map(|t| libc::iovec {
            iov_base: t.as_mut_ptr().cast(),
            iov_len: 10,
        })
        .collect();
    let mut msgs: Vec<libc::mmsghdr> = iovs
        .iter_mut()
        .map(|i| {
            let mut m: libc::mmsghdr = std::mem::zeroed();
            m.msg_hdr.msg_iov = i;
            m.msg_hdr.msg_iovlen = 1;
            m
        })
        .collect();
    eq!(
        ok!(libc::recvmmsg(
            b,
            msgs.as_mut_ptr(),
            5,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut()
        )),
        3
    );
    eq!(&bufs[2][..3], b"six");
    err!(
        libc::EAGAIN,
        libc::recvmmsg(
            b,
            msgs.as_mut_ptr(),
            5,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut()
        )
    );
    // MSG_WAITFORONE blocks for the first only.
    ok!(send(a, b"x", 0));
    eq!(
        ok!(libc::recvmmsg(
            b,
            msgs.as_mut_ptr(),
            5,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut()
        )),
        1
    );
}

unsafe fn msg_errors() {
    let (a, _b) = pair(libc::SOCK_STREAM);
    let mut m: libc::msghdr = std::mem::zeroed();
    eq!(ok!(libc::sendmsg(a, &m, 0)), 0);
    m.msg_iov = 8 as *mut _;
    m.msg_iovlen = 1;
    err!(libc::EFAULT, libc::sendmsg(a, &m, 0));
    m.msg_iovlen = 2000;
    err!(libc::EMSGSIZE, libc::sendmsg(a, &m, 0));
    err!(libc::EFAULT, libc::sendmsg(a, 8 as *const _, 0));
    err!(libc::ENOTSOCK, libc::sendmsg(0, &m, 0));
    err!(libc::EBADF, libc::sendmsg(99, &m, 0));
    // A control message longer than the buffer.
    let mut control = [0u64; 4];
    control[0] = 100;
    let mut m: libc::msghdr = std::mem::zeroed();
    m.msg_control = control.as_mut_ptr().cast();
    m.msg_controllen = 32;
    err!(libc::EINVAL, libc::sendmsg(a, &m, 0));
}

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

fn v4(port: u16) -> libc::sockaddr_in {
    let mut a: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    a.sin_family = libc::AF_INET as u16;
    a.sin_port = port.to_be();
    a.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
    a
}

fn v6(port: u16) -> libc::sockaddr_in6 {
    let mut a: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
    a.sin6_family = libc::AF_INET6 as u16;
    a.sin6_port = port.to_be();
    a.sin6_addr.s6_addr[15] = 1;
    a
}

unsafe fn bind4(fd: i32, port: u16) -> i32 {
    libc::bind(fd, (&v4(port) as *const libc::sockaddr_in).cast(), 16)
}

unsafe fn connect4(fd: i32, port: u16) -> i32 {
    libc::connect(fd, (&v4(port) as *const libc::sockaddr_in).cast(), 16)
}

unsafe fn port_of(fd: i32) -> u16 {
    let mut a: libc::sockaddr_in6 = std::mem::zeroed();
    let mut len = 28u32;
    ok!(libc::getsockname(
        fd,
        (&mut a as *mut libc::sockaddr_in6).cast(),
        &mut len
    ));
    u16::from_be(a.sin6_port)
}

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

unsafe fn peer_port(fd: i32) -> u16 {
    let mut a: libc::sockaddr_in = std::mem::zeroed();
    let mut len = 16u32;
    ok!(libc::getpeername(
        fd,
        (&mut a as *mut libc::sockaddr_in).cast(),
        &mut len
    ));
    u16::from_be(a.sin_port)
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

unsafe fn need_v6() {
    let s = libc::socket(libc::AF_INET6, libc::SOCK_STREAM, 0);
    if s < 0 || libc::bind(s, (&v6(0) as *const libc::sockaddr_in6).cast(), 28) < 0 {
        skip("no IPv6 loopback");
    }
    libc::close(s);
}

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

unsafe fn udp4() -> (i32, u16) {
    let s = socket(libc::AF_INET, libc::SOCK_DGRAM);
    ok!(bind4(s, 0));
    (s, port_of(s))
}

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

/// Sockets that `NETLINK_SOCK_DIAG` lists: state, local port, both queues.
unsafe fn diag_dump(family: u8, protocol: u8, states: u32) -> Vec<(u8, u16, u32, u32)> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    let s = ok!(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 4));
    let mut request = vec![0u8; 72];
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
