//! What operations of the ptrace platform cost; run it by hand:
//! `cargo test --release -p sentry-platform --test ptrace_measure -- --ignored --nocapture`

mod common;

use std::future::poll_fn;
use std::time::Instant;

use common::{DATA, atomic, copy_in, run, start};
use sentry_platform::executor::{Executor, block_on};
use sentry_platform::ptrace::PtracePlatform;
use sentry_platform::{AtomicOp, GuestThread, Platform, Trap};

code!(calls, "2: mov eax, 39", "syscall", "jmp 2b");

fn report(name: &str, count: u32, start: Instant) {
    let per_call = start.elapsed() / count;
    println!("{name:<40} {per_call:?}");
}

#[test]
#[ignore = "prints measurements"]
fn measure() {
    let start_up = Instant::now();
    let platform = PtracePlatform::new().expect("platform");
    report("platform start", 1, start_up);
    let executor = Executor::with_default_workers();
    let mut thread = start(&*platform, calls());
    let begin = Instant::now();
    for _ in 0..2000 {
        assert_eq!(run(&mut thread), Trap::Syscall);
    }
    report("system call, task on a foreign thread", 2000, begin);
    let thread = block_on(executor.spawn_join(async move {
        let mut thread = thread;
        let begin = Instant::now();
        for _ in 0..20_000 {
            let trap = poll_fn(|cx| thread.poll_run(cx)).await;
            assert_eq!(trap, Trap::Syscall);
        }
        report("system call, task of the executor", 20_000, begin);
        let mut word = [0; 8];
        let begin = Instant::now();
        for _ in 0..20_000 {
            poll_fn(|cx| thread.poll_copy_in(cx, DATA, &mut word))
                .await
                .expect("copy");
        }
        report("copy in of 8 bytes", 20_000, begin);
        let begin = Instant::now();
        for _ in 0..20_000 {
            let load = AtomicOp::Add(1);
            poll_fn(|cx| thread.poll_atomic(cx, DATA, load))
                .await
                .expect("atomic");
        }
        report("atomic operation, task of the executor", 20_000, begin);
        let begin = Instant::now();
        for _ in 0..300 {
            let child = thread.fork().await.expect("fork");
            drop(child);
        }
        report("fork and drop", 300, begin);
        let begin = Instant::now();
        for _ in 0..300 {
            let clone = thread.clone_thread().await.expect("clone");
            drop(clone);
        }
        report("clone_thread and drop", 300, begin);
        let space = thread.space();
        let begin = Instant::now();
        for _ in 0..300 {
            space
                .apply(&[common::anonymous(0x1000_0000..0x1010_0000, common::RW)])
                .await
                .expect("map");
        }
        report("mmap by the leader", 300, begin);
        let begin = Instant::now();
        for _ in 0..300 {
            thread
                .apply(&[common::anonymous(0x1000_0000..0x1010_0000, common::RW)])
                .await
                .expect("map");
        }
        report("mmap by the thread", 300, begin);
        let begin = Instant::now();
        for _ in 0..300 {
            let space = platform.new_space().await.expect("space");
            let child = space.new_thread().await.expect("thread");
            drop(child);
        }
        report("new space and thread", 300, begin);
        thread
    }));
    let mut thread = thread;
    let begin = Instant::now();
    for _ in 0..2000 {
        atomic(&mut thread, DATA, AtomicOp::Load).expect("atomic");
    }
    report("atomic operation, foreign thread", 2000, begin);
    let mut page = vec![0; 4096];
    let begin = Instant::now();
    for _ in 0..20_000 {
        copy_in(&mut thread, DATA, &mut page).expect("copy");
    }
    report("copy in of 4 KiB", 20_000, begin);
    let count = 8;
    let threads: Vec<Box<dyn GuestThread>> = (0..count)
        .map(|_| block_on(thread.fork()).expect("fork"))
        .collect();
    let begin = Instant::now();
    let tasks: Vec<_> = threads
        .into_iter()
        .map(|mut thread| {
            executor.spawn_join(async move {
                for _ in 0..5000 {
                    let trap = poll_fn(|cx| thread.poll_run(cx)).await;
                    assert_eq!(trap, Trap::Syscall);
                }
            })
        })
        .collect();
    for task in tasks {
        block_on(task);
    }
    report("system call, 8 processes at once", 8 * 5000, begin);
}
