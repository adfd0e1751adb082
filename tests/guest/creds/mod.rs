//! Credentials, capabilities, namespaces, resource limits:
//! credentials(7), capabilities(7), namespaces(7), getrlimit(2), prctl(2).

pub mod capabilities;
pub mod ids;
pub mod limits;
pub mod namespaces;
pub mod prctl;

unsafe fn setresuid(r: i64, e: i64, s: i64) -> i32 {
    libc::setresuid(r as u32, e as u32, s as u32)
}

/// Effective, permitted, inheritable.
unsafe fn capget() -> (u64, u64, u64) {
    let header = [0x2008_0522u32, 0];
    let mut d = [0u32; 6];
    ok!(sys!(libc::SYS_capget, header.as_ptr(), d.as_mut_ptr()));
    let j = |lo: u32, hi: u32| u64::from(lo) | u64::from(hi) << 32;
    (j(d[0], d[3]), j(d[1], d[4]), j(d[2], d[5]))
}
