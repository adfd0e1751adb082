//! Whom this command runs as: root of the host, root of a user namespace
//! (rootless engines), or a user without privileges.

use std::fs;

/// Ids that are mapped into this process's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside and number of ids.
    ranges: Vec<(u32, u32)>,
}

impl IdMap {
    fn parse(text: &str) -> Self {
        let ranges = text.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let first = fields.next()?.parse().ok()?;
            let count = fields.nth(1)?.parse().ok()?;
            Some((first, count))
        });
        Self {
            ranges: ranges.collect(),
        }
    }

    /// The map of this process's users.
    pub fn of_users() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
    }

    /// The map of this process's groups.
    pub fn of_groups() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/gid_map").unwrap_or_default())
    }

    /// Whether all ids there are exist here.
    fn is_whole(&self) -> bool {
        self.ranges == [(0, u32::MAX)]
    }

    /// An id in the upper half of the largest range, by `number`; `None` if
    /// there is none to spare.
    pub fn spare(&self, number: u32) -> Option<u32> {
        let (first, count) = self.ranges.iter().max_by_key(|(_, count)| *count)?;
        let half = count / 2;
        let offset = number.checked_rem(half)?;
        first.checked_add(half)?.checked_add(offset)
    }
}

/// Whether this is root of the host itself.
pub fn is_host_root() -> bool {
    nix::unistd::geteuid().is_root() && IdMap::of_users().is_whole()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        assert!(IdMap::parse("         0          0 4294967295\n").is_whole());
        let own = IdMap::parse("0 1000 1\n1 100000 65536\n");
        assert!(!own.is_whole());
        assert_eq!(own.spare(5), Some(1 + 32768 + 5));
        assert_eq!(own.spare(32768), Some(1 + 32768));
        assert_eq!(IdMap::parse("0 1000 1\n").spare(7), None);
        assert_eq!(IdMap::default().spare(7), None);
    }
}
