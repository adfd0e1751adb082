//! Attributes and permissions: stat(2), statx(2), chmod(2), chown(2),
//! utimensat(2), access(2), xattr(7), directories, statfs(2).

use crate::util::*;

cases![
    stat_fields,
    stat_kinds,
    statx_calls,
    fstatat_flags,
    chmod_calls,
    chmod_permission,
    fchmodat_flags,
    chown_calls,
    owner_after_changes,
    chown_clears_setuid,
    chown_permission,
    write_clears_setuid,
    setgid_directory,
    utimensat_values,
    utimensat_now_omit,
    utimensat_permission,
    utimes_old_calls,
    times_update_on_use,
    access_root_and_user,
    access_real_ids,
    faccessat2_flags,
    permissions_owner_group_other,
    supplementary_group_access,
    directory_search_and_list,
    directory_write_permission,
    sticky_directory,
    setfsuid_effects,
    capability_dac_override,
    xattr_basic,
    xattr_flags,
    xattr_sizes,
    xattr_errors,
    xattr_list,
    xattr_links,
    getdents_lists_all,
    getdents_small_buffer,
    getdents_errors,
    getdents_seek_stable,
    getdents_while_deleting,
    getdents_types,
    getdents_rewind_sees_new,
    getdents_dot_inodes,
    readdir_big_directory,
    statfs_calls,
    disk_inode_stability,
    fstat_special,
    umask_only_on_create,
    immutable_flags_or_enotty,
    quota_calls_refused,
];

unsafe fn stat(name: &str) -> libc::stat {
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::stat(c(name).as_ptr(), &mut st));
    st
}

unsafe fn mode(name: &str) -> u32 {
    stat(name).st_mode & 0o7777
}

unsafe fn become_user(uid: u32, gid: u32, groups: &[u32]) {
    ok!(libc::setgroups(groups.len(), groups.as_ptr()));
    ok!(libc::setresgid(gid, gid, gid));
    ok!(libc::setresuid(uid, uid, uid));
}

unsafe fn as_user(uid: u32, f: impl FnOnce()) {
    in_child(|| {
        become_user(uid, uid, &[]);
        f();
    });
}

unsafe fn chmod(name: &str, mode: u32) {
    ok!(libc::chmod(c(name).as_ptr(), mode));
}

unsafe fn chown(name: &str, uid: u32, gid: u32) {
    ok!(libc::chown(c(name).as_ptr(), uid, gid));
}

unsafe fn mkdir(name: &str) {
    ok!(libc::mkdir(c(name).as_ptr(), 0o755));
}

unsafe fn stat_fields() {
    write_file("f", &[1; 5000]);
    let st = stat("f");
    eq!(st.st_size, 5000);
    eq!(st.st_mode, libc::S_IFREG | 0o644);
    eq!((st.st_uid, st.st_gid, st.st_nlink), (0, 0, 1));
    check!(st.st_ino != 0 && st.st_blksize >= 512);
    let mut now: libc::timespec = std::mem::zeroed();
    libc::clock_gettime(libc::CLOCK_REALTIME, &mut now);
    check!(
        (now.tv_sec - st.st_mtime).abs() <= 2,
        "{} {}",
        now.tv_sec,
        st.st_mtime
    );
    check!((now.tv_sec - st.st_ctime).abs() <= 2);
    eq!(stat(".").st_dev, st.st_dev);
    check!(stat("/proc").st_dev != st.st_dev);
}

unsafe fn stat_kinds() {
    mkdir("d");
    ok!(libc::mkfifo(c("p").as_ptr(), 0o600));
    ok!(libc::symlink(c("d").as_ptr(), c("l").as_ptr()));
    eq!(stat("d").st_mode & libc::S_IFMT, libc::S_IFDIR);
    eq!(stat("p").st_mode & libc::S_IFMT, libc::S_IFIFO);
    eq!(stat("l").st_mode & libc::S_IFMT, libc::S_IFDIR);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::lstat(c("l").as_ptr(), &mut st));
    eq!((st.st_mode & libc::S_IFMT, st.st_size), (libc::S_IFLNK, 1));
    eq!(stat("/dev/null").st_mode & libc::S_IFMT, libc::S_IFCHR);
}

unsafe fn statx(dir: i32, name: &str, flags: i32, mask: u32) -> libc::statx {
    let mut sx: libc::statx = std::mem::zeroed();
    ok!(libc::statx(dir, c(name).as_ptr(), flags, mask, &mut sx));
    sx
}

unsafe fn statx_calls() {
    write_file("f", b"12345");
    let sx = statx(libc::AT_FDCWD, "f", 0, libc::STATX_BASIC_STATS);
    let st = stat("f");
    eq!(
        sx.stx_mask & libc::STATX_BASIC_STATS,
        libc::STATX_BASIC_STATS
    );
    eq!(
        (sx.stx_size, sx.stx_ino, u32::from(sx.stx_mode)),
        (5, st.st_ino, st.st_mode)
    );
    eq!(
        (sx.stx_mtime.tv_sec, i64::from(sx.stx_mtime.tv_nsec)),
        (st.st_mtime, st.st_mtime_nsec)
    );
    eq!(libc::makedev(sx.stx_dev_major, sx.stx_dev_minor), st.st_dev);
    let fd = open("f", libc::O_RDONLY);
    eq!(
        statx(fd, "", libc::AT_EMPTY_PATH, libc::STATX_SIZE).stx_size,
        5
    );
    ok!(libc::symlink(c("f").as_ptr(), c("l").as_ptr()));
    let sx = statx(
        libc::AT_FDCWD,
        "l",
        libc::AT_SYMLINK_NOFOLLOW,
        libc::STATX_ALL,
    );
    eq!(u32::from(sx.stx_mode) & libc::S_IFMT, libc::S_IFLNK);
    let mut sx: libc::statx = std::mem::zeroed();
    err!(
        libc::EINVAL,
        libc::statx(libc::AT_FDCWD, c("f").as_ptr(), 0x1_0000, 0, &mut sx)
    );
    err!(
        libc::EINVAL,
        libc::statx(libc::AT_FDCWD, c("f").as_ptr(), 0, 0x8000_0000, &mut sx)
    );
    err!(
        libc::EINVAL,
        libc::statx(libc::AT_FDCWD, c("f").as_ptr(), 0x6000, 0, &mut sx)
    );
    err!(
        libc::ENOENT,
        libc::statx(libc::AT_FDCWD, c("x").as_ptr(), 0, 0, &mut sx)
    );
    err!(
        libc::EFAULT,
        sys!(libc::SYS_statx, libc::AT_FDCWD, c("f").as_ptr(), 0, 0, 8)
    );
}

unsafe fn fstatat_flags() {
    write_file("f", b"");
    let mut st: libc::stat = std::mem::zeroed();
    err!(
        libc::EINVAL,
        libc::fstatat(libc::AT_FDCWD, c("f").as_ptr(), &mut st, 0x10)
    );
    ok!(libc::fstatat(
        libc::AT_FDCWD,
        c("f").as_ptr(),
        &mut st,
        libc::AT_NO_AUTOMOUNT
    ));
    err!(
        libc::EFAULT,
        sys!(libc::SYS_newfstatat, libc::AT_FDCWD, c("f").as_ptr(), 8, 0)
    );
}

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

const fn ts(sec: i64, nsec: i64) -> libc::timespec {
    libc::timespec {
        tv_sec: sec,
        tv_nsec: nsec,
    }
}

unsafe fn utimensat(name: &str, a: libc::timespec, m: libc::timespec, flags: i32) -> i32 {
    libc::utimensat(libc::AT_FDCWD, c(name).as_ptr(), [a, m].as_ptr(), flags)
}

unsafe fn utimensat_values() {
    write_file("f", b"");
    ok!(utimensat(
        "f",
        ts(1_000_000, 123_456_789),
        ts(2_000_000_000, 999_999_999),
        0
    ));
    let st = stat("f");
    eq!((st.st_atime, st.st_atime_nsec), (1_000_000, 123_456_789));
    eq!(
        (st.st_mtime, st.st_mtime_nsec),
        (2_000_000_000, 999_999_999)
    );
    ok!(utimensat("f", ts(-1000, 0), ts(5_000_000_000, 0), 0));
    eq!(
        (stat("f").st_atime, stat("f").st_mtime),
        (-1000, 5_000_000_000)
    );
    err!(
        libc::EINVAL,
        utimensat("f", ts(0, 1_000_000_000), ts(0, 0), 0)
    );
    err!(libc::ENOENT, utimensat("x", ts(0, 0), ts(0, 0), 0));
    err!(libc::EINVAL, utimensat("f", ts(0, 0), ts(0, 0), 0x1));
    let fd = open("f", libc::O_RDONLY);
    ok!(libc::futimens(fd, [ts(7, 7), ts(8, 8)].as_ptr()));
    eq!((stat("f").st_atime, stat("f").st_mtime_nsec), (7, 8));
    ok!(libc::symlink(c("f").as_ptr(), c("l").as_ptr()));
    ok!(utimensat(
        "l",
        ts(11, 0),
        ts(12, 0),
        libc::AT_SYMLINK_NOFOLLOW
    ));
    eq!(stat("f").st_atime, 7);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::lstat(c("l").as_ptr(), &mut st));
    eq!(st.st_mtime, 12);
}

unsafe fn utimensat_now_omit() {
    write_file("f", b"");
    ok!(utimensat("f", ts(5, 0), ts(6, 0), 0));
    ok!(utimensat(
        "f",
        ts(0, libc::UTIME_OMIT),
        ts(0, libc::UTIME_NOW),
        0
    ));
    let st = stat("f");
    eq!(st.st_atime, 5);
    check!(st.st_mtime > 1_000_000_000);
    ok!(libc::utimensat(
        libc::AT_FDCWD,
        c("f").as_ptr(),
        std::ptr::null(),
        0
    ));
    check!(stat("f").st_atime > 1_000_000_000);
    ok!(utimensat(
        "f",
        ts(0, libc::UTIME_OMIT),
        ts(0, libc::UTIME_OMIT),
        0
    ));
}

unsafe fn utimensat_permission() {
    write_file("f", b"");
    chmod("f", 0o666);
    as_user(1000, || {
        // Writable: "now" is allowed, another time is not.
        ok!(libc::utimensat(
            libc::AT_FDCWD,
            c("f").as_ptr(),
            std::ptr::null(),
            0
        ));
        err!(libc::EPERM, utimensat("f", ts(1, 0), ts(1, 0), 0));
    });
    chmod("f", 0o600);
    as_user(1000, || {
        err!(
            libc::EACCES,
            libc::utimensat(libc::AT_FDCWD, c("f").as_ptr(), std::ptr::null(), 0)
        )
    });
}

unsafe fn utimes_old_calls() {
    write_file("f", b"");
    let tv = [
        libc::timeval {
            tv_sec: 3,
            tv_usec: 4,
        },
        libc::timeval {
            tv_sec: 5,
            tv_usec: 6,
        },
    ];
    ok!(sys!(libc::SYS_utimes, c("f").as_ptr(), tv.as_ptr()));
    eq!((stat("f").st_atime, stat("f").st_mtime_nsec), (3, 6000));
    let u = [77i64, 88];
    ok!(sys!(libc::SYS_utime, c("f").as_ptr(), u.as_ptr()));
    eq!((stat("f").st_atime, stat("f").st_mtime), (77, 88));
    ok!(sys!(
        libc::SYS_futimesat,
        libc::AT_FDCWD,
        c("f").as_ptr(),
        tv.as_ptr()
    ));
    eq!(stat("f").st_atime, 3);
    let bad = [libc::timeval {
        tv_sec: 0,
        tv_usec: 1_000_000,
    }; 2];
    err!(
        libc::EINVAL,
        sys!(libc::SYS_utimes, c("f").as_ptr(), bad.as_ptr())
    );
}

unsafe fn times_update_on_use() {
    mkdir("d");
    write_file("d/f", b"x");
    ok!(utimensat("d/f", ts(100, 0), ts(100, 0), 0));
    ok!(utimensat("d", ts(100, 0), ts(100, 0), 0));
    let fd = open("d/f", libc::O_RDWR);
    eq!(stat("d/f").st_mtime, 100);
    write_all(fd, b"y");
    check!(stat("d/f").st_mtime > 100);
    eq!(stat("d").st_mtime, 100);
    write_file("d/g", b"");
    check!(stat("d").st_mtime > 100);
    ok!(utimensat("d", ts(100, 0), ts(100, 0), 0));
    ok!(libc::unlink(c("d/g").as_ptr()));
    check!(stat("d").st_mtime > 100);
    ok!(utimensat("d", ts(100, 0), ts(100, 0), 0));
    ok!(libc::rename(c("d/f").as_ptr(), c("d/h").as_ptr()));
    check!(stat("d").st_mtime > 100);
    // Zero bytes written change nothing; truncation to the same size does.
    ok!(utimensat("d/h", ts(100, 0), ts(100, 0), 0));
    libc::write(fd, b"".as_ptr().cast(), 0);
    eq!(stat("d/h").st_mtime, 100);
    ok!(libc::ftruncate(fd, 0));
    check!(stat("d/h").st_mtime > 100);
}

unsafe fn access(name: &str, mode: i32) -> i32 {
    libc::access(c(name).as_ptr(), mode)
}

unsafe fn access_root_and_user() {
    write_file("f", b"");
    chmod("f", 0);
    ok!(access("f", libc::R_OK | libc::W_OK));
    err!(libc::EACCES, access("f", libc::X_OK));
    chmod("f", 0o100);
    ok!(access("f", libc::X_OK));
    as_user(1000, || {
        err!(libc::EACCES, access("f", libc::R_OK));
        err!(libc::EACCES, access("f", libc::X_OK));
        ok!(access("f", libc::F_OK));
    });
    chmod("f", 0o644);
    as_user(1000, || {
        ok!(access("f", libc::R_OK));
        err!(libc::EACCES, access("f", libc::R_OK | libc::W_OK));
    });
    err!(libc::EINVAL, access("f", 8));
    err!(libc::ENOENT, access("x", libc::F_OK));
}

unsafe fn access_real_ids() {
    write_file("f", b"");
    chmod("f", 0o600);
    in_child(|| {
        // Effective root, real user: access asks for the real one.
        ok!(libc::setresuid(1000, 0, 0));
        err!(libc::EACCES, access("f", libc::R_OK));
        open("f", libc::O_RDONLY);
        ok!(libc::faccessat(
            libc::AT_FDCWD,
            c("f").as_ptr(),
            libc::R_OK,
            libc::AT_EACCESS
        ));
    });
}

unsafe fn faccessat2_flags() {
    write_file("f", b"");
    ok!(libc::symlink(c("nowhere").as_ptr(), c("l").as_ptr()));
    let call =
        |name: &str, m: i32, flags: i32| sys!(439, libc::AT_FDCWD, c(name).as_ptr(), m, flags);
    err!(libc::ENOENT, call("l", libc::F_OK, 0));
    ok!(call("l", libc::F_OK, libc::AT_SYMLINK_NOFOLLOW));
    err!(libc::EINVAL, call("f", libc::F_OK, 1));
    let fd = open("f", libc::O_PATH);
    ok!(sys!(439, fd, c"".as_ptr(), libc::R_OK, libc::AT_EMPTY_PATH));
}

unsafe fn permissions_owner_group_other() {
    write_file("f", b"data");
    chown("f", 1000, 2000);
    // The first class that matches decides, even if a later one is wider.
    chmod("f", 0o077);
    as_user(1000, || {
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY))
    });
    chmod("f", 0o707);
    in_child(|| {
        become_user(1001, 2000, &[]);
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY));
    });
    chmod("f", 0o040);
    in_child(|| {
        become_user(1001, 2000, &[]);
        open("f", libc::O_RDONLY);
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDWR));
    });
    chmod("f", 0o002);
    as_user(1001, || {
        open("f", libc::O_WRONLY);
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY));
    });
}

unsafe fn supplementary_group_access() {
    write_file("f", b"");
    chown("f", 0, 3333);
    chmod("f", 0o060);
    in_child(|| {
        become_user(1000, 1000, &[1, 3333, 9]);
        open("f", libc::O_RDWR);
    });
    as_user(1000, || {
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY))
    });
}

unsafe fn directory_search_and_list() {
    mkdir("d");
    write_file("d/f", b"");
    chown("d", 1000, 1000);
    chmod("d", 0o400);
    as_user(1000, || {
        eq!(std::fs::read_dir("d").map(|d| d.count()).unwrap_or(0), 1);
        err!(libc::EACCES, access("d/f", libc::F_OK));
        err!(libc::EACCES, libc::open(c("d/f").as_ptr(), libc::O_RDONLY));
        err!(libc::EACCES, access("d/none", libc::F_OK));
    });
    chmod("d", 0o100);
    as_user(1000, || {
        open("d/f", libc::O_RDONLY);
        err!(libc::EACCES, libc::open(c("d").as_ptr(), libc::O_RDONLY));
        err!(libc::ENOENT, access("d/none", libc::F_OK));
    });
}

unsafe fn directory_write_permission() {
    mkdir("d");
    write_file("d/f", b"");
    chmod("d", 0o755);
    as_user(1000, || {
        err!(
            libc::EACCES,
            libc::open(c("d/new").as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644)
        );
        err!(libc::EACCES, libc::mkdir(c("d/new").as_ptr(), 0o755));
        err!(libc::EEXIST, libc::mkdir(c("d/f").as_ptr(), 0o755));
        err!(libc::EACCES, libc::unlink(c("d/f").as_ptr()));
        err!(
            libc::EACCES,
            libc::rename(c("d/f").as_ptr(), c("d/g").as_ptr())
        );
        err!(
            libc::EACCES,
            libc::symlink(c("x").as_ptr(), c("d/l").as_ptr())
        );
        // EPERM where links to others' files are refused in general.
        check!(libc::link(c("d/f").as_ptr(), c("d/l").as_ptr()) == -1);
        check!([libc::EACCES, libc::EPERM].contains(&errno()));
    });
    chmod("d", 0o777);
    as_user(1000, || {
        // Write permission on the directory is enough to remove others' files.
        ok!(libc::unlink(c("d/f").as_ptr()));
        write_file("d/mine", b"");
    });
    eq!(stat("d/mine").st_uid, 1000);
}

unsafe fn sticky_directory() {
    mkdir("t");
    chmod("t", 0o1777);
    as_user(1000, || write_file("t/a", b""));
    as_user(1001, || {
        err!(libc::EPERM, libc::unlink(c("t/a").as_ptr()));
        err!(
            libc::EPERM,
            libc::rename(c("t/a").as_ptr(), c("t/b").as_ptr())
        );
        write_file("t/mine", b"");
        err!(
            libc::EPERM,
            libc::rename(c("t/mine").as_ptr(), c("t/a").as_ptr())
        );
        ok!(libc::unlink(c("t/mine").as_ptr()));
    });
    as_user(1000, || {
        ok!(libc::unlink(c("t/a").as_ptr()));
    });
}

unsafe fn setfsuid_effects() {
    write_file("f", b"");
    chmod("f", 0o600);
    in_child(|| {
        eq!(libc::setfsuid(1000), 0);
        eq!(libc::setfsuid(u32::MAX), 1000);
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY));
        libc::setfsuid(0);
        open("f", libc::O_RDONLY);
    });
}

unsafe fn capability_dac_override() {
    write_file("f", b"");
    chown("f", 1, 1);
    chmod("f", 0o600);
    in_child(|| {
        // Root without capabilities is just another user.
        #[repr(C)]
        struct Header(u32, i32);
        let header = Header(0x2008_0522, 0);
        let none = [0u32; 6];
        ok!(sys!(
            libc::SYS_capset,
            &header as *const Header,
            none.as_ptr()
        ));
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY));
        err!(libc::EPERM, libc::chown(c("f").as_ptr(), 0, 0));
        err!(libc::EPERM, libc::chmod(c("f").as_ptr(), 0o777));
    });
}

unsafe fn setxattr(name: &str, key: &str, value: &[u8], flags: i32) -> i32 {
    libc::setxattr(
        c(name).as_ptr(),
        c(key).as_ptr(),
        value.as_ptr().cast(),
        value.len(),
        flags,
    )
}

unsafe fn getxattr(name: &str, key: &str) -> Vec<u8> {
    let mut b = vec![0u8; 1000];
    let n = ok!(libc::getxattr(
        c(name).as_ptr(),
        c(key).as_ptr(),
        b.as_mut_ptr().cast(),
        1000
    ));
    b.truncate(n as usize);
    b
}

unsafe fn need_xattr() {
    write_file("f", b"");
    if setxattr("f", "user.probe", b"1", 0) == -1 && errno() == libc::EOPNOTSUPP {
        skip("no extended attributes on this file system");
    }
    libc::removexattr(c("f").as_ptr(), c"user.probe".as_ptr());
}

unsafe fn xattr_basic() {
    need_xattr();
    ok!(setxattr("f", "user.a", b"value", 0));
    eq!(getxattr("f", "user.a"), b"value");
    ok!(setxattr("f", "user.a", b"", 0));
    eq!(getxattr("f", "user.a"), b"");
    ok!(libc::removexattr(c("f").as_ptr(), c"user.a".as_ptr()));
    err!(
        libc::ENODATA,
        libc::getxattr(c("f").as_ptr(), c"user.a".as_ptr(), std::ptr::null_mut(), 0)
    );
    err!(
        libc::ENODATA,
        libc::removexattr(c("f").as_ptr(), c"user.a".as_ptr())
    );
    let fd = open("f", libc::O_RDONLY);
    ok!(libc::fsetxattr(
        fd,
        c"user.b".as_ptr(),
        b"x".as_ptr().cast(),
        1,
        0
    ));
    eq!(getxattr("f", "user.b"), b"x");
    ok!(libc::fremovexattr(fd, c"user.b".as_ptr()));
}

unsafe fn xattr_flags() {
    need_xattr();
    err!(
        libc::ENODATA,
        setxattr("f", "user.a", b"1", libc::XATTR_REPLACE)
    );
    ok!(setxattr("f", "user.a", b"1", libc::XATTR_CREATE));
    err!(
        libc::EEXIST,
        setxattr("f", "user.a", b"2", libc::XATTR_CREATE)
    );
    ok!(setxattr("f", "user.a", b"2", libc::XATTR_REPLACE));
    eq!(getxattr("f", "user.a"), b"2");
    err!(libc::EINVAL, setxattr("f", "user.a", b"2", 4));
}

unsafe fn xattr_sizes() {
    need_xattr();
    ok!(setxattr("f", "user.a", b"0123456789", 0));
    eq!(
        ok!(libc::getxattr(
            c("f").as_ptr(),
            c"user.a".as_ptr(),
            std::ptr::null_mut(),
            0
        )),
        10
    );
    let mut b = [0u8; 5];
    err!(
        libc::ERANGE,
        libc::getxattr(
            c("f").as_ptr(),
            c"user.a".as_ptr(),
            b.as_mut_ptr().cast(),
            5
        )
    );
    err!(libc::E2BIG, setxattr("f", "user.b", &vec![0; 65537], 0));
    err!(
        libc::ERANGE,
        setxattr("f", &format!("user.{}", "n".repeat(251)), b"", 0)
    );
}

unsafe fn xattr_errors() {
    need_xattr();
    err!(libc::EOPNOTSUPP, setxattr("f", "nonsense", b"", 0));
    err!(libc::EOPNOTSUPP, setxattr("f", "other.name", b"", 0));
    err!(libc::ERANGE, setxattr("f", "", b"", 0));
    let r = setxattr("f", "user.", b"", 0);
    check!(r == -1 && errno() == libc::EINVAL);
    err!(libc::ENOENT, setxattr("x", "user.a", b"", 0));
    chmod("f", 0o644);
    as_user(1000, || {
        err!(libc::EACCES, setxattr("f", "user.a", b"", 0));
        err!(libc::EPERM, setxattr("f", "trusted.a", b"", 0));
        // Hidden from those without the capability.
        err!(
            libc::ENODATA,
            libc::getxattr(
                c("f").as_ptr(),
                c"trusted.a".as_ptr(),
                std::ptr::null_mut(),
                0
            )
        );
    });
}

unsafe fn xattr_list() {
    need_xattr();
    ok!(setxattr("f", "user.one", b"", 0));
    ok!(setxattr("f", "user.two", b"", 0));
    let mut b = [0u8; 300];
    let n = ok!(libc::listxattr(c("f").as_ptr(), b.as_mut_ptr().cast(), 300)) as usize;
    let mut names: Vec<&[u8]> = b[..n]
        .split(|x| *x == 0)
        .filter(|s| s.starts_with(b"user."))
        .collect();
    names.sort_unstable();
    eq!(names, [&b"user.one"[..], b"user.two"]);
    eq!(
        ok!(libc::listxattr(c("f").as_ptr(), std::ptr::null_mut(), 0)) as usize,
        n
    );
    err!(
        libc::ERANGE,
        libc::listxattr(c("f").as_ptr(), b.as_mut_ptr().cast(), 3)
    );
}

unsafe fn xattr_links() {
    need_xattr();
    ok!(libc::symlink(c("f").as_ptr(), c("l").as_ptr()));
    // User attributes are only for files and directories.
    let r = libc::lsetxattr(
        c("l").as_ptr(),
        c"user.a".as_ptr(),
        b"".as_ptr().cast(),
        0,
        0,
    );
    check!(r == -1 && errno() == libc::EPERM, "{r} {}", errno_text());
    ok!(setxattr("l", "user.a", b"via", 0));
    eq!(getxattr("f", "user.a"), b"via");
    mkdir("d");
    ok!(setxattr("d", "user.d", b"dir", 0));
    eq!(getxattr("d", "user.d"), b"dir");
}

/// One entry: inode, next offset, type, name.
type Entry = (u64, i64, u8, String);

unsafe fn getdents(fd: i32, size: usize) -> Vec<Entry> {
    let mut b = vec![0u8; size];
    let n = ok!(sys!(libc::SYS_getdents64, fd, b.as_mut_ptr(), size)) as usize;
    let mut at = 0;
    let mut out = Vec::new();
    while at < n {
        let ino = u64::from_ne_bytes(b[at..at + 8].try_into().unwrap_or_default());
        let off = i64::from_ne_bytes(b[at + 8..at + 16].try_into().unwrap_or_default());
        let len = u16::from_ne_bytes([b[at + 16], b[at + 17]]) as usize;
        check!(len >= 20 && len % 8 == 0 && at + len <= n);
        let name = &b[at + 19..at + len];
        let end = name.iter().position(|x| *x == 0).unwrap_or(name.len());
        out.push((
            ino,
            off,
            b[at + 18],
            String::from_utf8_lossy(&name[..end]).into_owned(),
        ));
        at += len;
    }
    out
}

unsafe fn all_entries(fd: i32, size: usize) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let part = getdents(fd, size);
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

unsafe fn make_entries(n: usize) -> i32 {
    mkdir("d");
    for i in 0..n {
        write_file(&format!("d/file{i:04}"), b"");
    }
    open("d", libc::O_RDONLY | libc::O_DIRECTORY)
}

unsafe fn getdents_lists_all() {
    let fd = make_entries(100);
    let mut names: Vec<String> = all_entries(fd, 4096).into_iter().map(|e| e.3).collect();
    names.sort();
    eq!(names.len(), 102);
    eq!(
        (names[0].as_str(), names[1].as_str(), names[2].as_str()),
        (".", "..", "file0000")
    );
    names.dedup();
    eq!(names.len(), 102);
}

unsafe fn getdents_small_buffer() {
    let fd = make_entries(20);
    let names: Vec<String> = all_entries(fd, 64).into_iter().map(|e| e.3).collect();
    eq!(names.len(), 22);
    err!(libc::EINVAL, {
        libc::lseek(fd, 0, libc::SEEK_SET);
        sys!(libc::SYS_getdents64, fd, [0u8; 8].as_mut_ptr(), 8)
    });
}

unsafe fn getdents_errors() {
    let fd = make_entries(1);
    write_file("f", b"");
    err!(
        libc::ENOTDIR,
        sys!(
            libc::SYS_getdents64,
            open("f", libc::O_RDONLY),
            [0u8; 100].as_mut_ptr(),
            100
        )
    );
    err!(libc::EFAULT, sys!(libc::SYS_getdents64, fd, 8, 100));
    err!(libc::EBADF, sys!(libc::SYS_getdents64, 99, 8, 100));
    ok!(libc::unlink(c("d/file0000").as_ptr()));
    ok!(libc::rmdir(c("d").as_ptr()));
    err!(
        libc::ENOENT,
        sys!(libc::SYS_getdents64, fd, [0u8; 100].as_mut_ptr(), 100)
    );
}

unsafe fn getdents_seek_stable() {
    let fd = make_entries(50);
    let all = all_entries(fd, 4096);
    // Continue behind any entry.
    for i in [0, 1, 10, 30, 49] {
        ok!(libc::lseek(fd, all[i].1, libc::SEEK_SET));
        let rest: Vec<String> = all_entries(fd, 4096).into_iter().map(|e| e.3).collect();
        let expected: Vec<String> = all[i + 1..].iter().map(|e| e.3.clone()).collect();
        eq!(rest, expected, "after entry {i}");
    }
}

unsafe fn getdents_while_deleting() {
    // rm -r reads a part, deletes it and goes on.
    let fd = make_entries(300);
    let mut seen = 0;
    loop {
        let part = getdents(fd, 600);
        if part.is_empty() {
            break;
        }
        for (_, _, _, name) in part {
            if name.starts_with('.') {
                continue;
            }
            seen += 1;
            ok!(libc::unlinkat(fd, c(&name).as_ptr(), 0));
        }
    }
    eq!(seen, 300);
    ok!(libc::rmdir(c("d").as_ptr()));
}

unsafe fn getdents_types() {
    mkdir("d");
    mkdir("d/dir");
    write_file("d/reg", b"");
    ok!(libc::symlink(c("x").as_ptr(), c("d/lnk").as_ptr()));
    ok!(libc::mkfifo(c("d/fifo").as_ptr(), 0o600));
    let fd = open("d", libc::O_RDONLY);
    for (ino, _, kind, name) in all_entries(fd, 4096) {
        let expected = match name.as_str() {
            "." | ".." | "dir" => libc::DT_DIR,
            "reg" => libc::DT_REG,
            "lnk" => libc::DT_LNK,
            _ => libc::DT_FIFO,
        };
        check!(
            kind == expected || kind == libc::DT_UNKNOWN,
            "{name} has type {kind}"
        );
        if !name.starts_with('.') {
            let mut st: libc::stat = std::mem::zeroed();
            ok!(libc::lstat(c(&format!("d/{name}")).as_ptr(), &mut st));
            eq!(st.st_ino, ino);
        }
    }
}

unsafe fn getdents_rewind_sees_new() {
    let fd = make_entries(3);
    eq!(all_entries(fd, 4096).len(), 5);
    write_file("d/new", b"");
    eq!(ok!(libc::lseek(fd, 0, libc::SEEK_SET)), 0);
    check!(all_entries(fd, 4096).iter().any(|e| e.3 == "new"));
}

unsafe fn getdents_dot_inodes() {
    let fd = make_entries(0);
    for (ino, _, _, name) in all_entries(fd, 4096) {
        eq!(ino, stat(&format!("d/{name}")).st_ino, "{name}");
    }
}

unsafe fn readdir_big_directory() {
    let fd = make_entries(3000);
    let mut names: Vec<String> = all_entries(fd, 32768).into_iter().map(|e| e.3).collect();
    names.sort();
    names.dedup();
    eq!(names.len(), 3002);
}

unsafe fn statfs_calls() {
    let mut sf: libc::statfs = std::mem::zeroed();
    ok!(libc::statfs(c".".as_ptr(), &mut sf));
    check!(sf.f_bsize >= 512 && sf.f_namelen == 255);
    check!(sf.f_bfree <= sf.f_blocks);
    ok!(libc::statfs(c"/proc".as_ptr(), &mut sf));
    eq!(sf.f_type, libc::PROC_SUPER_MAGIC);
    ok!(libc::statfs(c"/sys".as_ptr(), &mut sf));
    eq!(sf.f_type, 0x6265_6572);
    ok!(libc::fstatfs(0, &mut sf));
    err!(libc::ENOENT, libc::statfs(c("x").as_ptr(), &mut sf));
    let (r, _w) = pipe();
    ok!(libc::fstatfs(r, &mut sf));
    eq!(sf.f_type, 0x5049_5045);
    ok!(libc::fstatfs(
        ok!(libc::memfd_create(c"m".as_ptr(), 0)),
        &mut sf
    ));
    eq!(sf.f_type, libc::TMPFS_MAGIC);
    ok!(libc::fstatfs(
        ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
        &mut sf
    ));
    eq!(sf.f_type, 0x534f_434b);
    ok!(libc::fstatfs(ok!(libc::eventfd(0, 0)), &mut sf));
    eq!(sf.f_type, 0x0904_1934);
    ok!(libc::fstatfs(
        open("/proc/self/ns/uts", libc::O_RDONLY),
        &mut sf
    ));
    eq!(sf.f_type, libc::NSFS_MAGIC);
}

unsafe fn disk_inode_stability() {
    write_file("f", b"");
    let ino = stat("f").st_ino;
    for _ in 0..10 {
        eq!(stat("f").st_ino, ino);
    }
    ok!(libc::rename(c("f").as_ptr(), c("g").as_ptr()));
    eq!(stat("g").st_ino, ino);
    chmod("g", 0o600);
    let fd = open("g", libc::O_RDWR | libc::O_TRUNC);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    eq!(st.st_ino, ino);
    in_child(|| eq!(stat("g").st_ino, ino));
}

unsafe fn fstat_special() {
    let mut st: libc::stat = std::mem::zeroed();
    let (r, _w) = pipe();
    ok!(libc::fstat(r, &mut st));
    eq!(st.st_mode & libc::S_IFMT, libc::S_IFIFO);
    let s = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    ok!(libc::fstat(s, &mut st));
    eq!(st.st_mode & libc::S_IFMT, libc::S_IFSOCK);
    let e = ok!(libc::eventfd(0, 0));
    ok!(libc::fstat(e, &mut st));
    let ep = ok!(libc::epoll_create1(0));
    ok!(libc::fstat(ep, &mut st));
}

unsafe fn umask_only_on_create() {
    libc::umask(0o077);
    write_file("f", b"");
    eq!(mode("f"), 0o600);
    chmod("f", 0o666);
    eq!(mode("f"), 0o666);
    ok!(libc::mkfifo(c("p").as_ptr(), 0o666));
    eq!(mode("p"), 0o600);
}

unsafe fn immutable_flags_or_enotty() {
    write_file("f", b"");
    let fd = open("f", libc::O_RDONLY);
    let mut flags = 0i64;
    let r = libc::ioctl(fd, 0x8008_6601, &mut flags); // FS_IOC_GETFLAGS
    check!(r == 0 || [libc::ENOTTY, libc::EOPNOTSUPP].contains(&errno()));
}

unsafe fn quota_calls_refused() {
    let r = sys!(
        libc::SYS_quotactl,
        0x8000_0700u32,
        c"/dev/none".as_ptr(),
        0,
        0
    );
    check!(r == -1);
}
