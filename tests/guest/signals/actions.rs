//! Handlers, their flags and stacks: sigaction(2), sigaltstack(2).

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use super::*;
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
    handler_mask_and_nodefer,
    resethand,
    altstack_used,
    altstack_errors,
    altstack_autodisarm,
    raw_sigaction_sizes,
];

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
