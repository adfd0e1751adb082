//! Requests of the sentry.
//!
//! Layout: operation (u32), then the fields of the variant in the order of
//! its declaration; names behind a 16-bit length, values behind a 32-bit one.

mod coding;
#[cfg(test)]
mod tests;

use bitflags::bitflags;

use crate::attr::SetAttr;
use crate::wire::{Malformed, Reader, Write};

/// Names a file the gofer has told the sentry about. Never reused within a
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

bitflags! {
    /// How a regular file is opened.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct OpenFlags: u32 {
        const READ = 1;
        const WRITE = 2;
        const TRUNCATE = 4;
        const APPEND = 8;
        const SYNC = 0x10;
        const DSYNC = 0x20;
        const NOATIME = 0x40;
    }
}

bitflags! {
    /// `renameat2(2)` flags, same values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RenameFlags: u32 {
        const NOREPLACE = 1;
        const EXCHANGE = 2;
        const WHITEOUT = 4;
    }
}

/// What becomes of a node whose last name the request removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone; later requests for it answer `ESTALE`.
    Drop,
    /// A guest still has it open: it stays usable until forgotten.
    Keep,
}

/// What a readdir reply holds for each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Name, type and inode number.
    Plain,
    /// Attributes too.
    Attributes,
}

/// Longest name of a file in bytes; longer ones answer `ENAMETOOLONG`, which
/// the sentry does without asking.
pub const NAME_MAX: usize = 255;
/// Most components of one walk.
pub const WALK_MAX: usize = 64;
/// Largest extended attribute value.
pub const XATTR_SIZE_MAX: usize = 65_536;
/// Most nodes one forget request names.
pub const FORGET_MAX: usize = 1024;

/// A sequence of names, each behind a 16-bit length.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    packed: &'a [u8],
}

impl<'a> Names<'a> {
    /// Wraps what [`Names::pack`] made, checking it.
    pub fn new(packed: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(packed);
        let mut count = 0;
        while !reader.is_empty() {
            coding::file_name(&mut reader)?;
            count += 1;
        }
        if count > WALK_MAX {
            return Err(Malformed("walk of too many components"));
        }
        Ok(Self { packed })
    }

    /// Packs `names` for [`Names::new`].
    pub fn pack<'n>(names: impl IntoIterator<Item = &'n [u8]>) -> Vec<u8> {
        let mut packed = Vec::new();
        for name in names {
            packed.short_bytes(name);
        }
        packed
    }

    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.packed);
        std::iter::from_fn(move || {
            if reader.is_empty() {
                None
            } else {
                reader.short_bytes().ok()
            }
        })
    }
}

impl PartialEq for Names<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.packed == other.packed
    }
}

/// A list of nodes with the number of lookups to take back from each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forgets<'a> {
    packed: &'a [u8],
}

impl<'a> Forgets<'a> {
    pub fn pack(list: impl IntoIterator<Item = (NodeId, u64)>) -> Vec<u8> {
        let mut packed = Vec::new();
        for (node, lookups) in list {
            packed.value(&node.0);
            packed.value(&lookups);
        }
        packed
    }

    pub fn new(packed: &'a [u8]) -> Result<Self, Malformed> {
        if !packed.len().is_multiple_of(16) || packed.len() / 16 > FORGET_MAX {
            return Err(Malformed("bad forget list"));
        }
        Ok(Self { packed })
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, u64)> + use<'a> {
        let mut reader = Reader::new(self.packed);
        std::iter::from_fn(move || {
            let node = reader.value::<u64>().ok()?;
            let lookups = reader.value::<u64>().ok()?;
            Some((NodeId(node), lookups))
        })
    }
}

/// Owner and permission bits of a file to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// 0o7777 at most; the sentry has applied the umask.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What the sentry may ask. Replies are in [`crate::reply`]; those that give
/// back a node count as one lookup of it, to be taken back by
/// [`Request::Forget`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request<'a> {
    /// The root of a mount, by its place in the gofer's list → node.
    Attach {
        root: u32,
    },
    /// Looks up one component after another → walk reply. Stops at the first
    /// that is missing, is a symbolic link, or is no directory.
    Walk {
        node: NodeId,
        names: Names<'a>,
    },
    /// → attributes.
    GetAttr {
        node: NodeId,
    },
    /// → attributes afterwards.
    SetAttr {
        node: NodeId,
        set: SetAttr,
    },
    /// Opens a regular file → attributes, host fd.
    Open {
        node: NodeId,
        flags: OpenFlags,
    },
    /// Makes a regular file that must not exist and opens it → node, host fd.
    Create {
        parent: NodeId,
        name: &'a [u8],
        flags: OpenFlags,
        owner: Ownership,
    },
    /// `O_TMPFILE` → node, host fd.
    Tmpfile {
        parent: NodeId,
        flags: OpenFlags,
        owner: Ownership,
    },
    /// → node.
    Mkdir {
        parent: NodeId,
        name: &'a [u8],
        owner: Ownership,
    },
    /// → node.
    Symlink {
        parent: NodeId,
        name: &'a [u8],
        target: &'a [u8],
        uid: u32,
        gid: u32,
    },
    /// Makes a regular file, FIFO or socket node; the type bits are in
    /// `owner.mode` → node.
    Mknod {
        parent: NodeId,
        name: &'a [u8],
        owner: Ownership,
    },
    /// A further name for `node` → node of that name.
    Link {
        node: NodeId,
        parent: NodeId,
        name: &'a [u8],
    },
    Unlink {
        parent: NodeId,
        name: &'a [u8],
        removed: Removed,
    },
    Rmdir {
        parent: NodeId,
        name: &'a [u8],
        removed: Removed,
    },
    Rename {
        parent: NodeId,
        name: &'a [u8],
        new_parent: NodeId,
        new_name: &'a [u8],
        flags: RenameFlags,
        /// About a file that is replaced.
        removed: Removed,
    },
    /// → target.
    Readlink {
        node: NodeId,
    },
    /// Entries behind `offset` (0 or one from an earlier reply) → listing,
    /// which says whether the directory ends with it.
    Readdir {
        node: NodeId,
        offset: i64,
        detail: Detail,
        /// Size limit of the reply in bytes; the window's at most.
        limit: u32,
    },
    /// → figures.
    Statfs {
        node: NodeId,
    },
    /// → value.
    GetXattr {
        node: NodeId,
        name: &'a [u8],
    },
    SetXattr {
        node: NodeId,
        name: &'a [u8],
        value: &'a [u8],
        /// `XATTR_CREATE` 1, `XATTR_REPLACE` 2, or 0.
        flags: u32,
    },
    /// → names, each ended by NUL.
    ListXattr {
        node: NodeId,
    },
    RemoveXattr {
        node: NodeId,
        name: &'a [u8],
    },
    /// `fsync(2)` of a file that is not open in the sentry, or a directory.
    Fsync {
        node: NodeId,
        data_only: bool,
    },
    /// Takes lookups back; a node without lookups and children is freed.
    Forget {
        list: Forgets<'a>,
    },
}

/// Whether `name` can be one component of a path.
pub fn is_file_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}
