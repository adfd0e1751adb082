//! Signal state of processes and tasks.

use parking_lot::Mutex;
use syscall_tables::abi::{
    DefaultAction, SIG_DFL, SIG_IGN, SaFlags, SigAction, SigInfo, SigSet, Signal, SsFlags, StackT,
};

use super::Pending;
use crate::task::{ExitStatus, Tid};

/// Signal actions, shared by tasks cloned with `CLONE_SIGHAND`.
pub struct SigHand {
    actions: Mutex<[SigAction; Signal::COUNT]>,
}

impl Default for SigHand {
    fn default() -> Self {
        Self {
            actions: Mutex::new([SigAction::default(); Signal::COUNT]),
        }
    }
}

impl SigHand {
    pub fn action(&self, signal: Signal) -> SigAction {
        let actions = self.actions.lock();
        actions.get(signal.index()).copied().unwrap_or_default()
    }

    pub fn set_action(&self, signal: Signal, action: SigAction) {
        if let Some(slot) = self.actions.lock().get_mut(signal.index()) {
            *slot = action;
        }
    }

    /// A copy for a new process.
    pub fn duplicate(&self) -> Self {
        Self {
            actions: Mutex::new(*self.actions.lock()),
        }
    }

    /// Resets handlers to the default as `execve` does; what is ignored stays
    /// so, unless `ignored_too` (`CLONE_CLEAR_SIGHAND` keeps it as well).
    pub fn reset_handlers(&self) {
        for action in self.actions.lock().iter_mut() {
            let handler = if action.handler == SIG_IGN {
                SIG_IGN
            } else {
                SIG_DFL
            };
            *action = SigAction {
                handler,
                ..SigAction::default()
            };
        }
    }

    /// Whether the action makes the signal do nothing.
    pub fn ignores(&self, signal: Signal) -> bool {
        match self.action(signal).handler {
            SIG_IGN => true,
            SIG_DFL => signal.default_action() == DefaultAction::Ignore,
            _ => false,
        }
    }

    /// Whether the action is a guest function.
    pub fn is_caught(&self, signal: Signal) -> bool {
        !matches!(self.action(signal).handler, SIG_DFL | SIG_IGN)
    }

    /// Signals that are ignored and signals that are caught, for
    /// `/proc/PID/status`.
    pub fn sets(&self) -> (SigSet, SigSet) {
        let mut ignored = SigSet::EMPTY;
        let mut caught = SigSet::EMPTY;
        for signal in Signal::all() {
            match self.action(signal).handler {
                SIG_DFL => {}
                SIG_IGN => ignored.add(signal),
                _ => caught.add(signal),
            }
        }
        (ignored, caught)
    }

    /// Whether children's ends are not waited for: `SIGCHLD` ignored, or
    /// `SA_NOCLDWAIT` set.
    pub fn discards_children(&self) -> bool {
        let action = self.action(Signal::SIGCHLD);
        action.handler == SIG_IGN || action.flags & SaFlags::SA_NOCLDWAIT.bits() != 0
    }
}

/// Job control of a process.
#[derive(Debug, Default)]
pub struct StopState {
    /// The signal that stops or has stopped the process.
    pub signal: Option<Signal>,
    /// Tasks that still have to stop.
    pub to_stop: usize,
    /// A stop that the parent has not waited for yet.
    pub report_stop: Option<Signal>,
    /// A continuation that the parent has not waited for yet.
    pub report_continue: bool,
}

impl StopState {
    /// Whether all tasks have stopped.
    pub fn is_complete(&self) -> bool {
        self.signal.is_some() && self.to_stop == 0
    }
}

/// Signal state of a process.
#[derive(Debug, Default)]
pub struct GroupSignals {
    /// Signals for the process as a whole.
    pub pending: Pending,
    /// Set once the process is ending: what all its tasks exit with.
    pub exit: Option<ExitStatus>,
    pub stop: StopState,
    /// The task that is in `execve` and ends all others.
    pub exec: Option<Tid>,
}

/// The alternate signal stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    pub base: u64,
    pub size: u64,
    pub flags: SsFlags,
}

impl Default for AltStack {
    fn default() -> Self {
        Self {
            base: 0,
            size: 0,
            flags: SsFlags::SS_DISABLE,
        }
    }
}

impl AltStack {
    pub fn is_disabled(&self) -> bool {
        self.size == 0
    }

    /// Whether `sp` is on this stack. With `SS_AUTODISARM` nobody is ever on
    /// it: it is disabled while a handler runs.
    pub fn contains(&self, sp: u64) -> bool {
        !self.flags.contains(SsFlags::SS_AUTODISARM)
            && sp > self.base
            && sp.wrapping_sub(self.base) <= self.size
    }

    /// What `sigaltstack(2)` answers with the stack pointer at `sp`.
    pub fn describe(&self, sp: u64) -> StackT {
        let state = if self.is_disabled() {
            SsFlags::SS_DISABLE
        } else if self.contains(sp) {
            SsFlags::SS_ONSTACK
        } else {
            SsFlags::empty()
        };
        let mode = self.flags & SsFlags::SS_AUTODISARM;
        StackT {
            ss_sp: self.base,
            ss_flags: (state | mode).bits(),
            ss_size: self.size,
            ..StackT::default()
        }
    }
}

/// What the processor said about the last fault, kept for signal frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultInfo {
    pub addr: u64,
    pub trap_no: u64,
    pub error_code: u64,
}

/// Signal state of a task.
#[derive(Debug, Default)]
pub struct TaskSignals {
    /// Signals for this task alone.
    pub pending: Pending,
    pub blocked: SigSet,
    /// The mask proper while `rt_sigtimedwait` has unblocked what it waits
    /// for.
    pub real_blocked: SigSet,
    /// The mask to go back to when the call that changed it for its duration
    /// (`rt_sigsuspend`, `ppoll`) is over.
    pub saved_mask: Option<SigSet>,
    pub altstack: AltStack,
    pub fault: FaultInfo,
    /// Counted in [`StopState::to_stop`].
    pub stopping: bool,
    /// The siginfo of a signal that a tracer stopped at.
    pub last_info: Option<SigInfo>,
}

impl crate::task::Task {
    /// Sets the alternate stack by `sigaltstack(2)`'s rules, with the stack
    /// pointer at `sp`.
    pub(crate) fn set_altstack(
        &self,
        base: u64,
        size: u64,
        flags: u32,
        sp: u64,
    ) -> Result<(), syscall_tables::Errno> {
        use syscall_tables::Errno;
        let mut own = self.signals.lock();
        if own.altstack.contains(sp) {
            return Err(Errno::EPERM);
        }
        let flags = SsFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        let mode = flags.difference(SsFlags::SS_AUTODISARM);
        if mode == SsFlags::SS_DISABLE {
            own.altstack = AltStack::default();
            return Ok(());
        }
        if !mode.is_empty() && mode != SsFlags::SS_ONSTACK {
            return Err(Errno::EINVAL);
        }
        if size < syscall_tables::abi::MINSIGSTKSZ {
            return Err(Errno::ENOMEM);
        }
        own.altstack = AltStack {
            base,
            size,
            flags: flags & SsFlags::SS_AUTODISARM,
        };
        Ok(())
    }
}
