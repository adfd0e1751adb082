//! Memory that is not the guest's.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::util::{self, *};

cases![
    high_memory_is_not_writable,
    jumps_into_high_memory,
    map_over_everything,
    unmap_everything,
    self_modifying_code,
    fault_storm,
    exec_carries_nothing_over,
    read_only_mappings_stay_so,
];

unsafe fn faulting_store(p: usize) -> bool {
    SIGNO.store(0, SeqCst);
    std::arch::asm!("lea r12, [rip + 2f]", "lock or byte ptr [{p}], 0", "2:", p = in(reg) p, out("r12") _);
    SIGNO.load(SeqCst) != 0
}

/// Mapped ranges according to /proc, or none when it can't be read.
fn mapped() -> Vec<(usize, usize)> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    text.lines()
        .filter_map(|l| {
            let (a, b) = l.split(' ').next()?.split_once('-')?;
            Some((
                usize::from_str_radix(a, 16).ok()?,
                usize::from_str_radix(b, 16).ok()?,
            ))
        })
        .collect()
}

/// Pages above 0x7fff_0000_0000 that can be read although /proc does not list
/// them: what the runtime keeps there.
unsafe fn hidden_pages() -> Vec<usize> {
    catch();
    let maps = mapped();
    let mut found = Vec::new();
    let mut at = 0x7ffe_0000_0000usize;
    while at < 0x7fff_ffff_f000 && found.len() < 200 {
        // A touch below a stack would make it grow.
        if let Some(m) = maps
            .iter()
            .find(|m| (m.0.saturating_sub(16 << 20)..m.1).contains(&at))
        {
            at = m.1;
            continue;
        }
        if faulting_load(at) {
            // Coarse steps over nothing; region starts are aligned.
            at += 0x10_0000;
        } else {
            found.push(at);
            at += 4096;
        }
    }
    found
}

unsafe fn high_memory_is_not_writable() {
    in_child(|| {
        libc::alarm(15);
        for page in hidden_pages() {
            // Windows for data may be writable; code must not be.
            let writable = !faulting_store(page);
            let words = std::slice::from_raw_parts(page as *const u8, 4096);
            let code = words.windows(2).filter(|w| *w == [0x0f, 0x05]).count();
            check!(
                !(writable && code > 3),
                "page {page:#x} is writable and holds system call instructions"
            );
        }
    });
}

unsafe fn jumps_into_high_memory() {
    let pages = hidden_pages();
    let mut seed = 7u64;
    for page in pages.iter().take(12) {
        for _ in 0..4 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            let target = page + (seed >> 40) as usize % 4096;
            may_die(|| {
                std::arch::asm!(
                    "mov rdi, {r}", "mov rsi, {r}", "mov rdx, {r}", "mov r10, {r}", "mov r8, {r}", "mov r9, {r}",
                    "mov rax, 9", "mov r13, {r}", "mov r14, {r}", "mov r15, {r}", "jmp {t}",
                    r = in(reg) seed & 0xffff_ffff, t = in(reg) target, options(noreturn)
                );
            });
        }
    }
}

unsafe fn map_over_everything() {
    // Fixed mappings over what the guest does not own are refused.
    in_child(|| {
        let maps = mapped();
        for page in hidden_pages().iter().take(50) {
            let r = libc::mmap(
                *page as *mut _,
                4096,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            );
            check!(r == libc::MAP_FAILED, "mapped over {page:#x}");
            check!(libc::mprotect(*page as *mut _, 4096, 7) == -1);
        }
        let _ = maps;
        check!(
            libc::mmap(
                0x7fff_ffff_f000 as *mut _,
                4096,
                7,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0
            ) == libc::MAP_FAILED
        );
    });
}

unsafe fn unmap_everything() {
    may_die(|| {
        sys!(libc::SYS_munmap, 0x1_0000, 0x7fff_ffff_f000u64 - 0x1_0000);
        libc::_exit(1);
    });
    may_die(|| {
        for at in (0..0x7fffu64).rev() {
            sys!(libc::SYS_munmap, at << 32, 1u64 << 32);
        }
    });
    may_die(|| {
        sys!(libc::SYS_mprotect, 0x1_0000, 0x7fff_0000_0000u64, 0);
    });
}

unsafe fn self_modifying_code() {
    let p = libc::mmap(
        std::ptr::null_mut(),
        4096,
        7,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        -1,
        0,
    )
    .cast::<u8>();
    ok!(p);
    // mov eax, imm32; syscall; ret — the number changes between calls.
    for (nr, expected) in [
        (39u32, libc::getpid()),
        (186, libc::getpid()),
        (110, libc::getppid()),
    ] {
        for _ in 0..50 {
            let mut code = vec![0xb8];
            code.extend(nr.to_le_bytes());
            code.extend([0x0f, 0x05, 0xc3]);
            std::ptr::copy_nonoverlapping(code.as_ptr(), p, code.len());
            let f: extern "C" fn() -> i64 = std::mem::transmute(p);
            eq!(f(), i64::from(expected));
        }
    }
    // A jump right to the system call instruction.
    let out: i64;
    std::arch::asm!("mov eax, 39", "call {f}", f = in(reg) p as usize + 5, inout("rax") 0i64 => out, out("rcx") _, out("r11") _);
    eq!(out, i64::from(libc::getpid()));
}

unsafe fn fault_storm() {
    catch();
    for i in 0..5000usize {
        check!(faulting_load(i % 8 * 8));
    }
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                static N: AtomicUsize = AtomicUsize::new(0);
                for _ in 0..1000 {
                    std::arch::asm!("lea r12, [rip + 2f]", "ud2", "2:", out("r12") _);
                    N.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for t in threads {
        check!(t.join().is_ok());
    }
}

unsafe fn exec_carries_nothing_over() {
    let exe = crate::helpers::exe();
    let child = fork(|| {
        catch();
        let maps = mapped();
        for at in plantable() {
            let listed = maps.iter().any(|m| (m.0..m.1).contains(&at));
            if !listed && !faulting_store(at) {
                (at as *mut u64).write_volatile(PLANTED);
            }
        }
        let argv = [exe.as_ptr(), c"scan-planted".as_ptr(), std::ptr::null()];
        libc::execv(exe.as_ptr(), argv.as_ptr());
    });
    let status = util::wait(child);
    check!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "status {status:#x}"
    );
}

/// Where stubs of systrap make host calls for app threads.
const STUB_CALLS: std::ops::Range<usize> = 0x7fff_0001_5000..0x7fff_0001_6000;

/// The `syscall` instruction of stub text with which a thread exits: of all of
/// them the one behind which a stray thread does the least. The host's filter
/// makes no difference between them. 0 where there is no stub.
unsafe fn stub_exit_site() -> usize {
    let byte = |at: usize| {
        let out: u64;
        SIGNO.store(0, SeqCst);
        std::arch::asm!("lea r12, [rip + 2f]", "movzx {o}, byte ptr [{a}]", "2:", o = out(reg) out, a = in(reg) at, out("r12") _);
        (SIGNO.load(SeqCst) == 0).then_some(out as u8)
    };
    if byte(STUB_CALLS.start).is_none() {
        return 0;
    }
    let text: Vec<u8> = STUB_CALLS.filter_map(byte).collect();
    // mov eax, 60; syscall
    let exit = [0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    match text.windows(exit.len()).position(|code| code == exit) {
        Some(at) => STUB_CALLS.start + at + 5,
        None => usize::MAX,
    }
}

/// Makes pages writable by calls that the kernel does not see, if the host
/// lets it, and stores into them.
unsafe fn force_writes(pages: &[*mut u8]) {
    let state = libc::mmap(
        std::ptr::null_mut(),
        4096,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        -1,
        0,
    );
    let state = &*ok!(state).cast::<AtomicI32>();
    fork(|| {
        catch();
        let site = stub_exit_site();
        if site == 0 || site == usize::MAX {
            state.store(if site == 0 { 1 } else { 2 }, SeqCst);
            return;
        }
        for &page in pages {
            let at = page as usize;
            std::thread::spawn(move || {
                std::arch::asm!(
                    "jmp {site}", site = in(reg) site, in("rax") 10u64, in("rdi") at,
                    in("rsi") 4096u64, in("rdx") 3u64, options(noreturn),
                );
            });
        }
        let end = now_ms() + 30;
        while now_ms() < end {
            for &page in pages {
                std::arch::asm!("lea r12, [rip + 2f]", "mov byte ptr [{p}], 0x58", "2:", p = in(reg) page, out("r12") _);
            }
        }
        state.store(1, SeqCst);
    });
    // The process itself may take long to end: its threads have gone behind
    // the kernel's back.
    let end = now_ms() + 10_000;
    while state.load(SeqCst) == 0 && now_ms() < end {
        sleep_ms(5);
    }
    eq!(state.load(SeqCst), 1);
}

/// What was opened for reading alone stays unwritten, also where guest code
/// can change protections behind the kernel's back.
unsafe fn read_only_mappings_stay_so() {
    let map = |fd: i32, prot: i32| {
        libc::mmap(std::ptr::null_mut(), 4096, prot, libc::MAP_SHARED, fd, 0).cast::<u8>()
    };
    let memfd = ok!(libc::memfd_create(c"test".as_ptr(), 0));
    ok!(libc::ftruncate(memfd, 4096));
    write_file("f", &[0; 4096]);
    let file = open("f", libc::O_RDWR);
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let own = open(&format!("/proc/self/fd/{memfd}"), libc::O_RDONLY);
    let id = ok!(libc::shmget(libc::IPC_PRIVATE, 4096, 0o600));
    let shared = ok!(libc::shmat(id, std::ptr::null(), 0)).cast::<u8>();
    let attached = ok!(libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY)).cast::<u8>();
    libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
    let pairs = [
        (ok!(map(memfd, rw)), ok!(map(own, libc::PROT_READ))),
        (
            ok!(map(file, rw)),
            ok!(map(open("f", libc::O_RDONLY), libc::PROT_READ)),
        ),
        (shared, attached),
    ];
    for (_, page) in pairs {
        err!(
            libc::EACCES,
            libc::mprotect(page.cast(), 4096, libc::PROT_WRITE)
        );
    }
    force_writes(&pairs.map(|(_, page)| page));
    for (writable, page) in pairs {
        eq!(*writable, 0);
        // Writes by who may write are seen there.
        *writable = 7;
        eq!(*page, 7);
    }
}
