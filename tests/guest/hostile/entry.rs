//! Other instructions and numbers by which a kernel may be entered.

use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::util::*;

cases![
    int80_is_not_the_host,
    x32_numbers,
    vsyscall_page,
    sysenter_instruction,
    odd_flags_at_syscall,
    syscall_with_bad_stack,
    denied_host_calls,
];

unsafe fn int80_is_not_the_host() {
    may_die(|| {
        catch();
        let out: i64;
        // getpid of the 32-bit interface.
        std::arch::asm!("lea r12, [rip + 2f]", "int 0x80", "2:", inout("rax") 20i64 => out, out("r12") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        if SIGNO.load(SeqCst) == 0
            && out != i64::from(libc::getpid())
            && out as i32 != -libc::ENOSYS
        {
            libc::kill(libc::getppid(), libc::SIGUSR1);
        }
    });
}

unsafe fn x32_numbers() {
    for nr in [39i64, 0, 257, 512, 520, 547] {
        let out = sys!(0x4000_0000 | nr, 0, 0, 0, 0, 0, 0);
        check!(
            out == -1 || out == i64::from(libc::getpid()),
            "x32 {nr} gave {out}"
        );
    }
}

unsafe fn vsyscall_page() {
    may_die(|| {
        let time: extern "C" fn(*mut i64) -> i64 = std::mem::transmute(0xffff_ffff_ff60_0400usize);
        let t = time(std::ptr::null_mut());
        check!((t - libc::time(std::ptr::null_mut())).abs() <= 1);
    });
}

unsafe fn sysenter_instruction() {
    may_die(|| {
        catch();
        std::arch::asm!("lea r12, [rip + 2f]", "mov rbx, rsp", "mov rbp, rsp", "mov eax, 20", "sysenter", "2:", "mov rsp, rbx",
            out("rax") _, out("rcx") _, out("rdx") _, out("r11") _, out("r12") _, options(nostack));
    });
}

unsafe fn odd_flags_at_syscall() {
    // Direction, carry, overflow, alignment check, nested task, identification.
    for bits in [0x400u64, 0x1, 0x800, 0x40000, 0x4000, 0x20_0000, 0xc95] {
        in_child(|| {
            let (out, flags): (i64, u64);
            std::arch::asm!(
                "pushfq", "or qword ptr [rsp], {b}", "popfq",
                "mov eax, 39", "syscall",
                "pushfq", "pop {f}", "cld", "push 0x202", "popfq",
                b = in(reg) bits, f = out(reg) flags, out("rax") out, out("rcx") _, out("r11") _,
            );
            eq!(out, i64::from(libc::getpid()));
            // What user code set is there after the call.
            eq!(flags & bits & 0xcd5, bits & 0xcd5);
        });
    }
    // A trap flag set by the guest gives it a SIGTRAP, not the system.
    may_die(|| {
        std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov eax, 39", "syscall", "nop",
            out("rax") _, out("rcx") _, out("r11") _);
    });
}

unsafe fn syscall_with_bad_stack() {
    for sp in [
        0u64,
        8,
        0x1000,
        1 << 47,
        u64::MAX - 7,
        0xffff_8000_0000_0000,
    ] {
        in_child(|| {
            let out: i64;
            std::arch::asm!(
                "mov {save}, rsp", "mov rsp, {sp}", "mov eax, 39", "syscall", "mov rsp, {save}",
                save = out(reg) _, sp = in(reg) sp, out("rax") out, out("rcx") _, out("r11") _, options(nostack)
            );
            eq!(out, i64::from(libc::getpid()));
        });
    }
}

unsafe fn denied_host_calls() {
    // Calls that only a host kernel could serve do not reach one: from an
    // ordinary user they fail.
    in_child(|| {
        ok!(libc::setgid(1000));
        ok!(libc::setuid(1000));
        let p = anon(4096);
        for nr in [
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_iopl,
            libc::SYS_swapon,
            libc::SYS_settimeofday,
            libc::SYS_open_by_handle_at,
            libc::SYS_acct,
            libc::SYS_reboot,
            libc::SYS_clock_settime,
        ] {
            check!(sys!(nr, p, p, p, p, p, p) == -1, "call {nr} succeeded");
        }
    });
}
