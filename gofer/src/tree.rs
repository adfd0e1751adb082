//! The nodes a sentry knows, and the few of them that are kept open.
//!
//! A node is a name in a directory node, with the identity of the file that
//! was found there. Host fds are opened from it on demand; of directories the
//! last used ones stay open, up to a limit, and are reopened from the nearest
//! open ancestor otherwise. What is found then must be the same file, else
//! the node is stale: a name that was given to another file on the host never
//! leads there.
//!
//! Locks: `placing` (readers: whoever turns nodes into fds or finds names;
//! writer: rename, which changes the paths of whole subtrees) before `inner`,
//! which is held for lookups only, never across a host call.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use gofer_proto::{Attr, FileKind, NodeId};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::host;

/// Longest path given to one `openat2`.
const MAX_PATH: usize = 3800;

/// Bounds of what a tree keeps open.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Directory fds kept for reuse.
    pub directories: usize,
    /// Removed files kept because a guest has them open.
    pub removed: usize,
    /// Directories kept open for reading.
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            directories: 256,
            removed: 1024,
            streams: 16,
        }
    }
}

/// What tells a file from all others of the host while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    dev: u64,
    ino: u64,
    kind: FileKind,
}

impl Identity {
    pub fn of(attr: &Attr) -> Self {
        Self {
            dev: attr.dev,
            ino: attr.ino,
            kind: attr.kind(),
        }
    }

    /// `ESTALE` unless `attr` is of this file.
    pub fn check(&self, attr: &Attr) -> Result<(), Errno> {
        if *self == Self::of(attr) {
            Ok(())
        } else {
            Err(Errno::STALE)
        }
    }
}

#[derive(Debug)]
enum Place {
    Root,
    Child {
        parent: u64,
        name: Arc<[u8]>,
    },
    /// Removed, or found replaced on the host.
    Detached,
}

#[derive(Debug)]
struct Node {
    root: usize,
    place: Place,
    identity: Identity,
    lookups: u64,
    children: HashMap<Arc<[u8]>, u64>,
    /// Roots and removed files: open until the node is forgotten.
    pin: Option<Arc<OwnedFd>>,
    /// Directories: open while recently used; with its place in `recent`.
    cached: Option<(Arc<OwnedFd>, u64)>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: HashMap<u64, Node>,
    last_id: u64,
    /// Nodes with a cached fd by the time of their last use.
    recent: BTreeMap<u64, u64>,
    /// Open directory streams by node.
    streams: HashMap<u64, (Arc<Mutex<OwnedFd>>, u64)>,
    clock: u64,
    pins: usize,
}

/// All nodes of a connection.
#[derive(Debug)]
pub struct Tree {
    placing: RwLock<()>,
    inner: Mutex<Inner>,
    limits: Limits,
}

/// What a node is, without its place.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    pub root: usize,
    pub identity: Identity,
}

impl Info {
    pub fn kind(&self) -> FileKind {
        self.identity.kind
    }
}

/// How a node is found.
#[derive(Debug)]
pub enum Located {
    /// It is open.
    Open(Arc<OwnedFd>),
    /// By this name in an open directory.
    Named { dir: Arc<OwnedFd>, name: Arc<[u8]> },
}

/// Where to find a node's file.
enum Found {
    /// Open already.
    Open(Arc<OwnedFd>),
    /// By these names from an open directory.
    Below(Arc<OwnedFd>, Vec<Arc<[u8]>>),
}

impl Tree {
    pub fn new(limits: Limits) -> Self {
        Self {
            placing: RwLock::new(()),
            inner: Mutex::default(),
            limits,
        }
    }

    /// Adds the root of a mount.
    pub fn add_root(&self, root: usize, fd: OwnedFd) -> Result<NodeId, Errno> {
        let attr = host::attr_of(fd.as_fd())?;
        let mut inner = self.inner.lock();
        Ok(inner.add(Node {
            root,
            place: Place::Root,
            identity: Identity::of(&attr),
            lookups: 0,
            children: HashMap::new(),
            pin: Some(Arc::new(fd)),
            cached: None,
        }))
    }

    /// Keeps names from moving while the guard lives. Whoever has it calls
    /// only those methods that say so.
    pub fn hold_places(&self) -> RwLockReadGuard<'_, ()> {
        self.placing.read()
    }

    /// For renames: nobody else looks at places meanwhile.
    pub fn move_places(&self) -> RwLockWriteGuard<'_, ()> {
        self.placing.write()
    }

    pub fn info(&self, id: NodeId) -> Result<Info, Errno> {
        let inner = self.inner.lock();
        let node = inner.nodes.get(&id.0).ok_or(Errno::STALE)?;
        Ok(Info {
            root: node.root,
            identity: node.identity,
        })
    }

    /// An `O_PATH` fd of a directory node.
    pub fn directory(&self, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        let _places = self.hold_places();
        self.directory_held(id)
    }

    /// As [`Self::directory`], for those who hold the places.
    pub fn directory_held(&self, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        let info = self.info(id)?;
        if info.kind() != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let (dir, names) = match self.inner.lock().find(id.0)? {
            Found::Open(fd) => return Ok(fd),
            Found::Below(dir, names) => (dir, names),
        };
        let fd = open_names(dir.as_fd(), &names, OFlags::DIRECTORY)?;
        self.vet(&info, fd.as_fd())?;
        let fd = Arc::new(fd);
        self.cache(id, fd.clone());
        Ok(fd)
    }

    /// An `O_PATH` fd of any node, its file checked to be the same still,
    /// with its attributes.
    pub fn open(&self, id: NodeId) -> Result<(Arc<OwnedFd>, Info, Attr), Errno> {
        let info = self.info(id)?;
        let places = self.hold_places();
        let fd = if info.kind() == FileKind::Directory {
            self.directory_held(id)?
        } else {
            let found = self.inner.lock().find(id.0)?;
            match found {
                Found::Open(fd) => fd,
                Found::Below(dir, names) => {
                    Arc::new(open_names(dir.as_fd(), &names, OFlags::empty())?)
                }
            }
        };
        drop(places);
        let attr = self.vet(&info, fd.as_fd())?;
        Ok((fd, info, attr))
    }

    /// How a node is found, for those who hold the places.
    pub fn locate(&self, id: NodeId) -> Result<Located, Errno> {
        let (parent, name) = {
            let inner = self.inner.lock();
            let node = inner.nodes.get(&id.0).ok_or(Errno::STALE)?;
            match (&node.pin, &node.place) {
                (Some(fd), _) => return Ok(Located::Open(fd.clone())),
                (None, Place::Child { parent, name }) => (NodeId(*parent), name.clone()),
                (None, _) => return Err(Errno::STALE),
            }
        };
        let dir = self.directory_held(parent)?;
        Ok(Located::Named { dir, name })
    }

    fn vet(&self, info: &Info, fd: BorrowedFd<'_>) -> Result<Attr, Errno> {
        let attr = host::attr_of(fd)?;
        info.identity.check(&attr)?;
        let root_dev = {
            let inner = self.inner.lock();
            let root = inner.nodes.get(&root_id(info.root));
            root.map(|root| root.identity.dev)
        };
        if root_dev != Some(attr.dev) {
            host::refuse_kernel_view(fd)?;
        }
        Ok(attr)
    }

    /// Counts a lookup of the file `name` in `parent`, as a node known before
    /// or a new one.
    pub fn found(&self, parent: NodeId, name: &[u8], attr: &Attr) -> Result<NodeId, Errno> {
        self.inner.lock().found(parent.0, name, Identity::of(attr))
    }

    /// Counts a lookup of a file without a name, which stays open.
    pub fn found_unnamed(&self, parent: NodeId, fd: OwnedFd, attr: &Attr) -> Result<NodeId, Errno> {
        let mut inner = self.inner.lock();
        let root = inner.nodes.get(&parent.0).ok_or(Errno::STALE)?.root;
        let pin = (inner.pins < self.limits.removed).then(|| Arc::new(fd));
        inner.pins += usize::from(pin.is_some());
        Ok(inner.add(Node {
            root,
            place: Place::Detached,
            identity: Identity::of(attr),
            lookups: 1,
            children: HashMap::new(),
            pin,
            cached: None,
        }))
    }

    /// The node known as `name` in `parent`.
    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let inner = self.inner.lock();
        let parent = inner.nodes.get(&parent.0)?;
        parent.children.get(name).copied().map(NodeId)
    }

    /// Notes that `name` in `parent` is gone; `keep` is its open file, if it
    /// is to stay usable.
    pub fn removed(&self, parent: NodeId, name: &[u8], keep: Option<Arc<OwnedFd>>) {
        self.inner
            .lock()
            .detach(parent.0, name, keep, self.limits.removed);
    }

    /// Notes a rename; the caller has the guard of [`Self::move_places`].
    pub fn renamed(
        &self,
        from: (NodeId, &[u8]),
        to: (NodeId, &[u8]),
        exchange: bool,
        keep: Option<Arc<OwnedFd>>,
    ) {
        let mut inner = self.inner.lock();
        let moved = inner.unlink(from.0.0, from.1);
        if exchange {
            let other = inner.unlink(to.0.0, to.1);
            inner.put(other, from.0.0, from.1);
        } else {
            inner.detach(to.0.0, to.1, keep, self.limits.removed);
        }
        inner.put(moved, to.0.0, to.1);
        inner.free_unused(from.0.0);
    }

    /// Takes back `lookups` of a node.
    pub fn forget(&self, id: NodeId, lookups: u64) {
        let mut inner = self.inner.lock();
        if let Some(node) = inner.nodes.get_mut(&id.0) {
            node.lookups = node.lookups.saturating_sub(lookups);
            inner.free_unused(id.0);
        }
    }

    /// The directory opened for reading, kept from an earlier call or opened
    /// by `open`. Positions are the caller's business, under the lock.
    pub fn stream(
        &self,
        id: NodeId,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Result<Arc<Mutex<OwnedFd>>, Errno> {
        {
            let mut inner = self.inner.lock();
            let now = inner.tick();
            if let Some((stream, used)) = inner.streams.get_mut(&id.0) {
                *used = now;
                return Ok(stream.clone());
            }
        }
        let stream = Arc::new(Mutex::new(open()?));
        let mut inner = self.inner.lock();
        if !inner.nodes.contains_key(&id.0) {
            return Ok(stream);
        }
        if inner.streams.len() >= self.limits.streams {
            let oldest = inner.streams.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                inner.streams.remove(&oldest);
            }
        }
        let now = inner.tick();
        inner.streams.insert(id.0, (stream.clone(), now));
        Ok(stream)
    }

    /// Lets go of what [`Self::stream`] keeps of a directory.
    pub fn close_stream(&self, id: NodeId) {
        let stream = self.inner.lock().streams.remove(&id.0);
        drop(stream);
    }

    fn cache(&self, id: NodeId, fd: Arc<OwnedFd>) {
        let mut inner = self.inner.lock();
        let now = inner.tick();
        let Some(node) = inner.nodes.get_mut(&id.0) else {
            return;
        };
        if let Some((_, used)) = node.cached.replace((fd, now)) {
            inner.recent.remove(&used);
        }
        inner.recent.insert(now, id.0);
        while inner.recent.len() > self.limits.directories {
            if let Some((_, oldest)) = inner.recent.pop_first()
                && let Some(node) = inner.nodes.get_mut(&oldest)
            {
                node.cached = None;
            }
        }
    }

    /// Nodes and kept fds, for tests and figures.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let open = inner.recent.len() + inner.pins + inner.streams.len();
        (inner.nodes.len(), open)
    }
}

/// Roots are added first, so their ids follow from their indexes.
pub fn root_id(root: usize) -> u64 {
    u64::try_from(root).unwrap_or(u64::MAX).saturating_add(1)
}

/// Opens `names` one below the other from `dir`, in as few calls as possible.
fn open_names(dir: BorrowedFd<'_>, names: &[Arc<[u8]>], last: OFlags) -> Result<OwnedFd, Errno> {
    let mut held: Option<OwnedFd> = None;
    let mut path: Vec<u8> = Vec::new();
    let count = names.len();
    for (at, name) in names.iter().enumerate() {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let is_last = at + 1 == count;
        if is_last || path.len() > MAX_PATH {
            let flags = if is_last { last } else { OFlags::DIRECTORY };
            let from = held.as_ref().map_or(dir, AsFd::as_fd);
            let next = match host::open_path(from, &path, flags) {
                // What a walk found there has been replaced.
                Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => return Err(Errno::STALE),
                other => other?,
            };
            held = Some(next);
            path.clear();
        }
    }
    held.ok_or(Errno::STALE)
}

impl Inner {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.last_id += 1;
        self.nodes.insert(self.last_id, node);
        NodeId(self.last_id)
    }

    /// The nearest open fd on the way from `id` up, and the names from there.
    fn find(&mut self, id: u64) -> Result<Found, Errno> {
        let mut names = Vec::new();
        let mut at = id;
        loop {
            let now = self.tick();
            let node = self.nodes.get_mut(&at).ok_or(Errno::STALE)?;
            let open = match (&node.pin, &mut node.cached) {
                (Some(fd), _) => Some(fd.clone()),
                (None, Some((fd, used))) => {
                    self.recent.remove(used);
                    self.recent.insert(now, at);
                    *used = now;
                    Some(fd.clone())
                }
                (None, None) => None,
            };
            if let Some(fd) = open {
                names.reverse();
                return Ok(if names.is_empty() {
                    Found::Open(fd)
                } else {
                    Found::Below(fd, names)
                });
            }
            match &node.place {
                Place::Child { parent, name } => {
                    names.push(name.clone());
                    at = *parent;
                }
                Place::Root | Place::Detached => return Err(Errno::STALE),
            }
        }
    }

    fn found(&mut self, parent: u64, name: &[u8], identity: Identity) -> Result<NodeId, Errno> {
        let dir = self.nodes.get(&parent).ok_or(Errno::STALE)?;
        let root = dir.root;
        if let Some(&known) = dir.children.get(name) {
            if let Some(node) = self.nodes.get_mut(&known)
                && node.identity == identity
            {
                node.lookups = node.lookups.saturating_add(1);
                return Ok(NodeId(known));
            }
            // Replaced on the host.
            self.detach(parent, name, None, 0);
        }
        let name: Arc<[u8]> = name.into();
        let id = self.add(Node {
            root,
            place: Place::Child {
                parent,
                name: name.clone(),
            },
            identity,
            lookups: 1,
            children: HashMap::new(),
            pin: None,
            cached: None,
        });
        if let Some(dir) = self.nodes.get_mut(&parent) {
            dir.children.insert(name, id.0);
        }
        Ok(id)
    }

    /// Takes a name out of its directory, leaving its node without a place.
    fn unlink(&mut self, parent: u64, name: &[u8]) -> Option<u64> {
        let id = self.nodes.get_mut(&parent)?.children.remove(name)?;
        self.nodes.get_mut(&id)?.place = Place::Detached;
        Some(id)
    }

    fn put(&mut self, id: Option<u64>, parent: u64, name: &[u8]) {
        let Some(id) = id else { return };
        let name: Arc<[u8]> = name.into();
        let Some(dir) = self.nodes.get_mut(&parent) else {
            return;
        };
        dir.children.insert(name.clone(), id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.place = Place::Child { parent, name };
        }
    }

    fn detach(&mut self, parent: u64, name: &[u8], keep: Option<Arc<OwnedFd>>, max_pins: usize) {
        if let Some(id) = self.unlink(parent, name) {
            if let Some((_, used)) = self.nodes.get_mut(&id).and_then(|node| node.cached.take()) {
                self.recent.remove(&used);
            }
            if self.pins < max_pins
                && let Some(node) = self.nodes.get_mut(&id)
                && keep.is_some()
            {
                node.pin = keep;
                self.pins += 1;
            }
            self.free_unused(id);
        }
        self.free_unused(parent);
    }

    /// Frees `id` if nothing refers to it, and then its parents likewise.
    fn free_unused(&mut self, mut id: u64) {
        loop {
            let Some(node) = self.nodes.get(&id) else {
                return;
            };
            if node.lookups > 0 || !node.children.is_empty() || matches!(node.place, Place::Root) {
                return;
            }
            let Some(node) = self.nodes.remove(&id) else {
                return;
            };
            self.streams.remove(&id);
            if let Some((_, used)) = node.cached {
                self.recent.remove(&used);
            }
            self.pins -= usize::from(node.pin.is_some());
            match node.place {
                Place::Child { parent, name } => {
                    if let Some(dir) = self.nodes.get_mut(&parent) {
                        dir.children.remove(&name);
                    }
                    id = parent;
                }
                Place::Root | Place::Detached => return,
            }
        }
    }
}
