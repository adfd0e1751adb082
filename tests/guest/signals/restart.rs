//! Calls that a signal interrupts: signal(7).

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use super::*;
use crate::util::{self, *};

cases![
    restart_read,
    no_restart_read,
    nanosleep_never_restarts,
    poll_never_restarts,
    restart_wait,
    restart_futex_wait,
    partial_transfer_beats_eintr,
    syscall_result_survives_handler,
    eintr_on_epoll_and_sem,
];

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
