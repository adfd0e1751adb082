//! Credentials, capabilities, namespaces, resource limits:
//! credentials(7), capabilities(7), namespaces(7), getrlimit(2), prctl(2).

use crate::util::{self, *};

cases![
    ids_as_root,
    setuid_family,
    setresuid_rules,
    setreuid_saved_id,
    setgroups_rules,
    groups_kept_and_limit,
    status_ids,
    capget_capset,
    caps_dropped_on_setuid,
    keepcaps,
    securebits_noroot,
    bounding_set,
    ambient_set,
    no_new_privs_inherited,
    exec_gains_caps_for_root,
    threads_have_own_ids,
    rlimit_get_set,
    rlimit_rules,
    rlimit_inherited_and_prlimit,
    rlimit_nproc,
    rlimit_cpu_signal,
    rlimit_proc_file,
    prctl_name,
    prctl_dumpable,
    prctl_errors,
    prctl_tid_and_timing,
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
    personality_call,
    ioprio_calls,
    sethostname_rules,
];

unsafe fn uids() -> (u32, u32, u32) {
    let (mut r, mut e, mut s) = (0, 0, 0);
    ok!(libc::getresuid(&mut r, &mut e, &mut s));
    (r, e, s)
}

unsafe fn setresuid(r: i64, e: i64, s: i64) -> i32 {
    libc::setresuid(r as u32, e as u32, s as u32)
}

unsafe fn ids_as_root() {
    eq!(uids(), (0, 0, 0));
    eq!(
        (
            libc::getuid(),
            libc::geteuid(),
            libc::getgid(),
            libc::getegid()
        ),
        (0, 0, 0, 0)
    );
    let (mut r, mut e, mut s) = (9, 9, 9);
    ok!(libc::getresgid(&mut r, &mut e, &mut s));
    eq!((r, e, s), (0, 0, 0));
    eq!(libc::getauxval(libc::AT_EUID), 0);
}

unsafe fn setuid_family() {
    in_child(|| {
        ok!(libc::setgid(2000));
        ok!(libc::setuid(1000));
        eq!(uids(), (1000, 1000, 1000));
        eq!((libc::getgid(), libc::getegid()), (2000, 2000));
        err!(libc::EPERM, libc::setuid(0));
        err!(libc::EPERM, libc::setuid(1001));
        err!(libc::EPERM, libc::setgid(0));
        ok!(libc::setuid(1000));
        err!(libc::EPERM, libc::setgroups(0, std::ptr::null()));
    });
    in_child(|| {
        ok!(libc::seteuid(1000));
        eq!(uids(), (0, 1000, 0));
        ok!(libc::seteuid(0));
        eq!(uids(), (0, 0, 0));
    });
    err!(libc::EINVAL, libc::setuid(u32::MAX));
}

unsafe fn setresuid_rules() {
    in_child(|| {
        ok!(setresuid(1, 2, 3));
        eq!(uids(), (1, 2, 3));
        ok!(setresuid(-1, 3, 1));
        eq!(uids(), (1, 3, 1));
        err!(libc::EPERM, setresuid(-1, 2, -1));
        err!(libc::EPERM, setresuid(4, -1, -1));
        ok!(setresuid(-1, -1, -1));
    });
}

unsafe fn setreuid_saved_id() {
    in_child(|| {
        ok!(libc::setreuid(1000, 2000));
        // The saved id follows the effective one.
        eq!(uids(), (1000, 2000, 2000));
        ok!(libc::setreuid(2000, 1000));
        eq!(uids(), (2000, 1000, 1000));
    });
}

unsafe fn setgroups_rules() {
    in_child(|| {
        let g = [5u32, 3, 9];
        ok!(libc::setgroups(3, g.as_ptr()));
        let mut out = [0u32; 10];
        eq!(ok!(libc::getgroups(10, out.as_mut_ptr())), 3);
        let mut got = out[..3].to_vec();
        got.sort_unstable();
        eq!(got, [3, 5, 9]);
        eq!(ok!(libc::getgroups(0, std::ptr::null_mut())), 3);
        err!(libc::EINVAL, libc::getgroups(2, out.as_mut_ptr()));
        err!(libc::EINVAL, libc::setgroups(65537, out.as_ptr()));
        ok!(libc::setgroups(0, std::ptr::null()));
        eq!(ok!(libc::getgroups(0, std::ptr::null_mut())), 0);
    });
}

unsafe fn groups_kept_and_limit() {
    in_child(|| {
        let many: Vec<u32> = (0..1000).collect();
        ok!(libc::setgroups(1000, many.as_ptr()));
        ok!(libc::setuid(1000));
        in_child(|| eq!(ok!(libc::getgroups(0, std::ptr::null_mut())), 1000));
        let line = util::read_text("/proc/self/status");
        check!(line.lines().any(|l| l.starts_with("Groups:\t0 1 2 ")));
    });
}

unsafe fn status_ids() {
    in_child(|| {
        ok!(libc::setresgid(5, 6, 7));
        ok!(setresuid(1, 2, 3));
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let text = util::read_text("/proc/self/status");
        check!(text.contains("\nUid:\t1\t2\t3\t2\n"), "{text}");
        check!(text.contains("\nGid:\t5\t6\t7\t6\n"), "{text}");
    });
}

/// Effective, permitted, inheritable.
unsafe fn capget() -> (u64, u64, u64) {
    let header = [0x2008_0522u32, 0];
    let mut d = [0u32; 6];
    ok!(sys!(libc::SYS_capget, header.as_ptr(), d.as_mut_ptr()));
    let j = |lo: u32, hi: u32| u64::from(lo) | u64::from(hi) << 32;
    (j(d[0], d[3]), j(d[1], d[4]), j(d[2], d[5]))
}

unsafe fn capset(e: u64, p: u64, i: u64) -> i64 {
    let header = [0x2008_0522u32, 0];
    let d = [
        e as u32,
        p as u32,
        i as u32,
        (e >> 32) as u32,
        (p >> 32) as u32,
        (i >> 32) as u32,
    ];
    sys!(libc::SYS_capset, header.as_ptr(), d.as_ptr())
}

unsafe fn capget_capset() {
    let (e, p, _) = capget();
    check!(e != 0 && e & !p == 0);
    in_child(|| {
        ok!(capset(1, 1, 0));
        eq!(capget(), (1, 1, 0));
        err!(libc::EPERM, capset(3, 3, 0));
        ok!(capset(0, 1, 0));
        ok!(capset(1, 1, 1));
        err!(libc::EPERM, capset(1, 1, 4));
        ok!(capset(0, 0, 0));
        err!(libc::EPERM, capset(1, 1, 0));
    });
    // Unknown version: the preferred one is written back.
    let mut header = [0x1234u32, 0];
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_capget,
            header.as_mut_ptr(),
            [0u32; 6].as_mut_ptr()
        )
    );
    eq!(header[0], 0x2008_0522);
    header = [0x2008_0522, -1i32 as u32];
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_capget,
            header.as_mut_ptr(),
            [0u32; 6].as_mut_ptr()
        )
    );
    let text = util::read_text("/proc/self/status");
    check!(text.contains(&format!("CapEff:\t{e:016x}")), "{text}");
    check!(text.contains(&format!("CapPrm:\t{p:016x}")));
}

unsafe fn caps_dropped_on_setuid() {
    in_child(|| {
        let (_, p, _) = capget();
        ok!(libc::seteuid(1000));
        // Effective caps go with the effective id, permitted ones stay.
        let (e2, p2, _) = capget();
        eq!((e2, p2), (0, p));
        ok!(libc::seteuid(0));
        eq!(capget().0, p);
        ok!(setresuid(1000, 1000, 1000));
        let (e3, p3, _) = capget();
        eq!((e3, p3), (0, 0));
    });
}

unsafe fn keepcaps() {
    in_child(|| {
        let (_, p, _) = capget();
        ok!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0));
        eq!(libc::prctl(libc::PR_GET_KEEPCAPS, 0, 0, 0, 0), 1);
        ok!(setresuid(1000, 1000, 1000));
        let (e, p2, _) = capget();
        eq!((e, p2), (0, p));
        ok!(capset(1, 1, 0));
        err!(libc::EPERM, libc::setgid(1000));
    });
}

unsafe fn securebits_noroot() {
    in_child(|| {
        eq!(libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0), 0);
        // NO_SETUID_FIXUP: ids change without a change of capabilities.
        ok!(libc::prctl(libc::PR_SET_SECUREBITS, 4, 0, 0, 0));
        let before = capget();
        ok!(setresuid(1000, 1000, 1000));
        eq!(capget(), before);
    });
}

unsafe fn bounding_set() {
    in_child(|| {
        eq!(libc::prctl(libc::PR_CAPBSET_READ, 0, 0, 0, 0), 1);
        err!(
            libc::EINVAL,
            libc::prctl(libc::PR_CAPBSET_READ, 99, 0, 0, 0)
        );
        ok!(libc::prctl(libc::PR_CAPBSET_DROP, 0, 0, 0, 0));
        eq!(libc::prctl(libc::PR_CAPBSET_READ, 0, 0, 0, 0), 0);
        // Dropped ones are not gained at exec.
        let out = crate::exec::run(&["/bin/grep", "CapEff", "/proc/self/status"]);
        let caps =
            u64::from_str_radix(out.trim().rsplit('\t').next().unwrap_or("0"), 16).unwrap_or(1);
        eq!(caps & 1, 0);
        check!(caps != 0);
        ok!(setresuid(1000, 1000, 1000));
        err!(libc::EPERM, libc::prctl(libc::PR_CAPBSET_DROP, 1, 0, 0, 0));
    });
}

unsafe fn ambient_set() {
    in_child(|| {
        let set = |op: i32, cap: u32| libc::prctl(libc::PR_CAP_AMBIENT, op, cap, 0, 0);
        err!(libc::EPERM, set(libc::PR_CAP_AMBIENT_RAISE, 7));
        let (e, p, _) = capget();
        ok!(capset(e, p, 1 << 7));
        ok!(set(libc::PR_CAP_AMBIENT_RAISE, 7));
        eq!(set(libc::PR_CAP_AMBIENT_IS_SET, 7), 1);
        ok!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0));
        ok!(libc::prctl(libc::PR_SET_SECUREBITS, 4 | 16, 0, 0, 0));
        ok!(setresuid(1000, 1000, 1000));
        // Ambient ones survive the exec of an ordinary file.
        let out = crate::exec::run(&["/bin/grep", "CapEff", "/proc/self/status"]);
        eq!(out.trim(), format!("CapEff:\t{:016x}", 1u64 << 7));
        ok!(set(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0));
        eq!(set(libc::PR_CAP_AMBIENT_IS_SET, 7), 0);
        err!(libc::EINVAL, set(99, 0));
    });
}

unsafe fn no_new_privs_inherited() {
    in_child(|| {
        eq!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
        err!(
            libc::EINVAL,
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)
        );
        err!(
            libc::EINVAL,
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0)
        );
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        in_child(|| eq!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1));
        let out = crate::exec::run(&["/bin/grep", "NoNewPrivs", "/proc/self/status"]);
        eq!(out, "NoNewPrivs:\t1\n");
    });
}

unsafe fn exec_gains_caps_for_root() {
    in_child(|| {
        let bounding = util::read_text("/proc/self/status");
        let bound = bounding
            .lines()
            .find_map(|l| l.strip_prefix("CapBnd:\t"))
            .unwrap_or("")
            .to_owned();
        ok!(capset(0, 0, 0));
        let out = crate::exec::run(&["/bin/grep", "CapEff", "/proc/self/status"]);
        eq!(out.trim(), format!("CapEff:\t{bound}"));
    });
}

unsafe fn threads_have_own_ids() {
    in_child(|| {
        // The raw call changes one thread only.
        let t = std::thread::spawn(|| {
            ok!(sys!(libc::SYS_setresuid, 1000, 1000, 1000));
            libc::geteuid()
        });
        eq!(t.join().unwrap_or(0), 1000);
        eq!(libc::geteuid(), 0);
    });
}

unsafe fn getrlimit(which: u32) -> (u64, u64) {
    let mut r: libc::rlimit = std::mem::zeroed();
    ok!(libc::getrlimit(which, &mut r));
    (r.rlim_cur, r.rlim_max)
}

unsafe fn setrlimit(which: u32, cur: u64, max: u64) -> i32 {
    let r = libc::rlimit {
        rlim_cur: cur,
        rlim_max: max,
    };
    libc::setrlimit(which, &r)
}

unsafe fn rlimit_get_set() {
    for which in 0..16 {
        let (cur, max) = getrlimit(which);
        check!(cur <= max);
        ok!(setrlimit(which, cur, max));
    }
    in_child(|| {
        ok!(setrlimit(libc::RLIMIT_NOFILE, 100, 200));
        eq!(getrlimit(libc::RLIMIT_NOFILE), (100, 200));
        ok!(setrlimit(libc::RLIMIT_NOFILE, 200, 200));
    });
}

unsafe fn rlimit_rules() {
    err!(libc::EINVAL, setrlimit(libc::RLIMIT_NOFILE, 2, 1));
    err!(libc::EINVAL, setrlimit(99, 1, 1));
    err!(
        libc::EFAULT,
        sys!(libc::SYS_setrlimit, libc::RLIMIT_NOFILE, 8)
    );
    in_child(|| {
        ok!(setrlimit(libc::RLIMIT_CORE, 0, 10));
        ok!(libc::setuid(1000));
        err!(libc::EPERM, setrlimit(libc::RLIMIT_CORE, 0, 20));
        ok!(setrlimit(libc::RLIMIT_CORE, 10, 10));
    });
}

unsafe fn rlimit_inherited_and_prlimit() {
    in_child(|| {
        ok!(setrlimit(libc::RLIMIT_STACK, 1 << 20, 2 << 20));
        in_child(|| eq!(getrlimit(libc::RLIMIT_STACK), (1 << 20, 2 << 20)));
        eq!(crate::exec::run(&["/bin/sh", "-c", "ulimit -s"]), "1024\n");
        let child = fork(|| {
            loop {
                libc::pause();
            }
        });
        let new = libc::rlimit {
            rlim_cur: 50,
            rlim_max: 60,
        };
        let mut old: libc::rlimit = std::mem::zeroed();
        ok!(libc::prlimit(child, libc::RLIMIT_NOFILE, &new, &mut old));
        ok!(libc::prlimit(
            child,
            libc::RLIMIT_NOFILE,
            std::ptr::null(),
            &mut old
        ));
        eq!((old.rlim_cur, old.rlim_max), (50, 60));
        err!(
            libc::ESRCH,
            libc::prlimit(0x3f_ffff, libc::RLIMIT_NOFILE, std::ptr::null(), &mut old)
        );
        libc::kill(child, libc::SIGKILL);
        util::wait(child);
    });
}

unsafe fn rlimit_nproc() {
    in_child(|| {
        ok!(setrlimit(libc::RLIMIT_NPROC, 3, 3));
        ok!(libc::setgid(61234));
        ok!(libc::setuid(61234));
        let mut kids = Vec::new();
        loop {
            let pid = libc::fork();
            if pid == 0 {
                loop {
                    libc::pause();
                }
            }
            if pid < 0 {
                eq!(errno(), libc::EAGAIN);
                break;
            }
            kids.push(pid);
            check!(kids.len() < 10);
        }
        eq!(kids.len(), 2);
        for k in kids {
            libc::kill(k, libc::SIGKILL);
            util::wait(k);
        }
    });
}

unsafe fn rlimit_cpu_signal() {
    let pid = fork(|| {
        let zero = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &zero);
        ok!(setrlimit(libc::RLIMIT_CPU, 1, 5));
        let mut x = 0u64;
        loop {
            x = std::hint::black_box(x + 1);
        }
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGXCPU);
}

unsafe fn rlimit_proc_file() {
    in_child(|| {
        ok!(setrlimit(libc::RLIMIT_NOFILE, 111, 222));
        let text = util::read_text("/proc/self/limits");
        let line = text
            .lines()
            .find(|l| l.starts_with("Max open files"))
            .unwrap_or("")
            .to_owned();
        eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["Max", "open", "files", "111", "222", "files"]
        );
        eq!(text.lines().count(), 17);
    });
}

unsafe fn prctl_name() {
    ok!(libc::prctl(
        libc::PR_SET_NAME,
        c"a-name-that-is-too-long".as_ptr(),
        0,
        0,
        0
    ));
    let mut name = [0u8; 16];
    ok!(libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0));
    eq!(&name, b"a-name-that-is-\0");
    eq!(util::read_text("/proc/self/comm"), "a-name-that-is-\n");
    std::fs::write("/proc/self/comm", "other\n").ok();
    ok!(libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0));
    check!(name.starts_with(b"other"));
    err!(libc::EFAULT, libc::prctl(libc::PR_SET_NAME, 8, 0, 0, 0));
    in_child(|| {
        let mut name = [0u8; 16];
        ok!(libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0));
        check!(name.starts_with(b"other"));
    });
}

unsafe fn prctl_dumpable() {
    eq!(libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
    in_child(|| {
        ok!(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0));
        eq!(libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
        err!(libc::EINVAL, libc::prctl(libc::PR_SET_DUMPABLE, 2, 0, 0, 0));
    });
    in_child(|| {
        ok!(libc::setuid(1000));
        eq!(libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
    });
}

unsafe fn prctl_errors() {
    err!(libc::EINVAL, libc::prctl(0x7fff_0000, 0, 0, 0, 0));
    err!(libc::EINVAL, libc::prctl(libc::PR_SET_TIMING, 9, 0, 0, 0));
    err!(
        libc::EFAULT,
        libc::prctl(libc::PR_GET_PDEATHSIG, 8, 0, 0, 0)
    );
}

unsafe fn prctl_tid_and_timing() {
    eq!(libc::prctl(libc::PR_GET_TIMING, 0, 0, 0, 0), 0);
    check!(libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) >= 0);
    ok!(libc::prctl(libc::PR_SET_TIMERSLACK, 100_000, 0, 0, 0));
    eq!(libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0), 100_000);
    eq!(sys!(libc::SYS_set_tid_address, 0), sys!(libc::SYS_gettid));
    eq!(libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0), 0);
}

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

unsafe fn personality_call() {
    eq!(ok!(libc::personality(0xffff_ffff)), 0);
    in_child(|| {
        eq!(ok!(libc::personality(libc::ADDR_NO_RANDOMIZE as u64)), 0);
        eq!(ok!(libc::personality(0xffff_ffff)), libc::ADDR_NO_RANDOMIZE);
        let a = crate::exec::run(&["/bin/grep", "stack", "/proc/self/maps"]);
        let b = crate::exec::run(&["/bin/grep", "stack", "/proc/self/maps"]);
        eq!(a, b);
    });
}

unsafe fn ioprio_calls() {
    let r = sys!(libc::SYS_ioprio_get, 1, 0);
    check!(r >= 0, "{}", errno_text());
    ok!(sys!(libc::SYS_ioprio_set, 1, 0, 2 << 13 | 4));
    eq!(sys!(libc::SYS_ioprio_get, 1, 0), 2 << 13 | 4);
    err!(libc::EINVAL, sys!(libc::SYS_ioprio_set, 1, 0, 6 << 13));
    err!(libc::EINVAL, sys!(libc::SYS_ioprio_get, 9, 0));
}
