//! Starts the zygote, of which all stubs are copies.
//!
//! It is a process with nothing but stub text, the global page, its command
//! page and contexts, and the vDSO; see `stub/boot.rs`. Runs before the
//! sentry locks itself down: this is the only place that executes a program.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use syscall_tables::Errno;

use super::control::{Control, HostCall};
use super::layout as l;
use super::shared::{self, Executable, last_errno};
use super::stub::{Machine, Stub, no_process};
use super::sys;
use crate::executor::block_on;

/// The stub binary, built by `build.rs`.
static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub"));

/// The zygote, and where the host's vDSO is in it and all stubs.
pub(super) struct Zygote {
    pub(super) stub: Arc<Stub>,
    pub(super) vdso: Option<u64>,
}

/// Starts it. `global` is the page that `machine`'s hub writes.
pub(super) fn start(machine: &Arc<Machine>, global: BorrowedFd<'_>) -> Result<Zygote, Errno> {
    let len = u64::try_from(IMAGE.len()).map_err(|_| Errno::ENOMEM)?;
    let image = shared::memfd(c"stub", len, Executable::Yes)?;
    shared::fill(image.as_fd(), 0, IMAGE)?;
    shared::seal(image.as_fd(), shared::SEAL_ALL)?;

    let (control, ends) = Control::new(&machine.hub)?;
    let pid = execute(
        image.as_fd(),
        [
            ends.socket.as_fd(),
            control.contexts_fd.as_fd(),
            ends.command.as_fd(),
            global,
        ],
    )?;
    drop(ends);
    let mut report = [0; 16];
    let deadline = Instant::now() + Duration::from_secs(10);
    let received = loop {
        match sys::receive(control.socket.as_fd(), &mut report) {
            Err(Errno::EAGAIN) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_micros(50));
            }
            other => break other,
        }
    };
    let Ok((_, sender)) = received else {
        return Err(failure(pid));
    };
    if sender != pid {
        return Err(Errno::EPROTO);
    }
    let stub = Stub::adopt(machine, control, pid, l::SLOTS)?;
    let dont_fork = libc::MADV_DONTFORK.cast_unsigned().into();
    let calls = [
        HostCall::new(libc::SYS_madvise, &[l::COMMAND, l::COMMAND_LEN, dont_fork]),
        HostCall::new(
            libc::SYS_madvise,
            &[l::CONTEXTS, l::CONTEXTS_LEN, dont_fork],
        ),
    ];
    let results = block_on(async {
        let control = stub.control.lock().await?;
        control.run(&calls).await
    })
    .map_err(no_process)?;
    for result in results {
        result?;
    }
    let vdso = report
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .filter(|&start| start != 0);
    Ok(Zygote { stub, vdso })
}

/// Why the zygote has ended.
fn failure(pid: i32) -> Errno {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    let status = waitpid(nix::unistd::Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    match status {
        // The status is that of the failed step in `boot.rs`; the sentry's log
        // has no better name for it.
        Ok(WaitStatus::Exited(_, step)) if step == EXEC_FAILED => Errno::ENOEXEC,
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => Errno::ECHILD,
        _ => {
            let pid = nix::unistd::Pid::from_raw(pid);
            // It hangs before it could do anything: end it.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = waitpid(pid, None);
            Errno::ETIMEDOUT
        }
    }
}

const EXEC_FAILED: i32 = 126;
const ADDR_NO_RANDOMIZE: libc::c_ulong = 0x004_0000;

/// Forks and executes `image` with `fds` as descriptors 2 to 5.
fn execute(image: BorrowedFd<'_>, fds: [BorrowedFd<'_>; 4]) -> Result<i32, Errno> {
    let fds = fds.map(|fd| fd.as_raw_fd());
    let image = image.as_raw_fd();
    let name: &CStr = c"";
    let argv = [c"stub".as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];
    // The stack size decides where the host puts mappings.
    let stack = libc::rlimit {
        rlim_cur: 8 << 20,
        rlim_max: 8 << 20,
    };
    // SAFETY: the child of this possibly multi-threaded process only makes
    // host calls, on memory prepared before, and never returns.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(last_errno());
    }
    if pid > 0 {
        return Ok(pid);
    }
    // SAFETY: in the child, see above; all pointers refer to locals.
    unsafe {
        // Out of the way first: a source may be one of the targets.
        const HIGH: RawFd = 64;
        let mut ok = true;
        let mut moved = [-1; 5];
        let sources = [fds[0], fds[1], fds[2], fds[3], image];
        for (moved, source) in moved.iter_mut().zip(sources) {
            *moved = libc::fcntl(source, libc::F_DUPFD, HIGH);
        }
        let first = RawFd::try_from(l::FD_RECEIVED).unwrap_or(2);
        for (target, source) in (first..).zip(moved) {
            ok &= libc::dup2(source, target) >= 0;
        }
        libc::close(0);
        libc::close(1);
        let image = RawFd::try_from(l::FD_BOOT_IMAGE).unwrap_or(6);
        ok &= libc::fcntl(image, libc::F_SETFD, libc::FD_CLOEXEC) >= 0;
        ok &= libc::syscall(libc::SYS_close_range, image + 1, libc::c_uint::MAX, 0) >= 0;
        ok &= libc::personality(ADDR_NO_RANDOMIZE) >= 0;
        ok &= libc::setrlimit(libc::RLIMIT_STACK, &raw const stack) >= 0;
        if ok {
            libc::syscall(
                libc::SYS_execveat,
                image,
                name.as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        libc::_exit(EXEC_FAILED)
    }
}
