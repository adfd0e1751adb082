//! The guest's own seccomp filters: seccomp(2), prctl(2).

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use crate::util::{self, *};

cases![
    filter_errno,
    filter_kill_thread_and_process,
    filter_trap_signal,
    filter_arguments,
    filter_stacking,
    filter_inherited_over_fork_and_exec,
    filter_log_and_allow,
    filter_sees_arch_and_ip,
    filter_needs_no_new_privs,
    filter_bad_programs,
    strict_mode,
    strict_mode_kill,
    tsync_all_threads,
    get_action_avail,
    get_notif_sizes_or_refusal,
    trace_without_tracer_enosys,
    status_fields,
    filter_on_vdso_calls_and_uname,
    mode_errors,
];

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;

fn stmt(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

const LD: u32 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JEQ: u32 = 0x15;
const RET: u32 = 0x06;

unsafe fn load(program: &[libc::sock_filter], flags: u32) -> i64 {
    let fprog = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr() as *mut _,
    };
    sys!(
        libc::SYS_seccomp,
        libc::SECCOMP_SET_MODE_FILTER,
        flags,
        &fprog as *const _
    )
}

/// `action` for this call, everything else allowed.
unsafe fn install(nr: libc::c_long, action: u32) {
    ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    ok!(load(
        &[
            stmt(LD, 0),
            jump(JEQ, nr as u32, 0, 1),
            stmt(RET, action),
            stmt(RET, ALLOW)
        ],
        0
    ));
}

unsafe fn filter_errno() {
    in_child(|| {
        install(libc::SYS_getppid, ERRNO | 77);
        eq!(sys!(libc::SYS_getppid), -1);
        eq!(errno(), 77);
        check!(sys!(libc::SYS_getpid) > 0);
    });
    in_child(|| {
        // Zero: success without doing it. Too big: capped.
        install(libc::SYS_kill, ERRNO);
        eq!(sys!(libc::SYS_kill, libc::getpid(), libc::SIGKILL), 0);
    });
    in_child(|| {
        install(libc::SYS_getppid, ERRNO | 0xffff);
        eq!((sys!(libc::SYS_getppid), errno()), (-1, 4095));
    });
}

unsafe fn filter_kill_thread_and_process() {
    for action in [KILL_THREAD, KILL_PROCESS] {
        let pid = fork(|| {
            let zero = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &zero);
            install(libc::SYS_getppid, action);
            sys!(libc::SYS_getppid);
            libc::_exit(1);
        });
        eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSYS);
    }
    // KILL_THREAD leaves the other threads alone.
    in_child(|| {
        let (r, w) = pipe();
        let zero = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &zero);
        let t = std::thread::spawn(move || {
            install(libc::SYS_getppid, KILL_THREAD);
            write_all(w, b"x");
            sys!(libc::SYS_getppid);
            write_all(w, b"y");
        });
        eq!(read_some(r, 1), b"x");
        sleep_ms(30);
        let n = std::fs::read_dir("/proc/self/task")
            .map(|d| d.count())
            .unwrap_or(0);
        eq!(n, 1);
        eq!(poll_one(r, libc::POLLIN, 0), 0);
        std::mem::forget(t);
        libc::_exit(0);
    });
}

static HITS: AtomicI32 = AtomicI32::new(0);
static NR: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ERR: AtomicI32 = AtomicI32::new(0);
static ARCH: AtomicI32 = AtomicI32::new(0);
static ADDR: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_sys(_: i32, si: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        HITS.fetch_add(1, SeqCst);
        CODE.store((*si).si_code, SeqCst);
        ERR.store((*si).si_errno, SeqCst);
        let words = si.cast::<i32>();
        ADDR.store(*si.cast::<usize>().add(2), SeqCst);
        NR.store(*words.add(6), SeqCst);
        ARCH.store(*words.add(7), SeqCst);
        let uc = &mut *uc.cast::<libc::ucontext_t>();
        uc.uc_mcontext.gregs[libc::REG_RAX as usize] = 4242;
    }
}

unsafe fn filter_trap_signal() {
    in_child(|| {
        handle(libc::SIGSYS, on_sys as *const () as usize, libc::SA_SIGINFO);
        install(libc::SYS_getppid, TRAP | 55);
        eq!(sys!(libc::SYS_getppid), 4242);
        eq!(
            (HITS.load(SeqCst), CODE.load(SeqCst), ERR.load(SeqCst)),
            (1, 1, 55)
        ); // SYS_SECCOMP
        eq!(i64::from(NR.load(SeqCst)), libc::SYS_getppid);
        eq!(ARCH.load(SeqCst) as u32, 0xc000_003e);
        check!(ADDR.load(SeqCst) > 0x1000);
    });
    let pid = fork(|| {
        let zero = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &zero);
        install(libc::SYS_getppid, TRAP);
        sys!(libc::SYS_getppid);
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSYS);
}

unsafe fn filter_arguments() {
    in_child(|| {
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        // dup of descriptor 5 fails; the high half of the argument counts.
        ok!(load(
            &[
                stmt(LD, 0),
                jump(JEQ, libc::SYS_dup as u32, 0, 4),
                stmt(LD, 16),
                jump(JEQ, 5, 0, 2),
                stmt(LD, 20),
                jump(JEQ, 0, 1, 0),
                stmt(RET, ALLOW),
                stmt(RET, ERRNO | 99),
            ],
            0
        ));
        ok!(libc::dup(0));
        eq!((sys!(libc::SYS_dup, 5), errno()), (-1, 99));
        check!(errno() == 99);
        let r = sys!(libc::SYS_dup, 0x1_0000_0005u64);
        check!(r == -1 && errno() != 99 || r >= 0);
    });
}

unsafe fn filter_stacking() {
    in_child(|| {
        // The stricter answer wins, whatever the order; equal ones: the newest.
        install(libc::SYS_getppid, ERRNO | 10);
        install(libc::SYS_getppid, ERRNO | 20);
        eq!((sys!(libc::SYS_getppid), errno()), (-1, 20));
        install(libc::SYS_getppid, ALLOW);
        eq!((sys!(libc::SYS_getppid), errno()), (-1, 20));
        handle(libc::SIGSYS, on_sys as *const () as usize, libc::SA_SIGINFO);
        install(libc::SYS_getppid, TRAP);
        eq!(sys!(libc::SYS_getppid), 4242);
    });
}

unsafe fn filter_inherited_over_fork_and_exec() {
    in_child(|| {
        install(libc::SYS_mkdir, ERRNO | libc::EPROTO as u32);
        in_child(|| err!(libc::EPROTO, libc::mkdir(c"x".as_ptr(), 0o755)));
        let t = std::thread::spawn(|| err!(libc::EPROTO, libc::mkdir(c"x".as_ptr(), 0o755)));
        check!(t.join().is_ok());
        let (out, st) = crate::exec::run_env(
            &["/bin/sh", "-c", "mkdir y 2>&1; test ! -d y"],
            &["LC_ALL=C", "PATH=/bin"],
        );
        check!(st == 0 && out.contains("Protocol error"), "{out}");
    });
}

unsafe fn filter_log_and_allow() {
    in_child(|| {
        install(libc::SYS_getppid, LOG);
        check!(sys!(libc::SYS_getppid) > 0);
    });
}

unsafe fn filter_sees_arch_and_ip() {
    in_child(|| {
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        // Another architecture would be killed.
        ok!(load(
            &[
                stmt(LD, 4),
                jump(JEQ, 0xc000_003e, 1, 0),
                stmt(RET, KILL_PROCESS),
                stmt(LD, 12),
                stmt(RET, ALLOW)
            ],
            0
        ));
        check!(sys!(libc::SYS_getppid) > 0);
    });
    in_child(|| {
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        // The high half of the instruction pointer is not zero (static-PIE).
        ok!(load(
            &[
                stmt(LD, 0),
                jump(JEQ, libc::SYS_getppid as u32, 0, 3),
                stmt(LD, 12),
                jump(JEQ, 0, 1, 0),
                stmt(RET, ERRNO | 33),
                stmt(RET, ALLOW)
            ],
            0
        ));
        let r = sys!(libc::SYS_getppid);
        check!(r == -1 && errno() == 33 || r > 0);
    });
}

unsafe fn filter_needs_no_new_privs() {
    in_child(|| {
        ok!(libc::setuid(1000));
        err!(libc::EACCES, load(&[stmt(RET, ALLOW)], 0));
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        ok!(load(&[stmt(RET, ALLOW)], 0));
    });
}

unsafe fn filter_bad_programs() {
    in_child(|| {
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        err!(libc::EINVAL, load(&[], 0));
        err!(libc::EINVAL, load(&[stmt(LD, 0)], 0)); // no return
        err!(libc::EINVAL, load(&[stmt(LD, 1), stmt(RET, ALLOW)], 0)); // unaligned
        err!(libc::EINVAL, load(&[stmt(LD, 64), stmt(RET, ALLOW)], 0)); // beyond the data
        err!(
            libc::EINVAL,
            load(&[jump(JEQ, 0, 9, 9), stmt(RET, ALLOW)], 0)
        ); // jump out
        err!(libc::EINVAL, load(&[stmt(0xfff, 0), stmt(RET, ALLOW)], 0));
        err!(libc::EINVAL, load(&[stmt(RET, ALLOW)], 0x1000));
        let fprog = libc::sock_fprog {
            len: 5000,
            filter: 8 as *mut _,
        };
        check!(
            sys!(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &fprog as *const _
            ) == -1
        );
        check!([libc::EINVAL, libc::EFAULT].contains(&errno()));
        err!(
            libc::EFAULT,
            sys!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, 8)
        );
        // An unknown action kills.
        let pid = fork(|| {
            let zero = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &zero);
            install(libc::SYS_getppid, 0x1234_0000);
            sys!(libc::SYS_getppid);
        });
        eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSYS);
    });
}

unsafe fn strict_mode() {
    let (r, w) = pipe();
    let pid = fork(|| {
        ok!(sys!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_STRICT, 0, 0));
        libc::write(w, b"ok".as_ptr().cast(), 2);
        sys!(libc::SYS_exit, 5);
    });
    eq!(read_some(r, 2), b"ok");
    eq!(libc::WEXITSTATUS(util::wait(pid)), 5);
}

unsafe fn strict_mode_kill() {
    let pid = fork(|| {
        ok!(libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_STRICT,
            0,
            0,
            0
        ));
        sys!(libc::SYS_getpid);
        sys!(libc::SYS_exit, 5);
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGKILL);
}

unsafe fn tsync_all_threads() {
    in_child(|| {
        let (r, w) = pipe();
        let (r2, w2) = pipe();
        let t = std::thread::spawn(move || {
            write_all(w, b"x");
            read_some(r2, 1);
            sys!(libc::SYS_getppid)
        });
        read_some(r, 1);
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        ok!(load(
            &[
                stmt(LD, 0),
                jump(JEQ, libc::SYS_getppid as u32, 0, 1),
                stmt(RET, ERRNO | 9),
                stmt(RET, ALLOW)
            ],
            libc::SECCOMP_FILTER_FLAG_TSYNC as u32
        ));
        write_all(w2, b"x");
        eq!(t.join().unwrap_or(0), -1);
    });
}

unsafe fn get_action_avail() {
    for action in [ALLOW, ERRNO, TRAP, KILL_THREAD, KILL_PROCESS, LOG] {
        ok!(sys!(libc::SYS_seccomp, 2, 0, &action as *const u32));
    }
    let bad = 0x1234_0000u32;
    err!(
        libc::EOPNOTSUPP,
        sys!(libc::SYS_seccomp, 2, 0, &bad as *const u32)
    );
    err!(
        libc::EINVAL,
        sys!(libc::SYS_seccomp, 2, 1, &bad as *const u32)
    );
}

unsafe fn get_notif_sizes_or_refusal() {
    let mut sizes = [0u16; 3];
    let r = sys!(libc::SYS_seccomp, 3, 0, sizes.as_mut_ptr());
    if r == 0 {
        eq!(sizes, [80, 24, 64]);
    } else {
        check!([libc::EINVAL, libc::ENOSYS].contains(&errno()));
    }
}

unsafe fn trace_without_tracer_enosys() {
    in_child(|| {
        install(libc::SYS_getppid, TRACE | 1);
        err!(libc::ENOSYS, sys!(libc::SYS_getppid));
    });
}

unsafe fn status_fields() {
    in_child(|| {
        install(libc::SYS_getppid, ERRNO | 1);
        install(libc::SYS_getppid, ERRNO | 1);
        let t = util::read_text("/proc/self/status");
        check!(
            t.contains("\nSeccomp:\t2\n") && t.contains("\nSeccomp_filters:\t2\n"),
            "{t}"
        );
        eq!(libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0), 2);
    });
}

unsafe fn filter_on_vdso_calls_and_uname() {
    in_child(|| {
        install(libc::SYS_uname, ERRNO | libc::EDOM as u32);
        let mut u: libc::utsname = std::mem::zeroed();
        err!(libc::EDOM, libc::uname(&mut u));
        install(libc::SYS_getpid, ERRNO | libc::EDOM as u32);
        err!(libc::EDOM, sys!(libc::SYS_getpid));
        install(libc::SYS_sched_yield, ERRNO | libc::EDOM as u32);
        err!(libc::EDOM, sys!(libc::SYS_sched_yield));
        install(libc::SYS_clock_gettime, ERRNO | libc::EDOM as u32);
        let mut t: libc::timespec = std::mem::zeroed();
        err!(
            libc::EDOM,
            sys!(libc::SYS_clock_gettime, 1, &mut t as *mut _)
        );
    });
}

unsafe fn mode_errors() {
    err!(libc::EINVAL, sys!(libc::SYS_seccomp, 99, 0, 0));
    err!(
        libc::EINVAL,
        sys!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_STRICT, 1, 0)
    );
    err!(libc::EINVAL, libc::prctl(libc::PR_SET_SECCOMP, 9, 0, 0, 0));
    in_child(|| {
        install(libc::SYS_getppid, ALLOW);
        // No way back to the strict mode.
        err!(
            libc::EINVAL,
            sys!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_STRICT, 0, 0)
        );
    });
}
