//! The kernel of one sandbox: what all its tasks share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sentry_platform::executor::Executor;
use sentry_platform::host::inet::HostNetwork;
use sentry_platform::host::system::System;
use sentry_platform::{
    AddressSpace, BoxFuture, CopyFault, GuestThread, MemError, MemOp, Nursery, Platform,
};
use syscall_tables::Errno;

use crate::futex::FutexTable;
use crate::limits::LimitTable;
use crate::mm::MemoryManager;
use crate::net::Net;
use crate::sync::{Events, WaitQueue};
use crate::task::{
    PidNamespace, Task, ThreadGroup, Tree, Uid, UserNamespace, UtsNames, UtsNamespace, Work,
};
use crate::time::Clock;
use crate::vfs::Vfs;

/// How bad a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Info,
    Warning,
}

/// Takes the kernel's log lines.
pub trait LogSink: Send + Sync {
    /// Whether lines of `level` are wanted: expensive ones are only made then.
    fn enabled(&self, level: LogLevel) -> bool;

    fn log(&self, level: LogLevel, line: fmt::Arguments<'_>);
}

/// A sink for those who don't want a log.
pub struct NoLog;

impl LogSink for NoLog {
    fn enabled(&self, _level: LogLevel) -> bool {
        false
    }

    fn log(&self, _level: LogLevel, _line: fmt::Arguments<'_>) {}
}

/// What the sandbox is started with.
pub struct KernelConfig {
    pub platform: Arc<dyn Platform>,
    pub executor: Executor,
    /// Host name of the initial UTS namespace.
    pub hostname: Vec<u8>,
    /// CPUs that guests see.
    pub cpus: usize,
    /// Memory that guests see, in bytes.
    pub memory_bytes: u64,
    pub log: Arc<dyn LogSink>,
    /// Log each system call.
    pub strace: bool,
    /// What `/proc` says about the host; opened before the lock-down.
    pub host: System,
    /// In host network mode, the host's network.
    pub network: Option<HostNetwork>,
}

/// Kernel release that `uname` reports.
pub const RELEASE: &str = "6.12.0";
/// Kernel version string that `uname` reports.
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC runsc";

/// Inode number of the network namespace that all containers of the sandbox
/// start in.
pub const ROOT_NET_ID: u64 = 0xEFFF_FFFB;

/// One per sandbox, shared by all tasks and threads of the sentry.
pub struct Kernel {
    pub platform: Arc<dyn Platform>,
    pub executor: Executor,
    pub clock: Clock,
    pub log: Arc<dyn LogSink>,
    pub cpus: usize,
    pub memory_bytes: u64,
    pub strace: bool,
    pub host: System,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    pub vfs: Vfs,
    pub net: Arc<Net>,
    /// Who waits for words of guest memory.
    pub futexes: FutexTable,
    /// The process tree lock: see [`crate::task::ThreadGroup`].
    pub tree: Mutex<Tree>,
    /// The pid namespace that sees all tasks of the sandbox.
    pub root_pid_ns: Arc<PidNamespace>,
    pub initial_uts: Arc<UtsNamespace>,
    /// Counts by real uid.
    pub users: Users,
    /// What limits each container.
    pub limits: LimitTable,
    /// What tasks that have exited have for memory.
    pub(crate) dead_mm: Arc<MemoryManager>,
    next_namespace_id: AtomicU64,
    /// Where stubs of containers come from that have a cgroup of their own.
    nurseries: Mutex<BTreeMap<String, Arc<dyn Nursery>>>,
    /// Number of the next login session.
    next_login: AtomicU32,
    /// Ids of the containers that are held.
    frozen: Mutex<BTreeSet<String>>,
    thawed: WaitQueue,
    /// Told when any process without a parent in the sandbox has ended.
    pub(crate) ends: WaitQueue,
}

impl Kernel {
    pub fn new(config: KernelConfig) -> Result<Arc<Self>, Errno> {
        let user_ns = UserNamespace::initial();
        let names = UtsNames {
            host: config.hostname,
            domain: b"(none)".to_vec(),
        };
        let vfs = Vfs::new();
        vfs.set_memory_bytes(config.memory_bytes);
        Ok(Arc::new(Self {
            platform: config.platform,
            executor: config.executor,
            clock: Clock::default(),
            log: config.log,
            cpus: config.cpus.max(1),
            memory_bytes: config.memory_bytes,
            strace: config.strace,
            host: config.host,
            boot_id: crate::fs::proc::new_boot_id()?,
            vfs,
            net: Arc::new(Net::new(ROOT_NET_ID, config.network)),
            futexes: FutexTable::new(),
            tree: Mutex::new(Tree::new()),
            root_pid_ns: PidNamespace::new(0xEFFF_FFFC, None, user_ns.clone())?,
            initial_uts: UtsNamespace::new(0xEFFF_FFFE, user_ns, names),
            users: Users::default(),
            limits: LimitTable::default(),
            dead_mm: Arc::new(MemoryManager::new(
                Arc::new(DeadSpace),
                0..0,
                crate::mm::Layout::default(),
            )),
            next_namespace_id: AtomicU64::new(0xF000_0000),
            nurseries: Mutex::default(),
            next_login: AtomicU32::new(1),
            frozen: Mutex::default(),
            thawed: WaitQueue::new(),
            ends: WaitQueue::new(),
        }))
    }

    /// An inode number for a new namespace.
    pub fn new_namespace_id(&self) -> u64 {
        self.next_namespace_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of a new login session.
    pub fn next_login(&self) -> u32 {
        self.next_login.fetch_add(1, Ordering::Relaxed)
    }

    pub fn log(&self, level: LogLevel, line: fmt::Arguments<'_>) {
        if self.log.enabled(level) {
            self.log.log(level, line);
        }
    }

    /// A fresh address space for a program of a container.
    pub(crate) async fn new_space(&self, container: &str) -> Result<Arc<dyn AddressSpace>, Errno> {
        let nursery = self.nurseries.lock().get(container).cloned();
        match nursery {
            Some(nursery) => nursery.new_space().await,
            None => self.platform.new_space().await,
        }
    }

    /// Has a process made of which all stubs of a container will be copies;
    /// answers its pid as the sentry sees it.
    pub async fn add_nursery(&self, container: &str) -> Result<i32, Errno> {
        let nursery = self.platform.new_nursery().await?;
        let pid = nursery.pid();
        self.nurseries.lock().insert(container.to_owned(), nursery);
        Ok(pid)
    }

    pub(crate) fn remove_nursery(&self, container: &str) {
        let nursery = self.nurseries.lock().remove(container);
        drop(nursery);
    }

    /// Stops all tasks of a container before they run guest code again.
    pub fn freeze(&self, container: &str) {
        self.frozen.lock().insert(container.to_owned());
        for (_, task) in self.root_pid_ns.tasks() {
            if &*task.group.container == container {
                task.add_work(Work::FREEZE);
            }
        }
    }

    /// Undoes [`Self::freeze`].
    pub fn thaw(&self, container: &str) {
        self.frozen.lock().remove(container);
        self.thawed.notify(Events::READABLE);
    }

    pub fn is_frozen(&self, container: &str) -> bool {
        self.frozen.lock().contains(container)
    }

    /// Holds a task while its container is paused; a killed one goes on.
    pub(crate) async fn wait_for_thaw(&self, task: &Arc<Task>) {
        task.clear_work(Work::FREEZE);
        let mut subscription = None;
        std::future::poll_fn(|cx| {
            if subscription.is_none() {
                let waker = Arc::new(cx.waker().clone());
                subscription = Some(self.thawed.subscribe(Events::READABLE, waker));
            }
            if !self.is_frozen(&task.group.container) || task.has_work(cx, Work::KILL) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Makes the sizes of all address spaces known, to be awaited before
    /// [`Self::memory_used_bytes`].
    pub async fn measure_all(&self) {
        let mut seen = std::collections::HashSet::new();
        for (_, task) in self.root_pid_ns.tasks() {
            let mm = task.mm();
            if seen.insert(mm.id()) {
                self.measure(&mm).await;
            }
        }
    }

    /// Makes the size of one known. A stub that does not react is left out.
    pub async fn measure(&self, mm: &MemoryManager) {
        let deadline = Instant::now() + Duration::from_millis(100);
        self.within(deadline, mm.space.measure()).await;
    }

    /// The result of `work`, if it comes in time.
    pub(crate) async fn within<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = pin!(work);
        let mut timer = pin!(None);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if timer.is_none() {
                timer.set(Some(self.executor.sleep_until(deadline)));
            }
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(cx).map(|()| None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Memory that guests have in use, in bytes.
    pub fn memory_used_bytes(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let mut used = 0_u64;
        for (_, task) in self.root_pid_ns.tasks() {
            let mm = task.mm();
            if seen.insert(mm.id()) {
                used = used.saturating_add(mm.space.resident_bytes());
            }
        }
        used
    }

    /// Called when the last task of a process has exited.
    pub(crate) fn process_ended(&self, group: &Arc<ThreadGroup>) {
        let _ = group;
        self.ends.notify(Events::READABLE);
    }
}

/// Counts that limits by real uid need.
#[derive(Default)]
pub struct Users {
    queued_signals: Mutex<HashMap<Uid, Arc<AtomicU64>>>,
    tasks: Mutex<HashMap<Uid, Arc<AtomicU64>>>,
}

impl Users {
    /// How many signals are queued for tasks of `uid`.
    pub fn queued_signals(&self, uid: Uid) -> Arc<AtomicU64> {
        self.queued_signals.lock().entry(uid).or_default().clone()
    }

    /// How many tasks `uid` has (`RLIMIT_NPROC`).
    pub fn tasks(&self, uid: Uid) -> Arc<AtomicU64> {
        self.tasks.lock().entry(uid).or_default().clone()
    }
}

/// The address space of tasks that have exited: nothing is there.
pub(crate) struct DeadSpace;

impl AddressSpace for DeadSpace {
    fn apply<'a>(&'a self, _ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>> {
        let gone = MemError {
            index: 0,
            errno: Errno::ESRCH,
        };
        Box::pin(async move { Err(gone) })
    }

    fn read<'a>(&'a self, _addr: u64, _dst: &'a mut [u8]) -> BoxFuture<'a, Result<(), CopyFault>> {
        Box::pin(async { Err(CopyFault { copied: 0 }) })
    }

    fn write<'a>(&'a self, _addr: u64, _src: &'a [u8]) -> BoxFuture<'a, Result<(), CopyFault>> {
        Box::pin(async { Err(CopyFault { copied: 0 }) })
    }

    fn new_thread(&self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        Box::pin(async { Err(Errno::ESRCH) })
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn kill(&self) {}
}
