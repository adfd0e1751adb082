//! Threads and processes on the ptrace platform, and what is left of them.

mod common;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{CODE, DATA, children, copy_in, copy_out, get_vectors, load, run, start, thread};
use sentry_platform::executor::{Executor, block_on};
use sentry_platform::ptrace::PtracePlatform;
use sentry_platform::{GuestThread, Platform, Trap};

fn platform() -> Arc<PtracePlatform> {
    PtracePlatform::new().expect("the host lets us trace our children")
}

code!(
    call_with_memory,
    "movq xmm3, rbx",
    "2: mov rdi, [0x600000]",
    "mov eax, 7",
    "syscall",
    "inc rbx",
    "mov [0x600000], rbx",
    "jmp 2b"
);

#[test]
fn fork_copies_memory_registers_and_vectors() {
    let platform = platform();
    let mut parent = start(&*platform, call_with_memory());
    parent.regs_mut().rbx = 40;
    copy_out(&mut parent, DATA, &40_u64.to_ne_bytes()).expect("copy");
    assert_eq!(run(&mut parent), Trap::Syscall);
    let mut child = block_on(parent.fork()).expect("fork");
    assert_eq!(child.regs(), parent.regs());
    let mut area = vec![0; platform.vector_state_len_bytes()];
    get_vectors(&mut child, &mut area).expect("vectors");
    assert_eq!(area[160 + 3 * 16], 40);
    assert_eq!(run(&mut parent), Trap::Syscall);
    assert_eq!(parent.regs().rdi, 41);
    let mut word = [0; 8];
    copy_in(&mut child, DATA, &mut word).expect("copy");
    assert_eq!(u64::from_ne_bytes(word), 40);
    child.regs_mut().rbx = 100;
    assert_eq!(run(&mut child), Trap::Syscall);
    assert_eq!(child.regs().rdi, 101);
    // A grandchild outlives its parent.
    let mut grandchild = block_on(child.fork()).expect("fork");
    drop(child);
    assert_eq!(run(&mut grandchild), Trap::Syscall);
    assert_eq!(grandchild.regs().rdi, 102);
}

#[test]
fn cloned_threads_share_memory() {
    let platform = platform();
    let mut first = start(&*platform, call_with_memory());
    assert_eq!(run(&mut first), Trap::Syscall);
    let mut second = block_on(first.clone_thread()).expect("clone");
    first.regs_mut().rbx = 7;
    assert_eq!(run(&mut first), Trap::Syscall);
    let mut word = [0; 8];
    copy_in(&mut second, DATA, &mut word).expect("copy");
    assert_eq!(u64::from_ne_bytes(word), 8);
    drop(first);
    second.regs_mut().rbx = 9;
    assert_eq!(run(&mut second), Trap::Syscall);
    assert_eq!(second.regs().rdi, 10);
}

code!(spin, "2: pause", "jmp 2b");

#[test]
fn dropped_threads_and_spaces_leave_nothing() {
    let before = children();
    {
        let platform = platform();
        let space = load(&*platform, spin());
        let mut threads: Vec<_> = (0..4).map(|_| thread(&space)).collect();
        // Dropped while it runs.
        let waker = std::task::Waker::noop();
        for thread in &mut threads {
            let pending = thread.poll_run(&mut std::task::Context::from_waker(waker));
            assert!(pending.is_pending());
        }
        let fork = block_on(block_on(space.new_thread()).expect("thread").fork());
        assert!(fork.is_ok());
        assert!(children().len() >= before.len() + 3);
    }
    let end = Instant::now() + Duration::from_secs(5);
    // Other tests of this program make processes of their own: wait until
    // none of ours is left among those there were.
    while !settled() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether no child is a zombie.
fn settled() -> bool {
    children().iter().all(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.contains(") Z ")
    })
}

#[test]
fn a_stub_holds_nothing_but_its_guest() {
    let platform = platform();
    let space = load(&*platform, spin());
    let guest = thread(&space);
    let mut checked = 0;
    for pid in children() {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        if !maps.contains("00400000-00410000") {
            continue;
        }
        let lines: Vec<_> = maps.lines().collect();
        let names: Vec<_> = lines
            .iter()
            .map(|line| {
                line.split_whitespace()
                    .skip(5)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .filter(|name| !name.is_empty() && name != "[vsyscall]")
            .collect();
        assert_eq!(names, ["/memfd:stub (deleted)"], "{maps}");
        // Code, data, stack, stub code, scratch, and the vsyscall page.
        assert!(lines.len() <= 6, "{maps}");
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fds");
        assert_eq!(fds.count(), 1, "only the socket for descriptors");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        assert!(status.contains("Seccomp:\t2"), "{status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        checked += 1;
    }
    assert!(checked >= 1);
    drop(guest);
}

#[test]
fn fifty_processes_run_at_once() {
    let platform = platform();
    let executor = Executor::with_default_workers();
    let mut first = start(&*platform, call_with_memory());
    assert_eq!(run(&mut first), Trap::Syscall);
    let threads: Vec<Box<dyn GuestThread>> = (0..50)
        .map(|_| block_on(first.fork()).expect("fork"))
        .collect();
    let tasks: Vec<_> = threads
        .into_iter()
        .enumerate()
        .map(|(index, mut thread)| {
            executor.spawn_join(async move {
                thread.regs_mut().rbx = index as u64 * 1000;
                for round in 0..50 {
                    let trap = poll_fn(|cx| thread.poll_run(cx)).await;
                    assert_eq!(trap, Trap::Syscall);
                    assert_eq!(thread.regs().rdi, index as u64 * 1000 + round + 1);
                }
                thread
            })
        })
        .collect();
    for task in tasks {
        let thread = block_on(task);
        assert!(thread.regs().rip > CODE);
    }
}

#[test]
fn five_hundred_threads_of_one_process() {
    let platform = platform();
    let executor = Executor::with_default_workers();
    let mut first = start(&*platform, call_with_memory());
    assert_eq!(run(&mut first), Trap::Syscall);
    let threads: Vec<Box<dyn GuestThread>> = (0..500)
        .map(|_| block_on(first.clone_thread()).expect("clone"))
        .collect();
    let tasks: Vec<_> = threads
        .into_iter()
        .map(|mut thread| {
            executor.spawn_join(async move {
                for _ in 0..5 {
                    let trap = poll_fn(|cx| thread.poll_run(cx)).await;
                    assert_eq!(trap, Trap::Syscall);
                }
            })
        })
        .collect();
    for task in tasks {
        block_on(task);
    }
}

#[test]
fn stubs_killed_at_any_moment_end_as_killed_and_leave_nothing() {
    const CASE: &str = "PTRACE_KILLED_CASE";
    if std::env::var_os(CASE).is_none() {
        // A process of its own, which has no other children.
        let name = "stubs_killed_at_any_moment_end_as_killed_and_leave_nothing";
        let status = std::process::Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", name, "--nocapture"])
            .env(CASE, "1")
            .status()
            .expect("spawn");
        assert!(status.success());
        return;
    }
    let platform = platform();
    let executor = Executor::with_default_workers();
    for round in 0..100_u64 {
        let space = load(&*platform, call_with_memory());
        let mut guest = thread(&space);
        let task = executor.spawn_join(async move {
            loop {
                match poll_fn(|cx| guest.poll_run(cx)).await {
                    Trap::Syscall => {
                        let mut word = [0; 8];
                        let _ = poll_fn(|cx| guest.poll_copy_in(cx, DATA, &mut word)).await;
                        let op = sentry_platform::AtomicOp::Add(1);
                        let _ = poll_fn(|cx| guest.poll_atomic(cx, DATA + 8, op)).await;
                        if let Ok(child) = guest.fork().await {
                            drop(child);
                        }
                    }
                    Trap::Killed => return,
                    trap => panic!("{trap:?}"),
                }
            }
        });
        std::thread::sleep(Duration::from_micros(round * 37));
        if round % 4 == 3 {
            // A future that is dropped while it forks.
            drop(task);
        } else {
            space.kill();
            block_on(task);
        }
    }
    let end = Instant::now() + Duration::from_secs(5);
    while children().len() > 1 {
        assert!(
            Instant::now() < end,
            "only the zygote is left: {:?}",
            children()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills a sentry with SIGKILL: its stubs must die with it, wherever they are.
#[test]
fn stubs_die_with_their_sentry() {
    use std::io::{BufRead, BufReader};
    const CASE: &str = "PTRACE_SENTRY_CASE";
    if std::env::var_os(CASE).is_some() {
        hold_guests_forever();
    }
    let mut sentry = std::process::Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "stubs_die_with_their_sentry", "--nocapture"])
        .env(CASE, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut lines = BufReader::new(sentry.stdout.take().expect("piped")).lines();
    let pids: Vec<u32> = loop {
        let line = lines.next().expect("a line").expect("text");
        if let Some(pids) = line.split("stubs: ").nth(1) {
            break pids
                .split(' ')
                .map(|pid| pid.parse().expect("a pid"))
                .collect();
        }
    };
    assert!(pids.len() >= 5, "{pids:?}");
    sentry.kill().expect("kill");
    sentry.wait().expect("wait");
    let end = Instant::now() + Duration::from_secs(5);
    for pid in pids {
        // Whoever inherits it may leave a zombie.
        while std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
        {
            assert!(Instant::now() < end, "{pid} is left");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn hold_guests_forever() -> ! {
    let platform = platform();
    let mut guests: Vec<_> = (0..3).map(|_| start(&*platform, spin())).collect();
    let waker = std::task::Waker::noop();
    for guest in &mut guests {
        let pending = guest.poll_run(&mut std::task::Context::from_waker(waker));
        assert!(pending.is_pending());
    }
    let mut parked = start(&*platform, call_with_memory());
    assert_eq!(run(&mut parked), Trap::Syscall);
    let pids: Vec<_> = children().iter().map(ToString::to_string).collect();
    println!("stubs: {}", pids.join(" "));
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}
