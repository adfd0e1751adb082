//! Access rights: mprotect(2), pkeys(7), mseal(2).

use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::util::{self, *};

cases![
    mprotect_faults,
    mprotect_splits,
    mprotect_errors,
    execute_from_memory,
    noexec_faults,
    pkey_refusal,
    mseal_or_enosys,
    mprotect_stack_guard,
    read_implies_no_exec,
];

/// Permission letters of the mapping that holds `addr`, if any.
fn perms(addr: usize) -> Option<String> {
    vma(addr).map(|v| v.2)
}

unsafe fn mprotect_faults() {
    let p = anon(PAGE);
    eq!(store_fault(p, 3), 0);
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_READ));
    eq!(load_fault(p), 0);
    eq!(store_fault(p, 4), libc::SIGSEGV);
    eq!(ADDR.load(SeqCst), p as usize);
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_NONE));
    eq!(load_fault(p), libc::SIGSEGV);
    ok!(libc::mprotect(p.cast(), PAGE, RW));
    eq!(*p, 3);
    eq!(store_fault(p, 4), 0);
}

unsafe fn mprotect_splits() {
    let p = mmap(0x3000_0000, 5 * PAGE, RW, ANON | libc::MAP_FIXED, -1, 0) as usize;
    ok!(libc::mprotect(
        (p + 2 * PAGE) as *mut _,
        PAGE,
        libc::PROT_READ
    ));
    eq!(perms(p).as_deref(), Some("rw-p"));
    eq!(perms(p + 2 * PAGE).as_deref(), Some("r--p"));
    eq!(perms(p + 3 * PAGE).as_deref(), Some("rw-p"));
    ok!(libc::mprotect((p + 2 * PAGE) as *mut _, PAGE, RW));
    eq!(vma(p).map(|v| (v.0, v.1)), Some((p, p + 5 * PAGE)));
}

unsafe fn mprotect_errors() {
    let p = anon(3 * PAGE);
    err!(libc::EINVAL, libc::mprotect(p.add(1).cast(), PAGE, RW));
    ok!(libc::mprotect(p.cast(), 0, RW));
    ok!(libc::munmap(p.add(PAGE).cast(), PAGE));
    // The part before the hole is changed.
    err!(
        libc::ENOMEM,
        libc::mprotect(p.cast(), 3 * PAGE, libc::PROT_READ)
    );
    eq!(store_fault(p, 1), libc::SIGSEGV);
    eq!(store_fault(p.add(2 * PAGE), 1), 0);
    err!(
        libc::ENOMEM,
        libc::mprotect((1usize << 46) as *mut _, PAGE, RW)
    );
    err!(libc::EINVAL, libc::mprotect(p.cast(), PAGE, 0x4000_0000));
}

unsafe fn execute_from_memory() {
    let p = anon(PAGE);
    // mov eax, 42; ret
    std::ptr::copy_nonoverlapping([0xb8, 42, 0, 0, 0, 0xc3].as_ptr(), p, 6);
    ok!(libc::mprotect(
        p.cast(),
        PAGE,
        libc::PROT_READ | libc::PROT_EXEC
    ));
    let f: extern "C" fn() -> i32 = std::mem::transmute(p);
    eq!(f(), 42);
    // Code changed in place, writable and executable at once.
    ok!(libc::mprotect(p.cast(), PAGE, RW | libc::PROT_EXEC));
    *p.add(1) = 43;
    eq!(f(), 43);
}

unsafe fn noexec_faults() {
    let p = anon(PAGE);
    *p = 0xc3;
    let pid = fork(|| {
        let f: extern "C" fn() = std::mem::transmute(p);
        f();
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
}

unsafe fn pkey_refusal() {
    // Either protection keys work or they are refused as on CPUs without.
    let key = sys!(libc::SYS_pkey_alloc, 0, 0);
    if key == -1 {
        check!(errno() == libc::ENOSPC || errno() == libc::ENOSYS || errno() == libc::EINVAL);
    } else {
        ok!(sys!(libc::SYS_pkey_free, key));
    }
    let p = anon(PAGE);
    ok!(sys!(libc::SYS_pkey_mprotect, p, PAGE, RW, -1));
}

unsafe fn mseal_or_enosys() {
    let p = anon(PAGE);
    let r = sys!(462, p, PAGE, 0);
    if r == -1 {
        eq!(errno(), libc::ENOSYS);
        return;
    }
    err!(libc::EPERM, libc::munmap(p.cast(), PAGE));
    err!(libc::EPERM, libc::mprotect(p.cast(), PAGE, libc::PROT_READ));
    *p = 1;
}

unsafe fn mprotect_stack_guard() {
    // A guard page in the middle of an allocation, as thread libraries make.
    let p = ok!(mmap(
        0,
        16 * PAGE,
        libc::PROT_NONE,
        ANON | libc::MAP_STACK,
        -1,
        0
    ));
    ok!(libc::mprotect(p.add(PAGE).cast(), 15 * PAGE, RW));
    eq!(store_fault(p, 1), libc::SIGSEGV);
    eq!(store_fault(p.add(PAGE), 1), 0);
}

unsafe fn read_implies_no_exec() {
    let p = mmap(
        0x7200_0000,
        PAGE,
        libc::PROT_READ,
        ANON | libc::MAP_FIXED,
        -1,
        0,
    ) as usize;
    eq!(perms(p).as_deref(), Some("r--p"));
    let w = mmap(
        0x7200_0000,
        PAGE,
        libc::PROT_WRITE,
        ANON | libc::MAP_FIXED,
        -1,
        0,
    ) as usize;
    eq!(perms(w).as_deref(), Some("-w-p"));
    // On x86 write access implies read access.
    eq!(load_fault(w as *const u8), 0);
}
