//! The sentry under its system call list: what it needs works, what it must
//! never do kills it. Each case runs in a process of its own.

mod common;

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use common::{DATA, RW, load, run, thread};
use sentry_platform::executor::host_poll::{Readiness, Watch};
use sentry_platform::executor::{Executor, block_on, blocking};
use sentry_platform::host::seccomp::{NetworkKind, PlatformKind, install};
use sentry_platform::host::system::System;
use sentry_platform::ptrace::PtracePlatform;
use sentry_platform::{MemOp, Sharing, Trap};

const CASE: &str = "SENTRY_SECCOMP_CASE";

/// Runs case `name` of [`cases`] in a fresh process.
fn in_child(name: &str) -> ExitStatus {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "cases", "--nocapture", "--test-threads=1"])
        .env(CASE, name)
        .status()
        .expect("spawn")
}

/// Not a test by itself: the body of the child processes.
#[test]
fn cases() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    match case.as_str() {
        "ptrace" => ptrace_guest(),
        other => {
            install(PlatformKind::Fake, NetworkKind::Sandbox).expect("install");
            forbidden(other);
        }
    }
    // Past the test harness, which does more than a sentry would.
    std::process::exit(0);
}

fn forbidden(case: &str) {
    match case {
        "nothing" => {}
        "open" => drop(std::fs::File::open("/dev/null")),
        "exec" => drop(Command::new("/bin/true").status()),
        "inet" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
        "unix" => drop(std::os::unix::net::UnixDatagram::unbound()),
        "executable" => {
            // SAFETY: an anonymous mapping at an address the host chooses.
            unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
            }
        }
        "fork" => {
            // SAFETY: the child, if there were one, would only exit.
            unsafe {
                if libc::fork() == 0 {
                    libc::_exit(0);
                }
            }
        }
        "pushback" => {
            // SAFETY: an ioctl with a pointer to a live byte.
            unsafe {
                libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr());
            }
        }
        other => panic!("unknown case {other}"),
    }
}

code!(calls, "2: mov eax, 39", "syscall", "jmp 2b");

fn ptrace_guest() {
    let system = System::open();
    let platform = PtracePlatform::new().expect("platform");
    install(PlatformKind::Ptrace, NetworkKind::Sandbox).expect("install");
    let executor = Executor::new(3);
    let space = load(&*platform, calls());
    let mut first = thread(&space);
    assert_eq!(run(&mut first), Trap::Syscall);
    let mut child = block_on(first.fork()).expect("fork");
    let mut clone = block_on(first.clone_thread()).expect("clone");
    assert_eq!(run(&mut child), Trap::Syscall);
    assert_eq!(run(&mut clone), Trap::Syscall);
    let memfd = nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .expect("memfd");
    nix::unistd::ftruncate(&memfd, 4096).expect("ftruncate");
    let map = MemOp::MapFile {
        range: DATA..DATA + 0x1000,
        protection: RW,
        sharing: Sharing::Shared,
        fd: memfd.as_fd(),
        offset: 0,
    };
    block_on(child.apply(&[map])).expect("map");
    drop((first, clone, child, space));
    let (reader, writer) = std::io::pipe().expect("pipe");
    let (send, receive) = std::sync::mpsc::channel();
    let watch = Watch::new(reader.as_fd(), Readiness::READ, move |_| {
        let _ = send.send(());
    });
    drop(writer);
    let timer = executor.clone();
    block_on(executor.spawn_join(async move {
        timer
            .sleep_until(Instant::now() + Duration::from_millis(5))
            .await;
        blocking(|| {
            receive
                .recv_timeout(Duration::from_secs(5))
                .expect("an event")
        });
    }));
    drop(watch);
    assert!(system.memory().total > 0);
    // Memory arenas of new threads, large blocks.
    let threads: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(|| vec![1_u8; 1 << 20].len()))
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), 1 << 20);
    }
}

#[test]
fn a_sentry_on_ptrace_works_under_its_list() {
    let status = in_child("ptrace");
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn forbidden_calls_kill_the_process() {
    assert_eq!(in_child("nothing").code(), Some(0));
    for case in [
        "open",
        "exec",
        "inet",
        "unix",
        "executable",
        "fork",
        "pushback",
    ] {
        assert_eq!(in_child(case).signal(), Some(libc::SIGSYS), "{case}");
    }
}
