//! capabilities(7).

use super::*;
use crate::util::{self, *};

cases![
    capget_capset,
    caps_dropped_on_setuid,
    keepcaps,
    securebits_noroot,
    bounding_set,
    ambient_set,
    no_new_privs_inherited,
    exec_gains_caps_for_root,
];

unsafe fn capset(e: u64, p: u64, i: u64) -> i64 {
    let header = [0x2008_0522u32, 0];
    let d = [
        e as u32,
        p as u32,
        i as u32,
        (e >> 32) as u32,
        (p >> 32) as u32,
        (i >> 32) as u32,
    ];
    sys!(libc::SYS_capset, header.as_ptr(), d.as_ptr())
}

unsafe fn capget_capset() {
    let (e, p, _) = capget();
    check!(e != 0 && e & !p == 0);
    in_child(|| {
        ok!(capset(1, 1, 0));
        eq!(capget(), (1, 1, 0));
        err!(libc::EPERM, capset(3, 3, 0));
        ok!(capset(0, 1, 0));
        ok!(capset(1, 1, 1));
        err!(libc::EPERM, capset(1, 1, 4));
        ok!(capset(0, 0, 0));
        err!(libc::EPERM, capset(1, 1, 0));
    });
    // Unknown version: the preferred one is written back.
    let mut header = [0x1234u32, 0];
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_capget,
            header.as_mut_ptr(),
            [0u32; 6].as_mut_ptr()
        )
    );
    eq!(header[0], 0x2008_0522);
    header = [0x2008_0522, -1i32 as u32];
    err!(
        libc::EINVAL,
        sys!(
            libc::SYS_capget,
            header.as_mut_ptr(),
            [0u32; 6].as_mut_ptr()
        )
    );
    let text = util::read_text("/proc/self/status");
    check!(text.contains(&format!("CapEff:\t{e:016x}")), "{text}");
    check!(text.contains(&format!("CapPrm:\t{p:016x}")));
}

unsafe fn caps_dropped_on_setuid() {
    in_child(|| {
        let (_, p, _) = capget();
        ok!(libc::seteuid(1000));
        // Effective caps go with the effective id, permitted ones stay.
        let (e2, p2, _) = capget();
        eq!((e2, p2), (0, p));
        ok!(libc::seteuid(0));
        eq!(capget().0, p);
        ok!(setresuid(1000, 1000, 1000));
        let (e3, p3, _) = capget();
        eq!((e3, p3), (0, 0));
    });
}

unsafe fn keepcaps() {
    in_child(|| {
        let (_, p, _) = capget();
        ok!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0));
        eq!(libc::prctl(libc::PR_GET_KEEPCAPS, 0, 0, 0, 0), 1);
        ok!(setresuid(1000, 1000, 1000));
        let (e, p2, _) = capget();
        eq!((e, p2), (0, p));
        ok!(capset(1, 1, 0));
        err!(libc::EPERM, libc::setgid(1000));
    });
}

unsafe fn securebits_noroot() {
    in_child(|| {
        eq!(libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0), 0);
        // NO_SETUID_FIXUP: ids change without a change of capabilities.
        ok!(libc::prctl(libc::PR_SET_SECUREBITS, 4, 0, 0, 0));
        let before = capget();
        ok!(setresuid(1000, 1000, 1000));
        eq!(capget(), before);
    });
}

unsafe fn bounding_set() {
    in_child(|| {
        eq!(libc::prctl(libc::PR_CAPBSET_READ, 0, 0, 0, 0), 1);
        err!(
            libc::EINVAL,
            libc::prctl(libc::PR_CAPBSET_READ, 99, 0, 0, 0)
        );
        ok!(libc::prctl(libc::PR_CAPBSET_DROP, 0, 0, 0, 0));
        eq!(libc::prctl(libc::PR_CAPBSET_READ, 0, 0, 0, 0), 0);
        // Dropped ones are not gained at exec.
        let out = crate::exec::run(&["/bin/grep", "CapEff", "/proc/self/status"]);
        let caps =
            u64::from_str_radix(out.trim().rsplit('\t').next().unwrap_or("0"), 16).unwrap_or(1);
        eq!(caps & 1, 0);
        check!(caps != 0);
        ok!(setresuid(1000, 1000, 1000));
        err!(libc::EPERM, libc::prctl(libc::PR_CAPBSET_DROP, 1, 0, 0, 0));
    });
}

unsafe fn ambient_set() {
    in_child(|| {
        let set = |op: i32, cap: u32| libc::prctl(libc::PR_CAP_AMBIENT, op, cap, 0, 0);
        err!(libc::EPERM, set(libc::PR_CAP_AMBIENT_RAISE, 7));
        let (e, p, _) = capget();
        ok!(capset(e, p, 1 << 7));
        ok!(set(libc::PR_CAP_AMBIENT_RAISE, 7));
        eq!(set(libc::PR_CAP_AMBIENT_IS_SET, 7), 1);
        ok!(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0));
        ok!(libc::prctl(libc::PR_SET_SECUREBITS, 4 | 16, 0, 0, 0));
        ok!(setresuid(1000, 1000, 1000));
        // Ambient ones survive the exec of an ordinary file.
        let out = crate::exec::run(&["/bin/grep", "CapEff", "/proc/self/status"]);
        eq!(out.trim(), format!("CapEff:\t{:016x}", 1u64 << 7));
        ok!(set(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0));
        eq!(set(libc::PR_CAP_AMBIENT_IS_SET, 7), 0);
        err!(libc::EINVAL, set(99, 0));
    });
}

unsafe fn no_new_privs_inherited() {
    in_child(|| {
        eq!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
        err!(
            libc::EINVAL,
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)
        );
        err!(
            libc::EINVAL,
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0)
        );
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        in_child(|| eq!(libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1));
        let out = crate::exec::run(&["/bin/grep", "NoNewPrivs", "/proc/self/status"]);
        eq!(out, "NoNewPrivs:\t1\n");
    });
}

unsafe fn exec_gains_caps_for_root() {
    in_child(|| {
        let bounding = util::read_text("/proc/self/status");
        let bound = bounding
            .lines()
            .find_map(|l| l.strip_prefix("CapBnd:\t"))
            .unwrap_or("")
            .to_owned();
        ok!(capset(0, 0, 0));
        let out = crate::exec::run(&["/bin/grep", "CapEff", "/proc/self/status"]);
        eq!(out.trim(), format!("CapEff:\t{bound}"));
    });
}
