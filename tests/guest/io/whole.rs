//! Long writes of several processes to one file: none is seen in parts.

use super::*;
use crate::util::*;

cases![long_writes_stay_whole, long_appends_stay_whole];

/// Has two processes run `write` with letters of their own, `rounds` times.
unsafe fn two_writers(rounds: u32, write: unsafe fn(&[u8])) {
    const LEN: usize = 600 << 10;
    let writers: Vec<i32> = (0..2u8)
        .map(|i| {
            fork(|| {
                let bytes = vec![b'a' + i; LEN];
                for _ in 0..rounds {
                    write(&bytes);
                }
            })
        })
        .collect();
    for w in writers {
        wait_ok(w);
    }
}

unsafe fn long_writes_stay_whole() {
    unsafe fn overwrite(bytes: &[u8]) {
        let fd = open("f", libc::O_RDWR);
        eq!(
            libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), 0),
            bytes.len() as isize
        );
        libc::close(fd);
    }
    let fd = new("f");
    for _ in 0..20 {
        two_writers(3, overwrite);
        let data = pread(fd, 600 << 10, 0);
        eq!(data.len(), 600 << 10);
        let of_first = data.iter().filter(|&&byte| byte == data[0]).count();
        eq!(of_first, data.len());
    }
}

unsafe fn long_appends_stay_whole() {
    unsafe fn append(bytes: &[u8]) {
        let fd = open("f", libc::O_WRONLY | libc::O_APPEND);
        write_all(fd, bytes);
        libc::close(fd);
    }
    new("f");
    two_writers(8, append);
    let data = read_file("f");
    eq!(data.len(), 16 * (600 << 10));
    for part in data.chunks(600 << 10) {
        check!(part.iter().all(|&byte| byte == part[0]), "mixed");
    }
}
