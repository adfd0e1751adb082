//! `mounts`, `mountinfo`, `mountstats`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syscall_tables::Errno;

use super::Query;
use crate::fs::kernfs::OpenText;
use crate::sync::{Events, WaitQueue};
use crate::task::Task;
use crate::vfs::mountinfo;
use crate::vfs::shown::path_from;
use crate::vfs::{File, FileOps, MountNamespace, VfsPath};

pub(super) fn mounts(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let fs = query.task.fs().state.read().clone();
    Ok(mountinfo::mounts(&fs))
}

pub(super) fn mountinfo(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let fs = query.task.fs().state.read().clone();
    Ok(mountinfo::mountinfo(&fs))
}

pub(super) fn mountstats(query: &Query<'_>) -> Result<Vec<u8>, Errno> {
    let fs = query.task.fs().state.read().clone();
    let mut text = Vec::new();
    for mount in fs.namespace.mounts() {
        let top = VfsPath {
            mount: mount.clone(),
            dentry: mount.root.clone(),
        };
        let (place, true) = path_from(&fs.root, &top) else {
            continue;
        };
        let (source, kind) = (mount.fs.source(), mount.fs.type_name());
        text.extend_from_slice(format!("device {source} mounted on ").as_bytes());
        text.extend_from_slice(&place);
        text.extend_from_slice(format!(" with fstype {kind}\n").as_bytes());
    }
    Ok(text)
}

/// An open mount table: `poll` tells of changes.
pub(super) struct OpenMounts {
    text: OpenText,
    namespace: Arc<MountNamespace>,
    /// State of the namespace that was seen last.
    seen: AtomicU64,
}

impl OpenMounts {
    pub fn new(text: OpenText, task: &Task) -> Self {
        let namespace = task.fs().state.read().namespace.clone();
        Self {
            text,
            seen: AtomicU64::new(namespace.event()),
            namespace,
        }
    }
}

impl FileOps for OpenMounts {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.text.read_at(file, buf, offset)
    }

    fn read_as(&self, reader: &Arc<Task>, file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        self.text.read_as(reader, file, buf)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, _file: &File) -> Events {
        let event = self.namespace.event();
        let mut ready = Events::READABLE;
        if self.seen.swap(event, Ordering::Relaxed) != event {
            ready |= Events::PRI | Events::ERR;
        }
        ready
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.namespace.changed())
    }
}
