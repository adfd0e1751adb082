//! Guest code on the ptrace platform: traps, registers, vector state,
//! interrupts.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{CODE, DATA, get_vectors, run, set_vectors, start};
use sentry_platform::executor::{Executor, block_on};
use sentry_platform::ptrace::PtracePlatform;
use sentry_platform::{Fault, Platform, Trap};

fn platform() -> Arc<PtracePlatform> {
    PtracePlatform::new().expect("the host lets us trace our children")
}

code!(
    counting_calls,
    "mov ebx, 0",
    "2: mov eax, 1000",
    "mov edi, 1",
    "mov esi, 2",
    "mov edx, 3",
    "mov r10d, 4",
    "mov r8d, 5",
    "mov r9d, 6",
    "syscall",
    "add rbx, rax",
    "jmp 2b"
);

#[test]
fn system_calls_trap_with_their_arguments_and_get_their_results() {
    let platform = platform();
    let mut thread = start(&*platform, counting_calls());
    for round in 0..1000_u64 {
        assert_eq!(run(&mut thread), Trap::Syscall);
        let regs = thread.regs_mut();
        assert_eq!(regs.orig_rax, 1000);
        assert_eq!(regs.syscall_args(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(regs.rbx, round * (round.saturating_sub(1)) / 2);
        regs.rax = round;
    }
}

code!(
    foreign_entries,
    "mov eax, 20",
    "int 0x80",
    "mov eax, 0x40000027",
    "syscall",
    "mov rax, 0xffffffffff600000",
    "mov rdi, 0x600000",
    "mov rsi, 0",
    "call rax",
    "ud2"
);

#[test]
fn no_entry_reaches_the_host() {
    let platform = platform();
    let mut thread = start(&*platform, foreign_entries());
    // As on a kernel without 32-bit support.
    let Trap::Fault(fault) = run(&mut thread) else {
        panic!("int 0x80 is no system call")
    };
    assert_eq!((fault.signo, fault.trap_no), (libc::SIGSEGV, 13));
    assert_eq!(thread.regs().rip, CODE + 5);
    thread.regs_mut().rip += 2;
    assert_eq!(run(&mut thread), Trap::Syscall);
    assert_eq!(thread.regs().orig_rax, 0x4000_0027, "x32 is for the kernel");
    let trap = run(&mut thread);
    if matches!(
        trap,
        Trap::Fault(Fault {
            signo: libc::SIGSEGV,
            ..
        })
    ) {
        // vsyscall=none
        return;
    }
    assert_eq!(trap, Trap::Syscall);
    assert_eq!(
        thread.regs().orig_rax,
        96,
        "gettimeofday by the vsyscall page"
    );
    assert_eq!(thread.regs().rdi, DATA);
    thread.regs_mut().rax = 0;
    let Trap::Fault(fault) = run(&mut thread) else {
        panic!("ud2 faults")
    };
    assert_eq!(fault.signo, libc::SIGILL);
}

#[test]
fn guest_calls_are_never_executed() {
    // If the host executed one of these, this process or the guest would be
    // gone or changed: all numbers, from guest code and from stub code.
    let platform = platform();
    let mut thread = start(&*platform, counting_calls());
    assert_eq!(run(&mut thread), Trap::Syscall);
    let at_syscall = thread.regs().rip - 2;
    let stub_call = platform.guest_range().end;
    for site in [at_syscall, stub_call] {
        for number in 0..600 {
            let regs = thread.regs_mut();
            regs.rip = site;
            regs.rax = number;
            regs.rdi = u64::MAX;
            assert_eq!(run(&mut thread), Trap::Syscall, "call {number} at {site:x}");
            assert_eq!(thread.regs().orig_rax, number);
            assert_eq!(thread.regs().rip, site + 2);
        }
    }
}

#[test]
fn stub_code_gives_a_guest_nothing() {
    use std::os::unix::fs::FileExt;
    let platform = platform();
    let mut thread = start(&*platform, counting_calls());
    assert_eq!(run(&mut thread), Trap::Syscall);
    let stub = platform.guest_range().end;
    let mut code = [0; 4096];
    let read = common::children().into_iter().any(|pid| {
        std::fs::File::open(format!("/proc/{pid}/mem"))
            .is_ok_and(|memory| memory.read_exact_at(&mut code, stub).is_ok())
    });
    assert!(read, "some stub can be read");
    let sites: Vec<u64> = code
        .windows(2)
        .zip(0..)
        .filter_map(|(bytes, offset)| (bytes == [0x0f, 0x05]).then_some(stub + offset))
        .collect();
    assert!(sites.len() >= 4, "{sites:x?}");
    // Every call instruction there, with calls that a stub makes and others.
    for site in sites {
        for number in [
            9_u64, 10, 11, 25, 28, 34, 47, 56, 57, 59, 60, 157, 231, 257, 317, 436,
        ] {
            let regs = thread.regs_mut();
            regs.rip = site;
            regs.rax = number;
            [regs.rdi, regs.rsi, regs.rdx] = [0x4000_0000, 0x1000, 7];
            assert_eq!(run(&mut thread), Trap::Syscall, "call {number} at {site:x}");
            assert_eq!(thread.regs().orig_rax, number);
        }
    }
    // Any byte of it: nothing but traps, and the guest stays whole. Should
    // it spin there, an interrupt ends that.
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let interrupter = std::thread::spawn({
        let (handle, done) = (thread.handle(), done.clone());
        move || {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
                handle.interrupt();
            }
        }
    });
    for offset in 0..4096 {
        *thread.regs_mut() = syscall_tables::abi::Regs {
            rip: stub + offset,
            rdi: DATA,
            rax: 60,
            rsp: common::STACK_TOP - 64,
            ..Default::default()
        };
        for _ in 0..4 {
            let trap = run(&mut thread);
            assert_ne!(trap, Trap::Killed, "from offset {offset:x}");
            if trap != Trap::Syscall {
                break;
            }
        }
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    interrupter.join().expect("no panic");
}

code!(
    faults,
    "mov rax, [0x10]", // 8 bytes
    "mov qword ptr [0x400000 + 0x10000], 0",
    "xor edx, edx",
    "xor ecx, ecx",
    "div ecx",
    "int3",
    "hlt",
    "ud2"
);

#[test]
fn exceptions_are_faults_with_their_address() {
    let platform = platform();
    let mut thread = start(&*platform, faults());
    let next = |thread: &mut Box<dyn sentry_platform::GuestThread>| match run(thread) {
        Trap::Fault(fault) => fault,
        trap => panic!("{trap:?}"),
    };
    let fault = next(&mut thread);
    assert_eq!(
        (fault.signo, fault.code, fault.addr),
        (libc::SIGSEGV, 1, 0x10)
    );
    assert_eq!((fault.trap_no, fault.error_code), (14, 4));
    assert_eq!(thread.regs().rip, CODE);
    thread.regs_mut().rip += 8;
    let fault = next(&mut thread);
    assert_eq!((fault.signo, fault.addr), (libc::SIGSEGV, CODE + 0x1_0000));
    thread.regs_mut().rip += 12;
    let fault = next(&mut thread);
    assert_eq!(
        (fault.signo, fault.code, fault.trap_no),
        (libc::SIGFPE, 1, 0)
    );
    thread.regs_mut().rip += 2;
    let fault = next(&mut thread);
    assert_eq!((fault.signo, fault.trap_no), (libc::SIGTRAP, 3));
    let fault = next(&mut thread);
    assert_eq!(
        (fault.signo, fault.code, fault.trap_no),
        (libc::SIGSEGV, 0x80, 13)
    );
    thread.regs_mut().rip += 1;
    let fault = next(&mut thread);
    assert_eq!((fault.signo, fault.trap_no), (libc::SIGILL, 6));
}

code!(
    page_faults,
    "mov rax, 0x1234",
    "movq xmm5, rax",
    "mov rax, [0x601000]",         // makes the page present
    "mov qword ptr [0x601000], 0", // 12 bytes, store without permission
    "mov rax, [0x602000]",         // 8 bytes, load of nothing
    "mov qword ptr [0x602000], 0", // 12 bytes, store to nothing
    "mov rax, 0x601000",
    "jmp rax",
    "ud2"
);

#[test]
fn page_faults_say_what_the_access_was() {
    use sentry_platform::{MemOp, Protection};
    let platform = platform();
    let mut thread = start(&*platform, page_faults());
    let protect = MemOp::Protect {
        range: DATA + 0x1000..DATA + 0x2000,
        protection: Protection::READ,
    };
    block_on(thread.apply(&[protect])).expect("mprotect");
    // Address, error code (present 1, write 2, user 4, fetch 16), length.
    let expected = [
        (DATA + 0x1000, 7, 12),
        (DATA + 0x2000, 4, 8),
        (DATA + 0x2000, 6, 12),
        (DATA + 0x1000, 21, 0),
    ];
    for (addr, error_code, len) in expected {
        let Trap::Fault(fault) = run(&mut thread) else {
            panic!("a page fault")
        };
        assert_eq!((fault.signo, fault.trap_no), (libc::SIGSEGV, 14));
        assert_eq!((fault.addr, fault.error_code), (addr, error_code));
        let mut area = vec![0; platform.vector_state_len_bytes()];
        get_vectors(&mut thread, &mut area).expect("vectors");
        assert_eq!(area[160 + 5 * 16..][..2], 0x1234_u16.to_ne_bytes());
        thread.regs_mut().rip += len;
    }
    // It can go on after all that.
    thread.regs_mut().rip = CODE;
    assert!(matches!(run(&mut thread), Trap::Fault(_)));
}

code!(endless, "2: inc rbx", "jmp 2b");

#[test]
fn an_endless_loop_is_interrupted() {
    let platform = platform();
    let mut thread = start(&*platform, endless());
    let handle = thread.handle();
    for _ in 0..20 {
        let handle = handle.clone();
        let interrupter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(2));
            handle.interrupt();
        });
        assert_eq!(run(&mut thread), Trap::Interrupted);
        interrupter.join().expect("no panic");
    }
    assert!(thread.regs().rbx > 0);
    assert!(handle.cpu_time() >= Duration::from_millis(20));
    // Before it runs: it does not run at all.
    let before = thread.regs().rbx;
    handle.interrupt();
    assert_eq!(run(&mut thread), Trap::Interrupted);
    assert_eq!(thread.regs().rbx, before);
}

#[test]
fn interrupts_and_system_calls_race_without_loss() {
    let platform = platform();
    let executor = Executor::new(2);
    let mut thread = start(&*platform, counting_calls());
    let handle = thread.handle();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = done.clone();
    let interrupter = std::thread::spawn(move || {
        while !flag.load(std::sync::atomic::Ordering::SeqCst) {
            handle.interrupt();
            std::thread::sleep(Duration::from_micros(50));
        }
    });
    let calls = block_on(executor.spawn_join(async move {
        let mut calls = 0_u64;
        let mut interrupts = 0_u64;
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            match std::future::poll_fn(|cx| thread.poll_run(cx)).await {
                Trap::Syscall => {
                    assert_eq!(thread.regs().rbx, calls);
                    thread.regs_mut().rax = 1;
                    calls += 1;
                }
                Trap::Interrupted => interrupts += 1,
                trap => panic!("{trap:?}"),
            }
        }
        (calls, interrupts)
    }));
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    interrupter.join().expect("no panic");
    assert!(calls.0 > 100 && calls.1 > 100, "{calls:?}");
}

#[test]
fn a_killed_space_traps_its_threads() {
    let platform = platform();
    let mut thread = start(&*platform, endless());
    let space = thread.space();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        space.kill();
    });
    assert_eq!(run(&mut thread), Trap::Killed);
    assert_eq!(run(&mut thread), Trap::Killed);
    assert!(block_on(thread.fork()).is_err());
    assert!(block_on(thread.space().new_thread()).is_err());
}

code!(
    vectors,
    "mov rax, 0x1122334455667788",
    "movq xmm7, rax",
    "mov eax, 1",
    "syscall",
    "movq rax, xmm7",
    "syscall"
);

#[test]
fn vector_state_goes_round() {
    let platform = platform();
    let mut thread = start(&*platform, vectors());
    let mut area = vec![0; platform.vector_state_len_bytes()];
    get_vectors(&mut thread, &mut area).expect("initial state");
    assert!(
        area[160..416].iter().all(|&byte| byte == 0),
        "nothing of ours leaks"
    );
    assert_eq!(run(&mut thread), Trap::Syscall);
    get_vectors(&mut thread, &mut area).expect("state");
    const XMM7: usize = 160 + 7 * 16;
    assert_eq!(
        area[XMM7..XMM7 + 8],
        0x1122_3344_5566_7788_u64.to_ne_bytes()
    );
    area[XMM7..XMM7 + 8].copy_from_slice(&99_u64.to_ne_bytes());
    set_vectors(&mut thread, &area).expect("set");
    assert_eq!(run(&mut thread), Trap::Syscall);
    assert_eq!(thread.regs().orig_rax, 99);
    // Whatever the bytes are, they are made valid.
    for fill in [0, 0xff, 0x5a] {
        area.fill(fill);
        set_vectors(&mut thread, &area).expect("sanitised");
    }
}
