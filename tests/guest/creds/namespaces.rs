//! namespaces(7): unshare(2), setns(2).

use super::*;
use crate::util::{self, *};

cases![
    unshare_uts,
    unshare_user_maps,
    unshare_user_capabilities,
    unshare_pid,
    pid_namespace_init_death,
    unshare_mount_private,
    unshare_ipc,
    unshare_errors,
    setns_uts,
    proc_ns_links,
    nested_user_limits,
    clone_newuser_flag,
    unshare_net_loopback,
    network_namespaces_are_apart,
    sethostname_rules,
];

unsafe fn hostname() -> String {
    let mut b = [0u8; 100];
    ok!(libc::gethostname(b.as_mut_ptr().cast(), 100));
    let end = b.iter().position(|x| *x == 0).unwrap_or(0);
    String::from_utf8_lossy(&b[..end]).into_owned()
}

unsafe fn need_admin() {
    need_cap(CAP_SYS_ADMIN, "CAP_SYS_ADMIN");
    in_child(|| {
        if libc::unshare(libc::CLONE_NEWUTS) == -1 && errno() == libc::EPERM {
            skip("namespaces are not allowed here");
        }
    });
}

unsafe fn unshare_uts() {
    need_admin();
    let before = hostname();
    in_child(|| {
        ok!(libc::unshare(libc::CLONE_NEWUTS));
        eq!(hostname(), before);
        ok!(libc::sethostname(c"changed".as_ptr(), 7));
        eq!(hostname(), "changed");
        eq!(util::read_text("/proc/sys/kernel/hostname"), "changed\n");
        ok!(libc::setdomainname(c"dom".as_ptr(), 3));
        in_child(|| eq!(hostname(), "changed"));
    });
    eq!(hostname(), before);
}

unsafe fn sethostname_rules() {
    need_admin();
    in_child(|| {
        ok!(libc::unshare(libc::CLONE_NEWUTS));
        err!(libc::EINVAL, libc::sethostname(c"x".as_ptr(), 65));
        ok!(libc::setuid(1000));
        err!(libc::EPERM, libc::sethostname(c"x".as_ptr(), 1));
    });
}

unsafe fn put(path: &str, text: &str) -> i32 {
    let fd = libc::open(c(path).as_ptr(), libc::O_WRONLY);
    if fd < 0 {
        return -1;
    }
    let r = libc::write(fd, text.as_ptr().cast(), text.len());
    let e = errno();
    libc::close(fd);
    set_errno(e);
    if r < 0 { -1 } else { 0 }
}

unsafe fn need_userns() {
    in_child(|| {
        if libc::unshare(libc::CLONE_NEWUSER) == -1 {
            skip(format_args!("no user namespaces here: {}", errno_text()));
        }
    });
}

unsafe fn unshare_user_maps() {
    need_userns();
    in_child(|| {
        ok!(libc::setresgid(1000, 1000, 1000));
        ok!(libc::setgroups(0, std::ptr::null()));
        ok!(setresuid(1000, 1000, 1000));
        ok!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0));
        ok!(libc::unshare(libc::CLONE_NEWUSER));
        // Unmapped: the overflow id.
        eq!(libc::getuid(), 65534);
        err!(libc::EPERM, put("/proc/self/gid_map", "0 1000 1\n"));
        ok!(put("/proc/self/setgroups", "deny"));
        ok!(put("/proc/self/gid_map", "0 1000 1\n"));
        err!(libc::EPERM, put("/proc/self/uid_map", "0 0 1\n"));
        ok!(put("/proc/self/uid_map", "0 1000 1\n"));
        eq!((libc::getuid(), libc::getgid()), (0, 0));
        err!(libc::EPERM, put("/proc/self/uid_map", "0 1000 1\n"));
        let map = util::read_text("/proc/self/uid_map");
        eq!(
            map.split_whitespace().collect::<Vec<_>>(),
            ["0", "1000", "1"]
        );
        err!(libc::EINVAL, libc::setuid(5));
        // Files of others show as nobody's.
        let mut st: libc::stat = std::mem::zeroed();
        ok!(libc::stat(c"/".as_ptr(), &mut st));
        eq!(st.st_uid, 65534);
    });
}

unsafe fn unshare_user_capabilities() {
    need_userns();
    in_child(|| {
        ok!(setresuid(1000, 1000, 1000));
        eq!(capget().0, 0);
        ok!(libc::unshare(libc::CLONE_NEWUSER));
        check!(capget().0 != 0);
        // Over what the new namespace owns, not over the old one's things.
        ok!(libc::unshare(libc::CLONE_NEWUTS));
        ok!(libc::sethostname(c"inside".as_ptr(), 6));
        check!(libc::chown(c"/".as_ptr(), 0, 0) == -1);
    });
}

unsafe fn clone_newuser_flag() {
    need_userns();
    let pid = sys!(
        libc::SYS_clone,
        libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::SIGCHLD,
        0,
        0,
        0,
        0
    ) as i32;
    if pid == 0 {
        eq!(libc::getpid(), 1);
        eq!(libc::getppid(), 0);
        libc::_exit(0);
    }
    check!(pid > 0, "{}", errno_text());
    wait_ok(pid);
}

unsafe fn unshare_pid() {
    need_admin();
    in_child(|| {
        ok!(libc::unshare(libc::CLONE_NEWPID));
        let me = libc::getpid();
        let pid = fork(|| {
            eq!(libc::getpid(), 1);
            eq!(libc::getppid(), 0);
            let inner = fork(|| {
                eq!(libc::getppid(), 1);
                eq!(libc::getpid(), 2);
                // The outer world can't be named.
                err!(libc::ESRCH, libc::kill(me + 100_000, 0));
            });
            eq!(inner, 2);
            wait_ok(inner);
        });
        check!(pid > 2);
        wait_ok(pid);
        // Its init has ended: no more forks there.
        check!(libc::fork() == -1);
        eq!(errno(), libc::ENOMEM);
    });
}

unsafe fn pid_namespace_init_death() {
    need_admin();
    let (r, w) = pipe();
    in_child(|| {
        libc::close(r);
        ok!(libc::unshare(libc::CLONE_NEWPID));
        let init = fork(|| {
            fork(|| {
                loop {
                    libc::pause();
                }
            });
            // Signals without a handler do not reach init from inside.
            libc::kill(1, libc::SIGTERM);
            libc::kill(1, libc::SIGKILL);
            libc::_exit(33);
        });
        eq!(libc::WEXITSTATUS(util::wait(init)), 33);
    });
    libc::close(w);
    // Everybody in it was killed: the last write end is gone.
    eq!(read_some(r, 1), b"");
}

unsafe fn unshare_mount_private() {
    need_admin();
    ok!(libc::mkdir(c("m").as_ptr(), 0o755));
    in_child(|| {
        ok!(libc::unshare(libc::CLONE_NEWNS));
        ok!(libc::mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null()
        ));
        ok!(libc::mount(
            c"t".as_ptr(),
            c("m").as_ptr(),
            c"tmpfs".as_ptr(),
            0,
            std::ptr::null()
        ));
        write_file("m/inside", b"");
    });
    check!(libc::access(c("m/inside").as_ptr(), libc::F_OK) == -1);
}

unsafe fn unshare_ipc() {
    need_admin();
    let key = 0x1bc0_0000 | (libc::getpid() & 0xffff);
    let id = ok!(libc::semget(key, 1, libc::IPC_CREAT | 0o600));
    in_child(|| {
        ok!(libc::unshare(libc::CLONE_NEWIPC));
        err!(libc::ENOENT, libc::semget(key, 1, 0));
    });
    ok!(libc::semctl(id, 0, libc::IPC_RMID));
}

unsafe fn unshare_errors() {
    err!(libc::EINVAL, libc::unshare(0x7));
    in_child(|| {
        ok!(libc::setuid(1000));
        err!(libc::EPERM, libc::unshare(libc::CLONE_NEWNS));
        err!(libc::EPERM, libc::unshare(libc::CLONE_NEWUTS));
        err!(libc::EPERM, libc::unshare(libc::CLONE_NEWPID));
    });
    std::thread::spawn(|| sleep_ms(10_000));
    err!(libc::EINVAL, libc::unshare(libc::CLONE_NEWUSER));
    err!(libc::EINVAL, libc::unshare(libc::CLONE_THREAD));
}

unsafe fn setns_uts() {
    need_admin();
    let (r, w) = pipe();
    let (r2, w2) = pipe();
    let pid = fork(|| {
        ok!(libc::unshare(libc::CLONE_NEWUTS));
        ok!(libc::sethostname(c"target".as_ptr(), 6));
        write_all(w, b"r");
        libc::close(w2);
        read_some(r2, 1);
    });
    read_some(r, 1);
    in_child(|| {
        let fd = open(&format!("/proc/{pid}/ns/uts"), libc::O_RDONLY);
        err!(libc::EINVAL, libc::setns(fd, libc::CLONE_NEWNS));
        ok!(libc::setns(fd, libc::CLONE_NEWUTS));
        eq!(hostname(), "target");
    });
    in_child(|| {
        let pfd = ok!(sys!(libc::SYS_pidfd_open, pid, 0)) as i32;
        ok!(libc::setns(pfd, libc::CLONE_NEWUTS));
        eq!(hostname(), "target");
    });
    err!(libc::EBADF, libc::setns(99, 0));
    err!(libc::EINVAL, libc::setns(0, 0));
    libc::close(w2);
    wait_ok(pid);
}

unsafe fn proc_ns_links() {
    for (file, kind) in [
        ("mnt", "mnt"),
        ("pid", "pid"),
        ("uts", "uts"),
        ("ipc", "ipc"),
        ("user", "user"),
        ("net", "net"),
    ] {
        let link = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap_or_default();
        let link = link.to_string_lossy().into_owned();
        check!(
            link.starts_with(&format!("{kind}:[")) && link.ends_with(']'),
            "{link}"
        );
        let mine =
            std::fs::read_link(format!("/proc/{}/ns/{file}", libc::getppid())).unwrap_or_default();
        eq!(mine.to_string_lossy(), link);
    }
}

unsafe fn nested_user_limits() {
    need_userns();
    in_child(|| {
        // Nested ones work; 33 levels do not.
        for level in 0..40 {
            if libc::unshare(libc::CLONE_NEWUSER) == -1 {
                check!(level > 0);
                check!(
                    [libc::ENOSPC, libc::EUSERS, libc::EPERM].contains(&errno()),
                    "{}",
                    errno_text()
                );
                return;
            }
        }
        check!(false, "no limit on nesting");
    });
}

unsafe fn unshare_net_loopback() {
    need_admin();
    in_child(|| {
        if libc::unshare(libc::CLONE_NEWNET) == -1 {
            check!([libc::EPERM, libc::EINVAL, libc::ENOSYS].contains(&errno()));
            return;
        }
        // A fresh loopback is down.
        let s = ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        let mut a: libc::sockaddr_in = std::mem::zeroed();
        a.sin_family = libc::AF_INET as u16;
        a.sin_port = 9u16.to_be();
        a.sin_addr.s_addr = u32::from_be_bytes([127, 0, 0, 1]).to_be();
        check!(libc::connect(s, (&a as *const libc::sockaddr_in).cast(), 16) == -1);
        check!([libc::ENETUNREACH, libc::ECONNREFUSED].contains(&errno()));
    });
}

/// A socket that listens on a loopback port of its namespace; the port.
unsafe fn loopback_listener() -> (i32, libc::sockaddr_in) {
    let s = ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    let mut a: libc::sockaddr_in = std::mem::zeroed();
    a.sin_family = libc::AF_INET as u16;
    a.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    ok!(libc::bind(s, (&raw const a).cast(), 16));
    ok!(libc::listen(s, 4));
    let mut len = 16;
    ok!(libc::getsockname(s, (&raw mut a).cast(), &mut len));
    (s, a)
}

unsafe fn connect_to(a: &libc::sockaddr_in) -> i32 {
    let s = ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    let result = libc::connect(s, std::ptr::from_ref(a).cast(), 16);
    let error = if result == 0 { 0 } else { errno() };
    libc::close(s);
    error
}

unsafe fn network_namespaces_are_apart() {
    need_admin();
    in_child(|| {
        let link = || std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
        let (_listener, address) = loopback_listener();
        let (old, old_link) = (open("/proc/self/ns/net", libc::O_RDONLY), link());
        ok!(libc::unshare(libc::CLONE_NEWNET));
        check!(link() != old_link);
        // The loopback interface is brought up, if it is not.
        let any = ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        ok!(libc::ioctl(any, libc::SIOCSIFFLAGS, &request));
        eq!(connect_to(&address), libc::ECONNREFUSED);
        let tables = read_text("/proc/self/net/tcp");
        eq!(tables.lines().count(), 1);
        // Ports are free again.
        let s = ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
        ok!(libc::bind(s, (&raw const address).cast(), 16));
        ok!(libc::setns(old, libc::CLONE_NEWNET));
        eq!(link(), old_link);
        eq!(connect_to(&address), 0);
        // A socket stays in the namespace it was made in.
        ok!(libc::listen(s, 1));
        eq!(connect_to(&address), 0);
    });
}
