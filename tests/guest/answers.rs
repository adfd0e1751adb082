//! What each system call answers to arguments that mean nothing.

use std::time::{Duration, Instant};

use crate::util;

/// Stored where a call has not answered: it blocks, or ends its caller.
const SILENCE: i64 = i64::MIN;

/// How long a call may take to answer.
const PATIENCE: Duration = Duration::from_millis(400);

/// Prints a line `NUMBER ANSWER` for each call below `end`, made with
/// arguments of -1 in a process of its own; `-` if it does not answer.
pub unsafe fn print(end: i64) {
    let shared = libc::mmap(
        std::ptr::null_mut(),
        4096,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        -1,
        0,
    )
    .cast::<i64>();
    for number in 0..end {
        shared.write_volatile(SILENCE);
        let child = util::fork(|| answer(number, shared));
        let until = Instant::now() + PATIENCE;
        let mut status = 0;
        while libc::waitpid(child, &mut status, libc::WNOHANG) == 0 {
            if Instant::now() > until {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, &mut status, 0);
                break;
            }
            libc::usleep(200);
        }
        match shared.read_volatile() {
            SILENCE => println!("{number} -"),
            result => println!("{number} {result}"),
        }
    }
}

/// In assembly, since a child of `vfork(2)` runs on its parent's stack.
unsafe fn answer(number: i64, shared: *mut i64) {
    // To an unknown operation, Linux answers as to an unknown call.
    let second: i64 = if number == libc::SYS_futex { 0 } else { -1 };
    std::arch::asm!(
        "syscall",
        "mov [r12], rax",
        "xor edi, edi",
        "mov eax, 231", // exit_group
        "syscall",
        in("rax") number, in("rdi") -1i64, in("rsi") second, in("rdx") -1i64,
        in("r10") -1i64, in("r8") -1i64, in("r9") -1i64, in("r12") shared,
        options(noreturn),
    );
}
