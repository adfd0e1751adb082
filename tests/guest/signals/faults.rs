//! Signals that an instruction raises: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::util::{self, *};

cases![
    segv_info_and_ucontext,
    segv_map_and_access_codes,
    segv_skip_instruction,
    sigbus_beyond_file_end,
    sigfpe_divide,
    sigill_instruction,
    sigtrap_int3,
    blocked_segv_kills,
];

static ADDR: AtomicUsize = AtomicUsize::new(0);

extern "C" fn fix_page(_: i32, si: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        let addr = (*si).si_addr() as usize;
        ADDR.store(addr, SeqCst);
        CODE.store((*si).si_code, SeqCst);
        let uc = &*uc.cast::<libc::ucontext_t>();
        VALUE.store(uc.uc_mcontext.gregs[libc::REG_ERR as usize], SeqCst);
        PID.store(
            uc.uc_mcontext.gregs[libc::REG_TRAPNO as usize] as i32,
            SeqCst,
        );
        check!(uc.uc_mcontext.gregs[libc::REG_CR2 as usize] as usize == addr);
        COUNT.fetch_add(1, SeqCst);
        libc::mprotect(
            (addr & !4095) as *mut _,
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
        );
    }
}

unsafe fn segv_info_and_ucontext() {
    handle(libc::SIGSEGV, fp3(fix_page), libc::SA_SIGINFO);
    let p = anon(8192);
    ok!(libc::mprotect(p.cast(), 8192, libc::PROT_READ));
    eq!(p.add(5000).read_volatile(), 0);
    p.add(5000).write_volatile(7);
    eq!(COUNT.load(SeqCst), 1);
    eq!(ADDR.load(SeqCst), p as usize + 5000);
    eq!(CODE.load(SeqCst), 2); // SEGV_ACCERR
    eq!(PID.load(SeqCst), 14);
    eq!(VALUE.load(SeqCst) & 7, 7); // present, write, user
    eq!(p.add(5000).read_volatile(), 7);
    ok!(libc::mprotect(p.cast(), 4096, libc::PROT_NONE));
    eq!(p.add(1).read_volatile(), 0);
    eq!(VALUE.load(SeqCst) & 6, 4); // read, user
}

extern "C" fn note_and_jump(_: i32, si: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        ADDR.store((*si).si_addr() as usize, SeqCst);
        CODE.store((*si).si_code, SeqCst);
        SIGNO.store((*si).si_signo, SeqCst);
        let uc = &mut *uc.cast::<libc::ucontext_t>();
        // r12 holds where to go on.
        uc.uc_mcontext.gregs[libc::REG_RIP as usize] = uc.uc_mcontext.gregs[libc::REG_R12 as usize];
        uc.uc_mcontext.gregs[libc::REG_RAX as usize] = 0x55;
    }
}

unsafe fn segv_map_and_access_codes() {
    handle(libc::SIGSEGV, fp3(note_and_jump), libc::SA_SIGINFO);
    eq!(load(0x10), 0x55);
    eq!((CODE.load(SeqCst), ADDR.load(SeqCst)), (1, 0x10)); // SEGV_MAPERR
    let p = anon(4096);
    ok!(libc::mprotect(p.cast(), 4096, libc::PROT_NONE));
    eq!(load(p as usize), 0x55);
    eq!((CODE.load(SeqCst), ADDR.load(SeqCst)), (2, p as usize));
    ok!(libc::munmap(p.cast(), 4096));
    eq!(load(p as usize + 8), 0x55);
    eq!((CODE.load(SeqCst), ADDR.load(SeqCst)), (1, p as usize + 8));
    // A non-canonical address gives no address.
    eq!(load(0x8000_0000_0000_0000), 0x55);
    eq!((CODE.load(SeqCst), ADDR.load(SeqCst)), (libc::SI_KERNEL, 0));
    // Kernel addresses look unmapped.
    eq!(load(0xffff_ffff_8000_0000), 0x55);
    eq!(CODE.load(SeqCst), 1);
}

unsafe fn segv_skip_instruction() {
    handle(libc::SIGSEGV, fp3(note_and_jump), libc::SA_SIGINFO);
    for _ in 0..1000 {
        eq!(load(0x20), 0x55);
    }
}

unsafe fn sigbus_beyond_file_end() {
    handle(libc::SIGBUS, fp3(note_and_jump), libc::SA_SIGINFO);
    write_file("f", &[1; 100]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(libc::mmap(
        std::ptr::null_mut(),
        8192,
        libc::PROT_READ,
        libc::MAP_SHARED,
        fd,
        0
    )) as usize;
    eq!(load(p) as u8, 1);
    eq!(load(p + 104), 0);
    eq!(load(p + 4096), 0x55);
    eq!(
        (SIGNO.load(SeqCst), CODE.load(SeqCst), ADDR.load(SeqCst)),
        (libc::SIGBUS, 2, p + 4096)
    );
    ok!(libc::ftruncate(fd, 0));
    eq!(load(p), 0x55);
    ok!(libc::ftruncate(fd, 8192));
    eq!(load(p + 4096), 0);
}

unsafe fn sigfpe_divide() {
    handle(libc::SIGFPE, fp3(note_and_jump), libc::SA_SIGINFO);
    let out: u64;
    std::arch::asm!(
        "lea r12, [rip + 2f]",
        "lea r13, [rip + 3f]",
        "xor edx, edx",
        "mov eax, 1",
        "xor ecx, ecx",
        "3:",
        "div ecx",
        "2:",
        out("rax") out, out("r12") _, out("r13") _, out("rcx") _, out("rdx") _,
    );
    eq!(out, 0x55);
    eq!((SIGNO.load(SeqCst), CODE.load(SeqCst)), (libc::SIGFPE, 1)); // FPE_INTDIV
}

unsafe fn sigill_instruction() {
    handle(libc::SIGILL, fp3(note_and_jump), libc::SA_SIGINFO);
    let (out, at): (u64, u64);
    std::arch::asm!(
        "lea r12, [rip + 2f]",
        "lea r13, [rip + 3f]",
        "3:",
        "ud2",
        "2:",
        out("rax") out, out("r12") _, out("r13") at,
    );
    eq!(out, 0x55);
    eq!((SIGNO.load(SeqCst), CODE.load(SeqCst)), (libc::SIGILL, 2)); // ILL_ILLOPN
    eq!(ADDR.load(SeqCst), at as usize);
}

unsafe fn sigtrap_int3() {
    handle(libc::SIGTRAP, fp3(info), libc::SA_SIGINFO);
    std::arch::asm!("int3");
    eq!(COUNT.load(SeqCst), 1);
    eq!(CODE.load(SeqCst), libc::SI_KERNEL);
}

unsafe fn blocked_segv_kills() {
    let pid = fork(|| {
        on(libc::SIGSEGV, 0);
        block(&[libc::SIGSEGV]);
        load(8);
        libc::_exit(1);
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
    let pid = fork(|| {
        libc::signal(libc::SIGSEGV, libc::SIG_IGN);
        load(8);
        libc::_exit(1);
    });
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGSEGV);
}
