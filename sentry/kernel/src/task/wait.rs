//! Waiting for children.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{
    CLD_CONTINUED, CLD_STOPPED, CLD_TRAPPED, SigInfo, Signal, W_CONTINUED, WaitOptions, w_stopcode,
};

use super::{Peaks, Pid, ProcessGroup, Task, ThreadGroup, Tree, Usage, exit, ptrace};
use crate::ctx::Ctx;
use crate::sync::Events;

/// Which children a wait is about.
pub enum Selector {
    Any,
    Process(Arc<Pid>),
    Group(Arc<ProcessGroup>),
    /// Nobody: the id names no process of the caller's.
    Nobody,
}

/// What a wait has found.
#[derive(Clone)]
pub struct Found {
    /// Id in the waiter's pid namespace.
    pub pid: i32,
    /// Real uid as the waiter's user namespace calls it.
    pub uid: u32,
    /// `wait4` status word.
    pub status: i32,
    /// `CLD_*` code and what goes with it.
    pub code: i32,
    pub code_status: i32,
    pub usage: Usage,
    pub peaks: Peaks,
}

impl Found {
    /// As `waitid(2)` answers it.
    pub fn siginfo(&self) -> SigInfo {
        let mut info = SigInfo::child(self.code, self.pid, self.uid, self.code_status, 0, 0);
        info.si_signo = Signal::SIGCHLD.raw();
        info
    }
}

/// Waits for a child that `selector` and `options` speak of; `None` if there
/// is none yet and `WNOHANG` is set.
pub async fn wait_for_child(
    ctx: &Ctx<'_>,
    selector: &Selector,
    options: WaitOptions,
) -> Result<Option<Found>, Errno> {
    let task = ctx.task;
    let attempt = || match scan(task, selector, options) {
        Ok(None) if options.contains(WaitOptions::WNOHANG) => Ok(None),
        Ok(None) => Err(Errno::EAGAIN),
        other => other,
    };
    let queue = &task.group.child_events;
    ctx.wait_on(&[queue], Events::READABLE, None, Errno::EAGAIN, attempt)
        .await
}

/// Looks through the children once; `ECHILD` without an eligible one.
fn scan(
    task: &Arc<Task>,
    selector: &Selector,
    options: WaitOptions,
) -> Result<Option<Found>, Errno> {
    let tree = task.kernel().tree.lock();
    let mut outcome = Err(Errno::ECHILD);
    for tracee in task.group.tracees() {
        if !is_selected(selector, &tracee.pid(), &tracee.group) {
            continue;
        }
        if let Some(found) = look_at_tracee(&tree, task, &tracee, options) {
            return Ok(Some(found));
        }
        outcome = Ok(None);
    }
    for child in task.group.children(&tree) {
        if !is_eligible(task, &child, selector, options) {
            continue;
        }
        if let Some(found) = look(&tree, task, &child, options) {
            return Ok(Some(found));
        }
        outcome = Ok(None);
    }
    outcome
}

fn is_selected(selector: &Selector, pid: &Arc<Pid>, process: &Arc<ThreadGroup>) -> bool {
    match selector {
        Selector::Any => true,
        Selector::Process(wanted) => Arc::ptr_eq(pid, wanted),
        Selector::Group(group) => process
            .process_group()
            .is_some_and(|own| Arc::ptr_eq(&own, group)),
        Selector::Nobody => false,
    }
}

/// What a tracer can wait for in a tracee: a stop, or the end of a task that
/// is no process of its own.
fn look_at_tracee(
    tree: &Tree,
    task: &Arc<Task>,
    tracee: &Arc<Task>,
    options: WaitOptions,
) -> Option<Found> {
    let keep = options.contains(WaitOptions::WNOWAIT);
    {
        let mut trace = tracee.trace.lock();
        if let Some(stop) = &mut trace.stop
            && !stop.reported
        {
            if !keep {
                stop.reported = true;
            }
            let (code, kind) = (stop.code, stop.is_group_stop);
            drop(trace);
            let kind = if kind { CLD_STOPPED } else { CLD_TRAPPED };
            return Some(Found {
                pid: tracee.tid_in(&task.pid_ns()),
                ..found(task, &tracee.group, w_stopcode(code), kind, code)
            });
        }
    }
    if !options.contains(WaitOptions::WEXITED) {
        return None;
    }
    let status = if tracee.is_leader() {
        let own = tracee
            .group
            .parent(tree)
            .is_some_and(|parent| Arc::ptr_eq(&parent, &task.group));
        // A child of its tracer is waited for as such.
        tracee.group.exit_status().filter(|_| !own)?
    } else {
        let ended = *tracee.ended.lock();
        ended.filter(|_| tracee.has_exited())?
    };
    let found = Found {
        pid: tracee.tid_in(&task.pid_ns()),
        ..found(
            task,
            &tracee.group,
            status.wait_status(),
            status.child_code(),
            status.child_status(),
        )
    };
    if !keep {
        ptrace::lose_tracee(tree, tracee);
    }
    Some(found)
}

fn is_eligible(
    task: &Task,
    child: &Arc<ThreadGroup>,
    selector: &Selector,
    options: WaitOptions,
) -> bool {
    if !is_selected(selector, child.pid(), child) {
        return false;
    }
    if options.contains(WaitOptions::__WNOTHREAD) && child.links.lock().creator != task.tid() {
        return false;
    }
    let is_clone = child.exit_signal() != Some(Signal::SIGCHLD);
    options.contains(WaitOptions::__WALL) || is_clone == options.contains(WaitOptions::__WCLONE)
}

fn look(tree: &Tree, task: &Task, child: &Arc<ThreadGroup>, options: WaitOptions) -> Option<Found> {
    let keep = options.contains(WaitOptions::WNOWAIT);
    if let Some(status) = child.exit_status() {
        if !options.contains(WaitOptions::WEXITED) || child.is_traced_by_other(&task.group) {
            return None;
        }
        let found = found(
            task,
            child,
            status.wait_status(),
            status.child_code(),
            status.child_status(),
        );
        if !keep {
            let mut usage = child.usage();
            usage.add(&child.children_usage());
            task.group.reaped.lock().add(&usage);
            task.group.reaped_peaks.lock().merge(&found.peaks);
            exit::reap(tree, child);
        }
        return Some(found);
    }
    if child.is_traced_by(&task.group) {
        // Its stops are a tracer's.
        return None;
    }
    let mut signals = child.signals.lock();
    if options.contains(WaitOptions::WUNTRACED)
        && let Some(signal) = signals.stop.report_stop
    {
        if !keep {
            signals.stop.report_stop = None;
        }
        drop(signals);
        let status = w_stopcode(signal.raw());
        return Some(found(task, child, status, CLD_STOPPED, signal.raw()));
    }
    if options.contains(WaitOptions::WCONTINUED) && signals.stop.report_continue {
        if !keep {
            signals.stop.report_continue = false;
        }
        drop(signals);
        let signal = Signal::SIGCONT.raw();
        return Some(found(task, child, W_CONTINUED, CLD_CONTINUED, signal));
    }
    None
}

fn found(task: &Task, child: &ThreadGroup, status: i32, code: i32, code_status: i32) -> Found {
    let mut usage = child.usage();
    usage.add(&child.children_usage());
    let uid = child.leader().map_or(0, |leader| {
        let uid = leader.creds().uid;
        task.creds().user_ns.uid_or_overflow(uid)
    });
    Found {
        pid: child.id_in(&task.pid_ns()),
        uid,
        status,
        code,
        code_status,
        usage,
        peaks: child.all_peaks(),
    }
}
