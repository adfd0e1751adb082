//! `mount -t overlay`.

use std::sync::Arc;

use syscall_tables::Errno;

use super::{OverlayFs, OverlayLayers, UpperLayer};
use crate::vfs::{FileKind, FileSystem, MountRequest, VfsPath};

/// Most lower layers.
const LOWERS_MAX: usize = 500;

/// Makes an overlay from `lowerdir=A:B,upperdir=C,workdir=D`.
pub fn mount(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>, Errno> {
    let mut lowers = Vec::new();
    let (mut upper, mut work) = (None, None);
    for option in split(request.data, b',') {
        let at = option.iter().position(|&byte| byte == b'=');
        let (key, value) = match at {
            Some(at) => (
                option.get(..at).unwrap_or_default(),
                option.get(at + 1..).unwrap_or_default(),
            ),
            None => (option.as_slice(), &b""[..]),
        };
        match key {
            b"lowerdir" => {
                for path in split(value, b':') {
                    lowers.push(directory(request, &path)?);
                }
            }
            b"upperdir" => upper = Some(directory(request, value)?),
            b"workdir" => work = Some(directory(request, value)?),
            b"index" | b"xino" | b"metacopy" | b"redirect_dir" | b"nfs_export" | b"uuid"
                if matches!(value, b"off" | b"auto" | b"nofollow") => {}
            b"volatile" | b"userxattr" => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    if lowers.is_empty() || lowers.len() > LOWERS_MAX {
        return Err(Errno::EINVAL);
    }
    let upper = match (upper, work) {
        (None, None) => None,
        (Some(upper), Some(work)) => Some(upper_layer(&upper, &work)?),
        _ => return Err(Errno::EINVAL),
    };
    let lowers = lowers
        .iter()
        .map(|path| Ok((path.inode()?, path.mount.fs.clone())))
        .collect::<Result<Vec<_>, Errno>>()?;
    let options = String::from_utf8_lossy(request.data).into_owned();
    let layers = OverlayLayers { upper, lowers };
    Ok(OverlayFs::new(request.vfs.next_dev(), layers, options)?)
}

fn directory(request: &MountRequest<'_>, path: &[u8]) -> Result<VfsPath, Errno> {
    let found = (request.resolve)(path)?;
    if found.inode_ref()?.kind() != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    Ok(found)
}

/// Upper and work directory must be apart, on one writable mount.
fn upper_layer(upper: &VfsPath, work: &VfsPath) -> Result<UpperLayer, Errno> {
    if !Arc::ptr_eq(&upper.mount, &work.mount)
        || upper.dentry.is_ancestor_of(&work.dentry)
        || work.dentry.is_ancestor_of(&upper.dentry)
    {
        return Err(Errno::EINVAL);
    }
    if upper.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    let dir = work.inode()?;
    let creds = crate::task::Creds::root();
    let inner = match dir.mkdir(b"work", 0, &creds) {
        Err(Errno::EEXIST) => dir.lookup(b"work")?,
        made => made?,
    };
    Ok(UpperLayer {
        root: upper.inode()?,
        work: inner,
        fs: upper.mount.fs.clone(),
    })
}

/// Splits at `separator`; a backslash takes its meaning away.
fn split(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        let Some(part) = parts.last_mut() else {
            break;
        };
        match byte {
            b'\\' => {
                // Kept for a later split of the same text.
                if separator != b':' {
                    part.push(byte);
                }
                part.extend(bytes.next());
            }
            byte if byte == separator => parts.push(Vec::new()),
            byte => part.push(byte),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}
