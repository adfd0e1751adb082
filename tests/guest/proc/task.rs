//! /proc/PID.

use super::*;
use crate::util::{self, *};

cases![
    proc_self_links,
    proc_stat_fields,
    proc_status_fields,
    proc_state_letters,
    proc_cmdline_environ,
    proc_fd_directory,
    proc_fdinfo,
    proc_task_directory,
    proc_pid_listing,
    proc_other_process_permissions,
    proc_dead_process,
    proc_root_cwd_exe,
    proc_wchan_syscall_stack,
    proc_io_and_limits,
    proc_oom_score,
    proc_loginuid,
    proc_write_refused,
    proc_thread_self,
    proc_children_file,
];

unsafe fn proc_self_links() {
    eq!(link("/proc/self"), libc::getpid().to_string());
    eq!(link("/proc/mounts"), "self/mounts");
    in_child(|| eq!(link("/proc/self"), libc::getpid().to_string()));
    eq!(
        link("/proc/self/cwd"),
        std::env::current_dir()
            .unwrap_or_default()
            .to_string_lossy()
    );
    eq!(link("/proc/self/root"), "/");
}

fn stat_fields(pid: i32) -> Vec<String> {
    let text = util::read_text(&format!("/proc/{pid}/stat"));
    let (head, rest) = text.split_once(" (").unwrap_or_default();
    let (comm, rest) = rest.rsplit_once(") ").unwrap_or_default();
    let mut v = vec![head.to_owned(), comm.to_owned()];
    v.extend(rest.split_whitespace().map(str::to_owned));
    v
}

unsafe fn proc_stat_fields() {
    let f = stat_fields(libc::getpid());
    eq!(f.len(), 52);
    eq!(f[0], libc::getpid().to_string());
    eq!(f[2], "R");
    eq!(f[3], libc::getppid().to_string());
    eq!(f[4], libc::getpgrp().to_string());
    eq!(f[5], libc::getsid(0).to_string());
    eq!(f[19], "1"); // threads
    let vsize: u64 = f[22].parse().unwrap_or(0);
    let rss: u64 = f[23].parse().unwrap_or(0);
    check!(vsize > rss * 4096 && rss > 0);
    let start: f64 = f[21].parse().unwrap_or(0.0);
    let uptime: f64 = util::read_text("/proc/uptime")
        .split(' ')
        .next()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0.0);
    check!(
        start / 100.0 <= uptime + 0.1 && start / 100.0 > uptime - 60.0,
        "{start} {uptime}"
    );
    // Kernel pointers are not shown; the stack start is ours.
    check!(f[27].parse::<u64>().unwrap_or(0) > 0x1000);
}

unsafe fn proc_status_fields() {
    let pid = libc::getpid();
    eq!(status(pid, "Pid"), pid.to_string());
    eq!(status(pid, "Tgid"), pid.to_string());
    eq!(status(pid, "PPid"), libc::getppid().to_string());
    eq!(status(pid, "TracerPid"), "0");
    eq!(status(pid, "Threads"), "1");
    eq!(status(pid, "Umask"), "0022");
    check!(status(pid, "State").starts_with("R (running)"));
    eq!(status(pid, "Seccomp"), "0");
    for key in [
        "Name",
        "FDSize",
        "VmPeak",
        "VmSize",
        "VmRSS",
        "VmData",
        "VmStk",
        "VmExe",
        "VmLib",
        "SigQ",
        "SigPnd",
        "SigBlk",
        "CapInh",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Cpus_allowed",
        "Cpus_allowed_list",
        "voluntary_ctxt_switches",
    ] {
        check!(!status(pid, key).is_empty(), "no {key}");
    }
}

unsafe fn proc_state_letters() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    wait_state(pid, "S");
    check!(status(pid, "State").starts_with("S (sleeping)"));
    libc::kill(pid, libc::SIGSTOP);
    wait_state(pid, "T");
    check!(status(pid, "State").starts_with("T (stopped)"));
    libc::kill(pid, libc::SIGKILL);
    wait_state(pid, "Z");
    check!(status(pid, "State").starts_with("Z (zombie)"));
    eq!(util::read_file(&format!("/proc/{pid}/cmdline")), b"");
    util::wait(pid);
}

unsafe fn proc_cmdline_environ() {
    let (r, w) = pipe();
    ok!(libc::fcntl(w, libc::F_SETFD, libc::FD_CLOEXEC));
    let exe = crate::helpers::exe();
    let pid = fork(|| {
        let argv = [
            c"name".as_ptr(),
            c"pause".as_ptr(),
            c"x y".as_ptr(),
            std::ptr::null(),
        ];
        let env = [c"A=1".as_ptr(), c"B=2".as_ptr(), std::ptr::null()];
        libc::execve(exe.as_ptr(), argv.as_ptr(), env.as_ptr());
    });
    libc::close(w);
    read_some(r, 1);
    eq!(
        util::read_file(&format!("/proc/{pid}/cmdline")),
        b"name\0pause\0x y\0"
    );
    eq!(
        util::read_file(&format!("/proc/{pid}/environ")),
        b"A=1\0B=2\0"
    );
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn proc_fd_directory() {
    let a = open("/dev/null", libc::O_RDONLY);
    let b = ok!(libc::dup2(a, 77));
    let names: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .map(|d| {
            d.flatten()
                .filter_map(|e| e.file_name().to_string_lossy().parse().ok())
                .collect()
        })
        .unwrap_or_default();
    for fd in [0, 1, 2, a, b] {
        check!(names.contains(&fd), "{names:?}");
    }
    eq!(link("/proc/self/fd/77"), "/dev/null");
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::lstat(c"/proc/self/fd/77".as_ptr(), &mut st));
    eq!(st.st_mode, libc::S_IFLNK | 0o500);
    let w = open("/dev/null", libc::O_RDWR);
    ok!(libc::lstat(
        c(&format!("/proc/self/fd/{w}")).as_ptr(),
        &mut st
    ));
    eq!(st.st_mode, libc::S_IFLNK | 0o700);
    let s = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    check!(link(&format!("/proc/self/fd/{s}")).starts_with("socket:["));
    let e = ok!(libc::eventfd(0, 0));
    eq!(link(&format!("/proc/self/fd/{e}")), "anon_inode:[eventfd]");
    let ep = ok!(libc::epoll_create1(0));
    eq!(
        link(&format!("/proc/self/fd/{ep}")),
        "anon_inode:[eventpoll]"
    );
}

unsafe fn proc_fdinfo() {
    write_file("f", b"0123456789");
    let fd = open("f", libc::O_RDWR | libc::O_APPEND | libc::O_CLOEXEC);
    libc::lseek(fd, 7, libc::SEEK_SET);
    let t = util::read_text(&format!("/proc/self/fdinfo/{fd}"));
    check!(t.contains("pos:\t7\n"), "{t}");
    let flags = t
        .lines()
        .find_map(|l| l.strip_prefix("flags:\t"))
        .and_then(|f| i32::from_str_radix(f.trim(), 8).ok());
    let flags = flags.unwrap_or(0);
    check!(
        flags & libc::O_APPEND != 0 && flags & libc::O_CLOEXEC != 0 && flags & 3 == libc::O_RDWR
    );
    let ep = ok!(libc::epoll_create1(0));
    let (r, _w) = pipe();
    let mut ev = libc::epoll_event { events: 1, u64: 0 };
    ok!(libc::epoll_ctl(ep, libc::EPOLL_CTL_ADD, r, &mut ev));
    check!(util::read_text(&format!("/proc/self/fdinfo/{ep}")).contains("tfd:"));
}

unsafe fn proc_task_directory() {
    let (r, w) = pipe();
    std::thread::spawn(move || {
        libc::prctl(libc::PR_SET_NAME, c"second".as_ptr(), 0, 0, 0);
        write_all(w, &(sys!(libc::SYS_gettid) as i32).to_ne_bytes());
        sleep_ms(5000);
    });
    let b = read_full(r, 4);
    let tid = i32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
    eq!(
        util::read_text(&format!("/proc/self/task/{tid}/comm")),
        "second\n"
    );
    let t = util::read_text(&format!("/proc/self/task/{tid}/status"));
    check!(
        t.contains(&format!("Pid:\t{tid}\n"))
            && t.contains(&format!("Tgid:\t{}\n", libc::getpid()))
    );
    eq!(status(libc::getpid(), "Threads"), "2");
    // A thread can be looked up at the top, but is not listed there.
    check!(libc::access(c(&format!("/proc/{tid}/stat")).as_ptr(), libc::F_OK) == 0);
    let listed = std::fs::read_dir("/proc").map(|d| {
        d.flatten()
            .any(|e| e.file_name().to_string_lossy() == tid.to_string())
    });
    check!(!listed.unwrap_or(true));
}

unsafe fn proc_pid_listing() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let pids: Vec<i32> = std::fs::read_dir("/proc")
        .map(|d| {
            d.flatten()
                .filter_map(|e| e.file_name().to_string_lossy().parse().ok())
                .collect()
        })
        .unwrap_or_default();
    check!(pids.contains(&1) && pids.contains(&libc::getpid()) && pids.contains(&pid));
    let mut sorted = pids.clone();
    sorted.sort_unstable();
    eq!(pids, sorted);
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
    check!(libc::access(c(&format!("/proc/{pid}")).as_ptr(), libc::F_OK) == -1);
}

unsafe fn proc_other_process_permissions() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    wait_state(pid, "S");
    in_child(|| {
        ok!(libc::setgid(1000));
        ok!(libc::setuid(1000));
        util::read_file(&format!("/proc/{pid}/stat"));
        util::read_file(&format!("/proc/{pid}/status"));
        util::read_file(&format!("/proc/{pid}/cmdline"));
        for name in ["environ", "maps", "mem", "fd", "auxv"] {
            let path = c(&format!("/proc/{pid}/{name}"));
            err!(libc::EACCES, libc::open(path.as_ptr(), libc::O_RDONLY));
        }
        err!(
            libc::EACCES,
            libc::readlink(
                c(&format!("/proc/{pid}/exe")).as_ptr(),
                [0 as libc::c_char; 9].as_mut_ptr(),
                9
            )
        );
    });
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn proc_dead_process() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let dir = open(&format!("/proc/{pid}"), libc::O_RDONLY);
    let file = open(&format!("/proc/{pid}/stat"), libc::O_RDONLY);
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
    err!(
        libc::ESRCH,
        libc::read(file, [0u8; 10].as_mut_ptr().cast(), 10)
    );
    err!(
        libc::ESRCH,
        libc::openat(dir, c"stat".as_ptr(), libc::O_RDONLY)
    );
    err!(
        libc::ENOENT,
        libc::open(c(&format!("/proc/{pid}/stat")).as_ptr(), libc::O_RDONLY)
    );
}

unsafe fn proc_root_cwd_exe() {
    ok!(libc::mkdir(c("r").as_ptr(), 0o755));
    write_file("r/only-here", b"yes");
    let (r, w) = pipe();
    let pid = fork(|| {
        if libc::chroot(c("r").as_ptr()) == -1 {
            libc::_exit(SKIP);
        }
        libc::chdir(c"/".as_ptr());
        write_all(w, b"x");
        loop {
            libc::pause();
        }
    });
    libc::close(w);
    if read_some(r, 1).is_empty() {
        wait_ok(pid);
    }
    eq!(
        util::read_file(&format!("/proc/{pid}/root/only-here")),
        b"yes"
    );
    eq!(
        util::read_file(&format!("/proc/{pid}/cwd/only-here")),
        b"yes"
    );
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}

unsafe fn proc_wchan_syscall_stack() {
    for name in [
        "wchan",
        "syscall",
        "stack",
        "schedstat",
        "personality",
        "timers",
    ] {
        let path = c(&format!("/proc/self/{name}"));
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY);
        check!(
            fd >= 0 || [libc::ENOENT, libc::EACCES, libc::EPERM].contains(&errno()),
            "{name}"
        );
    }
}

unsafe fn proc_io_and_limits() {
    let t = util::read_text("/proc/self/limits");
    check!(
        t.starts_with("Limit                     Soft Limit           Hard Limit           Units"),
        "{t}"
    );
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    check!(io.is_empty() || io.contains("rchar:"));
}

unsafe fn proc_loginuid() {
    const NONE: &str = "4294967295";
    let (uid, session) = ("/proc/self/loginuid", "/proc/self/sessionid");
    check!(std::fs::write(uid, NONE).is_ok());
    eq!(util::read_text(uid), NONE);
    eq!(util::read_text(session), NONE);
    check!(std::fs::write(uid, "x").is_err());
    in_child(|| {
        // The first one needs no privilege, and children inherit it.
        let fd = ok!(libc::open(c"/proc/self/loginuid".as_ptr(), libc::O_WRONLY));
        let set = |text: &str| libc::pwrite(fd, text.as_ptr().cast(), text.len(), 0);
        err!(libc::EINVAL, set("nobody"));
        ok!(libc::setresuid(1000, 1000, 1000));
        eq!(ok!(set("1000")), 4);
        let own = util::read_text(session);
        check!(own != NONE);
        in_child(|| {
            eq!(util::read_text(uid), "1000");
            eq!(util::read_text(session), own);
            // It is not for others to set.
            err!(libc::EPERM, set("1000"));
        });
        err!(libc::EPERM, set("1001"));
    });
    eq!(util::read_text(uid), NONE);
}

unsafe fn proc_oom_score() {
    eq!(
        util::read_text("/proc/self/oom_score_adj")
            .trim()
            .parse::<i32>()
            .is_ok(),
        true
    );
    check!(std::fs::write("/proc/self/oom_score_adj", "500").is_ok());
    eq!(util::read_text("/proc/self/oom_score_adj"), "500\n");
    check!(std::fs::write("/proc/self/oom_score_adj", "5000").is_err());
}

unsafe fn proc_write_refused() {
    err!(
        libc::ENOENT,
        libc::open(c"/proc/new".as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o644)
    );
    check!(libc::mkdir(c"/proc/new".as_ptr(), 0o755) == -1);
    check!(libc::unlink(c"/proc/version".as_ptr()) == -1);
    check!(libc::rename(c"/proc/version".as_ptr(), c"/proc/other".as_ptr()) == -1);
}

unsafe fn proc_thread_self() {
    let t = std::thread::spawn(|| {
        eq!(
            link("/proc/thread-self"),
            format!("{}/task/{}", libc::getpid(), sys!(libc::SYS_gettid))
        );
    });
    check!(t.join().is_ok());
}

unsafe fn proc_children_file() {
    let pid = fork(|| {
        loop {
            libc::pause();
        }
    });
    let path = format!("/proc/self/task/{}/children", libc::getpid());
    if let Ok(t) = std::fs::read_to_string(path) {
        eq!(t.trim(), pid.to_string());
    }
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
}
