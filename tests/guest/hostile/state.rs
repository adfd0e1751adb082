//! Registers, descriptors, threads and signals as weapons.

use super::*;
use crate::util::{self, *};

cases![
    clobber_segment_bases,
    close_and_scan_descriptors,
    signal_masks_do_not_stop_kill,
    user_dispatch_or_refusal,
    rseq_abuse,
    ptrace_self_hide,
    syscall_bursts_from_threads,
    stack_pointer_games,
    tight_loop_is_killable,
    many_threads_end_at_once,
    exec_storm,
];

unsafe fn clobber_segment_bases() {
    may_die(|| {
        sys!(libc::SYS_arch_prctl, 0x1001, 0x1000);
        check!(sys!(libc::SYS_getpid) > 0);
        let mut gs = 0u64;
        sys!(libc::SYS_arch_prctl, 0x1004, &mut gs as *mut u64);
        eq!(gs, 0x1000);
    });
    may_die(|| {
        // Selectors loaded by the guest itself.
        std::arch::asm!("xor eax, eax", "mov gs, ax", "mov eax, 39", "syscall", out("rax") _, out("rcx") _, out("r11") _);
        check!(sys!(libc::SYS_getppid) > 0);
    });
    may_die(|| {
        std::arch::asm!("mov eax, 0x2b", "mov fs, ax", "mov eax, 60", "xor edi, edi", "syscall", out("rax") _, out("rcx") _, out("r11") _, out("rdi") _);
    });
}

unsafe fn close_and_scan_descriptors() {
    in_child(|| {
        for fd in 0..2000 {
            libc::close(fd);
        }
        check!(sys!(libc::SYS_getpid) > 0);
        eq!(libc::open(c"/".as_ptr(), libc::O_RDONLY), 0);
    });
}

unsafe fn signal_masks_do_not_stop_kill() {
    let pid = fork(|| {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        loop {
            std::hint::spin_loop();
        }
    });
    sleep_ms(20);
    libc::kill(pid, libc::SIGKILL);
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGKILL);
}

unsafe fn user_dispatch_or_refusal() {
    may_die(|| {
        let selector = anon(4096);
        let r = libc::prctl(59, 1, 0, 0, selector);
        check!(r == 0 || errno() == libc::EINVAL);
        if r == 0 {
            check!(sys!(libc::SYS_getpid) > 0);
        }
    });
}

unsafe fn rseq_abuse() {
    may_die(|| {
        let area = anon(4096);
        sys!(libc::SYS_rseq, area, 32, 0, 0x5305_3053);
        // A critical section that claims everything.
        let cs = anon(4096).cast::<u64>();
        *cs.add(1) = 0;
        *cs.add(2) = u64::MAX >> 17;
        *cs.add(3) = 0x1234;
        *area.add(8).cast::<u64>() = cs as u64;
        for _ in 0..100 {
            sys!(libc::SYS_getppid);
            libc::sched_yield();
        }
    });
}

unsafe fn ptrace_self_hide() {
    may_die(|| {
        libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        check!(sys!(libc::SYS_getpid) > 0);
    });
}

unsafe fn syscall_bursts_from_threads() {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(|| {
                for _ in 0..5000 {
                    sys!(libc::SYS_getppid);
                }
            })
        })
        .collect();
    for t in threads {
        check!(t.join().is_ok());
    }
}

unsafe fn stack_pointer_games() {
    // A signal arrives while the stack pointer is wild: fatal to the process,
    // to nothing else.
    may_die(|| {
        handle(
            libc::SIGALRM,
            skip_instruction as *const () as usize,
            libc::SA_SIGINFO,
        );
        let value = libc::itimerval {
            it_interval: libc::timeval {
                tv_sec: 0,
                tv_usec: 0,
            },
            it_value: libc::timeval {
                tv_sec: 0,
                tv_usec: 5000,
            },
        };
        sys!(
            libc::SYS_setitimer,
            libc::ITIMER_REAL,
            &value as *const _,
            0
        );
        std::arch::asm!("mov rsp, 16", "2:", "jmp 2b", options(noreturn));
    });
}

unsafe fn tight_loop_is_killable() {
    for _ in 0..5 {
        let pid = fork(|| {
            let pids: Vec<_> = (0..3)
                .map(|_| {
                    std::thread::spawn(|| {
                        loop {
                            std::hint::spin_loop();
                        }
                    })
                })
                .collect();
            let _ = pids;
            loop {
                std::hint::spin_loop();
            }
        });
        sleep_ms(10);
        libc::kill(pid, libc::SIGKILL);
        eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGKILL);
    }
}

unsafe fn many_threads_end_at_once() {
    for _ in 0..5 {
        let pid = fork(|| {
            for _ in 0..50 {
                std::thread::spawn(|| {
                    loop {
                        sys!(libc::SYS_getppid);
                    }
                });
            }
            sleep_ms(10);
            libc::_exit(3);
        });
        eq!(libc::WEXITSTATUS(util::wait(pid)), 3);
    }
}

unsafe fn exec_storm() {
    let exe = crate::helpers::exe();
    let kids: Vec<i32> = (0..20)
        .map(|_| {
            fork(|| {
                let argv = [
                    exe.as_ptr(),
                    c"exit".as_ptr(),
                    c"4".as_ptr(),
                    std::ptr::null(),
                ];
                for _ in 0..3 {
                    std::thread::spawn(|| {
                        loop {
                            sys!(libc::SYS_getppid);
                        }
                    });
                }
                libc::execv(exe.as_ptr(), argv.as_ptr());
            })
        })
        .collect();
    for k in kids {
        eq!(libc::WEXITSTATUS(util::wait(k)), 4);
    }
}
