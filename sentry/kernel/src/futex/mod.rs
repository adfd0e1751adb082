//! Futexes: waiting for a word of guest memory.
//!
//! The word itself is only touched through the calling thread
//! ([`Ctx::atomic`]), which takes an await; so no lock is held while it is
//! looked at. A waiter enters the queue first and looks at the word then: a
//! change of the word is followed by a wake, which finds the waiter queued.
//! A waiter that finds another value than it expects leaves again, and if a
//! wake has hit it meanwhile it passes that on.
//!
//! Locks: bucket (two of them in order of their index), then a waiter's place,
//! then a parker's waker; all leaves for the rest of the kernel.
//!
//! | file | holds |
//! |---|---|
//! | `table.rs` | [`FutexTable`]: queues of waiters by key |
//! | `wait.rs` | waiting with time-out and signals |
//! | `pi.rs` | locks that the kernel hands over (`FUTEX_LOCK_PI`) |
//! | `robust.rs` | what an exiting thread leaves behind |

mod pi;
mod robust;
mod table;
#[cfg(test)]
mod tests;
mod wait;

pub use pi::{PiTable, lock_pi, trylock_pi, unlock_pi};
pub use robust::leave;
pub use table::{FutexKey, FutexTable, Waiter};
pub use wait::{WaitOn, wait, wait_any};

use syscall_tables::Errno;

use crate::ctx::Ctx;
use crate::mm::MemoryManager;

/// Whether a futex is used by one address space only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Private,
    /// Perhaps by several: the mapping tells.
    Shared,
}

/// The key of the futex word at `addr`.
pub fn key(mm: &MemoryManager, addr: u64, scope: Scope) -> Result<FutexKey, Errno> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if addr >= mm.guest_range().end {
        return Err(Errno::EFAULT);
    }
    let private = FutexKey::Private { mm: mm.id(), addr };
    match scope {
        Scope::Private => Ok(private),
        Scope::Shared => Ok(match mm.futex_object(addr)? {
            Some((object, offset)) => FutexKey::Shared { object, offset },
            None => private,
        }),
    }
}

/// Wakes up to `count` waiters of the word at `addr` in the caller's memory.
pub fn wake(
    ctx: &Ctx<'_>,
    addr: u64,
    scope: Scope,
    count: usize,
    bitset: u32,
) -> Result<usize, Errno> {
    let key = key(&ctx.task.mm(), addr, scope)?;
    Ok(ctx.kernel.futexes.wake(&key, count, bitset))
}
