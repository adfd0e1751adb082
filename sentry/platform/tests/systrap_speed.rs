//! Prints what traps and commands cost. Run with `--nocapture`, in release
//! mode, on a quiet machine; the limits asserted are loose.

mod guest;

use std::future::poll_fn;
use std::time::Instant;

use guest::*;
use sentry_platform::executor::{Executor, block_on};
use sentry_platform::{MemOp, Trap};

guest_code!(calls, "2: mov eax, 110", "syscall", "jmp 2b");

// As a trampoline makes them.
guest_code!(
    trampoline,
    "2: mov eax, 110",
    "lea rcx, [rip + 3f]",
    "movabs r11, 0x7fff00015000",
    "jmp r11",
    "3: .long 4f - 3b",
    "4: jmp 2b",
);

#[test]
fn calls_by_trampoline() {
    let platform = platform();
    let (_space, mut thread) = load(&platform, trampoline());
    let executor = Executor::new(1);
    executor.add_hot_source(platform.hot_source());
    let task = async move {
        const CALLS: u32 = 2_000;
        assert_eq!(poll_fn(|cx| thread.poll_run(cx)).await, Trap::Syscall);
        assert_eq!(thread.call().number, 110);
        let (mut getppid, mut read) = (f64::MAX, f64::MAX);
        for _ in 0..100 {
            let start = Instant::now();
            for _ in 0..CALLS {
                assert_eq!(poll_fn(|cx| thread.poll_run(cx)).await, Trap::Syscall);
                thread.set_result(1);
            }
            getppid = getppid.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
            let start = Instant::now();
            for _ in 0..CALLS {
                assert_eq!(poll_fn(|cx| thread.poll_run(cx)).await, Trap::Syscall);
                poll_fn(|cx| thread.poll_copy_out(cx, DATA, &[1]))
                    .await
                    .expect("mapped");
                thread.set_result(1);
            }
            read = read.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
        }
        println!("getppid by trampoline, best {getppid:.0} ns; with a copy of 1 B {read:.0} ns");
        getppid
    };
    let each = block_on(executor.spawn_join(task));
    executor.shutdown();
    assert!(each < 50_000.0);
}

fn report(what: &str, count: u32, start: Instant) -> f64 {
    let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(count);
    println!("{what:<44} {each:>9.0} ns");
    each
}

#[test]
fn traps_and_commands() {
    let platform = platform();
    let (space, mut thread) = load(&platform, calls());
    let executor = Executor::new(1);
    executor.add_hot_source(platform.hot_source());
    let task = {
        async move {
            const CALLS: u32 = 100_000;
            for _ in 0..1000 {
                assert_eq!(poll_fn(|cx| thread.poll_run(cx)).await, Trap::Syscall);
            }
            let start = Instant::now();
            for _ in 0..CALLS {
                assert_eq!(poll_fn(|cx| thread.poll_run(cx)).await, Trap::Syscall);
                thread.regs_mut().rax = 1;
            }
            let getppid = report("getppid by SIGSYS", CALLS, start);
            let mut byte = [0];
            let mut page = vec![0; 4096];
            let mut window = vec![0; 65536];
            let start = Instant::now();
            for _ in 0..CALLS {
                poll_fn(|cx| thread.poll_copy_in(cx, DATA, &mut byte))
                    .await
                    .expect("mapped");
            }
            report("copy in 1 B", CALLS, start);
            let start = Instant::now();
            for _ in 0..CALLS {
                poll_fn(|cx| thread.poll_copy_out(cx, DATA, &page))
                    .await
                    .expect("mapped");
            }
            report("copy out 4 KiB", CALLS, start);
            let start = Instant::now();
            for _ in 0..CALLS / 10 {
                poll_fn(|cx| thread.poll_copy_in(cx, DATA, &mut window))
                    .await
                    .expect("mapped");
            }
            report("copy in 64 KiB", CALLS / 10, start);
            let path = b"/usr/lib/x86_64-linux-gnu/libc.so.6\0";
            poll_fn(|cx| thread.poll_copy_out(cx, DATA, path))
                .await
                .expect("mapped");
            let start = Instant::now();
            for _ in 0..CALLS {
                poll_fn(|cx| thread.poll_copy_in_str(cx, DATA, &mut page))
                    .await
                    .expect("mapped");
            }
            report("copy in a path of 35 B", CALLS, start);
            let at = 0x1000_0000..0x1001_0000;
            let ops = [
                MemOp::MapAnonymous {
                    range: at.clone(),
                    protection: RW,
                },
                MemOp::Unmap { range: at },
            ];
            let start = Instant::now();
            for _ in 0..CALLS / 10 {
                thread.apply(&ops).await.expect("applied");
            }
            report("mmap + munmap by the app thread", CALLS / 10, start);
            let start = Instant::now();
            for _ in 0..CALLS / 10 {
                space.apply(&ops).await.expect("applied");
            }
            report("mmap + munmap by the control thread", CALLS / 10, start);
            let start = Instant::now();
            for _ in 0..200 {
                drop(thread.fork().await.expect("fork"));
            }
            report("fork and drop", 200, start);
            let start = Instant::now();
            for _ in 0..1000 {
                drop(thread.clone_thread().await.expect("thread"));
            }
            report("thread (reused)", 1000, start);
            let mut threads = Vec::new();
            let start = Instant::now();
            for _ in 0..200 {
                threads.push(thread.clone_thread().await.expect("thread"));
            }
            report("thread (new)", 200, start);
            getppid
        }
    };
    let getppid = block_on(executor.spawn_join(task));
    executor.shutdown();
    assert!(getppid < 100_000.0);
}
