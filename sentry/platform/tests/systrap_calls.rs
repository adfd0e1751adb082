//! Calls that come by a trampoline: all but the result is left alone, whatever
//! interrupts them.

mod guest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guest::*;
use sentry_platform::executor::block_on;
use sentry_platform::{GuestThread, Trap};

guest_code!(
    one_call,
    "lea rcx, [rip + 3f]",
    "movabs r11, 0x7fff00015000",
    "jmp r11",
    "3: .long 4f - 3b",
    "4: ud2",
);

fn patterned(thread: &mut dyn GuestThread) {
    let regs = thread.regs_mut();
    regs.rip = CODE;
    regs.rax = 110;
    regs.rbx = 0x1b;
    regs.rdx = 0x1d;
    regs.rsi = 0x51;
    regs.rdi = 0xd1;
    regs.rbp = 0xb9;
    regs.r8 = 0x8;
    regs.r9 = 0x9;
    regs.r10 = 0x10;
    regs.r12 = 0x12;
    regs.r13 = 0x13;
    regs.r14 = 0x14;
    regs.r15 = 0x15;
    regs.rsp = STACK_TOP - 8;
    regs.fs_base = DATA + 0x100;
}

#[test]
fn registers_are_those_of_an_ordinary_call() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, one_call());
    // Carry, overflow, all arithmetic flags; direction; alignment check.
    for flags in [0, 1, 0x800, 0x8d5, 0x400, 0x4_0000, 0x4_0cd5] {
        patterned(&mut *thread);
        thread.regs_mut().eflags = flags;
        let before = *thread.regs();
        assert_eq!(run(&mut *thread), Trap::Syscall);
        let call = thread.call();
        assert_eq!(call.number, 110);
        assert_eq!(call.args, [0xd1, 0x51, 0x1d, 0x10, 0x8, 0x9]);
        thread.set_result(7);
        assert!(matches!(run(&mut *thread), Trap::Fault(fault) if fault.signo == libc::SIGILL));
        let after = *thread.regs();
        let expected = syscall_tables::abi::Regs {
            rax: 7,
            rcx: after.rip,
            r11: flags | 0x202,
            rip: after.rip,
            eflags: after.eflags,
            ..before
        };
        assert_eq!(after, expected);
        // The resume flag comes with the fault.
        assert_eq!(after.eflags & 0x4_0cd5, flags & 0x4_0cd5);
    }
}

#[test]
fn registers_can_be_seen_and_changed_during_a_call() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, one_call());
    patterned(&mut *thread);
    assert_eq!(run(&mut *thread), Trap::Syscall);
    assert_eq!(thread.regs().orig_rax, 110);
    assert_eq!((thread.regs().rbx, thread.regs().r15), (0x1b, 0x15));
    assert_eq!(thread.regs().rcx, thread.regs().rip);
    assert_eq!(thread.regs().fs_base, DATA + 0x100);
    let mut twin = block_on(thread.fork()).expect("fork");
    thread.regs_mut().r15 = 0x99;
    thread.regs_mut().fs_base = DATA + 0x200;
    thread.set_result(5);
    assert!(matches!(run(&mut *thread), Trap::Fault(_)));
    assert_eq!((thread.regs().rax, thread.regs().r15), (5, 0x99));
    assert_eq!(thread.regs().fs_base, DATA + 0x200);
    assert!(matches!(run(&mut *twin), Trap::Fault(_)));
    assert_eq!((twin.regs().rbx, twin.regs().r15), (0x1b, 0x15));
    assert_eq!(twin.regs().fs_base, DATA + 0x100);
}

guest_code!(
    loop_with_vectors,
    "movq xmm7, rbx",
    "2: mov eax, 39",
    "inc rbx",
    "movq xmm7, rbx",
    "lea rcx, [rip + 3f]",
    "movabs r11, 0x7fff00015000",
    "jmp r11",
    "3: .long 4f - 3b",
    "4: movq rcx, xmm7",
    "cmp rcx, rbx",
    "je 2b",
    "ud2",
);

#[test]
fn vector_state_is_there_when_asked_for() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, loop_with_vectors());
    thread.regs_mut().rbx = 41;
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let mut area = vector_state(&platform, &mut *thread);
    let xmm7 = 160 + 7 * 16;
    assert_eq!(area[xmm7], 42);
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let mut twin = block_on(thread.clone_thread()).expect("twin");
    assert_eq!(run(&mut *twin), Trap::Syscall);
    assert_eq!(twin.regs().rbx, 44);
    // A copy that faults is a signal in the middle of the call.
    assert!(copy_in(&mut *thread, 0x1000_0000, &mut [0; 100]).is_err());
    assert_eq!(run(&mut *thread), Trap::Syscall);
    assert_eq!(thread.regs().rbx, 44);
    area[xmm7] = 1;
    set_vector_state(&mut *thread, &area);
    assert!(matches!(run(&mut *thread), Trap::Fault(_)));
    assert_eq!((thread.regs().rbx, thread.regs().rcx & 0xff), (44, 1));
}

#[test]
fn interrupts_at_any_moment_lose_nothing() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, loop_with_vectors());
    let handle = thread.handle();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let interrupter = std::thread::spawn(move || {
        let mut sent = 0u32;
        while !stopped.load(Ordering::Relaxed) {
            handle.interrupt();
            sent += 1;
            for _ in 0..sent % 97 {
                std::hint::spin_loop();
            }
        }
    });
    let (mut calls, mut interrupts) = (0, 0);
    let start = Instant::now();
    while (calls < 10_000 || interrupts < 1000) && start.elapsed() < Duration::from_secs(20) {
        match run(&mut *thread) {
            Trap::Syscall => {
                calls += 1;
                if calls % 3 == 0 {
                    assert_eq!(thread.regs().rbx, calls);
                }
            }
            Trap::Interrupted => interrupts += 1,
            other => panic!("{other:?} after {calls} calls, {:?}", thread.regs()),
        }
    }
    stop.store(true, Ordering::Relaxed);
    interrupter.join().expect("no panic");
    assert!(calls > 100 && interrupts > 10, "{calls}, {interrupts}");
}
