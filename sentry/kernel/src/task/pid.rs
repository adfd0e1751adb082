//! Pid objects: the identity of a task, process group or session, with a
//! number in each pid namespace that can see it.
//!
//! Locks: `Pid::links` before a namespace's `state`; both are leaves
//! otherwise.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use smallvec::SmallVec;
use syscall_tables::Errno;

use super::{ProcessGroup, Session, Task, ThreadGroup, Tid, UserNamespace};
use crate::sync::WaitQueue;

/// Largest pid plus one (`/proc/sys/kernel/pid_max`), as the kernel picks it
/// for machines with at most 32 CPUs.
pub const PID_MAX: i32 = 32768;

/// Numbers below this are not used again after the counter wrapped.
const RESERVED_PIDS: i32 = 300;

/// How deep pid namespaces nest at most.
const MAX_LEVEL: usize = 32;

/// A pid namespace.
pub struct PidNamespace {
    /// Inode number of `/proc/PID/ns/pid`.
    pub id: u64,
    pub parent: Option<Arc<PidNamespace>>,
    pub level: usize,
    pub user_ns: Arc<UserNamespace>,
    /// Told when a process here has ended or is reaped.
    pub changed: WaitQueue,
    state: Mutex<PidNsState>,
}

struct PidNsState {
    numbers: BTreeMap<i32, Weak<Pid>>,
    last: i32,
    init: Weak<ThreadGroup>,
    /// Set once the namespace's init is exiting: nothing new may start.
    dying: bool,
}

impl PidNamespace {
    /// A namespace below `parent` (`None`: the root of the sandbox).
    pub fn new(
        id: u64,
        parent: Option<Arc<Self>>,
        user_ns: Arc<UserNamespace>,
    ) -> Result<Arc<Self>, Errno> {
        let level = parent.as_ref().map_or(0, |parent| parent.level + 1);
        if level > MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        Ok(Arc::new(Self {
            id,
            parent,
            level,
            user_ns,
            changed: WaitQueue::new(),
            state: Mutex::new(PidNsState {
                numbers: BTreeMap::new(),
                last: 0,
                init: Weak::new(),
                dying: false,
            }),
        }))
    }

    /// The pid object with this number here.
    pub fn pid(&self, number: i32) -> Option<Arc<Pid>> {
        let pid = self.state.lock().numbers.get(&number)?.upgrade()?;
        Some(pid)
    }

    /// The task with this thread id here.
    pub fn task(&self, tid: i32) -> Option<Arc<Task>> {
        self.pid(tid)?.task()
    }

    /// The process whose leader has this id here.
    pub fn process(&self, pid: i32) -> Option<Arc<ThreadGroup>> {
        let task = self.task(pid)?;
        task.is_leader().then(|| task.group.clone())
    }

    /// The process group with this id here.
    pub fn process_group(&self, pgid: i32) -> Option<Arc<ProcessGroup>> {
        self.pid(pgid)?.process_group()
    }

    /// All tasks visible here, in the order of their thread ids.
    pub fn tasks(&self) -> Vec<(i32, Arc<Task>)> {
        let pids: Vec<(i32, Arc<Pid>)> = {
            let state = self.state.lock();
            let live = state.numbers.iter();
            live.filter_map(|(number, pid)| Some((*number, pid.upgrade()?)))
                .collect()
        };
        pids.into_iter()
            .filter_map(|(number, pid)| Some((number, pid.task()?)))
            .collect()
    }

    /// All processes visible here, zombies included, by their ids.
    pub fn processes(&self) -> Vec<(i32, Arc<ThreadGroup>)> {
        let tasks = self.tasks().into_iter();
        tasks
            .filter(|(_, task)| task.is_leader())
            .map(|(number, task)| (number, task.group.clone()))
            .collect()
    }

    /// The number given out last, for `/proc/loadavg`.
    pub fn last_pid(&self) -> i32 {
        self.state.lock().last
    }

    /// Process 1 of this namespace while it lives.
    pub fn init(&self) -> Option<Arc<ThreadGroup>> {
        self.state.lock().init.upgrade()
    }

    pub(crate) fn set_init(&self, init: &Arc<ThreadGroup>) {
        self.state.lock().init = Arc::downgrade(init);
    }

    /// Lets nothing new start here.
    pub(crate) fn begin_death(&self) {
        self.state.lock().dying = true;
    }

    pub fn is_dying(&self) -> bool {
        self.state.lock().dying
    }

    /// Whether `self` is `other` or one of its ancestors.
    pub fn contains(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let mut at = Some(other);
        while let Some(ns) = at {
            if Arc::ptr_eq(self, ns) {
                return true;
            }
            at = ns.parent.as_ref();
        }
        false
    }

    fn allocate(&self, pid: &Weak<Pid>, wanted: Option<i32>) -> Result<i32, Errno> {
        let mut state = self.state.lock();
        if state.dying {
            return Err(Errno::ENOMEM);
        }
        let number = match wanted {
            Some(number) => {
                if number <= 0 || number >= PID_MAX {
                    return Err(Errno::EINVAL);
                }
                if state.numbers.contains_key(&number) {
                    return Err(Errno::EEXIST);
                }
                number
            }
            None => {
                let number = state.next_free().ok_or(Errno::EAGAIN)?;
                state.last = number;
                number
            }
        };
        state.numbers.insert(number, pid.clone());
        Ok(number)
    }

    fn release(&self, number: i32) {
        self.state.lock().numbers.remove(&number);
    }
}

impl PidNsState {
    fn next_free(&self) -> Option<i32> {
        let start = self.last + 1;
        let first = if start >= PID_MAX {
            RESERVED_PIDS
        } else {
            start
        };
        let low_end = if first > RESERVED_PIDS {
            first
        } else {
            PID_MAX
        };
        let mut upper = first..PID_MAX;
        let mut lower = RESERVED_PIDS..low_end;
        upper
            .find(|number| !self.numbers.contains_key(number))
            .or_else(|| lower.find(|number| !self.numbers.contains_key(number)))
    }
}

#[derive(Default)]
struct PidLinks {
    task: Option<Arc<Task>>,
    process_group: Weak<ProcessGroup>,
    session: Weak<Session>,
    /// How many of task, process group and session hold the numbers.
    holders: u32,
}

/// An identity. Its numbers stay taken while a task, a process group or a
/// session has it.
pub struct Pid {
    /// Namespace and number there, root namespace first.
    numbers: SmallVec<[(Arc<PidNamespace>, i32); 2]>,
    links: Mutex<PidLinks>,
    /// Told when the process with this id becomes a zombie (pidfds).
    pub exited: WaitQueue,
    /// Inode number of pidfds.
    pub inode: u64,
}

static NEXT_PID_INODE: AtomicU64 = AtomicU64::new(1);

impl Pid {
    /// A fresh identity in `ns` and its ancestors. `wanted` are numbers for
    /// the innermost namespaces, innermost first (`clone3`'s `set_tid`).
    pub fn allocate(ns: &Arc<PidNamespace>, wanted: &[i32]) -> Result<Arc<Self>, Errno> {
        let mut chain: SmallVec<[Arc<PidNamespace>; 2]> = SmallVec::new();
        let mut at = Some(ns.clone());
        while let Some(ns) = at {
            at = ns.parent.clone();
            chain.push(ns);
        }
        let mut failure = None;
        let pid = Arc::new_cyclic(|weak| {
            let mut numbers = SmallVec::new();
            for (depth, ns) in chain.iter().enumerate() {
                match ns.allocate(weak, wanted.get(depth).copied()) {
                    Ok(number) => numbers.push((ns.clone(), number)),
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            numbers.reverse();
            Self {
                numbers,
                links: Mutex::default(),
                exited: WaitQueue::new(),
                inode: NEXT_PID_INODE.fetch_add(1, Ordering::Relaxed),
            }
        });
        match failure {
            None => Ok(pid),
            Some(error) => {
                pid.release_numbers();
                Err(error)
            }
        }
    }

    /// Gives the numbers back of an identity that nobody got.
    pub(crate) fn discard(&self) {
        self.release_numbers();
    }

    fn release_numbers(&self) {
        for (ns, number) in &self.numbers {
            ns.release(*number);
        }
    }

    /// The number in `ns`; 0 if it is not visible there.
    pub fn number_in(&self, ns: &Arc<PidNamespace>) -> i32 {
        match self.numbers.get(ns.level) {
            Some((own, number)) if Arc::ptr_eq(own, ns) => *number,
            _ => 0,
        }
    }

    /// The number in the root namespace of the sandbox.
    pub fn root_number(&self) -> Tid {
        Tid(self.numbers.first().map_or(0, |(_, number)| *number))
    }

    /// The innermost namespace, the one whose member this is.
    pub fn namespace(&self) -> &Arc<PidNamespace> {
        let (ns, _) = self
            .numbers
            .last()
            .expect("an allocated pid has a number in at least one namespace");
        ns
    }

    /// The number in the innermost namespace.
    pub fn number(&self) -> i32 {
        self.numbers.last().map_or(0, |(_, number)| *number)
    }

    /// Numbers from `ns` inwards, for `NSpid` of `/proc/PID/status`.
    pub fn numbers_from(&self, ns: &Arc<PidNamespace>) -> Vec<i32> {
        let visible = self.numbers.iter().skip(ns.level);
        visible.map(|(_, number)| *number).collect()
    }

    /// The task that has this id, until it is reaped.
    pub fn task(&self) -> Option<Arc<Task>> {
        self.links.lock().task.clone()
    }

    pub fn process_group(&self) -> Option<Arc<ProcessGroup>> {
        self.links.lock().process_group.upgrade()
    }

    pub fn session(&self) -> Option<Arc<Session>> {
        self.links.lock().session.upgrade()
    }

    /// Makes `task` the one with this id, in place of whoever had it.
    pub(crate) fn attach_task(&self, task: Arc<Task>) {
        let mut links = self.links.lock();
        if links.task.replace(task).is_none() {
            links.holders += 1;
        }
    }

    pub(crate) fn detach_task(&self) {
        let task = {
            let mut links = self.links.lock();
            let task = links.task.take();
            if task.is_some() {
                self.drop_holder(&mut links);
            }
            task
        };
        drop(task);
    }

    pub(crate) fn attach_process_group(&self, group: Weak<ProcessGroup>) {
        let mut links = self.links.lock();
        links.process_group = group;
        links.holders += 1;
    }

    pub(crate) fn attach_session(&self, session: Weak<Session>) {
        let mut links = self.links.lock();
        links.session = session;
        links.holders += 1;
    }

    /// A process group or session with this id is gone.
    pub(crate) fn detach_holder(&self) {
        self.drop_holder(&mut self.links.lock());
    }

    fn drop_holder(&self, links: &mut PidLinks) {
        links.holders = links.holders.saturating_sub(1);
        if links.holders == 0 {
            self.release_numbers();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Arc<PidNamespace> {
        PidNamespace::new(1, None, UserNamespace::initial()).expect("root namespace")
    }

    #[test]
    fn numbers_are_per_namespace_and_not_reused_at_once() {
        let outer = root();
        let inner =
            PidNamespace::new(2, Some(outer.clone()), UserNamespace::initial()).expect("child");
        let first = Pid::allocate(&outer, &[]).expect("first");
        let second = Pid::allocate(&inner, &[]).expect("second");
        assert_eq!(first.number_in(&outer), 1);
        assert_eq!(first.number_in(&inner), 0);
        assert_eq!(second.number_in(&outer), 2);
        assert_eq!(second.number_in(&inner), 1);
        assert_eq!(second.number(), 1);
        second.attach_session(Weak::new());
        second.detach_holder();
        assert!(outer.pid(2).is_none());
        assert_eq!(
            Pid::allocate(&outer, &[]).expect("third").root_number().0,
            3
        );
    }

    #[test]
    fn wanted_numbers_are_honoured_or_refused() {
        let outer = root();
        let pid = Pid::allocate(&outer, &[77]).expect("free");
        assert_eq!(pid.number(), 77);
        assert_eq!(Pid::allocate(&outer, &[77]).err(), Some(Errno::EEXIST));
        assert_eq!(Pid::allocate(&outer, &[0]).err(), Some(Errno::EINVAL));
        assert_eq!(Pid::allocate(&outer, &[]).expect("next").number(), 1);
    }
}
