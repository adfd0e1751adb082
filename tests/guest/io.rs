//! Reading, writing, seeking, truncating, allocating, copying and splicing.

use crate::util::*;

cases![
    read_write_offsets,
    read_at_end,
    zero_length,
    pread_pwrite,
    readv_writev,
    iov_errors,
    preadv2_flags,
    lseek_basic,
    lseek_beyond_and_hole,
    lseek_data_hole,
    lseek_errors,
    truncate_grows_and_shrinks,
    truncate_errors,
    ftruncate_clears_tail,
    file_size_limit,
    write_big_buffers,
    big_buffers_that_end_early,
    sparse_file,
    large_offsets,
    fallocate_modes,
    fallocate_errors,
    copy_file_range_basic,
    copy_file_range_errors,
    sendfile_to_pipe_and_file,
    sendfile_errors,
    splice_pipe_file,
    splice_errors,
    tee_pipe,
    vmsplice_pipe,
    fsync_family,
    concurrent_readers_writers,
    shared_offset_threads,
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

unsafe fn pread(fd: i32, len: usize, off: i64) -> Vec<u8> {
    let mut b = vec![0u8; len];
    let n = ok!(libc::pread(fd, b.as_mut_ptr().cast(), len, off));
    b.truncate(n as usize);
    b
}

unsafe fn size(fd: i32) -> i64 {
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    st.st_size
}

unsafe fn new(name: &str) -> i32 {
    open(name, libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC)
}

unsafe fn read_write_offsets() {
    let fd = new("f");
    write_all(fd, b"hello");
    eq!(read_some(fd, 5), b"");
    eq!(libc::lseek(fd, 1, libc::SEEK_SET), 1);
    eq!(read_some(fd, 2), b"el");
    write_all(fd, b"XY!");
    eq!(read_file("f"), b"helXY!");
    eq!(size(fd), 6);
}

unsafe fn read_at_end() {
    write_file("f", b"abc");
    let fd = open("f", libc::O_RDONLY);
    eq!(read_some(fd, 100), b"abc");
    eq!(read_some(fd, 100), b"");
    eq!(pread(fd, 10, 2), b"c");
    eq!(pread(fd, 10, 3), b"");
    eq!(pread(fd, 10, 1 << 40), b"");
}

unsafe fn zero_length() {
    let fd = new("f");
    eq!(ok!(libc::read(fd, std::ptr::null_mut(), 0)), 0);
    eq!(ok!(libc::write(fd, std::ptr::null(), 0)), 0);
    // A bad pointer does not matter for nothing to read.
    eq!(ok!(libc::read(fd, 8 as *mut _, 0)), 0);
    eq!(ok!(libc::read(fd, 8 as *mut _, 10)), 0);
    err!(libc::EFAULT, libc::write(fd, 8 as *const _, 10));
    eq!(size(fd), 0);
}

unsafe fn pread_pwrite() {
    let fd = new("f");
    eq!(ok!(libc::pwrite(fd, b"abc".as_ptr().cast(), 3, 5)), 3);
    eq!(read_file("f"), b"\0\0\0\0\0abc");
    eq!(libc::lseek(fd, 0, libc::SEEK_CUR), 0);
    eq!(pread(fd, 2, 6), b"bc");
    let mut b = [0u8; 1];
    err!(libc::EINVAL, libc::pread(fd, b.as_mut_ptr().cast(), 1, -1));
    err!(libc::EINVAL, libc::pwrite(fd, b.as_ptr().cast(), 1, -5));
    let (r, w) = pipe();
    err!(libc::ESPIPE, libc::pread(r, b.as_mut_ptr().cast(), 1, 0));
    err!(libc::ESPIPE, libc::pwrite(w, b.as_ptr().cast(), 1, 0));
}

fn iov(b: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: b.as_mut_ptr().cast(),
        iov_len: b.len(),
    }
}

unsafe fn readv_writev() {
    let fd = new("f");
    let (mut a, mut b, mut d) = (*b"one", *b"", *b"three");
    let v = [iov(&mut a), iov(&mut b), iov(&mut d)];
    eq!(ok!(libc::writev(fd, v.as_ptr(), 3)), 8);
    eq!(read_file("f"), b"onethree");
    libc::lseek(fd, 0, libc::SEEK_SET);
    let (mut x, mut y) = ([0u8; 4], [0u8; 10]);
    let v = [iov(&mut x), iov(&mut y)];
    eq!(ok!(libc::readv(fd, v.as_ptr(), 2)), 8);
    eq!((&x, &y[..4]), (b"onet", &b"hree"[..]));
    eq!(ok!(libc::preadv(fd, v.as_ptr(), 2, 6)), 2);
    eq!(&x[..2], b"ee");
    eq!(ok!(libc::pwritev(fd, v.as_ptr(), 1, 0)), 4);
    // A fault in a later part gives what came before.
    let mut good = *b"good";
    let v = [
        iov(&mut good),
        libc::iovec {
            iov_base: 8 as *mut _,
            iov_len: 4,
        },
    ];
    let fd = new("g");
    eq!(ok!(libc::writev(fd, v.as_ptr(), 2)), 4);
}

unsafe fn iov_errors() {
    let fd = new("f");
    let mut a = *b"x";
    let one = iov(&mut a);
    err!(libc::EINVAL, libc::writev(fd, &one, -1));
    err!(libc::EINVAL, libc::writev(fd, &one, 1025));
    eq!(ok!(libc::writev(fd, &one, 0)), 0);
    err!(libc::EFAULT, libc::writev(fd, 8 as *const _, 1));
    let huge = libc::iovec {
        iov_base: a.as_mut_ptr().cast(),
        iov_len: usize::MAX,
    };
    err!(libc::EINVAL, libc::writev(fd, &huge, 1));
    let many = vec![one; 1024];
    eq!(ok!(libc::writev(fd, many.as_ptr(), 1024)), 1024);
}

unsafe fn preadv2_flags() {
    write_file("f", b"0123456789");
    let fd = open("f", libc::O_RDWR);
    let mut b = [0u8; 4];
    let v = iov(&mut b);
    eq!(ok!(libc::preadv2(fd, &v, 1, 2, 0)), 4);
    eq!(&b, b"2345");
    // Offset -1: the current position.
    eq!(ok!(libc::preadv2(fd, &v, 1, -1, 0)), 4);
    eq!(&b, b"0123");
    eq!(libc::lseek(fd, 0, libc::SEEK_CUR), 4);
    let mut w = *b"AB";
    eq!(
        ok!(libc::pwritev2(fd, &iov(&mut w), 1, 0, libc::RWF_APPEND)),
        2
    );
    eq!(size(fd), 12);
    eq!(
        ok!(libc::pwritev2(
            fd,
            &iov(&mut w),
            1,
            0,
            libc::RWF_DSYNC | libc::RWF_SYNC
        )),
        2
    );
    let r = libc::preadv2(fd, &v, 1, 0, libc::RWF_NOWAIT);
    check!(r == 4 || (r == -1 && [libc::EAGAIN, libc::EOPNOTSUPP].contains(&errno())));
    err!(libc::EOPNOTSUPP, libc::preadv2(fd, &v, 1, 0, 0x4000_0000));
}

unsafe fn lseek_basic() {
    write_file("f", b"0123456789");
    let fd = open("f", libc::O_RDWR);
    eq!(libc::lseek(fd, -3, libc::SEEK_END), 7);
    eq!(read_some(fd, 9), b"789");
    eq!(libc::lseek(fd, -5, libc::SEEK_CUR), 5);
    eq!(libc::lseek(fd, 0, libc::SEEK_CUR), 5);
}

unsafe fn lseek_beyond_and_hole() {
    let fd = new("f");
    eq!(libc::lseek(fd, 10_000, libc::SEEK_SET), 10_000);
    eq!(size(fd), 0);
    write_all(fd, b"end");
    eq!(size(fd), 10_003);
    eq!(pread(fd, 100, 5000), vec![0; 100]);
    eq!(pread(fd, 10, 9998), b"\0\0end");
}

unsafe fn lseek_data_hole() {
    let fd = new("f");
    eq!(
        ok!(libc::pwrite(fd, [1u8; 4096].as_ptr().cast(), 4096, 1 << 20)),
        4096
    );
    let data = ok!(libc::lseek(fd, 0, libc::SEEK_DATA));
    check!(data == 0 || data == 1 << 20, "{data}");
    eq!(ok!(libc::lseek(fd, 1 << 20, libc::SEEK_DATA)), 1 << 20);
    let hole = ok!(libc::lseek(fd, 1 << 20, libc::SEEK_HOLE));
    eq!(hole, (1 << 20) + 4096);
    let first = ok!(libc::lseek(fd, 0, libc::SEEK_HOLE));
    check!(first == 0 || first == (1 << 20) + 4096);
    err!(
        libc::ENXIO,
        libc::lseek(fd, (1 << 20) + 4096, libc::SEEK_DATA)
    );
    err!(libc::ENXIO, libc::lseek(fd, -1, libc::SEEK_HOLE));
}

unsafe fn lseek_errors() {
    let fd = new("f");
    err!(libc::EINVAL, libc::lseek(fd, -1, libc::SEEK_SET));
    err!(libc::EINVAL, libc::lseek(fd, 0, 99));
    err!(libc::EINVAL, libc::lseek(fd, -1, libc::SEEK_END));
    let (r, _w) = pipe();
    err!(libc::ESPIPE, libc::lseek(r, 0, libc::SEEK_SET));
    let s = ok!(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0));
    err!(libc::ESPIPE, libc::lseek(s, 0, libc::SEEK_CUR));
}

unsafe fn truncate_grows_and_shrinks() {
    write_file("f", b"0123456789");
    ok!(libc::truncate(c("f").as_ptr(), 4));
    eq!(read_file("f"), b"0123");
    ok!(libc::truncate(c("f").as_ptr(), 8));
    eq!(read_file("f"), b"0123\0\0\0\0");
    let fd = open("f", libc::O_RDWR);
    libc::lseek(fd, 6, libc::SEEK_SET);
    ok!(libc::ftruncate(fd, 2));
    // The offset stays where it was.
    write_all(fd, b"z");
    eq!(read_file("f"), b"01\0\0\0\0z");
}

unsafe fn truncate_errors() {
    write_file("f", b"");
    err!(libc::EINVAL, libc::truncate(c("f").as_ptr(), -1));
    err!(libc::ENOENT, libc::truncate(c("x").as_ptr(), 0));
    err!(libc::EISDIR, libc::truncate(c(".").as_ptr(), 0));
    err!(libc::EINVAL, libc::ftruncate(open("f", libc::O_RDONLY), 0));
    err!(libc::EINVAL, libc::ftruncate(open("f", libc::O_RDWR), -1));
    let (r, _) = pipe();
    err!(libc::EINVAL, libc::ftruncate(r, 0));
    in_child(|| {
        ok!(libc::setresuid(1000, 1000, 1000));
        err!(libc::EACCES, libc::truncate(c("f").as_ptr(), 0));
    });
}

unsafe fn ftruncate_clears_tail() {
    let fd = new("f");
    write_all(fd, &[9u8; 8192]);
    ok!(libc::ftruncate(fd, 100));
    ok!(libc::ftruncate(fd, 8192));
    eq!(pread(fd, 8192, 100).iter().filter(|b| **b != 0).count(), 0);
    eq!(pread(fd, 100, 0), [9; 100]);
}

unsafe fn file_size_limit() {
    in_child(|| {
        let limit = libc::rlimit {
            rlim_cur: 1000,
            rlim_max: 1000,
        };
        ok!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit));
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let fd = new("f");
        // Up to the limit, then EFBIG.
        eq!(
            ok!(libc::write(fd, [1u8; 1500].as_ptr().cast(), 1500)),
            1000
        );
        err!(libc::EFBIG, libc::write(fd, [1u8; 1].as_ptr().cast(), 1));
        err!(libc::EFBIG, libc::ftruncate(fd, 1001));
        ok!(libc::ftruncate(fd, 10));
    });
    let pid = fork(|| {
        let limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        ok!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit));
        let zero = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &zero);
        libc::write(new("g"), b"x".as_ptr().cast(), 1);
    });
    eq!(libc::WTERMSIG(wait(pid)), libc::SIGXFSZ);
}

unsafe fn write_big_buffers() {
    let fd = new("f");
    let data: Vec<u8> = (0..5_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    write_all(fd, &data);
    libc::lseek(fd, 0, libc::SEEK_SET);
    check!(read_full(fd, data.len() + 1) == data);
    // Odd sizes and offsets.
    for (off, len) in [
        (0usize, 1usize),
        (4095, 2),
        (65535, 65537),
        (1_000_001, 300_003),
    ] {
        check!(pread(fd, len, off as i64) == data[off..off + len]);
    }
}

/// Half of the buffer is not accessible: what went through is counted, and the
/// position stands behind that.
unsafe fn big_buffers_that_end_early() {
    const LEN: usize = 256 << 10;
    let data: Vec<u8> = (0..LEN).map(|i| (i / 7 % 251) as u8).collect();
    write_file("f", &data);
    let fd = open("f", libc::O_RDWR);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let base = libc::mmap(std::ptr::null_mut(), LEN, both, flags, -1, 0);
    check!(base != libc::MAP_FAILED);
    let half = base.cast::<u8>().add(LEN / 2);
    ok!(libc::mprotect(half.cast(), LEN / 2, libc::PROT_NONE));

    ok!(libc::lseek(fd, 5, libc::SEEK_SET));
    let count = ok!(libc::read(fd, base, LEN)) as usize;
    check!(count > 0 && count <= LEN / 2, "read {count}");
    let got = std::slice::from_raw_parts(base.cast::<u8>(), count);
    check!(got == &data[5..5 + count]);
    eq!(libc::lseek(fd, 0, libc::SEEK_CUR), 5 + count as i64);
    err!(libc::EFAULT, libc::read(fd, half.cast(), LEN / 2));
    eq!(libc::lseek(fd, 0, libc::SEEK_CUR), 5 + count as i64);

    // Over the end of the file the rest is not touched.
    ok!(libc::lseek(fd, (LEN - 70_000) as i64, libc::SEEK_SET));
    eq!(ok!(libc::read(fd, base, LEN)), 70_000);
    eq!(libc::lseek(fd, 0, libc::SEEK_CUR), LEN as i64);

    ok!(libc::lseek(fd, 0, libc::SEEK_SET));
    std::slice::from_raw_parts_mut(base.cast::<u8>(), LEN / 2).fill(b'w');
    let count = ok!(libc::write(fd, base, LEN)) as usize;
    check!(count > 0 && count <= LEN / 2, "wrote {count}");
    eq!(libc::lseek(fd, 0, libc::SEEK_CUR), count as i64);
    let now = read_file("f");
    eq!(now.len(), LEN);
    check!(now[..count].iter().all(|&byte| byte == b'w'));
    check!(now[LEN / 2..] == data[LEN / 2..]);
    err!(libc::EFAULT, libc::pwrite(fd, half.cast(), LEN / 2, 0));
}

unsafe fn sparse_file() {
    let fd = new("f");
    ok!(libc::ftruncate(fd, 1 << 30));
    eq!(size(fd), 1 << 30);
    let mut st: libc::stat = std::mem::zeroed();
    ok!(libc::fstat(fd, &mut st));
    check!(st.st_blocks < 1000, "{} blocks", st.st_blocks);
    eq!(pread(fd, 4, (1 << 30) - 4), [0; 4]);
}

unsafe fn large_offsets() {
    let fd = new("f");
    let off = (1i64 << 33) + 5;
    eq!(ok!(libc::pwrite(fd, b"far".as_ptr().cast(), 3, off)), 3);
    eq!(pread(fd, 3, off), b"far");
    eq!(size(fd), off + 3);
    ok!(libc::ftruncate(fd, 0));
    let r = libc::pwrite(fd, b"x".as_ptr().cast(), 1, i64::MAX);
    check!(r == -1 && (errno() == libc::EFBIG || errno() == libc::EINVAL));
}

unsafe fn fallocate_modes() {
    let fd = new("f");
    let r = libc::fallocate(fd, 0, 0, 10_000);
    if r == -1 && errno() == libc::EOPNOTSUPP {
        skip("no fallocate here");
    }
    eq!(size(fd), 10_000);
    ok!(libc::fallocate(
        fd,
        libc::FALLOC_FL_KEEP_SIZE,
        10_000,
        10_000
    ));
    eq!(size(fd), 10_000);
    eq!(
        ok!(libc::pwrite(fd, [7u8; 8192].as_ptr().cast(), 8192, 0)),
        8192
    );
    ok!(libc::fallocate(
        fd,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        4096,
        4096
    ));
    eq!(
        (pread(fd, 1, 4095), pread(fd, 1, 4096), pread(fd, 1, 8191)),
        (vec![7], vec![0], vec![0])
    );
    let r = libc::fallocate(fd, libc::FALLOC_FL_ZERO_RANGE, 0, 100);
    if r == 0 {
        eq!((pread(fd, 1, 99), pread(fd, 1, 100)), (vec![0], vec![7]));
    }
    eq!(libc::posix_fallocate(fd, 0, 20_000), 0);
    eq!(size(fd), 20_000);
}

unsafe fn fallocate_errors() {
    let fd = new("f");
    err!(libc::EINVAL, libc::fallocate(fd, 0, -1, 10));
    err!(libc::EINVAL, libc::fallocate(fd, 0, 0, 0));
    err!(
        libc::EOPNOTSUPP,
        libc::fallocate(fd, libc::FALLOC_FL_PUNCH_HOLE, 0, 10)
    );
    err!(
        libc::EBADF,
        libc::fallocate(open("f", libc::O_RDONLY), 0, 0, 10)
    );
    let (_r, w) = pipe();
    err!(libc::ESPIPE, libc::fallocate(w, 0, 0, 10));
    err!(libc::EFBIG, libc::fallocate(fd, 0, i64::MAX - 5, 10));
}

unsafe fn copy_file_range(
    a: i32,
    off_a: Option<&mut i64>,
    b: i32,
    off_b: Option<&mut i64>,
    len: usize,
    flags: u32,
) -> i64 {
    let pa = off_a.map_or(std::ptr::null_mut(), |p| p as *mut i64);
    let pb = off_b.map_or(std::ptr::null_mut(), |p| p as *mut i64);
    sys!(libc::SYS_copy_file_range, a, pa, b, pb, len, flags)
}

unsafe fn copy_file_range_basic() {
    write_file("a", b"0123456789");
    let a = open("a", libc::O_RDONLY);
    let b = new("b");
    eq!(ok!(copy_file_range(a, None, b, None, 4, 0)), 4);
    eq!(
        (
            libc::lseek(a, 0, libc::SEEK_CUR),
            libc::lseek(b, 0, libc::SEEK_CUR)
        ),
        (4, 4)
    );
    let (mut i, mut o) = (8i64, 1i64);
    eq!(
        ok!(copy_file_range(a, Some(&mut i), b, Some(&mut o), 100, 0)),
        2
    );
    eq!((i, o), (10, 3));
    eq!(read_file("b"), b"0893");
    eq!(ok!(copy_file_range(a, Some(&mut i), b, None, 100, 0)), 0);
    // Within one file.
    let s = open("a", libc::O_RDWR);
    let (mut i, mut o) = (0i64, 10i64);
    eq!(
        ok!(copy_file_range(s, Some(&mut i), s, Some(&mut o), 10, 0)),
        10
    );
    eq!(read_file("a"), b"01234567890123456789");
}

unsafe fn copy_file_range_errors() {
    write_file("a", b"0123456789");
    let a = open("a", libc::O_RDWR);
    let (mut i, mut o) = (0i64, 5i64);
    err!(
        libc::EINVAL,
        copy_file_range(a, Some(&mut i), a, Some(&mut o), 10, 0)
    );
    err!(libc::EINVAL, copy_file_range(a, None, a, None, 1, 1));
    let ro = open("a", libc::O_RDONLY);
    err!(libc::EBADF, copy_file_range(a, None, ro, None, 1, 0));
    let ap = open("a", libc::O_RDWR | libc::O_APPEND);
    err!(libc::EBADF, copy_file_range(a, None, ap, None, 1, 0));
    let (r, _w) = pipe();
    err!(libc::EINVAL, copy_file_range(r, None, a, None, 1, 0));
    let d = open(".", libc::O_RDONLY);
    err!(libc::EISDIR, copy_file_range(d, None, a, None, 1, 0));
}

unsafe fn sendfile_to_pipe_and_file() {
    write_file("a", b"0123456789");
    let a = open("a", libc::O_RDONLY);
    let (r, w) = pipe();
    eq!(ok!(libc::sendfile(w, a, std::ptr::null_mut(), 4)), 4);
    eq!(read_some(r, 10), b"0123");
    eq!(libc::lseek(a, 0, libc::SEEK_CUR), 4);
    let mut off = 7i64;
    let b = new("b");
    eq!(ok!(libc::sendfile(b, a, &mut off, 100)), 3);
    eq!(off, 10);
    eq!(libc::lseek(a, 0, libc::SEEK_CUR), 4);
    eq!(read_file("b"), b"789");
    let mut sv = [0; 2];
    ok!(libc::socketpair(
        libc::AF_UNIX,
        libc::SOCK_STREAM,
        0,
        sv.as_mut_ptr()
    ));
    off = 0;
    eq!(ok!(libc::sendfile(sv[0], a, &mut off, 10)), 10);
    eq!(read_some(sv[1], 20), b"0123456789");
    // Large: through a pipe in pieces.
    let big: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    write_file("big", &big);
    let src = open("big", libc::O_RDONLY);
    let dst = new("copy");
    let mut left = big.len();
    while left > 0 {
        left -= ok!(libc::sendfile(dst, src, std::ptr::null_mut(), left)) as usize;
    }
    check!(read_file("copy") == big);
}

unsafe fn sendfile_errors() {
    write_file("a", b"x");
    let a = open("a", libc::O_RDONLY);
    let (r, w) = pipe();
    err!(libc::EBADF, libc::sendfile(a, a, std::ptr::null_mut(), 1));
    err!(libc::EFAULT, libc::sendfile(w, a, 8 as *mut _, 1));
    err!(libc::EINVAL, libc::sendfile(w, a, &mut -1i64, 1));
    let mut off = 0;
    err!(libc::ESPIPE, libc::sendfile(w, r, &mut off, 1));
    eq!(ok!(libc::sendfile(w, a, std::ptr::null_mut(), 0)), 0);
}

unsafe fn splice(
    a: i32,
    off_a: Option<&mut i64>,
    b: i32,
    off_b: Option<&mut i64>,
    len: usize,
    flags: u32,
) -> isize {
    let pa = off_a.map_or(std::ptr::null_mut(), |p| p as *mut i64);
    let pb = off_b.map_or(std::ptr::null_mut(), |p| p as *mut i64);
    libc::splice(a, pa, b, pb, len, flags)
}

unsafe fn splice_pipe_file() {
    write_file("a", b"0123456789");
    let a = open("a", libc::O_RDONLY);
    let (r, w) = pipe();
    let mut off = 2i64;
    eq!(ok!(splice(a, Some(&mut off), w, None, 5, 0)), 5);
    eq!(off, 7);
    let b = new("b");
    eq!(ok!(splice(r, None, b, None, 100, 0)), 5);
    eq!(read_file("b"), b"23456");
    let (r2, w2) = pipe();
    write_all(w, b"pipe to pipe");
    eq!(ok!(splice(r, None, w2, None, 4, 0)), 4);
    eq!(read_some(r2, 100), b"pipe");
    eq!(read_some(r, 100), b" to pipe");
    err!(
        libc::EAGAIN,
        splice(r, None, w2, None, 4, libc::SPLICE_F_NONBLOCK)
    );
    libc::close(w);
    eq!(ok!(splice(r, None, w2, None, 4, 0)), 0);
    // End of file.
    off = 100;
    eq!(ok!(splice(a, Some(&mut off), w2, None, 4, 0)), 0);
}

unsafe fn splice_errors() {
    write_file("a", b"x");
    let a = open("a", libc::O_RDWR);
    let b = new("b");
    let (r, w) = pipe();
    err!(libc::EINVAL, splice(a, None, b, None, 1, 0));
    err!(libc::ESPIPE, splice(r, Some(&mut 0), b, None, 1, 0));
    err!(libc::EINVAL, splice(r, None, w, None, 1, 0));
    err!(libc::EBADF, splice(w, None, b, None, 1, 0));
    err!(libc::EINVAL, splice(a, None, w, None, 1, 0x100));
    eq!(ok!(splice(a, None, w, None, 0, 0)), 0);
}

unsafe fn tee_pipe() {
    let (r, w) = pipe();
    let (r2, w2) = pipe();
    write_all(w, b"twice");
    eq!(ok!(libc::tee(r, w2, 100, 0)), 5);
    eq!(read_some(r, 10), b"twice");
    eq!(read_some(r2, 10), b"twice");
    err!(libc::EAGAIN, libc::tee(r, w2, 1, libc::SPLICE_F_NONBLOCK));
    let a = new("a");
    err!(libc::EINVAL, libc::tee(r, a, 1, 0));
    err!(libc::EINVAL, libc::tee(r, w, 1, 0));
}

unsafe fn vmsplice_pipe() {
    let (r, w) = pipe();
    let mut data = *b"from memory";
    let v = iov(&mut data);
    eq!(ok!(libc::vmsplice(w, &v, 1, 0)), 11);
    eq!(read_some(r, 20), b"from memory");
    err!(libc::EBADF, libc::vmsplice(new("f"), &v, 1, 0));
}

unsafe fn fsync_family() {
    let fd = new("f");
    write_all(fd, b"x");
    ok!(libc::fsync(fd));
    ok!(libc::fdatasync(fd));
    ok!(libc::syncfs(fd));
    let (r, _w) = pipe();
    err!(libc::EINVAL, libc::fsync(r));
    ok!(libc::fsync(open(".", libc::O_RDONLY)));
}

unsafe fn concurrent_readers_writers() {
    let fd = new("f");
    write_all(fd, &[b'a'; 4096]);
    let writers: Vec<i32> = (0..3u8)
        .map(|i| {
            fork(|| {
                let fd = open("f", libc::O_RDWR);
                for _ in 0..200 {
                    let n =
                        libc::pwrite(fd, [b'b' + i; 512].as_ptr().cast(), 512, 512 * i64::from(i));
                    eq!(n, 512);
                }
            })
        })
        .collect();
    for _ in 0..200 {
        eq!(pread(fd, 512, 3584), [b'a'; 512]);
    }
    for w in writers {
        wait_ok(w);
    }
    eq!(pread(fd, 1, 1024), b"d");
}

unsafe fn shared_offset_threads() {
    // Reads through one description never see a byte twice.
    let data: Vec<u8> = (0..4000u32).flat_map(u32::to_ne_bytes).collect();
    write_file("f", &data);
    let fd = open("f", libc::O_RDONLY);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut got = Vec::new();
                loop {
                    let part = read_some(fd, 4);
                    if part.is_empty() {
                        return got;
                    }
                    got.push(u32::from_ne_bytes([part[0], part[1], part[2], part[3]]));
                }
            })
        })
        .collect();
    let mut all: Vec<u32> = threads
        .into_iter()
        .flat_map(|t| t.join().unwrap_or_default())
        .collect();
    all.sort_unstable();
    check!(all.iter().copied().eq(0..4000), "{} values", all.len());
}

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
