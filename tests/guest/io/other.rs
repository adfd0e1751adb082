//! ioctl(2), posix_fadvise(2), O_DIRECT, file handles, asynchronous calls.

use super::*;
use crate::util::*;

cases![
    posix_fadvise_calls,
    readahead_call,
    ioctl_fionread,
    ioctl_unknown,
    o_direct_alignment,
    write_read_only_fs_dev,
    sync_file_range_call,
    name_to_handle_or_refusal,
    many_small_files,
    read_while_truncated,
    io_uring_refused_or_works,
    aio_refused_or_works,
];

unsafe fn posix_fadvise_calls() {
    let fd = new("f");
    for advice in 0..6 {
        eq!(libc::posix_fadvise(fd, 0, 0, advice), 0);
    }
    eq!(libc::posix_fadvise(fd, 0, 0, 99), libc::EINVAL);
    let (r, _w) = pipe();
    eq!(libc::posix_fadvise(r, 0, 0, 0), libc::ESPIPE);
}

unsafe fn readahead_call() {
    write_file("f", b"x");
    ok!(libc::readahead(open("f", libc::O_RDONLY), 0, 100));
    err!(
        libc::EBADF,
        libc::readahead(open("f", libc::O_WRONLY), 0, 100)
    );
}

unsafe fn ioctl_fionread() {
    write_file("f", b"0123456789");
    let fd = open("f", libc::O_RDONLY);
    read_some(fd, 3);
    let mut n = 0i32;
    ok!(libc::ioctl(fd, libc::FIONREAD, &mut n));
    eq!(n, 7);
    let (r, w) = pipe();
    write_all(w, b"four");
    ok!(libc::ioctl(r, libc::FIONREAD, &mut n));
    eq!(n, 4);
    let mut on = 1i32;
    ok!(libc::ioctl(r, libc::FIONBIO, &mut on));
    check!(ok!(libc::fcntl(r, libc::F_GETFL)) & libc::O_NONBLOCK != 0);
}

unsafe fn ioctl_unknown() {
    let fd = new("f");
    err!(libc::ENOTTY, libc::ioctl(fd, 0x1234_5678, 0));
    err!(
        libc::ENOTTY,
        libc::ioctl(fd, libc::TCGETS, [0u8; 64].as_mut_ptr())
    );
    eq!(libc::isatty(fd), 0);
    err!(libc::EBADF, libc::ioctl(99, libc::FIONREAD, 0));
}

unsafe fn o_direct_alignment() {
    let fd = libc::open(
        c("f").as_ptr(),
        libc::O_CREAT | libc::O_RDWR | libc::O_DIRECT,
        0o644,
    );
    if fd == -1 && errno() == libc::EINVAL {
        skip("no O_DIRECT on this file system");
    }
    let p = anon(8192);
    *p = 5;
    eq!(ok!(libc::pwrite(fd, p.cast(), 4096, 0)), 4096);
    eq!(ok!(libc::pread(fd, p.add(4096).cast(), 4096, 0)), 4096);
    eq!(*p.add(4096), 5);
}

unsafe fn write_read_only_fs_dev() {
    let r = libc::open(c"/proc/version".as_ptr(), libc::O_WRONLY);
    check!(
        r == -1 && (errno() == libc::EACCES || errno() == libc::EPERM || errno() == libc::EIO)
            || r >= 0
    );
    err!(
        libc::ENOENT,
        libc::open(
            c"/proc/newfile".as_ptr(),
            libc::O_CREAT | libc::O_WRONLY,
            0o644
        )
    );
}

unsafe fn sync_file_range_call() {
    let fd = new("f");
    write_all(fd, b"x");
    ok!(libc::sync_file_range(fd, 0, 0, libc::SYNC_FILE_RANGE_WRITE));
    err!(libc::EINVAL, libc::sync_file_range(fd, 0, 0, 0x100));
    err!(libc::EINVAL, libc::sync_file_range(fd, -1, 0, 0));
}

unsafe fn name_to_handle_or_refusal() {
    let mut handle = [0u32; 34];
    handle[0] = 128;
    let mut mount = 0i32;
    let r = sys!(
        libc::SYS_name_to_handle_at,
        libc::AT_FDCWD,
        c".".as_ptr(),
        handle.as_mut_ptr(),
        &mut mount as *mut i32,
        0
    );
    check!(r == 0 || [libc::EOPNOTSUPP, libc::ENOSYS, libc::EPERM].contains(&errno()));
}

unsafe fn many_small_files() {
    for i in 0..500 {
        write_file(&format!("f{i}"), format!("{i}").as_bytes());
    }
    for i in (0..500).rev() {
        eq!(read_file(&format!("f{i}")), format!("{i}").into_bytes());
    }
    for i in 0..500 {
        ok!(libc::unlink(c(&format!("f{i}")).as_ptr()));
    }
    eq!(std::fs::read_dir(".").map(|d| d.count()).unwrap_or(1), 0);
}

unsafe fn read_while_truncated() {
    write_file("f", &[1; 100_000]);
    let fd = open("f", libc::O_RDONLY);
    let pid = fork(|| {
        let w = open("f", libc::O_RDWR);
        for i in 0..300 {
            ok!(libc::ftruncate(w, if i % 2 == 0 { 10 } else { 100_000 }));
        }
    });
    for _ in 0..300 {
        let got = pread(fd, 100_000, 0);
        check!(got.len() >= 10);
        check!(got[..10].iter().all(|b| *b == 1));
        check!(got[10..].iter().all(|b| *b <= 1));
    }
    wait_ok(pid);
}

unsafe fn io_uring_refused_or_works() {
    let mut params = [0u8; 120];
    let r = sys!(libc::SYS_io_uring_setup, 4, params.as_mut_ptr());
    check!(
        r >= 0 || [libc::ENOSYS, libc::EPERM].contains(&errno()),
        "{}",
        errno_text()
    );
}

unsafe fn aio_refused_or_works() {
    let mut ctx = 0u64;
    let r = sys!(libc::SYS_io_setup, 4, &mut ctx as *mut u64);
    if r == -1 {
        eq!(errno(), libc::ENOSYS);
    } else {
        ok!(sys!(libc::SYS_io_destroy, ctx));
    }
}
