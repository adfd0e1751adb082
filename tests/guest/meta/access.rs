//! Permissions: access(2), capabilities(7), directories.

use super::*;
use crate::util::*;

cases![
    access_root_and_user,
    access_real_ids,
    faccessat2_flags,
    permissions_owner_group_other,
    supplementary_group_access,
    directory_search_and_list,
    directory_write_permission,
    sticky_directory,
    setfsuid_effects,
    capability_dac_override,
];

unsafe fn access(name: &str, mode: i32) -> i32 {
    libc::access(c(name).as_ptr(), mode)
}

unsafe fn access_root_and_user() {
    write_file("f", b"");
    chmod("f", 0);
    ok!(access("f", libc::R_OK | libc::W_OK));
    err!(libc::EACCES, access("f", libc::X_OK));
    chmod("f", 0o100);
    ok!(access("f", libc::X_OK));
    as_user(1000, || {
        err!(libc::EACCES, access("f", libc::R_OK));
        err!(libc::EACCES, access("f", libc::X_OK));
        ok!(access("f", libc::F_OK));
    });
    chmod("f", 0o644);
    as_user(1000, || {
        ok!(access("f", libc::R_OK));
        err!(libc::EACCES, access("f", libc::R_OK | libc::W_OK));
    });
    err!(libc::EINVAL, access("f", 8));
    err!(libc::ENOENT, access("x", libc::F_OK));
}

unsafe fn access_real_ids() {
    write_file("f", b"");
    chmod("f", 0o600);
    in_child(|| {
        // Effective root, real user: access asks for the real one.
        ok!(libc::setresuid(1000, 0, 0));
        err!(libc::EACCES, access("f", libc::R_OK));
        open("f", libc::O_RDONLY);
        ok!(libc::faccessat(
            libc::AT_FDCWD,
            c("f").as_ptr(),
            libc::R_OK,
            libc::AT_EACCESS
        ));
    });
}

unsafe fn faccessat2_flags() {
    write_file("f", b"");
    ok!(libc::symlink(c("nowhere").as_ptr(), c("l").as_ptr()));
    let call =
        |name: &str, m: i32, flags: i32| sys!(439, libc::AT_FDCWD, c(name).as_ptr(), m, flags);
    err!(libc::ENOENT, call("l", libc::F_OK, 0));
    ok!(call("l", libc::F_OK, libc::AT_SYMLINK_NOFOLLOW));
    err!(libc::EINVAL, call("f", libc::F_OK, 1));
    let fd = open("f", libc::O_PATH);
    ok!(sys!(439, fd, c"".as_ptr(), libc::R_OK, libc::AT_EMPTY_PATH));
}

unsafe fn permissions_owner_group_other() {
    write_file("f", b"data");
    chown("f", 1000, 2000);
    // The first class that matches decides, even if a later one is wider.
    chmod("f", 0o077);
    as_user(1000, || {
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY))
    });
    chmod("f", 0o707);
    in_child(|| {
        become_user(1001, 2000, &[]);
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY));
    });
    chmod("f", 0o040);
    in_child(|| {
        become_user(1001, 2000, &[]);
        open("f", libc::O_RDONLY);
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDWR));
    });
    chmod("f", 0o002);
    as_user(1001, || {
        open("f", libc::O_WRONLY);
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY));
    });
}

unsafe fn supplementary_group_access() {
    write_file("f", b"");
    chown("f", 0, 3333);
    chmod("f", 0o060);
    in_child(|| {
        become_user(1000, 1000, &[1, 3333, 9]);
        open("f", libc::O_RDWR);
    });
    as_user(1000, || {
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY))
    });
}

unsafe fn directory_search_and_list() {
    mkdir("d");
    write_file("d/f", b"");
    chown("d", 1000, 1000);
    chmod("d", 0o400);
    as_user(1000, || {
        eq!(std::fs::read_dir("d").map(|d| d.count()).unwrap_or(0), 1);
        err!(libc::EACCES, access("d/f", libc::F_OK));
        err!(libc::EACCES, libc::open(c("d/f").as_ptr(), libc::O_RDONLY));
        err!(libc::EACCES, access("d/none", libc::F_OK));
    });
    chmod("d", 0o100);
    as_user(1000, || {
        open("d/f", libc::O_RDONLY);
        err!(libc::EACCES, libc::open(c("d").as_ptr(), libc::O_RDONLY));
        err!(libc::ENOENT, access("d/none", libc::F_OK));
    });
}

unsafe fn directory_write_permission() {
    mkdir("d");
    write_file("d/f", b"");
    chmod("d", 0o755);
    as_user(1000, || {
        err!(
            libc::EACCES,
            libc::open(c("d/new").as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o644)
        );
        err!(libc::EACCES, libc::mkdir(c("d/new").as_ptr(), 0o755));
        err!(libc::EEXIST, libc::mkdir(c("d/f").as_ptr(), 0o755));
        err!(libc::EACCES, libc::unlink(c("d/f").as_ptr()));
        err!(
            libc::EACCES,
            libc::rename(c("d/f").as_ptr(), c("d/g").as_ptr())
        );
        err!(
            libc::EACCES,
            libc::symlink(c("x").as_ptr(), c("d/l").as_ptr())
        );
        // EPERM where links to others' files are refused in general.
        check!(libc::link(c("d/f").as_ptr(), c("d/l").as_ptr()) == -1);
        check!([libc::EACCES, libc::EPERM].contains(&errno()));
    });
    chmod("d", 0o777);
    as_user(1000, || {
        // Write permission on the directory is enough to remove others' files.
        ok!(libc::unlink(c("d/f").as_ptr()));
        write_file("d/mine", b"");
    });
    eq!(stat("d/mine").st_uid, 1000);
}

unsafe fn sticky_directory() {
    mkdir("t");
    chmod("t", 0o1777);
    as_user(1000, || write_file("t/a", b""));
    as_user(1001, || {
        err!(libc::EPERM, libc::unlink(c("t/a").as_ptr()));
        err!(
            libc::EPERM,
            libc::rename(c("t/a").as_ptr(), c("t/b").as_ptr())
        );
        write_file("t/mine", b"");
        err!(
            libc::EPERM,
            libc::rename(c("t/mine").as_ptr(), c("t/a").as_ptr())
        );
        ok!(libc::unlink(c("t/mine").as_ptr()));
    });
    as_user(1000, || {
        ok!(libc::unlink(c("t/a").as_ptr()));
    });
}

unsafe fn setfsuid_effects() {
    write_file("f", b"");
    chmod("f", 0o600);
    in_child(|| {
        eq!(libc::setfsuid(1000), 0);
        eq!(libc::setfsuid(u32::MAX), 1000);
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY));
        libc::setfsuid(0);
        open("f", libc::O_RDONLY);
    });
}

unsafe fn capability_dac_override() {
    write_file("f", b"");
    chown("f", 1, 1);
    chmod("f", 0o600);
    in_child(|| {
        // Root without capabilities is just another user.
        #[repr(C)]
        struct Header(u32, i32);
        let header = Header(0x2008_0522, 0);
        let none = [0u32; 6];
        ok!(sys!(
            libc::SYS_capset,
            &header as *const Header,
            none.as_ptr()
        ));
        err!(libc::EACCES, libc::open(c("f").as_ptr(), libc::O_RDONLY));
        err!(libc::EPERM, libc::chown(c("f").as_ptr(), 0, 0));
        err!(libc::EPERM, libc::chmod(c("f").as_ptr(), 0o777));
    });
}
