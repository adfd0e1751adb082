//! mmap(2) and its family, brk(2), memfd_create(2), memory in /proc.

pub mod access;
pub mod advise;
pub mod file;
pub mod limits;
pub mod map;
pub mod memfd;
pub mod protect;
pub mod remap;
pub mod report;
pub mod share;
pub mod untouched;

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use crate::util::*;

const PAGE: usize = 4096;

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

unsafe fn mmap(addr: usize, len: usize, prot: i32, flags: i32, fd: i32, off: i64) -> *mut u8 {
    libc::mmap(addr as *mut _, len, prot, flags, fd, off).cast()
}

static FAULTS: AtomicI32 = AtomicI32::new(0);

static SIGNO: AtomicI32 = AtomicI32::new(0);

static ADDR: AtomicUsize = AtomicUsize::new(0);

extern "C" fn skip_access(signo: i32, si: *mut libc::siginfo_t, uc: *mut libc::c_void) {
    unsafe {
        FAULTS.fetch_add(1, SeqCst);
        SIGNO.store(signo, SeqCst);
        ADDR.store((*si).si_addr() as usize, SeqCst);
        let uc = &mut *uc.cast::<libc::ucontext_t>();
        uc.uc_mcontext.gregs[libc::REG_RIP as usize] = uc.uc_mcontext.gregs[libc::REG_R12 as usize];
    }
}

unsafe fn catch() {
    let f = skip_access as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as *const ()
        as usize;
    handle(libc::SIGSEGV, f, libc::SA_SIGINFO);
    handle(libc::SIGBUS, f, libc::SA_SIGINFO);
}

/// The signal that a load from `p` raises, or 0.
unsafe fn load_fault(p: *const u8) -> i32 {
    catch();
    SIGNO.store(0, SeqCst);
    std::arch::asm!("lea r12, [rip + 2f]", "mov al, [{p}]", "2:", p = in(reg) p, out("rax") _, out("r12") _);
    SIGNO.load(SeqCst)
}

/// The signal that a store to `p` raises, or 0.
unsafe fn store_fault(p: *mut u8, value: u8) -> i32 {
    catch();
    SIGNO.store(0, SeqCst);
    std::arch::asm!("lea r12, [rip + 2f]", "mov [{p}], {v}", "2:", p = in(reg) p, v = in(reg_byte) value, out("r12") _);
    SIGNO.load(SeqCst)
}

fn vma(addr: usize) -> Option<(usize, usize, String, String)> {
    for line in read_text("/proc/self/maps").lines() {
        let mut parts = line.split_whitespace();
        let range = parts.next()?;
        let (a, b) = range.split_once('-')?;
        let (a, b) = (
            usize::from_str_radix(a, 16).ok()?,
            usize::from_str_radix(b, 16).ok()?,
        );
        if (a..b).contains(&addr) {
            return Some((a, b, parts.next()?.to_owned(), line.to_owned()));
        }
    }
    None
}

unsafe fn mremap(old: *mut u8, old_len: usize, new_len: usize, flags: i32, to: usize) -> *mut u8 {
    libc::mremap(old.cast(), old_len, new_len, flags, to as *mut libc::c_void).cast()
}

fn status_kb(key: &str) -> i64 {
    read_text("/proc/self/status")
        .lines()
        .find_map(|l| {
            l.strip_prefix(key)?
                .strip_prefix(':')?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .unwrap_or(-1)
}
