//! What an exec keeps and drops.

use super::*;
use crate::helpers::exe;
use crate::util::{self, *};

cases![
    cloexec_closes,
    dup_clears_cloexec,
    close_range_cloexec,
    handlers_reset_ignored_kept,
    mask_and_pending_kept,
    altstack_dropped,
    exec_from_thread,
    exec_kills_other_threads,
    vfork_exec,
    pid_kept,
    itimer_kept_posix_timer_dropped,
    umask_cwd_kept,
];

unsafe fn fds_after_exec() -> Vec<i32> {
    run(&[&me(), "print-fds"])
        .lines()
        .filter_map(|l| l.parse().ok())
        .collect()
}

unsafe fn cloexec_closes() {
    let keep = open("/dev/null", libc::O_RDONLY);
    let drop = open("/dev/null", libc::O_RDONLY | libc::O_CLOEXEC);
    let dup = ok!(libc::fcntl(keep, libc::F_DUPFD_CLOEXEC, 60));
    let dup3 = ok!(libc::dup3(keep, 70, libc::O_CLOEXEC));
    let set = ok!(libc::dup2(keep, 71));
    ok!(libc::fcntl(set, libc::F_SETFD, libc::FD_CLOEXEC));
    let fds = fds_after_exec();
    check!(fds.contains(&keep), "{fds:?}");
    for gone in [drop, dup, dup3, set] {
        check!(!fds.contains(&gone), "{gone} is still open: {fds:?}");
    }
    // Only the child's table changed.
    ok!(libc::fcntl(drop, libc::F_GETFD));
}

unsafe fn dup_clears_cloexec() {
    let fd = open("/dev/null", libc::O_RDONLY | libc::O_CLOEXEC);
    let d = ok!(libc::dup2(fd, 80));
    eq!(ok!(libc::fcntl(d, libc::F_GETFD)), 0);
    check!(fds_after_exec().contains(&80));
    err!(libc::EINVAL, libc::dup3(fd, fd, 0));
    eq!(ok!(libc::dup2(fd, fd)), fd);
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
}

unsafe fn close_range_cloexec() {
    for fd in 100..110 {
        ok!(libc::dup2(0, fd));
    }
    ok!(sys!(libc::SYS_close_range, 103, 105, 4));
    ok!(sys!(libc::SYS_close_range, 107, 107, 0));
    err!(libc::EBADF, libc::fcntl(107, libc::F_GETFD));
    err!(libc::EINVAL, sys!(libc::SYS_close_range, 5, 4, 0));
    err!(libc::EINVAL, sys!(libc::SYS_close_range, 5, 6, 1));
    let fds: Vec<i32> = fds_after_exec().into_iter().filter(|f| *f >= 100).collect();
    eq!(fds, [100, 101, 102, 106, 108, 109]);
    ok!(sys!(libc::SYS_close_range, 100, u32::MAX, 0));
    err!(libc::EBADF, libc::fcntl(109, libc::F_GETFD));
}

/// A mask line of the helper's signal report, without the bits that language
/// runtimes set themselves (SIGPIPE ignored; SIGSEGV, SIGBUS caught; 32 and 33
/// belong to the threads library).
fn mask(report: &str, key: &str) -> u64 {
    let line = report.lines().find(|l| l.starts_with(key)).unwrap_or("");
    let value =
        u64::from_str_radix(line.rsplit('\t').next().unwrap_or("").trim(), 16).unwrap_or(u64::MAX);
    value
        & !((3 << 31)
            | (1 << (libc::SIGPIPE - 1))
            | (1 << (libc::SIGSEGV - 1))
            | (1 << (libc::SIGBUS - 1)))
}

extern "C" fn ignore(_: i32) {}

unsafe fn handlers_reset_ignored_kept() {
    handle(libc::SIGUSR1, ignore as *const () as usize, 0);
    libc::signal(libc::SIGUSR2, libc::SIG_IGN);
    let report = run(&[&me(), "print-signals"]);
    eq!(mask(&report, "SigCgt"), 0);
    eq!(mask(&report, "SigIgn"), 1 << (libc::SIGUSR2 - 1));
}

unsafe fn mask_and_pending_kept() {
    let (out, st) = {
        let pid_out = std::cell::RefCell::new(String::new());
        let (r, w) = pipe();
        let path = exe();
        let pid = fork(|| {
            block(&[libc::SIGUSR1, libc::SIGTERM]);
            libc::raise(libc::SIGUSR1);
            libc::dup2(w, 1);
            let argv = [path.as_ptr(), c"print-signals".as_ptr(), std::ptr::null()];
            libc::execve(path.as_ptr(), argv.as_ptr(), argv[2..].as_ptr());
        });
        libc::close(w);
        pid_out
            .borrow_mut()
            .push_str(&String::from_utf8_lossy(&read_full(r, 100_000)));
        (pid_out.into_inner(), util::wait(pid))
    };
    eq!(st, 0);
    eq!(
        mask(&out, "SigBlk"),
        (1 << (libc::SIGUSR1 - 1)) | (1 << (libc::SIGTERM - 1))
    );
    let pending = mask(&out, "SigPnd") | mask(&out, "ShdPnd");
    eq!(pending, 1 << (libc::SIGUSR1 - 1));
}

unsafe fn altstack_dropped() {
    // sigaltstack state is not kept; the helper could not start otherwise
    // with an alternate stack that is not mapped any more.
    let p = anon(65536);
    let ss = libc::stack_t {
        ss_sp: p.cast(),
        ss_flags: 0,
        ss_size: 65536,
    };
    ok!(libc::sigaltstack(&ss, std::ptr::null_mut()));
    let (_, st) = run_env(&[&me(), "exit", "3"], &[]);
    eq!(libc::WEXITSTATUS(st), 3);
}

unsafe fn exec_from_thread() {
    let path = exe();
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::dup2(w, 1);
        let t = std::thread::spawn(move || {
            let argv = [
                path.as_ptr(),
                c"exit".as_ptr(),
                c"21".as_ptr(),
                std::ptr::null(),
            ];
            libc::execv(path.as_ptr(), argv.as_ptr());
            libc::_exit(9);
        });
        let _ = t.join();
        libc::_exit(8);
    });
    libc::close(w);
    // The image that replaced us answers with the thread group's pid.
    eq!(libc::WEXITSTATUS(util::wait(pid)), 21);
    let _ = r;
}

unsafe fn exec_kills_other_threads() {
    let path = exe();
    let (r, w) = pipe();
    let pid = fork(|| {
        for _ in 0..4 {
            std::thread::spawn(move || {
                loop {
                    sleep_ms(300);
                    write_all(w, b"alive");
                }
            });
        }
        sleep_ms(20);
        libc::fcntl(w, libc::F_SETFD, 0);
        let argv = [path.as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(path.as_ptr(), argv.as_ptr());
        libc::_exit(9);
    });
    sleep_ms(600);
    libc::kill(pid, libc::SIGKILL);
    libc::close(w);
    util::wait(pid);
    eq!(read_some(r, 100), b"");
}

unsafe fn vfork_exec() {
    // posix_spawn is CLONE_VM|CLONE_VFORK with an exec in the child.
    let path = exe();
    let mut pid = 0;
    let argv = [
        path.as_ptr() as *mut libc::c_char,
        c"exit".as_ptr() as *mut _,
        c"33".as_ptr() as *mut _,
        std::ptr::null_mut(),
    ];
    let env = [std::ptr::null_mut()];
    for _ in 0..10 {
        eq!(
            libc::posix_spawn(
                &mut pid,
                path.as_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                argv.as_ptr(),
                env.as_ptr()
            ),
            0
        );
        eq!(libc::WEXITSTATUS(util::wait(pid)), 33);
    }
    // The child's exec failure comes back as an error of posix_spawn.
    let r = libc::posix_spawn(
        &mut pid,
        c"/no/such".as_ptr(),
        std::ptr::null(),
        std::ptr::null(),
        argv.as_ptr(),
        env.as_ptr(),
    );
    eq!(r, libc::ENOENT);
}

unsafe fn pid_kept() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::dup2(w, 1);
        let argv = [
            c"sh".as_ptr(),
            c"-c".as_ptr(),
            c"echo $$".as_ptr(),
            std::ptr::null(),
        ];
        libc::execv(c"/bin/sh".as_ptr(), argv.as_ptr());
    });
    libc::close(w);
    let out = read_full(r, 100);
    wait_ok(pid);
    eq!(String::from_utf8_lossy(&out), format!("{pid}\n"));
}

unsafe fn itimer_kept_posix_timer_dropped() {
    let path = exe();
    let pid = fork(|| {
        let value = libc::itimerval {
            it_interval: libc::timeval {
                tv_sec: 0,
                tv_usec: 0,
            },
            it_value: libc::timeval {
                tv_sec: 0,
                tv_usec: 100_000,
            },
        };
        ok!(sys!(
            libc::SYS_setitimer,
            libc::ITIMER_REAL,
            &value as *const _,
            0
        ));
        let argv = [path.as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(path.as_ptr(), argv.as_ptr());
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGALRM);
    let pid = fork(|| {
        let mut id: i32 = 0;
        ok!(sys!(
            libc::SYS_timer_create,
            libc::CLOCK_MONOTONIC,
            0,
            &mut id as *mut i32
        ));
        let spec = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            },
        };
        ok!(sys!(libc::SYS_timer_settime, id, 0, &spec as *const _, 0));
        let argv = [c"sleep".as_ptr(), c"0.3".as_ptr(), std::ptr::null()];
        libc::execv(c"/bin/sleep".as_ptr(), argv.as_ptr());
    });
    eq!(util::wait(pid), 0);
}

unsafe fn umask_cwd_kept() {
    ok!(libc::mkdir(c("sub").as_ptr(), 0o755));
    ok!(libc::chdir(c("sub").as_ptr()));
    libc::umask(0o027);
    let out = run(&["/bin/sh", "-c", "umask; pwd"]);
    let mut lines = out.lines();
    eq!(lines.next(), Some("0027"));
    check!(lines.next().is_some_and(|l| l.ends_with("/sub")));
}
