//! Who traces whom.

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{PtraceOptions, SigInfo, Signal};

use super::events::wants_clone;
use super::{Resume, Trace, TraceFlags};
use crate::signal::Origin;
use crate::task::access::AccessCreds;
use crate::task::clone::CloneRequest;
use crate::task::{ExitStatus, Task, ThreadGroup, Tree, Work, exit};

/// Makes `tracer` the tracer of `task`.
fn link(_tree: &Tree, tracer: &Arc<Task>, task: &Arc<Task>, set: impl FnOnce(&mut Trace)) {
    {
        let mut trace = task.trace.lock();
        *trace = Trace {
            tracer: Some(Arc::downgrade(tracer)),
            ..Trace::default()
        };
        set(&mut trace);
    }
    task.set_trace_flags(TraceFlags::TRACED);
    tracer.group.tracees.lock().push(task.clone());
}

/// Ends tracing of `task`, which goes on as `resume` says.
fn unlink(_tree: &Tree, task: &Arc<Task>, resume: Resume) {
    let tracer = {
        let mut trace = task.trace.lock();
        let tracer = trace.tracer();
        trace.clear(resume);
        tracer
    };
    task.set_trace_flags(TraceFlags::empty());
    if let Some(tracer) = tracer {
        let mut tracees = tracer.group.tracees.lock();
        tracees.retain(|other| !Arc::ptr_eq(other, task));
    }
    task.kick();
}

/// `PTRACE_TRACEME`: the parent becomes the tracer.
pub fn trace_me(task: &Arc<Task>) -> Result<(), Errno> {
    let tree = task.kernel().tree.lock();
    if task.is_traced() {
        return Err(Errno::EPERM);
    }
    let parent = task.group.parent(&tree).ok_or(Errno::EPERM)?;
    let creator = task.group.links.lock().creator;
    let tasks = parent.tasks();
    let tracer = tasks
        .iter()
        .find(|candidate| candidate.tid() == creator)
        .or(tasks.first())
        .ok_or(Errno::EPERM)?;
    link(&tree, tracer, task, |_| {});
    Ok(())
}

fn check(tracer: &Arc<Task>, task: &Arc<Task>) -> Result<(), Errno> {
    if Arc::ptr_eq(&tracer.group, &task.group)
        || !task.may_be_accessed_by(tracer, AccessCreds::Real)
        || task.is_traced()
        || task.has_exited()
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// `PTRACE_ATTACH`: stops the task by `SIGSTOP`.
pub fn attach(tracer: &Arc<Task>, task: &Arc<Task>) -> Result<(), Errno> {
    {
        let tree = task.kernel().tree.lock();
        check(tracer, task)?;
        link(&tree, tracer, task, |_| {});
    }
    if task.group.signals.lock().stop.is_complete() {
        // Already stopped: it becomes a stop of the tracer's.
        task.add_work(Work::TRACE);
    }
    let _ = task.signal(SigInfo::kernel(Signal::SIGSTOP), Origin::Kernel);
    Ok(())
}

/// `PTRACE_SEIZE`: without stopping the task.
pub fn seize(tracer: &Arc<Task>, task: &Arc<Task>, options: PtraceOptions) -> Result<(), Errno> {
    {
        let tree = task.kernel().tree.lock();
        check(tracer, task)?;
        link(&tree, tracer, task, |trace| {
            trace.seized = true;
            trace.options = options;
        });
    }
    if task.group.signals.lock().stop.is_complete() {
        task.add_work(Work::TRACE);
    }
    Ok(())
}

/// `PTRACE_DETACH`.
pub fn detach(task: &Arc<Task>, signal: Option<Signal>) {
    let tree = task.kernel().tree.lock();
    unlink(
        &tree,
        task,
        Resume {
            signal,
            keep_signal: false,
            ..Resume::FREE
        },
    );
}

/// A child of a traced task starts traced, if the tracer wants it so. Called
/// before the child runs.
pub(crate) fn attach_child(
    tree: &Tree,
    parent: &Arc<Task>,
    child: &Arc<Task>,
    request: &CloneRequest,
) {
    let (tracer, options, seized) = {
        let trace = parent.trace.lock();
        (trace.tracer(), trace.options, trace.seized)
    };
    let Some(tracer) = tracer else {
        return;
    };
    let asked = request
        .flags
        .contains(syscall_tables::abi::CloneFlags::CLONE_PTRACE);
    if !asked && !wants_clone(options, request) {
        return;
    }
    link(tree, &tracer, child, |trace| {
        trace.seized = seized;
        trace.options = options;
    });
    if seized {
        child.add_work_quietly(Work::TRACE);
    } else {
        let info = SigInfo::kernel(Signal::SIGSTOP);
        let mut own = child.signals.lock();
        own.pending.push(Signal::SIGSTOP, info, None);
        drop(own);
        child.add_work_quietly(Work::SIGNAL);
    }
}

/// The tracer is gone: its tracees go on alone, or end with it.
pub(crate) fn leave_tracees(tree: &Tree, tracer: &Arc<Task>) {
    let tracees = tracer.group.tracees.lock().clone();
    for task in tracees {
        let (own, kill) = {
            let trace = task.trace.lock();
            let own = trace
                .tracer()
                .is_some_and(|other| Arc::ptr_eq(&other, tracer));
            (
                own,
                trace.options.contains(PtraceOptions::PTRACE_O_EXITKILL),
            )
        };
        if !own {
            continue;
        }
        if kill {
            task.group.begin_exit(ExitStatus::Signal {
                signal: Signal::SIGKILL,
                core: false,
            });
        }
        unlink(tree, &task, Resume::FREE);
        if task.has_exited() {
            forget_dead(tree, &task);
        }
    }
}

/// What waited for the tracer alone is passed on when the tracer has seen a
/// task's end or is gone.
fn forget_dead(tree: &Tree, task: &Arc<Task>) {
    if task.is_leader() {
        if task.group.is_zombie() {
            exit::notify_parent(tree, &task.group);
        }
    } else {
        task.pid().detach_task();
    }
}

/// Ends tracing of a task that another one takes the place of.
pub(crate) fn forget(tree: &Tree, task: &Arc<Task>) {
    if task.is_traced() {
        unlink(tree, task, Resume::FREE);
    }
}

/// A tracer has waited for the end of `task`.
pub(crate) fn lose_tracee(tree: &Tree, task: &Arc<Task>) {
    unlink(tree, task, Resume::FREE);
    forget_dead(tree, task);
}

impl ThreadGroup {
    /// Tasks that tasks of this process trace.
    pub fn tracees(&self) -> Vec<Arc<Task>> {
        self.tracees.lock().clone()
    }

    /// Whether a task of `tracer` traces this process's leader.
    pub(crate) fn is_traced_by(&self, tracer: &Arc<Self>) -> bool {
        let leader = self.leader();
        leader
            .and_then(|leader| leader.tracer())
            .is_some_and(|task| Arc::ptr_eq(&task.group, tracer))
    }

    /// Whether a task of another process than `parent` traces the leader.
    pub(crate) fn is_traced_by_other(&self, parent: &Arc<Self>) -> bool {
        let leader = self.leader();
        leader
            .and_then(|leader| leader.tracer())
            .is_some_and(|task| !Arc::ptr_eq(&task.group, parent))
    }
}
