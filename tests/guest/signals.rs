//! Signals: sigaction(2), sigprocmask(2), sigaltstack(2), sigqueue(3),
//! sigtimedwait(2), signalfd(2), signal(7).

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicUsize, Ordering::SeqCst};

use crate::util::{self, *};

cases![
    handler_runs,
    siginfo_of_kill,
    siginfo_of_queue,
    siginfo_of_tgkill,
    sigaction_errors,
    sigaction_reports_old,
    ignore_and_default,
    default_ignored_signals,
    mask_blocks_until_unblocked,
    mask_cannot_block_kill,
    sigprocmask_errors,
    handler_mask_and_nodefer,
    resethand,
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
    restart_read,
    no_restart_read,
    nanosleep_never_restarts,
    poll_never_restarts,
    restart_wait,
    restart_futex_wait,
    partial_transfer_beats_eintr,
    altstack_used,
    altstack_errors,
    altstack_autodisarm,
    segv_info_and_ucontext,
    segv_map_and_access_codes,
    segv_skip_instruction,
    sigbus_beyond_file_end,
    sigfpe_divide,
    sigill_instruction,
    sigtrap_int3,
    blocked_segv_kills,
    nested_handlers,
    longjmp_from_handler,
    fp_state_preserved,
    sigpipe,
    sigchld_info,
    sigchld_stop_and_continue,
    sigchld_nocldstop,
    stop_and_continue,
    cont_handler_runs,
    stop_signals_discard_cont,
    sigkill_stopped,
    sigstop_all_threads,
    thread_directed,
    process_signal_to_unblocked_thread,
    signalfd_reads,
    signalfd_poll_and_mask_change,
    signalfd_errors,
    fork_clears_pending,
    setitimer_real,
    alarm_remaining,
    kill_self_is_synchronous,
    permission_to_signal,
    raw_sigaction_sizes,
    sigreturn_restores_registers,
    red_zone_untouched,
    signal_storm,
    async_signal_to_spinning_thread,
    sigev_thread_id_timer,
    syscall_result_survives_handler,
    eintr_on_epoll_and_sem,
    fatal_in_handler,
];

static COUNT: AtomicI32 = AtomicI32::new(0);
static SIGNO: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static PID: AtomicI32 = AtomicI32::new(0);
static UID: AtomicI32 = AtomicI32::new(-1);
static VALUE: AtomicI64 = AtomicI64::new(0);
static ADDR: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(signo: i32) {
    SIGNO.store(signo, SeqCst);
    COUNT.fetch_add(1, SeqCst);
}

extern "C" fn info(signo: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe {
        let si = &*si;
        SIGNO.store(signo, SeqCst);
        CODE.store(si.si_code, SeqCst);
        PID.store(si.si_pid(), SeqCst);
        UID.store(si.si_uid() as i32, SeqCst);
        VALUE.store(si.si_value().sival_ptr as i64, SeqCst);
        COUNT.fetch_add(1, SeqCst);
    }
}

fn fp(f: extern "C" fn(i32)) -> usize {
    f as *const () as usize
}

fn fp3(f: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)) -> usize {
    f as *const () as usize
}

unsafe fn on(signo: i32, flags: i32) {
    handle(signo, fp(count), flags);
}

unsafe fn handler_runs() {
    for signo in [
        libc::SIGUSR1,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGALRM,
        libc::SIGCHLD,
        libc::SIGRTMIN(),
        libc::SIGRTMAX(),
    ] {
        on(signo, 0);
        let before = COUNT.load(SeqCst);
        ok!(libc::raise(signo));
        eq!(COUNT.load(SeqCst), before + 1);
        eq!(SIGNO.load(SeqCst), signo);
    }
}

unsafe fn siginfo_of_kill() {
    handle(libc::SIGUSR1, fp3(info), libc::SA_SIGINFO);
    ok!(libc::kill(libc::getpid(), libc::SIGUSR1));
    eq!(CODE.load(SeqCst), libc::SI_USER);
    eq!(PID.load(SeqCst), libc::getpid());
    eq!(UID.load(SeqCst), libc::getuid() as i32);
    let me = libc::getpid();
    block(&[libc::SIGUSR1]);
    let child = fork(|| {
        ok!(libc::setresuid(1000, -1i32 as u32, -1i32 as u32));
        ok!(libc::kill(me, libc::SIGUSR1));
    });
    wait_ok(child);
    unblock(&[libc::SIGUSR1]);
    eq!(PID.load(SeqCst), child);
    eq!(UID.load(SeqCst), 1000);
}

unsafe fn siginfo_of_queue() {
    handle(libc::SIGUSR2, fp3(info), libc::SA_SIGINFO);
    let value = libc::sigval {
        sival_ptr: 0x1234_5678_9abc as *mut _,
    };
    ok!(libc::sigqueue(libc::getpid(), libc::SIGUSR2, value));
    eq!(CODE.load(SeqCst), libc::SI_QUEUE);
    eq!(VALUE.load(SeqCst), 0x1234_5678_9abc);
    eq!(PID.load(SeqCst), libc::getpid());
}

unsafe fn siginfo_of_tgkill() {
    handle(libc::SIGUSR2, fp3(info), libc::SA_SIGINFO);
    let pid = libc::getpid();
    ok!(sys!(libc::SYS_tgkill, pid, pid, libc::SIGUSR2));
    eq!(CODE.load(SeqCst), libc::SI_TKILL);
    eq!(PID.load(SeqCst), pid);
    // Somebody else's codes can only be forged towards oneself.
    let mut si: libc::siginfo_t = std::mem::zeroed();
    si.si_code = 5;
    err!(
        libc::EPERM,
        sys!(
            libc::SYS_rt_sigqueueinfo,
            libc::getppid(),
            libc::SIGCONT,
            &si as *const _
        )
    );
    si.si_code = -60;
    ok!(sys!(
        libc::SYS_rt_tgsigqueueinfo,
        pid,
        pid,
        libc::SIGUSR2,
        &si as *const _
    ));
    eq!(CODE.load(SeqCst), -60);
}

unsafe fn sigaction_errors() {
    let mut sa: libc::sigaction = std::mem::zeroed();
    sa.sa_sigaction = libc::SIG_IGN;
    for signo in [0, -1, 65, 1000, libc::SIGKILL, libc::SIGSTOP] {
        err!(
            libc::EINVAL,
            libc::sigaction(signo, &sa, std::ptr::null_mut())
        );
    }
    // Reading the action of SIGKILL is allowed.
    ok!(libc::sigaction(libc::SIGKILL, std::ptr::null(), &mut sa));
    err!(
        libc::EFAULT,
        sys!(libc::SYS_rt_sigaction, libc::SIGUSR1, 8, 0, 8)
    );
    err!(
        libc::EFAULT,
        sys!(libc::SYS_rt_sigaction, libc::SIGUSR1, 0, 8, 8)
    );
}

unsafe fn raw_sigaction_sizes() {
    let mut buf = [0u64; 4];
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_rt_sigaction,
            libc::SIGUSR1,
            0,
            buf.as_mut_ptr(),
            4
        )
    );
    ok!(sys!(
        libc::SYS_rt_sigaction,
        libc::SIGUSR1,
        0,
        buf.as_mut_ptr(),
        8
    ));
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            buf.as_ptr(),
            0,
            16
        )
    );
    err!(
        libc::EINVAL,
        sys!(libc::SYS_rt_sigpending, buf.as_mut_ptr(), 16)
    );
    err!(libc::EINVAL, sys!(libc::SYS_rt_sigsuspend, buf.as_ptr(), 4));
}

unsafe fn sigaction_reports_old() {
    let mut sa: libc::sigaction = std::mem::zeroed();
    sa.sa_sigaction = fp(count);
    sa.sa_flags = libc::SA_RESTART | libc::SA_NODEFER;
    sa.sa_mask = sigset(&[libc::SIGUSR2, libc::SIGKILL]);
    ok!(libc::sigaction(libc::SIGUSR1, &sa, std::ptr::null_mut()));
    let mut old: libc::sigaction = std::mem::zeroed();
    ok!(libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut old));
    eq!(old.sa_sigaction, fp(count));
    eq!(
        old.sa_flags & (libc::SA_RESTART | libc::SA_NODEFER | libc::SA_SIGINFO),
        libc::SA_RESTART | libc::SA_NODEFER
    );
    eq!(libc::sigismember(&old.sa_mask, libc::SIGUSR2), 1);
    // SIGKILL and SIGSTOP are silently taken out of the mask.
    eq!(libc::sigismember(&old.sa_mask, libc::SIGKILL), 0);
}

unsafe fn ignore_and_default() {
    libc::signal(libc::SIGTERM, libc::SIG_IGN);
    ok!(libc::raise(libc::SIGTERM));
    // Setting a pending signal to ignored drops it.
    on(libc::SIGUSR1, 0);
    block(&[libc::SIGUSR1]);
    libc::raise(libc::SIGUSR1);
    libc::signal(libc::SIGUSR1, libc::SIG_IGN);
    on(libc::SIGUSR1, 0);
    unblock(&[libc::SIGUSR1]);
    eq!(COUNT.load(SeqCst), 0);
}

unsafe fn default_ignored_signals() {
    for signo in [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT] {
        ok!(libc::raise(signo));
    }
    for (signo, core) in [
        (libc::SIGQUIT, true),
        (libc::SIGIO, false),
        (libc::SIGVTALRM, false),
        (libc::SIGSTKFLT, false),
        (libc::SIGSYS, true),
    ] {
        let _ = core;
        let pid = fork(|| {
            let zero = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &zero);
            libc::raise(signo);
        });
        eq!(libc::WTERMSIG(util::wait(pid)), signo);
    }
}

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

static DEPTH: AtomicI32 = AtomicI32::new(0);
static MAX_DEPTH: AtomicI32 = AtomicI32::new(0);

extern "C" fn reraise(signo: i32) {
    let depth = DEPTH.fetch_add(1, SeqCst) + 1;
    MAX_DEPTH.fetch_max(depth, SeqCst);
    if COUNT.fetch_add(1, SeqCst) < 2 {
        unsafe { libc::raise(signo) };
    }
    DEPTH.fetch_sub(1, SeqCst);
}

unsafe fn handler_mask_and_nodefer() {
    handle(libc::SIGUSR1, fp(reraise), 0);
    libc::raise(libc::SIGUSR1);
    eq!((COUNT.load(SeqCst), MAX_DEPTH.load(SeqCst)), (3, 1));
    COUNT.store(0, SeqCst);
    handle(libc::SIGUSR1, fp(reraise), libc::SA_NODEFER);
    libc::raise(libc::SIGUSR1);
    eq!((COUNT.load(SeqCst), MAX_DEPTH.load(SeqCst)), (3, 3));
    // sa_mask blocks others during the handler.
    extern "C" fn check_mask(_: i32) {
        unsafe {
            let mut now: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut now);
            check!(libc::sigismember(&now, libc::SIGUSR2) == 1);
            check!(libc::sigismember(&now, libc::SIGTERM) == 1);
            COUNT.store(77, SeqCst);
        }
    }
    let mut sa: libc::sigaction = std::mem::zeroed();
    sa.sa_sigaction = fp(check_mask);
    sa.sa_mask = sigset(&[libc::SIGUSR2]);
    ok!(libc::sigaction(libc::SIGTERM, &sa, std::ptr::null_mut()));
    libc::raise(libc::SIGTERM);
    eq!(COUNT.load(SeqCst), 77);
    let mut now: libc::sigset_t = std::mem::zeroed();
    libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut now);
    eq!(libc::sigismember(&now, libc::SIGUSR2), 0);
}

unsafe fn resethand() {
    on(libc::SIGUSR1, libc::SA_RESETHAND);
    libc::raise(libc::SIGUSR1);
    eq!(COUNT.load(SeqCst), 1);
    let mut sa: libc::sigaction = std::mem::zeroed();
    libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut sa);
    eq!(sa.sa_sigaction, libc::SIG_DFL);
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

unsafe fn queue(signo: i32, value: usize) {
    ok!(libc::sigqueue(
        libc::getpid(),
        signo,
        libc::sigval {
            sival_ptr: value as *mut _
        }
    ));
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

/// Sends `signo` to this thread group after a while, from a child.
unsafe fn later(signo: i32, ms: u64) -> i32 {
    let me = libc::getpid();
    fork(|| {
        sleep_ms(ms);
        libc::kill(me, signo);
    })
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

unsafe fn restart_read() {
    let (r, w) = pipe();
    on(libc::SIGUSR1, libc::SA_RESTART);
    let me = libc::getpid();
    let pid = fork(|| {
        sleep_ms(30);
        libc::kill(me, libc::SIGUSR1);
        sleep_ms(30);
        write_all(w, b"z");
    });
    eq!(read_some(r, 1), b"z");
    eq!(COUNT.load(SeqCst), 1);
    wait_ok(pid);
}

unsafe fn no_restart_read() {
    let (r, w) = pipe();
    on(libc::SIGUSR1, 0);
    later(libc::SIGUSR1, 30);
    let mut b = 0u8;
    err!(libc::EINTR, libc::read(r, (&mut b as *mut u8).cast(), 1));
    let _ = w;
}

unsafe fn nanosleep_never_restarts() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    later(libc::SIGUSR1, 30);
    let ts = libc::timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let mut rem = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    err!(libc::EINTR, libc::nanosleep(&ts, &mut rem));
    check!(rem.tv_sec == 9, "remaining {} s", rem.tv_sec);
    // A stop and continue without a handler is not seen at all.
    let me = libc::getpid();
    let start = now_ms();
    let pid = fork(|| {
        sleep_ms(20);
        libc::kill(me, libc::SIGSTOP);
        sleep_ms(20);
        libc::kill(me, libc::SIGCONT);
    });
    let ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 150_000_000,
    };
    ok!(libc::nanosleep(&ts, std::ptr::null_mut()));
    check!(now_ms() - start >= 149);
    util::wait(pid);
}

unsafe fn poll_never_restarts() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    later(libc::SIGUSR1, 20);
    err!(libc::EINTR, libc::poll(std::ptr::null_mut(), 0, 5000));
    later(libc::SIGUSR1, 20);
    err!(
        libc::EINTR,
        libc::select(
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut()
        )
    );
}

unsafe fn restart_wait() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    let pid = fork(|| sleep_ms(80));
    let killer = later(libc::SIGUSR1, 20);
    let mut st = 0;
    eq!(ok!(libc::waitpid(pid, &mut st, 0)), pid);
    eq!(COUNT.load(SeqCst), 1);
    util::wait(killer);
    on(libc::SIGUSR1, 0);
    let pid = fork(|| sleep_ms(200));
    later(libc::SIGUSR1, 20);
    err!(libc::EINTR, libc::waitpid(pid, &mut st, 0));
}

unsafe fn restart_futex_wait() {
    let word = 0u32;
    on(libc::SIGUSR1, libc::SA_RESTART);
    later(libc::SIGUSR1, 20);
    let ts = libc::timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    // With a relative time-out a handler ends the wait in any case.
    err!(
        libc::EINTR,
        sys!(
            libc::SYS_futex,
            &word as *const u32,
            libc::FUTEX_WAIT,
            0,
            &ts as *const _,
            0,
            0
        )
    );
    eq!(COUNT.load(SeqCst), 1);
    // Without one it is restarted.
    static WORD: AtomicI32 = AtomicI32::new(0);
    std::thread::spawn(|| {
        while COUNT.load(SeqCst) < 2 {
            sleep_ms(1);
        }
        sleep_ms(10);
        WORD.store(1, SeqCst);
        sys!(libc::SYS_futex, WORD.as_ptr(), libc::FUTEX_WAKE, 1);
    });
    let pid = libc::getpid();
    fork(|| {
        sleep_ms(20);
        sys!(libc::SYS_tgkill, pid, pid, libc::SIGUSR1);
    });
    ok!(sys!(
        libc::SYS_futex,
        WORD.as_ptr(),
        libc::FUTEX_WAIT,
        0,
        0,
        0,
        0
    ));
    eq!((COUNT.load(SeqCst), WORD.load(SeqCst)), (2, 1));
    on(libc::SIGUSR1, 0);
    later(libc::SIGUSR1, 20);
    let ts = libc::timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    err!(
        libc::EINTR,
        sys!(
            libc::SYS_futex,
            &word as *const u32,
            libc::FUTEX_WAIT,
            0,
            &ts as *const _,
            0,
            0
        )
    );
}

unsafe fn partial_transfer_beats_eintr() {
    let (r, w) = pipe();
    let size = ok!(libc::fcntl(w, libc::F_GETPIPE_SZ)) as usize;
    on(libc::SIGUSR1, 0);
    later(libc::SIGUSR1, 50);
    let big = vec![1u8; size * 2];
    let n = libc::write(w, big.as_ptr().cast(), big.len());
    eq!(n as usize, size);
    let _ = r;
}

static SP: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note_stack(_: i32) {
    let here = 0u8;
    SP.store(&here as *const u8 as usize, SeqCst);
    unsafe {
        let mut ss: libc::stack_t = std::mem::zeroed();
        libc::sigaltstack(std::ptr::null(), &mut ss);
        CODE.store(ss.ss_flags, SeqCst);
        // Changing it while in use is refused.
        let r = libc::sigaltstack(&ss, std::ptr::null_mut());
        VALUE.store(if r == -1 { errno() as i64 } else { 0 }, SeqCst);
    }
    COUNT.fetch_add(1, SeqCst);
}

unsafe fn altstack_used() {
    let len = 65536;
    let p = anon(len) as usize;
    let ss = libc::stack_t {
        ss_sp: p as *mut _,
        ss_flags: 0,
        ss_size: len,
    };
    let mut old: libc::stack_t = std::mem::zeroed();
    ok!(libc::sigaltstack(&ss, &mut old));
    eq!(old.ss_flags, libc::SS_DISABLE);
    handle(libc::SIGUSR1, fp(note_stack), libc::SA_ONSTACK);
    libc::raise(libc::SIGUSR1);
    let sp = SP.load(SeqCst);
    check!(sp > p && sp < p + len, "{sp:#x} not in {p:#x}");
    eq!(CODE.load(SeqCst), libc::SS_ONSTACK);
    eq!(VALUE.load(SeqCst), i64::from(libc::EPERM));
    // Without SA_ONSTACK the normal stack is used.
    handle(libc::SIGUSR1, fp(note_stack), 0);
    libc::raise(libc::SIGUSR1);
    let sp = SP.load(SeqCst);
    check!(!(sp > p && sp < p + len));
    eq!(CODE.load(SeqCst), 0);
}

unsafe fn altstack_errors() {
    let p = anon(65536);
    let small = libc::stack_t {
        ss_sp: p.cast(),
        ss_flags: 0,
        ss_size: 1024,
    };
    err!(
        libc::ENOMEM,
        libc::sigaltstack(&small, std::ptr::null_mut())
    );
    let flags = libc::stack_t {
        ss_sp: p.cast(),
        ss_flags: 0x40,
        ss_size: 65536,
    };
    err!(
        libc::EINVAL,
        libc::sigaltstack(&flags, std::ptr::null_mut())
    );
    err!(libc::EFAULT, sys!(libc::SYS_sigaltstack, 8, 0));
    // A thread starts without one.
    let on = libc::stack_t {
        ss_sp: p.cast(),
        ss_flags: 0,
        ss_size: 65536,
    };
    ok!(libc::sigaltstack(&on, std::ptr::null_mut()));
    in_child(|| {
        let mut ss: libc::stack_t = std::mem::zeroed();
        libc::sigaltstack(std::ptr::null(), &mut ss);
        eq!(ss.ss_size, 65536);
    });
    // An overflow of the normal stack is handled on the alternate one.
    let pid = fork(|| {
        extern "C" fn overflow(_: i32) {
            unsafe { libc::_exit(44) }
        }
        handle(libc::SIGSEGV, fp(overflow), libc::SA_ONSTACK);
        #[allow(unconditional_recursion)]
        fn deep(n: u64) -> u64 {
            let a = [n; 512];
            std::hint::black_box(&a);
            deep(n + 1) + a[(n % 512) as usize]
        }
        std::hint::black_box(deep(0));
    });
    eq!(libc::WEXITSTATUS(util::wait(pid)), 44);
}

unsafe fn altstack_autodisarm() {
    const SS_AUTODISARM: i32 = 1 << 31;
    let len = 65536;
    let p = anon(len);
    let ss = libc::stack_t {
        ss_sp: p.cast(),
        ss_flags: SS_AUTODISARM,
        ss_size: len,
    };
    ok!(libc::sigaltstack(&ss, std::ptr::null_mut()));
    handle(libc::SIGUSR1, fp(note_stack), libc::SA_ONSTACK);
    libc::raise(libc::SIGUSR1);
    eq!(CODE.load(SeqCst), libc::SS_DISABLE);
    // Restored on return.
    let mut now: libc::stack_t = std::mem::zeroed();
    libc::sigaltstack(std::ptr::null(), &mut now);
    check!(now.ss_sp == p.cast());
}

extern "C" fn fix_page(_: i32, si: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        let addr = (*si).si_addr() as usize;
        ADDR.store(addr, SeqCst);
        CODE.store((*si).si_code, SeqCst);
        let uc = &*uc.cast::<libc::ucontext_t>();
        VALUE.store(uc.uc_mcontext.gregs[libc::REG_ERR as usize], SeqCst);
        PID.store(
            uc.uc_mcontext.gregs[libc::REG_TRAPNO as usize] as i32,
            SeqCst,
        );
        check!(uc.uc_mcontext.gregs[libc::REG_CR2 as usize] as usize == addr);
        COUNT.fetch_add(1, SeqCst);
        libc::mprotect(
            (addr & !4095) as *mut _,
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
        );
    }
}

unsafe fn segv_info_and_ucontext() {
    handle(libc::SIGSEGV, fp3(fix_page), libc::SA_SIGINFO);
    let p = anon(8192);
    ok!(libc::mprotect(p.cast(), 8192, libc::PROT_READ));
    eq!(p.add(5000).read_volatile(), 0);
    p.add(5000).write_volatile(7);
    eq!(COUNT.load(SeqCst), 1);
    eq!(ADDR.load(SeqCst), p as usize + 5000);
    eq!(CODE.load(SeqCst), 2); // SEGV_ACCERR
    eq!(PID.load(SeqCst), 14);
    eq!(VALUE.load(SeqCst) & 7, 7); // present, write, user
    eq!(p.add(5000).read_volatile(), 7);
    ok!(libc::mprotect(p.cast(), 4096, libc::PROT_NONE));
    eq!(p.add(1).read_volatile(), 0);
    eq!(VALUE.load(SeqCst) & 6, 4); // read, user
}

extern "C" fn note_and_jump(_: i32, si: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        ADDR.store((*si).si_addr() as usize, SeqCst);
        CODE.store((*si).si_code, SeqCst);
        SIGNO.store((*si).si_signo, SeqCst);
        let uc = &mut *uc.cast::<libc::ucontext_t>();
        // r12 holds where to go on.
        uc.uc_mcontext.gregs[libc::REG_RIP as usize] = uc.uc_mcontext.gregs[libc::REG_R12 as usize];
        uc.uc_mcontext.gregs[libc::REG_RAX as usize] = 0x55;
    }
}

/// Loads from `addr`; the handler continues behind the load with 0x55.
unsafe fn load(addr: usize) -> u64 {
    let out: u64;
    std::arch::asm!(
        "lea r12, [rip + 2f]",
        "mov rax, [{a}]",
        "2:",
        a = in(reg) addr,
        out("rax") out,
        out("r12") _,
    );
    out
}

unsafe fn segv_map_and_access_codes() {
    handle(libc::SIGSEGV, fp3(note_and_jump), libc::SA_SIGINFO);
    eq!(load(0x10), 0x55);
    eq!((CODE.load(SeqCst), ADDR.load(SeqCst)), (1, 0x10)); // SEGV_MAPERR
    let p = anon(4096);
    ok!(libc::mprotect(p.cast(), 4096, libc::PROT_NONE));
    eq!(load(p as usize), 0x55);
    eq!((CODE.load(SeqCst), ADDR.load(SeqCst)), (2, p as usize));
    ok!(libc::munmap(p.cast(), 4096));
    eq!(load(p as usize + 8), 0x55);
    eq!((CODE.load(SeqCst), ADDR.load(SeqCst)), (1, p as usize + 8));
    // A non-canonical address gives no address.
    eq!(load(0x8000_0000_0000_0000), 0x55);
    eq!((CODE.load(SeqCst), ADDR.load(SeqCst)), (libc::SI_KERNEL, 0));
    // Kernel addresses look unmapped.
    eq!(load(0xffff_ffff_8000_0000), 0x55);
    eq!(CODE.load(SeqCst), 1);
}

unsafe fn segv_skip_instruction() {
    handle(libc::SIGSEGV, fp3(note_and_jump), libc::SA_SIGINFO);
    for _ in 0..1000 {
        eq!(load(0x20), 0x55);
    }
}

unsafe fn sigbus_beyond_file_end() {
    handle(libc::SIGBUS, fp3(note_and_jump), libc::SA_SIGINFO);
    write_file("f", &[1; 100]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(libc::mmap(
        std::ptr::null_mut(),
        8192,
        libc::PROT_READ,
        libc::MAP_SHARED,
        fd,
        0
    )) as usize;
    eq!(load(p) as u8, 1);
    eq!(load(p + 104), 0);
    eq!(load(p + 4096), 0x55);
    eq!(
        (SIGNO.load(SeqCst), CODE.load(SeqCst), ADDR.load(SeqCst)),
        (libc::SIGBUS, 2, p + 4096)
    );
    ok!(libc::ftruncate(fd, 0));
    eq!(load(p), 0x55);
    ok!(libc::ftruncate(fd, 8192));
    eq!(load(p + 4096), 0);
}

unsafe fn sigfpe_divide() {
    handle(libc::SIGFPE, fp3(note_and_jump), libc::SA_SIGINFO);
    let out: u64;
    std::arch::asm!(
        "lea r12, [rip + 2f]",
        "lea r13, [rip + 3f]",
        "xor edx, edx",
        "mov eax, 1",
        "xor ecx, ecx",
        "3:",
        "div ecx",
        "2:",
        out("rax") out, out("r12") _, out("r13") _, out("rcx") _, out("rdx") _,
    );
    eq!(out, 0x55);
    eq!((SIGNO.load(SeqCst), CODE.load(SeqCst)), (libc::SIGFPE, 1)); // FPE_INTDIV
}

unsafe fn sigill_instruction() {
    handle(libc::SIGILL, fp3(note_and_jump), libc::SA_SIGINFO);
    let (out, at): (u64, u64);
    std::arch::asm!(
        "lea r12, [rip + 2f]",
        "lea r13, [rip + 3f]",
        "3:",
        "ud2",
        "2:",
        out("rax") out, out("r12") _, out("r13") at,
    );
    eq!(out, 0x55);
    eq!((SIGNO.load(SeqCst), CODE.load(SeqCst)), (libc::SIGILL, 2)); // ILL_ILLOPN
    eq!(ADDR.load(SeqCst), at as usize);
}

unsafe fn sigtrap_int3() {
    handle(libc::SIGTRAP, fp3(info), libc::SA_SIGINFO);
    std::arch::asm!("int3");
    eq!(COUNT.load(SeqCst), 1);
    eq!(CODE.load(SeqCst), libc::SI_KERNEL);
}

unsafe fn blocked_segv_kills() {
    let pid = fork(|| {
        on(libc::SIGSEGV, 0);
        block(&[libc::SIGSEGV]);
        load(8);
        libc::_exit(1);
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
    let pid = fork(|| {
        libc::signal(libc::SIGSEGV, libc::SIG_IGN);
        load(8);
        libc::_exit(1);
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
}

unsafe fn nested_handlers() {
    extern "C" fn outer(_: i32) {
        unsafe {
            check!(libc::raise(libc::SIGUSR2) == 0);
            // The inner handler has run by now.
            check!(COUNT.load(SeqCst) == 1);
            COUNT.store(10, SeqCst);
        }
    }
    handle(libc::SIGUSR1, fp(outer), 0);
    on(libc::SIGUSR2, 0);
    libc::raise(libc::SIGUSR1);
    eq!(COUNT.load(SeqCst), 10);
}

unsafe extern "C" {
    fn _setjmp(buf: *mut [u64; 40]) -> i32;
    fn longjmp(buf: *mut [u64; 40], value: i32) -> !;
}

static mut JUMP: [u64; 40] = [0; 40];

extern "C" fn jump_out(_: i32) {
    unsafe { longjmp(&raw mut JUMP, 5) }
}

unsafe fn longjmp_from_handler() {
    // Leaving a handler by a jump keeps the signal blocked, nothing else.
    handle(libc::SIGUSR1, fp(jump_out), 0);
    if _setjmp(&raw mut JUMP) == 0 {
        libc::raise(libc::SIGUSR1);
        check!(false, "not reached");
    }
    let mut now = sigset(&[]);
    libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut now);
    eq!(libc::sigismember(&now, libc::SIGUSR1), 1);
    unblock(&[libc::SIGUSR1]);
}

unsafe fn fp_state_preserved() {
    extern "C" fn clobber(_: i32) {
        unsafe {
            std::arch::asm!(
                "pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15",
                out("xmm0") _, out("xmm7") _, out("xmm15") _,
            );
            COUNT.fetch_add(1, SeqCst);
        }
    }
    handle(libc::SIGUSR1, fp(clobber), 0);
    let (a, b, d): (u64, u64, u64);
    let pid = libc::getpid();
    std::arch::asm!(
        "mov rax, 0x1111", "movq xmm0, rax",
        "mov rax, 0x2222", "movq xmm7, rax",
        "mov rax, 0x3333", "movq xmm15, rax",
        "mov eax, 39", "syscall", // getpid: nothing changes
        "mov edi, {pid:e}", "mov esi, 10", "mov eax, 62", "syscall", // kill
        "movq rdi, xmm0", "movq rsi, xmm7", "movq rdx, xmm15",
        pid = in(reg) pid,
        out("rdi") a, out("rsi") b, out("rdx") d,
        out("rax") _, out("rcx") _, out("r11") _, out("xmm0") _, out("xmm7") _, out("xmm15") _,
    );
    eq!(COUNT.load(SeqCst), 1);
    eq!((a, b, d), (0x1111, 0x2222, 0x3333));
}

unsafe fn sigpipe() {
    let (r, w) = pipe();
    libc::close(r);
    let pid = fork(|| {
        libc::write(w, b"x".as_ptr().cast(), 1);
        libc::_exit(1);
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGPIPE);
    on(libc::SIGPIPE, 0);
    err!(libc::EPIPE, libc::write(w, b"x".as_ptr().cast(), 1));
    eq!(COUNT.load(SeqCst), 1);
    libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    err!(libc::EPIPE, libc::write(w, b"x".as_ptr().cast(), 1));
    // Nothing to write: no error.
    eq!(libc::write(w, b"x".as_ptr().cast(), 0), 0);
}

static STATUS: AtomicI32 = AtomicI32::new(0);

extern "C" fn chld(signo: i32, si: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe { STATUS.store((*si).si_status(), SeqCst) };
    info(signo, si, uc);
}

unsafe fn sigchld_info() {
    handle(libc::SIGCHLD, fp3(chld), libc::SA_SIGINFO);
    let pid = fork(|| libc::_exit(9));
    check!(eventually(|| COUNT.load(SeqCst) == 1));
    eq!(
        (CODE.load(SeqCst), STATUS.load(SeqCst), PID.load(SeqCst)),
        (libc::CLD_EXITED, 9, pid)
    );
    util::wait(pid);
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    libc::kill(pid, libc::SIGTERM);
    check!(eventually(|| COUNT.load(SeqCst) == 2));
    eq!(
        (CODE.load(SeqCst), STATUS.load(SeqCst), PID.load(SeqCst)),
        (libc::CLD_KILLED, libc::SIGTERM, pid)
    );
    util::wait(pid);
}

unsafe fn sigchld_stop_and_continue() {
    handle(libc::SIGCHLD, fp3(chld), libc::SA_SIGINFO);
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    libc::kill(pid, libc::SIGSTOP);
    check!(eventually(|| COUNT.load(SeqCst) == 1));
    eq!(
        (CODE.load(SeqCst), STATUS.load(SeqCst)),
        (libc::CLD_STOPPED, libc::SIGSTOP)
    );
    libc::kill(pid, libc::SIGCONT);
    check!(eventually(|| COUNT.load(SeqCst) == 2));
    eq!(
        (CODE.load(SeqCst), STATUS.load(SeqCst)),
        (libc::CLD_CONTINUED, libc::SIGCONT)
    );
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn sigchld_nocldstop() {
    handle(libc::SIGCHLD, fp(count), libc::SA_NOCLDSTOP);
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    libc::kill(pid, libc::SIGSTOP);
    let mut st = 0;
    loop {
        if libc::waitpid(pid, &mut st, libc::WUNTRACED) == pid {
            break;
        }
    }
    check!(libc::WIFSTOPPED(st));
    libc::kill(pid, libc::SIGCONT);
    while libc::waitpid(pid, &mut st, libc::WCONTINUED) != pid {}
    eq!(COUNT.load(SeqCst), 0);
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
    check!(eventually(|| COUNT.load(SeqCst) == 1));
}

unsafe fn stop_and_continue() {
    let counter = shared::<AtomicI32>();
    let pid = fork(|| {
        loop {
            counter.fetch_add(1, SeqCst);
        }
    });
    check!(eventually(|| counter.load(SeqCst) > 1000));
    libc::kill(pid, libc::SIGSTOP);
    let mut st = 0;
    ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED));
    let a = counter.load(SeqCst);
    sleep_ms(50);
    eq!(counter.load(SeqCst), a);
    libc::kill(pid, libc::SIGCONT);
    check!(eventually(|| counter.load(SeqCst) > a));
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn cont_handler_runs() {
    let flag = shared::<AtomicI32>();
    let pid = fork(|| {
        on(libc::SIGCONT, 0);
        block(&[libc::SIGCONT]);
        flag.store(1, SeqCst);
        while flag.load(SeqCst) != 2 {
            sleep_ms(1);
        }
        unblock(&[libc::SIGCONT]);
        eq!(COUNT.load(SeqCst), 1);
    });
    check!(eventually(|| flag.load(SeqCst) == 1));
    libc::kill(pid, libc::SIGSTOP);
    let mut st = 0;
    ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED));
    flag.store(2, SeqCst);
    // A blocked SIGCONT continues all the same.
    libc::kill(pid, libc::SIGCONT);
    wait_ok(pid);
}

unsafe fn stop_signals_discard_cont() {
    block(&[libc::SIGCONT, libc::SIGTSTP]);
    libc::raise(libc::SIGTSTP);
    libc::raise(libc::SIGCONT);
    let mut p = sigset(&[]);
    libc::sigpending(&mut p);
    eq!(libc::sigismember(&p, libc::SIGTSTP), 0);
    eq!(libc::sigismember(&p, libc::SIGCONT), 1);
    libc::raise(libc::SIGTSTP);
    libc::sigpending(&mut p);
    eq!(libc::sigismember(&p, libc::SIGCONT), 0);
}

unsafe fn sigkill_stopped() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    libc::kill(pid, libc::SIGSTOP);
    let mut st = 0;
    ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED));
    // Other signals wait for the continue.
    libc::kill(pid, libc::SIGTERM);
    sleep_ms(20);
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WNOHANG)), 0);
    libc::kill(pid, libc::SIGKILL);
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGKILL);
}

unsafe fn sigstop_all_threads() {
    let a = shared::<[AtomicI64; 3]>();
    let pid = fork(|| {
        for slot in a {
            std::thread::spawn(move || {
                loop {
                    slot.fetch_add(1, SeqCst);
                }
            });
        }
        loop {
            libc::pause();
        }
    });
    check!(eventually(|| a.iter().all(|x| x.load(SeqCst) > 0)));
    libc::kill(pid, libc::SIGSTOP);
    let mut st = 0;
    ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED));
    sleep_ms(5);
    let before: Vec<i64> = a.iter().map(|x| x.load(SeqCst)).collect();
    sleep_ms(30);
    let after: Vec<i64> = a.iter().map(|x| x.load(SeqCst)).collect();
    eq!(before, after);
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
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

unsafe fn sigreturn_restores_registers() {
    on(libc::SIGUSR1, 0);
    let pid = libc::getpid();
    let (a, b, d, e): (u64, u64, u64, u64);
    std::arch::asm!(
        "mov r8, 0x0101", "mov r9, 0x0202", "mov r12, 0x0303", "mov r15, 0x0404",
        "stc",
        "mov edi, {pid:e}", "mov esi, 10", "mov eax, 62", "syscall",
        "sbb rdx, rdx",
        pid = in(reg) pid,
        out("r8") a, out("r9") b, out("r12") d, out("r15") e,
        out("rdx") _, out("rax") _, out("rcx") _, out("r11") _, out("rdi") _, out("rsi") _,
    );
    eq!((a, b, d, e), (0x0101, 0x0202, 0x0303, 0x0404));
    eq!(COUNT.load(SeqCst), 1);
}

unsafe fn red_zone_untouched() {
    extern "C" fn dirty(_: i32) {
        let a = [0xeeu8; 4096];
        std::hint::black_box(&a);
        COUNT.fetch_add(1, SeqCst);
    }
    handle(libc::SIGUSR1, fp(dirty), 0);
    let pid = libc::getpid();
    let value: u64;
    std::arch::asm!(
        "mov qword ptr [rsp - 120], 0x1717",
        "mov esi, 10", "mov eax, 62", "syscall",
        "mov rdx, [rsp - 120]",
        in("edi") pid,
        out("rdx") value, out("rax") _, out("rcx") _, out("r11") _, out("rsi") _,
    );
    eq!(COUNT.load(SeqCst), 1);
    eq!(value, 0x1717);
}

unsafe fn signal_storm() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    let me = libc::getpid();
    let ready = shared::<AtomicI32>();
    let pid = fork(|| {
        for _ in 0..2000 {
            libc::kill(me, libc::SIGUSR1);
        }
        ready.store(1, SeqCst);
    });
    let (r, w) = pipe();
    let mut sum = 0u64;
    loop {
        for i in 0..50u8 {
            write_all(w, &[i]);
            eq!(read_some(r, 1), [i]);
            sum += 1;
        }
        if ready.load(SeqCst) != 0 {
            break;
        }
    }
    check!(sum > 0);
    wait_ok(pid);
    check!(COUNT.load(SeqCst) > 0);
}

unsafe fn async_signal_to_spinning_thread() {
    on(libc::SIGUSR1, 0);
    later(libc::SIGUSR1, 20);
    // No system call in the loop: the signal must interrupt user code.
    let mut n = 0u64;
    while COUNT.load(SeqCst) == 0 {
        n = std::hint::black_box(n + 1);
    }
    check!(n > 0);
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

unsafe fn syscall_result_survives_handler() {
    on(libc::SIGUSR1, 0);
    block(&[libc::SIGUSR1]);
    for _ in 0..100 {
        libc::raise(libc::SIGUSR1);
        let mut old = sigset(&[]);
        // The handler runs on the way out of this call, which returns 0.
        eq!(
            libc::sigprocmask(libc::SIG_UNBLOCK, &sigset(&[libc::SIGUSR1]), &mut old),
            0
        );
        eq!(libc::sigismember(&old, libc::SIGUSR1), 1);
        block(&[libc::SIGUSR1]);
    }
    eq!(COUNT.load(SeqCst), 100);
}

unsafe fn eintr_on_epoll_and_sem() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    let ep = ok!(libc::epoll_create1(0));
    let mut ev: libc::epoll_event = std::mem::zeroed();
    later(libc::SIGUSR1, 20);
    err!(libc::EINTR, libc::epoll_wait(ep, &mut ev, 1, 5000));
    // epoll_pwait with the signal in its mask is not interrupted.
    later(libc::SIGUSR1, 20);
    eq!(
        ok!(libc::epoll_pwait(
            ep,
            &mut ev,
            1,
            100,
            &sigset(&[libc::SIGUSR1])
        )),
        0
    );
    eq!(COUNT.load(SeqCst), 2);
}

unsafe fn fatal_in_handler() {
    let pid = fork(|| {
        extern "C" fn fault(_: i32) {
            unsafe { load(16) };
        }
        handle(libc::SIGSEGV, fp(fault), 0);
        load(8);
    });
    // A fault inside its own handler, with the signal blocked, is fatal.
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
    let pid = fork(|| {
        // No room for the frame: fatal too.
        on(libc::SIGUSR1, 0);
        std::arch::asm!(
            "mov rbx, rsp", "mov rsp, 64", "mov eax, 62", "syscall", "mov rsp, rbx",
            in("edi") libc::getpid(), in("esi") libc::SIGUSR1,
            out("rax") _, out("rcx") _, out("r11") _, out("r15") _,
            options(nostack)
        );
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
}
