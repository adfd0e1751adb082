//! What calls read and write travels with them: one hand-over for both.

mod guest;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use guest::*;
use sentry_platform::executor::block_on;
use sentry_platform::{AddressSpace, GuestThread, MemOp, Protection, Trap};
use syscall_tables::Errno;
use syscall_tables::table::nr;

// Calls as trampolines make them, with the registers it is given.
guest_code!(
    trampoline,
    "2: lea rcx, [rip + 3f]",
    "movabs r11, 0x7fff00015000",
    "jmp r11",
    "3: .long 4f - 3b",
    "4: mov rax, rbx",
    "jmp 2b",
);

guest_code!(signal, "2: syscall", "mov rax, rbx", "jmp 2b");

const PATH: u64 = DATA + 0x10;
const BUFFER: u64 = DATA + 0x2100;
const PAGE: u64 = 0x1000;

/// Both ways into the stub.
fn ways() -> [&'static [u8]; 2] {
    [trampoline(), signal()]
}

fn set_call(thread: &mut dyn GuestThread, number: u32, args: [u64; 3]) {
    let regs = thread.regs_mut();
    regs.rax = number.into();
    regs.rbx = number.into();
    [regs.rdi, regs.rsi, regs.rdx] = args;
}

fn protect(space: &dyn AddressSpace, addr: u64, len: u64, protection: Protection) {
    let range = addr & !(PAGE - 1)..(addr + len).next_multiple_of(PAGE);
    block_on(space.apply(&[MemOp::Protect { range, protection }])).expect("protected");
}

fn peek(space: &dyn AddressSpace, addr: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    block_on(space.read(addr, &mut bytes)).expect("readable");
    bytes
}

async fn call(thread: &mut dyn GuestThread) {
    assert_eq!(poll_fn(|cx| thread.poll_run(cx)).await, Trap::Syscall);
}

#[test]
fn a_path_comes_with_its_call_and_a_struct_goes_with_the_result() {
    for code in ways() {
        let platform = platform();
        let (space, mut thread) = load(&platform, code);
        block_on(space.write(PATH, b"/etc/hosts\0rest")).expect("written");
        set_call(&mut *thread, nr::STAT, [PATH, BUFFER, 0]);
        let stat: Vec<u8> = (0..144).collect();
        block_on(async {
            call(&mut *thread).await;
            // From now on only the context has it. This task must not wait.
            std::thread::scope(|scope| {
                scope.spawn(|| protect(&*space, PATH, 1, Protection::empty()));
            });
            let mut path = [0; 96];
            let len = poll_fn(|cx| thread.poll_copy_in_str(cx, PATH, &mut path)).await;
            assert_eq!(len.map(|len| &path[..len]), Ok(&b"/etc/hosts"[..]));
            let mut part = [0; 5];
            let read = poll_fn(|cx| thread.poll_copy_in(cx, PATH + 1, &mut part)).await;
            assert_eq!((read, &part), (Ok(()), b"etc/h"));
            poll_fn(|cx| thread.poll_copy_out(cx, BUFFER, &stat))
                .await
                .expect("writable");
        });
        assert_eq!(peek(&*space, BUFFER, 144), [0; 144], "not yet");
        thread.set_result(7);
        assert_eq!(run(&mut *thread), Trap::Syscall);
        assert_eq!(peek(&*space, BUFFER, 144), stat);
        assert_eq!(thread.call().args[..2], [PATH, BUFFER]);
    }
}

#[test]
fn a_copy_put_aside_is_made_before_anybody_may_look() {
    for code in ways() {
        let platform = platform();
        let (space, mut thread) = load(&platform, code);
        set_call(&mut *thread, nr::READ, [0, BUFFER, 8]);
        block_on(async {
            call(&mut *thread).await;
            poll_fn(|cx| thread.poll_copy_out(cx, BUFFER, b"12345678"))
                .await
                .expect("writable");
            let mut bytes = [0; 8];
            poll_fn(|cx| thread.poll_copy_in(cx, BUFFER, &mut bytes))
                .await
                .expect("readable");
            assert_eq!(&bytes, b"12345678");
            thread.set_result(8);
            call(&mut *thread).await;
            poll_fn(|cx| thread.poll_copy_out(cx, BUFFER, b"abc"))
                .await
                .expect("writable");
            poll_fn(|cx| thread.poll_flush(cx)).await;
        });
        assert_eq!(peek(&*space, BUFFER, 8), b"abc45678");
        block_on(async {
            thread.set_result(3);
            call(&mut *thread).await;
            poll_fn(|cx| thread.poll_copy_out(cx, BUFFER, b"fork"))
                .await
                .expect("writable");
        });
        let twin = block_on(thread.fork()).expect("fork");
        assert_eq!(peek(&*twin.space(), BUFFER, 8), b"fork5678");
    }
}

#[test]
fn faults_are_reported_where_they_are() {
    for code in ways() {
        let platform = platform();
        let (space, mut thread) = load(&platform, code);
        let end = DATA + DATA_LEN;
        block_on(space.write(end - 3, b"abc")).expect("written");
        protect(&*space, BUFFER, 1, Protection::READ);
        // A path that ends nowhere, and a buffer that is not writable.
        set_call(&mut *thread, nr::STAT, [end - 3, BUFFER, 0]);
        block_on(async {
            call(&mut *thread).await;
            let mut path = [0; 96];
            let fault = poll_fn(|cx| thread.poll_copy_in_str(cx, end - 3, &mut path)).await;
            assert_eq!(fault.map_err(|fault| fault.copied), Err(3));
            let fault = poll_fn(|cx| thread.poll_copy_out(cx, BUFFER, &[1; 144])).await;
            assert_eq!(fault.map_err(|fault| fault.copied), Err(0));
        });
        // Addresses that are nobody's, or the stub's.
        for addr in [
            0,
            8,
            1 << 46,
            1 << 63,
            0x7fff_0000_0000,
            0x7fff_1002_0000,
            u64::MAX,
        ] {
            thread.set_result(Errno::EFAULT.as_return());
            set_call(&mut *thread, nr::STAT, [addr, addr, 0]);
            block_on(async {
                call(&mut *thread).await;
                let mut path = [0; 96];
                let fault = poll_fn(|cx| thread.poll_copy_in_str(cx, addr, &mut path)).await;
                assert!(fault.is_err(), "{addr:#x}");
                let fault = poll_fn(|cx| thread.poll_copy_out(cx, addr, &[1; 144])).await;
                assert!(fault.is_err(), "{addr:#x}");
            });
        }
        // Vector state has outlived all that; the thread goes on.
        set_call(&mut *thread, nr::READ, [0, DATA, u64::MAX]);
        assert_eq!(run(&mut *thread), Trap::Syscall);
        assert_eq!(thread.call().args, [0, DATA, u64::MAX, 0, 0, 0]);
    }
}

#[test]
fn memory_that_goes_away_meanwhile_is_left_out() {
    for code in ways() {
        let platform = platform();
        let (space, mut thread) = load(&platform, code);
        let buffer = DATA + PAGE - 8;
        set_call(&mut *thread, nr::READ, [0, buffer, 64]);
        block_on(async {
            call(&mut *thread).await;
            poll_fn(|cx| thread.poll_copy_out(cx, buffer, &[7; 64]))
                .await
                .expect("writable");
        });
        protect(&*space, DATA, 1, Protection::empty());
        thread.set_result(64);
        assert_eq!(run(&mut *thread), Trap::Syscall);
        assert_eq!(
            peek(&*space, DATA + PAGE, 57),
            [[7; 56].as_slice(), &[0]].concat()
        );
        protect(&*space, DATA, 1, RW);
        assert_eq!(peek(&*space, buffer, 8), [0; 8]);
    }
}

#[test]
fn large_buffers_come_and_go_whole_or_by_commands() {
    for code in ways() {
        let platform = platform();
        let (space, mut thread) = load(&platform, code);
        for len in [1, 24, 25, 192, 193, 3072, 3073, 4096, 4097, 9000] {
            let bytes: Vec<u8> = (0..len).map(|index| (index % 251) as u8 + 1).collect();
            block_on(space.write(BUFFER, &bytes)).expect("written");
            set_call(&mut *thread, nr::WRITE, [1, BUFFER, len]);
            let mut read = vec![0; bytes.len()];
            block_on(async {
                call(&mut *thread).await;
                poll_fn(|cx| thread.poll_copy_in(cx, BUFFER, &mut read))
                    .await
                    .expect("readable");
            });
            assert!(read == bytes, "{len} in");
            let to = BUFFER + 0x8000;
            set_call(&mut *thread, nr::READ, [1, to, len]);
            block_on(async {
                call(&mut *thread).await;
                poll_fn(|cx| thread.poll_copy_out(cx, to, &bytes))
                    .await
                    .expect("writable");
            });
            thread.set_result(len);
            assert_eq!(run(&mut *thread), Trap::Syscall);
            assert!(peek(&*space, to, bytes.len()) == bytes, "{len} out");
        }
    }
}

#[test]
fn what_has_come_is_old_once_the_task_has_waited() {
    for code in ways() {
        let platform = platform();
        let (space, mut thread) = load(&platform, code);
        set_call(&mut *thread, nr::WRITE, [1, BUFFER, 8]);
        assert_eq!(run(&mut *thread), Trap::Syscall);
        block_on(space.write(BUFFER, b"newer")).expect("written");
        let mut bytes = [0; 5];
        copy_in(&mut *thread, BUFFER, &mut bytes).expect("readable");
        assert_eq!(&bytes, b"newer");
    }
}

#[test]
fn interrupts_and_changing_memory_lose_nothing() {
    for code in ways() {
        let platform = platform();
        let (space, mut thread) = load(&platform, code);
        set_call(&mut *thread, nr::POLL, [BUFFER, 3, 0]);
        let handle = thread.handle();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, calls) = (stop.clone(), Arc::new(AtomicU64::new(0)));
        let interrupter = std::thread::spawn(move || {
            let mut sent = 0u32;
            while !stopped.load(Ordering::Relaxed) {
                handle.interrupt();
                sent += 1;
                for _ in 0..sent % 97 {
                    std::hint::spin_loop();
                }
            }
        });
        let changer = {
            let (space, stop) = (space.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    protect(&*space, BUFFER, 1, Protection::READ);
                    protect(&*space, BUFFER, 1, RW);
                }
            })
        };
        let start = Instant::now();
        let mut interrupts = 0;
        block_on(async {
            while (calls.load(Ordering::Relaxed) < 3000 || interrupts < 50)
                && start.elapsed() < Duration::from_secs(10)
            {
                match poll_fn(|cx| thread.poll_run(cx)).await {
                    Trap::Syscall => {
                        let count = calls.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(thread.call().args[..3], [BUFFER, 3, 0]);
                        let mut old = [0; 24];
                        poll_fn(|cx| thread.poll_copy_in(cx, BUFFER, &mut old))
                            .await
                            .expect("readable");
                        let new = [(count % 256) as u8; 24];
                        // It may be read-only right now.
                        let _ = poll_fn(|cx| thread.poll_copy_out(cx, BUFFER, &new)).await;
                        thread.set_result(0);
                    }
                    Trap::Interrupted => interrupts += 1,
                    other => panic!("{other:?}, {:?}", thread.regs()),
                }
            }
        });
        stop.store(true, Ordering::Relaxed);
        interrupter.join().expect("no panic");
        changer.join().expect("no panic");
        let calls = calls.load(Ordering::Relaxed);
        assert!(calls > 100 && interrupts > 10, "{calls}, {interrupts}");
    }
}
