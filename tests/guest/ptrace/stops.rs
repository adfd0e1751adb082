//! Attaching, stops and signals.

use super::*;
use crate::util::{self, *};

cases![
    traceme_exec_stop,
    syscall_stops,
    syscall_info,
    attach_detach,
    seize_interrupt_listen,
    signal_injection_and_suppression,
    siginfo_get_set,
    errors,
    tracer_death_detaches,
    permission,
    group_stop,
    attach_stopped,
    proc_tracerpid,
    sysemu_or_refusal,
];

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
