//! mkdir(2), rmdir(2), rename(2).

use super::*;
use crate::util::*;

cases![
    mkdir_rmdir,
    rmdir_errors,
    rename_file,
    rename_over_open,
    rename_directory,
    rename_errors,
    rename_noreplace,
    rename_exchange,
    rename_same_inode,
];

unsafe fn mkdir_rmdir() {
    let before = stat(".").st_nlink;
    mkdir("d");
    let st = stat("d");
    eq!(st.st_mode, libc::S_IFDIR | 0o755);
    // Directories count their sub-directories, or always show 1.
    let nlink = stat(".").st_nlink;
    check!(nlink == before + 1 || nlink == 1, "{before} {nlink}");
    err!(libc::EEXIST, libc::mkdir(c("d").as_ptr(), 0o755));
    write_file("f", b"");
    err!(libc::EEXIST, libc::mkdir(c("f").as_ptr(), 0o755));
    err!(libc::ENOENT, libc::mkdir(c("x/y").as_ptr(), 0o755));
    err!(libc::ENOTDIR, libc::mkdir(c("f/y").as_ptr(), 0o755));
    ok!(libc::mkdir(c("sticky").as_ptr(), 0o1777));
    eq!(stat("sticky").st_mode & 0o7777, 0o1755);
    ok!(libc::rmdir(c("d").as_ptr()));
    check!(!exists("d"));
}

unsafe fn rmdir_errors() {
    mkdir("d");
    write_file("d/f", b"");
    err!(libc::ENOTEMPTY, libc::rmdir(c("d").as_ptr()));
    err!(libc::ENOTDIR, libc::rmdir(c("d/f").as_ptr()));
    err!(libc::ENOENT, libc::rmdir(c("x").as_ptr()));
    err!(libc::EBUSY, libc::rmdir(c("/").as_ptr()));
    symlink("d", "l");
    err!(libc::ENOTDIR, libc::rmdir(c("l").as_ptr()));
}

unsafe fn rename_file() {
    write_file("a", b"1");
    let ino = stat("a").st_ino;
    ok!(rename("a", "b"));
    check!(!exists("a"));
    eq!(stat("b").st_ino, ino);
    write_file("d", b"2");
    ok!(rename("b", "d"));
    eq!(read_file("d"), b"1");
    mkdir("sub");
    ok!(rename("d", "sub/e"));
    eq!(stat("sub/e").st_ino, ino);
    // A symlink is renamed itself.
    symlink("nowhere", "l");
    ok!(rename("l", "m"));
    eq!(lstat("m").st_mode & libc::S_IFMT, libc::S_IFLNK);
}

unsafe fn rename_over_open() {
    write_file("old", b"old");
    write_file("new", b"new");
    let fd = open("old", libc::O_RDONLY);
    ok!(rename("new", "old"));
    eq!(read_some(fd, 9), b"old");
    eq!(read_file("old"), b"new");
}

unsafe fn rename_directory() {
    mkdir("a");
    write_file("a/f", b"x");
    mkdir("empty");
    ok!(rename("a", "empty"));
    eq!(read_file("empty/f"), b"x");
    mkdir("full");
    write_file("full/g", b"");
    err!(libc::ENOTEMPTY, rename("empty", "full"));
    // Children stay reachable through open descriptors and the working directory.
    mkdir("w");
    ok!(libc::chdir(c("w").as_ptr()));
    ok!(rename("../w", "../v"));
    let cwd = std::env::current_dir().unwrap_or_default();
    check!(cwd.ends_with("v"), "{cwd:?}");
    ok!(libc::chdir(c"..".as_ptr()));
    mkdir("p");
    ok!(rename("v", "p/v"));
    eq!(stat("p/v/..").st_ino, stat("p").st_ino);
}

unsafe fn rename_errors() {
    write_file("f", b"");
    mkdir("d");
    err!(libc::ENOENT, rename("x", "y"));
    err!(libc::EISDIR, rename("f", "d"));
    err!(libc::ENOTDIR, rename("d", "f"));
    err!(libc::EINVAL, rename("d", "d/sub"));
    mkdir("d/sub");
    err!(libc::ENOTEMPTY, rename("d/sub", "d"));
    err!(libc::ENOENT, rename("f", "no/x"));
    err!(libc::EXDEV, rename("f", "/proc/x"));
    // The working directory may be on another file system than the root.
    err!(libc::EBUSY, rename("/", "/renamed-root"));
    err!(libc::ENOTDIR, rename("f", "f/x"));
    err!(
        libc::EINVAL,
        libc::renameat2(
            libc::AT_FDCWD,
            c("f").as_ptr(),
            libc::AT_FDCWD,
            c("g").as_ptr(),
            0x100
        )
    );
    err!(
        libc::EINVAL,
        libc::renameat2(
            libc::AT_FDCWD,
            c("f").as_ptr(),
            libc::AT_FDCWD,
            c("g").as_ptr(),
            3
        )
    );
}

unsafe fn rename_noreplace() {
    write_file("a", b"a");
    write_file("b", b"b");
    let call = |a: &str, b: &str| {
        libc::renameat2(
            libc::AT_FDCWD,
            c(a).as_ptr(),
            libc::AT_FDCWD,
            c(b).as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    err!(libc::EEXIST, call("a", "b"));
    eq!(read_file("b"), b"b");
    ok!(call("a", "d"));
    check!(exists("d") && !exists("a"));
}

unsafe fn rename_exchange() {
    write_file("a", b"a");
    mkdir("d");
    write_file("d/x", b"");
    let call = |a: &str, b: &str| {
        libc::renameat2(
            libc::AT_FDCWD,
            c(a).as_ptr(),
            libc::AT_FDCWD,
            c(b).as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    let r = call("a", "d");
    if r == -1 && errno() == libc::EINVAL {
        skip("no RENAME_EXCHANGE on this file system");
    }
    ok!(r);
    check!(exists("a/x"));
    eq!(read_file("d"), b"a");
    err!(libc::ENOENT, call("a", "none"));
}

unsafe fn rename_same_inode() {
    write_file("a", b"");
    ok!(libc::link(c("a").as_ptr(), c("b").as_ptr()));
    // Two names of one file: nothing happens.
    ok!(rename("a", "b"));
    check!(exists("a") && exists("b"));
    ok!(rename("a", "a"));
}
