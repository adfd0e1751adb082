//! Pseudo terminals and job control: pty(7), termios(3), ioctl_tty(2).

use crate::util::{self, *};

cases![
    pty_open_and_name,
    canonical_line_editing,
    canonical_eof,
    canonical_partial_read,
    raw_mode_vmin_vtime,
    echo_modes,
    crlf_translation,
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
    window_size_signal,
    tcflush_and_fionread,
    tcsets_roundtrip,
    packet_mode,
    exclusive_mode,
    poll_states,
    session_leader_exit_hangs_up,
    shell_job_control,
    isatty_and_ttyname,
    flow_control_stop_start,
    big_output_through_pty,
    locked_slave,
    suspend_key_stops_job,
    many_ptys,
];

/// Master and slave descriptors of a new pseudo terminal.
unsafe fn pty() -> (i32, i32) {
    let m = ok!(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY));
    ok!(libc::grantpt(m));
    ok!(libc::unlockpt(m));
    let s = open(&slave_name(m), libc::O_RDWR | libc::O_NOCTTY);
    (m, s)
}

unsafe fn slave_name(m: i32) -> String {
    let mut n = 0u32;
    ok!(libc::ioctl(m, libc::TIOCGPTN, &mut n));
    format!("/dev/pts/{n}")
}

unsafe fn termios(fd: i32) -> libc::termios {
    let mut t: libc::termios = std::mem::zeroed();
    ok!(libc::tcgetattr(fd, &mut t));
    t
}

unsafe fn set(fd: i32, f: impl FnOnce(&mut libc::termios)) {
    let mut t = termios(fd);
    f(&mut t);
    ok!(libc::tcsetattr(fd, libc::TCSANOW, &t));
}

unsafe fn no_echo(fd: i32) {
    set(fd, |t| t.c_lflag &= !libc::ECHO);
}

/// What arrives within a short while.
unsafe fn drain(fd: i32) -> String {
    let mut all = Vec::new();
    while poll_one(fd, libc::POLLIN, if all.is_empty() { 2000 } else { 50 }) & libc::POLLIN != 0 {
        let part = read_some(fd, 4096);
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    String::from_utf8_lossy(&all).into_owned()
}

unsafe fn idle(fd: i32) -> bool {
    poll_one(fd, libc::POLLIN, 30) & libc::POLLIN == 0
}

unsafe fn pty_open_and_name() {
    let (m, s) = pty();
    check!(libc::isatty(m) == 1 && libc::isatty(s) == 1);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(s, &mut st));
    eq!(st.st_mode & libc::S_IFMT, libc::S_IFCHR);
    eq!(libc::major(st.st_rdev), 136);
    let mut name = [0 as libc::c_char; 64];
    eq!(libc::ptsname_r(m, name.as_mut_ptr(), 64), 0);
    eq!(
        std::ffi::CStr::from_ptr(name.as_ptr()).to_string_lossy(),
        slave_name(m)
    );
    write_all(s, b"out");
    eq!(drain(m), "out");
}

unsafe fn canonical_line_editing() {
    let (m, s) = pty();
    no_echo(s);
    write_all(m, b"hel");
    check!(idle(s));
    write_all(m, b"lo\n");
    eq!(read_some(s, 100), b"hello\n");
    // Erase, word erase, kill.
    write_all(m, b"abx\x7fc\n");
    eq!(read_some(s, 100), b"abc\n");
    write_all(m, b"one two\x17three\n");
    eq!(read_some(s, 100), b"one three\n");
    write_all(m, b"wrong\x15right\n");
    eq!(read_some(s, 100), b"right\n");
    // Literal next.
    write_all(m, b"a\x16\x03b\n");
    eq!(read_some(s, 100), b"a\x03b\n");
    // One line per read.
    write_all(m, b"1\n2\n");
    eq!(read_some(s, 100), b"1\n");
    eq!(read_some(s, 100), b"2\n");
}

unsafe fn canonical_eof() {
    let (m, s) = pty();
    no_echo(s);
    write_all(m, b"\x04");
    eq!(read_some(s, 100), b"");
    write_all(m, b"part\x04");
    eq!(read_some(s, 100), b"part");
    write_all(m, b"next\n");
    eq!(read_some(s, 100), b"next\n");
}

unsafe fn canonical_partial_read() {
    let (m, s) = pty();
    no_echo(s);
    write_all(m, b"abcdef\n");
    eq!(read_some(s, 3), b"abc");
    eq!(read_some(s, 100), b"def\n");
}

unsafe fn raw(fd: i32, vmin: u8, vtime: u8) {
    set(fd, |t| {
        libc::cfmakeraw(t);
        t.c_cc[libc::VMIN] = vmin;
        t.c_cc[libc::VTIME] = vtime;
    });
}

unsafe fn raw_mode_vmin_vtime() {
    let (m, s) = pty();
    raw(s, 1, 0);
    write_all(m, b"a\r\x03\x04");
    eq!(read_some(s, 100), b"a\r\x03\x04");
    raw(s, 0, 0);
    eq!(read_some(s, 100), b"");
    raw(s, 0, 1);
    let start = now_ms();
    eq!(read_some(s, 100), b"");
    check!((90..1500).contains(&(now_ms() - start)));
    raw(s, 3, 0);
    let pid = fork(|| {
        write_all(m, b"x");
        sleep_ms(20);
        write_all(m, b"yz");
    });
    eq!(read_some(s, 100), b"xyz");
    wait_ok(pid);
    ok!(libc::fcntl(s, libc::F_SETFL, libc::O_NONBLOCK));
    raw(s, 1, 0);
    err!(libc::EAGAIN, libc::read(s, [0u8; 1].as_mut_ptr().cast(), 1));
}

unsafe fn echo_modes() {
    let (m, s) = pty();
    write_all(m, b"ab\n");
    eq!(drain(m), "ab\r\n");
    read_some(s, 10);
    write_all(m, b"x\x7f");
    eq!(drain(m), "x\x08 \x08");
    // Control characters show as ^X.
    write_all(m, b"\x01");
    eq!(drain(m), "^A");
    no_echo(s);
    write_all(m, b"silent\n");
    check!(idle(m));
    set(s, |t| t.c_lflag |= libc::ECHONL);
    write_all(m, b"pw\n");
    eq!(drain(m), "\r\n");
}

unsafe fn crlf_translation() {
    let (m, s) = pty();
    no_echo(s);
    write_all(s, b"a\nb");
    eq!(drain(m), "a\r\nb");
    set(s, |t| t.c_oflag &= !libc::OPOST);
    write_all(s, b"a\nb");
    eq!(drain(m), "a\nb");
    // Carriage return from the keyboard ends the line.
    write_all(m, b"in\r");
    eq!(read_some(s, 10), b"in\n");
    set(s, |t| t.c_iflag |= libc::INLCR);
    set(s, |t| t.c_iflag &= !libc::ICRNL);
    write_all(m, b"q\rz\x04");
    eq!(read_some(s, 10), b"q\rz");
    set(s, |t| {
        t.c_oflag |= libc::OPOST | libc::OLCUC;
    });
    write_all(s, b"up");
    eq!(drain(m), "UP");
}

/// A child that leads a session with the pty's slave as its terminal.
unsafe fn session(s: i32, f: impl FnOnce()) -> i32 {
    fork(|| {
        ok!(libc::setsid());
        ok!(libc::ioctl(s, libc::TIOCSCTTY, 0));
        f();
    })
}

unsafe fn ready_pipe() -> (i32, i32) {
    pipe()
}

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

unsafe fn window_size_signal() {
    let (m, s) = pty();
    let (r, w) = ready_pipe();
    let pid = session(s, || {
        block(&[libc::SIGWINCH]);
        write_all(w, b"r");
        let ts = libc::timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        eq!(
            ok!(libc::sigtimedwait(
                &sigset(&[libc::SIGWINCH]),
                std::ptr::null_mut(),
                &ts
            )),
            libc::SIGWINCH
        );
        let mut ws: libc::winsize = std::mem::zeroed();
        ok!(libc::ioctl(s, libc::TIOCGWINSZ, &mut ws));
        eq!((ws.ws_row, ws.ws_col), (33, 101));
    });
    read_some(r, 1);
    let ws = libc::winsize {
        ws_row: 33,
        ws_col: 101,
        ws_xpixel: 5,
        ws_ypixel: 6,
    };
    ok!(libc::ioctl(m, libc::TIOCSWINSZ, &ws));
    wait_ok(pid);
    let mut back: libc::winsize = std::mem::zeroed();
    ok!(libc::ioctl(m, libc::TIOCGWINSZ, &mut back));
    eq!((back.ws_row, back.ws_col, back.ws_xpixel), (33, 101, 5));
}

unsafe fn tcflush_and_fionread() {
    let (m, s) = pty();
    no_echo(s);
    write_all(m, b"line\n");
    let mut n = 0i32;
    check!(eventually(|| {
        ok!(libc::ioctl(s, libc::FIONREAD, &mut n));
        n == 5
    }));
    ok!(libc::tcflush(s, libc::TCIFLUSH));
    check!(idle(s));
    write_all(s, b"out");
    ok!(libc::tcdrain(s));
    check!(eventually(|| {
        ok!(libc::ioctl(m, libc::FIONREAD, &mut n));
        n == 3
    }));
    ok!(libc::tcflush(m, libc::TCIOFLUSH));
}

unsafe fn tcsets_roundtrip() {
    let (m, s) = pty();
    let t = termios(s);
    check!(
        t.c_lflag & libc::ICANON != 0 && t.c_lflag & libc::ECHO != 0 && t.c_lflag & libc::ISIG != 0
    );
    check!(t.c_iflag & libc::ICRNL != 0 && t.c_oflag & libc::ONLCR != 0);
    eq!(
        (
            t.c_cc[libc::VINTR],
            t.c_cc[libc::VEOF],
            t.c_cc[libc::VERASE],
            t.c_cc[libc::VSUSP]
        ),
        (3, 4, 0x7f, 26)
    );
    set(s, |t| {
        t.c_cc[libc::VINTR] = 7;
        t.c_lflag &= !libc::ECHOE;
    });
    // Both ends share one setting.
    eq!(termios(m).c_cc[libc::VINTR], 7);
    let mut t = termios(s);
    ok!(libc::tcsetattr(s, libc::TCSAFLUSH, &t));
    t.c_cflag = (t.c_cflag & !libc::CBAUD) | libc::B9600;
    ok!(libc::tcsetattr(s, libc::TCSADRAIN, &t));
    eq!(termios(s).c_cflag & libc::CBAUD, libc::B9600);
    let mut t2 = [0u8; 44];
    ok!(libc::ioctl(s, libc::TCGETS2, t2.as_mut_ptr()));
}

unsafe fn packet_mode() {
    let (m, s) = pty();
    let on = 1i32;
    ok!(libc::ioctl(m, libc::TIOCPKT, &on));
    write_all(s, b"data");
    eq!(read_some(m, 100), b"\0data");
    ok!(libc::tcflush(s, libc::TCIFLUSH));
    let got = read_some(m, 100);
    eq!(got.len(), 1);
    check!(got[0] & 1 != 0); // TIOCPKT_FLUSHREAD
}

unsafe fn exclusive_mode() {
    let (m, s) = pty();
    ok!(libc::ioctl(s, libc::TIOCEXCL));
    in_child(|| {
        ok!(libc::chmod(c(&slave_name(m)).as_ptr(), 0o666));
        ok!(libc::setresuid(1000, 1000, 1000));
        err!(
            libc::EBUSY,
            libc::open(c(&slave_name(m)).as_ptr(), libc::O_RDWR | libc::O_NOCTTY)
        );
    });
    ok!(libc::ioctl(s, libc::TIOCNXCL));
}

unsafe fn poll_states() {
    let (m, s) = pty();
    no_echo(s);
    eq!(poll_one(s, libc::POLLIN | libc::POLLOUT, 0), libc::POLLOUT);
    write_all(m, b"x");
    // Canonical: readable only with a line.
    eq!(poll_one(s, libc::POLLIN, 30), 0);
    write_all(m, b"\n");
    eq!(poll_one(s, libc::POLLIN, 1000), libc::POLLIN);
    let pid = fork(|| {
        sleep_ms(20);
        write_all(s, b"y");
    });
    eq!(poll_one(m, libc::POLLIN, 3000), libc::POLLIN);
    wait_ok(pid);
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

unsafe fn isatty_and_ttyname() {
    let (m, s) = pty();
    let mut name = [0 as libc::c_char; 64];
    eq!(libc::ttyname_r(s, name.as_mut_ptr(), 64), 0);
    eq!(
        std::ffi::CStr::from_ptr(name.as_ptr()).to_string_lossy(),
        slave_name(m)
    );
    let (r, _w) = pipe();
    eq!(libc::isatty(r), 0);
    eq!(errno(), libc::ENOTTY);
    let link = std::fs::read_link(format!("/proc/self/fd/{s}")).unwrap_or_default();
    eq!(link.to_string_lossy(), slave_name(m));
}

unsafe fn flow_control_stop_start() {
    let (m, s) = pty();
    no_echo(s);
    ok!(libc::tcflow(s, libc::TCOOFF));
    let pid = fork(|| write_all(s, b"held"));
    check!(idle(m));
    ok!(libc::tcflow(s, libc::TCOON));
    eq!(drain(m), "held");
    wait_ok(pid);
}

unsafe fn big_output_through_pty() {
    let (m, s) = pty();
    raw(s, 1, 0);
    let pid = fork(|| {
        libc::close(m);
        write_all(s, &vec![b'z'; 300_000]);
    });
    libc::close(s);
    let mut n = 0;
    while n < 300_000 {
        n += read_some(m, 10_000).len();
    }
    eq!(n, 300_000);
    wait_ok(pid);
    err!(libc::EIO, libc::read(m, [0u8; 1].as_mut_ptr().cast(), 1));
}

unsafe fn locked_slave() {
    let m = ok!(libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY));
    err!(
        libc::EIO,
        libc::open(c(&slave_name(m)).as_ptr(), libc::O_RDWR | libc::O_NOCTTY)
    );
    ok!(libc::unlockpt(m));
    let s = ok!(libc::ioctl(
        m,
        libc::TIOCGPTPEER,
        libc::O_RDWR | libc::O_NOCTTY
    ));
    write_all(s, b"peer");
    eq!(drain(m), "peer");
}

unsafe fn many_ptys() {
    let pairs: Vec<(i32, i32)> = (0..20).map(|_| pty()).collect();
    for (i, (m, s)) in pairs.iter().enumerate() {
        write_all(*s, format!("{i}").as_bytes());
        eq!(drain(*m), format!("{i}"));
    }
    for (m, s) in pairs {
        libc::close(s);
        libc::close(m);
    }
}
