//! Small helpers of the guest cases: assertions that end the process with a
//! message, raw calls, children.

use std::ffi::CString;
use std::fmt::Display;
use std::io::Write;

/// One guest test: its name and its body.
pub type Case = (&'static str, unsafe fn());

/// Exit code of a case that can't run here and says why.
pub const SKIP: i32 = 77;

/// Lists case functions under their own names.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const CASES: &[$crate::util::Case] = &[$((stringify!($name), $name)),*];
    };
}

/// Ends the process unless the condition holds.
#[macro_export]
macro_rules! check {
    ($cond:expr) => {
        match $cond {
            true => {}
            false => $crate::util::fail(file!(), line!(), stringify!($cond)),
        }
    };
    ($cond:expr, $($arg:tt)+) => {
        match $cond {
            true => {}
            false => $crate::util::fail(file!(), line!(), format_args!($($arg)+)),
        }
    };
}

/// Ends the process unless both sides are equal.
#[macro_export]
macro_rules! eq {
    ($a:expr, $b:expr $(,)?) => {
        match (&$a, &$b) {
            (a, b) => {
                if *a != *b {
                    $crate::util::fail(
                        file!(),
                        line!(),
                        format_args!("{} is {:?}, expected {:?}", stringify!($a), a, b),
                    )
                }
            }
        }
    };
    ($a:expr, $b:expr, $($arg:tt)+) => {
        match (&$a, &$b) {
            (a, b) => {
                if *a != *b {
                    $crate::util::fail(
                        file!(),
                        line!(),
                        format_args!("{} is {:?}, expected {:?}: {}", stringify!($a), a, b, format_args!($($arg)+)),
                    )
                }
            }
        }
    };
}

/// The value of a libc-style call that must not fail.
#[macro_export]
macro_rules! ok {
    ($e:expr) => {{
        let r = $e;
        if r as i64 == -1 {
            $crate::util::fail(
                file!(),
                line!(),
                format_args!("{}: {}", stringify!($e), $crate::util::errno_text()),
            )
        }
        r
    }};
}

/// A libc-style call that must fail with this errno.
#[macro_export]
macro_rules! err {
    ($errno:expr, $e:expr) => {{
        let r = $e;
        let got = $crate::util::errno();
        if r as i64 != -1 {
            $crate::util::fail(
                file!(),
                line!(),
                format_args!(
                    "{} gave {}, expected {}",
                    stringify!($e),
                    r as i64,
                    stringify!($errno)
                ),
            )
        }
        if got != $errno {
            $crate::util::fail(
                file!(),
                line!(),
                format_args!(
                    "{} failed with {}, expected {}",
                    stringify!($e),
                    std::io::Error::from_raw_os_error(got),
                    stringify!($errno)
                ),
            )
        }
    }};
}

/// A raw system call; every argument is widened to a register.
#[macro_export]
macro_rules! sys {
    ($n:expr $(, $a:expr)* $(,)?) => {
        libc::syscall($n as libc::c_long $(, $a as i64)*)
    };
}

/// Prints the place and the message and ends the whole process.
pub fn fail(file: &str, line: u32, message: impl Display) -> ! {
    let text = format!("{file}:{line}: {message}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
    unsafe { libc::_exit(1) }
}

/// Ends the case as skipped, with the reason.
pub fn skip(reason: impl Display) -> ! {
    let text = format!("skipped: {reason}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
    unsafe { libc::_exit(SKIP) }
}

pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub fn errno_text() -> String {
    std::io::Error::last_os_error().to_string()
}

pub fn set_errno(value: i32) {
    unsafe { *libc::__errno_location() = value }
}

pub fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// Forks; the child runs `f` and exits with 0.
pub unsafe fn fork(f: impl FnOnce()) -> i32 {
    let pid = libc::fork();
    if pid < 0 {
        fail(file!(), line!(), format_args!("fork: {}", errno_text()));
    }
    if pid == 0 {
        f();
        libc::_exit(0);
    }
    pid
}

/// Waits for `pid` and returns its wait status.
pub unsafe fn wait(pid: i32) -> i32 {
    let mut status = 0;
    loop {
        let r = libc::waitpid(pid, &mut status, 0);
        if r == pid {
            return status;
        }
        if errno() != libc::EINTR {
            fail(
                file!(),
                line!(),
                format_args!("waitpid {pid}: {}", errno_text()),
            );
        }
    }
}

/// Waits for `pid`, which must exit with 0.
#[track_caller]
pub unsafe fn wait_ok(pid: i32) {
    let status = wait(pid);
    let place = std::panic::Location::caller();
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == SKIP {
        libc::_exit(SKIP);
    }
    if status != 0 {
        fail(
            place.file(),
            place.line(),
            format_args!("child {pid} ended with status {status:#x}"),
        );
    }
}

/// Runs `f` in a child, which must exit with 0.
#[track_caller]
pub unsafe fn in_child(f: impl FnOnce()) {
    let pid = fork(f);
    wait_ok(pid);
}

pub unsafe fn pipe() -> (i32, i32) {
    let mut fds = [0; 2];
    ok!(libc::pipe(fds.as_mut_ptr()));
    (fds[0], fds[1])
}

pub fn sleep_ms(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

/// Monotonic clock in milliseconds.
pub fn now_ms() -> u64 {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1000 + ts.tv_nsec as u64 / 1_000_000
}

/// Polls a condition for up to five seconds.
pub fn eventually(mut f: impl FnMut() -> bool) -> bool {
    let end = now_ms() + 5000;
    while now_ms() < end {
        if f() {
            return true;
        }
        sleep_ms(2);
    }
    f()
}

/// Creates a file with this content.
pub unsafe fn write_file(name: &str, content: &[u8]) {
    let fd = ok!(libc::open(
        c(name).as_ptr(),
        libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY,
        0o644
    ));
    write_all(fd, content);
    ok!(libc::close(fd));
}

pub fn read_file(name: &str) -> Vec<u8> {
    match std::fs::read(name) {
        Ok(v) => v,
        Err(e) => fail(file!(), line!(), format_args!("read {name}: {e}")),
    }
}

pub fn read_text(name: &str) -> String {
    String::from_utf8_lossy(&read_file(name)).into_owned()
}

#[track_caller]
pub unsafe fn write_all(fd: i32, mut bytes: &[u8]) {
    let place = std::panic::Location::caller();
    while !bytes.is_empty() {
        let n = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        if n <= 0 {
            fail(
                place.file(),
                place.line(),
                format_args!("write: {}", errno_text()),
            );
        }
        bytes = &bytes[n as usize..];
    }
}

/// Reads up to `len` bytes with one call.
#[track_caller]
pub unsafe fn read_some(fd: i32, len: usize) -> Vec<u8> {
    let place = std::panic::Location::caller();
    let mut buf = vec![0u8; len];
    let n = libc::read(fd, buf.as_mut_ptr().cast(), len);
    if n < 0 {
        fail(
            place.file(),
            place.line(),
            format_args!("read: {}", errno_text()),
        );
    }
    buf.truncate(n as usize);
    buf
}

/// Reads until `len` bytes or the end.
#[track_caller]
pub unsafe fn read_full(fd: i32, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        let part = read_some(fd, len - all.len());
        if part.is_empty() {
            break;
        }
        all.extend_from_slice(&part);
    }
    all
}

/// Opens a file or ends the case.
#[track_caller]
pub unsafe fn open(name: &str, flags: i32) -> i32 {
    open_mode(name, flags, 0o644)
}

#[track_caller]
pub unsafe fn open_mode(name: &str, flags: i32, mode: u32) -> i32 {
    let place = std::panic::Location::caller();
    let fd = libc::open(c(name).as_ptr(), flags, mode);
    if fd < 0 {
        fail(
            place.file(),
            place.line(),
            format_args!("open {name}: {}", errno_text()),
        );
    }
    fd
}

/// Anonymous private read-write memory.
pub unsafe fn anon(len: usize) -> *mut u8 {
    let p = libc::mmap(
        std::ptr::null_mut(),
        len,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
        0,
    );
    ok!(p);
    p.cast()
}

/// Anonymous memory shared with children.
pub unsafe fn shared<T>() -> &'static T {
    let p = libc::mmap(
        std::ptr::null_mut(),
        std::mem::size_of::<T>().max(4096),
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        -1,
        0,
    );
    ok!(p);
    &*p.cast::<T>()
}

/// Installs a handler with flags and an empty mask.
pub unsafe fn handle(signo: i32, handler: usize, flags: i32) {
    let mut sa: libc::sigaction = std::mem::zeroed();
    sa.sa_sigaction = handler;
    sa.sa_flags = flags;
    ok!(libc::sigaction(signo, &sa, std::ptr::null_mut()));
}

pub unsafe fn sigset(signals: &[i32]) -> libc::sigset_t {
    let mut set: libc::sigset_t = std::mem::zeroed();
    libc::sigemptyset(&mut set);
    for s in signals {
        libc::sigaddset(&mut set, *s);
    }
    set
}

pub unsafe fn block(signals: &[i32]) {
    ok!(libc::sigprocmask(
        libc::SIG_BLOCK,
        &sigset(signals),
        std::ptr::null_mut()
    ));
}

pub unsafe fn unblock(signals: &[i32]) {
    ok!(libc::sigprocmask(
        libc::SIG_UNBLOCK,
        &sigset(signals),
        std::ptr::null_mut()
    ));
}

/// Whether poll reports `events` on `fd` within `timeout_ms`; the returned bits.
pub unsafe fn poll_one(fd: i32, events: i16, timeout_ms: i32) -> i16 {
    let mut p = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    ok!(libc::poll(&mut p, 1, timeout_ms));
    p.revents
}

/// Waits until the task's state letter in /proc is one of `states`.
pub fn wait_state(tid: i32, states: &str) {
    let done = eventually(|| {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{tid}/stat")) else {
            return false;
        };
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|s| states.contains(s))
    });
    check!(done, "task {tid} did not reach a state of {states:?}");
}

/// Skips the case when the (native) caller is not root with this capability.
pub unsafe fn need_cap(cap: u32, what: &str) {
    if libc::prctl(libc::PR_CAPBSET_READ, cap as libc::c_ulong, 0, 0, 0) != 1
        || libc::geteuid() != 0
    {
        skip(format_args!("needs {what}"));
    }
}

pub const CAP_SYS_ADMIN: u32 = 21;
pub const CAP_SYS_CHROOT: u32 = 18;
