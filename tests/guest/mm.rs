//! mmap(2) and its family, brk(2), memfd_create(2), memory in /proc.

use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

use crate::util::{self, *};

cases![
    anonymous_is_zero,
    mmap_errors,
    mmap_hint,
    map_fixed_replaces,
    map_fixed_noreplace,
    map_low_address,
    munmap_hole,
    munmap_errors,
    mprotect_faults,
    mprotect_splits,
    mprotect_errors,
    execute_from_memory,
    noexec_faults,
    mremap_grow_moves,
    mremap_shrink,
    mremap_fixed,
    mremap_dontunmap,
    mremap_errors,
    mremap_shared_alias,
    brk_grows_and_shrinks,
    brk_errors,
    madvise_dontneed_anonymous,
    madvise_dontneed_file,
    madvise_errors,
    madvise_hints,
    madvise_dontfork_wipeonfork,
    shared_anonymous_over_fork,
    private_copy_on_write,
    file_shared_coherent,
    file_private_sees_no_store,
    file_private_untouched_follows_file,
    file_mapping_outlives_close_and_unlink,
    file_offset_mapping,
    file_mapping_permissions,
    file_tail_is_zero,
    sigbus_and_truncate,
    msync_calls,
    maps_lists_mappings,
    maps_merges_neighbours,
    smaps_rollup_and_status,
    statm_fields,
    memfd_basic,
    memfd_seals,
    memfd_seal_write_with_mapping,
    memfd_future_write,
    memfd_names_and_errors,
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
    populate,
    huge_addresses,
    fork_keeps_mappings,
    threads_see_mappings,
    concurrent_mmap_and_faults,
    efault_on_syscalls,
    partial_copy_at_boundary,
    process_vm_readv_writev,
    proc_self_mem,
    proc_pid_mem_of_child,
    shared_memory_between_unrelated,
    dev_zero_mapping,
    map_shared_validate,
    membarrier_query,
    pkey_refusal,
    mmap_read_only_file_write_fault,
    userfault_or_refusal,
    mseal_or_enosys,
    mprotect_stack_guard,
    read_implies_no_exec,
];

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

/// Permission letters of the mapping that holds `addr`, if any.
fn perms(addr: usize) -> Option<String> {
    vma(addr).map(|v| v.2)
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

unsafe fn mremap(old: *mut u8, old_len: usize, new_len: usize, flags: i32, to: usize) -> *mut u8 {
    libc::mremap(old.cast(), old_len, new_len, flags, to as *mut libc::c_void).cast()
}

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

unsafe fn madvise(p: *mut u8, len: usize, advice: i32) -> i32 {
    libc::madvise(p.cast(), len, advice)
}

unsafe fn madvise_dontneed_anonymous() {
    let p = anon(3 * PAGE);
    for i in 0..3 {
        *p.add(i * PAGE) = 8;
    }
    ok!(madvise(p.add(PAGE), PAGE, libc::MADV_DONTNEED));
    eq!((*p, *p.add(PAGE), *p.add(2 * PAGE)), (8, 0, 8));
    // Shared memory keeps its content.
    let s = mmap(0, PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0);
    *s = 5;
    ok!(madvise(s, PAGE, libc::MADV_DONTNEED));
    eq!(*s, 5);
    ok!(madvise(s, PAGE, libc::MADV_REMOVE));
    eq!(*s, 0);
}

unsafe fn madvise_dontneed_file() {
    write_file("f", &[b'a'; PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    *p = b'z';
    ok!(madvise(p, PAGE, libc::MADV_DONTNEED));
    eq!(*p, b'a');
}

unsafe fn madvise_errors() {
    let p = anon(3 * PAGE);
    err!(libc::EINVAL, madvise(p, PAGE, 9999));
    err!(libc::EINVAL, madvise(p.add(1), PAGE, libc::MADV_DONTNEED));
    ok!(madvise(p, 0, libc::MADV_DONTNEED));
    ok!(libc::munmap(p.add(PAGE).cast(), PAGE));
    *p = 1;
    *p.add(2 * PAGE) = 1;
    // Applied to the mapped parts, then ENOMEM.
    err!(libc::ENOMEM, madvise(p, 3 * PAGE, libc::MADV_DONTNEED));
    eq!((*p, *p.add(2 * PAGE)), (0, 0));
    err!(libc::EINVAL, madvise(p, PAGE, libc::MADV_REMOVE));
}

unsafe fn madvise_hints() {
    let p = anon(4 << 20);
    for advice in [
        libc::MADV_NORMAL,
        libc::MADV_RANDOM,
        libc::MADV_SEQUENTIAL,
        libc::MADV_WILLNEED,
        libc::MADV_DONTDUMP,
        libc::MADV_DODUMP,
    ] {
        ok!(madvise(p, 4 << 20, advice));
    }
    // Huge pages may be configured out.
    for advice in [libc::MADV_HUGEPAGE, libc::MADV_NOHUGEPAGE] {
        let r = madvise(p, 4 << 20, advice);
        check!(r == 0 || errno() == libc::EINVAL);
    }
    *p = 1;
    ok!(madvise(p, PAGE, libc::MADV_FREE));
    check!(*p == 1 || *p == 0);
    ok!(madvise(p, PAGE, 22)); // MADV_POPULATE_READ
    ok!(madvise(p, PAGE, 23)); // MADV_POPULATE_WRITE
}

unsafe fn madvise_dontfork_wipeonfork() {
    let p = anon(3 * PAGE);
    for i in 0..3 {
        *p.add(i * PAGE) = 7;
    }
    ok!(madvise(p, PAGE, libc::MADV_DONTFORK));
    ok!(madvise(p.add(PAGE), PAGE, libc::MADV_WIPEONFORK));
    in_child(|| {
        eq!(load_fault(p), libc::SIGSEGV);
        eq!(*p.add(PAGE), 0);
        eq!(*p.add(2 * PAGE), 7);
    });
    ok!(madvise(p, PAGE, libc::MADV_DOFORK));
    ok!(madvise(p.add(PAGE), PAGE, libc::MADV_KEEPONFORK));
    in_child(|| eq!((*p, *p.add(PAGE)), (7, 7)));
}

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

unsafe fn file_shared_coherent() {
    write_file("f", &[b'.'; 3 * PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, 3 * PAGE, RW, libc::MAP_SHARED, fd, 0));
    eq!(*p.add(PAGE), b'.');
    // Store seen by read, write seen by load, at once.
    *p.add(PAGE + 5) = b'S';
    let mut b = [0u8; 10];
    eq!(libc::pread(fd, b.as_mut_ptr().cast(), 10, PAGE as i64), 10);
    eq!(b[5], b'S');
    eq!(
        libc::pwrite(fd, b"W".as_ptr().cast(), 1, 2 * PAGE as i64),
        1
    );
    eq!(*p.add(2 * PAGE), b'W');
    in_child(|| *p.add(7) = b'C');
    eq!(*p.add(7), b'C');
    let fd2 = open("f", libc::O_RDONLY);
    let q = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd2, 0));
    eq!(*q.add(7), b'C');
    *p.add(8) = b'D';
    eq!(*q.add(8), b'D');
    eq!(read_file("f")[5 + PAGE], b'S');
}

unsafe fn file_private_sees_no_store() {
    write_file("f", b"hello");
    let fd = open("f", libc::O_RDONLY);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    *p = b'J';
    eq!(*p, b'J');
    eq!(read_file("f"), b"hello");
}

unsafe fn file_private_untouched_follows_file() {
    // Unspecified by POSIX, but Linux shows later writes in untouched pages.
    write_file("f", &[b'1'; 2 * PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, 2 * PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    *p = b'x';
    libc::pwrite(fd, b"22".as_ptr().cast(), 2, 0);
    libc::pwrite(fd, b"22".as_ptr().cast(), 2, PAGE as i64);
    eq!((*p, *p.add(1), *p.add(PAGE)), (b'x', b'1', b'2'));
}

unsafe fn file_mapping_outlives_close_and_unlink() {
    write_file("f", b"still here");
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    libc::close(fd);
    ok!(libc::unlink(c("f").as_ptr()));
    eq!(std::slice::from_raw_parts(p, 10), b"still here");
    *p = b'S';
    in_child(|| eq!(*p, b'S'));
    let line = vma(p as usize).map(|v| v.3).unwrap_or_default();
    check!(line.ends_with("/f (deleted)"), "{line}");
}

unsafe fn file_offset_mapping() {
    let mut data = vec![0u8; 4 * PAGE];
    for (i, b) in data.iter_mut().enumerate() {
        *b = (i / PAGE) as u8;
    }
    write_file("f", &data);
    let fd = open("f", libc::O_RDONLY);
    let p = ok!(mmap(
        0,
        2 * PAGE,
        libc::PROT_READ,
        libc::MAP_SHARED,
        fd,
        2 * PAGE as i64
    ));
    eq!((*p, *p.add(PAGE)), (2, 3));
    let line = vma(p as usize).map(|v| v.3).unwrap_or_default();
    check!(line.contains(" 00002000 "), "{line}");
}

unsafe fn file_mapping_permissions() {
    write_file("f", b"x");
    let ro = open("f", libc::O_RDONLY);
    err!(libc::EACCES, mmap(0, PAGE, RW, libc::MAP_SHARED, ro, 0));
    let p = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, ro, 0));
    err!(libc::EACCES, libc::mprotect(p.cast(), PAGE, RW));
    let q = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, ro, 0));
    ok!(libc::mprotect(q.cast(), PAGE, RW));
    let wo = open("f", libc::O_WRONLY);
    err!(
        libc::EACCES,
        mmap(0, PAGE, libc::PROT_WRITE, libc::MAP_SHARED, wo, 0)
    );
    err!(
        libc::EACCES,
        mmap(0, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, wo, 0)
    );
}

unsafe fn mmap_read_only_file_write_fault() {
    write_file("f", &[1; PAGE]);
    let fd = open("f", libc::O_RDONLY);
    let p = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0));
    eq!(store_fault(p, 9), libc::SIGSEGV);
    eq!(*p, 1);
}

unsafe fn file_tail_is_zero() {
    write_file("f", b"abc");
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    eq!(*p.add(3), 0);
    eq!(*p.add(PAGE - 1), 0);
    // Stores behind the end do not reach the file.
    *p.add(10) = 1;
    eq!(read_file("f"), b"abc");
}

unsafe fn sigbus_and_truncate() {
    write_file("f", &[1; 2 * PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, 4 * PAGE, RW, libc::MAP_SHARED, fd, 0));
    eq!(load_fault(p.add(PAGE)), 0);
    eq!(load_fault(p.add(2 * PAGE)), libc::SIGBUS);
    eq!(store_fault(p.add(3 * PAGE), 1), libc::SIGBUS);
    ok!(libc::ftruncate(fd, PAGE as i64));
    eq!(load_fault(p.add(PAGE)), libc::SIGBUS);
    ok!(libc::ftruncate(fd, 4 * PAGE as i64));
    eq!(load_fault(p.add(3 * PAGE)), 0);
    eq!(*p.add(PAGE), 0);
    eq!(*p, 1);
    // Private mappings too lose what is behind the new end.
    let q = ok!(mmap(0, 4 * PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    *q.add(3 * PAGE) = 5;
    ok!(libc::ftruncate(fd, PAGE as i64));
    eq!(load_fault(q.add(3 * PAGE)), libc::SIGBUS);
}

unsafe fn msync_calls() {
    write_file("f", &[0; PAGE]);
    let fd = open("f", libc::O_RDWR);
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    *p = 1;
    ok!(libc::msync(p.cast(), PAGE, libc::MS_SYNC));
    ok!(libc::msync(
        p.cast(),
        PAGE,
        libc::MS_ASYNC | libc::MS_INVALIDATE
    ));
    ok!(libc::msync(p.cast(), PAGE, 0));
    err!(
        libc::EINVAL,
        libc::msync(p.cast(), PAGE, libc::MS_SYNC | libc::MS_ASYNC)
    );
    err!(
        libc::EINVAL,
        libc::msync(p.add(1).cast(), PAGE, libc::MS_SYNC)
    );
    ok!(libc::munmap(p.cast(), PAGE));
    err!(libc::ENOMEM, libc::msync(p.cast(), PAGE, libc::MS_SYNC));
    ok!(libc::fsync(fd));
    ok!(libc::fdatasync(fd));
}

unsafe fn maps_lists_mappings() {
    write_file("mapped-file", &[0; PAGE]);
    let fd = open("mapped-file", libc::O_RDWR);
    let a = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0)) as usize;
    let b = ok!(mmap(
        0x5000_0000,
        3 * PAGE,
        libc::PROT_NONE,
        ANON | libc::MAP_FIXED,
        -1,
        0
    )) as usize;
    let (start, end, mode, line) = vma(a).unwrap_or_default();
    eq!((start, end), (a, a + PAGE));
    eq!(mode, "r--s");
    check!(line.ends_with("/mapped-file"), "{line}");
    // Inode and device are the file's.
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    eq!(
        line.split_whitespace().nth(4),
        Some(st.st_ino.to_string().as_str())
    );
    let dev = format!(
        "{:02x}:{:02x}",
        libc::major(st.st_dev),
        libc::minor(st.st_dev)
    );
    eq!(line.split_whitespace().nth(3), Some(dev.as_str()));
    eq!(
        vma(b).map(|v| (v.0, v.1, v.2)),
        Some((b, b + 3 * PAGE, "---p".to_owned()))
    );
    let text = read_text("/proc/self/maps");
    check!(text.contains("[stack]\n"));
    check!(text.contains("[heap]\n"));
    check!(text.contains("/guest\n"), "{text}");
    // Ascending and disjoint.
    let mut last = 0;
    for line in text.lines() {
        let (a, b) = line
            .split(' ')
            .next()
            .and_then(|r| r.split_once('-'))
            .unwrap_or_default();
        let (a, b) = (
            u64::from_str_radix(a, 16).unwrap_or(0),
            u64::from_str_radix(b, 16).unwrap_or(0),
        );
        check!(last <= a && a < b, "{text}");
        last = b;
    }
}

unsafe fn maps_merges_neighbours() {
    for i in 0..4 {
        mmap(
            0x6000_0000 + i * PAGE,
            PAGE,
            RW,
            ANON | libc::MAP_FIXED,
            -1,
            0,
        );
    }
    eq!(
        vma(0x6000_0000).map(|v| (v.0, v.1)),
        Some((0x6000_0000, 0x6000_0000 + 4 * PAGE))
    );
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

unsafe fn smaps_rollup_and_status() {
    let before = status_kb("VmRSS");
    check!(before > 0);
    let size = status_kb("VmSize");
    let p = anon(16 << 20);
    check!(status_kb("VmSize") >= size + (16 << 10));
    for i in (0..16 << 20).step_by(PAGE) {
        *p.add(i) = 1;
    }
    let after = status_kb("VmRSS");
    check!(after - before > 12 << 10, "VmRSS {before} -> {after}");
    check!(status_kb("VmPeak") >= status_kb("VmSize"));
    check!(status_kb("VmHWM") >= after - 1024);
    check!(status_kb("VmStk") > 0);
}

unsafe fn statm_fields() {
    let fields: Vec<u64> = read_text("/proc/self/statm")
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    eq!(fields.len(), 7);
    check!(fields[0] >= fields[1] && fields[1] > 0, "{fields:?}");
    let p = anon(8 << 20);
    for i in 0..2048 {
        *p.add(i * PAGE) = 1;
    }
    let now: u64 = read_text("/proc/self/statm")
        .split_whitespace()
        .nth(1)
        .and_then(|f| f.parse().ok())
        .unwrap_or(0);
    let grown = now.saturating_sub(fields[1]);
    check!((2000..2300).contains(&grown), "{grown} pages more");
}

unsafe fn memfd(flags: u32) -> i32 {
    ok!(libc::memfd_create(c"test".as_ptr(), flags))
}

unsafe fn memfd_basic() {
    let fd = memfd(0);
    ok!(libc::ftruncate(fd, 3 * PAGE as i64));
    let p = ok!(mmap(0, 3 * PAGE, RW, libc::MAP_SHARED, fd, 0));
    *p.add(PAGE) = 9;
    let mut b = 0u8;
    eq!(
        libc::pread(fd, (&mut b as *mut u8).cast(), 1, PAGE as i64),
        1
    );
    eq!(b, 9);
    let q = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, PAGE as i64));
    eq!(*q, 9);
    in_child(|| *q = 10);
    eq!(*p.add(PAGE), 10);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    eq!(
        (st.st_size, st.st_mode, st.st_nlink),
        (3 * PAGE as i64, libc::S_IFREG | 0o777, 0)
    );
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    eq!(link.to_string_lossy(), "/memfd:test (deleted)");
    let fd2 = open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY);
    eq!(
        libc::pread(fd2, (&mut b as *mut u8).cast(), 1, PAGE as i64),
        1
    );
    eq!(b, 10);
}

unsafe fn memfd_seals() {
    let fd = memfd(libc::MFD_ALLOW_SEALING);
    write_all(fd, b"0123456789");
    eq!(ok!(libc::fcntl(fd, libc::F_GET_SEALS)), 0);
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK));
    err!(libc::EPERM, libc::ftruncate(fd, 5));
    ok!(libc::ftruncate(fd, 20));
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_GROW));
    err!(libc::EPERM, libc::ftruncate(fd, 30));
    err!(libc::EPERM, libc::pwrite(fd, b"x".as_ptr().cast(), 1, 20));
    eq!(libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0), 1);
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE));
    err!(libc::EPERM, libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0));
    err!(libc::EPERM, mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    ok!(mmap(0, PAGE, RW, libc::MAP_PRIVATE, fd, 0));
    ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0));
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SEAL));
    err!(
        libc::EPERM,
        libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE)
    );
    eq!(ok!(libc::fcntl(fd, libc::F_GET_SEALS)), 15);
    // Without the flag a memfd is sealed against seals.
    let plain = memfd(0);
    eq!(
        ok!(libc::fcntl(plain, libc::F_GET_SEALS)),
        libc::F_SEAL_SEAL
    );
    err!(
        libc::EPERM,
        libc::fcntl(plain, libc::F_ADD_SEALS, libc::F_SEAL_GROW)
    );
    err!(
        libc::EINVAL,
        libc::fcntl(memfd(libc::MFD_ALLOW_SEALING), libc::F_ADD_SEALS, 0x1000)
    );
    write_file("f", b"");
    // On a disk no file has seals; on tmpfs each starts sealed.
    let r = libc::fcntl(open("f", libc::O_RDWR), libc::F_GET_SEALS);
    check!(r == libc::F_SEAL_SEAL || (r == -1 && errno() == libc::EINVAL));
}

unsafe fn memfd_seal_write_with_mapping() {
    let fd = memfd(libc::MFD_ALLOW_SEALING);
    ok!(libc::ftruncate(fd, PAGE as i64));
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    err!(
        libc::EBUSY,
        libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE)
    );
    ok!(libc::munmap(p.cast(), PAGE));
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_WRITE));
}

unsafe fn memfd_future_write() {
    const FUTURE: i32 = 0x10;
    let fd = memfd(libc::MFD_ALLOW_SEALING);
    ok!(libc::ftruncate(fd, PAGE as i64));
    let p = ok!(mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    ok!(libc::fcntl(fd, libc::F_ADD_SEALS, FUTURE));
    *p = 5;
    err!(libc::EPERM, mmap(0, PAGE, RW, libc::MAP_SHARED, fd, 0));
    err!(libc::EPERM, libc::pwrite(fd, b"x".as_ptr().cast(), 1, 0));
    let q = ok!(mmap(0, PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0));
    eq!(*q, 5);
    err!(libc::EACCES, libc::mprotect(q.cast(), PAGE, RW));
}

unsafe fn memfd_names_and_errors() {
    err!(libc::EINVAL, libc::memfd_create(c"x".as_ptr(), 0x4000_0000));
    err!(
        libc::EINVAL,
        libc::memfd_create(c(&"n".repeat(250)).as_ptr(), 0)
    );
    ok!(libc::memfd_create(c(&"n".repeat(249)).as_ptr(), 0));
    ok!(libc::memfd_create(c"".as_ptr(), 0));
    err!(libc::EFAULT, libc::memfd_create(8 as *const _, 0));
    let fd = memfd(libc::MFD_CLOEXEC);
    eq!(libc::fcntl(fd, libc::F_GETFD), libc::FD_CLOEXEC);
}

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

unsafe fn efault_on_syscalls() {
    let p = anon(PAGE);
    libc::munmap(p.cast(), PAGE);
    let (r, w) = pipe();
    err!(libc::EFAULT, libc::write(w, p.cast(), 10));
    write_all(w, b"data");
    err!(libc::EFAULT, libc::read(r, p.cast(), 4));
    // Nothing was taken.
    eq!(read_some(r, 10), b"data");
    err!(libc::EFAULT, sys!(libc::SYS_stat, p, p));
    err!(libc::EFAULT, sys!(libc::SYS_uname, p));
    err!(libc::EFAULT, sys!(libc::SYS_pipe, p));
    err!(libc::EFAULT, sys!(libc::SYS_open, p, 0));
    err!(libc::EFAULT, sys!(libc::SYS_getcwd, p, 100));
    err!(
        libc::EFAULT,
        sys!(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, p)
    );
    err!(libc::EFAULT, sys!(libc::SYS_poll, p, 1, 0));
    // A read-only page is as good for output as none.
    let q = mmap(0, PAGE, libc::PROT_READ, ANON, -1, 0);
    err!(libc::EFAULT, sys!(libc::SYS_uname, q));
    // PROT_NONE for input.
    let z = mmap(0, PAGE, libc::PROT_NONE, ANON, -1, 0);
    err!(libc::EFAULT, libc::write(w, z.cast(), 1));
    // Kernel addresses.
    err!(
        libc::EFAULT,
        libc::write(w, 0xffff_8880_0000_0000u64 as *const _, 1)
    );
    err!(libc::EFAULT, libc::write(w, (1u64 << 47) as *const _, 1));
}

unsafe fn partial_copy_at_boundary() {
    let p = anon(2 * PAGE);
    libc::munmap(p.add(PAGE).cast(), PAGE);
    write_file("f", &[7; 100]);
    let fd = open("f", libc::O_RDWR);
    // A file read gives what fits before the fault.
    let n = libc::read(fd, p.add(PAGE - 10).cast(), 100);
    eq!(n, 10);
    let mut b = [0u8; 1];
    eq!(libc::pread(fd, b.as_mut_ptr().cast(), 1, 10), 1);
    // Writes too.
    eq!(libc::pwrite(fd, p.add(PAGE - 10).cast(), 100, 0), 10);
    // A string that ends at the page's last byte is fine.
    *p.add(PAGE - 2) = b'.';
    *p.add(PAGE - 1) = 0;
    ok!(libc::access(p.add(PAGE - 2).cast(), libc::F_OK));
    *p.add(PAGE - 1) = b'/';
    err!(
        libc::EFAULT,
        libc::access(p.add(PAGE - 2).cast(), libc::F_OK)
    );
}

unsafe fn process_vm_readv_writev() {
    let p = anon(2 * PAGE);
    *p = 1;
    let (r, w) = pipe();
    let (r2, w2) = pipe();
    let pid = fork(|| {
        *p = 66;
        write_all(w, b"x");
        read_some(r2, 1);
        eq!(*p.add(1), 77);
    });
    read_some(r, 1);
    let mut b = [0u8; 1];
    let local = libc::iovec {
        iov_base: b.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let remote = libc::iovec {
        iov_base: p.cast(),
        iov_len: 1,
    };
    eq!(
        ok!(libc::process_vm_readv(pid, &local, 1, &remote, 1, 0)),
        1
    );
    eq!(b[0], 66);
    // Through the address that the call reads.
    local.iov_base.cast::<u8>().write(77);
    let remote = libc::iovec {
        iov_base: p.add(1).cast(),
        iov_len: 1,
    };
    eq!(
        ok!(libc::process_vm_writev(pid, &local, 1, &remote, 1, 0)),
        1
    );
    let remote = libc::iovec {
        iov_base: 8 as *mut _,
        iov_len: 1,
    };
    err!(
        libc::EFAULT,
        libc::process_vm_readv(pid, &local, 1, &remote, 1, 0)
    );
    err!(
        libc::EINVAL,
        libc::process_vm_readv(pid, &local, 1, &remote, 1, 1)
    );
    err!(
        libc::ESRCH,
        libc::process_vm_readv(0x3f_ffff, &local, 1, &remote, 1, 0)
    );
    write_all(w2, b"x");
    wait_ok(pid);
}

unsafe fn proc_self_mem() {
    let p = anon(PAGE);
    *p.add(3) = 5;
    let fd = open("/proc/self/mem", libc::O_RDWR);
    let mut b = [0u8; 1];
    eq!(libc::pread(fd, b.as_mut_ptr().cast(), 1, p as i64 + 3), 1);
    eq!(b[0], 5);
    eq!(libc::pwrite(fd, [9u8].as_ptr().cast(), 1, p as i64 + 4), 1);
    eq!(*p.add(4), 9);
    err!(libc::EIO, libc::pread(fd, b.as_mut_ptr().cast(), 1, 8));
    // Protection does not bind /proc/self/mem.
    ok!(libc::mprotect(p.cast(), PAGE, libc::PROT_READ));
    eq!(libc::pwrite(fd, [8u8].as_ptr().cast(), 1, p as i64), 1);
    eq!(*p, 8);
}

unsafe fn proc_pid_mem_of_child() {
    let p = anon(PAGE);
    *p = 1;
    let pid = fork(|| {
        loop {
            *p = 2;
            libc::pause();
        }
    });
    wait_state(pid, "S");
    let fd = open(&format!("/proc/{pid}/mem"), libc::O_RDONLY);
    let mut b = [0u8; 1];
    eq!(libc::pread(fd, b.as_mut_ptr().cast(), 1, p as i64), 1);
    eq!(b[0], 2);
    libc::kill(pid, libc::SIGKILL);
    util::wait(pid);
    eq!(libc::pread(fd, b.as_mut_ptr().cast(), 1, p as i64), 0);
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

unsafe fn membarrier_query() {
    let r = sys!(libc::SYS_membarrier, 0, 0, 0);
    if r == -1 {
        eq!(errno(), libc::ENOSYS);
        return;
    }
    if r & 8 != 0 {
        err!(libc::EPERM, sys!(libc::SYS_membarrier, 8, 0, 0));
        ok!(sys!(libc::SYS_membarrier, 16, 0, 0));
        ok!(sys!(libc::SYS_membarrier, 8, 0, 0));
    }
    err!(libc::EINVAL, sys!(libc::SYS_membarrier, 0x4000_0000, 0, 0));
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

unsafe fn userfault_or_refusal() {
    let fd = sys!(libc::SYS_userfaultfd, libc::O_CLOEXEC | 1);
    check!(fd >= 0 || [libc::ENOSYS, libc::EPERM].contains(&errno()));
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
