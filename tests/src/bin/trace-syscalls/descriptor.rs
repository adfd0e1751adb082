//! Descriptors: opening, duplicating, `fcntl`.

use super::*;

impl Tracer {
    pub(super) fn descriptor_call(&mut self) -> i64 {
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
}
