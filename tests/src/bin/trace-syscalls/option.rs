//! Socket options and names.

use super::*;

/// Options whose values do not depend on how the machine is set up.
const OPTIONS: &[(i64, &[i64])] = &[
    (
        1,
        &[
            2, 3, 4, 5, 6, 9, 10, 12, 13, 15, 16, 18, 19, 20, 21, 29, 30, 35, 38, 39, 42, 68, 999,
        ],
    ),
    (
        0,
        &[
            1, 2, 3, 4, 6, 7, 8, 10, 11, 12, 13, 14, 15, 20, 24, 32, 33, 34, 49, 50, 999,
        ],
    ),
    (
        41,
        &[
            16, 17, 18, 19, 23, 24, 25, 26, 29, 49, 50, 51, 66, 67, 70, 999,
        ],
    ),
    (6, &[1, 3, 4, 5, 6, 7, 8, 9, 12, 18, 30, 999]),
    (17, &[1, 100, 101, 102, 103, 104, 999]),
];

impl Tracer {
    fn option(&mut self) -> (i64, i64) {
        let (level, names) = self.random.pick(OPTIONS);
        (level, self.random.pick(names))
    }

    /// A loopback address of a family, at the start of the buffer.
    fn address(&mut self) -> (u16, i64) {
        let family = self.random.pick(&[2u16, 2, 10, 0, 1]);
        self.buf[..32].fill(0);
        self.buf[..2].copy_from_slice(&family.to_ne_bytes());
        let port = self.random.pick(&[0u16, 7001, 7002, 7003]);
        self.buf[2..4].copy_from_slice(&port.to_be_bytes());
        match family {
            2 => self.buf[4..8].copy_from_slice(&[127, 0, 0, 1]),
            10 => self.buf[23] = 1,
            _ => {}
        }
        let len = self.random.pick(&[16, 28, 28, 16, 2, 8, 200]);
        self.say(format_args!("{family}:{port} {len} "));
        (family, len)
    }

    pub(super) fn option_call(&mut self) -> i64 {
        let (fd, at) = (self.fd(), self.at());
        match self.random.below(16) {
            0..=2 => {
                let (family, kind) = (
                    self.random.pick(&[1, 2, 2, 10, 10]),
                    self.random.pick(&[1, 1, 2, 2, 5]) | libc::SOCK_NONBLOCK,
                );
                let protocol = self.random.pick(&[0, 0, 0, 0, 6, 17, 136, 99, -1]);
                self.say(format_args!("{family} {kind:x} {protocol} "));
                let args = [family, kind.into(), protocol];
                self.call("socket", libc::SYS_socket, &args)
            }
            3..=7 => {
                let (level, name) = self.option();
                let value =
                    self.random
                        .pick(&[0i32, 1, 1, 2, 4, 6, 10, 64, 255, 256, 1000, -1, i32::MAX]);
                let second = self.random.pick(&[0i32, 1, 5]);
                let len = self.random.pick(&[4, 4, 4, 4, 0, 1, 2, 3, 8, 12, 16, -1]);
                self.buf[..16].fill(0);
                self.buf[..4].copy_from_slice(&value.to_ne_bytes());
                self.buf[8..12].copy_from_slice(&second.to_ne_bytes());
                self.say(format_args!("{fd} {level} {name} {value} {second} {len} "));
                let args = [fd, level, name, at, len];
                self.call("setsockopt", libc::SYS_setsockopt, &args)
            }
            8..=11 => {
                let (level, name) = self.option();
                let len = self.random.pick(&[4i32, 4, 4, 0, 1, 2, 3, 8, 16, 20, -1]);
                self.buf[..32].fill(0xaa);
                self.buf[32..36].copy_from_slice(&len.to_ne_bytes());
                self.say(format_args!("{fd} {level} {name} {len} "));
                let args = [fd, level, name, at, at + 32];
                let result = self.call("getsockopt", libc::SYS_getsockopt, &args);
                let data: Vec<u8> = self.buf[..36].to_vec();
                self.say(format_args!(" {:?} {:?}", &data[32..], &data[..20]));
                result
            }
            12 => {
                let call = self
                    .random
                    .pick(&[("bind", libc::SYS_bind), ("connect", libc::SYS_connect)]);
                self.say(format_args!("{fd} "));
                let (_, len) = self.address();
                self.call(call.0, call.1, &[fd, at, len])
            }
            13 => {
                let call = self.random.pick(&[
                    ("getsockname", libc::SYS_getsockname),
                    ("getpeername", libc::SYS_getpeername),
                ]);
                let len = self.random.pick(&[0i32, 2, 16, 28, 100, -1]);
                self.buf[..64].fill(0xaa);
                self.buf[64..68].copy_from_slice(&len.to_ne_bytes());
                self.say(format_args!("{fd} {len} "));
                let result = self.call(call.0, call.1, &[fd, at, at + 64]);
                // Ports that the kernel chose are its matter.
                let data: Vec<u8> = self.buf[..68].to_vec();
                self.say(format_args!(" {:?} {:?}", &data[64..], &data[..2]));
                self.say(format_args!(" {:?}", &data[4..28]));
                result
            }
            14 => {
                let len = self.random.pick(&[0, 1, 100, 1000, 65_507, 65_508, 65_536]);
                let flags =
                    self.random.pick(&[0, libc::MSG_OOB, libc::MSG_DONTROUTE]) | libc::MSG_NOSIGNAL;
                self.say(format_args!("{fd} {len} {flags:x} "));
                let (_, name) = self.address();
                let args = [fd, at, len, flags.into(), at, name];
                self.call("sendto", libc::SYS_sendto, &args)
            }
            _ => {
                let (call, second) = self.random.pick(&[
                    (("listen", libc::SYS_listen), 5),
                    (("shutdown", libc::SYS_shutdown), 0),
                    (("shutdown", libc::SYS_shutdown), 1),
                ]);
                self.say(format_args!("{fd} {second} "));
                self.call(call.0, call.1, &[fd, second])
            }
        }
    }
}
