//! Devices, FIFOs and sockets: mknod(2).

use super::*;
use crate::util::*;

cases![
    mknod_kinds,
    dev_files,
    proc_fd_reopen,
    open_fifo_nonblock,
    open_socket_file,
];

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
