//! Registers, memory, single steps, breakpoints.

use super::*;
use crate::util::*;

cases![
    change_syscall_and_result,
    peek_and_poke,
    getregs_setregs,
    getregset_fp,
    singlestep_counts,
    breakpoint_int3,
    peekuser_pokeuser,
    process_vm_of_tracee,
];

/// Runs to the entry of this call.
unsafe fn to_entry(pid: i32, nr: i64) {
    loop {
        ok!(pt(libc::PTRACE_SYSCALL, pid, 0, 0));
        let st = wait_any(pid);
        check!(libc::WIFSTOPPED(st));
        let r = regs(pid);
        if r.orig_rax as i64 == nr && r.rax as i64 == -i64::from(libc::ENOSYS) {
            return;
        }
    }
}

unsafe fn change_syscall_and_result() {
    let pid = traced(|| {
        // The tracer turns getppid into getpid and changes the next result.
        eq!(sys!(libc::SYS_getppid), i64::from(libc::getpid()));
        eq!(sys!(libc::SYS_getppid), 1234);
        // Skipped by number -1.
        eq!(sys!(libc::SYS_getppid), -1);
        eq!(errno(), libc::EXDEV);
    });
    options(pid, libc::PTRACE_O_TRACESYSGOOD);
    to_entry(pid, libc::SYS_getppid);
    let mut r = regs(pid);
    r.orig_rax = libc::SYS_getpid as u64;
    set_regs(pid, &r);
    ok!(pt(libc::PTRACE_SYSCALL, pid, 0, 0));
    wait_any(pid);
    to_entry(pid, libc::SYS_getppid);
    ok!(pt(libc::PTRACE_SYSCALL, pid, 0, 0));
    wait_any(pid);
    let mut r = regs(pid);
    r.rax = 1234;
    set_regs(pid, &r);
    to_entry(pid, libc::SYS_getppid);
    let mut r = regs(pid);
    r.orig_rax = u64::MAX;
    r.rax = (-i64::from(libc::EXDEV)) as u64;
    set_regs(pid, &r);
    cont(pid, 0);
    eq!(exited(pid), 0);
}

unsafe fn peek_and_poke() {
    let p = anon(4096).cast::<u64>();
    *p = 0x1122_3344_5566_7788;
    let pid = traced(|| eq!(*p.add(1), 99));
    set_errno(0);
    eq!(
        pt(libc::PTRACE_PEEKDATA, pid, p as usize, 0),
        0x1122_3344_5566_7788
    );
    eq!(errno(), 0);
    ok!(pt(libc::PTRACE_POKEDATA, pid, p as usize + 8, 99));
    eq!(*p.add(1), 0);
    err!(libc::EIO, pt(libc::PTRACE_PEEKDATA, pid, 8, 0));
    err!(libc::EIO, pt(libc::PTRACE_POKEDATA, pid, 8, 0));
    // Text can be written although it is mapped read-only.
    let text = peek_and_poke as *const () as usize;
    let word = ok!(pt(libc::PTRACE_PEEKTEXT, pid, text, 0));
    ok!(pt(libc::PTRACE_POKETEXT, pid, text, word as usize));
    cont(pid, 0);
    eq!(exited(pid), 0);
}

unsafe fn getregs_setregs() {
    let pid = traced(|| {
        let out: u64;
        std::arch::asm!("mov r13, 0x1234", "int3", "mov {o}, r13", o = out(reg) out, out("r13") _);
        libc::_exit(if out == 0x9876 { 7 } else { 1 });
    });
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGTRAP);
    let mut r = regs(pid);
    eq!(r.r13, 0x1234);
    check!(r.cs != 0 && r.ss != 0 && r.eflags & 2 != 0 && r.fs_base != 0);
    r.r13 = 0x9876;
    set_regs(pid, &r);
    cont(pid, 0);
    eq!(exited(pid), 7);
}

unsafe fn getregset_fp() {
    let pid = traced(|| {
        std::arch::asm!("mov rax, 0x5566", "movq xmm5, rax", "int3", out("rax") _, out("xmm5") _);
    });
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGTRAP);
    let mut fp = [0u8; 512];
    ok!(pt(libc::PTRACE_GETFPREGS, pid, 0, fp.as_mut_ptr() as usize));
    eq!(
        u64::from_ne_bytes(fp[160 + 80..160 + 88].try_into().unwrap_or_default()),
        0x5566
    );
    ok!(pt(libc::PTRACE_SETFPREGS, pid, 0, fp.as_ptr() as usize));
    let mut buf = [0u64; 27];
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: 216,
    };
    ok!(pt(
        libc::PTRACE_GETREGSET,
        pid,
        1,
        &mut iov as *mut _ as usize
    ));
    eq!(iov.iov_len, 216);
    eq!(buf[16], regs(pid).rip);
    let mut big = vec![0u8; 16384];
    let mut iov = libc::iovec {
        iov_base: big.as_mut_ptr().cast(),
        iov_len: 16384,
    };
    ok!(pt(
        libc::PTRACE_GETREGSET,
        pid,
        0x202,
        &mut iov as *mut _ as usize
    ));
    check!(iov.iov_len >= 576);
    kill_tracee(pid);
}

unsafe fn singlestep_counts() {
    let pid = traced(|| {
        std::arch::asm!("int3", "nop", "nop", "nop", "nop", "int3");
    });
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGTRAP);
    let start = regs(pid).rip;
    for i in 1..=4 {
        ok!(pt(libc::PTRACE_SINGLESTEP, pid, 0, 0));
        eq!(stop_signal(pid), libc::SIGTRAP);
        eq!(regs(pid).rip, start + i);
        let mut si: libc::siginfo_t = std::mem::zeroed();
        ok!(pt(
            libc::PTRACE_GETSIGINFO,
            pid,
            0,
            &mut si as *mut _ as usize
        ));
        eq!(si.si_code, 2); // TRAP_TRACE
    }
    kill_tracee(pid);
    // Over a system call instruction.
    let pid = traced(|| {
        let out: i64;
        std::arch::asm!("int3", "mov eax, 39", "syscall", "nop", out("rax") out, out("rcx") _, out("r11") _);
        libc::_exit(i32::from(out != i64::from(libc::getpid())));
    });
    cont(pid, 0);
    stop_signal(pid);
    for _ in 0..3 {
        ok!(pt(libc::PTRACE_SINGLESTEP, pid, 0, 0));
        eq!(stop_signal(pid), libc::SIGTRAP);
    }
    cont(pid, 0);
    eq!(exited(pid), 0);
}

#[inline(never)]
extern "C" fn target(x: u64) -> u64 {
    std::hint::black_box(x) + 1
}

unsafe fn breakpoint_int3() {
    let pid = traced(|| {
        libc::_exit(target(40) as i32);
    });
    let at = target as *const () as usize;
    let word = ok!(pt(libc::PTRACE_PEEKTEXT, pid, at, 0));
    ok!(pt(
        libc::PTRACE_POKETEXT,
        pid,
        at,
        (word & !0xff | 0xcc) as usize
    ));
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGTRAP);
    let mut r = regs(pid);
    eq!((r.rip as usize, r.rdi), (at + 1, 40));
    ok!(pt(libc::PTRACE_POKETEXT, pid, at, word as usize));
    r.rip = at as u64;
    r.rdi = 50;
    set_regs(pid, &r);
    cont(pid, 0);
    eq!(exited(pid), 51);
}

unsafe fn peekuser_pokeuser() {
    let pid = traced(|| {
        loop {
            libc::pause();
        }
    });
    let r = regs(pid);
    eq!(ok!(pt(libc::PTRACE_PEEKUSER, pid, 8 * 16, 0)) as u64, r.rip);
    ok!(pt(libc::PTRACE_POKEUSER, pid, 8 * 2, 0x77)); // r13
    eq!(regs(pid).r13, 0x77);
    err!(libc::EIO, pt(libc::PTRACE_PEEKUSER, pid, 3, 0));
    err!(libc::EIO, pt(libc::PTRACE_PEEKUSER, pid, 1 << 20, 0));
    // A segment that would run in kernel mode is refused.
    err!(libc::EIO, pt(libc::PTRACE_POKEUSER, pid, 8 * 17, 0x10));
    kill_tracee(pid);
}

unsafe fn process_vm_of_tracee() {
    let p = anon(8192);
    let pid = traced(|| *p = 1);
    let data = vec![7u8; 8192];
    let local = libc::iovec {
        iov_base: data.as_ptr() as *mut _,
        iov_len: 8192,
    };
    let remote = libc::iovec {
        iov_base: p.cast(),
        iov_len: 8192,
    };
    eq!(
        ok!(libc::process_vm_writev(pid, &local, 1, &remote, 1, 0)),
        8192
    );
    set_errno(0);
    eq!(
        pt(libc::PTRACE_PEEKDATA, pid, p as usize + 8000, 0),
        0x0707_0707_0707_0707
    );
    kill_tracee(pid);
}
