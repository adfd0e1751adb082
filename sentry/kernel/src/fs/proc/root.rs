//! The root directory.

use std::sync::Arc;

use syscall_tables::Errno;

use super::process::{Directory, Scope, Subject};
use super::{Shared, sysctl, system};
use crate::fs::kernfs::{Builder, Link, Listing, OpenDir, StaticDir, set_attr};
use crate::kernel::Kernel;
use crate::task::Task;
use crate::vfs::{Attr, DirEntry, FileKind, FileOps, Inode, InodeRef, OpenRequest, SetAttr};

/// Position of process N is this plus N: behind all names that stay.
const FIRST_PROCESS: u64 = 1024;

pub(super) struct Root {
    shared: Arc<Shared>,
    fixed: Arc<StaticDir>,
}

impl Root {
    pub fn new(shared: &Arc<Shared>, kernel: &Arc<Kernel>) -> Arc<Self> {
        let mut dir = Builder::root(&shared.instance);
        system::fill(&mut dir, shared, kernel);
        dir.dir("sys", |sys| sysctl::fill(sys, kernel));
        dir.link("mounts", "self/mounts");
        dir.link("net", "self/net");
        let own = |ns: &Arc<Shared>, task: Option<&Task>| {
            let task = task.ok_or(Errno::ENOENT)?;
            let ns = ns.ns()?;
            match (task.group.id_in(&ns), task.tid_in(&ns)) {
                (0, _) => Err(Errno::ENOENT),
                ids => Ok(ids),
            }
        };
        let ns = shared.clone();
        let ino = shared.instance.next_ino();
        let link = Link::new(&shared.instance, ino, move |task| {
            Ok(own(&ns, task)?.0.to_string().into_bytes())
        });
        dir.node("self", ino, link);
        let ns = shared.clone();
        let ino = shared.instance.next_ino();
        let link = Link::new(&shared.instance, ino, move |task| {
            let (pid, tid) = own(&ns, task)?;
            Ok(format!("{pid}/task/{tid}").into_bytes())
        });
        dir.node("thread-self", ino, link);
        Arc::new(Self {
            shared: shared.clone(),
            fixed: dir.build(),
        })
    }

    /// The directory of process or thread `name`.
    fn process(&self, name: &[u8]) -> Option<Arc<Directory>> {
        let pid = self.shared.ns().ok()?.pid(parse_id(name)?)?;
        let subject = Subject {
            shared: self.shared.clone(),
            pid,
            scope: Scope::Process,
        };
        subject.task().ok()?;
        Some(Directory::new(subject, self.fixed.ino()))
    }
}

/// A process id or descriptor as the kernel writes it: decimal, no leading
/// zeros.
pub(super) fn parse_id(name: &[u8]) -> Option<i32> {
    let digits = name.iter().all(u8::is_ascii_digit);
    if !digits || (name.len() > 1 && name.first() == Some(&b'0')) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

impl Listing for Root {
    fn ino(&self) -> u64 {
        self.fixed.ino()
    }

    fn parent_ino(&self) -> u64 {
        self.fixed.ino()
    }

    fn list(&self, offset: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        if offset < FIRST_PROCESS {
            let mut more = true;
            self.fixed.list(offset, &mut |entry| {
                more = emit(entry);
                more
            })?;
            if !more {
                return Ok(());
            }
        }
        let ns = self.shared.ns()?;
        for (id, group) in ns.processes() {
            let position = FIRST_PROCESS + u64::from(id.unsigned_abs());
            let entry = DirEntry {
                name: id.to_string().into_bytes().into(),
                ino: Subject::dir_ino(group.pid(), Scope::Process),
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

impl Inode for Root {
    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let mut attr = self.fixed.attr()?;
        if let Ok(ns) = self.shared.ns() {
            attr.nlink += ns.processes().len() as u64;
        }
        Ok(attr)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        set_attr(changes)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        if let Some(inode) = self.fixed.get(name) {
            return Ok(inode);
        }
        match self.process(name) {
            Some(dir) => Ok(dir),
            None => Err(Errno::ENOENT),
        }
    }

    fn lookup_revalidate(&self, name: &[u8], child: Option<&InodeRef>) -> bool {
        if parse_id(name).is_none() {
            return true;
        }
        let child: Option<&dyn std::any::Any> = child.map(|child| child.as_ref() as _);
        let dir = child.and_then(|child| child.downcast_ref::<Directory>());
        dir.is_some_and(|dir| dir.subject().task().is_ok())
    }

    fn create(
        &self,
        _name: &[u8],
        _kind: FileKind,
        _perm: u32,
        _rdev: u64,
        _creds: &crate::task::Creds,
    ) -> Result<InodeRef, Errno> {
        Err(Errno::ENOENT)
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(OpenDir(self)))
    }
}
