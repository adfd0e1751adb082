//! xattr(7).

use super::*;
use crate::util::*;

cases![
    xattr_basic,
    xattr_flags,
    xattr_sizes,
    xattr_errors,
    xattr_list,
    xattr_links,
];

unsafe fn setxattr(name: &str, key: &str, value: &[u8], flags: i32) -> i32 {
    libc::setxattr(
        c(name).as_ptr(),
        c(key).as_ptr(),
        value.as_ptr().cast(),
        value.len(),
        flags,
    )
}

unsafe fn getxattr(name: &str, key: &str) -> Vec<u8> {
    let mut b = vec![0u8; 1000];
    let n = ok!(libc::getxattr(
        c(name).as_ptr(),
        c(key).as_ptr(),
        b.as_mut_ptr().cast(),
        1000
    ));
    b.truncate(n as usize);
    b
}

unsafe fn need_xattr() {
    write_file("f", b"");
    if setxattr("f", "user.probe", b"1", 0) == -1 && errno() == libc::EOPNOTSUPP {
        skip("no extended attributes on this file system");
    }
    libc::removexattr(c("f").as_ptr(), c"user.probe".as_ptr());
}

unsafe fn xattr_basic() {
    need_xattr();
    ok!(setxattr("f", "user.a", b"value", 0));
    eq!(getxattr("f", "user.a"), b"value");
    ok!(setxattr("f", "user.a", b"", 0));
    eq!(getxattr("f", "user.a"), b"");
    ok!(libc::removexattr(c("f").as_ptr(), c"user.a".as_ptr()));
    err!(
        libc::ENODATA,
        libc::getxattr(c("f").as_ptr(), c"user.a".as_ptr(), std::ptr::null_mut(), 0)
    );
    err!(
        libc::ENODATA,
        libc::removexattr(c("f").as_ptr(), c"user.a".as_ptr())
    );
    let fd = open("f", libc::O_RDONLY);
    ok!(libc::fsetxattr(
        fd,
        c"user.b".as_ptr(),
        b"x".as_ptr().cast(),
        1,
        0
    ));
    eq!(getxattr("f", "user.b"), b"x");
    ok!(libc::fremovexattr(fd, c"user.b".as_ptr()));
}

unsafe fn xattr_flags() {
    need_xattr();
    err!(
        libc::ENODATA,
        setxattr("f", "user.a", b"1", libc::XATTR_REPLACE)
    );
    ok!(setxattr("f", "user.a", b"1", libc::XATTR_CREATE));
    err!(
        libc::EEXIST,
        setxattr("f", "user.a", b"2", libc::XATTR_CREATE)
    );
    ok!(setxattr("f", "user.a", b"2", libc::XATTR_REPLACE));
    eq!(getxattr("f", "user.a"), b"2");
    err!(libc::EINVAL, setxattr("f", "user.a", b"2", 4));
}

unsafe fn xattr_sizes() {
    need_xattr();
    ok!(setxattr("f", "user.a", b"0123456789", 0));
    eq!(
        ok!(libc::getxattr(
            c("f").as_ptr(),
            c"user.a".as_ptr(),
            std::ptr::null_mut(),
            0
        )),
        10
    );
    let mut b = [0u8; 5];
    err!(
        libc::ERANGE,
        libc::getxattr(
            c("f").as_ptr(),
            c"user.a".as_ptr(),
            b.as_mut_ptr().cast(),
            5
        )
    );
    err!(libc::E2BIG, setxattr("f", "user.b", &vec![0; 65537], 0));
    err!(
        libc::ERANGE,
        setxattr("f", &format!("user.{}", "n".repeat(251)), b"", 0)
    );
}

unsafe fn xattr_errors() {
    need_xattr();
    err!(libc::EOPNOTSUPP, setxattr("f", "nonsense", b"", 0));
    err!(libc::EOPNOTSUPP, setxattr("f", "other.name", b"", 0));
    err!(libc::ERANGE, setxattr("f", "", b"", 0));
    let r = setxattr("f", "user.", b"", 0);
    check!(r == -1 && errno() == libc::EINVAL);
    err!(libc::ENOENT, setxattr("x", "user.a", b"", 0));
    chmod("f", 0o644);
    as_user(1000, || {
        err!(libc::EACCES, setxattr("f", "user.a", b"", 0));
        err!(libc::EPERM, setxattr("f", "trusted.a", b"", 0));
        // Hidden from those without the capability.
        err!(
            libc::ENODATA,
            libc::getxattr(
                c("f").as_ptr(),
                c"trusted.a".as_ptr(),
                std::ptr::null_mut(),
                0
            )
        );
    });
}

unsafe fn xattr_list() {
    need_xattr();
    ok!(setxattr("f", "user.one", b"", 0));
    ok!(setxattr("f", "user.two", b"", 0));
    let mut b = [0u8; 300];
    let n = ok!(libc::listxattr(c("f").as_ptr(), b.as_mut_ptr().cast(), 300)) as usize;
    let mut names: Vec<&[u8]> = b[..n]
        .split(|x| *x == 0)
        .filter(|s| s.starts_with(b"user."))
        .collect();
    names.sort_unstable();
    eq!(names, [&b"user.one"[..], b"user.two"]);
    eq!(
        ok!(libc::listxattr(c("f").as_ptr(), std::ptr::null_mut(), 0)) as usize,
        n
    );
    err!(
        libc::ERANGE,
        libc::listxattr(c("f").as_ptr(), b.as_mut_ptr().cast(), 3)
    );
}

unsafe fn xattr_links() {
    need_xattr();
    ok!(libc::symlink(c("f").as_ptr(), c("l").as_ptr()));
    // User attributes are only for files and directories.
    let r = libc::lsetxattr(
        c("l").as_ptr(),
        c"user.a".as_ptr(),
        b"".as_ptr().cast(),
        0,
        0,
    );
    check!(r == -1 && errno() == libc::EPERM, "{r} {}", errno_text());
    ok!(setxattr("l", "user.a", b"via", 0));
    eq!(getxattr("f", "user.a"), b"via");
    mkdir("d");
    ok!(setxattr("d", "user.d", b"dir", 0));
    eq!(getxattr("d", "user.d"), b"dir");
}
