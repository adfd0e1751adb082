//! The sentry's own system call list.
//!
//! [`install`] ends the start-up: from then on the sentry can open nothing on
//! the host, execute nothing, and make no socket but unix pairs. Any other
//! call kills the process, also in debug builds: a sentry that does what it
//! never should is broken into or broken.
//!
//! The lists are in [`rules`], by the names of the system call table, each
//! entry with the reason why it is there.

mod rules;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
    sock_filter,
};
use syscall_tables::{Errno, table};

pub use rules::{Allow, COMMON, HOST_NETWORK, PTRACE, SYSTRAP};

/// What the list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformKind {
    Systrap,
    Ptrace,
    /// Tests without guest code.
    Fake,
}

/// How guests reach networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// No sockets of the host.
    Sandbox,
    /// Inet sockets are host sockets.
    Host,
}

/// Why the list could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("system call list of the sentry can't be compiled: {0}")]
    Compile(#[from] seccompiler::BackendError),
    #[error("system call list of the sentry was refused by the host: {0}")]
    Install(#[from] seccompiler::Error),
}

/// Confines all threads of this process, present and future.
///
/// The process must have called [`prepare_allocator`] while it had one thread.
///
/// # Errors
/// If the host refuses. The caller must not go on then.
pub fn install(platform: PlatformKind, network: NetworkKind) -> Result<(), InstallError> {
    let program = compile(platform, network)?;
    prepare_allocator();
    apply_filter_all_threads(&program)?;
    CONFINED.store(true, Ordering::SeqCst);
    Ok(())
}

static CONFINED: AtomicBool = AtomicBool::new(false);

/// Whether [`install`] has confined this process: what is nice to have but
/// forbidden then must not be tried.
pub fn is_confined() -> bool {
    CONFINED.load(Ordering::SeqCst)
}

/// Keeps the C library's allocator from opening files later: it reads the
/// number of CPUs from /sys and the overcommit policy from /proc once it has
/// more than its main arena. With that alone the sentry is also smaller.
///
/// Call it before the process has a second thread; threads that have an arena
/// of their own by then keep it.
pub fn prepare_allocator() {
    // SAFETY: sets a number of the allocator under its own lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

fn entries(platform: PlatformKind, network: NetworkKind) -> impl Iterator<Item = &'static Allow> {
    let platform: &[Allow] = match platform {
        PlatformKind::Systrap => SYSTRAP,
        PlatformKind::Ptrace => PTRACE,
        PlatformKind::Fake => &[],
    };
    let network: &[Allow] = match network {
        NetworkKind::Sandbox => &[],
        NetworkKind::Host => HOST_NETWORK,
    };
    COMMON.iter().chain(platform).chain(network)
}

fn compile(
    platform: PlatformKind,
    network: NetworkKind,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    // A call that one entry allows without conditions needs no others.
    let mut unconditional = Vec::new();
    for entry in entries(platform, network) {
        let number = i64::from(table::number_of(entry.name));
        match entry.rule()? {
            Some(rule) => rules.entry(number).or_default().push(rule),
            None => unconditional.push(number),
        }
    }
    if network == NetworkKind::Host {
        for (name, rule) in rules::inet_rules()? {
            let number = i64::from(table::number_of(name));
            rules.entry(number).or_default().push(rule);
        }
    }
    for number in unconditional {
        rules.insert(number, Vec::new());
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    let mut program = refuse_clone3();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// `clone3` has its flags in memory, where no filter sees them: it does not
/// exist here, and the C library uses `clone`.
fn refuse_clone3() -> BpfProgram {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let instruction = |code: u32, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let clone3 = table::number_of("clone3");
    let enosys = libc::SECCOMP_RET_ERRNO | Errno::ENOSYS.raw().unsigned_abs();
    // Another architecture's call of this number fares no better.
    vec![
        instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, clone3),
        instruction(BPF_RET | BPF_K, 0, 0, enosys),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORBIDDEN: [&str; 30] = [
        "open",
        "openat",
        "openat2",
        "creat",
        "execve",
        "execveat",
        "socket",
        "bind",
        "connect",
        "listen",
        "fork",
        "vfork",
        "mount",
        "umount2",
        "chroot",
        "pivot_root",
        "unshare",
        "setns",
        "setuid",
        "setresuid",
        "capset",
        "bpf",
        "io_uring_setup",
        "userfaultfd",
        "keyctl",
        "init_module",
        "perf_event_open",
        "link",
        "unlink",
        "open_by_handle_at",
    ];

    #[test]
    fn systrap_may_call_what_it_says_it_needs() {
        let allowed: Vec<_> = entries(PlatformKind::Systrap, NetworkKind::Sandbox)
            .map(|entry| i64::from(table::number_of(entry.name)))
            .collect();
        for number in crate::systrap::HOST_SYSCALLS {
            assert!(allowed.contains(number), "{number}");
        }
    }

    #[test]
    fn nothing_dangerous_is_on_any_list() {
        for platform in [PlatformKind::Systrap, PlatformKind::Ptrace] {
            for entry in entries(platform, NetworkKind::Sandbox) {
                assert!(!FORBIDDEN.contains(&entry.name), "{}", entry.name);
            }
        }
    }

    #[test]
    fn all_lists_compile_and_every_entry_says_why() {
        for platform in [
            PlatformKind::Systrap,
            PlatformKind::Ptrace,
            PlatformKind::Fake,
        ] {
            for network in [NetworkKind::Sandbox, NetworkKind::Host] {
                assert!(compile(platform, network).is_ok());
                for entry in entries(platform, network) {
                    assert!(entry.reason.len() > 8, "{}", entry.name);
                    assert!(table::by_name(entry.name).is_some(), "{}", entry.name);
                }
            }
        }
    }
}
