//! How a path is walked: path_resolution(7), openat2(2), chdir(2), chroot(2).

use super::*;
use crate::util::*;

cases![
    openat_relative,
    openat_errors,
    openat2_basic,
    openat2_resolve_beneath,
    openat2_resolve_in_root,
    openat2_resolve_no_symlinks,
    openat2_errors,
    trailing_slash,
    dot_and_dotdot,
    empty_path,
    long_names,
    cwd_deleted,
    chdir_fchdir,
    getcwd_calls,
    chroot_confines,
    name_bytes,
    negative_then_create,
];

unsafe fn openat_relative() {
    mkdir("d");
    let d = open("d", libc::O_RDONLY);
    let fd = ok!(libc::openat(d, c"x".as_ptr(), CREATE, 0o644));
    write_all(fd, b"1");
    check!(exists("d/x"));
    // The descriptor follows the directory when it moves.
    ok!(rename("d", "e"));
    ok!(libc::openat(d, c"x".as_ptr(), libc::O_RDONLY));
    ok!(libc::mkdirat(d, c"sub".as_ptr(), 0o755));
    check!(exists("e/sub"));
    ok!(libc::unlinkat(d, c"sub".as_ptr(), libc::AT_REMOVEDIR));
    ok!(libc::unlinkat(d, c"x".as_ptr(), 0));
    // Absolute paths ignore the descriptor, even a bad one.
    ok!(libc::openat(-7, c"/dev/null".as_ptr(), libc::O_RDONLY));
}

unsafe fn openat_errors() {
    err!(libc::EBADF, libc::openat(-7, c"x".as_ptr(), libc::O_RDONLY));
    err!(libc::EBADF, libc::openat(99, c"x".as_ptr(), libc::O_RDONLY));
    err!(
        libc::ENOTDIR,
        libc::openat(0, c"x".as_ptr(), libc::O_RDONLY)
    );
    err!(
        libc::EINVAL,
        libc::unlinkat(libc::AT_FDCWD, c"x".as_ptr(), 1)
    );
    err!(
        libc::EINVAL,
        libc::faccessat(libc::AT_FDCWD, c"x".as_ptr(), 0o10, 0)
    );
    // A deleted directory takes no new names.
    mkdir("gone");
    let d = open("gone", libc::O_RDONLY);
    ok!(libc::rmdir(c("gone").as_ptr()));
    err!(libc::ENOENT, libc::openat(d, c"x".as_ptr(), CREATE, 0o644));
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

unsafe fn openat2(dir: i32, path: &str, flags: i32, mode: u64, resolve: u64) -> i64 {
    let how = OpenHow {
        flags: flags as u64,
        mode,
        resolve,
    };
    sys!(
        libc::SYS_openat2,
        dir,
        c(path).as_ptr(),
        &how as *const OpenHow,
        24
    )
}

const NO_XDEV: u64 = 1;

const NO_MAGICLINKS: u64 = 2;

const NO_SYMLINKS: u64 = 4;

const BENEATH: u64 = 8;

const IN_ROOT: u64 = 16;

unsafe fn openat2_basic() {
    let fd = ok!(openat2(libc::AT_FDCWD, "f", CREATE, 0o640, 0)) as i32;
    write_all(fd, b"x");
    eq!(stat("f").st_mode & 0o777, 0o640);
    ok!(openat2(libc::AT_FDCWD, "f", libc::O_RDONLY, 0, NO_XDEV));
}

unsafe fn openat2_resolve_beneath() {
    mkdir("d");
    mkdir("d/e");
    write_file("d/in", b"");
    write_file("out", b"");
    symlink("../out", "d/up");
    symlink("/etc", "d/abs");
    symlink("e/../in", "d/ok");
    let d = open("d", libc::O_PATH);
    ok!(openat2(d, "in", 0, 0, BENEATH));
    ok!(openat2(d, "e/../in", 0, 0, BENEATH));
    ok!(openat2(d, "ok", 0, 0, BENEATH));
    err!(libc::EXDEV, openat2(d, "../out", 0, 0, BENEATH));
    err!(libc::EXDEV, openat2(d, "up", 0, 0, BENEATH));
    err!(libc::EXDEV, openat2(d, "abs/passwd", 0, 0, BENEATH));
    err!(libc::EXDEV, openat2(d, "/dev/null", 0, 0, BENEATH));
}

unsafe fn openat2_resolve_in_root() {
    mkdir("d");
    write_file("d/f", b"inside");
    symlink("/f", "d/abs");
    symlink("../../../f", "d/up");
    let d = open("d", libc::O_PATH);
    for name in ["/f", "../f", "abs", "up", "../../../../f"] {
        let fd = ok!(openat2(d, name, 0, 0, IN_ROOT)) as i32;
        eq!(read_some(fd, 10), b"inside");
    }
}

unsafe fn openat2_resolve_no_symlinks() {
    write_file("f", b"");
    symlink("f", "l");
    symlink(".", "dot");
    err!(libc::ELOOP, openat2(libc::AT_FDCWD, "l", 0, 0, NO_SYMLINKS));
    err!(
        libc::ELOOP,
        openat2(libc::AT_FDCWD, "dot/f", 0, 0, NO_SYMLINKS)
    );
    ok!(openat2(libc::AT_FDCWD, "f", 0, 0, NO_SYMLINKS));
    err!(
        libc::ELOOP,
        openat2(libc::AT_FDCWD, "/proc/self/fd/0", 0, 0, NO_MAGICLINKS)
    );
    ok!(openat2(libc::AT_FDCWD, "l", 0, 0, NO_MAGICLINKS));
}

unsafe fn openat2_errors() {
    write_file("f", b"");
    err!(libc::EINVAL, openat2(libc::AT_FDCWD, "f", 0, 0o644, 0));
    err!(
        libc::EINVAL,
        openat2(libc::AT_FDCWD, "f", CREATE, 0o10000, 0)
    );
    err!(
        libc::EINVAL,
        openat2(libc::AT_FDCWD, "f", 0x4000_0000, 0, 0)
    );
    err!(libc::EINVAL, openat2(libc::AT_FDCWD, "f", 0, 0, 0x100));
    err!(
        libc::EINVAL,
        openat2(libc::AT_FDCWD, "f", 0, 0, BENEATH | IN_ROOT)
    );
    let how = [0u64; 4];
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            c("f").as_ptr(),
            how.as_ptr(),
            16
        )
    );
    ok!(sys!(
        libc::SYS_openat2,
        libc::AT_FDCWD,
        c("f").as_ptr(),
        how.as_ptr(),
        32
    ));
    let how = [0, 0, 0, 1u64];
    err!(
        libc::E2BIG,
        sys!(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            c("f").as_ptr(),
            how.as_ptr(),
            32
        )
    );
    err!(
        libc::EFAULT,
        sys!(libc::SYS_openat2, libc::AT_FDCWD, c("f").as_ptr(), 8, 24)
    );
}

unsafe fn trailing_slash() {
    write_file("f", b"");
    mkdir("d");
    symlink("d", "ld");
    symlink("f", "lf");
    err!(libc::ENOTDIR, try_open("f/", libc::O_RDONLY));
    open("d/", libc::O_RDONLY);
    open("d///", libc::O_RDONLY);
    err!(libc::EISDIR, try_open("new/", CREATE));
    err!(libc::ENOTDIR, try_open("lf/", libc::O_RDONLY));
    eq!(lstat("ld/").st_mode & libc::S_IFMT, libc::S_IFDIR);
    eq!(lstat("ld").st_mode & libc::S_IFMT, libc::S_IFLNK);
    ok!(libc::mkdir(c("n/").as_ptr(), 0o755));
    ok!(libc::rmdir(c("n/").as_ptr()));
    err!(libc::ENOTDIR, libc::unlink(c("f/").as_ptr()));
    err!(libc::ENOTDIR, libc::unlink(c("ld/").as_ptr()));
    err!(
        libc::ENOENT,
        libc::symlink(c("x").as_ptr(), c("nl/").as_ptr())
    );
    err!(libc::ENOTDIR, rename("f/", "g"));
    ok!(rename("d/", "e/"));
    err!(libc::ENOTDIR, libc::access(c("f/").as_ptr(), libc::F_OK));
}

unsafe fn dot_and_dotdot() {
    mkdir("a");
    mkdir("a/b");
    write_file("a/f", b"");
    check!(exists("a/./b/../f"));
    check!(exists("./a/b/.././b/../../a/f"));
    err!(
        libc::ENOENT,
        libc::access(c("a/none/../f").as_ptr(), libc::F_OK)
    );
    err!(
        libc::ENOTDIR,
        libc::access(c("a/f/..").as_ptr(), libc::F_OK)
    );
    check!(exists("/../../.."));
    eq!(stat("/..").st_ino, stat("/").st_ino);
    eq!(stat("a/b/..").st_ino, stat("a").st_ino);
    check!(exists("a//b///../f"));
    err!(libc::EINVAL, libc::rmdir(c("a/b/.").as_ptr()));
    err!(libc::ENOTEMPTY, libc::rmdir(c("a/b/..").as_ptr()));
    err!(libc::EEXIST, libc::mkdir(c("a/.").as_ptr(), 0o755));
    err!(libc::EBUSY, rename("a/.", "z"));
}

unsafe fn empty_path() {
    err!(libc::ENOENT, try_open("", libc::O_RDONLY));
    err!(libc::ENOENT, libc::mkdir(c("").as_ptr(), 0o755));
    err!(libc::ENOENT, libc::unlink(c("").as_ptr()));
    err!(libc::ENOENT, libc::chdir(c("").as_ptr()));
    let mut st: libc::stat = std::mem::zeroed();
    err!(libc::ENOENT, libc::stat(c("").as_ptr(), &mut st));
    err!(libc::ENOENT, rename("", "x"));
    ok!(libc::fstatat(
        libc::AT_FDCWD,
        c("").as_ptr(),
        &mut st,
        libc::AT_EMPTY_PATH
    ));
    eq!(st.st_ino, stat(".").st_ino);
}

unsafe fn long_names() {
    let max = "n".repeat(255);
    write_file(&max, b"x");
    eq!(stat(&max).st_size, 1);
    err!(libc::ENAMETOOLONG, try_open(&"n".repeat(256), CREATE));
    err!(
        libc::ENAMETOOLONG,
        libc::mkdir(c(&"n".repeat(256)).as_ptr(), 0o755)
    );
    err!(
        libc::ENAMETOOLONG,
        libc::access(c(&"n".repeat(256)).as_ptr(), libc::F_OK)
    );
    // Paths: 4095 bytes work, 4096 do not.
    let path = format!("{}{}", "./".repeat(1920), max);
    eq!(path.len(), 4095);
    eq!(stat(&path).st_size, 1);
    err!(
        libc::ENAMETOOLONG,
        try_open(&format!("/{path}"), libc::O_RDONLY)
    );
    // A deep tree beyond PATH_MAX by steps.
    let step = "d".repeat(200);
    for _ in 0..25 {
        mkdir(&step);
        ok!(libc::chdir(c(&step).as_ptr()));
    }
    write_file("deep", b"");
    let mut buf = vec![0u8; 8192];
    // The kernel call can't give more than PATH_MAX.
    let r = sys!(libc::SYS_getcwd, buf.as_mut_ptr(), buf.len());
    check!(r == -1 && errno() == libc::ENAMETOOLONG, "{r}");
    for _ in 0..25 {
        ok!(libc::chdir(c"..".as_ptr()));
    }
}

unsafe fn cwd_deleted() {
    mkdir("d");
    ok!(libc::chdir(c("d").as_ptr()));
    ok!(libc::rmdir(c("../d").as_ptr()));
    let mut b = [0u8; 1000];
    err!(libc::ENOENT, sys!(libc::SYS_getcwd, b.as_mut_ptr(), 1000));
    err!(libc::ENOENT, try_open("x", CREATE));
    let link = std::fs::read_link("/proc/self/cwd").unwrap_or_default();
    check!(link.to_string_lossy().ends_with("/d (deleted)"), "{link:?}");
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::stat(c".".as_ptr(), &mut st));
    ok!(libc::chdir(c"..".as_ptr()));
}

unsafe fn chdir_fchdir() {
    mkdir("d");
    write_file("f", b"");
    let top = open(".", libc::O_RDONLY);
    ok!(libc::chdir(c("d").as_ptr()));
    write_file("in", b"");
    ok!(libc::fchdir(top));
    check!(exists("d/in"));
    err!(libc::ENOTDIR, libc::chdir(c("f").as_ptr()));
    err!(libc::ENOENT, libc::chdir(c("x").as_ptr()));
    err!(libc::ENOTDIR, libc::fchdir(open("f", libc::O_RDONLY)));
    ok!(libc::chmod(c("d").as_ptr(), 0o600));
    as_user(1000, || err!(libc::EACCES, libc::chdir(c("d").as_ptr())));
}

unsafe fn getcwd_calls() {
    let mut b = [0u8; 4096];
    let n = ok!(sys!(libc::SYS_getcwd, b.as_mut_ptr(), 4096)) as usize;
    check!(b[0] == b'/' && b[n - 1] == 0 && !b[..n - 1].contains(&0));
    err!(libc::ERANGE, sys!(libc::SYS_getcwd, b.as_mut_ptr(), n - 1));
    eq!(ok!(sys!(libc::SYS_getcwd, b.as_mut_ptr(), n)) as usize, n);
    ok!(libc::chdir(c"/".as_ptr()));
    eq!(ok!(sys!(libc::SYS_getcwd, b.as_mut_ptr(), 4096)), 2);
    ok!(libc::chdir(c"/proc/self/../../dev/.".as_ptr()));
    ok!(sys!(libc::SYS_getcwd, b.as_mut_ptr(), 4096));
    eq!(&b[..5], b"/dev\0");
}

unsafe fn chroot_confines() {
    need_cap(CAP_SYS_CHROOT, "CAP_SYS_CHROOT");
    mkdir("root");
    write_file("root/f", b"in");
    symlink("/f", "root/l");
    in_child(|| {
        ok!(libc::chroot(c("root").as_ptr()));
        ok!(libc::chdir(c"/".as_ptr()));
        eq!(read_file("/f"), b"in");
        eq!(read_file("/l"), b"in");
        eq!(read_file("/../../f"), b"in");
        check!(!exists("/etc"));
        let mut b = [0u8; 100];
        eq!(ok!(sys!(libc::SYS_getcwd, b.as_mut_ptr(), 100)), 2);
        err!(libc::ENOTDIR, libc::chroot(c("/f").as_ptr()));
    });
    as_user(1000, || err!(libc::EPERM, libc::chroot(c("root").as_ptr())));
}

unsafe fn name_bytes() {
    // Any byte but '/' and NUL.
    let names: Vec<std::ffi::CString> = [
        &b"\xff\xfe"[..],
        b"a b",
        b"new\nline",
        b"-",
        b"\x01",
        b"...",
    ]
    .iter()
    .map(|n| std::ffi::CString::new(*n).unwrap_or_default())
    .collect();
    for n in &names {
        let fd = ok!(libc::open(n.as_ptr(), CREATE, 0o644));
        libc::close(fd);
    }
    eq!(
        std::fs::read_dir(".").map(|d| d.count()).unwrap_or(0),
        names.len()
    );
}

unsafe fn negative_then_create() {
    for i in 0..50 {
        let name = format!("n{}", i % 5);
        check!(!exists(&name));
        write_file(&name, b"x");
        check!(exists(&name));
        ok!(libc::unlink(c(&name).as_ptr()));
    }
    // Another process creates what we have seen missing.
    check!(!exists("later"));
    in_child(|| write_file("later", b""));
    check!(exists("later"));
    in_child(|| {
        ok!(rename("later", "moved"));
    });
    check!(!exists("later") && exists("moved"));
}
