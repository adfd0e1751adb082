//! ptrace(2) of one guest process by another.

pub mod events;
pub mod registers;
pub mod stops;

use crate::util::*;

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
