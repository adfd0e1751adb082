//! timerfd_create(2).

use super::*;
use crate::util::*;

cases![
    timerfd_expires,
    timerfd_interval_counts,
    timerfd_absolute_and_gettime,
    timerfd_poll_epoll,
    timerfd_errors,
    timerfd_cancel_on_set_accepted,
];

unsafe fn timerfd(clock: i32, flags: i32) -> i32 {
    ok!(libc::timerfd_create(clock, flags))
}

unsafe fn arm(fd: i32, flags: i32, value: i64, interval: i64) -> i32 {
    let spec = libc::itimerspec {
        it_interval: ns(interval),
        it_value: ns(value),
    };
    libc::timerfd_settime(fd, flags, &spec, std::ptr::null_mut())
}

unsafe fn timerfd_expires() {
    let fd = timerfd(libc::CLOCK_MONOTONIC, 0);
    let start = now(libc::CLOCK_MONOTONIC);
    ok!(arm(fd, 0, 30 * MS, 0));
    eq!(ticks(fd), 1);
    check!(now(libc::CLOCK_MONOTONIC) - start >= 30 * MS);
    let fd = timerfd(
        libc::CLOCK_MONOTONIC,
        libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
    );
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    let mut b = [0u8; 8];
    err!(libc::EAGAIN, libc::read(fd, b.as_mut_ptr().cast(), 8));
    err!(libc::EINVAL, libc::read(fd, b.as_mut_ptr().cast(), 4));
}

unsafe fn timerfd_interval_counts() {
    let fd = timerfd(libc::CLOCK_MONOTONIC, 0);
    ok!(arm(fd, 0, 10 * MS, 10 * MS));
    sleep_ms(75);
    let n = ticks(fd);
    check!((5..60).contains(&n), "{n} ticks");
    eq!(ticks(fd), 1);
    // Disarming drops what has expired.
    sleep_ms(15);
    ok!(arm(fd, 0, 0, 0));
    ok!(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK));
    err!(
        libc::EAGAIN,
        libc::read(fd, [0u8; 8].as_mut_ptr().cast(), 8)
    );
}

unsafe fn timerfd_absolute_and_gettime() {
    let fd = timerfd(libc::CLOCK_REALTIME, 0);
    let start = now(libc::CLOCK_REALTIME);
    ok!(arm(fd, libc::TFD_TIMER_ABSTIME, start + 20 * MS, 0));
    eq!(ticks(fd), 1);
    check!(now(libc::CLOCK_REALTIME) >= start + 20 * MS);
    ok!(arm(fd, 0, 1000 * MS, 70 * MS));
    let mut spec: libc::itimerspec = std::mem::zeroed();
    ok!(libc::timerfd_gettime(fd, &mut spec));
    check!(spec.it_value.tv_nsec > 0 || spec.it_value.tv_sec == 1);
    eq!(spec.it_interval.tv_nsec, 70 * MS);
    let mut old: libc::itimerspec = std::mem::zeroed();
    let zero: libc::itimerspec = std::mem::zeroed();
    ok!(libc::timerfd_settime(fd, 0, &zero, &mut old));
    eq!(old.it_interval.tv_nsec, 70 * MS);
}

unsafe fn timerfd_poll_epoll() {
    let fd = timerfd(libc::CLOCK_MONOTONIC, 0);
    eq!(poll_one(fd, libc::POLLIN, 0), 0);
    ok!(arm(fd, 0, 10 * MS, 0));
    eq!(poll_one(fd, libc::POLLIN, 2000), libc::POLLIN);
    let ep = ok!(libc::epoll_create1(0));
    let mut ev = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 1,
    };
    ok!(libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, fd, &mut ev));
    eq!(ok!(libc::epoll_wait(ep, &mut ev, 1, 2000)), 1);
    eq!(ticks(fd), 1);
    eq!(ok!(libc::epoll_wait(ep, &mut ev, 1, 0)), 0);
    ok!(arm(fd, 0, 10 * MS, 0));
    eq!(ok!(libc::epoll_wait(ep, &mut ev, 1, 2000)), 1);
}

unsafe fn timerfd_errors() {
    err!(
        libc::EINVAL,
        libc::timerfd_create(libc::CLOCK_PROCESS_CPUTIME_ID, 0)
    );
    err!(libc::EINVAL, libc::timerfd_create(libc::CLOCK_MONOTONIC, 1));
    let zero: libc::itimerspec = std::mem::zeroed();
    err!(
        libc::EINVAL,
        libc::timerfd_settime(0, 0, &zero, std::ptr::null_mut())
    );
    err!(
        libc::EBADF,
        libc::timerfd_settime(99, 0, &zero, std::ptr::null_mut())
    );
    let fd = timerfd(libc::CLOCK_MONOTONIC, 0);
    err!(libc::EINVAL, arm(fd, 0x10, MS, 0));
    err!(libc::EFAULT, sys!(libc::SYS_timerfd_settime, fd, 0, 8, 0));
}

unsafe fn timerfd_cancel_on_set_accepted() {
    let fd = timerfd(libc::CLOCK_REALTIME, 0);
    let t = now(libc::CLOCK_REALTIME);
    ok!(arm(
        fd,
        libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET,
        t + 5 * MS,
        0
    ));
    eq!(ticks(fd), 1);
}
