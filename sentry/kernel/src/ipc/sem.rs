//! Semaphore sets.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use syscall_tables::Errno;
use syscall_tables::abi::{IPC_NOWAIT, SEM_UNDO, SEMVMX, Sembuf, SemidDs};

use super::{IpcNamespace, Object, Perm, now};
use crate::sync::{Events, WaitQueue};
use crate::task::{Creds, Pid, PidNamespace, Tid};

/// Highest value of a semaphore.
const MAX_VALUE: i32 = SEMVMX as i32;

#[derive(Clone, Default)]
struct Sem {
    value: i32,
    /// Who changed it last.
    pid: Option<Arc<Pid>>,
    /// Tasks that wait for it to grow, and for it to become 0.
    waiting_more: u32,
    waiting_zero: u32,
}

struct State {
    perm: Perm,
    sems: Vec<Sem>,
    operation_time: i64,
    change_time: i64,
    is_removed: bool,
    /// What to add to each semaphore when a process ends.
    undo: HashMap<Tid, Vec<i32>>,
}

/// A set of semaphores.
pub struct SemSet {
    state: Mutex<State>,
    /// Told of every change.
    changed: WaitQueue,
}

impl Object for SemSet {
    fn with_perm<T>(&self, look: impl FnOnce(&mut Perm) -> T) -> T {
        look(&mut self.state.lock().perm)
    }
}

impl IpcNamespace {
    /// `semget(2)`.
    pub fn semget(&self, key: i32, count: i32, flags: u32, creds: &Creds) -> Result<i32, Errno> {
        let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
        if count as u64 > self.settings.semmsl.get() {
            return Err(Errno::EINVAL);
        }
        let fits = |set: &SemSet| {
            if count > set.state.lock().sems.len() {
                return Err(Errno::EINVAL);
            }
            Ok(())
        };
        let make = |perm| {
            if count == 0 {
                return Err(Errno::EINVAL);
            }
            Ok(Arc::new(SemSet {
                state: Mutex::new(State {
                    perm,
                    sems: vec![Sem::default(); count],
                    operation_time: 0,
                    change_time: now(),
                    is_removed: false,
                    undo: HashMap::new(),
                }),
                changed: WaitQueue::new(),
            }))
        };
        let most = self.settings.semmni.get();
        self.sem
            .get_or_make(key, flags, creds, &self.user_ns, most, fits, make)
    }
}

/// The operation a caller of `semop` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    sem: usize,
    for_zero: bool,
}

impl SemSet {
    pub fn changed(&self) -> &WaitQueue {
        &self.changed
    }

    pub fn len(&self) -> usize {
        self.state.lock().sems.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tries all operations or none. `EAGAIN` with the operation that would
    /// have to wait; `nowait` tells whether that one said `IPC_NOWAIT`.
    pub fn operate(
        &self,
        operations: &[Sembuf],
        pid: &Arc<Pid>,
    ) -> Result<(), (Errno, Option<Blocked>)> {
        let process = pid.root_number();
        let mut state = self.state.lock();
        if state.is_removed {
            return Err((Errno::EIDRM, None));
        }
        let mut values: Vec<(usize, i32)> = Vec::with_capacity(operations.len());
        let mut undos: Vec<(usize, i32)> = Vec::new();
        for operation in operations {
            let index = usize::from(operation.sem_num);
            let sem = state.sems.get(index).ok_or((Errno::EFBIG, None))?;
            let known = values.iter().rev().find(|(at, _)| *at == index);
            let current = known.map_or(sem.value, |(_, value)| *value);
            let delta = i32::from(operation.sem_op);
            let next = current + delta;
            if delta == 0 && current != 0 || next < 0 {
                let blocked = Blocked {
                    sem: index,
                    for_zero: delta == 0,
                };
                let nowait = u32::from(operation.sem_flg) & IPC_NOWAIT != 0;
                return Err((Errno::EAGAIN, (!nowait).then_some(blocked)));
            }
            if next > MAX_VALUE {
                return Err((Errno::ERANGE, None));
            }
            if operation.sem_flg & SEM_UNDO != 0 && delta != 0 {
                let earlier: i32 = undos
                    .iter()
                    .filter(|(at, _)| *at == index)
                    .map(|(_, undo)| undo)
                    .sum();
                let kept = state.undo.get(&process).and_then(|undo| undo.get(index));
                let undo = kept.copied().unwrap_or(0) + earlier - delta;
                if undo.abs() > MAX_VALUE {
                    return Err((Errno::ERANGE, None));
                }
                undos.push((index, -delta));
            }
            values.push((index, next));
        }
        let changed = operations.iter().any(|operation| operation.sem_op != 0);
        for (index, value) in values {
            if let Some(sem) = state.sems.get_mut(index) {
                sem.value = value;
                sem.pid = Some(pid.clone());
            }
        }
        if !undos.is_empty() {
            let count = state.sems.len();
            let own = state.undo.entry(process).or_insert_with(|| vec![0; count]);
            for (index, undo) in undos {
                if let Some(entry) = own.get_mut(index) {
                    *entry += undo;
                }
            }
        }
        state.operation_time = now();
        drop(state);
        if changed {
            self.changed.notify(Events::OUT);
        }
        Ok(())
    }

    /// Counts a waiter for `GETNCNT` and `GETZCNT` until the guard is
    /// dropped.
    pub fn waiting(self: &Arc<Self>, blocked: Blocked) -> Waiting {
        self.count_waiter(blocked, 1);
        Waiting {
            set: self.clone(),
            blocked,
        }
    }

    fn count_waiter(&self, blocked: Blocked, by: i32) {
        let mut state = self.state.lock();
        if let Some(sem) = state.sems.get_mut(blocked.sem) {
            let count = if blocked.for_zero {
                &mut sem.waiting_zero
            } else {
                &mut sem.waiting_more
            };
            *count = count.saturating_add_signed(by);
        }
    }

    /// Adds back what a process that has ended took.
    pub fn undo(&self, pid: &Arc<Pid>) {
        let mut state = self.state.lock();
        let Some(undo) = state.undo.remove(&pid.root_number()) else {
            return;
        };
        for (sem, undo) in state.sems.iter_mut().zip(undo) {
            if undo != 0 {
                sem.value = (sem.value + undo).clamp(0, MAX_VALUE);
                sem.pid = Some(pid.clone());
            }
        }
        state.operation_time = now();
        drop(state);
        self.changed.notify(Events::OUT);
    }

    /// `IPC_RMID`: waiters get `EIDRM`.
    pub fn remove(&self) {
        self.state.lock().is_removed = true;
        self.changed.notify(Events::OUT);
    }

    /// `IPC_SET`.
    pub fn set(&self, new: &SemidDs, creds: &Creds) -> Result<(), Errno> {
        let mut state = self.state.lock();
        state.perm.set(&new.sem_perm, creds)?;
        state.change_time = now();
        Ok(())
    }

    /// `IPC_STAT`.
    pub fn stat(&self, creds: &Creds) -> SemidDs {
        let state = self.state.lock();
        SemidDs {
            sem_perm: state.perm.abi(creds),
            sem_otime: state.operation_time,
            sem_ctime: state.change_time,
            sem_nsems: state.sems.len() as u64,
            ..SemidDs::default()
        }
    }

    /// `GETALL`.
    pub fn values(&self) -> Vec<u16> {
        let state = self.state.lock();
        let value = |sem: &Sem| u16::try_from(sem.value).unwrap_or(u16::MAX);
        state.sems.iter().map(value).collect()
    }

    /// `SETALL`: as many values as there are semaphores; undos are forgotten.
    pub fn set_values(&self, values: &[u16], pid: &Arc<Pid>) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.is_removed {
            return Err(Errno::EIDRM);
        }
        if values.iter().any(|value| i32::from(*value) > MAX_VALUE) {
            return Err(Errno::ERANGE);
        }
        for (sem, value) in state.sems.iter_mut().zip(values) {
            sem.value = i32::from(*value);
            sem.pid = Some(pid.clone());
        }
        state.undo.clear();
        state.change_time = now();
        drop(state);
        self.changed.notify(Events::OUT);
        Ok(())
    }

    /// `SETVAL`.
    pub fn set_value(&self, index: i32, value: i32, pid: &Arc<Pid>) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.is_removed {
            return Err(Errno::EIDRM);
        }
        if !(0..=MAX_VALUE).contains(&value) {
            return Err(Errno::ERANGE);
        }
        let index = usize::try_from(index).map_err(|_| Errno::EINVAL)?;
        let sem = state.sems.get_mut(index).ok_or(Errno::EINVAL)?;
        sem.value = value;
        sem.pid = Some(pid.clone());
        for undo in state.undo.values_mut() {
            if let Some(entry) = undo.get_mut(index) {
                *entry = 0;
            }
        }
        state.change_time = now();
        drop(state);
        self.changed.notify(Events::OUT);
        Ok(())
    }

    fn with_sem<T>(&self, index: i32, look: impl FnOnce(&Sem) -> T) -> Result<T, Errno> {
        let state = self.state.lock();
        let index = usize::try_from(index).map_err(|_| Errno::EINVAL)?;
        state.sems.get(index).map(look).ok_or(Errno::EINVAL)
    }

    /// `GETVAL`.
    pub fn value(&self, index: i32) -> Result<i32, Errno> {
        self.with_sem(index, |sem| sem.value)
    }

    /// `GETPID`.
    pub fn last_pid(&self, index: i32, pids: &Arc<PidNamespace>) -> Result<i32, Errno> {
        self.with_sem(index, |sem| super::number(sem.pid.as_ref(), pids))
    }

    /// `GETNCNT`.
    pub fn waiting_more(&self, index: i32) -> Result<u32, Errno> {
        self.with_sem(index, |sem| sem.waiting_more)
    }

    /// `GETZCNT`.
    pub fn waiting_zero(&self, index: i32) -> Result<u32, Errno> {
        self.with_sem(index, |sem| sem.waiting_zero)
    }
}

/// A counted waiter of a semaphore.
pub struct Waiting {
    set: Arc<SemSet>,
    blocked: Blocked,
}

impl Waiting {
    /// What it waits for.
    pub fn blocked(&self) -> Blocked {
        self.blocked
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.set.count_waiter(self.blocked, -1);
    }
}
