//! proc(5), sysfs(5), uname(2), sysinfo(2), sched(7), getrandom(2), mounts.

use crate::util::{self, *};

cases![
    uname_fields,
    sysinfo_fields,
    getrandom_calls,
    getcpu_and_affinity,
    sched_policies,
    sched_setattr_calls,
    sched_errors,
    sysconf_values,
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
    proc_mounts_and_mountinfo,
    proc_meminfo,
    proc_cpuinfo,
    proc_stat_system,
    proc_loadavg_uptime_version,
    proc_filesystems,
    proc_sys_kernel,
    proc_sys_write,
    proc_net_files,
    proc_wchan_syscall_stack,
    proc_io_and_limits,
    proc_oom_score,
    proc_loginuid,
    proc_write_refused,
    proc_seek_and_small_reads,
    proc_thread_self,
    proc_children_file,
    proc_cgroup_file,
    proc_smaps,
    proc_vmstat_and_others_exist,
    sys_cpu_online,
    sys_class_net,
    dev_nodes_present,
    dev_shm_is_tmpfs,
    hidden_host_things,
    mount_tmpfs_basics,
    mount_flags_enforced,
    mount_bind_file_and_dir,
    mount_recursive_and_move,
    mount_proc_and_sysfs,
    mount_errors,
    umount_flags,
    pivot_root_call,
    mount_overlay_or_refusal,
    mount_shared_propagation_or_private,
    new_mount_api_or_enosys,
    tmpfs_size_limit,
    syslog_and_reboot_refused,
    kernel_modules_refused,
    bpf_perf_refused_for_user,
    rseq_or_enosys,
    unknown_syscalls,
    getpid_family_consistent,
    arch_prctl_fs,
    vhangup_acct_quota,
    io_port_calls,
    kcmp_calls,
    close_all_and_go_on,
];

unsafe fn uname() -> libc::utsname {
    let mut u: libc::utsname = std::mem::zeroed();
    ok!(libc::uname(&mut u));
    u
}

fn text(field: &[libc::c_char]) -> String {
    field
        .iter()
        .take_while(|x| **x != 0)
        .map(|x| *x as u8 as char)
        .collect()
}

unsafe fn uname_fields() {
    let u = uname();
    eq!(text(&u.sysname), "Linux");
    eq!(text(&u.machine), "x86_64");
    check!(!text(&u.nodename).is_empty() && !text(&u.version).is_empty());
    let release = text(&u.release);
    let mut parts = release.split(|ch: char| !ch.is_ascii_digit());
    let major: u32 = parts.next().and_then(|s| s.parse().ok()).unwrap_or(0);
    check!(major >= 5, "{release}");
    eq!(
        util::read_text("/proc/sys/kernel/osrelease").trim(),
        release
    );
    eq!(util::read_text("/proc/sys/kernel/ostype"), "Linux\n");
    eq!(
        util::read_text("/proc/sys/kernel/version").trim(),
        text(&u.version)
    );
    check!(util::read_text("/proc/version").starts_with(&format!("Linux version {release} ")));
}

unsafe fn sysinfo_fields() {
    let mut s: libc::sysinfo = std::mem::zeroed();
    ok!(libc::sysinfo(&mut s));
    check!(s.totalram > 0 && s.freeram <= s.totalram && s.mem_unit >= 1);
    check!(s.uptime > 0 && s.procs > 0);
    let mem: u64 = meminfo("MemTotal") * 1024;
    eq!(s.totalram * u64::from(s.mem_unit), mem);
    err!(libc::EFAULT, sys!(libc::SYS_sysinfo, 8));
}

unsafe fn getrandom_calls() {
    let (mut a, mut b) = ([0u8; 64], [0u8; 64]);
    eq!(ok!(libc::getrandom(a.as_mut_ptr().cast(), 64, 0)), 64);
    eq!(
        ok!(libc::getrandom(
            b.as_mut_ptr().cast(),
            64,
            libc::GRND_NONBLOCK | libc::GRND_RANDOM
        )),
        64
    );
    check!(a != b && a != [0; 64]);
    eq!(ok!(libc::getrandom(std::ptr::null_mut(), 0, 0)), 0);
    err!(
        libc::EINVAL,
        libc::getrandom(a.as_mut_ptr().cast(), 64, 0x100)
    );
    err!(libc::EFAULT, libc::getrandom(8 as *mut _, 64, 0));
    let mut big = vec![0u8; 1 << 20];
    eq!(
        ok!(libc::getrandom(big.as_mut_ptr().cast(), 1 << 20, 0)),
        1 << 20
    );
    check!(big[(1 << 20) - 64..].iter().any(|b| *b != 0));
}

unsafe fn getcpu_and_affinity() {
    let (mut cpu, mut node) = (u32::MAX, u32::MAX);
    ok!(sys!(
        libc::SYS_getcpu,
        &mut cpu as *mut u32,
        &mut node as *mut u32,
        0
    ));
    let mut set: libc::cpu_set_t = std::mem::zeroed();
    ok!(libc::sched_getaffinity(0, 128, &mut set));
    let n = libc::CPU_COUNT(&set);
    check!(n >= 1);
    check!(libc::CPU_ISSET(cpu as usize, &set));
    eq!(libc::sysconf(libc::_SC_NPROCESSORS_ONLN) as i32 >= n, true);
    in_child(|| {
        let first = (0..1024).find(|i| libc::CPU_ISSET(*i, &set)).unwrap_or(0);
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(first, &mut one);
        ok!(libc::sched_setaffinity(0, 128, &one));
        let mut now: libc::cpu_set_t = std::mem::zeroed();
        ok!(libc::sched_getaffinity(0, 128, &mut now));
        eq!(libc::CPU_COUNT(&now), 1);
        in_child(|| {
            let mut now: libc::cpu_set_t = std::mem::zeroed();
            ok!(libc::sched_getaffinity(0, 128, &mut now));
            eq!(libc::CPU_COUNT(&now), 1);
        });
    });
    let none: libc::cpu_set_t = std::mem::zeroed();
    err!(libc::EINVAL, libc::sched_setaffinity(0, 128, &none));
    err!(
        libc::ESRCH,
        libc::sched_getaffinity(0x3f_ffff, 128, &mut set)
    );
    err!(libc::ESRCH, libc::sched_getaffinity(-1, 128, &mut set));
    err!(libc::ESRCH, libc::sched_setaffinity(-1, 128, &set));
    err!(libc::EINVAL, libc::sched_getscheduler(-1));
    err!(
        libc::EINVAL,
        sys!(libc::SYS_sched_getaffinity, 0, 1, &mut set as *mut _)
    );
    err!(
        libc::EINVAL,
        sys!(libc::SYS_sched_getaffinity, -1, 1, &mut set as *mut _)
    );
    // The raw call returns the size of the mask.
    let r = ok!(sys!(
        libc::SYS_sched_getaffinity,
        0,
        128,
        &mut set as *mut _
    ));
    check!(r >= 8 && r % 8 == 0);
}

unsafe fn sched_policies() {
    eq!(libc::sched_getscheduler(0), libc::SCHED_OTHER);
    let mut p = libc::sched_param { sched_priority: 9 };
    ok!(libc::sched_getparam(0, &mut p));
    eq!(p.sched_priority, 0);
    in_child(|| {
        let p = libc::sched_param { sched_priority: 0 };
        ok!(libc::sched_setscheduler(0, libc::SCHED_BATCH, &p));
        eq!(libc::sched_getscheduler(0), libc::SCHED_BATCH);
        ok!(libc::sched_setscheduler(0, libc::SCHED_IDLE, &p));
    });
    eq!(
        (
            libc::sched_get_priority_max(libc::SCHED_FIFO),
            libc::sched_get_priority_min(libc::SCHED_FIFO)
        ),
        (99, 1)
    );
    eq!(libc::sched_get_priority_max(libc::SCHED_OTHER), 0);
    let mut ts: libc::timespec = std::mem::zeroed();
    ok!(libc::sched_rr_get_interval(0, &mut ts));
}

unsafe fn sched_setattr_calls() {
    let mut attr = [0u32; 14];
    ok!(sys!(libc::SYS_sched_getattr, 0, attr.as_mut_ptr(), 48, 0));
    check!(attr[0] >= 48);
    eq!(attr[1], 0);
    attr[0] = 48;
    ok!(sys!(libc::SYS_sched_setattr, 0, attr.as_ptr(), 0));
    err!(
        libc::EINVAL,
        sys!(libc::SYS_sched_getattr, 0, attr.as_mut_ptr(), 4, 0)
    );
}

unsafe fn sched_errors() {
    let p = libc::sched_param { sched_priority: 5 };
    err!(
        libc::EINVAL,
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &p)
    );
    err!(libc::EINVAL, libc::sched_setscheduler(0, 77, &p));
    err!(libc::ESRCH, libc::sched_getscheduler(0x3f_ffff));
    err!(libc::EINVAL, libc::sched_getscheduler(-1));
    err!(libc::EINVAL, libc::sched_get_priority_max(77));
    in_child(|| {
        ok!(libc::setuid(1000));
        let p = libc::sched_param { sched_priority: 50 };
        err!(
            libc::EPERM,
            libc::sched_setscheduler(0, libc::SCHED_FIFO, &p)
        );
    });
}

unsafe fn sysconf_values() {
    check!(libc::sysconf(libc::_SC_NPROCESSORS_CONF) >= 1);
    check!(libc::sysconf(libc::_SC_PHYS_PAGES) > 1000);
    check!(libc::sysconf(libc::_SC_AVPHYS_PAGES) > 0);
    check!(libc::sysconf(libc::_SC_OPEN_MAX) >= 20);
    check!(libc::sysconf(libc::_SC_ARG_MAX) >= 131_072);
}

unsafe fn link(path: &str) -> String {
    match std::fs::read_link(path) {
        Ok(p) => p.to_string_lossy().into_owned(),
        Err(e) => util::fail(file!(), line!(), format_args!("readlink {path}: {e}")),
    }
}

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

fn status(pid: i32, key: &str) -> String {
    util::read_text(&format!("/proc/{pid}/status"))
        .lines()
        .find_map(|l| {
            l.strip_prefix(key)?
                .strip_prefix(':')
                .map(|v| v.trim().to_owned())
        })
        .unwrap_or_default()
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

unsafe fn proc_mounts_and_mountinfo() {
    let mounts = util::read_text("/proc/self/mounts");
    let root: Vec<&str> = mounts
        .lines()
        .filter(|l| l.split(' ').nth(1) == Some("/"))
        .collect();
    check!(!root.is_empty(), "{mounts}");
    for l in mounts.lines() {
        eq!(l.split(' ').count(), 6, "{l}");
    }
    check!(
        mounts
            .lines()
            .any(|l| l.split(' ').nth(1) == Some("/proc") && l.split(' ').nth(2) == Some("proc"))
    );
    let info = util::read_text("/proc/self/mountinfo");
    eq!(info.lines().count(), mounts.lines().count());
    for l in info.lines() {
        check!(l.contains(" - "), "{l}");
        check!(
            l.split(' ')
                .next()
                .is_some_and(|id| id.parse::<u32>().is_ok())
        );
    }
}

fn meminfo(key: &str) -> u64 {
    util::read_text("/proc/meminfo")
        .lines()
        .find_map(|l| {
            l.strip_prefix(key)?
                .strip_prefix(':')?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

unsafe fn proc_meminfo() {
    check!(meminfo("MemTotal") > 10_000);
    check!(meminfo("MemFree") <= meminfo("MemTotal"));
    check!(meminfo("MemAvailable") <= meminfo("MemTotal") && meminfo("MemAvailable") > 0);
    for key in [
        "Buffers",
        "Cached",
        "SwapTotal",
        "SwapFree",
        "Shmem",
        "Slab",
        "Active",
        "Inactive",
    ] {
        check!(
            util::read_text("/proc/meminfo").contains(&format!("\n{key}:")),
            "no {key}"
        );
    }
}

unsafe fn proc_cpuinfo() {
    let t = util::read_text("/proc/cpuinfo");
    let n = t.lines().filter(|l| l.starts_with("processor\t:")).count() as i64;
    eq!(n, libc::sysconf(libc::_SC_NPROCESSORS_ONLN));
    check!(t.contains("\nflags\t\t:") && t.contains(" sse2 ") && t.contains("\nmodel name\t:"));
}

unsafe fn proc_stat_system() {
    let t = util::read_text("/proc/stat");
    check!(t.starts_with("cpu  "), "{t}");
    let first: Vec<u64> = t
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(1)
        .filter_map(|x| x.parse().ok())
        .collect();
    eq!(first.len(), 10);
    for key in [
        "cpu0 ",
        "intr ",
        "ctxt ",
        "btime ",
        "processes ",
        "procs_running ",
        "procs_blocked ",
    ] {
        check!(t.lines().any(|l| l.starts_with(key)), "no {key}");
    }
    let btime: i64 = t
        .lines()
        .find_map(|l| l.strip_prefix("btime ")?.parse().ok())
        .unwrap_or(0);
    check!(btime > 1_000_000_000 && btime <= libc::time(std::ptr::null_mut()));
}

unsafe fn proc_loadavg_uptime_version() {
    let t = util::read_text("/proc/loadavg");
    let f: Vec<&str> = t.split_whitespace().collect();
    eq!(f.len(), 5);
    check!(f[..3].iter().all(|x| x.parse::<f64>().is_ok()) && f[3].contains('/'));
    let u = util::read_text("/proc/uptime");
    eq!(
        u.split_whitespace()
            .filter(|x| x.parse::<f64>().is_ok())
            .count(),
        2
    );
}

unsafe fn proc_filesystems() {
    let t = util::read_text("/proc/filesystems");
    for name in ["tmpfs", "proc", "sysfs"] {
        check!(t.lines().any(|l| l == format!("nodev\t{name}")), "{t}");
    }
}

unsafe fn proc_sys_kernel() {
    let n = |p: &str| util::read_text(p).trim().parse::<i64>().unwrap_or(-1);
    check!(n("/proc/sys/kernel/pid_max") >= 1000);
    check!(n("/proc/sys/kernel/ngroups_max") == 65536);
    check!(n("/proc/sys/vm/overcommit_memory") >= 0);
    check!(n("/proc/sys/fs/file-max") > 0);
    check!(n("/proc/sys/fs/nr_open") > 0);
    check!(n("/proc/sys/fs/pipe-max-size") >= 4096);
    check!(n("/proc/sys/kernel/cap_last_cap") >= 36);
    check!(n("/proc/sys/vm/max_map_count") > 0);
    check!(n("/proc/sys/net/core/somaxconn") > 0);
    check!(n("/proc/sys/kernel/shmmax") != 0);
    eq!(
        util::read_text("/proc/sys/kernel/random/uuid").trim().len(),
        36
    );
    check!(
        util::read_text("/proc/sys/kernel/random/uuid")
            != util::read_text("/proc/sys/kernel/random/uuid")
    );
    eq!(
        util::read_text("/proc/sys/kernel/random/boot_id"),
        util::read_text("/proc/sys/kernel/random/boot_id")
    );
}

unsafe fn proc_sys_write() {
    in_child(|| {
        ok!(libc::setuid(1000));
        let r = libc::open(c"/proc/sys/kernel/pid_max".as_ptr(), libc::O_WRONLY);
        check!(r == -1 && [libc::EACCES, libc::EROFS].contains(&errno()));
    });
}

unsafe fn proc_net_files() {
    for name in [
        "tcp", "udp", "unix", "dev", "route", "if_inet6", "tcp6", "snmp",
    ] {
        check!(
            std::fs::read_to_string(format!("/proc/net/{name}")).is_ok(),
            "/proc/net/{name}"
        );
    }
    check!(util::read_text("/proc/net/dev").contains("lo:"));
    let l = ok!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    ok!(libc::listen(l, 1));
    let mut a: libc::sockaddr_in = std::mem::zeroed();
    let mut len = 16u32;
    ok!(libc::getsockname(
        l,
        (&mut a as *mut libc::sockaddr_in).cast(),
        &mut len
    ));
    let port = format!(":{:04X} ", u16::from_be(a.sin_port));
    check!(
        util::read_text("/proc/net/tcp")
            .lines()
            .any(|l| l.contains(&port) && l.contains(" 0A ")),
        "{port}"
    );
    let u = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    let mut un: libc::sockaddr_un = std::mem::zeroed();
    un.sun_family = 1;
    for (to, from) in un.sun_path.iter_mut().zip(b"listed") {
        *to = *from as libc::c_char;
    }
    ok!(libc::bind(u, (&un as *const libc::sockaddr_un).cast(), 9));
    check!(util::read_text("/proc/net/unix").contains(" listed\n"));
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

unsafe fn proc_seek_and_small_reads() {
    // Content read in small pieces is that of one moment.
    let whole = util::read_file("/proc/self/status");
    let fd = open("/proc/self/status", libc::O_RDONLY);
    let mut all = Vec::new();
    loop {
        let part = read_some(fd, 7);
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    eq!(all.len().abs_diff(whole.len()) < 20, true);
    eq!(libc::lseek(fd, 0, libc::SEEK_SET), 0);
    eq!(read_some(fd, 5), b"Name:");
    eq!(libc::lseek(fd, 100_000, libc::SEEK_SET), 100_000);
    eq!(read_some(fd, 5), b"");
    let mut b = [0u8; 4];
    eq!(ok!(libc::pread(fd, b.as_mut_ptr().cast(), 4, 1)), 4);
    eq!(&b, b"ame:");
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    eq!(st.st_size, 0);
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

unsafe fn proc_cgroup_file() {
    let t = util::read_text("/proc/self/cgroup");
    for l in t.lines() {
        eq!(l.splitn(3, ':').count(), 3);
    }
    check!(!t.is_empty());
}

unsafe fn proc_smaps() {
    let p = anon(1 << 20);
    for i in (0..1 << 20).step_by(4096) {
        *p.add(i) = 1;
    }
    let t = util::read_text("/proc/self/smaps");
    check!(t.contains("Size:") && t.contains("Rss:") && t.contains("VmFlags:"));
    check!(util::read_text("/proc/self/smaps_rollup").contains("Pss:"));
}

unsafe fn proc_vmstat_and_others_exist() {
    for name in [
        "vmstat",
        "devices",
        "partitions",
        "swaps",
        "diskstats",
        "interrupts",
        "cmdline",
        "misc",
    ] {
        check!(
            std::fs::read(format!("/proc/{name}")).is_ok(),
            "/proc/{name}"
        );
    }
}

unsafe fn sys_cpu_online() {
    let t = util::read_text("/sys/devices/system/cpu/online");
    check!(t.starts_with('0') && t.ends_with('\n'), "{t}");
    check!(std::path::Path::new("/sys/devices/system/cpu/cpu0").is_dir());
    check!(std::fs::read_to_string("/sys/devices/system/cpu/possible").is_ok());
}

unsafe fn sys_class_net() {
    check!(std::path::Path::new("/sys/class/net/lo").exists());
    check!(
        util::read_text("/sys/class/net/lo/mtu")
            .trim()
            .parse::<u32>()
            .unwrap_or(0)
            > 1000
    );
    check!(libc::mkdir(c"/sys/new".as_ptr(), 0o755) == -1);
}

unsafe fn dev_nodes_present() {
    for name in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout",
        "stderr", "pts", "shm",
    ] {
        let path = c(&format!("/dev/{name}"));
        let mut st: libc::stat = std::mem::zeroed();
        ok!(libc::lstat(path.as_ptr(), &mut st));
    }
    eq!(link("/dev/fd"), "/proc/self/fd");
    eq!(link("/dev/stdout"), "/proc/self/fd/1");
}

unsafe fn dev_shm_is_tmpfs() {
    let mut sf: libc::statfs = std::mem::zeroed();
    ok!(libc::statfs(c"/dev/shm".as_ptr(), &mut sf));
    eq!(sf.f_type, libc::TMPFS_MAGIC);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::stat(c"/dev/shm".as_ptr(), &mut st));
    eq!(st.st_mode & 0o7777, 0o1777);
}

unsafe fn hidden_host_things() {
    // Nothing that lets a container reach the kernel below is writable.
    for path in [
        "/proc/kcore",
        "/proc/sysrq-trigger",
        "/dev/mem",
        "/dev/kmem",
        "/dev/port",
    ] {
        in_child(|| {
            ok!(libc::setuid(1000));
            let r = libc::open(c(path).as_ptr(), libc::O_RDWR);
            check!(r == -1, "{path}");
        });
    }
}

unsafe fn mount(source: &str, target: &str, fs: &str, flags: u64, data: &str) -> i32 {
    libc::mount(
        c(source).as_ptr(),
        c(target).as_ptr(),
        c(fs).as_ptr(),
        flags,
        c(data).as_ptr().cast(),
    )
}

/// Runs `f` in a mount namespace of its own.
unsafe fn in_mount_ns(f: impl FnOnce()) {
    need_cap(CAP_SYS_ADMIN, "CAP_SYS_ADMIN");
    in_child(|| {
        if libc::unshare(libc::CLONE_NEWNS) == -1 {
            skip(format_args!("no mount namespaces here: {}", errno_text()));
        }
        ok!(mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, ""));
        f();
    });
}

unsafe fn mkdir(name: &str) {
    ok!(libc::mkdir(c(name).as_ptr(), 0o755));
}

unsafe fn exists(name: &str) -> bool {
    libc::access(c(name).as_ptr(), libc::F_OK) == 0
}

unsafe fn umount(name: &str, flags: i32) -> i32 {
    libc::umount2(c(name).as_ptr(), flags)
}

unsafe fn mount_tmpfs_basics() {
    mkdir("m");
    write_file("m/hidden", b"");
    in_mount_ns(|| {
        ok!(mount("src", "m", "tmpfs", 0, "mode=0711,uid=5,size=1m"));
        check!(!exists("m/hidden"));
        let mut st: libc::stat = std::mem::zeroed();
        ok!(libc::stat(c("m").as_ptr(), &mut st));
        eq!((st.st_mode & 0o7777, st.st_uid), (0o711, 5));
        write_file("m/f", b"x");
        check!(
            util::read_text("/proc/self/mounts")
                .lines()
                .any(|l| l.starts_with("src ") && l.contains("/m tmpfs "))
        );
        err!(
            libc::EXDEV,
            libc::rename(c("m/f").as_ptr(), c("f").as_ptr())
        );
        let fd = open("m/f", libc::O_RDONLY);
        err!(libc::EBUSY, umount("m", 0));
        err!(libc::EBUSY, libc::rmdir(c("m").as_ptr()));
        libc::close(fd);
        ok!(umount("m", 0));
        check!(exists("m/hidden"));
        err!(libc::EINVAL, umount("m", 0));
    });
}

unsafe fn mount_flags_enforced() {
    mkdir("m");
    in_mount_ns(|| {
        ok!(mount("t", "m", "tmpfs", 0, ""));
        write_file("m/f", b"#!/bin/sh\n");
        ok!(libc::chmod(c("m/f").as_ptr(), 0o755));
        ok!(mount(
            "t",
            "m",
            "tmpfs",
            libc::MS_REMOUNT | libc::MS_RDONLY,
            ""
        ));
        err!(
            libc::EROFS,
            libc::open(c("m/new").as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o644)
        );
        err!(libc::EROFS, libc::open(c("m/f").as_ptr(), libc::O_RDWR));
        err!(libc::EROFS, libc::unlink(c("m/f").as_ptr()));
        err!(libc::EROFS, libc::mkdir(c("m/d").as_ptr(), 0o755));
        err!(libc::EROFS, libc::access(c("m/f").as_ptr(), libc::W_OK));
        ok!(mount(
            "t",
            "m",
            "tmpfs",
            libc::MS_REMOUNT | libc::MS_NOEXEC | libc::MS_NODEV | libc::MS_NOSUID,
            ""
        ));
        let argv = [c"f".as_ptr(), std::ptr::null()];
        err!(libc::EACCES, libc::execv(c("m/f").as_ptr(), argv.as_ptr()));
        let opts = util::read_text("/proc/self/mounts");
        check!(
            opts.lines()
                .any(|l| l.contains("/m tmpfs ") && l.contains("nosuid,nodev,noexec")),
            "{opts}"
        );
        let fd = open("m/f", libc::O_RDONLY);
        err!(
            libc::EPERM,
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_EXEC,
                libc::MAP_PRIVATE,
                fd,
                0
            )
        );
        if libc::mknod(
            c("m/null").as_ptr(),
            libc::S_IFCHR | 0o666,
            libc::makedev(1, 3),
        ) == 0
        {
            err!(
                libc::EACCES,
                libc::open(c("m/null").as_ptr(), libc::O_RDONLY)
            );
        }
    });
}

unsafe fn mount_bind_file_and_dir() {
    mkdir("src");
    mkdir("dst");
    write_file("src/f", b"1");
    write_file("a", b"a");
    write_file("b", b"b");
    in_mount_ns(|| {
        ok!(mount("src", "dst", "", libc::MS_BIND, ""));
        eq!(util::read_file("dst/f"), b"1");
        write_file("dst/g", b"2");
        eq!(util::read_file("src/g"), b"2");
        err!(
            libc::EXDEV,
            libc::link(c("src/f").as_ptr(), c("dst/l").as_ptr())
        );
        // Read-only for this mount only.
        ok!(mount(
            "",
            "dst",
            "",
            libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY,
            ""
        ));
        err!(
            libc::EROFS,
            libc::open(c("dst/h").as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o644)
        );
        write_file("src/h", b"");
        ok!(mount("a", "b", "", libc::MS_BIND, ""));
        eq!(util::read_file("b"), b"a");
        err!(libc::EBUSY, libc::unlink(c("b").as_ptr()));
        err!(libc::ENOTDIR, mount("src", "b", "", libc::MS_BIND, ""));
        err!(libc::ENOTDIR, mount("a", "dst", "", libc::MS_BIND, ""));
        ok!(umount("b", 0));
        eq!(util::read_file("b"), b"b");
    });
}

unsafe fn mount_recursive_and_move() {
    mkdir("src");
    mkdir("dst");
    mkdir("to");
    in_mount_ns(|| {
        ok!(mount("t1", "src", "tmpfs", 0, ""));
        mkdir("src/sub");
        ok!(mount("t2", "src/sub", "tmpfs", 0, ""));
        write_file("src/sub/deep", b"");
        ok!(mount("src", "dst", "", libc::MS_BIND, ""));
        check!(!exists("dst/sub/deep"));
        ok!(umount("dst", 0));
        ok!(mount("src", "dst", "", libc::MS_BIND | libc::MS_REC, ""));
        check!(exists("dst/sub/deep"));
        err!(libc::EBUSY, umount("dst", 0));
        ok!(umount("dst", libc::MNT_DETACH));
        check!(!exists("dst/sub"));
        ok!(mount("src", "to", "", libc::MS_MOVE, ""));
        check!(exists("to/sub/deep") && !exists("src/sub"));
    });
}

unsafe fn mount_proc_and_sysfs() {
    mkdir("p");
    mkdir("s");
    in_mount_ns(|| {
        ok!(mount("proc", "p", "proc", 0, ""));
        check!(exists("p/self/stat"));
        ok!(mount("sysfs", "s", "sysfs", libc::MS_RDONLY, ""));
        check!(exists("s/class"));
    });
}

unsafe fn mount_errors() {
    mkdir("m");
    write_file("f", b"");
    in_mount_ns(|| {
        err!(libc::ENODEV, mount("x", "m", "nosuchfs", 0, ""));
        err!(libc::ENOENT, mount("x", "none", "tmpfs", 0, ""));
        err!(libc::ENOTDIR, mount("x", "f", "tmpfs", 0, ""));
        err!(libc::ENOENT, mount("none", "m", "", libc::MS_BIND, ""));
        err!(libc::EINVAL, mount("t", "m", "tmpfs", libc::MS_REMOUNT, ""));
        err!(libc::EINVAL, mount("t", "m", "tmpfs", 0, "nonsense=1"));
        err!(libc::EINVAL, umount("f", 0));
        err!(libc::ENOENT, umount("none", 0));
        err!(libc::EINVAL, umount("m", 0x100));
    });
    in_child(|| {
        ok!(libc::setuid(1000));
        err!(libc::EPERM, mount("t", "m", "tmpfs", 0, ""));
        err!(libc::EPERM, umount("/proc", 0));
    });
}

unsafe fn umount_flags() {
    mkdir("m");
    in_mount_ns(|| {
        ok!(mount("t", "m", "tmpfs", 0, ""));
        write_file("m/f", b"kept");
        let fd = open("m/f", libc::O_RDONLY);
        ok!(umount("m", libc::MNT_DETACH));
        // Open files outlive a lazy unmount.
        eq!(read_some(fd, 10), b"kept");
        ok!(mount("t", "m", "tmpfs", 0, ""));
        err!(libc::EAGAIN, umount("m", libc::MNT_EXPIRE));
        ok!(umount("m", libc::MNT_EXPIRE));
        ok!(libc::symlink(c("m").as_ptr(), c("l").as_ptr()));
        ok!(mount("t", "m", "tmpfs", 0, ""));
        err!(libc::EINVAL, umount("l", libc::UMOUNT_NOFOLLOW));
        ok!(umount("l", 0));
    });
}

unsafe fn pivot_root_call() {
    mkdir("new");
    in_mount_ns(|| {
        ok!(mount("t", "new", "tmpfs", 0, ""));
        mkdir("new/old");
        write_file("new/marker", b"");
        let r = sys!(
            libc::SYS_pivot_root,
            c("new").as_ptr(),
            c("new/old").as_ptr()
        );
        // Refused on an initial ram file system.
        if r == -1 && errno() == libc::EINVAL {
            skip("the root can't be pivoted");
        }
        ok!(r);
        check!(exists("/marker") && exists("/old/proc"));
        ok!(libc::chdir(c"/".as_ptr()));
        ok!(umount("/old", libc::MNT_DETACH));
        check!(!exists("/old/proc"));
    });
}

unsafe fn mount_overlay_or_refusal() {
    for d in ["l", "u", "w", "m"] {
        mkdir(d);
    }
    in_mount_ns(|| {
        ok!(mount("t", "u", "tmpfs", 0, ""));
        mkdir("u/up");
        mkdir("u/work");
        write_file("l/low", b"low");
        let r = mount(
            "o",
            "m",
            "overlay",
            0,
            "lowerdir=l,upperdir=u/up,workdir=u/work",
        );
        if r == -1 {
            check!([libc::ENODEV, libc::EINVAL, libc::EPERM].contains(&errno()));
            return;
        }
        eq!(util::read_file("m/low"), b"low");
        write_file("m/low", b"changed");
        eq!(util::read_file("l/low"), b"low");
        ok!(libc::unlink(c("m/low").as_ptr()));
        check!(!exists("m/low") && exists("l/low"));
    });
}

unsafe fn mount_shared_propagation_or_private() {
    mkdir("a");
    in_mount_ns(|| {
        ok!(mount("t", "a", "tmpfs", 0, ""));
        for flag in [
            libc::MS_SHARED,
            libc::MS_SLAVE,
            libc::MS_UNBINDABLE,
            libc::MS_PRIVATE,
        ] {
            ok!(mount("", "a", "", flag, ""));
        }
        err!(
            libc::EINVAL,
            mount("", "a", "", libc::MS_SHARED | libc::MS_PRIVATE, "")
        );
    });
}

unsafe fn new_mount_api_or_enosys() {
    mkdir("m");
    in_mount_ns(|| {
        let fs = sys!(libc::SYS_fsopen, c"tmpfs".as_ptr(), 1);
        if fs == -1 {
            check!([libc::ENOSYS, libc::EPERM].contains(&errno()));
            return;
        }
        ok!(sys!(libc::SYS_fsconfig, fs, 6, 0, 0, 0));
        let mnt = ok!(sys!(libc::SYS_fsmount, fs, 1, 0));
        ok!(sys!(
            libc::SYS_move_mount,
            mnt,
            c"".as_ptr(),
            libc::AT_FDCWD,
            c("m").as_ptr(),
            4
        ));
        write_file("m/f", b"");
    });
}

unsafe fn tmpfs_size_limit() {
    mkdir("m");
    in_mount_ns(|| {
        ok!(mount("t", "m", "tmpfs", 0, "size=64k,nr_inodes=10"));
        let fd = open("m/f", libc::O_CREAT | libc::O_RDWR);
        let mut total = 0;
        loop {
            let n = libc::write(fd, [1u8; 4096].as_ptr().cast(), 4096);
            if n < 0 {
                break;
            }
            total += n;
        }
        eq!((errno(), total), (libc::ENOSPC, 65536));
        ok!(libc::unlink(c("m/f").as_ptr()));
        libc::close(fd);
        let mut n = 0;
        while libc::mkdir(c(&format!("m/d{n}")).as_ptr(), 0o755) == 0 {
            n += 1;
            check!(n < 20);
        }
        eq!(errno(), libc::ENOSPC);
        let mut sf: libc::statfs = std::mem::zeroed();
        ok!(libc::statfs(c("m").as_ptr(), &mut sf));
        eq!((sf.f_blocks * sf.f_bsize as u64, sf.f_files), (65536, 10));
    });
}

unsafe fn syslog_and_reboot_refused() {
    in_child(|| {
        ok!(libc::setuid(1000));
        err!(
            libc::EPERM,
            sys!(libc::SYS_reboot, 0xfee1_deadu32, 672_274_793, 0, 0)
        );
        err!(libc::EPERM, sys!(libc::SYS_swapon, c"/x".as_ptr(), 0));
    });
    err!(libc::EINVAL, sys!(libc::SYS_syslog, 99, 0, 0));
}

unsafe fn kernel_modules_refused() {
    in_child(|| {
        ok!(libc::setuid(1000));
        for n in [
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
        ] {
            check!(sys!(n, 0, 0, 0, 0) == -1);
            check!(
                [libc::EPERM, libc::ENOSYS].contains(&errno()),
                "{n}: {}",
                errno_text()
            );
        }
    });
}

unsafe fn bpf_perf_refused_for_user() {
    in_child(|| {
        ok!(libc::setuid(1000));
        let zero = [0u8; 128];
        check!(sys!(libc::SYS_bpf, 0, zero.as_ptr(), 128) == -1);
        check!(sys!(libc::SYS_perf_event_open, zero.as_ptr(), -1, 0, -1, 0) == -1);
    });
}

unsafe fn rseq_or_enosys() {
    #[repr(align(32))]
    struct Area([u8; 32]);
    let mut area = Area([0; 32]);
    std::thread::scope(|s| {
        // The C library may have registered one for this thread already.
        s.spawn(|| {
            let r = sys!(libc::SYS_rseq, area.0.as_mut_ptr(), 32, 0, 0x5305_3053);
            check!(
                r == 0 || [libc::ENOSYS, libc::EINVAL, libc::EBUSY, libc::EPERM].contains(&errno()),
                "{}",
                errno_text()
            );
            if r == 0 {
                ok!(sys!(
                    libc::SYS_rseq,
                    area.0.as_mut_ptr(),
                    32,
                    1,
                    0x5305_3053
                ));
            }
        });
    });
}

unsafe fn unknown_syscalls() {
    for n in [345i64, 400, 423, 500, 1000, 100_000, -1, i64::MAX] {
        err!(
            libc::ENOSYS,
            libc::syscall(n as libc::c_long, 0, 0, 0, 0, 0, 0)
        );
    }
}

unsafe fn getpid_family_consistent() {
    eq!(sys!(libc::SYS_getpid), i64::from(libc::getpid()));
    eq!(sys!(libc::SYS_gettid), sys!(libc::SYS_getpid));
    eq!(sys!(libc::SYS_getppid), i64::from(libc::getppid()));
    let parent = libc::getpid();
    in_child(|| {
        check!(sys!(libc::SYS_getpid) != i64::from(parent));
        eq!(sys!(libc::SYS_getppid), i64::from(parent));
    });
}

unsafe fn arch_prctl_fs() {
    let mut fs = 0u64;
    ok!(sys!(libc::SYS_arch_prctl, 0x1003, &mut fs as *mut u64));
    check!(fs != 0);
    // The thread pointer points to itself.
    eq!(*(fs as *const u64), fs);
    ok!(sys!(libc::SYS_arch_prctl, 0x1002, fs));
    let mut gs = 1u64;
    ok!(sys!(libc::SYS_arch_prctl, 0x1004, &mut gs as *mut u64));
    err!(libc::EINVAL, sys!(libc::SYS_arch_prctl, 0x9999, 0));
    err!(
        libc::EPERM,
        sys!(libc::SYS_arch_prctl, 0x1002, 0x8000_0000_0000_0000u64)
    );
    in_child(|| {
        ok!(sys!(libc::SYS_arch_prctl, 0x1001, 0x1234_5000u64));
        let mut gs = 0u64;
        ok!(sys!(libc::SYS_arch_prctl, 0x1004, &mut gs as *mut u64));
        eq!(gs, 0x1234_5000);
    });
}

unsafe fn vhangup_acct_quota() {
    in_child(|| {
        ok!(libc::setuid(1000));
        err!(libc::EPERM, sys!(libc::SYS_vhangup));
        let r = sys!(libc::SYS_acct, 0);
        check!(r == -1 && [libc::EPERM, libc::ENOSYS].contains(&errno()));
    });
}

unsafe fn io_port_calls() {
    in_child(|| {
        ok!(libc::setuid(1000));
        let r = sys!(libc::SYS_ioperm, 0x80, 1, 1);
        check!(r == -1 && [libc::EPERM, libc::ENOSYS].contains(&errno()));
        let r = sys!(libc::SYS_iopl, 3);
        check!(r == -1 && [libc::EPERM, libc::ENOSYS].contains(&errno()));
    });
    let pid = fork(|| {
        ok!(libc::setuid(1000));
        std::arch::asm!("out 0x80, al", in("al") 0u8);
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
}

unsafe fn kcmp_calls() {
    let me = libc::getpid();
    let a = open("/dev/null", libc::O_RDONLY);
    let b = ok!(libc::dup(a));
    let d = open("/dev/null", libc::O_RDONLY);
    let r = sys!(libc::SYS_kcmp, me, me, 0, a, b);
    if r == -1 {
        check!([libc::ENOSYS, libc::EPERM].contains(&errno()));
        return;
    }
    eq!(r, 0);
    check!(sys!(libc::SYS_kcmp, me, me, 0, a, d) != 0);
    err!(libc::EINVAL, sys!(libc::SYS_kcmp, me, me, 99, 0, 0));
}

unsafe fn close_all_and_go_on() {
    in_child(|| {
        ok!(sys!(libc::SYS_close_range, 0, u32::MAX, 0));
        eq!(ok!(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR)), 0);
        eq!(ok!(libc::dup(0)), 1);
    });
}
