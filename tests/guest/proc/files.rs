//! /proc, /sys and /dev of the whole system.

use super::*;
use crate::util::{self, *};

cases![
    proc_mounts_and_mountinfo,
    proc_meminfo,
    proc_cpuinfo,
    proc_stat_system,
    proc_loadavg_uptime_version,
    proc_filesystems,
    proc_sys_kernel,
    proc_sys_write,
    proc_net_files,
    proc_seek_and_small_reads,
    proc_cgroup_file,
    proc_smaps,
    proc_vmstat_and_others_exist,
    sys_cpu_online,
    sys_class_net,
    dev_nodes_present,
    dev_shm_is_tmpfs,
    hidden_host_things,
];

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
