//! Guest threads: traps, registers, copies.

use std::future::poll_fn;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use super::calls::Recent;
use super::context::{Entry, ParkedThread, Turn};
use super::control::{HostCall, result};
use super::hub::Dead;
use super::layout as l;
use super::memop::{self, Plan};
use super::patch::{Located, Patching};
use super::space::{KnownTexts, Onto, SystrapSpace};
use super::transfer::Transfer;
use super::views;
use crate::{
    AddressSpace, AtomicOp, BoxFuture, Call, CopyFault, Fault, Found, GuestThread, MemError,
    MemImage, MemOp, ThreadHandle, Transferred, Trap, View, ViewId, Way, Window,
};

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const SI_KERNEL: i32 = 128;
/// Flags that user mode can set (`FIX_EFLAGS` of the kernel, and ID), and
/// those that are always set there.
const EFLAGS_USER: u64 = 0x25_0dd5;
const EFLAGS_FIXED: u64 = 0x202;
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
const NO_SYSCALL: u64 = u64::MAX;
const NOT_IMPLEMENTED: u64 = (-(libc::ENOSYS as i64)).cast_unsigned();

/// What an operation in progress waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Guest code runs.
    Running,
    /// A copy, of which `done` bytes are through and `chunk` are on their way.
    Copying {
        done: usize,
        chunk: usize,
    },
    /// A transfer between a file and guest memory.
    Transferring(Transfer),
    /// [`l::OP_SAVE`].
    Saving,
    /// Any other command.
    Command,
}

/// Registers as the context holds them, and as the kernel has changed them.
struct Registers {
    original: Regs,
    current: Regs,
}

impl Registers {
    fn new(regs: Regs) -> OnceLock<Self> {
        OnceLock::from(Self {
            original: regs,
            current: regs,
        })
    }

    /// Whether the guest would see a change beside the result of its call.
    fn is_changed(&self) -> bool {
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
struct LiveCall {
    call: Call,
    result: u64,
    /// Vector state and segment bases have been fetched.
    saved: bool,
    /// [`TextMap::epoch`](super::patch::TextMap::epoch) when it came.
    epoch: u32,
}

/// A guest thread of the systrap platform.
pub(super) struct SystrapThread {
    space: Arc<SystrapSpace>,
    turn: Turn,
    /// Read from the context when they are first needed after a trap. Only
    /// differences are written back, since each cache line written here is one
    /// more to travel.
    regs: OnceLock<Registers>,
    /// The context does not hold what [`Registers::original`] says.
    unpublished: bool,
    live: Option<LiveCall>,
    recent: Recent,
    local_calls: bool,
    /// As last heard.
    fs_base: u64,
    gs_base: u64,
    phase: Phase,
    /// Where it was told last to try again an instruction that was none.
    undefined: u64,
    /// A trap that is reported once its site is patched.
    patching: Mutex<Option<(Trap, BoxFuture<'static, ()>)>>,
    /// [`SystrapSpace::settle`] under way.
    settling: Mutex<Option<BoxFuture<'static, ()>>>,
}

/// What [`SystrapThread::poll_copy`] does with the bytes of a command.
enum Copy<'a> {
    In(&'a mut [u8]),
    Out(&'a [u8]),
    Str(&'a mut [u8]),
}

impl Copy<'_> {
    fn len(&self) -> usize {
        match self {
            Copy::In(bytes) | Copy::Str(bytes) => bytes.len(),
            Copy::Out(bytes) => bytes.len(),
        }
    }
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl SystrapThread {
    pub(super) fn new(space: Arc<SystrapSpace>, thread: ParkedThread) -> Result<Self, Errno> {
        let turn = Turn::new(space.stub.clone(), thread)?;
        let thread = Self {
            space,
            turn,
            regs: Registers::new(initial_regs()),
            unpublished: true,
            live: None,
            recent: Recent::default(),
            local_calls: false,
            fs_base: 0,
            gs_base: 0,
            phase: Phase::Idle,
            undefined: 0,
            patching: Mutex::default(),
            settling: Mutex::default(),
        };
        // The host thread may have been another's.
        thread.put_local_calls(false);
        let initial = &thread.space.stub.machine.initial_vector;
        thread.put_vector_state(initial);
        Ok(thread)
    }

    fn put_local_calls(&self, allowed: bool) {
        let word = self.turn.map().u32(self.turn.field(l::C_LOCAL_CALLS));
        word.store(allowed.into(), Ordering::Relaxed);
    }

    /// Puts an area for `XRSTOR` into the context.
    fn put_vector_state(&self, area: &[u8]) {
        let map = self.turn.map();
        map.write(self.turn.field(l::C_XSAVE_AREA), area);
        let address = self.turn.stub_addr(l::C_XSAVE_AREA);
        map.store(self.turn.field(l::C_XSAVE), address);
    }

    /// The vector state, wherever the last trap has left it.
    fn vector_state(&self, dst: &mut [u8]) -> Result<(), Errno> {
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
    fn registers(&self) -> &Registers {
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

    fn current_mut(&mut self) -> &mut Registers {
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

    fn put_regs(&mut self) {
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
    fn take_regs(&mut self) -> &mut Regs {
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
    fn take_call(&mut self) -> Trap {
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
        if self.recent.add() {
            self.recent.flush(&self.space.calls(), 0);
        }
        Trap::Syscall
    }

    /// Fetches what a call by a trampoline has left in registers.
    fn poll_save(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Dead>> {
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

    /// Orders the thread to run; nothing if its registers can't be loaded.
    fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Fault>, Dead>> {
        ready!(self.turn.poll_answer(cx))?;
        if let Some(live) = &mut self.live {
            let changed = match self.regs.get() {
                Some(registers) => {
                    live.result = registers.current.rax;
                    registers.is_changed()
                }
                None => false,
            };
            let returns = live.epoch == self.space.texts.epoch();
            if !changed && returns && self.phase != Phase::Saving {
                self.turn
                    .map()
                    .store(self.turn.field(l::C_RESULT), live.result);
                self.turn.order_to_run(l::OP_RETURN)?;
                self.live = None;
                return Poll::Ready(Ok(None));
            }
            ready!(self.poll_save(cx))?;
        }
        if let Some(fault) = self.unloadable() {
            return Poll::Ready(Ok(Some(fault)));
        }
        self.put_regs();
        self.live = None;
        self.turn.order_to_run(l::OP_RUN)?;
        Poll::Ready(Ok(None))
    }

    /// Registers that can't be loaded fault here, as their use would.
    fn unloadable(&self) -> Option<Fault> {
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

    /// Has memory at these addresses made that was put off.
    fn poll_settle(&mut self, cx: &mut Context<'_>, addr: u64, len: usize) -> Poll<()> {
        if self.space.put_off.concerns(addr, len) && self.settling.get_mut().is_none() {
            self.start_settling();
        }
        self.poll_settling(cx)
    }

    fn start_settling(&mut self) {
        let space = self.space.clone();
        // Of a stub that is gone all else that is asked tells.
        let work = Box::pin(async move {
            let _ = space.settle(KnownTexts::Patched).await;
        });
        *self.settling.get_mut() = Some(work);
    }

    fn poll_settling(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(work) = self.settling.get_mut() {
            ready!(work.as_mut().poll(cx));
            *self.settling.get_mut() = None;
        }
        Poll::Ready(())
    }

    /// Decodes why the stub has handed over; nothing if there is no reason.
    fn trap(&mut self, entry: Entry) -> Option<Trap> {
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
            // it goes on there. If it has come back since, once.
            _ if signo == libc::SIGILL.cast_unsigned()
                && (texts.host_pc(regs.rip) != regs.rip
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

    /// One copy as commands of at most a window each; ready with how many
    /// bytes went through before the first inaccessible one, and for strings
    /// before the NUL.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        mut copy: Copy<'_>,
    ) -> Poll<Result<usize, CopyFault>> {
        let len = copy.len();
        loop {
            let (done, chunk) = match self.phase {
                Phase::Copying { done, chunk } => (done, chunk),
                // Zero bytes reach nothing; the address is not looked at.
                _ if len == 0 => return Poll::Ready(Ok(0)),
                _ => (0, 0),
            };
            if chunk == 0 {
                ready!(self.poll_settle(cx, addr, len));
                // The stub has to be waiting; a new one may not be yet.
                if ready!(self.turn.poll_answer(cx)).is_err() {
                    self.phase = Phase::Idle;
                    return Poll::Ready(Err(CopyFault { copied: done }));
                }
                match self.order_copy(addr, &copy, done) {
                    Some(chunk) => self.phase = Phase::Copying { done, chunk },
                    None => {
                        self.phase = Phase::Idle;
                        return Poll::Ready(Err(CopyFault { copied: done }));
                    }
                }
                continue;
            }
            let answer = ready!(self.turn.poll_answer(cx));
            self.phase = Phase::Idle;
            if answer.is_err() {
                return Poll::Ready(Err(CopyFault { copied: done }));
            }
            let map = self.turn.map();
            let left = map.load(self.turn.field(l::C_RESULT)).min(to_u64(chunk));
            let status = map
                .u32(self.turn.field(l::C_STATUS))
                .load(Ordering::Relaxed);
            let moved = chunk - to_usize(left);
            let window = self.turn.field(window(chunk));
            let total = done + moved;
            let is_str = matches!(copy, Copy::Str(_));
            if let Copy::In(bytes) | Copy::Str(bytes) = &mut copy
                && let Some(bytes) = bytes.get_mut(done..total)
            {
                map.read(window, bytes);
                if is_str && let Some(end) = bytes.iter().position(|&byte| byte == 0) {
                    return Poll::Ready(Ok(done + end));
                }
            }
            let whole = status == l::STATUS_DONE && left == 0;
            if !whole {
                return Poll::Ready(Err(CopyFault { copied: total }));
            }
            if total == len {
                return Poll::Ready(Ok(total));
            }
            self.phase = Phase::Copying {
                done: total,
                chunk: 0,
            };
        }
    }

    /// Orders the next part of a copy; its length, or nothing if the address
    /// is none of the guest's or the stub is gone.
    fn order_copy(&mut self, addr: u64, copy: &Copy<'_>, done: usize) -> Option<usize> {
        let at = addr
            .checked_add(to_u64(done))
            .filter(|&at| at < l::STUB_BASE)?;
        let room = to_usize(l::STUB_BASE - at);
        let chunk = (copy.len() - done).min(room).min(to_usize(l::WINDOW_LEN));
        let window_offset = window(chunk);
        let window = self.turn.stub_addr(window_offset);
        let size = to_u64(chunk);
        let operation = match copy {
            Copy::In(_) => {
                self.turn.set_args(&[at, window, size]);
                l::OP_COPY
            }
            Copy::Out(bytes) => {
                let part = bytes.get(done..done + chunk)?;
                self.turn.map().write(self.turn.field(window_offset), part);
                self.turn.set_args(&[window, at, size]);
                l::OP_COPY
            }
            Copy::Str(_) => {
                self.turn.set_args(&[at, window, size]);
                l::OP_COPY_STR
            }
        };
        self.turn.order(operation).ok()?;
        Some(chunk)
    }

    /// A host call made by the trapped thread.
    async fn app_call(&mut self, call: &HostCall) -> Result<u64, Errno> {
        poll_fn(|cx| self.turn.poll_answer(cx))
            .await
            .map_err(super::stub::no_process)?;
        let [a, b, c, d, e, f] = call.args;
        self.turn
            .set_args(&[call.nr.cast_unsigned(), a, b, c, d, e, f]);
        self.turn
            .order(l::OP_SYSCALL)
            .map_err(super::stub::no_process)?;
        poll_fn(|cx| self.turn.poll_answer(cx))
            .await
            .map_err(super::stub::no_process)?;
        result(self.turn.map().load(self.turn.field(l::C_RESULT)))
    }

    async fn apply_all(&mut self, ops: &[MemOp<'_>]) -> Result<(), MemError> {
        let memory = self.space.stub.machine.memory_calls;
        let mut index = 0;
        while let Some(op) = ops.get(index) {
            if self.space.put_off(op) {
                index += 1;
                continue;
            }
            if self.space.concerns_texts(op) {
                self.settle_for(index, op).await?;
                self.space.apply_to_texts(index, op).await?;
                index += 1;
                continue;
            }
            let plan = memop::plan(op, memory).map_err(|errno| MemError { index, errno })?;
            if let Plan::App(call) = plan {
                if !self.space.put_off.is_empty() {
                    self.settle_for(index, op).await?;
                }
                self.app_call(&call)
                    .await
                    .map_err(|errno| MemError { index, errno })?;
                index += 1;
                continue;
            }
            // Up to the next one that this thread can do itself.
            let rest = ops.get(index..).unwrap_or_default();
            let len = rest
                .iter()
                .take_while(|op| {
                    !matches!(memop::plan(op, memory), Ok(Plan::App(_)))
                        && !self.space.concerns_texts(op)
                })
                .count();
            self.space
                .apply_all(rest.get(..len).unwrap_or_default())
                .await
                .map_err(|failed| MemError {
                    index: index + failed.index,
                    errno: failed.errno,
                })?;
            index += len;
        }
        Ok(())
    }

    /// Before `op`: carries out what was put off and has to do with it.
    async fn settle_for(&self, index: usize, op: &MemOp<'_>) -> Result<(), MemError> {
        if self.space.put_off.is_concerned_by(op) {
            self.space
                .settle(KnownTexts::Patched)
                .await
                .map_err(|dead| MemError {
                    index,
                    errno: super::stub::no_process(dead),
                })?;
        }
        Ok(())
    }

    /// Puts another program in the place of this one.
    async fn replace(&mut self, image: MemImage<'_>) -> Result<(), MemError> {
        let failed = |errno| MemError { index: 0, errno };
        if !self.space.stub.has_single_thread() {
            return Err(failed(Errno::EBUSY));
        }
        poll_fn(|cx| self.turn.poll_answer(cx))
            .await
            .map_err(|dead| failed(super::stub::no_process(dead)))?;
        self.recent.flush(&self.space.calls(), 0);
        self.space.load_all(image, Onto::OldImage).await?;
        // What the old program may have left here it can't change any more.
        self.space.stub.scrub();
        self.regs = Registers::new(initial_regs());
        self.unpublished = true;
        self.live = None;
        self.put_vector_state(&self.space.stub.machine.initial_vector);
        Ok(())
    }

    /// A thread with this one's registers and vector state.
    fn twin(
        &self,
        space: Arc<SystrapSpace>,
        thread: ParkedThread,
    ) -> Result<Box<dyn GuestThread>, Errno> {
        let mut area = vec![0; self.space.stub.machine.vector.len];
        self.vector_state(&mut area)?;
        let mut twin = Self::new(space, thread)?;
        twin.regs = Registers::new(self.registers().current);
        twin.put_vector_state(&area);
        Ok(Box::new(twin))
    }
}

fn initial_regs() -> Regs {
    Regs {
        orig_rax: NO_SYSCALL,
        cs: USER_CS,
        ss: USER_SS,
        eflags: EFLAGS_FIXED,
        ..Regs::default()
    }
}

/// Where a copy of `len` bytes goes.
fn window(len: usize) -> u64 {
    let len = to_u64(len);
    if len <= l::INLINE_WINDOW_LEN {
        l::C_INLINE_WINDOW
    } else if len <= l::SMALL_WINDOW_LEN {
        l::C_SMALL_WINDOW
    } else {
        l::C_WINDOW
    }
}

impl Drop for SystrapThread {
    fn drop(&mut self) {
        self.recent.flush(&self.space.calls(), 0);
    }
}

impl GuestThread for SystrapThread {
    fn regs(&self) -> &Regs {
        &self.registers().current
    }

    fn regs_mut(&mut self) -> &mut Regs {
        &mut self.current_mut().current
    }

    fn call(&self) -> Call {
        match &self.live {
            Some(live) => live.call,
            None => {
                let regs = self.regs();
                Call {
                    number: regs.orig_rax,
                    args: regs.syscall_args(),
                }
            }
        }
    }

    fn allow_local_calls(&mut self, allowed: bool) {
        if self.local_calls != allowed {
            self.local_calls = allowed;
            self.put_local_calls(allowed);
        }
    }

    fn set_result(&mut self, value: u64) {
        match (&mut self.live, self.regs.get_mut()) {
            (Some(live), None) => live.result = value,
            _ => self.regs_mut().rax = value,
        }
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Trap> {
        if let Some((_, work)) = self.patching.get_mut() {
            ready!(work.as_mut().poll(cx));
            if let Some((trap, _)) = self.patching.get_mut().take() {
                return Poll::Ready(trap);
            }
        }
        loop {
            ready!(self.poll_settling(cx));
            if self.phase != Phase::Running {
                if self.phase == Phase::Idle && self.turn.core.take_interrupt() {
                    return Poll::Ready(Trap::Interrupted);
                }
                match ready!(self.poll_start(cx)) {
                    Ok(None) => self.phase = Phase::Running,
                    Ok(Some(fault)) => return Poll::Ready(Trap::Fault(fault)),
                    Err(Dead) => return Poll::Ready(Trap::Killed),
                }
            }
            let entry = ready!(self.turn.poll_trap(cx));
            self.turn.core.set_stopped();
            self.phase = Phase::Idle;
            let Ok(entry) = entry else {
                return Poll::Ready(Trap::Killed);
            };
            if let Some(trap) = self.trap(entry) {
                let Some((_, work)) = self.patching.get_mut() else {
                    return Poll::Ready(trap);
                };
                ready!(work.as_mut().poll(cx));
                *self.patching.get_mut() = None;
                return Poll::Ready(trap);
            }
        }
    }

    fn has_windows(&self) -> bool {
        true
    }

    fn poll_transfer(
        &mut self,
        cx: &mut Context<'_>,
        way: Way,
        addr: u64,
        len: usize,
        side: &mut (dyn FnMut(&Window<'_>) -> Result<usize, Errno> + Send),
    ) -> Poll<Transferred> {
        let mut transfer = match self.phase {
            Phase::Transferring(transfer) => transfer,
            _ => {
                ready!(self.poll_settle(cx, addr, len));
                Transfer::default()
            }
        };
        let polled = transfer.poll(&mut self.turn, cx, way, addr, len, side);
        self.phase = match polled {
            Poll::Ready(_) => Phase::Idle,
            Poll::Pending => Phase::Transferring(transfer),
        };
        polled
    }

    fn find_view(&self, file: ViewId, offset: u64, len: u64) -> Found {
        self.space.views.find(file, offset, len)
    }

    fn map_view<'a>(
        &'a mut self,
        file: ViewId,
        fd: BorrowedFd<'a>,
        offset: u64,
    ) -> BoxFuture<'a, Result<(), Errno>> {
        Box::pin(self.space.map_view(file, fd, offset))
    }

    fn has_views(&self) -> bool {
        self.space.views.is_used()
    }

    fn forget_views(&mut self, file: ViewId) -> BoxFuture<'_, ()> {
        Box::pin(self.space.forget_views(file))
    }

    fn poll_copy_view(
        &mut self,
        cx: &mut Context<'_>,
        view: &View,
        addr: u64,
        len: u64,
    ) -> Poll<u64> {
        let mut ordered = self.phase == Phase::Command;
        let from = view.address();
        let len = len.min(view.len());
        if !ordered {
            ready!(self.poll_settle(cx, addr, to_usize(len)));
        }
        let polled = views::poll_copy(&mut self.turn, &mut ordered, cx, from, addr, len);
        self.phase = if ordered { Phase::Command } else { Phase::Idle };
        polled
    }

    fn poll_copy_in(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        dst: &mut [u8],
    ) -> Poll<Result<(), CopyFault>> {
        self.poll_copy(cx, addr, Copy::In(dst))
            .map(|result| result.map(drop))
    }

    fn poll_copy_out(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        src: &[u8],
    ) -> Poll<Result<(), CopyFault>> {
        self.poll_copy(cx, addr, Copy::Out(src))
            .map(|result| result.map(drop))
    }

    fn poll_copy_in_str(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        dst: &mut [u8],
    ) -> Poll<Result<usize, CopyFault>> {
        self.poll_copy(cx, addr, Copy::Str(dst))
    }

    fn poll_atomic(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        op: AtomicOp,
    ) -> Poll<Result<u32, CopyFault>> {
        const FAULT: CopyFault = CopyFault { copied: 0 };
        if self.phase != Phase::Command {
            if !addr.is_multiple_of(4) || addr >= l::STUB_BASE {
                return Poll::Ready(Err(FAULT));
            }
            ready!(self.poll_settle(cx, addr, size_of::<u32>()));
            if ready!(self.turn.poll_answer(cx)).is_err() {
                return Poll::Ready(Err(FAULT));
            }
            let (kind, operand, new) = match op {
                AtomicOp::Load => (l::ATOMIC_LOAD, 0, 0),
                AtomicOp::Exchange(value) => (l::ATOMIC_EXCHANGE, value, 0),
                AtomicOp::CompareExchange { expected, new } => {
                    (l::ATOMIC_COMPARE_EXCHANGE, expected, new)
                }
                AtomicOp::Add(value) => (l::ATOMIC_ADD, value, 0),
                AtomicOp::Or(value) => (l::ATOMIC_OR, value, 0),
                AtomicOp::And(value) => (l::ATOMIC_AND, value, 0),
                AtomicOp::Xor(value) => (l::ATOMIC_XOR, value, 0),
            };
            self.turn
                .set_args(&[addr, kind, operand.into(), new.into()]);
            if self.turn.order(l::OP_ATOMIC).is_err() {
                return Poll::Ready(Err(FAULT));
            }
            self.phase = Phase::Command;
        }
        let answer = ready!(self.turn.poll_answer(cx));
        self.phase = Phase::Idle;
        let map = self.turn.map();
        let status = map
            .u32(self.turn.field(l::C_STATUS))
            .load(Ordering::Relaxed);
        if answer.is_err() || status != l::STATUS_DONE {
            return Poll::Ready(Err(FAULT));
        }
        let old = map.load(self.turn.field(l::C_RESULT)) & u64::from(u32::MAX);
        Poll::Ready(u32::try_from(old).map_err(|_| FAULT))
    }

    fn poll_get_vector_state(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<Result<(), Errno>> {
        if ready!(self.poll_save(cx)).is_err() {
            return Poll::Ready(Err(Errno::ESRCH));
        }
        Poll::Ready(self.vector_state(dst))
    }

    fn poll_set_vector_state(
        &mut self,
        cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<Result<(), Errno>> {
        if ready!(self.poll_save(cx)).is_err() {
            return Poll::Ready(Err(Errno::ESRCH));
        }
        self.registers();
        self.live = None;
        let vector = &self.space.stub.machine.vector;
        if src.len() != vector.len {
            return Poll::Ready(Err(Errno::EINVAL));
        }
        let mut area = src.to_vec();
        vector.sanitise(&mut area);
        self.put_vector_state(&area);
        Poll::Ready(Ok(()))
    }

    fn apply<'a>(&'a mut self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>> {
        Box::pin(self.apply_all(ops))
    }

    fn can_replace_memory(&self) -> bool {
        self.space.stub.has_single_thread()
    }

    fn replace_memory<'a>(
        &'a mut self,
        image: MemImage<'a>,
    ) -> BoxFuture<'a, Result<(), MemError>> {
        Box::pin(self.replace(image))
    }

    fn clone_thread(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            poll_fn(|cx| self.poll_save(cx))
                .await
                .map_err(super::stub::no_process)?;
            self.space
                .settle(KnownTexts::Patched)
                .await
                .map_err(super::stub::no_process)?;
            let thread = self.space.stub.take_thread().await?;
            self.twin(self.space.clone(), thread)
        })
    }

    fn fork(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            poll_fn(|cx| self.poll_save(cx))
                .await
                .map_err(super::stub::no_process)?;
            self.space
                .settle(KnownTexts::Patched)
                .await
                .map_err(super::stub::no_process)?;
            let ((stub, thread), texts) = {
                let space = self.space.clone();
                self.space.stub.fork(|| space.texts.clone()).await?
            };
            self.twin(self.space.child(stub, texts), thread)
        })
    }

    fn space(&self) -> Arc<dyn AddressSpace> {
        self.space.clone()
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        self.turn.core.clone()
    }
}
