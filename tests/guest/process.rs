//! fork, clone, exit and wait: fork(2), clone(2), wait4(2), waitid(2),
//! pidfd_open(2), setpgid(2), setsid(2).

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use crate::util::{self, *};

cases![
    fork_copies_memory,
    fork_shares_file_offsets,
    exit_codes,
    exit_by_signal,
    wait_errors,
    wait_nohang,
    wait_rusage,
    wait_by_group,
    wait_stopped_and_continued,
    waitid_fields,
    waitid_nowait,
    waitid_errors,
    zombie_stays_until_waited,
    orphan_goes_to_subreaper,
    sigchld_ignored_reaps,
    no_cld_wait_reaps,
    vfork_suspends_parent,
    clone_exit_signal,
    clone_bad_flags,
    clone_settid,
    clone_files_shared,
    clone_fs_shared,
    clone_parent,
    clone_vm_stack,
    clone3_fork,
    clone3_errors,
    clone3_pidfd,
    clone3_clear_sighand,
    thread_ids,
    thread_exit_clears_tid,
    exit_group_from_thread,
    leader_exits_first,
    fork_from_thread_has_one_task,
    pidfd_poll_and_wait,
    pidfd_send_signal,
    pidfd_of_proc_directory,
    pidfd_getfd,
    pidfd_errors,
    setpgid_rules,
    setpgid_after_exec,
    setsid_rules,
    killpg_reaches_group,
    kill_errors,
    tgkill_rules,
    exit_closes_files,
    rusage_children,
    pdeathsig,
    priority,
    orphaned_stopped_group_gets_hup,
    many_forks,
    fork_tree,
    threads_wait_for_own_children,
    unshare_files_and_fs,
    pids_are_not_reused_at_once,
    wait_in_two_threads,
];

unsafe fn fork_copies_memory() {
    let mut local = 1;
    let p = anon(4096);
    *p = 1;
    let parent = libc::getpid();
    in_child(|| {
        local = 2;
        *p = 2;
        check!(libc::getpid() != parent);
        eq!(libc::getppid(), parent);
    });
    eq!(local, 1);
    eq!(*p, 1);
}

unsafe fn fork_shares_file_offsets() {
    write_file("f", b"0123456789");
    let fd = open("f", libc::O_RDONLY);
    in_child(|| eq!(read_some(fd, 4), b"0123"));
    eq!(read_some(fd, 4), b"4567");
}

unsafe fn exit_codes() {
    for (code, seen) in [
        (0, 0),
        (1, 1),
        (42, 42),
        (255, 255),
        (256, 0),
        (-1, 255),
        (0x1234, 0x34),
    ] {
        let pid = fork(|| libc::_exit(code));
        let status = util::wait(pid);
        check!(libc::WIFEXITED(status));
        eq!(libc::WEXITSTATUS(status), seen);
    }
}

unsafe fn exit_by_signal() {
    for signo in [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGALRM,
        libc::SIGPIPE,
        libc::SIGRTMIN(),
    ] {
        let pid = fork(|| {
            libc::kill(libc::getpid(), signo);
            libc::_exit(9);
        });
        let status = util::wait(pid);
        check!(
            libc::WIFSIGNALED(status),
            "status {status:#x} for signal {signo}"
        );
        eq!(libc::WTERMSIG(status), signo);
        check!(!libc::WCOREDUMP(status));
    }
    // With a core limit of zero, core signals do not report a dump either.
    let pid = fork(|| {
        let zero = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &zero);
        libc::abort();
    });
    let status = util::wait(pid);
    eq!(libc::WTERMSIG(status), libc::SIGABRT);
}

unsafe fn wait_errors() {
    let mut st = 0;
    err!(libc::ECHILD, libc::waitpid(-1, &mut st, 0));
    err!(libc::ECHILD, libc::waitpid(1 << 20, &mut st, 0));
    err!(libc::EINVAL, libc::waitpid(-1, &mut st, 0x1000));
    err!(libc::ESRCH, sys!(libc::SYS_wait4, i32::MIN, 0, 0, 0));
    // A bad status pointer is an error only after the child was reaped.
    let pid = fork(|| ());
    err!(libc::EFAULT, sys!(libc::SYS_wait4, pid, 8, 0, 0));
    err!(libc::ECHILD, libc::waitpid(pid, &mut st, 0));
}

unsafe fn wait_nohang() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(w);
        read_some(r, 1);
        libc::_exit(3);
    });
    let mut st = 0x7777;
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WNOHANG)), 0);
    eq!(st, 0x7777);
    libc::close(w);
    check!(eventually(
        || libc::waitpid(pid, &mut st, libc::WNOHANG) == pid
    ));
    eq!(libc::WEXITSTATUS(st), 3);
    err!(libc::ECHILD, libc::waitpid(pid, &mut st, libc::WNOHANG));
}

unsafe fn wait_rusage() {
    let pid = fork(|| {
        let end = now_ms() + 50;
        while now_ms() < end {}
    });
    let mut ru: libc::rusage = std::mem::zeroed();
    let mut st = 0;
    eq!(ok!(libc::wait4(pid, &mut st, 0, &mut ru)), pid);
    let us = ru.ru_utime.tv_sec * 1_000_000
        + ru.ru_utime.tv_usec
        + ru.ru_stime.tv_sec * 1_000_000
        + ru.ru_stime.tv_usec;
    check!(us > 5_000, "only {us} us of CPU time");
    check!(ru.ru_maxrss > 0);
    // What has been given back by the end counts, also of grandchildren.
    let pid = fork(|| {
        in_child(|| {
            let p = anon(64 << 20);
            for i in 0..16384 {
                *p.add(i * 4096) = 1;
            }
            libc::munmap(p.cast(), 64 << 20);
        });
    });
    eq!(ok!(libc::wait4(pid, &mut st, 0, &mut ru)), pid);
    check!(
        ru.ru_maxrss > 64 << 10 && ru.ru_maxrss < 128 << 10,
        "{} KiB",
        ru.ru_maxrss
    );
    ok!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut ru));
    check!(ru.ru_maxrss > 64 << 10, "{} KiB", ru.ru_maxrss);
    ok!(libc::getrusage(libc::RUSAGE_SELF, &mut ru));
    check!(
        ru.ru_maxrss > 0 && ru.ru_maxrss < 64 << 10,
        "{} KiB",
        ru.ru_maxrss
    );
}

unsafe fn wait_by_group() {
    let a = fork(|| {
        libc::setpgid(0, 0);
        libc::_exit(5);
    });
    libc::setpgid(a, a);
    let b = fork(|| libc::_exit(6));
    let mut st = 0;
    eq!(ok!(libc::waitpid(-a, &mut st, 0)), a);
    eq!(libc::WEXITSTATUS(st), 5);
    eq!(ok!(libc::waitpid(0, &mut st, 0)), b);
    eq!(libc::WEXITSTATUS(st), 6);
    err!(libc::ECHILD, libc::waitpid(0, &mut st, 0));
}

unsafe fn wait_stopped_and_continued() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let mut st = 0;
    libc::kill(pid, libc::SIGSTOP);
    // Without WUNTRACED a stop is not reported.
    wait_state(pid, "T");
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WNOHANG)), 0);
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED)), pid);
    check!(libc::WIFSTOPPED(st));
    eq!(libc::WSTOPSIG(st), libc::SIGSTOP);
    // Reported once.
    eq!(
        ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED | libc::WNOHANG)),
        0
    );
    libc::kill(pid, libc::SIGCONT);
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WCONTINUED)), pid);
    check!(libc::WIFCONTINUED(st));
    eq!(st, 0xffff);
    libc::kill(pid, libc::SIGTSTP);
    eq!(ok!(libc::waitpid(pid, &mut st, libc::WUNTRACED)), pid);
    eq!(libc::WSTOPSIG(st), libc::SIGTSTP);
    libc::kill(pid, libc::SIGKILL);
    eq!(ok!(libc::waitpid(pid, &mut st, 0)), pid);
    eq!(libc::WTERMSIG(st), libc::SIGKILL);
}

unsafe fn waitid_fields() {
    let mut si: libc::siginfo_t = std::mem::zeroed();
    let pid = fork(|| libc::_exit(17));
    ok!(libc::waitid(
        libc::P_PID,
        pid as u32,
        &mut si,
        libc::WEXITED
    ));
    eq!(si.si_signo, libc::SIGCHLD);
    eq!(si.si_code, libc::CLD_EXITED);
    eq!(si.si_pid(), pid);
    eq!(si.si_uid(), libc::getuid());
    eq!(si.si_status(), 17);

    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    libc::kill(pid, libc::SIGSTOP);
    ok!(libc::waitid(libc::P_ALL, 0, &mut si, libc::WSTOPPED));
    eq!(
        (si.si_code, si.si_status(), si.si_pid()),
        (libc::CLD_STOPPED, libc::SIGSTOP, pid)
    );
    libc::kill(pid, libc::SIGCONT);
    ok!(libc::waitid(libc::P_ALL, 0, &mut si, libc::WCONTINUED));
    eq!(
        (si.si_code, si.si_status()),
        (libc::CLD_CONTINUED, libc::SIGCONT)
    );
    // Nothing new: success with si_pid 0.
    si.si_signo = 99;
    ok!(libc::waitid(
        libc::P_PID,
        pid as u32,
        &mut si,
        libc::WEXITED | libc::WNOHANG
    ));
    eq!((si.si_signo, si.si_pid()), (0, 0));
    libc::kill(pid, libc::SIGKILL);
    ok!(libc::waitid(
        libc::P_PGID,
        libc::getpgrp() as u32,
        &mut si,
        libc::WEXITED
    ));
    eq!(
        (si.si_code, si.si_status(), si.si_pid()),
        (libc::CLD_KILLED, libc::SIGKILL, pid)
    );
}

unsafe fn waitid_nowait() {
    let pid = fork(|| libc::_exit(4));
    let mut si: libc::siginfo_t = std::mem::zeroed();
    for _ in 0..3 {
        ok!(libc::waitid(
            libc::P_PID,
            pid as u32,
            &mut si,
            libc::WEXITED | libc::WNOWAIT
        ));
        eq!(si.si_status(), 4);
    }
    eq!(libc::WEXITSTATUS(util::wait(pid)), 4);
    err!(
        libc::ECHILD,
        libc::waitid(
            libc::P_PID,
            pid as u32,
            &mut si,
            libc::WEXITED | libc::WNOWAIT
        )
    );
}

unsafe fn waitid_errors() {
    let mut si: libc::siginfo_t = std::mem::zeroed();
    err!(libc::EINVAL, libc::waitid(libc::P_ALL, 0, &mut si, 0));
    err!(
        libc::EINVAL,
        libc::waitid(libc::P_ALL, 0, &mut si, libc::WNOHANG)
    );
    err!(libc::EINVAL, libc::waitid(9, 0, &mut si, libc::WEXITED));
    err!(
        libc::EINVAL,
        libc::waitid(libc::P_PID, 0, &mut si, libc::WEXITED)
    );
    err!(
        libc::EBADF,
        libc::waitid(libc::P_PIDFD, 99, &mut si, libc::WEXITED)
    );
    err!(
        libc::ECHILD,
        libc::waitid(libc::P_ALL, 0, &mut si, libc::WEXITED)
    );
    // The kernel's own interface also takes no siginfo at all.
    let pid = fork(|| ());
    eq!(
        sys!(libc::SYS_waitid, libc::P_PID, pid, 0, libc::WEXITED, 0),
        0
    );
}

unsafe fn zombie_stays_until_waited() {
    let pid = fork(|| ());
    wait_state(pid, "Z");
    ok!(libc::kill(pid, 0));
    ok!(libc::kill(pid, libc::SIGTERM));
    eq!(util::wait(pid), 0);
    err!(libc::ESRCH, libc::kill(pid, 0));
}

unsafe fn orphan_goes_to_subreaper() {
    ok!(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    let mut flag = 0;
    ok!(libc::prctl(
        libc::PR_GET_CHILD_SUBREAPER,
        &mut flag as *mut i32,
        0,
        0,
        0
    ));
    eq!(flag, 1);
    let (r, w) = pipe();
    let me = libc::getpid();
    let pid = fork(|| {
        // The flag is not inherited.
        let mut flag = 7;
        ok!(libc::prctl(
            libc::PR_GET_CHILD_SUBREAPER,
            &mut flag as *mut i32,
            0,
            0,
            0
        ));
        eq!(flag, 0);
        fork(|| {
            check!(eventually(|| libc::getppid() == me));
            write_all(w, &libc::getpid().to_ne_bytes());
            libc::_exit(23);
        });
    });
    wait_ok(pid);
    let bytes = read_full(r, 4);
    let orphan = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut st = 0;
    eq!(ok!(libc::waitpid(-1, &mut st, 0)), orphan);
    eq!(libc::WEXITSTATUS(st), 23);
}

unsafe fn sigchld_ignored_reaps() {
    libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    let pid = fork(|| sleep_ms(20));
    let mut st = 0;
    // Blocks until the child has gone, then reports that there is none.
    err!(libc::ECHILD, libc::waitpid(-1, &mut st, 0));
    err!(libc::ESRCH, libc::kill(pid, 0));
}

static CHLD: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_chld(_: i32) {
    CHLD.fetch_add(1, SeqCst);
}

unsafe fn no_cld_wait_reaps() {
    handle(
        libc::SIGCHLD,
        on_chld as *const () as usize,
        libc::SA_NOCLDWAIT,
    );
    let pid = fork(|| ());
    let mut st = 0;
    let r = libc::waitpid(pid, &mut st, 0);
    check!(r == -1 && (errno() == libc::ECHILD || errno() == libc::EINTR));
    check!(eventually(
        || libc::kill(pid, 0) == -1 && errno() == libc::ESRCH
    ));
    // Linux sends the signal all the same.
    eq!(CHLD.load(SeqCst), 1);
}

unsafe fn vfork_suspends_parent() {
    let word = anon(4096);
    // The child's stores are seen by the parent, which runs only after the
    // child's exit.
    let pid = sys_vfork(word);
    check!(pid > 0);
    eq!(*word, 9);
    eq!(libc::WEXITSTATUS(util::wait(pid)), 5);
}

/// A vfork whose child stores to `word` after a pause and exits with 5.
unsafe fn sys_vfork(word: *mut u8) -> i32 {
    extern "C" fn child(word: *mut libc::c_void) -> i32 {
        unsafe {
            libc::usleep(30_000);
            *word.cast::<u8>() = 9;
            libc::_exit(5)
        }
    }
    let stack = anon(65536).add(65536);
    ok!(libc::clone(
        child,
        stack.cast(),
        libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
        word.cast()
    ))
}

unsafe fn clone_exit_signal() {
    // A child with another exit signal is a "clone" child: plain wait does not
    // see it, __WALL and __WCLONE do.
    let pid = sys!(libc::SYS_clone, 0, 0, 0, 0, 0) as i32;
    if pid == 0 {
        libc::_exit(8);
    }
    check!(pid > 0);
    let mut st = 0;
    err!(libc::ECHILD, libc::waitpid(pid, &mut st, 0));
    eq!(ok!(libc::waitpid(pid, &mut st, libc::__WCLONE)), pid);
    eq!(libc::WEXITSTATUS(st), 8);

    block(&[libc::SIGUSR2]);
    let pid = sys!(libc::SYS_clone, libc::SIGUSR2, 0, 0, 0, 0) as i32;
    if pid == 0 {
        libc::_exit(0);
    }
    eq!(ok!(libc::waitpid(pid, &mut st, libc::__WALL)), pid);
    let mut si: libc::siginfo_t = std::mem::zeroed();
    eq!(
        ok!(libc::sigwaitinfo(&sigset(&[libc::SIGUSR2]), &mut si)),
        libc::SIGUSR2
    );
    eq!(si.si_pid(), pid);
}

unsafe fn clone_bad_flags() {
    for flags in [
        libc::CLONE_SIGHAND,
        libc::CLONE_THREAD,
        libc::CLONE_THREAD | libc::CLONE_SIGHAND,
        libc::CLONE_FS | libc::CLONE_NEWNS,
        libc::CLONE_NEWPID | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM,
        libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID,
    ] {
        let mut word = 0i32;
        let p = &mut word as *mut i32;
        err!(
            libc::EINVAL,
            sys!(libc::SYS_clone, flags | libc::SIGCHLD, 0, p, p, 0)
        );
    }
}

unsafe fn clone_settid() {
    let child = shared::<AtomicI32>();
    let mut parent = 0i32;
    let pid = sys!(
        libc::SYS_clone,
        libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD,
        0,
        &mut parent as *mut i32,
        child.as_ptr(),
        0
    ) as i32;
    if pid == 0 {
        check!(child.load(SeqCst) == libc::getpid());
        libc::_exit(0);
    }
    eq!(parent, pid);
    wait_ok(pid);
    eq!(child.load(SeqCst), pid);
}

unsafe fn clone_files_shared() {
    let pid = sys!(
        libc::SYS_clone,
        libc::CLONE_FILES | libc::SIGCHLD,
        0,
        0,
        0,
        0
    ) as i32;
    if pid == 0 {
        ok!(libc::dup2(0, 99));
        libc::_exit(0);
    }
    wait_ok(pid);
    ok!(libc::fcntl(99, libc::F_GETFD));
    in_child(|| {
        libc::close(99);
    });
    ok!(libc::fcntl(99, libc::F_GETFD));
}

unsafe fn clone_fs_shared() {
    ok!(libc::mkdir(c("d").as_ptr(), 0o755));
    let pid = sys!(libc::SYS_clone, libc::CLONE_FS | libc::SIGCHLD, 0, 0, 0, 0) as i32;
    if pid == 0 {
        ok!(libc::chdir(c("d").as_ptr()));
        libc::umask(0o077);
        libc::_exit(0);
    }
    wait_ok(pid);
    let cwd = std::env::current_dir().unwrap_or_default();
    check!(cwd.ends_with("d"), "cwd is {cwd:?}");
    eq!(libc::umask(0o022), 0o077);
    in_child(|| {
        ok!(libc::chdir(c("..").as_ptr()));
    });
    check!(std::env::current_dir().unwrap_or_default().ends_with("d"));
}

unsafe fn clone_parent() {
    let me = libc::getpid();
    let cell = shared::<AtomicI32>();
    let pid = fork(|| {
        let pid = sys!(
            libc::SYS_clone,
            libc::CLONE_PARENT | libc::SIGCHLD,
            0,
            0,
            0,
            0
        ) as i32;
        if pid == 0 {
            eq!(libc::getppid(), me);
            libc::_exit(31);
        }
        cell.store(pid, SeqCst);
        let mut st = 0;
        err!(libc::ECHILD, libc::waitpid(pid, &mut st, 0));
    });
    wait_ok(pid);
    eq!(libc::WEXITSTATUS(util::wait(cell.load(SeqCst))), 31);
}

unsafe fn clone_vm_stack() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "C" fn child(arg: *mut libc::c_void) -> i32 {
        SEEN.store(arg as usize as u32, SeqCst);
        12
    }
    let stack = anon(65536).add(65536);
    let pid = ok!(libc::clone(
        child,
        stack.cast(),
        libc::CLONE_VM | libc::SIGCHLD,
        77 as *mut _
    ));
    eq!(libc::WEXITSTATUS(util::wait(pid)), 12);
    eq!(SEEN.load(SeqCst), 77);
}

unsafe fn clone3(args: &libc::clone_args) -> i64 {
    sys!(
        libc::SYS_clone3,
        args as *const libc::clone_args,
        std::mem::size_of::<libc::clone_args>()
    )
}

unsafe fn clone3_fork() {
    let mut args: libc::clone_args = std::mem::zeroed();
    args.exit_signal = libc::SIGCHLD as u64;
    let pid = ok!(clone3(&args)) as i32;
    if pid == 0 {
        libc::_exit(19);
    }
    eq!(libc::WEXITSTATUS(util::wait(pid)), 19);
    // The first version of the structure, 64 bytes.
    let pid = ok!(sys!(libc::SYS_clone3, &args as *const libc::clone_args, 64)) as i32;
    if pid == 0 {
        libc::_exit(20);
    }
    eq!(libc::WEXITSTATUS(util::wait(pid)), 20);
}

unsafe fn clone3_errors() {
    let mut args: libc::clone_args = std::mem::zeroed();
    err!(
        libc::EINVAL,
        sys!(libc::SYS_clone3, &args as *const libc::clone_args, 8)
    );
    err!(libc::EFAULT, sys!(libc::SYS_clone3, 8, 64));
    err!(
        libc::E2BIG,
        sys!(libc::SYS_clone3, &args as *const libc::clone_args, 8192)
    );
    args.exit_signal = 65;
    err!(libc::EINVAL, clone3(&args));
    args.exit_signal = 0;
    args.stack = 0x10000;
    err!(libc::EINVAL, clone3(&args));
    args.stack = 0;
    args.stack_size = 4096;
    err!(libc::EINVAL, clone3(&args));
    args.stack_size = 0;
    args.flags = libc::CLONE_DETACHED as u64;
    err!(libc::EINVAL, clone3(&args));
    // A longer structure is fine while its unknown tail is zero.
    #[repr(C)]
    struct Long {
        args: libc::clone_args,
        tail: [u64; 8],
    }
    let mut long: Long = std::mem::zeroed();
    long.args.exit_signal = libc::SIGCHLD as u64;
    let pid = ok!(sys!(
        libc::SYS_clone3,
        &long as *const Long,
        std::mem::size_of::<Long>()
    )) as i32;
    if pid == 0 {
        libc::_exit(0);
    }
    wait_ok(pid);
    long.tail[7] = 1;
    err!(
        libc::E2BIG,
        sys!(
            libc::SYS_clone3,
            &long as *const Long,
            std::mem::size_of::<Long>()
        )
    );
}

unsafe fn clone3_pidfd() {
    let mut fd = -1i32;
    let mut args: libc::clone_args = std::mem::zeroed();
    args.flags = libc::CLONE_PIDFD as u64;
    args.pidfd = &mut fd as *mut i32 as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    let pid = ok!(clone3(&args)) as i32;
    if pid == 0 {
        libc::_exit(2);
    }
    check!(fd >= 0);
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    eq!(poll_one(fd, libc::POLLIN, 5000), libc::POLLIN);
    let mut si: libc::siginfo_t = std::mem::zeroed();
    ok!(libc::waitid(
        libc::P_PIDFD,
        fd as u32,
        &mut si,
        libc::WEXITED
    ));
    eq!((si.si_pid(), si.si_status()), (pid, 2));
}

unsafe fn clone3_clear_sighand() {
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    handle(libc::SIGUSR1, on_chld as *const () as usize, 0);
    libc::signal(libc::SIGUSR2, libc::SIG_IGN);
    let mut args: libc::clone_args = std::mem::zeroed();
    args.flags = CLONE_CLEAR_SIGHAND;
    args.exit_signal = libc::SIGCHLD as u64;
    let pid = ok!(clone3(&args)) as i32;
    if pid == 0 {
        let mut sa: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut sa);
        eq!(sa.sa_sigaction, libc::SIG_DFL);
        // Ignored signals stay ignored.
        libc::sigaction(libc::SIGUSR2, std::ptr::null(), &mut sa);
        eq!(sa.sa_sigaction, libc::SIG_IGN);
        libc::_exit(0);
    }
    wait_ok(pid);
    args.flags |= (libc::CLONE_SIGHAND | libc::CLONE_VM) as u64;
    err!(libc::EINVAL, clone3(&args));
}

unsafe fn gettid() -> i32 {
    sys!(libc::SYS_gettid) as i32
}

unsafe fn thread_ids() {
    eq!(gettid(), libc::getpid());
    let pid = libc::getpid();
    let mut seen = vec![gettid()];
    for _ in 0..5 {
        let tid = std::thread::spawn(move || unsafe {
            eq!(libc::getpid(), pid);
            gettid()
        })
        .join()
        .unwrap_or(0);
        check!(tid > 0);
        seen.push(tid);
    }
    seen.sort_unstable();
    seen.dedup();
    eq!(seen.len(), 6);
}

unsafe fn thread_exit_clears_tid() {
    // pthread_join rests on CLONE_CHILD_CLEARTID: the word becomes zero and
    // one waiter is woken.
    static WORD: AtomicI32 = AtomicI32::new(0);
    extern "C" fn child(_: *mut libc::c_void) -> i32 {
        unsafe {
            libc::usleep(20_000);
            sys!(libc::SYS_exit, 0);
        }
        0
    }
    let stack = anon(65536).add(65536);
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_CHILD_CLEARTID
        | libc::CLONE_PARENT_SETTID;
    let null = std::ptr::null_mut::<libc::c_void>();
    let tid = ok!(libc::clone(
        child,
        stack.cast(),
        flags,
        null,
        WORD.as_ptr(),
        null,
        WORD.as_ptr()
    ));
    check!(tid > 0);
    loop {
        let now = WORD.load(SeqCst);
        if now == 0 {
            break;
        }
        let mut ts = libc::timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        let r = sys!(
            libc::SYS_futex,
            WORD.as_ptr(),
            libc::FUTEX_WAIT,
            now,
            &mut ts as *mut _,
            0,
            0
        );
        check!(
            r == 0 || errno() == libc::EAGAIN,
            "no wake: {}",
            errno_text()
        );
    }
    check!(eventually(|| sys!(
        libc::SYS_tgkill,
        libc::getpid(),
        tid,
        0
    ) == -1));
}

unsafe fn exit_group_from_thread() {
    let pid = fork(|| {
        std::thread::spawn(|| {
            sleep_ms(10);
            libc::_exit(14);
        });
        loop {
            libc::pause();
        }
    });
    eq!(libc::WEXITSTATUS(util::wait(pid)), 14);
    // A fatal signal to one thread ends all.
    let pid = fork(|| {
        std::thread::spawn(|| {
            let p = std::hint::black_box(8 as *mut u8);
            *p = 1;
        });
        loop {
            libc::pause();
        }
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
}

unsafe fn leader_exits_first() {
    let (r, w) = pipe();
    let pid = fork(|| {
        std::thread::spawn(move || {
            wait_state(libc::getpid(), "Z");
            // The process lives on while one thread does.
            write_all(w, b"x");
            libc::_exit(3);
        });
        sys!(libc::SYS_exit, 7);
    });
    eq!(read_some(r, 1), b"x");
    eq!(libc::WEXITSTATUS(util::wait(pid)), 3);
}

unsafe fn fork_from_thread_has_one_task() {
    std::thread::spawn(|| {
        loop {
            sleep_ms(1000);
        }
    });
    let t = std::thread::spawn(|| {
        in_child(|| {
            eq!(gettid(), libc::getpid());
            let n = std::fs::read_dir("/proc/self/task")
                .map(|d| d.count())
                .unwrap_or(0);
            eq!(n, 1);
        });
    });
    check!(t.join().is_ok());
    let n = std::fs::read_dir("/proc/self/task")
        .map(|d| d.count())
        .unwrap_or(0);
    check!(n >= 2);
}

unsafe fn pidfd_open(pid: i32, flags: u32) -> i32 {
    sys!(libc::SYS_pidfd_open, pid, flags) as i32
}

unsafe fn pidfd_poll_and_wait() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(w);
        read_some(r, 1);
        libc::_exit(6);
    });
    let fd = ok!(pidfd_open(pid, 0));
    eq!(poll_one(fd, libc::POLLIN, 0), 0);
    libc::close(w);
    eq!(poll_one(fd, libc::POLLIN, 5000), libc::POLLIN);
    let mut si: libc::siginfo_t = std::mem::zeroed();
    ok!(libc::waitid(
        libc::P_PIDFD,
        fd as u32,
        &mut si,
        libc::WEXITED
    ));
    eq!(si.si_status(), 6);
    err!(
        libc::ECHILD,
        libc::waitid(libc::P_PIDFD, fd as u32, &mut si, libc::WEXITED)
    );
    err!(libc::ESRCH, sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 0));
    // Non-blocking pidfds make waitid answer EAGAIN.
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let fd = ok!(pidfd_open(pid, libc::O_NONBLOCK as u32));
    err!(
        libc::EAGAIN,
        libc::waitid(libc::P_PIDFD, fd as u32, &mut si, libc::WEXITED)
    );
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn pidfd_send_signal() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let fd = ok!(pidfd_open(pid, 0));
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    ok!(sys!(libc::SYS_pidfd_send_signal, fd, 0, 0, 0));
    err!(
        libc::EINVAL,
        sys!(libc::SYS_pidfd_send_signal, fd, 99, 0, 0)
    );
    ok!(sys!(libc::SYS_pidfd_send_signal, fd, libc::SIGTERM, 0, 0));
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGTERM);
    err!(
        libc::EBADF,
        sys!(libc::SYS_pidfd_send_signal, 0, libc::SIGTERM, 0, 0)
    );
}

/// A descriptor of `/proc/PID` serves too (pidfd_send_signal(2)); one of a
/// thread or of another directory does not.
unsafe fn pidfd_of_proc_directory() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let fd = open(&format!("/proc/{pid}"), flags);
    let task = open(&format!("/proc/{pid}/task/{pid}"), flags);
    let signal = |fd| sys!(libc::SYS_pidfd_send_signal, fd, libc::SIGUSR1, 0, 0);
    err!(libc::EBADF, signal(task));
    err!(libc::EBADF, signal(open("/proc", flags)));
    err!(libc::EBADF, signal(open(".", flags)));
    ok!(signal(fd));
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGUSR1);
    err!(libc::ESRCH, signal(fd));
}

unsafe fn pidfd_getfd() {
    let (r, w) = pipe();
    let (r2, w2) = pipe();
    let pid = fork(|| {
        write_file("secret", b"content");
        let fd = open("secret", libc::O_RDONLY);
        ok!(libc::dup2(fd, 50));
        write_all(w, b"x");
        libc::close(w2);
        read_some(r2, 1);
    });
    read_some(r, 1);
    let pfd = ok!(pidfd_open(pid, 0));
    let fd = ok!(sys!(libc::SYS_pidfd_getfd, pfd, 50, 0)) as i32;
    eq!(read_some(fd, 10), b"content");
    eq!(ok!(libc::fcntl(fd, libc::F_GETFD)), libc::FD_CLOEXEC);
    err!(libc::EBADF, sys!(libc::SYS_pidfd_getfd, pfd, 60, 0));
    err!(libc::EINVAL, sys!(libc::SYS_pidfd_getfd, pfd, 50, 1));
    libc::close(w2);
    wait_ok(pid);
}

unsafe fn pidfd_errors() {
    err!(libc::EINVAL, pidfd_open(0, 0));
    err!(libc::EINVAL, pidfd_open(-1, 0));
    err!(libc::EINVAL, pidfd_open(libc::getpid(), 1));
    err!(libc::ESRCH, pidfd_open(0x3f_ffff, 0));
}

unsafe fn setpgid_rules() {
    err!(libc::EINVAL, libc::setpgid(0, -1));
    err!(libc::ESRCH, libc::setpgid(0x3f_ffff, 0));
    err!(libc::ESRCH, libc::getpgid(0x3f_ffff));
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(w);
        read_some(r, 1);
    });
    ok!(libc::setpgid(pid, pid));
    eq!(libc::getpgid(pid), pid);
    // Join an existing group of the session; unknown groups are refused.
    let other = fork(|| {
        libc::close(w);
        ok!(libc::setpgid(0, pid));
        eq!(libc::getpgrp(), pid);
        err!(libc::EPERM, libc::setpgid(0, 0x3f_ffff));
        read_some(r, 1);
    });
    libc::close(w);
    wait_ok(other);
    wait_ok(pid);
    // A session leader can't move.
    in_child(|| {
        ok!(libc::setsid());
        err!(libc::EPERM, libc::setpgid(0, 0));
    });
    // A child in another session can't be moved.
    let (r, w) = pipe();
    let (r2, w2) = pipe();
    let pid = fork(|| {
        ok!(libc::setsid());
        write_all(w, b"x");
        libc::close(w2);
        read_some(r2, 1);
    });
    read_some(r, 1);
    err!(libc::EPERM, libc::setpgid(pid, pid));
    libc::close(w2);
    wait_ok(pid);
}

unsafe fn setpgid_after_exec() {
    let exe = crate::helpers::exe();
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let pid = fork(|| {
        let argv = [exe.as_ptr(), c"pause".as_ptr(), std::ptr::null()];
        libc::execv(exe.as_ptr(), argv.as_ptr());
        libc::_exit(9);
    });
    libc::close(w);
    // End of file: the exec has happened.
    eq!(read_some(r, 1), b"");
    err!(libc::EACCES, libc::setpgid(pid, pid));
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn setsid_rules() {
    let my_sid = libc::getsid(0);
    in_child(|| {
        eq!(libc::getsid(0), my_sid);
        let sid = ok!(libc::setsid());
        eq!(sid, libc::getpid());
        eq!(libc::getpgrp(), sid);
        err!(libc::EPERM, libc::setsid());
    });
    in_child(|| {
        ok!(libc::setpgid(0, 0));
        err!(libc::EPERM, libc::setsid());
    });
    err!(libc::ESRCH, libc::getsid(0x3f_ffff));
}

unsafe fn killpg_reaches_group() {
    let (r, w) = pipe();
    let mut pids = Vec::new();
    let mut group = 0;
    for _ in 0..3 {
        let pid = fork(|| {
            libc::setpgid(0, group);
            write_all(w, b"x");
            loop {
                libc::pause();
            }
        });
        if group == 0 {
            group = pid;
        }
        libc::setpgid(pid, group);
        pids.push(pid);
    }
    read_full(r, 3);
    ok!(libc::killpg(group, libc::SIGTERM));
    for pid in pids {
        eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGTERM);
    }
    err!(libc::ESRCH, libc::killpg(group, 0));
    err!(libc::EINVAL, libc::killpg(libc::getpgrp(), 999));
}

unsafe fn kill_errors() {
    err!(libc::EINVAL, libc::kill(libc::getpid(), 65));
    err!(libc::EINVAL, libc::kill(libc::getpid(), -1));
    err!(libc::ESRCH, libc::kill(0x3f_ffff, libc::SIGTERM));
    err!(libc::ESRCH, libc::kill(i32::MIN, libc::SIGTERM));
    ok!(libc::kill(libc::getpid(), 0));
    ok!(libc::kill(0, 0));
}

unsafe fn tgkill_rules() {
    let pid = libc::getpid();
    err!(libc::EINVAL, sys!(libc::SYS_tgkill, pid, 0, 0));
    err!(libc::EINVAL, sys!(libc::SYS_tgkill, -1, pid, 0));
    err!(libc::ESRCH, sys!(libc::SYS_tgkill, 1 << 22, pid, 0));
    err!(libc::EINVAL, sys!(libc::SYS_tkill, -1, 0));
    ok!(sys!(libc::SYS_tkill, pid, 0));
    // A child's thread is not of our group.
    let child = fork(|| {
        loop {
            libc::pause();
        }
    });
    err!(libc::ESRCH, sys!(libc::SYS_tgkill, pid, child, 0));
    ok!(sys!(libc::SYS_tgkill, child, child, libc::SIGKILL));
    util::wait(child);
}

unsafe fn exit_closes_files() {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::close(r);
        sleep_ms(20);
    });
    libc::close(w);
    // End of file arrives only when the child is gone.
    eq!(read_some(r, 1), b"");
    wait_ok(pid);
}

unsafe fn rusage_children() {
    let mut before: libc::rusage = std::mem::zeroed();
    ok!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut before));
    in_child(|| {
        let end = now_ms() + 60;
        while now_ms() < end {}
    });
    let mut after: libc::rusage = std::mem::zeroed();
    ok!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut after));
    let us = |r: &libc::rusage| {
        (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1_000_000
            + r.ru_utime.tv_usec
            + r.ru_stime.tv_usec
    };
    check!(us(&after) - us(&before) > 5_000);
    let mut t: libc::tms = std::mem::zeroed();
    check!(libc::times(&mut t) != -1);
    err!(libc::EINVAL, libc::getrusage(5, &mut after));
}

unsafe fn pdeathsig() {
    let (r, w) = pipe();
    let pid = fork(|| {
        fork(|| {
            ok!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0));
            let mut sig = 0;
            ok!(libc::prctl(
                libc::PR_GET_PDEATHSIG,
                &mut sig as *mut i32,
                0,
                0,
                0
            ));
            eq!(sig, libc::SIGKILL);
            write_all(w, b"r");
            loop {
                libc::pause();
            }
        });
        libc::close(w);
        read_some(r, 1);
    });
    libc::close(w);
    wait_ok(pid);
    // The grandchild held the last write end.
    eq!(read_some(r, 1), b"");
    err!(
        libc::EINVAL,
        libc::prctl(libc::PR_SET_PDEATHSIG, 999, 0, 0, 0)
    );
}

unsafe fn priority() {
    in_child(|| {
        set_errno(0);
        let start = libc::getpriority(libc::PRIO_PROCESS, 0);
        eq!(errno(), 0);
        ok!(libc::setpriority(libc::PRIO_PROCESS, 0, start + 5));
        eq!(
            libc::getpriority(libc::PRIO_PROCESS, 0),
            (start + 5).min(19)
        );
        // The raw call answers 20 - nice.
        eq!(
            sys!(libc::SYS_getpriority, libc::PRIO_PROCESS, 0),
            i64::from(20 - (start + 5).min(19))
        );
        ok!(libc::setpriority(libc::PRIO_PROCESS, 0, 100));
        eq!(libc::getpriority(libc::PRIO_PROCESS, 0), 19);
        in_child(|| eq!(libc::getpriority(libc::PRIO_PROCESS, 0), 19));
        err!(libc::EINVAL, libc::setpriority(7, 0, 0));
        err!(
            libc::ESRCH,
            libc::setpriority(libc::PRIO_PROCESS, 0x3f_ffff, 0)
        );
    });
}

unsafe fn orphaned_stopped_group_gets_hup() {
    let (r, w) = pipe();
    let hup = shared::<AtomicI32>();
    let pid = fork(|| {
        libc::setsid();
        let child = fork(|| {
            libc::setpgid(0, 0);
            write_all(w, b"x");
            loop {
                libc::pause();
            }
        });
        libc::setpgid(child, child);
        hup.store(child, SeqCst);
        read_some(r, 1);
        libc::kill(child, libc::SIGSTOP);
        let mut st = 0;
        libc::waitpid(child, &mut st, libc::WUNTRACED);
        check!(libc::WIFSTOPPED(st));
        // Our end orphans the stopped group: SIGHUP, then SIGCONT.
    });
    wait_ok(pid);
    let child = hup.load(SeqCst);
    libc::close(w);
    eq!(read_some(r, 1), b"");
    check!(eventually(|| {
        libc::kill(child, 0) == -1
            || std::fs::read_to_string(format!("/proc/{child}/stat"))
                .is_ok_and(|s| s.contains(") Z "))
    }));
}

unsafe fn many_forks() {
    for _ in 0..100 {
        let pid = fork(|| ());
        eq!(util::wait(pid), 0);
    }
    let pids: Vec<i32> = (0..50).map(|i| fork(|| libc::_exit(i))).collect();
    for (i, pid) in pids.iter().enumerate() {
        eq!(libc::WEXITSTATUS(util::wait(*pid)), i as i32);
    }
}

unsafe fn fork_tree() {
    unsafe fn grow(depth: u32) {
        if depth == 0 {
            return;
        }
        let a = fork(|| grow(depth - 1));
        let b = fork(|| grow(depth - 1));
        wait_ok(a);
        wait_ok(b);
    }
    grow(5);
}

unsafe fn threads_wait_for_own_children() {
    let threads: Vec<_> = (0..4)
        .map(|i| {
            std::thread::spawn(move || unsafe {
                for _ in 0..10 {
                    let pid = fork(|| libc::_exit(i));
                    eq!(libc::WEXITSTATUS(util::wait(pid)), i);
                }
            })
        })
        .collect();
    for t in threads {
        check!(t.join().is_ok());
    }
}

unsafe fn wait_in_two_threads() {
    // Two waiters for any child get one each.
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(|| unsafe {
                let mut st = 0;
                // The other thread's fork may come later than our wait.
                eventually(|| {
                    libc::waitid(
                        libc::P_ALL,
                        0,
                        std::ptr::null_mut(),
                        libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
                    ) == 0
                });
                ok!(libc::wait(&mut st));
                libc::WEXITSTATUS(st)
            })
        })
        .collect();
    fork(|| {
        sleep_ms(30);
        libc::_exit(1);
    });
    fork(|| {
        sleep_ms(60);
        libc::_exit(2);
    });
    let mut codes: Vec<i32> = waiters
        .into_iter()
        .map(|w| w.join().unwrap_or(-1))
        .collect();
    codes.sort_unstable();
    eq!(codes, [1, 2]);
}

unsafe fn unshare_files_and_fs() {
    let pid = sys!(
        libc::SYS_clone,
        libc::CLONE_FILES | libc::CLONE_FS | libc::SIGCHLD,
        0,
        0,
        0,
        0
    ) as i32;
    if pid == 0 {
        ok!(libc::unshare(libc::CLONE_FILES | libc::CLONE_FS));
        ok!(libc::dup2(0, 98));
        ok!(libc::chdir(c("/").as_ptr()));
        libc::_exit(0);
    }
    wait_ok(pid);
    err!(libc::EBADF, libc::fcntl(98, libc::F_GETFD));
    check!(std::env::current_dir().unwrap_or_default() != std::path::Path::new("/"));
    err!(libc::EINVAL, libc::unshare(1));
}

unsafe fn pids_are_not_reused_at_once() {
    let mut last = 0;
    for _ in 0..20 {
        let pid = fork(|| ());
        util::wait(pid);
        check!(pid != last);
        last = pid;
    }
}
