//! pipe(7), fifo(7), poll(2), select(2), epoll(7), eventfd(2).

pub mod epoll;
pub mod eventfd;
pub mod pipe;
pub mod poll;

use crate::util::*;

unsafe fn pipe2(flags: i32) -> (i32, i32) {
    let mut fds = [0; 2];
    ok!(libc::pipe2(fds.as_mut_ptr(), flags));
    (fds[0], fds[1])
}

unsafe fn fill(w: i32) -> usize {
    let mut total = 0;
    loop {
        let n = libc::write(w, [1u8; 1000].as_ptr().cast(), 1000);
        if n < 0 {
            eq!(errno(), libc::EAGAIN);
            return total;
        }
        total += n as usize;
    }
}

extern "C" fn nothing(_: i32) {}
