//! Files that are read again and again, of which a kernel may keep more at
//! hand, while they change.

use super::*;
use crate::util::*;

cases![
    reading_again_sees_every_change,
    reading_again_keeps_to_the_descriptor,
    reading_again_into_bad_memory,
];

/// Content of byte `at` of a test file.
fn byte_at(at: usize) -> u8 {
    (at / 4096 * 7 + at % 251) as u8
}

/// A file of `len` bytes that has been read a few times.
unsafe fn well_read(name: &str, len: usize) -> i32 {
    let fd = new(name);
    let data: Vec<u8> = (0..len).map(byte_at).collect();
    write_all(fd, &data);
    for _ in 0..4 {
        for part in [64 << 10, 1 << 20] {
            for at in (0..len).step_by(part) {
                let got = pread(fd, part, at as i64);
                check!(got == data[at..len.min(at + part)], "{part} at {at}");
            }
        }
    }
    fd
}

unsafe fn reading_again_sees_every_change() {
    const LEN: usize = (5 << 20) + 100;
    let fd = well_read("f", LEN);
    // At the end, and across the end of any unit that a kernel may work with.
    let end = LEN as i64;
    eq!(pread(fd, 64 << 10, end), b"");
    eq!(pread(fd, 64 << 10, end + 5000), b"");
    eq!(pread(fd, 64 << 10, end - 7).len(), 7);
    for at in [(2 << 20) - 5, (4 << 20) - 60_000, 4095] {
        let got = pread(fd, 70_000, at as i64);
        check!(
            got.iter().enumerate().all(|(i, &b)| b == byte_at(at + i)),
            "{at}"
        );
    }
    // Written by this and another descriptor.
    let other = open("f", libc::O_WRONLY);
    for (writer, at) in [(fd, 100), (other, (2 << 20) - 2), (other, 3 << 20)] {
        eq!(libc::pwrite(writer, b"fresh".as_ptr().cast(), 5, at), 5);
        let got = pread(fd, 8192, at);
        eq!(got[..5], b"fresh"[..]);
        eq!(got[5], byte_at(at as usize + 5));
    }
    // Longer, shorter, and longer with nothing in between.
    eq!(libc::pwrite(other, b"tail".as_ptr().cast(), 4, end), 4);
    eq!(pread(fd, 64 << 10, end - 1).len(), 5);
    eq!(libc::ftruncate(fd, 5000), 0);
    eq!(pread(fd, 64 << 10, 0).len(), 5000);
    eq!(pread(fd, 64 << 10, 1 << 20), b"");
    eq!(libc::ftruncate(other, end), 0);
    let got = pread(fd, 64 << 10, 0);
    eq!(got.len(), 64 << 10);
    eq!(got[4999], byte_at(4999));
    check!(
        got[5000..].iter().all(|&byte| byte == 0),
        "what was cut off is back"
    );
    // The position moves as with any read.
    eq!(libc::lseek(fd, 1000, libc::SEEK_SET), 1000);
    for _ in 0..40 {
        eq!(read_some(fd, 100_000).len(), 100_000);
    }
    eq!(libc::lseek(fd, 0, libc::SEEK_CUR), 4_001_000);
}

unsafe fn reading_again_keeps_to_the_descriptor() {
    const LEN: usize = 1 << 20;
    let fd = well_read("f", LEN);
    let other = new("g");
    write_all(other, &vec![b'g'; LEN]);
    // Another file at the same number, and the same file at another.
    let copy = ok!(libc::dup(fd));
    eq!(libc::dup2(other, fd), fd);
    check!(
        pread(fd, LEN, 0).iter().all(|&byte| byte == b'g'),
        "not the new file"
    );
    eq!(pread(copy, LEN, 0)[9999], byte_at(9999));
    libc::close(copy);
    eq!(
        libc::pread(copy, [0u8; 4096].as_mut_ptr().cast(), 4096, 0),
        -1
    );
    // A child and a thread.
    let child = fork(|| {
        check!(
            pread(other, LEN, 0).iter().all(|&byte| byte == b'g'),
            "in the child"
        );
    });
    wait_ok(child);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..20 {
                    let fd = open("f", libc::O_RDONLY);
                    for at in (0..LEN).step_by(128 << 10) {
                        let got = pread(fd, 128 << 10, at as i64);
                        check!(
                            got[77] == byte_at(at + 77) && got.len() == 128 << 10,
                            "{at}"
                        );
                    }
                    libc::close(fd);
                }
            })
        })
        .collect();
    for thread in threads {
        check!(thread.join().is_ok(), "a thread has failed");
    }
}

unsafe fn reading_again_into_bad_memory() {
    const LEN: usize = 1 << 20;
    let fd = well_read("f", LEN);
    let memory = anon(2 * LEN);
    eq!(
        libc::mprotect(
            memory.add(300_000 / 4096 * 4096).cast(),
            4096,
            libc::PROT_NONE
        ),
        0
    );
    let hole = 300_000 / 4096 * 4096;
    for _ in 0..3 {
        eq!(libc::pread(fd, memory.cast(), LEN, 0), hole as isize);
        err!(
            libc::EFAULT,
            libc::pread(fd, memory.add(hole).cast(), 8192, 0)
        );
        eq!(*memory.add(hole - 1), byte_at(hole - 1));
    }
    err!(libc::EFAULT, libc::pread(fd, std::ptr::null_mut(), LEN, 0));
    err!(
        libc::EFAULT,
        libc::pread(fd, (1usize << 62) as *mut _, LEN, 0)
    );
}
