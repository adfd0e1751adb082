//! Clocks, sleeping, timers: clock_gettime(2), nanosleep(2), timer_create(2),
//! timerfd_create(2), times(2).

pub mod clocks;
pub mod timerfd;
pub mod timers;

use crate::util::*;

unsafe fn now(clock: i32) -> i64 {
    let mut t: libc::timespec = std::mem::zeroed();
    ok!(libc::clock_gettime(clock, &mut t));
    check!((0..1_000_000_000).contains(&t.tv_nsec));
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

const fn ns(ns: i64) -> libc::timespec {
    libc::timespec {
        tv_sec: ns / 1_000_000_000,
        tv_nsec: ns % 1_000_000_000,
    }
}

const MS: i64 = 1_000_000;

fn burn(ms: u64) {
    let end = now_ms() + ms;
    let mut x = 0u64;
    while now_ms() < end {
        for i in 0..1000 {
            x = std::hint::black_box(x.wrapping_add(i));
        }
    }
}

unsafe fn ticks(fd: i32) -> u64 {
    u64::from_ne_bytes(read_some(fd, 8).try_into().unwrap_or_default())
}
