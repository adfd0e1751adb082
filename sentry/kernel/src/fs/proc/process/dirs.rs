//! `task` and `ns`.

use std::sync::Arc;

use syscall_tables::Errno;

use super::{Directory, Query, Scope, Subject, may_look};
use crate::fs::kernfs::{Listing, OpenDir, set_attr};
use crate::fs::proc::root::parse_id;
use crate::task::Task;
use crate::task::nsfs::Namespace;
use crate::vfs::{
    Attr, DirEntry, FileKind, FileOps, Inode, InodeRef, OpenRequest, SetAttr, VfsPath,
};

/// `/proc/PID/task`.
pub(super) struct Tasks {
    subject: Subject,
    ino: u64,
    parent_ino: u64,
}

impl Tasks {
    pub fn new(subject: Subject, ino: u64, parent_ino: u64) -> Arc<Self> {
        Arc::new(Self {
            subject,
            ino,
            parent_ino,
        })
    }

    /// Tasks with their ids, in order; a dead leader stays.
    fn tasks(&self) -> Result<Vec<(i32, Arc<Task>)>, Errno> {
        let group = self.subject.task()?.group.clone();
        let ns = self.subject.shared.ns()?;
        let mut tasks = group.tasks();
        if let Some(leader) = group.leader()
            && !tasks.iter().any(|task| Arc::ptr_eq(task, &leader))
        {
            tasks.push(leader);
        }
        let mut tasks: Vec<_> = tasks
            .into_iter()
            .map(|task| (task.tid_in(&ns), task))
            .collect();
        tasks.sort_by_key(|(tid, _)| *tid);
        Ok(tasks)
    }

    fn find(&self, name: &[u8]) -> Result<Arc<Task>, Errno> {
        let tid = parse_id(name).ok_or(Errno::ENOENT)?;
        let found = self.tasks()?.into_iter().find(|(id, _)| *id == tid);
        found.map(|(_, task)| task).ok_or(Errno::ENOENT)
    }
}

impl Listing for Tasks {
    fn ino(&self) -> u64 {
        self.ino
    }

    fn parent_ino(&self) -> u64 {
        self.parent_ino
    }

    fn list(&self, offset: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        for (tid, task) in self.tasks().map_err(|_| Errno::ENOENT)? {
            let position = u64::from(tid.unsigned_abs()) + 2;
            let entry = DirEntry {
                name: tid.to_string().into_bytes().into(),
                ino: Subject::dir_ino(&task.pid(), Scope::Thread),
                kind: FileKind::Directory,
                next_offset: position + 1,
            };
            if position >= offset && !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

impl Inode for Tasks {
    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let kind = FileKind::Directory;
        let mut attr = self.subject.attr(kind, 0o555, self.ino);
        // Programs count threads by this.
        attr.nlink = 2 + self.tasks().map_or(0, |tasks| tasks.len() as u64);
        Ok(attr)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        set_attr(changes)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let subject = Subject {
            pid: self.find(name)?.pid(),
            scope: Scope::Thread,
            shared: self.subject.shared.clone(),
        };
        Ok(Directory::new(subject, self.ino))
    }

    fn lookup_revalidate(&self, name: &[u8], child: Option<&InodeRef>) -> bool {
        child.is_some() && self.find(name).is_ok()
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(OpenDir(self)))
    }
}

/// `/proc/PID/task/TID/children`: those that the task itself has made.
pub(super) fn children(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let ns = query.subject.shared.ns()?;
    let task = &query.task;
    let tid = task.tid();
    let tree = query.viewer.kernel.tree.lock();
    let mut text = String::new();
    for child in task.group.children(&tree) {
        let creator = child.links.lock().creator;
        if creator == tid || (task.is_leader() && creator.0 == 0) {
            text.push_str(&format!("{} ", child.id_in(&ns)));
        }
    }
    Ok(text.into_bytes())
}

/// `/proc/PID/ns`.
pub(super) struct Namespaces {
    subject: Subject,
    ino: u64,
    parent_ino: u64,
}

/// Entry numbers of namespace links start here within a process's own.
const FIRST_LINK: u64 = 1 << 14;

impl Namespaces {
    pub fn new(subject: Subject, ino: u64, parent_ino: u64) -> Arc<Self> {
        Arc::new(Self {
            subject,
            ino,
            parent_ino,
        })
    }

    fn link_ino(&self, index: usize) -> u64 {
        let dir = Subject::dir_ino(&self.subject.pid, self.subject.scope);
        dir + FIRST_LINK + index as u64
    }
}

impl Listing for Namespaces {
    fn ino(&self) -> u64 {
        self.ino
    }

    fn parent_ino(&self) -> u64 {
        self.parent_ino
    }

    fn list(&self, offset: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        for (index, name) in Namespace::NAMES.iter().enumerate() {
            let position = index as u64 + 2;
            let entry = DirEntry {
                name: name.as_bytes().into(),
                ino: self.link_ino(index),
                kind: FileKind::Symlink,
                next_offset: position + 1,
            };
            if position >= offset && !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

impl Inode for Namespaces {
    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self) -> Result<Attr, Errno> {
        Ok(self.subject.attr(FileKind::Directory, 0o511, self.ino))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        set_attr(changes)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let mut names = Namespace::NAMES.iter().enumerate();
        let found = names.find(|(_, known)| known.as_bytes() == name);
        let (index, name) = found.ok_or(Errno::ENOENT)?;
        Ok(Arc::new(NsLink {
            subject: self.subject.clone(),
            ino: self.link_ino(index),
            name,
        }))
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(OpenDir(self)))
    }
}

/// `/proc/PID/ns/NAME`.
struct NsLink {
    subject: Subject,
    ino: u64,
    name: &'static str,
}

impl NsLink {
    fn namespace(&self, caller: Option<&Task>) -> Result<Namespace, Errno> {
        let task = self.subject.task()?;
        if !may_look(&task, caller) {
            return Err(Errno::EACCES);
        }
        // A zombie is in no namespace any more, but for its own ids'.
        if task.has_exited() && !matches!(self.name, "user" | "pid") {
            return Err(Errno::ENOENT);
        }
        Namespace::of(&task, self.name).ok_or(Errno::ENOENT)
    }
}

impl Inode for NsLink {
    fn kind(&self) -> FileKind {
        FileKind::Symlink
    }

    fn attr(&self) -> Result<Attr, Errno> {
        Ok(self.subject.attr(FileKind::Symlink, 0o777, self.ino))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        set_attr(changes)
    }

    fn readlink(&self) -> Result<Vec<u8>, Errno> {
        self.readlink_by(None)
    }

    fn readlink_by(&self, caller: Option<&Task>) -> Result<Vec<u8>, Errno> {
        Ok(self.namespace(caller)?.link().into_bytes())
    }

    fn follow_magic(&self) -> Option<Result<VfsPath, Errno>> {
        self.follow_magic_by(None)
    }

    fn follow_magic_by(&self, caller: Option<&Task>) -> Option<Result<VfsPath, Errno>> {
        Some(self.namespace(caller).map(|namespace| namespace.path()))
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Err(Errno::ELOOP)
    }
}
