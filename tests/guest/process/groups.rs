//! setpgid(2), setsid(2), kill(2), priorities.

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use crate::util::{self, *};

cases![
    setpgid_rules,
    setpgid_after_exec,
    setsid_rules,
    killpg_reaches_group,
    kill_errors,
    tgkill_rules,
    pdeathsig,
    priority,
    orphaned_stopped_group_gets_hup,
];

unsafe fn setpgid_rules() {
    err!(libc::EINVAL, libc::setpgid(0, -1));
    err!(libc::ESRCH, libc::setpgid(0x3f_ffff, 0));
    err!(libc::ESRCH, libc::getpgid(0x3f_ffff));
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(w);
        read_some(r, 1);
    });
    ok!(libc::setpgid(pid, pid));
    eq!(libc::getpgid(pid), pid);
    // Join an existing group of the session; unknown groups are refused.
    let other = fork(|| {
        libc::close(w);
        ok!(libc::setpgid(0, pid));
        eq!(libc::getpgrp(), pid);
        err!(libc::EPERM, libc::setpgid(0, 0x3f_ffff));
        read_some(r, 1);
    });
    libc::close(w);
    wait_ok(other);
    wait_ok(pid);
    // A session leader can't move.
    in_child(|| {
        ok!(libc::setsid());
        err!(libc::EPERM, libc::setpgid(0, 0));
    });
    // A child in another session can't be moved.
    let (r, w) = pipe();
    let (r2, w2) = pipe();
    let pid = fork(|| {
        ok!(libc::setsid());
        write_all(w, b"x");
        libc::close(w2);
        read_some(r2, 1);
    });
    read_some(r, 1);
    err!(libc::EPERM, libc::setpgid(pid, pid));
    libc::close(w2);
    wait_ok(pid);
}

unsafe fn setpgid_after_exec() {
    let exe = crate::helpers::exe();
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let pid = fork(|| {
        let argv = [exe.as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(exe.as_ptr(), argv.as_ptr());
        libc::_exit(9);
    });
    libc::close(w);
    // End of file: the exec has happened.
    eq!(read_some(r, 1), b"");
    err!(libc::EACCES, libc::setpgid(pid, pid));
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn setsid_rules() {
    let my_sid = libc::getsid(0);
    in_child(|| {
        eq!(libc::getsid(0), my_sid);
        let sid = ok!(libc::setsid());
        eq!(sid, libc::getpid());
        eq!(libc::getpgrp(), sid);
        err!(libc::EPERM, libc::setsid());
    });
    in_child(|| {
        ok!(libc::setpgid(0, 0));
        err!(libc::EPERM, libc::setsid());
    });
    err!(libc::ESRCH, libc::getsid(0x3f_ffff));
}

unsafe fn killpg_reaches_group() {
    let (r, w) = pipe();
    let mut pids = Vec::new();
    let mut group = 0;
    for _ in 0..3 {
        let pid = fork(|| {
            libc::setpgid(0, group);
            write_all(w, b"x");
            loop {
                libc::pause();
            }
        });
        if group == 0 {
            group = pid;
        }
        libc::setpgid(pid, group);
        pids.push(pid);
    }
    read_full(r, 3);
    ok!(libc::killpg(group, libc::SIGTERM));
    for pid in pids {
        eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGTERM);
    }
    err!(libc::ESRCH, libc::killpg(group, 0));
    err!(libc::EINVAL, libc::killpg(libc::getpgrp(), 999));
}

unsafe fn kill_errors() {
    err!(libc::EINVAL, libc::kill(libc::getpid(), 65));
    err!(libc::EINVAL, libc::kill(libc::getpid(), -1));
    err!(libc::ESRCH, libc::kill(0x3f_ffff, libc::SIGTERM));
    err!(libc::ESRCH, libc::kill(i32::MIN, libc::SIGTERM));
    ok!(libc::kill(libc::getpid(), 0));
    ok!(libc::kill(0, 0));
}

unsafe fn tgkill_rules() {
    let pid = libc::getpid();
    err!(libc::EINVAL, sys!(libc::SYS_tgkill, pid, 0, 0));
    err!(libc::EINVAL, sys!(libc::SYS_tgkill, -1, pid, 0));
    err!(libc::ESRCH, sys!(libc::SYS_tgkill, 1 << 22, pid, 0));
    err!(libc::EINVAL, sys!(libc::SYS_tkill, -1, 0));
    ok!(sys!(libc::SYS_tkill, pid, 0));
    // A child's thread is not of our group.
    let child = fork(|| {
        loop {
            libc::pause();
        }
    });
    err!(libc::ESRCH, sys!(libc::SYS_tgkill, pid, child, 0));
    ok!(sys!(libc::SYS_tgkill, child, child, libc::SIGKILL));
    util::wait(child);
}

unsafe fn pdeathsig() {
    let (r, w) = pipe();
    let pid = fork(|| {
        fork(|| {
            ok!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0));
            let mut sig = 0;
            ok!(libc::prctl(
                libc::PR_GET_PDEATHSIG,
                &mut sig as *mut i32,
                0,
                0,
                0
            ));
            eq!(sig, libc::SIGKILL);
            write_all(w, b"r");
            loop {
                libc::pause();
            }
        });
        libc::close(w);
        read_some(r, 1);
    });
    libc::close(w);
    wait_ok(pid);
    // The grandchild held the last write end.
    eq!(read_some(r, 1), b"");
    err!(
        libc::EINVAL,
        libc::prctl(libc::PR_SET_PDEATHSIG, 999, 0, 0, 0)
    );
}

unsafe fn priority() {
    in_child(|| {
        set_errno(0);
        let start = libc::getpriority(libc::PRIO_PROCESS, 0);
        eq!(errno(), 0);
        ok!(libc::setpriority(libc::PRIO_PROCESS, 0, start + 5));
        eq!(
            libc::getpriority(libc::PRIO_PROCESS, 0),
            (start + 5).min(19)
        );
        // The raw call answers 20 - nice.
        eq!(
            sys!(libc::SYS_getpriority, libc::PRIO_PROCESS, 0),
            i64::from(20 - (start + 5).min(19))
        );
        ok!(libc::setpriority(libc::PRIO_PROCESS, 0, 100));
        eq!(libc::getpriority(libc::PRIO_PROCESS, 0), 19);
        in_child(|| eq!(libc::getpriority(libc::PRIO_PROCESS, 0), 19));
        err!(libc::EINVAL, libc::setpriority(7, 0, 0));
        err!(
            libc::ESRCH,
            libc::setpriority(libc::PRIO_PROCESS, 0x3f_ffff, 0)
        );
    });
}

unsafe fn orphaned_stopped_group_gets_hup() {
    let (r, w) = pipe();
    let hup = shared::<AtomicI32>();
    let pid = fork(|| {
        libc::setsid();
        let child = fork(|| {
            libc::setpgid(0, 0);
            write_all(w, b"x");
            loop {
                libc::pause();
            }
        });
        libc::setpgid(child, child);
        hup.store(child, SeqCst);
        read_some(r, 1);
        libc::kill(child, libc::SIGSTOP);
        let mut st = 0;
        libc::waitpid(child, &mut st, libc::WUNTRACED);
        check!(libc::WIFSTOPPED(st));
        // Our end orphans the stopped group: SIGHUP, then SIGCONT.
    });
    wait_ok(pid);
    let child = hup.load(SeqCst);
    libc::close(w);
    eq!(read_some(r, 1), b"");
    check!(eventually(|| {
        libc::kill(child, 0) == -1
            || std::fs::read_to_string(format!("/proc/{child}/stat"))
                .is_ok_and(|s| s.contains(") Z "))
    }));
}
