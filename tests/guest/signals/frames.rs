//! A handler's frame and what it must leave alone: sigreturn(2).

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use super::*;
use crate::util::{self, *};

cases![
    nested_handlers,
    longjmp_from_handler,
    fp_state_preserved,
    sigreturn_restores_registers,
    red_zone_untouched,
    signal_storm,
    async_signal_to_spinning_thread,
    fatal_in_handler,
];

unsafe fn nested_handlers() {
    extern "C" fn outer(_: i32) {
        unsafe {
            check!(libc::raise(libc::SIGUSR2) == 0);
            // The inner handler has run by now.
            check!(COUNT.load(SeqCst) == 1);
            COUNT.store(10, SeqCst);
        }
    }
    handle(libc::SIGUSR1, fp(outer), 0);
    on(libc::SIGUSR2, 0);
    libc::raise(libc::SIGUSR1);
    eq!(COUNT.load(SeqCst), 10);
}

static mut JUMP: [u64; 40] = [0; 40];

extern "C" fn jump_out(_: i32) {
    unsafe { longjmp(&raw mut JUMP, 5) }
}

unsafe fn longjmp_from_handler() {
    // Leaving a handler by a jump keeps the signal blocked, nothing else.
    handle(libc::SIGUSR1, fp(jump_out), 0);
    if _setjmp(&raw mut JUMP) == 0 {
        libc::raise(libc::SIGUSR1);
        check!(false, "not reached");
    }
    let mut now = sigset(&[]);
    libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut now);
    eq!(libc::sigismember(&now, libc::SIGUSR1), 1);
    unblock(&[libc::SIGUSR1]);
}

unsafe fn fp_state_preserved() {
    extern "C" fn clobber(_: i32) {
        unsafe {
            std::arch::asm!(
                "pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15",
                out("xmm0") _, out("xmm7") _, out("xmm15") _,
            );
            COUNT.fetch_add(1, SeqCst);
        }
    }
    handle(libc::SIGUSR1, fp(clobber), 0);
    let (a, b, d): (u64, u64, u64);
    let pid = libc::getpid();
    std::arch::asm!(
        "mov rax, 0x1111", "movq xmm0, rax",
        "mov rax, 0x2222", "movq xmm7, rax",
        "mov rax, 0x3333", "movq xmm15, rax",
        "mov eax, 39", "syscall", // getpid: nothing changes
        "mov edi, {pid:e}", "mov esi, 10", "mov eax, 62", "syscall", // kill
        "movq rdi, xmm0", "movq rsi, xmm7", "movq rdx, xmm15",
        pid = in(reg) pid,
        out("rdi") a, out("rsi") b, out("rdx") d,
        out("rax") _, out("rcx") _, out("r11") _, out("xmm0") _, out("xmm7") _, out("xmm15") _,
    );
    eq!(COUNT.load(SeqCst), 1);
    eq!((a, b, d), (0x1111, 0x2222, 0x3333));
}

unsafe fn sigreturn_restores_registers() {
    on(libc::SIGUSR1, 0);
    let pid = libc::getpid();
    let (a, b, d, e): (u64, u64, u64, u64);
    std::arch::asm!(
        "mov r8, 0x0101", "mov r9, 0x0202", "mov r12, 0x0303", "mov r15, 0x0404",
        "stc",
        "mov edi, {pid:e}", "mov esi, 10", "mov eax, 62", "syscall",
        "sbb rdx, rdx",
        pid = in(reg) pid,
        out("r8") a, out("r9") b, out("r12") d, out("r15") e,
        out("rdx") _, out("rax") _, out("rcx") _, out("r11") _, out("rdi") _, out("rsi") _,
    );
    eq!((a, b, d, e), (0x0101, 0x0202, 0x0303, 0x0404));
    eq!(COUNT.load(SeqCst), 1);
}

unsafe fn red_zone_untouched() {
    extern "C" fn dirty(_: i32) {
        let a = [0xeeu8; 4096];
        std::hint::black_box(&a);
        COUNT.fetch_add(1, SeqCst);
    }
    handle(libc::SIGUSR1, fp(dirty), 0);
    let pid = libc::getpid();
    let value: u64;
    std::arch::asm!(
        "mov qword ptr [rsp - 120], 0x1717",
        "mov esi, 10", "mov eax, 62", "syscall",
        "mov rdx, [rsp - 120]",
        in("edi") pid,
        out("rdx") value, out("rax") _, out("rcx") _, out("r11") _, out("rsi") _,
    );
    eq!(COUNT.load(SeqCst), 1);
    eq!(value, 0x1717);
}

unsafe fn signal_storm() {
    on(libc::SIGUSR1, libc::SA_RESTART);
    let me = libc::getpid();
    let ready = shared::<AtomicI32>();
    let pid = fork(|| {
        for _ in 0..2000 {
            libc::kill(me, libc::SIGUSR1);
        }
        ready.store(1, SeqCst);
    });
    let (r, w) = pipe();
    let mut sum = 0u64;
    loop {
        for i in 0..50u8 {
            write_all(w, &[i]);
            eq!(read_some(r, 1), [i]);
            sum += 1;
        }
        if ready.load(SeqCst) != 0 {
            break;
        }
    }
    check!(sum > 0);
    wait_ok(pid);
    check!(COUNT.load(SeqCst) > 0);
}

unsafe fn async_signal_to_spinning_thread() {
    on(libc::SIGUSR1, 0);
    later(libc::SIGUSR1, 20);
    // No system call in the loop: the signal must interrupt user code.
    let mut n = 0u64;
    while COUNT.load(SeqCst) == 0 {
        n = std::hint::black_box(n + 1);
    }
    check!(n > 0);
}

unsafe fn fatal_in_handler() {
    let pid = fork(|| {
        extern "C" fn fault(_: i32) {
            unsafe { load(16) };
        }
        handle(libc::SIGSEGV, fp(fault), 0);
        load(8);
    });
    // A fault inside its own handler, with the signal blocked, is fatal.
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
    let pid = fork(|| {
        // No room for the frame: fatal too.
        on(libc::SIGUSR1, 0);
        std::arch::asm!(
            "mov rbx, rsp", "mov rsp, 64", "mov eax, 62", "syscall", "mov rsp, rbx",
            in("edi") libc::getpid(), in("esi") libc::SIGUSR1,
            out("rax") _, out("rcx") _, out("r11") _, out("r15") _,
            options(nostack)
        );
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
}
