//! Calls made over and over from the same places, which the sentry may take a
//! faster way for: whatever it does to the text is not to be noticed.
//!
//! Most cases map a page of this program's own code once more, so that its
//! places are fresh.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};

use crate::util::{self, *};

cases![
    registers_are_kept,
    handlers_see_the_program,
    jumps_to_the_call_itself,
    writable_text_is_the_file,
    text_moves_and_goes,
    places_near_text_are_free,
    a_mapping_comes_while_a_thread_waits,
    children_go_on,
    threads_meet_new_places,
    debuggers_step_over,
    debuggers_read_the_file,
    jumps_to_where_nothing_is,
    segment_base_games,
    interrupted_and_restarted,
    flags_of_all_kinds,
    yields_are_seen_by_who_watches,
];

std::arch::global_asm!(
    ".pushsection .text.calls,\"ax\",@progbits",
    ".balign 4096",
    ".global calls_page",
    "calls_page:",
    // 0: getppid.
    "mov eax, 110",
    "syscall",
    "ret",
    // 16: any call without arguments.
    ".balign 16",
    "mov rax, rdi",
    "syscall",
    "cmp rax, -4095",
    "jae 2f",
    "2:",
    "ret",
    // 32: the same with nothing between the call and the return.
    ".balign 16, 0x90",
    "mov rax, rdi",
    "syscall",
    "ret",
    ".byte 0x66, 0x66, 0x66, 0x90, 0x66, 0x90",
    // 48: three arguments after the number.
    ".balign 16",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "syscall",
    "cmp rax, -4095",
    "jae 2f",
    "2:",
    "ret",
    ".balign 4096",
    ".popsection",
);

unsafe extern "C" {
    static calls_page: [u8; 4096];
}

const GETPPID: usize = 0;
const ANY: usize = 16;
const RETURN: usize = 32;
const ARGUMENTS: usize = 48;

/// Where instructions begin that a handler may be told of.
const BOUNDARIES: [usize; 19] = [
    0, 5, 7, 16, 19, 21, 27, 29, 32, 35, 37, 48, 51, 54, 57, 60, 62, 68, 70,
];

/// Where this program has the page.
fn here() -> usize {
    std::ptr::addr_of!(calls_page) as usize
}

/// A copy of the page, mapped from the file.
#[derive(Clone, Copy)]
struct Page(usize);

impl Page {
    /// Where the page is in this program's file.
    unsafe fn offset() -> i64 {
        let maps = read_text("/proc/self/maps");
        let offset = maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            let offset = usize::from_str_radix(rest.split(' ').nth(1)?, 16).ok()?;
            (start..end)
                .contains(&here())
                .then_some(offset + here() - start)
        });
        match offset {
            Some(offset) => offset as i64,
            None => util::skip("the text is no mapping of a file"),
        }
    }

    unsafe fn new() -> Self {
        let fd = open("/proc/self/exe", libc::O_RDONLY);
        let at = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            fd,
            Self::offset(),
        );
        ok!(at);
        ok!(libc::close(fd));
        Self(at as usize)
    }

    /// One whose places have been used.
    unsafe fn warm() -> Self {
        let page = Self::new();
        page.check(100);
        page
    }

    unsafe fn getppid(self) -> i64 {
        let f: extern "C" fn() -> i64 = std::mem::transmute(self.0 + GETPPID);
        f()
    }

    unsafe fn any(self, nr: i64) -> i64 {
        let f: extern "C" fn(i64) -> i64 = std::mem::transmute(self.0 + ANY);
        f(nr)
    }

    unsafe fn returning(self, nr: i64) -> i64 {
        let f: extern "C" fn(i64) -> i64 = std::mem::transmute(self.0 + RETURN);
        f(nr)
    }

    unsafe fn arguments(self, nr: i64, a: usize, b: usize, c: usize) -> i64 {
        let f: extern "C" fn(i64, usize, usize, usize) -> i64 =
            std::mem::transmute(self.0 + ARGUMENTS);
        f(nr, a, b, c)
    }

    /// All places, `times` each.
    unsafe fn check(self, times: usize) {
        let (pid, parent) = (i64::from(libc::getpid()), i64::from(libc::getppid()));
        for _ in 0..times {
            eq!(self.getppid(), parent);
            eq!(self.any(libc::SYS_getpid), pid);
            eq!(self.any(0x7fff_ffff), -i64::from(libc::ENOSYS));
            eq!(self.returning(libc::SYS_getppid), parent);
            let closed = self.arguments(libc::SYS_close, usize::MAX, 0, 0);
            eq!(closed, -i64::from(libc::EBADF));
        }
    }
}

unsafe fn registers_are_kept() {
    let page = Page::new();
    for place in [GETPPID, ANY, RETURN] {
        for round in 0..200u64 {
            let mut regs: [u64; 16] = std::array::from_fn(|i| round << 32 | i as u64);
            regs[5] = libc::SYS_getppid as u64;
            let vectors: [u128; 4] = std::array::from_fn(|i| u128::from(round) << 70 | i as u128);
            let mut vectors_after = [0u128; 4];
            let before = regs;
            std::arch::asm!(
                "push rbx",
                "push rbp",
                "mov r12, rax",
                "movdqu xmm0, [rcx]",
                "movdqu xmm1, [rcx + 16]",
                "movdqu xmm7, [rcx + 32]",
                "movdqu xmm15, [rcx + 48]",
                "push rdx",
                "push rax",
                "mov r13, rdi",
                "mov rdx, [r12 + 8]",
                "mov rsi, [r12 + 16]",
                "mov rbp, [r12 + 24]",
                "mov r8, [r12 + 32]",
                "mov rdi, [r12 + 40]",
                "mov r9, [r12 + 48]",
                "mov r10, [r12 + 56]",
                "mov rbx, [r12 + 64]",
                "mov r14, [r12 + 72]",
                "mov r15, [r12 + 80]",
                "mov qword ptr [rsp - 128], 77", // the red zone
                "sub rsp, 256",
                "mov qword ptr [rsp - 100], 78",
                "call r13",
                "mov r11, [rsp - 100]",
                "add rsp, 256",
                "mov [r12 + 88], r11",
                "mov [r12 + 8], rdx",
                "mov [r12 + 16], rsi",
                "mov [r12 + 24], rbp",
                "mov [r12 + 32], r8",
                "mov [r12 + 40], rdi",
                "mov [r12 + 48], r9",
                "mov [r12 + 56], r10",
                "mov [r12 + 64], rbx",
                "mov [r12 + 72], r14",
                "mov [r12 + 80], r15",
                "mov [r12], rax",
                "pop rax",
                "pop rdx",
                "movdqu [rdx], xmm0",
                "movdqu [rdx + 16], xmm1",
                "movdqu [rdx + 32], xmm7",
                "movdqu [rdx + 48], xmm15",
                "pop rbp",
                "pop rbx",
                inout("rax") regs.as_mut_ptr() => _,
                inout("rcx") vectors.as_ptr() => _,
                inout("rdx") vectors_after.as_mut_ptr() => _,
                inout("rdi") page.0 + place => _,
                out("rsi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                out("xmm0") _, out("xmm1") _, out("xmm7") _, out("xmm15") _,
            );
            eq!(regs[0], libc::getppid() as u64);
            // What lies below the stack pointer is not touched by a call.
            eq!(regs[11], 78);
            eq!(regs[1..11], before[1..11]);
            eq!(vectors_after, vectors);
        }
    }
}

/// The page as the file has it.
unsafe fn original() -> [u8; 4096] {
    let mut bytes = [0; 4096];
    let fd = open("/proc/self/exe", libc::O_RDONLY);
    let len = libc::pread(fd, bytes.as_mut_ptr().cast(), 4096, Page::offset());
    eq!(len, 4096);
    ok!(libc::close(fd));
    bytes
}

static SEEN: AtomicU64 = AtomicU64::new(0);
static STRAY: AtomicUsize = AtomicUsize::new(0);
static PAGE: AtomicUsize = AtomicUsize::new(0);
static KNOWN: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

extern "C" fn look(_: i32, _: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    let uc = unsafe { &*uc.cast::<libc::ucontext_t>() };
    let rip = uc.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    let page = PAGE.load(SeqCst);
    if (page..page + 4096).contains(&rip) {
        SEEN.fetch_add(1, SeqCst);
        if !BOUNDARIES.contains(&(rip - page)) {
            STRAY.store(rip - page, SeqCst);
        }
    } else if !(KNOWN[0].load(SeqCst)..KNOWN[1].load(SeqCst)).contains(&rip) {
        STRAY.store(rip, SeqCst);
    }
}

unsafe fn handlers_see_the_program() {
    let page = Page::new();
    PAGE.store(page.0, SeqCst);
    // The program's own text.
    let here = here();
    let maps = read_text("/proc/self/maps");
    for line in maps.lines() {
        let range = line.split(' ').next().unwrap_or("");
        let ends: Vec<_> = range
            .split('-')
            .filter_map(|end| usize::from_str_radix(end, 16).ok())
            .collect();
        if ends[0] <= here && here < ends[1] {
            KNOWN[0].store(ends[0], SeqCst);
            KNOWN[1].store(ends[1], SeqCst);
        }
    }
    handle(
        libc::SIGUSR1,
        look as *const () as usize,
        libc::SA_SIGINFO | libc::SA_RESTART,
    );
    let (pid, tid) = (libc::getpid(), libc::gettid());
    let done = std::thread::spawn(move || {
        for _ in 0..20_000 {
            sys!(libc::SYS_tgkill, pid, tid, libc::SIGUSR1);
        }
    });
    while !done.is_finished() {
        page.check(20);
    }
    check!(done.join().is_ok());
    eq!(STRAY.load(SeqCst), 0, "a handler was told of an odd place");
    check!(SEEN.load(SeqCst) > 0);
}

unsafe fn jumps_to_the_call_itself() {
    let page = Page::warm();
    for _ in 0..50 {
        for (at, nr, expected) in [
            (GETPPID + 5, libc::SYS_getpid, libc::getpid()),
            (ANY + 3, libc::SYS_getppid, libc::getppid()),
            (RETURN + 3, libc::SYS_getppid, libc::getppid()),
        ] {
            let out: i64;
            std::arch::asm!("call {f}", f = in(reg) page.0 + at, inout("rax") nr => out, out("rcx") _, out("r11") _);
            eq!(out, i64::from(expected));
        }
        // Right behind the calls.
        for at in [GETPPID + 7, ANY + 5, RETURN + 5] {
            let out: i64;
            std::arch::asm!("call {f}", f = in(reg) page.0 + at, inout("rax") 1234i64 => out, out("rcx") _, out("r11") _);
            eq!(out, 1234);
        }
    }
    page.check(10);
}

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

unsafe fn children_go_on() {
    let page = Page::warm();
    let ppid = libc::getpid();
    let waiting: Vec<i32> = (0..20)
        .map(|_| {
            fork(|| {
                eq!(page.getppid(), i64::from(ppid));
                page.check(50);
                // Pages of its own.
                ok!(libc::mprotect(page.0 as *mut libc::c_void, 4096, 7));
                *((page.0 + GETPPID + 1) as *mut u8) = libc::SYS_getpid as u8;
                eq!(page.getppid(), i64::from(libc::getpid()));
            })
        })
        .collect();
    for pid in waiting {
        wait_ok(pid);
    }
    page.check(50);
    // A child that is made by such a call itself.
    for _ in 0..20 {
        let pid = page.any(libc::SYS_fork);
        if pid == 0 {
            page.check(5);
            libc::_exit(0);
        }
        check!(pid > 0);
        wait_ok(pid as i32);
    }
}

unsafe fn threads_meet_new_places() {
    for _ in 0..10 {
        let page = Page::new();
        let threads: Vec<_> = (0..6)
            .map(|_| std::thread::spawn(move || page.check(300)))
            .collect();
        for thread in threads {
            check!(thread.join().is_ok());
        }
    }
}

unsafe fn debuggers_step_over() {
    let page = Page::warm();
    let pid = fork(|| {
        ok!(sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0));
        page.check(20);
        libc::raise(libc::SIGSTOP);
        page.check(3);
    });
    let mut status = 0;
    ok!(libc::waitpid(pid, &mut status, 0));
    check!(libc::WIFSTOPPED(status));
    let mut in_page = 0;
    for _ in 0..3000 {
        if libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0) != 0 {
            break;
        }
        ok!(libc::waitpid(pid, &mut status, 0));
        if !libc::WIFSTOPPED(status) {
            break;
        }
        eq!(libc::WSTOPSIG(status), libc::SIGTRAP);
        let mut regs: libc::user_regs_struct = std::mem::zeroed();
        ok!(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &mut regs));
        let rip = regs.rip as usize;
        if (page.0..page.0 + 4096).contains(&rip) {
            in_page += 1;
            let at = rip - page.0;
            check!(BOUNDARIES.contains(&at), "stopped at {at}");
        } else {
            // Nothing is run that the child's own list does not show.
            let maps = read_text(&format!("/proc/{pid}/maps"));
            let known = maps.lines().any(|line| {
                let range = line.split(' ').next().unwrap_or("");
                let mut ends = range.split('-').map(|end| usize::from_str_radix(end, 16));
                let (Some(Ok(start)), Some(Ok(end))) = (ends.next(), ends.next()) else {
                    return false;
                };
                (start..end).contains(&rip)
            });
            check!(known, "stopped at {rip:x}");
        }
    }
    check!(in_page > 10);
    if libc::WIFSTOPPED(status) {
        ok!(libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0));
        wait_ok(pid);
    } else {
        eq!(status, 0);
    }
}

unsafe fn debuggers_read_the_file() {
    let page = Page::warm();
    let fd = open("/proc/self/mem", libc::O_RDONLY);
    let mut bytes = [0u8; 4096];
    eq!(
        ok!(libc::pread(
            fd,
            bytes.as_mut_ptr().cast(),
            4096,
            page.0 as i64
        )),
        4096
    );
    check!(bytes == original());
    // A part that begins within what may have changed.
    eq!(
        ok!(libc::pread(
            fd,
            bytes.as_mut_ptr().cast(),
            2,
            (page.0 + 2) as i64
        )),
        2
    );
    eq!(bytes[..2], original()[2..4]);
    let pid = fork(|| {
        page.check(20);
        ok!(sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0));
        libc::raise(libc::SIGSTOP);
        page.check(20);
    });
    let mut status = 0;
    ok!(libc::waitpid(pid, &mut status, 0));
    for at in [GETPPID, ANY, RETURN, ARGUMENTS + 8] {
        let mut word = 0u64;
        ok!(sys!(
            libc::SYS_ptrace,
            libc::PTRACE_PEEKTEXT,
            pid,
            page.0 + at,
            &mut word as *mut u64
        ));
        eq!(word.to_le_bytes(), original()[at..at + 8]);
    }
    // A breakpoint, as debuggers set it.
    let at = page.0 + ANY + 5;
    let word = u64::from_le_bytes(original()[ANY + 5..ANY + 13].try_into().unwrap_or([0; 8]));
    let trap = word & !0xff | 0xcc;
    ok!(libc::ptrace(libc::PTRACE_POKETEXT, pid, at, trap));
    ok!(libc::ptrace(libc::PTRACE_CONT, pid, 0, 0));
    ok!(libc::waitpid(pid, &mut status, 0));
    check!(libc::WIFSTOPPED(status));
    eq!(libc::WSTOPSIG(status), libc::SIGTRAP);
    let mut regs: libc::user_regs_struct = std::mem::zeroed();
    ok!(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &mut regs));
    eq!(regs.rip as usize, at + 1);
    ok!(libc::ptrace(libc::PTRACE_POKETEXT, pid, at, word));
    regs.rip -= 1;
    ok!(libc::ptrace(libc::PTRACE_SETREGS, pid, 0, &regs));
    ok!(libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0));
    wait_ok(pid);
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

unsafe fn segment_base_games() {
    const ARCH_SET_GS: i32 = 0x1001;
    const ARCH_GET_GS: i32 = 0x1004;
    let page = Page::warm();
    let mut base = 1u64;
    ok!(sys!(
        libc::SYS_arch_prctl,
        ARCH_GET_GS,
        &mut base as *mut u64
    ));
    eq!(base, 0);
    let own = anon(0x2_0000);
    let at = own as u64 + 0x800;
    std::ptr::write(at as *mut u64, 0x1234_5678);
    ok!(sys!(libc::SYS_arch_prctl, ARCH_SET_GS, at));
    for _ in 0..100 {
        page.check(1);
        let value: u64;
        std::arch::asm!("mov {v}, gs:[0]", v = out(reg) value);
        eq!(value, 0x1234_5678);
    }
    ok!(sys!(
        libc::SYS_arch_prctl,
        ARCH_GET_GS,
        &mut base as *mut u64
    ));
    eq!(base, at);
    // A thread that it starts has it too; a child as well.
    in_child(|| {
        let value: u64;
        std::arch::asm!("mov {v}, gs:[0]", v = out(reg) value);
        eq!(value, 0x1234_5678);
        page.check(20);
    });
    ok!(sys!(libc::SYS_arch_prctl, ARCH_SET_GS, 0));
    page.check(100);
}

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(_: i32) {
    HANDLED.fetch_add(1, SeqCst);
}

unsafe fn interrupted_and_restarted() {
    let page = Page::warm();
    for flags in [0, libc::SA_RESTART] {
        handle(libc::SIGUSR2, note as *const () as usize, flags);
        for _ in 0..30 {
            HANDLED.store(0, SeqCst);
            let (r, w) = pipe();
            let (pid, tid) = (libc::getpid(), libc::gettid());
            let helper = std::thread::spawn(move || {
                wait_state(tid, "S");
                sys!(libc::SYS_tgkill, pid, tid, libc::SIGUSR2);
                check!(eventually(|| HANDLED.load(SeqCst) == 1));
                write_all(w, b"x");
            });
            let mut byte = 0u8;
            let address = std::ptr::addr_of_mut!(byte) as usize;
            let got = page.arguments(libc::SYS_read, r as usize, address, 1);
            let expected = if flags == 0 {
                -i64::from(libc::EINTR)
            } else {
                1
            };
            eq!(got, expected);
            check!(helper.join().is_ok());
            libc::close(r);
            libc::close(w);
        }
    }
}

unsafe fn flags_of_all_kinds() {
    let page = Page::warm();
    // CF, PF, AF, ZF, SF, OF one at a time and together, DF.
    for flags in [0u64, 1, 4, 0x10, 0x40, 0x80, 0x800, 0x8d5, 0x400, 0xcd5] {
        for _ in 0..20 {
            let (out, after): (i64, u64);
            std::arch::asm!(
                "push {f}",
                "popfq",
                "call {page}",
                "pushfq",
                "pop {after}",
                "cld",
                f = in(reg) flags | 0x202,
                page = in(reg) page.0 + GETPPID,
                after = out(reg) after,
                inout("rax") 0i64 => out, out("rcx") _, out("r11") _,
            );
            eq!(out, i64::from(libc::getppid()));
            eq!(after & 0xcd5, flags);
        }
    }
}

unsafe fn yields_are_seen_by_who_watches() {
    let page = Page::warm();
    for _ in 0..1000 {
        eq!(page.any(libc::SYS_sched_yield), 0);
    }
    // A tracer.
    let pid = fork(|| {
        for _ in 0..100 {
            eq!(page.any(libc::SYS_sched_yield), 0);
        }
        ok!(sys!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0));
        libc::raise(libc::SIGSTOP);
        for _ in 0..10 {
            eq!(page.any(libc::SYS_sched_yield), 0);
        }
    });
    let (mut status, mut seen) = (0, 0);
    ok!(libc::waitpid(pid, &mut status, 0));
    while libc::WIFSTOPPED(status) {
        let mut regs: libc::user_regs_struct = std::mem::zeroed();
        ok!(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &mut regs));
        if regs.orig_rax == libc::SYS_sched_yield as u64 {
            seen += 1;
        }
        ok!(libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, 0));
        ok!(libc::waitpid(pid, &mut status, 0));
    }
    eq!(status, 0);
    // At its beginning and its end.
    eq!(seen, 20);
    // A filter.
    in_child(|| {
        for _ in 0..100 {
            eq!(page.any(libc::SYS_sched_yield), 0);
        }
        let program = [
            libc::sock_filter {
                code: 0x20,
                jt: 0,
                jf: 0,
                k: 0,
            },
            libc::sock_filter {
                code: 0x15,
                jt: 0,
                jf: 1,
                k: libc::SYS_sched_yield as u32,
            },
            libc::sock_filter {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: 0x0005_0000 | libc::EDOM as u32,
            },
            libc::sock_filter {
                code: 0x06,
                jt: 0,
                jf: 0,
                k: 0x7fff_0000,
            },
        ];
        let header = libc::sock_fprog {
            len: 4,
            filter: program.as_ptr().cast_mut(),
        };
        ok!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        ok!(libc::prctl(
            libc::PR_SET_SECCOMP,
            2,
            &header as *const _,
            0,
            0
        ));
        for _ in 0..20 {
            eq!(page.any(libc::SYS_sched_yield), -i64::from(libc::EDOM));
        }
    });
    // A signal ends a loop of them.
    let pid = fork(|| {
        loop {
            page.any(libc::SYS_sched_yield);
        }
    });
    sleep_ms(20);
    libc::kill(pid, libc::SIGTERM);
    eq!(libc::WTERMSIG(util::wait(pid)), libc::SIGTERM);
}
