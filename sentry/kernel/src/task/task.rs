//! One guest thread.
//!
//! The hand-over between a task and those who want its attention: they set a
//! bit of `work` and then look whether it runs guest code or waits; the task
//! publishes that it is about to do so and then looks at `work`. Both sides
//! are sequentially consistent, so one of them sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bitflags::bitflags;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use sentry_platform::ThreadHandle;
use syscall_tables::Errno;
use syscall_tables::abi::{RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK};

use super::ptrace::{Trace, TraceFlags};
use super::sched::SchedState;
use super::seccomp::Seccomp;
use super::{
    CapSet, Creds, ExitStatus, Login, Namespaces, Pid, PidNamespace, ThreadGroup, Tid, Usage,
};
use crate::kernel::Kernel;
use crate::mm::{Limits, MemoryManager};
use crate::signal::TaskSignals;
use crate::sync::WaitQueue;
use crate::vfs::{FdTable, FsContextRef};

bitflags! {
    /// What a task has to see to before it runs guest code again. Any of
    /// them ends an interruptible wait.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Work: u32 {
        /// A signal that is not blocked may be pending.
        const SIGNAL = 1;
        /// The process is to stop.
        const STOP = 2;
        /// The task must exit.
        const KILL = 4;
        /// A tracer wants it to stop.
        const TRACE = 8;
        /// The sandbox is paused.
        const FREEZE = 16;
    }
}

/// What a task is doing, as `/proc/PID/stat` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Running,
    Sleeping,
    Stopped,
    Traced,
    Zombie,
}

impl RunState {
    /// The letter of `/proc/PID/stat`.
    pub const fn letter(self) -> char {
        match self {
            Self::Running => 'R',
            Self::Sleeping => 'S',
            Self::Stopped => 'T',
            Self::Traced => 't',
            Self::Zombie => 'Z',
        }
    }
}

/// A call that was interrupted and goes on by `restart_syscall(2)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestartBlock {
    pub number: u64,
    pub deadline: Option<Instant>,
}

/// A guest thread as others see it. Its host thread belongs to the future
/// that runs it.
pub struct Task {
    pub group: Arc<ThreadGroup>,
    pid: RwLock<Arc<Pid>>,
    creds: RwLock<Arc<Creds>>,
    files: RwLock<Arc<FdTable>>,
    fs: RwLock<FsContextRef>,
    mm: RwLock<Arc<MemoryManager>>,
    namespaces: RwLock<Arc<Namespaces>>,
    comm: RwLock<Vec<u8>>,
    handle: RwLock<Arc<dyn ThreadHandle>>,
    work: AtomicU32,
    in_guest: AtomicBool,
    /// The executor's waker while the task waits in a system call.
    waker: Mutex<Option<Waker>>,
    waiting: AtomicBool,
    stopped: AtomicBool,
    exited: AtomicBool,
    leaving: AtomicBool,
    /// What `exit(2)` of this task alone said.
    pub(crate) own_exit: Mutex<Option<ExitStatus>>,
    /// Number of the call in progress plus one; 0 outside.
    call: AtomicU64,
    pub(crate) signals: Mutex<TaskSignals>,
    /// Mirrors `TaskSignals::saved_mask` for the hot path.
    pub(crate) mask_saved: AtomicBool,
    /// Where to store 0 and wake a futex at exit (`CLONE_CHILD_CLEARTID`).
    pub clear_child_tid: AtomicU64,
    /// Head of the robust futex list and its length, as given.
    pub robust_list: AtomicU64,
    pub pdeath_signal: AtomicI32,
    pub seccomp: Seccomp,
    pub(crate) trace: Mutex<Trace>,
    trace_flags: AtomicU8,
    trace_stopped: AtomicBool,
    /// Told when a request to the stopped tracee is answered.
    pub(crate) trace_answers: WaitQueue,
    /// How the task ended, for a tracer that waits for it.
    pub(crate) ended: Mutex<Option<ExitStatus>>,
    pub(crate) restart: Mutex<Option<RestartBlock>>,
    restarted: Mutex<Option<Option<Instant>>>,
    pub(crate) sched: Mutex<SchedState>,
    pub personality: AtomicU32,
    pub timer_slack_ns: AtomicU64,
    pub(crate) login: Mutex<Login>,
    /// Time of creation since boot.
    pub start_time: Duration,
    /// CPU time of guest threads this task had before an `execve`.
    past_cpu: Mutex<Duration>,
    /// A parent in `vfork(2)` waits here until this task execs or exits.
    pub(crate) vfork_done: Mutex<Option<Arc<VforkDone>>>,
}

/// Tells a `vfork` parent to go on.
#[derive(Default)]
pub(crate) struct VforkDone {
    pub done: AtomicBool,
    pub queue: WaitQueue,
}

/// What a new task takes over or is given.
pub(crate) struct NewTask {
    pub pid: Arc<Pid>,
    pub group: Arc<ThreadGroup>,
    pub creds: Arc<Creds>,
    pub files: Arc<FdTable>,
    pub fs: FsContextRef,
    pub mm: Arc<MemoryManager>,
    pub namespaces: Arc<Namespaces>,
    pub comm: Vec<u8>,
    pub handle: Arc<dyn ThreadHandle>,
    pub signals: TaskSignals,
    pub sched: SchedState,
    pub personality: u32,
    pub timer_slack_ns: u64,
    pub login: Login,
    pub seccomp: Seccomp,
}

impl Task {
    pub(crate) fn new(new: NewTask) -> Arc<Self> {
        let start_time = new.group.kernel.clock.boottime();
        let tasks = new.group.kernel.users.tasks(new.creds.uid);
        tasks.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            group: new.group,
            pid: RwLock::new(new.pid),
            creds: RwLock::new(new.creds),
            files: RwLock::new(new.files),
            fs: RwLock::new(new.fs),
            mm: RwLock::new(new.mm),
            namespaces: RwLock::new(new.namespaces),
            comm: RwLock::new(new.comm),
            handle: RwLock::new(new.handle),
            work: AtomicU32::new(0),
            in_guest: AtomicBool::new(false),
            waker: Mutex::default(),
            waiting: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            exited: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            own_exit: Mutex::default(),
            mask_saved: AtomicBool::new(false),
            call: AtomicU64::new(0),
            signals: Mutex::new(new.signals),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            pdeath_signal: AtomicI32::new(0),
            seccomp: new.seccomp,
            trace: Mutex::default(),
            trace_flags: AtomicU8::new(0),
            trace_stopped: AtomicBool::new(false),
            trace_answers: WaitQueue::new(),
            ended: Mutex::default(),
            restart: Mutex::default(),
            restarted: Mutex::default(),
            sched: Mutex::new(new.sched),
            personality: AtomicU32::new(new.personality),
            timer_slack_ns: AtomicU64::new(new.timer_slack_ns),
            login: Mutex::new(new.login),
            start_time,
            past_cpu: Mutex::default(),
            vfork_done: Mutex::default(),
        })
    }

    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.group.kernel
    }

    /// The thread id object; changes only when `execve` makes this task the
    /// leader.
    pub fn pid(&self) -> Arc<Pid> {
        self.pid.read().clone()
    }

    pub(crate) fn set_pid(&self, pid: Arc<Pid>) {
        *self.pid.write() = pid;
    }

    /// Thread id in the root pid namespace of the sandbox.
    pub fn tid(&self) -> Tid {
        self.pid.read().root_number()
    }

    /// Thread id as `ns` sees it; 0 if it doesn't.
    pub fn tid_in(&self, ns: &Arc<PidNamespace>) -> i32 {
        self.pid.read().number_in(ns)
    }

    /// The pid namespace this task is in.
    pub fn pid_ns(&self) -> Arc<PidNamespace> {
        self.pid.read().namespace().clone()
    }

    /// Whether its tid is the process id.
    pub fn is_leader(&self) -> bool {
        Arc::ptr_eq(&self.pid.read(), self.group.pid())
    }

    pub fn creds(&self) -> Arc<Creds> {
        self.creds.read().clone()
    }

    /// As [`Self::creds`], for a short look without an await.
    pub fn creds_ref(&self) -> RwLockReadGuard<'_, Arc<Creds>> {
        self.creds.read()
    }

    pub fn set_creds(&self, creds: Creds) {
        let uid = creds.uid;
        let old = std::mem::replace(&mut *self.creds.write(), Arc::new(creds));
        if old.uid != uid {
            let users = &self.kernel().users;
            users.tasks(uid).fetch_add(1, Ordering::Relaxed);
            users.tasks(old.uid).fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn files(&self) -> Arc<FdTable> {
        self.files.read().clone()
    }

    /// As [`Self::files`], for a short look without an await.
    pub fn files_ref(&self) -> RwLockReadGuard<'_, Arc<FdTable>> {
        self.files.read()
    }

    /// Replaces the descriptor table; the old one is answered, so that it is
    /// dropped outside the lock.
    pub fn set_files(&self, files: Arc<FdTable>) -> Arc<FdTable> {
        std::mem::replace(&mut self.files.write(), files)
    }

    pub fn fs(&self) -> FsContextRef {
        self.fs.read().clone()
    }

    /// As [`Self::fs`], for a short look without an await.
    pub fn fs_ref(&self) -> RwLockReadGuard<'_, FsContextRef> {
        self.fs.read()
    }

    pub fn set_fs(&self, fs: FsContextRef) -> FsContextRef {
        std::mem::replace(&mut self.fs.write(), fs)
    }

    /// The address space; that of a task that has exited is empty and dead.
    pub fn mm(&self) -> Arc<MemoryManager> {
        self.mm.read().clone()
    }

    pub(crate) fn set_mm(&self, mm: Arc<MemoryManager>) -> Arc<MemoryManager> {
        std::mem::replace(&mut self.mm.write(), mm)
    }

    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.read().clone()
    }

    pub fn set_namespaces(&self, namespaces: Namespaces) {
        *self.namespaces.write() = Arc::new(namespaces);
    }

    /// The command name, at most 15 bytes.
    pub fn comm(&self) -> Vec<u8> {
        self.comm.read().clone()
    }

    /// Sets the command name, cut at 15 bytes or the first NUL.
    pub fn set_comm(&self, name: &[u8]) {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = name.get(..15).unwrap_or(name);
        *self.comm.write() = name.to_vec();
    }

    /// Handle of the current guest thread.
    pub fn handle(&self) -> Arc<dyn ThreadHandle> {
        self.handle.read().clone()
    }

    /// `execve` runs the task on another guest thread.
    pub(crate) fn set_handle(&self, handle: Arc<dyn ThreadHandle>) {
        let old = std::mem::replace(&mut *self.handle.write(), handle);
        *self.past_cpu.lock() += old.cpu_time();
    }

    /// CPU time of guest code of this thread.
    pub fn cpu_time(&self) -> Duration {
        *self.past_cpu.lock() + self.handle().cpu_time()
    }

    pub fn usage(&self) -> Usage {
        Usage {
            user: self.cpu_time(),
            max_rss_bytes: self.mm().space.peak_bytes(),
            ..Usage::default()
        }
    }

    /// Limits on memory that the task is subject to.
    pub fn memory_limits(&self) -> Limits {
        let limits = self.group.limits();
        let may_lock = self.creds().has(CapSet::IPC_LOCK);
        Limits {
            address_space: limits.soft(RLIMIT_AS),
            data: limits.soft(RLIMIT_DATA),
            stack: limits.soft(RLIMIT_STACK),
            locked: if may_lock {
                u64::MAX
            } else {
                limits.soft(RLIMIT_MEMLOCK)
            },
        }
    }

    /// Nice value, -20 to 19.
    pub fn nice(&self) -> i32 {
        self.sched.lock().nice
    }

    /// Number of the system call in progress.
    pub fn current_call(&self) -> Option<u64> {
        self.call.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(crate) fn enter_call(&self, number: u64) {
        self.call.store(number.saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn leave_call(&self) {
        self.call.store(0, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) {
            self.waiting.store(false, Ordering::Relaxed);
            self.waker.lock().take();
        }
    }

    pub fn run_state(&self) -> RunState {
        if self.exited.load(Ordering::Relaxed) {
            RunState::Zombie
        } else if self.trace_stopped.load(Ordering::Relaxed) {
            RunState::Traced
        } else if self.stopped.load(Ordering::Relaxed) {
            RunState::Stopped
        } else if self.waiting.load(Ordering::Relaxed) {
            RunState::Sleeping
        } else {
            RunState::Running
        }
    }

    pub(crate) fn set_stopped(&self, stopped: bool) {
        self.stopped.store(stopped, Ordering::Relaxed);
    }

    pub fn has_exited(&self) -> bool {
        self.exited.load(Ordering::Acquire)
    }

    /// Whether the task is on its way out: it takes no more signals.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    pub(crate) fn set_leaving(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_exited(&self) {
        self.exited.store(true, Ordering::Release);
    }

    /// Whether a wait has to end because a signal is to be delivered or the
    /// task is to stop or die. Registers the waiter to be woken when that
    /// becomes so.
    pub fn has_interrupt(&self, cx: &mut Context<'_>) -> bool {
        self.has_work(cx, Work::all())
    }

    /// As [`Self::has_interrupt`], for waits that only death ends.
    pub fn has_fatal(&self, cx: &mut Context<'_>) -> bool {
        self.has_work(cx, Work::KILL)
    }

    pub(crate) fn has_work(&self, cx: &mut Context<'_>, kinds: Work) -> bool {
        {
            let mut waker = self.waker.lock();
            match &mut *waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        self.waiting.store(true, Ordering::SeqCst);
        self.work().intersects(kinds)
    }

    /// Work to be seen to.
    pub fn work(&self) -> Work {
        Work::from_bits_truncate(self.work.load(Ordering::SeqCst))
    }

    /// Sets bits of work and gets the task's attention, wherever it is.
    pub fn add_work(&self, work: Work) {
        self.work.fetch_or(work.bits(), Ordering::SeqCst);
        self.kick();
    }

    /// Sets bits of the task's own work.
    pub(crate) fn add_work_quietly(&self, work: Work) {
        self.work.fetch_or(work.bits(), Ordering::SeqCst);
    }

    pub(crate) fn clear_work(&self, work: Work) {
        self.work.fetch_and(!work.bits(), Ordering::SeqCst);
    }

    /// Wakes the task where it waits, or interrupts its guest code.
    pub(crate) fn kick(&self) {
        if self.in_guest.load(Ordering::SeqCst) {
            self.handle().interrupt();
        }
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Publishes that guest code is about to run; `false` if there is work.
    pub(crate) fn enter_guest(&self) -> bool {
        self.in_guest.store(true, Ordering::SeqCst);
        if self.work.load(Ordering::SeqCst) == 0 {
            return true;
        }
        self.in_guest.store(false, Ordering::Relaxed);
        false
    }

    pub(crate) fn leave_guest(&self) {
        self.in_guest.store(false, Ordering::Relaxed);
    }

    /// Whether the task must exit.
    pub fn is_killed(&self) -> bool {
        self.work().contains(Work::KILL)
    }

    /// For a handler whose relative time-out must not start anew when the
    /// call is restarted: remembers the absolute one. Return the error.
    pub fn restart_at(&self, deadline: Option<Instant>) -> Errno {
        if let Some(number) = self.current_call() {
            *self.restart.lock() = Some(RestartBlock { number, deadline });
        }
        Errno::ERESTART_RESTARTBLOCK
    }

    /// The deadline given to [`Self::restart_at`], if this call is the
    /// restart of an interrupted one.
    pub fn restarted_deadline(&self) -> Option<Option<Instant>> {
        self.restarted.lock().take()
    }

    pub(crate) fn set_restarted(&self, deadline: Option<Option<Instant>>) {
        *self.restarted.lock() = deadline;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let uid = self.creds.get_mut().uid;
        let tasks = self.group.kernel.users.tasks(uid);
        tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tracing of the task by another.
impl Task {
    /// Whether another guest process traces this task.
    pub fn is_traced(&self) -> bool {
        self.trace_flags().contains(TraceFlags::TRACED)
    }

    /// What the tracer wants.
    pub(crate) fn trace_flags(&self) -> TraceFlags {
        TraceFlags::from_bits_truncate(self.trace_flags.load(Ordering::Relaxed))
    }

    pub(crate) fn set_trace_flags(&self, flags: TraceFlags) {
        self.trace_flags.store(flags.bits(), Ordering::Relaxed);
    }

    pub(crate) fn set_trace_stopped(&self, stopped: bool) {
        self.trace_stopped.store(stopped, Ordering::Relaxed);
    }

    /// The tracer, while it lives.
    pub fn tracer(&self) -> Option<Arc<Task>> {
        self.trace.lock().tracer()
    }

    /// Whether a signal that dumps core sets the core bit of the wait status:
    /// no core file is written, so it never does.
    pub(crate) fn may_dump_core(&self) -> bool {
        false
    }
}
