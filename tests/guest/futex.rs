//! futex(2), set_robust_list(2), futex_waitv.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::SeqCst};

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
    bitset_selects,
    bitset_zero,
    requeue,
    cmp_requeue,
    wake_op,
    bad_addresses,
    unaligned,
    unknown_operation,
    private_between_threads,
    shared_anonymous,
    shared_file_two_addresses,
    private_flag_does_not_cross,
    shared_flag_on_private_memory_within_process,
    robust_list_owner_died,
    robust_list_get,
    waitv_basic,
    waitv_errors,
    mutex_contention,
    condvar_ping_pong,
    wake_order_fifo,
    wait_then_munmap,
    interrupted_wait_leaves_queue,
    pi_lock_unlock,
];

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
static WORD2: AtomicU32 = AtomicU32::new(0);
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
            8 as *const _,
            std::ptr::null(),
            0
        )
    );
}

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
