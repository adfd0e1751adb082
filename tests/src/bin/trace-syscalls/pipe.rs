//! Pipes, sockets, event files and waiting for them.

use super::*;

impl Tracer {
    pub(super) fn pipe_call(&mut self) -> i64 {
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
}
