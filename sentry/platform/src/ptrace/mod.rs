//! The platform on `ptrace(2)`: guest code runs under `PTRACE_SYSEMU`.
//!
//! Slower than systrap by an order of magnitude, but it needs nothing of the
//! host but ptrace of its own children (Yama scope 0 or 1), and it is simple:
//! the reference against which systrap is tested.
//!
//! | file | holds |
//! |---|---|
//! | `zygote.rs` | the first stub process, made at start-up and stripped |
//! | `stub.rs` | code page and constants of stub processes, their filter |
//! | `tracee.rs` | `ptrace` requests about one thread |
//! | `control.rs` | the thread that traces the leaders of stub processes |
//! | `tracer.rs` | the thread that traces one guest thread |
//! | `spares.rs` | tracer threads without a guest |
//! | `memory.rs` | changes and copies of guest memory |
//! | `fault.rs` | signals as traps |
//! | `space.rs`, `thread.rs` | the traits |
//!
//! A guest address space is a stub process. Its leader only executes host
//! calls for the sentry; guest threads are further threads of it. All stub
//! processes are children of the sentry (`CLONE_PARENT`), die with it
//! (`PTRACE_O_EXITKILL`), and can make no host call of their own: every
//! system call of guest code stops in the tracer and is not executed, and
//! behind that a seccomp filter refuses calls from outside the code page.
//!
//! Make the platform while the process may still fork, and after its uid and
//! capabilities are final: stubs have those of the sentry at that time.
//!
//! Locks, in this order: `Process::leader` (on the control thread alone),
//! `Process::descriptors`, then `Process::births` or `Shared::sockets`;
//! `Process::frame` alone.

mod control;
mod fault;
mod memory;
mod promise;
mod space;
mod spares;
mod stub;
mod thread;
mod tracee;
mod tracer;
mod zygote;

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use parking_lot::Mutex;
use syscall_tables::Errno;

use crate::executor::block_on;
use crate::host::errno;
use crate::traits::{AddressSpace, BoxFuture, Nursery, Platform, VdsoImage};
use crate::xstate;
use control::Control;
use space::Space;
use spares::Spares;
use tracee::Tracee;
use tracer::{Guest, Launch, Vectors};
use zygote::HostVectorState;

/// See the module documentation.
pub struct PtracePlatform {
    zygote: Arc<Process>,
}

/// What all stub processes of a platform share.
struct Shared {
    control: Control,
    spares: Spares,
    /// Our end of the socket that passes descriptors to stubs, and theirs.
    sockets: Mutex<(OwnedFd, OwnedFd)>,
    host_vectors: HostVectorState,
    /// The part of the host's area that guests get to know.
    vector_len_bytes: usize,
    vector_features: u64,
}

/// A stub process. Dropping it kills and reaps it.
struct Process {
    pid: i32,
    shared: Arc<Shared>,
    /// Taken by `drop` alone.
    leader: Mutex<Option<Tracee>>,
    /// Held while a descriptor is open in the process.
    descriptors: Mutex<()>,
    /// Held while a child is cloned and by [`Process::kill`]: the number of a
    /// child whose parent dies in between would never be known.
    births: Mutex<()>,
    /// Held while the host makes a signal frame in the scratch pages.
    frame: Mutex<()>,
    /// Guest threads it has ever had.
    guest_count: AtomicUsize,
}

/// `clone` flags of a further thread.
const THREAD_FLAGS: libc::c_int = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(leader) = self.leader.get_mut().take() {
            self.shared.control.send(move || control::bury(leader));
        }
    }
}

impl Process {
    fn new(shared: Arc<Shared>, leader: Tracee) -> Arc<Self> {
        Arc::new(Self {
            pid: leader.pid,
            shared,
            leader: Mutex::new(Some(leader)),
            descriptors: Mutex::default(),
            births: Mutex::default(),
            frame: Mutex::default(),
            guest_count: AtomicUsize::new(0),
        })
    }

    /// SIGKILL now; reaping follows with `drop`.
    fn kill(&self) {
        let _no_birth = self.births.lock();
        tracee::kill(self.pid);
    }

    /// Clones `tracee`, a thread of this process. The child waits in stub
    /// code, untraced.
    fn clone_child(&self, tracee: &mut Tracee, flags: libc::c_int) -> Result<i32, Errno> {
        // The child must not inherit a descriptor that is being mapped.
        let _none_open = self.descriptors.lock();
        let _alive = self.births.lock();
        tracee.clone_child(flags)
    }

    /// Clones a thread from the leader and starts to trace it. Called on the
    /// control thread.
    fn launch_thread(self: &Arc<Self>, vectors: Vectors) -> Result<Launch, Errno> {
        let mut leader = self.leader.lock();
        let leader = leader.as_mut().ok_or(Errno::ESRCH)?;
        let tid = self.clone_child(leader, THREAD_FLAGS)?;
        Guest::launch(self, tid, vectors)
    }

    /// Calls `job` with the leader on the control thread.
    async fn with_leader<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Arc<Self>, &mut Tracee) -> Result<T, Errno> + Send + 'static,
    ) -> Result<T, Errno> {
        let process = self.clone();
        let result = self
            .shared
            .control
            .call(move || match process.leader.lock().as_mut() {
                Some(leader) => job(&process, leader),
                None => Err(Errno::ESRCH),
            });
        result.await?
    }

    /// Traces the leader `pid` of a new process, which waits in stub code.
    /// Called on the control thread.
    fn adopt(shared: Arc<Shared>, pid: i32) -> Result<Arc<Self>, Errno> {
        match Tracee::seize(pid, pid) {
            Ok(leader) => Ok(Self::new(shared, leader)),
            Err(err) => {
                tracee::kill_child(pid);
                Err(err)
            }
        }
    }
}

impl Shared {
    fn initial_vector_state(&self) -> Vec<u8> {
        let mut area = xstate::initial(self.host_vectors.len_bytes);
        area.truncate(self.host_vectors.len_bytes);
        area
    }
}

impl PtracePlatform {
    /// Forks the zygote.
    ///
    /// # Errors
    /// `EPERM` if the host forbids ptrace of own children (Yama scope 2 or 3);
    /// what `fork`, `memfd_create` and `socketpair` fail with.
    pub fn new() -> Result<Arc<Self>, Errno> {
        // The first thread starts here.
        crate::host::seccomp::prepare_allocator();
        let code_page = stub::code_page()?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(errno)?;
        let control = Control::start()?;
        let created = block_on(control.call(move || {
            zygote::create(code_page.as_fd(), theirs.as_fd()).map(|zygote| (zygote, theirs))
        }))?;
        let ((leader, host_vectors), theirs) = created?;
        let vector_features = host_vectors.features & !xstate::AMX_FEATURES;
        let shared = Arc::new(Shared {
            control,
            spares: Spares::default(),
            sockets: Mutex::new((ours, theirs)),
            host_vectors,
            vector_len_bytes: xstate::standard_len_bytes(vector_features)
                .min(host_vectors.len_bytes),
            vector_features,
        });
        Ok(Arc::new(Self {
            zygote: Process::new(shared, leader),
        }))
    }
}

impl Platform for PtracePlatform {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn guest_range(&self) -> Range<u64> {
        stub::GUEST_RANGE
    }

    fn vector_state_len_bytes(&self) -> usize {
        self.zygote.shared.vector_len_bytes
    }

    fn vector_state_features(&self) -> u64 {
        self.zygote.shared.vector_features
    }

    fn vdso(&self) -> Option<&VdsoImage> {
        None
    }

    fn new_space(&self) -> BoxFuture<'_, Result<Arc<dyn AddressSpace>, Errno>> {
        Box::pin(new_space(&self.zygote))
    }

    fn new_nursery(&self) -> BoxFuture<'_, Result<Arc<dyn Nursery>, Errno>> {
        Box::pin(async move {
            let nursery: Arc<dyn Nursery> = Arc::new(PtraceNursery(copy(&self.zygote).await?));
            Ok(nursery)
        })
    }
}

/// A stub process without guest code, of which others are copies.
struct PtraceNursery(Arc<Process>);

impl Nursery for PtraceNursery {
    fn pid(&self) -> i32 {
        self.0.pid
    }

    fn new_space(&self) -> BoxFuture<'_, Result<Arc<dyn AddressSpace>, Errno>> {
        Box::pin(new_space(&self.0))
    }
}

async fn copy(process: &Arc<Process>) -> Result<Arc<Process>, Errno> {
    process
        .with_leader(|original, leader| {
            let pid = original.clone_child(leader, libc::CLONE_PARENT)?;
            Process::adopt(original.shared.clone(), pid)
        })
        .await
}

async fn new_space(process: &Arc<Process>) -> Result<Arc<dyn AddressSpace>, Errno> {
    Ok(Space::new(copy(process).await?))
}
