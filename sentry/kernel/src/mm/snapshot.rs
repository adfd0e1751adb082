//! What `/proc/PID` shows of an address space.

use std::sync::Arc;

use sentry_platform::Protection;

use super::vma::{Backing, Holder, Vma, VmaFlags};
use super::{MemoryManager, PAGE_SIZE};
use crate::vfs::File;

/// One line of `/proc/PID/maps`, with what `smaps` adds.
#[derive(Clone)]
pub struct MapLine {
    pub start: u64,
    pub end: u64,
    pub protection: Protection,
    pub flags: VmaFlags,
    pub offset: u64,
    /// Mapped file; its path, device and inode number go into the line.
    pub file: Option<Arc<File>>,
    /// Inode number where there is no file.
    pub ino: u64,
    /// Name where there is no file: `[heap]`, `[stack]`, `[vdso]`,
    /// `/dev/zero (deleted)`, `[anon:x]` or empty.
    pub name: String,
}

impl MapLine {
    /// The second column: `rwxp`.
    pub fn permissions(&self) -> String {
        let flag = |bit, letter| {
            if self.protection.contains(bit) {
                letter
            } else {
                '-'
            }
        };
        [
            flag(Protection::READ, 'r'),
            flag(Protection::WRITE, 'w'),
            flag(Protection::EXEC, 'x'),
            if self.flags.contains(VmaFlags::SHARED) {
                's'
            } else {
                'p'
            },
        ]
        .iter()
        .collect()
    }
}

/// Sizes in bytes, for `statm`, `status` and `stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub total: u64,
    pub resident: u64,
    /// The most that has been resident.
    pub peak: u64,
    /// File and shared mappings.
    pub shared: u64,
    /// Executable file mappings.
    pub code: u64,
    /// Private writable.
    pub data: u64,
    pub stack: u64,
    pub locked: u64,
}

impl Usage {
    /// `bytes` in pages.
    pub const fn pages(bytes: u64) -> u64 {
        bytes / PAGE_SIZE
    }
}

impl MemoryManager {
    /// All mappings in order.
    pub fn map_lines(&self) -> Vec<MapLine> {
        let state = self.state();
        let layout = &state.layout;
        let name = |vma: &Vma| -> (String, u64) {
            match &vma.backing {
                Backing::Object(mapped, _) => match &mapped.holder {
                    Holder::File(_) => (String::new(), 0),
                    Holder::SharedAnonymous => ("/dev/zero (deleted)".to_owned(), 1),
                    Holder::Attachment(attachment) => (attachment.name(), attachment.ino()),
                    Holder::Special(name) => ((*name).to_owned(), 0),
                },
                Backing::Anonymous => {
                    let name = if let Some(name) = &vma.name {
                        format!("[anon:{}]", String::from_utf8_lossy(name))
                    } else if vma.start <= layout.stack_start && layout.stack_start <= vma.end {
                        "[stack]".to_owned()
                    } else if vma.start < layout.brk && vma.end > layout.brk_start {
                        "[heap]".to_owned()
                    } else {
                        String::new()
                    };
                    (name, 0)
                }
            }
        };
        state
            .tree
            .iter()
            .map(|vma| {
                let (name, ino) = name(vma);
                MapLine {
                    start: vma.start,
                    end: vma.end,
                    protection: vma.protection,
                    flags: vma.flags,
                    offset: vma.offset_of(vma.start),
                    file: vma.file().cloned(),
                    ino,
                    name,
                }
            })
            .collect()
    }

    /// Sums over the mappings, and what the host says is resident.
    pub fn usage(&self) -> Usage {
        let resident = self.space.resident_bytes();
        let peak = self.space.peak_bytes();
        let state = self.state();
        let mut usage = Usage {
            total: state.tree.total_bytes(),
            data: state.tree.data_bytes(),
            locked: state.tree.locked_bytes(),
            ..Usage::default()
        };
        for vma in state.tree.iter() {
            let len = vma.len_bytes();
            if vma.flags.contains(VmaFlags::GROWSDOWN) {
                usage.stack += len;
            }
            if !vma.is_anonymous() {
                if vma.protection.contains(Protection::EXEC) {
                    usage.code += len;
                }
                if vma.is_shared() || !vma.protection.contains(Protection::WRITE) {
                    usage.shared += len;
                }
            }
        }
        usage.resident = resident.min(usage.total);
        usage.peak = peak.max(usage.resident);
        usage.shared = usage.shared.min(usage.resident);
        usage
    }
}
