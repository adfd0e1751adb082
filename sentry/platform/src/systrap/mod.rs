//! The systrap platform: guest code runs in ordinary host processes (*stubs*)
//! whose every system call is turned into a signal by seccomp and handed to
//! the sentry through shared memory.
//!
//! | file | holds |
//! |---|---|
//! | `../stub/` | the stub binary: boot, control loop, trap handlers (assembly) |
//! | [`layout`] | the memory layout both sides agree on |
//! | `zygote.rs` | starts the first stub, of which all others are copies |
//! | `pool.rs` | what is made ahead of its use |
//! | `stub.rs` | one stub process: fork, app threads, reaping |
//! | `control.rs` | batches of host calls for the control thread |
//! | `context.rs` | the hand-over with one app thread |
//! | `hub.rs` | polling, bells, sleeping |
//! | `watchdog.rs` | the end of stubs that do not react |
//! | `thread.rs`, `space.rs` | [`crate::GuestThread`], [`crate::AddressSpace`] |
//! | `patch/` | call sites that jump to the stub |
//! | `hints.rs` | what calls read and write, for stubs to fetch |
//! | `calls.rs` | how calls have come, by program |
//! | `memop.rs` | memory operations as host calls |
//! | `put_off.rs` | mappings of files that wait until they are touched |
//! | `open.rs` | files below `/proc` that stubs open for the sentry |
//! | `filter.rs` | the seccomp filter |
//! | `xstate.rs` | vector state |
//! | `vdso.rs` | the guest's vDSO, onto the host's |
//! | `shared.rs`, `sys.rs` | shared memory and host calls |
//!
//! Trust: everything a stub can write is a claim. It is read once, checked,
//! and believed only as far as a lie would hurt nobody but that guest.
//!
//! Locks, in order: `Stub::threads`, hub cells, wakers. The turn of a control
//! thread is held across awaits and taken before any of them.

mod calls;
mod context;
mod control;
mod filter;
mod hints;
mod hub;
#[expect(dead_code, reason = "the stub's half of the constants")]
#[path = "../stub/layout.rs"]
mod layout;
mod memop;
mod open;
mod patch;
mod pool;
mod put_off;
mod shared;
mod space;
mod stub;
mod sys;
mod thread;
mod transfer;
mod vdso;
mod views;
mod watchdog;
mod xstate;
mod zygote;

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use syscall_tables::Errno;

use crate::executor::HotSource;
use crate::{AddressSpace, BoxFuture, Nursery, Platform, ProgramCalls, VdsoImage};
use hub::Hub;
use layout as l;
use shared::{Executable, SharedMap};
use space::SystrapSpace;
use stub::Machine;
use zygote::Zygote;

pub use filter::MemoryCalls;
pub use patch::Patching;
pub(crate) use shared::move_bytes;

/// Host system calls that the sentry's half makes after start-up, beside
/// those of the executor (futex, epoll) and the allocator. The source for the
/// sentry's own seccomp list.
pub const HOST_SYSCALLS: &[i64] = &[
    // Hand-over and sleep.
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    // Shared memory and socket of a new stub.
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_fallocate,
    // Texts to patch.
    libc::SYS_fstat,
    libc::SYS_pwrite64,
    libc::SYS_socketpair,
    libc::SYS_setsockopt,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_close,
    // Interrupting, killing, reaping.
    libc::SYS_tgkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_waitid,
    libc::SYS_epoll_ctl,
    // CPU time, resident size.
    libc::SYS_clock_gettime,
    libc::SYS_pread64,
];

/// Choices of a platform.
#[derive(Debug)]
pub struct Options {
    pub memory_calls: MemoryCalls,
    pub patching: Patching,
    /// Stubs kept ready.
    pub pool_size: usize,
    /// The host's `/proc`. Without it nobody knows how much memory a stub
    /// uses, and what a guest may only read can't be shared with it.
    pub proc: Option<OwnedFd>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_calls: MemoryCalls::AppThread,
            patching: Patching::On,
            pool_size: 2,
            proc: None,
        }
    }
}

/// See the module documentation.
pub struct Systrap {
    machine: Arc<Machine>,
    zygote: Zygote,
    vdso: Option<VdsoImage>,
}

/// How long an app thread spins before it sleeps, depending on what it has met.
const APP_SPIN_MAX_US: u64 = 40;
const APP_SPIN_MIN_US: u64 = 1;
/// A wait up to this long, with the wake-up in it, would have been shorter had
/// the thread spun.
const APP_SPIN_WORTH_US: u64 = 60;
/// A spinning thread that sees this much time pass at once was not running. On
/// a busy machine it then does not spin for a while: who it waits for needs the
/// CPU, and the scheduler gives less of it to those who have wasted theirs
/// (measured: six times slower hand-offs).
const SPIN_GAP_US: u64 = 25;
const SPIN_PAUSE_US: u64 = 100_000;
/// How long a control thread spins after a batch.
const CONTROL_SPIN_US: u64 = 20;

impl Systrap {
    /// Starts the zygote. To be called from a thread that lives as long as the
    /// platform: stubs die with the thread that has started their zygote.
    ///
    /// # Errors
    /// `ENODEV` if the CPU lacks XSAVE or FSGSBASE; what the host says if it
    /// refuses memfds, seccomp filters or processes.
    pub fn new(options: Options) -> Result<Arc<Self>, Errno> {
        let vector = xstate::VectorLayout::detect()?;
        let filter = filter::stub(options.memory_calls);
        let global_fd = shared::memfd(c"stub-global", l::GLOBAL_LEN, Executable::No)?;
        let global = SharedMap::new(global_fd.as_fd(), l::GLOBAL_LEN, shared::SEAL_CONTENT)?;
        let us = ticks_per_us();
        global.store(l::G_APP_SPIN_MAX, us * APP_SPIN_MAX_US);
        global.store(l::G_APP_SPIN_MIN, us * APP_SPIN_MIN_US);
        global.store(l::G_APP_SPIN_WORTH, us * APP_SPIN_WORTH_US);
        global.store(l::G_CONTROL_SPIN, us * CONTROL_SPIN_US);
        global.store(l::G_SPIN_GAP, us * SPIN_GAP_US);
        global.store(l::G_SPIN_PAUSE, us * SPIN_PAUSE_US);
        global.store(l::G_XFEATURES, vector.features);
        let hints = hints::Hints::new();
        hints.publish(&global);
        put_filter(
            &global,
            l::G_CONTROL_FPROG,
            l::G_CONTROL_FILTER..l::G_HINTS,
            &filter,
        );
        open::put_orders(&global);
        let global = Arc::new(global);

        let hub = Hub::new(global.clone());
        let weak_hub = Arc::downgrade(&hub);
        std::thread::Builder::new()
            .name("systrap-watch".to_owned())
            .spawn(move || Hub::watch(&weak_hub))?;
        let machine = Machine::new(hub, vector, hints, options)?;
        let zygote = zygote::start(&machine, global_fd.as_fd())?;
        vdso::fill_table(&global, zygote.vdso);

        let filler = (machine.pool.clone(), zygote.stub.clone());
        std::thread::Builder::new()
            .name("systrap-pool".to_owned())
            .spawn(move || filler.0.fill(&filler.1))?;
        Ok(Arc::new(Self {
            machine,
            zygote,
            vdso: Some(vdso::image()?),
        }))
    }

    /// What an executor has to poll.
    pub fn hot_source(&self) -> Arc<dyn HotSource> {
        self.machine.hub.clone()
    }

    async fn space(&self) -> Result<Arc<dyn AddressSpace>, Errno> {
        let stub = match self.machine.pool.take_stub() {
            Some(stub) => stub,
            None => pool::fresh(&self.zygote.stub).await?,
        };
        Ok(SystrapSpace::new(stub))
    }
}

impl Drop for Systrap {
    fn drop(&mut self) {
        self.machine.pool.close();
        self.zygote.stub.kill();
        self.machine.hub.close();
        self.machine.watchdog.close();
    }
}

impl Platform for Systrap {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn guest_range(&self) -> Range<u64> {
        memop::GUEST_START..l::STUB_BASE
    }

    fn vector_state_len_bytes(&self) -> usize {
        self.machine.vector.len
    }

    fn vector_state_features(&self) -> u64 {
        self.machine.vector.features
    }

    fn vdso(&self) -> Option<&VdsoImage> {
        self.vdso.as_ref()
    }

    fn new_space(&self) -> BoxFuture<'_, Result<Arc<dyn AddressSpace>, Errno>> {
        Box::pin(self.space())
    }

    fn new_nursery(&self) -> BoxFuture<'_, Result<Arc<dyn Nursery>, Errno>> {
        Box::pin(async move {
            let stub = pool::fresh(&self.zygote.stub).await?;
            let nursery: Arc<dyn Nursery> = Arc::new(SystrapNursery(stub));
            Ok(nursery)
        })
    }

    fn read_only<'a>(&'a self, fd: BorrowedFd<'a>) -> BoxFuture<'a, Result<OwnedFd, Errno>> {
        // The zygote runs no guest code, so what it sends is what was asked.
        Box::pin(self.zygote.stub.open_read_only(fd))
    }

    fn calls(&self) -> Vec<ProgramCalls> {
        self.machine.programs.all()
    }
}

/// A stub without guest code, of which others are copies.
struct SystrapNursery(Arc<stub::Stub>);

impl Nursery for SystrapNursery {
    fn pid(&self) -> i32 {
        self.0.pid()
    }

    fn new_space(&self) -> BoxFuture<'_, Result<Arc<dyn AddressSpace>, Errno>> {
        Box::pin(async move {
            let space: Arc<dyn AddressSpace> = SystrapSpace::new(pool::fresh(&self.0).await?);
            Ok(space)
        })
    }
}

/// Puts a filter and its `struct sock_fprog` into the global page.
fn put_filter(global: &SharedMap, header: u64, place: Range<u64>, program: &[u8]) {
    let len = u64::try_from(program.len()).unwrap_or(u64::MAX);
    assert!(len <= place.end - place.start, "the filter has its place");
    global.store(header, len / 8);
    global.store(header + 8, l::GLOBAL + place.start);
    global.write(place.start, program);
}

/// TSC ticks in a microsecond; 0 with a single CPU, where spinning only keeps
/// the other side from running.
fn ticks_per_us() -> u64 {
    if std::thread::available_parallelism().map_or(1, usize::from) == 1 {
        return 0;
    }
    let ticks = || {
        // SAFETY: every x86-64 CPU has the instruction.
        unsafe { std::arch::x86_64::_rdtsc() }
    };
    let (start, start_ticks) = (std::time::Instant::now(), ticks());
    while start.elapsed() < std::time::Duration::from_micros(200) {
        std::hint::spin_loop();
    }
    let elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    (ticks() - start_ticks) / elapsed_us.max(1)
}
