//! A platform without guest code, for unit tests of the kernel.
//!
//! Guest memory lives in this process, and a test plays the guest: it takes a
//! [`FakeGuest`] for each thread and feeds it traps.
//!
//! ```
//! use sentry_platform::{Platform, Trap, executor::block_on, fake::FakePlatform};
//! # use std::task::Poll;
//! let platform = FakePlatform::new();
//! let space = block_on(platform.new_space()).expect("fake spaces always start");
//! let mut thread = block_on(space.new_thread()).expect("fake threads always start");
//! let guest = platform.try_next_guest().expect("the thread above");
//! let call = guest.queue_syscall(39, [0; 6]);
//! // What the kernel's task loop does:
//! assert_eq!(block_on(std::future::poll_fn(|cx| thread.poll_run(cx))), Trap::Syscall);
//! thread.regs_mut().rax = 7;
//! let waker = std::task::Waker::noop();
//! let again = thread.poll_run(&mut std::task::Context::from_waker(waker));
//! assert_eq!(again, Poll::Pending);
//! assert_eq!(block_on(call).map(|regs| regs.rax), Some(7));
//! ```
//!
//! Shared file mappings go to the file by pread and pwrite at each access;
//! private ones read the file at the first access of a page, as Linux does.

mod guest;
mod memory;
mod thread;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use syscall_tables::Errno;

use crate::traits::{
    AddressSpace, BoxFuture, CopyFault, GuestThread, MemError, MemOp, Nursery, Platform, VdsoImage,
};

pub use guest::{FakeGuest, PendingTrap};
use memory::Memory;
use thread::FakeThread;

/// Size of the vector state: the legacy FXSAVE area and the XSAVE header.
const VECTOR_STATE_LEN_BYTES: usize = 576;

/// x87 and SSE.
const VECTOR_STATE_FEATURES: u64 = 3;

/// See the module documentation.
pub struct FakePlatform {
    guests: Arc<Guests>,
}

/// Guests that no test has taken yet.
#[derive(Default)]
struct Guests {
    queue: Mutex<(VecDeque<FakeGuest>, Option<Waker>)>,
}

impl Guests {
    fn announce(&self, guest: FakeGuest) {
        let waker = {
            let mut queue = self.queue.lock();
            queue.0.push_back(guest);
            queue.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl FakePlatform {
    /// A platform without address spaces.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            guests: Arc::default(),
        })
    }

    /// The other side of the next thread that the kernel makes by
    /// `new_thread`, `clone_thread` or `fork`, in the order of their making.
    pub async fn next_guest(&self) -> FakeGuest {
        std::future::poll_fn(|cx| {
            let mut queue = self.guests.queue.lock();
            match queue.0.pop_front() {
                Some(guest) => Poll::Ready(guest),
                None => {
                    queue.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// As [`Self::next_guest`] if there is one already.
    pub fn try_next_guest(&self) -> Option<FakeGuest> {
        self.guests.queue.lock().0.pop_front()
    }
}

impl Platform for FakePlatform {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn guest_range(&self) -> Range<u64> {
        memory::GUEST_RANGE
    }

    fn vector_state_len_bytes(&self) -> usize {
        VECTOR_STATE_LEN_BYTES
    }

    fn vector_state_features(&self) -> u64 {
        VECTOR_STATE_FEATURES
    }

    fn vdso(&self) -> Option<&VdsoImage> {
        None
    }

    fn new_space(&self) -> BoxFuture<'_, Result<Arc<dyn AddressSpace>, Errno>> {
        let space: Arc<dyn AddressSpace> = FakeSpace::new(self.guests.clone(), Memory::default());
        Box::pin(std::future::ready(Ok(space)))
    }

    fn new_nursery(&self) -> BoxFuture<'_, Result<Arc<dyn Nursery>, Errno>> {
        let nursery: Arc<dyn Nursery> = Arc::new(FakeNursery(self.guests.clone()));
        Box::pin(std::future::ready(Ok(nursery)))
    }
}

struct FakeNursery(Arc<Guests>);

impl Nursery for FakeNursery {
    fn pid(&self) -> i32 {
        0
    }

    fn new_space(&self) -> BoxFuture<'_, Result<Arc<dyn AddressSpace>, Errno>> {
        let space: Arc<dyn AddressSpace> = FakeSpace::new(self.0.clone(), Memory::default());
        Box::pin(std::future::ready(Ok(space)))
    }
}

/// A fake address space: memory, and whether it has been killed.
struct FakeSpace {
    memory: Mutex<Memory>,
    guests: Arc<Guests>,
    threads: Mutex<(bool, Vec<FakeGuest>)>,
    this: std::sync::Weak<Self>,
}

impl FakeSpace {
    fn new(guests: Arc<Guests>, memory: Memory) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            memory: Mutex::new(memory),
            guests,
            threads: Mutex::default(),
            this: this.clone(),
        })
    }

    /// A thread with the state of `like`, announced to the test.
    fn add_thread(self: &Arc<Self>, like: Option<&FakeThread>) -> Box<dyn GuestThread> {
        let guest = FakeGuest::new();
        let is_killed = {
            let mut threads = self.threads.lock();
            threads.1.push(guest.clone());
            threads.0
        };
        if is_killed {
            guest.kill();
        }
        self.guests.announce(guest.clone());
        Box::new(FakeThread::new(self.clone(), guest, like))
    }
}

impl AddressSpace for FakeSpace {
    fn apply<'a>(&'a self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>> {
        Box::pin(std::future::ready(self.memory.lock().apply(ops)))
    }

    fn read<'a>(&'a self, addr: u64, dst: &'a mut [u8]) -> BoxFuture<'a, Result<(), CopyFault>> {
        Box::pin(std::future::ready(self.memory.lock().read(addr, dst)))
    }

    fn write<'a>(&'a self, addr: u64, src: &'a [u8]) -> BoxFuture<'a, Result<(), CopyFault>> {
        Box::pin(std::future::ready(self.memory.lock().write(addr, src)))
    }

    fn new_thread(&self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>> {
        let thread = self
            .this
            .upgrade()
            .map(|this| this.add_thread(None))
            .ok_or(Errno::ESRCH);
        Box::pin(std::future::ready(thread))
    }

    fn resident_bytes(&self) -> u64 {
        self.memory.lock().resident_bytes()
    }

    fn kill(&self) {
        let threads = {
            let mut threads = self.threads.lock();
            threads.0 = true;
            threads.1.clone()
        };
        for thread in threads {
            thread.kill();
        }
    }
}

#[cfg(test)]
mod tests;
