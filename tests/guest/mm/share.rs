//! Memory shared or copied between processes and threads: fork(2), MAP_SHARED.

use super::*;
use crate::util::*;

cases![
    shared_anonymous_over_fork,
    private_copy_on_write,
    fork_keeps_mappings,
    threads_see_mappings,
    concurrent_mmap_and_faults,
    shared_memory_between_unrelated,
];

unsafe fn shared_anonymous_over_fork() {
    let p = mmap(
        0,
        4 * PAGE,
        RW,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        -1,
        0,
    );
    *p.add(PAGE) = 1;
    in_child(|| {
        eq!(*p.add(PAGE), 1);
        *p.add(3 * PAGE) = 2;
        in_child(|| *p = 3);
    });
    eq!((*p, *p.add(3 * PAGE)), (3, 2));
}

unsafe fn private_copy_on_write() {
    let p = anon(256 * PAGE);
    for i in 0..256 {
        *p.add(i * PAGE) = i as u8;
    }
    let kids: Vec<i32> = (0..4u8)
        .map(|k| {
            fork(|| {
                for i in 0..256 {
                    eq!(*p.add(i * PAGE), i as u8);
                    *p.add(i * PAGE) = k;
                }
                for i in 0..256 {
                    eq!(*p.add(i * PAGE), k);
                }
            })
        })
        .collect();
    for i in 0..256 {
        eq!(*p.add(i * PAGE), i as u8);
    }
    for k in kids {
        wait_ok(k);
    }
}

unsafe fn fork_keeps_mappings() {
    let p = anon(2 * PAGE);
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_READ));
    let before = read_text("/proc/self/maps").lines().count();
    in_child(|| {
        eq!(store_fault(p, 1), libc::SIGSEGV);
        eq!(store_fault(p.add(PAGE), 1), 0);
        let after = read_text("/proc/self/maps").lines().count();
        check!(
            after.abs_diff(before) <= 1,
            "{before} mappings, {after} in the child"
        );
        ok!(libc::munmap(p.cast(), 2 * PAGE));
    });
    *p.add(PAGE) = 1;
}

unsafe fn threads_see_mappings() {
    let t = std::thread::spawn(|| {
        let p = anon(PAGE);
        *p = 42;
        p as usize
    });
    let p = t.join().unwrap_or(0) as *mut u8;
    eq!(*p, 42);
    ok!(libc::munmap(p.cast(), PAGE));
}

unsafe fn concurrent_mmap_and_faults() {
    let threads: Vec<_> = (0..4u8)
        .map(|k| {
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let p = anon(8 * PAGE);
                    for i in 0..8 {
                        *p.add(i * PAGE) = k;
                    }
                    ok!(libc::mprotect(p.cast(), 4 * PAGE, libc::PROT_READ));
                    eq!(*p.add(PAGE), k);
                    ok!(libc::munmap(p.cast(), 8 * PAGE));
                }
            })
        })
        .collect();
    for t in threads {
        check!(t.join().is_ok());
    }
}

unsafe fn shared_memory_between_unrelated() {
    write_file("shm", &[0; PAGE]);
    let map = || {
        let fd = open("shm", libc::O_RDWR);
        ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0))
    };
    let a = fork(|| {
        let p = map();
        *p = 1;
        check!(eventually(|| p.add(1).read_volatile() == 2));
    });
    let b = fork(|| {
        let p = map();
        check!(eventually(|| p.read_volatile() == 1));
        *p.add(1) = 2;
    });
    wait_ok(a);
    wait_ok(b);
}
