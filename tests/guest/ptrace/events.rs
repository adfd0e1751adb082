//! PTRACE_EVENT_ stops: fork, clone, exec, exit.

use super::*;
use crate::util::{self, *};

cases![
    options_fork_events,
    options_clone_threads,
    exec_event,
    exit_event,
    exitkill_option,
    wait_sees_tracee_threads,
];

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
