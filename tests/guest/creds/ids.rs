//! User and group ids: credentials(7), setresuid(2).

use super::*;
use crate::util::{self, *};

cases![
    ids_as_root,
    setuid_family,
    setresuid_rules,
    setreuid_saved_id,
    setgroups_rules,
    groups_kept_and_limit,
    status_ids,
    threads_have_own_ids,
];

unsafe fn uids() -> (u32, u32, u32) {
    let (mut r, mut e, mut s) = (0, 0, 0);
    ok!(libc::getresuid(&mut r, &mut e, &mut s));
    (r, e, s)
}

unsafe fn ids_as_root() {
    eq!(uids(), (0, 0, 0));
    eq!(
        (
            libc::getuid(),
            libc::geteuid(),
            libc::getgid(),
            libc::getegid()
        ),
        (0, 0, 0, 0)
    );
    let (mut r, mut e, mut s) = (9, 9, 9);
    ok!(libc::getresgid(&mut r, &mut e, &mut s));
    eq!((r, e, s), (0, 0, 0));
    eq!(libc::getauxval(libc::AT_EUID), 0);
}

unsafe fn setuid_family() {
    in_child(|| {
        ok!(libc::setgid(2000));
        ok!(libc::setuid(1000));
        eq!(uids(), (1000, 1000, 1000));
        eq!((libc::getgid(), libc::getegid()), (2000, 2000));
        err!(libc::EPERM, libc::setuid(0));
        err!(libc::EPERM, libc::setuid(1001));
        err!(libc::EPERM, libc::setgid(0));
        ok!(libc::setuid(1000));
        err!(libc::EPERM, libc::setgroups(0, std::ptr::null()));
    });
    in_child(|| {
        ok!(libc::seteuid(1000));
        eq!(uids(), (0, 1000, 0));
        ok!(libc::seteuid(0));
        eq!(uids(), (0, 0, 0));
    });
    err!(libc::EINVAL, libc::setuid(u32::MAX));
}

unsafe fn setresuid_rules() {
    in_child(|| {
        ok!(setresuid(1, 2, 3));
        eq!(uids(), (1, 2, 3));
        ok!(setresuid(-1, 3, 1));
        eq!(uids(), (1, 3, 1));
        err!(libc::EPERM, setresuid(-1, 2, -1));
        err!(libc::EPERM, setresuid(4, -1, -1));
        ok!(setresuid(-1, -1, -1));
    });
}

unsafe fn setreuid_saved_id() {
    in_child(|| {
        ok!(libc::setreuid(1000, 2000));
        // The saved id follows the effective one.
        eq!(uids(), (1000, 2000, 2000));
        ok!(libc::setreuid(2000, 1000));
        eq!(uids(), (2000, 1000, 1000));
    });
}

unsafe fn setgroups_rules() {
    in_child(|| {
        let g = [5u32, 3, 9];
        ok!(libc::setgroups(3, g.as_ptr()));
        let mut out = [0u32; 10];
        eq!(ok!(libc::getgroups(10, out.as_mut_ptr())), 3);
        let mut got = out[..3].to_vec();
        got.sort_unstable();
        eq!(got, [3, 5, 9]);
        eq!(ok!(libc::getgroups(0, std::ptr::null_mut())), 3);
        err!(libc::EINVAL, libc::getgroups(2, out.as_mut_ptr()));
        err!(libc::EINVAL, libc::setgroups(65537, out.as_ptr()));
        ok!(libc::setgroups(0, std::ptr::null()));
        eq!(ok!(libc::getgroups(0, std::ptr::null_mut())), 0);
    });
}

unsafe fn groups_kept_and_limit() {
    in_child(|| {
        let many: Vec<u32> = (0..1000).collect();
        ok!(libc::setgroups(1000, many.as_ptr()));
        ok!(libc::setuid(1000));
        in_child(|| eq!(ok!(libc::getgroups(0, std::ptr::null_mut())), 1000));
        let line = util::read_text("/proc/self/status");
        check!(line.lines().any(|l| l.starts_with("Groups:\t0 1 2 ")));
    });
}

unsafe fn status_ids() {
    in_child(|| {
        ok!(libc::setresgid(5, 6, 7));
        ok!(setresuid(1, 2, 3));
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        let text = util::read_text("/proc/self/status");
        check!(text.contains("\nUid:\t1\t2\t3\t2\n"), "{text}");
        check!(text.contains("\nGid:\t5\t6\t7\t6\n"), "{text}");
    });
}

unsafe fn threads_have_own_ids() {
    in_child(|| {
        // The raw call changes one thread only.
        let t = std::thread::spawn(|| {
            ok!(sys!(libc::SYS_setresuid, 1000, 1000, 1000));
            libc::geteuid()
        });
        eq!(t.join().unwrap_or(0), 1000);
        eq!(libc::geteuid(), 0);
    });
}
