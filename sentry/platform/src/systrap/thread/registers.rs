//! Registers of a trapped thread: the guest's in the context, the kernel's
//! changes, and the vector state.

use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use super::{Phase, SI_KERNEL, SystrapThread, to_u64};
use crate::systrap::hub::Dead;
use crate::systrap::layout as l;
use crate::{Call, Fault, Trap};

/// Flags that user mode can set (`FIX_EFLAGS` of the kernel, and ID), and
/// those that are always set there.
const EFLAGS_USER: u64 = 0x25_0dd5;
const EFLAGS_FIXED: u64 = 0x202;
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
const NO_SYSCALL: u64 = u64::MAX;
pub(super) const NOT_IMPLEMENTED: u64 = (-(libc::ENOSYS as i64)).cast_unsigned();

/// Registers as the context holds them, and as the kernel has changed them.
pub(super) struct Registers {
    pub(super) original: Regs,
    pub(super) current: Regs,
}

impl Registers {
    pub(super) fn new(regs: Regs) -> OnceLock<Self> {
        OnceLock::from(Self {
            original: regs,
            current: regs,
        })
    }

    /// Whether the guest would see a change beside the result of its call.
    pub(super) fn is_changed(&self) -> bool {
        let result = Regs {
            rax: self.current.rax,
            orig_rax: self.current.orig_rax,
            ..self.original
        };
        self.current != result
    }
}

/// A call that came by a trampoline: all but its number and arguments is still
/// where the guest has left it, until somebody asks for it.
pub(super) struct LiveCall {
    pub(super) call: Call,
    pub(super) result: u64,
    /// Vector state and segment bases have been fetched.
    pub(super) saved: bool,
    /// [`TextMap::epoch`](super::patch::TextMap::epoch) when it came.
    pub(super) epoch: u32,
}

impl SystrapThread {
    /// Puts an area for `XRSTOR` into the context.
    pub(super) fn put_vector_state(&self, area: &[u8]) {
        let map = self.turn.map();
        map.write(self.turn.field(l::C_XSAVE_AREA), area);
        let address = self.turn.stub_addr(l::C_XSAVE_AREA);
        map.store(self.turn.field(l::C_XSAVE), address);
    }

    /// The vector state, wherever the last trap has left it.
    pub(super) fn vector_state(&self, dst: &mut [u8]) -> Result<(), Errno> {
        let machine = &self.space.stub.machine;
        if dst.len() != machine.vector.len {
            return Err(Errno::EINVAL);
        }
        let map = self.turn.map();
        let address = map.load(self.turn.field(l::C_XSAVE));
        let offset = address.wrapping_sub(self.turn.stub_addr(0));
        let end = offset.checked_add(to_u64(dst.len()));
        if end.is_none_or(|end| end > l::C_STACK + l::C_STACK_LEN) {
            // The guest has overwritten the pointer.
            return Err(Errno::EFAULT);
        }
        map.read(self.turn.field(offset), dst);
        machine.vector.sanitise(dst);
        Ok(())
    }

    /// The registers, which the sentry need not have looked at yet.
    pub(super) fn registers(&self) -> &Registers {
        self.regs.get_or_init(|| {
            let mut original = self.read_regs();
            original.fs_base = self.fs_base;
            original.gs_base = self.gs_base;
            if let Some(live) = &self.live {
                let [rdi, rsi, rdx, r10, r8, r9] = live.call.args;
                original = Regs {
                    rdi,
                    rsi,
                    rdx,
                    r10,
                    r8,
                    r9,
                    rax: live.result,
                    orig_rax: live.call.number,
                    ..original
                };
            }
            Registers {
                original,
                current: original,
            }
        })
    }

    pub(super) fn current_mut(&mut self) -> &mut Registers {
        self.registers();
        self.regs.get_mut().expect("the line above has filled it")
    }

    /// What `%gs` really is where the guest believes in `base`: trampolines
    /// find the context by it.
    fn host_gs_base(&self, base: u64) -> u64 {
        match base {
            0 => self.turn.stub_addr(0),
            other => other,
        }
    }

    fn guest_gs_base(&self, base: u64) -> u64 {
        if base == self.turn.stub_addr(0) {
            0
        } else {
            base
        }
    }

    pub(super) fn put_regs(&mut self) {
        let map = self.turn.map();
        let registers = self.registers();
        let new = &registers.current;
        let old = (!self.unpublished).then_some(&registers.original);
        let put = |offset: u64, field: fn(&Regs) -> u64| {
            let value = field(new);
            if old.is_none_or(|old| field(old) != value) {
                map.store(self.turn.field(offset), value);
            }
        };
        let set = |index: u64, field| put(l::C_REGS + index * 8, field);
        set(l::REG_R8, |r| r.r8);
        set(l::REG_R9, |r| r.r9);
        set(l::REG_R10, |r| r.r10);
        set(l::REG_R11, |r| r.r11);
        set(l::REG_R12, |r| r.r12);
        set(l::REG_R13, |r| r.r13);
        set(l::REG_R14, |r| r.r14);
        set(l::REG_R15, |r| r.r15);
        set(l::REG_RDI, |r| r.rdi);
        set(l::REG_RSI, |r| r.rsi);
        set(l::REG_RBP, |r| r.rbp);
        set(l::REG_RBX, |r| r.rbx);
        set(l::REG_RDX, |r| r.rdx);
        set(l::REG_RAX, |r| r.rax);
        set(l::REG_RCX, |r| r.rcx);
        set(l::REG_RSP, |r| r.rsp);
        if self.space.texts.is_patched() {
            // The host's is known to nobody else.
            let pc = self.space.texts.host_pc(new.rip);
            map.store(self.turn.field(l::C_REGS + l::REG_RIP * 8), pc);
        } else {
            set(l::REG_RIP, |r| r.rip);
        }
        set(l::REG_EFLAGS, |r| r.eflags & EFLAGS_USER | EFLAGS_FIXED);
        put(l::C_FS_BASE, |r| r.fs_base);
        let (fs_base, gs_base) = (new.fs_base, new.gs_base);
        if old.is_none_or(|old| old.gs_base != gs_base) {
            let base = self.host_gs_base(gs_base);
            map.store(self.turn.field(l::C_GS_BASE), base);
        }
        self.fs_base = fs_base;
        self.gs_base = gs_base;
    }

    /// General registers from the context.
    fn read_regs(&self) -> Regs {
        let map = self.turn.map();
        let get = |index: u64| map.load(self.turn.field(l::C_REGS + index * 8));
        Regs {
            r8: get(l::REG_R8),
            r9: get(l::REG_R9),
            r10: get(l::REG_R10),
            r11: get(l::REG_R11),
            r12: get(l::REG_R12),
            r13: get(l::REG_R13),
            r14: get(l::REG_R14),
            r15: get(l::REG_R15),
            rdi: get(l::REG_RDI),
            rsi: get(l::REG_RSI),
            rbp: get(l::REG_RBP),
            rbx: get(l::REG_RBX),
            rdx: get(l::REG_RDX),
            rax: get(l::REG_RAX),
            rcx: get(l::REG_RCX),
            rsp: get(l::REG_RSP),
            rip: get(l::REG_RIP),
            eflags: get(l::REG_EFLAGS),
            orig_rax: NO_SYSCALL,
            cs: USER_CS,
            ss: USER_SS,
            ..Regs::default()
        }
    }

    /// All registers after a signal.
    pub(super) fn take_regs(&mut self) -> &mut Regs {
        let map = self.turn.map();
        self.fs_base = map.load(self.turn.field(l::C_FS_BASE));
        self.gs_base = self.guest_gs_base(map.load(self.turn.field(l::C_GS_BASE)));
        let mut regs = self.read_regs();
        regs.fs_base = self.fs_base;
        regs.gs_base = self.gs_base;
        self.regs = Registers::new(regs);
        self.unpublished = false;
        &mut self.current_mut().current
    }

    /// Takes a call that came by a trampoline.
    pub(super) fn take_call(&mut self) -> Trap {
        let map = self.turn.map();
        let arg = |index: u64| map.load(self.turn.field(l::C_ARGS + index * 8));
        self.live = Some(LiveCall {
            call: Call {
                number: arg(0),
                args: [arg(1), arg(2), arg(3), arg(4), arg(5), arg(6)],
            },
            result: NOT_IMPLEMENTED,
            saved: false,
            epoch: self.space.texts.epoch(),
        });
        self.regs = OnceLock::new();
        self.unpublished = true;
        self.take_offer();
        self.undefined = 0;
        if self.recent.add() {
            self.recent.flush(&self.space.calls(), 0);
        }
        Trap::Syscall
    }

    /// Fetches what a call by a trampoline has left in registers.
    pub(super) fn poll_save(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Dead>> {
        ready!(self.turn.poll_answer(cx))?;
        if self.phase != Phase::Saving {
            if self.live.as_ref().is_none_or(|live| live.saved) {
                return Poll::Ready(Ok(()));
            }
            self.turn.order(l::OP_SAVE)?;
            self.phase = Phase::Saving;
            ready!(self.turn.poll_answer(cx))?;
        }
        self.phase = Phase::Idle;
        if let Some(live) = &mut self.live {
            live.saved = true;
        }
        let map = self.turn.map();
        let fs_base = map.load(self.turn.field(l::C_FS_BASE));
        let gs_base = self.guest_gs_base(map.load(self.turn.field(l::C_GS_BASE)));
        let old = (self.fs_base, self.gs_base);
        let registers = self.current_mut();
        if registers.current.fs_base == old.0 {
            registers.current.fs_base = fs_base;
        }
        if registers.current.gs_base == old.1 {
            registers.current.gs_base = gs_base;
        }
        registers.original.fs_base = fs_base;
        registers.original.gs_base = gs_base;
        (self.fs_base, self.gs_base) = (fs_base, gs_base);
        Poll::Ready(Ok(()))
    }

    /// Registers that can't be loaded fault here, as their use would.
    pub(super) fn unloadable(&self) -> Option<Fault> {
        let canonical = |addr: u64| addr < 1 << 47;
        let r = &self.registers().current;
        if canonical(r.rip) && canonical(r.fs_base) && canonical(r.gs_base) {
            return None;
        }
        Some(Fault {
            signo: libc::SIGSEGV,
            code: SI_KERNEL,
            trap_no: 13,
            ..Fault::default()
        })
    }
}

pub(super) fn initial_regs() -> Regs {
    Regs {
        orig_rax: NO_SYSCALL,
        cs: USER_CS,
        ss: USER_SS,
        eflags: EFLAGS_FIXED,
        ..Regs::default()
    }
}
