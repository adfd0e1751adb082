//! Masks, pending signals and who gets them: sigprocmask(2), sigqueue(3), sigtimedwait(2).

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use super::*;
use crate::util::{self, *};

cases![
    mask_blocks_until_unblocked,
    mask_cannot_block_kill,
    sigprocmask_errors,
    standard_signals_merge,
    realtime_signals_queue_in_order,
    lowest_signal_first,
    realtime_carries_value,
    sigqueue_limit,
    sigpending_shows,
    sigsuspend_swaps_mask,
    pause_returns_eintr,
    sigwait_takes_signal,
    sigtimedwait_timeout,
    sigtimedwait_errors,
    thread_directed,
    process_signal_to_unblocked_thread,
    fork_clears_pending,
    kill_self_is_synchronous,
    permission_to_signal,
];

unsafe fn mask_blocks_until_unblocked() {
    on(libc::SIGUSR1, 0);
    block(&[libc::SIGUSR1]);
    ok!(libc::raise(libc::SIGUSR1));
    eq!(COUNT.load(SeqCst), 0);
    unblock(&[libc::SIGUSR1]);
    eq!(COUNT.load(SeqCst), 1);
}

unsafe fn mask_cannot_block_kill() {
    let mut set: libc::sigset_t = std::mem::zeroed();
    libc::sigfillset(&mut set);
    ok!(libc::sigprocmask(
        libc::SIG_SETMASK,
        &set,
        std::ptr::null_mut()
    ));
    let mut now: libc::sigset_t = std::mem::zeroed();
    ok!(libc::sigprocmask(
        libc::SIG_SETMASK,
        std::ptr::null(),
        &mut now
    ));
    eq!(libc::sigismember(&now, libc::SIGKILL), 0);
    eq!(libc::sigismember(&now, libc::SIGSTOP), 0);
    eq!(libc::sigismember(&now, libc::SIGTERM), 1);
}

unsafe fn sigprocmask_errors() {
    let set = sigset(&[]);
    err!(
        libc::EINVAL,
        libc::sigprocmask(77, &set, std::ptr::null_mut())
    );
    // The operation does not matter without a set.
    ok!(libc::sigprocmask(
        77,
        std::ptr::null(),
        std::ptr::null_mut()
    ));
    err!(
        libc::EFAULT,
        sys!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 8, 0, 8)
    );
    err!(
        libc::EFAULT,
        sys!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, 8, 8)
    );
}

unsafe fn standard_signals_merge() {
    on(libc::SIGUSR1, 0);
    block(&[libc::SIGUSR1]);
    for _ in 0..5 {
        libc::raise(libc::SIGUSR1);
    }
    unblock(&[libc::SIGUSR1]);
    eq!(COUNT.load(SeqCst), 1);
}

static ORDER: std::sync::Mutex<Vec<(i32, i64)>> = std::sync::Mutex::new(Vec::new());

extern "C" fn record(signo: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let value = unsafe { (*si).si_value().sival_ptr as i64 };
    if let Ok(mut order) = ORDER.lock() {
        order.push((signo, value));
    }
}

unsafe fn order() -> Vec<(i32, i64)> {
    ORDER.lock().map(|o| o.clone()).unwrap_or_default()
}

unsafe fn record_all(signals: &[i32]) {
    let mut sa: libc::sigaction = std::mem::zeroed();
    sa.sa_sigaction = fp3(record);
    sa.sa_flags = libc::SA_SIGINFO;
    libc::sigfillset(&mut sa.sa_mask);
    for s in signals {
        ok!(libc::sigaction(*s, &sa, std::ptr::null_mut()));
    }
}

unsafe fn realtime_signals_queue_in_order() {
    let a = libc::SIGRTMIN();
    record_all(&[a, a + 1]);
    block(&[a, a + 1]);
    queue(a + 1, 1);
    queue(a, 2);
    queue(a, 3);
    queue(a + 1, 4);
    queue(a, 5);
    let mut si: libc::siginfo_t = std::mem::zeroed();
    for expected in [(a, 2), (a, 3), (a, 5), (a + 1, 1), (a + 1, 4)] {
        let signo = ok!(libc::sigwaitinfo(&sigset(&[a, a + 1]), &mut si));
        eq!((signo, si.si_value().sival_ptr as i64), expected);
    }
    // Handlers: each delivery pushes a frame, so with all of them pending at
    // once the last set up runs first; a full mask keeps them in order.
    for i in 0..10 {
        queue(a, i);
    }
    unblock(&[a, a + 1]);
    eq!(order(), (0..10).map(|i| (a, i)).collect::<Vec<_>>());
}

unsafe fn lowest_signal_first() {
    let signals = [libc::SIGUSR2, libc::SIGHUP, libc::SIGRTMIN(), libc::SIGTERM];
    record_all(&signals);
    block(&signals);
    for s in signals {
        libc::raise(s);
    }
    unblock(&signals);
    let got: Vec<i32> = order().iter().map(|o| o.0).collect();
    eq!(
        got,
        [libc::SIGHUP, libc::SIGUSR2, libc::SIGTERM, libc::SIGRTMIN()]
    );
}

unsafe fn realtime_carries_value() {
    handle(libc::SIGRTMIN() + 3, fp3(info), libc::SA_SIGINFO);
    queue(libc::SIGRTMIN() + 3, 0xdead_beef);
    eq!(VALUE.load(SeqCst), 0xdead_beef);
}

unsafe fn sigqueue_limit() {
    let limit = libc::rlimit {
        rlim_cur: 10,
        rlim_max: 10,
    };
    in_child(|| {
        // Another uid, so that nobody else's signals count.
        ok!(libc::setresuid(54321, 54321, 54321));
        ok!(libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit));
        let rt = libc::SIGRTMIN();
        block(&[rt, libc::SIGUSR1]);
        let v = libc::sigval {
            sival_ptr: std::ptr::null_mut(),
        };
        let mut sent = 0;
        while libc::sigqueue(libc::getpid(), rt, v) == 0 {
            sent += 1;
            check!(sent < 50);
        }
        eq!(errno(), libc::EAGAIN);
        eq!(sent, 10);
        // kill() of a standard signal still gets through.
        ok!(libc::kill(libc::getpid(), libc::SIGUSR1));
        let mut pending = sigset(&[]);
        libc::sigpending(&mut pending);
        eq!(libc::sigismember(&pending, libc::SIGUSR1), 1);
    });
}

unsafe fn sigpending_shows() {
    block(&[libc::SIGUSR1, libc::SIGRTMIN()]);
    let mut p = sigset(&[]);
    ok!(libc::sigpending(&mut p));
    eq!(libc::sigismember(&p, libc::SIGUSR1), 0);
    libc::raise(libc::SIGUSR1);
    libc::kill(libc::getpid(), libc::SIGRTMIN());
    ok!(libc::sigpending(&mut p));
    eq!(libc::sigismember(&p, libc::SIGUSR1), 1);
    eq!(libc::sigismember(&p, libc::SIGRTMIN()), 1);
    eq!(libc::sigismember(&p, libc::SIGUSR2), 0);
}

unsafe fn sigsuspend_swaps_mask() {
    on(libc::SIGUSR1, 0);
    block(&[libc::SIGUSR1, libc::SIGUSR2]);
    libc::raise(libc::SIGUSR1);
    eq!(COUNT.load(SeqCst), 0);
    err!(libc::EINTR, libc::sigsuspend(&sigset(&[libc::SIGUSR2])));
    eq!(COUNT.load(SeqCst), 1);
    let mut now = sigset(&[]);
    libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut now);
    eq!(libc::sigismember(&now, libc::SIGUSR1), 1);
}

unsafe fn pause_returns_eintr() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    later(libc::SIGUSR1, 30);
    err!(libc::EINTR, libc::pause());
    eq!(COUNT.load(SeqCst), 1);
}

unsafe fn sigwait_takes_signal() {
    on(libc::SIGUSR1, 0);
    block(&[libc::SIGUSR1]);
    let child = later(libc::SIGUSR1, 30);
    let mut si: libc::siginfo_t = std::mem::zeroed();
    eq!(
        ok!(libc::sigwaitinfo(&sigset(&[libc::SIGUSR1]), &mut si)),
        libc::SIGUSR1
    );
    eq!(si.si_pid(), child);
    unblock(&[libc::SIGUSR1]);
    eq!(COUNT.load(SeqCst), 0);
}

unsafe fn sigtimedwait_timeout() {
    block(&[libc::SIGUSR1]);
    let set = sigset(&[libc::SIGUSR1]);
    let zero = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    err!(
        libc::EAGAIN,
        libc::sigtimedwait(&set, std::ptr::null_mut(), &zero)
    );
    let start = now_ms();
    let ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    err!(
        libc::EAGAIN,
        libc::sigtimedwait(&set, std::ptr::null_mut(), &ts)
    );
    check!(now_ms() - start >= 49);
    libc::raise(libc::SIGUSR1);
    eq!(
        ok!(libc::sigtimedwait(&set, std::ptr::null_mut(), &zero)),
        libc::SIGUSR1
    );
    // A handled signal that is not waited for interrupts.
    on(libc::SIGUSR2, libc::SA_RESTART);
    later(libc::SIGUSR2, 20);
    let long = libc::timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    err!(
        libc::EINTR,
        sys!(
            libc::SYS_rt_sigtimedwait,
            &set as *const _,
            0,
            &long as *const _,
            8
        )
    );
}

unsafe fn sigtimedwait_errors() {
    let set = sigset(&[libc::SIGUSR1]);
    let bad = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000_000,
    };
    err!(
        libc::EINVAL,
        libc::sigtimedwait(&set, std::ptr::null_mut(), &bad)
    );
    err!(
        libc::EINVAL,
        sys!(libc::SYS_rt_sigtimedwait, &set as *const _, 0, 0, 4)
    );
}

static TID: AtomicI32 = AtomicI32::new(0);

extern "C" fn note_tid(_: i32) {
    TID.store(unsafe { sys!(libc::SYS_gettid) } as i32, SeqCst);
    COUNT.fetch_add(1, SeqCst);
}

unsafe fn thread_directed() {
    handle(libc::SIGUSR1, fp(note_tid), 0);
    static OTHER: AtomicI32 = AtomicI32::new(0);
    std::thread::spawn(|| {
        OTHER.store(sys!(libc::SYS_gettid) as i32, SeqCst);
        loop {
            libc::pause();
        }
    });
    check!(eventually(|| OTHER.load(SeqCst) != 0));
    let tid = OTHER.load(SeqCst);
    ok!(sys!(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR1));
    check!(eventually(|| COUNT.load(SeqCst) == 1));
    eq!(TID.load(SeqCst), tid);
    ok!(sys!(
        libc::SYS_tgkill,
        libc::getpid(),
        libc::getpid(),
        libc::SIGUSR1
    ));
    eq!(TID.load(SeqCst), libc::getpid());
}

unsafe fn process_signal_to_unblocked_thread() {
    handle(libc::SIGUSR1, fp(note_tid), 0);
    static OTHER: AtomicI32 = AtomicI32::new(0);
    std::thread::spawn(|| {
        OTHER.store(sys!(libc::SYS_gettid) as i32, SeqCst);
        loop {
            libc::pause();
        }
    });
    check!(eventually(|| OTHER.load(SeqCst) != 0));
    block(&[libc::SIGUSR1]);
    libc::kill(libc::getpid(), libc::SIGUSR1);
    check!(eventually(|| COUNT.load(SeqCst) == 1));
    eq!(TID.load(SeqCst), OTHER.load(SeqCst));
}

unsafe fn fork_clears_pending() {
    block(&[libc::SIGUSR1]);
    libc::raise(libc::SIGUSR1);
    in_child(|| {
        let mut p = sigset(&[]);
        libc::sigpending(&mut p);
        eq!(libc::sigismember(&p, libc::SIGUSR1), 0);
        // The mask is inherited.
        libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut p);
        eq!(libc::sigismember(&p, libc::SIGUSR1), 1);
    });
}

unsafe fn kill_self_is_synchronous() {
    on(libc::SIGUSR1, 0);
    for i in 1..=1000 {
        libc::kill(libc::getpid(), libc::SIGUSR1);
        eq!(COUNT.load(SeqCst), i);
    }
}

unsafe fn permission_to_signal() {
    let target = fork(|| {
        loop {
            libc::pause();
        }
    });
    in_child(|| {
        ok!(libc::setresuid(1001, 1001, 1001));
        err!(libc::EPERM, libc::kill(target, 0));
        err!(libc::EPERM, libc::kill(target, libc::SIGTERM));
        // SIGCONT is allowed within the session.
        ok!(libc::kill(target, libc::SIGCONT));
    });
    libc::kill(target, libc::SIGKILL);
    util::wait(target);
}
