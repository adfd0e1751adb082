//! Descriptors: dup(2), fcntl(2).

use super::*;
use crate::util::*;

cases![
    lowest_fd,
    fd_limit,
    bad_fds,
    dup_shares_offset,
    cloexec_default,
    dup3_errors,
    fcntl_dupfd,
];

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

unsafe fn cloexec_default() {
    let fd = open("/dev/null", libc::O_RDONLY);
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), 0);
    ok!(libc::ioctl(fd, libc::FIOCLEX));
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    ok!(libc::ioctl(fd, libc::FIONCLEX));
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), 0);
}
