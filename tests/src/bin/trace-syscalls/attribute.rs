//! Extended attributes.

use super::*;

impl Tracer {
    pub(super) fn attribute_call(&mut self) -> i64 {
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
}
