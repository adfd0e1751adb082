//! What waits for files, and files that time and signals make ready; nothing
//! waits for long.

use super::*;

impl Tracer {
    pub(super) fn wait_call(&mut self) -> i64 {
        let (fd, fd2, at) = (self.fd(), self.fd(), self.at());
        match self.random.below(14) {
            0 => {
                let flags = self.random.pick(&[0, libc::EPOLL_CLOEXEC, 1]);
                self.say(format_args!("{flags:x} "));
                let args = [flags.into()];
                self.call("epoll_create1", libc::SYS_epoll_create1, &args)
            }
            1..=4 => {
                let op = self.random.pick(&[1, 1, 1, 2, 3, 3, 9]);
                let events = self.random.flags(&[
                    libc::EPOLLIN,
                    libc::EPOLLOUT,
                    libc::EPOLLRDHUP,
                    libc::EPOLLET,
                    libc::EPOLLONESHOT,
                    libc::EPOLLEXCLUSIVE,
                ]);
                self.buf[..4].copy_from_slice(&events.to_ne_bytes());
                self.buf[4..12].copy_from_slice(&fd2.to_ne_bytes());
                self.say(format_args!("{fd} {op} {fd2} {events:x} "));
                let args = [fd, op, fd2, at];
                self.call("epoll_ctl", libc::SYS_epoll_ctl, &args)
            }
            5..=6 => {
                let most = self.random.pick(&[0, -1, 64, 64, 64]);
                self.say(format_args!("{fd} {most} "));
                let args = [fd, at, most, 0, 0, 8];
                let result = self.call("epoll_pwait", libc::SYS_epoll_pwait, &args);
                let count = usize::try_from(result).unwrap_or(0);
                let mut ready: Vec<Vec<u8>> = self.buf[..count * 12]
                    .chunks(12)
                    .map(<[u8]>::to_vec)
                    .collect();
                ready.sort();
                self.say(format_args!(" {ready:?}"));
                result
            }
            7..=8 => {
                let count = self.random.below(5);
                for i in 0..count as usize {
                    let (fd, events) = (self.fd() as i32, self.random.next() as u16 & 0x20df);
                    self.buf[i * 8..i * 8 + 4].copy_from_slice(&fd.to_ne_bytes());
                    self.buf[i * 8 + 4..i * 8 + 6].copy_from_slice(&events.to_ne_bytes());
                    self.buf[i * 8 + 6..i * 8 + 8].fill(0xff);
                    self.say(format_args!("{fd}:{events:x} "));
                }
                let result = self.call("poll", libc::SYS_poll, &[at, count as i64, 0]);
                let told = self.buf[..count as usize * 8].to_vec();
                for told in told.chunks(8) {
                    self.say(format_args!(" {:?}", &told[6..]));
                }
                result
            }
            9 => {
                let value = self.random.pick(&[0u64, 1, 5, u64::MAX, u64::MAX - 1]);
                let len = self.random.pick(&[8, 8, 8, 7, 9]);
                self.buf[..16].fill(0);
                self.buf[..8].copy_from_slice(&value.to_ne_bytes());
                self.say(format_args!("{fd} {value:x} {len} "));
                self.call("write", libc::SYS_write, &[fd, at, len])
            }
            10 => {
                let len = self.random.pick(&[8, 8, 7, 9, 128]);
                self.say(format_args!("{fd} {len} "));
                let result = self.call("read", libc::SYS_read, &[fd, at, len]);
                self.tell_data(result);
                result
            }
            11 => {
                let mask = self.random.pick(&[0u64, 1 << 9, 1 << 11, u64::MAX]);
                let (size, flags) = (
                    self.random.pick(&[8, 8, 4]),
                    self.random.pick(&[0, libc::SFD_CLOEXEC, 1]) | libc::SFD_NONBLOCK,
                );
                self.buf[..8].copy_from_slice(&mask.to_ne_bytes());
                let fd = if self.random.below(2) == 0 { -1 } else { fd };
                self.say(format_args!("{fd} {mask:x} {size} {flags:x} "));
                let args = [fd, at, size, flags.into()];
                self.call("signalfd4", libc::SYS_signalfd4, &args)
            }
            12 => {
                self.buf[..32].fill(0xaa);
                self.say(format_args!("{fd} "));
                let args = [fd, at];
                let result = self.call("timerfd_gettime", libc::SYS_timerfd_gettime, &args);
                let interval = self.buf[..16].to_vec();
                self.say(format_args!(" {interval:?}"));
                result
            }
            _ => {
                let count = self.random.pick(&[0, 3, 20, 64, -1]);
                for set in 0..3 {
                    let bits = self.random.next() as u32 & 0x1_fff8;
                    self.buf[set * 128..set * 128 + 128].fill(0);
                    self.buf[set * 128..set * 128 + 4].copy_from_slice(&bits.to_ne_bytes());
                    self.say(format_args!("{bits:x} "));
                }
                self.buf[384..400].fill(0);
                let args = [count, at, at + 128, at + 256, at + 384, 0];
                let result = self.call("pselect6", libc::SYS_pselect6, &args);
                let sets = fnv(&self.buf[..384]);
                self.say(format_args!(" {sets:08x}"));
                result
            }
        }
    }
}
