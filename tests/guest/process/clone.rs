//! clone(2), clone3, vfork(2), unshare(2), threads.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use super::*;
use crate::util::{self, *};

cases![
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
    many_forks,
    fork_tree,
    unshare_files_and_fs,
    pids_are_not_reused_at_once,
];

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
