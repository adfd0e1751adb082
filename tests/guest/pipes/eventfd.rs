//! eventfd(2).

use crate::util::*;

cases![
    eventfd_counter,
    eventfd_semaphore,
    eventfd_overflow,
    eventfd_blocking,
    eventfd_errors,
    eventfd_poll,
];

unsafe fn ev_read(fd: i32) -> u64 {
    let b = read_some(fd, 8);
    u64::from_ne_bytes(b.try_into().unwrap_or_default())
}

unsafe fn eventfd_counter() {
    let fd = ok!(libc::eventfd(3, 0));
    write_all(fd, &4u64.to_ne_bytes());
    eq!(ev_read(fd), 7);
    let fd = ok!(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC));
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    let mut b = [0u8; 8];
    err!(libc::EAGAIN, libc::read(fd, b.as_mut_ptr().cast(), 8));
    err!(libc::EINVAL, libc::read(fd, b.as_mut_ptr().cast(), 7));
    err!(libc::EINVAL, libc::write(fd, b.as_ptr().cast(), 4));
    err!(
        libc::EINVAL,
        libc::write(fd, [0xffu8; 8].as_ptr().cast(), 8)
    );
}

unsafe fn eventfd_semaphore() {
    let fd = ok!(libc::eventfd(2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK));
    eq!((ev_read(fd), ev_read(fd)), (1, 1));
    let mut b = [0u8; 8];
    err!(libc::EAGAIN, libc::read(fd, b.as_mut_ptr().cast(), 8));
}

unsafe fn eventfd_overflow() {
    let fd = ok!(libc::eventfd(0, libc::EFD_NONBLOCK));
    write_all(fd, &(u64::MAX - 1).to_ne_bytes());
    eq!(poll_one(fd, libc::POLLOUT | libc::POLLIN, 0), libc::POLLIN);
    err!(
        libc::EAGAIN,
        libc::write(fd, 1u64.to_ne_bytes().as_ptr().cast(), 8)
    );
    eq!(ev_read(fd), u64::MAX - 1);
}

unsafe fn eventfd_blocking() {
    let fd = ok!(libc::eventfd(0, 0));
    let pid = fork(|| {
        sleep_ms(20);
        write_all(fd, &9u64.to_ne_bytes());
    });
    eq!(ev_read(fd), 9);
    wait_ok(pid);
    write_all(fd, &(u64::MAX - 1).to_ne_bytes());
    let pid = fork(|| write_all(fd, &5u64.to_ne_bytes()));
    wait_state(pid, "S");
    eq!(ev_read(fd), u64::MAX - 1);
    wait_ok(pid);
    eq!(ev_read(fd), 5);
}

unsafe fn eventfd_errors() {
    err!(libc::EINVAL, libc::eventfd(0, 0x4000));
}

unsafe fn eventfd_poll() {
    let fd = ok!(libc::eventfd(0, 0));
    eq!(poll_one(fd, libc::POLLIN | libc::POLLOUT, 0), libc::POLLOUT);
    write_all(fd, &1u64.to_ne_bytes());
    eq!(
        poll_one(fd, libc::POLLIN | libc::POLLOUT, 0),
        libc::POLLIN | libc::POLLOUT
    );
}
