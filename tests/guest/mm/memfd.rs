//! memfd_create(2), seals.

use super::*;
use crate::util::*;

cases![
    memfd_basic,
    memfd_seals,
    memfd_seal_write_with_mapping,
    memfd_future_write,
    memfd_names_and_errors,
];

unsafe fn memfd(flags: u32) -> i32 {
    ok!(libc::memfd_create(c"test".as_ptr(), flags))
}

unsafe fn memfd_basic() {
    let fd = memfd(0);
    ok!(libc::ftruncate(fd, 3 * PAGE as i64));
    let p = ok!(mmap(0, 3 * PAGE, RW, libc::MAP_SHARED, fd, 0));
    *p.add(PAGE) = 9;
    let mut b = 0u8;
    eq!(
        libc::pread(fd, (&mut b as *mut u8).cast(), 1, PAGE as i64),
        1
    );
    eq!(b, 9);
    let q = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, PAGE as i64));
    eq!(*q, 9);
    in_child(|| *q = 10);
    eq!(*p.add(PAGE), 10);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    eq!(
        (st.st_size, st.st_mode, st.st_nlink),
        (3 * PAGE as i64, libc::S_IFREG | 0o777, 0)
    );
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    eq!(link.to_string_lossy(), "/memfd:test (deleted)");
    let fd2 = open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY);
    eq!(
        libc::pread(fd2, (&mut b as *mut u8).cast(), 1, PAGE as i64),
        1
    );
    eq!(b, 10);
}

unsafe fn memfd_seals() {
    let fd = memfd(libc::MFD_ALLOW_SEALING);
    write_all(fd, b"0123456789");
    eq!(ok!(libc::fcntl(fd, libc::F_GET_SEALS)), 0);
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK));
    err!(libc::EPERM, libc::ftruncate(fd, 5));
    ok!(libc::ftruncate(fd, 20));
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_GROW));
    err!(libc::EPERM, libc::ftruncate(fd, 30));
    err!(libc::EPERM, libc::pwrite(fd, b"x".as_ptr().cast(), 1, 20));
    eq!(libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0), 1);
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE));
    err!(libc::EPERM, libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0));
    err!(libc::EPERM, mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    ok!(mmap(0, PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0));
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SEAL));
    err!(
        libc::EPERM,
        libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE)
    );
    eq!(ok!(libc::fcntl(fd, libc::F_GET_SEALS)), 15);
    // Without the flag a memfd is sealed against seals.
    let plain = memfd(0);
    eq!(
        ok!(libc::fcntl(plain, libc::F_GET_SEALS)),
        libc::F_SEAL_SEAL
    );
    err!(
        libc::EPERM,
        libc::fcntl(plain, libc::F_ADD_SEALS, libc::F_SEAL_GROW)
    );
    err!(
        libc::EINVAL,
        libc::fcntl(memfd(libc::MFD_ALLOW_SEALING), libc::F_ADD_SEALS, 0x1000)
    );
    write_file("f", b"");
    // On a disk no file has seals; on tmpfs each starts sealed.
    let r = libc::fcntl(open("f", libc::O_RDWR), libc::F_GET_SEALS);
    check!(r == libc::F_SEAL_SEAL || (r == -1 && errno() == libc::EINVAL));
}

unsafe fn memfd_seal_write_with_mapping() {
    let fd = memfd(libc::MFD_ALLOW_SEALING);
    ok!(libc::ftruncate(fd, PAGE as i64));
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    err!(
        libc::EBUSY,
        libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE)
    );
    ok!(libc::munmap(p.cast(), PAGE));
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE));
}

unsafe fn memfd_future_write() {
    const FUTURE: i32 = 0x10;
    let fd = memfd(libc::MFD_ALLOW_SEALING);
    ok!(libc::ftruncate(fd, PAGE as i64));
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, FUTURE));
    *p = 5;
    err!(libc::EPERM, mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    err!(libc::EPERM, libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0));
    let q = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0));
    eq!(*q, 5);
    err!(libc::EACCES, libc::mprotect(q.cast(), PAGE, RW));
}

unsafe fn memfd_names_and_errors() {
    err!(libc::EINVAL, libc::memfd_create(c"x".as_ptr(), 0x4000_0000));
    err!(
        libc::EINVAL,
        libc::memfd_create(c(&"n".repeat(250)).as_ptr(), 0)
    );
    ok!(libc::memfd_create(c(&"n".repeat(249)).as_ptr(), 0));
    ok!(libc::memfd_create(c"".as_ptr(), 0));
    err!(libc::EFAULT, libc::memfd_create(8 as *const _, 0));
    let fd = memfd(libc::MFD_CLOEXEC);
    eq!(libc::fcntl(fd, libc::F_GETFD), libc::FD_CLOEXEC);
}
