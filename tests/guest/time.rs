//! Clocks, sleeping, timers: clock_gettime(2), nanosleep(2), timer_create(2),
//! timerfd_create(2), times(2).

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use crate::util::{self, *};

cases![
    clocks_advance,
    clock_kinds,
    clock_getres_values,
    clock_errors,
    vdso_and_syscall_agree,
    gettimeofday_and_time,
    nanosleep_sleeps,
    nanosleep_errors,
    clock_nanosleep_absolute,
    clock_nanosleep_clocks,
    usleep_many_threads,
    process_cpu_clock,
    thread_cpu_clock,
    cpu_clock_of_other,
    times_and_clock,
    itimer_virtual_and_prof,
    getitimer_remaining,
    timer_signal_value,
    timer_none_and_gettime,
    timer_interval_overrun,
    timer_absolute,
    timer_errors,
    timers_not_inherited,
    timer_thread_notification,
    timerfd_expires,
    timerfd_interval_counts,
    timerfd_absolute_and_gettime,
    timerfd_poll_epoll,
    timerfd_errors,
    timerfd_cancel_on_set_accepted,
    clock_settime_refused_for_user,
    adjtimex_reads,
    sleep_zero_yields,
    boottime_not_behind_monotonic,
];

unsafe fn now(clock: i32) -> i64 {
    let mut t: libc::timespec = std::mem::zeroed();
    ok!(libc::clock_gettime(clock, &mut t));
    check!((0..1_000_000_000).contains(&t.tv_nsec));
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

const fn ns(ns: i64) -> libc::timespec {
    libc::timespec {
        tv_sec: ns / 1_000_000_000,
        tv_nsec: ns % 1_000_000_000,
    }
}

const MS: i64 = 1_000_000;

fn burn(ms: u64) {
    let end = now_ms() + ms;
    let mut x = 0u64;
    while now_ms() < end {
        for i in 0..1000 {
            x = std::hint::black_box(x.wrapping_add(i));
        }
    }
}

unsafe fn clocks_advance() {
    for clock in [
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_REALTIME,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_MONOTONIC_RAW,
    ] {
        let a = now(clock);
        sleep_ms(10);
        let b = now(clock);
        check!(
            b - a >= 9 * MS && b - a < 2000 * MS,
            "clock {clock}: {} ns",
            b - a
        );
        let mut last = now(clock);
        for _ in 0..1000 {
            let t = now(clock);
            check!(t >= last);
            last = t;
        }
    }
}

unsafe fn clock_kinds() {
    // 2023 or later; coarse clocks trail by less than a tick or two.
    check!(now(libc::CLOCK_REALTIME) > 1_672_531_200 * 1_000_000_000);
    for (fine, coarse) in [
        (libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE),
        (libc::CLOCK_MONOTONIC, libc::CLOCK_MONOTONIC_COARSE),
    ] {
        let a = now(coarse);
        let b = now(fine);
        check!(b >= a && b - a < 50 * MS, "{} ns behind", b - a);
    }
    now(libc::CLOCK_TAI);
    now(libc::CLOCK_PROCESS_CPUTIME_ID);
    now(libc::CLOCK_THREAD_CPUTIME_ID);
}

unsafe fn clock_getres_values() {
    let mut t: libc::timespec = std::mem::zeroed();
    ok!(libc::clock_getres(libc::CLOCK_MONOTONIC, &mut t));
    eq!((t.tv_sec, t.tv_nsec), (0, 1));
    ok!(libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut t));
    check!(t.tv_nsec >= MS && t.tv_nsec <= 10 * MS);
    ok!(sys!(libc::SYS_clock_getres, libc::CLOCK_REALTIME, 0));
    err!(libc::EINVAL, libc::clock_getres(99, &mut t));
}

unsafe fn clock_errors() {
    let mut t: libc::timespec = std::mem::zeroed();
    err!(libc::EINVAL, libc::clock_gettime(99, &mut t));
    err!(libc::EINVAL, libc::clock_gettime(-100_000, &mut t));
    err!(
        libc::EFAULT,
        sys!(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, 8)
    );
    err!(libc::EFAULT, sys!(libc::SYS_gettimeofday, 8, 0));
}

unsafe fn vdso_and_syscall_agree() {
    for clock in [
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_REALTIME,
        libc::CLOCK_BOOTTIME,
    ] {
        let a = now(clock);
        let mut t: libc::timespec = std::mem::zeroed();
        ok!(sys!(libc::SYS_clock_gettime, clock, &mut t as *mut _));
        let b = t.tv_sec * 1_000_000_000 + t.tv_nsec;
        let d = now(clock);
        check!(a <= b && b <= d, "clock {clock}: {a} {b} {d}");
    }
}

unsafe fn gettimeofday_and_time() {
    let mut tv: libc::timeval = std::mem::zeroed();
    ok!(libc::gettimeofday(&mut tv, std::ptr::null_mut()));
    let r = now(libc::CLOCK_REALTIME);
    check!((r - (tv.tv_sec * 1_000_000_000 + tv.tv_usec * 1000)).abs() < 500 * MS);
    let t = libc::time(std::ptr::null_mut());
    check!((t - tv.tv_sec).abs() <= 1);
    let mut raw: libc::timeval = std::mem::zeroed();
    ok!(sys!(libc::SYS_gettimeofday, &mut raw as *mut _, 0));
    check!((raw.tv_sec - tv.tv_sec).abs() <= 1);
    let mut store = 0i64;
    let t = sys!(libc::SYS_time, &mut store as *mut i64);
    eq!(t, store);
}

unsafe fn nanosleep_sleeps() {
    for ms in [0, 1, 15, 60] {
        let start = now(libc::CLOCK_MONOTONIC);
        ok!(libc::nanosleep(&ns(ms * MS), std::ptr::null_mut()));
        let took = now(libc::CLOCK_MONOTONIC) - start;
        check!(
            took >= ms * MS && took < (ms + 1000) * MS,
            "{ms} ms took {took} ns"
        );
    }
}

unsafe fn nanosleep_errors() {
    err!(
        libc::EINVAL,
        libc::nanosleep(
            &libc::timespec {
                tv_sec: -1,
                tv_nsec: 0
            },
            std::ptr::null_mut()
        )
    );
    err!(
        libc::EINVAL,
        libc::nanosleep(
            &libc::timespec {
                tv_sec: 0,
                tv_nsec: 1_000_000_000
            },
            std::ptr::null_mut()
        )
    );
    err!(libc::EFAULT, sys!(libc::SYS_nanosleep, 8, 0));
}

unsafe fn clock_nanosleep_absolute() {
    let start = now(libc::CLOCK_MONOTONIC);
    eq!(
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &ns(start + 30 * MS),
            std::ptr::null_mut()
        ),
        0
    );
    check!(now(libc::CLOCK_MONOTONIC) >= start + 30 * MS);
    // The past: at once.
    eq!(
        libc::clock_nanosleep(
            libc::CLOCK_REALTIME,
            libc::TIMER_ABSTIME,
            &ns(5),
            std::ptr::null_mut()
        ),
        0
    );
    let r = now(libc::CLOCK_REALTIME);
    eq!(
        libc::clock_nanosleep(
            libc::CLOCK_REALTIME,
            libc::TIMER_ABSTIME,
            &ns(r + 20 * MS),
            std::ptr::null_mut()
        ),
        0
    );
    check!(now(libc::CLOCK_REALTIME) >= r + 20 * MS);
}

unsafe fn clock_nanosleep_clocks() {
    for clock in [
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_REALTIME,
    ] {
        eq!(
            libc::clock_nanosleep(clock, 0, &ns(MS), std::ptr::null_mut()),
            0
        );
    }
    eq!(
        sys!(
            libc::SYS_clock_nanosleep,
            libc::CLOCK_THREAD_CPUTIME_ID,
            0,
            &ns(MS) as *const _,
            0
        ),
        -1
    );
    eq!(errno(), libc::EOPNOTSUPP);
    eq!(
        libc::clock_nanosleep(99, 0, &ns(MS), std::ptr::null_mut()),
        libc::EINVAL
    );
    eq!(
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC_RAW, 0, &ns(MS), std::ptr::null_mut()),
        libc::EOPNOTSUPP
    );
}

unsafe fn usleep_many_threads() {
    let start = now_ms();
    let threads: Vec<_> = (0..20)
        .map(|_| std::thread::spawn(|| sleep_ms(50)))
        .collect();
    for t in threads {
        check!(t.join().is_ok());
    }
    let took = now_ms() - start;
    check!((49..900).contains(&took), "{took} ms");
}

unsafe fn process_cpu_clock() {
    let a = now(libc::CLOCK_PROCESS_CPUTIME_ID);
    sleep_ms(40);
    let b = now(libc::CLOCK_PROCESS_CPUTIME_ID);
    check!(b - a < 30 * MS, "sleeping used {} ns", b - a);
    burn(60);
    let d = now(libc::CLOCK_PROCESS_CPUTIME_ID);
    check!(d - b > 5 * MS, "burning used {} ns", d - b);
}

unsafe fn thread_cpu_clock() {
    let a = now(libc::CLOCK_THREAD_CPUTIME_ID);
    let t = std::thread::spawn(|| burn(60));
    check!(t.join().is_ok());
    let b = now(libc::CLOCK_THREAD_CPUTIME_ID);
    check!(b - a < 30 * MS);
    check!(now(libc::CLOCK_PROCESS_CPUTIME_ID) > now(libc::CLOCK_THREAD_CPUTIME_ID));
}

unsafe fn cpu_clock_of_other() {
    let pid = fork(|| {
        loop {
            burn(10);
        }
    });
    sleep_ms(60);
    let mut clock = 0;
    eq!(libc::clock_getcpuclockid(pid, &mut clock), 0);
    check!(now(clock) > MS);
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
    let mut t: libc::timespec = std::mem::zeroed();
    err!(libc::EINVAL, libc::clock_gettime(clock, &mut t));
}

unsafe fn times_and_clock() {
    let mut a: libc::tms = std::mem::zeroed();
    let mut b: libc::tms = std::mem::zeroed();
    let t0 = libc::times(&mut a);
    burn(120);
    let t1 = libc::times(&mut b);
    check!(t1 - t0 >= 11 && t1 - t0 < 300, "{} ticks", t1 - t0);
    check!(b.tms_utime + b.tms_stime > a.tms_utime + a.tms_stime);
    let mut ru: libc::rusage = std::mem::zeroed();
    ok!(libc::getrusage(libc::RUSAGE_SELF, &mut ru));
    check!(ru.ru_utime.tv_sec * 1_000_000 + ru.ru_utime.tv_usec > 10_000);
    ok!(libc::getrusage(libc::RUSAGE_THREAD, &mut ru));
}

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

unsafe fn ticks(fd: i32) -> u64 {
    u64::from_ne_bytes(read_some(fd, 8).try_into().unwrap_or_default())
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

unsafe fn clock_settime_refused_for_user() {
    in_child(|| {
        ok!(libc::setresuid(1000, 1000, 1000));
        err!(
            libc::EPERM,
            libc::clock_settime(libc::CLOCK_REALTIME, &ns(1_700_000_000_000_000_000))
        );
        err!(
            libc::EPERM,
            sys!(libc::SYS_settimeofday, [1i64, 1].as_ptr(), 0)
        );
    });
    err!(
        libc::EINVAL,
        libc::clock_settime(libc::CLOCK_MONOTONIC, &ns(1))
    );
}

unsafe fn adjtimex_reads() {
    let mut t: libc::timex = std::mem::zeroed();
    let r = libc::adjtimex(&mut t);
    check!(r >= 0 || errno() == libc::EPERM, "{}", errno_text());
}

unsafe fn sleep_zero_yields() {
    ok!(libc::sched_yield());
    ok!(libc::nanosleep(&ns(0), std::ptr::null_mut()));
    ok!(libc::usleep(0));
}

unsafe fn boottime_not_behind_monotonic() {
    let m = now(libc::CLOCK_MONOTONIC);
    check!(now(libc::CLOCK_BOOTTIME) + 1000 * MS >= m);
    let uptime: f64 = read_text("/proc/uptime")
        .split_whitespace()
        .next()
        .and_then(|s| s.parse().ok())
        .unwrap_or(-1.0);
    let b = now(libc::CLOCK_BOOTTIME) as f64 / 1e9;
    check!((uptime - b).abs() < 2.0, "{uptime} {b}");
}
