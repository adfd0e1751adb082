//! The lists. Names are those of the system call table.

use seccompiler::{
    BackendError, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompRule,
};

use crate::host::inet::allowed;

/// One allowed call. Several entries of one name are alternatives.
#[derive(Clone, Copy, Debug)]
pub struct Allow {
    pub name: &'static str,
    /// Conditions on arguments, all of which must hold.
    pub when: &'static [When],
    pub reason: &'static str,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// The low 32 bits of the argument with this index are this value.
    Is(u8, u32),
    /// None of these bits is set in the low 32 bits of the argument.
    Without(u8, u32),
    /// All of these bits are set in the low 32 bits of the argument.
    With(u8, u32),
}

impl Allow {
    /// The compiled conditions; `None` if there are none.
    pub(super) fn rule(&self) -> Result<Option<SeccompRule>, BackendError> {
        if self.when.is_empty() {
            return Ok(None);
        }
        let conditions = self.when.iter().map(|when| {
            let (index, op, value) = match *when {
                When::Is(index, value) => (index, Op::Eq, value),
                When::Without(index, bits) => (index, Op::MaskedEq(u64::from(bits)), 0),
                When::With(index, bits) => (index, Op::MaskedEq(u64::from(bits)), bits),
            };
            SeccompCondition::new(index, Len::Dword, op, u64::from(value))
        });
        SeccompRule::new(conditions.collect::<Result<_, _>>()?).map(Some)
    }
}

const fn allow(name: &'static str, reason: &'static str) -> Allow {
    allow_if(name, &[], reason)
}

const fn allow_if(name: &'static str, when: &'static [When], reason: &'static str) -> Allow {
    Allow { name, when, reason }
}

const PROT_EXEC: u32 = libc::PROT_EXEC as u32;

/// Flags that every thread of the C library has, and that no process has.
const THREAD_FLAGS: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD) as u32;

/// What the sentry needs on every platform.
pub const COMMON: &[Allow] = &[
    // Donated files, pipes, sockets and terminals.
    allow("read", "stdio, control connections, log"),
    allow("write", "stdio, control connections, log"),
    allow("readv", "stdio into several buffers"),
    allow(
        "writev",
        "stdio from several buffers; messages of the Rust runtime",
    ),
    allow("pread64", "donated files, memfds, /proc files kept open"),
    allow("pwrite64", "donated files, memfds"),
    allow("preadv", "donated files into several buffers"),
    allow("pwritev", "donated files from several buffers"),
    allow("preadv2", "donated files without waiting for the disk"),
    allow("pwritev2", "donated files without waiting for the disk"),
    allow("lseek", "holes and data of donated files and memfds"),
    allow("fstat", "attributes of donated files"),
    allow_if(
        "statx",
        &[When::With(2, libc::AT_EMPTY_PATH as u32)],
        "attributes of open files, as the standard library asks for them; paths would lead into \
         the sandbox's empty root",
    ),
    allow_if(
        "newfstatat",
        &[When::With(3, libc::AT_EMPTY_PATH as u32)],
        "attributes of open files, as the C library asks for them",
    ),
    allow("fstatfs", "statfs of donated files"),
    allow("ftruncate", "donated files, memfds"),
    allow("fallocate", "space and holes of donated files and memfds"),
    allow("fsync", "donated files"),
    allow("fdatasync", "donated files"),
    allow("sync_file_range", "donated files"),
    allow("fadvise64", "donated files"),
    allow("copy_file_range", "between donated files"),
    allow("fgetxattr", "attributes of donated files"),
    allow("fsetxattr", "attributes of donated files"),
    allow("close", "files no longer used"),
    allow("memfd_create", "shared memory and tmpfs files of guests"),
    allow_if(
        "fcntl",
        &[When::Is(1, libc::F_DUPFD_CLOEXEC as u32)],
        "a descriptor of its own for a watch or a mapping",
    ),
    allow_if(
        "fcntl",
        &[When::Is(1, libc::F_GETFL as u32)],
        "how a donated descriptor was opened",
    ),
    allow_if(
        "fcntl",
        &[When::Is(1, libc::F_SETFL as u32)],
        "non-blocking mode of own sockets",
    ),
    allow_if(
        "fcntl",
        &[When::Is(1, libc::F_GETFD as u32)],
        "checks of the standard library in debug builds",
    ),
    allow_if(
        "fcntl",
        &[When::Is(1, libc::F_SETFD as u32)],
        "close-on-exec of own sockets",
    ),
    allow_if(
        "fcntl",
        &[When::Is(1, libc::F_ADD_SEALS as u32)],
        "memfds that stubs map",
    ),
    allow_if(
        "fcntl",
        &[When::Is(1, libc::F_GET_SEALS as u32)],
        "memfds that come from a gofer",
    ),
    // Terminals given as stdio. TIOCSTI and the like are not here.
    allow_if(
        "ioctl",
        &[When::Is(1, libc::TCGETS as u32)],
        "settings of a terminal given as stdio",
    ),
    allow_if(
        "ioctl",
        &[When::Is(1, libc::TCSETS as u32)],
        "settings of a terminal given as stdio",
    ),
    allow_if(
        "ioctl",
        &[When::Is(1, libc::TCSETSW as u32)],
        "settings of a terminal given as stdio",
    ),
    allow_if(
        "ioctl",
        &[When::Is(1, libc::TCSETSF as u32)],
        "settings of a terminal given as stdio",
    ),
    allow_if(
        "ioctl",
        &[When::Is(1, libc::TIOCGWINSZ as u32)],
        "size of a terminal given as stdio",
    ),
    allow_if(
        "ioctl",
        &[When::Is(1, libc::TIOCSWINSZ as u32)],
        "size of a terminal given as stdio",
    ),
    allow_if(
        "ioctl",
        &[When::Is(1, libc::FIONREAD as u32)],
        "bytes waiting in a pipe or socket given as stdio",
    ),
    allow_if(
        "ioctl",
        &[When::Is(1, libc::FIONBIO as u32)],
        "non-blocking mode of own sockets",
    ),
    // Unix sockets: made as pairs or accepted, never by name.
    allow("sendmsg", "control connections, descriptors to stubs"),
    allow("recvmsg", "control connections, descriptors from gofers"),
    allow("sendto", "control connections"),
    allow("recvfrom", "control connections"),
    allow("accept4", "control connections on the listener made before"),
    allow("shutdown", "end of control connections"),
    allow_if(
        "socketpair",
        &[When::Is(0, libc::AF_UNIX as u32)],
        "connections that are passed on",
    ),
    allow_if(
        "getsockopt",
        &[
            When::Is(1, libc::SOL_SOCKET as u32),
            When::Is(2, libc::SO_ERROR as u32),
        ],
        "errors of control connections",
    ),
    allow_if(
        "getsockopt",
        &[
            When::Is(1, libc::SOL_SOCKET as u32),
            When::Is(2, libc::SO_PEERCRED as u32),
        ],
        "peers of control connections",
    ),
    allow_if(
        "setsockopt",
        &[
            When::Is(1, libc::SOL_SOCKET as u32),
            When::Is(2, libc::SO_PASSCRED as u32),
        ],
        "stubs that say who they are",
    ),
    allow_if(
        "setsockopt",
        &[
            When::Is(1, libc::SOL_SOCKET as u32),
            When::Is(2, libc::SO_RCVTIMEO as u32),
        ],
        "time-outs of control connections",
    ),
    allow_if(
        "setsockopt",
        &[
            When::Is(1, libc::SOL_SOCKET as u32),
            When::Is(2, libc::SO_SNDTIMEO as u32),
        ],
        "time-outs of control connections",
    ),
    allow("getsockname", "control connections"),
    allow("getpeername", "control connections"),
    // Waiting.
    allow(
        "futex",
        "locks, parked workers, hand-over with stubs and gofers",
    ),
    allow("futex_waitv", "workers that wait for several bells"),
    allow("poll", "readiness of stdio"),
    allow("ppoll", "readiness of stdio"),
    allow("epoll_create1", "the host-poll thread"),
    allow("epoll_ctl", "the host-poll thread"),
    allow("epoll_wait", "the host-poll thread"),
    allow("epoll_pwait", "the host-poll thread"),
    allow("eventfd2", "wake-ups of threads that poll"),
    allow("pipe2", "wake-ups of threads that poll"),
    allow("nanosleep", "bounded waits for helpers"),
    allow("clock_nanosleep", "bounded waits for helpers"),
    allow("sched_yield", "spinning on a busy machine"),
    allow(
        "restart_syscall",
        "sleeps that a signal or a stop interrupted",
    ),
    // Clocks and numbers; most clocks are read without a call.
    allow("clock_gettime", "clocks that the vDSO does not have"),
    allow("clock_getres", "clocks of guests"),
    allow("gettimeofday", "hosts whose vDSO has no clock"),
    allow("time", "hosts whose vDSO has no clock"),
    allow("getrandom", "random bytes of guests, keys of hash tables"),
    allow("sysinfo", "load and memory that guests see"),
    allow("getrusage", "own resource use"),
    allow("getpid", "own process id"),
    allow("gettid", "own thread ids"),
    allow("getuid", "own identity"),
    allow("geteuid", "own identity"),
    allow("getcpu", "statistics of workers"),
    allow(
        "sched_getaffinity",
        "number of CPUs; new memory arenas of the allocator",
    ),
    // Own memory, never executable.
    allow_if(
        "mmap",
        &[When::Without(2, PROT_EXEC)],
        "memory, thread stacks, memfds",
    ),
    allow("munmap", "memory, thread stacks, memfds"),
    allow_if(
        "mprotect",
        &[When::Without(2, PROT_EXEC)],
        "heap growth, stack guards",
    ),
    allow("mremap", "growing large allocations"),
    allow("madvise", "giving memory back, stacks of ended threads"),
    allow("brk", "heap of the C library"),
    // Own threads, no processes.
    allow_if(
        "clone",
        &[When::With(0, THREAD_FLAGS)],
        "workers and other threads",
    ),
    allow("clone3", "answered with ENOSYS before this list is asked"),
    allow("set_robust_list", "start of a thread"),
    allow("rseq", "start of a thread"),
    allow("sigaltstack", "start and end of a thread"),
    allow_if(
        "prctl",
        &[When::Is(0, libc::PR_SET_NAME as u32)],
        "names of threads",
    ),
    allow_if(
        "prctl",
        &[When::Is(0, libc::PR_SET_TIMERSLACK as u32)],
        "exact timers",
    ),
    allow_if(
        "prctl",
        &[When::Is(0, libc::PR_SET_VMA as u32)],
        "names that the C library gives to its mappings",
    ),
    allow("exit", "end of a thread"),
    allow("exit_group", "end of the sentry"),
    // Signals.
    allow("rt_sigaction", "handlers of the runtime, abort"),
    allow("rt_sigprocmask", "start of threads, abort"),
    allow("rt_sigreturn", "return from a handler"),
    allow("rt_sigtimedwait", "the thread that takes signals"),
    allow("tgkill", "abort; interrupts of traced threads"),
];

/// In addition for the ptrace platform.
pub const PTRACE: &[Allow] = &[
    allow("ptrace", "control of stub threads"),
    allow("wait4", "stops and ends of stub threads"),
    allow("process_vm_readv", "copies from guest memory"),
    allow("process_vm_writev", "copies to guest memory"),
    allow("kill", "end of stub processes, the only ones it may signal"),
];

/// In addition for the systrap platform.
pub const SYSTRAP: &[Allow] = &[
    allow("wait4", "ends of stub processes"),
    allow("waitid", "ends of stub processes"),
    allow("pidfd_open", "new stub processes, to learn of their end"),
    allow("pidfd_send_signal", "end of stub processes"),
    allow("kill", "end of stub processes, the only ones it may signal"),
];

/// In addition where guests use the host's network. Options and ioctls are
/// added from the lists in [`allowed`].
pub const HOST_NETWORK: &[Allow] = &[
    allow_if(
        "socket",
        &inet(libc::AF_INET, libc::SOCK_STREAM),
        "inet sockets of guests",
    ),
    allow_if(
        "socket",
        &inet(libc::AF_INET, libc::SOCK_DGRAM),
        "inet sockets of guests",
    ),
    allow_if(
        "socket",
        &inet(libc::AF_INET6, libc::SOCK_STREAM),
        "inet sockets of guests",
    ),
    allow_if(
        "socket",
        &inet(libc::AF_INET6, libc::SOCK_DGRAM),
        "inet sockets of guests",
    ),
    allow("bind", "inet sockets of guests"),
    allow("connect", "inet sockets of guests"),
    allow("listen", "inet sockets of guests"),
];

const fn inet(family: libc::c_int, kind: libc::c_int) -> [When; 2] {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    [
        When::Is(0, family as u32),
        When::Is(1, (kind | flags) as u32),
    ]
}

/// The rules for options and ioctls of inet sockets, by name of the call.
pub(super) fn inet_rules() -> Result<Vec<(&'static str, SeccompRule)>, BackendError> {
    let mut rules = Vec::new();
    let is = |index, value: u32| SeccompCondition::new(index, Len::Dword, Op::Eq, value.into());
    for option in allowed::OPTIONS {
        let when = || Ok(vec![is(1, option.level)?, is(2, option.name)?]);
        if option.get {
            rules.push(("getsockopt", SeccompRule::new(when()?)?));
        }
        if option.set {
            rules.push(("setsockopt", SeccompRule::new(when()?)?));
        }
    }
    let queries = allowed::INTERFACE_QUERIES.iter();
    let queries = queries.chain(&allowed::SOCKET_QUERIES);
    for command in queries.chain([&allowed::SIOCGIFCONF]) {
        rules.push(("ioctl", SeccompRule::new(vec![is(1, *command)?])?));
    }
    Ok(rules)
}
