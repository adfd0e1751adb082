//! Stopping and continuing processes (job control).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use syscall_tables::abi::{CLD_CONTINUED, CLD_STOPPED, SIG_IGN, SaFlags, SigInfo, SigSet, Signal};

use super::{GroupSignals, Origin};
use crate::ctx::Ctx;
use crate::sync::Events;
use crate::task::{Task, ThreadGroup, Work, ptrace};

/// A change that the parent is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Stopped(Signal),
    Continued,
}

/// What making `signal` pending does whatever its action is: stop signals and
/// `SIGCONT` cancel each other, and `SIGCONT` continues.
pub(crate) fn prepare(
    tasks: &[Arc<Task>],
    state: &mut GroupSignals,
    signal: Signal,
) -> Option<Report> {
    if SigSet::STOPPING.contains(signal) {
        let cont = SigSet::of(Signal::SIGCONT);
        state.pending.remove(cont);
        for task in tasks {
            task.signals.lock().pending.remove(cont);
        }
        return None;
    }
    if signal != Signal::SIGCONT {
        return None;
    }
    state.pending.remove(SigSet::STOPPING);
    for task in tasks {
        task.signals.lock().pending.remove(SigSet::STOPPING);
    }
    let was = state.stop.signal.take()?;
    let complete = state.stop.to_stop == 0;
    state.stop.to_stop = 0;
    for task in tasks {
        task.signals.lock().stopping = false;
        task.clear_work(Work::STOP);
        task.kick();
    }
    if complete {
        state.stop.report_stop = None;
        state.stop.report_continue = true;
        Some(Report::Continued)
    } else {
        Some(Report::Stopped(was))
    }
}

/// Starts stopping the process because of `signal`.
pub(crate) fn begin(group: &ThreadGroup, signal: Signal) {
    let links = group.links.lock();
    let mut state = group.signals.lock();
    if state.exit.is_some() || state.stop.signal.is_some() {
        return;
    }
    state.stop.signal = Some(signal);
    state.stop.to_stop = 0;
    state.stop.report_continue = false;
    for task in &links.tasks {
        if task.is_leaving() {
            continue;
        }
        task.signals.lock().stopping = true;
        state.stop.to_stop += 1;
        task.add_work(Work::STOP);
    }
}

/// Counts the task as stopped (or gone); what the parent is to be told.
pub(crate) fn leave_running(task: &Task) -> Option<Report> {
    let mut state = task.group.signals.lock();
    let mut own = task.signals.lock();
    if !std::mem::take(&mut own.stopping) {
        return None;
    }
    state.stop.to_stop = state.stop.to_stop.saturating_sub(1);
    let signal = state.stop.signal?;
    if state.stop.to_stop > 0 {
        return None;
    }
    state.stop.report_stop = Some(signal);
    Some(Report::Stopped(signal))
}

/// Stops the calling task until the process is continued or killed.
pub(crate) async fn stop_here(task: &Arc<Task>) {
    task.clear_work(Work::STOP);
    task.set_stopped(true);
    if let Some(report) = leave_running(task) {
        tell_parent(&task.group, report);
    }
    poll_fn(|cx| {
        let killed = task.has_work(cx, Work::KILL | Work::TRACE);
        if killed || task.group.signals.lock().stop.signal.is_none() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    task.set_stopped(false);
    // Signals may have come while nobody looked.
    task.recalculate_signals();
}

/// As [`stop_here`] for a traced task: the tracer decides how it goes on.
pub(crate) async fn stop_traced(ctx: &mut Ctx<'_>) {
    let task = ctx.task.clone();
    task.clear_work(Work::STOP);
    if let Some(report) = leave_running(&task) {
        tell_parent(&task.group, report);
    }
    let signal = task.group.signals.lock().stop.signal;
    if let Some(signal) = signal {
        ptrace::group_stop(ctx, signal).await;
    }
    task.recalculate_signals();
}

/// Sends `SIGCHLD` to the parent, unless it does not want to know of stops,
/// and wakes its waits.
pub(crate) fn tell_parent(group: &Arc<ThreadGroup>, report: Report) {
    let parent = group.links.lock().parent.upgrade();
    let Some(parent) = parent else {
        return;
    };
    if group.is_traced_by(&parent) {
        // It hears of it as a tracer.
        return;
    }
    let (code, status) = match report {
        Report::Stopped(signal) => (CLD_STOPPED, signal.raw()),
        Report::Continued => (CLD_CONTINUED, Signal::SIGCONT.raw()),
    };
    let action = parent.sighand().action(Signal::SIGCHLD);
    let unwanted = action.flags & SaFlags::SA_NOCLDSTOP.bits() != 0;
    if action.handler != SIG_IGN && !unwanted {
        let info = child_info(group, &parent, code, status);
        let _ = parent.signal(info, Origin::Kernel);
    }
    parent.child_events.notify(Events::READABLE);
}

/// The `SIGCHLD` siginfo about `child` as `parent` sees it.
pub(crate) fn child_info(
    child: &ThreadGroup,
    parent: &ThreadGroup,
    code: i32,
    status: i32,
) -> SigInfo {
    let uid = child.leader().map_or(0, |leader| {
        let uid = leader.creds().uid;
        match parent.leader() {
            Some(leader) => leader.creds().user_ns.uid_or_overflow(uid),
            None => uid.0,
        }
    });
    let usage = child.usage();
    let ticks = |time: std::time::Duration| i64::try_from(time.as_millis() / 10).unwrap_or(0);
    SigInfo::child(
        code,
        child.id_in(parent.pid_ns()),
        uid,
        status,
        ticks(usage.user),
        ticks(usage.system),
    )
}
