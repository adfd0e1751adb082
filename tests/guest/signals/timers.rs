//! Signals of timers: setitimer(2), alarm(2), timer_create(2).

use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::util::*;

cases![setitimer_real, alarm_remaining, sigev_thread_id_timer,];

unsafe fn setitimer_real() {
    on(libc::SIGALRM, 0);
    let tv = |us| libc::timeval {
        tv_sec: 0,
        tv_usec: us,
    };
    let value = libc::itimerval {
        it_interval: tv(10_000),
        it_value: tv(10_000),
    };
    ok!(sys!(
        libc::SYS_setitimer,
        libc::ITIMER_REAL,
        &value as *const _,
        0
    ));
    check!(eventually(|| COUNT.load(SeqCst) >= 5));
    let mut old: libc::itimerval = std::mem::zeroed();
    let off: libc::itimerval = std::mem::zeroed();
    ok!(sys!(
        libc::SYS_setitimer,
        libc::ITIMER_REAL,
        &off as *const _,
        &mut old as *mut _
    ));
    eq!(old.it_interval.tv_usec, 10_000);
    check!(old.it_value.tv_usec <= 10_000 && old.it_value.tv_sec == 0);
    let n = COUNT.load(SeqCst);
    sleep_ms(30);
    check!(COUNT.load(SeqCst) <= n + 1);
    err!(
        libc::EINVAL,
        sys!(libc::SYS_setitimer, 3, &value as *const _, 0)
    );
    let bad = libc::itimerval {
        it_interval: tv(0),
        it_value: tv(1_000_000),
    };
    err!(
        libc::EINVAL,
        sys!(libc::SYS_setitimer, libc::ITIMER_REAL, &bad as *const _, 0)
    );
}

unsafe fn alarm_remaining() {
    eq!(libc::alarm(100), 0);
    check!((99..=100).contains(&libc::alarm(0)));
    eq!(libc::alarm(0), 0);
}

unsafe fn sigev_thread_id_timer() {
    handle(libc::SIGUSR1, fp3(info), libc::SA_SIGINFO);
    let mut ev: libc::sigevent = std::mem::zeroed();
    ev.sigev_notify = libc::SIGEV_THREAD_ID;
    ev.sigev_signo = libc::SIGUSR1;
    ev.sigev_notify_thread_id = sys!(libc::SYS_gettid) as i32;
    ev.sigev_value = libc::sigval {
        sival_ptr: 99 as *mut _,
    };
    let mut id = 0i32;
    ok!(sys!(
        libc::SYS_timer_create,
        libc::CLOCK_MONOTONIC,
        &mut ev as *mut _,
        &mut id as *mut i32
    ));
    let spec = libc::itimerspec {
        it_interval: libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: libc::timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        },
    };
    ok!(sys!(libc::SYS_timer_settime, id, 0, &spec as *const _, 0));
    check!(eventually(|| COUNT.load(SeqCst) == 1));
    eq!(
        (CODE.load(SeqCst), VALUE.load(SeqCst)),
        (libc::SI_TIMER, 99)
    );
}
