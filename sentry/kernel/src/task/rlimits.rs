//! Resource limits of a process.

use syscall_tables::abi::{
    RLIM_INFINITY, RLIM_NLIMITS, RLIMIT_CORE, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE,
    RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RTPRIO, RLIMIT_SIGPENDING, RLIMIT_STACK, Rlimit,
};

/// All limits, by `RLIMIT_*` number.
#[derive(Clone, Copy, Debug)]
pub struct Rlimits([Rlimit; RLIM_NLIMITS]);

impl Default for Rlimits {
    /// What a Linux init of a machine with some GiB of memory has.
    fn default() -> Self {
        let mut limits = Self(
            [Rlimit {
                rlim_cur: RLIM_INFINITY,
                rlim_max: RLIM_INFINITY,
            }; RLIM_NLIMITS],
        );
        limits.put(RLIMIT_STACK, 8 << 20, RLIM_INFINITY);
        limits.put(RLIMIT_CORE, 0, RLIM_INFINITY);
        limits.put(RLIMIT_NPROC, 63_000, 63_000);
        limits.put(RLIMIT_NOFILE, 1024, 1_048_576);
        limits.put(RLIMIT_MEMLOCK, 8 << 20, 8 << 20);
        limits.put(RLIMIT_SIGPENDING, 63_000, 63_000);
        limits.put(RLIMIT_MSGQUEUE, 819_200, 819_200);
        limits.put(RLIMIT_NICE, 0, 0);
        limits.put(RLIMIT_RTPRIO, 0, 0);
        limits
    }
}

impl Rlimits {
    fn put(&mut self, resource: u32, soft: u64, hard: u64) {
        self.set(
            resource,
            Rlimit {
                rlim_cur: soft,
                rlim_max: hard,
            },
        );
    }

    /// `None` for an unknown resource.
    pub fn get(&self, resource: u32) -> Option<Rlimit> {
        self.0.get(usize::try_from(resource).ok()?).copied()
    }

    /// The soft limit; no limit for an unknown resource.
    pub fn soft(&self, resource: u32) -> u64 {
        self.get(resource)
            .map_or(RLIM_INFINITY, |limit| limit.rlim_cur)
    }

    /// Sets a limit without checks; unknown resources are ignored.
    pub fn set(&mut self, resource: u32, limit: Rlimit) {
        let index = usize::try_from(resource).unwrap_or(usize::MAX);
        if let Some(slot) = self.0.get_mut(index) {
            *slot = limit;
        }
    }
}
