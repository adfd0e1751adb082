//! fork, clone, exit and wait: fork(2), clone(2), wait4(2), waitid(2),
//! pidfd_open(2), setpgid(2), setsid(2).

pub mod clone;
pub mod groups;
pub mod pidfd;
pub mod wait;

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

static CHLD: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_chld(_: i32) {
    CHLD.fetch_add(1, SeqCst);
}
