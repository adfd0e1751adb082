//! Files of a host cgroup, opened by others before the sentry locks itself in
//! or passed to it later, and read again through their descriptors.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// The kernel's longest such file has a line for each device.
const MAX_BYTES: usize = 64 << 10;

/// Open files of one cgroup, by name (`memory.max`).
#[derive(Debug, Default)]
pub struct CgroupFiles {
    files: BTreeMap<String, File>,
}

impl CgroupFiles {
    /// From names and descriptors open for reading.
    pub fn new(files: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        let files = files.into_iter();
        Self {
            files: files.map(|(name, fd)| (name, File::from(fd))).collect(),
        }
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether this file is among them.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// What a file holds now; `None` if it is not there, or its cgroup is gone.
    pub fn text(&self, name: &str) -> Option<String> {
        let file = self.files.get(name)?;
        let mut bytes = vec![0; 4096];
        let mut len = 0;
        loop {
            let offset = u64::try_from(len).ok()?;
            let got = file.read_at(bytes.get_mut(len..)?, offset).ok()?;
            len += got;
            if got == 0 || len >= MAX_BYTES {
                break;
            }
            if len == bytes.len() {
                bytes.resize(len * 2, 0);
            }
        }
        bytes.truncate(len);
        String::from_utf8(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_again() {
        let path = std::env::temp_dir().join(format!("cgroup-files-{}", std::process::id()));
        std::fs::write(&path, "1\n").expect("write");
        let file = File::open(&path).expect("open");
        let files = CgroupFiles::new([("memory.max".to_owned(), OwnedFd::from(file))]);
        assert_eq!(files.text("memory.max").as_deref(), Some("1\n"));
        let long = "x".repeat(10_000);
        std::fs::write(&path, &long).expect("write");
        assert_eq!(files.text("memory.max"), Some(long));
        assert_eq!(files.text("memory.min"), None);
        std::fs::remove_file(&path).expect("remove");
    }
}
