//! One mapping of an address space.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bitflags::bitflags;
use sentry_platform::{MemOp, Protection, Sharing};

use super::FutexObject;
use crate::vfs::File;

bitflags! {
    /// Properties of a mapping beyond its access rights.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct VmaFlags: u32 {
        /// Stores reach the object (`MAP_SHARED`).
        const SHARED = 1;
        const GROWSDOWN = 1 << 1;
        const LOCKED = 1 << 2;
        const LOCK_ON_FAULT = 1 << 3;
        const NORESERVE = 1 << 4;
        const DONTFORK = 1 << 5;
        const WIPEONFORK = 1 << 6;
        const DONTDUMP = 1 << 7;
        const HUGEPAGE = 1 << 8;
        const NOHUGEPAGE = 1 << 9;
        const SEQUENTIAL = 1 << 10;
        const RANDOM = 1 << 11;
        const MERGEABLE = 1 << 12;
        /// `mseal(2)`.
        const SEALED = 1 << 13;
        /// Placed by the kernel and not to be resized (vDSO).
        const SPECIAL = 1 << 14;
    }
}

/// Counts an attach of something (a SysV segment) for as long as it exists.
pub trait Attachment: Send + Sync {
    /// The attach that a forked child has.
    fn reattach(&self) -> Arc<dyn Attachment>;

    /// Name in `/proc/PID/maps`.
    fn name(&self) -> String;

    /// Inode number in `/proc/PID/maps`.
    fn ino(&self) -> u64;

    /// For recognising attaches of one kind.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// What keeps a mapped object alive.
#[derive(Clone)]
pub enum Holder {
    File(Arc<File>),
    /// `MAP_SHARED|MAP_ANONYMOUS`, or `/dev/zero` mapped shared.
    SharedAnonymous,
    Attachment(Arc<dyn Attachment>),
    /// Mapped by the kernel itself, with its name.
    Special(&'static str),
}

/// A host object that is mapped.
#[derive(Clone)]
pub struct Mapped {
    pub fd: Arc<OwnedFd>,
    pub object: FutexObject,
    pub holder: Holder,
}

impl Mapped {
    fn is_same(&self, other: &Self) -> bool {
        self.object == other.object
            && Arc::ptr_eq(&self.fd, &other.fd)
            && match (&self.holder, &other.holder) {
                (Holder::File(one), Holder::File(two)) => Arc::ptr_eq(one, two),
                (Holder::SharedAnonymous, Holder::SharedAnonymous) => true,
                (Holder::Attachment(one), Holder::Attachment(two)) => Arc::ptr_eq(one, two),
                (Holder::Special(one), Holder::Special(two)) => one == two,
                _ => false,
            }
    }
}

/// What a mapping shows.
#[derive(Clone)]
pub enum Backing {
    /// Private zero pages.
    Anonymous,
    /// An object from the given byte offset on.
    Object(Arc<Mapped>, u64),
}

impl Backing {
    /// What the part `by` bytes further on shows.
    fn advanced(&self, by: u64) -> Self {
        match self {
            Self::Anonymous => Self::Anonymous,
            Self::Object(mapped, offset) => Self::Object(mapped.clone(), offset.wrapping_add(by)),
        }
    }
}

/// A mapping: page aligned, not empty.
#[derive(Clone)]
pub struct Vma {
    pub start: u64,
    pub end: u64,
    pub protection: Protection,
    /// What `mprotect` may grant.
    pub max_protection: Protection,
    pub flags: VmaFlags,
    pub backing: Backing,
    /// `PR_SET_VMA_ANON_NAME`.
    pub name: Option<Arc<[u8]>>,
}

impl Vma {
    pub const fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    pub const fn len_bytes(&self) -> u64 {
        self.end - self.start
    }

    pub const fn contains(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }

    pub const fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    pub const fn is_anonymous(&self) -> bool {
        matches!(self.backing, Backing::Anonymous)
    }

    /// Whether it counts towards `RLIMIT_DATA`: private, writable, no stack.
    pub fn is_data(&self) -> bool {
        self.protection.contains(Protection::WRITE)
            && !self
                .flags
                .intersects(VmaFlags::SHARED | VmaFlags::GROWSDOWN)
    }

    /// The file mapped, if it is one.
    pub fn file(&self) -> Option<&Arc<File>> {
        match &self.backing {
            Backing::Object(mapped, _) => match &mapped.holder {
                Holder::File(file) => Some(file),
                _ => None,
            },
            Backing::Anonymous => None,
        }
    }

    /// The SysV attach or the like that this is part of.
    pub fn attachment(&self) -> Option<&Arc<dyn Attachment>> {
        match &self.backing {
            Backing::Object(mapped, _) => match &mapped.holder {
                Holder::Attachment(attachment) => Some(attachment),
                _ => None,
            },
            Backing::Anonymous => None,
        }
    }

    /// Offset into the object of `addr`, which lies inside; 0 for anonymous
    /// memory.
    pub const fn offset_of(&self, addr: u64) -> u64 {
        match &self.backing {
            Backing::Anonymous => 0,
            Backing::Object(_, offset) => offset.wrapping_add(addr.wrapping_sub(self.start)),
        }
    }

    /// The part inside `range`, which overlaps it.
    pub fn part(&self, range: &Range<u64>) -> Self {
        let start = self.start.max(range.start);
        let end = self.end.min(range.end);
        Self {
            start,
            end,
            backing: self.backing.advanced(start.wrapping_sub(self.start)),
            name: self.name.clone(),
            ..*self
        }
    }

    /// The same pages at another address and with another length.
    pub fn moved_to(&self, range: Range<u64>) -> Self {
        Self {
            start: range.start,
            end: range.end,
            backing: self.backing.clone(),
            name: self.name.clone(),
            ..*self
        }
    }

    /// Whether `next` continues this mapping so that both can be one.
    pub fn can_merge(&self, next: &Self) -> bool {
        self.end == next.start
            && self.protection == next.protection
            && self.max_protection == next.max_protection
            && self.flags == next.flags
            && self.name == next.name
            && match (&self.backing, &next.backing) {
                (Backing::Anonymous, Backing::Anonymous) => true,
                (Backing::Object(one, _), Backing::Object(two, offset)) => {
                    (Arc::ptr_eq(one, two) || one.is_same(two))
                        && self.offset_of(self.end) == *offset
                        && !self.flags.contains(VmaFlags::SPECIAL)
                }
                _ => false,
            }
    }

    /// The order that makes the host map this.
    pub fn map_op(&self) -> MemOp<'_> {
        match &self.backing {
            Backing::Anonymous => MemOp::MapAnonymous {
                range: self.range(),
                protection: self.protection,
            },
            Backing::Object(mapped, offset) => MemOp::MapFile {
                range: self.range(),
                protection: self.protection,
                sharing: if self.is_shared() {
                    Sharing::Shared
                } else {
                    Sharing::Private
                },
                fd: mapped_fd(mapped),
                offset: *offset,
            },
        }
    }
}

fn mapped_fd(mapped: &Mapped) -> BorrowedFd<'_> {
    mapped.fd.as_fd()
}
