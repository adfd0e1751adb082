//! Calls to a gofer.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use gofer_proto::reply::{NodeReply, WalkReply, decode_value};
use gofer_proto::request::{
    Detail, FORGET_MAX, Forgets, NAME_MAX, Ownership, Removed, is_file_name,
};
use gofer_proto::ring::{CallError, Client, ClientPort, Port, RING_LEN, Received};
use gofer_proto::{
    Attr, FsStat, Malformed, Names, NodeId, OpenFlags, RenameFlags, Request, SetAttr,
};
use parking_lot::Mutex;
use sentry_platform::gofer_channel::{self, GoferPort};
use syscall_tables::Errno;

/// Forgotten nodes are told in batches of this size.
const FORGET_BATCH: usize = 128;

/// The platform's port as the protocol wants it.
#[derive(Debug)]
struct KernelPort(GoferPort);

impl Port for KernelPort {
    fn words(&self) -> &[AtomicU32] {
        self.0.words()
    }

    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
        self.0.wait(word, expected, timeout);
    }

    fn wake(&self, word: &AtomicU32, count: u32) {
        self.0.wake(word, count);
    }

    fn spin(&self) -> Duration {
        self.0.spin()
    }
}

impl ClientPort for KernelPort {
    fn receive(&self) -> Received {
        match self.0.receive() {
            gofer_channel::Received::Fd { tag, fd } => Received::Fd { tag, fd },
            gofer_channel::Received::Nothing => Received::Nothing,
            gofer_channel::Received::Gone => Received::Gone,
        }
    }
}

/// The connection to a container's gofer, shared by all its mounts. Once the
/// gofer is gone every call fails with `EIO`.
#[derive(Debug)]
pub struct Connection {
    client: Client<KernelPort>,
    forgets: Mutex<Vec<(NodeId, u64)>>,
}

/// What a name leads to.
pub(super) struct Walked {
    pub found: NodeReply,
    /// Of a symbolic link.
    pub target: Option<Vec<u8>>,
}

/// A reply that broke the protocol is as good as none.
fn bad_reply(_: Malformed) -> Errno {
    Errno::EIO
}

/// Checks a name before it is sent: a bad one would end the connection.
pub(super) fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.len() > NAME_MAX {
        Err(Errno::ENAMETOOLONG)
    } else if is_file_name(name) {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

impl Connection {
    /// Takes over the sentry's end of a ring and its socket.
    pub fn new(ring: OwnedFd, socket: OwnedFd) -> Result<Arc<Self>, Errno> {
        let port = GoferPort::new(ring, socket, RING_LEN)?;
        let client = Client::new(KernelPort(port)).map_err(bad_reply)?;
        Ok(Arc::new(Self {
            client,
            forgets: Mutex::default(),
        }))
    }

    /// Whether the gofer is gone.
    pub fn is_gone(&self) -> bool {
        self.client.is_gone()
    }

    fn call(&self, request: &Request<'_>) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
        let (mut bytes, mut reply) = (Vec::with_capacity(128), Vec::with_capacity(256));
        request.encode(&mut bytes);
        match self.client.call(&bytes, &mut reply) {
            Ok(fd) => Ok((reply, fd)),
            Err(CallError::Errno(errno)) => Err(errno),
            Err(CallError::NoRoomForFd) => Err(Errno::ENFILE),
            Err(CallError::Gone) => Err(Errno::EIO),
        }
    }

    fn node_call(&self, request: &Request<'_>) -> Result<NodeReply, Errno> {
        let (reply, _) = self.call(request)?;
        decode_value(&reply).map_err(bad_reply)
    }

    fn fd_call<T>(&self, request: &Request<'_>) -> Result<(T, OwnedFd), Errno>
    where
        T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable,
    {
        let (reply, fd) = self.call(request)?;
        let value = decode_value(&reply).map_err(bad_reply)?;
        Ok((value, fd.ok_or(Errno::EIO)?))
    }

    pub(super) fn attach(&self, root: u32) -> Result<NodeReply, Errno> {
        self.node_call(&Request::Attach { root })
    }

    /// Looks one name up; `None` if there is no such file.
    pub(super) fn walk_one(&self, node: NodeId, name: &[u8]) -> Result<Option<Walked>, Errno> {
        let packed = Names::pack([name]);
        let names = Names::new(&packed).map_err(|_| Errno::EINVAL)?;
        let (reply, _) = self.call(&Request::Walk { node, names })?;
        let reply = WalkReply::decode(&reply).map_err(bad_reply)?;
        match (reply.steps.first(), i32::try_from(reply.errno)) {
            (Some(step), _) => Ok(Some(Walked {
                found: *step,
                target: reply.target,
            })),
            (None, Ok(errno)) if errno == Errno::ENOENT.raw() => Ok(None),
            (None, errno) => Err(Errno::from_raw(errno.unwrap_or(0))),
        }
    }

    pub(super) fn getattr(&self, node: NodeId) -> Result<Attr, Errno> {
        let (reply, _) = self.call(&Request::GetAttr { node })?;
        decode_value(&reply).map_err(bad_reply)
    }

    pub(super) fn setattr(&self, node: NodeId, set: SetAttr) -> Result<Attr, Errno> {
        let (reply, _) = self.call(&Request::SetAttr { node, set })?;
        decode_value(&reply).map_err(bad_reply)
    }

    pub(super) fn open(&self, node: NodeId, flags: OpenFlags) -> Result<(Attr, OwnedFd), Errno> {
        self.fd_call(&Request::Open { node, flags })
    }

    pub(super) fn create(
        &self,
        parent: NodeId,
        name: &[u8],
        owner: Ownership,
    ) -> Result<(NodeReply, OwnedFd), Errno> {
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        self.fd_call(&Request::Create {
            parent,
            name,
            flags,
            owner,
        })
    }

    pub(super) fn tmpfile(
        &self,
        parent: NodeId,
        owner: Ownership,
    ) -> Result<(NodeReply, OwnedFd), Errno> {
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        self.fd_call(&Request::Tmpfile {
            parent,
            flags,
            owner,
        })
    }

    pub(super) fn mkdir(
        &self,
        parent: NodeId,
        name: &[u8],
        owner: Ownership,
    ) -> Result<NodeReply, Errno> {
        self.node_call(&Request::Mkdir {
            parent,
            name,
            owner,
        })
    }

    pub(super) fn symlink(
        &self,
        parent: NodeId,
        name: &[u8],
        target: &[u8],
        owner: Ownership,
    ) -> Result<NodeReply, Errno> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() > 4095 {
            return Err(Errno::ENAMETOOLONG);
        }
        let (uid, gid) = (owner.uid, owner.gid);
        self.node_call(&Request::Symlink {
            parent,
            name,
            target,
            uid,
            gid,
        })
    }

    pub(super) fn mknod(
        &self,
        parent: NodeId,
        name: &[u8],
        owner: Ownership,
    ) -> Result<NodeReply, Errno> {
        self.node_call(&Request::Mknod {
            parent,
            name,
            owner,
        })
    }

    pub(super) fn link(
        &self,
        node: NodeId,
        parent: NodeId,
        name: &[u8],
    ) -> Result<NodeReply, Errno> {
        self.node_call(&Request::Link { node, parent, name })
    }

    pub(super) fn unlink(
        &self,
        parent: NodeId,
        name: &[u8],
        removed: Removed,
    ) -> Result<(), Errno> {
        self.call(&Request::Unlink {
            parent,
            name,
            removed,
        })
        .map(drop)
    }

    pub(super) fn rmdir(&self, parent: NodeId, name: &[u8], removed: Removed) -> Result<(), Errno> {
        self.call(&Request::Rmdir {
            parent,
            name,
            removed,
        })
        .map(drop)
    }

    pub(super) fn rename(
        &self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        flags: RenameFlags,
        removed: Removed,
    ) -> Result<(), Errno> {
        self.call(&Request::Rename {
            parent: from.0,
            name: from.1,
            new_parent: to.0,
            new_name: to.1,
            flags,
            removed,
        })
        .map(drop)
    }

    pub(super) fn readlink(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        Ok(self.call(&Request::Readlink { node })?.0)
    }

    /// Entries behind `offset`, as a coded listing.
    pub(super) fn readdir(&self, node: NodeId, offset: i64) -> Result<Vec<u8>, Errno> {
        let request = Request::Readdir {
            node,
            offset,
            detail: Detail::Plain,
            limit: 64 << 10,
        };
        Ok(self.call(&request)?.0)
    }

    pub(super) fn statfs(&self, node: NodeId) -> Result<FsStat, Errno> {
        let (reply, _) = self.call(&Request::Statfs { node })?;
        decode_value(&reply).map_err(bad_reply)
    }

    pub(super) fn get_xattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(self.call(&Request::GetXattr { node, name })?.0)
    }

    pub(super) fn set_xattr(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        if value.len() > gofer_proto::request::XATTR_SIZE_MAX {
            return Err(Errno::E2BIG);
        }
        self.call(&Request::SetXattr {
            node,
            name,
            value,
            flags,
        })
        .map(drop)
    }

    pub(super) fn list_xattr(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        Ok(self.call(&Request::ListXattr { node })?.0)
    }

    pub(super) fn remove_xattr(&self, node: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.call(&Request::RemoveXattr { node, name }).map(drop)
    }

    pub(super) fn fsync(&self, node: NodeId, data_only: bool) -> Result<(), Errno> {
        self.call(&Request::Fsync { node, data_only }).map(drop)
    }

    /// Notes that lookups of a node are taken back; told to the gofer some
    /// time later. Makes no call, so locks may be held.
    pub(super) fn forget_later(&self, node: NodeId, lookups: u64) {
        self.forgets.lock().push((node, lookups));
    }

    /// Tells the gofer what it may forget if that is much, or `now`.
    pub(super) fn flush_forgets_if(&self, now: bool) {
        if now || self.forgets.lock().len() >= FORGET_BATCH {
            self.flush_forgets();
        }
    }

    /// Tells the gofer now, so that it lets go of removed files.
    fn flush_forgets(&self) {
        let list = std::mem::take(&mut *self.forgets.lock());
        for batch in list.chunks(FORGET_MAX) {
            let packed = Forgets::pack(batch.iter().copied());
            if let Ok(list) = Forgets::new(&packed) {
                // Without a gofer there is nothing left to forget.
                let _ = self.call(&Request::Forget { list });
            }
        }
    }
}
