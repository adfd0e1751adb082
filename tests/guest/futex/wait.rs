//! FUTEX_WAIT and FUTEX_WAKE.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::*;
use crate::util::{self, *};

cases![
    wait_value_mismatch,
    wake_nobody,
    wait_and_wake,
    wake_counts,
    wait_timeout_relative,
    wait_bitset_absolute,
    wait_bitset_realtime,
    bad_timeout,
    bad_addresses,
    unaligned,
    unknown_operation,
    wake_order_fifo,
    wait_then_munmap,
    interrupted_wait_leaves_queue,
];

unsafe fn wait_value_mismatch() {
    err!(libc::EAGAIN, wait_on(&WORD, 1));
    let t = ms(10_000);
    err!(
        libc::EAGAIN,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            1,
            &t,
            std::ptr::null(),
            !0
        )
    );
}

unsafe fn wake_nobody() {
    eq!(ok!(wake(&WORD, 1)), 0);
    eq!(ok!(wake(&WORD, i32::MAX as u32)), 0);
}

unsafe fn wait_and_wake() {
    waiters(1, &WORD, libc::FUTEX_WAIT, 0);
    eq!(ok!(wake(&WORD, 1)), 1);
    woken(1);
}

unsafe fn wake_counts() {
    waiters(5, &WORD, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 0);
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    eq!(
        ok!(futex(
            WORD.as_ptr(),
            op,
            2,
            std::ptr::null(),
            std::ptr::null(),
            0
        )),
        2
    );
    woken(2);
    eq!(
        ok!(futex(
            WORD.as_ptr(),
            op,
            10,
            std::ptr::null(),
            std::ptr::null(),
            0
        )),
        3
    );
    woken(5);
}

unsafe fn wait_timeout_relative() {
    let start = now_ms();
    err!(
        libc::ETIMEDOUT,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAIT,
            0,
            &ms(40),
            std::ptr::null(),
            0
        )
    );
    let took = now_ms() - start;
    check!((39..1000).contains(&took), "{took} ms");
    err!(
        libc::ETIMEDOUT,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAIT,
            0,
            &ms(0),
            std::ptr::null(),
            0
        )
    );
}

unsafe fn wait_bitset_absolute() {
    let mut now: libc::timespec = std::mem::zeroed();
    libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
    now.tv_nsec += 40_000_000;
    if now.tv_nsec >= 1_000_000_000 {
        now.tv_nsec -= 1_000_000_000;
        now.tv_sec += 1;
    }
    let start = now_ms();
    err!(
        libc::ETIMEDOUT,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            0,
            &now,
            std::ptr::null(),
            !0
        )
    );
    let took = now_ms() - start;
    check!((38..1000).contains(&took), "{took} ms");
    // Long ago.
    err!(
        libc::ETIMEDOUT,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            0,
            &ms(1),
            std::ptr::null(),
            !0
        )
    );
}

unsafe fn wait_bitset_realtime() {
    let mut now: libc::timespec = std::mem::zeroed();
    libc::clock_gettime(libc::CLOCK_REALTIME, &mut now);
    now.tv_sec += 1;
    let start = now_ms();
    let op = libc::FUTEX_WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME;
    err!(
        libc::ETIMEDOUT,
        futex(WORD.as_ptr(), op, 0, &now, std::ptr::null(), !0)
    );
    check!((950..3000).contains(&(now_ms() - start)));
    // FUTEX_WAIT does not take the flag.
    err!(
        libc::ENOSYS,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_CLOCK_REALTIME,
            0,
            &ms(5),
            std::ptr::null(),
            0
        )
    );
    err!(
        libc::ENOSYS,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_CLOCK_REALTIME,
            1,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
}

unsafe fn bad_timeout() {
    for t in [
        libc::timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000_000,
        },
        libc::timespec {
            tv_sec: 0,
            tv_nsec: -1,
        },
        libc::timespec {
            tv_sec: -1,
            tv_nsec: 0,
        },
    ] {
        err!(
            libc::EINVAL,
            futex(WORD.as_ptr(), libc::FUTEX_WAIT, 0, &t, std::ptr::null(), 0)
        );
    }
    err!(
        libc::EFAULT,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAIT,
            0,
            std::ptr::without_provenance(8),
            std::ptr::null(),
            0
        )
    );
}

unsafe fn bad_addresses() {
    err!(
        libc::EFAULT,
        futex(
            std::ptr::null(),
            libc::FUTEX_WAIT,
            0,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
    err!(
        libc::EFAULT,
        futex(
            8 as *const u32,
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            0,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
    err!(
        libc::EFAULT,
        futex(
            8 as *const u32,
            libc::FUTEX_WAKE,
            1,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
    // A private wake never looks at the memory.
    eq!(
        ok!(futex(
            8 as *const u32,
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
            std::ptr::null(),
            std::ptr::null(),
            0
        )),
        0
    );
    let p = anon(4096);
    libc::munmap(p.cast(), 4096);
    err!(
        libc::EFAULT,
        futex(
            p.cast(),
            libc::FUTEX_WAIT,
            0,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
    err!(
        libc::EFAULT,
        futex(
            0xffff_8000_0000_0000 as *const u32,
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
}

unsafe fn unaligned() {
    let p = WORD.as_ptr() as usize + 1;
    err!(
        libc::EINVAL,
        futex(
            p as *const u32,
            libc::FUTEX_WAIT,
            0,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
    err!(
        libc::EINVAL,
        futex(
            p as *const u32,
            libc::FUTEX_WAKE,
            1,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
}

unsafe fn unknown_operation() {
    err!(
        libc::ENOSYS,
        futex(WORD.as_ptr(), 99, 0, std::ptr::null(), std::ptr::null(), 0)
    );
    // FUTEX_FD is gone.
    err!(
        libc::ENOSYS,
        futex(WORD.as_ptr(), 2, 0, std::ptr::null(), std::ptr::null(), 0)
    );
}

unsafe fn wake_order_fifo() {
    static ORDER: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
    for i in 0..4 {
        std::thread::spawn(move || {
            wait_on(&WORD, 0);
            if let Ok(mut o) = ORDER.lock() {
                o.push(i);
            }
        });
        sleep_ms(20);
    }
    for i in 1..=4 {
        eq!(ok!(wake(&WORD, 1)), 1);
        check!(eventually(
            || ORDER.lock().map(|o| o.len()).unwrap_or(0) == i
        ));
    }
    eq!(
        ORDER.lock().map(|o| o.clone()).unwrap_or_default(),
        [0, 1, 2, 3]
    );
}

unsafe fn wait_then_munmap() {
    let p = anon(4096);
    let word: &'static AtomicU32 = &*p.cast();
    std::thread::spawn(move || {
        let r = futex(
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            0,
            &ms(50),
            std::ptr::null(),
            0,
        );
        check!(r == -1 && errno() == libc::ETIMEDOUT);
        WOKEN.store(1, SeqCst);
    });
    sleep_ms(15);
    ok!(libc::munmap(p.cast(), 4096));
    check!(eventually(|| WOKEN.load(SeqCst) == 1));
}

unsafe fn interrupted_wait_leaves_queue() {
    extern "C" fn nothing(_: i32) {}
    handle(libc::SIGUSR1, nothing as *const () as usize, 0);
    let me = libc::getpid();
    let pid = fork(|| {
        sleep_ms(30);
        libc::kill(me, libc::SIGUSR1);
    });
    err!(libc::EINTR, wait_on(&WORD, 0));
    eq!(ok!(wake(&WORD, 10)), 0);
    util::wait(pid);
}
