//! Queues of pending signals.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syscall_tables::abi::{SI_TIMER, SigInfo, SigSet, Signal};

/// One queued signal counted against its user's `RLIMIT_SIGPENDING`; gives
/// the count back when dropped.
#[derive(Debug)]
pub struct SignalCharge(Arc<AtomicU64>);

impl SignalCharge {
    /// Counts one more if that stays within `limit`.
    pub fn take(count: &Arc<AtomicU64>, limit: u64) -> Option<Self> {
        let counted = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now < limit).then(|| now.saturating_add(1))
        });
        counted.ok().map(|_| Self(count.clone()))
    }
}

impl Drop for SignalCharge {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Entry {
    signal: Signal,
    info: SigInfo,
    _charge: Option<SignalCharge>,
}

/// Signals that wait to be delivered to a task or a process.
#[derive(Debug, Default)]
pub struct Pending {
    set: SigSet,
    queue: VecDeque<Entry>,
}

impl Pending {
    /// The signals that are pending.
    pub fn set(&self) -> SigSet {
        self.set
    }

    pub fn contains(&self, signal: Signal) -> bool {
        self.set.contains(signal)
    }

    /// Number of queued instances.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Adds an instance.
    pub fn push(&mut self, signal: Signal, info: SigInfo, charge: Option<SignalCharge>) {
        self.set.add(signal);
        self.queue.push_back(Entry {
            signal,
            info,
            _charge: charge,
        });
    }

    /// Marks a signal pending whose details could not be queued.
    pub fn push_bare(&mut self, signal: Signal) {
        self.set.add(signal);
    }

    /// Forgets all instances of the signals in `signals`.
    pub fn remove(&mut self, signals: SigSet) {
        if self.set.intersection(signals).is_empty() {
            return;
        }
        self.set = self.set.difference(signals);
        self.queue.retain(|entry| !signals.contains(entry.signal));
    }

    /// Takes the next signal that is not in `blocked`: those that the thread
    /// brought upon itself first, then the lowest number, oldest first.
    pub fn take(&mut self, blocked: SigSet) -> Option<(Signal, SigInfo)> {
        let ready = self.set.difference(blocked);
        let synchronous = ready.intersection(SigSet::SYNCHRONOUS);
        let signal = synchronous.first().or_else(|| ready.first())?;
        Some((signal, self.take_signal(signal)))
    }

    fn take_signal(&mut self, signal: Signal) -> SigInfo {
        let at = self.queue.iter().position(|entry| entry.signal == signal);
        let entry = at.and_then(|at| self.queue.remove(at));
        if !self.queue.iter().any(|entry| entry.signal == signal) {
            self.set.remove(signal);
        }
        // Without details it looks as if kill(2) had sent it from nowhere.
        entry.map_or_else(|| SigInfo::kill(signal, 0, 0), |entry| entry.info)
    }

    /// Whether the signal of the timer that `info` speaks of is queued.
    pub fn has_timer(&self, info: &SigInfo) -> bool {
        self.queue.iter().any(|entry| {
            entry.info.si_code == SI_TIMER
                && entry.info.si_signo == info.si_signo
                && entry.info.timer_id() == info.timer_id()
        })
    }

    /// Looks at the instance at `index` of the queue (`PTRACE_PEEKSIGINFO`).
    pub fn peek(&self, index: usize) -> Option<SigInfo> {
        self.queue.get(index).map(|entry| entry.info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rt(value: u64) -> SigInfo {
        SigInfo::queue(Signal::SIGRTMIN, -1, 1, 0, value)
    }

    #[test]
    fn faults_come_first_then_low_numbers_then_age() {
        let mut pending = Pending::default();
        pending.push(Signal::SIGRTMIN, rt(1), None);
        pending.push(Signal::SIGRTMIN, rt(2), None);
        pending.push(Signal::SIGHUP, SigInfo::kernel(Signal::SIGHUP), None);
        pending.push(Signal::SIGSEGV, SigInfo::kernel(Signal::SIGSEGV), None);
        let order: Vec<_> = std::iter::from_fn(|| pending.take(SigSet::EMPTY))
            .map(|(signal, info)| (signal, info.value()))
            .collect();
        let expected = [
            (Signal::SIGSEGV, 0),
            (Signal::SIGHUP, 0),
            (Signal::SIGRTMIN, 1),
            (Signal::SIGRTMIN, 2),
        ];
        assert_eq!(order, expected);
        assert!(pending.is_empty());
    }

    #[test]
    fn blocked_signals_stay() {
        let mut pending = Pending::default();
        pending.push_bare(Signal::SIGUSR1);
        assert!(pending.take(SigSet::of(Signal::SIGUSR1)).is_none());
        assert!(pending.take(SigSet::EMPTY).is_some());
    }

    #[test]
    fn charges_are_given_back() {
        let count = Arc::new(AtomicU64::new(0));
        let mut pending = Pending::default();
        let charge = SignalCharge::take(&count, 1);
        assert!(charge.is_some());
        assert!(SignalCharge::take(&count, 1).is_none());
        pending.push(Signal::SIGRTMIN, rt(0), charge);
        pending.remove(SigSet::FULL);
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }
}
