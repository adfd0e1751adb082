//! Permission checks: discretionary access control with capabilities
//! (`path_resolution(7)`, `capabilities(7)`).

use bitflags::bitflags;
use syscall_tables::Errno;

use super::{Attr, FileKind, InodeRef, Owner, VfsPath};
use crate::task::{CapSet, Creds};

bitflags! {
    /// Access asked for, bits of `access(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Access: u32 {
        const EXEC = 1;
        const WRITE = 2;
        const READ = 4;
    }
}

/// Set-user-id, set-group-id and sticky bits of a mode.
pub const S_ISUID: u32 = 0o4000;
pub const S_ISGID: u32 = 0o2000;
pub const S_ISVTX: u32 = 0o1000;

/// Whether a capability counts for an inode with these attributes: it is
/// effective in the caller's user namespace, and that maps both owners.
pub fn capable(attr: &Attr, creds: &Creds, capability: CapSet) -> bool {
    owner_capable(&attr.owner(), creds, capability)
}

fn owner_capable(attr: &Owner, creds: &Creds, capability: CapSet) -> bool {
    if !creds.has_own(capability) {
        return false;
    }
    creds.user_ns.level == 0
        || (creds.user_ns.uid_from_kernel(attr.uid).is_some()
            && creds.user_ns.gid_from_kernel(attr.gid).is_some())
}

/// Checks `wanted` against mode bits and capabilities; `EACCES`.
pub fn check(attr: &Attr, creds: &Creds, wanted: Access) -> Result<(), Errno> {
    check_owner_access(&attr.owner(), creds, wanted)
}

/// As [`check`], for [`Inode::owner`](super::Inode::owner).
pub fn check_owner_access(attr: &Owner, creds: &Creds, wanted: Access) -> Result<(), Errno> {
    let shift = if creds.fsuid == attr.uid {
        6
    } else if creds.in_group(attr.gid) {
        3
    } else {
        0
    };
    let granted = Access::from_bits_truncate(attr.perm >> shift);
    if granted.contains(wanted) {
        return Ok(());
    }
    if attr.kind == FileKind::Directory {
        if owner_capable(attr, creds, CapSet::DAC_OVERRIDE)
            || (!wanted.contains(Access::WRITE)
                && owner_capable(attr, creds, CapSet::DAC_READ_SEARCH))
        {
            return Ok(());
        }
        return Err(Errno::EACCES);
    }
    if wanted == Access::READ && owner_capable(attr, creds, CapSet::DAC_READ_SEARCH) {
        return Ok(());
    }
    let executable = attr.perm & 0o111 != 0;
    if (!wanted.contains(Access::EXEC) || executable)
        && owner_capable(attr, creds, CapSet::DAC_OVERRIDE)
    {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// [`check`] for the object at `path`, with what its mount forbids.
pub fn check_path(path: &VfsPath, creds: &Creds, wanted: Access) -> Result<(), Errno> {
    let inode = path.inode_ref()?;
    if wanted.contains(Access::WRITE) && is_file_data(inode.kind()) && path.mount.is_readonly() {
        return Err(Errno::EROFS);
    }
    check_owner_access(&inode.owner()?, creds, wanted)
}

/// Whether writing to an object of this kind changes its file system.
fn is_file_data(kind: FileKind) -> bool {
    matches!(
        kind,
        FileKind::Regular | FileKind::Directory | FileKind::Symlink
    )
}

/// Whether the caller owns the inode or may act as if; else `EPERM`.
pub fn check_owner(attr: &Attr, creds: &Creds) -> Result<(), Errno> {
    if creds.fsuid == attr.uid || capable(attr, creds, CapSet::FOWNER) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Write and search permission on a directory whose names are to change.
pub fn check_dir_change(dir: &VfsPath, creds: &Creds) -> Result<Attr, Errno> {
    let attr = dir.inode_ref()?.attr()?;
    check(&attr, creds, Access::WRITE | Access::EXEC)?;
    Ok(attr)
}

/// Whether `victim` may be removed from a directory with attributes `dir`
/// (the sticky bit's rule).
pub fn check_sticky(dir: &Attr, victim: &InodeRef, creds: &Creds) -> Result<(), Errno> {
    if dir.perm & S_ISVTX == 0 || creds.fsuid == dir.uid {
        return Ok(());
    }
    let victim = victim.attr()?;
    if creds.fsuid == victim.uid || capable(&victim, creds, CapSet::FOWNER) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// The mode a file keeps after its data or owner was changed by somebody
/// without `CAP_FSETID`: without set-id bits.
pub fn without_set_id(perm: u32) -> u32 {
    let mut perm = perm & !S_ISUID;
    // Set-group-id without group execution used to mean mandatory locking
    // and is no privilege.
    if perm & 0o010 != 0 {
        perm &= !S_ISGID;
    }
    perm
}

/// Whether following a symlink is refused by `protected_symlinks`: in a
/// sticky, world-writable directory only links of one's own or of the
/// directory's owner are followed.
pub fn symlink_is_unsafe(dir: &Attr, link: &Attr, creds: &Creds) -> bool {
    dir.perm & (S_ISVTX | 0o002) == S_ISVTX | 0o002
        && creds.fsuid != link.uid
        && dir.uid != link.uid
}
