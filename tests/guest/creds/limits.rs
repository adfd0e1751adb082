//! getrlimit(2), prlimit(2).

use crate::util::{self, *};

cases![
    rlimit_get_set,
    rlimit_rules,
    rlimit_inherited_and_prlimit,
    rlimit_nproc,
    rlimit_cpu_signal,
    rlimit_proc_file,
];

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
