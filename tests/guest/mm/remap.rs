//! mremap(2), brk(2).

use super::*;
use crate::util::*;

cases![
    mremap_grow_moves,
    mremap_shrink,
    mremap_fixed,
    mremap_dontunmap,
    mremap_errors,
    mremap_shared_alias,
    brk_grows_and_shrinks,
    brk_errors,
];

unsafe fn mremap_grow_moves() {
    let p = anon(3 * PAGE);
    *p = 1;
    *p.add(PAGE) = 2;
    // The page behind is taken, so growing in place fails.
    err!(libc::ENOMEM, mremap(p, 2 * PAGE, 4 * PAGE, 0, 0));
    let q = ok!(mremap(p, 2 * PAGE, 8 * PAGE, libc::MREMAP_MAYMOVE, 0));
    check!(q != p);
    eq!((*q, *q.add(PAGE), *q.add(7 * PAGE)), (1, 2, 0));
    eq!(load_fault(p), libc::SIGSEGV);
    // In place when there is room.
    let r = mmap(0x4000_0000, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0);
    eq!(mremap(r, PAGE, 3 * PAGE, 0, 0), r);
    *r.add(2 * PAGE) = 1;
}

unsafe fn mremap_shrink() {
    let p = anon(4 * PAGE);
    *p = 7;
    eq!(ok!(mremap(p, 4 * PAGE, PAGE, 0, 0)), p);
    eq!(*p, 7);
    eq!(load_fault(p.add(PAGE)), libc::SIGSEGV);
}

unsafe fn mremap_fixed() {
    let p = anon(2 * PAGE);
    *p = 4;
    let t = anon(2 * PAGE);
    *t = 9;
    let q = ok!(mremap(
        p,
        2 * PAGE,
        2 * PAGE,
        libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
        t as usize
    ));
    eq!(q, t);
    eq!(*t, 4);
    eq!(load_fault(p), libc::SIGSEGV);
    // Overlapping source and target.
    err!(
        libc::EINVAL,
        mremap(
            t,
            2 * PAGE,
            2 * PAGE,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            t as usize + PAGE
        )
    );
    err!(
        libc::EINVAL,
        mremap(t, 2 * PAGE, 2 * PAGE, libc::MREMAP_FIXED, p as usize)
    );
    err!(
        libc::EINVAL,
        mremap(
            t,
            2 * PAGE,
            2 * PAGE,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            p as usize + 1
        )
    );
}

unsafe fn mremap_dontunmap() {
    const DONTUNMAP: i32 = 4;
    let p = anon(2 * PAGE);
    *p = 6;
    let q = ok!(mremap(
        p,
        2 * PAGE,
        2 * PAGE,
        libc::MREMAP_MAYMOVE | DONTUNMAP,
        0
    ));
    check!(q != p);
    eq!(*q, 6);
    eq!(*p, 0);
    err!(
        libc::EINVAL,
        mremap(p, 2 * PAGE, 3 * PAGE, libc::MREMAP_MAYMOVE | DONTUNMAP, 0)
    );
}

unsafe fn mremap_errors() {
    let p = anon(2 * PAGE);
    err!(libc::EINVAL, mremap(p.add(1), PAGE, PAGE, 0, 0));
    err!(libc::EINVAL, mremap(p, PAGE, 0, libc::MREMAP_MAYMOVE, 0));
    err!(libc::EINVAL, mremap(p, PAGE, PAGE, 64, 0));
    ok!(libc::munmap(p.cast(), 2 * PAGE));
    err!(
        libc::EFAULT,
        mremap(p, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE, 0)
    );
    // Old length zero duplicates only shared mappings.
    let q = anon(PAGE);
    err!(libc::EINVAL, mremap(q, 0, PAGE, libc::MREMAP_MAYMOVE, 0));
}

unsafe fn mremap_shared_alias() {
    let p = mmap(0, PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    let q = ok!(mremap(p, 0, PAGE, libc::MREMAP_MAYMOVE, 0));
    check!(q != p);
    *p = 77;
    eq!(*q, 77);
}

unsafe fn raw_brk(addr: usize) -> usize {
    sys!(libc::SYS_brk, addr) as usize
}

unsafe fn brk_grows_and_shrinks() {
    let start = raw_brk(0);
    check!(start != 0);
    eq!(raw_brk(start + 5 * PAGE + 100), start + 5 * PAGE + 100);
    let p = (start + 4 * PAGE) as *mut u8;
    eq!(*p, 0);
    *p = 3;
    eq!(raw_brk(start), start);
    eq!(raw_brk(start + 5 * PAGE), start + 5 * PAGE);
    // Pages given back come back as zero.
    eq!(*p, 0);
    eq!(raw_brk(start), start);
    // Big growth, all of it usable.
    let big = 64 << 20;
    eq!(raw_brk(start + big), start + big);
    for off in (0..big).step_by(1 << 20) {
        *((start + off) as *mut u8) = 1;
    }
    eq!(raw_brk(start), start);
}

unsafe fn brk_errors() {
    let start = raw_brk(0);
    eq!(raw_brk(1), start);
    eq!(raw_brk(usize::MAX), start);
    eq!(raw_brk(1 << 62), start);
    in_child(|| {
        let limit = libc::rlimit {
            rlim_cur: 1 << 20,
            rlim_max: 1 << 20,
        };
        ok!(libc::setrlimit(libc::RLIMIT_DATA, &limit));
        eq!(raw_brk(start + (8 << 20)), start);
    });
}
