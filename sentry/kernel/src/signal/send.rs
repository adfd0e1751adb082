//! Making signals pending and waking those who take them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use syscall_tables::Errno;
use syscall_tables::abi::{
    RLIMIT_SIGPENDING, SI_TIMER, SI_USER, SIG_DFL, SIG_IGN, SigAction, SigInfo, SigSet, Signal,
};

use super::{GroupSignals, SignalCharge, stop};
use crate::sync::Events;
use crate::task::{ExitStatus, ProcessGroup, Task, ThreadGroup, Work};

/// Where a signal comes from, as far as the target's pid namespace sees it.
/// Process 1 of a namespace is only reached by signals it has a handler for,
/// but for `SIGKILL` and `SIGSTOP` from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel itself.
    Kernel,
    /// A process of the target's own namespace or one below.
    Inside,
    /// A process of an outer namespace, or the sandbox's control interface.
    Outside,
}

impl ThreadGroup {
    /// Sends a signal to the process; `EAGAIN` if its queue is full.
    pub fn signal(self: &Arc<Self>, info: SigInfo, origin: Origin) -> Result<(), Errno> {
        send(self, None, info, origin)
    }

    /// Sends a signal from the kernel (`SI_KERNEL`).
    pub fn signal_from_kernel(self: &Arc<Self>, signal: Signal) {
        // Only queued realtime signals can fail.
        let _ = self.signal(SigInfo::kernel(signal), Origin::Kernel);
    }

    /// Ends all tasks of the process with `status`, unless it is ending
    /// already.
    pub fn begin_exit(&self, status: ExitStatus) {
        let links = self.links.lock();
        let mut signals = self.signals.lock();
        begin_exit_locked(&links.tasks, &mut signals, status);
    }
}

impl Task {
    /// Sends a signal to this task alone; `EAGAIN` if its queue is full.
    pub fn signal(self: &Arc<Self>, info: SigInfo, origin: Origin) -> Result<(), Errno> {
        send(&self.group, Some(self), info, origin)
    }

    /// A fault of the task itself: a blocked or ignored signal kills.
    pub fn force_signal(self: &Arc<Self>, info: SigInfo) {
        let Some(signal) = Signal::from_raw(info.si_signo) else {
            return;
        };
        {
            let _group = self.group.signals.lock();
            let mut own = self.signals.lock();
            let sighand = self.group.sighand();
            let action = sighand.action(signal);
            let blocked = own.blocked.contains(signal);
            if blocked || action.handler == SIG_IGN {
                sighand.set_action(signal, SigAction::default());
                own.blocked.remove(signal);
            }
            if sighand.action(signal).handler == SIG_DFL {
                // Not even process 1 survives its own faults.
                self.group.unkillable.store(false, Ordering::Relaxed);
            }
        }
        let _ = self.signal(info, Origin::Kernel);
    }

    /// Recomputes whether a signal is there to be delivered. Only the task
    /// itself calls this.
    pub(crate) fn recalculate_signals(&self) {
        let group = self.group.signals.lock();
        self.recalculate_signals_locked(&group);
    }

    pub(crate) fn recalculate_signals_locked(&self, group: &MutexGuard<'_, GroupSignals>) {
        let own = self.signals.lock();
        let ready = own
            .pending
            .set()
            .union(group.pending.set())
            .difference(own.blocked);
        if ready.is_empty() {
            self.clear_work(Work::SIGNAL);
        } else {
            self.add_work_quietly(Work::SIGNAL);
        }
    }

    /// Replaces the signal mask (never blocking `SIGKILL` and `SIGSTOP`) and
    /// looks for signals that this sets free.
    pub fn set_blocked(&self, blocked: SigSet) {
        let group = self.group.signals.lock();
        self.signals.lock().blocked = blocked.difference(SigSet::UNBLOCKABLE);
        self.recalculate_signals_locked(&group);
        let newly_blocked = group.pending.set().intersection(blocked);
        drop(group);
        if !newly_blocked.is_empty() {
            // Somebody else has to take what this task no longer will.
            retarget(&self.group, newly_blocked);
        }
    }

    /// Sets a mask for the duration of the current call: it is undone when
    /// the call returns without a handler, and by the handler's return.
    pub fn set_temporary_mask(&self, blocked: SigSet) {
        {
            let mut own = self.signals.lock();
            if own.saved_mask.is_none() {
                own.saved_mask = Some(own.blocked);
            }
        }
        self.mask_saved.store(true, Ordering::Relaxed);
        self.set_blocked(blocked);
    }

    /// Undoes [`Self::set_temporary_mask`].
    pub fn restore_mask(&self) {
        if !self.mask_saved.swap(false, Ordering::Relaxed) {
            return;
        }
        let saved = self.signals.lock().saved_mask.take();
        if let Some(saved) = saved {
            self.set_blocked(saved);
        }
    }

    /// The signal mask.
    pub fn blocked(&self) -> SigSet {
        self.signals.lock().blocked
    }

    /// Signals pending for this task or its process.
    pub fn pending_signals(&self) -> SigSet {
        let group = self.group.signals.lock();
        let own = self.signals.lock();
        own.pending.set().union(group.pending.set())
    }
}

impl ProcessGroup {
    /// Sends a signal of the kernel (job control) to all members.
    pub fn signal_from_kernel(&self, signal: Signal) {
        for member in self.members() {
            member.signal_from_kernel(signal);
        }
    }

    /// Sends a signal to all members; the first error if none could get it.
    pub fn signal(&self, info: SigInfo, origin: Origin) -> Result<(), Errno> {
        let mut outcome = Err(Errno::ESRCH);
        for member in self.members() {
            let sent = member.signal(info, origin);
            if outcome.is_err() {
                outcome = sent;
            }
        }
        outcome
    }
}

fn send(
    group: &Arc<ThreadGroup>,
    task: Option<&Arc<Task>>,
    info: SigInfo,
    origin: Origin,
) -> Result<(), Errno> {
    let signal = Signal::from_raw(info.si_signo).ok_or(Errno::EINVAL)?;
    let continued;
    {
        let links = group.links.lock();
        let Some(leader) = &links.leader else {
            return Err(Errno::ESRCH);
        };
        let mut state = group.signals.lock();
        if state.exit.is_some() {
            // It is dying: the signal is lost.
            return Ok(());
        }
        continued = stop::prepare(&links.tasks, &mut state, signal);
        let force = origin != Origin::Inside;
        if !is_ignored(group, task.unwrap_or(leader), signal, force) {
            queue(group, &mut state, task, leader, signal, info)?;
            wake(&links.tasks, &mut state, task, signal);
        }
    }
    if let Some(report) = continued {
        stop::tell_parent(group, report);
    }
    group.signal_arrivals.notify(Events::READABLE);
    Ok(())
}

/// Whether the signal would do nothing to `task`, so that it is not queued.
fn is_ignored(group: &ThreadGroup, task: &Task, signal: Signal, force: bool) -> bool {
    {
        let own = task.signals.lock();
        if own.blocked.contains(signal) || own.real_blocked.contains(signal) {
            // By the time it is unblocked there may be a handler.
            return false;
        }
    }
    if task.is_traced() && signal != Signal::SIGKILL {
        return false;
    }
    let sighand = group.sighand();
    let default = sighand.action(signal).handler == SIG_DFL;
    let unkillable = group.unkillable.load(Ordering::Relaxed);
    if unkillable && default && !(force && signal.is_unblockable()) {
        return true;
    }
    sighand.ignores(signal)
}

fn queue(
    group: &ThreadGroup,
    state: &mut GroupSignals,
    task: Option<&Arc<Task>>,
    leader: &Arc<Task>,
    signal: Signal,
    info: SigInfo,
) -> Result<(), Errno> {
    let target = task.unwrap_or(leader);
    let mut own = target.signals.lock();
    let pending = match task {
        Some(_) => &mut own.pending,
        None => &mut state.pending,
    };
    if !signal.is_realtime() && pending.contains(signal) {
        return Ok(());
    }
    if signal == Signal::SIGKILL {
        pending.push_bare(signal);
        return Ok(());
    }
    // Signals that a program can't do without don't fail for lack of room.
    let limit = if !signal.is_realtime() && info.si_code >= 0 {
        u64::MAX
    } else {
        group.limit(RLIMIT_SIGPENDING)
    };
    let count = group.kernel.users.queued_signals(target.creds().uid);
    match SignalCharge::take(&count, limit) {
        Some(charge) => pending.push(signal, info, Some(charge)),
        None if signal.is_realtime() && info.si_code != SI_USER => return Err(Errno::EAGAIN),
        None => pending.push_bare(signal),
    }
    Ok(())
}

/// Gets the attention of a task that will take the signal.
fn wake(tasks: &[Arc<Task>], state: &mut GroupSignals, task: Option<&Arc<Task>>, signal: Signal) {
    if signal == Signal::SIGKILL {
        let status = ExitStatus::Signal {
            signal,
            core: false,
        };
        begin_exit_locked(tasks, state, status);
        return;
    }
    let accepts =
        |task: &&Arc<Task>| !task.is_leaving() && !task.signals.lock().blocked.contains(signal);
    let chosen = match task {
        Some(task) => Some(task).filter(accepts),
        None => {
            let idle = |task: &&Arc<Task>| accepts(task) && !task.work().contains(Work::SIGNAL);
            let first = tasks.iter().find(idle);
            first.or_else(|| tasks.iter().find(accepts))
        }
    };
    if let Some(task) = chosen {
        task.add_work(Work::SIGNAL);
    }
}

/// Finds takers for signals of the process that one task has just blocked or
/// will not see any more because it exits.
pub(crate) fn retarget(group: &ThreadGroup, signals: SigSet) {
    let links = group.links.lock();
    let state = group.signals.lock();
    let mut left = state.pending.set().intersection(signals);
    for task in &links.tasks {
        if left.is_empty() {
            return;
        }
        if task.is_leaving() {
            continue;
        }
        let takes = left.difference(task.signals.lock().blocked);
        if !takes.is_empty() {
            task.add_work(Work::SIGNAL);
            left = left.difference(takes);
        }
    }
}

pub(crate) fn begin_exit_locked(tasks: &[Arc<Task>], state: &mut GroupSignals, status: ExitStatus) {
    if state.exit.is_some() {
        return;
    }
    state.exit = Some(status);
    state.stop = super::StopState::default();
    for task in tasks {
        task.add_work(Work::KILL);
    }
}

impl ThreadGroup {
    /// Forgets pending signals, also those of single tasks.
    pub(crate) fn discard_pending(&self, signals: SigSet) {
        let links = self.links.lock();
        let mut state = self.signals.lock();
        state.pending.remove(signals);
        for task in &links.tasks {
            task.signals.lock().pending.remove(signals);
        }
    }
}

impl Task {
    /// Takes a pending signal of `wanted`, blocked or not.
    pub(crate) fn take_signal(&self, wanted: SigSet) -> Option<(Signal, SigInfo)> {
        let mut group = self.group.signals.lock();
        let taken = {
            let mut own = self.signals.lock();
            match own.pending.take(wanted.complement()) {
                Some(taken) => Some(taken),
                None => group.pending.take(wanted.complement()),
            }
        };
        if taken.is_some() {
            self.recalculate_signals_locked(&group);
        }
        drop(group);
        taken.map(|(signal, info)| {
            let mut info = info;
            if info.si_code == SI_TIMER {
                self.group.timers.deliver(&mut info);
            }
            (signal, info)
        })
    }
}
