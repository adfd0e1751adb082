//! Who may look into another task (`ptrace(2)`, "ptrace access mode
//! checking").

use std::sync::Arc;

use super::{CapSet, Creds, Gid, Task, Uid};

/// Which ids of the caller count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessCreds {
    /// `PTRACE_MODE_FSCREDS`: `/proc`.
    FileSystem,
    /// `PTRACE_MODE_REALCREDS`: system calls.
    Real,
}

impl Task {
    /// Whether `caller` may read (or trace) this task.
    pub fn may_be_accessed_by(&self, caller: &Task, which: AccessCreds) -> bool {
        if Arc::ptr_eq(&self.group, &caller.group) {
            return true;
        }
        let own = caller.creds();
        let theirs = self.creds();
        let (uid, gid) = match which {
            AccessCreds::FileSystem => (own.fsuid, own.fsgid),
            AccessCreds::Real => (own.uid, own.gid),
        };
        let capable = own.has_in(&theirs.user_ns, CapSet::SYS_PTRACE);
        if !same_ids(&theirs, uid, gid) && !capable {
            return false;
        }
        if self.mm().dumpable() != 1 && !capable {
            return false;
        }
        let subset =
            Arc::ptr_eq(&own.user_ns, &theirs.user_ns) && own.permitted.contains(theirs.permitted);
        subset || capable
    }
}

fn same_ids(creds: &Creds, uid: Uid, gid: Gid) -> bool {
    [creds.uid, creds.euid, creds.suid]
        .iter()
        .all(|own| *own == uid)
        && [creds.gid, creds.egid, creds.sgid]
            .iter()
            .all(|own| *own == gid)
}
