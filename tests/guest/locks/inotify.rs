//! inotify(7), directory notification.

use crate::util::*;

cases![
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
