//! Directories.

use std::collections::BTreeMap;
use std::sync::Arc;

use syscall_tables::Errno;

use super::{Instance, Link, Source, TextFile};
use crate::task::Pid;
use crate::vfs::{Attr, DirEntry, File, FileKind, FileOps, Inode, InodeRef, OpenRequest, SetAttr};

/// Position of the first entry behind `.` and `..`.
pub const FIRST: u64 = 2;

/// A directory that lists itself.
pub trait Listing: Send + Sync {
    fn ino(&self) -> u64;

    /// Inode number of the directory above.
    fn parent_ino(&self) -> u64;

    /// The process that the directory stands for, as pidfds do.
    fn process(&self) -> Option<&Arc<Pid>> {
        None
    }

    /// Lists entries from position `offset` (at least [`FIRST`]) on until
    /// `emit` answers `false`.
    fn list(&self, offset: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno>;
}

/// An open directory.
pub struct OpenDir(pub Arc<dyn Listing>);

impl FileOps for OpenDir {
    fn read_at(&self, _file: &File, _buf: &mut [u8], _offset: u64) -> Result<usize, Errno> {
        Err(Errno::EISDIR)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }

    fn read_dir(
        &self,
        _file: &File,
        offset: u64,
        emit: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        let dots = [
            (b".".to_vec(), self.0.ino()),
            (b"..".to_vec(), self.0.parent_ino()),
        ];
        for (at, (name, ino)) in (0_u64..).zip(dots) {
            let entry = DirEntry {
                name: name.into(),
                ino,
                kind: FileKind::Directory,
                next_offset: at + 1,
            };
            if offset <= at && !emit(entry) {
                return Ok(());
            }
        }
        self.0.list(offset.max(FIRST), emit)
    }

    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
}

struct Child {
    inode: InodeRef,
    ino: u64,
}

/// A directory whose names never change.
pub struct StaticDir {
    instance: Arc<Instance>,
    ino: u64,
    parent_ino: u64,
    children: BTreeMap<Vec<u8>, Child>,
}

impl StaticDir {
    /// How many names there are.
    pub fn len(&self) -> u64 {
        self.children.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// The child called `name`.
    pub fn get(&self, name: &[u8]) -> Option<InodeRef> {
        self.children.get(name).map(|child| child.inode.clone())
    }
}

impl Listing for StaticDir {
    fn ino(&self) -> u64 {
        self.ino
    }

    fn parent_ino(&self) -> u64 {
        self.parent_ino
    }

    fn list(&self, offset: u64, emit: &mut dyn FnMut(DirEntry) -> bool) -> Result<(), Errno> {
        let skipped = usize::try_from(offset - FIRST).unwrap_or(usize::MAX);
        let positions = offset..;
        for (at, (name, child)) in positions.zip(self.children.iter().skip(skipped)) {
            let entry = DirEntry {
                name: name.as_slice().into(),
                ino: child.ino,
                kind: child.inode.kind(),
                next_offset: at + 1,
            };
            if !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

impl Inode for StaticDir {
    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self) -> Result<Attr, Errno> {
        let mut attr = self.instance.attr(FileKind::Directory, 0o555, self.ino);
        let dirs = self.children.values();
        let dirs = dirs.filter(|child| child.inode.kind() == FileKind::Directory);
        attr.nlink = 2 + dirs.count() as u64;
        Ok(attr)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        super::set_attr(changes)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        self.get(name).ok_or(Errno::ENOENT)
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(OpenDir(self)))
    }
}

/// Fills a [`StaticDir`].
pub struct Builder {
    pub instance: Arc<Instance>,
    ino: u64,
    parent_ino: u64,
    children: BTreeMap<Vec<u8>, Child>,
}

impl Builder {
    /// The root directory of an instance.
    pub fn root(instance: &Arc<Instance>) -> Self {
        let ino = instance.next_ino();
        Self::with_ino(instance, ino, ino)
    }

    /// A directory with a number of the caller's.
    pub fn with_ino(instance: &Arc<Instance>, ino: u64, parent_ino: u64) -> Self {
        Self {
            instance: instance.clone(),
            ino,
            parent_ino,
            children: BTreeMap::new(),
        }
    }

    /// Inode number of the directory that is being filled.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Adds any node.
    pub fn node(&mut self, name: &str, ino: u64, inode: InodeRef) {
        let child = Child { inode, ino };
        self.children.insert(name.as_bytes().to_vec(), child);
    }

    /// Adds a file with generated content.
    pub fn file(&mut self, name: &str, perm: u32, source: impl Source + 'static) {
        let ino = self.instance.next_ino();
        let file = TextFile::new(&self.instance, ino, perm, Arc::new(source));
        self.node(name, ino, file);
    }

    /// Adds a read-only file with fixed content.
    pub fn text(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        let content: Vec<u8> = content.into();
        self.file(name, 0o444, super::fixed(content));
    }

    /// Adds a symlink with a fixed target.
    pub fn link(&mut self, name: &str, target: &str) {
        let ino = self.instance.next_ino();
        let target = target.as_bytes().to_vec();
        let link = Link::new(&self.instance, ino, move |_| Ok(target.clone()));
        self.node(name, ino, link);
    }

    /// Adds a directory that `fill` fills.
    pub fn dir(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        let ino = self.instance.next_ino();
        let mut dir = Self::with_ino(&self.instance, ino, self.ino);
        fill(&mut dir);
        self.node(name, ino, dir.build());
    }

    pub fn build(self) -> Arc<StaticDir> {
        Arc::new(StaticDir {
            instance: self.instance,
            ino: self.ino,
            parent_ino: self.parent_ino,
            children: self.children,
        })
    }
}
