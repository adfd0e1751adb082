//! read(2), write(2), pread(2), preadv2(2), fsync(2).

use super::*;
use crate::util::*;

cases![
    read_write_offsets,
    read_at_end,
    zero_length,
    pread_pwrite,
    readv_writev,
    iov_errors,
    preadv2_flags,
    nowait_flag,
    write_big_buffers,
    big_buffers_that_end_early,
    fsync_family,
    concurrent_readers_writers,
    shared_offset_threads,
];

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
    err!(
        libc::EFAULT,
        libc::write(fd, std::ptr::without_provenance(8), 10)
    );
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
    err!(
        libc::EFAULT,
        libc::writev(fd, std::ptr::without_provenance(8), 1)
    );
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

unsafe fn nowait_flag() {
    let nowait = libc::RWF_NOWAIT;
    let mut b = *b"12345678";
    let v = iov(&mut b);
    // Streams of the kernel take it.
    let (r, w) = pipe();
    err!(libc::EAGAIN, libc::preadv2(r, &v, 1, -1, nowait));
    eq!(ok!(libc::pwritev2(w, &v, 1, -1, nowait)), 8);
    eq!(ok!(libc::preadv2(r, &v, 1, -1, nowait)), 8);
    let mut s = [0; 2];
    ok!(libc::socketpair(
        libc::AF_UNIX,
        libc::SOCK_STREAM,
        0,
        s.as_mut_ptr()
    ));
    err!(libc::EAGAIN, libc::preadv2(s[0], &v, 1, -1, nowait));
    eq!(ok!(libc::pwritev2(s[0], &v, 1, -1, nowait)), 8);
    let event = ok!(libc::eventfd(0, 0));
    err!(libc::EAGAIN, libc::preadv2(event, &v, 1, -1, nowait));
    err!(libc::EOPNOTSUPP, libc::pwritev2(event, &v, 1, -1, nowait));
    let zero = open("/dev/zero", libc::O_RDWR);
    eq!(ok!(libc::preadv2(zero, &v, 1, -1, nowait)), 8);
    // Files in memory and of proc and directories do not.
    let memory = ok!(libc::memfd_create(c"m".as_ptr(), 0));
    write_all(memory, b"bytes");
    err!(libc::EOPNOTSUPP, libc::preadv2(memory, &v, 1, 0, nowait));
    err!(libc::EOPNOTSUPP, libc::pwritev2(memory, &v, 1, 0, nowait));
    let status = open("/proc/self/status", libc::O_RDONLY);
    err!(libc::EOPNOTSUPP, libc::preadv2(status, &v, 1, 0, nowait));
    let top = open("/", libc::O_RDONLY);
    err!(libc::EOPNOTSUPP, libc::preadv2(top, &v, 1, 0, nowait));
    let inotify = ok!(libc::inotify_init());
    err!(libc::EOPNOTSUPP, libc::preadv2(inotify, &v, 1, -1, nowait));
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
