//! Job control, sessions, hangup.

use super::*;
use crate::util::{self, *};

cases![
    isig_keys,
    isig_foreground_only,
    controlling_terminal,
    tiocsctty_rules,
    tiocnotty_and_dev_tty,
    foreground_group,
    sigttin_background_read,
    sigttou_background_write,
    orphaned_background_read_eio,
    hangup_on_master_close,
    master_read_after_slave_close,
    session_leader_exit_hangs_up,
    shell_job_control,
    suspend_key_stops_job,
];

unsafe fn isig_keys() {
    for (key, signo) in [(3u8, libc::SIGINT), (28, libc::SIGQUIT)] {
        let (m, s) = pty();
        let (r, w) = ready_pipe();
        let pid = session(s, || {
            let zero = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &zero);
            write_all(w, b"r");
            loop {
                libc::pause();
            }
        });
        read_some(r, 1);
        write_all(m, &[key]);
        eq!(libc::WTERMSIG(util::wait(pid)), signo);
    }
    // Without ISIG they are bytes.
    let (m, s) = pty();
    set(s, |t| {
        t.c_lflag &= !(libc::ISIG | libc::ICANON | libc::ECHO)
    });
    write_all(m, b"\x03");
    eq!(read_some(s, 5), b"\x03");
}

unsafe fn isig_foreground_only() {
    let (m, s) = pty();
    let (r, w) = ready_pipe();
    let leader = session(s, || {
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        let fg = fork(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::setpgid(0, 0);
            ok!(libc::tcsetpgrp(s, libc::getpid()));
            write_all(w, b"r");
            loop {
                libc::pause();
            }
        });
        let bg = fork(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::setpgid(0, 0);
            write_all(w, b"r");
            loop {
                libc::pause();
            }
        });
        eq!(libc::WTERMSIG(util::wait(fg)), libc::SIGINT);
        eq!(libc::waitpid(bg, std::ptr::null_mut(), libc::WNOHANG), 0);
        libc::kill(bg, libc::SIGKILL);
        util::wait(bg);
    });
    read_full(r, 2);
    write_all(m, b"\x03");
    wait_ok(leader);
}

unsafe fn controlling_terminal() {
    let (m, s) = pty();
    let name = slave_name(m);
    let pid = fork(|| {
        ok!(libc::setsid());
        err!(libc::ENXIO, libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR));
        // Opening a terminal without O_NOCTTY makes it the controlling one.
        let t = open(&name, libc::O_RDWR);
        let tty = open("/dev/tty", libc::O_RDWR);
        eq!(ok!(libc::tcgetsid(t)), libc::getpid());
        eq!(ok!(libc::tcgetpgrp(tty)), libc::getpid());
        write_all(tty, b"via tty");
    });
    wait_ok(pid);
    eq!(drain(m), "via tty");
    let _ = s;
}

unsafe fn tiocsctty_rules() {
    let (_m, s) = pty();
    // Not a session leader.
    in_child(|| {
        let pid = fork(|| {
            ok!(libc::setsid());
            in_child(|| err!(libc::EPERM, libc::ioctl(s, libc::TIOCSCTTY, 0)));
            ok!(libc::ioctl(s, libc::TIOCSCTTY, 0));
            // Again is fine; a second terminal is not.
            ok!(libc::ioctl(s, libc::TIOCSCTTY, 0));
            let (_m2, s2) = pty();
            err!(libc::EPERM, libc::ioctl(s2, libc::TIOCSCTTY, 0));
            // Another session can't take it.
            let thief = fork(|| {
                ok!(libc::setsid());
                ok!(libc::setresuid(1000, 1000, 1000));
                err!(libc::EPERM, libc::ioctl(s, libc::TIOCSCTTY, 1));
            });
            wait_ok(thief);
        });
        wait_ok(pid);
    });
}

unsafe fn tiocnotty_and_dev_tty() {
    let (_m, s) = pty();
    let pid = session(s, || {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGCONT, libc::SIG_IGN);
        let tty = open("/dev/tty", libc::O_RDWR);
        ok!(libc::ioctl(tty, libc::TIOCNOTTY));
        err!(libc::ENXIO, libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR));
        err!(libc::ENOTTY, libc::ioctl(s, libc::TIOCNOTTY));
    });
    wait_ok(pid);
}

unsafe fn foreground_group() {
    let (m, s) = pty();
    let pid = session(s, || {
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        let child = fork(|| {
            loop {
                libc::pause();
            }
        });
        ok!(libc::setpgid(child, child));
        ok!(libc::tcsetpgrp(s, child));
        eq!(ok!(libc::tcgetpgrp(s)), child);
        err!(libc::ESRCH, libc::tcsetpgrp(s, 1 << 21));
        err!(
            libc::EPERM,
            libc::tcsetpgrp(s, libc::getpgid(libc::getppid()))
        );
        err!(libc::EINVAL, libc::tcsetpgrp(s, -5));
        ok!(libc::tcsetpgrp(s, libc::getpgrp()));
        libc::kill(child, libc::SIGKILL);
        util::wait(child);
    });
    wait_ok(pid);
    // Not our controlling terminal.
    err!(libc::ENOTTY, libc::tcgetpgrp(s));
    err!(libc::ENOTTY, libc::tcsetpgrp(s, libc::getpgrp()));
    let _ = m;
}

unsafe fn sigttin_background_read() {
    let (m, s) = pty();
    no_echo(s);
    let pid = session(s, || {
        let bg = fork(|| {
            ok!(libc::setpgid(0, 0));
            eq!(read_some(s, 10), b"now\n");
        });
        let mut st = 0;
        ok!(libc::waitpid(bg, &mut st, libc::WUNTRACED));
        check!(libc::WIFSTOPPED(st));
        eq!(libc::WSTOPSIG(st), libc::SIGTTIN);
        ok!(libc::tcsetpgrp(s, bg));
        libc::kill(bg, libc::SIGCONT);
        wait_ok(bg);
        libc::signal(libc::SIGTTIN, libc::SIG_IGN);
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        // Ignored: EIO instead.
        in_child(|| {
            ok!(libc::setpgid(0, 0));
            err!(libc::EIO, libc::read(s, [0u8; 1].as_mut_ptr().cast(), 1));
        });
    });
    write_all(m, b"now\n");
    wait_ok(pid);
}

unsafe fn sigttou_background_write() {
    let (m, s) = pty();
    let pid = session(s, || {
        // Writing is allowed unless TOSTOP is set.
        in_child(|| {
            ok!(libc::setpgid(0, 0));
            write_all(s, b"ok");
        });
        set(s, |t| t.c_lflag |= libc::TOSTOP);
        let bg = fork(|| {
            ok!(libc::setpgid(0, 0));
            write_all(s, b"late");
        });
        let mut st = 0;
        ok!(libc::waitpid(bg, &mut st, libc::WUNTRACED));
        check!(libc::WIFSTOPPED(st));
        eq!(libc::WSTOPSIG(st), libc::SIGTTOU);
        set(s, |t| t.c_lflag &= !libc::TOSTOP);
        libc::kill(bg, libc::SIGCONT);
        wait_ok(bg);
        // Changing settings from the background stops in any case.
        let bg = fork(|| {
            ok!(libc::setpgid(0, 0));
            no_echo(s);
        });
        ok!(libc::waitpid(bg, &mut st, libc::WUNTRACED));
        eq!(libc::WSTOPSIG(st), libc::SIGTTOU);
        libc::kill(bg, libc::SIGKILL);
        util::wait(bg);
    });
    wait_ok(pid);
    eq!(drain(m), "oklate");
}

unsafe fn orphaned_background_read_eio() {
    let (_m, s) = pty();
    let (r, w) = pipe();
    let pid = session(s, || {
        // The middle process ends: nobody in the session can continue the
        // reader's group any more.
        in_child(|| {
            let middle = libc::getpid();
            fork(|| {
                ok!(libc::setpgid(0, 0));
                check!(eventually(|| libc::getppid() != middle));
                libc::read(s, [0u8; 1].as_mut_ptr().cast(), 1);
                write_all(w, &errno().to_ne_bytes());
            });
        });
        eq!(read_full(r, 4), libc::EIO.to_ne_bytes());
    });
    wait_ok(pid);
}

unsafe fn hangup_on_master_close() {
    let (m, s) = pty();
    let (r, w) = ready_pipe();
    let pid = session(s, || {
        libc::close(m);
        write_all(w, b"r");
        loop {
            libc::pause();
        }
    });
    read_some(r, 1);
    libc::close(m);
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGHUP);
    // The slave is dead now.
    eq!(read_some(s, 5), b"");
    err!(libc::EIO, libc::write(s, b"x".as_ptr().cast(), 1));
    check!(poll_one(s, libc::POLLIN, 0) & libc::POLLHUP != 0);
}

unsafe fn master_read_after_slave_close() {
    let (m, s) = pty();
    write_all(s, b"bye");
    libc::close(s);
    eq!(read_some(m, 10), b"bye");
    err!(libc::EIO, libc::read(m, [0u8; 1].as_mut_ptr().cast(), 1));
    check!(poll_one(m, libc::POLLIN, 0) & libc::POLLHUP != 0);
    // Opened again, it lives again.
    let s = open(&slave_name(m), libc::O_RDWR | libc::O_NOCTTY);
    write_all(s, b"again");
    eq!(read_some(m, 10), b"again");
}

unsafe fn session_leader_exit_hangs_up() {
    let (m, s) = pty();
    let (r, w) = pipe();
    let pid = session(s, || {
        fork(|| {
            // The foreground group gets SIGHUP when the leader ends.
            block(&[libc::SIGHUP]);
            write_all(w, b"r");
            let ts = libc::timespec {
                tv_sec: 5,
                tv_nsec: 0,
            };
            let got = libc::sigtimedwait(&sigset(&[libc::SIGHUP]), std::ptr::null_mut(), &ts);
            err!(libc::ENXIO, libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR));
            write_all(w, &[got as u8]);
        });
        read_some(r, 1);
    });
    wait_ok(pid);
    eq!(read_some(r, 1), [libc::SIGHUP as u8]);
    let _ = m;
}

/// An interactive shell on the slave.
unsafe fn shell(m: i32, s: i32) -> i32 {
    session(s, || {
        for fd in 0..3 {
            libc::dup2(s, fd);
        }
        libc::close(m);
        libc::close(s);
        let argv = [
            c"bash".as_ptr(),
            c"--norc".as_ptr(),
            c"--noediting".as_ptr(),
            c"-i".as_ptr(),
            std::ptr::null(),
        ];
        let env = [
            c"PS1=$ ".as_ptr(),
            c"PATH=/usr/bin:/bin".as_ptr(),
            c"TERM=dumb".as_ptr(),
            std::ptr::null(),
        ];
        libc::execve(c"/bin/bash".as_ptr(), argv.as_ptr(), env.as_ptr());
        libc::_exit(9);
    })
}

/// Types a line and waits for an answer that holds `expected`.
unsafe fn type_line(m: i32, line: &str, expected: &str) {
    write_all(m, line.as_bytes());
    if expected.is_empty() {
        return;
    }
    let mut all = String::new();
    let end = now_ms() + 8000;
    while now_ms() < end {
        if poll_one(m, libc::POLLIN, 100) & libc::POLLIN != 0 {
            all.push_str(&String::from_utf8_lossy(&read_some(m, 4096)));
            if all.contains(expected) {
                return;
            }
        }
    }
    check!(false, "{line:?} gave {all:?}, not {expected:?}");
}

unsafe fn shell_job_control() {
    let (m, s) = pty();
    no_echo(s);
    let pid = shell(m, s);
    type_line(m, "", "$ ");
    type_line(m, "echo $((6*7))\n", "42");
    type_line(m, "sleep 100\n", "");
    sleep_ms(150);
    type_line(m, "\x1a", "Stopped");
    type_line(m, "jobs\n", "sleep 100");
    type_line(m, "bg\n", "sleep 100 &");
    type_line(m, "kill %1; wait; echo done=$?\n", "done=");
    type_line(m, "sleep 100\n", "");
    sleep_ms(150);
    type_line(m, "\x03", "$ ");
    type_line(m, "echo code=$?\n", "code=130");
    write_all(m, b"exit 7\n");
    eq!(libc::WEXITSTATUS(util::wait(pid)), 7);
}

unsafe fn suspend_key_stops_job() {
    let (m, s) = pty();
    let (r, w) = ready_pipe();
    let leader = session(s, || {
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
        let job = fork(|| {
            libc::setpgid(0, 0);
            ok!(libc::tcsetpgrp(s, libc::getpid()));
            write_all(w, b"r");
            loop {
                libc::pause();
            }
        });
        let mut st = 0;
        ok!(libc::waitpid(job, &mut st, libc::WUNTRACED));
        check!(libc::WIFSTOPPED(st));
        eq!(libc::WSTOPSIG(st), libc::SIGTSTP);
        libc::kill(job, libc::SIGKILL);
        util::wait(job);
    });
    read_some(r, 1);
    write_all(m, b"\x1a");
    wait_ok(leader);
}
