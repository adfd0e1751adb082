//! Why a thread has stopped.

use std::sync::atomic::Ordering;

use super::registers::NOT_IMPLEMENTED;
use super::{SI_KERNEL, SystrapThread};
use crate::systrap::context::Entry;
use crate::systrap::hub::Dead;
use crate::systrap::layout as l;
use crate::systrap::patch::{Located, Patching};
use crate::{Fault, GuestThread as _, Trap};

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

impl SystrapThread {
    /// Decodes why the stub has handed over; nothing if there is no reason.
    pub(super) fn trap(&mut self, entry: Entry) -> Option<Trap> {
        if entry == Entry::Trampoline {
            return Some(self.take_call());
        }
        let map = self.turn.map();
        let word = |offset| map.u32(self.turn.field(offset)).load(Ordering::Relaxed);
        let signo = word(l::C_SIGNO);
        let code = word(l::C_CODE).cast_signed();
        let arch = word(l::C_ARCH);
        let addr = map.load(self.turn.field(l::C_ADDR));
        let reg = |index: u64| map.load(self.turn.field(l::C_REGS + index * 8));
        let (trap_no, error_code) = (reg(l::REG_TRAPNO), reg(l::REG_ERR));
        self.take_regs();
        if signo.cast_signed() != libc::SIGILL && signo != l::INTERRUPT_SIGNAL {
            self.undefined = 0;
        }
        if signo.cast_signed() == libc::SIGSEGV && self.space.put_off.concerns(addr, 1) {
            self.start_settling();
            return None;
        }
        if self.space.texts.is_patched()
            && let Some(outcome) = self.translate(signo)
        {
            return outcome;
        }
        if signo == l::INTERRUPT_SIGNAL {
            return self.turn.core.take_interrupt().then_some(Trap::Interrupted);
        }
        if signo.cast_signed() == libc::SIGSYS {
            self.recent.flush(&self.space.calls(), 1);
            if self.space.stub.machine.patching == Patching::On {
                self.note_site();
            }
        }
        if signo.cast_signed() == libc::SIGSYS && arch == AUDIT_ARCH_X86_64 {
            self.take_offer();
        }
        let regs = &mut self.current_mut().current;
        match signo.cast_signed() {
            libc::SIGSYS if arch == AUDIT_ARCH_X86_64 => {
                regs.orig_rax = regs.rax;
                regs.rax = NOT_IMPLEMENTED;
                Some(Trap::Syscall)
            }
            libc::SIGSYS => {
                // `int 0x80` or `sysenter`: as on a kernel without 32-bit
                // emulation, a general protection fault.
                regs.rip = regs.rip.wrapping_sub(2);
                Some(Trap::Fault(Fault {
                    signo: libc::SIGSEGV,
                    code: SI_KERNEL,
                    addr: 0,
                    trap_no: 13,
                    error_code: 0x402,
                }))
            }
            signo
            @ (libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP) => {
                Some(Trap::Fault(Fault {
                    signo,
                    code,
                    addr,
                    trap_no,
                    error_code,
                }))
            }
            _ => {
                let Dead = self.turn.breach();
                Some(Trap::Killed)
            }
        }
    }

    /// Makes a program counter in a trampoline the guest's own, where a trap
    /// is to be another one for that.
    fn translate(&mut self, signo: u32) -> Option<Option<Trap>> {
        let texts = &self.space.texts;
        let regs = *self.regs();
        let entry = l::CALL_ENTRY..l::CALL_ENTRY + l::CALL_ENTRY_LEN;
        // There `%gs` was not the context, and `r11` tells where it came from.
        let at_entry = entry.contains(&regs.rip);
        let located = texts.locate(if at_entry { regs.r11 } else { regs.rip });
        let is_fault = signo != l::INTERRUPT_SIGNAL;
        match located {
            Some(Located::Before { number, back, .. }) if is_fault => {
                // A step of a debugger, or trampolines that the guest has
                // unmapped: the call is made here.
                let regs = &mut self.current_mut().current;
                regs.orig_rax = match number {
                    Some(number) if !at_entry => number.into(),
                    _ => regs.rax,
                };
                regs.rax = NOT_IMPLEMENTED;
                regs.rip = back;
                regs.rcx = back;
                regs.r11 = regs.eflags;
                Some(Some(Trap::Syscall))
            }
            Some(Located::Before { site, .. }) if !at_entry => {
                self.current_mut().current.rip = site;
                None
            }
            Some(Located::Behind(rip)) if !at_entry => {
                self.current_mut().current.rip = rip;
                None
            }
            // Where the guest has come to a place whose instruction has moved:
            // it goes on there. If it has come back since, once; if it is
            // about to, until it has.
            _ if signo == libc::SIGILL.cast_unsigned()
                && (texts.host_pc(regs.rip) != regs.rip
                    || texts.is_changing() && texts.was_moved(regs.rip)
                    || self.undefined != regs.rip && texts.was_moved(regs.rip)) =>
            {
                self.undefined = regs.rip;
                Some(None)
            }
            _ => None,
        }
    }

    /// After a trap by SIGSYS: has its site patched if it is time.
    fn note_site(&mut self) {
        let Some(start) = self.space.texts.hit(self.regs().rip) else {
            return;
        };
        let space = self.space.clone();
        let work = Box::pin(async move { space.patch_text(start).await });
        *self.patching.get_mut() = Some((Trap::Syscall, work));
    }
}
