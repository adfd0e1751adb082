//! Calls that take a path.

use super::*;

impl Tracer {
    pub(super) fn path_call(&mut self) -> i64 {
        let (dir, path) = (self.dirfd(), self.name());
        let (dir2, path2) = (self.dirfd(), self.name());
        let (p, p2) = (path.as_ptr() as i64, path2.as_ptr() as i64);
        let shown = |path: &CString| {
            let text = path.to_string_lossy().into_owned();
            if text.len() > 40 {
                format!("<{}>", text.len())
            } else {
                text
            }
        };
        let (n, n2) = (shown(&path), shown(&path2));
        let at = self.at();
        match self.random.below(34) {
            0..=7 => {
                let access = self.random.pick(&[0, 1, 2, 2, 2, 3]);
                let flags = self.random.flags(&[
                    libc::O_CREAT,
                    libc::O_CREAT,
                    libc::O_CREAT,
                    libc::O_EXCL,
                    libc::O_TRUNC,
                    libc::O_APPEND,
                    libc::O_DIRECTORY,
                    libc::O_NOFOLLOW,
                    libc::O_PATH,
                    libc::O_CLOEXEC,
                    libc::O_SYNC,
                    libc::O_TMPFILE,
                    libc::O_NOATIME,
                ]) | access
                    | libc::O_NONBLOCK;
                let mode = self.random.pick(&[0o644, 0o600, 0o755, 0o444, 0o7777, 0]);
                self.say(format_args!("{dir} {n} {flags:o} {mode:o} "));
                self.call("openat", libc::SYS_openat, &[dir, p, flags.into(), mode])
            }
            8..=9 => {
                let mode = self.random.pick(&[0o755, 0o700, 0o1777, 0o2755]);
                self.say(format_args!("{dir} {n} {mode:o} "));
                self.call("mkdirat", libc::SYS_mkdirat, &[dir, p, mode])
            }
            10..=12 => {
                let flags = self.random.pick(&[0, 0, libc::AT_REMOVEDIR, 1]);
                self.say(format_args!("{dir} {n} {flags:x} "));
                self.call("unlinkat", libc::SYS_unlinkat, &[dir, p, flags.into()])
            }
            13..=15 => {
                let flags = self.random.pick(&[0, 0, 0, 1, 2, 3, 4, 8]);
                self.say(format_args!("{dir} {n} {dir2} {n2} {flags} "));
                self.call("renameat2", libc::SYS_renameat2, &[dir, p, dir2, p2, flags])
            }
            16..=17 => {
                let flags = self
                    .random
                    .pick(&[0, 0, libc::AT_SYMLINK_FOLLOW, libc::AT_EMPTY_PATH]);
                self.say(format_args!("{dir} {n} {dir2} {n2} {flags:x} "));
                self.call(
                    "linkat",
                    libc::SYS_linkat,
                    &[dir, p, dir2, p2, flags.into()],
                )
            }
            18..=19 => {
                self.say(format_args!("{n2} {dir} {n} "));
                self.call("symlinkat", libc::SYS_symlinkat, &[p2, dir, p])
            }
            20 => {
                let size = self.random.pick(&[0, 1, 2, 100, 4096, -1]);
                self.say(format_args!("{dir} {n} {size} "));
                let result = self.call("readlinkat", libc::SYS_readlinkat, &[dir, p, at, size]);
                self.tell_data(result);
                result
            }
            21..=23 => {
                let flags = self.random.pick(&[
                    0,
                    0,
                    libc::AT_SYMLINK_NOFOLLOW,
                    libc::AT_EMPTY_PATH,
                    0x4000,
                ]);
                self.say(format_args!("{dir} {n} {flags:x} "));
                let result = self.call(
                    "newfstatat",
                    libc::SYS_newfstatat,
                    &[dir, p, at, flags.into()],
                );
                if result == 0 {
                    self.tell_stat();
                }
                result
            }
            24 => {
                let mode = self
                    .random
                    .pick(&[0o644, 0o755, 0o4755, 0o2644, 0, 0o1777, 0o10000]);
                let flags =
                    self.random
                        .pick(&[0, 0, libc::AT_SYMLINK_NOFOLLOW, libc::AT_EMPTY_PATH]);
                self.say(format_args!("{dir} {n} {mode:o} {flags:x} "));
                self.call("fchmodat2", 452, &[dir, p, mode, flags.into()])
            }
            25 => {
                let (uid, gid) = (
                    self.random.pick(&[0, 1000, -1]),
                    self.random.pick(&[0, 1000, -1]),
                );
                let flags =
                    self.random
                        .pick(&[0, 0, libc::AT_SYMLINK_NOFOLLOW, libc::AT_EMPTY_PATH]);
                self.say(format_args!("{dir} {n} {uid} {gid} {flags:x} "));
                self.call(
                    "fchownat",
                    libc::SYS_fchownat,
                    &[dir, p, uid, gid, flags.into()],
                )
            }
            26 => {
                let (mode, flags) = (
                    self.random.pick(&[0, 1, 2, 4, 7, 8]),
                    self.random.pick(&[
                        0,
                        0,
                        libc::AT_EACCESS,
                        libc::AT_SYMLINK_NOFOLLOW,
                        libc::AT_EMPTY_PATH,
                        1,
                    ]),
                );
                self.say(format_args!("{dir} {n} {mode} {flags:x} "));
                self.call(
                    "faccessat2",
                    libc::SYS_faccessat2,
                    &[dir, p, mode, flags.into()],
                )
            }
            27 => {
                let size = self.size();
                self.say(format_args!("{n} {size} "));
                self.call("truncate", libc::SYS_truncate, &[p, size])
            }
            28 => {
                self.say(format_args!("{n} "));
                self.call("chdir", libc::SYS_chdir, &[p])
            }
            29 => {
                let kind = self.random.pick(&[
                    libc::S_IFIFO,
                    libc::S_IFREG,
                    0,
                    libc::S_IFSOCK,
                    libc::S_IFDIR,
                    0o150_000,
                ]);
                let mode = i64::from(kind) | 0o644;
                self.say(format_args!("{dir} {n} {mode:o} "));
                self.call("mknodat", libc::SYS_mknodat, &[dir, p, mode, 0])
            }
            30 => {
                let how = [
                    self.random.flags(&[
                        libc::O_CREAT,
                        libc::O_DIRECTORY,
                        libc::O_PATH,
                        libc::O_RDWR,
                    ]) as u64
                        | libc::O_NONBLOCK as u64,
                    self.random.pick(&[0, 0, 0o600]),
                    self.random
                        .pick(&[0, 1, 2, 4, 8, 0x10, 0x10 | 4, 0x18, 0x40]),
                ];
                let size = self.random.pick(&[24, 24, 24, 16, 0, 32]);
                self.say(format_args!("{dir} {n} {how:x?} {size} "));
                for (at, word) in how.iter().chain(&[0]).enumerate() {
                    self.buf[at * 8..at * 8 + 8].copy_from_slice(&word.to_ne_bytes());
                }
                self.call("openat2", libc::SYS_openat2, &[dir, p, at, size])
            }
            31 => {
                let mask = self.random.pick(&[0x7ff, 1, 0x1fff, 0x8000_0000]);
                let flags = self.random.pick(&[
                    0,
                    libc::AT_SYMLINK_NOFOLLOW,
                    libc::AT_EMPTY_PATH,
                    0x6000,
                    0x800,
                ]);
                self.say(format_args!("{dir} {n} {flags:x} {mask:x} "));
                let result = self.call("statx", libc::SYS_statx, &[dir, p, flags.into(), mask, at]);
                if result == 0 {
                    let half = |at: usize| u16::from_ne_bytes([self.buf[at], self.buf[at + 1]]);
                    let mode = half(28);
                    self.say(format_args!(" [mode {mode:o}]"));
                }
                result
            }
            32 => {
                let times: [i64; 4] = [
                    5,
                    self.random
                        .pick(&[0, 999_999_999, 1_000_000_000, 0x3fff_ffff, 0x3fff_fffe]),
                    7,
                    self.random.pick(&[0, 0x3fff_fffe]),
                ];
                for (at, word) in times.iter().enumerate() {
                    self.buf[at * 8..at * 8 + 8].copy_from_slice(&word.to_ne_bytes());
                }
                let flags =
                    self.random
                        .pick(&[0, 0, libc::AT_SYMLINK_NOFOLLOW, libc::AT_EMPTY_PATH, 2]);
                self.say(format_args!("{dir} {n} {times:x?} {flags:x} "));
                self.call(
                    "utimensat",
                    libc::SYS_utimensat,
                    &[dir, p, at, flags.into()],
                )
            }
            _ => {
                self.say(format_args!("{n} "));
                self.call("rmdir", libc::SYS_rmdir, &[p])
            }
        }
    }
}
