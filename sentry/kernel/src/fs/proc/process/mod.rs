//! `/proc/PID` and `/proc/PID/task/TID`.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Subject`], the directory, its nodes |
//! | `table.rs` | which files there are |
//! | `stat.rs`, `status.rs` | `stat` and `status` |
//! | `memory.rs` | `maps`, `smaps`, `statm` |
//! | `guest_memory.rs` | `cmdline`, `environ`, `mem` |
//! | `fd.rs` | `fd` and `fdinfo` |
//! | `dirs.rs` | `task` and `ns` |
//! | `mounts.rs` | `mounts` and its kin |
//! | `small.rs` | files of a line or two |

mod dirs;
mod fd;
mod guest_memory;
mod memory;
mod mounts;
mod small;
mod stat;
mod status;
mod table;

use std::sync::Arc;

use syscall_tables::Errno;

use super::Shared;
use crate::fs::kernfs::{Listing, OpenDir, OpenText, SizeOf, Source, Viewer, set_attr};
use crate::task::access::AccessCreds;
use crate::task::{Gid, Pid, Task, Uid};
use crate::vfs::shown::path_from;
use crate::vfs::{
    Attr, DirEntry, FileKind, FileOps, Inode, InodeRef, OpenRequest, SetAttr, VfsPath,
};

pub(super) use small::parse_number;
use table::{Body, ENTRIES, Entry, Guard};

/// Whether a directory speaks of a process or of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Process,
    Thread,
}

/// Whom a node is about.
#[derive(Clone)]
pub(super) struct Subject {
    pub shared: Arc<Shared>,
    pub pid: Arc<Pid>,
    pub scope: Scope,
}

impl Subject {
    /// The task; `ESRCH` once it is reaped.
    pub fn task(&self) -> Result<Arc<Task>, Errno> {
        self.pid.task().ok_or(Errno::ESRCH)
    }

    /// Inode number of the directory of `pid`. Those below 2^16 belong to
    /// nodes that stay.
    pub fn dir_ino(pid: &Pid, scope: Scope) -> u64 {
        let thread = if scope == Scope::Thread { 1 << 15 } else { 0 };
        ((pid.inode + 1) << 16) | thread
    }

    fn ino(&self, index: usize) -> u64 {
        Self::dir_ino(&self.pid, self.scope) + 1 + index as u64
    }

    /// Attributes of a node, owned as Linux has it: by the process's
    /// effective ids, or by root where it is not dumpable.
    pub fn attr(&self, kind: FileKind, perm: u32, ino: u64) -> Attr {
        let mut attr = self.shared.instance.attr(kind, perm, ino);
        let Ok(task) = self.task() else {
            return attr;
        };
        let top = kind == FileKind::Directory && perm == 0o555;
        let owned = top || (task.mm().dumpable() == 1 && !task.has_exited());
        if owned {
            let creds = task.creds();
            (attr.uid, attr.gid) = (creds.euid, creds.egid);
        } else {
            let creds = task.creds();
            attr.uid = creds.user_ns.uid_to_kernel(0).unwrap_or(Uid::ROOT);
            attr.gid = creds.user_ns.gid_to_kernel(0).unwrap_or(Gid::ROOT);
        }
        attr
    }
}

/// One look at a file.
pub(super) struct Query<'a> {
    pub subject: &'a Subject,
    pub task: Arc<Task>,
    pub viewer: &'a Viewer,
}

impl Query<'_> {
    /// Whether the viewer may look into the task.
    pub fn is_permitted(&self) -> bool {
        may_look(&self.task, self.viewer.task.as_deref())
    }

    /// The path of `path` as the viewer sees it.
    pub fn path(&self, path: &VfsPath) -> Vec<u8> {
        show_path(path, self.viewer.task.as_deref().unwrap_or(&self.task))
    }
}

/// Whether `caller` (`None`: the sentry) may look into `task`.
pub(super) fn may_look(task: &Task, caller: Option<&Task>) -> bool {
    caller.is_none_or(|caller| task.may_be_accessed_by(caller, AccessCreds::FileSystem))
}

/// The path of `path` below the root of `task`.
pub(super) fn show_path(path: &VfsPath, task: &Task) -> Vec<u8> {
    let root = task.fs().state.read().root.clone();
    path_from(&root, path).0
}

/// `/proc/PID` or `/proc/PID/task/TID`.
pub(super) struct Directory {
    subject: Subject,
    parent_ino: u64,
}

impl Directory {
    pub fn new(subject: Subject, parent_ino: u64) -> Arc<Self> {
        Arc::new(Self {
            subject,
            parent_ino,
        })
    }

    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    fn entries(&self) -> impl Iterator<Item = (usize, &'static Entry)> + use<> {
        let scope = self.subject.scope;
        let all = ENTRIES.iter().enumerate();
        all.filter(move |(_, entry)| entry.only.is_none_or(|only| only == scope))
    }
}

impl Listing for Directory {
    fn ino(&self) -> u64 {
        Subject::dir_ino(&self.subject.pid, self.subject.scope)
    }

    fn parent_ino(&self) -> u64 {
        self.parent_ino
    }

    fn process(&self) -> Option<&Arc<Pid>> {
        (self.subject.scope == Scope::Process).then_some(&self.subject.pid)
    }

    fn list(&self, offset: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        self.subject.task().map_err(|_| Errno::ENOENT)?;
        for (index, entry) in self.entries() {
            let position = index as u64 + 2;
            let listed = DirEntry {
                name: entry.name.as_bytes().into(),
                ino: self.subject.ino(index),
                kind: entry.kind(),
                next_offset: position + 1,
            };
            if position >= offset && !emit(listed) {
                break;
            }
        }
        Ok(())
    }
}

impl Inode for Directory {
    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let kind = FileKind::Directory;
        let mut attr = self.subject.attr(kind, 0o555, self.ino());
        let dirs = self.entries();
        attr.nlink = 2 + dirs.filter(|(_, entry)| entry.kind() == kind).count() as u64;
        Ok(attr)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        set_attr(changes)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        self.subject.task()?;
        let mut entries = self.entries();
        let found = entries.find(|(_, entry)| entry.name.as_bytes() == name);
        let (index, entry) = found.ok_or(Errno::ENOENT)?;
        let ino = self.subject.ino(index);
        let subject = self.subject.clone();
        Ok(match entry.body {
            Body::Fd => fd::Descriptors::new(subject, ino, self.ino(), fd::Show::Files),
            Body::FdInfo => fd::Descriptors::new(subject, ino, self.ino(), fd::Show::Info),
            Body::Tasks => dirs::Tasks::new(subject, ino, self.ino()),
            Body::Ns => dirs::Namespaces::new(subject, ino, self.ino()),
            Body::Net => self.subject.shared.net.clone(),
            _ => Arc::new(Node {
                subject,
                ino,
                entry,
            }),
        })
    }

    fn lookup_revalidate(&self, _name: &[u8], _child: Option<&InodeRef>) -> bool {
        // The lookup that follows says what is wrong.
        self.subject.task().is_ok()
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(OpenDir(self)))
    }
}

/// A file or link of the table.
struct Node {
    subject: Subject,
    ino: u64,
    entry: &'static Entry,
}

impl Node {
    fn target(&self, caller: Option<&Task>) -> Result<VfsPath, Errno> {
        let Body::Link(target) = self.entry.body else {
            return Err(Errno::EINVAL);
        };
        let task = self.subject.task()?;
        if !may_look(&task, caller) {
            return Err(Errno::EACCES);
        }
        target(&task)
    }
}

impl Inode for Node {
    fn kind(&self) -> FileKind {
        self.entry.kind()
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let kind = self.entry.kind();
        Ok(self.subject.attr(kind, self.entry.perm, self.ino))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        set_attr(changes)
    }

    fn readlink(&self) -> Result<Vec<u8>, Errno> {
        self.readlink_by(None)
    }

    fn readlink_by(&self, caller: Option<&Task>) -> Result<Vec<u8>, Errno> {
        let target = self.target(caller)?;
        let task = self.subject.task()?;
        Ok(show_path(&target, caller.unwrap_or(&task)))
    }

    fn follow_magic(&self) -> Option<Result<VfsPath, Errno>> {
        self.follow_magic_by(None)
    }

    fn follow_magic_by(&self, caller: Option<&Task>) -> Option<Result<VfsPath, Errno>> {
        (self.kind() == FileKind::Symlink).then(|| self.target(caller))
    }

    fn open(self: Arc<Self>, request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        self.open_by(request, None)
    }

    fn open_by(
        self: Arc<Self>,
        request: &OpenRequest,
        caller: Option<&Arc<Task>>,
    ) -> Result<Arc<dyn FileOps>, Errno> {
        let task = self.subject.task()?;
        if self.entry.guard == Guard::Open && !may_look(&task, caller.map(Arc::as_ref)) {
            return Err(Errno::EACCES);
        }
        match self.entry.body {
            Body::Arguments(range) => Ok(guest_memory::Arguments::new(&task, range)),
            Body::Memory => Ok(guest_memory::Memory::new(&task)),
            Body::Mounts(text) => {
                let open = self.open_text(text, request, caller)?;
                Ok(Arc::new(mounts::OpenMounts::new(open, &task)))
            }
            Body::Text(text) => Ok(Arc::new(self.open_text(text, request, caller)?)),
            Body::Knob(text, write) => {
                let source = NodeSource {
                    node: self.clone(),
                    text,
                    write: Some(write),
                };
                let instance = &self.subject.shared.instance;
                let open = OpenText::new(instance, Arc::new(source), request, caller)?;
                Ok(Arc::new(open))
            }
            _ => Err(Errno::ELOOP),
        }
    }
}

impl Node {
    fn open_text(
        self: &Arc<Self>,
        text: table::TextFn,
        request: &OpenRequest,
        caller: Option<&Arc<Task>>,
    ) -> Result<OpenText, Errno> {
        let source = NodeSource {
            node: self.clone(),
            text,
            write: None,
        };
        let instance = &self.subject.shared.instance;
        OpenText::new(instance, Arc::new(source), request, caller)
    }
}

struct NodeSource {
    node: Arc<Node>,
    text: table::TextFn,
    write: Option<table::WriteFn>,
}

impl NodeSource {
    fn query<'a>(&'a self, viewer: &'a Viewer) -> Result<Query<'a>, Errno> {
        let query = Query {
            subject: &self.node.subject,
            task: self.node.subject.task()?,
            viewer,
        };
        if self.node.entry.guard == Guard::Use && !query.is_permitted() {
            return Err(Errno::EACCES);
        }
        Ok(query)
    }
}

impl Source for NodeSource {
    fn text(&self, viewer: &Viewer) -> Result<Vec<u8>, Errno> {
        (self.text)(&self.query(viewer)?)
    }

    fn tells_size_of(&self) -> SizeOf {
        match self.node.subject.task() {
            Ok(task) if self.node.entry.tells_size => SizeOf::One(task),
            _ => SizeOf::Nothing,
        }
    }

    fn write(&self, viewer: &Viewer, data: &[u8], offset: u64) -> Result<(), Errno> {
        let write = self.write.ok_or(Errno::EIO)?;
        write(&self.query(viewer)?, data, offset)
    }
}
