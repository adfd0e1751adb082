//! What the text itself looks like, and jumps into it.

use super::*;
use crate::util::{self, *};

cases![
    writable_text_is_the_file,
    text_moves_and_goes,
    places_near_text_are_free,
    a_mapping_comes_while_a_thread_waits,
    jumps_to_where_nothing_is,
];

unsafe fn writable_text_is_the_file() {
    let page = Page::warm();
    let address = page.0 as *mut libc::c_void;
    ok!(libc::mprotect(address, 4096, 7));
    check!(*(page.0 as *const [u8; 4096]) == original());
    page.check(20);
    // getpid instead of getppid.
    *((page.0 + GETPPID + 1) as *mut u8) = libc::SYS_getpid as u8;
    for _ in 0..50 {
        eq!(page.getppid(), i64::from(libc::getpid()));
    }
    ok!(libc::mprotect(
        address,
        4096,
        libc::PROT_READ | libc::PROT_EXEC
    ));
    for _ in 0..50 {
        eq!(page.getppid(), i64::from(libc::getpid()));
        eq!(page.any(libc::SYS_getppid), i64::from(libc::getppid()));
    }
    // Another mapping of the file has nothing of it.
    Page::warm();
    // Without the right to run, and with it again.
    let page = Page::warm();
    let address = page.0 as *mut libc::c_void;
    ok!(libc::mprotect(address, 4096, libc::PROT_READ));
    check!(*(page.0 as *const [u8; 4096]) == original());
    ok!(libc::mprotect(
        address,
        4096,
        libc::PROT_READ | libc::PROT_EXEC
    ));
    page.check(50);
}

unsafe fn text_moves_and_goes() {
    let page = Page::warm();
    let to = anon(4096);
    let moved = libc::mremap(
        page.0 as *mut libc::c_void,
        4096,
        4096,
        libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
        to,
    );
    ok!(moved);
    eq!(moved as usize, to as usize);
    check!(*(moved as *const [u8; 4096]) == original());
    Page(moved as usize).check(100);
    ok!(libc::munmap(moved, 4096));
    // Mapped, used and unmapped many times; then other code in its place.
    for _ in 0..20 {
        let page = Page::warm();
        ok!(libc::munmap(page.0 as *mut libc::c_void, 4096));
    }
    let page = Page::warm();
    let other = libc::mmap(
        page.0 as *mut libc::c_void,
        4096,
        7,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
        -1,
        0,
    );
    ok!(other);
    let code = [0xb8u8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3];
    std::ptr::copy_nonoverlapping(code.as_ptr(), other.cast(), code.len());
    for _ in 0..50 {
        eq!(page.getppid(), i64::from(libc::getpid()));
    }
}

/// Distances at which something could be hidden near text.
const DISTANCES: [i64; 8] = [
    0x6000_0000,
    0x3000_0000,
    0x7000_0000,
    -0x7000_0000,
    0x0600_0000,
    -0x0600_0000,
    0x1000_0000,
    -0x1000_0000,
];

unsafe fn occupy(from: usize) -> usize {
    let mut count = 0;
    for distance in DISTANCES {
        let at = (from as i64 + distance) as usize & !4095;
        // A place that is taken, or none at all, is of no interest.
        let p = libc::mmap(
            at as *mut libc::c_void,
            0x1_0000,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        );
        if p as usize != at {
            continue;
        }
        count += 1;
        let bytes = std::slice::from_raw_parts_mut(p.cast::<u8>(), 0x1_0000);
        check!(bytes.iter().all(|&byte| byte == 0));
        bytes.fill(0xcc);
    }
    count
}

unsafe fn places_near_text_are_free() {
    let page = Page::warm();
    let text = here() & !0xfff;
    check!(occupy(page.0) > 0);
    occupy(text);
    page.check(100);
    Page::warm();
    // The libc's own calls.
    for _ in 0..100 {
        err!(libc::EBADF, libc::close(-1));
    }
}

unsafe fn a_mapping_comes_while_a_thread_waits() {
    let page = Page::warm();
    let (r, w) = pipe();
    let reader = std::thread::spawn(move || {
        let mut sum = 0;
        for _ in 0..100 {
            let mut byte = 0u8;
            let address = std::ptr::addr_of_mut!(byte) as usize;
            eq!(page.arguments(libc::SYS_read, r as usize, address, 1), 1);
            sum += usize::from(byte);
        }
        sum
    });
    for i in 0..100u8 {
        if i == 30 {
            sleep_ms(20);
            occupy(page.0);
        }
        if i == 60 {
            // And its own pages come back under it.
            sleep_ms(20);
            let fresh = Page::warm();
            let address = page.0 as *mut libc::c_void;
            ok!(libc::mprotect(address, 4096, 7));
            fresh.check(1);
        }
        write_all(w, &[i]);
    }
    check!(reader.join().is_ok_and(|sum| sum == (0..100).sum()));
}

extern "C" fn give_up(_: i32) {
    unsafe { libc::_exit(0) }
}

unsafe fn jumps_to_where_nothing_is() {
    let page = Page::warm();
    let text = here() & !0xfff;
    for from in [page.0, text] {
        for distance in DISTANCES {
            for offset in (0..36).chain([0x1000, 0xfff0]) {
                let at = (from as i64 + distance + offset) as usize;
                let pid = fork(|| {
                    for signo in [
                        libc::SIGSEGV,
                        libc::SIGILL,
                        libc::SIGBUS,
                        libc::SIGTRAP,
                        libc::SIGSYS,
                        libc::SIGALRM,
                    ] {
                        handle(signo, give_up as *const () as usize, libc::SA_ONSTACK);
                    }
                    libc::alarm(1);
                    // Writable it is not.
                    if offset == 0 {
                        let pid = libc::getpid();
                        let local = libc::iovec {
                            iov_base: std::ptr::addr_of!(at).cast_mut().cast(),
                            iov_len: 8,
                        };
                        let remote = libc::iovec {
                            iov_base: at as *mut libc::c_void,
                            iov_len: 8,
                        };
                        check!(libc::process_vm_writev(pid, &local, 1, &remote, 1, 0) <= 0);
                    }
                    std::arch::asm!(
                        "mov eax, 231", // exit_group, if that is what it becomes
                        "xor edi, edi",
                        "mov rcx, r12",
                        "mov r11, r12",
                        "jmp r12",
                        in("r12") at,
                        options(noreturn),
                    );
                });
                util::wait(pid);
            }
        }
    }
    page.check(20);
}
