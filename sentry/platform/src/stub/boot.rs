//! Turns the freshly executed zygote into a bare process.
//!
//! Runs once, before any guest exists, on the stack that `execve` made, with
//! the descriptors named in `layout.rs`. Its host calls lie outside the text
//! ranges that the control filter allows.

use core::arch::{asm, global_asm};

use crate::layout as l;

global_asm!(
    ".pushsection .text._start,\"ax\",@progbits",
    ".global _start",
    "_start:",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {boot}",
    "hlt",
    ".popsection",
    boot = sym boot,
);

unsafe extern "C" {
    fn stub_handler();
    fn stub_seal();
}

const SYS_MMAP: u64 = 9;
const SYS_MUNMAP: u64 = 11;
const SYS_RT_SIGACTION: u64 = 13;
const SYS_RT_SIGPROCMASK: u64 = 14;
const SYS_WRITE: u64 = 1;
const SYS_PRCTL: u64 = 157;
const SYS_EXIT_GROUP: u64 = 231;
const SYS_PRLIMIT64: u64 = 302;

const SYS_MSEAL: u64 = 462;

const AT_SYSINFO_EHDR: u64 = 33;

fn syscall(nr: u64, args: [u64; 6]) -> i64 {
    let result: i64;
    // SAFETY: a host call changes no memory that Rust code here relies on: the
    // callers pass pointers to live stack data and unmap nothing in use.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") nr => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Ends the process.
pub fn exit(status: u64) -> ! {
    loop {
        syscall(SYS_EXIT_GROUP, [status, 0, 0, 0, 0, 0]);
    }
}

/// Exits with `step` as status if the call failed; the sentry reports it.
fn check(step: u64, result: i64) {
    if result < 0 {
        exit(step);
    }
}

fn prctl(step: u64, option: u64, value: u64) {
    check(step, syscall(SYS_PRCTL, [option, value, 0, 0, 0, 0]));
}

/// Reads `base[index]`.
fn load<T: Copy>(base: u64, index: usize) -> T {
    // SAFETY: the callers pass the initial stack or the vDSO image, both laid
    // out by the host kernel.
    unsafe {
        core::ptr::with_exposed_provenance::<T>(base as usize)
            .add(index)
            .read_unaligned()
    }
}

/// Start and end of the vDSO from the auxiliary vector; 0 if there is none.
fn vdso(stack: u64) -> (u64, u64) {
    let argc: u64 = load(stack, 0);
    let mut index = 2 + argc as usize;
    while load::<u64>(stack, index) != 0 {
        index += 1;
    }
    index += 1;
    let start = loop {
        match load::<u64>(stack, index) {
            0 => return (0, 0),
            AT_SYSINFO_EHDR => break load::<u64>(stack, index + 1),
            _ => index += 2,
        }
    };
    let headers = start + load::<u64>(start + 32, 0);
    let count = load::<u16>(start + 56, 0) as u64;
    let mut len = 0;
    let mut header = headers;
    while header < headers + count * 56 {
        if load::<u32>(header, 0) == 1 {
            let end = load::<u64>(header + 16, 0) + load::<u64>(header + 40, 0);
            len = if end > len { end } else { len };
        }
        header += 56;
    }
    // The section headers are mapped too, behind what is loaded; mappings of
    // the vDSO can't be unmapped in part.
    let sections = load::<u64>(start + 40, 0);
    let each = load::<u16>(start + 58, 0) as u64;
    let end = sections + each * load::<u16>(start + 60, 0) as u64;
    len = if end > len { end } else { len };
    (start, (start + len + 0xfff) & !0xfff)
}

extern "C" fn boot(stack: u64) -> ! {
    prctl(10, 1, 9); // PR_SET_PDEATHSIG, SIGKILL
    prctl(11, 4, 0); // PR_SET_DUMPABLE
    prctl(12, 38, 1); // PR_SET_NO_NEW_PRIVS
    let name = *b"stub\0";
    prctl(13, 15, (&raw const name).expose_provenance() as u64); // PR_SET_NAME
    let no_core = [0u64; 2];
    let no_core = (&raw const no_core).expose_provenance() as u64;
    check(14, syscall(SYS_PRLIMIT64, [0, 4, no_core, 0, 0, 0]));

    // SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS and the interrupt.
    for signal in [4, 5, 7, 8, 11, 31, u64::from(l::INTERRUPT_SIGNAL)] {
        // SA_SIGINFO | SA_ONSTACK | SA_RESTORER | SA_NODEFER, empty mask. The
        // restorer is never used: handlers don't return.
        let handler = (stub_handler as *const ()).expose_provenance() as u64;
        let action = [handler, 0x4c00_0004, handler, 0];
        let action = (&raw const action).expose_provenance() as u64;
        check(15, syscall(SYS_RT_SIGACTION, [signal, action, 0, 8, 0, 0]));
    }
    let all = u64::MAX;
    let all = (&raw const all).expose_provenance() as u64;
    check(16, syscall(SYS_RT_SIGPROCMASK, [2, all, 0, 8, 0, 0]));

    let global = [l::GLOBAL, l::GLOBAL_LEN, 1, 0x11, l::FD_BOOT_GLOBAL, 0];
    check(17, syscall(SYS_MMAP, global));

    let (vdso_start, vdso_end) = vdso(stack);
    if vdso_start != 0 && vdso_start < l::CONTEXTS + l::CONTEXTS_LEN {
        exit(18);
    }
    let report = [vdso_start, vdso_end];
    let report = (&raw const report).expose_provenance() as u64;
    check(
        19,
        syscall(SYS_WRITE, [l::FD_RECEIVED, report, 16, 0, 0, 0]),
    );

    check(20, syscall(SYS_MUNMAP, [0, l::TEXT, 0, 0, 0, 0]));
    let text_end = l::TEXT + l::TEXT_LEN;
    check(
        21,
        syscall(SYS_MUNMAP, [text_end, l::GLOBAL - text_end, 0, 0, 0, 0]),
    );

    // From Linux 6.10 on, nothing can change these mappings any more. Without
    // it the filters' address checks stand alone.
    for (start, end) in [
        (l::TEXT, text_end),
        (l::GLOBAL, l::GLOBAL + l::GLOBAL_LEN),
        (vdso_start, vdso_end),
    ] {
        if start != 0 {
            syscall(SYS_MSEAL, [start, end - start, 0, 0, 0, 0]);
        }
    }

    // The rest, with the stack: everything around the vDSO and the data pages
    // before it, of which kernels have at most 16.
    let start = l::GLOBAL + l::GLOBAL_LEN;
    let (first, second) = if vdso_start == 0 {
        ((start, l::TASK_SIZE - start), (0, 0))
    } else {
        let data = vdso_start - 0x1_0000;
        ((start, data - start), (vdso_end, l::TASK_SIZE - vdso_end))
    };
    // SAFETY: `stub_seal` uses no stack and never returns.
    unsafe {
        asm!(
            "jmp {seal}",
            seal = sym stub_seal,
            in("rdi") first.0,
            in("rsi") first.1,
            in("r14") second.0,
            in("r15") second.1,
            options(noreturn),
        );
    }
}
