//! Locks: set_robust_list(2), PI futexes, contention.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::util::*;

cases![
    robust_list_owner_died,
    robust_list_get,
    mutex_contention,
    condvar_ping_pong,
    pi_lock_unlock,
];

#[repr(C)]
struct RobustHead {
    next: AtomicUsize,
    offset: i64,
    pending: AtomicUsize,
}

#[repr(C)]
struct RobustNode {
    next: AtomicUsize,
    word: AtomicU32,
}

unsafe fn robust_list_owner_died() {
    let node = shared::<RobustNode>();
    let ready = shared::<AtomicU32>();
    let pid = fork(|| {
        let head = anon(4096).cast::<RobustHead>();
        (*head).next.store(node as *const _ as usize, SeqCst);
        (*head).offset = 8;
        node.next.store(head as usize, SeqCst);
        ok!(sys!(libc::SYS_set_robust_list, head, 24));
        node.word
            .store(libc::getpid() as u32 | libc::FUTEX_WAITERS, SeqCst);
        ready.store(1, SeqCst);
        sleep_ms(60);
    });
    check!(eventually(|| ready.load(SeqCst) == 1));
    // Woken by the owner's end.
    let value = pid as u32 | libc::FUTEX_WAITERS;
    let r = futex(
        node.word.as_ptr(),
        libc::FUTEX_WAIT,
        value,
        &ms(5000),
        std::ptr::null(),
        0,
    );
    check!(r == 0 || errno() == libc::EAGAIN, "{}", errno_text());
    wait_ok(pid);
    let now = node.word.load(SeqCst);
    eq!(now & libc::FUTEX_OWNER_DIED, libc::FUTEX_OWNER_DIED);
    eq!(now & libc::FUTEX_TID_MASK, 0);
}

unsafe fn robust_list_get() {
    let head = anon(4096);
    ok!(sys!(libc::SYS_set_robust_list, head, 24));
    let (mut p, mut len) = (0usize, 0usize);
    ok!(sys!(
        libc::SYS_get_robust_list,
        0,
        &mut p as *mut usize,
        &mut len as *mut usize
    ));
    eq!((p, len), (head as usize, 24));
    err!(libc::EINVAL, sys!(libc::SYS_set_robust_list, head, 23));
    err!(
        libc::ESRCH,
        sys!(
            libc::SYS_get_robust_list,
            0x3f_ffff,
            &mut p as *mut usize,
            &mut len as *mut usize
        )
    );
}

unsafe fn mutex_contention() {
    let counter = std::sync::Arc::new(std::sync::Mutex::new(0u64));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let counter = counter.clone();
            std::thread::spawn(move || {
                for _ in 0..2000 {
                    if let Ok(mut c) = counter.lock() {
                        *c += 1;
                    }
                }
            })
        })
        .collect();
    for t in threads {
        check!(t.join().is_ok());
    }
    eq!(counter.lock().map(|c| *c).unwrap_or(0), 16_000);
}

unsafe fn condvar_ping_pong() {
    let pair = std::sync::Arc::new((std::sync::Mutex::new(0u32), std::sync::Condvar::new()));
    let threads: Vec<_> = (0..2u32)
        .map(|me| {
            let pair = pair.clone();
            std::thread::spawn(move || {
                for _ in 0..500 {
                    let guard = pair.0.lock();
                    let Ok(mut turn) = guard else { return };
                    while *turn % 2 != me {
                        match pair.1.wait(turn) {
                            Ok(t) => turn = t,
                            Err(_) => return,
                        }
                    }
                    *turn += 1;
                    pair.1.notify_all();
                }
            })
        })
        .collect();
    for t in threads {
        check!(t.join().is_ok());
    }
    eq!(pair.0.lock().map(|t| *t).unwrap_or(0), 1000);
}

unsafe fn pi_lock_unlock() {
    const LOCK: i32 = 6;
    const UNLOCK: i32 = 7;
    const TRYLOCK: i32 = 8;
    if futex(
        WORD.as_ptr(),
        LOCK,
        0,
        std::ptr::null(),
        std::ptr::null(),
        0,
    ) == -1
        && errno() == libc::ENOSYS
    {
        skip("no priority inheritance");
    }
    let tid = sys!(libc::SYS_gettid) as u32;
    eq!(WORD.load(SeqCst), tid);
    err!(
        libc::EDEADLK,
        futex(
            WORD.as_ptr(),
            LOCK,
            0,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
    let t = std::thread::spawn(|| {
        err!(
            libc::EAGAIN,
            futex(
                WORD.as_ptr(),
                TRYLOCK,
                0,
                std::ptr::null(),
                std::ptr::null(),
                0
            )
        );
        err!(
            libc::EPERM,
            futex(
                WORD.as_ptr(),
                UNLOCK,
                0,
                std::ptr::null(),
                std::ptr::null(),
                0
            )
        );
        ok!(futex(
            WORD.as_ptr(),
            LOCK,
            0,
            std::ptr::null(),
            std::ptr::null(),
            0
        ));
        ok!(futex(
            WORD.as_ptr(),
            UNLOCK,
            0,
            std::ptr::null(),
            std::ptr::null(),
            0
        ));
    });
    sleep_ms(30);
    ok!(futex(
        WORD.as_ptr(),
        UNLOCK,
        0,
        std::ptr::null(),
        std::ptr::null(),
        0
    ));
    check!(t.join().is_ok());
    eq!(WORD.load(SeqCst) & libc::FUTEX_TID_MASK, 0);
}
