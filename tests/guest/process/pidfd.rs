//! pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2).

use crate::util::{self, *};

cases![
    pidfd_poll_and_wait,
    pidfd_send_signal,
    pidfd_of_proc_directory,
    pidfd_getfd,
    pidfd_errors,
];

unsafe fn pidfd_open(pid: i32, flags: u32) -> i32 {
    sys!(libc::SYS_pidfd_open, pid, flags) as i32
}

unsafe fn pidfd_poll_and_wait() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(w);
        read_some(r, 1);
        libc::_exit(6);
    });
    let fd = ok!(pidfd_open(pid, 0));
    eq!(poll_one(fd, libc::POLLIN, 0), 0);
    libc::close(w);
    eq!(poll_one(fd, libc::POLLIN, 5000), libc::POLLIN);
    let mut si: libc::siginfo_t = std::mem::zeroed();
    ok!(libc::waitid(
        libc::P_PIDFD,
        fd as u32,
        &mut si,
        libc::WEXITED
    ));
    eq!(si.si_status(), 6);
    err!(
        libc::ECHILD,
        libc::waitid(libc::P_PIDFD, fd as u32, &mut si, libc::WEXITED)
    );
    err!(libc::ESRCH, sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 0));
    // Non-blocking pidfds make waitid answer EAGAIN.
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let fd = ok!(pidfd_open(pid, libc::O_NONBLOCK as u32));
    err!(
        libc::EAGAIN,
        libc::waitid(libc::P_PIDFD, fd as u32, &mut si, libc::WEXITED)
    );
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn pidfd_send_signal() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let fd = ok!(pidfd_open(pid, 0));
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    ok!(sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 0));
    err!(
        libc::EINVAL,
        sys!(libc::SYS_pidfd_send_signal, fd, 99, 0, 0)
    );
    ok!(sys!(libc::SYS_pidfd_send_signal, fd, libc::SIGTERM, 0, 0));
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGTERM);
    err!(
        libc::EBADF,
        sys!(libc::SYS_pidfd_send_signal, 0, libc::SIGTERM, 0, 0)
    );
}

/// A descriptor of `/proc/PID` serves too (pidfd_send_signal(2)); one of a
/// thread or of another directory does not.
unsafe fn pidfd_of_proc_directory() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let fd = open(&format!("/proc/{pid}"), flags);
    let task = open(&format!("/proc/{pid}/task/{pid}"), flags);
    let signal = |fd| sys!(libc::SYS_pidfd_send_signal, fd, libc::SIGUSR1, 0, 0);
    err!(libc::EBADF, signal(task));
    err!(libc::EBADF, signal(open("/proc", flags)));
    err!(libc::EBADF, signal(open(".", flags)));
    ok!(signal(fd));
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGUSR1);
    err!(libc::ESRCH, signal(fd));
}

unsafe fn pidfd_getfd() {
    let (r, w) = pipe();
    let (r2, w2) = pipe();
    let pid = fork(|| {
        write_file("secret", b"content");
        let fd = open("secret", libc::O_RDONLY);
        ok!(libc::dup2(fd, 50));
        write_all(w, b"x");
        libc::close(w2);
        read_some(r2, 1);
    });
    read_some(r, 1);
    let pfd = ok!(pidfd_open(pid, 0));
    let fd = ok!(sys!(libc::SYS_pidfd_getfd, pfd, 50, 0)) as i32;
    eq!(read_some(fd, 10), b"content");
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    err!(libc::EBADF, sys!(libc::SYS_pidfd_getfd, pfd, 60, 0));
    err!(libc::EINVAL, sys!(libc::SYS_pidfd_getfd, pfd, 50, 1));
    libc::close(w2);
    wait_ok(pid);
}

unsafe fn pidfd_errors() {
    err!(libc::EINVAL, pidfd_open(0, 0));
    err!(libc::EINVAL, pidfd_open(-1, 0));
    err!(libc::EINVAL, pidfd_open(libc::getpid(), 1));
    err!(libc::ESRCH, pidfd_open(0x3f_ffff, 0));
}
