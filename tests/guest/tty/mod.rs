//! Pseudo terminals and job control: pty(7), termios(3), ioctl_tty(2).

pub mod discipline;
pub mod jobs;
pub mod pty;

use crate::util::*;

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

unsafe fn raw(fd: i32, vmin: u8, vtime: u8) {
    set(fd, |t| {
        libc::cfmakeraw(t);
        t.c_cc[libc::VMIN] = vmin;
        t.c_cc[libc::VTIME] = vtime;
    });
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
