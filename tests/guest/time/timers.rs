//! setitimer(2), timer_create(2).

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use super::*;
use crate::util::*;

cases![
    itimer_virtual_and_prof,
    getitimer_remaining,
    timer_signal_value,
    timer_none_and_gettime,
    timer_interval_overrun,
    timer_absolute,
    timer_errors,
    timers_not_inherited,
    timer_thread_notification,
];

static COUNT: AtomicI32 = AtomicI32::new(0);

static VALUE: AtomicI32 = AtomicI32::new(0);

static OVERRUN: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe {
        VALUE.store((*si).si_value().sival_ptr as usize as i32, SeqCst);
        // si_overrun follows si_tid.
        OVERRUN.store(*si.cast::<i32>().add(5), SeqCst);
    }
    COUNT.fetch_add(1, SeqCst);
}

unsafe fn on(signo: i32) {
    handle(
        signo,
        count as *const () as usize,
        libc::SA_SIGINFO | libc::SA_RESTART,
    );
}

unsafe fn itimer_virtual_and_prof() {
    for (which, signo) in [
        (libc::ITIMER_VIRTUAL, libc::SIGVTALRM),
        (libc::ITIMER_PROF, libc::SIGPROF),
    ] {
        COUNT.store(0, SeqCst);
        on(signo);
        let tv = libc::timeval {
            tv_sec: 0,
            tv_usec: 30_000,
        };
        let value = libc::itimerval {
            it_interval: tv,
            it_value: tv,
        };
        ok!(sys!(libc::SYS_setitimer, which, &value as *const _, 0));
        // Sleeping does not count.
        sleep_ms(80);
        eq!(COUNT.load(SeqCst), 0, "timer {which}");
        let end = now_ms() + 4000;
        while COUNT.load(SeqCst) == 0 && now_ms() < end {
            burn(5);
        }
        check!(COUNT.load(SeqCst) > 0, "timer {which} never fired");
        let off: libc::itimerval = std::mem::zeroed();
        ok!(sys!(libc::SYS_setitimer, which, &off as *const _, 0));
    }
}

unsafe fn getitimer_remaining() {
    on(libc::SIGALRM);
    let value = libc::itimerval {
        it_interval: libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        },
        it_value: libc::timeval {
            tv_sec: 10,
            tv_usec: 0,
        },
    };
    ok!(sys!(
        libc::SYS_setitimer,
        libc::ITIMER_REAL,
        &value as *const _,
        0
    ));
    let mut now: libc::itimerval = std::mem::zeroed();
    ok!(sys!(
        libc::SYS_getitimer,
        libc::ITIMER_REAL,
        &mut now as *mut _
    ));
    check!(now.it_value.tv_sec == 9 || now.it_value.tv_sec == 10);
    // Not inherited by fork.
    in_child(|| {
        let mut now: libc::itimerval = std::mem::zeroed();
        ok!(sys!(
            libc::SYS_getitimer,
            libc::ITIMER_REAL,
            &mut now as *mut _
        ));
        eq!((now.it_value.tv_sec, now.it_value.tv_usec), (0, 0));
    });
    err!(
        libc::EINVAL,
        sys!(libc::SYS_getitimer, 9, &mut now as *mut _)
    );
}

unsafe fn timer_create(clock: i32, notify: i32, signo: i32, value: usize) -> i32 {
    let mut ev: libc::sigevent = std::mem::zeroed();
    ev.sigev_notify = notify;
    ev.sigev_signo = signo;
    ev.sigev_value = libc::sigval {
        sival_ptr: value as *mut _,
    };
    if notify == libc::SIGEV_THREAD_ID {
        ev.sigev_notify_thread_id = sys!(libc::SYS_gettid) as i32;
    }
    let mut id = 0i32;
    ok!(sys!(
        libc::SYS_timer_create,
        clock,
        &mut ev as *mut _,
        &mut id as *mut i32
    ));
    id
}

unsafe fn settime(id: i32, flags: i32, value: i64, interval: i64) -> i64 {
    let spec = libc::itimerspec {
        it_interval: ns(interval),
        it_value: ns(value),
    };
    sys!(libc::SYS_timer_settime, id, flags, &spec as *const _, 0)
}

unsafe fn gettime(id: i32) -> (i64, i64) {
    let mut spec: libc::itimerspec = std::mem::zeroed();
    ok!(sys!(libc::SYS_timer_gettime, id, &mut spec as *mut _));
    (
        spec.it_value.tv_sec * 1_000_000_000 + spec.it_value.tv_nsec,
        spec.it_interval.tv_sec * 1_000_000_000 + spec.it_interval.tv_nsec,
    )
}

unsafe fn timer_signal_value() {
    on(libc::SIGRTMIN());
    let id = timer_create(
        libc::CLOCK_MONOTONIC,
        libc::SIGEV_SIGNAL,
        libc::SIGRTMIN(),
        4321,
    );
    ok!(settime(id, 0, 10 * MS, 0));
    check!(eventually(|| COUNT.load(SeqCst) == 1));
    eq!(VALUE.load(SeqCst), 4321);
    eq!(gettime(id), (0, 0));
    ok!(sys!(libc::SYS_timer_delete, id));
    err!(libc::EINVAL, sys!(libc::SYS_timer_delete, id));
    // Without a sigevent: SIGALRM.
    on(libc::SIGALRM);
    let mut id = 0i32;
    ok!(sys!(
        libc::SYS_timer_create,
        libc::CLOCK_REALTIME,
        0,
        &mut id as *mut i32
    ));
    ok!(settime(id, 0, 5 * MS, 0));
    check!(eventually(|| COUNT.load(SeqCst) == 2));
    eq!(VALUE.load(SeqCst), id);
}

unsafe fn timer_none_and_gettime() {
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_NONE, 0, 0);
    ok!(settime(id, 0, 1000 * MS, 500 * MS));
    let (left, interval) = gettime(id);
    check!(left > 500 * MS && left <= 1000 * MS);
    eq!(interval, 500 * MS);
}

unsafe fn timer_interval_overrun() {
    let signo = libc::SIGRTMIN() + 1;
    on(signo);
    block(&[signo]);
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_SIGNAL, signo, 0);
    ok!(settime(id, 0, 5 * MS, 5 * MS));
    sleep_ms(60);
    // One signal is queued; the rest is the overrun count.
    let mut si: libc::siginfo_t = std::mem::zeroed();
    eq!(ok!(libc::sigwaitinfo(&sigset(&[signo]), &mut si)), signo);
    let overrun = *(&si as *const libc::siginfo_t).cast::<i32>().add(5);
    check!((5..100).contains(&overrun), "overrun {overrun}");
    eq!(sys!(libc::SYS_timer_getoverrun, id), i64::from(overrun));
    ok!(sys!(libc::SYS_timer_delete, id));
}

unsafe fn timer_absolute() {
    on(libc::SIGUSR1);
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_SIGNAL, libc::SIGUSR1, 0);
    let start = now(libc::CLOCK_MONOTONIC);
    ok!(settime(id, libc::TIMER_ABSTIME, start + 20 * MS, 0));
    check!(eventually(|| COUNT.load(SeqCst) == 1));
    check!(now(libc::CLOCK_MONOTONIC) - start >= 20 * MS);
    ok!(settime(id, libc::TIMER_ABSTIME, 1, 0));
    check!(eventually(|| COUNT.load(SeqCst) == 2));
}

unsafe fn timer_errors() {
    let mut id = 0i32;
    err!(
        libc::EINVAL,
        sys!(libc::SYS_timer_create, 99, 0, &mut id as *mut i32)
    );
    let mut ev: libc::sigevent = std::mem::zeroed();
    ev.sigev_signo = 99;
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_timer_create,
            libc::CLOCK_MONOTONIC,
            &mut ev as *mut _,
            &mut id as *mut i32
        )
    );
    err!(libc::EINVAL, settime(12345, 0, 1, 0));
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_NONE, 0, 0);
    let bad = libc::itimerspec {
        it_interval: ns(0),
        it_value: libc::timespec {
            tv_sec: 0,
            tv_nsec: -1,
        },
    };
    err!(
        libc::EINVAL,
        sys!(libc::SYS_timer_settime, id, 0, &bad as *const _, 0)
    );
    err!(libc::EINVAL, sys!(libc::SYS_timer_settime, id, 0, 0, 0));
}

unsafe fn timers_not_inherited() {
    let id = timer_create(libc::CLOCK_MONOTONIC, libc::SIGEV_NONE, 0, 0);
    in_child(|| {
        let mut spec: libc::itimerspec = std::mem::zeroed();
        err!(
            libc::EINVAL,
            sys!(libc::SYS_timer_gettime, id, &mut spec as *mut _)
        );
    });
}

unsafe fn timer_thread_notification() {
    static TID: AtomicI32 = AtomicI32::new(0);
    extern "C" fn note(_: i32) {
        TID.store(unsafe { sys!(libc::SYS_gettid) } as i32, SeqCst);
    }
    handle(libc::SIGUSR2, note as *const () as usize, libc::SA_RESTART);
    let t = std::thread::spawn(|| {
        let id = timer_create(
            libc::CLOCK_MONOTONIC,
            libc::SIGEV_THREAD_ID,
            libc::SIGUSR2,
            0,
        );
        ok!(settime(id, 0, 5 * MS, 0));
        check!(eventually(|| TID.load(SeqCst) != 0));
        eq!(TID.load(SeqCst), sys!(libc::SYS_gettid) as i32);
    });
    check!(t.join().is_ok());
}
