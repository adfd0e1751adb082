//! ptrace(2) and patched calls.

use super::*;
use crate::util::{self, *};

cases![
    debuggers_step_over,
    debuggers_read_the_file,
    yields_are_seen_by_who_watches,
];

unsafe fn debuggers_step_over() {
    let page = Page::warm();
    let pid = fork(|| {
        ok!(sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0));
        page.check(20);
        libc::raise(libc::SIGSTOP);
        page.check(3);
    });
    let mut status = 0;
    ok!(libc::waitpid(pid, &mut status, 0));
    check!(libc::WIFSTOPPED(status));
    let mut in_page = 0;
    for _ in 0..3000 {
        if libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0) != 0 {
            break;
        }
        ok!(libc::waitpid(pid, &mut status, 0));
        if !libc::WIFSTOPPED(status) {
            break;
        }
        eq!(libc::WSTOPSIG(status), libc::SIGTRAP);
        let mut regs: libc::user_regs_struct = std::mem::zeroed();
        ok!(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &mut regs));
        let rip = regs.rip as usize;
        if (page.0..page.0 + 4096).contains(&rip) {
            in_page += 1;
            let at = rip - page.0;
            check!(BOUNDARIES.contains(&at), "stopped at {at}");
        } else {
            // Nothing is run that the child's own list does not show.
            let maps = read_text(&format!("/proc/{pid}/maps"));
            let known = maps.lines().any(|line| {
                let range = line.split(' ').next().unwrap_or("");
                let mut ends = range.split('-').map(|end| usize::from_str_radix(end, 16));
                let (Some(Ok(start)), Some(Ok(end))) = (ends.next(), ends.next()) else {
                    return false;
                };
                (start..end).contains(&rip)
            });
            check!(known, "stopped at {rip:x}");
        }
    }
    check!(in_page > 10);
    if libc::WIFSTOPPED(status) {
        ok!(libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0));
        wait_ok(pid);
    } else {
        eq!(status, 0);
    }
}

unsafe fn debuggers_read_the_file() {
    let page = Page::warm();
    let fd = open("/proc/self/mem", libc::O_RDONLY);
    let mut bytes = [0u8; 4096];
    eq!(
        ok!(libc::pread(
            fd,
            bytes.as_mut_ptr().cast(),
            4096,
            page.0 as i64
        )),
        4096
    );
    check!(bytes == original());
    // A part that begins within what may have changed.
    eq!(
        ok!(libc::pread(
            fd,
            bytes.as_mut_ptr().cast(),
            2,
            (page.0 + 2) as i64
        )),
        2
    );
    eq!(bytes[..2], original()[2..4]);
    let pid = fork(|| {
        page.check(20);
        ok!(sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0));
        libc::raise(libc::SIGSTOP);
        page.check(20);
    });
    let mut status = 0;
    ok!(libc::waitpid(pid, &mut status, 0));
    for at in [GETPPID, ANY, RETURN, ARGUMENTS + 8] {
        let mut word = 0u64;
        ok!(sys!(
            libc::SYS_ptrace,
            libc::PTRACE_PEEKTEXT,
            pid,
            page.0 + at,
            &mut word as *mut u64
        ));
        eq!(word.to_le_bytes(), original()[at..at + 8]);
    }
    // A breakpoint, as debuggers set it.
    let at = page.0 + ANY + 5;
    let word = u64::from_le_bytes(original()[ANY + 5..ANY + 13].try_into().unwrap_or([0; 8]));
    let trap = word & !0xff | 0xcc;
    ok!(libc::ptrace(libc::PTRACE_POKETEXT, pid, at, trap));
    ok!(libc::ptrace(libc::PTRACE_CONT, pid, 0, 0));
    ok!(libc::waitpid(pid, &mut status, 0));
    check!(libc::WIFSTOPPED(status));
    eq!(libc::WSTOPSIG(status), libc::SIGTRAP);
    let mut regs: libc::user_regs_struct = std::mem::zeroed();
    ok!(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &mut regs));
    eq!(regs.rip as usize, at + 1);
    ok!(libc::ptrace(libc::PTRACE_POKETEXT, pid, at, word));
    regs.rip -= 1;
    ok!(libc::ptrace(libc::PTRACE_SETREGS, pid, 0, &regs));
    ok!(libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0));
    wait_ok(pid);
}

unsafe fn yields_are_seen_by_who_watches() {
    let page = Page::warm();
    for _ in 0..1000 {
        eq!(page.any(libc::SYS_sched_yield), 0);
    }
    // A tracer.
    let pid = fork(|| {
        for _ in 0..100 {
            eq!(page.any(libc::SYS_sched_yield), 0);
        }
        ok!(sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0));
        libc::raise(libc::SIGSTOP);
        for _ in 0..10 {
            eq!(page.any(libc::SYS_sched_yield), 0);
        }
    });
    let (mut status, mut seen) = (0, 0);
    ok!(libc::waitpid(pid, &mut status, 0));
    while libc::WIFSTOPPED(status) {
        let mut regs: libc::user_regs_struct = std::mem::zeroed();
        ok!(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &mut regs));
        if regs.orig_rax == libc::SYS_sched_yield as u64 {
            seen += 1;
        }
        ok!(libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, 0));
        ok!(libc::waitpid(pid, &mut status, 0));
    }
    eq!(status, 0);
    // At its beginning and its end.
    eq!(seen, 20);
    // A filter.
    in_child(|| {
        for _ in 0..100 {
            eq!(page.any(libc::SYS_sched_yield), 0);
        }
        let program = [
            libc::sock_filter {
                code: 0x20,
                jt: 0,
                jf: 0,
                k: 0,
            },
            libc::sock_filter {
                code: 0x15,
                jt: 0,
                jf: 1,
                k: libc::SYS_sched_yield as u32,
            },
            libc::sock_filter {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: 0x0005_0000 | libc::EDOM as u32,
            },
            libc::sock_filter {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: 0x7fff_0000,
            },
        ];
        let header = libc::sock_fprog {
            len: 4,
            filter: program.as_ptr().cast_mut(),
        };
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        ok!(libc::prctl(
            libc::PR_SET_SECCOMP,
            2,
            &header as *const _,
            0,
            0
        ));
        for _ in 0..20 {
            eq!(page.any(libc::SYS_sched_yield), -i64::from(libc::EDOM));
        }
    });
    // A signal ends a loop of them.
    let pid = fork(|| {
        loop {
            page.any(libc::SYS_sched_yield);
        }
    });
    sleep_ms(20);
    libc::kill(pid, libc::SIGTERM);
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGTERM);
}
