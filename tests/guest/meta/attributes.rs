//! stat(2), statx(2), utimensat(2), statfs(2).

use super::*;
use crate::util::*;

cases![
    stat_fields,
    stat_kinds,
    statx_calls,
    fstatat_flags,
    utimensat_values,
    utimensat_now_omit,
    utimensat_permission,
    utimes_old_calls,
    times_update_on_use,
    statfs_calls,
    disk_inode_stability,
    fstat_special,
    umask_only_on_create,
    immutable_flags_or_enotty,
    quota_calls_refused,
];

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
