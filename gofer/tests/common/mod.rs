//! A gofer on a temporary directory, with a client that speaks through the
//! real ring.
#![allow(dead_code, reason = "each test program uses its part")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use gofer::shared::SharedPort;
use gofer::{Access, Config, ProcFd, Root, ServeError, create_ring, create_socket};
use gofer_proto::reply::{Entries, NodeReply, WalkReply, decode_listing, decode_value};
use gofer_proto::request::{Detail, Forgets, Ownership, Removed};
use gofer_proto::ring::{CallError, Client};
use gofer_proto::{Attr, Names, NodeId, OpenFlags, RenameFlags, Request, SetAttr};
use syscall_tables::Errno;

/// A directory that is removed at the end.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gofer-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("temporary directory");
        Self(path)
    }

    pub fn join(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn root(path: &Path, access: Access) -> Root {
    use rustix::fs::{Mode, OFlags};
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("root");
    Root { fd, access }
}

pub struct Gofer {
    pub client: Option<Client<SharedPort>>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

pub const OWNER: Ownership = Ownership {
    mode: 0o644,
    uid: 0,
    gid: 0,
};

impl Gofer {
    pub fn start(config: Config, roots: Vec<Root>) -> Self {
        let ring = create_ring().expect("ring");
        let (ours, theirs) = create_socket().expect("socket");
        let client = Client::new(SharedPort::new(&ring, ours).expect("port")).expect("client");
        let thread = std::thread::spawn(move || {
            gofer::serve(config, ProcFd::open().expect("proc"), ring, theirs, roots)
        });
        Self {
            client: Some(client),
            thread: Some(thread),
        }
    }

    pub fn on(dir: &TempDir) -> Self {
        Self::start(Config::default(), vec![root(&dir.0, Access::ReadWrite)])
    }

    pub fn with_client(client: Client<SharedPort>) -> Self {
        Self {
            client: Some(client),
            thread: None,
        }
    }

    /// Ends the connection and answers what the server said.
    pub fn finish(mut self) -> Result<(), ServeError> {
        self.client = None;
        let thread = self.thread.take().expect("thread");
        thread.join().expect("server")
    }

    pub fn call(&self, request: &Request<'_>) -> Result<(Vec<u8>, Option<OwnedFd>), Errno> {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let mut reply = Vec::new();
        let client = self.client.as_ref().expect("client");
        match client.call(&bytes, &mut reply) {
            Ok(fd) => Ok((reply, fd)),
            Err(CallError::Errno(errno)) => Err(errno),
            Err(CallError::NoRoomForFd) => Err(Errno::EMFILE),
            Err(CallError::Gone) => panic!("the gofer is gone at {request:?}"),
        }
    }

    pub fn attach(&self, root: u32) -> NodeReply {
        let (reply, _) = self.call(&Request::Attach { root }).expect("attach");
        decode_value(&reply).expect("reply")
    }

    pub fn root(&self) -> NodeId {
        self.attach(0).id()
    }

    pub fn walk(&self, node: NodeId, path: &str) -> WalkReply {
        let packed = Names::pack(path.split('/').map(str::as_bytes));
        let names = Names::new(&packed).expect("names");
        let (reply, _) = self.call(&Request::Walk { node, names }).expect("walk");
        WalkReply::decode(&reply).expect("reply")
    }

    /// The node at `path` below the first root.
    pub fn find(&self, path: &str) -> Result<NodeReply, Errno> {
        let reply = self.walk(self.root(), path);
        match reply.errno {
            0 => Ok(*reply.steps.last().expect("a step")),
            errno => Err(Errno::from_raw(i32::try_from(errno).expect("errno"))),
        }
    }

    pub fn node(&self, path: &str) -> NodeId {
        self.find(path).expect(path).id()
    }

    pub fn getattr(&self, node: NodeId) -> Result<Attr, Errno> {
        let (reply, _) = self.call(&Request::GetAttr { node })?;
        Ok(decode_value(&reply).expect("attributes"))
    }

    pub fn setattr(&self, node: NodeId, set: SetAttr) -> Result<Attr, Errno> {
        let (reply, _) = self.call(&Request::SetAttr { node, set })?;
        Ok(decode_value(&reply).expect("attributes"))
    }

    pub fn open(&self, node: NodeId, flags: OpenFlags) -> Result<File, Errno> {
        let (_, fd) = self.call(&Request::Open { node, flags })?;
        Ok(File::from(fd.expect("fd")))
    }

    pub fn create(&self, parent: NodeId, name: &str) -> Result<(NodeReply, File), Errno> {
        let (reply, fd) = self.call(&Request::Create {
            parent,
            name: name.as_bytes(),
            flags: OpenFlags::READ | OpenFlags::WRITE,
            owner: OWNER,
        })?;
        let node = decode_value(&reply).expect("node");
        Ok((node, File::from(fd.expect("fd"))))
    }

    pub fn node_call(&self, request: &Request<'_>) -> Result<NodeReply, Errno> {
        let (reply, _) = self.call(request)?;
        Ok(decode_value(&reply).expect("node"))
    }

    pub fn unlink(&self, parent: NodeId, name: &str, removed: Removed) -> Result<(), Errno> {
        self.call(&Request::Unlink {
            parent,
            name: name.as_bytes(),
            removed,
        })
        .map(drop)
    }

    pub fn rename(
        &self,
        from: (NodeId, &str),
        to: (NodeId, &str),
        flags: RenameFlags,
        removed: Removed,
    ) -> Result<(), Errno> {
        self.call(&Request::Rename {
            parent: from.0,
            name: from.1.as_bytes(),
            new_parent: to.0,
            new_name: to.1.as_bytes(),
            flags,
            removed,
        })
        .map(drop)
    }

    /// Names and types, by as many calls as it takes.
    pub fn list(&self, node: NodeId, detail: Detail, limit: u32) -> Vec<(String, u8)> {
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let (reply, _) = self
                .call(&Request::Readdir {
                    node,
                    offset,
                    detail,
                    limit,
                })
                .expect("readdir");
            let (ended, entries) = decode_listing(&reply).expect("listing");
            for entry in Entries::new(entries) {
                let entry = entry.expect("entry");
                assert_eq!(entry.attr.is_some(), detail == Detail::Attributes);
                let name = String::from_utf8(entry.name.to_vec()).expect("name");
                names.push((name, entry.kind));
                offset = entry.offset;
            }
            if ended {
                return names;
            }
        }
    }

    pub fn forget(&self, node: NodeId, lookups: u64) {
        let packed = Forgets::pack([(node, lookups)]);
        let list = Forgets::new(&packed).expect("list");
        self.call(&Request::Forget { list }).expect("forget");
    }
}

impl Drop for Gofer {
    fn drop(&mut self) {
        self.client = None;
        if let Some(thread) = self.thread.take() {
            let result = thread.join().expect("server");
            if !std::thread::panicking() {
                result.expect("the server ended well");
            }
        }
    }
}
