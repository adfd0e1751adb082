//! What belongs to the process: limits, credentials, signals.

use super::*;

impl Tracer {
    pub(super) fn process_call(&mut self) -> i64 {
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
