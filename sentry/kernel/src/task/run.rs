//! The loop that drives a task: run guest code, handle the trap, see to
//! signals.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sentry_platform::{Fault, GuestThread, Trap};
use syscall_tables::Errno;
use syscall_tables::abi::{SigInfo, Signal, TRAP_TRACE};

use super::ptrace::{self, CallStop, TraceFlags};
use super::seccomp::{self, Verdict};
use super::{ExitStatus, Task, exit, strace};
use crate::ctx::{Ctx, SysResult};
use crate::kernel::Kernel;
use crate::mm::{FaultOutcome, Via};
use crate::signal::deliver;
use crate::syscalls;
use crate::user::Args;

/// Number of `restart_syscall(2)`.
const RESTART_SYSCALL: u64 = 219;

/// Trap after each instruction.
const FLAG_TRAP: u64 = 0x100;

/// Starts driving `task` on `thread`.
pub(crate) fn spawn(task: Arc<Task>, thread: Box<dyn GuestThread>) {
    let kernel = task.kernel().clone();
    kernel.executor.clone().spawn(run(kernel, task, thread));
}

async fn run(kernel: Arc<Kernel>, task: Arc<Task>, thread: Box<dyn GuestThread>) {
    let mut thread = thread;
    let status = {
        let mut ctx = Ctx {
            kernel: &kernel,
            task: &task,
            thread: &mut thread,
        };
        let status = drive(&mut ctx).await;
        Box::pin(exit::exit_task(&mut ctx, status)).await;
        status
    };
    // The host thread is gone before anybody can see the task dead.
    drop(thread);
    exit::finish(&kernel, &task, status);
}

/// Runs guest code until the task is to exit.
pub(super) async fn drive(ctx: &mut Ctx<'_>) -> ExitStatus {
    let mut interrupted: Option<Errno> = None;
    loop {
        if interrupted.is_some()
            || ctx.task.mask_saved.load(Ordering::Relaxed)
            || !ctx.task.enter_guest()
        {
            poll_fn(|cx| ctx.thread.poll_flush(cx)).await;
            if let ControlFlow::Break(status) = deliver::before_guest(ctx, interrupted.take()).await
            {
                return status;
            }
            continue;
        }
        let traced = ctx.task.trace_flags();
        let watched = !traced.is_empty() || ctx.task.seccomp.is_active() || ctx.kernel.strace;
        ctx.thread.allow_local_calls(!watched);
        let step = traced.contains(TraceFlags::STEP) && begin_step(ctx);
        let trap = poll_fn(|cx| ctx.thread.poll_run(cx)).await;
        ctx.task.leave_guest();
        if step {
            ctx.regs_mut().eflags &= !FLAG_TRAP;
        }
        match trap {
            Trap::Syscall => {
                interrupted = system_call(ctx).await;
                if step && ctx.task.trace_flags().contains(TraceFlags::STEP) {
                    // The instruction is done when its call is.
                    let addr = ctx.regs().rip;
                    let info = SigInfo::fault(Signal::SIGTRAP, TRAP_TRACE, addr);
                    ctx.task.force_signal(info);
                }
            }
            Trap::Fault(fault) => Box::pin(fault_of_guest(ctx, fault)).await,
            Trap::Interrupted => {}
            Trap::Killed => {
                let status = ExitStatus::Signal {
                    signal: Signal::SIGKILL,
                    core: false,
                };
                ctx.task.group.begin_exit(status);
                return ctx.task.exit_reason();
            }
        }
    }
}

/// Lets the processor trap after the next instruction; `false` if the guest
/// does so itself.
fn begin_step(ctx: &mut Ctx<'_>) -> bool {
    let regs = ctx.regs_mut();
    let own = regs.eflags & FLAG_TRAP != 0;
    regs.eflags |= FLAG_TRAP;
    !own
}

/// Runs one call and stores its result; the restart code if it was
/// interrupted.
async fn system_call(ctx: &mut Ctx<'_>) -> Option<Errno> {
    let call = ctx.thread.call();
    let mut number = call.number;
    let args = Args(call.args);
    if number == RESTART_SYSCALL {
        let block = ctx.task.restart.lock().take();
        if let Some(block) = block {
            number = block.number;
            ctx.task.set_restarted(Some(block.deadline));
        }
    }
    ctx.task.enter_call(number);
    let traced = ctx.task.trace_flags();
    if traced.intersects(TraceFlags::CALLS | TraceFlags::EMULATE) {
        return Box::pin(traced_call(ctx, number, args)).await;
    }
    let result = run_call(ctx, number, args).await;
    ctx.task.leave_call();
    store_result(ctx, result)
}

/// Runs a call of a task whose tracer stops it before and after.
async fn traced_call(ctx: &mut Ctx<'_>, number: u64, args: Args) -> Option<Errno> {
    let result = match ptrace::before_call(ctx).await {
        // What the tracer left in `rax`.
        CallStop::Skip => None,
        CallStop::Run => {
            // The tracer may have made it another call.
            let restarted = ctx.regs().orig_rax == RESTART_SYSCALL;
            let (number, args) = if restarted {
                (number, args)
            } else {
                (ctx.regs().orig_rax, Args(ctx.regs().syscall_args()))
            };
            ctx.task.enter_call(number);
            Some(run_call(ctx, number, args).await)
        }
    };
    ctx.task.leave_call();
    if let Some(result) = result {
        store_result(ctx, result);
    }
    if ctx.task.trace_flags().contains(TraceFlags::CALLS) && !ctx.task.is_killed() {
        poll_fn(|cx| ctx.thread.poll_flush(cx)).await;
        ptrace::after_call(ctx).await;
    }
    let left = Errno::from_return(ctx.regs().rax);
    left.filter(|code| code.is_restart() && ctx.regs().orig_rax != u64::MAX)
}

/// Runs a call through log and filters, if there are any.
async fn run_call(ctx: &mut Ctx<'_>, number: u64, args: Args) -> SysResult {
    let logged = if ctx.kernel.strace {
        Some(Box::pin(strace::begin(ctx, number, &args.0)).await)
    } else {
        None
    };
    let result = if ctx.task.seccomp.is_active() {
        Box::pin(filtered(ctx, number, args)).await
    } else {
        syscalls::dispatch(ctx, number, args).await
    };
    if let Some(logged) = logged {
        let value = result.unwrap_or_else(Errno::as_return);
        Box::pin(strace::end(ctx, logged, value)).await;
    }
    result
}

/// Puts a result into `rax`; the restart code if it was interrupted.
fn store_result(ctx: &mut Ctx<'_>, result: SysResult) -> Option<Errno> {
    let (value, interrupted) = match result {
        Ok(value) => (value, None),
        Err(code) => (code.as_return(), code.is_restart().then_some(code)),
    };
    ctx.thread.set_result(value);
    if ctx.task.mask_saved.load(Ordering::Relaxed) && interrupted.is_none() {
        // A call with a mask of its own: what it was interrupted by is
        // delivered under that mask, otherwise it is over now.
        if result != Err(Errno::EINTR) {
            ctx.task.restore_mask();
        }
    }
    interrupted
}

/// Runs a call if the task's own filters let it.
async fn filtered(ctx: &mut Ctx<'_>, number: u64, args: Args) -> SysResult {
    match seccomp::check(ctx, number, &args.0).await {
        Verdict::Run => syscalls::dispatch(ctx, number, args).await,
        Verdict::Fail(error) => Err(error),
        Verdict::Answer(value) => Ok(value),
        // The handler sees the registers as they were.
        Verdict::Signalled => Ok(number),
        Verdict::Trace(data) => match ptrace::report_seccomp(ctx, data).await {
            // Without a tracer the call is refused.
            None => Err(Errno::ENOSYS),
            Some(CallStop::Skip) => Ok(ctx.regs().rax),
            Some(CallStop::Run) => {
                let args = Args(ctx.regs().syscall_args());
                syscalls::dispatch(ctx, ctx.regs().orig_rax, args).await
            }
        },
    }
}

/// Grows the stack or makes the fault a signal.
async fn fault_of_guest(ctx: &mut Ctx<'_>, fault: Fault) {
    let mm = ctx.task.mm();
    let limits = ctx.task.memory_limits();
    let mut via = Via::Thread(ctx.thread.as_mut());
    match mm.fault(&mut via, &fault, &limits).await {
        FaultOutcome::Retry => {}
        FaultOutcome::Signal { code } => force_fault(ctx, Fault { code, ..fault }),
    }
}

fn force_fault(ctx: &mut Ctx<'_>, fault: Fault) {
    {
        let mut own = ctx.task.signals.lock();
        own.fault.addr = fault.addr;
        own.fault.trap_no = fault.trap_no;
        own.fault.error_code = fault.error_code;
    }
    ctx.regs_mut().orig_rax = u64::MAX;
    let signal = Signal::from_raw(fault.signo).unwrap_or(Signal::SIGSEGV);
    ctx.task
        .force_signal(SigInfo::fault(signal, fault.code, fault.addr));
}
