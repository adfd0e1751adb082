//! Signals: sigaction(2), sigprocmask(2), sigaltstack(2), sigqueue(3),
//! sigtimedwait(2), signalfd(2), signal(7).

pub mod actions;
pub mod faults;
pub mod frames;
pub mod jobs;
pub mod queue;
pub mod restart;
pub mod signalfd;
pub mod timers;

use std::sync::atomic::{AtomicI32, AtomicI64, Ordering::SeqCst};

use crate::util::*;

static COUNT: AtomicI32 = AtomicI32::new(0);

static SIGNO: AtomicI32 = AtomicI32::new(0);

static CODE: AtomicI32 = AtomicI32::new(0);

static PID: AtomicI32 = AtomicI32::new(0);

static UID: AtomicI32 = AtomicI32::new(-1);

static VALUE: AtomicI64 = AtomicI64::new(0);

extern "C" fn count(signo: i32) {
    SIGNO.store(signo, SeqCst);
    COUNT.fetch_add(1, SeqCst);
}

extern "C" fn info(signo: i32, si: *mut libc::siginfo_t, _: *mut libc::c_void) {
    unsafe {
        let si = &*si;
        SIGNO.store(signo, SeqCst);
        CODE.store(si.si_code, SeqCst);
        PID.store(si.si_pid(), SeqCst);
        UID.store(si.si_uid() as i32, SeqCst);
        VALUE.store(si.si_value().sival_ptr as i64, SeqCst);
        COUNT.fetch_add(1, SeqCst);
    }
}

fn fp(f: extern "C" fn(i32)) -> usize {
    f as *const () as usize
}

fn fp3(f: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)) -> usize {
    f as *const () as usize
}

unsafe fn on(signo: i32, flags: i32) {
    handle(signo, fp(count), flags);
}

unsafe fn queue(signo: i32, value: usize) {
    ok!(libc::sigqueue(
        libc::getpid(),
        signo,
        libc::sigval {
            sival_ptr: value as *mut _
        }
    ));
}

/// Sends `signo` to this thread group after a while, from a child.
unsafe fn later(signo: i32, ms: u64) -> i32 {
    let me = libc::getpid();
    fork(|| {
        sleep_ms(ms);
        libc::kill(me, signo);
    })
}

/// Loads from `addr`; the handler continues behind the load with 0x55.
unsafe fn load(addr: usize) -> u64 {
    let out: u64;
    std::arch::asm!(
        "lea r12, [rip + 2f]",
        "mov rax, [{a}]",
        "2:",
        a = in(reg) addr,
        out("rax") out,
        out("r12") _,
    );
    out
}

unsafe extern "C" {
    fn _setjmp(buf: *mut [u64; 40]) -> i32;
    fn longjmp(buf: *mut [u64; 40], value: i32) -> !;
}
