//! ptrace(2) of one guest process by another.

use crate::util::{self, *};

cases![
    traceme_exec_stop,
    syscall_stops,
    syscall_info,
    change_syscall_and_result,
    peek_and_poke,
    getregs_setregs,
    getregset_fp,
    attach_detach,
    seize_interrupt_listen,
    singlestep_counts,
    breakpoint_int3,
    signal_injection_and_suppression,
    siginfo_get_set,
    options_fork_events,
    options_clone_threads,
    exec_event,
    exit_event,
    exitkill_option,
    errors,
    tracer_death_detaches,
    permission,
    group_stop,
    attach_stopped,
    peekuser_pokeuser,
    proc_tracerpid,
    sysemu_or_refusal,
    process_vm_of_tracee,
    wait_sees_tracee_threads,
];

unsafe fn pt(request: u32, pid: i32, addr: usize, data: usize) -> i64 {
    libc::ptrace(request as _, pid, addr, data)
}

/// A child that asks to be traced and stops itself, then runs `f`.
unsafe fn traced(f: impl FnOnce()) -> i32 {
    let pid = fork(|| {
        ok!(pt(libc::PTRACE_TRACEME, 0, 0, 0));
        libc::raise(libc::SIGSTOP);
        f();
    });
    eq!(stop_signal(pid), libc::SIGSTOP);
    pid
}

unsafe fn wait_any(pid: i32) -> i32 {
    let mut st = 0;
    eq!(ok!(libc::waitpid(pid, &mut st, libc::__WALL)), pid);
    st
}

/// Waits for a stop and gives its signal with event bits.
unsafe fn stop_signal(pid: i32) -> i32 {
    let st = wait_any(pid);
    check!(libc::WIFSTOPPED(st), "status {st:#x}");
    (st >> 8) & 0xffffff
}

unsafe fn cont(pid: i32, signo: i32) {
    ok!(pt(libc::PTRACE_CONT, pid, 0, signo as usize));
}

unsafe fn exited(pid: i32) -> i32 {
    let st = wait_any(pid);
    check!(libc::WIFEXITED(st), "status {st:#x}");
    libc::WEXITSTATUS(st)
}

unsafe fn regs(pid: i32) -> libc::user_regs_struct {
    let mut r: libc::user_regs_struct = std::mem::zeroed();
    ok!(pt(libc::PTRACE_GETREGS, pid, 0, &mut r as *mut _ as usize));
    r
}

unsafe fn set_regs(pid: i32, r: &libc::user_regs_struct) {
    ok!(pt(libc::PTRACE_SETREGS, pid, 0, r as *const _ as usize));
}

unsafe fn options(pid: i32, o: i32) {
    ok!(pt(libc::PTRACE_SETOPTIONS, pid, 0, o as usize));
}

unsafe fn kill_tracee(pid: i32) {
    libc::kill(pid, libc::SIGKILL);
    let st = wait_any(pid);
    check!(libc::WIFSIGNALED(st));
}

unsafe fn traceme_exec_stop() {
    let pid = fork(|| {
        ok!(pt(libc::PTRACE_TRACEME, 0, 0, 0));
        let argv = [c"true".as_ptr(), std::ptr::null()];
        libc::execv(c"/bin/true".as_ptr(), argv.as_ptr());
    });
    eq!(stop_signal(pid), libc::SIGTRAP);
    cont(pid, 0);
    eq!(exited(pid), 0);
}

unsafe fn syscall_stops() {
    let pid = traced(|| {
        sys!(libc::SYS_getppid);
        libc::_exit(3);
    });
    options(pid, libc::PTRACE_O_TRACESYSGOOD);
    let mut seen = Vec::new();
    loop {
        ok!(pt(libc::PTRACE_SYSCALL, pid, 0, 0));
        let st = wait_any(pid);
        if libc::WIFEXITED(st) {
            eq!(libc::WEXITSTATUS(st), 3);
            break;
        }
        eq!(libc::WSTOPSIG(st), libc::SIGTRAP | 0x80);
        seen.push((regs(pid).orig_rax as i64, regs(pid).rax as i64));
    }
    let entry = seen.iter().position(|s| s.0 == libc::SYS_getppid);
    let at = entry.unwrap_or(usize::MAX);
    check!(at + 1 < seen.len(), "{seen:?}");
    eq!(seen[at], (libc::SYS_getppid, -i64::from(libc::ENOSYS)));
    eq!(seen[at + 1], (libc::SYS_getppid, i64::from(libc::getpid())));
    eq!(seen.last().map(|s| s.0), Some(libc::SYS_exit_group));
}

unsafe fn syscall_info() {
    let pid = traced(|| {
        sys!(libc::SYS_getppid);
    });
    options(pid, libc::PTRACE_O_TRACESYSGOOD);
    let mut found = 0;
    loop {
        ok!(pt(libc::PTRACE_SYSCALL, pid, 0, 0));
        let st = wait_any(pid);
        if libc::WIFEXITED(st) {
            break;
        }
        let mut info = [0u64; 12];
        let n = ok!(pt(0x420e, pid, 96, info.as_mut_ptr() as usize));
        check!(n >= 24);
        let op = info[0] as u8;
        check!(op == 1 || op == 2);
        eq!((info[0] >> 32) as u32, 0xc000_003e);
        if op == 1 && info[3] == libc::SYS_getppid as u64 {
            found += 1;
        }
    }
    eq!(found, 1);
}

/// Runs to the entry of this call.
unsafe fn to_entry(pid: i32, nr: i64) {
    loop {
        ok!(pt(libc::PTRACE_SYSCALL, pid, 0, 0));
        let st = wait_any(pid);
        check!(libc::WIFSTOPPED(st));
        let r = regs(pid);
        if r.orig_rax as i64 == nr && r.rax as i64 == -i64::from(libc::ENOSYS) {
            return;
        }
    }
}

unsafe fn change_syscall_and_result() {
    let pid = traced(|| {
        // The tracer turns getppid into getpid and changes the next result.
        eq!(sys!(libc::SYS_getppid), i64::from(libc::getpid()));
        eq!(sys!(libc::SYS_getppid), 1234);
        // Skipped by number -1.
        eq!(sys!(libc::SYS_getppid), -1);
        eq!(errno(), libc::EXDEV);
    });
    options(pid, libc::PTRACE_O_TRACESYSGOOD);
    to_entry(pid, libc::SYS_getppid);
    let mut r = regs(pid);
    r.orig_rax = libc::SYS_getpid as u64;
    set_regs(pid, &r);
    ok!(pt(libc::PTRACE_SYSCALL, pid, 0, 0));
    wait_any(pid);
    to_entry(pid, libc::SYS_getppid);
    ok!(pt(libc::PTRACE_SYSCALL, pid, 0, 0));
    wait_any(pid);
    let mut r = regs(pid);
    r.rax = 1234;
    set_regs(pid, &r);
    to_entry(pid, libc::SYS_getppid);
    let mut r = regs(pid);
    r.orig_rax = u64::MAX;
    r.rax = (-i64::from(libc::EXDEV)) as u64;
    set_regs(pid, &r);
    cont(pid, 0);
    eq!(exited(pid), 0);
}

unsafe fn peek_and_poke() {
    let p = anon(4096).cast::<u64>();
    *p = 0x1122_3344_5566_7788;
    let pid = traced(|| eq!(*p.add(1), 99));
    set_errno(0);
    eq!(
        pt(libc::PTRACE_PEEKDATA, pid, p as usize, 0),
        0x1122_3344_5566_7788
    );
    eq!(errno(), 0);
    ok!(pt(libc::PTRACE_POKEDATA, pid, p as usize + 8, 99));
    eq!(*p.add(1), 0);
    err!(libc::EIO, pt(libc::PTRACE_PEEKDATA, pid, 8, 0));
    err!(libc::EIO, pt(libc::PTRACE_POKEDATA, pid, 8, 0));
    // Text can be written although it is mapped read-only.
    let text = peek_and_poke as *const () as usize;
    let word = ok!(pt(libc::PTRACE_PEEKTEXT, pid, text, 0));
    ok!(pt(libc::PTRACE_POKETEXT, pid, text, word as usize));
    cont(pid, 0);
    eq!(exited(pid), 0);
}

unsafe fn getregs_setregs() {
    let pid = traced(|| {
        let out: u64;
        std::arch::asm!("mov r13, 0x1234", "int3", "mov {o}, r13", o = out(reg) out, out("r13") _);
        libc::_exit(if out == 0x9876 { 7 } else { 1 });
    });
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGTRAP);
    let mut r = regs(pid);
    eq!(r.r13, 0x1234);
    check!(r.cs != 0 && r.ss != 0 && r.eflags & 2 != 0 && r.fs_base != 0);
    r.r13 = 0x9876;
    set_regs(pid, &r);
    cont(pid, 0);
    eq!(exited(pid), 7);
}

unsafe fn getregset_fp() {
    let pid = traced(|| {
        std::arch::asm!("mov rax, 0x5566", "movq xmm5, rax", "int3", out("rax") _, out("xmm5") _);
    });
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGTRAP);
    let mut fp = [0u8; 512];
    ok!(pt(libc::PTRACE_GETFPREGS, pid, 0, fp.as_mut_ptr() as usize));
    eq!(
        u64::from_ne_bytes(fp[160 + 80..160 + 88].try_into().unwrap_or_default()),
        0x5566
    );
    ok!(pt(libc::PTRACE_SETFPREGS, pid, 0, fp.as_ptr() as usize));
    let mut buf = [0u64; 27];
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: 216,
    };
    ok!(pt(
        libc::PTRACE_GETREGSET,
        pid,
        1,
        &mut iov as *mut _ as usize
    ));
    eq!(iov.iov_len, 216);
    eq!(buf[16], regs(pid).rip);
    let mut big = vec![0u8; 16384];
    let mut iov = libc::iovec {
        iov_base: big.as_mut_ptr().cast(),
        iov_len: 16384,
    };
    ok!(pt(
        libc::PTRACE_GETREGSET,
        pid,
        0x202,
        &mut iov as *mut _ as usize
    ));
    check!(iov.iov_len >= 576);
    kill_tracee(pid);
}

unsafe fn attach_detach() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    wait_state(pid, "S");
    ok!(pt(libc::PTRACE_ATTACH, pid, 0, 0));
    eq!(stop_signal(pid), libc::SIGSTOP);
    wait_state(pid, "t");
    let r = regs(pid);
    eq!(r.orig_rax as i64, libc::SYS_pause);
    ok!(pt(libc::PTRACE_DETACH, pid, 0, 0));
    wait_state(pid, "S");
    err!(libc::ESRCH, pt(libc::PTRACE_CONT, pid, 0, 0));
    // Detach with a signal.
    ok!(pt(libc::PTRACE_ATTACH, pid, 0, 0));
    eq!(stop_signal(pid), libc::SIGSTOP);
    ok!(pt(libc::PTRACE_DETACH, pid, 0, libc::SIGTERM as usize));
    eq!(libc::WTERMSIG(wait_any(pid)), libc::SIGTERM);
}

unsafe fn seize_interrupt_listen() {
    const STOP: i32 = 128;
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    wait_state(pid, "S");
    ok!(pt(
        libc::PTRACE_SEIZE,
        pid,
        0,
        libc::PTRACE_O_EXITKILL as usize
    ));
    wait_state(pid, "S");
    ok!(pt(libc::PTRACE_INTERRUPT, pid, 0, 0));
    eq!(stop_signal(pid), libc::SIGTRAP | STOP << 8);
    cont(pid, 0);
    libc::kill(pid, libc::SIGSTOP);
    eq!(stop_signal(pid), libc::SIGSTOP);
    cont(pid, libc::SIGSTOP);
    eq!(stop_signal(pid), libc::SIGSTOP | STOP << 8);
    ok!(pt(libc::PTRACE_LISTEN, pid, 0, 0));
    libc::kill(pid, libc::SIGCONT);
    eq!(stop_signal(pid), libc::SIGTRAP | STOP << 8);
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGCONT);
    kill_tracee(pid);
}

unsafe fn singlestep_counts() {
    let pid = traced(|| {
        std::arch::asm!("int3", "nop", "nop", "nop", "nop", "int3");
    });
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGTRAP);
    let start = regs(pid).rip;
    for i in 1..=4 {
        ok!(pt(libc::PTRACE_SINGLESTEP, pid, 0, 0));
        eq!(stop_signal(pid), libc::SIGTRAP);
        eq!(regs(pid).rip, start + i);
        let mut si: libc::siginfo_t = std::mem::zeroed();
        ok!(pt(
            libc::PTRACE_GETSIGINFO,
            pid,
            0,
            &mut si as *mut _ as usize
        ));
        eq!(si.si_code, 2); // TRAP_TRACE
    }
    kill_tracee(pid);
    // Over a system call instruction.
    let pid = traced(|| {
        let out: i64;
        std::arch::asm!("int3", "mov eax, 39", "syscall", "nop", out("rax") out, out("rcx") _, out("r11") _);
        libc::_exit(i32::from(out != i64::from(libc::getpid())));
    });
    cont(pid, 0);
    stop_signal(pid);
    for _ in 0..3 {
        ok!(pt(libc::PTRACE_SINGLESTEP, pid, 0, 0));
        eq!(stop_signal(pid), libc::SIGTRAP);
    }
    cont(pid, 0);
    eq!(exited(pid), 0);
}

#[inline(never)]
extern "C" fn target(x: u64) -> u64 {
    std::hint::black_box(x) + 1
}

unsafe fn breakpoint_int3() {
    let pid = traced(|| {
        libc::_exit(target(40) as i32);
    });
    let at = target as *const () as usize;
    let word = ok!(pt(libc::PTRACE_PEEKTEXT, pid, at, 0));
    ok!(pt(
        libc::PTRACE_POKETEXT,
        pid,
        at,
        (word & !0xff | 0xcc) as usize
    ));
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGTRAP);
    let mut r = regs(pid);
    eq!((r.rip as usize, r.rdi), (at + 1, 40));
    ok!(pt(libc::PTRACE_POKETEXT, pid, at, word as usize));
    r.rip = at as u64;
    r.rdi = 50;
    set_regs(pid, &r);
    cont(pid, 0);
    eq!(exited(pid), 51);
}

unsafe fn signal_injection_and_suppression() {
    let pid = traced(|| {
        libc::raise(libc::SIGTERM);
        libc::raise(libc::SIGUSR1);
        libc::_exit(4);
    });
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGTERM);
    cont(pid, 0); // suppressed
    eq!(stop_signal(pid), libc::SIGUSR1);
    cont(pid, libc::SIGUSR2); // replaced
    eq!(libc::WTERMSIG(wait_any(pid)), libc::SIGUSR2);
}

unsafe fn siginfo_get_set() {
    let pid = traced(|| {
        block(&[]);
        libc::raise(libc::SIGUSR1);
    });
    cont(pid, 0);
    eq!(stop_signal(pid), libc::SIGUSR1);
    let mut si: libc::siginfo_t = std::mem::zeroed();
    ok!(pt(
        libc::PTRACE_GETSIGINFO,
        pid,
        0,
        &mut si as *mut _ as usize
    ));
    eq!(
        (si.si_signo, si.si_code, si.si_pid()),
        (libc::SIGUSR1, libc::SI_TKILL, pid)
    );
    ok!(pt(
        libc::PTRACE_SETSIGINFO,
        pid,
        0,
        &si as *const _ as usize
    ));
    let mut mask = 0u64;
    ok!(pt(0x420a, pid, 8, &mut mask as *mut u64 as usize)); // GETSIGMASK
    ok!(pt(0x420b, pid, 8, &mask as *const u64 as usize));
    cont(pid, 0);
    eq!(exited(pid), 0);
}

unsafe fn event_message(pid: i32) -> i32 {
    let mut m = 0u64;
    ok!(pt(
        libc::PTRACE_GETEVENTMSG,
        pid,
        0,
        &mut m as *mut u64 as usize
    ));
    m as i32
}

unsafe fn options_fork_events() {
    let pid = traced(|| {
        let child = fork(|| libc::_exit(6));
        eq!(libc::WEXITSTATUS(util::wait(child)), 6);
    });
    options(pid, libc::PTRACE_O_TRACEFORK);
    cont(pid, 0);
    eq!(
        stop_signal(pid),
        libc::SIGTRAP | libc::PTRACE_EVENT_FORK << 8
    );
    let child = event_message(pid);
    // The new one is traced too and starts stopped.
    eq!(stop_signal(child), libc::SIGSTOP);
    cont(child, 0);
    cont(pid, 0);
    let mut got = 0;
    while got < 2 {
        let mut st = 0;
        let who = ok!(libc::waitpid(-1, &mut st, libc::__WALL));
        if libc::WIFSTOPPED(st) {
            cont(who, libc::WSTOPSIG(st));
            continue;
        }
        eq!(libc::WEXITSTATUS(st), if who == child { 6 } else { 0 });
        got += 1;
    }
}

unsafe fn options_clone_threads() {
    let pid = traced(|| {
        let t = std::thread::spawn(|| 5);
        check!(t.join().is_ok());
    });
    options(pid, libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACESYSGOOD);
    cont(pid, 0);
    eq!(
        stop_signal(pid),
        libc::SIGTRAP | libc::PTRACE_EVENT_CLONE << 8
    );
    let tid = event_message(pid);
    check!(tid != pid);
    eq!(stop_signal(tid), libc::SIGSTOP);
    cont(tid, 0);
    cont(pid, 0);
    let mut thread_gone = false;
    loop {
        let mut st = 0;
        let who = ok!(libc::waitpid(-1, &mut st, libc::__WALL));
        if who == pid && libc::WIFEXITED(st) {
            eq!(libc::WEXITSTATUS(st), 0);
            break;
        }
        if who == tid && libc::WIFEXITED(st) {
            thread_gone = true;
            continue;
        }
        cont(who, libc::WSTOPSIG(st) & 0x7f);
    }
    check!(thread_gone);
}

unsafe fn exec_event() {
    let pid = traced(|| {
        let argv = [c"true".as_ptr(), std::ptr::null()];
        libc::execv(c"/bin/true".as_ptr(), argv.as_ptr());
    });
    options(pid, libc::PTRACE_O_TRACEEXEC);
    cont(pid, 0);
    eq!(
        stop_signal(pid),
        libc::SIGTRAP | libc::PTRACE_EVENT_EXEC << 8
    );
    eq!(event_message(pid), pid);
    cont(pid, 0);
    eq!(exited(pid), 0);
}

unsafe fn exit_event() {
    let pid = traced(|| libc::_exit(9));
    options(pid, libc::PTRACE_O_TRACEEXIT);
    cont(pid, 0);
    eq!(
        stop_signal(pid),
        libc::SIGTRAP | libc::PTRACE_EVENT_EXIT << 8
    );
    eq!(event_message(pid), 9 << 8);
    cont(pid, 0);
    eq!(exited(pid), 9);
}

unsafe fn exitkill_option() {
    let (r, w) = pipe();
    let tracer = fork(|| {
        let pid = traced(|| {
            loop {
                libc::pause();
            }
        });
        options(pid, libc::PTRACE_O_EXITKILL);
        cont(pid, 0);
        write_all(w, b"x");
    });
    libc::close(w);
    wait_ok(tracer);
    eq!(read_some(r, 1), b"x");
    // The tracee held the pipe.
    eq!(read_some(r, 1), b"");
}

unsafe fn errors() {
    err!(libc::ESRCH, pt(libc::PTRACE_ATTACH, 0x3f_ffff, 0, 0));
    err!(libc::EPERM, pt(libc::PTRACE_ATTACH, libc::getpid(), 0, 0));
    err!(libc::ESRCH, pt(libc::PTRACE_CONT, libc::getppid(), 0, 0));
    let pid = traced(|| {
        loop {
            libc::pause();
        }
    });
    err!(libc::EPERM, pt(libc::PTRACE_ATTACH, pid, 0, 0));
    err!(libc::EIO, pt(libc::PTRACE_CONT, pid, 0, 999));
    err!(libc::EIO, pt(0x9999, pid, 0, 0));
    err!(
        libc::EINVAL,
        pt(libc::PTRACE_SETOPTIONS, pid, 0, 0x4000_0000)
    );
    cont(pid, 0);
    wait_state(pid, "S");
    // Running: nothing to read.
    err!(libc::ESRCH, pt(libc::PTRACE_PEEKDATA, pid, 8, 0));
    kill_tracee(pid);
    in_child(|| {
        ok!(pt(libc::PTRACE_TRACEME, 0, 0, 0));
        err!(libc::EPERM, pt(libc::PTRACE_TRACEME, 0, 0, 0));
    });
}

unsafe fn tracer_death_detaches() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    in_child(|| {
        ok!(pt(libc::PTRACE_ATTACH, pid, 0, 0));
        eq!(stop_signal(pid), libc::SIGSTOP);
    });
    wait_state(pid, "S");
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn permission() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    in_child(|| {
        ok!(libc::setgid(1000));
        ok!(libc::setuid(1000));
        err!(libc::EPERM, pt(libc::PTRACE_ATTACH, pid, 0, 0));
    });
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
    // Not dumpable: not by equals.
    in_child(|| {
        ok!(libc::setgid(1000));
        ok!(libc::setuid(1000));
        let (r, w) = pipe();
        let pid = fork(|| {
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
            write_all(w, b"x");
            loop {
                libc::pause();
            }
        });
        read_some(r, 1);
        err!(libc::EPERM, pt(libc::PTRACE_ATTACH, pid, 0, 0));
        libc::kill(pid, libc::SIGKILL);
        util::wait(pid);
    });
}

unsafe fn group_stop() {
    let pid = traced(|| {
        loop {
            libc::pause();
        }
    });
    cont(pid, 0);
    libc::kill(pid, libc::SIGTSTP);
    eq!(stop_signal(pid), libc::SIGTSTP);
    // Delivered: a stop that has no signal to tell about.
    cont(pid, libc::SIGTSTP);
    eq!(stop_signal(pid), libc::SIGTSTP);
    let mut si: libc::siginfo_t = std::mem::zeroed();
    err!(
        libc::EINVAL,
        pt(libc::PTRACE_GETSIGINFO, pid, 0, &mut si as *mut _ as usize)
    );
    kill_tracee(pid);
}

unsafe fn attach_stopped() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    libc::kill(pid, libc::SIGSTOP);
    let mut st = 0;
    ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED));
    ok!(pt(libc::PTRACE_ATTACH, pid, 0, 0));
    eq!(stop_signal(pid), libc::SIGSTOP);
    ok!(pt(libc::PTRACE_DETACH, pid, 0, libc::SIGCONT as usize));
    libc::kill(pid, libc::SIGCONT);
    wait_state(pid, "S");
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn peekuser_pokeuser() {
    let pid = traced(|| {
        loop {
            libc::pause();
        }
    });
    let r = regs(pid);
    eq!(ok!(pt(libc::PTRACE_PEEKUSER, pid, 8 * 16, 0)) as u64, r.rip);
    ok!(pt(libc::PTRACE_POKEUSER, pid, 8 * 2, 0x77)); // r13
    eq!(regs(pid).r13, 0x77);
    err!(libc::EIO, pt(libc::PTRACE_PEEKUSER, pid, 3, 0));
    err!(libc::EIO, pt(libc::PTRACE_PEEKUSER, pid, 1 << 20, 0));
    // A segment that would run in kernel mode is refused.
    err!(libc::EIO, pt(libc::PTRACE_POKEUSER, pid, 8 * 17, 0x10));
    kill_tracee(pid);
}

unsafe fn proc_tracerpid() {
    let pid = traced(|| {
        loop {
            libc::pause();
        }
    });
    let t = util::read_text(&format!("/proc/{pid}/status"));
    check!(
        t.contains(&format!("TracerPid:\t{}\n", libc::getpid())),
        "{t}"
    );
    check!(t.contains("State:\tt (tracing stop)"));
    kill_tracee(pid);
}

unsafe fn sysemu_or_refusal() {
    let pid = traced(|| {
        eq!(sys!(libc::SYS_getppid), 4321);
        libc::_exit(0);
    });
    let r = pt(31, pid, 0, 0); // PTRACE_SYSEMU
    if r == -1 {
        check!([libc::EIO, libc::EINVAL].contains(&errno()));
        kill_tracee(pid);
        return;
    }
    loop {
        let st = wait_any(pid);
        check!(libc::WIFSTOPPED(st));
        let mut r = regs(pid);
        if r.orig_rax as i64 == libc::SYS_getppid {
            r.rax = 4321;
            set_regs(pid, &r);
            break;
        }
        // Emulated as doing nothing.
        r.rax = 0;
        set_regs(pid, &r);
        ok!(pt(31, pid, 0, 0));
    }
    cont(pid, 0);
    eq!(exited(pid), 0);
}

unsafe fn process_vm_of_tracee() {
    let p = anon(8192);
    let pid = traced(|| *p = 1);
    let data = vec![7u8; 8192];
    let local = libc::iovec {
        iov_base: data.as_ptr() as *mut _,
        iov_len: 8192,
    };
    let remote = libc::iovec {
        iov_base: p.cast(),
        iov_len: 8192,
    };
    eq!(
        ok!(libc::process_vm_writev(pid, &local, 1, &remote, 1, 0)),
        8192
    );
    set_errno(0);
    eq!(
        pt(libc::PTRACE_PEEKDATA, pid, p as usize + 8000, 0),
        0x0707_0707_0707_0707
    );
    kill_tracee(pid);
}

unsafe fn wait_sees_tracee_threads() {
    // Attach to one thread of another process.
    let (r, w) = pipe();
    let pid = fork(|| {
        std::thread::spawn(move || {
            write_all(w, &(sys!(libc::SYS_gettid) as i32).to_ne_bytes());
            loop {
                libc::pause();
            }
        });
        loop {
            libc::pause();
        }
    });
    let b = read_full(r, 4);
    let tid = i32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
    ok!(pt(libc::PTRACE_ATTACH, tid, 0, 0));
    eq!(stop_signal(tid), libc::SIGSTOP);
    // The other thread goes on.
    wait_state(pid, "S");
    ok!(pt(libc::PTRACE_DETACH, tid, 0, 0));
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}
