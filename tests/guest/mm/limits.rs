//! mlock(2), mincore(2), resource limits, stacks that grow.

use super::*;
use crate::util::{self, *};

cases![
    mlock_calls,
    mlock_limit,
    mincore_calls,
    rlimit_as,
    rlimit_data,
    rlimit_stack_growth,
    stack_grows_down,
    grows_down_mapping,
    big_sparse_mapping,
    many_mappings,
];

unsafe fn mlock_calls() {
    let p = anon(4 * PAGE);
    ok!(libc::mlock(p.cast(), PAGE));
    ok!(libc::munlock(p.cast(), PAGE));
    ok!(sys!(libc::SYS_mlock2, p, PAGE, 1));
    err!(libc::EINVAL, sys!(libc::SYS_mlock2, p, PAGE, 2));
    ok!(libc::munmap(p.cast(), PAGE));
    err!(libc::ENOMEM, libc::mlock(p.cast(), 2 * PAGE));
    ok!(libc::mlockall(libc::MCL_CURRENT));
    ok!(libc::munlockall());
    err!(libc::EINVAL, libc::mlockall(0));
}

unsafe fn mlock_limit() {
    in_child(|| {
        let p = anon(64 * PAGE);
        let limit = libc::rlimit {
            rlim_cur: 8 * PAGE as u64,
            rlim_max: 8 * PAGE as u64,
        };
        ok!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit));
        ok!(libc::setresuid(1000, 1000, 1000));
        ok!(libc::mlock(p.cast(), 4 * PAGE));
        err!(libc::ENOMEM, libc::mlock(p.cast(), 64 * PAGE));
    });
}

unsafe fn mincore_calls() {
    let p = anon(4 * PAGE);
    *p = 1;
    let mut v = [0xffu8; 4];
    ok!(libc::mincore(p.cast(), 4 * PAGE, v.as_mut_ptr()));
    eq!(v[0] & 1, 1);
    err!(
        libc::EINVAL,
        libc::mincore(p.add(1).cast(), PAGE, v.as_mut_ptr())
    );
    err!(libc::EFAULT, libc::mincore(p.cast(), PAGE, 8 as *mut _));
    ok!(libc::munmap(p.add(PAGE).cast(), PAGE));
    err!(
        libc::ENOMEM,
        libc::mincore(p.cast(), 4 * PAGE, v.as_mut_ptr())
    );
}

unsafe fn rlimit_as() {
    in_child(|| {
        let now = status_kb("VmSize") as u64 * 1024;
        let limit = libc::rlimit {
            rlim_cur: now + (8 << 20),
            rlim_max: now + (8 << 20),
        };
        ok!(libc::setrlimit(libc::RLIMIT_AS, &limit));
        err!(libc::ENOMEM, mmap(0, 16 << 20, RW, ANON, -1, 0));
        let p = ok!(mmap(0, 4 << 20, RW, ANON, -1, 0));
        err!(
            libc::ENOMEM,
            mremap(p, 4 << 20, 32 << 20, libc::MREMAP_MAYMOVE, 0)
        );
        ok!(libc::munmap(p.cast(), 4 << 20));
    });
}

unsafe fn rlimit_data() {
    in_child(|| {
        let limit = libc::rlimit {
            rlim_cur: 4 << 20,
            rlim_max: 4 << 20,
        };
        ok!(libc::setrlimit(libc::RLIMIT_DATA, &limit));
        // Private writable memory counts; read-only memory does not.
        err!(libc::ENOMEM, mmap(0, 32 << 20, RW, ANON, -1, 0));
        ok!(mmap(0, 32 << 20, libc::PROT_READ, ANON, -1, 0));
    });
}

unsafe fn rlimit_stack_growth() {
    let exe = crate::helpers::exe();
    let _ = exe;
    // With a small stack limit deep recursion ends in SIGSEGV.
    let pid = fork(|| {
        let limit = libc::rlimit {
            rlim_cur: 256 << 10,
            rlim_max: 256 << 10,
        };
        ok!(libc::setrlimit(libc::RLIMIT_STACK, &limit));
        eat_stack(1 << 20);
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
}

#[inline(never)]
fn eat_stack(bytes: usize) -> u8 {
    let block = [1u8; 8192];
    std::hint::black_box(&block);
    if bytes <= 8192 {
        block[0]
    } else {
        eat_stack(bytes - 8192).wrapping_add(block[5])
    }
}

unsafe fn stack_grows_down() {
    // 4 MiB of the 8 MiB limit.
    std::hint::black_box(eat_stack(4 << 20));
    let line = read_text("/proc/self/maps")
        .lines()
        .find(|l| l.ends_with("[stack]"))
        .map(str::to_owned)
        .unwrap_or_default();
    check!(line.contains("rw-p"), "{line}");
}

unsafe fn grows_down_mapping() {
    let flags = ANON | libc::MAP_GROWSDOWN | libc::MAP_FIXED;
    let top = 0x7100_0000usize;
    let p = mmap(top, PAGE, RW, flags, -1, 0);
    eq!(p as usize, top);
    *p = 1;
    // A touch right below extends it.
    eq!(store_fault((top - 8) as *mut u8, 1), 0);
}

unsafe fn big_sparse_mapping() {
    let len = 1usize << 36; // 64 GiB
    let p = ok!(mmap(0, len, RW, ANON | libc::MAP_NORESERVE, -1, 0));
    for i in 0..64 {
        *p.add(i << 30) = i as u8;
    }
    for i in 0..64 {
        eq!(*p.add(i << 30), i as u8);
    }
    ok!(libc::munmap(p.cast(), len));
    let q = ok!(mmap(
        0,
        1 << 40,
        libc::PROT_NONE,
        ANON | libc::MAP_NORESERVE,
        -1,
        0
    ));
    ok!(libc::mprotect(q.add(1 << 30).cast(), PAGE, RW));
    *q.add(1 << 30) = 1;
    ok!(libc::munmap(q.cast(), 1 << 40));
}

unsafe fn many_mappings() {
    // Alternating protections can't merge.
    let n = 2000;
    let p = ok!(mmap(0, n * PAGE, RW, ANON, -1, 0));
    for i in (0..n).step_by(2) {
        ok!(libc::mprotect(
            p.add(i * PAGE).cast(),
            PAGE,
            libc::PROT_READ
        ));
    }
    let lines = read_text("/proc/self/maps").lines().count();
    check!(lines >= n, "{lines}");
    ok!(libc::munmap(p.cast(), n * PAGE));
    check!(read_text("/proc/self/maps").lines().count() < 200);
}
