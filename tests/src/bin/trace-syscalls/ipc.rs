//! System V IPC. Run it in an IPC namespace of its own.

use super::*;

/// Commands of `shmctl`, `semctl` and `msgctl` that tell of one object.
const IPC_RMID: i64 = 0;
const IPC_SET: i64 = 1;
const IPC_STAT: i64 = 2;

impl Tracer {
    /// An object made here, or none; ids themselves are the kernel's matter.
    fn object(&mut self) -> i64 {
        let place = self.random.below(12) as usize;
        self.say(format_args!("#{place} "));
        self.objects.get(place).copied().unwrap_or(-1)
    }

    fn keep(&mut self, id: i64) -> i64 {
        if id < 0 {
            return id;
        }
        if let Some(place) = self.objects.iter().position(|known| *known == id) {
            return place as i64;
        }
        let place = if self.objects.len() < 10 {
            self.objects.push(id);
            self.objects.len() - 1
        } else {
            let place = self.random.below(10) as usize;
            self.objects[place] = id;
            place
        };
        place as i64
    }

    pub(super) fn ipc_call(&mut self) -> i64 {
        let at = self.at();
        let key = self.random.pick(&[0, 0x51, 0x52, 0x53]);
        let flags = self
            .random
            .flags(&[libc::IPC_CREAT, libc::IPC_CREAT, libc::IPC_EXCL])
            | self.random.pick(&[0o600, 0o666, 0o400, 0]);
        match self.random.below(16) {
            0..=1 => {
                let count = self.random.pick(&[0, 1, 3, 3, 5, -1, 100_000]);
                self.say(format_args!("{key:x} {count} {flags:o} "));
                let args = [key, count, flags.into()];
                let id = self.call("semget", libc::SYS_semget, &args);
                self.keep(id)
            }
            2 => {
                self.say(format_args!("{key:x} {flags:o} "));
                let id = self.call("msgget", libc::SYS_msgget, &[key, flags.into()]);
                self.keep(id)
            }
            3 => {
                let size = self.random.pick(&[0, 1, 4096, 5000, -1]);
                self.say(format_args!("{key:x} {size} {flags:o} "));
                let args = [key, size, flags.into()];
                let id = self.call("shmget", libc::SYS_shmget, &args);
                self.keep(id)
            }
            4..=6 => {
                let id = self.object();
                let count = self.random.pick(&[0, 1, 1, 2, 3, 501]);
                for i in 0..count.min(3) as usize {
                    let number = self.random.pick(&[0u16, 0, 1, 2, 3, 9]);
                    let change = self.random.pick(&[0i16, 1, 1, 2, -1, -1, -2, 32767]);
                    let how = self.random.pick(&[0i16, 0, 0o10000]) | libc::IPC_NOWAIT as i16;
                    for (part, value) in [number as i16, change, how].iter().enumerate() {
                        let from = i * 6 + part * 2;
                        self.buf[from..from + 2].copy_from_slice(&value.to_ne_bytes());
                    }
                    self.say(format_args!("{number}:{change}:{how:o} "));
                }
                self.say(format_args!("{count} "));
                self.call("semop", libc::SYS_semop, &[id, at, count])
            }
            7..=8 => {
                let id = self.object();
                let number = self.random.pick(&[0, 1, 2, 3, -1]);
                // GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL
                let command = self
                    .random
                    .pick(&[11, 12, 12, 14, 15, 16, 16, 99, IPC_RMID]);
                let value = self.random.pick(&[0, 1, 5, 32767, 32768, -1]);
                self.say(format_args!("{number} {command} {value} "));
                let args = [id, number, command, value];
                let result = self.call("semctl", libc::SYS_semctl, &args);
                // GETPID: who did it is this process or nobody.
                if command == 11 { result.min(1) } else { result }
            }
            9..=10 => {
                let id = self.object();
                let (kind, len) = (
                    self.random.pick(&[1i64, 2, 3, 0, -1]),
                    self.random.pick(&[0, 1, 10, 100, 8192, 8193, -1]),
                );
                self.fill(200);
                self.buf[..8].copy_from_slice(&kind.to_ne_bytes());
                let how = libc::IPC_NOWAIT.into();
                self.say(format_args!("{kind} {len} "));
                self.call("msgsnd", libc::SYS_msgsnd, &[id, at, len, how])
            }
            11..=12 => {
                let id = self.object();
                let (kind, len) = (
                    self.random.pick(&[0, 0, 1, 2, -2, -3, i64::MIN]),
                    self.random.pick(&[0, 1, 10, 8192, -1]),
                );
                let how = self
                    .random
                    .flags(&[libc::MSG_NOERROR, libc::MSG_EXCEPT, 0o40000])
                    | libc::IPC_NOWAIT;
                self.say(format_args!("{kind} {len} {how:o} "));
                let args = [id, at, len, kind, how.into()];
                let result = self.call("msgrcv", libc::SYS_msgrcv, &args);
                if result >= 0 {
                    self.tell_data(result + 8);
                }
                result
            }
            13 => {
                let id = self.object();
                let call = self
                    .random
                    .pick(&[("msgctl", libc::SYS_msgctl), ("shmctl", libc::SYS_shmctl)]);
                let command = self.random.pick(&[IPC_RMID, IPC_STAT, IPC_STAT, 98]);
                self.buf[..128].fill(0);
                self.say(format_args!("{command} "));
                let result = self.call(call.0, call.1, &[id, command, at]);
                if result == 0 && command == IPC_STAT {
                    // Key, owners, mode.
                    let told = self.buf[..24].to_vec();
                    self.say(format_args!(" {told:?}"));
                }
                result
            }
            14 => {
                let id = self.object();
                let number = self.random.pick(&[0, 7]);
                let command = self.random.pick(&[13, 17, IPC_STAT]);
                self.buf[..104].fill(0);
                for value in self.buf[..20].chunks_mut(2) {
                    value[0] = 3;
                }
                self.say(format_args!("{number} {command} "));
                let args = [id, number, command, at];
                let result = self.call("semctl", libc::SYS_semctl, &args);
                if result == 0 {
                    let told = self.buf[..20].to_vec();
                    self.say(format_args!(" {told:?}"));
                }
                result
            }
            _ => {
                let id = self.object();
                let mode = self.random.pick(&[0o600u16, 0o444, 0o777]);
                self.buf[..128].fill(0);
                self.buf[20..22].copy_from_slice(&mode.to_ne_bytes());
                let call = self
                    .random
                    .pick(&[("msgctl", libc::SYS_msgctl), ("shmctl", libc::SYS_shmctl)]);
                self.say(format_args!("{mode:o} "));
                self.call(call.0, call.1, &[id, IPC_SET, at])
            }
        }
    }
}
