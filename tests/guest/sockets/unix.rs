//! Unix sockets and pairs: unix(7), socketpair(2).

use super::*;
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
    unix_messages_after_shutdown,
    unix_peer_close,
    unix_backlog,
    unix_nonblocking,
    unix_buffer_fills,
    unix_dgram_blocks_when_full,
    unix_peek_waitall_trunc,
    unix_poll_states,
];

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

unsafe fn unix_messages_after_shutdown() {
    for kind in [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (a, b) = pair(kind);
        ok!(send(b, b"before", 0));
        ok!(libc::shutdown(a, libc::SHUT_RD));
        err!(libc::EPIPE, send(b, b"after", libc::MSG_NOSIGNAL));
        eq!(recv(a, 9, libc::MSG_DONTWAIT), b"before");
        // Who does not wait is told of the end of a connection only.
        if kind == libc::SOCK_DGRAM {
            err!(libc::EAGAIN, try_recv(a, libc::MSG_DONTWAIT));
        } else {
            eq!(try_recv(a, libc::MSG_DONTWAIT), 0);
        }
        eq!(try_recv(a, 0), 0);
        // The other way is open.
        ok!(send(a, b"back", 0));
        eq!(recv(b, 9, 0), b"back");
    }
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
