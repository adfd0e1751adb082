//! One traced thread: the `ptrace` requests that the platform needs.
//!
//! The host accepts requests about a tracee from its tracer thread alone and
//! answers others with `ESRCH`; a [`Tracee`] used elsewhere is therefore
//! harmless, it only looks dead.

use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use super::memory;
use super::stub::{FRAME_TOP, Routine, SCRATCH, USER_END, handler_address};
use crate::traits::AtomicOp;

/// Signal that interrupts running guest code. The host ignores it by default,
/// so that it is harmless while a new thread is not traced yet.
pub(super) const INTERRUPT_SIGNAL: i32 = libc::SIGURG;

/// Register set of the XSAVE area (`<elf.h>`).
const NT_X86_XSTATE: u64 = 0x202;

/// Code segment of 64-bit user code.
const USER_CS: u64 = 0x33;
/// Stack segment of user code.
const USER_SS: u64 = 0x2b;
/// Interrupts enabled, and the bit that is always one.
const EFLAGS_ALWAYS: u64 = 0x202;

/// The thread is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl From<Gone> for Errno {
    fn from(_: Gone) -> Self {
        Self::ESRCH
    }
}

/// Why a tracee stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the entry of a system call under [`Resume::Emulate`].
    Syscall,
    /// Before the delivery of this signal.
    Signal(i32),
    /// By attaching, or by a stop signal for the whole group.
    Event,
}

/// How a tracee goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// System calls stop and are not executed: guest code.
    Emulate,
    /// System calls are executed: stub code only.
    Native,
}

/// How a stub routine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoutineEnd {
    /// With this value of `rax`.
    Returned(u64),
    /// By an exception, for example a page fault.
    Faulted,
}

#[derive(Debug)]
pub(super) struct Tracee {
    pub(super) pid: i32,
    pub(super) tid: i32,
    /// Dead and reaped.
    is_gone: bool,
}

/// `ptrace(2)` with the result and error convention of the raw call, for
/// requests that neither read nor write memory of this process.
fn request(request: libc::c_uint, tid: i32, addr: u64, data: u64) -> Result<i64, Errno> {
    // SAFETY: the callers below use requests whose `addr` and `data` are
    // plain values or addresses of the tracee.
    let result = unsafe { libc::ptrace(request, tid, addr, data) };
    check(result)
}

fn check(result: libc::c_long) -> Result<i64, Errno> {
    if result < 0 {
        let err = std::io::Error::last_os_error();
        return Err(Errno::from_raw(err.raw_os_error().unwrap_or(0)));
    }
    Ok(result)
}

impl Tracee {
    /// Attaches to thread `tid` of process `pid`, makes the calling thread
    /// its tracer, and stops it. The thread must be running stub code.
    pub(super) fn seize(pid: i32, tid: i32) -> Result<Self, Errno> {
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        request(libc::PTRACE_SEIZE, tid, 0, options as u64)?;
        let mut tracee = Self {
            pid,
            tid,
            is_gone: false,
        };
        request(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
        loop {
            match tracee.wait()? {
                Stop::Event => return Ok(tracee),
                Stop::Signal(_) | Stop::Syscall => tracee.resume(Resume::Native)?,
            }
        }
    }

    fn lost(&mut self) -> Gone {
        if !self.is_gone {
            self.reap();
        }
        Gone
    }

    /// Waits for a thread that dies.
    fn reap(&mut self) {
        while !self.is_gone {
            if self.wait().is_ok() {
                // It stopped before it died: let it.
                let _ = request(libc::PTRACE_CONT, self.tid, 0, 0);
            }
        }
    }

    /// Maps the one error that stops of a living tracee don't have.
    fn checked(&mut self, result: Result<i64, Errno>) -> Result<(), Gone> {
        match result {
            Ok(_) => Ok(()),
            Err(_) => Err(self.lost()),
        }
    }

    /// Waits until the tracee stops or dies; in the latter case it is reaped.
    pub(super) fn wait(&mut self) -> Result<Stop, Gone> {
        if self.is_gone {
            return Err(Gone);
        }
        let mut status = 0;
        loop {
            // SAFETY: `status` is a live integer.
            let result = unsafe { libc::waitpid(self.tid, &raw mut status, libc::__WALL) };
            if result == self.tid {
                break;
            }
            let interrupted =
                std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
            if result < 0 && !interrupted {
                // ECHILD: nothing to wait for any more.
                self.is_gone = true;
                return Err(Gone);
            }
        }
        if !libc::WIFSTOPPED(status) {
            self.is_gone = true;
            return Err(Gone);
        }
        if status >> 16 == libc::PTRACE_EVENT_STOP {
            return Ok(Stop::Event);
        }
        let signal = libc::WSTOPSIG(status);
        Ok(if signal == libc::SIGTRAP | 0x80 {
            Stop::Syscall
        } else {
            Stop::Signal(signal)
        })
    }

    /// Lets the tracee go on; a signal it stopped for is dropped.
    pub(super) fn resume(&mut self, how: Resume) -> Result<(), Gone> {
        let kind = match how {
            Resume::Emulate => libc::PTRACE_SYSEMU,
            Resume::Native => libc::PTRACE_CONT,
        };
        let result = request(kind, self.tid, 0, 0);
        self.checked(result)
    }

    pub(super) fn regs(&mut self) -> Result<Regs, Gone> {
        let mut regs = Regs::default();
        // SAFETY: `Regs` has the layout of `user_regs_struct`, which is what
        // the host writes.
        let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.tid, 0, &raw mut regs) };
        self.checked(check(result))?;
        Ok(regs)
    }

    /// Sets the registers to `regs` as far as user code may choose them.
    pub(super) fn set_regs(&mut self, regs: &Regs) -> Result<(), Gone> {
        let base = |base: u64| if base < USER_END { base } else { 0 };
        let regs = Regs {
            cs: USER_CS,
            ss: USER_SS,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
            fs_base: base(regs.fs_base),
            gs_base: base(regs.gs_base),
            eflags: regs.eflags | EFLAGS_ALWAYS,
            // Outside a call: the host must not restart anything by itself.
            orig_rax: u64::MAX,
            ..*regs
        };
        // SAFETY: as in `regs`; the host only reads it.
        let result = unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.tid, 0, &raw const regs) };
        self.checked(check(result))
    }

    /// Lets the host deliver exception `signo`, at which the tracee has
    /// stopped, to the stub's handler, and takes exception number and error
    /// code from the frame: there is no other way to learn them. Registers
    /// are lost. `None` if the host could not make the frame.
    ///
    /// The caller sees to it that one thread of the process does this at a
    /// time, and saves the vector state.
    pub(super) fn exception(
        &mut self,
        signo: i32,
        regs: &Regs,
    ) -> Result<Option<(u64, u64)>, Gone> {
        self.set_regs(&Regs {
            rsp: FRAME_TOP,
            ..*regs
        })?;
        let mut signal = u64::from(signo.unsigned_abs());
        let end = loop {
            let result = request(libc::PTRACE_SYSEMU, self.tid, 0, signal);
            self.checked(result)?;
            match self.wait()? {
                Stop::Signal(INTERRUPT_SIGNAL) | Stop::Event => signal = 0,
                stop => break stop,
            }
        };
        let frame = self.regs()?;
        if end != Stop::Signal(libc::SIGTRAP) || frame.rip != handler_address() + 1 {
            return Ok(None);
        }
        // The third argument of the handler is the ucontext; behind 40 bytes
        // comes the sigcontext with err and trapno at 152 and 160.
        const ERROR_OFFSET: u64 = 40 + 152;
        let mut words = [0; 16];
        let in_scratch = (SCRATCH..FRAME_TOP).contains(&frame.rdx);
        let read = memory::read_raw(self.pid, frame.rdx.wrapping_add(ERROR_OFFSET), &mut words);
        if !in_scratch || read.is_err() {
            return Ok(None);
        }
        let (error, number) = words.split_at(8);
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
        Ok(Some((word(number), word(error))))
    }

    pub(super) fn signal_info(&mut self) -> Result<libc::siginfo_t, Gone> {
        // SAFETY: all zeros is a valid siginfo_t, a plain C struct.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the host writes one siginfo_t.
        let result = unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, self.tid, 0, &raw mut info) };
        self.checked(check(result))?;
        Ok(info)
    }

    /// Whether the call it stopped at came from the `syscall` instruction
    /// (and not from `int 0x80` or `sysenter`).
    pub(super) fn is_native_call(&mut self, regs: &Regs) -> Result<bool, Gone> {
        // `syscall` copies rip and the flags there. Code that forges this for
        // another entry only gets its number read as a 64-bit one.
        if regs.rcx == regs.rip && regs.r11 == regs.eflags {
            return Ok(true);
        }
        const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
        let mut info = [0_u32; 22];
        // SAFETY: the host writes at most the size given.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_GET_SYSCALL_INFO,
                self.tid,
                std::mem::size_of_val(&info),
                info.as_mut_ptr(),
            )
        };
        self.checked(check(result))?;
        let [_, arch, ..] = info;
        Ok(arch == AUDIT_ARCH_X86_64)
    }

    /// Runs a stub routine to its `int3`.
    pub(super) fn run_routine(
        &mut self,
        routine: Routine,
        regs: &Regs,
    ) -> Result<RoutineEnd, Gone> {
        let start = Regs {
            rip: routine.address(),
            ..*regs
        };
        self.run_to_breakpoint(&start)
    }

    /// Runs trusted code from `regs.rip` to an `int3`.
    pub(super) fn run_to_breakpoint(&mut self, regs: &Regs) -> Result<RoutineEnd, Gone> {
        self.set_regs(regs)?;
        loop {
            self.resume(Resume::Native)?;
            match self.wait()? {
                Stop::Signal(libc::SIGTRAP) => return Ok(RoutineEnd::Returned(self.regs()?.rax)),
                Stop::Signal(
                    libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGSYS,
                ) => {
                    // Sent by somebody else it means nothing.
                    if self.signal_info()?.si_code > 0 {
                        return Ok(RoutineEnd::Faulted);
                    }
                }
                Stop::Signal(_) | Stop::Event | Stop::Syscall => {}
            }
        }
    }

    /// Makes the tracee execute a host call.
    pub(super) fn call(&mut self, number: libc::c_long, args: [u64; 6]) -> Result<u64, Errno> {
        self.call_by(Routine::Call, number, args)
    }

    /// `clone(2)` without a stack. The child waits in stub code, untraced.
    pub(super) fn clone_child(&mut self, flags: libc::c_int) -> Result<i32, Errno> {
        let args = [u64::from(flags.cast_unsigned()), 0, 0, 0, 0, 0];
        let tid = self.call_by(Routine::Clone, libc::SYS_clone, args)?;
        i32::try_from(tid).map_err(|_| Errno::EIO)
    }

    fn call_by(
        &mut self,
        routine: Routine,
        number: libc::c_long,
        args: [u64; 6],
    ) -> Result<u64, Errno> {
        let [rdi, rsi, rdx, r10, r8, r9] = args;
        let regs = Regs {
            rax: number.cast_unsigned(),
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..Regs::default()
        };
        match self.run_routine(routine, &regs)? {
            RoutineEnd::Returned(value) => result_of(value),
            RoutineEnd::Faulted => Err(Errno::EFAULT),
        }
    }

    /// The atomic operation; `None` if the address can't be accessed.
    pub(super) fn atomic(&mut self, addr: u64, op: AtomicOp) -> Result<Option<u32>, Gone> {
        let (operand, expected) = match op {
            AtomicOp::Load => (0, 0),
            AtomicOp::CompareExchange { expected, new } => (new, expected),
            AtomicOp::Exchange(value)
            | AtomicOp::Add(value)
            | AtomicOp::Or(value)
            | AtomicOp::And(value)
            | AtomicOp::Xor(value) => (value, 0),
        };
        let regs = Regs {
            rdi: addr,
            rsi: u64::from(operand),
            rdx: u64::from(expected),
            ..Regs::default()
        };
        Ok(match self.run_routine(Routine::Atomic(op), &regs)? {
            RoutineEnd::Returned(value) => Some(value as u32),
            RoutineEnd::Faulted => None,
        })
    }

    /// Reads the vector state and returns how many bytes the host has.
    pub(super) fn vector_state(&mut self, area: &mut [u8]) -> Result<usize, Gone> {
        let mut iovec = libc::iovec {
            iov_base: area.as_mut_ptr().cast(),
            iov_len: area.len(),
        };
        // SAFETY: the iovec describes `area`, which the host may fill.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_GETREGSET,
                self.tid,
                NT_X86_XSTATE,
                &raw mut iovec,
            )
        };
        self.checked(check(result))?;
        Ok(iovec.iov_len)
    }

    /// Sets the vector state; `area` has the length the host wants.
    pub(super) fn set_vector_state(&mut self, area: &[u8]) -> Result<(), Errno> {
        let mut iovec = libc::iovec {
            iov_base: area.as_ptr().cast_mut().cast(),
            iov_len: area.len(),
        };
        // SAFETY: the iovec describes `area`, which the host only reads.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_SETREGSET,
                self.tid,
                NT_X86_XSTATE,
                &raw mut iovec,
            )
        };
        match check(result) {
            Err(Errno::ESRCH) => Err(self.lost().into()),
            result => result.map(drop),
        }
    }

    /// Empties the signal mask, so that signals arrive.
    pub(super) fn unblock_signals(&mut self) -> Result<(), Gone> {
        let mask = 0_u64;
        // SAFETY: the host reads 8 bytes, the size it is told.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_SETSIGMASK,
                self.tid,
                std::mem::size_of_val(&mask),
                &raw const mask,
            )
        };
        self.checked(check(result))
    }

    /// Address, length and signature of a registered rseq area, if any.
    pub(super) fn rseq(&mut self) -> Option<(u64, u32, u32)> {
        let mut configuration = [0_u64; 3];
        // SAFETY: the host writes at most the size given, 24 bytes.
        let result = unsafe {
            libc::ptrace(
                libc::PTRACE_GET_RSEQ_CONFIGURATION,
                self.tid,
                std::mem::size_of_val(&configuration),
                configuration.as_mut_ptr(),
            )
        };
        let [address, packed, _] = configuration;
        (result > 0 && address != 0).then_some((address, packed as u32, (packed >> 32) as u32))
    }

    /// Ends this thread, whose stop the tracer has seen, and reaps it.
    pub(super) fn exit(&mut self) {
        if self.is_gone {
            return;
        }
        let regs = Regs {
            rip: Routine::Call.address(),
            rax: libc::SYS_exit.cast_unsigned(),
            ..Regs::default()
        };
        if self.set_regs(&regs).is_ok() {
            self.reap_running();
        }
    }

    /// Lets a tracee run to its death.
    fn reap_running(&mut self) {
        while self.resume(Resume::Native).is_ok() && self.wait().is_ok() {}
    }

    /// Reaps this thread if it is dead; says whether it is.
    pub(super) fn try_reap(&mut self) -> bool {
        let mut status = 0;
        // SAFETY: `status` is a live integer.
        let result =
            unsafe { libc::waitpid(self.tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        if result == self.tid && libc::WIFSTOPPED(status) {
            // It stopped before it was killed.
            let _ = request(libc::PTRACE_CONT, self.tid, 0, 0);
        } else if result != 0 {
            self.is_gone = true;
        }
        self.is_gone
    }

    /// Kills the whole process and reaps this thread.
    pub(super) fn kill(&mut self) {
        if self.is_gone {
            return;
        }
        kill(self.pid);
        self.reap();
    }
}

/// SIGKILL for the stub process `pid`, a child that is not reaped yet.
pub(super) fn kill(pid: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Kills and reaps the child `pid`, which nobody traces.
pub(super) fn kill_child(pid: i32) {
    kill(pid);
    let mut status = 0;
    // SAFETY: `status` is a live integer.
    while unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } < 0
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
}

/// Sends [`INTERRUPT_SIGNAL`] to a thread.
pub(super) fn send_interrupt(pid: i32, tid: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, INTERRUPT_SIGNAL) };
}

/// Decodes `rax` after a host call.
fn result_of(value: u64) -> Result<u64, Errno> {
    match i32::try_from(value.cast_signed()) {
        Ok(number) if (-4095..0).contains(&number) => Err(Errno::from_raw(-number)),
        _ => Ok(value),
    }
}
