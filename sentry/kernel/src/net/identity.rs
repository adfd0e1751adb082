//! Who sent a message or made a connection (`struct ucred`).

use std::sync::Arc;

use syscall_tables::Errno;
use syscall_tables::abi::Ucred;

use crate::task::{CapSet, Gid, Pid, Task, Uid};

/// A process with its user and group, independent of namespaces.
#[derive(Clone)]
pub struct Sender {
    pub pid: Option<Arc<Pid>>,
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Arc<[Gid]>,
}

impl Sender {
    /// What `task` sends when it says nothing else: its real ids.
    pub fn of(task: &Task) -> Self {
        let creds = task.creds();
        Self {
            pid: Some(task.group.pid().clone()),
            uid: creds.uid,
            gid: creds.gid,
            groups: creds.groups.clone(),
        }
    }

    /// As a peer is known by (`SO_PEERCRED`): effective ids.
    pub fn peer(task: &Task) -> Self {
        let creds = task.creds();
        Self {
            uid: creds.euid,
            gid: creds.egid,
            ..Self::of(task)
        }
    }

    /// What `task` claims to be; `EPERM` where it may not.
    pub fn claimed(task: &Task, claim: Ucred) -> Result<Self, Errno> {
        let creds = task.creds();
        let uid = creds.user_ns.uid_to_kernel(claim.uid);
        let gid = creds.user_ns.gid_to_kernel(claim.gid);
        let (uid, gid) = (uid.ok_or(Errno::EINVAL)?, gid.ok_or(Errno::EINVAL)?);
        let own = task.group.pid();
        let is_own = own.number_in(&task.pid_ns()) == claim.pid;
        let pid_owner = task.pid_ns().user_ns.clone();
        let pid_allowed = is_own || creds.has_in(&pid_owner, CapSet::SYS_ADMIN);
        let uid_allowed =
            [creds.uid, creds.euid, creds.suid].contains(&uid) || creds.has_own(CapSet::SETUID);
        let gid_allowed =
            [creds.gid, creds.egid, creds.sgid].contains(&gid) || creds.has_own(CapSet::SETGID);
        if !(pid_allowed && uid_allowed && gid_allowed) {
            return Err(Errno::EPERM);
        }
        let pid = if is_own {
            own.clone()
        } else {
            task.pid_ns().pid(claim.pid).ok_or(Errno::ESRCH)?
        };
        Ok(Self {
            pid: Some(pid),
            uid,
            gid,
            groups: creds.groups.clone(),
        })
    }

    /// As `viewer` sees it.
    pub fn seen_by(&self, viewer: &Task) -> Ucred {
        let user_ns = viewer.creds().user_ns.clone();
        Ucred {
            pid: self
                .pid
                .as_ref()
                .map_or(0, |pid| pid.number_in(&viewer.pid_ns())),
            uid: user_ns.uid_or_overflow(self.uid),
            gid: user_ns.gid_or_overflow(self.gid),
        }
    }

    /// Whether both are the same identity.
    pub fn is(&self, other: &Self) -> bool {
        let pid = |sender: &Self| sender.pid.as_ref().map(Arc::as_ptr);
        pid(self) == pid(other) && self.uid == other.uid && self.gid == other.gid
    }
}
