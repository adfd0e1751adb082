//! Opening, creating, linking, renaming and removing files: open(2),
//! openat2(2), link(2), rename(2), unlink(2), symlink(7), path_resolution(7).

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
    lowest_fd,
    fd_limit,
    bad_fds,
    dup_shares_offset,
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
    mkdir_rmdir,
    rmdir_errors,
    rename_file,
    rename_over_open,
    rename_directory,
    rename_errors,
    rename_noreplace,
    rename_exchange,
    rename_same_inode,
    cwd_deleted,
    chdir_fchdir,
    getcwd_calls,
    chroot_confines,
    mknod_kinds,
    dev_files,
    proc_fd_reopen,
    o_creat_existing_symlink,
    o_excl_symlink,
    open_fifo_nonblock,
    open_socket_file,
    noatime_and_direct_flags,
    name_bytes,
    negative_then_create,
    cloexec_default,
    dup3_errors,
    fcntl_dupfd,
    open_readonly_truncate,
];

const CREATE: i32 = libc::O_CREAT | libc::O_RDWR;

unsafe fn stat(name: &str) -> libc::stat {
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::stat(c(name).as_ptr(), &mut st));
    st
}

unsafe fn lstat(name: &str) -> libc::stat {
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::lstat(c(name).as_ptr(), &mut st));
    st
}

unsafe fn try_open(name: &str, flags: i32) -> i32 {
    libc::open(c(name).as_ptr(), flags, 0o644)
}

unsafe fn exists(name: &str) -> bool {
    libc::access(c(name).as_ptr(), libc::F_OK) == 0
}

unsafe fn mkdir(name: &str) {
    ok!(libc::mkdir(c(name).as_ptr(), 0o755));
}

unsafe fn symlink(target: &str, name: &str) {
    ok!(libc::symlink(c(target).as_ptr(), c(name).as_ptr()));
}

unsafe fn rename(a: &str, b: &str) -> i32 {
    libc::rename(c(a).as_ptr(), c(b).as_ptr())
}

unsafe fn as_user(uid: u32, f: impl FnOnce()) {
    in_child(|| {
        ok!(libc::setgroups(0, std::ptr::null()));
        ok!(libc::setresgid(uid, uid, uid));
        ok!(libc::setresuid(uid, uid, uid));
        f();
    });
}

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

unsafe fn lowest_fd() {
    let a = open("/dev/null", libc::O_RDONLY);
    let b = open("/dev/null", libc::O_RDONLY);
    let d = open("/dev/null", libc::O_RDONLY);
    check!(a < b && b < d);
    libc::close(a);
    libc::close(b);
    eq!(open("/dev/null", libc::O_RDONLY), a);
    eq!(ok!(libc::dup(0)), b);
}

unsafe fn fd_limit() {
    in_child(|| {
        let limit = libc::rlimit {
            rlim_cur: 20,
            rlim_max: 20,
        };
        ok!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit));
        let mut last = 0;
        loop {
            let fd = try_open("/dev/null", libc::O_RDONLY);
            if fd == -1 {
                break;
            }
            last = fd;
        }
        eq!(errno(), libc::EMFILE);
        eq!(last, 19);
        err!(libc::EBADF, libc::dup2(0, 20));
        err!(libc::EINVAL, libc::fcntl(0, libc::F_DUPFD, 20));
        let mut fds = [0; 2];
        err!(libc::EMFILE, libc::pipe(fds.as_mut_ptr()));
        err!(
            libc::EMFILE,
            libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)
        );
        libc::close(5);
        eq!(ok!(libc::dup(0)), 5);
    });
}

unsafe fn bad_fds() {
    let mut b = [0u8; 1];
    for fd in [-1, 99, 1 << 20, i32::MAX, i32::MIN] {
        err!(libc::EBADF, libc::read(fd, b.as_mut_ptr().cast(), 1));
        err!(libc::EBADF, libc::write(fd, b.as_ptr().cast(), 1));
        err!(libc::EBADF, libc::close(fd));
        err!(libc::EBADF, libc::fsync(fd));
        err!(libc::EBADF, libc::dup(fd));
        err!(libc::EBADF, libc::fcntl(fd, libc::F_GETFD));
        err!(libc::EBADF, libc::fchdir(fd));
        let mut st: libc::stat = std::mem::zeroed();
        err!(libc::EBADF, libc::fstat(fd, &mut st));
    }
}

unsafe fn dup_shares_offset() {
    write_file("f", b"abcdef");
    let fd = open("f", libc::O_RDWR);
    let d = ok!(libc::dup(fd));
    eq!(read_some(fd, 2), b"ab");
    eq!(read_some(d, 2), b"cd");
    ok!(libc::fcntl(d, libc::F_SETFL, libc::O_APPEND));
    check!(ok!(libc::fcntl(fd, libc::F_GETFL)) & libc::O_APPEND != 0);
    libc::close(fd);
    eq!(read_some(d, 2), b"ef");
    // Another open has its own offset.
    eq!(read_some(open("f", libc::O_RDONLY), 1), b"a");
}

unsafe fn dup3_errors() {
    err!(libc::EINVAL, libc::dup3(0, 0, libc::O_CLOEXEC));
    err!(libc::EINVAL, libc::dup3(0, 9, libc::O_APPEND));
    err!(libc::EBADF, libc::dup3(99, 9, 0));
    err!(libc::EBADF, libc::dup2(99, 99));
    err!(libc::EBADF, libc::dup2(0, -1));
    eq!(ok!(libc::dup2(0, 0)), 0);
}

unsafe fn fcntl_dupfd() {
    eq!(ok!(libc::fcntl(0, libc::F_DUPFD, 200)), 200);
    eq!(ok!(libc::fcntl(0, libc::F_DUPFD, 200)), 201);
    err!(libc::EINVAL, libc::fcntl(0, libc::F_DUPFD, -1));
    err!(libc::EINVAL, libc::fcntl(0, 9999, 0));
}

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

unsafe fn mknod_kinds() {
    ok!(libc::mknod(c("reg").as_ptr(), libc::S_IFREG | 0o600, 0));
    eq!(stat("reg").st_mode, libc::S_IFREG | 0o600);
    ok!(libc::mknod(c("zero-type").as_ptr(), 0o600, 0));
    eq!(stat("zero-type").st_mode, libc::S_IFREG | 0o600);
    ok!(libc::mkfifo(c("fifo").as_ptr(), 0o644));
    eq!(stat("fifo").st_mode, libc::S_IFIFO | 0o644);
    ok!(libc::mknod(c("sock").as_ptr(), libc::S_IFSOCK | 0o644, 0));
    eq!(stat("sock").st_mode & libc::S_IFMT, libc::S_IFSOCK);
    err!(
        libc::EEXIST,
        libc::mknod(c("reg").as_ptr(), libc::S_IFREG | 0o600, 0)
    );
    err!(
        libc::EPERM,
        libc::mknod(c("dir").as_ptr(), libc::S_IFDIR | 0o600, 0)
    );
    err!(libc::EINVAL, libc::mknod(c("bad").as_ptr(), 0o150000, 0));
    as_user(1000, || {
        let r = libc::mknod(
            c("dev").as_ptr(),
            libc::S_IFCHR | 0o600,
            libc::makedev(1, 3),
        );
        check!(r == -1 && (errno() == libc::EPERM || errno() == libc::EACCES));
    });
}

unsafe fn dev_files() {
    let null = open("/dev/null", libc::O_RDWR);
    write_all(null, b"gone");
    eq!(read_some(null, 10), b"");
    let zero = open("/dev/zero", libc::O_RDWR);
    eq!(read_some(zero, 5), [0; 5]);
    write_all(zero, b"gone");
    let full = open("/dev/full", libc::O_RDWR);
    err!(libc::ENOSPC, libc::write(full, b"x".as_ptr().cast(), 1));
    eq!(read_some(full, 3), [0; 3]);
    for name in ["/dev/urandom", "/dev/random"] {
        let fd = open(name, libc::O_RDONLY);
        let (a, b) = (read_some(fd, 32), read_some(fd, 32));
        eq!(a.len(), 32);
        check!(a != b);
    }
    let st = stat("/dev/null");
    eq!(st.st_mode & libc::S_IFMT, libc::S_IFCHR);
    eq!((libc::major(st.st_rdev), libc::minor(st.st_rdev)), (1, 3));
    eq!(stat("/dev/zero").st_rdev, libc::makedev(1, 5));
    err!(
        libc::ENODEV,
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            null,
            0
        )
    );
    check!(exists("/dev/fd/0"));
    let st = stat("/dev/tty");
    eq!((libc::major(st.st_rdev), libc::minor(st.st_rdev)), (5, 0));
    eq!(libc::lseek(null, 100, libc::SEEK_SET), 0);
}

unsafe fn proc_fd_reopen() {
    write_file("f", b"abcdef");
    let fd = open("f", libc::O_RDONLY);
    read_some(fd, 3);
    // A reopen is a new file description with its own offset.
    let again = open(&format!("/proc/self/fd/{fd}"), libc::O_RDWR);
    eq!(read_some(again, 3), b"abc");
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    check!(link.ends_with("f"));
    let (r, w) = pipe();
    let link = std::fs::read_link(format!("/proc/self/fd/{r}")).unwrap_or_default();
    check!(link.to_string_lossy().starts_with("pipe:["), "{link:?}");
    let w2 = open(&format!("/proc/self/fd/{w}"), libc::O_WRONLY);
    write_all(w2, b"p");
    eq!(read_some(r, 1), b"p");
    err!(libc::ENOENT, try_open("/proc/self/fd/99", libc::O_RDONLY));
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

unsafe fn open_fifo_nonblock() {
    ok!(libc::mkfifo(c("p").as_ptr(), 0o644));
    err!(
        libc::ENXIO,
        try_open("p", libc::O_WRONLY | libc::O_NONBLOCK)
    );
    let r = open("p", libc::O_RDONLY | libc::O_NONBLOCK);
    let w = open("p", libc::O_WRONLY | libc::O_NONBLOCK);
    write_all(w, b"hi");
    eq!(read_some(r, 9), b"hi");
    err!(libc::EAGAIN, libc::read(r, [0u8; 1].as_mut_ptr().cast(), 1));
    libc::close(w);
    eq!(read_some(r, 1), b"");
}

unsafe fn open_socket_file() {
    ok!(libc::mknod(c("s").as_ptr(), libc::S_IFSOCK | 0o644, 0));
    err!(libc::ENXIO, try_open("s", libc::O_RDONLY));
    open("s", libc::O_PATH);
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

unsafe fn cloexec_default() {
    let fd = open("/dev/null", libc::O_RDONLY);
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), 0);
    ok!(libc::ioctl(fd, libc::FIOCLEX));
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    ok!(libc::ioctl(fd, libc::FIONCLEX));
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), 0);
}
