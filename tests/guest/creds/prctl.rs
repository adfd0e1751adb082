//! prctl(2), personality(2), ioprio_set(2).

use crate::util::{self, *};

cases![
    prctl_name,
    prctl_dumpable,
    prctl_errors,
    prctl_tid_and_timing,
    personality_call,
    ioprio_calls,
];

unsafe fn prctl_name() {
    ok!(libc::prctl(
        libc::PR_SET_NAME,
        c"a-name-that-is-too-long".as_ptr(),
        0,
        0,
        0
    ));
    let mut name = [0u8; 16];
    ok!(libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0));
    eq!(&name, b"a-name-that-is-\0");
    eq!(util::read_text("/proc/self/comm"), "a-name-that-is-\n");
    std::fs::write("/proc/self/comm", "other\n").ok();
    ok!(libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0));
    check!(name.starts_with(b"other"));
    err!(libc::EFAULT, libc::prctl(libc::PR_SET_NAME, 8, 0, 0, 0));
    in_child(|| {
        let mut name = [0u8; 16];
        ok!(libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0));
        check!(name.starts_with(b"other"));
    });
}

unsafe fn prctl_dumpable() {
    eq!(libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
    in_child(|| {
        ok!(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0));
        eq!(libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
        err!(libc::EINVAL, libc::prctl(libc::PR_SET_DUMPABLE, 2, 0, 0, 0));
    });
    in_child(|| {
        ok!(libc::setuid(1000));
        eq!(libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
    });
}

unsafe fn prctl_errors() {
    err!(libc::EINVAL, libc::prctl(0x7fff_0000, 0, 0, 0, 0));
    err!(libc::EINVAL, libc::prctl(libc::PR_SET_TIMING, 9, 0, 0, 0));
    err!(
        libc::EFAULT,
        libc::prctl(libc::PR_GET_PDEATHSIG, 8, 0, 0, 0)
    );
}

unsafe fn prctl_tid_and_timing() {
    eq!(libc::prctl(libc::PR_GET_TIMING, 0, 0, 0, 0), 0);
    check!(libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0) >= 0);
    ok!(libc::prctl(libc::PR_SET_TIMERSLACK, 100_000, 0, 0, 0));
    eq!(libc::prctl(libc::PR_GET_TIMERSLACK, 0, 0, 0, 0), 100_000);
    eq!(sys!(libc::SYS_set_tid_address, 0), sys!(libc::SYS_gettid));
    eq!(libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0), 0);
}

unsafe fn personality_call() {
    eq!(ok!(libc::personality(0xffff_ffff)), 0);
    in_child(|| {
        eq!(ok!(libc::personality(libc::ADDR_NO_RANDOMIZE as u64)), 0);
        eq!(ok!(libc::personality(0xffff_ffff)), libc::ADDR_NO_RANDOMIZE);
        let a = crate::exec::run(&["/bin/grep", "stack", "/proc/self/maps"]);
        let b = crate::exec::run(&["/bin/grep", "stack", "/proc/self/maps"]);
        eq!(a, b);
    });
}

unsafe fn ioprio_calls() {
    let r = sys!(libc::SYS_ioprio_get, 1, 0);
    check!(r >= 0, "{}", errno_text());
    ok!(sys!(libc::SYS_ioprio_set, 1, 0, 2 << 13 | 4));
    eq!(sys!(libc::SYS_ioprio_get, 1, 0), 2 << 13 | 4);
    err!(libc::EINVAL, sys!(libc::SYS_ioprio_set, 1, 0, 6 << 13));
    err!(libc::EINVAL, sys!(libc::SYS_ioprio_get, 9, 0));
}
