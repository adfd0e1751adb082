//! The line discipline: termios(3).

use super::*;
use crate::util::*;

cases![
    pty_open_and_name,
    canonical_line_editing,
    canonical_eof,
    canonical_partial_read,
    raw_mode_vmin_vtime,
    echo_modes,
    crlf_translation,
    tcsets_roundtrip,
];

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
