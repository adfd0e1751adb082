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
use sentry_platform::host::seccomp::{NetworkKind, PlatformKind, install, prepare_allocator};
use sentry_platform::host::system::System;
use sentry_platform::ptrace::PtracePlatform;
use sentry_platform::systrap::{Options, Systrap};
use sentry_platform::{MemOp, Platform, Sharing, Trap};

const CASE: &str = "SENTRY_SECCOMP_CASE";

/// Runs case `name` in a fresh process.
fn in_child(name: &str) -> ExitStatus {
    Command::new(std::env::current_exe().expect("own path"))
        .env(CASE, name)
        .status()
        .expect("spawn")
}

/// Without the usual harness, which runs tests on a second thread: a sentry
/// locks itself in while it is single-threaded.
fn main() {
    match std::env::var(CASE) {
        Ok(case) => run_case(&case),
        Err(_) => {
            a_sentry_works_under_its_list();
            forbidden_calls_kill_the_process();
            println!("sentry_seccomp: ok");
        }
    }
}

fn run_case(case: &str) {
    // SAFETY: sets a limit of this process; no core file per killed case.
    unsafe {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
    }
    match case {
        "ptrace" => ptrace_guest(),
        "systrap" => systrap_guest(),
        _ => {
            prepare_allocator();
            install(PlatformKind::Fake, NetworkKind::Sandbox).expect("install");
            forbidden(case);
        }
    }
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
    prepare_allocator();
    let system = System::open();
    let platform = PtracePlatform::new().expect("platform");
    install(PlatformKind::Ptrace, NetworkKind::Sandbox).expect("install");
    guest(&*platform, &Executor::new(3));
    sentry(&system);
}

fn systrap_guest() {
    prepare_allocator();
    let system = System::open();
    let platform = Systrap::new(Options::default()).expect("platform");
    install(PlatformKind::Systrap, NetworkKind::Sandbox).expect("install");
    let executor = Executor::new(3);
    guest(&*platform, &executor);
    executor.add_hot_source(platform.hot_source());
    guest(&*platform, &executor);
    sentry(&system);
}

/// All that a kernel asks of its platform.
fn guest(platform: &dyn Platform, executor: &Executor) {
    let space = load(platform, calls());
    let mut first = thread(&space);
    assert_eq!(run(&mut first), Trap::Syscall);
    let mut child = block_on(first.fork()).expect("fork");
    let mut clone = block_on(first.clone_thread()).expect("clone");
    assert_eq!(run(&mut child), Trap::Syscall);
    assert_eq!(run(&mut clone), Trap::Syscall);
    assert!(space.resident_bytes() < 1 << 30);
    assert!(clone.handle().cpu_time() < Duration::from_secs(10));
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
    let handle = clone.handle();
    let spinning = executor.spawn_join(async move {
        while std::future::poll_fn(|cx| clone.poll_run(cx)).await == Trap::Syscall {}
        clone
    });
    handle.interrupt();
    drop(block_on(spinning));
    let spaces: Vec<_> = (0..4).map(|_| load(platform, calls())).collect();
    for space in &spaces {
        space.kill();
    }
    drop((first, child, space, spaces));
}

fn sentry(system: &System) {
    let executor = Executor::new(3);
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
    // All the ways to ask for attributes.
    assert!(nix::sys::stat::fstat(&reader).is_ok());
    assert!(sentry_platform::host::io::fstat(&reader).is_ok());
    assert!(
        std::fs::File::from(std::os::fd::OwnedFd::from(reader))
            .metadata()
            .is_ok()
    );
    // Memory of many threads, large blocks.
    let threads: Vec<_> = (0..64)
        .map(|_| {
            std::thread::spawn(|| {
                // All at once, so that each has memory of its own.
                std::thread::sleep(Duration::from_millis(20));
                vec![1_u8; 1 << 20].len()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic"), 1 << 20);
    }
}

fn a_sentry_works_under_its_list() {
    for platform in ["ptrace", "systrap"] {
        let status = in_child(platform);
        assert_eq!(status.code(), Some(0), "{platform}: {status}");
    }
}

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
