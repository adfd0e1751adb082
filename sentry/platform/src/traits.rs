//! What a platform is to the kernel.
//!
//! Memory model: the host kernel manages private guest memory inside a *stub
//! process*, one per guest address space; page faults never reach the sentry.
//! The kernel keeps the VMA tree and orders changes as [`MemOp`]s.
//!
//! Polling rule for every `poll_*` method: after `Poll::Pending` the same
//! method must be polled again with the same arguments until it is ready; no
//! other method of that thread may be called in between, except dropping it.

use std::future::Future;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bitflags::bitflags;
use syscall_tables::Errno;
use syscall_tables::abi::Regs;

use crate::{Found, Transferred, View, ViewId, Way, Window};

use crate::residency::FinalPeak;

/// A boxed future for operations that cost microseconds anyway.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A system call: its number and arguments as the guest has given them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    pub number: u64,
    pub args: [u64; 6],
}

/// Why guest code stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Trap {
    /// The guest wants a system call: number in `regs().orig_rax`, arguments
    /// in their registers, `rip` behind the `syscall` instruction. The kernel
    /// stores the result in `rax`.
    Syscall,
    /// A synchronous exception, to be delivered as a signal.
    Fault(Fault),
    /// [`ThreadHandle::interrupt`] was called.
    Interrupted,
    /// The host thread or its stub process is gone (host OOM killer, SIGKILL
    /// after a breach of the hand-over protocol).
    Killed,
}

/// A synchronous exception of guest code, as its host signal reported it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL` or `SIGTRAP`.
    pub signo: i32,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`; for page faults the accessed address.
    pub addr: u64,
    /// x86 trap number (`trapno` of `sigcontext`), 14 for a page fault.
    pub trap_no: u64,
    /// x86 error code (`err` of `sigcontext`).
    pub error_code: u64,
}

/// A guest address could not be accessed; answered as `EFAULT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFault {
    /// Bytes copied before the first inaccessible one.
    pub copied: usize,
}

impl From<CopyFault> for Errno {
    fn from(_: CopyFault) -> Self {
        Self::EFAULT
    }
}

/// An atomic operation on an aligned 32-bit word of guest memory; each answers
/// with the word's previous value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    Load,
    Exchange(u32),
    /// Store `new` if the word is `expected`.
    CompareExchange {
        expected: u32,
        new: u32,
    },
    Add(u32),
    Or(u32),
    And(u32),
    Xor(u32),
}

bitflags! {
    /// Access rights of a mapping.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Protection: u32 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
    }
}

/// Whether stores to a file mapping reach the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Private,
    Shared,
}

/// Advice that the platform may pass to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemAdvice {
    DontNeed,
    Free,
    HugePage,
    NoHugePage,
    /// Punch a hole (`MADV_REMOVE`).
    Remove,
    WillNeed,
    PopulateRead,
    PopulateWrite,
    DontFork,
    DoFork,
    WipeOnFork,
    KeepOnFork,
}

/// One change of a guest address space. Ranges are page aligned, not empty,
/// and inside [`Platform::guest_range`]; a platform refuses others with
/// `EINVAL`.
#[derive(Clone, Debug)]
pub enum MemOp<'a> {
    /// Private zero pages, replacing what is there (`MAP_FIXED`).
    MapAnonymous {
        range: Range<u64>,
        protection: Protection,
    },
    /// Pages of a host file or memfd, replacing what is there.
    MapFile {
        range: Range<u64>,
        protection: Protection,
        sharing: Sharing,
        fd: BorrowedFd<'a>,
        offset: u64,
    },
    Unmap {
        range: Range<u64>,
    },
    Protect {
        range: Range<u64>,
        protection: Protection,
    },
    Advise {
        range: Range<u64>,
        advice: MemAdvice,
    },
    /// Moves or resizes a mapping to exactly `to`, replacing what is there
    /// (`mremap` with `MREMAP_MAYMOVE|MREMAP_FIXED`, or in place).
    Remap {
        from: Range<u64>,
        to: Range<u64>,
        /// `MREMAP_DONTUNMAP`.
        keep_source: bool,
    },
}

/// What a new program finds in its memory.
#[derive(Clone, Copy, Debug)]
pub struct MemImage<'a> {
    /// In this order, onto an empty guest range.
    pub ops: &'a [MemOp<'a>],
    /// Then stored at these addresses.
    pub writes: &'a [(u64, &'a [u8])],
}

impl MemImage<'_> {
    /// The error of the write with this index.
    fn write_failed(&self, index: usize) -> MemError {
        MemError {
            index: self.ops.len().saturating_add(index),
            errno: Errno::EFAULT,
        }
    }
}

/// A batch of [`MemOp`]s stopped at one the host refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemError {
    /// Index of the failed operation; those before it took effect.
    pub index: usize,
    pub errno: Errno,
}

/// The vDSO that the loader maps for the guest.
#[derive(Debug)]
pub struct VdsoImage {
    /// Sealed memfd with the ELF image.
    pub fd: Arc<std::os::fd::OwnedFd>,
    pub len_bytes: u64,
}

/// Makes stub processes. One per sandbox.
pub trait Platform: Send + Sync {
    /// `"systrap"`, `"ptrace"` or `"fake"`.
    fn name(&self) -> &'static str;

    /// Addresses that guests may use.
    fn guest_range(&self) -> Range<u64>;

    /// Size of the vector state that [`GuestThread::poll_get_vector_state`]
    /// returns: an XSAVE area in standard format.
    fn vector_state_len_bytes(&self) -> usize;

    /// The `XCR0` bits present in that area.
    fn vector_state_features(&self) -> u64;

    /// The guest's vDSO, if the platform has one.
    fn vdso(&self) -> Option<&VdsoImage>;

    /// A fresh stub process with an empty guest range.
    fn new_space(&self) -> BoxFuture<'_, Result<Arc<dyn AddressSpace>, Errno>>;

    /// A process that runs no guest code, for stubs that are to live in a
    /// cgroup of their own.
    fn new_nursery(&self) -> BoxFuture<'_, Result<Arc<dyn Nursery>, Errno>>;

    /// A descriptor of the same file for mappings that must stay read-only
    /// where guest code could change their protection itself.
    fn read_only<'a>(&'a self, fd: BorrowedFd<'a>) -> BoxFuture<'a, Result<OwnedFd, Errno>> {
        let copy = fd.try_clone_to_owned();
        Box::pin(async move {
            copy.map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))
        })
    }

    /// How guests' calls have come, by program; nothing where it makes no
    /// difference.
    fn calls(&self) -> Vec<ProgramCalls> {
        Vec::new()
    }
}

/// System calls of all processes that have run one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramCalls {
    /// As [`AddressSpace::set_program`] has it.
    pub program: String,
    /// Those that came without a signal.
    pub fast: u64,
    pub trapped: u64,
}

/// A process of which the stubs of one container are copies: they begin their
/// lives in its cgroup. Dropping the last reference ends it, not them.
pub trait Nursery: Send + Sync {
    /// As the sentry sees it.
    fn pid(&self) -> i32;

    /// As [`Platform::new_space`].
    fn new_space(&self) -> BoxFuture<'_, Result<Arc<dyn AddressSpace>, Errno>>;
}

/// One guest address space: a stub process. Dropping the last reference kills
/// and reaps it.
pub trait AddressSpace: Send + Sync {
    /// Applies `ops` in order.
    fn apply<'a>(&'a self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>>;

    /// Fills this address space, which is empty, with an image. Writes count
    /// as operations behind the others in what an error says.
    fn load<'a>(&'a self, image: MemImage<'a>) -> BoxFuture<'a, Result<(), MemError>> {
        Box::pin(async move {
            self.apply(image.ops).await?;
            for (index, (addr, bytes)) in image.writes.iter().enumerate() {
                let written = self.write(*addr, bytes).await;
                written.map_err(|_| image.write_failed(index))?;
            }
            Ok(())
        })
    }

    /// Reads memory without the help of a trapped thread, ignoring nothing:
    /// protections count as for the guest itself.
    fn read<'a>(&'a self, addr: u64, dst: &'a mut [u8]) -> BoxFuture<'a, Result<(), CopyFault>>;

    /// Writes memory without the help of a trapped thread.
    fn write<'a>(&'a self, addr: u64, src: &'a [u8]) -> BoxFuture<'a, Result<(), CopyFault>>;

    /// A further thread, with zeroed registers and initial vector state; it
    /// runs once [`GuestThread::poll_run`] is called.
    fn new_thread(&self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>>;

    /// What the guest has executed here, for [`Platform::calls`]; children have
    /// it too.
    fn set_program(&self, _name: &[u8]) {}

    /// Makes what [`Self::resident_bytes`] and [`Self::peak_bytes`] need, if
    /// that takes a call of the stub. To be awaited before them.
    fn measure(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Resident set size in bytes, for `/proc`; 0 if it is not known.
    fn resident_bytes(&self) -> u64;

    /// The largest that it has been, for `getrusage`; 0 if it is not known.
    fn peak_bytes(&self) -> u64 {
        self.resident_bytes()
    }

    /// The latter after the end of the stub, where asking before it ends
    /// takes long.
    fn final_peak(&self) -> Option<Arc<FinalPeak>> {
        None
    }

    /// Ends the stub process now (SIGKILL); its threads trap with
    /// [`Trap::Killed`].
    fn kill(&self);
}

/// One guest thread, owned by the task that drives it. Dropping it ends the
/// host thread.
///
/// `Sync` because handlers hold a shared reference to their context across
/// awaits (`wait_on`), and their futures move between workers.
pub trait GuestThread: Send + Sync {
    /// Registers as of the last trap.
    fn regs(&self) -> &Regs;

    /// Registers that the next [`Self::poll_run`] starts with.
    fn regs_mut(&mut self) -> &mut Regs;

    /// The call after [`Trap::Syscall`]: what [`Self::regs`] has of it, maybe
    /// without the work of getting at all the others.
    fn call(&self) -> Call {
        let regs = self.regs();
        Call {
            number: regs.orig_rax,
            args: regs.syscall_args(),
        }
    }

    /// Whether the platform may answer calls itself that have no effect a guest
    /// could tell; not at first. For tasks whose calls nobody watches.
    fn allow_local_calls(&mut self, _allowed: bool) {}

    /// Stores the result of that call: `rax` of [`Self::regs_mut`].
    fn set_result(&mut self, value: u64) {
        self.regs_mut().rax = value;
    }

    /// Runs guest code until the next trap.
    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Trap>;

    /// Ready when all that was copied to guest memory is there for others to see.
    /// Copies of a call may be made as late as on the way back to guest code; to
    /// be called before the thread stops otherwise.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Whether [`Self::poll_transfer`] works.
    fn has_windows(&self) -> bool {
        false
    }

    /// Moves up to `len` bytes between guest memory at `addr` and a file
    /// without a buffer in between: `side` fills a window from the file, or
    /// takes to the file what is in it, and answers how many bytes that were;
    /// fewer than the window's end the transfer. Windows come in order, and
    /// the next one is copied while `side` runs.
    fn poll_transfer(
        &mut self,
        _cx: &mut Context<'_>,
        _way: Way,
        _addr: u64,
        _len: usize,
        _side: &mut (dyn FnMut(&Window<'_>) -> Result<usize, Errno> + Send),
    ) -> Poll<Transferred> {
        Poll::Ready(Transferred {
            error: Some(Errno::EOPNOTSUPP),
            ..Transferred::default()
        })
    }

    /// Looks for pages of `file` from `offset` on, of which `len` bytes are
    /// wanted, that this thread can copy from by itself.
    fn find_view(&self, _file: ViewId, _offset: u64, _len: u64) -> Found {
        Found::Nothing
    }

    /// Makes the view that [`Found::Worth`] is about, of the file behind `fd`,
    /// which the guest must be allowed to read.
    fn map_view<'a>(
        &'a mut self,
        _file: ViewId,
        _fd: BorrowedFd<'a>,
        _offset: u64,
    ) -> BoxFuture<'a, Result<(), Errno>> {
        Box::pin(std::future::ready(Err(Errno::EOPNOTSUPP)))
    }

    /// Whether there may be views to [forget](Self::forget_views).
    fn has_views(&self) -> bool {
        false
    }

    /// Unmaps all views of a file that the guest has closed.
    fn forget_views(&mut self, _file: ViewId) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Copies the first `len` bytes of a view to guest memory at `addr`; ready
    /// with how many it were. What stopped it may be on either side: the guest's
    /// memory, or the end of the file.
    fn poll_copy_view(
        &mut self,
        _cx: &mut Context<'_>,
        _view: &View,
        _addr: u64,
        _len: u64,
    ) -> Poll<u64> {
        Poll::Ready(0)
    }

    /// Copies `dst.len()` bytes from guest memory.
    fn poll_copy_in(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        dst: &mut [u8],
    ) -> Poll<Result<(), CopyFault>>;

    /// Copies `src` to guest memory.
    fn poll_copy_out(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        src: &[u8],
    ) -> Poll<Result<(), CopyFault>>;

    /// Copies a string up to and without its NUL into `dst`; ready with its
    /// length, or with `dst.len()` if no NUL was found within it.
    fn poll_copy_in_str(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        dst: &mut [u8],
    ) -> Poll<Result<usize, CopyFault>>;

    /// Atomic operation on the aligned word at `addr`; ready with its
    /// previous value.
    fn poll_atomic(
        &mut self,
        cx: &mut Context<'_>,
        addr: u64,
        op: AtomicOp,
    ) -> Poll<Result<u32, CopyFault>>;

    /// Copies the vector state (XSAVE area, standard format) into `dst`,
    /// which has [`Platform::vector_state_len_bytes`] bytes.
    fn poll_get_vector_state(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<Result<(), Errno>>;

    /// Replaces the vector state. The platform sanitises it (`MXCSR`, header,
    /// feature bits), so that guest-controlled bytes are fine.
    fn poll_set_vector_state(
        &mut self,
        cx: &mut Context<'_>,
        src: &[u8],
    ) -> Poll<Result<(), Errno>>;

    /// As [`AddressSpace::apply`], with this trapped thread's help where that
    /// is faster.
    fn apply<'a>(&'a mut self, ops: &'a [MemOp<'a>]) -> BoxFuture<'a, Result<(), MemError>>;

    /// Whether [`Self::replace_memory`] can be used: this is the only thread
    /// that its address space has ever had.
    fn can_replace_memory(&self) -> bool {
        false
    }

    /// Empties the address space, fills it with `image`, and gives this thread
    /// zeroed registers and initial vector state. After an error nothing is
    /// known of the memory.
    fn replace_memory<'a>(
        &'a mut self,
        image: MemImage<'a>,
    ) -> BoxFuture<'a, Result<(), MemError>> {
        let _ = image;
        Box::pin(std::future::ready(Err(MemError {
            index: 0,
            errno: Errno::ENOSYS,
        })))
    }

    /// A thread in the same address space with this thread's registers and
    /// vector state.
    fn clone_thread(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>>;

    /// A thread with this thread's registers and vector state in a copy of
    /// its address space.
    fn fork(&mut self) -> BoxFuture<'_, Result<Box<dyn GuestThread>, Errno>>;

    fn space(&self) -> Arc<dyn AddressSpace>;

    fn handle(&self) -> Arc<dyn ThreadHandle>;
}

/// What others may do to a guest thread while its task owns it.
pub trait ThreadHandle: Send + Sync {
    /// The current or next [`GuestThread::poll_run`] ends with
    /// [`Trap::Interrupted`] soon, unless another trap comes first, in which
    /// case the one after it does not run guest code.
    fn interrupt(&self);

    /// Host CPU time that guest code of this thread has used.
    fn cpu_time(&self) -> Duration;
}
