//! Guest threads: traps, registers, copies.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use super::context::{ParkedThread, Turn};
use super::control::{HostCall, result};
use super::hub::Dead;
use super::layout as l;
use super::memop::{self, Plan};
use super::space::SystrapSpace;
use crate::{
    AddressSpace, AtomicOp, BoxFuture, CopyFault, Fault, GuestThread, MemError, MemOp,
    ThreadHandle, Trap,
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
    /// Any other command.
    Command,
}

/// A guest thread of the systrap platform.
pub(super) struct SystrapThread {
    space: Arc<SystrapSpace>,
    turn: Turn,
    regs: Regs,
    /// What the context holds: only differences are written, since each cache
    /// line written here is one more to travel.
    published: Option<Regs>,
    phase: Phase,
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
        let regs = Regs {
            orig_rax: NO_SYSCALL,
            cs: USER_CS,
            ss: USER_SS,
            eflags: EFLAGS_FIXED,
            ..Regs::default()
        };
        let thread = Self {
            space,
            turn,
            regs,
            published: None,
            phase: Phase::Idle,
        };
        let initial = &thread.space.stub.machine.initial_vector;
        thread.put_vector_state(initial);
        Ok(thread)
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

    fn put_regs(&mut self) {
        let map = self.turn.map();
        let new = &self.regs;
        let old = self.published.as_ref();
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
        set(l::REG_RIP, |r| r.rip);
        set(l::REG_EFLAGS, |r| r.eflags & EFLAGS_USER | EFLAGS_FIXED);
        put(l::C_FS_BASE, |r| r.fs_base);
        put(l::C_GS_BASE, |r| r.gs_base);
    }

    fn take_regs(&mut self) {
        let map = self.turn.map();
        let get = |index: u64| map.load(self.turn.field(l::C_REGS + index * 8));
        let regs = Regs {
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
            fs_base: map.load(self.turn.field(l::C_FS_BASE)),
            gs_base: map.load(self.turn.field(l::C_GS_BASE)),
            orig_rax: NO_SYSCALL,
            cs: USER_CS,
            ss: USER_SS,
            ..Regs::default()
        };
        self.regs = regs;
        self.published = Some(regs);
    }

    /// Registers that can't be loaded fault here, as their use would.
    fn unloadable(&self) -> Option<Fault> {
        let canonical = |addr: u64| addr < 1 << 47;
        let r = &self.regs;
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

    /// Decodes why the stub has handed over; nothing if there is no reason.
    fn trap(&mut self) -> Option<Trap> {
        let map = self.turn.map();
        let word = |offset| {
            map.u32(self.turn.field(offset))
                .load(std::sync::atomic::Ordering::Relaxed)
        };
        let signo = word(l::C_SIGNO);
        let code = word(l::C_CODE).cast_signed();
        let arch = word(l::C_ARCH);
        let addr = map.load(self.turn.field(l::C_ADDR));
        let reg = |index: u64| map.load(self.turn.field(l::C_REGS + index * 8));
        let (trap_no, error_code) = (reg(l::REG_TRAPNO), reg(l::REG_ERR));
        self.take_regs();
        if signo == l::INTERRUPT_SIGNAL {
            return self.turn.core.take_interrupt().then_some(Trap::Interrupted);
        }
        match signo.cast_signed() {
            libc::SIGSYS if arch == AUDIT_ARCH_X86_64 => {
                self.regs.orig_rax = self.regs.rax;
                self.regs.rax = i64::from(-libc::ENOSYS).cast_unsigned();
                Some(Trap::Syscall)
            }
            libc::SIGSYS => {
                // `int 0x80` or `sysenter`: as on a kernel without 32-bit
                // emulation, a general protection fault.
                self.regs.rip = self.regs.rip.wrapping_sub(2);
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
                .load(std::sync::atomic::Ordering::Relaxed);
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
            let plan = memop::plan(op, memory).map_err(|errno| MemError { index, errno })?;
            if let Plan::App(call) = plan {
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
                .take_while(|op| !matches!(memop::plan(op, memory), Ok(Plan::App(_))))
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

    /// A thread with this one's registers and vector state.
    fn twin(
        &self,
        space: Arc<SystrapSpace>,
        thread: ParkedThread,
    ) -> Result<Box<dyn GuestThread>, Errno> {
        let mut area = vec![0; self.space.stub.machine.vector.len];
        self.vector_state(&mut area)?;
        let mut twin = Self::new(space, thread)?;
        twin.regs = self.regs;
        twin.put_vector_state(&area);
        Ok(Box::new(twin))
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

impl GuestThread for SystrapThread {
    fn regs(&self) -> &Regs {
        &self.regs
    }

    fn regs_mut(&mut self) -> &mut Regs {
        &mut self.regs
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Trap> {
        loop {
            if self.phase != Phase::Running {
                if ready!(self.turn.poll_answer(cx)).is_err() {
                    return Poll::Ready(Trap::Killed);
                }
                if let Some(fault) = self.unloadable() {
                    return Poll::Ready(Trap::Fault(fault));
                }
                // Before the look at the flag: whoever raises it after that
                // finds the thread running.
                self.turn.core.set_running(true);
                if self.turn.core.take_interrupt() {
                    self.turn.core.set_running(false);
                    return Poll::Ready(Trap::Interrupted);
                }
                self.put_regs();
                if self.turn.order(l::OP_RUN).is_err() {
                    return Poll::Ready(Trap::Killed);
                }
                self.phase = Phase::Running;
            }
            let answer = ready!(self.turn.poll_trap(cx));
            self.turn.core.set_running(false);
            self.phase = Phase::Idle;
            if answer.is_err() {
                return Poll::Ready(Trap::Killed);
            }
            if let Some(trap) = self.trap() {
                return Poll::Ready(trap);
            }
        }
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
            .load(std::sync::atomic::Ordering::Relaxed);
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
        if ready!(self.turn.poll_answer(cx)).is_err() {
            return Poll::Ready(Err(Errno::ESRCH));
        }
        Poll::Ready(self.vector_state(dst))
    }

    fn poll_set_vector_state(
        &mut self,
        cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<Result<(), Errno>> {
        if ready!(self.turn.poll_answer(cx)).is_err() {
            return Poll::Ready(Err(Errno::ESRCH));
        }
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

    fn clone_thread(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            let thread = self.space.stub.take_thread().await?;
            self.twin(self.space.clone(), thread)
        })
    }

    fn fork(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async move {
            let (stub, thread) = self.space.stub.fork().await?;
            self.twin(SystrapSpace::new(stub), thread)
        })
    }

    fn space(&self) -> Arc<dyn AddressSpace> {
        self.space.clone()
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        self.turn.core.clone()
    }
}
