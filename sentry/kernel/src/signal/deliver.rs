//! What a task does before it runs guest code again: die, stop, run signal
//! handlers, restart interrupted calls.

use std::ops::ControlFlow;

use syscall_tables::Errno;
use syscall_tables::abi::{
    DefaultAction, SI_TIMER, SIG_DFL, SIG_IGN, SaFlags, SigAction, SigInfo, Signal,
};

use super::{frame, stop};
use crate::ctx::Ctx;
use crate::task::{ExitStatus, Work, ptrace, trace_signal};

/// Number of `restart_syscall(2)`.
const RESTART_SYSCALL: u64 = 219;

/// A signal that a handler of the guest takes.
struct Caught {
    signal: Signal,
    info: SigInfo,
    action: SigAction,
}

/// Sees to all work of the task. `interrupted` is the restart code with which
/// the last call ended. Breaks with the status if the task must exit.
pub(crate) async fn before_guest(
    ctx: &mut Ctx<'_>,
    interrupted: Option<Errno>,
) -> ControlFlow<ExitStatus> {
    let mut interrupted = interrupted;
    loop {
        match next_signal(ctx).await {
            ControlFlow::Break(status) => return ControlFlow::Break(status),
            ControlFlow::Continue(Some(caught)) => {
                if let Some(code) = interrupted.take() {
                    restart_for_handler(ctx, code, &caught.action);
                }
                frame::enter_handler(ctx, caught.signal, &caught.info, &caught.action).await;
            }
            ControlFlow::Continue(None) => break,
        }
    }
    if let Some(code) = interrupted {
        let number = if code == Errno::ERESTART_RESTARTBLOCK {
            RESTART_SYSCALL
        } else {
            ctx.regs().orig_rax
        };
        rewind(ctx, number);
    }
    ctx.task.restore_mask();
    ControlFlow::Continue(())
}

/// Puts the guest back onto its `syscall` instruction.
fn rewind(ctx: &mut Ctx<'_>, number: u64) {
    let regs = ctx.regs_mut();
    regs.rax = number;
    regs.rip = regs.rip.wrapping_sub(2);
}

/// A handler runs first: the call is restarted after it or fails.
fn restart_for_handler(ctx: &mut Ctx<'_>, code: Errno, action: &SigAction) {
    let restarts = action.flags & SaFlags::SA_RESTART.bits() != 0;
    let again = match code {
        Errno::ERESTARTNOINTR => true,
        Errno::ERESTARTSYS => restarts,
        _ => false,
    };
    if again {
        let number = ctx.regs().orig_rax;
        rewind(ctx, number);
    } else {
        ctx.regs_mut().rax = Errno::EINTR.as_return();
    }
}

/// Does default actions until there is a signal to be handled by the guest or
/// none at all.
async fn next_signal(ctx: &mut Ctx<'_>) -> ControlFlow<ExitStatus, Option<Caught>> {
    let task = ctx.task.clone();
    loop {
        let work = task.work();
        if work.contains(Work::KILL) {
            return ControlFlow::Break(task.exit_reason());
        }
        if work.contains(Work::FREEZE) {
            ctx.kernel.wait_for_thaw(&task).await;
            continue;
        }
        if work.contains(Work::TRACE) {
            Box::pin(ptrace::requested_stop(ctx)).await;
            continue;
        }
        if work.contains(Work::STOP) {
            if task.is_traced() {
                Box::pin(stop::stop_traced(ctx)).await;
            } else {
                stop::stop_here(&task).await;
            }
            continue;
        }
        let taken = {
            let mut group = task.group.signals.lock();
            let taken = {
                let mut own = task.signals.lock();
                let blocked = own.blocked;
                match own.pending.take(blocked) {
                    Some(taken) => Some(taken),
                    None => group.pending.take(blocked),
                }
            };
            if taken.is_none() {
                task.recalculate_signals_locked(&group);
            }
            taken
        };
        let Some((signal, info)) = taken else {
            if task.work().is_empty() {
                return ControlFlow::Continue(None);
            }
            continue;
        };
        let (signal, mut info) = if task.is_traced() && signal != Signal::SIGKILL {
            match Box::pin(ptrace::signal_stop(ctx, signal, info)).await {
                Some(kept) => kept,
                None => continue,
            }
        } else {
            (signal, info)
        };
        if info.si_code == SI_TIMER {
            task.group.timers.deliver(&mut info);
        }
        trace_signal(&task, &info);
        match act(ctx, signal, info) {
            ControlFlow::Break(Some(status)) => return ControlFlow::Break(status),
            ControlFlow::Break(None) => {}
            ControlFlow::Continue(caught) => return ControlFlow::Continue(Some(caught)),
        }
    }
}

/// Does the action of a signal: breaks with a status if it ends the process,
/// without one if there is nothing more to do.
fn act(
    ctx: &mut Ctx<'_>,
    signal: Signal,
    info: SigInfo,
) -> ControlFlow<Option<ExitStatus>, Caught> {
    let group = &ctx.task.group;
    let sighand = group.sighand();
    let action = sighand.action(signal);
    match action.handler {
        SIG_IGN => return ControlFlow::Break(None),
        SIG_DFL => {}
        _ => {
            if action.flags & SaFlags::SA_RESETHAND.bits() != 0 {
                sighand.set_action(
                    signal,
                    SigAction {
                        handler: SIG_DFL,
                        ..action
                    },
                );
            }
            return ControlFlow::Continue(Caught {
                signal,
                info,
                action,
            });
        }
    }
    let unkillable = group.unkillable.load(std::sync::atomic::Ordering::Relaxed);
    match signal.default_action() {
        DefaultAction::Ignore | DefaultAction::Continue => ControlFlow::Break(None),
        _ if unkillable && !signal.is_unblockable() => ControlFlow::Break(None),
        DefaultAction::Stop => {
            // An orphaned group has nobody to continue it.
            let orphaned = signal != Signal::SIGSTOP && {
                let tree = ctx.kernel.tree.lock();
                group
                    .process_group()
                    .is_none_or(|group| group.is_orphaned(&tree, None))
            };
            if !orphaned {
                stop::begin(group, signal);
            }
            ControlFlow::Break(None)
        }
        DefaultAction::Terminate => end(ctx, signal, false),
        DefaultAction::Core => {
            let core = ctx.task.may_dump_core();
            end(ctx, signal, core)
        }
    }
}

fn end<T>(ctx: &Ctx<'_>, signal: Signal, core: bool) -> ControlFlow<Option<ExitStatus>, T> {
    ctx.task
        .group
        .begin_exit(ExitStatus::Signal { signal, core });
    ControlFlow::Break(Some(ctx.task.exit_reason()))
}
