//! How many calls have come without a signal, by program.
//!
//! Lock: the table of programs, a leaf, taken once for each program of a space.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::ProgramCalls;

/// Programs that are told apart; further ones count as one.
const MAX_PROGRAMS: usize = 256;
const OTHERS: &str = "(others)";
/// Fast calls that a thread counts before it tells.
const FLUSH: u32 = 256;

/// Calls of one program.
#[derive(Debug, Default)]
pub(super) struct Counts {
    fast: AtomicU64,
    trapped: AtomicU64,
}

/// Calls of all programs.
#[derive(Default)]
pub(super) struct Programs(Mutex<BTreeMap<String, Arc<Counts>>>);

impl Programs {
    /// The counts of a program.
    pub(super) fn get(&self, name: &[u8]) -> Arc<Counts> {
        let mut programs = self.0.lock();
        let name = String::from_utf8_lossy(name);
        // The name is the guest's, and is printed.
        let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        if let Some(counts) = programs.get(&name) {
            return counts.clone();
        }
        let name = if programs.len() < MAX_PROGRAMS {
            name
        } else {
            OTHERS.to_owned()
        };
        programs.entry(name).or_default().clone()
    }

    pub(super) fn all(&self) -> Vec<ProgramCalls> {
        let programs = self.0.lock();
        let calls = programs.iter().map(|(name, counts)| ProgramCalls {
            program: name.clone(),
            fast: counts.fast.load(Ordering::Relaxed),
            trapped: counts.trapped.load(Ordering::Relaxed),
        });
        calls.collect()
    }
}

/// Calls of one thread that its program was not told of yet.
#[derive(Default)]
pub(super) struct Recent {
    fast: u32,
}

impl Recent {
    /// Counts a call that came by a trampoline; says whether it is time for
    /// [`Self::flush`].
    pub(super) fn add(&mut self) -> bool {
        self.fast += 1;
        self.fast >= FLUSH
    }

    /// Tells what has come up to now, and `trapped` calls by signals.
    pub(super) fn flush(&mut self, counts: &Counts, trapped: u64) {
        let fast = std::mem::take(&mut self.fast);
        counts.fast.fetch_add(fast.into(), Ordering::Relaxed);
        counts.trapped.fetch_add(trapped, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_bounded() {
        let programs = Programs::default();
        for index in 0..2 * MAX_PROGRAMS {
            let counts = programs.get(format!("p{index}\n").as_bytes());
            Recent::default().flush(&counts, 1);
        }
        let all = programs.all();
        assert_eq!(all.len(), MAX_PROGRAMS + 1);
        assert_eq!(all[0].program, OTHERS);
        assert_eq!(all[0].trapped, u64::try_from(MAX_PROGRAMS).expect("small"));
        assert_eq!(all[1].program, "p0");
    }
}
