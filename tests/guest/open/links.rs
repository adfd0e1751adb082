//! symlink(7), link(2), unlink(2).

use super::*;
use crate::util::*;

cases![
    symlink_basic,
    symlink_loops,
    symlink_dangling_create,
    symlink_chain_limit,
    readlink_calls,
    link_basic,
    link_errors,
    link_symlink_itself,
    unlink_open_file,
    unlink_errors,
];

unsafe fn symlink_basic() {
    symlink("target/that does not exist", "l");
    let st = lstat("l");
    eq!(st.st_mode, libc::S_IFLNK | 0o777);
    eq!(st.st_size, 26);
    err!(
        libc::EEXIST,
        libc::symlink(c("x").as_ptr(), c("l").as_ptr())
    );
    err!(libc::ENOENT, libc::symlink(c("").as_ptr(), c("m").as_ptr()));
    err!(
        libc::ENAMETOOLONG,
        libc::symlink(c(&"x".repeat(4096)).as_ptr(), c("m").as_ptr())
    );
    write_file("f", b"yes");
    mkdir("d");
    symlink("../f", "d/up");
    eq!(read_file("d/up"), b"yes");
    let cwd = std::env::current_dir().unwrap_or_default();
    symlink(&format!("{}/f", cwd.display()), "d/abs");
    eq!(read_file("d/abs"), b"yes");
    symlink("d", "ld");
    eq!(read_file("ld/up"), b"yes");
    // `..` behind a link to a directory is the target's parent.
    mkdir("d/deep");
    symlink("d/deep", "s");
    check!(exists("s/../up"));
}

unsafe fn symlink_loops() {
    symlink("a", "b");
    symlink("b", "a");
    err!(libc::ELOOP, try_open("a", libc::O_RDONLY));
    err!(libc::ELOOP, try_open("a/x", libc::O_RDONLY));
    let mut st: libc::stat = std::mem::zeroed();
    err!(libc::ELOOP, libc::stat(c("a").as_ptr(), &mut st));
    ok!(libc::lstat(c("a").as_ptr(), &mut st));
    err!(libc::ELOOP, libc::chdir(c("a").as_ptr()));
    ok!(libc::unlink(c("a").as_ptr()));
}

unsafe fn symlink_dangling_create() {
    symlink("later", "l");
    let fd = open("l", CREATE);
    write_all(fd, b"1");
    eq!(read_file("later"), b"1");
    symlink("no/dir/x", "m");
    err!(libc::ENOENT, try_open("m", CREATE));
    err!(libc::EEXIST, libc::mkdir(c("m").as_ptr(), 0o755));
}

unsafe fn symlink_chain_limit() {
    write_file("l0", b"end");
    for i in 1..=41 {
        symlink(&format!("l{}", i - 1), &format!("l{i}"));
    }
    eq!(read_file("l40"), b"end");
    err!(libc::ELOOP, try_open("l41", libc::O_RDONLY));
}

unsafe fn readlink_calls() {
    symlink("0123456789", "l");
    let mut b = [b'.'; 20];
    eq!(
        libc::readlink(c("l").as_ptr(), b.as_mut_ptr().cast(), 20),
        10
    );
    eq!(&b[..11], b"0123456789.");
    eq!(libc::readlink(c("l").as_ptr(), b.as_mut_ptr().cast(), 4), 4);
    err!(
        libc::EINVAL,
        libc::readlink(c("l").as_ptr(), b.as_mut_ptr().cast(), 0)
    );
    write_file("f", b"");
    err!(
        libc::EINVAL,
        libc::readlink(c("f").as_ptr(), b.as_mut_ptr().cast(), 20)
    );
    err!(
        libc::ENOENT,
        libc::readlink(c("x").as_ptr(), b.as_mut_ptr().cast(), 20)
    );
    err!(
        libc::EFAULT,
        libc::readlink(c("l").as_ptr(), 8 as *mut _, 20)
    );
}

unsafe fn link_basic() {
    write_file("a", b"x");
    ok!(libc::link(c("a").as_ptr(), c("b").as_ptr()));
    let (a, b) = (stat("a"), stat("b"));
    eq!(a.st_ino, b.st_ino);
    eq!(a.st_nlink, 2);
    ok!(libc::unlink(c("a").as_ptr()));
    eq!(stat("b").st_nlink, 1);
    eq!(read_file("b"), b"x");
    let fd = open("b", libc::O_RDWR | libc::O_APPEND);
    ok!(libc::link(c("b").as_ptr(), c("d").as_ptr()));
    write_all(fd, b"y");
    eq!(read_file("d"), b"xy");
}

unsafe fn link_errors() {
    write_file("a", b"");
    mkdir("d");
    let link = |a: &str, b: &str| libc::link(c(a).as_ptr(), c(b).as_ptr());
    err!(libc::EEXIST, link("a", "a"));
    err!(libc::EEXIST, link("a", "d"));
    err!(libc::ENOENT, link("x", "y"));
    err!(libc::ENOENT, link("a", "no/y"));
    err!(libc::EPERM, link("d", "e"));
    err!(libc::ENOTDIR, link("a", "a/x"));
    err!(libc::EXDEV, link("a", "/dev/shm/x"));
    err!(
        libc::EINVAL,
        libc::linkat(
            libc::AT_FDCWD,
            c("a").as_ptr(),
            libc::AT_FDCWD,
            c("z").as_ptr(),
            1
        )
    );
}

unsafe fn link_symlink_itself() {
    symlink("target", "l");
    ok!(libc::link(c("l").as_ptr(), c("m").as_ptr()));
    eq!(lstat("m").st_ino, lstat("l").st_ino);
    err!(
        libc::ENOENT,
        libc::linkat(
            libc::AT_FDCWD,
            c("l").as_ptr(),
            libc::AT_FDCWD,
            c("n").as_ptr(),
            libc::AT_SYMLINK_FOLLOW
        )
    );
}

unsafe fn unlink_open_file() {
    write_file("f", b"kept");
    let fd = open("f", libc::O_RDWR);
    ok!(libc::unlink(c("f").as_ptr()));
    check!(!exists("f"));
    eq!(read_some(fd, 10), b"kept");
    write_all(fd, b" more");
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    eq!((st.st_nlink, st.st_size), (0, 9));
    // A new file of the same name is another one.
    write_file("f", b"new");
    eq!(libc::pread(fd, [0u8; 9].as_mut_ptr().cast(), 9, 0), 9);
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    check!(link.to_string_lossy().ends_with("/f (deleted)"), "{link:?}");
    let again = open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY);
    eq!(read_some(again, 20), b"kept more");
    ok!(libc::ftruncate(fd, 2));
    ok!(libc::fchmod(fd, 0o600));
    ok!(libc::fsync(fd));
}

unsafe fn unlink_errors() {
    mkdir("d");
    err!(libc::EISDIR, libc::unlink(c("d").as_ptr()));
    err!(libc::ENOENT, libc::unlink(c("x").as_ptr()));
    write_file("f", b"");
    err!(
        libc::ENOTDIR,
        libc::unlinkat(libc::AT_FDCWD, c("f").as_ptr(), libc::AT_REMOVEDIR)
    );
    err!(libc::EISDIR, libc::unlink(c("/").as_ptr()));
    write_file("d/f", b"");
    as_user(1000, || err!(libc::EACCES, libc::unlink(c("d/f").as_ptr())));
}
