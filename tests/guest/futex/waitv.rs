//! futex_waitv.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::*;
use crate::util::*;

cases![waitv_basic, waitv_errors,];

#[repr(C)]
#[derive(Clone, Copy)]
struct Waitv {
    val: u64,
    uaddr: u64,
    flags: u32,
    reserved: u32,
}

unsafe fn waitv_basic() {
    static WORDS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
    let make = || {
        [0, 1, 2].map(|i: usize| Waitv {
            val: 0,
            uaddr: WORDS[i].as_ptr() as u64,
            flags: 2,
            reserved: 0,
        })
    };
    let probe = sys!(libc::SYS_futex_waitv, make().as_ptr(), 3, 1, 0, 0);
    if probe == -1 && errno() == libc::ENOSYS {
        skip("no futex_waitv");
    }
    std::thread::spawn(|| {
        sleep_ms(20);
        WORDS[1].store(1, SeqCst);
        wake(&WORDS[1], 1);
    });
    let v = make();
    eq!(ok!(sys!(libc::SYS_futex_waitv, v.as_ptr(), 3, 0, 0, 0)), 1);
    // One of the values differs.
    err!(
        libc::EAGAIN,
        sys!(libc::SYS_futex_waitv, v.as_ptr(), 3, 0, 0, 0)
    );
    WORDS[1].store(0, SeqCst);
    let t = ms(1);
    err!(
        libc::ETIMEDOUT,
        sys!(
            libc::SYS_futex_waitv,
            v.as_ptr(),
            3,
            0,
            &t as *const _,
            libc::CLOCK_MONOTONIC
        )
    );
}

unsafe fn waitv_errors() {
    let v = [Waitv {
        val: 0,
        uaddr: WORD.as_ptr() as u64,
        flags: 2,
        reserved: 0,
    }];
    if sys!(libc::SYS_futex_waitv, v.as_ptr(), 0, 0, 0, 0) == -1 && errno() == libc::ENOSYS {
        skip("no futex_waitv");
    }
    err!(
        libc::EINVAL,
        sys!(libc::SYS_futex_waitv, v.as_ptr(), 0, 0, 0, 0)
    );
    err!(
        libc::EINVAL,
        sys!(libc::SYS_futex_waitv, v.as_ptr(), 129, 0, 0, 0)
    );
    err!(
        libc::EINVAL,
        sys!(libc::SYS_futex_waitv, v.as_ptr(), 1, 1, 0, 0)
    );
    err!(libc::EFAULT, sys!(libc::SYS_futex_waitv, 8, 1, 0, 0, 0));
    let bad = [Waitv {
        reserved: 1,
        ..v[0]
    }];
    err!(
        libc::EINVAL,
        sys!(libc::SYS_futex_waitv, bad.as_ptr(), 1, 0, 0, 0)
    );
}
