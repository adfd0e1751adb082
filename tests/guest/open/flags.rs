//! Flags of open(2).

use super::*;
use crate::util::*;

cases![
    open_missing,
    creat_and_mode,
    umask_applies,
    excl,
    trunc,
    append,
    directory_flag,
    nofollow,
    o_path,
    tmpfile,
    tmpfile_linkat,
    write_to_directory,
    access_modes,
    open_flags_reported,
    o_creat_existing_symlink,
    o_excl_symlink,
    noatime_and_direct_flags,
    open_readonly_truncate,
];

unsafe fn open_missing() {
    err!(libc::ENOENT, try_open("missing", libc::O_RDONLY));
    err!(libc::ENOENT, try_open("no/such", CREATE));
    write_file("f", b"");
    err!(libc::ENOTDIR, try_open("f/x", libc::O_RDONLY));
    err!(libc::ENOTDIR, try_open("f/x", CREATE));
}

unsafe fn creat_and_mode() {
    let fd = ok!(libc::creat(c("f").as_ptr(), 0o640));
    eq!(stat("f").st_mode, libc::S_IFREG | 0o640);
    err!(libc::EBADF, libc::read(fd, [0u8; 1].as_mut_ptr().cast(), 1));
    write_all(fd, b"x");
    // The mode counts only at creation, and does not bind this descriptor.
    let fd = open_mode("ro", CREATE, 0o400);
    write_all(fd, b"x");
    let again = open_mode("ro", CREATE, 0o777);
    eq!(stat("ro").st_mode & 0o7777, 0o400);
    let _ = again;
    let st = stat("f");
    eq!(
        (st.st_nlink, st.st_size, st.st_uid, st.st_gid),
        (1, 1, libc::geteuid(), libc::getegid())
    );
    // Special bits may be given.
    open_mode("s", CREATE, 0o4755);
    eq!(stat("s").st_mode & 0o7777, 0o4755);
}

unsafe fn umask_applies() {
    for (mask, expected) in [(0o022, 0o644), (0, 0o666), (0o077, 0o600), (0o777, 0)] {
        libc::umask(mask);
        let name = format!("f{mask}");
        open_mode(&name, CREATE, 0o666);
        eq!(stat(&name).st_mode & 0o777, expected);
    }
    eq!(libc::umask(0o1022), 0o777);
    eq!(libc::umask(0), 0o022);
    libc::umask(0o027);
    mkdir("d");
    eq!(stat("d").st_mode & 0o7777, 0o750);
}

unsafe fn excl() {
    open("f", CREATE | libc::O_EXCL);
    err!(libc::EEXIST, try_open("f", CREATE | libc::O_EXCL));
    mkdir("d");
    err!(libc::EEXIST, try_open("d", CREATE | libc::O_EXCL));
    err!(libc::EISDIR, try_open("d", CREATE));
}

unsafe fn trunc() {
    write_file("f", b"content");
    open("f", libc::O_WRONLY | libc::O_TRUNC);
    eq!(stat("f").st_size, 0);
    write_file("f", b"content");
    open("f", libc::O_WRONLY);
    eq!(stat("f").st_size, 7);
}

unsafe fn open_readonly_truncate() {
    // Linux truncates with O_RDONLY|O_TRUNC as well, if writing is allowed.
    write_file("f", b"content");
    open("f", libc::O_RDONLY | libc::O_TRUNC);
    eq!(stat("f").st_size, 0);
    write_file("g", b"content");
    ok!(libc::chmod(c("g").as_ptr(), 0o444));
    as_user(1000, || {
        err!(libc::EACCES, try_open("g", libc::O_RDONLY | libc::O_TRUNC))
    });
    eq!(stat("g").st_size, 7);
}

unsafe fn append() {
    write_file("f", b"one");
    let fd = open("f", libc::O_RDWR | libc::O_APPEND);
    write_all(fd, b"two");
    eq!(libc::lseek(fd, 0, libc::SEEK_SET), 0);
    write_all(fd, b"three");
    eq!(read_file("f"), b"onetwothree");
    eq!(libc::lseek(fd, 0, libc::SEEK_CUR), 11);
    // pwrite on an appending descriptor appends, a Linux peculiarity.
    eq!(libc::pwrite(fd, b"!".as_ptr().cast(), 1, 0), 1);
    eq!(read_file("f"), b"onetwothree!");
    // Two appenders do not overwrite each other.
    let kids: Vec<i32> = (0..4)
        .map(|i| {
            fork(|| {
                let fd = open("log", libc::O_CREAT | libc::O_WRONLY | libc::O_APPEND);
                for _ in 0..100 {
                    write_all(fd, format!("{i}{}\n", "x".repeat(30)).as_bytes());
                }
            })
        })
        .collect();
    for k in kids {
        wait_ok(k);
    }
    let log = read_text("log");
    eq!(log.lines().count(), 400);
    check!(log.lines().all(|l| l.len() == 31));
    // The flag can be set and cleared.
    let fd = open("f", libc::O_RDWR);
    ok!(libc::fcntl(fd, libc::F_SETFL, libc::O_APPEND));
    write_all(fd, b"+");
    eq!(read_file("f"), b"onetwothree!+");
}

unsafe fn directory_flag() {
    write_file("f", b"");
    mkdir("d");
    err!(libc::ENOTDIR, try_open("f", libc::O_DIRECTORY));
    open("d", libc::O_DIRECTORY);
    open("d", libc::O_RDONLY);
    err!(libc::ENOENT, try_open("x", libc::O_DIRECTORY));
}

unsafe fn nofollow() {
    write_file("f", b"");
    symlink("f", "l");
    err!(libc::ELOOP, try_open("l", libc::O_NOFOLLOW));
    err!(libc::ELOOP, try_open("l", libc::O_NOFOLLOW | CREATE));
    open("f", libc::O_NOFOLLOW);
    // Only the last component counts.
    mkdir("d");
    write_file("d/f", b"");
    symlink("d", "ld");
    open("ld/f", libc::O_NOFOLLOW);
    err!(
        libc::ENOTDIR,
        try_open("ld", libc::O_NOFOLLOW | libc::O_DIRECTORY)
    );
}

unsafe fn o_path() {
    write_file("f", b"data");
    let fd = open("f", libc::O_PATH);
    let mut b = [0u8; 4];
    err!(libc::EBADF, libc::read(fd, b.as_mut_ptr().cast(), 4));
    err!(libc::EBADF, libc::write(fd, b.as_ptr().cast(), 4));
    err!(libc::EBADF, libc::fchmod(fd, 0o600));
    err!(libc::EBADF, libc::ioctl(fd, libc::FIONREAD, b.as_mut_ptr()));
    err!(libc::EBADF, libc::lseek(fd, 0, libc::SEEK_SET));
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    eq!(st.st_size, 4);
    eq!(
        ok!(libc::fcntl(fd, libc::F_GETFL)) & libc::O_PATH,
        libc::O_PATH
    );
    let dup = ok!(libc::dup(fd));
    ok!(libc::close(dup));
    // Reopened for reading through /proc.
    let r = open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY);
    eq!(read_some(r, 10), b"data");
    // A symlink itself.
    symlink("f", "l");
    let l = open("l", libc::O_PATH | libc::O_NOFOLLOW);
    ok!(libc::fstat(l, &mut st));
    eq!(st.st_mode & libc::S_IFMT, libc::S_IFLNK);
    let n = libc::readlinkat(l, c"".as_ptr(), b.as_mut_ptr().cast(), 4);
    eq!((n, b[0]), (1, b'f'));
    // Search permission on directories is enough.
    mkdir("d");
    write_file("d/x", b"");
    let d = open("d", libc::O_PATH);
    ok!(libc::openat(d, c"x".as_ptr(), libc::O_RDONLY));
    ok!(libc::fchdir(d));
    ok!(libc::chdir(c"..".as_ptr()));
    // No permission on the object is needed.
    ok!(libc::chmod(c("f").as_ptr(), 0));
    as_user(1000, || {
        open("f", libc::O_PATH);
        err!(libc::EACCES, try_open("f", libc::O_RDONLY));
    });
}

unsafe fn tmpfile() {
    let fd = libc::open(c".".as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o600);
    if fd == -1 && errno() == libc::EOPNOTSUPP {
        skip("no O_TMPFILE on this file system");
    }
    ok!(fd);
    write_all(fd, b"hidden");
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    eq!((st.st_nlink, st.st_size), (0, 6));
    eq!(std::fs::read_dir(".").map(|d| d.count()).unwrap_or(9), 0);
    err!(
        libc::EINVAL,
        libc::open(c".".as_ptr(), libc::O_TMPFILE | libc::O_RDONLY, 0o600)
    );
    write_file("f", b"");
    err!(
        libc::ENOTDIR,
        libc::open(c("f").as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o600)
    );
}

unsafe fn tmpfile_linkat() {
    let fd = libc::open(c".".as_ptr(), libc::O_TMPFILE | libc::O_RDWR, 0o600);
    if fd == -1 && errno() == libc::EOPNOTSUPP {
        skip("no O_TMPFILE on this file system");
    }
    write_all(fd, b"now seen");
    let path = c(&format!("/proc/self/fd/{fd}"));
    ok!(libc::linkat(
        libc::AT_FDCWD,
        path.as_ptr(),
        libc::AT_FDCWD,
        c("seen").as_ptr(),
        libc::AT_SYMLINK_FOLLOW
    ));
    eq!(read_file("seen"), b"now seen");
    // With O_EXCL it can never be linked.
    let fd = ok!(libc::open(
        c".".as_ptr(),
        libc::O_TMPFILE | libc::O_RDWR | libc::O_EXCL,
        0o600
    ));
    let path = c(&format!("/proc/self/fd/{fd}"));
    err!(
        libc::ENOENT,
        libc::linkat(
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_FDCWD,
            c("no").as_ptr(),
            libc::AT_SYMLINK_FOLLOW
        )
    );
    let fd = ok!(libc::open(
        c".".as_ptr(),
        libc::O_TMPFILE | libc::O_RDWR,
        0o600
    ));
    ok!(libc::linkat(
        fd,
        c"".as_ptr(),
        libc::AT_FDCWD,
        c("empty").as_ptr(),
        libc::AT_EMPTY_PATH
    ));
    check!(exists("empty"));
}

unsafe fn write_to_directory() {
    mkdir("d");
    err!(libc::EISDIR, try_open("d", libc::O_WRONLY));
    err!(libc::EISDIR, try_open("d", libc::O_RDWR));
    err!(libc::EISDIR, try_open("d", libc::O_RDONLY | libc::O_TRUNC));
    let fd = open("d", libc::O_RDONLY);
    let mut b = [0u8; 4];
    err!(libc::EISDIR, libc::read(fd, b.as_mut_ptr().cast(), 4));
    err!(libc::EBADF, libc::write(fd, b.as_ptr().cast(), 4));
    err!(libc::EINVAL, libc::ftruncate(fd, 0));
}

unsafe fn access_modes() {
    write_file("f", b"x");
    let mut b = [0u8; 1];
    let w = open("f", libc::O_WRONLY);
    err!(libc::EBADF, libc::read(w, b.as_mut_ptr().cast(), 1));
    let r = open("f", libc::O_RDONLY);
    err!(libc::EBADF, libc::write(r, b.as_ptr().cast(), 1));
    err!(libc::EINVAL, libc::ftruncate(r, 0));
    // Access mode 3 is a relic that allows neither.
    let neither = open("f", 3);
    err!(libc::EBADF, libc::read(neither, b.as_mut_ptr().cast(), 1));
}

unsafe fn open_flags_reported() {
    let fd = open(
        "f",
        CREATE | libc::O_APPEND | libc::O_NONBLOCK | libc::O_CLOEXEC,
    );
    let flags = ok!(libc::fcntl(fd, libc::F_GETFL));
    let known =
        libc::O_ACCMODE | libc::O_APPEND | libc::O_NONBLOCK | libc::O_CREAT | libc::O_CLOEXEC;
    eq!(
        flags & known,
        libc::O_RDWR | libc::O_APPEND | libc::O_NONBLOCK
    );
    ok!(libc::fcntl(fd, libc::F_SETFL, 0));
    eq!(ok!(libc::fcntl(fd, libc::F_GETFL)) & known, libc::O_RDWR);
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    let large = ok!(libc::fcntl(fd, libc::F_GETFL)) & 0o100000;
    eq!(large, 0o100000); // O_LARGEFILE on 64 bit
}

unsafe fn o_creat_existing_symlink() {
    write_file("f", b"data");
    symlink("f", "l");
    let fd = open("l", CREATE);
    eq!(read_some(fd, 9), b"data");
}

unsafe fn o_excl_symlink() {
    symlink("nowhere", "l");
    err!(libc::EEXIST, try_open("l", CREATE | libc::O_EXCL));
}

unsafe fn noatime_and_direct_flags() {
    write_file("f", &[1; 8192]);
    open("f", libc::O_RDONLY | libc::O_NOATIME);
    open("f", libc::O_RDWR | libc::O_SYNC);
    open("f", libc::O_RDWR | libc::O_DSYNC);
    let d = try_open("f", libc::O_RDONLY | libc::O_DIRECT);
    check!(d >= 0 || errno() == libc::EINVAL);
    as_user(1000, || {
        err!(libc::EPERM, try_open("f", libc::O_RDONLY | libc::O_NOATIME))
    });
}
