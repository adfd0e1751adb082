//! Requests of the sentry.
//!
//! Layout: operation (u32), then the fields of the variant in the order of
//! its declaration; names behind a 16-bit length, values behind a 32-bit one.

use bitflags::bitflags;

use crate::attr::{SetAttr, SetMask};
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
            file_name(&mut reader)?;
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
    /// Entries behind `offset` (0 or one from an earlier reply) → entries.
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

const ATTACH: u32 = 1;
const WALK: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 5;
const CREATE: u32 = 6;
const TMPFILE: u32 = 7;
const MKDIR: u32 = 8;
const SYMLINK: u32 = 9;
const MKNOD: u32 = 10;
const LINK: u32 = 11;
const UNLINK: u32 = 12;
const RMDIR: u32 = 13;
const RENAME: u32 = 14;
const READLINK: u32 = 15;
const READDIR: u32 = 16;
const STATFS: u32 = 17;
const GETXATTR: u32 = 18;
const SETXATTR: u32 = 19;
const LISTXATTR: u32 = 20;
const REMOVEXATTR: u32 = 21;
const FSYNC: u32 = 22;
const FORGET: u32 = 23;

impl<'a> Request<'a> {
    /// Replaces `out` by the coded request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match *self {
            Self::Attach { root } => {
                out.value(&ATTACH);
                out.value(&root);
            }
            Self::Walk { node, names } => {
                put_node(out, WALK, node);
                out.long_bytes(names.packed);
            }
            Self::GetAttr { node } => put_node(out, GETATTR, node),
            Self::SetAttr { node, set } => {
                put_node(out, SETATTR, node);
                out.value(&set);
            }
            Self::Open { node, flags } => {
                put_node(out, OPEN, node);
                out.value(&flags.bits());
            }
            Self::Create {
                parent,
                name,
                flags,
                owner,
            } => {
                put_node(out, CREATE, parent);
                out.short_bytes(name);
                out.value(&flags.bits());
                put_owner(out, owner);
            }
            Self::Tmpfile {
                parent,
                flags,
                owner,
            } => {
                put_node(out, TMPFILE, parent);
                out.value(&flags.bits());
                put_owner(out, owner);
            }
            Self::Mkdir {
                parent,
                name,
                owner,
            } => {
                put_node(out, MKDIR, parent);
                out.short_bytes(name);
                put_owner(out, owner);
            }
            Self::Symlink {
                parent,
                name,
                target,
                uid,
                gid,
            } => {
                put_node(out, SYMLINK, parent);
                out.short_bytes(name);
                out.short_bytes(target);
                out.value(&uid);
                out.value(&gid);
            }
            Self::Mknod {
                parent,
                name,
                owner,
            } => {
                put_node(out, MKNOD, parent);
                out.short_bytes(name);
                put_owner(out, owner);
            }
            Self::Link { node, parent, name } => {
                put_node(out, LINK, node);
                out.value(&parent.0);
                out.short_bytes(name);
            }
            Self::Unlink {
                parent,
                name,
                removed,
            } => put_removal(out, UNLINK, parent, name, removed),
            Self::Rmdir {
                parent,
                name,
                removed,
            } => put_removal(out, RMDIR, parent, name, removed),
            Self::Rename {
                parent,
                name,
                new_parent,
                new_name,
                flags,
                removed,
            } => {
                put_removal(out, RENAME, parent, name, removed);
                out.value(&new_parent.0);
                out.short_bytes(new_name);
                out.value(&flags.bits());
            }
            Self::Readlink { node } => put_node(out, READLINK, node),
            Self::Readdir {
                node,
                offset,
                detail,
                limit,
            } => {
                put_node(out, READDIR, node);
                out.value(&offset);
                out.flag(detail == Detail::Attributes);
                out.value(&limit);
            }
            Self::Statfs { node } => put_node(out, STATFS, node),
            Self::GetXattr { node, name } => {
                put_node(out, GETXATTR, node);
                out.short_bytes(name);
            }
            Self::SetXattr {
                node,
                name,
                value,
                flags,
            } => {
                put_node(out, SETXATTR, node);
                out.short_bytes(name);
                out.long_bytes(value);
                out.value(&flags);
            }
            Self::ListXattr { node } => put_node(out, LISTXATTR, node),
            Self::RemoveXattr { node, name } => {
                put_node(out, REMOVEXATTR, node);
                out.short_bytes(name);
            }
            Self::Fsync { node, data_only } => {
                put_node(out, FSYNC, node);
                out.flag(data_only);
            }
            Self::Forget { list } => {
                out.value(&FORGET);
                out.long_bytes(list.packed);
            }
        }
    }

    /// Decodes a request; everything that no sentry of ours would send is
    /// malformed, so that a broken or hostile one is noticed.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let request = match r.value::<u32>()? {
            ATTACH => Self::Attach { root: r.value()? },
            WALK => Self::Walk {
                node: node(&mut r)?,
                names: Names::new(r.long_bytes()?)?,
            },
            GETATTR => Self::GetAttr {
                node: node(&mut r)?,
            },
            SETATTR => Self::SetAttr {
                node: node(&mut r)?,
                set: set_attr(&mut r)?,
            },
            OPEN => Self::Open {
                node: node(&mut r)?,
                flags: open_flags(&mut r)?,
            },
            CREATE => Self::Create {
                parent: node(&mut r)?,
                name: file_name(&mut r)?,
                flags: open_flags(&mut r)?,
                owner: ownership(&mut r, 0o7777)?,
            },
            TMPFILE => Self::Tmpfile {
                parent: node(&mut r)?,
                flags: open_flags(&mut r)?,
                owner: ownership(&mut r, 0o7777)?,
            },
            MKDIR => Self::Mkdir {
                parent: node(&mut r)?,
                name: file_name(&mut r)?,
                owner: ownership(&mut r, 0o7777)?,
            },
            SYMLINK => Self::Symlink {
                parent: node(&mut r)?,
                name: file_name(&mut r)?,
                target: link_target(&mut r)?,
                uid: r.value()?,
                gid: r.value()?,
            },
            MKNOD => Self::Mknod {
                parent: node(&mut r)?,
                name: file_name(&mut r)?,
                owner: ownership(&mut r, 0o177_777)?,
            },
            LINK => Self::Link {
                node: node(&mut r)?,
                parent: node(&mut r)?,
                name: file_name(&mut r)?,
            },
            UNLINK => Self::Unlink {
                parent: node(&mut r)?,
                name: file_name(&mut r)?,
                removed: removed(&mut r)?,
            },
            RMDIR => Self::Rmdir {
                parent: node(&mut r)?,
                name: file_name(&mut r)?,
                removed: removed(&mut r)?,
            },
            RENAME => {
                let parent = node(&mut r)?;
                let name = file_name(&mut r)?;
                let removed = removed(&mut r)?;
                Self::Rename {
                    parent,
                    name,
                    new_parent: node(&mut r)?,
                    new_name: file_name(&mut r)?,
                    flags: RenameFlags::from_bits(r.value()?)
                        .ok_or(Malformed("unknown rename flags"))?,
                    removed,
                }
            }
            READLINK => Self::Readlink {
                node: node(&mut r)?,
            },
            READDIR => Self::Readdir {
                node: node(&mut r)?,
                offset: r.value()?,
                detail: if r.flag()? {
                    Detail::Attributes
                } else {
                    Detail::Plain
                },
                limit: r.value()?,
            },
            STATFS => Self::Statfs {
                node: node(&mut r)?,
            },
            GETXATTR => Self::GetXattr {
                node: node(&mut r)?,
                name: xattr_name(&mut r)?,
            },
            SETXATTR => Self::SetXattr {
                node: node(&mut r)?,
                name: xattr_name(&mut r)?,
                value: xattr_value(&mut r)?,
                flags: match r.value()? {
                    flags @ 0..=2 => flags,
                    _ => return Err(Malformed("unknown xattr flags")),
                },
            },
            LISTXATTR => Self::ListXattr {
                node: node(&mut r)?,
            },
            REMOVEXATTR => Self::RemoveXattr {
                node: node(&mut r)?,
                name: xattr_name(&mut r)?,
            },
            FSYNC => Self::Fsync {
                node: node(&mut r)?,
                data_only: r.flag()?,
            },
            FORGET => Self::Forget {
                list: Forgets::new(r.long_bytes()?)?,
            },
            _ => return Err(Malformed("unknown operation")),
        };
        r.end()?;
        Ok(request)
    }
}

fn put_node(out: &mut Vec<u8>, op: u32, node: NodeId) {
    out.value(&op);
    out.value(&node.0);
}

fn put_owner(out: &mut Vec<u8>, owner: Ownership) {
    out.value(&owner.mode);
    out.value(&owner.uid);
    out.value(&owner.gid);
}

fn put_removal(out: &mut Vec<u8>, op: u32, parent: NodeId, name: &[u8], removed: Removed) {
    put_node(out, op, parent);
    out.short_bytes(name);
    out.flag(removed == Removed::Keep);
}

fn node(r: &mut Reader<'_>) -> Result<NodeId, Malformed> {
    Ok(NodeId(r.value()?))
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

fn file_name<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let name = r.short_bytes()?;
    if is_file_name(name) {
        Ok(name)
    } else {
        Err(Malformed("bad file name"))
    }
}

fn link_target<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let target = r.short_bytes()?;
    if target.is_empty() || target.len() > 4095 || target.contains(&0) {
        return Err(Malformed("bad link target"));
    }
    Ok(target)
}

fn xattr_name<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let name = r.short_bytes()?;
    if name.is_empty() || name.len() > 255 || name.contains(&0) {
        return Err(Malformed("bad attribute name"));
    }
    Ok(name)
}

fn xattr_value<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let value = r.long_bytes()?;
    if value.len() > XATTR_SIZE_MAX {
        return Err(Malformed("attribute value too long"));
    }
    Ok(value)
}

fn open_flags(r: &mut Reader<'_>) -> Result<OpenFlags, Malformed> {
    let flags = OpenFlags::from_bits(r.value()?).ok_or(Malformed("unknown open flags"))?;
    if flags.intersects(OpenFlags::READ | OpenFlags::WRITE) {
        Ok(flags)
    } else {
        Err(Malformed("open for neither reading nor writing"))
    }
}

fn ownership(r: &mut Reader<'_>, mode_mask: u32) -> Result<Ownership, Malformed> {
    let owner = Ownership {
        mode: r.value()?,
        uid: r.value()?,
        gid: r.value()?,
    };
    if owner.mode & !mode_mask != 0 {
        return Err(Malformed("unknown mode bits"));
    }
    Ok(owner)
}

fn set_attr(r: &mut Reader<'_>) -> Result<SetAttr, Malformed> {
    let set: SetAttr = r.value()?;
    let fields = SetMask::from_bits(set.mask).ok_or(Malformed("unknown attribute bits"))?;
    let bad_time = |time: crate::Time| time.nsec >= 1_000_000_000;
    if (fields.contains(SetMask::MODE) && set.mode > 0o7777)
        || (fields.contains(SetMask::ATIME) && bad_time(set.atime))
        || (fields.contains(SetMask::MTIME) && bad_time(set.mtime))
    {
        return Err(Malformed("attribute out of range"));
    }
    Ok(set)
}

fn removed(r: &mut Reader<'_>) -> Result<Removed, Malformed> {
    Ok(if r.flag()? {
        Removed::Keep
    } else {
        Removed::Drop
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;

    fn samples<'a>(packed: &'a [u8], forgets: &'a [u8]) -> Vec<Request<'a>> {
        let (node, parent) = (NodeId(7), NodeId(9));
        let owner = Ownership {
            mode: 0o644,
            uid: 1,
            gid: 2,
        };
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        let name = b"name".as_slice();
        let removed = Removed::Keep;
        vec![
            Request::Attach { root: 3 },
            Request::Walk {
                node,
                names: Names::new(packed).expect("names"),
            },
            Request::GetAttr { node },
            Request::SetAttr {
                node,
                set: SetAttr {
                    mask: SetMask::MTIME.bits(),
                    mtime: Time::new(-1, 5),
                    ..SetAttr::default()
                },
            },
            Request::Open { node, flags },
            Request::Create {
                parent,
                name,
                flags,
                owner,
            },
            Request::Tmpfile {
                parent,
                flags,
                owner,
            },
            Request::Mkdir {
                parent,
                name,
                owner,
            },
            Request::Symlink {
                parent,
                name,
                target: b"../x",
                uid: 1,
                gid: 2,
            },
            Request::Mknod {
                parent,
                name,
                owner: Ownership {
                    mode: 0o010_644,
                    ..owner
                },
            },
            Request::Link { node, parent, name },
            Request::Unlink {
                parent,
                name,
                removed,
            },
            Request::Rmdir {
                parent,
                name,
                removed,
            },
            Request::Rename {
                parent,
                name,
                new_parent: node,
                new_name: b"other",
                flags: RenameFlags::EXCHANGE,
                removed,
            },
            Request::Readlink { node },
            Request::Readdir {
                node,
                offset: i64::MAX,
                detail: Detail::Attributes,
                limit: 4096,
            },
            Request::Statfs { node },
            Request::GetXattr { node, name },
            Request::SetXattr {
                node,
                name,
                value: b"value",
                flags: 2,
            },
            Request::ListXattr { node },
            Request::RemoveXattr { node, name },
            Request::Fsync {
                node,
                data_only: true,
            },
            Request::Forget {
                list: Forgets::new(forgets).expect("forgets"),
            },
        ]
    }

    #[test]
    fn every_request_survives_coding_and_no_cut_or_longer_one_does() {
        let packed = Names::pack([b"a".as_slice(), b"bc"]);
        let forgets = Forgets::pack([(NodeId(1), 2)]);
        let mut bytes = Vec::new();
        for request in samples(&packed, &forgets) {
            request.encode(&mut bytes);
            assert_eq!(Request::decode(&bytes), Ok(request));
            for len in 0..bytes.len() {
                assert!(Request::decode(bytes.get(..len).expect("cut")).is_err());
            }
            bytes.push(0);
            assert!(Request::decode(&bytes).is_err());
        }
    }

    #[test]
    fn names_that_could_leave_a_directory_are_malformed() {
        for bad in ["", ".", "..", "a/b", "/", "a\0b"] {
            let packed = Names::pack([bad.as_bytes()]);
            assert!(Names::new(&packed).is_err(), "{bad:?}");
        }
        assert!(Names::new(&Names::pack([[b'x'; 256].as_slice()])).is_err());
        assert!(Names::new(&Names::pack([[b'x'; 255].as_slice()])).is_ok());
        assert!(Names::new(&Names::pack(vec![b"x".as_slice(); WALK_MAX + 1])).is_err());
    }
}
