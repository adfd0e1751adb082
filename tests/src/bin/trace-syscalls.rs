//! Random but sensible calls with their results, one line each, to compare
//! kernels: `trace-syscalls SEED CALLS`, in an empty directory, which becomes
//! the root of the process. The same seed makes the same calls wherever the
//! same results come back, so the first line that differs between two kernels
//! shows a call that one of them gets wrong.
//!
//! Left out of the lines: inode and device numbers, times, sizes of
//! directories, addresses. No call blocks: all pipes and sockets are
//! non-blocking.

use std::ffi::CString;
use std::fmt::Write as _;

/// xorshift64*: small, seeded, good enough to vary arguments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A subset of flags, small ones more often than large ones.
    fn flags(&mut self, choices: &[i32]) -> i32 {
        let count = self.below(4);
        (0..count).fold(0, |flags, _| flags | self.pick(choices))
    }
}

const NAMES: &[&str] = &[
    "a", "a", "b", "b", "c", "d", "d", "d/x", "d/x", "d/y", "d/e", "d/e", "d/e/z", "d/e/z", "s",
    "s", "s/x", "t", "l", "l/x", "p", ".", "..", "", "a/", "d/", "d/..", "d/./x", "d/e/../y",
    "../a", "/d/x", "//a", "nope/x", "a/x", "s/", "/", "d/e/..", "./.", "loop", "loop/x",
];

struct Tracer {
    random: Random,
    buf: Vec<u8>,
    line: String,
    mapped: *mut u8,
}

const BUF: usize = 1 << 16;

fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

impl Tracer {
    fn fd(&mut self) -> i64 {
        match self.random.below(40) {
            0 => -1,
            1 => 200,
            n => 3 + (n as i64) % 14,
        }
    }

    fn dirfd(&mut self) -> i64 {
        if self.random.below(2) == 0 {
            i64::from(libc::AT_FDCWD)
        } else {
            self.fd()
        }
    }

    fn name(&mut self) -> CString {
        let name = match self.random.below(120) {
            0 => "n".repeat(255),
            1 => "n".repeat(256),
            2 => "n/".repeat(2100),
            _ => self.random.pick(NAMES).to_owned(),
        };
        CString::new(name).expect("no zeros")
    }

    fn size(&mut self) -> i64 {
        let exact = self
            .random
            .pick(&[0, 1, 10, 100, 4095, 4096, 4097, 8192, 20000, 65536]);
        match self.random.below(12) {
            0 => -1,
            1 => 1 << 40,
            2 => i64::MAX,
            3 => 1 << 31,
            _ => exact,
        }
    }

    fn len(&mut self) -> i64 {
        self.random
            .pick(&[0, 1, 3, 10, 100, 1000, 4096, 5000, 65536])
    }

    fn call(&mut self, name: &str, nr: i64, args: &[i64]) -> i64 {
        let arg = |i: usize| args.get(i).copied().unwrap_or(0);
        // SAFETY: arguments are numbers, or addresses of buffers of `self`
        // that are large enough for every length used.
        let result = unsafe { libc::syscall(nr, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
        let result = if result == -1 {
            -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
        } else {
            result
        };
        let _ = write!(self.line, "{name}");
        result
    }

    fn at(&mut self) -> i64 {
        self.buf.as_mut_ptr() as i64
    }

    fn say(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.line.write_fmt(text);
    }

    /// What `stat` tells that does not depend on time and place.
    fn tell_stat(&mut self) {
        // SAFETY: the call has filled a `struct stat`, which is plain data.
        let stat: libc::stat = unsafe { std::ptr::read_unaligned(self.buf.as_ptr().cast()) };
        let directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let size = if directory { -1 } else { stat.st_size };
        let (mode, links) = (stat.st_mode, stat.st_nlink);
        let (uid, gid) = (stat.st_uid, stat.st_gid);
        self.say(format_args!(
            " [mode {mode:o} links {links} {uid}:{gid} size {size}]"
        ));
    }

    fn fill(&mut self, len: i64) {
        let byte = self.random.below(255) as u8 + 1;
        for (at, place) in self.buf.iter_mut().take(len as usize).enumerate() {
            *place = byte.wrapping_add((at / 7) as u8);
        }
    }

    fn tell_data(&mut self, result: i64) {
        if result > 0 {
            let data = &self.buf[..(result as usize).min(BUF)];
            let hash = fnv(data);
            self.say(format_args!(" data {hash:08x}"));
        }
    }

    fn step(&mut self) {
        self.line.clear();
        let result = match self.random.below(16) {
            0..=4 => self.path_call(),
            5..=9 => self.file_call(),
            10..=11 => self.descriptor_call(),
            12 => self.attribute_call(),
            13 => self.pipe_call(),
            14 => self.memory_call(),
            _ => self.process_call(),
        };
        println!("{} = {result}", self.line);
    }

    fn path_call(&mut self) -> i64 {
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

    fn file_call(&mut self) -> i64 {
        let (fd, len, size, at) = (self.fd(), self.len(), self.size(), self.at());
        let fd2 = self.fd();
        match self.random.below(22) {
            0..=2 => {
                self.say(format_args!("{fd} {len} "));
                let result = self.call("read", libc::SYS_read, &[fd, at, len]);
                self.tell_data(result);
                result
            }
            3..=6 => {
                self.fill(len);
                self.say(format_args!("{fd} {len} "));
                self.call("write", libc::SYS_write, &[fd, at, len])
            }
            7 => {
                self.say(format_args!("{fd} {len} {size} "));
                let result = self.call("pread64", libc::SYS_pread64, &[fd, at, len, size]);
                self.tell_data(result);
                result
            }
            8..=9 => {
                self.fill(len);
                let size = if size > 1 << 30 { 12345 } else { size };
                self.say(format_args!("{fd} {len} {size} "));
                self.call("pwrite64", libc::SYS_pwrite64, &[fd, at, len, size])
            }
            10..=11 => {
                let whence = self.random.pick(&[0, 1, 2, 3, 4, 5]);
                let size = self.random.pick(&[size, -len, len]);
                self.say(format_args!("{fd} {size} {whence} "));
                self.call("lseek", libc::SYS_lseek, &[fd, size, whence])
            }
            12 => {
                self.say(format_args!("{fd} {size} "));
                self.call("ftruncate", libc::SYS_ftruncate, &[fd, size])
            }
            13 => {
                let mode = self.random.pick(&[0, 0, 1, 2, 3, 0x10, 8, 0x20, 0x40]);
                let offset = self.random.pick(&[0, 4096, 8192, 100, -1]);
                let len = self.random.pick(&[4096, 8192, 100, 0, -1]);
                self.say(format_args!("{fd} {mode:x} {offset} {len} "));
                let result = self.call("fallocate", libc::SYS_fallocate, &[fd, mode, offset, len]);
                // File systems differ in what they can do.
                if mode & !3 != 0 {
                    result.signum()
                } else {
                    result
                }
            }
            14 => {
                self.say(format_args!("{fd} "));
                let result = self.call("fstat", libc::SYS_fstat, &[fd, at]);
                if result == 0 {
                    self.tell_stat();
                }
                result
            }
            15 => {
                let offset = self.random.pick(&[0, 5, 5000]);
                self.buf[BUF - 8..].copy_from_slice(&i64::to_ne_bytes(offset));
                let place = if self.random.below(2) == 0 {
                    0
                } else {
                    at + BUF as i64 - 8
                };
                self.say(format_args!("{fd} {fd2} {offset} {} {len} ", place != 0));
                self.call("sendfile", libc::SYS_sendfile, &[fd, fd2, place, len])
            }
            16 => {
                self.say(format_args!("{fd} {fd2} {len} "));
                self.call(
                    "copy_file_range",
                    libc::SYS_copy_file_range,
                    &[fd, 0, fd2, 0, len, 0],
                )
            }
            17 => {
                let mut names = Vec::new();
                self.say(format_args!("{fd} "));
                let result = self.call("getdents64", libc::SYS_getdents64, &[fd, at, BUF as i64]);
                let mut place = 0;
                while (place as i64) < result {
                    let len = u16::from_ne_bytes([self.buf[place + 16], self.buf[place + 17]]);
                    let entry = &self.buf[place + 18..place + usize::from(len)];
                    let end = entry
                        .iter()
                        .skip(1)
                        .position(|byte| *byte == 0)
                        .unwrap_or(0);
                    names.push(format!(
                        "{}:{}",
                        String::from_utf8_lossy(&entry[1..=end]),
                        entry[0]
                    ));
                    place += usize::from(len);
                }
                names.sort();
                self.say(format_args!(" {names:?}"));
                result.signum() * if result < 0 { -result } else { 1 }
            }
            18 => {
                let count = self.random.below(4) as i64;
                let vectors = BUF as i64 - 1024;
                for i in 0..count {
                    let place = (vectors + i * 16) as usize;
                    let base = at + i * 5000;
                    let part = self.random.pick(&[0, 1, 100, 4096]);
                    self.buf[place..place + 8].copy_from_slice(&base.to_ne_bytes());
                    self.buf[place + 8..place + 16].copy_from_slice(&i64::to_ne_bytes(part));
                    self.say(format_args!("{part} "));
                }
                let flags = self.random.pick(&[0, 0, 2, 8, 0x10, 0x8000]);
                let offset = self.random.pick(&[-1, 0, 10, -2]);
                self.say(format_args!("{fd} {offset} {flags:x} "));
                let nr = self.random.pick(&[libc::SYS_preadv2, libc::SYS_pwritev2]);
                let name = if nr == libc::SYS_preadv2 {
                    "preadv2"
                } else {
                    "pwritev2"
                };
                self.call(name, nr, &[fd, at + vectors, count, offset, 0, flags])
            }
            19 => {
                let call = self.random.pick(&[
                    ("fsync", libc::SYS_fsync),
                    ("fdatasync", libc::SYS_fdatasync),
                    ("fchdir", libc::SYS_fchdir),
                    ("syncfs", libc::SYS_syncfs),
                ]);
                self.say(format_args!("{fd} "));
                self.call(call.0, call.1, &[fd])
            }
            20 => {
                let mode = self.random.pick(&[0o600, 0o4711, 0o2666, 0]);
                self.say(format_args!("{fd} {mode:o} "));
                self.call("fchmod", libc::SYS_fchmod, &[fd, mode])
            }
            _ => {
                let advice = self.random.pick(&[0, 1, 4, 9]);
                self.say(format_args!("{fd} {advice} "));
                self.call("fadvise64", libc::SYS_fadvise64, &[fd, 0, 0, advice])
            }
        }
    }

    fn descriptor_call(&mut self) -> i64 {
        let (fd, fd2, at) = (self.fd(), self.fd(), self.at());
        match self.random.below(14) {
            0..=4 => {
                self.say(format_args!("{fd} "));
                self.call("close", libc::SYS_close, &[fd])
            }
            5 => {
                self.say(format_args!("{fd} "));
                self.call("dup", libc::SYS_dup, &[fd])
            }
            6 => {
                let flags = self.random.pick(&[0, libc::O_CLOEXEC, 1]);
                let to = 3 + self.random.below(16) as i64;
                self.say(format_args!("{fd} {to} {flags} "));
                self.call("dup3", libc::SYS_dup3, &[fd, to, flags.into()])
            }
            7 => {
                let (command, arg) = self.random.pick(&[
                    (libc::F_GETFD, 0),
                    (libc::F_SETFD, 1),
                    (libc::F_GETFL, 0),
                    (libc::F_SETFL, libc::O_NONBLOCK | libc::O_APPEND),
                    (libc::F_SETFL, libc::O_NONBLOCK),
                    (libc::F_DUPFD, 5),
                    (libc::F_DUPFD_CLOEXEC, 9),
                    (libc::F_GETPIPE_SZ, 0),
                    (libc::F_SETPIPE_SZ, 10000),
                    (libc::F_GET_SEALS, 0),
                    (libc::F_ADD_SEALS, 2),
                    (libc::F_DUPFD, -1),
                    (11, 0),
                    (999, 0),
                    (libc::F_GETOWN, 0),
                ]);
                self.say(format_args!("{fd} {command} {arg} "));
                self.call("fcntl", libc::SYS_fcntl, &[fd, command.into(), arg.into()])
            }
            8 => {
                let kind = self
                    .random
                    .pick(&[libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK, 7])
                    as u16;
                let command = self.random.pick(&[
                    libc::F_SETLK,
                    libc::F_GETLK,
                    libc::F_OFD_SETLK,
                    libc::F_OFD_GETLK,
                ]);
                let (start, len) = (
                    self.random.pick(&[0i64, 5, 100, -1]),
                    self.random.pick(&[0i64, 5, 50, -3]),
                );
                let whence = self.random.pick(&[0u16, 0, 1, 2, 3]);
                self.buf[..32].fill(0);
                self.buf[..2].copy_from_slice(&kind.to_ne_bytes());
                self.buf[2..4].copy_from_slice(&whence.to_ne_bytes());
                self.buf[8..16].copy_from_slice(&start.to_ne_bytes());
                self.buf[16..24].copy_from_slice(&len.to_ne_bytes());
                self.say(format_args!(
                    "{fd} {command} {kind} {whence} {start} {len} "
                ));
                let result = self.call("fcntl-lock", libc::SYS_fcntl, &[fd, command.into(), at]);
                let hash = fnv(&self.buf[..24]);
                self.say(format_args!(" {hash:08x}"));
                result
            }
            9 => {
                let how = self.random.pick(&[1, 2, 8, 5, 6, 12, 3]);
                self.say(format_args!("{fd} {how} "));
                self.call(
                    "flock",
                    libc::SYS_flock,
                    &[fd, how | i64::from(libc::LOCK_NB)],
                )
            }
            10 => {
                for (slot, fd) in [fd, fd2].into_iter().enumerate() {
                    self.buf[slot * 8..slot * 8 + 4].copy_from_slice(&(fd as i32).to_ne_bytes());
                    let events = self.random.pick(&[1u16, 4, 5, 0x1f, 0x2000, 0xffff]);
                    self.buf[slot * 8 + 4..slot * 8 + 6].copy_from_slice(&events.to_ne_bytes());
                    self.say(format_args!("{fd}:{events:x} "));
                }
                let result = self.call("poll", libc::SYS_poll, &[at, 2, 0]);
                let revents = |slot: usize| {
                    u16::from_ne_bytes([self.buf[slot * 8 + 6], self.buf[slot * 8 + 7]])
                };
                let (a, b) = (revents(0), revents(1));
                self.say(format_args!(" {a:x} {b:x}"));
                result
            }
            11 => {
                let (op, events) = (
                    self.random.pick(&[1, 2, 3, 3, 1, 9]),
                    self.random
                        .pick(&[1u32, 4, 5, 1 << 31 | 5, 1 << 30 | 5, 1 << 28 | 5]),
                );
                self.buf[..4].copy_from_slice(&events.to_ne_bytes());
                self.buf[4..12].copy_from_slice(&fd2.to_ne_bytes());
                self.say(format_args!("{fd} {op} {fd2} {events:x} "));
                self.call("epoll_ctl", libc::SYS_epoll_ctl, &[fd, op, fd2, at])
            }
            12 => {
                let max = self.random.pick(&[1, 8, 0, -1]);
                self.say(format_args!("{fd} {max} "));
                let result = self.call("epoll_wait", libc::SYS_epoll_wait, &[fd, at, max, 0]);
                let mut events: Vec<_> = (0..result.max(0) as usize)
                    .map(|i| fnv(&self.buf[i * 12..i * 12 + 12]))
                    .collect();
                events.sort_unstable();
                self.say(format_args!(" {events:x?}"));
                result
            }
            _ => {
                let flags = self.random.pick(&[0, libc::EPOLL_CLOEXEC, 1]);
                self.say(format_args!("{flags} "));
                self.call("epoll_create1", libc::SYS_epoll_create1, &[flags.into()])
            }
        }
    }

    fn attribute_call(&mut self) -> i64 {
        let (path, fd, at) = (self.name(), self.fd(), self.at());
        let key = CString::new(self.random.pick(&[
            "user.a",
            "user.b",
            "trusted.t",
            "user.",
            "bad.x",
            "",
            "security.q",
        ]))
        .expect("no zeros");
        let (p, k) = (path.as_ptr() as i64, key.as_ptr() as i64);
        let shown = if path.as_bytes().len() > 40 {
            "<long>".into()
        } else {
            path.to_string_lossy().into_owned()
        };
        let size = self.random.pick(&[0, 1, 5, 300]);
        let flags = self.random.pick(&[0, 0, 0, 1, 2, 3, 4]);
        match self.random.below(8) {
            0..=1 => {
                self.fill(size);
                self.say(format_args!("{shown} {key:?} {size} {flags} "));
                self.call("setxattr", libc::SYS_setxattr, &[p, k, at, size, flags])
            }
            2 => {
                self.fill(size);
                self.say(format_args!("{fd} {key:?} {size} {flags} "));
                self.call("fsetxattr", libc::SYS_fsetxattr, &[fd, k, at, size, flags])
            }
            3 => {
                self.say(format_args!("{shown} {key:?} {size} "));
                let result = self.call("getxattr", libc::SYS_getxattr, &[p, k, at, size]);
                if size > 0 {
                    self.tell_data(result);
                }
                result
            }
            4 => {
                self.say(format_args!("{fd} {key:?} {size} "));
                self.call("fgetxattr", libc::SYS_fgetxattr, &[fd, k, at, size])
            }
            5 => {
                self.say(format_args!("{shown} {size} "));
                self.call("llistxattr", libc::SYS_llistxattr, &[p, at, size])
            }
            6 => {
                self.say(format_args!("{shown} {key:?} "));
                self.call("removexattr", libc::SYS_removexattr, &[p, k])
            }
            _ => {
                self.say(format_args!("{shown} {key:?} "));
                self.call("lremovexattr", libc::SYS_lremovexattr, &[p, k])
            }
        }
    }

    fn pipe_call(&mut self) -> i64 {
        let (fd, fd2, len, at) = (self.fd(), self.fd(), self.len(), self.at());
        match self.random.below(16) {
            0..=1 => {
                let flags = self
                    .random
                    .pick(&[0, 0, libc::O_CLOEXEC, libc::O_DIRECT, 1])
                    | libc::O_NONBLOCK;
                self.say(format_args!("{flags:x} "));
                self.call("pipe2", libc::SYS_pipe2, &[at, flags.into()])
            }
            2..=3 => {
                let kind = self.random.pick(&[1, 2, 5, 3, 1]) | libc::SOCK_NONBLOCK;
                let family = self.random.pick(&[1, 1, 1, 2, 99]);
                self.say(format_args!("{family} {kind:x} "));
                self.call(
                    "socketpair",
                    libc::SYS_socketpair,
                    &[family, kind.into(), 0, at],
                )
            }
            4 => {
                let (family, kind) = (
                    self.random.pick(&[1, 2, 10, 16, 99]),
                    self.random.pick(&[1, 2, 5, 3, 77]) | libc::SOCK_NONBLOCK,
                );
                // Raw sockets and netlink are a matter of configuration.
                if family == 16 || kind & 0xff == 3 {
                    return 0;
                }
                self.say(format_args!("{family} {kind:x} "));
                self.call("socket", libc::SYS_socket, &[family, kind.into(), 0])
            }
            5..=6 => {
                self.fill(len);
                let flags = self
                    .random
                    .pick(&[0, 0, libc::MSG_MORE, libc::MSG_DONTROUTE])
                    | libc::MSG_NOSIGNAL;
                self.say(format_args!("{fd} {len} {flags:x} "));
                self.call(
                    "sendto",
                    libc::SYS_sendto,
                    &[fd, at, len, flags.into(), 0, 0],
                )
            }
            7..=8 => {
                let flags =
                    self.random
                        .pick(&[0, 0, libc::MSG_PEEK, libc::MSG_TRUNC, libc::MSG_WAITALL]);
                self.say(format_args!("{fd} {len} {flags:x} "));
                let result = self.call(
                    "recvfrom",
                    libc::SYS_recvfrom,
                    &[fd, at, len, flags.into(), 0, 0],
                );
                if result <= len {
                    self.tell_data(result);
                }
                result
            }
            9 => {
                let how = self.random.pick(&[0, 1, 2, 3]);
                self.say(format_args!("{fd} {how} "));
                self.call("shutdown", libc::SYS_shutdown, &[fd, how])
            }
            10 => {
                let call = self
                    .random
                    .pick(&[("splice", libc::SYS_splice), ("tee", libc::SYS_tee)]);
                let flags = self.random.pick(&[2, 2, 3, 0x12]);
                self.say(format_args!("{fd} {fd2} {len} "));
                if call.0 == "splice" {
                    self.call(call.0, call.1, &[fd, 0, fd2, 0, len, flags])
                } else {
                    self.call(call.0, call.1, &[fd, fd2, len, flags])
                }
            }
            11 => {
                let (level, option) = self.random.pick(&[
                    (1, 3),
                    (1, 4),
                    (1, 2),
                    (1, 39),
                    (1, 38),
                    (1, 30),
                    (6, 1),
                    (0, 1),
                    (41, 26),
                    (1, 999),
                    (1, 9),
                    (1, 6),
                ]);
                self.buf[..8].fill(0);
                self.buf[8..12].copy_from_slice(&4u32.to_ne_bytes());
                self.say(format_args!("{fd} {level} {option} "));
                let result = self.call(
                    "getsockopt",
                    libc::SYS_getsockopt,
                    &[fd, level, option, at, at + 8],
                );
                let hash = fnv(&self.buf[..12]);
                self.say(format_args!(" {hash:08x}"));
                result
            }
            12 => {
                let flags = self.random.pick(&[0, 1, 2, 3, 0x100]);
                let name = c"m".as_ptr() as i64;
                self.say(format_args!("{flags} "));
                self.call("memfd_create", libc::SYS_memfd_create, &[name, flags])
            }
            13 => {
                let (initial, flags) = (
                    self.random.pick(&[0, 1, 7]),
                    self.random.pick(&[0, 1, 2]) | libc::EFD_NONBLOCK,
                );
                self.say(format_args!("{initial} {flags:x} "));
                self.call("eventfd2", libc::SYS_eventfd2, &[initial, flags.into()])
            }
            14 => {
                let family = self.random.pick(&[1u16, 2, 10]);
                self.buf[..32].fill(0);
                self.buf[..2].copy_from_slice(&family.to_ne_bytes());
                let name = self.random.pick(&["a", "sock", "d/sock", "\0abs", ""]);
                if family == 1 {
                    self.buf[2..2 + name.len()].copy_from_slice(name.as_bytes());
                }
                let len = self
                    .random
                    .pick(&[2, 2 + name.len() as i64, 16, 28, 1, 200]);
                let call = self
                    .random
                    .pick(&[("bind", libc::SYS_bind), ("connect", libc::SYS_connect)]);
                if family != 1 && call.0 == "bind" {
                    return 0;
                }
                self.say(format_args!("{fd} {family} {name:?} {len} "));
                self.call(call.0, call.1, &[fd, at, len])
            }
            _ => {
                let call = self
                    .random
                    .pick(&[("listen", libc::SYS_listen), ("accept4", libc::SYS_accept4)]);
                let flags = if call.0 == "accept4" { 0 } else { 5 };
                self.say(format_args!("{fd} "));
                self.call(call.0, call.1, &[fd, flags, 0, libc::SOCK_NONBLOCK.into()])
            }
        }
    }

    fn memory_call(&mut self) -> i64 {
        let place = self.mapped as i64 + 4096 * self.random.below(60) as i64;
        let place = if self.random.below(12) == 0 {
            place + 5
        } else {
            place
        };
        let len = self
            .random
            .pick(&[4096, 4096, 8192, 12288, 100, 0, 40960, -4096]);
        let prot = self.random.pick(&[0, 1, 3, 3, 5, 2, 8]);
        let page = (place - self.mapped as i64) as f64 / 4096.0;
        let base = self.mapped as i64;
        let relative = |result: i64| {
            if result > 0xffff {
                result - base
            } else {
                result
            }
        };
        match self.random.below(9) {
            0..=2 => {
                let fd = self.fd();
                let flags = libc::MAP_FIXED
                    | self.random.pick(&[
                        libc::MAP_SHARED,
                        libc::MAP_PRIVATE,
                        libc::MAP_PRIVATE,
                        3,
                        0,
                    ])
                    | self
                        .random
                        .pick(&[libc::MAP_ANONYMOUS, libc::MAP_ANONYMOUS, 0]);
                let offset = self.random.pick(&[0, 4096, 5, 1 << 20]);
                self.say(format_args!("{page} {len} {prot} {flags:x} {fd} {offset} "));
                let result = self.call(
                    "mmap",
                    libc::SYS_mmap,
                    &[place, len, prot, flags.into(), fd, offset],
                );
                relative(result)
            }
            3 => {
                self.say(format_args!("{page} {len} "));
                self.call("munmap", libc::SYS_munmap, &[place, len])
            }
            4..=5 => {
                self.say(format_args!("{page} {len} {prot} "));
                self.call("mprotect", libc::SYS_mprotect, &[place, len, prot])
            }
            6 => {
                let target = base + 4096 * self.random.below(60) as i64;
                let new = self.random.pick(&[4096, 8192, 0, 40960]);
                let flags = self.random.pick(&[3, 3, 2, 0, 7]);
                let to = (target - base) / 4096;
                self.say(format_args!("{page} {len} {new} {flags} {to} "));
                // Without a fixed target the address is the kernel's choice.
                if flags != 3 {
                    return 0;
                }
                let result = self.call(
                    "mremap",
                    libc::SYS_mremap,
                    &[place, len, new, flags, target],
                );
                relative(result)
            }
            7 => {
                let advice = self.random.pick(&[0, 3, 4, 8, 14, 10, 99]);
                self.say(format_args!("{page} {len} {advice} "));
                self.call("madvise", libc::SYS_madvise, &[place, len, advice])
            }
            _ => {
                let flags = self.random.pick(&[1, 2, 4, 5, 0, 8]);
                self.say(format_args!("{page} {len} {flags} "));
                self.call("msync", libc::SYS_msync, &[place, len, flags])
            }
        }
    }

    fn process_call(&mut self) -> i64 {
        let at = self.at();
        let (fd, path) = (self.fd(), self.name());
        match self.random.below(10) {
            0 => {
                let mask = self.random.pick(&[0o22, 0, 0o77, 0o777]);
                self.say(format_args!("{mask:o} "));
                self.call("umask", libc::SYS_umask, &[mask])
            }
            1 => {
                let size = self.random.pick(&[4096, 2, 1, 0]);
                self.say(format_args!("{size} "));
                let result = self.call("getcwd", libc::SYS_getcwd, &[at, size]);
                self.tell_data(result);
                result
            }
            2 => {
                let (how, size) = (
                    self.random.pick(&[0, 1, 2, 3]),
                    self.random.pick(&[8, 8, 4, 16]),
                );
                let mask = self.random.next() & 0xffff_ff00;
                self.buf[..8].copy_from_slice(&mask.to_ne_bytes());
                self.say(format_args!("{how} {size} {mask:x} "));
                let result = self.call(
                    "rt_sigprocmask",
                    libc::SYS_rt_sigprocmask,
                    &[how, at, at + 16, size],
                );
                if result == 0 {
                    let hash = fnv(&self.buf[16..24]);
                    self.say(format_args!(" {hash:08x}"));
                }
                result
            }
            3 => {
                let which = self.random.pick(&[0, 1, 4, 7, 15, 16, -1]);
                self.say(format_args!("{which} "));
                let result = self.call("prlimit64", libc::SYS_prlimit64, &[0, which, 0, at]);
                // Its values are a matter of configuration.
                result
            }
            4 => {
                let p = path.as_ptr() as i64;
                let mask = self.random.pick(&[0xfff, 2, 0, 0x100_0002]);
                let n = if path.as_bytes().len() > 40 {
                    "<long>".into()
                } else {
                    path.to_string_lossy()
                };
                self.say(format_args!("{fd} {n} {mask:x} "));
                self.call(
                    "inotify_add_watch",
                    libc::SYS_inotify_add_watch,
                    &[fd, p, mask],
                )
            }
            5 => {
                let flags = self.random.pick(&[0, 1]) | libc::IN_NONBLOCK;
                self.say(format_args!("{flags:x} "));
                self.call("inotify_init1", libc::SYS_inotify_init1, &[flags.into()])
            }
            6 => {
                let (clock, flags) = (
                    self.random.pick(&[0, 1, 7, 2, 99]),
                    self.random.pick(&[0, 1]) | libc::TFD_NONBLOCK,
                );
                self.say(format_args!("{clock} {flags:x} "));
                self.call(
                    "timerfd_create",
                    libc::SYS_timerfd_create,
                    &[clock, flags.into()],
                )
            }
            7 => {
                let words: [i64; 4] = [
                    0,
                    0,
                    self.random.pick(&[0, 1000, -1]),
                    self.random.pick(&[0, 5, 1_000_000_000]),
                ];
                for (i, word) in words.iter().enumerate() {
                    self.buf[i * 8..i * 8 + 8].copy_from_slice(&word.to_ne_bytes());
                }
                self.say(format_args!("{fd} {words:?} "));
                self.call(
                    "timerfd_settime",
                    libc::SYS_timerfd_settime,
                    &[fd, 0, at, 0],
                )
            }
            8 => {
                let request = self.random.pick(&[
                    libc::FIONREAD,
                    libc::FIOCLEX,
                    libc::FIONCLEX,
                    libc::TCGETS,
                    0x1234,
                    libc::FIOASYNC,
                    libc::TIOCGWINSZ,
                ]);
                self.buf[..4].fill(0);
                self.say(format_args!("{fd} {request:x} "));
                let result = self.call("ioctl", libc::SYS_ioctl, &[fd, request as i64, at]);
                if request == libc::FIONREAD && result == 0 {
                    let hash = fnv(&self.buf[..4]);
                    self.say(format_args!(" {hash:08x}"));
                }
                result
            }
            _ => {
                // All processes of the user would be asked about otherwise.
                let (who, what) =
                    self.random
                        .pick(&[(0, 0), (0, 1), (9999, 0), (9999, 1), (9999, 2), (0, 3)]);
                self.say(format_args!("{what} {who} "));
                self.call("getpriority", libc::SYS_getpriority, &[what, who])
            }
        }
    }
}

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|arg| arg.parse::<u64>().expect("a number"));
    let (seed, calls) = (args.next().expect("SEED"), args.next().expect("CALLS"));
    // SAFETY: plain calls before anything else runs; the mapping is used by
    // numbers only.
    let mapped = unsafe {
        assert_eq!(libc::chroot(c".".as_ptr()), 0, "chroot needs root");
        libc::chdir(c"/".as_ptr());
        libc::umask(0o22);
        libc::close_range(3, u32::MAX, 0);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(
            std::ptr::null_mut(),
            100 * 4096,
            libc::PROT_READ,
            flags,
            -1,
            0,
        )
    };
    let mut tracer = Tracer {
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        buf: vec![0; BUF],
        line: String::new(),
        mapped: mapped.cast(),
    };
    for _ in 0..20 {
        tracer.random.next();
    }
    for _ in 0..calls {
        tracer.step();
    }
}
