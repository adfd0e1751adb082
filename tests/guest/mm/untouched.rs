//! Private mappings of files that nobody has touched yet when something else
//! comes to them first.

use super::*;
use crate::util::*;

cases![
    untouched_is_read_by_calls,
    untouched_is_written_by_calls,
    untouched_is_copied_by_fork,
    untouched_is_seen_by_threads,
    untouched_is_seen_from_outside,
    untouched_is_changed_before_use,
    untouched_mappings_over_each_other,
    untouched_can_be_unmapped,
    untouched_faults_are_exact,
    untouched_code_runs,
    untouched_many,
];

const PATTERN: usize = 4 * PAGE;

/// A file whose pages differ, and a private mapping of it.
unsafe fn mapped(prot: i32) -> *mut u8 {
    let data: Vec<u8> = (0..PATTERN).map(|at| b'a' + (at / PAGE) as u8).collect();
    write_file("f", &data);
    let fd = open("f", libc::O_RDONLY);
    let p = ok!(mmap(0, PATTERN, prot, libc::MAP_PRIVATE, fd, 0));
    libc::close(fd);
    p
}

unsafe fn untouched_is_read_by_calls() {
    let p = mapped(libc::PROT_READ);
    let (r, w) = pipe();
    eq!(libc::write(w, p.add(PAGE).cast(), 2), 2);
    eq!(read_some(r, 2), b"bb");
    let p = mapped(libc::PROT_READ);
    // As a path: the first bytes of the file, without a NUL for pages.
    err!(libc::ENAMETOOLONG, libc::access(p.cast(), libc::F_OK));
    let p = mapped(libc::PROT_READ);
    let iov = libc::iovec {
        iov_base: p.add(3 * PAGE).cast(),
        iov_len: 1,
    };
    eq!(libc::writev(w, &iov, 1), 1);
    eq!(read_some(r, 1), b"d");
}

unsafe fn untouched_is_written_by_calls() {
    let (r, w) = pipe();
    write_all(w, b"123456");
    let p = mapped(RW);
    eq!(libc::read(r, p.add(PAGE).cast(), 3), 3);
    eq!(std::slice::from_raw_parts(p.add(PAGE), 4), b"123b");
    let p = mapped(libc::PROT_READ);
    err!(libc::EFAULT, libc::read(r, p.cast(), 3));
    // A futex word, too.
    let p = mapped(RW);
    err!(
        libc::EAGAIN,
        sys!(libc::SYS_futex, p, libc::FUTEX_WAIT, 0x6161_6162, 0, 0, 0)
    );
    eq!(read_file("f")[0], b'a');
}

unsafe fn untouched_is_copied_by_fork() {
    let p = mapped(RW);
    in_child(|| {
        eq!(*p.add(2 * PAGE), b'c');
        *p = b'!';
    });
    eq!((*p, *p.add(PAGE)), (b'a', b'b'));
}

unsafe fn untouched_is_seen_by_threads() {
    let p = mapped(libc::PROT_READ) as usize;
    let seen = std::thread::spawn(move || unsafe { *(p as *const u8).add(PAGE) });
    eq!(seen.join().ok(), Some(b'b'));
    // A process with two threads maps another one.
    let p = mapped(libc::PROT_READ);
    eq!(*p.add(3 * PAGE), b'd');
}

unsafe fn untouched_is_seen_from_outside() {
    let p = mapped(libc::PROT_READ);
    let fd = open("/proc/self/mem", libc::O_RDONLY);
    let mut byte = 0u8;
    eq!(
        libc::pread(fd, (&raw mut byte).cast(), 1, p.add(PAGE) as i64),
        1
    );
    eq!(byte, b'b');
    let p = mapped(libc::PROT_READ);
    let own = libc::getpid();
    in_child(|| {
        let mut byte = 0u8;
        let local = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        let remote = libc::iovec {
            iov_base: p.add(2 * PAGE).cast(),
            iov_len: 1,
        };
        eq!(libc::process_vm_readv(own, &local, 1, &remote, 1, 0), 1);
        eq!(byte, b'c');
    });
}

unsafe fn untouched_is_changed_before_use() {
    let p = mapped(libc::PROT_READ);
    ok!(libc::mprotect(p.cast(), PAGE, RW));
    *p = b'!';
    eq!((*p, *p.add(1), *p.add(PAGE)), (b'!', b'a', b'b'));
    eq!(store_fault(p.add(PAGE), 0), libc::SIGSEGV);

    let p = mapped(RW);
    let q = libc::mremap(p.cast(), PATTERN, 2 * PATTERN, libc::MREMAP_MAYMOVE);
    check!(q != libc::MAP_FAILED, "{}", errno_text());
    let q: *mut u8 = q.cast();
    eq!((*q, *q.add(3 * PAGE)), (b'a', b'd'));

    let p = mapped(RW);
    ok!(libc::madvise(p.cast(), PATTERN, libc::MADV_DONTNEED));
    eq!(*p.add(PAGE), b'b');
    let p = mapped(RW);
    ok!(libc::madvise(p.cast(), PATTERN, libc::MADV_DONTFORK));
    in_child(|| eq!(load_fault(p), libc::SIGSEGV));
}

unsafe fn untouched_mappings_over_each_other() {
    let p = mapped(libc::PROT_READ);
    let fd = open("f", libc::O_RDONLY);
    let fixed = libc::MAP_PRIVATE | libc::MAP_FIXED;
    ok!(mmap(
        p as usize + PAGE,
        PAGE,
        RW,
        fixed,
        fd,
        3 * PAGE as i64
    ));
    ok!(mmap(
        p as usize + 2 * PAGE,
        PAGE,
        RW,
        ANON | libc::MAP_FIXED,
        -1,
        0
    ));
    // Nothing of the file's is left in the page that is anonymous now.
    eq!(
        (*p, *p.add(PAGE), *p.add(2 * PAGE), *p.add(3 * PAGE)),
        (b'a', b'd', 0, b'd')
    );
    *p.add(PAGE) = b'!';
    *p.add(2 * PAGE) = b'!';
    eq!(store_fault(p, 0), libc::SIGSEGV);
    eq!(read_file("f")[3 * PAGE], b'd');
}

unsafe fn untouched_can_be_unmapped() {
    let p = mapped(libc::PROT_READ);
    ok!(libc::munmap(p.add(PAGE).cast(), PAGE));
    eq!((*p, *p.add(2 * PAGE)), (b'a', b'c'));
    eq!(load_fault(p.add(PAGE)), libc::SIGSEGV);
    let p = mapped(libc::PROT_READ);
    ok!(libc::munmap(p.cast(), PATTERN));
    for page in 0..4 {
        eq!(load_fault(p.add(page * PAGE)), libc::SIGSEGV);
    }
    // What comes in its place is not what was there.
    let q = ok!(mmap(p as usize, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0));
    eq!(*q, 0);
}

unsafe fn untouched_faults_are_exact() {
    let p = mapped(libc::PROT_NONE);
    eq!(load_fault(p), libc::SIGSEGV);
    let p = mapped(libc::PROT_READ);
    eq!(store_fault(p, 1), libc::SIGSEGV);
    eq!(ADDR.load(SeqCst), p as usize);
    eq!(*p, b'a');
    // Behind the end of the file.
    write_file("g", b"short");
    let fd = open("g", libc::O_RDONLY);
    let p = ok!(mmap(0, 2 * PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0));
    eq!(load_fault(p.add(PAGE)), libc::SIGBUS);
    eq!((*p, *p.add(5)), (b's', 0));
}

unsafe fn untouched_code_runs() {
    // mov $42, %eax; ret
    write_file("code", &[0xb8, 42, 0, 0, 0, 0xc3]);
    let fd = open("code", libc::O_RDONLY);
    let prot = libc::PROT_READ | libc::PROT_EXEC;
    let p = ok!(mmap(0, PAGE, prot, libc::MAP_PRIVATE, fd, 0));
    let code: extern "C" fn() -> i32 = std::mem::transmute(p);
    eq!(code(), 42);
}

unsafe fn untouched_many() {
    let all: Vec<_> = (0..100).map(|_| mapped(libc::PROT_READ)).collect();
    for p in &all {
        eq!((**p, *p.add(3 * PAGE)), (b'a', b'd'));
    }
}
