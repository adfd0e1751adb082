//! Stops at calls, fork, exec and exit.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    AUDIT_ARCH_X86_64, CloneFlags, PTRACE_EVENT_CLONE, PTRACE_EVENT_EXEC, PTRACE_EVENT_EXIT,
    PTRACE_EVENT_FORK, PTRACE_EVENT_SECCOMP, PTRACE_EVENT_VFORK, PTRACE_EVENT_VFORK_DONE,
    PTRACE_SYSCALL_INFO_ENTRY, PTRACE_SYSCALL_INFO_EXIT, PTRACE_SYSCALL_INFO_NONE,
    PTRACE_SYSCALL_INFO_SECCOMP, PtraceOptions, PtraceSyscallInfo, SigInfo, Signal,
};

use super::TraceFlags;
use super::stop::{Until, call_stop, event};
use crate::ctx::Ctx;
use crate::signal::Origin;
use crate::task::clone::CloneRequest;
use crate::task::{ExitStatus, Pid};

/// What to do with a call after the stop before it.
pub(crate) enum CallStop {
    /// Run the call that the registers name now.
    Run,
    /// The tracer took the call away, or plays it itself.
    Skip,
}

fn describe(ctx: &Ctx<'_>, op: u8) -> PtraceSyscallInfo {
    let regs = ctx.regs();
    PtraceSyscallInfo {
        op,
        arch: AUDIT_ARCH_X86_64,
        instruction_pointer: regs.rip,
        stack_pointer: regs.rsp,
        ..PtraceSyscallInfo::default()
    }
}

fn forget_call(ctx: &Ctx<'_>) {
    ctx.task.trace.lock().call = PtraceSyscallInfo {
        op: PTRACE_SYSCALL_INFO_NONE,
        ..PtraceSyscallInfo::default()
    };
}

/// The stop before a call.
pub(crate) async fn before_call(ctx: &mut Ctx<'_>) -> CallStop {
    let flags = ctx.task.trace_flags();
    // What a tracer sees in the result register before there is one.
    ctx.regs_mut().rax = Errno::ENOSYS.as_return();
    let mut info = describe(ctx, PTRACE_SYSCALL_INFO_ENTRY);
    let regs = ctx.regs();
    let mut words = vec![regs.orig_rax];
    words.extend(regs.syscall_args());
    for (to, from) in info.data.iter_mut().zip(words) {
        *to = from;
    }
    let good = {
        let mut trace = ctx.task.trace.lock();
        trace.call = info;
        trace.has_option(PtraceOptions::PTRACE_O_TRACESYSGOOD)
    };
    call_stop(ctx, good).await;
    forget_call(ctx);
    let taken = ctx.regs().orig_rax == u64::MAX;
    if taken || ctx.task.is_killed() || flags.contains(TraceFlags::EMULATE) {
        CallStop::Skip
    } else {
        CallStop::Run
    }
}

/// The stop after a call, with the result in `rax`.
pub(crate) async fn after_call(ctx: &mut Ctx<'_>) {
    let mut info = describe(ctx, PTRACE_SYSCALL_INFO_EXIT);
    let value = ctx.regs().rax;
    let failed = Errno::from_return(value).is_some();
    let [result, is_error, ..] = &mut info.data;
    *result = value;
    *is_error = u64::from(failed);
    let good = {
        let mut trace = ctx.task.trace.lock();
        trace.call = info;
        trace.has_option(PtraceOptions::PTRACE_O_TRACESYSGOOD)
    };
    call_stop(ctx, good).await;
    forget_call(ctx);
}

/// A guest filter answered `TRACE`; whether the call is to be skipped.
pub(crate) async fn report_seccomp(ctx: &mut Ctx<'_>, data: u32) -> Option<CallStop> {
    let option = PtraceOptions::PTRACE_O_TRACESECCOMP;
    if !ctx.task.trace.lock().has_option(option) {
        return None;
    }
    let mut info = describe(ctx, PTRACE_SYSCALL_INFO_SECCOMP);
    let regs = ctx.regs();
    let mut words = vec![regs.orig_rax];
    words.extend(regs.syscall_args());
    words.push(data.into());
    for (to, from) in info.data.iter_mut().zip(words) {
        *to = from;
    }
    ctx.task.trace.lock().call = info;
    ctx.regs_mut().rax = Errno::ENOSYS.as_return();
    event(ctx, PTRACE_EVENT_SECCOMP, data.into(), Until::Killed).await;
    forget_call(ctx);
    if ctx.regs().orig_rax == u64::MAX || ctx.task.is_killed() {
        Some(CallStop::Skip)
    } else {
        Some(CallStop::Run)
    }
}

/// The event a clone call makes, and the option that asks for it.
fn clone_event(request: &CloneRequest) -> (u32, PtraceOptions) {
    if request.flags.contains(CloneFlags::CLONE_VFORK) {
        (PTRACE_EVENT_VFORK, PtraceOptions::PTRACE_O_TRACEVFORK)
    } else if request.exit_signal == Signal::SIGCHLD.raw() {
        (PTRACE_EVENT_FORK, PtraceOptions::PTRACE_O_TRACEFORK)
    } else {
        (PTRACE_EVENT_CLONE, PtraceOptions::PTRACE_O_TRACECLONE)
    }
}

/// Whether the tracer wants to hear of this clone call.
pub(super) fn wants_clone(options: PtraceOptions, request: &CloneRequest) -> bool {
    let (_, option) = clone_event(request);
    options.contains(option) && !request.flags.contains(CloneFlags::CLONE_UNTRACED)
}

fn message_of(ctx: &Ctx<'_>, pid: &Arc<Pid>) -> u64 {
    let tracer = ctx.task.trace.lock().tracer();
    let number = tracer.map_or(0, |tracer| pid.number_in(&tracer.pid_ns()));
    u64::from(number.unsigned_abs())
}

/// The stop of the parent after a child has started.
pub(crate) async fn report_clone(ctx: &mut Ctx<'_>, request: &CloneRequest, pid: &Arc<Pid>) {
    let options = ctx.task.trace.lock().options;
    if wants_clone(options, request) {
        let (number, _) = clone_event(request);
        let message = message_of(ctx, pid);
        event(ctx, number, message, Until::Killed).await;
    }
}

/// The stop of the parent after a vfork child has let it go on.
pub(crate) async fn report_vfork_done(ctx: &mut Ctx<'_>, pid: &Arc<Pid>) {
    let option = PtraceOptions::PTRACE_O_TRACEVFORKDONE;
    if ctx.task.trace.lock().has_option(option) {
        let message = message_of(ctx, pid);
        event(ctx, PTRACE_EVENT_VFORK_DONE, message, Until::Killed).await;
    }
}

/// After an exec: an event, or the `SIGTRAP` that old tracers get.
pub(crate) async fn report_exec(ctx: &mut Ctx<'_>, old_tid: &Arc<Pid>) {
    let (wanted, seized) = {
        let trace = ctx.task.trace.lock();
        let option = PtraceOptions::PTRACE_O_TRACEEXEC;
        (trace.has_option(option), trace.seized)
    };
    if wanted {
        let message = message_of(ctx, old_tid);
        event(ctx, PTRACE_EVENT_EXEC, message, Until::Killed).await;
    } else if !seized && ctx.task.is_traced() {
        let pid = ctx.task.group.pid().number();
        let info = SigInfo::kill(Signal::SIGTRAP, pid, ctx.task.creds().uid.0);
        let _ = ctx.task.signal(info, Origin::Kernel);
    }
}

/// The stop before a task is gone, with its registers still there.
pub(crate) async fn report_exit(ctx: &mut Ctx<'_>, status: ExitStatus) {
    let option = PtraceOptions::PTRACE_O_TRACEEXIT;
    if !ctx.task.trace.lock().has_option(option) {
        return;
    }
    let killed = ExitStatus::Signal {
        signal: Signal::SIGKILL,
        core: false,
    };
    if status != killed {
        let message = u64::from(status.wait_status().cast_unsigned());
        event(ctx, PTRACE_EVENT_EXIT, message, Until::Resumed).await;
    }
}
