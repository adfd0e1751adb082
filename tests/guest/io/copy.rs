//! copy_file_range(2), sendfile(2), splice(2), tee(2), vmsplice(2).

use super::*;
use crate::util::*;

cases![
    copy_file_range_basic,
    copy_file_range_errors,
    sendfile_to_pipe_and_file,
    sendfile_errors,
    splice_pipe_file,
    splice_errors,
    tee_pipe,
    vmsplice_pipe,
];

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
    err!(
        libc::EFAULT,
        libc::sendfile(w, a, std::ptr::without_provenance_mut(8), 1)
    );
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
