//! flock(2), record locks (fcntl(2)), leases.

use crate::util::*;

cases![
    flock_exclusive_between_opens,
    flock_shared_and_upgrade,
    flock_survives_dup_and_fork,
    flock_blocks,
    flock_errors,
    posix_lock_between_processes,
    posix_lock_ranges,
    posix_getlk,
    posix_released_on_any_close,
    posix_not_inherited,
    posix_setlkw_blocks,
    posix_deadlock,
    posix_errors,
    posix_lock_to_end,
    posix_split_and_merge,
    ofd_locks_conflict_within_process,
    ofd_released_on_last_close,
    ofd_errors,
    lockf_calls,
    setlkw_interrupted,
    lease_or_refusal,
];

unsafe fn rw(name: &str) -> i32 {
    open(name, libc::O_CREAT | libc::O_RDWR)
}

unsafe fn flock_exclusive_between_opens() {
    let (a, b) = (rw("f"), rw("f"));
    ok!(libc::flock(a, libc::LOCK_EX));
    err!(
        libc::EWOULDBLOCK,
        libc::flock(b, libc::LOCK_EX | libc::LOCK_NB)
    );
    err!(
        libc::EWOULDBLOCK,
        libc::flock(b, libc::LOCK_SH | libc::LOCK_NB)
    );
    ok!(libc::flock(a, libc::LOCK_UN));
    ok!(libc::flock(b, libc::LOCK_EX | libc::LOCK_NB));
    libc::close(b);
    ok!(libc::flock(a, libc::LOCK_EX | libc::LOCK_NB));
    // Readers may lock exclusively.
    ok!(libc::flock(a, libc::LOCK_UN));
    ok!(libc::flock(
        open("f", libc::O_RDONLY),
        libc::LOCK_EX | libc::LOCK_NB
    ));
}

unsafe fn flock_shared_and_upgrade() {
    let (a, b) = (rw("f"), rw("f"));
    ok!(libc::flock(a, libc::LOCK_SH));
    ok!(libc::flock(b, libc::LOCK_SH | libc::LOCK_NB));
    err!(
        libc::EWOULDBLOCK,
        libc::flock(a, libc::LOCK_EX | libc::LOCK_NB)
    );
    ok!(libc::flock(b, libc::LOCK_UN));
    ok!(libc::flock(a, libc::LOCK_EX | libc::LOCK_NB));
    ok!(libc::flock(a, libc::LOCK_SH | libc::LOCK_NB));
    ok!(libc::flock(b, libc::LOCK_SH | libc::LOCK_NB));
}

unsafe fn flock_survives_dup_and_fork() {
    let a = rw("f");
    ok!(libc::flock(a, libc::LOCK_EX));
    let d = ok!(libc::dup(a));
    libc::close(a);
    let b = rw("f");
    err!(
        libc::EWOULDBLOCK,
        libc::flock(b, libc::LOCK_EX | libc::LOCK_NB)
    );
    in_child(|| {
        // The same description: our own lock.
        ok!(libc::flock(d, libc::LOCK_EX | libc::LOCK_NB));
        libc::close(d);
    });
    err!(
        libc::EWOULDBLOCK,
        libc::flock(b, libc::LOCK_EX | libc::LOCK_NB)
    );
    // Unlocking through any duplicate counts.
    in_child(|| {
        ok!(libc::flock(d, libc::LOCK_UN));
    });
    ok!(libc::flock(b, libc::LOCK_EX | libc::LOCK_NB));
}

unsafe fn flock_blocks() {
    let a = rw("f");
    ok!(libc::flock(a, libc::LOCK_EX));
    let pid = fork(|| {
        let b = rw("f");
        ok!(libc::flock(b, libc::LOCK_EX));
    });
    wait_state(pid, "S");
    eq!(
        ok!(libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG)),
        0
    );
    ok!(libc::flock(a, libc::LOCK_UN));
    wait_ok(pid);
}

unsafe fn flock_errors() {
    let a = rw("f");
    err!(libc::EINVAL, libc::flock(a, 0));
    err!(libc::EINVAL, libc::flock(a, libc::LOCK_EX | libc::LOCK_SH));
    err!(libc::EBADF, libc::flock(99, libc::LOCK_EX));
    err!(
        libc::EBADF,
        libc::flock(open("f", libc::O_PATH), libc::LOCK_SH)
    );
}

unsafe fn lk(kind: i32, start: i64, len: i64) -> libc::flock {
    let mut l: libc::flock = std::mem::zeroed();
    l.l_type = kind as i16;
    l.l_whence = libc::SEEK_SET as i16;
    l.l_start = start;
    l.l_len = len;
    l
}

unsafe fn setlk(fd: i32, kind: i32, start: i64, len: i64) -> i32 {
    libc::fcntl(fd, libc::F_SETLK, &lk(kind, start, len))
}

unsafe fn getlk(fd: i32, kind: i32, start: i64, len: i64) -> (i32, i64, i64, i32) {
    let mut l = lk(kind, start, len);
    ok!(libc::fcntl(fd, libc::F_GETLK, &mut l));
    (l.l_type as i32, l.l_start, l.l_len, l.l_pid)
}

unsafe fn other_sees(f: impl FnOnce(i32)) {
    in_child(|| f(rw("f")));
}

unsafe fn posix_lock_between_processes() {
    let fd = rw("f");
    ok!(setlk(fd, libc::F_WRLCK, 0, 0));
    // Never a conflict with oneself.
    ok!(setlk(rw("f"), libc::F_WRLCK, 0, 0));
    other_sees(|o| {
        err!(libc::EAGAIN, setlk(o, libc::F_RDLCK, 0, 1));
        err!(libc::EAGAIN, setlk(o, libc::F_WRLCK, 5, 1));
    });
    ok!(setlk(fd, libc::F_RDLCK, 0, 0));
    other_sees(|o| {
        ok!(setlk(o, libc::F_RDLCK, 0, 1));
        err!(libc::EAGAIN, setlk(o, libc::F_WRLCK, 0, 1));
    });
    ok!(setlk(fd, libc::F_UNLCK, 0, 0));
    other_sees(|o| {
        ok!(setlk(o, libc::F_WRLCK, 0, 0));
    });
}

unsafe fn posix_lock_ranges() {
    let fd = rw("f");
    ok!(setlk(fd, libc::F_WRLCK, 10, 10));
    other_sees(|o| {
        ok!(setlk(o, libc::F_WRLCK, 0, 10));
        ok!(setlk(o, libc::F_WRLCK, 20, 10));
        err!(libc::EAGAIN, setlk(o, libc::F_WRLCK, 19, 1));
        err!(libc::EAGAIN, setlk(o, libc::F_WRLCK, 0, 0));
    });
    // Relative to the current position and the end; negative lengths.
    write_all(fd, &[0; 100]);
    let mut l = lk(libc::F_WRLCK, -10, 5);
    l.l_whence = libc::SEEK_CUR as i16;
    ok!(libc::fcntl(fd, libc::F_SETLK, &l));
    other_sees(|o| {
        eq!(getlk(o, libc::F_WRLCK, 90, 1).0, libc::F_WRLCK);
        eq!(getlk(o, libc::F_WRLCK, 95, 1).0, libc::F_UNLCK);
    });
    ok!(setlk(fd, libc::F_WRLCK, 60, -10));
    other_sees(|o| {
        eq!(getlk(o, libc::F_WRLCK, 40, 100).1, 50);
    });
}

unsafe fn posix_getlk() {
    let fd = rw("f");
    ok!(setlk(fd, libc::F_RDLCK, 5, 20));
    let me = libc::getpid();
    other_sees(|o| {
        eq!(getlk(o, libc::F_WRLCK, 0, 0), (libc::F_RDLCK, 5, 20, me));
        eq!(getlk(o, libc::F_RDLCK, 0, 0).0, libc::F_UNLCK);
        eq!(getlk(o, libc::F_WRLCK, 0, 5).0, libc::F_UNLCK);
    });
    eq!(getlk(fd, libc::F_WRLCK, 0, 0).0, libc::F_UNLCK);
}

unsafe fn posix_released_on_any_close() {
    let fd = rw("f");
    ok!(setlk(fd, libc::F_WRLCK, 0, 0));
    libc::close(rw("f"));
    other_sees(|o| {
        ok!(setlk(o, libc::F_WRLCK, 0, 0));
    });
}

unsafe fn posix_not_inherited() {
    let fd = rw("f");
    ok!(setlk(fd, libc::F_WRLCK, 0, 0));
    in_child(|| err!(libc::EAGAIN, setlk(fd, libc::F_WRLCK, 0, 0)));
    in_child(|| {
        libc::close(fd);
    });
    other_sees(|o| err!(libc::EAGAIN, setlk(o, libc::F_WRLCK, 0, 0)));
    // Kept over exec is not tested here; released at exit:
    in_child(|| {
        ok!(setlk(fd, libc::F_UNLCK, 0, 0));
    });
    ok!(setlk(fd, libc::F_UNLCK, 0, 0));
    in_child(|| {
        ok!(setlk(fd, libc::F_WRLCK, 0, 0));
    });
    ok!(setlk(fd, libc::F_WRLCK, 0, 0));
}

unsafe fn posix_setlkw_blocks() {
    let fd = rw("f");
    ok!(setlk(fd, libc::F_WRLCK, 0, 0));
    let pid = fork(|| {
        let o = rw("f");
        ok!(libc::fcntl(o, libc::F_SETLKW, &lk(libc::F_WRLCK, 0, 0)));
    });
    wait_state(pid, "S");
    eq!(
        ok!(libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG)),
        0
    );
    ok!(setlk(fd, libc::F_UNLCK, 0, 0));
    wait_ok(pid);
}

unsafe fn posix_deadlock() {
    let fd = rw("f");
    ok!(setlk(fd, libc::F_WRLCK, 0, 1));
    let (r, w) = pipe();
    let pid = fork(|| {
        let o = rw("f");
        ok!(setlk(o, libc::F_WRLCK, 1, 1));
        write_all(w, b"x");
        ok!(libc::fcntl(o, libc::F_SETLKW, &lk(libc::F_WRLCK, 0, 1)));
    });
    read_some(r, 1);
    wait_state(pid, "S");
    err!(
        libc::EDEADLK,
        libc::fcntl(fd, libc::F_SETLKW, &lk(libc::F_WRLCK, 1, 1))
    );
    ok!(setlk(fd, libc::F_UNLCK, 0, 0));
    wait_ok(pid);
}

unsafe fn posix_errors() {
    let fd = rw("f");
    err!(
        libc::EBADF,
        setlk(open("f", libc::O_RDONLY), libc::F_WRLCK, 0, 0)
    );
    err!(
        libc::EBADF,
        setlk(open("f", libc::O_WRONLY), libc::F_RDLCK, 0, 0)
    );
    err!(libc::EINVAL, setlk(fd, 9, 0, 0));
    err!(libc::EINVAL, setlk(fd, libc::F_WRLCK, -1, 1));
    let mut l = lk(libc::F_WRLCK, 0, 1);
    l.l_whence = 7;
    err!(libc::EINVAL, libc::fcntl(fd, libc::F_SETLK, &l));
    err!(libc::EFAULT, libc::fcntl(fd, libc::F_SETLK, 8));
    err!(
        libc::EINVAL,
        libc::fcntl(fd, libc::F_GETLK, &lk(libc::F_UNLCK, 0, 0))
    );
    err!(libc::EOVERFLOW, setlk(fd, libc::F_WRLCK, i64::MAX, 2));
}

unsafe fn posix_lock_to_end() {
    let fd = rw("f");
    ok!(setlk(fd, libc::F_WRLCK, 100, 0));
    other_sees(|o| {
        eq!(
            getlk(o, libc::F_WRLCK, 0, 0),
            (libc::F_WRLCK, 100, 0, libc::getppid())
        );
        err!(libc::EAGAIN, setlk(o, libc::F_WRLCK, 1 << 40, 1));
        ok!(setlk(o, libc::F_WRLCK, 0, 100));
    });
}

unsafe fn posix_split_and_merge() {
    let fd = rw("f");
    ok!(setlk(fd, libc::F_WRLCK, 0, 30));
    ok!(setlk(fd, libc::F_UNLCK, 10, 10));
    other_sees(|o| {
        eq!(getlk(o, libc::F_WRLCK, 0, 0).1, 0);
        eq!(getlk(o, libc::F_WRLCK, 10, 10).0, libc::F_UNLCK);
        eq!(
            getlk(o, libc::F_WRLCK, 10, 20),
            (libc::F_WRLCK, 20, 10, libc::getppid())
        );
    });
    ok!(setlk(fd, libc::F_WRLCK, 10, 10));
    other_sees(|o| {
        eq!(
            getlk(o, libc::F_WRLCK, 0, 0),
            (libc::F_WRLCK, 0, 30, libc::getppid())
        )
    });
    ok!(setlk(fd, libc::F_RDLCK, 5, 5));
    other_sees(|o| {
        ok!(setlk(o, libc::F_RDLCK, 5, 5));
        err!(libc::EAGAIN, setlk(o, libc::F_RDLCK, 4, 1));
    });
}

const OFD_GETLK: i32 = 36;

const OFD_SETLK: i32 = 37;

unsafe fn ofd(fd: i32, kind: i32, start: i64, len: i64) -> i32 {
    libc::fcntl(fd, OFD_SETLK, &lk(kind, start, len))
}

unsafe fn ofd_locks_conflict_within_process() {
    let (a, b) = (rw("f"), rw("f"));
    ok!(ofd(a, libc::F_WRLCK, 0, 0));
    err!(libc::EAGAIN, ofd(b, libc::F_WRLCK, 0, 0));
    // They conflict with traditional ones as well.
    err!(libc::EAGAIN, setlk(b, libc::F_WRLCK, 0, 0));
    let mut l = lk(libc::F_WRLCK, 0, 0);
    ok!(libc::fcntl(b, OFD_GETLK, &mut l));
    eq!((l.l_type as i32, l.l_pid), (libc::F_WRLCK, -1));
    // Shared with children.
    in_child(|| {
        ok!(ofd(a, libc::F_UNLCK, 0, 0));
    });
    ok!(ofd(b, libc::F_WRLCK, 0, 0));
}

unsafe fn ofd_released_on_last_close() {
    let (a, b) = (rw("f"), rw("f"));
    ok!(ofd(a, libc::F_WRLCK, 0, 0));
    let d = ok!(libc::dup(a));
    libc::close(a);
    libc::close(rw("f"));
    err!(libc::EAGAIN, ofd(b, libc::F_WRLCK, 0, 0));
    libc::close(d);
    ok!(ofd(b, libc::F_WRLCK, 0, 0));
}

unsafe fn ofd_errors() {
    let a = rw("f");
    let mut l = lk(libc::F_WRLCK, 0, 0);
    l.l_pid = 5;
    err!(libc::EINVAL, libc::fcntl(a, OFD_SETLK, &l));
}

unsafe fn lockf_calls() {
    let fd = rw("f");
    ok!(libc::lockf(fd, libc::F_LOCK, 10));
    other_sees(|o| {
        err!(libc::EAGAIN, libc::lockf(o, libc::F_TLOCK, 5));
        err!(libc::EACCES, libc::lockf(o, libc::F_TEST, 5));
    });
    ok!(libc::lockf(fd, libc::F_ULOCK, 10));
}

unsafe fn setlkw_interrupted() {
    extern "C" fn nothing(_: i32) {}
    let fd = rw("f");
    ok!(setlk(fd, libc::F_WRLCK, 0, 0));
    let pid = fork(|| {
        handle(libc::SIGALRM, nothing as *const () as usize, 0);
        let value = libc::itimerval {
            it_interval: libc::timeval {
                tv_sec: 0,
                tv_usec: 0,
            },
            it_value: libc::timeval {
                tv_sec: 0,
                tv_usec: 30_000,
            },
        };
        sys!(
            libc::SYS_setitimer,
            libc::ITIMER_REAL,
            &value as *const _,
            0
        );
        let o = rw("f");
        err!(
            libc::EINTR,
            libc::fcntl(o, libc::F_SETLKW, &lk(libc::F_WRLCK, 0, 0))
        );
    });
    wait_ok(pid);
}

unsafe fn lease_or_refusal() {
    let fd = rw("f");
    let r = libc::fcntl(fd, libc::F_GETLEASE);
    check!(r == libc::F_UNLCK || errno() == libc::EINVAL);
}
