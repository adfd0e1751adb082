//! Opening, creating, linking, renaming and removing files: open(2),
//! openat2(2), link(2), rename(2), unlink(2), symlink(7), path_resolution(7).

pub mod descriptors;
pub mod flags;
pub mod links;
pub mod paths;
pub mod rename;
pub mod special;

use crate::util::*;

const CREATE: i32 = libc::O_CREAT | libc::O_RDWR;

unsafe fn stat(name: &str) -> libc::stat {
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::stat(c(name).as_ptr(), &mut st));
    st
}

unsafe fn lstat(name: &str) -> libc::stat {
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::lstat(c(name).as_ptr(), &mut st));
    st
}

unsafe fn try_open(name: &str, flags: i32) -> i32 {
    libc::open(c(name).as_ptr(), flags, 0o644)
}

unsafe fn exists(name: &str) -> bool {
    libc::access(c(name).as_ptr(), libc::F_OK) == 0
}

unsafe fn mkdir(name: &str) {
    ok!(libc::mkdir(c(name).as_ptr(), 0o755));
}

unsafe fn symlink(target: &str, name: &str) {
    ok!(libc::symlink(c(target).as_ptr(), c(name).as_ptr()));
}

unsafe fn rename(a: &str, b: &str) -> i32 {
    libc::rename(c(a).as_ptr(), c(b).as_ptr())
}

unsafe fn as_user(uid: u32, f: impl FnOnce()) {
    in_child(|| {
        ok!(libc::setgroups(0, std::ptr::null()));
        ok!(libc::setresgid(uid, uid, uid));
        ok!(libc::setresuid(uid, uid, uid));
        f();
    });
}
