//! What can be executed: execve(2), execveat(2).

use super::*;
use crate::helpers::exe;
use crate::util::{self, *};

cases![
    path_errors,
    permission_errors,
    format_errors,
    bad_pointers,
    execveat_empty_path,
    execveat_dirfd,
    execveat_nofollow,
    execveat_script_cloexec,
    fexec_memfd,
    text_busy,
    noexec_directory,
];

unsafe fn path_errors() {
    eq!(exec_errno("/does/not/exist"), libc::ENOENT);
    eq!(exec_errno(""), libc::ENOENT);
    write_file("plain", b"");
    eq!(exec_errno("plain/x"), libc::ENOTDIR);
    ok!(libc::symlink(c("loop").as_ptr(), c("loop").as_ptr()));
    eq!(exec_errno("loop"), libc::ELOOP);
    let long = "n".repeat(256);
    eq!(exec_errno(&long), libc::ENAMETOOLONG);
    eq!(exec_errno(&"d/".repeat(2100)), libc::ENAMETOOLONG);
    ok!(libc::symlink(c("nowhere").as_ptr(), c("dangling").as_ptr()));
    eq!(exec_errno("dangling"), libc::ENOENT);
}

unsafe fn permission_errors() {
    write_file("noexec", b"#!/bin/sh\n");
    eq!(exec_errno("noexec"), libc::EACCES);
    eq!(exec_errno("/tmp"), libc::EACCES);
    eq!(exec_errno("/dev/null"), libc::EACCES);
    // A single x bit is enough for root; not for another user.
    ok!(libc::chmod(c("noexec").as_ptr(), 0o744));
    in_child(|| {
        ok!(libc::setresuid(1234, 1234, 1234));
        eq!(exec_errno("noexec"), libc::EACCES);
    });
    // Search permission on the way.
    ok!(libc::mkdir(c("closed").as_ptr(), 0o700));
    write_file("closed/x", b"#!/bin/sh\n");
    ok!(libc::chmod(c("closed/x").as_ptr(), 0o755));
    in_child(|| {
        ok!(libc::setresuid(1234, 1234, 1234));
        eq!(exec_errno("closed/x"), libc::EACCES);
    });
}

unsafe fn format_errors() {
    make_exec("empty", b"");
    eq!(exec_errno("empty"), libc::ENOEXEC);
    make_exec("text", b"echo hello\n");
    eq!(exec_errno("text"), libc::ENOEXEC);
    make_exec("magic", b"\x7fELF");
    eq!(exec_errno("magic"), libc::ENOEXEC);
    let me = read_file(&me());
    // Foreign machine (AArch64).
    let mut head = me[..4096].to_vec();
    head[18] = 183;
    make_exec("arm", &head);
    eq!(exec_errno("arm"), libc::ENOEXEC);
    // Neither executable nor shared object.
    let mut head = me[..4096].to_vec();
    head[16] = 1;
    make_exec("rel", &head);
    eq!(exec_errno("rel"), libc::ENOEXEC);
    // Program header size that is not that of the class.
    let mut head = me[..4096].to_vec();
    head[54] = 55;
    make_exec("phsize", &head);
    eq!(exec_errno("phsize"), libc::ENOEXEC);
    // Program headers behind the end of the file.
    let mut head = me[..4096].to_vec();
    head[32..40].copy_from_slice(&0x100_0000u64.to_le_bytes());
    make_exec("phoff", &head);
    let e = exec_errno("phoff");
    check!(e == libc::ENOEXEC || e == libc::EIO, "errno {e}");
}

unsafe fn bad_pointers() {
    let path = exe();
    let argv = [path.as_ptr(), std::ptr::null()];
    err!(libc::EFAULT, sys!(libc::SYS_execve, 8, argv.as_ptr(), 0));
    err!(libc::EFAULT, sys!(libc::SYS_execve, path.as_ptr(), 8, 0));
    err!(
        libc::EFAULT,
        sys!(libc::SYS_execve, path.as_ptr(), argv.as_ptr(), 8)
    );
    let bad = [8 as *const libc::c_char, std::ptr::null()];
    err!(
        libc::EFAULT,
        sys!(libc::SYS_execve, path.as_ptr(), bad.as_ptr(), 0)
    );
}

unsafe fn execveat(dirfd: i32, path: &str, flags: i32) -> i64 {
    let argv = [
        c"x".as_ptr(),
        c"exit".as_ptr(),
        c"5".as_ptr(),
        std::ptr::null(),
    ];
    sys!(
        libc::SYS_execveat,
        dirfd,
        c(path).as_ptr(),
        argv.as_ptr(),
        argv[3..].as_ptr(),
        flags
    )
}

unsafe fn execveat_empty_path() {
    let fd = open(&me(), libc::O_PATH | libc::O_CLOEXEC);
    let pid = fork(|| {
        execveat(fd, "", libc::AT_EMPTY_PATH);
        libc::_exit(9);
    });
    eq!(libc::WEXITSTATUS(util::wait(pid)), 5);
    err!(libc::ENOENT, execveat(fd, "", 0));
    err!(libc::EBADF, execveat(99, "", libc::AT_EMPTY_PATH));
    err!(libc::EINVAL, execveat(libc::AT_FDCWD, "/bin/true", 0x4));
}

unsafe fn execveat_dirfd() {
    ok!(libc::mkdir(c("d").as_ptr(), 0o755));
    ok!(libc::symlink(exe().as_ptr(), c("d/link").as_ptr()));
    let dir = open("d", libc::O_RDONLY | libc::O_DIRECTORY);
    let pid = fork(|| {
        execveat(dir, "link", 0);
        libc::_exit(9);
    });
    eq!(libc::WEXITSTATUS(util::wait(pid)), 5);
    err!(libc::ENOENT, execveat(dir, "other", 0));
    err!(libc::EACCES, execveat(dir, "", libc::AT_EMPTY_PATH));
    err!(libc::ENOTDIR, execveat(0, "link", 0));
}

unsafe fn execveat_nofollow() {
    ok!(libc::symlink(exe().as_ptr(), c("link").as_ptr()));
    err!(
        libc::ELOOP,
        execveat(libc::AT_FDCWD, "link", libc::AT_SYMLINK_NOFOLLOW)
    );
}

unsafe fn execveat_script_cloexec() {
    make_exec("s", b"#!/bin/sh\necho $0\n");
    // The interpreter could not open the script behind a close-on-exec fd.
    let fd = open("s", libc::O_RDONLY | libc::O_CLOEXEC);
    err!(libc::ENOENT, execveat(fd, "", libc::AT_EMPTY_PATH));
    let fd = open("s", libc::O_RDONLY);
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::dup2(w, 1);
        let argv = [c"x".as_ptr(), std::ptr::null()];
        sys!(
            libc::SYS_execveat,
            fd,
            c"".as_ptr(),
            argv.as_ptr(),
            argv[1..].as_ptr(),
            libc::AT_EMPTY_PATH
        );
    });
    libc::close(w);
    let out = read_full(r, 100);
    wait_ok(pid);
    eq!(String::from_utf8_lossy(&out), format!("/dev/fd/{fd}\n"));
}

unsafe fn fexec_memfd() {
    let content = read_file(&me());
    let fd = ok!(libc::memfd_create(c"prog".as_ptr(), libc::MFD_CLOEXEC));
    write_all(fd, &content);
    let pid = fork(|| {
        execveat(fd, "", libc::AT_EMPTY_PATH);
        libc::_exit(9);
    });
    eq!(libc::WEXITSTATUS(util::wait(pid)), 5);
}

unsafe fn text_busy() {
    make_exec("prog", &read_file(&me()));
    let fd = open("prog", libc::O_WRONLY);
    eq!(exec_errno("./prog"), libc::ETXTBSY);
    libc::close(fd);
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let pid = fork(|| {
        let argv = [c"prog".as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(c"./prog".as_ptr(), argv.as_ptr());
    });
    libc::close(w);
    read_some(r, 1);
    err!(libc::ETXTBSY, libc::open(c"prog".as_ptr(), libc::O_WRONLY));
    err!(libc::ETXTBSY, libc::truncate(c"prog".as_ptr(), 0));
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
    check!(eventually(
        || libc::open(c"prog".as_ptr(), libc::O_WRONLY) >= 0
    ));
}

unsafe fn noexec_directory() {
    ok!(libc::mkdir(c("dir").as_ptr(), 0o755));
    eq!(exec_errno("dir"), libc::EACCES);
    eq!(exec_errno("dir/"), libc::EACCES);
    make_exec("file", b"#!/bin/sh\n");
    eq!(exec_errno("file/"), libc::ENOTDIR);
}
