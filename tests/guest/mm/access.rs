//! Bad addresses in calls, and other processes' memory: process_vm_readv(2), /proc/PID/mem.

use super::*;
use crate::util::{self, *};

cases![
    efault_on_syscalls,
    partial_copy_at_boundary,
    process_vm_readv_writev,
    proc_self_mem,
    proc_pid_mem_of_child,
    membarrier_query,
];

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
