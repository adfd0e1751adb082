//! Mappings.

use super::*;

impl Tracer {
    pub(super) fn memory_call(&mut self) -> i64 {
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
}
