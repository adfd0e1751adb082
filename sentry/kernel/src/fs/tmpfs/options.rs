//! Mount options of tmpfs (`tmpfs(5)`).

use std::sync::Arc;

use syscall_tables::Errno;

use super::{PAGE, TmpFs};
use crate::task::{Gid, Uid};
use crate::vfs::{FileSystem, MountRequest};

/// How an instance is made.
#[derive(Clone, Debug)]
pub struct TmpFsOptions {
    /// `"tmpfs"`, or what another in-memory file system calls itself.
    pub type_name: &'static str,
    /// Source column of `/proc/mounts`.
    pub source: String,
    /// `None`: no limit.
    pub size_bytes: Option<u64>,
    /// `None`: no limit.
    pub inodes: Option<u64>,
    /// Mode, owner and group of the root directory.
    pub perm: u32,
    pub uid: Uid,
    pub gid: Gid,
}

impl Default for TmpFsOptions {
    fn default() -> Self {
        Self {
            type_name: "tmpfs",
            source: "tmpfs".to_owned(),
            size_bytes: None,
            inodes: None,
            perm: 0o1777,
            uid: Uid::ROOT,
            gid: Gid::ROOT,
        }
    }
}

impl TmpFsOptions {
    pub(super) fn max_pages(&self) -> u64 {
        self.size_bytes.map_or(u64::MAX, |size| size.div_ceil(PAGE))
    }

    pub(super) fn max_inodes(&self) -> u64 {
        self.inodes.unwrap_or(u64::MAX)
    }

    /// Applies the comma-separated `data` of `mount(2)`; `EINVAL` for what
    /// tmpfs does not know. `total_bytes` is what `size=N%` counts from.
    pub fn parse(&mut self, data: &[u8], total_bytes: u64) -> Result<(), Errno> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "size" => self.size_bytes = non_zero(parse_size(value, total_bytes)?),
                "nr_blocks" => {
                    let blocks = parse_size(value, 0)?;
                    let size = blocks.checked_mul(PAGE).ok_or(Errno::EINVAL)?;
                    self.size_bytes = non_zero(size);
                }
                "nr_inodes" => self.inodes = non_zero(parse_size(value, 0)?),
                "mode" => {
                    let mode = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)?;
                    self.perm = mode & 0o7777;
                }
                "uid" => self.uid = Uid(value.parse().map_err(|_| Errno::EINVAL)?),
                "gid" => self.gid = Gid(value.parse().map_err(|_| Errno::EINVAL)?),
                "huge" | "mpol" | "inode32" | "inode64" | "noswap" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(())
    }
}

fn non_zero(limit: u64) -> Option<u64> {
    (limit != 0).then_some(limit)
}

/// A number with suffix `k`, `m`, `g` or `%` (of `total`).
fn parse_size(text: &str, total: u64) -> Result<u64, Errno> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    let factor = match text.get(digits.len()..).unwrap_or_default() {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        "%" if total != 0 => return Ok((total / 100).saturating_mul(number)),
        _ => return Err(Errno::EINVAL),
    };
    number.checked_mul(factor).ok_or(Errno::EINVAL)
}

/// `mount -t tmpfs`.
pub fn mount(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>, Errno> {
    let total = request.vfs.memory_bytes();
    let mut options = TmpFsOptions {
        source: String::from_utf8_lossy(request.source).into_owned(),
        size_bytes: Some(total / 2),
        inodes: Some(total / 2 / PAGE),
        uid: request.creds.fsuid,
        gid: request.creds.fsgid,
        ..TmpFsOptions::default()
    };
    options.parse(request.data, total)?;
    Ok(TmpFs::new(request.vfs.next_dev(), &options))
}
