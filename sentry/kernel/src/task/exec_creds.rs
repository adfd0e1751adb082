//! Credentials of a program that is executed: set-id bits and the rules of
//! capabilities(7).

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::SecureBits;

use super::{CapSet, Creds};
use crate::vfs::perm::{Access, check_path};
use crate::vfs::{File, FileKind};

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// `SECBIT_NOROOT`: uid 0 gives no capabilities at exec.
pub const SECBIT_NOROOT: u32 = SecureBits::SECBIT_NOROOT.bits();
/// `SECBIT_NO_SETUID_FIXUP`: uid changes leave capabilities alone.
pub const SECBIT_NO_SETUID_FIXUP: u32 = SecureBits::SECBIT_NO_SETUID_FIXUP.bits();
/// `SECBIT_KEEP_CAPS`.
pub const SECBIT_KEEP_CAPS: u32 = SecureBits::SECBIT_KEEP_CAPS.bits();

/// Credentials after an `execve`.
#[derive(Clone, Debug)]
pub struct ExecCreds {
    pub creds: Creds,
    /// The program has more rights than its caller (`AT_SECURE`).
    pub secure: bool,
    /// The caller may read the file, and so the program's memory.
    pub readable: bool,
    /// The program may do something that its caller might not.
    pub gains: bool,
}

/// Capabilities a file gives (`security.capability`).
#[derive(Clone, Copy, Debug, Default)]
struct FileCaps {
    permitted: CapSet,
    inheritable: CapSet,
    effective: bool,
    /// The file has the attribute, so uid 0 does not count by itself.
    present: bool,
}

impl ExecCreds {
    /// What `old` becomes by executing `file`.
    pub fn new(old: &Creds, file: &Arc<File>) -> Result<Self, Errno> {
        let attr = file.attr()?;
        let mut new = old.clone();
        let may_gain = !old.no_new_privs && !is_nosuid(file);
        if may_gain && attr.kind == FileKind::Regular {
            // Ids without a mapping in the user namespace don't count.
            let mapped = old.user_ns.uid_from_kernel(attr.uid).is_some()
                && old.user_ns.gid_from_kernel(attr.gid).is_some();
            if mapped && attr.perm & S_ISUID != 0 {
                new.euid = attr.uid;
            }
            if mapped && attr.perm & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP {
                new.egid = attr.gid;
            }
        }
        let file_caps = if may_gain {
            read_file_caps(file)?
        } else {
            FileCaps::default()
        };
        let gains_id = new.euid != old.euid || new.egid != old.egid;
        apply_capabilities(old, &mut new, file_caps, gains_id);
        new.suid = new.euid;
        new.fsuid = new.euid;
        new.sgid = new.egid;
        new.fsgid = new.egid;
        new.securebits &= !SECBIT_KEEP_CAPS;
        let root = old.user_ns.uid_to_kernel(0);
        let is_root = root == Some(new.uid) || root == Some(new.euid);
        let gained_caps = !is_root && file_caps.effective && !old.permitted.contains(new.permitted);
        let secure = new.euid != new.uid || new.egid != new.gid || gains_id || gained_caps;
        let readable = check_path(&file.path, old, Access::READ).is_ok();
        let gains = secure || !old.permitted.contains(new.permitted);
        Ok(Self {
            creds: new,
            secure,
            readable,
            gains,
        })
    }
}

/// The transformation of capabilities(7).
fn apply_capabilities(old: &Creds, new: &mut Creds, file: FileCaps, gains_id: bool) {
    let root = old.user_ns.uid_to_kernel(0);
    let mut file = file;
    let counts_root = old.securebits & SECBIT_NOROOT == 0;
    if counts_root && !(file.present && root != Some(new.uid) && root == Some(new.euid)) {
        if root == Some(new.uid) || root == Some(new.euid) {
            file.permitted = CapSet::all();
            file.inheritable = CapSet::all();
        }
        if root == Some(new.euid) {
            file.effective = true;
        }
    }
    let privileged = gains_id || file.present;
    if privileged {
        new.ambient = CapSet::empty();
    }
    new.permitted =
        (old.inheritable & file.inheritable) | (file.permitted & old.bounding) | new.ambient;
    new.effective = if file.effective {
        new.permitted
    } else {
        new.ambient
    };
}

fn is_nosuid(file: &File) -> bool {
    file.path
        .mount
        .flags()
        .contains(crate::vfs::MountFlags::NOSUID)
}

/// `VFS_CAP_REVISION_2` and `_3` in the first word's top byte.
const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const FLAG_EFFECTIVE: u32 = 1;

fn read_file_caps(file: &File) -> Result<FileCaps, Errno> {
    let Ok(value) = file.path.inode()?.get_xattr(b"security.capability") else {
        return Ok(FileCaps::default());
    };
    let word = |index: usize| {
        let bytes = value.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let magic = word(0).unwrap_or(0);
    let known = match magic & REVISION_MASK {
        REVISION_2 => value.len() == 20,
        // Only those of the initial user namespace's root count here.
        REVISION_3 => value.len() == 24 && word(5) == Some(0),
        _ => false,
    };
    if !known {
        return Ok(FileCaps::default());
    }
    let set = |low: usize, high: usize| {
        let bits = u64::from(word(low).unwrap_or(0)) | u64::from(word(high).unwrap_or(0)) << 32;
        CapSet::from_bits_truncate(bits)
    };
    Ok(FileCaps {
        permitted: set(1, 3),
        inheritable: set(2, 4),
        effective: magic & FLAG_EFFECTIVE != 0,
        present: true,
    })
}
