//! futex(2), set_robust_list(2), futex_waitv.

pub mod locks;
pub mod requeue;
pub mod shared;
pub mod wait;
pub mod waitv;

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use crate::util::*;

unsafe fn futex(
    word: *const u32,
    op: i32,
    val: u32,
    timeout: *const libc::timespec,
    word2: *const u32,
    val3: u32,
) -> i64 {
    sys!(libc::SYS_futex, word, op, val, timeout, word2, val3)
}

unsafe fn wait_on(word: &AtomicU32, val: u32) -> i64 {
    futex(
        word.as_ptr(),
        libc::FUTEX_WAIT,
        val,
        std::ptr::null(),
        std::ptr::null(),
        0,
    )
}

unsafe fn wake(word: &AtomicU32, n: u32) -> i64 {
    futex(
        word.as_ptr(),
        libc::FUTEX_WAKE,
        n,
        std::ptr::null(),
        std::ptr::null(),
        0,
    )
}

fn ms(ms: i64) -> libc::timespec {
    libc::timespec {
        tv_sec: ms / 1000,
        tv_nsec: ms % 1000 * 1_000_000,
    }
}

static WORD: AtomicU32 = AtomicU32::new(0);

static WOKEN: AtomicI32 = AtomicI32::new(0);

/// Threads that wait on `word` with `op` and count themselves when woken.
unsafe fn waiters(n: usize, word: &'static AtomicU32, op: i32, bits: u32) {
    static STARTED: AtomicI32 = AtomicI32::new(0);
    let before = STARTED.load(SeqCst);
    for _ in 0..n {
        std::thread::spawn(move || {
            let tid = sys!(libc::SYS_gettid) as i32;
            STARTED.fetch_add(1, SeqCst);
            let _ = tid;
            let r = futex(
                word.as_ptr(),
                op,
                0,
                std::ptr::null(),
                std::ptr::null(),
                bits,
            );
            if r == 0 {
                WOKEN.fetch_add(1, SeqCst);
            }
        });
    }
    check!(eventually(|| STARTED.load(SeqCst) == before + n as i32));
    // All asleep: every thread but this one is in state S.
    let me = libc::getpid().to_string();
    check!(eventually(|| {
        std::fs::read_dir("/proc/self/task").is_ok_and(|d| {
            d.flatten()
                .filter(|e| e.file_name().to_string_lossy() != me.as_str())
                .all(|e| {
                    std::fs::read_to_string(e.path().join("stat")).is_ok_and(|s| s.contains(") S "))
                })
        })
    }));
}

unsafe fn woken(n: i32) {
    check!(
        eventually(|| WOKEN.load(SeqCst) >= n),
        "only {} of {n} woke",
        WOKEN.load(SeqCst)
    );
    sleep_ms(10);
    eq!(WOKEN.load(SeqCst), n);
}
