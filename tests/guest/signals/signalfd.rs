//! signalfd(2).

use super::*;
use crate::util::*;

cases![
    signalfd_reads,
    signalfd_poll_and_mask_change,
    signalfd_errors,
];

unsafe fn signalfd_reads() {
    let set = sigset(&[libc::SIGUSR1, libc::SIGRTMIN()]);
    block(&[libc::SIGUSR1, libc::SIGRTMIN()]);
    let fd = ok!(libc::signalfd(
        -1,
        &set,
        libc::SFD_CLOEXEC | libc::SFD_NONBLOCK
    ));
    let mut si: [libc::signalfd_siginfo; 4] = std::mem::zeroed();
    let size = std::mem::size_of::<libc::signalfd_siginfo>();
    eq!(size, 128);
    err!(
        libc::EAGAIN,
        libc::read(fd, si.as_mut_ptr().cast(), size * 4)
    );
    libc::kill(libc::getpid(), libc::SIGUSR1);
    queue(libc::SIGRTMIN(), 41);
    queue(libc::SIGRTMIN(), 42);
    err!(libc::EINVAL, libc::read(fd, si.as_mut_ptr().cast(), 100));
    eq!(
        libc::read(fd, si.as_mut_ptr().cast(), size * 4) as usize,
        size * 3
    );
    eq!(si[0].ssi_signo, libc::SIGUSR1 as u32);
    eq!(si[0].ssi_pid, libc::getpid() as u32);
    eq!(si[0].ssi_code, libc::SI_USER);
    eq!(
        (si[1].ssi_int, si[2].ssi_int, si[2].ssi_code),
        (41, 42, libc::SI_QUEUE)
    );
}

unsafe fn signalfd_poll_and_mask_change() {
    block(&[libc::SIGUSR1, libc::SIGUSR2]);
    let fd = ok!(libc::signalfd(-1, &sigset(&[libc::SIGUSR1]), 0));
    eq!(poll_one(fd, libc::POLLIN, 0), 0);
    libc::raise(libc::SIGUSR2);
    eq!(poll_one(fd, libc::POLLIN, 0), 0);
    eq!(ok!(libc::signalfd(fd, &sigset(&[libc::SIGUSR2]), 0)), fd);
    eq!(poll_one(fd, libc::POLLIN, 0), libc::POLLIN);
    eq!(read_some(fd, 128).len(), 128);
    // Blocks until a signal comes.
    let child = later(libc::SIGUSR2, 30);
    let got = read_some(fd, 128);
    eq!(
        i32::from_ne_bytes([got[12], got[13], got[14], got[15]]),
        child
    );
}

unsafe fn signalfd_errors() {
    let set = sigset(&[libc::SIGUSR1]);
    err!(libc::EINVAL, libc::signalfd(0, &set, 0));
    err!(libc::EBADF, libc::signalfd(99, &set, 0));
    err!(libc::EINVAL, libc::signalfd(-1, &set, 1));
    err!(
        libc::EINVAL,
        sys!(libc::SYS_signalfd4, -1, &set as *const _, 4, 0)
    );
}
