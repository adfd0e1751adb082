//! Making and removing mappings: mmap(2), munmap(2).

use super::*;
use crate::util::*;

cases![
    anonymous_is_zero,
    mmap_errors,
    mmap_hint,
    map_fixed_replaces,
    map_fixed_noreplace,
    map_low_address,
    munmap_hole,
    munmap_errors,
    populate,
    huge_addresses,
    dev_zero_mapping,
    map_shared_validate,
];

unsafe fn anonymous_is_zero() {
    let p = anon(64 * PAGE);
    for i in (0..64 * PAGE).step_by(511) {
        eq!(*p.add(i), 0);
    }
    *p.add(100) = 1;
    ok!(libc::munmap(p.cast(), 64 * PAGE));
    let q = mmap(p as usize, 64 * PAGE, RW, ANON | libc::MAP_FIXED, -1, 0);
    eq!(q, p);
    eq!(*q.add(100), 0);
}

unsafe fn mmap_errors() {
    err!(libc::EINVAL, mmap(0, 0, RW, ANON, -1, 0));
    err!(libc::EINVAL, mmap(0, PAGE, RW, libc::MAP_ANONYMOUS, -1, 0));
    err!(libc::EINVAL, mmap(0, PAGE, RW, ANON, -1, 17));
    err!(
        libc::EINVAL,
        mmap(1, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0)
    );
    err!(libc::EBADF, mmap(0, PAGE, RW, libc::MAP_PRIVATE, -1, 0));
    err!(libc::EBADF, mmap(0, PAGE, RW, libc::MAP_PRIVATE, 99, 0));
    err!(libc::ENOMEM, mmap(0, 1 << 60, RW, ANON, -1, 0));
    err!(libc::ENOMEM, mmap(0, usize::MAX, RW, ANON, -1, 0));
    let (r, _w) = pipe();
    err!(
        libc::ENODEV,
        mmap(0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, r, 0)
    );
    let dir = open(".", libc::O_RDONLY);
    err!(
        libc::ENODEV,
        mmap(0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, dir, 0)
    );
    write_file("f", b"x");
    let path = open("f", libc::O_PATH);
    err!(
        libc::EBADF,
        mmap(0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, path, 0)
    );
    // Unknown protection bits are ignored.
    ok!(mmap(0, PAGE, RW | 0x100, ANON, -1, 0));
    let fd = open("f", libc::O_RDONLY);
    err!(
        libc::EOVERFLOW,
        mmap(
            0,
            2 * PAGE,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            fd,
            i64::MAX & !0xfff
        )
    );
}

unsafe fn mmap_hint() {
    // A free hint is taken, rounded down; a used one is not replaced.
    let p = mmap(0x2000_0123, PAGE, RW, ANON, -1, 0);
    eq!(p as usize, 0x2000_0000);
    *p = 5;
    let q = mmap(0x2000_0000, PAGE, RW, ANON, -1, 0);
    check!(ok!(q) != p);
    eq!(*p, 5);
}

unsafe fn map_fixed_replaces() {
    let p = anon(4 * PAGE);
    for i in 0..4 {
        *p.add(i * PAGE) = 9;
    }
    let q = mmap(
        p as usize + PAGE,
        2 * PAGE,
        RW,
        ANON | libc::MAP_FIXED,
        -1,
        0,
    );
    eq!(q as usize, p as usize + PAGE);
    eq!(
        (*p, *p.add(PAGE), *p.add(2 * PAGE), *p.add(3 * PAGE)),
        (9, 0, 0, 9)
    );
}

unsafe fn map_fixed_noreplace() {
    let p = anon(2 * PAGE);
    err!(
        libc::EEXIST,
        mmap(
            p as usize + PAGE,
            PAGE,
            RW,
            ANON | libc::MAP_FIXED_NOREPLACE,
            -1,
            0
        )
    );
    err!(
        libc::EEXIST,
        mmap(
            p as usize - PAGE,
            2 * PAGE,
            RW,
            ANON | libc::MAP_FIXED_NOREPLACE,
            -1,
            0
        )
    );
    ok!(libc::munmap(p.add(PAGE).cast(), PAGE));
    let q = mmap(
        p as usize + PAGE,
        PAGE,
        RW,
        ANON | libc::MAP_FIXED_NOREPLACE,
        -1,
        0,
    );
    eq!(q as usize, p as usize + PAGE);
}

unsafe fn map_low_address() {
    let min: usize = read_text("/proc/sys/vm/mmap_min_addr")
        .trim()
        .parse()
        .unwrap_or(65536);
    check!(min <= 65536);
    // Root may map below it unless confined; another user may not.
    in_child(|| {
        ok!(libc::setresuid(1000, 1000, 1000));
        if min > 0 {
            err!(
                libc::EPERM,
                mmap(0, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0)
            );
        }
    });
    let p = mmap(0x10000, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0);
    eq!(p as usize, 0x10000);
}

unsafe fn munmap_hole() {
    let p = anon(5 * PAGE);
    ok!(libc::munmap(p.add(2 * PAGE).cast(), PAGE));
    eq!(load_fault(p.add(2 * PAGE)), libc::SIGSEGV);
    eq!(load_fault(p.add(PAGE)), 0);
    eq!(load_fault(p.add(3 * PAGE)), 0);
    // Unmapping what is not mapped is fine.
    ok!(libc::munmap(p.cast(), 5 * PAGE));
    ok!(libc::munmap(p.cast(), 5 * PAGE));
}

unsafe fn munmap_errors() {
    let p = anon(PAGE);
    err!(libc::EINVAL, libc::munmap(p.add(1).cast(), PAGE));
    err!(libc::EINVAL, libc::munmap(p.cast(), 0));
    err!(libc::EINVAL, libc::munmap(p.cast(), usize::MAX));
    err!(libc::EINVAL, libc::munmap((1usize << 60) as *mut _, PAGE));
    // The length is rounded up.
    let q = anon(2 * PAGE);
    ok!(libc::munmap(q.cast(), 1));
    eq!(load_fault(q), libc::SIGSEGV);
    eq!(load_fault(q.add(PAGE)), 0);
}

unsafe fn populate() {
    let p = ok!(mmap(0, 16 * PAGE, RW, ANON | libc::MAP_POPULATE, -1, 0));
    eq!(*p.add(15 * PAGE), 0);
    ok!(mmap(0, PAGE, RW, ANON | libc::MAP_LOCKED, -1, 0));
    ok!(mmap(
        0,
        64 * PAGE,
        RW,
        ANON | libc::MAP_STACK | libc::MAP_NORESERVE,
        -1,
        0
    ));
    write_file("f", &[3; 4 * PAGE]);
    let fd = open("f", libc::O_RDONLY);
    let q = ok!(mmap(
        0,
        4 * PAGE,
        libc::PROT_READ,
        libc::MAP_PRIVATE | libc::MAP_POPULATE,
        fd,
        0
    ));
    eq!(*q.add(PAGE), 3);
}

unsafe fn huge_addresses() {
    // The top of user space and what lies beyond.
    err!(
        libc::ENOMEM,
        mmap(0x7fff_ffff_f000, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0)
    );
    err!(
        libc::ENOMEM,
        mmap(0x8000_0000_0000, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0)
    );
    err!(
        libc::ENOMEM,
        mmap(usize::MAX & !0xfff, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0)
    );
    // A high address in the usual range of mappings.
    let near = anon(PAGE) as usize;
    check!(near > 1 << 32);
}

unsafe fn dev_zero_mapping() {
    let fd = open("/dev/zero", libc::O_RDWR);
    let p = ok!(mmap(0, 2 * PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    eq!(*p.add(PAGE), 0);
    *p = 1;
    let s = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    in_child(|| *s = 4);
    eq!(*s, 4);
}

unsafe fn map_shared_validate() {
    const VALIDATE: i32 = 3;
    write_file("f", &[0; PAGE]);
    let fd = open("f", libc::O_RDWR);
    ok!(mmap(0, PAGE, RW, VALIDATE, fd, 0));
    err!(
        libc::EOPNOTSUPP,
        mmap(0, PAGE, RW, VALIDATE | 0x20_0000, fd, 0)
    );
    // MAP_SHARED ignores unknown flags.
    ok!(mmap(0, PAGE, RW, libc::MAP_SHARED | 0x20_0000, fd, 0));
}
