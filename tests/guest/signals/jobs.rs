//! SIGPIPE, SIGCHLD, stopping and continuing.

use std::sync::atomic::{AtomicI32, AtomicI64, Ordering::SeqCst};

use super::*;
use crate::util::{self, *};

cases![
    sigpipe,
    sigchld_info,
    sigchld_stop_and_continue,
    sigchld_nocldstop,
    stop_and_continue,
    cont_handler_runs,
    stop_signals_discard_cont,
    sigkill_stopped,
    sigstop_all_threads,
];

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
