//! Host calls of `runsc` that need `unsafe`: making processes, dropping
//! capabilities, mapping ids of mounts. Nothing else in this crate does.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{ForkResult, Pid, fork};

/// Whether a new process gets a pid namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    Shared,
    Own,
}

/// Whether a new process is in the version 2 cgroup it is to be in already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Born {
    There,
    Elsewhere,
}

/// Runs `child` in a new process and answers that process's pid. The child
/// leads a session of its own, starts when `prepare` has been called with its
/// pid, and exits with the status that `child` answers. It ends by itself if
/// `prepare` fails or this process dies before.
pub fn spawn(
    pid_namespace: PidNamespace,
    prepare: impl FnOnce(Pid) -> Result<()>,
    child: impl FnOnce() -> i32,
) -> Result<Pid> {
    spawn_in(None, pid_namespace, prepare, |_| child())
}

/// As [`spawn`]; the process is born in a directory of cgroup version 2, where
/// the host can do that: moving it later takes milliseconds.
pub fn spawn_in(
    cgroup: Option<BorrowedFd<'_>>,
    pid_namespace: PidNamespace,
    prepare: impl FnOnce(Pid) -> Result<()>,
    child: impl FnOnce(Born) -> i32,
) -> Result<Pid> {
    let (wait, go) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("a pipe can't be made")?;
    let born_there = cgroup.and_then(|cgroup| fork_into(cgroup, pid_namespace).ok());
    let (forked, born) = match born_there {
        Some(forked) => (forked, Born::There),
        None => (fork_with(pid_namespace)?, Born::Elsewhere),
    };
    let pid = match forked {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop(go);
            std::process::exit(begin(wait, || child(born)));
        }
    };
    drop(wait);
    let prepared = prepare(pid).and_then(|()| {
        nix::unistd::write(&go, b"g").context("the new process has ended at once")?;
        Ok(pid)
    });
    if prepared.is_err() {
        drop(go);
        // Nothing but the end of the pipe is there for it to see.
        let _ = nix::sys::wait::waitpid(pid, None);
    }
    prepared
}

fn plain_fork() -> Result<ForkResult> {
    // SAFETY: runsc has a single thread until all its children exist (DESIGN
    // section 7), so the child may use all of the standard library.
    unsafe { fork() }.context("a process can't be made")
}

fn fork_with(pid_namespace: PidNamespace) -> Result<ForkResult> {
    if pid_namespace == PidNamespace::Own && !crate::user::is_host_root() {
        return fork_by_helper();
    }
    let own = if pid_namespace == PidNamespace::Own {
        let own = std::fs::File::open("/proc/self/ns/pid").context("/proc is not mounted")?;
        unshare(CloneFlags::CLONE_NEWPID).context("a pid namespace can't be made")?;
        Some(own)
    } else {
        None
    };
    let forked = plain_fork();
    if let (Some(own), Ok(ForkResult::Parent { .. }) | Err(_)) = (own, &forked) {
        setns(own, CloneFlags::CLONE_NEWPID)
            .context("the own pid namespace can't be entered again")?;
    }
    forked
}

/// As [`fork_with`], into a fresh pid namespace, for those who may not enter
/// their own again as it is the host's: a helper makes the process and leaves
/// it to this one.
fn fork_by_helper() -> Result<ForkResult> {
    nix::sys::prctl::set_child_subreaper(true)
        .context("this process can't take over others' children")?;
    let (reader, writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("a pipe can't be made")?;
    let ForkResult::Parent { child: helper } = plain_fork()? else {
        drop(reader);
        let forked = unshare(CloneFlags::CLONE_NEWPID)
            .context("a pid namespace can't be made")
            .and_then(|()| plain_fork());
        let report = match forked {
            Ok(ForkResult::Child) => return Ok(ForkResult::Child),
            Ok(ForkResult::Parent { child }) => child.to_string(),
            Err(err) => format!("{err:#}"),
        };
        // An incomplete report is no pid.
        let _ = nix::unistd::write(&writer, report.as_bytes());
        std::process::exit(0);
    };
    drop(writer);
    let mut report = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(reader), &mut report)
        .context("the report of the helper can't be read")?;
    nix::sys::wait::waitpid(helper, None).context("the helper can't be waited for")?;
    match report.parse() {
        Ok(pid) => Ok(ForkResult::Parent {
            child: Pid::from_raw(pid),
        }),
        Err(_) => anyhow::bail!("{report}"),
    }
}

/// `fork` into a cgroup, and a pid namespace, by a single call.
fn fork_into(cgroup: BorrowedFd<'_>, pid_namespace: PidNamespace) -> io::Result<ForkResult> {
    const PR_GET_TID_ADDRESS: libc::c_int = 40;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut tid_address: *mut libc::c_int = std::ptr::null_mut();
    // SAFETY: the kernel stores one pointer.
    if unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut tid_address) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let number = |flag: libc::c_int| u64::from(flag.cast_unsigned());
    let mut flags =
        CLONE_INTO_CGROUP | number(libc::CLONE_CHILD_SETTID) | number(libc::CLONE_CHILD_CLEARTID);
    if pid_namespace == PidNamespace::Own {
        flags |= number(libc::CLONE_NEWPID);
    }
    // SAFETY: all fields are numbers, for which zero means "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.child_tid = tid_address.addr() as u64;
    args.exit_signal = number(libc::SIGCHLD);
    args.cgroup = number(cgroup.as_raw_fd());
    // SAFETY: as `fork` in [`fork_with`]. The C library keeps the thread's id
    // where it has told the kernel, which puts the child's there; nothing else
    // in its state changes by a fork without other threads.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match i32::try_from(result) {
        Ok(0) => Ok(ForkResult::Child),
        Ok(pid) if pid > 0 => Ok(ForkResult::Parent {
            child: Pid::from_raw(pid),
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What a new process does once it may go on.
fn begin(wait: OwnedFd, child: impl FnOnce() -> i32) -> i32 {
    // Signals from the terminal are for the command, which passes them on.
    let _ = nix::unistd::setsid();
    let mut byte = [0];
    match nix::unistd::read(&wait, &mut byte) {
        Ok(1) => {
            drop(wait);
            child()
        }
        _ => 1,
    }
}

/// Makes `terminal` the controlling terminal of this process, which leads a
/// session without one.
pub fn take_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a plain number.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3` of `capset(2)`.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Empties all capability sets of this thread, the bounding set included.
pub fn drop_all_capabilities() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: PR_CAPBSET_DROP takes plain numbers.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            let err = io::Error::last_os_error();
            // Numbers above the kernel's last capability.
            if err.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(err);
        }
    }
    let header = CapHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let data = [CapData::default(); 2];
    // SAFETY: version 3 reads one header and two data elements, which live
    // until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Rows and columns of a terminal.
pub fn window_size(fd: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ fills the one winsize it is given.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 {
        Ok((size.ws_row, size.ws_col))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Brings up the loopback interface of this process's network namespace.
pub fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeros is a valid value of this plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let fd = socket.as_raw_fd();
    // SAFETY: SIOCSIFFLAGS reads the one ifreq it is given.
    let result = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives this process as many descriptors as it may have: sockets and mapped
/// files of all guests are the sentry's.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    /// `fs.nr_open` of most hosts.
    const MOST: u64 = 1 << 20;
    let raised = setrlimit(Resource::RLIMIT_NOFILE, MOST, MOST);
    if raised.is_err()
        && let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
    {
        // Without it guests have fewer files, and see the error for it.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Leaves the process with `stderr`, `keep` and `also`: what else `runsc`
/// has open is none of a sandbox process's business, and pipes of the
/// container's output and of engines must not stay open here.
pub fn close_others(keep: &[RawFd], also: &[OwnedFd], stderr: &OwnedFd) -> Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("/dev/null can't be opened")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    drop(null);
    nix::unistd::dup2_stderr(stderr)?;
    let open = std::fs::read_dir("/proc/self/fd").context("/proc is not mounted")?;
    let numbers: Vec<RawFd> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in numbers {
        if fd > 2 && !keep.contains(&fd) && !also.iter().any(|kept| kept.as_raw_fd() == fd) {
            // The listing's own fd is closed by now.
            let _ = nix::unistd::close(fd);
        }
    }
    Ok(())
}

/// Own copies of descriptors, which the sentry keeps.
pub fn duplicate(fds: &[RawFd]) -> Result<Vec<OwnedFd>> {
    fds.iter()
        .map(|&fd| {
            let copy = nix::fcntl::fcntl(
                // SAFETY: the caller keeps the descriptors open meanwhile.
                unsafe { BorrowedFd::borrow_raw(fd) },
                nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3),
            )
            .with_context(|| match fd {
                0..=2 => "stdin, stdout or stderr is closed; give the container all three".into(),
                fd => format!("descriptor {fd} of --preserve-fds is not open"),
            })?;
            // SAFETY: F_DUPFD has just made this descriptor for us.
            Ok(unsafe { OwnedFd::from_raw_fd(copy) })
        })
        .collect()
}

/// A detached clone of the mount at `path` (open_tree(2)).
pub fn clone_mount(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::c_uint::try_from(libc::AT_RECURSIVE).map_err(io::Error::other)?;
    }
    // SAFETY: the path is valid for the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just handed it out.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ids of a detached mount become those of a user namespace
/// (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
pub fn map_mount_ids(
    mount: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?,
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: path and attributes are valid for the call, the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Puts a detached mount at its place (move_mount(2)).
pub fn attach_mount(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_encoded_bytes())?;
    // SAFETY: the paths are valid for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A descriptor of a process, readable once that has ended.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain call.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just handed it out.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
