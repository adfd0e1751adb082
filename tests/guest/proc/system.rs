//! uname(2), sysinfo(2), sched(7), getrandom(2), calls without files.

use super::*;
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
