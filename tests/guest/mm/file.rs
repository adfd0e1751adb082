//! Mappings of files: mmap(2), msync(2).

use super::*;
use crate::util::*;

cases![
    file_shared_coherent,
    file_private_sees_no_store,
    file_private_untouched_follows_file,
    file_mapping_outlives_close_and_unlink,
    file_offset_mapping,
    file_mapping_permissions,
    file_tail_is_zero,
    sigbus_and_truncate,
    msync_calls,
    mmap_read_only_file_write_fault,
];

unsafe fn file_shared_coherent() {
    write_file("f", &[b'.'; 3 * PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, 3 * PAGE, RW, libc::MAP_SHARED, fd, 0));
    eq!(*p.add(PAGE), b'.');
    // Store seen by read, write seen by load, at once.
    *p.add(PAGE + 5) = b'S';
    let mut b = [0u8; 10];
    eq!(libc::pread(fd, b.as_mut_ptr().cast(), 10, PAGE as i64), 10);
    eq!(b[5], b'S');
    eq!(
        libc::pwrite(fd, b"W".as_ptr().cast(), 1, 2 * PAGE as i64),
        1
    );
    eq!(*p.add(2 * PAGE), b'W');
    in_child(|| *p.add(7) = b'C');
    eq!(*p.add(7), b'C');
    let fd2 = open("f", libc::O_RDONLY);
    let q = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd2, 0));
    eq!(*q.add(7), b'C');
    *p.add(8) = b'D';
    eq!(*q.add(8), b'D');
    eq!(read_file("f")[5 + PAGE], b'S');
}

unsafe fn file_private_sees_no_store() {
    write_file("f", b"hello");
    let fd = open("f", libc::O_RDONLY);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    *p = b'J';
    eq!(*p, b'J');
    eq!(read_file("f"), b"hello");
}

unsafe fn file_private_untouched_follows_file() {
    // Unspecified by POSIX, but Linux shows later writes in untouched pages.
    write_file("f", &[b'1'; 2 * PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, 2 * PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    *p = b'x';
    libc::pwrite(fd, b"22".as_ptr().cast(), 2, 0);
    libc::pwrite(fd, b"22".as_ptr().cast(), 2, PAGE as i64);
    eq!((*p, *p.add(1), *p.add(PAGE)), (b'x', b'1', b'2'));
}

unsafe fn file_mapping_outlives_close_and_unlink() {
    write_file("f", b"still here");
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    libc::close(fd);
    ok!(libc::unlink(c("f").as_ptr()));
    eq!(std::slice::from_raw_parts(p, 10), b"still here");
    *p = b'S';
    in_child(|| eq!(*p, b'S'));
    let line = vma(p as usize).map(|v| v.3).unwrap_or_default();
    check!(line.ends_with("/f (deleted)"), "{line}");
}

unsafe fn file_offset_mapping() {
    let mut data = vec![0u8; 4 * PAGE];
    for (i, b) in data.iter_mut().enumerate() {
        *b = (i / PAGE) as u8;
    }
    write_file("f", &data);
    let fd = open("f", libc::O_RDONLY);
    let p = ok!(mmap(
        0,
        2 * PAGE,
        libc::PROT_READ,
        libc::MAP_SHARED,
        fd,
        2 * PAGE as i64
    ));
    eq!((*p, *p.add(PAGE)), (2, 3));
    let line = vma(p as usize).map(|v| v.3).unwrap_or_default();
    check!(line.contains(" 00002000 "), "{line}");
}

unsafe fn file_mapping_permissions() {
    write_file("f", b"x");
    let ro = open("f", libc::O_RDONLY);
    err!(libc::EACCES, mmap(0, PAGE, RW, libc::MAP_SHARED, ro, 0));
    let p = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, ro, 0));
    err!(libc::EACCES, libc::mprotect(p.cast(), PAGE, RW));
    let q = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, ro, 0));
    ok!(libc::mprotect(q.cast(), PAGE, RW));
    let wo = open("f", libc::O_WRONLY);
    err!(
        libc::EACCES,
        mmap(0, PAGE, libc::PROT_WRITE, libc::MAP_SHARED, wo, 0)
    );
    err!(
        libc::EACCES,
        mmap(0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, wo, 0)
    );
}

unsafe fn mmap_read_only_file_write_fault() {
    write_file("f", &[1; PAGE]);
    let fd = open("f", libc::O_RDONLY);
    let p = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0));
    eq!(store_fault(p, 9), libc::SIGSEGV);
    eq!(*p, 1);
}

unsafe fn file_tail_is_zero() {
    write_file("f", b"abc");
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    eq!(*p.add(3), 0);
    eq!(*p.add(PAGE - 1), 0);
    // Stores behind the end do not reach the file.
    *p.add(10) = 1;
    eq!(read_file("f"), b"abc");
}

unsafe fn sigbus_and_truncate() {
    write_file("f", &[1; 2 * PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, 4 * PAGE, RW, libc::MAP_SHARED, fd, 0));
    eq!(load_fault(p.add(PAGE)), 0);
    eq!(load_fault(p.add(2 * PAGE)), libc::SIGBUS);
    eq!(store_fault(p.add(3 * PAGE), 1), libc::SIGBUS);
    ok!(libc::ftruncate(fd, PAGE as i64));
    eq!(load_fault(p.add(PAGE)), libc::SIGBUS);
    ok!(libc::ftruncate(fd, 4 * PAGE as i64));
    eq!(load_fault(p.add(3 * PAGE)), 0);
    eq!(*p.add(PAGE), 0);
    eq!(*p, 1);
    // Private mappings too lose what is behind the new end.
    let q = ok!(mmap(0, 4 * PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    *q.add(3 * PAGE) = 5;
    ok!(libc::ftruncate(fd, PAGE as i64));
    eq!(load_fault(q.add(3 * PAGE)), libc::SIGBUS);
}

unsafe fn msync_calls() {
    write_file("f", &[0; PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    *p = 1;
    ok!(libc::msync(p.cast(), PAGE, libc::MS_SYNC));
    ok!(libc::msync(
        p.cast(),
        PAGE,
        libc::MS_ASYNC | libc::MS_INVALIDATE
    ));
    ok!(libc::msync(p.cast(), PAGE, 0));
    err!(
        libc::EINVAL,
        libc::msync(p.cast(), PAGE, libc::MS_SYNC | libc::MS_ASYNC)
    );
    err!(
        libc::EINVAL,
        libc::msync(p.add(1).cast(), PAGE, libc::MS_SYNC)
    );
    ok!(libc::munmap(p.cast(), PAGE));
    err!(libc::ENOMEM, libc::msync(p.cast(), PAGE, libc::MS_SYNC));
    ok!(libc::fsync(fd));
    ok!(libc::fdatasync(fd));
}
