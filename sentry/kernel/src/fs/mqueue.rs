//! The file system of POSIX message queues (`/dev/mqueue`), and queues as
//! open files.

use std::sync::Arc;

use parking_lot::RwLock;
use syscall_tables::Errno;

use crate::ipc::IpcNamespace;
use crate::ipc::mqueue::{Queue, Size};
use crate::sync::{Events, WaitQueue};
use crate::task::Creds;
use crate::vfs::{
    Attr, DirEntry, File, FileKind, FileOps, FileSystem, FsStat, Inode, InodeRef, MountRequest,
    OpenRequest, SetAttr, Timestamp,
};

/// `MQUEUE_MAGIC`.
const MAGIC: u64 = 0x1980_0202;

/// Namespace whose queues are shown; mounts made before the container has
/// one get it when it starts.
type Binding = Arc<RwLock<Option<Arc<IpcNamespace>>>>;

/// A mount of the queues of a namespace.
pub struct MqueueFs {
    dev: u64,
    binding: Binding,
    mounted: Timestamp,
}

/// Factory for `mount(2)`.
pub fn mount(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>, Errno> {
    let ns = request.task.map(|task| task.namespaces().ipc.clone());
    let dev = ns.as_ref().map(|ns| ns.queues.dev);
    Ok(Arc::new(MqueueFs {
        dev: dev.unwrap_or_else(|| request.vfs.next_dev()),
        binding: Arc::new(RwLock::new(ns)),
        mounted: Timestamp::now(),
    }))
}

impl FileSystem for MqueueFs {
    fn type_name(&self) -> &'static str {
        "mqueue"
    }

    fn root(&self) -> InodeRef {
        Arc::new(Root {
            dev: self.dev,
            binding: self.binding.clone(),
            mounted: self.mounted,
        })
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn stat(&self) -> Result<FsStat, Errno> {
        Ok(FsStat {
            magic: MAGIC,
            block_size: 4096,
            name_max: 255,
            ..FsStat::default()
        })
    }

    fn source(&self) -> String {
        "mqueue".to_owned()
    }

    fn bind_ipc_namespace(&self, ns: &Arc<IpcNamespace>) {
        self.binding.write().get_or_insert_with(|| ns.clone());
    }

    /// `mq_open` and `mq_unlink` change names without the mount's knowing.
    fn names_are_stable(&self) -> bool {
        false
    }
}

/// The directory of all queues.
struct Root {
    dev: u64,
    binding: Binding,
    mounted: Timestamp,
}

impl Root {
    fn ns(&self) -> Result<Arc<IpcNamespace>, Errno> {
        self.binding.read().clone().ok_or(Errno::ENOENT)
    }
}

impl Inode for Root {
    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn attr(&self) -> Result<Attr, Errno> {
        Ok(Attr {
            nlink: 2,
            size_bytes: 40,
            ..Attr::of_root(FileKind::Directory, 0o1777, self.dev, 1, self.mounted)
        })
    }

    fn set_attr(&self, _changes: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    fn lookup(&self, name: &[u8]) -> Result<InodeRef, Errno> {
        let queue = self.ns()?.queues.get(name).ok_or(Errno::ENOENT)?;
        Ok(Arc::new(QueueInode(queue)))
    }

    fn lookup_revalidate(&self, name: &[u8], child: Option<&InodeRef>) -> bool {
        let now = self.ns().ok().and_then(|ns| ns.queues.get(name));
        let known = child.and_then(|child| {
            let child: &dyn std::any::Any = child.as_ref();
            child.downcast_ref::<QueueInode>()
        });
        match (now, known) {
            (None, None) => true,
            (Some(now), Some(known)) => Arc::ptr_eq(&now, &known.0),
            _ => false,
        }
    }

    fn create(
        &self,
        name: &[u8],
        kind: FileKind,
        perm: u32,
        _rdev: u64,
        creds: &Creds,
    ) -> Result<InodeRef, Errno> {
        if kind != FileKind::Regular {
            return Err(Errno::EPERM);
        }
        let queues = &self.ns()?.queues;
        let queue = queues.create(name, perm, Size::default(), creds, u64::MAX)?;
        Ok(Arc::new(QueueInode(queue)))
    }

    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        self.ns()?.queues.unlink(name)
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(self)
    }
}

impl FileOps for Root {
    fn read_dir(
        &self,
        _file: &File,
        offset: u64,
        emit: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<(), Errno> {
        let dots = [(b".".to_vec(), 1), (b"..".to_vec(), 1)];
        let dots = dots.into_iter().enumerate().map(|(index, (name, ino))| {
            let next_offset = index as u64 + 1;
            (name, ino, FileKind::Directory, next_offset)
        });
        // Inode numbers grow with time, so that they are stable offsets.
        let mut queues = self.ns()?.queues.list();
        queues.sort_by_key(|(_, queue)| queue.ino);
        let queues = queues.into_iter().map(|(name, queue)| {
            let next_offset = queue.ino.saturating_add(1);
            (name, queue.ino, FileKind::Regular, next_offset)
        });
        for (name, ino, kind, next_offset) in dots.chain(queues) {
            if next_offset <= offset {
                continue;
            }
            let entry = DirEntry {
                name: name.into(),
                ino,
                kind,
                next_offset,
            };
            if !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// A queue as an inode.
pub struct QueueInode(pub Arc<Queue>);

impl Inode for QueueInode {
    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self) -> Result<Attr, Errno> {
        Ok(self.0.attr())
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        self.0.set_attr(changes);
        Ok(())
    }

    fn open(self: Arc<Self>, _request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        Ok(Arc::new(QueueFile(self.0.clone())))
    }
}

/// An open queue.
pub struct QueueFile(pub Arc<Queue>);

impl FileOps for QueueFile {
    fn read_at(&self, _file: &File, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let line = self.0.status_line();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = line.as_bytes().get(from..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn write_at(
        &self,
        _file: &File,
        _buf: &[u8],
        _offset: u64,
        _append: bool,
    ) -> Result<(usize, u64), Errno> {
        Err(Errno::EINVAL)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Ok(self.0.attr().size_bytes)
    }

    fn poll(&self, _file: &File) -> Events {
        self.0.events()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.0.changed())
    }
}
