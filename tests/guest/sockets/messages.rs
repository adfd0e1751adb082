//! Descriptors, credentials and many messages at once: sendmsg(2), recvmmsg(2).

use super::*;
use crate::util::*;

cases![
    scm_rights_basic,
    scm_rights_many_and_truncated,
    scm_rights_in_flight_closed,
    scm_rights_boundaries,
    scm_rights_cloexec,
    scm_credentials,
    so_peercred,
    sendmmsg_recvmmsg,
    msg_errors,
];

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
    m.msg_iov = std::ptr::without_provenance_mut(8);
    m.msg_iovlen = 1;
    err!(libc::EFAULT, libc::sendmsg(a, &m, 0));
    m.msg_iovlen = 2000;
    err!(libc::EMSGSIZE, libc::sendmsg(a, &m, 0));
    err!(
        libc::EFAULT,
        libc::sendmsg(a, std::ptr::without_provenance(8), 0)
    );
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
