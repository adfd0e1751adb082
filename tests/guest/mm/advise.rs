//! madvise(2).

use super::*;
use crate::util::*;

cases![
    madvise_dontneed_anonymous,
    madvise_dontneed_file,
    madvise_errors,
    madvise_hints,
    madvise_dontfork_wipeonfork,
    userfault_or_refusal,
];

unsafe fn madvise(p: *mut u8, len: usize, advice: i32) -> i32 {
    libc::madvise(p.cast(), len, advice)
}

unsafe fn madvise_dontneed_anonymous() {
    let p = anon(3 * PAGE);
    for i in 0..3 {
        *p.add(i * PAGE) = 8;
    }
    ok!(madvise(p.add(PAGE), PAGE, libc::MADV_DONTNEED));
    eq!((*p, *p.add(PAGE), *p.add(2 * PAGE)), (8, 0, 8));
    // Shared memory keeps its content.
    let s = mmap(0, PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    *s = 5;
    ok!(madvise(s, PAGE, libc::MADV_DONTNEED));
    eq!(*s, 5);
    ok!(madvise(s, PAGE, libc::MADV_REMOVE));
    eq!(*s, 0);
}

unsafe fn madvise_dontneed_file() {
    write_file("f", &[b'a'; PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    *p = b'z';
    ok!(madvise(p, PAGE, libc::MADV_DONTNEED));
    eq!(*p, b'a');
}

unsafe fn madvise_errors() {
    let p = anon(3 * PAGE);
    err!(libc::EINVAL, madvise(p, PAGE, 9999));
    err!(libc::EINVAL, madvise(p.add(1), PAGE, libc::MADV_DONTNEED));
    ok!(madvise(p, 0, libc::MADV_DONTNEED));
    ok!(libc::munmap(p.add(PAGE).cast(), PAGE));
    *p = 1;
    *p.add(2 * PAGE) = 1;
    // Applied to the mapped parts, then ENOMEM.
    err!(libc::ENOMEM, madvise(p, 3 * PAGE, libc::MADV_DONTNEED));
    eq!((*p, *p.add(2 * PAGE)), (0, 0));
    err!(libc::EINVAL, madvise(p, PAGE, libc::MADV_REMOVE));
}

unsafe fn madvise_hints() {
    let p = anon(4 << 20);
    for advice in [
        libc::MADV_NORMAL,
        libc::MADV_RANDOM,
        libc::MADV_SEQUENTIAL,
        libc::MADV_WILLNEED,
        libc::MADV_DONTDUMP,
        libc::MADV_DODUMP,
    ] {
        ok!(madvise(p, 4 << 20, advice));
    }
    // Huge pages may be configured out.
    for advice in [libc::MADV_HUGEPAGE, libc::MADV_NOHUGEPAGE] {
        let r = madvise(p, 4 << 20, advice);
        check!(r == 0 || errno() == libc::EINVAL);
    }
    *p = 1;
    ok!(madvise(p, PAGE, libc::MADV_FREE));
    check!(*p == 1 || *p == 0);
    ok!(madvise(p, PAGE, 22)); // MADV_POPULATE_READ
    ok!(madvise(p, PAGE, 23)); // MADV_POPULATE_WRITE
}

unsafe fn madvise_dontfork_wipeonfork() {
    let p = anon(3 * PAGE);
    for i in 0..3 {
        *p.add(i * PAGE) = 7;
    }
    ok!(madvise(p, PAGE, libc::MADV_DONTFORK));
    ok!(madvise(p.add(PAGE), PAGE, libc::MADV_WIPEONFORK));
    in_child(|| {
        eq!(load_fault(p), libc::SIGSEGV);
        eq!(*p.add(PAGE), 0);
        eq!(*p.add(2 * PAGE), 7);
    });
    ok!(madvise(p, PAGE, libc::MADV_DOFORK));
    ok!(madvise(p.add(PAGE), PAGE, libc::MADV_KEEPONFORK));
    in_child(|| eq!((*p, *p.add(PAGE)), (7, 7)));
}

unsafe fn userfault_or_refusal() {
    let fd = sys!(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1);
    check!(fd >= 0 || [libc::ENOSYS, libc::EPERM].contains(&errno()));
}
