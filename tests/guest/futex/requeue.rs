//! Bit sets, requeueing, FUTEX_WAKE_OP.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::*;

cases![bitset_selects, bitset_zero, requeue, cmp_requeue, wake_op,];

static WORD2: AtomicU32 = AtomicU32::new(0);

unsafe fn bitset_selects() {
    waiters(1, &WORD, libc::FUTEX_WAIT_BITSET, 1);
    waiters(1, &WORD, libc::FUTEX_WAIT_BITSET, 2);
    let wake_bits = |bits| {
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAKE_BITSET,
            10,
            std::ptr::null(),
            std::ptr::null(),
            bits,
        )
    };
    eq!(ok!(wake_bits(4)), 0);
    eq!(ok!(wake_bits(6)), 1);
    woken(1);
    eq!(ok!(wake_bits(3)), 1);
    woken(2);
}

unsafe fn bitset_zero() {
    err!(
        libc::EINVAL,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            0,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
    err!(
        libc::EINVAL,
        futex(
            WORD.as_ptr(),
            libc::FUTEX_WAKE_BITSET,
            1,
            std::ptr::null(),
            std::ptr::null(),
            0
        )
    );
}

unsafe fn requeue() {
    waiters(4, &WORD, libc::FUTEX_WAIT, 0);
    // Wake one, move two.
    let r = sys!(
        libc::SYS_futex,
        WORD.as_ptr(),
        libc::FUTEX_REQUEUE,
        1,
        2,
        WORD2.as_ptr(),
        0
    );
    // The result counts the woken only for FUTEX_REQUEUE? It counts both.
    eq!(r, 3);
    woken(1);
    eq!(ok!(wake(&WORD2, 10)), 2);
    woken(3);
    eq!(ok!(wake(&WORD, 10)), 1);
    woken(4);
}

unsafe fn cmp_requeue() {
    waiters(3, &WORD, libc::FUTEX_WAIT, 0);
    err!(
        libc::EAGAIN,
        sys!(
            libc::SYS_futex,
            WORD.as_ptr(),
            libc::FUTEX_CMP_REQUEUE,
            1,
            1,
            WORD2.as_ptr(),
            5
        )
    );
    eq!(
        ok!(sys!(
            libc::SYS_futex,
            WORD.as_ptr(),
            libc::FUTEX_CMP_REQUEUE,
            0,
            i32::MAX,
            WORD2.as_ptr(),
            0
        )),
        3
    );
    eq!(ok!(wake(&WORD, 10)), 0);
    eq!(ok!(wake(&WORD2, 10)), 3);
    woken(3);
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_futex,
            WORD.as_ptr(),
            libc::FUTEX_CMP_REQUEUE,
            -1,
            1,
            WORD2.as_ptr(),
            0
        )
    );
}

unsafe fn wake_op() {
    const ADD: u32 = 1;
    const CMP_GT: u32 = 4;
    let op = |op: u32, cmp: u32, oparg: u32, cmparg: u32| {
        (op << 28) | (cmp << 24) | (oparg << 12) | cmparg
    };
    waiters(2, &WORD, libc::FUTEX_WAIT, 0);
    WORD2.store(0, SeqCst);
    // word2 += 3; the old value 0 is not > 0, so only word's waiters wake.
    let r = sys!(
        libc::SYS_futex,
        WORD.as_ptr(),
        libc::FUTEX_WAKE_OP,
        1,
        5,
        WORD2.as_ptr(),
        op(ADD, CMP_GT, 3, 0)
    );
    eq!(r, 1);
    eq!(WORD2.load(SeqCst), 3);
    woken(1);
    // A second waiter set on word2: its value must be 0 to wait.
    WORD2.store(0, SeqCst);
    waiters(1, &WORD2, libc::FUTEX_WAIT, 0);
    WORD2.store(7, SeqCst);
    let set = op(0, CMP_GT, 9, 0);
    let r = sys!(
        libc::SYS_futex,
        WORD.as_ptr(),
        libc::FUTEX_WAKE_OP,
        1,
        5,
        WORD2.as_ptr(),
        set
    );
    eq!(r, 2);
    eq!(WORD2.load(SeqCst), 9);
    woken(3);
    // OR, ANDN, XOR, and the shifted argument.
    for (o, before, arg, after) in [(2u32, 1u32, 6u32, 7u32), (3, 7, 5, 2), (4, 3, 1, 2)] {
        WORD2.store(before, SeqCst);
        ok!(sys!(
            libc::SYS_futex,
            WORD.as_ptr(),
            libc::FUTEX_WAKE_OP,
            1,
            0,
            WORD2.as_ptr(),
            op(o, 0, arg, 0)
        ));
        eq!(WORD2.load(SeqCst), after);
    }
    WORD2.store(0, SeqCst);
    ok!(sys!(
        libc::SYS_futex,
        WORD.as_ptr(),
        libc::FUTEX_WAKE_OP,
        1,
        0,
        WORD2.as_ptr(),
        op(8 | 2, 0, 4, 0)
    ));
    eq!(WORD2.load(SeqCst), 16);
    err!(
        libc::ENOSYS,
        sys!(
            libc::SYS_futex,
            WORD.as_ptr(),
            libc::FUTEX_WAKE_OP,
            1,
            0,
            WORD2.as_ptr(),
            op(7, 0, 0, 0)
        )
    );
    err!(
        libc::EFAULT,
        sys!(
            libc::SYS_futex,
            WORD.as_ptr(),
            libc::FUTEX_WAKE_OP,
            1,
            0,
            8,
            op(ADD, 0, 0, 0)
        )
    );
}
