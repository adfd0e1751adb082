//! From a signal-delivery stop to a trap.

use syscall_tables::abi::Regs;

use crate::traits::{Fault, Trap};

/// First address of the vsyscall page.
const VSYSCALL_PAGE: u64 = 0xffff_ffff_ff60_0000;

/// x86 exception numbers.
mod exception {
    pub(super) const DIVIDE: u64 = 0;
    pub(super) const DEBUG: u64 = 1;
    pub(super) const BREAKPOINT: u64 = 3;
    pub(super) const INVALID_OPCODE: u64 = 6;
    pub(super) const GENERAL_PROTECTION: u64 = 13;
    pub(super) const PAGE_FAULT: u64 = 14;
    pub(super) const ALIGNMENT: u64 = 17;
    pub(super) const SIMD: u64 = 19;
}

/// `si_code` of a fault the host has no finer code for.
const SI_KERNEL: i32 = 0x80;

/// `si_code` of an access to an address without a mapping.
const SEGV_MAPERR: i32 = 1;

/// `si_code` of an integer division by zero.
const FPE_INTDIV: i32 = 1;

/// What the signal described by `info` means for the guest; `None` if it is
/// not a synchronous exception and is to be ignored.
///
/// Exception number and error code follow from the signal as far as they can;
/// [`needs_frame`] says when only the host knows them.
pub(super) fn trap(signo: i32, info: &libc::siginfo_t, regs: &mut Regs) -> Option<Trap> {
    let code = info.si_code;
    if code <= 0 {
        // Sent by a process.
        return None;
    }
    // SAFETY: the host fills si_addr for all signals that get here; in any
    // case it is plain bytes of the union.
    let addr = unsafe { info.si_addr() }.addr() as u64;
    if signo == libc::SIGSYS {
        return vsyscall(info, addr, regs);
    }
    let (trap_no, error_code) = match (signo, code) {
        (libc::SIGSEGV, SI_KERNEL) => (exception::GENERAL_PROTECTION, 0),
        (libc::SIGSEGV, SEGV_MAPERR) | (libc::SIGBUS, _) if !is_alignment(signo, code) => {
            (exception::PAGE_FAULT, 4)
        }
        (libc::SIGSEGV, _) => (exception::PAGE_FAULT, 5),
        (libc::SIGBUS, _) => (exception::ALIGNMENT, 0),
        (libc::SIGFPE, FPE_INTDIV) => (exception::DIVIDE, 0),
        // The host gives the same codes for both units; x87 code is rare.
        (libc::SIGFPE, _) => (exception::SIMD, 0),
        (libc::SIGILL, _) => (exception::INVALID_OPCODE, 0),
        (libc::SIGTRAP, SI_KERNEL | libc::TRAP_BRKPT) => (exception::BREAKPOINT, 0),
        (libc::SIGTRAP, _) => (exception::DEBUG, 0),
        _ => return None,
    };
    Some(Trap::Fault(Fault {
        signo,
        code,
        addr,
        trap_no,
        error_code,
    }))
}

fn is_alignment(signo: i32, code: i32) -> bool {
    signo == libc::SIGBUS && code == libc::BUS_ADRALN
}

/// Whether the host knows more about this exception than the signal says:
/// for page faults, whether it was a store or an instruction fetch.
pub(super) fn needs_frame(fault: &Fault) -> bool {
    matches!(fault.signo, libc::SIGSEGV | libc::SIGBUS)
        || (fault.signo == libc::SIGFPE && fault.code != FPE_INTDIV)
}

/// The filter has refused a call through the vsyscall page; the host has
/// emulated the return from it already.
fn vsyscall(info: &libc::siginfo_t, call_addr: u64, regs: &mut Regs) -> Option<Trap> {
    // SAFETY: siginfo_t is 128 bytes of plain data; this reads the `_sigsys`
    // member, whose si_syscall lies behind the call address.
    let number = unsafe { std::ptr::from_ref(info).cast::<u32>().add(6).read() };
    if call_addr < VSYSCALL_PAGE {
        return None;
    }
    regs.orig_rax = u64::from(number);
    Some(Trap::Syscall)
}

/// The trap for a system call by another entry than the `syscall`
/// instruction: what a kernel without 32-bit support does.
pub(super) fn foreign_call(regs: &mut Regs) -> Trap {
    // `int 0x80` and `sysenter` have two bytes.
    regs.rip = regs.rip.wrapping_sub(2);
    regs.orig_rax = u64::MAX;
    Trap::Fault(Fault {
        signo: libc::SIGSEGV,
        code: SI_KERNEL,
        addr: 0,
        trap_no: exception::GENERAL_PROTECTION,
        // Interrupt gate 0x80 of the descriptor table.
        error_code: 0x402,
    })
}
