//! pty(7): masters and slaves, ioctl_tty(2).

use super::*;
use crate::util::*;

cases![
    window_size_signal,
    tcflush_and_fionread,
    packet_mode,
    exclusive_mode,
    poll_states,
    isatty_and_ttyname,
    flow_control_stop_start,
    big_output_through_pty,
    locked_slave,
    many_ptys,
];

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
