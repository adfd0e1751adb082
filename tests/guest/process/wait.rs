//! fork, exit and wait: fork(2), wait4(2), waitid(2).

use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::util::{self, *};

cases![
    fork_copies_memory,
    fork_shares_file_offsets,
    exit_codes,
    exit_by_signal,
    wait_errors,
    wait_nohang,
    wait_rusage,
    wait_by_group,
    wait_stopped_and_continued,
    waitid_fields,
    waitid_nowait,
    waitid_errors,
    zombie_stays_until_waited,
    orphan_goes_to_subreaper,
    sigchld_ignored_reaps,
    no_cld_wait_reaps,
    exit_closes_files,
    rusage_children,
    threads_wait_for_own_children,
    wait_in_two_threads,
];

unsafe fn fork_copies_memory() {
    let mut local = 1;
    let p = anon(4096);
    *p = 1;
    let parent = libc::getpid();
    in_child(|| {
        local = 2;
        *p = 2;
        check!(libc::getpid() != parent);
        eq!(libc::getppid(), parent);
    });
    eq!(local, 1);
    eq!(*p, 1);
}

unsafe fn fork_shares_file_offsets() {
    write_file("f", b"0123456789");
    let fd = open("f", libc::O_RDONLY);
    in_child(|| eq!(read_some(fd, 4), b"0123"));
    eq!(read_some(fd, 4), b"4567");
}

unsafe fn exit_codes() {
    for (code, seen) in [
        (0, 0),
        (1, 1),
        (42, 42),
        (255, 255),
        (256, 0),
        (-1, 255),
        (0x1234, 0x34),
    ] {
        let pid = fork(|| libc::_exit(code));
        let status = util::wait(pid);
        check!(libc::WIFEXITED(status));
        eq!(libc::WEXITSTATUS(status), seen);
    }
}

unsafe fn exit_by_signal() {
    for signo in [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGALRM,
        libc::SIGPIPE,
        libc::SIGRTMIN(),
    ] {
        let pid = fork(|| {
            libc::kill(libc::getpid(), signo);
            libc::_exit(9);
        });
        let status = util::wait(pid);
        check!(
            libc::WIFSIGNALED(status),
            "status {status:#x} for signal {signo}"
        );
        eq!(libc::WTERMSIG(status), signo);
        check!(!libc::WCOREDUMP(status));
    }
    // With a core limit of zero, core signals do not report a dump either.
    let pid = fork(|| {
        let zero = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &zero);
        libc::abort();
    });
    let status = util::wait(pid);
    eq!(libc::WTERMSIG(status), libc::SIGABRT);
}

unsafe fn wait_errors() {
    let mut st = 0;
    err!(libc::ECHILD, libc::waitpid(-1, &mut st, 0));
    err!(libc::ECHILD, libc::waitpid(1 << 20, &mut st, 0));
    err!(libc::EINVAL, libc::waitpid(-1, &mut st, 0x1000));
    err!(libc::ESRCH, sys!(libc::SYS_wait4, i32::MIN, 0, 0, 0));
    // A bad status pointer is an error only after the child was reaped.
    let pid = fork(|| ());
    err!(libc::EFAULT, sys!(libc::SYS_wait4, pid, 8, 0, 0));
    err!(libc::ECHILD, libc::waitpid(pid, &mut st, 0));
}

unsafe fn wait_nohang() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(w);
        read_some(r, 1);
        libc::_exit(3);
    });
    let mut st = 0x7777;
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WNOHANG)), 0);
    eq!(st, 0x7777);
    libc::close(w);
    check!(eventually(
        || libc::waitpid(pid, &mut st, libc::WNOHANG) == pid
    ));
    eq!(libc::WEXITSTATUS(st), 3);
    err!(libc::ECHILD, libc::waitpid(pid, &mut st, libc::WNOHANG));
}

unsafe fn wait_rusage() {
    let pid = fork(|| {
        let end = now_ms() + 50;
        while now_ms() < end {}
    });
    let mut ru: libc::rusage = std::mem::zeroed();
    let mut st = 0;
    eq!(ok!(libc::wait4(pid, &mut st, 0, &mut ru)), pid);
    let us = ru.ru_utime.tv_sec * 1_000_000
        + ru.ru_utime.tv_usec
        + ru.ru_stime.tv_sec * 1_000_000
        + ru.ru_stime.tv_usec;
    check!(us > 5_000, "only {us} us of CPU time");
    check!(ru.ru_maxrss > 0);
    // What has been given back by the end counts, also of grandchildren.
    let pid = fork(|| {
        in_child(|| {
            let p = anon(64 << 20);
            for i in 0..16384 {
                *p.add(i * 4096) = 1;
            }
            libc::munmap(p.cast(), 64 << 20);
        });
    });
    eq!(ok!(libc::wait4(pid, &mut st, 0, &mut ru)), pid);
    check!(
        ru.ru_maxrss > 64 << 10 && ru.ru_maxrss < 128 << 10,
        "{} KiB",
        ru.ru_maxrss
    );
    ok!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut ru));
    check!(ru.ru_maxrss > 64 << 10, "{} KiB", ru.ru_maxrss);
    ok!(libc::getrusage(libc::RUSAGE_SELF, &mut ru));
    check!(
        ru.ru_maxrss > 0 && ru.ru_maxrss < 64 << 10,
        "{} KiB",
        ru.ru_maxrss
    );
}

unsafe fn wait_by_group() {
    let a = fork(|| {
        libc::setpgid(0, 0);
        libc::_exit(5);
    });
    libc::setpgid(a, a);
    let b = fork(|| libc::_exit(6));
    let mut st = 0;
    eq!(ok!(libc::waitpid(-a, &mut st, 0)), a);
    eq!(libc::WEXITSTATUS(st), 5);
    eq!(ok!(libc::waitpid(0, &mut st, 0)), b);
    eq!(libc::WEXITSTATUS(st), 6);
    err!(libc::ECHILD, libc::waitpid(0, &mut st, 0));
}

unsafe fn wait_stopped_and_continued() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let mut st = 0;
    libc::kill(pid, libc::SIGSTOP);
    // Without WUNTRACED a stop is not reported.
    wait_state(pid, "T");
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WNOHANG)), 0);
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED)), pid);
    check!(libc::WIFSTOPPED(st));
    eq!(libc::WSTOPSIG(st), libc::SIGSTOP);
    // Reported once.
    eq!(
        ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED | libc::WNOHANG)),
        0
    );
    libc::kill(pid, libc::SIGCONT);
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WCONTINUED)), pid);
    check!(libc::WIFCONTINUED(st));
    eq!(st, 0xffff);
    libc::kill(pid, libc::SIGTSTP);
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED)), pid);
    eq!(libc::WSTOPSIG(st), libc::SIGTSTP);
    libc::kill(pid, libc::SIGKILL);
    eq!(ok!(libc::waitpid(pid, &mut st, 0)), pid);
    eq!(libc::WTERMSIG(st), libc::SIGKILL);
}

unsafe fn waitid_fields() {
    let mut si: libc::siginfo_t = std::mem::zeroed();
    let pid = fork(|| libc::_exit(17));
    ok!(libc::waitid(
        libc::P_PID,
        pid as u32,
        &mut si,
        libc::WEXITED
    ));
    eq!(si.si_signo, libc::SIGCHLD);
    eq!(si.si_code, libc::CLD_EXITED);
    eq!(si.si_pid(), pid);
    eq!(si.si_uid(), libc::getuid());
    eq!(si.si_status(), 17);

    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    libc::kill(pid, libc::SIGSTOP);
    ok!(libc::waitid(libc::P_ALL, 0, &mut si, libc::WSTOPPED));
    eq!(
        (si.si_code, si.si_status(), si.si_pid()),
        (libc::CLD_STOPPED, libc::SIGSTOP, pid)
    );
    libc::kill(pid, libc::SIGCONT);
    ok!(libc::waitid(libc::P_ALL, 0, &mut si, libc::WCONTINUED));
    eq!(
        (si.si_code, si.si_status()),
        (libc::CLD_CONTINUED, libc::SIGCONT)
    );
    // Nothing new: success with si_pid 0.
    si.si_signo = 99;
    ok!(libc::waitid(
        libc::P_PID,
        pid as u32,
        &mut si,
        libc::WEXITED | libc::WNOHANG
    ));
    eq!((si.si_signo, si.si_pid()), (0, 0));
    libc::kill(pid, libc::SIGKILL);
    ok!(libc::waitid(
        libc::P_PGID,
        libc::getpgrp() as u32,
        &mut si,
        libc::WEXITED
    ));
    eq!(
        (si.si_code, si.si_status(), si.si_pid()),
        (libc::CLD_KILLED, libc::SIGKILL, pid)
    );
}

unsafe fn waitid_nowait() {
    let pid = fork(|| libc::_exit(4));
    let mut si: libc::siginfo_t = std::mem::zeroed();
    for _ in 0..3 {
        ok!(libc::waitid(
            libc::P_PID,
            pid as u32,
            &mut si,
            libc::WEXITED | libc::WNOWAIT
        ));
        eq!(si.si_status(), 4);
    }
    eq!(libc::WEXITSTATUS(util::wait(pid)), 4);
    err!(
        libc::ECHILD,
        libc::waitid(
            libc::P_PID,
            pid as u32,
            &mut si,
            libc::WEXITED | libc::WNOWAIT
        )
    );
}

unsafe fn waitid_errors() {
    let mut si: libc::siginfo_t = std::mem::zeroed();
    err!(libc::EINVAL, libc::waitid(libc::P_ALL, 0, &mut si, 0));
    err!(
        libc::EINVAL,
        libc::waitid(libc::P_ALL, 0, &mut si, libc::WNOHANG)
    );
    err!(libc::EINVAL, libc::waitid(9, 0, &mut si, libc::WEXITED));
    err!(
        libc::EINVAL,
        libc::waitid(libc::P_PID, 0, &mut si, libc::WEXITED)
    );
    err!(
        libc::EBADF,
        libc::waitid(libc::P_PIDFD, 99, &mut si, libc::WEXITED)
    );
    err!(
        libc::ECHILD,
        libc::waitid(libc::P_ALL, 0, &mut si, libc::WEXITED)
    );
    // The kernel's own interface also takes no siginfo at all.
    let pid = fork(|| ());
    eq!(
        sys!(libc::SYS_waitid, libc::P_PID, pid, 0, libc::WEXITED, 0),
        0
    );
}

unsafe fn zombie_stays_until_waited() {
    let pid = fork(|| ());
    wait_state(pid, "Z");
    ok!(libc::kill(pid, 0));
    ok!(libc::kill(pid, libc::SIGTERM));
    eq!(util::wait(pid), 0);
    err!(libc::ESRCH, libc::kill(pid, 0));
}

unsafe fn orphan_goes_to_subreaper() {
    ok!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    let mut flag = 0;
    ok!(libc::prctl(
        libc::PR_GET_CHILD_SUBREAPER,
        &mut flag as *mut i32,
        0,
        0,
        0
    ));
    eq!(flag, 1);
    let (r, w) = pipe();
    let me = libc::getpid();
    let pid = fork(|| {
        // The flag is not inherited.
        let mut flag = 7;
        ok!(libc::prctl(
            libc::PR_GET_CHILD_SUBREAPER,
            &mut flag as *mut i32,
            0,
            0,
            0
        ));
        eq!(flag, 0);
        fork(|| {
            check!(eventually(|| libc::getppid() == me));
            write_all(w, &libc::getpid().to_ne_bytes());
            libc::_exit(23);
        });
    });
    wait_ok(pid);
    let bytes = read_full(r, 4);
    let orphan = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut st = 0;
    eq!(ok!(libc::waitpid(-1, &mut st, 0)), orphan);
    eq!(libc::WEXITSTATUS(st), 23);
}

unsafe fn sigchld_ignored_reaps() {
    libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    let pid = fork(|| sleep_ms(20));
    let mut st = 0;
    // Blocks until the child has gone, then reports that there is none.
    err!(libc::ECHILD, libc::waitpid(-1, &mut st, 0));
    err!(libc::ESRCH, libc::kill(pid, 0));
}

unsafe fn no_cld_wait_reaps() {
    handle(
        libc::SIGCHLD,
        on_chld as *const () as usize,
        libc::SA_NOCLDWAIT,
    );
    let pid = fork(|| ());
    let mut st = 0;
    let r = libc::waitpid(pid, &mut st, 0);
    check!(r == -1 && (errno() == libc::ECHILD || errno() == libc::EINTR));
    check!(eventually(
        || libc::kill(pid, 0) == -1 && errno() == libc::ESRCH
    ));
    // Linux sends the signal all the same.
    eq!(CHLD.load(SeqCst), 1);
}

unsafe fn exit_closes_files() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(r);
        sleep_ms(20);
    });
    libc::close(w);
    // End of file arrives only when the child is gone.
    eq!(read_some(r, 1), b"");
    wait_ok(pid);
}

unsafe fn rusage_children() {
    let mut before: libc::rusage = std::mem::zeroed();
    ok!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut before));
    in_child(|| {
        let end = now_ms() + 60;
        while now_ms() < end {}
    });
    let mut after: libc::rusage = std::mem::zeroed();
    ok!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut after));
    let us = |r: &libc::rusage| {
        (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1_000_000
            + r.ru_utime.tv_usec
            + r.ru_stime.tv_usec
    };
    check!(us(&after) - us(&before) > 5_000);
    let mut t: libc::tms = std::mem::zeroed();
    check!(libc::times(&mut t) != -1);
    err!(libc::EINVAL, libc::getrusage(5, &mut after));
}

unsafe fn threads_wait_for_own_children() {
    let threads: Vec<_> = (0..4)
        .map(|i| {
            std::thread::spawn(move || unsafe {
                for _ in 0..10 {
                    let pid = fork(|| libc::_exit(i));
                    eq!(libc::WEXITSTATUS(util::wait(pid)), i);
                }
            })
        })
        .collect();
    for t in threads {
        check!(t.join().is_ok());
    }
}

unsafe fn wait_in_two_threads() {
    // Two waiters for any child get one each.
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(|| unsafe {
                let mut st = 0;
                // The other thread's fork may come later than our wait.
                eventually(|| {
                    libc::waitid(
                        libc::P_ALL,
                        0,
                        std::ptr::null_mut(),
                        libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
                    ) == 0
                });
                ok!(libc::wait(&mut st));
                libc::WEXITSTATUS(st)
            })
        })
        .collect();
    fork(|| {
        sleep_ms(30);
        libc::_exit(1);
    });
    fork(|| {
        sleep_ms(60);
        libc::_exit(2);
    });
    let mut codes: Vec<i32> = waiters
        .into_iter()
        .map(|w| w.join().unwrap_or(-1))
        .collect();
    codes.sort_unstable();
    eq!(codes, [1, 2]);
}
