//! Owner and mode of a System V IPC object (svipc(7)).

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::{IPC_PRIVATE, IpcPerm};

use crate::task::{CapSet, Creds, Gid, Uid, UserNamespace};

/// Read permission in all three places.
pub const READ: u32 = 0o444;
/// Write (alter) permission in all three places.
pub const WRITE: u32 = 0o222;

/// Who owns an object and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Perm {
    pub key: i32,
    pub uid: Uid,
    pub gid: Gid,
    pub cuid: Uid,
    pub cgid: Gid,
    /// Permission bits (`0777`).
    pub mode: u32,
    /// The object's id, whose upper part is its sequence number.
    pub id: i32,
}

impl Perm {
    pub fn new(key: i32, creds: &Creds, mode: u32) -> Self {
        Self {
            key,
            uid: creds.euid,
            gid: creds.egid,
            cuid: creds.euid,
            cgid: creds.egid,
            mode: mode & 0o777,
            id: 0,
        }
    }

    /// `EACCES` unless `creds` may do what `wanted` says, permission bits of
    /// which any place counts.
    pub fn check(&self, creds: &Creds, ns: &Arc<UserNamespace>, wanted: u32) -> Result<(), Errno> {
        let requested = (wanted >> 6) | (wanted >> 3) | wanted;
        let granted = if creds.euid == self.cuid || creds.euid == self.uid {
            self.mode >> 6
        } else if creds.in_egroup(self.cgid) || creds.in_egroup(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if requested & !granted & 0o7 != 0 && !creds.has_in(ns, CapSet::IPC_OWNER) {
            return Err(Errno::EACCES);
        }
        Ok(())
    }

    /// `EPERM` unless `creds` may change or remove the object.
    pub fn check_owner(&self, creds: &Creds, ns: &Arc<UserNamespace>) -> Result<(), Errno> {
        let is_owner = creds.euid == self.cuid || creds.euid == self.uid;
        if is_owner || creds.has_in(ns, CapSet::SYS_ADMIN) {
            return Ok(());
        }
        Err(Errno::EPERM)
    }

    /// `IPC_SET`: new owner and mode.
    pub fn set(&mut self, new: &IpcPerm, creds: &Creds) -> Result<(), Errno> {
        let uid = creds.user_ns.uid_to_kernel(new.uid).ok_or(Errno::EINVAL)?;
        let gid = creds.user_ns.gid_to_kernel(new.gid).ok_or(Errno::EINVAL)?;
        self.uid = uid;
        self.gid = gid;
        self.mode = new.mode & 0o777;
        Ok(())
    }

    /// As `IPC_STAT` shows it to `creds`.
    pub fn abi(&self, creds: &Creds) -> IpcPerm {
        let ns = &creds.user_ns;
        IpcPerm {
            key: self.key,
            uid: ns.uid_or_overflow(self.uid),
            gid: ns.gid_or_overflow(self.gid),
            cuid: ns.uid_or_overflow(self.cuid),
            cgid: ns.gid_or_overflow(self.cgid),
            mode: self.mode,
            seq: u16::try_from(self.id >> super::registry::INDEX_BITS).unwrap_or(0),
            ..IpcPerm::default()
        }
    }

    /// Whether others find it by key.
    pub fn has_key(&self) -> bool {
        self.key != IPC_PRIVATE
    }
}
