//! Reading, writing and positions of open files.

use super::*;

impl Tracer {
    pub(super) fn file_call(&mut self) -> i64 {
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
}
