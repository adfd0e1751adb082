//! clock_gettime(2), nanosleep(2), times(2).

use super::*;
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
    clock_settime_refused_for_user,
    adjtimex_reads,
    sleep_zero_yields,
    boottime_not_behind_monotonic,
];

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
