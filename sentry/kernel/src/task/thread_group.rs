//! One guest process.
//!
//! Locks: the kernel's process tree lock ([`Tree`]) is taken for any change
//! of relations (parent, children, process group, membership of threads) and
//! for reads of several of them that must agree. Below it: `links`, then
//! `signals`, then a task's signal state.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use syscall_tables::abi::Signal;

use super::{ExitStatus, Peaks, Pid, PidNamespace, ProcessGroup, Rlimits, Session, Task, Tid};
use crate::kernel::Kernel;
use crate::signal::{GroupSignals, SigHand};
use crate::sync::WaitQueue;

/// Proof that the process tree lock is held.
#[derive(Debug)]
pub struct Tree(());

impl Tree {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

/// Guard of the process tree lock.
pub type TreeGuard<'a> = MutexGuard<'a, Tree>;

/// CPU time and fault counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    pub max_rss_bytes: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

impl Usage {
    /// Adds times and counts; takes the larger peak.
    pub fn add(&mut self, other: &Self) {
        self.user += other.user;
        self.system += other.system;
        self.max_rss_bytes = self.max_rss_bytes.max(other.max_rss_bytes);
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
    }
}

/// Relations of a process.
#[derive(Default)]
pub(crate) struct Links {
    pub parent: Weak<ThreadGroup>,
    pub children: Vec<Arc<ThreadGroup>>,
    pub process_group: Option<Arc<ProcessGroup>>,
    /// The task whose tid is the process id; stays until the process is
    /// reaped.
    pub leader: Option<Arc<Task>>,
    /// Tasks that have not exited.
    pub tasks: Vec<Arc<Task>>,
    /// What the leader exited with, while others go on.
    pub leader_status: Option<ExitStatus>,
    /// Set when the last task has exited.
    pub exited: Option<ExitStatus>,
    /// The task of the parent that made this process (`__WNOTHREAD`).
    pub creator: Tid,
}

/// A process: the tasks that share a thread group id.
pub struct ThreadGroup {
    pub kernel: Arc<Kernel>,
    pid: Arc<Pid>,
    pub(crate) links: Mutex<Links>,
    pub(crate) signals: Mutex<GroupSignals>,
    /// Tasks that tasks of this process trace.
    pub(crate) tracees: Mutex<Vec<Arc<Task>>>,
    sighand: RwLock<Arc<SigHand>>,
    limits: Mutex<Rlimits>,
    /// Told when a child changes state; `wait4` waits here.
    pub child_events: WaitQueue,
    /// Told when a thread of this process has exited.
    pub(crate) thread_exits: WaitQueue,
    /// Told when a signal becomes pending (signalfd).
    pub signal_arrivals: WaitQueue,
    /// Signal for the parent at exit; 0 for none, as `clone` set it.
    exit_signal: AtomicI32,
    pub(crate) subreaper: AtomicBool,
    /// Whether `execve` has been called since the process was made.
    pub(crate) did_exec: AtomicBool,
    /// Init of its pid namespace, and not killed by a fault: signals without
    /// a handler don't reach it.
    pub(crate) unkillable: AtomicBool,
    /// Usage of threads that have exited.
    pub(crate) dead_threads: Mutex<Usage>,
    /// Usage of children that were waited for.
    pub(crate) reaped: Mutex<Usage>,
    /// Sizes of address spaces that its tasks have left, and of those of
    /// children that were waited for.
    pub(crate) peaks: Mutex<Peaks>,
    pub(crate) reaped_peaks: Mutex<Peaks>,
    /// Time of creation since boot.
    pub start_time: Duration,
    pub oom_score_adj: AtomicI32,
    /// The container this process belongs to.
    pub container: Arc<str>,
    /// Bits of `/proc/PID/coredump_filter`.
    pub coredump_filter: AtomicU64,
    /// Interval timers, POSIX timers and whatever else belongs to a process
    /// as a whole and is owned by other modules.
    pub timers: crate::time::ProcessTimers,
}

/// What a new process takes over or is given.
pub(crate) struct NewGroup {
    pub kernel: Arc<Kernel>,
    pub pid: Arc<Pid>,
    pub sighand: Arc<SigHand>,
    pub limits: Rlimits,
    pub exit_signal: i32,
    pub container: Arc<str>,
    pub oom_score_adj: i32,
}

impl ThreadGroup {
    pub(crate) fn new(new: NewGroup) -> Arc<Self> {
        let start_time = new.kernel.clock.boottime();
        Arc::new(Self {
            kernel: new.kernel,
            pid: new.pid,
            links: Mutex::default(),
            signals: Mutex::default(),
            tracees: Mutex::default(),
            sighand: RwLock::new(new.sighand),
            limits: Mutex::new(new.limits),
            child_events: WaitQueue::new(),
            thread_exits: WaitQueue::new(),
            signal_arrivals: WaitQueue::new(),
            exit_signal: AtomicI32::new(new.exit_signal),
            subreaper: AtomicBool::new(false),
            did_exec: AtomicBool::new(false),
            unkillable: AtomicBool::new(false),
            dead_threads: Mutex::default(),
            reaped: Mutex::default(),
            peaks: Mutex::default(),
            reaped_peaks: Mutex::default(),
            start_time,
            oom_score_adj: AtomicI32::new(new.oom_score_adj),
            container: new.container,
            coredump_filter: AtomicU64::new(0x33),
            timers: crate::time::ProcessTimers::default(),
        })
    }

    /// The process id object.
    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }

    /// Process id in the root pid namespace of the sandbox.
    pub fn tgid(&self) -> Tid {
        self.pid.root_number()
    }

    /// Process id as `ns` sees it; 0 if it doesn't.
    pub fn id_in(&self, ns: &Arc<PidNamespace>) -> i32 {
        self.pid.number_in(ns)
    }

    /// The pid namespace this process is in.
    pub fn pid_ns(&self) -> &Arc<PidNamespace> {
        self.pid.namespace()
    }

    /// Whether this is process 1 of its pid namespace.
    pub fn is_namespace_init(&self) -> bool {
        self.pid
            .namespace()
            .init()
            .is_some_and(|init| std::ptr::eq(Arc::as_ptr(&init), self))
    }

    /// The task whose tid is the process id; `None` once reaped.
    pub fn leader(&self) -> Option<Arc<Task>> {
        self.links.lock().leader.clone()
    }

    /// The tasks that have not exited.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.links.lock().tasks.clone()
    }

    pub fn thread_count(&self) -> usize {
        self.links.lock().tasks.len()
    }

    pub fn parent(&self, _tree: &Tree) -> Option<Arc<ThreadGroup>> {
        self.links.lock().parent.upgrade()
    }

    /// The parent's process id as `ns` sees it; 0 without one or if it is
    /// not visible.
    pub fn parent_id_in(&self, ns: &Arc<PidNamespace>) -> i32 {
        let parent = self.links.lock().parent.upgrade();
        parent.map_or(0, |parent| parent.id_in(ns))
    }

    /// Children, zombies included.
    pub fn children(&self, _tree: &Tree) -> Vec<Arc<ThreadGroup>> {
        self.links.lock().children.clone()
    }

    /// The process group; `None` only once reaped.
    pub fn process_group(&self) -> Option<Arc<ProcessGroup>> {
        self.links.lock().process_group.clone()
    }

    pub fn session(&self) -> Option<Arc<Session>> {
        let group = self.process_group()?;
        Some(group.session().clone())
    }

    pub fn is_session_leader(&self) -> bool {
        self.session()
            .is_some_and(|session| Arc::ptr_eq(session.pid(), &self.pid))
    }

    /// Outcome, once the last task has exited.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.links.lock().exited
    }

    /// Whether all tasks have exited (reaped or not).
    pub fn is_zombie(&self) -> bool {
        self.links.lock().exited.is_some()
    }

    /// Whether the process is stopped by job control.
    pub fn is_stopped(&self) -> bool {
        self.signals.lock().stop.is_complete()
    }

    pub fn exit_signal(&self) -> Option<Signal> {
        Signal::from_raw(self.exit_signal.load(Ordering::Relaxed))
    }

    pub(crate) fn set_exit_signal(&self, signal: Option<Signal>) {
        self.exit_signal
            .store(signal.map_or(0, Signal::raw), Ordering::Relaxed);
    }

    /// The table of signal actions.
    pub fn sighand(&self) -> Arc<SigHand> {
        self.sighand.read().clone()
    }

    pub(crate) fn set_sighand(&self, sighand: Arc<SigHand>) {
        *self.sighand.write() = sighand;
    }

    /// A copy of all limits.
    pub fn limits(&self) -> Rlimits {
        *self.limits.lock()
    }

    /// The soft limit of one resource.
    pub fn limit(&self, resource: u32) -> u64 {
        self.limits.lock().soft(resource)
    }

    /// Changes limits under their lock.
    pub fn with_limits<T>(&self, change: impl FnOnce(&mut Rlimits) -> T) -> T {
        change(&mut self.limits.lock())
    }

    /// CPU time of live and dead threads.
    pub fn usage(&self) -> Usage {
        let mut usage = *self.dead_threads.lock();
        for task in self.tasks() {
            usage.add(&task.usage());
        }
        usage
    }

    /// Sizes that count for who waits for this process.
    pub(crate) fn all_peaks(&self) -> Peaks {
        let mut peaks = self.peaks.lock().clone();
        peaks.merge(&self.reaped_peaks.lock());
        peaks
    }

    /// Usage of children that were waited for.
    pub fn children_usage(&self) -> Usage {
        *self.reaped.lock()
    }

    /// Makes this process a member of `group`, leaving its old one.
    pub(crate) fn join_process_group(self: &Arc<Self>, _tree: &Tree, group: Arc<ProcessGroup>) {
        group.add(self);
        let old = self.links.lock().process_group.replace(group);
        if let Some(old) = old {
            old.remove(self);
        }
    }

    /// Makes `parent` this process's parent; the caller takes it from the
    /// old parent's list.
    pub(crate) fn set_parent(self: &Arc<Self>, _tree: &Tree, parent: &Arc<ThreadGroup>) {
        self.links.lock().parent = Arc::downgrade(parent);
        parent.links.lock().children.push(self.clone());
    }

    pub(crate) fn remove_child(&self, _tree: &Tree, child: &Arc<ThreadGroup>) {
        self.links
            .lock()
            .children
            .retain(|other| !Arc::ptr_eq(other, child));
    }
}
