//! Reading, writing, seeking, truncating, allocating, copying and splicing.

pub mod again;
pub mod copy;
pub mod other;
pub mod read_write;
pub mod size;
pub mod whole;

use crate::util::*;

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

fn iov(b: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: b.as_mut_ptr().cast(),
        iov_len: b.len(),
    }
}
