//! One name in one directory: from the dentry cache or the file system.

use std::sync::Arc;

use syscall_tables::Errno;

use super::{Dentry, VfsPath};

/// The child `name` of the directory `dir`, from the cache or the file
/// system; a negative dentry if there is none.
pub fn lookup(dir: &VfsPath, name: &[u8]) -> Result<Arc<Dentry>, Errno> {
    if let Some(child) = lookup_cached(dir, name)? {
        return Ok(child);
    }
    let _shared = dir.dentry.dir_lock.read();
    lookup_locked(dir, name)
}

/// [`lookup`] for a caller that holds the directory's `dir_lock`.
pub(super) fn lookup_locked(dir: &VfsPath, name: &[u8]) -> Result<Arc<Dentry>, Errno> {
    if let Some(child) = lookup_cached(dir, name)? {
        return Ok(child);
    }
    let inode = dir.inode_ref()?;
    match inode.lookup(name) {
        Ok(child) => Ok(dir.dentry.insert_child(name, Some(child))),
        Err(Errno::ENOENT) => Ok(dir.dentry.insert_child(name, None)),
        Err(errno) => Err(errno),
    }
}

fn lookup_cached(dir: &VfsPath, name: &[u8]) -> Result<Option<Arc<Dentry>>, Errno> {
    let Some(child) = dir.dentry.cached_child(name) else {
        return Ok(None);
    };
    if dir.mount.sb.revalidate && !child.is_mountpoint() {
        let inode = dir.inode_ref()?;
        if !inode.lookup_revalidate(name, child.inode()) {
            child.forget();
            return Ok(None);
        }
    }
    Ok(Some(child))
}
