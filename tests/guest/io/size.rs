//! lseek(2), truncate(2), fallocate(2).

use super::*;
use crate::util::*;

cases![
    lseek_basic,
    lseek_beyond_and_hole,
    lseek_data_hole,
    lseek_errors,
    truncate_grows_and_shrinks,
    truncate_errors,
    ftruncate_clears_tail,
    file_size_limit,
    sparse_file,
    large_offsets,
    fallocate_modes,
    fallocate_errors,
];

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
