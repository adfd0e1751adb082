//! The host calls of a serving gofer. Everything else kills the process.
//!
//! Names never reach the host by an absolute path: `openat2` is walked
//! beneath roots, and the calls that follow links (`openat`, `fchmodat`,
//! `linkat`) are allowed on `/proc/self/fd` only, where the names are numbers
//! of fds.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Calls allowed with any arguments.
const ALWAYS: &[c_long] = &[
    // Finding and reading files beneath the roots.
    libc::SYS_openat2,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_lseek, // to a position in a directory
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_close,
    // Changing them; all relative to an open directory and one name.
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    // Extended attributes of open files.
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    // The connection.
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_futex,
    // Set-up of serving: umask, size and seals of the ring, CPUs to spin on.
    libc::SYS_umask,
    libc::SYS_sched_getaffinity,
    // Threads and memory of the language run time.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom, // seeds of hash tables
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_write,  // messages to stderr
    libc::SYS_tgkill, // abort
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn is(arg: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(arg, Dword, Eq, value)
}

fn masked(arg: u8, mask: u64, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(arg, Dword, MaskedEq(mask), value)
}

fn rules(proc_fd: RawFd) -> Result<BTreeMap<c_long, Vec<SeccompRule>>, seccompiler::BackendError> {
    let proc_fd = u64::from(proc_fd.cast_unsigned());
    let flags = |bits: i32| u64::from(bits.cast_unsigned());
    let file_type = u64::from(libc::S_IFMT);
    let one = |condition| SeccompRule::new(vec![condition]);

    let mut rules: BTreeMap<_, _> = ALWAYS.iter().map(|&call| (call, Vec::new())).collect();
    // Turns an `O_PATH` fd into an open file; never makes one.
    rules.insert(
        libc::SYS_openat,
        vec![SeccompRule::new(vec![
            is(0, proc_fd)?,
            masked(2, flags(libc::O_CREAT), 0)?,
        ])?],
    );
    // The same for modes and for names of unnamed files.
    rules.insert(libc::SYS_fchmodat, vec![one(is(0, proc_fd)?)?]);
    rules.insert(libc::SYS_linkat, vec![one(is(0, proc_fd)?)?]);
    // Regular files, FIFOs and sockets, no device nodes.
    rules.insert(
        libc::SYS_mknodat,
        vec![
            one(masked(2, file_type, u64::from(libc::S_IFREG))?)?,
            one(masked(2, file_type, u64::from(libc::S_IFIFO))?)?,
            one(masked(2, file_type, u64::from(libc::S_IFSOCK))?)?,
        ],
    );
    rules.insert(
        libc::SYS_fcntl,
        vec![
            one(is(1, flags(libc::F_GET_SEALS))?)?,
            one(is(1, flags(libc::F_DUPFD_CLOEXEC))?)?,
            // Debug builds check fds that they close.
            one(is(1, flags(libc::F_GETFD))?)?,
        ],
    );
    // Never executable memory.
    let not_exec = |arg| masked(arg, flags(libc::PROT_EXEC), 0);
    rules.insert(libc::SYS_mmap, vec![one(not_exec(2)?)?]);
    rules.insert(libc::SYS_mprotect, vec![one(not_exec(2)?)?]);
    // Threads, no processes and no namespaces.
    rules.insert(
        libc::SYS_clone,
        vec![one(masked(
            0,
            flags(libc::CLONE_THREAD),
            flags(libc::CLONE_THREAD),
        )?)?],
    );
    // Names of threads, and of memory ranges by the allocator.
    rules.insert(
        libc::SYS_prctl,
        vec![
            one(is(0, flags(libc::PR_SET_NAME))?)?,
            one(is(0, flags(libc::PR_SET_VMA))?)?,
        ],
    );
    Ok(rules)
}

/// Installs the filter for this thread and those it starts.
pub fn install(proc_fd: RawFd) -> Result<(), Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(Error::Backend)?;
    // `clone3` can't be filtered by flags: the C library then uses `clone`.
    let no_clone3: BpfProgram = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        arch,
    )
    .and_then(TryInto::try_into)
    .map_err(Error::Backend)?;
    let mut rules = rules(proc_fd).map_err(Error::Backend)?;
    // Decided by the first filter; the second must not kill for it.
    rules.insert(libc::SYS_clone3, Vec::new());
    let list: BpfProgram = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        arch,
    )
    .and_then(TryInto::try_into)
    .map_err(Error::Backend)?;
    seccompiler::apply_filter(&no_clone3)?;
    seccompiler::apply_filter(&list)
}
