//! Traps, registers, copies and memory operations of the systrap platform.

mod guest;

use std::os::fd::AsFd;

use guest::*;
use sentry_platform::executor::block_on;
use sentry_platform::{
    AtomicOp, CopyFault, Fault, GuestThread, MemAdvice, MemOp, Platform, Protection, Sharing, Trap,
};
use syscall_tables::Errno;

const PAGE: u64 = 4096;
/// Never mapped.
const HOLE: u64 = 0x4000_0000;

guest_code!(
    counting_calls,
    "2: mov eax, 39",
    "inc rbx",
    "syscall",
    "jmp 2b",
);

fn trapped(platform: &sentry_platform::systrap::Systrap) -> Box<dyn GuestThread> {
    let (_space, mut thread) = load(platform, counting_calls());
    assert_eq!(run(&mut *thread), Trap::Syscall);
    thread
}

#[test]
fn system_calls_trap_with_their_registers() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, counting_calls());
    thread.regs_mut().r8 = 0x1234_5678_9abc_def0;
    for round in 1..2000 {
        assert_eq!(run(&mut *thread), Trap::Syscall);
        let regs = *thread.regs();
        assert_eq!(regs.orig_rax, 39);
        assert_eq!(regs.rbx, round);
        assert_eq!(regs.r8, 0x1234_5678_9abc_def0);
        assert_eq!(regs.rsp, STACK_TOP);
        assert_eq!(regs.rcx, regs.rip);
        thread.regs_mut().rax = round;
    }
}

guest_code!(all_registers, "syscall", "pushfq", "pop rax", "syscall",);

#[test]
fn all_registers_are_loaded() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, all_registers());
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let regs = thread.regs_mut();
    regs.r15 = 15;
    regs.r14 = 14;
    regs.r13 = 13;
    regs.r12 = 12;
    regs.r10 = 10;
    regs.r9 = 9;
    regs.r8 = 8;
    regs.rbp = 7;
    regs.rbx = 6;
    regs.rdx = 5;
    regs.rsi = 4;
    regs.rdi = 3;
    regs.fs_base = 0x7000_1234;
    regs.gs_base = 0x7000_5678;
    // Carry, overflow, direction, and what user mode can't have (IOPL).
    regs.eflags = 0x3c01;
    let wanted = *regs;
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let regs = *thread.regs();
    assert_eq!(regs.orig_rax, 0x0e03, "flags");
    assert_eq!(
        [
            regs.r15, regs.r14, regs.r13, regs.r12, regs.r10, regs.r9, regs.r8
        ],
        [15, 14, 13, 12, 10, 9, 8]
    );
    assert_eq!(
        [regs.rbp, regs.rbx, regs.rdx, regs.rsi, regs.rdi, regs.rsp],
        [7, 6, 5, 4, 3, wanted.rsp]
    );
    assert_eq!([regs.fs_base, regs.gs_base], [0x7000_1234, 0x7000_5678]);
}

#[test]
fn copies_move_bytes_of_any_length() {
    let platform = platform();
    let mut thread = trapped(&platform);
    for len in [0, 1, 3071, 3072, 3073, 65536, 65537, 200_000] {
        let bytes: Vec<u8> = (0..len).map(|index| (index % 251) as u8).collect();
        copy_out(&mut *thread, DATA + 5, &bytes).expect("mapped");
        let mut back = vec![0; len];
        copy_in(&mut *thread, DATA + 5, &mut back).expect("mapped");
        assert!(back == bytes, "{len} bytes");
    }
}

#[test]
fn copies_stop_exactly_at_the_first_inaccessible_byte() {
    let platform = platform();
    let mut thread = trapped(&platform);
    let end = DATA + DATA_LEN;
    let mut bytes = vec![7; 200_000];
    for before in [0, 1, 4095, 4097, 70_000] {
        let fault = Err(CopyFault {
            copied: usize::try_from(before).expect("small"),
        });
        assert_eq!(copy_in(&mut *thread, end - before, &mut bytes), fault);
        assert_eq!(copy_out(&mut *thread, end - before, &bytes), fault);
    }
    for addr in [
        0,
        HOLE,
        1 << 47,
        u64::MAX - 10,
        0x7fff_0001_4000,
        0x7fff_1000_0000,
    ] {
        let fault = Err(CopyFault { copied: 0 });
        assert_eq!(copy_in(&mut *thread, addr, &mut bytes), fault);
        assert_eq!(copy_out(&mut *thread, addr, &bytes), fault);
        assert_eq!(copy_in_str(&mut *thread, addr, &mut bytes).map(drop), fault);
        assert_eq!(
            atomic(&mut *thread, addr & !3, AtomicOp::Load).map(drop),
            fault
        );
    }
    // Read-only memory: readable, not writable.
    copy_out(&mut *thread, DATA, &[1; 16]).expect("writable");
    let read_only = MemOp::Protect {
        range: DATA..DATA + PAGE,
        protection: Protection::READ,
    };
    block_on(thread.apply(&[read_only])).expect("protect");
    let mut back = [0; 16];
    copy_in(&mut *thread, DATA, &mut back).expect("readable");
    assert_eq!(back, [1; 16]);
    let fault = Err(CopyFault { copied: 0 });
    assert_eq!(copy_out(&mut *thread, DATA, &[2; 16]), fault);
    // It still runs.
    assert_eq!(run(&mut *thread), Trap::Syscall);
}

#[test]
fn strings_end_at_nul_or_limit_or_fault() {
    let platform = platform();
    let mut thread = trapped(&platform);
    let mut buffer = [0xff; 16];
    copy_out(&mut *thread, DATA, b"/etc/passwd\0rest").expect("mapped");
    assert_eq!(copy_in_str(&mut *thread, DATA, &mut buffer), Ok(11));
    assert_eq!(&buffer[..11], b"/etc/passwd");
    assert_eq!(copy_in_str(&mut *thread, DATA, &mut buffer[..5]), Ok(5));
    assert_eq!(copy_in_str(&mut *thread, DATA + 11, &mut buffer), Ok(0));
    let end = DATA + DATA_LEN;
    copy_out(&mut *thread, end - 4, b"abc\0").expect("mapped");
    assert_eq!(copy_in_str(&mut *thread, end - 4, &mut buffer), Ok(3));
    copy_out(&mut *thread, end - 4, b"abcd").expect("mapped");
    let fault = Err(CopyFault { copied: 4 });
    assert_eq!(copy_in_str(&mut *thread, end - 4, &mut buffer), fault);
}

#[test]
fn atomic_operations_answer_the_previous_value() {
    let platform = platform();
    let mut thread = trapped(&platform);
    let mut step = |op, old, new| {
        assert_eq!(atomic(&mut *thread, DATA, op), Ok(old), "{op:?}");
        let value = atomic(&mut *thread, DATA, AtomicOp::Load);
        assert_eq!(value, Ok(new), "after {op:?}");
    };
    step(AtomicOp::Exchange(0xf0), 0, 0xf0);
    step(AtomicOp::Or(0x0f), 0xf0, 0xff);
    step(AtomicOp::And(0x3c), 0xff, 0x3c);
    step(AtomicOp::Xor(0xff), 0x3c, 0xc3);
    step(AtomicOp::Add(u32::MAX), 0xc3, 0xc2);
    step(
        AtomicOp::CompareExchange {
            expected: 1,
            new: 2,
        },
        0xc2,
        0xc2,
    );
    step(
        AtomicOp::CompareExchange {
            expected: 0xc2,
            new: 2,
        },
        0xc2,
        2,
    );
}

guest_code!(
    faults,
    "test rdi, rdi",
    "jz 1f",
    "dec rdi",
    "jz 2f",
    "dec rdi",
    "jz 3f",
    "dec rdi",
    "jz 4f",
    "dec rdi",
    "jz 5f",
    "1: mov rax, [rsi]",
    "2: ud2",
    "3: int3",
    "4: xor eax, eax",
    "xor edx, edx",
    "div eax",
    "5: int 0x80",
);

#[test]
fn exceptions_are_reported_as_the_host_does() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, faults());
    let mut fault = |rdi, rsi| {
        thread.regs_mut().rip = CODE;
        thread.regs_mut().rdi = rdi;
        thread.regs_mut().rsi = rsi;
        let Trap::Fault(fault) = run(&mut *thread) else {
            panic!("no fault");
        };
        fault
    };
    let page_fault = Fault {
        signo: libc::SIGSEGV,
        code: 1, // SEGV_MAPERR
        addr: HOLE + 8,
        trap_no: 14,
        error_code: 4,
    };
    assert_eq!(fault(0, HOLE + 8), page_fault);
    let general = fault(0, 1 << 62);
    assert_eq!((general.signo, general.trap_no), (libc::SIGSEGV, 13));
    let invalid = fault(1, 0);
    assert_eq!(
        (invalid.signo, invalid.code, invalid.trap_no),
        (libc::SIGILL, 2, 6)
    );
    let breakpoint = fault(2, 0);
    assert_eq!((breakpoint.signo, breakpoint.trap_no), (libc::SIGTRAP, 3));
    let division = fault(3, 0);
    assert_eq!((division.signo, division.code), (libc::SIGFPE, 1));
    let old_call = fault(4, 0);
    assert_eq!(
        (old_call.signo, old_call.error_code),
        (libc::SIGSEGV, 0x402)
    );
}

guest_code!(
    vector_registers,
    "movq xmm3, rdi",
    "syscall",
    "movq rdi, xmm3",
    "syscall",
);

#[test]
fn vector_state_survives_traps_and_can_be_replaced() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, vector_registers());
    thread.regs_mut().rdi = 0x1122_3344_5566_7788;
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let mut area = vector_state(&platform, &mut *thread);
    let xmm3 = 160 + 3 * 16;
    assert_eq!(area[xmm3..xmm3 + 8], 0x1122_3344_5566_7788u64.to_le_bytes());
    let mut twin = block_on(thread.clone_thread()).expect("twin");
    assert_eq!(run(&mut *twin), Trap::Syscall);
    assert_eq!(twin.regs().rdi, 0x1122_3344_5566_7788);

    area[xmm3] = 0x99;
    area[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    area[520..576].fill(0xff);
    set_vector_state(&mut *thread, &area);
    assert_eq!(run(&mut *thread), Trap::Syscall);
    assert_eq!(thread.regs().rdi, 0x1122_3344_5566_7799);
}

#[test]
fn memory_operations_do_what_they_say() {
    let platform = platform();
    let (space, mut thread) = load(&platform, counting_calls());
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let file = tempfile();
    let at = 0x1000_0000;
    let map = |offset, sharing, protection| MemOp::MapFile {
        range: at..at + PAGE,
        protection,
        sharing,
        fd: file.as_fd(),
        offset,
    };
    let mut byte = [0];
    block_on(space.apply(&[map(PAGE, Sharing::Shared, RW)])).expect("shared");
    copy_in(&mut *thread, at + 1, &mut byte).expect("mapped");
    assert_eq!(byte, [2]);
    copy_out(&mut *thread, at + 1, &[9]).expect("mapped");
    // Replaced by a private mapping of the same page.
    block_on(thread.apply(&[map(PAGE, Sharing::Private, RW)])).expect("private");
    copy_in(&mut *thread, at + 1, &mut byte).expect("mapped");
    assert_eq!(byte, [9]);
    copy_out(&mut *thread, at + 1, &[10]).expect("mapped");
    block_on(space.apply(&[map(PAGE, Sharing::Private, RW)])).expect("private");
    copy_in(&mut *thread, at + 1, &mut byte).expect("mapped");
    assert_eq!(byte, [9]);
    // Beyond the end of the file.
    block_on(space.apply(&[map(2 * PAGE, Sharing::Shared, RW)])).expect("shared");
    assert_eq!(
        copy_in(&mut *thread, at, &mut byte),
        Err(CopyFault { copied: 0 })
    );

    // Moves, with what is there.
    copy_out(&mut *thread, DATA, &[5]).expect("mapped");
    let remap = MemOp::Remap {
        from: DATA..DATA + PAGE,
        to: at..at + 3 * PAGE,
        keep_source: false,
    };
    block_on(thread.apply(&[remap])).expect("remap");
    copy_in(&mut *thread, at, &mut byte).expect("moved");
    assert_eq!(byte, [5]);
    copy_out(&mut *thread, at + 3 * PAGE - 1, &[5]).expect("grown");
    assert_eq!(
        copy_in(&mut *thread, DATA, &mut byte),
        Err(CopyFault { copied: 0 })
    );
    let shrink = MemOp::Remap {
        from: at..at + 3 * PAGE,
        to: at..at + PAGE,
        keep_source: false,
    };
    let grow = MemOp::Remap {
        from: at..at + PAGE,
        to: at..at + 2 * PAGE,
        keep_source: false,
    };
    block_on(thread.apply(&[shrink, grow])).expect("in place");
    copy_in(&mut *thread, at, &mut byte).expect("still there");
    assert_eq!(byte, [5]);
    let advise = MemOp::Advise {
        range: at..at + PAGE,
        advice: MemAdvice::DontNeed,
    };
    block_on(thread.apply(&[advise])).expect("advice");
    copy_in(&mut *thread, at, &mut byte).expect("zero again");
    assert_eq!(byte, [0]);

    let unmap = MemOp::Unmap {
        range: at..at + PAGE,
    };
    block_on(thread.apply(&[unmap])).expect("unmap");
    assert_eq!(
        copy_in(&mut *thread, at, &mut byte),
        Err(CopyFault { copied: 0 })
    );
}

#[test]
fn a_batch_stops_at_the_first_failure_and_leaves_nothing_behind() {
    let platform = platform();
    let (space, mut thread) = load(&platform, counting_calls());
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let file = tempfile();
    let directory = std::fs::File::open("/").expect("a directory");
    let map = |index: u64, fd| MemOp::MapFile {
        range: HOLE + index * PAGE..HOLE + (index + 1) * PAGE,
        protection: Protection::READ,
        sharing: Sharing::Private,
        fd,
        offset: 0,
    };
    let mut ops: Vec<_> = (0..20).map(|index| map(index, file.as_fd())).collect();
    ops.insert(
        5,
        MemOp::MapAnonymous {
            range: HOLE + 30 * PAGE..HOLE + 31 * PAGE,
            protection: RW,
        },
    );
    let mut byte = [0];
    block_on(space.apply(&ops)).expect("mapped");
    copy_in(&mut *thread, HOLE + 19 * PAGE, &mut byte).expect("mapped");
    assert_eq!(byte, [1]);

    let unmap = MemOp::Unmap {
        range: HOLE..HOLE + 31 * PAGE,
    };
    block_on(space.apply(&[unmap])).expect("unmapped");
    // A directory can't be mapped.
    ops[12] = map(11, directory.as_fd());
    for round in 0..2 {
        let result = if round == 0 {
            block_on(space.apply(&ops))
        } else {
            block_on(thread.apply(&ops))
        };
        let error = result.expect_err("refused");
        assert_eq!((error.index, error.errno), (12, Errno::ENODEV));
        copy_in(&mut *thread, HOLE + 10 * PAGE, &mut byte).expect("mapped");
        let fault = Err(CopyFault { copied: 0 });
        assert_eq!(copy_in(&mut *thread, HOLE + 12 * PAGE, &mut byte), fault);
        // Descriptors are in step again.
        block_on(space.apply(&[map(25, file.as_fd())])).expect("mapped");
        copy_in(&mut *thread, HOLE + 25 * PAGE, &mut byte).expect("mapped");
        assert_eq!(byte, [1]);
    }
}

#[test]
fn ranges_outside_the_guest_are_refused() {
    let platform = platform();
    let (space, mut thread) = load(&platform, counting_calls());
    assert_eq!(run(&mut *thread), Trap::Syscall);
    let end = platform.guest_range().end;
    for (start, stop) in [
        (0, PAGE),
        (end, end + PAGE),
        (end - PAGE, end + PAGE),
        (DATA, DATA),
        (DATA + PAGE, DATA),
        (DATA + 1, DATA + PAGE),
        (u64::MAX - PAGE + 1, PAGE),
    ] {
        let range = start..stop;
        let unmap = [MemOp::Unmap {
            range: range.clone(),
        }];
        for result in [
            block_on(space.apply(&unmap)),
            block_on(thread.apply(&unmap)),
        ] {
            let error = result.expect_err("refused");
            assert_eq!((error.index, error.errno), (0, Errno::EINVAL), "{range:?}");
        }
    }
    // The last page is the guest's.
    let last = MemOp::MapAnonymous {
        range: end - PAGE..end,
        protection: RW,
    };
    block_on(thread.apply(&[last])).expect("mapped");
    copy_out(&mut *thread, end - 1, &[1]).expect("mapped");
    let fault = Err(CopyFault { copied: 1 });
    assert_eq!(copy_out(&mut *thread, end - 1, &[1, 2]), fault);
}

#[test]
fn memory_is_reached_without_a_trapped_thread() {
    let platform = platform();
    let (space, _thread) = load(&platform, counting_calls());
    let bytes: Vec<u8> = (0..150_000u32).map(|index| (index % 253) as u8).collect();
    block_on(space.write(DATA + 3, &bytes)).expect("mapped");
    let mut back = vec![0; bytes.len()];
    block_on(space.read(DATA + 3, &mut back)).expect("mapped");
    assert!(back == bytes);
    let end = DATA + DATA_LEN;
    let fault = Err(CopyFault { copied: 100 });
    assert_eq!(block_on(space.read(end - 100, &mut back)), fault);
    assert_eq!(block_on(space.write(end - 100, &bytes)), fault);
    let fault = Err(CopyFault { copied: 0 });
    assert_eq!(block_on(space.read(0x7fff_1000_0000, &mut back)), fault);
}

/// Two pages: ones, then twos.
fn tempfile() -> std::fs::File {
    use std::io::Write;
    use std::os::fd::FromRawFd;
    // SAFETY: a new descriptor that nobody else owns.
    let mut file = unsafe {
        std::fs::File::from_raw_fd(libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC))
    };
    file.write_all(&[1; 4096]).expect("written");
    file.write_all(&[2; 4096]).expect("written");
    file
}

guest_code!(
    clock,
    // rdi: address of clock_gettime, rsi: timespec
    "mov rbx, rdi",
    "mov r12, rsi",
    "mov r13d, 1000",
    "2: mov edi, 1",
    "mov rsi, r12",
    "call rbx",
    "dec r13d",
    "jnz 2b",
    "mov rdi, rax",
    "mov eax, 60",
    "syscall",
);

#[test]
fn the_clock_is_read_without_a_trap() {
    let platform = platform();
    let (space, mut thread) = load(&platform, clock());
    let vdso = platform.vdso().expect("a vDSO");
    let at = 0x2000_0000;
    let map = MemOp::MapFile {
        range: at..at + vdso.len_bytes.next_multiple_of(PAGE),
        protection: RX,
        sharing: Sharing::Private,
        fd: vdso.fd.as_fd(),
        offset: 0,
    };
    block_on(space.apply(&[map])).expect("mapped");
    // Its first function is that one; see `stub/vdso.ld`.
    let mut image = vec![0; usize::try_from(vdso.len_bytes).expect("small")];
    block_on(space.read(at, &mut image)).expect("mapped");
    let endbr = [0xf3, 0x0f, 0x1e, 0xfa];
    let offset = image.windows(4).position(|bytes| bytes == endbr);
    thread.regs_mut().rdi = at + offset.expect("a function") as u64;
    thread.regs_mut().rsi = DATA;
    assert_eq!(run(&mut *thread), Trap::Syscall);
    assert_eq!((thread.regs().orig_rax, thread.regs().rdi), (60, 0));
    let mut timespec = [0; 16];
    copy_in(&mut *thread, DATA, &mut timespec).expect("mapped");
    let seconds = u64::from_le_bytes(timespec[..8].try_into().expect("eight bytes"));
    let now = nix::time::ClockId::CLOCK_MONOTONIC.now().expect("a clock");
    assert!((now.tv_sec() as u64).abs_diff(seconds) <= 2);
}
