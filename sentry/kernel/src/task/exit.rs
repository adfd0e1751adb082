//! The end of tasks and processes.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use syscall_tables::abi::{SIG_IGN, SaFlags, SigInfo, Signal};

use super::{ExitStatus, Task, ThreadGroup, Tree, Work, ptrace};
use crate::ctx::Ctx;
use crate::kernel::Kernel;
use crate::signal::{Origin, send, stop};
use crate::sync::Events;
use crate::vfs::FdTable;

impl Task {
    /// What the task exits with once its process is ending or it was told to
    /// go by an `execve` of a sibling.
    pub(crate) fn exit_reason(&self) -> ExitStatus {
        let own = self.own_exit.lock().take();
        let group = self.group.signals.lock().exit;
        group.or(own).unwrap_or(ExitStatus::Code(0))
    }

    /// Lets the task exit alone with `status` (`exit(2)`).
    pub(crate) fn request_exit(&self, status: ExitStatus) {
        *self.own_exit.lock() = Some(status);
        self.add_work(Work::KILL);
    }
}

/// Gives up what the task holds, while its memory can still be written.
pub(crate) async fn exit_task(ctx: &mut Ctx<'_>, status: ExitStatus) {
    let task = ctx.task.clone();
    if task.is_traced() {
        ptrace::report_exit(ctx, status).await;
    }
    let kernel = ctx.kernel.clone();
    task.set_leaving();
    release_memory(ctx).await;
    let files = task.set_files(Arc::new(FdTable::new()));
    drop(files);
    if is_last(&task) {
        task.group.timers.stop();
        task.namespaces().ipc.process_ends(&task.group);
    }
    if is_last(&task) && task.group.is_namespace_init() {
        empty_namespace(&kernel, &task).await;
    }
}

/// What a task does to its address space when it exits or execs: give up its
/// futexes, tell `CLONE_CHILD_CLEARTID` waiters and a `vfork` parent.
pub(crate) async fn leave_memory(ctx: &mut Ctx<'_>) {
    crate::futex::leave(ctx).await;
    release_vfork_parent(ctx.task);
}

/// Lets a parent in `vfork(2)` go on.
pub(crate) fn release_vfork_parent(task: &Task) {
    let waiting = task.vfork_done.lock().take();
    if let Some(waiting) = waiting {
        waiting.done.store(true, Ordering::Release);
        waiting.queue.notify(Events::READABLE);
    }
}

async fn release_memory(ctx: &mut Ctx<'_>) {
    leave_memory(ctx).await;
    if ctx.task.mm().space.final_peak().is_none() {
        // Nobody tells later.
        let peak = ctx.task.mm().space.peak_bytes();
        let mut usage = ctx.task.group.dead_threads.lock();
        usage.max_rss_bytes = usage.max_rss_bytes.max(peak);
    }
    let dead = ctx.kernel.dead_mm.clone();
    let mm = ctx.task.set_mm(dead.clone());
    ctx.task.group.note_peak(&mm, &dead);
    drop(mm);
}

fn is_last(task: &Arc<Task>) -> bool {
    let links = task.group.links.lock();
    links.tasks.iter().all(|other| Arc::ptr_eq(other, task))
}

/// Kills everything in the pid namespace whose init is exiting, and waits
/// until it is gone.
async fn empty_namespace(kernel: &Arc<Kernel>, init: &Arc<Task>) {
    let ns = init.pid_ns();
    ns.begin_death();
    for (_, group) in ns.processes() {
        if !Arc::ptr_eq(&group, &init.group) {
            group.begin_exit(ExitStatus::Signal {
                signal: Signal::SIGKILL,
                core: false,
            });
        }
    }
    let mut subscription = None;
    poll_fn(|cx| {
        if subscription.is_none() {
            let waker = Arc::new(cx.waker().clone());
            subscription = Some(ns.changed.subscribe(Events::READABLE, waker));
        }
        reap_zombies(kernel, &init.group);
        let others = ns.processes().into_iter();
        let mut others = others.filter(|(_, group)| !Arc::ptr_eq(group, &init.group));
        if others.next().is_none() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

fn reap_zombies(kernel: &Kernel, parent: &Arc<ThreadGroup>) {
    let tree = kernel.tree.lock();
    for child in parent.children(&tree) {
        if child.is_zombie() {
            reap(&tree, &child);
        }
    }
}

/// Takes the task out of its process; the process ends with its last task.
pub(crate) fn finish(kernel: &Arc<Kernel>, task: &Arc<Task>, status: ExitStatus) {
    let group = &task.group;
    let tree = kernel.tree.lock();
    if let Some(report) = stop::leave_running(task) {
        stop::tell_parent(group, report);
    }
    let usage = task.usage();
    let ended = {
        let mut links = group.links.lock();
        group.dead_threads.lock().add(&usage);
        *task.ended.lock() = Some(status);
        task.set_exited();
        links.tasks.retain(|other| !Arc::ptr_eq(other, task));
        if task.is_leader() {
            links.leader_status = Some(status);
        }
        if links.tasks.is_empty() {
            let whole = group.signals.lock().exit;
            let ended = whole.or(links.leader_status).unwrap_or(status);
            links.exited = Some(ended);
        }
        links.exited
    };
    send_death_signals(&tree, task);
    ptrace::leave_tracees(&tree, task);
    if !task.is_leader() {
        match task.tracer() {
            // It stays until the tracer has waited for it.
            Some(tracer) => tell_tracer_of_end(&tracer, task, status),
            None => task.pid().detach_task(),
        }
    }
    task.pid().exited.notify(Events::READABLE);
    match ended {
        None => {
            let pending = group.signals.lock().pending.set();
            send::retarget(group, pending);
        }
        Some(_) => end_process(kernel, &tree, group),
    }
    group.thread_exits.notify(Events::READABLE);
}

/// `PR_SET_PDEATHSIG` of children that this thread made.
fn send_death_signals(tree: &Tree, task: &Arc<Task>) {
    let tid = task.tid();
    for child in task.group.children(tree) {
        if child.links.lock().creator != tid {
            continue;
        }
        for thread in child.tasks() {
            let number = thread.pdeath_signal.load(Ordering::Relaxed);
            if let Some(signal) = Signal::from_raw(number) {
                let info = SigInfo::kill(signal, task.group.id_in(child.pid_ns()), 0);
                let _ = child.signal(info, Origin::Kernel);
            }
        }
    }
}

fn end_process(kernel: &Arc<Kernel>, tree: &Tree, group: &Arc<ThreadGroup>) {
    if group.is_session_leader() {
        end_session(group);
    }
    let heir = find_reaper(tree, group);
    let children = std::mem::take(&mut group.links.lock().children);
    for child in children {
        let group_before = child.process_group();
        match &heir {
            Some(heir) => {
                child.set_parent(tree, heir);
                child.set_exit_signal(Some(Signal::SIGCHLD));
            }
            None => child.links.lock().parent = std::sync::Weak::new(),
        }
        if child.is_zombie() {
            notify_parent(tree, &child);
        }
        // The child's process group may have lost its last link outside.
        if let Some(orphan) = group_before {
            kill_orphaned(tree, &orphan, None);
        }
    }
    if let Some(own) = group.process_group() {
        kill_orphaned(tree, &own, Some(group));
    }
    kernel.process_ended(group);
    notify_parent(tree, group);
    group.pid().exited.notify(Events::READABLE);
    group.pid_ns().changed.notify(Events::READABLE);
}

/// The session leader is gone: its terminal hangs up.
fn end_session(group: &Arc<ThreadGroup>) {
    let Some(terminal) = group
        .session()
        .and_then(|session| session.set_terminal(None))
    else {
        return;
    };
    if let Some(foreground) = terminal.foreground() {
        foreground.signal_from_kernel(Signal::SIGHUP);
        foreground.signal_from_kernel(Signal::SIGCONT);
    }
    terminal.session_ended();
}

/// Who becomes the parent of the children: the nearest ancestor that is a
/// subreaper, else the namespace's init.
fn find_reaper(tree: &Tree, group: &Arc<ThreadGroup>) -> Option<Arc<ThreadGroup>> {
    let ns = group.pid_ns();
    let mut at = group.parent(tree);
    while let Some(ancestor) = at {
        if !Arc::ptr_eq(ancestor.pid_ns(), ns) {
            break;
        }
        if ancestor.subreaper.load(Ordering::Relaxed) && !ancestor.is_zombie() {
            return Some(ancestor);
        }
        at = ancestor.parent(tree);
    }
    let init = ns.init()?;
    (!Arc::ptr_eq(&init, group) && !init.is_zombie()).then_some(init)
}

/// A newly orphaned process group with stopped members gets `SIGHUP` and
/// `SIGCONT`, since nobody could continue it any more.
fn kill_orphaned(
    tree: &Tree,
    process_group: &super::ProcessGroup,
    exiting: Option<&Arc<ThreadGroup>>,
) {
    if process_group.has_stopped_member() && process_group.is_orphaned(tree, exiting) {
        process_group.signal_from_kernel(Signal::SIGHUP);
        process_group.signal_from_kernel(Signal::SIGCONT);
    }
}

/// `SIGCHLD` about a tracee that is not a child of its tracer.
fn tell_tracer_of_end(tracer: &Arc<Task>, task: &Task, status: ExitStatus) {
    let pid = task.tid_in(&tracer.pid_ns());
    let uid = tracer.creds().user_ns.uid_or_overflow(task.creds().uid);
    let (code, value) = (status.child_code(), status.child_status());
    let info = SigInfo::child(code, pid, uid, value, 0, 0);
    let _ = tracer.group.signal(info, Origin::Kernel);
    tracer.group.child_events.notify(Events::READABLE);
}

/// Tells the parent of a zombie; without a parent that cares it is reaped.
pub(crate) fn notify_parent(tree: &Tree, group: &Arc<ThreadGroup>) {
    let Some(status) = group.exit_status() else {
        return;
    };
    let parent = group.parent(tree);
    if let Some(leader) = group.leader()
        && let Some(tracer) = leader.tracer()
        && parent
            .as_ref()
            .is_none_or(|parent| !Arc::ptr_eq(&tracer.group, parent))
    {
        // The parent's turn comes when the tracer has seen it.
        tell_tracer_of_end(&tracer, &leader, status);
        return;
    }
    let Some(parent) = parent else {
        reap(tree, group);
        return;
    };
    let mut autoreap = parent.pid_ns().is_dying() && parent.is_namespace_init();
    if let Some(signal) = group.exit_signal() {
        let action = parent.sighand().action(Signal::SIGCHLD);
        let ignored = signal == Signal::SIGCHLD && action.handler == SIG_IGN;
        let discarded = action.flags & SaFlags::SA_NOCLDWAIT.bits() != 0;
        autoreap |= signal == Signal::SIGCHLD && (ignored || discarded);
        if !ignored {
            let mut info =
                stop::child_info(group, &parent, status.child_code(), status.child_status());
            info.si_signo = signal.raw();
            let _ = parent.signal(info, Origin::Kernel);
        }
    }
    if autoreap {
        reap(tree, group);
    }
    parent.child_events.notify(Events::READABLE);
}

/// Forgets a zombie: its ids become free.
pub(crate) fn reap(tree: &Tree, group: &Arc<ThreadGroup>) {
    if let Some(parent) = group.parent(tree) {
        parent.remove_child(tree, group);
    }
    let (leader, process_group) = {
        let mut links = group.links.lock();
        links.parent = std::sync::Weak::new();
        (links.leader.take(), links.process_group.take())
    };
    if let Some(process_group) = process_group {
        process_group.remove(group);
    }
    if let Some(leader) = leader {
        ptrace::forget(tree, &leader);
        leader.pid().detach_task();
    }
    group.pid_ns().changed.notify(Events::READABLE);
}
