//! Processes, threads, interrupts and the life of stubs.

mod guest;

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use guest::*;
use sentry_platform::executor::{Executor, block_on};
use sentry_platform::{MemOp, Trap};

guest_code!(
    calls_and_stores,
    "2: mov eax, 39",
    "syscall",
    "mov [rdi], rax",
    "jmp 2b",
);

guest_code!(endless, "2: inc rbx", "jmp 2b");

/// Waits up to ten seconds.
fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "still not so");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn fork_copies_memory_and_registers() {
    let platform = platform();
    let (_space, mut parent) = load(&platform, calls_and_stores());
    parent.regs_mut().rdi = DATA;
    assert_eq!(run(&mut *parent), Trap::Syscall);
    copy_out(&mut *parent, DATA, &[1; 8]).expect("mapped");
    let mut child = block_on(parent.fork()).expect("fork");
    assert_eq!(child.regs(), parent.regs());
    parent.regs_mut().rax = 100;
    child.regs_mut().rax = 200;
    assert_eq!(run(&mut *parent), Trap::Syscall);
    assert_eq!(run(&mut *child), Trap::Syscall);
    let mut bytes = [0; 8];
    copy_in(&mut *parent, DATA, &mut bytes).expect("mapped");
    assert_eq!(u64::from_le_bytes(bytes), 100);
    copy_in(&mut *child, DATA, &mut bytes).expect("mapped");
    assert_eq!(u64::from_le_bytes(bytes), 200);
    // Grandchildren, and children of a process whose parent is gone.
    drop(parent);
    let mut grandchild = block_on(child.fork()).expect("fork");
    assert_eq!(run(&mut *grandchild), Trap::Syscall);
}

#[test]
fn shared_mappings_stay_shared_after_fork() {
    use std::os::fd::AsFd;
    let platform = platform();
    let (space, mut parent) = load(&platform, calls_and_stores());
    let file = memfd(4096);
    let map = MemOp::MapFile {
        range: 0x1000_0000..0x1000_1000,
        protection: RW,
        sharing: sentry_platform::Sharing::Shared,
        fd: file.as_fd(),
        offset: 0,
    };
    block_on(space.apply(&[map])).expect("mapped");
    parent.regs_mut().rdi = 0x1000_0000;
    assert_eq!(run(&mut *parent), Trap::Syscall);
    let mut child = block_on(parent.fork()).expect("fork");
    child.regs_mut().rax = 77;
    assert_eq!(run(&mut *child), Trap::Syscall);
    let mut bytes = [0; 8];
    copy_in(&mut *parent, 0x1000_0000, &mut bytes).expect("mapped");
    assert_eq!(u64::from_le_bytes(bytes), 77);
}

#[test]
fn threads_share_memory_and_their_contexts_are_reused() {
    let platform = platform();
    let (space, mut first) = load(&platform, calls_and_stores());
    first.regs_mut().rdi = DATA;
    assert_eq!(run(&mut *first), Trap::Syscall);
    for round in 0..50u64 {
        let mut threads: Vec<_> = (0..12)
            .map(|_| block_on(first.clone_thread()).expect("thread"))
            .collect();
        for (thread, index) in threads.iter_mut().zip(0u64..) {
            thread.regs_mut().rdi = DATA + 8 * index;
            thread.regs_mut().rax = round * 100 + index;
            assert_eq!(run(&mut **thread), Trap::Syscall);
        }
        let mut bytes = [0; 8 * 12];
        copy_in(&mut *first, DATA, &mut bytes).expect("mapped");
        for (value, index) in bytes.chunks(8).zip(0u64..) {
            assert_eq!(value, (round * 100 + index).to_le_bytes());
        }
    }
    let mut plain = block_on(space.new_thread()).expect("thread");
    assert_eq!(plain.regs().rip, 0);
    plain.regs_mut().rip = CODE;
    plain.regs_mut().rdi = DATA;
    assert_eq!(run(&mut *plain), Trap::Syscall);
}

#[test]
fn an_endless_loop_is_interrupted() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, endless());
    let handle = thread.handle();
    for round in 0..20 {
        let handle = handle.clone();
        let interrupter = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(40 * (round % 2)));
            handle.interrupt();
        });
        let before = thread.regs().rbx;
        assert_eq!(run(&mut *thread), Trap::Interrupted);
        interrupter.join().expect("no panic");
        assert!(round % 2 == 0 || thread.regs().rbx > before);
        assert_eq!(thread.regs().rip & !0xf, CODE);
    }
    // Raised while it is stopped: the next run does not begin.
    handle.interrupt();
    let before = thread.regs().rbx;
    assert_eq!(run(&mut *thread), Trap::Interrupted);
    assert_eq!(thread.regs().rbx, before);
}

guest_code!(
    calls_with_vectors,
    "movq xmm7, rbx",
    "2: mov eax, 39",
    "inc rbx",
    "movq xmm7, rbx",
    "syscall",
    "movq rcx, xmm7",
    "cmp rcx, rbx",
    "je 2b",
    "ud2",
);

/// Interrupts hit every instruction of handler and resume sequence in time.
#[test]
fn interrupts_at_any_moment_lose_nothing() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, calls_with_vectors());
    let handle = thread.handle();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let interrupter = std::thread::spawn(move || {
        let mut sent = 0u32;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            handle.interrupt();
            sent += 1;
            for _ in 0..sent % 97 {
                std::hint::spin_loop();
            }
        }
    });
    let (mut calls, mut interrupts) = (0, 0);
    let start = Instant::now();
    while (calls < 3000 || interrupts < 1000) && start.elapsed() < Duration::from_secs(20) {
        match run(&mut *thread) {
            Trap::Syscall => {
                calls += 1;
                assert_eq!(thread.regs().rbx, calls);
            }
            Trap::Interrupted => interrupts += 1,
            other => panic!("{other:?} after {calls} calls, {:?}", thread.regs()),
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    interrupter.join().expect("no panic");
    assert!(calls > 100 && interrupts > 10, "{calls}, {interrupts}");
}

#[test]
fn a_killed_stub_is_noticed_and_reaped() {
    let platform = platform();
    let (space, mut thread) = load(&platform, endless());
    let children = children();
    space.kill();
    assert_eq!(run(&mut *thread), Trap::Killed);
    assert_eq!(run(&mut *thread), Trap::Killed);
    let mut bytes = [0; 8];
    assert!(copy_in(&mut *thread, DATA, &mut bytes).is_err());
    assert!(block_on(space.read(DATA, &mut bytes)).is_err());
    assert!(block_on(thread.fork()).is_err());
    drop((space, thread));
    // This test binary runs other tests at the same time; only zombies count.
    eventually(|| zombies(&children) == 0);
}

#[test]
fn threads_given_up_in_guest_code_come_to_rest() {
    let platform = platform();
    let (space, mut thread) = load(&platform, endless());
    for _ in 0..20 {
        let mut other = block_on(thread.clone_thread()).expect("thread");
        other.regs_mut().rip = CODE;
        let mut polls = 0;
        block_on(poll_fn(|cx| {
            polls += 1;
            assert!(other.poll_run(cx).is_pending());
            Poll::Ready(())
        }));
        drop(other);
    }
    let tasks = format!("/proc/{}/task", stub_pid(&*space, &mut *thread));
    eventually(|| {
        drop(block_on(thread.clone_thread()));
        std::fs::read_dir(&tasks).map_or(0, Iterator::count) < 14
    });
}

#[test]
fn cpu_time_is_that_of_the_thread() {
    let platform = platform();
    let (_space, mut busy) = load(&platform, endless());
    let mut idle = block_on(busy.clone_thread()).expect("thread");
    idle.handle().interrupt();
    assert_eq!(run(&mut *idle), Trap::Interrupted);
    let handle = busy.handle();
    let interrupter = std::thread::spawn(move || {
        let before = handle.cpu_time();
        std::thread::sleep(Duration::from_millis(200));
        let after = handle.cpu_time();
        handle.interrupt();
        (before, after)
    });
    assert_eq!(run(&mut *busy), Trap::Interrupted);
    let (before, after) = interrupter.join().expect("no panic");
    assert!(after > before, "{before:?} to {after:?}");
    let (busy, idle) = (busy.handle().cpu_time(), idle.handle().cpu_time());
    assert!(idle < busy / 4, "{idle:?} of {busy:?}");
}

/// More than one host call can wait for.
#[test]
fn many_running_stubs_are_waited_for() {
    let platform = platform();
    let executor = Executor::new(2);
    executor.add_hot_source(platform.hot_source());
    let (mut running, mut handles) = (Vec::new(), Vec::new());
    for _ in 0..150 {
        let (space, mut thread) = load(&platform, endless());
        handles.push(thread.handle());
        running.push(executor.spawn_join(async move {
            let trap = poll_fn(|cx| thread.poll_run(cx)).await;
            drop(space);
            trap
        }));
    }
    std::thread::sleep(Duration::from_millis(50));
    for handle in handles {
        handle.interrupt();
    }
    for task in running {
        assert_eq!(block_on(task), Trap::Interrupted);
    }
    executor.shutdown();
}

#[test]
fn a_hundred_stubs_run_on_an_executor() {
    let platform = platform();
    let executor = Executor::new(2);
    executor.add_hot_source(platform.hot_source());
    let mut running = Vec::new();
    for index in 0..100u64 {
        let (space, mut thread) = load(&platform, calls_and_stores());
        thread.regs_mut().rdi = DATA;
        running.push(executor.spawn_join(async move {
            for round in 0..200 {
                let trap = poll_fn(|cx| thread.poll_run(cx)).await;
                assert_eq!(trap, Trap::Syscall);
                thread.regs_mut().rax = index * 1000 + round;
            }
            let mut bytes = [0; 8];
            poll_fn(|cx| thread.poll_copy_in(cx, DATA, &mut bytes))
                .await
                .expect("mapped");
            drop(space);
            u64::from_le_bytes(bytes)
        }));
    }
    for (task, index) in running.into_iter().zip(0..) {
        assert_eq!(block_on(task), index * 1000 + 198);
    }
    executor.shutdown();
}

fn memfd(len: i64) -> std::os::fd::OwnedFd {
    use std::os::fd::{AsRawFd, FromRawFd};
    // SAFETY: a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC);
        let fd = std::os::fd::OwnedFd::from_raw_fd(fd);
        assert_eq!(libc::ftruncate(fd.as_raw_fd(), len), 0);
        fd
    }
}

/// Pids of this process' children.
fn children() -> Vec<u32> {
    let mut pids = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")
        .expect("proc")
        .flatten()
    {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        pids.extend(
            list.split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    pids
}

fn zombies(pids: &[u32]) -> usize {
    let is_zombie = |pid: &&u32| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
    };
    pids.iter().filter(is_zombie).count()
}

/// Finds the stub of `thread` by a mark in its memory.
fn stub_pid(
    space: &dyn sentry_platform::AddressSpace,
    thread: &mut dyn sentry_platform::GuestThread,
) -> u32 {
    use std::os::unix::fs::FileExt;
    let mark: [u8; 16] = std::array::from_fn(|index| {
        (Instant::now().elapsed().subsec_nanos() as u8) ^ (index as u8) ^ 0x5a
    });
    let _ = thread;
    block_on(space.write(DATA + 4096, &mark)).expect("mapped");
    for pid in children() {
        let mut bytes = [0; 16];
        let Ok(mem) = std::fs::File::open(format!("/proc/{pid}/mem")) else {
            continue;
        };
        if mem.read_exact_at(&mut bytes, DATA + 4096).is_ok() && bytes == mark {
            return pid;
        }
    }
    panic!("no child has the mark");
}
