//! Replies of the gofer.
//!
//! The error number and the fd mark travel in the slot's control words (see
//! [`crate::ring`]); what follows are the bodies of successful calls.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::attr::Attr;
use crate::request::{NodeId, WALK_MAX, is_file_name};
use crate::wire::{Malformed, Reader, Write};

/// A node with its attributes: reply of attach, create, tmpfile, mkdir,
/// symlink, mknod and link, and one step of a walk.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NodeReply {
    pub node: u64,
    pub attr: Attr,
}

impl NodeReply {
    pub fn id(&self) -> NodeId {
        NodeId(self.node)
    }
}

/// Decodes a reply that is one fixed-size value: [`NodeReply`], [`Attr`],
/// [`crate::FsStat`].
pub fn decode_value<T: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut r = Reader::new(bytes);
    let value = r.value()?;
    r.end()?;
    Ok(value)
}

/// How far a walk came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalkReply {
    /// The components found, in order.
    pub steps: Vec<NodeReply>,
    /// Why it stopped: 0 if all components were found, or the last step is a
    /// symbolic link with components left.
    pub errno: u32,
    /// Target of the last step if that is a symbolic link.
    pub target: Option<Vec<u8>>,
}

impl WalkReply {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.value(&self.errno);
        out.flag(self.target.is_some());
        out.short_bytes(self.target.as_deref().unwrap_or_default());
        out.long_bytes(self.steps.as_slice().as_bytes());
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let errno = r.value()?;
        let has_target = r.flag()?;
        let target = r.short_bytes()?;
        let mut packed = Reader::new(r.long_bytes()?);
        r.end()?;
        let mut steps = Vec::new();
        while !packed.is_empty() {
            if steps.len() == WALK_MAX {
                return Err(Malformed("walk reply with too many steps"));
            }
            steps.push(packed.value()?);
        }
        Ok(Self {
            steps,
            errno,
            target: has_target.then(|| target.to_vec()),
        })
    }
}

/// Head of a directory entry; [`Attr`] (if `has_attr`) and the name follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct EntryHead {
    ino: u64,
    offset: i64,
    name_len: u16,
    kind: u8,
    has_attr: u8,
    reserved: u32,
}

/// One entry of a directory, `.` and `..` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    pub ino: u64,
    /// Where the entry behind this one is found; opaque.
    pub offset: i64,
    /// `d_type`.
    pub kind: u8,
    pub attr: Option<Attr>,
    pub name: &'a [u8],
}

impl DirEntry<'_> {
    /// Bytes this entry takes in a reply.
    pub fn encoded_len(&self) -> usize {
        let attr = if self.attr.is_some() {
            size_of::<Attr>()
        } else {
            0
        };
        size_of::<EntryHead>() + attr + self.name.len()
    }

    /// Appends the entry to a reply.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.value(&EntryHead {
            ino: self.ino,
            offset: self.offset,
            name_len: u16::try_from(self.name.len()).unwrap_or(0),
            kind: self.kind,
            has_attr: u8::from(self.attr.is_some()),
            reserved: 0,
        });
        if let Some(attr) = &self.attr {
            out.value(attr);
        }
        out.extend_from_slice(self.name);
    }
}

/// A readdir reply that entries are appended to, in front of which it says
/// whether they are the last.
pub fn begin_listing(out: &mut Vec<u8>) {
    out.clear();
    out.flag(false);
}

/// Notes that the last entry of the directory has been appended.
pub fn end_listing(out: &mut [u8]) {
    if let Some(ended) = out.first_mut() {
        *ended = 1;
    }
}

/// Whether a readdir reply ends the directory, and its entries.
pub fn decode_listing(bytes: &[u8]) -> Result<(bool, &[u8]), Malformed> {
    let mut r = Reader::new(bytes);
    let ended = r.flag()?;
    Ok((ended, r.rest()))
}

/// The entries of a readdir reply, in order.
pub struct Entries<'a> {
    reader: Reader<'a>,
}

impl<'a> Entries<'a> {
    pub fn new(entries: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(entries),
        }
    }

    /// Bytes of the entries that are left.
    pub fn left(&self) -> usize {
        self.reader.rest().len()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<DirEntry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let entry = decode_entry(&mut self.reader);
        if entry.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(entry)
    }
}

fn decode_entry<'a>(r: &mut Reader<'a>) -> Result<DirEntry<'a>, Malformed> {
    let head: EntryHead = r.value()?;
    let attr = match head.has_attr {
        0 => None,
        1 => Some(r.value()?),
        _ => return Err(Malformed("flag is neither 0 nor 1")),
    };
    let name = r.bytes(usize::from(head.name_len))?;
    if !is_file_name(name) && name != b"." && name != b".." {
        return Err(Malformed("bad file name"));
    }
    Ok(DirEntry {
        ino: head.ino,
        offset: head.offset,
        kind: head.kind,
        attr,
        name,
    })
}
