//! Settings of an IPC namespace (`/proc/sys/kernel/shm*`, `msg*` and `sem`).

use std::sync::atomic::{AtomicU64, Ordering};

use syscall_tables::Errno;
use syscall_tables::abi::{
    MSGMAX, MSGMNB, MSGMNI, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SHMALL, SHMMAX, SHMMNI,
};

/// Most that a setting of objects can be: ids have 15 bits for them.
const MOST_OBJECTS: u64 = 1 << 15;

/// One limit.
pub struct Setting(AtomicU64);

impl Setting {
    const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Limits of a namespace, by Linux's names.
pub struct Settings {
    /// Bytes of a segment.
    pub shmmax: Setting,
    /// Pages of all segments.
    pub shmall: Setting,
    pub shmmni: Setting,
    /// Bytes of a message.
    pub msgmax: Setting,
    /// Bytes of a queue.
    pub msgmnb: Setting,
    pub msgmni: Setting,
    /// Semaphores of a set.
    pub semmsl: Setting,
    /// Semaphores of all sets.
    pub semmns: Setting,
    /// Operations of a call.
    pub semopm: Setting,
    pub semmni: Setting,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shmmax: Setting::new(SHMMAX),
            shmall: Setting::new(SHMALL),
            shmmni: Setting::new(SHMMNI),
            msgmax: Setting::new(MSGMAX),
            msgmnb: Setting::new(MSGMNB),
            msgmni: Setting::new(MSGMNI),
            semmsl: Setting::new(SEMMSL),
            semmns: Setting::new(SEMMNS),
            semopm: Setting::new(SEMOPM),
            semmni: Setting::new(SEMMNI),
        }
    }
}

impl Settings {
    /// Names of the files below `/proc/sys/kernel`.
    pub const NAMES: [&'static str; 7] = [
        "shmmax", "shmall", "shmmni", "msgmax", "msgmnb", "msgmni", "sem",
    ];

    /// The numbers of a file, each with the most it can be.
    fn file(&self, name: &str) -> Vec<(&Setting, u64)> {
        const INT_MAX: u64 = i32::MAX as u64;
        match name {
            "shmmax" => vec![(&self.shmmax, u64::MAX)],
            "shmall" => vec![(&self.shmall, u64::MAX)],
            "shmmni" => vec![(&self.shmmni, MOST_OBJECTS)],
            "msgmax" => vec![(&self.msgmax, INT_MAX)],
            "msgmnb" => vec![(&self.msgmnb, INT_MAX)],
            "msgmni" => vec![(&self.msgmni, MOST_OBJECTS)],
            "sem" => vec![
                (&self.semmsl, INT_MAX),
                (&self.semmns, INT_MAX),
                (&self.semopm, INT_MAX),
                (&self.semmni, MOST_OBJECTS),
            ],
            _ => Vec::new(),
        }
    }

    /// What a file holds; `None` if there is no such setting.
    pub fn text(&self, name: &str) -> Option<String> {
        let numbers = self.file(name);
        let numbers: Vec<String> = numbers
            .iter()
            .map(|(setting, _)| setting.get().to_string())
            .collect();
        (!numbers.is_empty()).then(|| numbers.join("\t"))
    }

    /// Writes a file: all its numbers, or the first ones.
    pub fn set(&self, name: &str, text: &[u8]) -> Result<(), Errno> {
        let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        let file = self.file(name);
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() || words.len() > file.len() {
            return Err(Errno::EINVAL);
        }
        let mut changes = Vec::new();
        for (word, (setting, most)) in words.into_iter().zip(file) {
            let number: u64 = word.parse().map_err(|_| Errno::EINVAL)?;
            if number > most {
                return Err(Errno::EINVAL);
            }
            changes.push((setting, number));
        }
        for (setting, number) in changes {
            setting.0.store(number, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_numbers() {
        let settings = Settings::default();
        assert_eq!(settings.text("shmmni").as_deref(), Some("4096"));
        assert_eq!(settings.set("shmmni", b" 99\n"), Ok(()));
        assert_eq!(settings.shmmni.get(), 99);
        assert_eq!(settings.set("shmmni", b"40000"), Err(Errno::EINVAL));
        assert_eq!(settings.set("shmmni", b"1 2"), Err(Errno::EINVAL));
        assert_eq!(settings.set("msgmax", b"-1"), Err(Errno::EINVAL));
        assert_eq!(settings.set("sem", b"10 20"), Ok(()));
        let semopm = settings.semopm.get();
        let all = format!("10\t20\t{semopm}\t{SEMMNI}");
        assert_eq!(settings.text("sem"), Some(all));
        assert_eq!(settings.set("sem", b"1 x"), Err(Errno::EINVAL));
        assert_eq!(settings.semmsl.get(), 10);
        assert_eq!(settings.text("nothing"), None);
    }
}
