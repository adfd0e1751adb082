//! proc(5), sysfs(5), uname(2), sysinfo(2), sched(7), getrandom(2), mounts.

pub mod files;
pub mod mounts;
pub mod system;
pub mod task;

use crate::util;

fn text(field: &[libc::c_char]) -> String {
    field
        .iter()
        .take_while(|x| **x != 0)
        .map(|x| *x as u8 as char)
        .collect()
}

unsafe fn link(path: &str) -> String {
    match std::fs::read_link(path) {
        Ok(p) => p.to_string_lossy().into_owned(),
        Err(e) => util::fail(file!(), line!(), format_args!("readlink {path}: {e}")),
    }
}

fn status(pid: i32, key: &str) -> String {
    util::read_text(&format!("/proc/{pid}/status"))
        .lines()
        .find_map(|l| {
            l.strip_prefix(key)?
                .strip_prefix(':')
                .map(|v| v.trim().to_owned())
        })
        .unwrap_or_default()
}

fn meminfo(key: &str) -> u64 {
    util::read_text("/proc/meminfo")
        .lines()
        .find_map(|l| {
            l.strip_prefix(key)?
                .strip_prefix(':')?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}
