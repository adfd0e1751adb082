//! Guest code that tries other ways into the kernel, and to disturb what runs
//! beside it. Natively these are harmless; inside they must be as well.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use crate::util::{self, *};

cases![
    int80_is_not_the_host,
    x32_numbers,
    vsyscall_page,
    sysenter_instruction,
    odd_flags_at_syscall,
    syscall_with_bad_stack,
    high_memory_is_not_writable,
    jumps_into_high_memory,
    map_over_everything,
    unmap_everything,
    clobber_segment_bases,
    close_and_scan_descriptors,
    signal_masks_do_not_stop_kill,
    user_dispatch_or_refusal,
    rseq_abuse,
    ptrace_self_hide,
    syscall_bursts_from_threads,
    self_modifying_code,
    fault_storm,
    stack_pointer_games,
    tight_loop_is_killable,
    denied_host_calls,
    many_threads_end_at_once,
    exec_storm,
    exec_carries_nothing_over,
    read_only_mappings_stay_so,
];

static SIGNO: AtomicI32 = AtomicI32::new(0);

extern "C" fn skip(signo: i32, _: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        SIGNO.store(signo, SeqCst);
        let uc = &mut *uc.cast::<libc::ucontext_t>();
        uc.uc_mcontext.gregs[libc::REG_RIP as usize] = uc.uc_mcontext.gregs[libc::REG_R12 as usize];
    }
}

unsafe fn catch() {
    for s in [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGSYS,
        libc::SIGTRAP,
    ] {
        handle(
            s,
            skip as *const () as usize,
            libc::SA_SIGINFO | libc::SA_NODEFER,
        );
    }
}

/// Runs `f` in a child that may die of any signal, but must end.
unsafe fn may_die(f: impl FnOnce()) {
    let pid = fork(|| {
        let zero = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &zero);
        let value = libc::itimerval {
            it_interval: libc::timeval {
                tv_sec: 0,
                tv_usec: 0,
            },
            it_value: libc::timeval {
                tv_sec: 0,
                tv_usec: 300_000,
            },
        };
        sys!(
            libc::SYS_setitimer,
            libc::ITIMER_REAL,
            &value as *const _,
            0
        );
        f();
    });
    util::wait(pid);
    check!(sys!(libc::SYS_getpid) > 0);
}

unsafe fn int80_is_not_the_host() {
    may_die(|| {
        catch();
        let out: i64;
        // getpid of the 32-bit interface.
        std::arch::asm!("lea r12, [rip + 2f]", "int 0x80", "2:", inout("rax") 20i64 => out, out("r12") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        if SIGNO.load(SeqCst) == 0
            && out != i64::from(libc::getpid())
            && out as i32 != -libc::ENOSYS
        {
            libc::kill(libc::getppid(), libc::SIGUSR1);
        }
    });
}

unsafe fn x32_numbers() {
    for nr in [39i64, 0, 257, 512, 520, 547] {
        let out = sys!(0x4000_0000 | nr, 0, 0, 0, 0, 0, 0);
        check!(
            out == -1 || out == i64::from(libc::getpid()),
            "x32 {nr} gave {out}"
        );
    }
}

unsafe fn vsyscall_page() {
    may_die(|| {
        let time: extern "C" fn(*mut i64) -> i64 = std::mem::transmute(0xffff_ffff_ff60_0400usize);
        let t = time(std::ptr::null_mut());
        check!((t - libc::time(std::ptr::null_mut())).abs() <= 1);
    });
}

unsafe fn sysenter_instruction() {
    may_die(|| {
        catch();
        std::arch::asm!("lea r12, [rip + 2f]", "mov rbx, rsp", "mov rbp, rsp", "mov eax, 20", "sysenter", "2:", "mov rsp, rbx",
            out("rax") _, out("rcx") _, out("rdx") _, out("r11") _, out("r12") _, options(nostack));
    });
}

unsafe fn odd_flags_at_syscall() {
    // Direction, carry, overflow, alignment check, nested task, identification.
    for bits in [0x400u64, 0x1, 0x800, 0x40000, 0x4000, 0x20_0000, 0xc95] {
        in_child(|| {
            let (out, flags): (i64, u64);
            std::arch::asm!(
                "pushfq", "or qword ptr [rsp], {b}", "popfq",
                "mov eax, 39", "syscall",
                "pushfq", "pop {f}", "cld", "push 0x202", "popfq",
                b = in(reg) bits, f = out(reg) flags, out("rax") out, out("rcx") _, out("r11") _,
            );
            eq!(out, i64::from(libc::getpid()));
            // What user code set is there after the call.
            eq!(flags & bits & 0xcd5, bits & 0xcd5);
        });
    }
    // A trap flag set by the guest gives it a SIGTRAP, not the system.
    may_die(|| {
        std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "mov eax, 39", "syscall", "nop",
            out("rax") _, out("rcx") _, out("r11") _);
    });
}

unsafe fn syscall_with_bad_stack() {
    for sp in [
        0u64,
        8,
        0x1000,
        1 << 47,
        u64::MAX - 7,
        0xffff_8000_0000_0000,
    ] {
        in_child(|| {
            let out: i64;
            std::arch::asm!(
                "mov {save}, rsp", "mov rsp, {sp}", "mov eax, 39", "syscall", "mov rsp, {save}",
                save = out(reg) _, sp = in(reg) sp, out("rax") out, out("rcx") _, out("r11") _, options(nostack)
            );
            eq!(out, i64::from(libc::getpid()));
        });
    }
}

unsafe fn faulting_load(p: usize) -> bool {
    SIGNO.store(0, SeqCst);
    std::arch::asm!("lea r12, [rip + 2f]", "mov al, [{p}]", "2:", p = in(reg) p, out("rax") _, out("r12") _);
    SIGNO.load(SeqCst) != 0
}

unsafe fn faulting_store(p: usize) -> bool {
    SIGNO.store(0, SeqCst);
    std::arch::asm!("lea r12, [rip + 2f]", "lock or byte ptr [{p}], 0", "2:", p = in(reg) p, out("r12") _);
    SIGNO.load(SeqCst) != 0
}

/// Mapped ranges according to /proc, or none when it can't be read.
fn mapped() -> Vec<(usize, usize)> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    text.lines()
        .filter_map(|l| {
            let (a, b) = l.split(' ').next()?.split_once('-')?;
            Some((
                usize::from_str_radix(a, 16).ok()?,
                usize::from_str_radix(b, 16).ok()?,
            ))
        })
        .collect()
}

/// Pages above 0x7fff_0000_0000 that can be read although /proc does not list
/// them: what the runtime keeps there.
unsafe fn hidden_pages() -> Vec<usize> {
    catch();
    let maps = mapped();
    let mut found = Vec::new();
    let mut at = 0x7ffe_0000_0000usize;
    while at < 0x7fff_ffff_f000 && found.len() < 200 {
        // A touch below a stack would make it grow.
        if let Some(m) = maps
            .iter()
            .find(|m| (m.0.saturating_sub(16 << 20)..m.1).contains(&at))
        {
            at = m.1;
            continue;
        }
        if faulting_load(at) {
            // Coarse steps over nothing; region starts are aligned.
            at += 0x10_0000;
        } else {
            found.push(at);
            at += 4096;
        }
    }
    found
}

unsafe fn high_memory_is_not_writable() {
    in_child(|| {
        libc::alarm(15);
        for page in hidden_pages() {
            // Windows for data may be writable; code must not be.
            let writable = !faulting_store(page);
            let words = std::slice::from_raw_parts(page as *const u8, 4096);
            let code = words.windows(2).filter(|w| *w == [0x0f, 0x05]).count();
            check!(
                !(writable && code > 3),
                "page {page:#x} is writable and holds system call instructions"
            );
        }
    });
}

unsafe fn jumps_into_high_memory() {
    let pages = hidden_pages();
    let mut seed = 7u64;
    for page in pages.iter().take(12) {
        for _ in 0..4 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            let target = page + (seed >> 40) as usize % 4096;
            may_die(|| {
                std::arch::asm!(
                    "mov rdi, {r}", "mov rsi, {r}", "mov rdx, {r}", "mov r10, {r}", "mov r8, {r}", "mov r9, {r}",
                    "mov rax, 9", "mov r13, {r}", "mov r14, {r}", "mov r15, {r}", "jmp {t}",
                    r = in(reg) seed & 0xffff_ffff, t = in(reg) target, options(noreturn)
                );
            });
        }
    }
}

unsafe fn map_over_everything() {
    // Fixed mappings over what the guest does not own are refused.
    in_child(|| {
        let maps = mapped();
        for page in hidden_pages().iter().take(50) {
            let r = libc::mmap(
                *page as *mut _,
                4096,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            );
            check!(r == libc::MAP_FAILED, "mapped over {page:#x}");
            check!(libc::mprotect(*page as *mut _, 4096, 7) == -1);
        }
        let _ = maps;
        check!(
            libc::mmap(
                0x7fff_ffff_f000 as *mut _,
                4096,
                7,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0
            ) == libc::MAP_FAILED
        );
    });
}

unsafe fn unmap_everything() {
    may_die(|| {
        sys!(libc::SYS_munmap, 0x1_0000, 0x7fff_ffff_f000u64 - 0x1_0000);
        libc::_exit(1);
    });
    may_die(|| {
        for at in (0..0x7fffu64).rev() {
            sys!(libc::SYS_munmap, at << 32, 1u64 << 32);
        }
    });
    may_die(|| {
        sys!(libc::SYS_mprotect, 0x1_0000, 0x7fff_0000_0000u64, 0);
    });
}

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

unsafe fn self_modifying_code() {
    let p = libc::mmap(
        std::ptr::null_mut(),
        4096,
        7,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
        0,
    )
    .cast::<u8>();
    ok!(p);
    // mov eax, imm32; syscall; ret — the number changes between calls.
    for (nr, expected) in [
        (39u32, libc::getpid()),
        (186, libc::getpid()),
        (110, libc::getppid()),
    ] {
        for _ in 0..50 {
            let mut code = vec![0xb8];
            code.extend(nr.to_le_bytes());
            code.extend([0x0f, 0x05, 0xc3]);
            std::ptr::copy_nonoverlapping(code.as_ptr(), p, code.len());
            let f: extern "C" fn() -> i64 = std::mem::transmute(p);
            eq!(f(), i64::from(expected));
        }
    }
    // A jump right to the system call instruction.
    let out: i64;
    std::arch::asm!("mov eax, 39", "call {f}", f = in(reg) p as usize + 5, inout("rax") 0i64 => out, out("rcx") _, out("r11") _);
    eq!(out, i64::from(libc::getpid()));
}

unsafe fn fault_storm() {
    catch();
    for i in 0..5000usize {
        check!(faulting_load(i % 8 * 8));
    }
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                static N: AtomicUsize = AtomicUsize::new(0);
                for _ in 0..1000 {
                    std::arch::asm!("lea r12, [rip + 2f]", "ud2", "2:", out("r12") _);
                    N.fetch_add(1, SeqCst);
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
        handle(libc::SIGALRM, skip as *const () as usize, libc::SA_SIGINFO);
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

unsafe fn denied_host_calls() {
    // Calls that only a host kernel could serve do not reach one: from an
    // ordinary user they fail.
    in_child(|| {
        ok!(libc::setgid(1000));
        ok!(libc::setuid(1000));
        let p = anon(4096);
        for nr in [
            libc::SYS_init_module,
            libc::SYS_kexec_load,
            libc::SYS_iopl,
            libc::SYS_swapon,
            libc::SYS_settimeofday,
            libc::SYS_open_by_handle_at,
            libc::SYS_acct,
            libc::SYS_reboot,
            libc::SYS_clock_settime,
        ] {
            check!(sys!(nr, p, p, p, p, p, p) == -1, "call {nr} succeeded");
        }
    });
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

const PLANTED: u64 = 0x5eed_0bad_5eed_0bad;

/// Words in what the runtime keeps beside a guest's memory: of the parts for
/// the thread itself those that it does not use all the time.
fn plantable() -> impl Iterator<Item = usize> {
    const CONTEXTS: usize = 0x7fff_1000_0000;
    const SLOT: usize = 0x2_0000;
    let own = [0x3000, 0x1_0f00, 0x1_8000];
    let first = [0x1f00, 0x2800, 0x6000, 0x1_0000, 0x1_f000].map(|at| SLOT + at);
    let others = [2, 7, 100, 16_383].map(|slot| slot * SLOT);
    own.into_iter()
        .chain(first)
        .chain(others)
        .map(|at| CONTEXTS + at)
}

/// How many of [`plantable`] hold what was planted.
pub unsafe fn scan_planted() -> i32 {
    catch();
    let mut found = 0;
    for at in plantable() {
        if !faulting_load(at) && (at as *const u64).read_volatile() == PLANTED {
            found += 1;
        }
    }
    found
}

unsafe fn exec_carries_nothing_over() {
    let exe = crate::helpers::exe();
    let child = fork(|| {
        catch();
        let maps = mapped();
        for at in plantable() {
            let listed = maps.iter().any(|m| (m.0..m.1).contains(&at));
            if !listed && !faulting_store(at) {
                (at as *mut u64).write_volatile(PLANTED);
            }
        }
        let argv = [exe.as_ptr(), c"scan-planted".as_ptr(), std::ptr::null()];
        libc::execv(exe.as_ptr(), argv.as_ptr());
    });
    let status = util::wait(child);
    check!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "status {status:#x}"
    );
}

/// Where stubs of systrap make host calls for app threads.
const STUB_CALLS: std::ops::Range<usize> = 0x7fff_0001_5000..0x7fff_0001_6000;

/// The `syscall` instruction of stub text with which a thread exits: of all of
/// them the one behind which a stray thread does the least. The host's filter
/// makes no difference between them. 0 where there is no stub.
unsafe fn stub_exit_site() -> usize {
    let byte = |at: usize| {
        let out: u64;
        SIGNO.store(0, SeqCst);
        std::arch::asm!("lea r12, [rip + 2f]", "movzx {o}, byte ptr [{a}]", "2:", o = out(reg) out, a = in(reg) at, out("r12") _);
        (SIGNO.load(SeqCst) == 0).then_some(out as u8)
    };
    if byte(STUB_CALLS.start).is_none() {
        return 0;
    }
    let text: Vec<u8> = STUB_CALLS.filter_map(|at| byte(at)).collect();
    // mov eax, 60; syscall
    let exit = [0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    match text.windows(exit.len()).position(|code| code == exit) {
        Some(at) => STUB_CALLS.start + at + 5,
        None => usize::MAX,
    }
}

/// Makes pages writable by calls that the kernel does not see, if the host
/// lets it, and stores into them.
unsafe fn force_writes(pages: &[*mut u8]) {
    let state = libc::mmap(
        std::ptr::null_mut(),
        4096,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        -1,
        0,
    );
    let state = &*ok!(state).cast::<AtomicI32>();
    fork(|| {
        catch();
        let site = stub_exit_site();
        if site == 0 || site == usize::MAX {
            state.store(if site == 0 { 1 } else { 2 }, SeqCst);
            return;
        }
        for &page in pages {
            let at = page as usize;
            std::thread::spawn(move || {
                std::arch::asm!(
                    "jmp {site}", site = in(reg) site, in("rax") 10u64, in("rdi") at,
                    in("rsi") 4096u64, in("rdx") 3u64, options(noreturn),
                );
            });
        }
        let end = now_ms() + 30;
        while now_ms() < end {
            for &page in pages {
                std::arch::asm!("lea r12, [rip + 2f]", "mov byte ptr [{p}], 0x58", "2:", p = in(reg) page, out("r12") _);
            }
        }
        state.store(1, SeqCst);
    });
    // The process itself may take long to end: its threads have gone behind
    // the kernel's back.
    let end = now_ms() + 10_000;
    while state.load(SeqCst) == 0 && now_ms() < end {
        sleep_ms(5);
    }
    eq!(state.load(SeqCst), 1);
}

/// What was opened for reading alone stays unwritten, also where guest code
/// can change protections behind the kernel's back.
unsafe fn read_only_mappings_stay_so() {
    let map = |fd: i32, prot: i32| {
        libc::mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_SHARED, fd, 0).cast::<u8>()
    };
    let memfd = ok!(libc::memfd_create(c"test".as_ptr(), 0));
    ok!(libc::ftruncate(memfd, 4096));
    write_file("f", &[0; 4096]);
    let file = open("f", libc::O_RDWR);
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let own = open(&format!("/proc/self/fd/{memfd}"), libc::O_RDONLY);
    let id = ok!(libc::shmget(libc::IPC_PRIVATE, 4096, 0o600));
    let shared = ok!(libc::shmat(id, std::ptr::null(), 0)).cast::<u8>();
    let attached = ok!(libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY)).cast::<u8>();
    libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
    let pairs = [
        (ok!(map(memfd, rw)), ok!(map(own, libc::PROT_READ))),
        (
            ok!(map(file, rw)),
            ok!(map(open("f", libc::O_RDONLY), libc::PROT_READ)),
        ),
        (shared, attached),
    ];
    for (_, page) in pairs {
        err!(
            libc::EACCES,
            libc::mprotect(page.cast(), 4096, libc::PROT_WRITE)
        );
    }
    force_writes(&pairs.map(|(_, page)| page));
    for (writable, page) in pairs {
        eq!(*writable, 0);
        // Writes by who may write are seen there.
        *writable = 7;
        eq!(*page, 7);
    }
}
