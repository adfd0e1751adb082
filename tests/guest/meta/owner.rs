//! chmod(2), chown(2).

use super::*;
use crate::util::*;

cases![
    chmod_calls,
    chmod_permission,
    fchmodat_flags,
    chown_calls,
    owner_after_changes,
    chown_clears_setuid,
    chown_permission,
    write_clears_setuid,
    setgid_directory,
];

unsafe fn chmod_calls() {
    write_file("f", b"");
    for m in [0, 0o777, 0o4755, 0o2711, 0o1644, 0o7777] {
        chmod("f", m);
        eq!(mode("f"), m);
    }
    // File type bits are ignored.
    chmod("f", 0o40644);
    eq!(stat("f").st_mode, libc::S_IFREG | 0o644);
    let fd = open("f", libc::O_RDONLY);
    ok!(libc::fchmod(fd, 0o600));
    eq!(mode("f"), 0o600);
    ok!(libc::symlink(c("f").as_ptr(), c("l").as_ptr()));
    chmod("l", 0o640);
    eq!(mode("f"), 0o640);
    err!(libc::ENOENT, libc::chmod(c("x").as_ptr(), 0));
    let before = stat("f");
    sleep_ms(15);
    chmod("f", 0o640);
    let after = stat("f");
    check!((after.st_ctime, after.st_ctime_nsec) > (before.st_ctime, before.st_ctime_nsec));
}

unsafe fn chmod_permission() {
    write_file("f", b"");
    chown("f", 1000, 1000);
    as_user(1000, || chmod("f", 0o600));
    as_user(1001, || {
        err!(libc::EPERM, libc::chmod(c("f").as_ptr(), 0o777))
    });
    eq!(mode("f"), 0o600);
    // Setgid is dropped when the owner is not of the file's group.
    chown("f", 1000, 2000);
    as_user(1000, || chmod("f", 0o2755));
    eq!(mode("f"), 0o755);
}

unsafe fn fchmodat_flags() {
    write_file("f", b"");
    ok!(sys!(
        libc::SYS_fchmodat,
        libc::AT_FDCWD,
        c("f").as_ptr(),
        0o611
    ));
    eq!(mode("f"), 0o611);
    // fchmodat2, new in 6.6.
    let r = sys!(452, libc::AT_FDCWD, c("f").as_ptr(), 0o600, 0);
    check!(r == 0 || errno() == libc::ENOSYS);
    if r == 0 {
        ok!(libc::symlink(c("f").as_ptr(), c("l").as_ptr()));
        err!(
            libc::EOPNOTSUPP,
            sys!(
                452,
                libc::AT_FDCWD,
                c("l").as_ptr(),
                0o600,
                libc::AT_SYMLINK_NOFOLLOW
            )
        );
        err!(
            libc::EINVAL,
            sys!(452, libc::AT_FDCWD, c("f").as_ptr(), 0o600, 1)
        );
    }
}

unsafe fn chown_calls() {
    write_file("f", b"");
    chown("f", 5, 6);
    eq!((stat("f").st_uid, stat("f").st_gid), (5, 6));
    chown("f", u32::MAX, 7);
    eq!((stat("f").st_uid, stat("f").st_gid), (5, 7));
    chown("f", 8, u32::MAX);
    eq!((stat("f").st_uid, stat("f").st_gid), (8, 7));
    ok!(libc::symlink(c("f").as_ptr(), c("l").as_ptr()));
    ok!(libc::lchown(c("l").as_ptr(), 9, 9));
    eq!(stat("l").st_uid, 8);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::lstat(c("l").as_ptr(), &mut st));
    eq!((st.st_uid, st.st_gid), (9, 9));
    let fd = open("f", libc::O_RDONLY);
    ok!(libc::fchown(fd, 10, 11));
    ok!(libc::fchownat(
        fd,
        c"".as_ptr(),
        12,
        u32::MAX,
        libc::AT_EMPTY_PATH
    ));
    eq!((stat("f").st_uid, stat("f").st_gid), (12, 11));
    chown("f", 3_000_000_000, 4_000_000_000);
    eq!(
        (stat("f").st_uid, stat("f").st_gid),
        (3_000_000_000, 4_000_000_000)
    );
    err!(
        libc::EINVAL,
        libc::fchownat(libc::AT_FDCWD, c("f").as_ptr(), 0, 0, 1)
    );
}

unsafe fn owner_after_changes() {
    let fd = open_mode("f", libc::O_RDWR | libc::O_CREAT, 0o640);
    ok!(libc::fchown(fd, 12, 34));
    let owners = || {
        let mut st: libc::stat = std::mem::zeroed();
        ok!(libc::fstat(fd, &mut st));
        (st.st_uid, st.st_gid, st.st_mode & 0o7777)
    };
    eq!(owners(), (12, 34, 0o640));
    write_all(fd, b"some data");
    eq!(owners(), (12, 34, 0o640));
    let (name, value) = (c"user.a".as_ptr(), c"v".as_ptr().cast());
    if libc::fsetxattr(fd, name, value, 1, 0) == 0 {
        eq!(owners(), (12, 34, 0o640));
    }
    ok!(libc::unlink(c"f".as_ptr()));
    eq!(owners(), (12, 34, 0o640));
    write_all(fd, b"more");
    eq!(owners(), (12, 34, 0o640));
}

unsafe fn chown_clears_setuid() {
    write_file("f", b"");
    chmod("f", 0o6755);
    chown("f", 1, 1);
    eq!(mode("f"), 0o755);
    // Setgid without group execute is a lock mark and stays.
    chmod("f", 0o6644);
    chown("f", 2, 2);
    eq!(mode("f"), 0o2644);
    mkdir("d");
    chmod("d", 0o6755);
    chown("d", 1, 1);
    eq!(mode("d"), 0o6755);
}

unsafe fn chown_permission() {
    write_file("f", b"");
    chown("f", 1000, 1000);
    in_child(|| {
        become_user(1000, 1000, &[3000]);
        err!(libc::EPERM, libc::chown(c("f").as_ptr(), 1001, u32::MAX));
        err!(libc::EPERM, libc::chown(c("f").as_ptr(), u32::MAX, 2000));
        ok!(libc::chown(c("f").as_ptr(), u32::MAX, 3000));
        ok!(libc::chown(c("f").as_ptr(), 1000, 1000));
    });
    as_user(1001, || {
        err!(libc::EPERM, libc::chown(c("f").as_ptr(), 1001, 1001))
    });
}

unsafe fn write_clears_setuid() {
    write_file("f", b"x");
    chown("f", 1000, 1000);
    chmod("f", 0o6777);
    as_user(1001, || {
        let fd = open("f", libc::O_WRONLY);
        write_all(fd, b"y");
    });
    eq!(mode("f"), 0o777);
    chmod("f", 0o6777);
    as_user(1001, || {
        ok!(libc::truncate(c("f").as_ptr(), 0));
    });
    eq!(mode("f"), 0o777);
    // A privileged writer keeps them.
    chmod("f", 0o4777);
    write_all(open("f", libc::O_WRONLY), b"z");
    eq!(mode("f"), 0o4777);
}

unsafe fn setgid_directory() {
    mkdir("d");
    chown("d", 0, 5000);
    chmod("d", 0o2777);
    as_user(1000, || {
        write_file("d/f", b"");
        mkdir("d/sub");
    });
    eq!((stat("d/f").st_uid, stat("d/f").st_gid), (1000, 5000));
    eq!(
        (stat("d/sub").st_gid, mode("d/sub") & 0o2000),
        (5000, 0o2000)
    );
}
