//! Finding files: attach, walk, readdir.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use gofer_proto::reply::{DirEntry, NodeReply, WalkReply, begin_listing, end_listing};
use gofer_proto::request::Detail;
use gofer_proto::ring::WINDOW_LEN;
use gofer_proto::wire::Write;
use gofer_proto::{FileKind, Names, NodeId};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Session;
use crate::host;
use crate::tree::root_id;

impl Session {
    pub(super) fn attach(&self, root: usize, reply: &mut Vec<u8>) -> Result<(), Errno> {
        let node = NodeId(root_id(root));
        let (_, _, attr) = self.tree.open(node)?;
        reply.value(&NodeReply { node: node.0, attr });
        Ok(())
    }

    /// Looks names up one below the other. What was found before an error
    /// counts, so that one trip tells all.
    pub(super) fn walk(&self, start: NodeId, names: Names<'_>) -> WalkReply {
        let mut reply = WalkReply::default();
        if let Err(errno) = self.walk_into(start, names, &mut reply) {
            reply.errno = u32::try_from(errno.raw_os_error()).unwrap_or(0);
        }
        reply
    }

    fn walk_into(
        &self,
        start: NodeId,
        names: Names<'_>,
        reply: &mut WalkReply,
    ) -> Result<(), Errno> {
        let _places = self.tree.hold_places();
        let mut at = start;
        let mut dir: Option<Arc<OwnedFd>> = None;
        let mut names = names.iter().peekable();
        while let Some(name) = names.next() {
            let fd = match dir.take() {
                Some(fd) => fd,
                None => self.tree.directory_held(at)?,
            };
            let attr = host::attr_at((*fd).as_fd(), name)?;
            let node = self.tree.found(at, name, &attr)?;
            reply.steps.push(NodeReply { node: node.0, attr });
            match attr.kind() {
                FileKind::Symlink => {
                    reply.target = Some(host::read_link_at((*fd).as_fd(), name)?);
                    return Ok(());
                }
                FileKind::Directory => at = node,
                _ if names.peek().is_some() => return Err(Errno::NOTDIR),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn readdir(
        &self,
        node: NodeId,
        offset: i64,
        detail: Detail,
        limit: u32,
        reply: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let limit = usize::try_from(limit).unwrap_or(WINDOW_LEN).min(WINDOW_LEN);
        let dir = self.tree.directory(node)?;
        let info = self.tree.info(node)?;
        if offset == 0 {
            // A fresh one: ext4 lists nothing from the start of a stream whose
            // first read was at the end.
            self.tree.close_stream(node);
        }
        let stream = self
            .tree
            .stream(node, || self.reopen((*dir).as_fd(), &info, OFlags::RDONLY))?;
        let stream = stream.lock();
        let mut too_small = false;
        begin_listing(reply);
        let empty_len = reply.len();
        let ended = host::read_dir(stream.as_fd(), offset, |raw| {
            let attr = match detail {
                Detail::Plain => None,
                // One that has gone since is listed without.
                Detail::Attributes => host::attr_at((*dir).as_fd(), raw.name).ok(),
            };
            let mut kind = attr.map_or(raw.kind, |attr| attr.kind());
            if kind == FileKind::Unknown {
                kind = host::attr_at((*dir).as_fd(), raw.name).map_or(kind, |attr| attr.kind());
            }
            let entry = DirEntry {
                ino: raw.ino,
                offset: raw.offset,
                kind: kind.dirent_type(),
                attr,
                name: raw.name,
            };
            let fits = reply.len() + entry.encoded_len() <= limit;
            if fits {
                entry.encode(reply);
            } else {
                too_small = reply.len() == empty_len;
            }
            fits
        })?;
        if ended {
            end_listing(reply);
            self.tree.close_stream(node);
        }
        // Without an entry the sentry would ask for the same for ever.
        if too_small { Err(Errno::INVAL) } else { Ok(()) }
    }
}
