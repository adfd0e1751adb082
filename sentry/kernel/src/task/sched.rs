//! Scheduling attributes: kept and answered, not acted on (the host kernel
//! schedules guest threads).

use syscall_tables::abi::SCHED_OTHER;

/// What the scheduling calls of a task have set.
#[derive(Clone, Debug)]
pub struct SchedState {
    pub nice: i32,
    pub policy: u32,
    pub rt_priority: u32,
    pub reset_on_fork: bool,
    /// CPUs the task may run on, one bit each, lowest first.
    pub affinity: Vec<u64>,
    pub io_priority: u32,
}

impl SchedState {
    /// Normal policy on all of `cpus` CPUs.
    pub fn new(cpus: usize) -> Self {
        Self {
            nice: 0,
            policy: SCHED_OTHER,
            rt_priority: 0,
            reset_on_fork: false,
            affinity: cpu_mask(cpus),
            io_priority: 0,
        }
    }

    /// What a child inherits.
    pub fn for_child(&self) -> Self {
        let mut child = self.clone();
        if child.reset_on_fork {
            child.reset_on_fork = false;
            child.policy = SCHED_OTHER;
            child.rt_priority = 0;
            child.nice = child.nice.max(0);
        }
        child
    }
}

/// A mask with the lowest `cpus` bits set.
pub fn cpu_mask(cpus: usize) -> Vec<u64> {
    let mut mask = vec![u64::MAX; cpus / 64];
    if !cpus.is_multiple_of(64) {
        mask.push((1 << (cpus % 64)) - 1);
    }
    mask
}
