//! Private and shared words.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::*;
use crate::util::*;

cases![
    private_between_threads,
    shared_anonymous,
    shared_file_two_addresses,
    private_flag_does_not_cross,
    shared_flag_on_private_memory_within_process,
];

unsafe fn private_between_threads() {
    let t = std::thread::spawn(|| {
        let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        while WORD.load(SeqCst) == 0 {
            futex(WORD.as_ptr(), op, 0, std::ptr::null(), std::ptr::null(), 0);
        }
    });
    sleep_ms(20);
    WORD.store(1, SeqCst);
    ok!(futex(
        WORD.as_ptr(),
        libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
        1,
        std::ptr::null(),
        std::ptr::null(),
        0
    ));
    check!(t.join().is_ok());
}

unsafe fn shared_anonymous() {
    let word = shared::<AtomicU32>();
    let pid = fork(|| {
        while word.load(SeqCst) == 0 {
            wait_on(word, 0);
        }
    });
    wait_state(pid, "S");
    word.store(1, SeqCst);
    eq!(ok!(wake(word, 10)), 1);
    wait_ok(pid);
}

unsafe fn shared_file_two_addresses() {
    write_file("f", &[0; 8192]);
    let fd = open("f", libc::O_RDWR);
    let map = || {
        let p = libc::mmap(
            std::ptr::null_mut(),
            8192,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd,
            0,
        );
        &*ok!(p).cast::<u8>().add(4096 + 64).cast::<AtomicU32>()
    };
    let (a, b) = (map(), map());
    check!(!std::ptr::eq(a, b));
    let pid = fork(|| {
        while a.load(SeqCst) == 0 {
            wait_on(a, 0);
        }
    });
    wait_state(pid, "S");
    b.store(1, SeqCst);
    eq!(ok!(wake(b, 10)), 1);
    wait_ok(pid);
}

unsafe fn private_flag_does_not_cross() {
    let word = shared::<AtomicU32>();
    let pid = fork(|| {
        let r = futex(
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            0,
            &ms(300),
            std::ptr::null(),
            0,
        );
        check!(r == -1 && errno() == libc::ETIMEDOUT);
    });
    wait_state(pid, "S");
    eq!(
        ok!(futex(
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            10,
            std::ptr::null(),
            std::ptr::null(),
            0
        )),
        0
    );
    eq!(ok!(wake(word, 10)), 0);
    wait_ok(pid);
}

unsafe fn shared_flag_on_private_memory_within_process() {
    let p = anon(4096);
    let word: &'static AtomicU32 = &*p.cast();
    waiters(1, word, libc::FUTEX_WAIT, 0);
    // A child's copy of private memory is another futex.
    in_child(|| eq!(ok!(wake(word, 10)), 0));
    eq!(ok!(wake(word, 10)), 1);
    woken(1);
}
