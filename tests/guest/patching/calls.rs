//! Registers, flags, children and threads at a patched call.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::util::*;

cases![
    registers_are_kept,
    handlers_see_the_program,
    jumps_to_the_call_itself,
    children_go_on,
    threads_meet_new_places,
    segment_base_games,
    interrupted_and_restarted,
    flags_of_all_kinds,
];

unsafe fn registers_are_kept() {
    let page = Page::new();
    for place in [GETPPID, ANY, RETURN] {
        for round in 0..200u64 {
            let mut regs: [u64; 16] = std::array::from_fn(|i| round << 32 | i as u64);
            regs[5] = libc::SYS_getppid as u64;
            let vectors: [u128; 4] = std::array::from_fn(|i| u128::from(round) << 70 | i as u128);
            let mut vectors_after = [0u128; 4];
            let before = regs;
            std::arch::asm!(
                "push rbx",
                "push rbp",
                "mov r12, rax",
                "movdqu xmm0, [rcx]",
                "movdqu xmm1, [rcx + 16]",
                "movdqu xmm7, [rcx + 32]",
                "movdqu xmm15, [rcx + 48]",
                "push rdx",
                "push rax",
                "mov r13, rdi",
                "mov rdx, [r12 + 8]",
                "mov rsi, [r12 + 16]",
                "mov rbp, [r12 + 24]",
                "mov r8, [r12 + 32]",
                "mov rdi, [r12 + 40]",
                "mov r9, [r12 + 48]",
                "mov r10, [r12 + 56]",
                "mov rbx, [r12 + 64]",
                "mov r14, [r12 + 72]",
                "mov r15, [r12 + 80]",
                "mov qword ptr [rsp - 128], 77", // the red zone
                "sub rsp, 256",
                "mov qword ptr [rsp - 100], 78",
                "call r13",
                "mov r11, [rsp - 100]",
                "add rsp, 256",
                "mov [r12 + 88], r11",
                "mov [r12 + 8], rdx",
                "mov [r12 + 16], rsi",
                "mov [r12 + 24], rbp",
                "mov [r12 + 32], r8",
                "mov [r12 + 40], rdi",
                "mov [r12 + 48], r9",
                "mov [r12 + 56], r10",
                "mov [r12 + 64], rbx",
                "mov [r12 + 72], r14",
                "mov [r12 + 80], r15",
                "mov [r12], rax",
                "pop rax",
                "pop rdx",
                "movdqu [rdx], xmm0",
                "movdqu [rdx + 16], xmm1",
                "movdqu [rdx + 32], xmm7",
                "movdqu [rdx + 48], xmm15",
                "pop rbp",
                "pop rbx",
                inout("rax") regs.as_mut_ptr() => _,
                inout("rcx") vectors.as_ptr() => _,
                inout("rdx") vectors_after.as_mut_ptr() => _,
                inout("rdi") page.0 + place => _,
                out("rsi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                out("xmm0") _, out("xmm1") _, out("xmm7") _, out("xmm15") _,
            );
            eq!(regs[0], libc::getppid() as u64);
            // What lies below the stack pointer is not touched by a call.
            eq!(regs[11], 78);
            eq!(regs[1..11], before[1..11]);
            eq!(vectors_after, vectors);
        }
    }
}

static SEEN: AtomicU64 = AtomicU64::new(0);

static STRAY: AtomicUsize = AtomicUsize::new(0);

static PAGE: AtomicUsize = AtomicUsize::new(0);

static KNOWN: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

extern "C" fn look(_: i32, _: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    let uc = unsafe { &*uc.cast::<libc::ucontext_t>() };
    let rip = uc.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    let page = PAGE.load(SeqCst);
    if (page..page + 4096).contains(&rip) {
        SEEN.fetch_add(1, SeqCst);
        if !BOUNDARIES.contains(&(rip - page)) {
            STRAY.store(rip - page, SeqCst);
        }
    } else if !(KNOWN[0].load(SeqCst)..KNOWN[1].load(SeqCst)).contains(&rip) {
        STRAY.store(rip, SeqCst);
    }
}

unsafe fn handlers_see_the_program() {
    let page = Page::new();
    PAGE.store(page.0, SeqCst);
    // The program's own text.
    let here = here();
    let maps = read_text("/proc/self/maps");
    for line in maps.lines() {
        let range = line.split(' ').next().unwrap_or("");
        let ends: Vec<_> = range
            .split('-')
            .filter_map(|end| usize::from_str_radix(end, 16).ok())
            .collect();
        if ends[0] <= here && here < ends[1] {
            KNOWN[0].store(ends[0], SeqCst);
            KNOWN[1].store(ends[1], SeqCst);
        }
    }
    handle(
        libc::SIGUSR1,
        look as *const () as usize,
        libc::SA_SIGINFO | libc::SA_RESTART,
    );
    let (pid, tid) = (libc::getpid(), libc::gettid());
    let done = std::thread::spawn(move || {
        for _ in 0..20_000 {
            sys!(libc::SYS_tgkill, pid, tid, libc::SIGUSR1);
        }
    });
    while !done.is_finished() {
        page.check(20);
    }
    check!(done.join().is_ok());
    eq!(STRAY.load(SeqCst), 0, "a handler was told of an odd place");
    check!(SEEN.load(SeqCst) > 0);
}

unsafe fn jumps_to_the_call_itself() {
    let page = Page::warm();
    for _ in 0..50 {
        for (at, nr, expected) in [
            (GETPPID + 5, libc::SYS_getpid, libc::getpid()),
            (ANY + 3, libc::SYS_getppid, libc::getppid()),
            (RETURN + 3, libc::SYS_getppid, libc::getppid()),
        ] {
            let out: i64;
            std::arch::asm!("call {f}", f = in(reg) page.0 + at, inout("rax") nr => out, out("rcx") _, out("r11") _);
            eq!(out, i64::from(expected));
        }
        // Right behind the calls.
        for at in [GETPPID + 7, ANY + 5, RETURN + 5] {
            let out: i64;
            std::arch::asm!("call {f}", f = in(reg) page.0 + at, inout("rax") 1234i64 => out, out("rcx") _, out("r11") _);
            eq!(out, 1234);
        }
    }
    page.check(10);
}

unsafe fn children_go_on() {
    let page = Page::warm();
    let ppid = libc::getpid();
    let waiting: Vec<i32> = (0..20)
        .map(|_| {
            fork(|| {
                eq!(page.getppid(), i64::from(ppid));
                page.check(50);
                // Pages of its own.
                ok!(libc::mprotect(page.0 as *mut libc::c_void, 4096, 7));
                *((page.0 + GETPPID + 1) as *mut u8) = libc::SYS_getpid as u8;
                eq!(page.getppid(), i64::from(libc::getpid()));
            })
        })
        .collect();
    for pid in waiting {
        wait_ok(pid);
    }
    page.check(50);
    // A child that is made by such a call itself.
    for _ in 0..20 {
        let pid = page.any(libc::SYS_fork);
        if pid == 0 {
            page.check(5);
            libc::_exit(0);
        }
        check!(pid > 0);
        wait_ok(pid as i32);
    }
}

unsafe fn threads_meet_new_places() {
    for _ in 0..10 {
        let page = Page::new();
        let threads: Vec<_> = (0..6)
            .map(|_| std::thread::spawn(move || page.check(300)))
            .collect();
        for thread in threads {
            check!(thread.join().is_ok());
        }
    }
}

unsafe fn segment_base_games() {
    const ARCH_SET_GS: i32 = 0x1001;
    const ARCH_GET_GS: i32 = 0x1004;
    let page = Page::warm();
    let mut base = 1u64;
    ok!(sys!(
        libc::SYS_arch_prctl,
        ARCH_GET_GS,
        &mut base as *mut u64
    ));
    eq!(base, 0);
    let own = anon(0x2_0000);
    let at = own as u64 + 0x800;
    std::ptr::write(at as *mut u64, 0x1234_5678);
    ok!(sys!(libc::SYS_arch_prctl, ARCH_SET_GS, at));
    for _ in 0..100 {
        page.check(1);
        let value: u64;
        std::arch::asm!("mov {v}, gs:[0]", v = out(reg) value);
        eq!(value, 0x1234_5678);
    }
    ok!(sys!(
        libc::SYS_arch_prctl,
        ARCH_GET_GS,
        &mut base as *mut u64
    ));
    eq!(base, at);
    // A thread that it starts has it too; a child as well.
    in_child(|| {
        let value: u64;
        std::arch::asm!("mov {v}, gs:[0]", v = out(reg) value);
        eq!(value, 0x1234_5678);
        page.check(20);
    });
    ok!(sys!(libc::SYS_arch_prctl, ARCH_SET_GS, 0));
    page.check(100);
}

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(_: i32) {
    HANDLED.fetch_add(1, SeqCst);
}

unsafe fn interrupted_and_restarted() {
    let page = Page::warm();
    for flags in [0, libc::SA_RESTART] {
        handle(libc::SIGUSR2, note as *const () as usize, flags);
        for _ in 0..30 {
            HANDLED.store(0, SeqCst);
            let (r, w) = pipe();
            let (pid, tid) = (libc::getpid(), libc::gettid());
            let helper = std::thread::spawn(move || {
                wait_state(tid, "S");
                sys!(libc::SYS_tgkill, pid, tid, libc::SIGUSR2);
                check!(eventually(|| HANDLED.load(SeqCst) == 1));
                write_all(w, b"x");
            });
            let mut byte = 0u8;
            let address = std::ptr::addr_of_mut!(byte) as usize;
            let got = page.arguments(libc::SYS_read, r as usize, address, 1);
            let expected = if flags == 0 {
                -i64::from(libc::EINTR)
            } else {
                1
            };
            eq!(got, expected);
            check!(helper.join().is_ok());
            libc::close(r);
            libc::close(w);
        }
    }
}

unsafe fn flags_of_all_kinds() {
    let page = Page::warm();
    // CF, PF, AF, ZF, SF, OF one at a time and together, DF.
    for flags in [0u64, 1, 4, 0x10, 0x40, 0x80, 0x800, 0x8d5, 0x400, 0xcd5] {
        for _ in 0..20 {
            let (out, after): (i64, u64);
            std::arch::asm!(
                "push {f}",
                "popfq",
                "call {page}",
                "pushfq",
                "pop {after}",
                "cld",
                f = in(reg) flags | 0x202,
                page = in(reg) page.0 + GETPPID,
                after = out(reg) after,
                inout("rax") 0i64 => out, out("rcx") _, out("r11") _,
            );
            eq!(out, i64::from(libc::getppid()));
            eq!(after & 0xcd5, flags);
        }
    }
}
