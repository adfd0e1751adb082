//! flock(2), record locks (fcntl(2)), leases, inotify(7).

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
    inotify_create_delete,
    inotify_modify_open_close,
    inotify_rename_cookie,
    inotify_file_watch,
    inotify_mask_add_oneshot,
    inotify_rm_watch,
    inotify_errors,
    inotify_poll_and_nonblock,
    inotify_delete_self,
    dnotify_signals,
    inotify_merges_equal_events,
    inotify_isdir_and_attrib,
    inotify_from_other_process,
    inotify_close_at_exit,
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

/// Events as (watch, mask, cookie, name).
unsafe fn events(fd: i32) -> Vec<(i32, u32, u32, String)> {
    let mut b = vec![0u8; 8192];
    let n = libc::read(fd, b.as_mut_ptr().cast(), b.len());
    if n < 0 {
        check!(errno() == libc::EAGAIN, "{}", errno_text());
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut at = 0;
    while at < n as usize {
        let word =
            |i: usize| u32::from_ne_bytes(b[at + i..at + i + 4].try_into().unwrap_or_default());
        let len = word(12) as usize;
        let name = &b[at + 16..at + 16 + len];
        let end = name.iter().position(|x| *x == 0).unwrap_or(len);
        out.push((
            word(0) as i32,
            word(4),
            word(8),
            String::from_utf8_lossy(&name[..end]).into_owned(),
        ));
        at += 16 + len;
    }
    out
}

unsafe fn masks(fd: i32) -> Vec<(u32, String)> {
    events(fd).into_iter().map(|e| (e.1, e.3)).collect()
}

unsafe fn watch(mask: u32) -> (i32, i32) {
    ok!(libc::mkdir(c("d").as_ptr(), 0o755));
    let fd = ok!(libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC));
    let wd = ok!(libc::inotify_add_watch(fd, c("d").as_ptr(), mask));
    (fd, wd)
}

fn s(mask: u32, name: &str) -> (u32, String) {
    (mask, name.to_owned())
}

unsafe fn inotify_create_delete() {
    let (fd, wd) = watch(libc::IN_CREATE | libc::IN_DELETE);
    write_file("d/f", b"");
    ok!(libc::unlink(c("d/f").as_ptr()));
    let got = events(fd);
    eq!(
        got,
        [
            (wd, libc::IN_CREATE, 0, "f".to_owned()),
            (wd, libc::IN_DELETE, 0, "f".to_owned())
        ]
    );
    eq!(events(fd), []);
}

unsafe fn inotify_modify_open_close() {
    let (fd, _) = watch(libc::IN_ALL_EVENTS);
    let f = open("d/f", libc::O_CREAT | libc::O_WRONLY);
    write_all(f, b"x");
    libc::close(f);
    let r = open("d/f", libc::O_RDONLY);
    read_some(r, 1);
    libc::close(r);
    eq!(
        masks(fd),
        [
            s(libc::IN_CREATE, "f"),
            s(libc::IN_OPEN, "f"),
            s(libc::IN_MODIFY, "f"),
            s(libc::IN_CLOSE_WRITE, "f"),
            s(libc::IN_OPEN, "f"),
            s(libc::IN_ACCESS, "f"),
            s(libc::IN_CLOSE_NOWRITE, "f"),
        ]
    );
}

unsafe fn inotify_rename_cookie() {
    let (fd, _) = watch(libc::IN_MOVE);
    write_file("d/a", b"");
    ok!(libc::rename(c("d/a").as_ptr(), c("d/b").as_ptr()));
    ok!(libc::rename(c("d/b").as_ptr(), c("out").as_ptr()));
    ok!(libc::rename(c("out").as_ptr(), c("d/in").as_ptr()));
    let e = events(fd);
    eq!(e.len(), 4);
    eq!((e[0].1, e[0].3.as_str()), (libc::IN_MOVED_FROM, "a"));
    eq!((e[1].1, e[1].3.as_str()), (libc::IN_MOVED_TO, "b"));
    check!(e[0].2 == e[1].2 && e[0].2 != 0);
    eq!((e[2].1, e[3].1), (libc::IN_MOVED_FROM, libc::IN_MOVED_TO));
    check!(e[2].2 != e[0].2);
}

unsafe fn inotify_file_watch() {
    write_file("f", b"");
    let fd = ok!(libc::inotify_init1(libc::IN_NONBLOCK));
    let wd = ok!(libc::inotify_add_watch(
        fd,
        c("f").as_ptr(),
        libc::IN_MODIFY | libc::IN_ATTRIB
    ));
    write_all(open("f", libc::O_WRONLY), b"x");
    ok!(libc::chmod(c("f").as_ptr(), 0o600));
    eq!(
        events(fd),
        [
            (wd, libc::IN_MODIFY, 0, String::new()),
            (wd, libc::IN_ATTRIB, 0, String::new())
        ]
    );
    // Watching again gives the same watch.
    eq!(
        ok!(libc::inotify_add_watch(
            fd,
            c("f").as_ptr(),
            libc::IN_MODIFY
        )),
        wd
    );
}

unsafe fn inotify_mask_add_oneshot() {
    let (fd, wd) = watch(libc::IN_CREATE);
    eq!(
        ok!(libc::inotify_add_watch(
            fd,
            c("d").as_ptr(),
            libc::IN_DELETE | libc::IN_MASK_ADD
        )),
        wd
    );
    write_file("d/f", b"");
    ok!(libc::unlink(c("d/f").as_ptr()));
    eq!(
        masks(fd),
        [s(libc::IN_CREATE, "f"), s(libc::IN_DELETE, "f")]
    );
    ok!(libc::inotify_add_watch(
        fd,
        c("d").as_ptr(),
        libc::IN_CREATE | libc::IN_ONESHOT
    ));
    write_file("d/1", b"");
    write_file("d/2", b"");
    eq!(
        masks(fd),
        [s(libc::IN_CREATE, "1"), s(libc::IN_IGNORED, "")]
    );
    err!(libc::EEXIST, {
        ok!(libc::inotify_add_watch(
            fd,
            c("d").as_ptr(),
            libc::IN_CREATE
        ));
        libc::inotify_add_watch(fd, c("d").as_ptr(), libc::IN_CREATE | libc::IN_MASK_CREATE)
    });
}

unsafe fn inotify_rm_watch() {
    let (fd, wd) = watch(libc::IN_CREATE);
    ok!(libc::inotify_rm_watch(fd, wd));
    eq!(masks(fd), [s(libc::IN_IGNORED, "")]);
    write_file("d/f", b"");
    eq!(masks(fd), []);
    err!(libc::EINVAL, libc::inotify_rm_watch(fd, wd));
}

unsafe fn inotify_errors() {
    let (fd, _) = watch(libc::IN_CREATE);
    err!(libc::EINVAL, libc::inotify_init1(1));
    err!(
        libc::EINVAL,
        libc::inotify_add_watch(fd, c("d").as_ptr(), 0)
    );
    err!(
        libc::ENOENT,
        libc::inotify_add_watch(fd, c("x").as_ptr(), libc::IN_CREATE)
    );
    err!(
        libc::EINVAL,
        libc::inotify_add_watch(0, c("d").as_ptr(), libc::IN_CREATE)
    );
    err!(
        libc::EBADF,
        libc::inotify_add_watch(99, c("d").as_ptr(), libc::IN_CREATE)
    );
    write_file("f", b"");
    err!(
        libc::ENOTDIR,
        libc::inotify_add_watch(fd, c("f").as_ptr(), libc::IN_CREATE | libc::IN_ONLYDIR)
    );
    write_file("d/f", b"");
    err!(
        libc::EINVAL,
        libc::read(fd, [0u8; 16].as_mut_ptr().cast(), 16)
    );
}

unsafe fn inotify_poll_and_nonblock() {
    let (fd, _) = watch(libc::IN_CREATE);
    err!(
        libc::EAGAIN,
        libc::read(fd, [0u8; 300].as_mut_ptr().cast(), 300)
    );
    eq!(poll_one(fd, libc::POLLIN, 0), 0);
    let pid = fork(|| {
        sleep_ms(20);
        write_file("d/f", b"");
    });
    eq!(poll_one(fd, libc::POLLIN, 5000), libc::POLLIN);
    let mut n = 0i32;
    ok!(libc::ioctl(fd, libc::FIONREAD, &mut n));
    eq!(n, 32);
    eq!(masks(fd), [s(libc::IN_CREATE, "f")]);
    wait_ok(pid);
}

unsafe fn inotify_delete_self() {
    let (fd, _) = watch(libc::IN_DELETE_SELF | libc::IN_MOVE_SELF);
    ok!(libc::rename(c("d").as_ptr(), c("e").as_ptr()));
    ok!(libc::rmdir(c("e").as_ptr()));
    eq!(
        masks(fd),
        [
            s(libc::IN_MOVE_SELF, ""),
            s(libc::IN_DELETE_SELF, ""),
            s(libc::IN_IGNORED, "")
        ]
    );
}

unsafe fn inotify_merges_equal_events() {
    write_file("f", b"");
    let fd = ok!(libc::inotify_init1(libc::IN_NONBLOCK));
    ok!(libc::inotify_add_watch(
        fd,
        c("f").as_ptr(),
        libc::IN_MODIFY
    ));
    let w = open("f", libc::O_WRONLY);
    for _ in 0..5 {
        write_all(w, b"x");
    }
    eq!(events(fd).len(), 1);
}

unsafe fn inotify_isdir_and_attrib() {
    let (fd, _) = watch(libc::IN_CREATE | libc::IN_ATTRIB | libc::IN_DELETE);
    ok!(libc::mkdir(c("d/sub").as_ptr(), 0o755));
    ok!(libc::chmod(c("d/sub").as_ptr(), 0o700));
    ok!(libc::rmdir(c("d/sub").as_ptr()));
    eq!(
        masks(fd),
        [
            s(libc::IN_CREATE | libc::IN_ISDIR, "sub"),
            s(libc::IN_ATTRIB | libc::IN_ISDIR, "sub"),
            s(libc::IN_DELETE | libc::IN_ISDIR, "sub"),
        ]
    );
}

unsafe fn inotify_from_other_process() {
    let (fd, _) = watch(libc::IN_CREATE | libc::IN_CLOSE_WRITE);
    in_child(|| write_file("d/theirs", b"x"));
    eq!(
        masks(fd),
        [
            s(libc::IN_CREATE, "theirs"),
            s(libc::IN_CLOSE_WRITE, "theirs")
        ]
    );
}

/// A description that ends with its process, or with its last duplicate, is
/// closed once.
unsafe fn inotify_close_at_exit() {
    let (fd, _) = watch(libc::IN_CLOSE);
    in_child(|| {
        let f = open("d/theirs", libc::O_CREAT | libc::O_WRONLY);
        libc::dup(f);
        libc::close(f);
        libc::_exit(0);
    });
    eq!(masks(fd), [s(libc::IN_CLOSE_WRITE, "theirs")]);
}

/// F_NOTIFY (fcntl(2)): a signal for a change in a directory, once or always.
unsafe fn dnotify_signals() {
    const F_SETSIG: libc::c_int = 10;
    const POLL_MSG: libc::c_int = 3;
    const DN_CREATE: libc::c_int = 4;
    const DN_MULTISHOT: libc::c_int = 0x8000_0000_u32 as libc::c_int;
    let signal = libc::SIGRTMIN() + 1;
    let mut set: libc::sigset_t = std::mem::zeroed();
    libc::sigemptyset(&mut set);
    libc::sigaddset(&mut set, signal);
    libc::sigaddset(&mut set, libc::SIGIO);
    ok!(libc::sigprocmask(
        libc::SIG_BLOCK,
        &set,
        std::ptr::null_mut()
    ));
    let wait = |ms: i64| {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let time = libc::timespec {
            tv_sec: ms / 1000,
            tv_nsec: ms % 1000 * 1_000_000,
        };
        let number = libc::sigtimedwait(&set, &mut info, &time);
        // si_band, then si_fd.
        let fd = *(&raw const info).cast::<i32>().add(6);
        (number, info.si_code, fd)
    };
    libc::mkdir(c"d".as_ptr(), 0o755);
    let dir = open("d", libc::O_RDONLY | libc::O_DIRECTORY);
    write_file("f", b"");
    let file = open("f", libc::O_RDONLY);
    err!(libc::ENOTDIR, libc::fcntl(file, libc::F_NOTIFY, DN_CREATE));
    ok!(libc::fcntl(dir, F_SETSIG, signal));
    ok!(libc::fcntl(dir, libc::F_NOTIFY, DN_CREATE));
    write_file("d/a", b"");
    eq!(wait(2000), (signal, POLL_MSG, dir));
    // Once only.
    write_file("d/b", b"");
    eq!(wait(50).0, -1);
    ok!(libc::fcntl(dir, libc::F_NOTIFY, DN_CREATE | DN_MULTISHOT));
    write_file("d/c", b"");
    eq!(wait(2000).0, signal);
    write_file("d/e", b"");
    eq!(wait(2000).0, signal);
    // What was not asked for is not told.
    write_file("d/e", b"more");
    libc::unlink(c"d/e".as_ptr());
    eq!(wait(50).0, -1);
    // Nothing ends it.
    ok!(libc::fcntl(dir, libc::F_NOTIFY, 0));
    write_file("d/g", b"");
    eq!(wait(50).0, -1);
    // Without F_SETSIG it is SIGIO.
    ok!(libc::fcntl(dir, F_SETSIG, 0));
    ok!(libc::fcntl(dir, libc::F_NOTIFY, DN_CREATE));
    write_file("d/h", b"");
    eq!(wait(2000).0, libc::SIGIO);
}
