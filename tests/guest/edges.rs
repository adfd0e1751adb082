//! Which error comes first, and what files without a name have for
//! attributes: xattr(7), read(2), sendfile(2), fchmod(2), lseek(2), mmap(2).

use std::mem::zeroed;
use std::ptr::{null, null_mut};

use crate::util::*;

cases![
    attributes_of_pipes_and_sockets,
    attributes_of_anonymous_inodes,
    seek_on_anonymous_inodes,
    empty_transfers,
    positions_on_streams,
    append_flag_on_streams,
    eventfd_wants_eight_bytes,
    sendfile_errors,
    copy_between_file_systems,
    xattr_errors,
    exclusive_creation_of_dots,
    truncated_and_odd_mappings,
    lock_without_access,
    long_datagrams,
];

unsafe fn status(fd: i32) -> libc::stat {
    let mut st: libc::stat = zeroed();
    ok!(libc::fstat(fd, &mut st));
    st
}

unsafe fn socket_pair() -> (i32, i32) {
    let mut fds = [0; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    ok!(libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()));
    (fds[0], fds[1])
}

unsafe fn attributes_of_pipes_and_sockets() {
    let (r, w) = pipe();
    ok!(libc::fchmod(r, 0o640));
    eq!(status(w).st_mode, libc::S_IFIFO | 0o640);
    let (a, b) = socket_pair();
    ok!(libc::fchmod(a, 0o600));
    eq!(status(a).st_mode, libc::S_IFSOCK | 0o600);
    eq!(status(b).st_mode, libc::S_IFSOCK | 0o777);
    let times = [
        libc::timespec {
            tv_sec: 5,
            tv_nsec: 6,
        },
        libc::timespec {
            tv_sec: 7,
            tv_nsec: 8,
        },
    ];
    ok!(libc::futimens(r, times.as_ptr()));
    let st = status(w);
    eq!((st.st_atime, st.st_mtime), (5, 7));
}

unsafe fn attributes_of_anonymous_inodes() {
    let fd = ok!(libc::eventfd(0, 0));
    eq!(status(fd).st_mode & libc::S_IFMT, 0);
    err!(libc::EOPNOTSUPP, libc::fchmod(fd, 0o600));
}

unsafe fn seek_on_anonymous_inodes() {
    let fds = [
        ok!(libc::eventfd(0, 0)),
        ok!(libc::epoll_create1(0)),
        ok!(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0)),
        ok!(libc::inotify_init1(0)),
    ];
    for fd in fds {
        eq!(ok!(libc::lseek(fd, 100, libc::SEEK_SET)), 0);
    }
    let (r, _w) = pipe();
    err!(libc::ESPIPE, libc::lseek(r, 0, libc::SEEK_CUR));
}

unsafe fn empty_transfers() {
    let fd = ok!(libc::open(
        c"f".as_ptr(),
        libc::O_RDWR | libc::O_CREAT,
        0o600
    ));
    // Nothing to move: the address is not looked at.
    eq!(ok!(libc::read(fd, 8 as *mut _, 0)), 0);
    eq!(ok!(libc::write(fd, 8 as *const _, 0)), 0);
    let dir = ok!(libc::open(
        c".".as_ptr(),
        libc::O_RDONLY | libc::O_DIRECTORY
    ));
    err!(libc::EISDIR, libc::read(dir, null_mut(), 0));
    let event = ok!(libc::eventfd(1, 0));
    err!(libc::EINVAL, libc::read(event, 8 as *mut _, 0));
    // Unknown flags are found before nothing is moved, or not at all.
    let none = libc::iovec {
        iov_base: null_mut(),
        iov_len: 0,
    };
    eq!(ok!(libc::preadv2(fd, &none, 1, 0, 0x8000)), 0);
}

unsafe fn positions_on_streams() {
    let (r, w) = pipe();
    let mut b = [0u8; 8];
    err!(libc::ESPIPE, libc::pread(r, b.as_mut_ptr().cast(), 8, 0));
    // No position comes before no access.
    err!(libc::ESPIPE, libc::pread(w, b.as_mut_ptr().cast(), 8, 0));
    err!(libc::EINVAL, libc::pread(r, b.as_mut_ptr().cast(), 8, -1));
}

unsafe fn append_flag_on_streams() {
    let (r, w) = pipe();
    let hello = libc::iovec {
        iov_base: c"hello".as_ptr() as *mut _,
        iov_len: 5,
    };
    eq!(ok!(libc::pwritev2(w, &hello, 1, -1, libc::RWF_APPEND)), 5);
    eq!(read_some(r, 100), b"hello");
}

unsafe fn eventfd_wants_eight_bytes() {
    let fd = ok!(libc::eventfd(0, libc::EFD_NONBLOCK));
    let many = [1u8; 16];
    err!(libc::EINVAL, libc::write(fd, many.as_ptr().cast(), 16));
    err!(libc::EINVAL, libc::write(fd, many.as_ptr().cast(), 7));
    eq!(ok!(libc::write(fd, many.as_ptr().cast(), 8)), 8);
    let mut pfd = libc::pollfd {
        fd,
        events: !0,
        revents: 0,
    };
    eq!(ok!(libc::poll(&mut pfd, 1, 0)), 1);
    eq!(pfd.revents, libc::POLLIN | libc::POLLOUT);
}

unsafe fn sendfile_errors() {
    let file = ok!(libc::open(
        c"f".as_ptr(),
        libc::O_RDWR | libc::O_CREAT,
        0o600
    ));
    write_all(file, b"0123456789");
    let (r, w) = pipe();
    let mut at: libc::off_t = 4;
    err!(libc::ESPIPE, libc::sendfile(w, r, &mut at, 5));
    err!(libc::EINVAL, libc::sendfile(file, r, null_mut(), 5));
    // Into a pipe it is a splice.
    eq!(ok!(libc::sendfile(w, file, &mut at, 100)), 6);
    eq!(at, 10);
    eq!(read_some(r, 100), b"456789");
    ok!(libc::fcntl(file, libc::F_SETFL, libc::O_APPEND));
    let source = ok!(libc::open(c"f".as_ptr(), libc::O_RDONLY));
    err!(libc::EINVAL, libc::sendfile(file, source, null_mut(), 5));
    err!(libc::EBADF, libc::sendfile(source, source, null_mut(), 5));
    // A watch is not written to.
    let watch = ok!(libc::inotify_init1(0));
    err!(libc::EBADF, libc::sendfile(watch, source, null_mut(), 5));
    err!(libc::EBADF, libc::fallocate(watch, 0, 0, 10));
}

unsafe fn copy_between_file_systems() {
    let file = ok!(libc::open(
        c"f".as_ptr(),
        libc::O_RDWR | libc::O_CREAT,
        0o600
    ));
    write_all(file, b"0123456789");
    let memory = ok!(libc::memfd_create(c"m".as_ptr(), 0));
    let (mut from, mut to) = (0, 0);
    err!(
        libc::EXDEV,
        libc::copy_file_range(file, &mut from, memory, &mut to, 10, 0)
    );
    // Ranges of one file may touch, not overlap.
    let (mut from, mut to) = (0, 5);
    eq!(
        ok!(libc::copy_file_range(file, &mut from, file, &mut to, 5, 0)),
        5
    );
    let (mut from, mut to) = (0, 4);
    err!(
        libc::EINVAL,
        libc::copy_file_range(file, &mut from, file, &mut to, 5, 0)
    );
}

unsafe fn xattr_errors() {
    // Names, values and flags are looked at before the file.
    let missing = c"missing".as_ptr();
    err!(
        libc::ERANGE,
        libc::setxattr(missing, c"".as_ptr(), c"v".as_ptr().cast(), 1, 0)
    );
    err!(
        libc::EINVAL,
        libc::setxattr(missing, c"user.a".as_ptr(), c"v".as_ptr().cast(), 1, 99)
    );
    err!(
        libc::E2BIG,
        libc::setxattr(missing, c"user.a".as_ptr(), null(), 1 << 20, 0)
    );
    err!(libc::ERANGE, libc::removexattr(missing, c"".as_ptr()));
    err!(libc::ENOENT, libc::removexattr(missing, c"user.a".as_ptr()));
}

unsafe fn exclusive_creation_of_dots() {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
    err!(libc::EEXIST, libc::open(c".".as_ptr(), flags, 0o600));
    err!(libc::EEXIST, libc::open(c"..".as_ptr(), flags, 0o600));
}

unsafe fn truncated_and_odd_mappings() {
    let file = ok!(libc::open(
        c"f".as_ptr(),
        libc::O_RDWR | libc::O_CREAT,
        0o600
    ));
    let (prot, shared) = (libc::PROT_READ, libc::MAP_SHARED);
    // Too long for any machine is found before what the file is.
    let huge = usize::MAX - 4095;
    let (r, _w) = pipe();
    err!(
        libc::ENOMEM,
        libc::mmap(null_mut(), huge, prot, shared, r, 0)
    );
    err!(
        libc::ENOMEM,
        libc::mmap(null_mut(), huge, prot, shared, file, 0)
    );
    err!(
        libc::ENODEV,
        libc::mmap(null_mut(), 4096, prot, shared, r, 0)
    );
    err!(
        libc::EINVAL,
        libc::mmap(null_mut(), 0, prot, shared, file, 0)
    );
}

unsafe fn lock_without_access() {
    ok!(libc::close(ok!(libc::creat(c"f".as_ptr(), 0o600))));
    // Access mode 3 is neither reading nor writing: for ioctl alone.
    let fd = ok!(libc::open(c"f".as_ptr(), libc::O_ACCMODE));
    err!(libc::EBADF, libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB));
    eq!(ok!(libc::flock(fd, libc::LOCK_UN)), 0);
}

unsafe fn long_datagrams() {
    let long = vec![0u8; 1 << 16];
    let fd = ok!(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0));
    let bytes = long.as_ptr().cast();
    err!(libc::EMSGSIZE, libc::send(fd, bytes, long.len(), 0));
    err!(libc::EDESTADDRREQ, libc::send(fd, bytes, 1, 0));
}
