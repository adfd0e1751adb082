//! Requests to bytes and back.

use super::{
    Detail, Forgets, Names, NodeId, OpenFlags, Ownership, Removed, RenameFlags, Request,
    XATTR_SIZE_MAX, is_file_name,
};
use crate::attr::{SetAttr, SetMask};
use crate::wire::{Malformed, Reader, Write};

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
                    flags @ 0..=3 => flags,
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

pub(super) fn file_name<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
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
