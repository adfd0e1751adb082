//! Set-user-ID and set-group-ID programs.

use super::*;
use crate::util::*;

cases![
    setuid_bit,
    setuid_bit_no_new_privs,
    setgid_bit,
    unreadable_is_not_dumpable,
];

unsafe fn ids_of(path: &str, uid: u32, no_new_privs: bool) -> String {
    output_as(path, "print-ids", uid, no_new_privs)
}

/// What the program prints in a role, executed with this uid and gid.
unsafe fn output_as(path: &str, helper: &str, uid: u32, no_new_privs: bool) -> String {
    let (r, w) = pipe();
    let pid = fork(|| {
        libc::dup2(w, 1);
        ok!(libc::setgroups(0, std::ptr::null()));
        ok!(libc::setresgid(uid, uid, uid));
        ok!(libc::setresuid(uid, uid, uid));
        if no_new_privs {
            ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        }
        let helper = c(helper);
        let argv = [c"p".as_ptr(), helper.as_ptr(), std::ptr::null()];
        libc::execv(c(path).as_ptr(), argv.as_ptr());
        eprintln!("exec: {}", errno_text());
        libc::_exit(9);
    });
    libc::close(w);
    let out = String::from_utf8_lossy(&read_full(r, 1000)).into_owned();
    wait_ok(pid);
    out
}

unsafe fn setuid_copy(owner: u32, group: u32, mode: u32) {
    make_exec("prog", &read_file(&me()));
    ok!(libc::chown(c"prog".as_ptr(), owner, group));
    ok!(libc::chmod(c"prog".as_ptr(), mode));
}

unsafe fn setuid_bit() {
    setuid_copy(4000, 4000, 0o4755);
    eq!(
        ids_of("./prog", 1234, false),
        "1234 4000 1234 1234\nsecure 1\n"
    );
    eq!(
        ids_of("./prog", 4000, false),
        "4000 4000 4000 4000\nsecure 0\n"
    );
}

unsafe fn setuid_bit_no_new_privs() {
    setuid_copy(4000, 4000, 0o6755);
    let out = ids_of("./prog", 1234, true);
    check!(out.starts_with("1234 1234 1234 1234\n"), "{out}");
}

unsafe fn unreadable_is_not_dumpable() {
    for (mode, dumpable) in [(0o755, true), (0o711, false)] {
        setuid_copy(4000, 4000, mode);
        let out = output_as("./prog", "print-dumpable", 1234, false);
        check!((out.trim() == "1") == dumpable, "{mode:o}: {out}");
    }
}

unsafe fn setgid_bit() {
    setuid_copy(4000, 4001, 0o2755);
    eq!(
        ids_of("./prog", 1234, false),
        "1234 1234 1234 4001\nsecure 1\n"
    );
    // Without group execute the bit means nothing here.
    setuid_copy(4000, 4001, 0o2745);
    eq!(
        ids_of("./prog", 1234, false),
        "1234 1234 1234 1234\nsecure 0\n"
    );
}
