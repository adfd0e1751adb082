//! Attributes and permissions: stat(2), statx(2), chmod(2), chown(2),
//! utimensat(2), access(2), xattr(7), directories, statfs(2).

pub mod access;
pub mod attributes;
pub mod directory;
pub mod owner;
pub mod xattr;

use crate::util::*;

unsafe fn stat(name: &str) -> libc::stat {
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::stat(c(name).as_ptr(), &mut st));
    st
}

unsafe fn mode(name: &str) -> u32 {
    stat(name).st_mode & 0o7777
}

unsafe fn become_user(uid: u32, gid: u32, groups: &[u32]) {
    ok!(libc::setgroups(groups.len(), groups.as_ptr()));
    ok!(libc::setresgid(gid, gid, gid));
    ok!(libc::setresuid(uid, uid, uid));
}

unsafe fn as_user(uid: u32, f: impl FnOnce()) {
    in_child(|| {
        become_user(uid, uid, &[]);
        f();
    });
}

unsafe fn chmod(name: &str, mode: u32) {
    ok!(libc::chmod(c(name).as_ptr(), mode));
}

unsafe fn chown(name: &str, uid: u32, gid: u32) {
    ok!(libc::chown(c(name).as_ptr(), uid, gid));
}

unsafe fn mkdir(name: &str) {
    ok!(libc::mkdir(c(name).as_ptr(), 0o755));
}
